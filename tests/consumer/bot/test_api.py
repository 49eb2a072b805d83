"""consumer.bot.api: a PaperBot's REST over a few trades counted by hand, and every answer against freqtrade's schemas.

| trade | entry | exit | paid | received | profit | ended |
|---|---|---|---|---|---|---|
| BTC/USD | 2 at 50 | at 60 | 100.1 | 119.88 | 19.78 | Saturday 01:00 |
| ETH/USD | 5 at 20 | at 18 | 100.1 | 89.91 | -10.19 | Sunday 01:30 |
| XRP/USD | 10 at 10 | open, now at 11 | 100.1 | (109.89) | (9.79) | |

1000 USD to begin with, of which a half is tradable; each order costs 0.1 per cent.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest

from consumer.bot import PaperBot
from consumer.bot.api import AT_ONCE, WAITING, PaperAPI
from consumer.bot.book import Book
from consumer.bot.candles import Candle
from hub.protocol.answers import EnteredTrade, OpenTrade
from hub.protocol.botapi import (
    OPERATIONS,
    BotBusy,
    BotError,
    BotFault,
    BotGone,
    LockOrder,
    NotFound,
    OrderType,
    perform,
)
from hub.protocol.messages import AnalyzedDf, FrameKey
from tests.consumer.bot.replay import PAIRS, Context, at, frame, rows, whitelist

pytestmark = pytest.mark.anyio

SCHEMAS = json.loads((Path(__file__).parents[2] / "rest" / "freqtrade_openapi.json").read_text())
CONFIG: dict[str, Any] = {
    "stake_currency": "USD",
    "dry_run_wallet": 1000,
    "stake_amount": 100,
    "tradable_balance_ratio": 0.5,
    "stoploss": -0.5,
    "fee": 0.001,
    "max_open_trades": 3,
    "force_entry_enable": True,
    "order_types": {"force_entry": "limit"},
    "exchange": {"name": "kraken", "pair_blacklist": ["DOGE/.*"]},
    "api_server": {"ws_token": "very-secret-token"},
    "plot_config": {"main_plot": {"sma": {}}},
    "paper": {"start_from": "earliest"},
}
# Saturday 2018-12-01 00:00 UTC is candle 0; it is Sunday, 02:20, a little after the last one.
NOW_S = at(52) / 1000 + 1200
LAST = 51


def candles(pair: str) -> dict[int, Candle]:
    rates = {
        "BTC/USD": lambda i: 50.0 if i < 2 else 60.0,
        "ETH/USD": lambda i: 20.0 if i < LAST else 18.0,
        "XRP/USD": lambda i: 10.0,
    }
    enters = {"BTC/USD": 0, "ETH/USD": 0, "XRP/USD": LAST - 1}
    exits = {"BTC/USD": 1, "ETH/USD": LAST - 1, "XRP/USD": -1}
    made = {}
    for i in range(LAST + 1):
        rate = rates[pair](i)
        close = 11.0 if (pair, i) == ("XRP/USD", LAST) else rate
        made[at(i)] = Candle(
            rate,
            max(rate, close),
            rate,
            close,
            enter_long=i == enters[pair],
            exit_long=i == exits[pair],
            enter_tag="up" if pair != "ETH/USD" else None,
            exit_tag=None,
        )
    return made


@asynccontextmanager
async def running(path: Path, **config: Any) -> AsyncIterator[tuple[PaperAPI, PaperBot, Context]]:
    bot, context = PaperBot(), Context({**CONFIG, **config}, data_dir=path)
    await bot.start(context)
    try:
        yield PaperAPI(bot, clock=lambda: NOW_S), bot, context
    finally:
        await bot.stop()


@asynccontextmanager
async def traded(path: Path, **config: Any) -> AsyncIterator[tuple[PaperAPI, PaperBot, Context]]:
    """A bot that has made the trades of the table."""
    async with running(path, **config) as (api, bot, context):
        await asyncio.to_thread(bot.handle, whitelist())
        for pair in PAIRS:
            await asyncio.to_thread(bot.handle, rows(pair, candles(pair), snapshot=True))
            key = FrameKey(pair, "30m", "spot")
            la = datetime.fromtimestamp(NOW_S, UTC)
            context.frames["hub/alpha", key] = AnalyzedDf(key=key, df=frame(candles(pair)), la=la)
        yield api, bot, context


async def test_all_views_agree_with_the_table(tmp_path: Path) -> None:
    async with traded(tmp_path) as (api, _, _):
        balance, profit = await api.balance(), await api.profit()
        daily, stats = await api.daily(timescale=2), await api.stats()
        assert [(c.currency, c.balance, c.est_stake) for c in balance.currencies] == [
            ("XRP", 10.0, 110.0),
            ("USD", 909.49, 909.49),
        ]
        assert (balance.total, balance.total_bot) == (1019.49, 514.695)
        assert (balance.starting_capital, balance.starting_capital_ratio) == (500.0, 0.02939)
        assert (profit.profit_closed_coin, profit.profit_all_coin) == (9.59, 19.38)
        assert (profit.profit_closed_ratio, profit.profit_closed_percent) == (0.01918, 1.92)
        assert profit.profit_closed_ratio_mean == 0.0479021
        assert profit.profit_all_ratio_sum == pytest.approx(0.0958042 + 0.09780220)
        assert (profit.trade_count, profit.closed_trade_count) == (3, 2)
        assert (profit.winning_trades, profit.losing_trades, profit.winrate) == (1, 1, 0.5)
        assert profit.profit_factor == pytest.approx(19.78 / 10.19)
        assert (profit.best_pair, profit.best_rate, profit.avg_duration) == ("BTC/USD", 19.78, "12:45:00")
        assert (profit.first_trade_date, profit.latest_trade_date) == (
            "2018-12-01 00:30:00",
            "2018-12-02 01:30:00",
        )
        assert (profit.first_trade_humanized, profit.latest_trade_humanized) == (
            "a day ago",
            "30 minutes ago",
        )
        assert (profit.trading_volume, profit.expectancy) == (510.0, pytest.approx(4.795))
        assert (profit.max_drawdown_abs, profit.max_drawdown) == (
            pytest.approx(10.19),
            pytest.approx(10.19 / 519.78),
        )
        # The whole balance is what was begun with and all profit, but for the fee of an exit that is still to come.
        assert balance.total == pytest.approx(1000 + profit.profit_all_coin + 0.11)
        assert [(p.date, p.abs_profit, p.starting_balance, p.trade_count) for p in daily.data] == [
            ("2018-12-02", -10.19, 514.985, 1),
            ("2018-12-01", 19.78, 495.205, 1),
        ]
        assert sum(p.abs_profit for p in daily.data) == pytest.approx(profit.profit_closed_coin)
        assert [p.abs_profit for p in (await api.weekly(timescale=2)).data] == [9.59, 0.0]
        assert [(p.date, p.abs_profit) for p in (await api.monthly(timescale=1)).data] == [
            ("2018-12-01", 9.59)
        ]
        assert msgspec.to_builtins(stats) == {
            "exit_reasons": {"exit_signal": {"wins": 1, "losses": 1, "draws": 0}},
            "durations": {"wins": 1800.0, "draws": None, "losses": 90000.0},
        }
        pairs = [(p.pair, p.profit_abs, p.profit_ratio, p.count) for p in await api.performance()]
        assert pairs == [("BTC/USD", 19.78, 0.1978, 1), ("ETH/USD", -10.19, -0.1019, 1)]
        assert [p.enter_tag for p in await api.entries()] == ["up", "Other"]
        assert [p.mix_tag for p in await api.mix_tags(pair="ETH/USD")] == ["Other exit_signal"]
        assert msgspec.to_builtins(await api.count()) == {"current": 1, "max": 3, "total_stake": 100.0}
        (trade,) = await api.status()
        assert (trade.pair, trade.profit_abs, trade.profit_pct, trade.current_rate) == (
            "XRP/USD",
            9.79,
            9.78,
            11.0,
        )
        page = await api.trades(limit=1, offset=1)
        assert (page.trades_count, page.total_trades, page.trades[0].close_profit_abs) == (1, 2, -10.19)
        assert [t.trade_id for t in (await api.trades(order_by_id=False)).trades] == [2, 1]


ARGUMENTS: dict[str, dict[str, Any]] = {
    "strategy": {"strategy": "PaperBot"},
    "trade": {"tradeid": 1},
    "delete_trade": {"tradeid": 1},
    "cancel_open_order": {"tradeid": 4},
    "reload_trade": {"tradeid": 2},
    "custom_data": {"trade_id": 3},
    "force_enter": {"pair": "ETH/USD", "price": 5.0},
    "force_exit": {"tradeid": "3", "amount": 1.5},
    "add_to_blacklist": {"blacklist": ["ADA/.*", "(bad"]},
    "delete_from_blacklist": {"pairs_to_delete": ["ADA/.*", "QQ"]},
    "add_locks": {"locks": [LockOrder(pair="ETH/USD", until=datetime(2018, 12, 5), reason="x")]},
    "delete_lock": {"lockid": 1},
    "pair_candles": {"pair": "BTC/USD", "timeframe": "30m", "limit": 3},
    "chosen_pair_candles": {"pair": "BTC/USD", "timeframe": "30m", "columns": []},
}
# Commands in an order in which each has something to do.
COMMANDS = [
    "force_enter", "force_exit", "reload_trade", "cancel_open_order", "delete_trade", "add_to_blacklist", "delete_from_blacklist",
    "add_locks", "delete_lock", "delete_locks", "pause", "stop", "start", "reload_config",
]  # fmt: skip


def check(name: str, answer: Any) -> Any:
    """The answer as JSON has it, if it fits freqtrade's schema."""
    told = msgspec.json.decode(msgspec.json.encode(answer))
    jsonschema.validate(told, {**SCHEMAS["answers"][name], "components": SCHEMAS["components"]})
    return told


async def test_every_answer_fits_freqtrades_schema(tmp_path: Path) -> None:
    reads = [name for name, operation in OPERATIONS.items() if operation.reads]
    assert {*reads, *COMMANDS, "chosen_pair_candles"} == set(OPERATIONS)
    async with traded(tmp_path) as (api, bot, _):
        assert bot.book is not None
        bot.book.set_custom_data(3, "level", {"at": 1})
        for name in [*reads, "chosen_pair_candles", *COMMANDS]:
            check(name, await perform(api, OPERATIONS[name], ARGUMENTS.get(name, {})))


async def test_a_fresh_bot_answers_everything_that_freqtrade_does(tmp_path: Path) -> None:
    async with running(tmp_path) as (api, _, _):
        for name in (
            "profit",
            "profit_all",
            "balance",
            "status",
            "trades",
            "stats",
            "daily",
            "count",
            "locks",
        ):
            answer = await perform(api, OPERATIONS[name], {})
            if name.startswith("profit"):
                # Nothing was lost: infinite, which JSON has as null, as freqtrade does.
                one = getattr(answer, "all", answer)
                assert one.profit_factor == float("inf")
                continue
            check(name, answer)
        assert (await api.show_config()).timeframe is None
        empty = await api.pair_candles(pair="BTC/USD", timeframe="1h")
        assert (empty.length, bytes(empty.data)) == (0, b"[]")
        with pytest.raises(NotFound, match=r"^No open trades found\.$"):
            await api.open_custom_data()


async def test_what_a_bot_says_of_itself(tmp_path: Path) -> None:
    async with traded(tmp_path, strategy="Mine") as (api, bot, _):
        config = await api.show_config()
        assert (config.api_version, config.runmode, config.state, config.bot_name) == (
            2.48,
            "dry_run",
            "running",
            "paper",
        )
        assert (config.stake_amount, config.max_open_trades, config.stoploss) == ("100", 3.0, -0.5)
        assert (config.strategy, config.timeframe, config.timeframe_min) == ("Mine", "30m", 30)
        assert (config.exchange, config.force_entry_enable) == ("kraken", True)
        assert config.order_types is not None
        assert (config.order_types["force_entry"], config.order_types["entry"]) == ("limit", "market")
        assert "class PaperBot" in (await api.strategy(strategy="Mine")).code
        with pytest.raises(
            NotFound, match=r"^Only the currently active strategy is available in trade mode$"
        ):
            await api.strategy(strategy="PaperBot")
        assert await api.plot_config() == {"main_plot": {"sma": {}}, "subplots": {}}
        with pytest.raises(BotFault, match="Impossible to load Strategy 'Other'"):
            await api.plot_config(strategy="Other")
        health = await api.health()
        assert health.last_process_ts == (bot.last_process_ms or 0) // 1000
        listed = await api.whitelist()
        assert (listed.whitelist, listed.length, listed.method) == (list(PAIRS), 3, ["ProducerPairList"])
        assert list((await api.markets(base="XRP", quote="USD")).markets) == ["XRP/USD"]
        assert (await api.markets(quote="EUR")).markets == {}


async def test_candles_are_those_of_the_followed_bot(tmp_path: Path) -> None:
    async with traded(tmp_path) as (api, _, _):
        history = await api.pair_candles(pair="BTC/USD", timeframe="30m", limit=2)
        dates = [row[0] for row in json.loads(bytes(history.data))]
        assert dates == ["2018-12-02T01:00:00Z", "2018-12-02T01:30:00Z"]
        assert (history.length, history.last_analyzed) == (2, "2018-12-02T02:20:00Z")
        chosen = await api.chosen_pair_candles(pair="BTC/USD", timeframe="30m", columns=["enter_tag"])
        assert chosen.columns[:6] == ["date", "open", "high", "low", "close", "enter_long"]
        assert (chosen.enter_long_signals, chosen.exit_long_signals) == (1, 1)
        assert (await api.pair_candles(pair="NOPE", timeframe="30m")).columns == []
        with pytest.raises(BotFault, match="timeframe 'xx'"):
            await api.pair_candles(pair="BTC/USD", timeframe="xx")


async def test_states_have_freqtrades_words(tmp_path: Path) -> None:
    paused = "paused, no more entries will occur from now. Run /start to enable entries."
    async with traded(tmp_path) as (api, _, _):
        said = [
            (await perform(api, OPERATIONS[name], {})).status
            for name in ("start", "pause", "pause", "start", "stop", "stop", "pause", "stop", "start")
        ]
        assert said == [
            "already running", paused, paused, "starting trader ...", "stopping trader ...", "already stopped",
            "starting bot with trader in paused state, no entries will occur. Run /start to enable entries.",
            "stopping trader ...", "starting trader ...",
        ]  # fmt: skip
        await api.stop()
        assert (await api.show_config()).state == "stopped"
        for refused in (api.count(), api.force_exit(tradeid="all"), api.force_enter(pair="BTC/USD")):
            with pytest.raises(BotError, match=r"^trader is not running$"):
                await refused
        assert [trade.trade_id for trade in await api.status()] == [3]


async def test_trades_have_freqtrades_errors(tmp_path: Path) -> None:
    async with traded(tmp_path) as (api, _, _):
        for asked, kind, text in (
            (api.trade(tradeid=77), NotFound, "Trade not found."),
            (api.trade(tradeid=2**80), NotFound, "Trade not found."),
            (api.delete_trade(tradeid=77), BotError, "Trade with id '77' not found."),
            (api.cancel_open_order(tradeid=77), BotError, "Invalid trade_id."),
            (api.cancel_open_order(tradeid=3), BotError, "No open order for trade_id."),
            (api.reload_trade(tradeid=77), BotError, "Could not find trade with id 77."),
            (api.force_exit(tradeid="abc"), BotError, "invalid argument"),
            # int() takes these.
            *(
                (api.force_exit(tradeid=n), BotError, "invalid argument")
                for n in ("0_3", " 3", "+3", "\u0663")
            ),
            (api.force_exit(tradeid=1), BotError, "invalid argument"),
            (api.custom_data(trade_id=77), NotFound, "No trade found for trade_id: 77"),
            (api.custom_data(trade_id=2), NotFound, "No custom-data found for Trade ID: 2."),
            (
                api.custom_data(trade_id=2, key="k"),
                NotFound,
                "No custom-data with key 'k' found for Trade ID: 2.",
            ),
            (api.open_custom_data(), NotFound, "No custom-data found for any open trades."),
            (
                api.open_custom_data(key="k"),
                NotFound,
                "No custom-data with key 'k' found for any open trades.",
            ),
            (api.open_custom_data(offset=5), NotFound, "No open trades found."),
        ):
            with pytest.raises(kind) as raised:
                await asked
            assert str(raised.value) == text
        assert (await api.force_exit(tradeid="3", ordertype=OrderType.LIMIT, price=99.0)).result == (
            "Created exit order for trade 3."
        )
        assert (await api.force_exit(tradeid="all")).result == "Created exit orders for all open trades."
        gone = await api.delete_trade(tradeid=1)
        assert gone.result_msg == "Deleted trade #1 for pair BTC/USD. Closed 0 open orders."


async def test_an_entry_that_waits_shows_in_status_balance_and_count(tmp_path: Path) -> None:
    async with traded(tmp_path) as (api, _, _):
        entered = await api.force_enter(pair="BTC/USD", price=40.0, entry_tag="mine")
        assert not isinstance(entered, OpenTrade)
        waiting = (await api.status())[1]
        assert (waiting.amount, waiting.stake_amount, waiting.open_fill_date) == (0.0, 100.0, None)
        assert (waiting.profit_abs, waiting.total_profit_ratio, waiting.has_open_orders) == (0.0, None, True)
        assert waiting.orders[0].cost == 100.0
        money = (await api.balance()).currencies[-1]
        assert (money.used, money.free, money.balance) == (100.1, 809.39, 909.49)
        count = await api.count()
        assert (count.current, count.total_stake) == (2, 100.0)
        profit = await api.profit()
        assert (profit.trade_count, profit.profit_all_coin) == (4, 19.38)
        left = await api.force_exit(tradeid=entered.trade_id if isinstance(entered, EnteredTrade) else "")
        assert left.result == "Cancelled the entry order of trade 4."
        assert [trade.trade_id for trade in await api.status()] == [3]


async def test_log_rows_are_kept_without_secrets(tmp_path: Path) -> None:
    logger = logging.getLogger("tests.paper")
    async with running(tmp_path) as (api, _, _):
        logger.warning("at %s?token=abc&x=1 with %s", "ws://host/ws", "very-secret-token")
        row = (await api.logs(limit=1)).logs[0]
        assert row[2:] == ["tests.paper", "WARNING", "at ws://host/ws?token=***&x=1 with ***"]
        assert isinstance(row[1], float)
        assert row[0] == f"{datetime.fromtimestamp(row[1] / 1000, UTC):%Y-%m-%d %H:%M:%S}"
        before = await api.logs()
        assert before.log_count == len(before.logs)
    logger.warning("after the end")
    assert (await api.logs()).log_count == before.log_count


async def test_questions_are_bounded(tmp_path: Path) -> None:
    async with traded(tmp_path) as (api, bot, _):
        assert bot.book is not None
        release = threading.Event()
        held = [
            asyncio.create_task(api._ask(lambda book: release.wait(10))) for _ in range(AT_ONCE + WAITING)
        ]
        await asyncio.sleep(0)
        with pytest.raises(BotBusy):
            await api.status()
        release.set()
        assert all(await asyncio.gather(*held))
        assert len(await api.status()) == 1


async def test_before_the_start_and_after_the_end_the_bot_is_gone(tmp_path: Path) -> None:
    for name in ("status", "profit", "show_config", "locks", "whitelist"):
        if name != "whitelist":
            with pytest.raises(BotGone):
                await perform(PaperBot().api(), OPERATIONS[name], {})
    async with running(tmp_path) as (api, _, _):
        assert await api.status() == []
    with pytest.raises(BotGone):
        await api.status()


def kept(api: PaperAPI, book: Book) -> list[int]:
    """The numbers of the kept trades, which are those of the book."""
    trades = api._ledger.trades(book).closed
    assert [(t.id, t.profit_abs) for t in trades] == [(t.id, t.profit_abs) for t in book.closed_trades()]
    return [trade.id for trade in trades]


async def test_statistics_follow_trades_that_end_and_trades_that_are_deleted(tmp_path: Path) -> None:
    """The kept trades (`ledger`) never differ from what a reading of all of them gives."""
    async with traded(tmp_path) as (api, bot, _):
        assert bot.book is not None
        before = await api.profit()
        assert await api.profit() == before
        await api.force_exit(tradeid=3, ordertype=OrderType.MARKET)
        rate = Candle(
            12.0, 12.0, 12.0, 12.0, enter_long=False, exit_long=False, enter_tag=None, exit_tag=None
        )
        for pair in PAIRS:
            await asyncio.to_thread(bot.handle, rows(pair, {at(LAST + 1): rate}))
        # 10 at 12, less 0.12 and the 100.1 that were paid.
        assert (await api.profit()).profit_closed_coin == pytest.approx(9.59 + 19.78)
        assert kept(api, bot.book) == [1, 2, 3]
        await api.delete_trade(tradeid=2)
        assert [(p.pair, p.profit_abs) for p in await api.performance()] == [
            ("BTC/USD", 19.78),
            ("XRP/USD", 19.78),
        ]
        assert kept(api, bot.book) == [1, 3]
        assert api._ledger.statistics() == {"closed_trades": 2}
