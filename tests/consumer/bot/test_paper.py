"""consumer.bot.paper."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.bot import PaperBot
from consumer.bot.candles import Candle
from consumer.errors import ConfigError
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


@pytest.mark.anyio
async def test_a_setting_that_cannot_be_used_is_told_at_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        await feed(tmp_path, [], fee="cheap")
