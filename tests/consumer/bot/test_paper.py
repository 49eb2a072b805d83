"""consumer.bot.paper."""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.bot import PaperBot
from consumer.bot.candles import Candle
from consumer.errors import ConfigError
from hub.protocol.botapi import BotError, BotGone, LockOrder
from hub.protocol.localbot import Connected, Delivery, LocalBot, Lost
from hub.protocol.messages import EntryFill
from tests.consumer.bot.replay import PAIRS, Context, at, complete, delivery, rows, whitelist

CONFIG: dict[str, Any] = {
    "stake_currency": "USD",
    "dry_run_wallet": 1000,
    "max_open_trades": 2,
    "stoploss": -0.04,
    "minimal_roi": {"0": 0.04, "120": 0.01},
    "paper": {"start_from": "earliest"},
}

Rows = dict[str, dict[int, Candle]]


def random_rows(seed: int, length: int = 30) -> Rows:
    """A random walk per pair, with signals, tags and a few missing candles."""
    chance, made = random.Random(seed), {pair: {} for pair in PAIRS}
    for pair in PAIRS:
        rate = chance.uniform(1, 5000)
        for index in range(length):
            close = rate * chance.uniform(0.97, 1.03)
            high, low = max(rate, close) * chance.uniform(1, 1.02), min(rate, close) * chance.uniform(0.98, 1)
            if chance.random() > 0.15 or index == length - 1:
                made[pair][at(index)] = Candle(
                    rate,
                    high,
                    low,
                    close,
                    enter_long=chance.random() < 0.4,
                    exit_long=chance.random() < 0.25,
                    enter_tag=chance.choice([None, "up"]),
                )
            rate = close
    return made


async def feed(
    path: Path, deliveries: list[Delivery], **config: Any
) -> list[tuple[str, dict[str, Any], str]]:
    """Run a bot over the deliveries from start to stop; returns what it published."""
    context = Context({**CONFIG, **config}, data_dir=path)
    bot = PaperBot()
    await bot.start(context)
    try:
        for item in deliveries:
            bot.handle(item)
    finally:
        await bot.stop()
    return context.published


def table(path: Path, name: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path / "paper.sqlite")
    try:
        return list(connection.execute(f"select * from {name} order by 1, 2"))
    finally:
        connection.close()


def candle_by_candle(made: Rows) -> list[Delivery]:
    dates = sorted({date for mine in made.values() for date in mine})
    parts = [rows(pair, {d: made[pair][d]}) for d in dates for pair in PAIRS if d in made[pair]]
    return [whitelist(), *parts]


def test_it_is_a_local_bot() -> None:
    assert isinstance(PaperBot(), LocalBot)
    assert not asyncio.iscoroutinefunction(PaperBot.handle)


def test_summary_before_start() -> None:
    with pytest.raises(RuntimeError):
        PaperBot().summary()


@st.composite
def disturbed(draw: st.DrawFn) -> tuple[Rows, list[list[Delivery]]]:
    """Rows, and runs of deliveries of them: joined, reordered between pairs, repeated, and cut by restarts."""
    made = random_rows(draw(st.integers(0, 2**20)))
    runs: list[list[Delivery]] = [[whitelist()]]
    sent: dict[str, int] = dict.fromkeys(PAIRS, 0)
    while any(sent[pair] < len(made[pair]) for pair in PAIRS):
        if draw(st.integers(0, 9)) == 0:
            # After a restart the producer's snapshot repeats all that it ever sent.
            snapshots = [
                rows(p, dict(list(made[p].items())[:n]), snapshot=True) for p, n in sent.items() if n
            ]
            runs.append([*draw(st.permutations([whitelist(), *snapshots]))])
        pair = draw(st.sampled_from([p for p in PAIRS if sent[p] < len(made[p])]))
        size = draw(st.integers(1, 8))
        part = dict(list(made[pair].items())[max(sent[pair] - 1, 0) : sent[pair] + size])
        sent[pair] = min(sent[pair] + size, len(made[pair]))
        runs[-1].append(rows(pair, part))
    return made, runs


@settings(max_examples=20)
@given(disturbed())
def test_speed_batches_lag_and_restarts_do_not_change_the_trades(
    case: tuple[Rows, list[list[Delivery]]],
) -> None:
    made, runs = case

    async def compare(plain: Path, rough: Path) -> None:
        calm = await feed(plain, candle_by_candle(made))
        published = [message for run in runs for message in await feed(rough, run)]
        for name in ("trades", "orders", "signals"):
            assert table(plain, name) == table(rough, name)
        assert [(topic, data) for topic, data, _ in calm] == [(topic, data) for topic, data, _ in published]
        assert len({mid for _, _, mid in published}) == len(published)

    with tempfile.TemporaryDirectory() as plain, tempfile.TemporaryDirectory() as rough:
        asyncio.run(compare(Path(plain), Path(rough)))


def oracle(mine: dict[int, Candle]) -> list[tuple[Any, ...]]:
    """What one pair's trades come to, written down a second time in plain floats: open, close, rates, reason."""
    trades: list[tuple[Any, ...]] = []
    opened: tuple[int, float] | None = None
    before: Candle | None = None
    for date, row in mine.items():
        enter = before is not None and before.enter_long and not before.exit_long
        leave = before is not None and before.exit_long and not before.enter_long
        was_open = opened is not None
        if opened is not None and leave:
            trades.append((opened[0], date, opened[1], row.open, "exit_signal"))
            opened = None
        if not was_open and enter:
            opened = (date, row.open)
        if opened is not None:
            roi = 0.01 if date - opened[0] >= 120 * 60_000 else 0.04
            stop, goal = opened[1] * 0.96, opened[1] * 1.001 * (1 + roi) / 0.999
            if row.low <= stop:
                trades.append((opened[0], date, opened[1], min(stop, row.open), "stop_loss"))
                opened = None
            elif row.high >= goal:
                trades.append((opened[0], date, opened[1], max(goal, row.open), "roi"))
                opened = None
        # The signal of this row is seen by a bot that is in or out of the market by now.
        before = row._replace(
            enter_long=row.enter_long and opened is None, exit_long=row.exit_long and opened is not None
        )
        if row.enter_long and row.exit_long:
            before = row._replace(enter_long=False, exit_long=False)
    return trades


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(4))
async def test_the_trades_are_those_of_a_second_implementation(seed: int, tmp_path: Path) -> None:
    made = random_rows(seed, 120)
    await feed(tmp_path, candle_by_candle(made), max_open_trades=-1, stake_amount=10)
    for pair, mine in made.items():
        names = "open_ms, close_ms, open_rate, close_rate, exit_reason"
        connection = sqlite3.connect(tmp_path / "paper.sqlite")
        query = f"select {names} from trades where pair = ? and not is_open order by id"
        found = list(connection.execute(query, (pair,)))
        connection.close()
        expected = oracle(mine)
        assert len(expected) > 5
        assert [(a, b, reason) for a, b, *_, reason in found] == [(a, b, r) for a, b, *_, r in expected]
        for (_, _, opened, closed, _), (_, _, rate, exit_rate, _) in zip(found, expected, strict=True):
            assert float(opened) == rate
            assert float(closed) == pytest.approx(exit_rate, rel=1e-10)


@pytest.mark.anyio
async def test_no_order_depends_on_what_comes_later(tmp_path: Path) -> None:
    made = random_rows(5, 60)
    whole, half = tmp_path / "whole", tmp_path / "half"
    await feed(whole, candle_by_candle(made))
    end = at(30)
    known = {pair: {date: row for date, row in mine.items() if date <= end} for pair, mine in made.items()}
    await feed(half, [*candle_by_candle(known), complete(end, PAIRS, ())])
    orders = table(half, "orders")
    assert len(orders) > 5
    assert orders == [order for order in table(whole, "orders") if order[3] <= end]


@pytest.mark.anyio
async def test_candle_complete_moves_on_without_a_missing_pair(tmp_path: Path) -> None:
    buy, flat = Candle(100.0, 100.0, 100.0, 100.0, enter_long=True), Candle(100.0, 100.0, 100.0, 100.0)
    published = await feed(
        tmp_path,
        [
            whitelist("BTC/USD", "ETH/USD"),
            rows("BTC/USD", {at(0): buy, at(1): flat}),
            complete(at(1), ("BTC/USD",), ("ETH/USD",)),
        ],
    )
    assert [topic for topic, _, _ in published] == ["entry", "entry_fill"]


@pytest.mark.anyio
async def test_a_fresh_live_bot_leaves_the_snapshot_alone(tmp_path: Path) -> None:
    made = random_rows(1)
    snapshots = [rows(pair, mine, snapshot=True) for pair, mine in made.items()]
    published = await feed(tmp_path, [whitelist(), *snapshots], paper={"start_from": "live"})
    assert published == []


@pytest.mark.anyio
async def test_only_one_bot_and_timeframe_are_traded(tmp_path: Path) -> None:
    made = random_rows(2)
    mine = candle_by_candle(made)
    other = [whitelist(bot="beta"), *(rows(pair, r, bot="beta") for pair, r in made.items())]
    hourly = [rows(pair, r, timeframe="1h") for pair, r in made.items()]
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert await feed(alone, mine)
    # It is the first frame that makes a bot the one to follow: bots that only trade publish whitelists, too.
    own = whitelist("XRP/USD", bot="paper")
    await feed(together, [own, other[0], mine[0], mine[1], *other[1:], *hourly, *mine[2:]])
    assert table(alone, "trades") == table(together, "trades")


@pytest.mark.anyio
async def test_settings_choose_what_is_traded(tmp_path: Path) -> None:
    made = random_rows(3)
    other = [whitelist(bot="beta"), *(rows(pair, r, bot="beta") for pair, r in made.items())]
    assert await feed(tmp_path, other, paper={"start_from": "earliest", "bot": "alpha"}) == []


@pytest.mark.anyio
async def test_what_is_no_candle_is_not_looked_at(tmp_path: Path) -> None:
    await feed(
        tmp_path,
        [
            delivery("connected", Connected(producer="hub")),
            delivery("hub.gap", Lost(producer="hub", topics=(), first=1, last=2, reason="retention")),
            delivery("entry_fill", EntryFill(trade_id=1, pair="BTC/USD")),
            complete(at(0), PAIRS, ()),
        ],
    )
    assert table(tmp_path, "trades") == []


@pytest.mark.anyio
async def test_people_order_and_a_subclass_keeps_data(tmp_path: Path) -> None:
    context = Context({**CONFIG, "force_entry_enable": True}, data_dir=tmp_path)
    bot = PaperBot()
    assert bot.book is None
    with pytest.raises(RuntimeError):
        bot.get_custom_data(1, "k")
    await bot.start(context)
    flat = Candle(100.0, 100.0, 100.0, 100.0)
    for item in (whitelist("BTC/USD"), rows("BTC/USD", {at(0): flat})):
        bot.handle(item)
    assert bot.pairs == ("BTC/USD",)
    assert bot.book is not None
    trade = bot.book.force_enter("BTC/USD")
    bot.set_custom_data(trade.id, "k", [1])
    assert (bot.get_custom_data(trade.id, "k"), bot.get_custom_data(trade.id, "x", 7)) == ([1], 7)
    await bot.stop()
    assert [topic for topic, _, _ in context.published] == ["entry"]


async def bulletins(context: Context, count: int) -> list[tuple[str, list[str]]]:
    """So many messages beside those of orders, once they were published."""
    async with asyncio.timeout(5):
        while len(context.bulletins) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    return context.bulletins


@pytest.mark.anyio
async def test_the_whitelist_and_the_candles_are_published(tmp_path: Path) -> None:
    made, context = random_rows(6), Context(CONFIG, data_dir=tmp_path)
    bot = PaperBot()
    await bot.start(context)
    for item in (whitelist("XRP/USD", bot="paper"), *candle_by_candle(made)):
        await asyncio.to_thread(bot.handle, item)
    first = await bulletins(context, 4)
    assert first[0] == ("whitelist", list(PAIRS))
    assert sorted(first[1:4]) == [("new_candle", [pair, "30m", "spot"]) for pair in PAIRS]
    figures = bot.statistics()["bulletin"]
    assert figures["published"] + figures["waiting"] < 8 < bot.book.revision  # type: ignore[union-attr]
    await bot.stop()


@pytest.mark.anyio
async def test_the_configuration_is_checked_before_the_bot_begins_anew(tmp_path: Path) -> None:
    context, bot = Context(CONFIG, data_dir=tmp_path), PaperBot()
    with pytest.raises(BotGone):
        await bot.api().reload_config()
    await bot.start(context)
    for changes, text in (
        ({"stoploss": 0}, "stoploss: expected a number under 0, got 0"),
        (
            {"stake_currency": "EUR"},
            "stake_currency: expected 'USD', the currency of the wallet in db_url, got 'EUR'",
        ),
    ):
        context.file = CONFIG | changes
        with pytest.raises(BotError) as caught:
            await bot.api().reload_config()
        assert str(caught.value) == text
    assert context.reloads == []
    context.file = CONFIG | {"stake_currency": "EUR", "db_url": f"sqlite:///{tmp_path}/other.sqlite"}
    assert (await bot.api().reload_config()).status == "Reloading config ..."
    assert context.reloads == [context.file]
    await bot.stop()
    with pytest.raises(BotGone):
        await bot.api().reload_config()


@pytest.mark.anyio
async def test_the_log_tells_what_happens_in_plain_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = {"force_entry_enable": True, "max_open_trades": 3, "stake_amount": 100}
    context, bot = Context(CONFIG | more, data_dir=tmp_path), PaperBot()
    up = Candle(100.0, 100.0, 100.0, 100.0, enter_long=True, enter_tag="up\x1b")
    flat, high = Candle(100.0, 100.0, 100.0, 100.0), Candle(100.0, 120.0, 100.0, 120.0)
    with caplog.at_level(logging.INFO, "consumer.bot"):
        await bot.start(context)
        for item in (whitelist("BTC/USD"), rows("BTC/USD", {at(0): up, at(1): flat, at(2): high})):
            bot.handle(item)
        api = bot.api()
        await api.force_enter(pair="BTC/USD", price=90.0)
        await api.cancel_open_order(tradeid=2)
        with pytest.raises(BotError):
            await api.cancel_open_order(tradeid=2)
        await api.force_enter(pair="BTC/USD", entry_tag="mine")
        bot.handle(rows("BTC/USD", {at(3): flat}))
        await api.force_exit(tradeid=3)
        bot.handle(rows("BTC/USD", {at(4): flat}))
        for _ in range(2):
            await api.pause()
        await api.start()
        lock = LockOrder(pair="BTC/USD", until=datetime(9999, 12, 31, tzinfo=UTC), reason="news")
        await api.add_locks(locks=[lock])
        await api.delete_lock(lockid=1)
        await api.delete_trade(tradeid=1)
        await api.add_to_blacklist(blacklist=["DOGE/.*"])
        told = [row[4] for row in (await api.logs()).logs if row[2].startswith("consumer.bot")]
        await bot.stop()
    assert told == [
        "paper starts, running: at most 3 trades of 100 USD, stoploss -0.04",
        "BTC/USD, trade 1: entered at 2018-12-01 00:30, 1 at 100 (up\ufffd)",
        "BTC/USD, trade 1: left at 2018-12-01 01:00, 1 at 104.20821, profit 4.004 USD (4.00%) (roi)",
        "BTC/USD: entry forced by a person",
        "BTC/USD, trade 2: entry order placed, market, 1.1111111 at 90 (force_entry)",
        "BTC/USD, trade 2: entry order cancelled: user requested order cancel, fully cancelled",
        "BTC/USD: entry forced by a person",
        "BTC/USD, trade 3: entry order placed, market, 0.83333333 at 120 (mine)",
        "BTC/USD, trade 3: entered at 2018-12-01 01:30, 0.99999999 at 100 (mine)",
        "BTC/USD, trade 3: exit order placed, market, 0.99999999 at 100, forced by a person",
        "BTC/USD, trade 3: left at 2018-12-01 02:00, 0.99999999 at 100, profit -0.2 USD (-0.20%), forced by a person",
        "paused by a person",
        "started by a person",
        "BTC/USD is locked by a person (*) until 9999-12-31 00:00: news",
        "lock 1 of BTC/USD is taken off by a person",
        "BTC/USD, trade 1: deleted by a person",
        "DOGE/.* is put on the blacklist by a person",
    ]


@pytest.mark.anyio
async def test_a_setting_that_cannot_be_used_is_told_at_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        await feed(tmp_path, [], fee="cheap")
