"""consumer.bot.book."""

from __future__ import annotations

import math
import random
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy.orm
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.bot.candles import Candle
from consumer.bot.clock import ReadyCandle
from consumer.bot.journal import Journal
from consumer.bot.models import Order, Trade, Wallet
from tests.consumer.bot.desk import BUY, SELL, SOURCE, Desk, flat
from tests.consumer.bot.replay import at


def test_a_signal_is_carried_out_at_the_open_of_the_next_row(desks: Any) -> None:
    desk = desks()
    assert desk.candle(BTC=flat(100.0, **BUY)) == []
    messages = desk.candle(BTC=Candle(101.0, 105.0, 99.0, 104.0))
    assert [topic for topic, _ in messages] == ["entry", "entry_fill"]
    (position,) = desk.book.summary().open_trades
    assert position.open_rate == 101
    assert position.open_ms == at(1)
    assert position.amount == Decimal("0.99009900")
    assert position.enter_tag == "up"


def test_messages_have_freqtrades_fields(desks: Any) -> None:
    desk = desks(exchange={"name": "kraken"}, fiat_display_currency="EUR")
    desk.candle(BTC=flat(100.0, **BUY))
    (_, entry), (_, entry_fill) = desk.candle(BTC=flat(100.0, **SELL))
    assert entry == entry_fill
    assert entry == {
        "trade_id": 1,
        "buy_tag": "up",
        "enter_tag": "up",
        "exchange": "Kraken",
        "pair": "BTC/USD",
        "leverage": 1.0,
        "direction": "Long",
        "limit": 100.0,
        "order_rate": 100.0,
        "open_rate": 100.0,
        "order_type": "market",
        "stake_amount": 100.0,
        "stake_currency": "USD",
        "base_currency": "BTC",
        "quote_currency": "USD",
        "fiat_currency": "EUR",
        "amount": 1.0,
        "open_date": "2018-12-01T00:30:00+00:00",
        "current_rate": 100.0,
        "sub_trade": False,
    }
    (topic, left), (topic_fill, left_fill) = desk.candle(BTC=flat(110.0))
    assert (topic, topic_fill) == ("exit", "exit_fill")
    assert left["profit_amount"] == pytest.approx(110 - 0.11 - 100 - 0.1, abs=1e-9)
    assert left["gain"] == "profit"
    assert left["exit_reason"] == "down"
    assert left["close_date"] == "2018-12-01T01:00:00+00:00"
    assert (left["cumulative_profit"], left["final_profit_ratio"], left["is_final_exit"]) == (
        0.0,
        None,
        False,
    )
    assert left["current_rate"] == left["close_rate"] == 110.0
    assert left_fill["current_rate"] is None
    assert left_fill["is_final_exit"] is True
    assert left_fill["cumulative_profit"] == left["profit_amount"]
    assert left_fill["final_profit_ratio"] == left["profit_ratio"]


def test_a_signal_outlives_an_outage_and_a_restart(desks: Any) -> None:
    desk = desks()
    desk.candle(BTC=flat(100.0, **BUY), ETH=flat(10.0))
    desk.reopen()
    assert desk.candle(ETH=flat(10.0)) == []
    desk.reopen()
    assert [topic for topic, _ in desk.candle(BTC=flat(90.0))] == ["entry", "entry_fill"]


def test_enter_and_exit_together_ask_for_nothing(desks: Any) -> None:
    desk = desks()
    desk.candle(BTC=flat(100.0, **BUY, **SELL))
    assert desk.candle(BTC=flat(100.0)) == []


def test_a_new_signal_replaces_the_one_just_used(desks: Any) -> None:
    desk = desks(max_open_trades=0)
    for _ in range(3):
        desk.candle(BTC=flat(100.0, **BUY))
    assert desk.book.summary().skipped_entries == 2


def test_entries_take_turns_in_pair_order_until_the_slots_are_full(desks: Any) -> None:
    desk = desks()
    desk.candle(BTC=flat(100.0, **BUY), ETH=flat(10.0, **BUY), XRP=flat(1.0, **BUY))
    desk.candle(BTC=flat(100.0), ETH=flat(10.0), XRP=flat(1.0))
    summary = desk.book.summary()
    assert [position.pair for position in summary.open_trades] == ["BTC/USD", "ETH/USD"]
    assert summary.skipped_entries == 1


def test_an_exit_at_the_open_frees_its_slot_for_an_entry_at_the_same_open(desks: Any) -> None:
    desk = desks(max_open_trades=1)
    desk.candle(XRP=flat(1.0, **BUY))
    desk.candle(BTC=flat(100.0, **BUY), XRP=flat(1.0, **SELL))
    desk.candle(BTC=flat(100.0), XRP=flat(1.0))
    assert [position.pair for position in desk.book.summary().open_trades] == ["BTC/USD"]


def test_a_stoploss_within_the_candle_frees_no_slot_for_its_open(desks: Any) -> None:
    desk = desks(max_open_trades=1)
    desk.candle(BTC=flat(100.0, **BUY))
    desk.candle(BTC=flat(100.0), ETH=flat(10.0, **BUY))
    desk.candle(BTC=Candle(100.0, 100.0, 50.0, 60.0), ETH=flat(10.0))
    summary = desk.book.summary()
    assert summary.open_trades == ()
    assert (summary.closed_trades, summary.skipped_entries) == (1, 1)


def test_a_position_can_be_stopped_in_the_candle_of_its_entry(desks: Any) -> None:
    desk = desks()
    desk.candle(BTC=flat(100.0, **BUY))
    messages = desk.candle(BTC=Candle(100.0, 100.0, 80.0, 85.0))
    assert [topic for topic, _ in messages] == ["entry", "entry_fill", "exit", "exit_fill"]
    assert messages[-1][1]["exit_reason"] == "stop_loss"
    assert messages[-1][1]["close_rate"] == 90.0


def test_roi_steps_come_into_effect_with_candle_time(desks: Any) -> None:
    desk = desks(minimal_roi={"0": 0.5, "60": 0.01})
    desk.candle(BTC=flat(100.0, **BUY))
    assert len(desk.candle(BTC=flat(100.0))) == 2
    assert desk.candle(BTC=flat(105.0)) == []
    messages = desk.candle(BTC=flat(105.0))
    assert messages[-1][1]["exit_reason"] == "roi"
    assert messages[-1][1]["close_rate"] == 105.0


def test_rows_without_sound_rates_are_counted_and_use_up_nothing(desks: Any) -> None:
    desk = desks()
    desk.candle(BTC=flat(100.0, **BUY))
    assert desk.candle(BTC=flat(float("nan"), **SELL)) == []
    assert len(desk.candle(BTC=flat(100.0))) == 2
    assert desk.book.summary().bad_rows == 1


def test_a_pair_off_the_whitelist_is_left_but_not_entered(desks: Any) -> None:
    desk = desks()
    desk.candle(BTC=flat(100.0, **BUY), ETH=flat(10.0))
    desk.candle(BTC=flat(100.0, **SELL), ETH=flat(10.0, **BUY))
    ready = ReadyCandle(at(9), [("BTC/USD", flat(100.0)), ("ETH/USD", flat(10.0))])
    desk.book.act([ready], source=SOURCE, listed=["XRP/USD"])
    summary = desk.book.summary()
    assert (summary.open_trades, summary.closed_trades) == ((), 1)


def test_a_pair_of_another_currency_is_never_entered(desks: Any) -> None:
    desk = desks(stake_currency="EUR")
    desk.candle(BTC=flat(100.0, **BUY))
    assert desk.candle(BTC=flat(100.0)) == []


def test_losses_shrink_what_an_unlimited_stake_shares(desks: Any) -> None:
    desk = desks(stake_amount="unlimited", fee=0, tradable_balance_ratio=0.5)
    desk.candle(BTC=flat(100.0, **BUY))
    desk.candle(BTC=Candle(100.0, 100.0, 50.0, 60.0, **BUY))
    assert desk.book.summary().closed_profit == -25
    desk.candle(BTC=flat(60.0))
    (position,) = desk.book.summary().open_trades
    # 975 times a half, shared by two.
    assert position.stake_amount == Decimal("243.75")


def test_all_survives_a_restart(desks: Any) -> None:
    desk = desks()
    desk.candle(BTC=flat(100.0, **BUY), ETH=flat(10.0, **BUY))
    desk.candle(BTC=flat(100.0, **SELL), ETH=flat(10.0))
    desk.candle(BTC=flat(120.0, **BUY), ETH=flat(11.0))
    before, mids = desk.book.summary(), [m.mid for m in desk.book.outgoing(99)]
    desk.reopen()
    assert desk.book.summary() == before
    assert [m.mid for m in desk.book.outgoing(99)] == mids
    assert desk.book.sources == {SOURCE: at(2)}
    messages = desk.candle(BTC=flat(120.0), ETH=flat(11.0))
    assert messages[0][1]["trade_id"] == 3


def test_a_failed_transaction_leaves_nothing(desks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = desks()
    desk.candle(BTC=flat(100.0, **BUY))
    before = desk.book.summary()
    monkeypatch.setattr(Journal, "tick", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
    with pytest.raises(RuntimeError):
        desk.candle(BTC=flat(100.0))
    desk.reopen()
    assert desk.book.summary() == before
    assert desk.book.outgoing(9) == []


def test_the_outbox_forgets_what_is_published_and_keeps_what_is_refused(desks: Any) -> None:
    desk = desks()
    desk.candle(BTC=flat(100.0, **BUY))
    desk.candle(BTC=flat(100.0))
    first, second = desk.book.outgoing(9)
    assert [first.topic, second.topic] == ["entry", "entry_fill"]
    assert first.mid.endswith("/1/1/entry")
    desk.book.published(first.id)
    desk.book.refused(second.id, "bad_message: no")
    assert desk.book.outgoing(9) == []
    assert (desk.book.summary().outbox, desk.book.summary().refused) == (0, 1)


def test_mids_of_two_databases_differ(tmp_path: Path) -> None:
    mids = []
    for name in ("one", "two"):
        desk = Desk(tmp_path / name)
        desk.candle(BTC=flat(100.0, **BUY))
        desk.candle(BTC=flat(100.0))
        mids.append({message.mid for message in desk.book.outgoing(9)})
        desk.book.close()
    assert not mids[0] & mids[1]


def test_memory_holds_only_what_can_still_change(desks: Any) -> None:
    desk = desks()
    for _ in range(20):
        desk.candle(BTC=flat(100.0, **BUY))
        desk.candle(BTC=flat(100.0, **SELL))
    desk.candle(BTC=flat(100.0))
    assert desk.book.summary().closed_trades == 20
    assert len(list(desk.book._session)) <= 3


GARBAGE = (5e-324, 1e-300, 1e-25, 1e25, 1e300, math.inf, math.nan, -1.0, 0.0)


def any_candle(chance: random.Random) -> Candle:
    """A candle of a market that leaps now and then, and rarely one that cannot be."""
    scale = chance.choice([1e-12, 1e-3, 1.0, 1e3, 1e7, 1e14]) if chance.random() < 0.3 else 1.0
    low, first, second, high = sorted(chance.uniform(0.5, 2) * scale for _ in range(4))
    rates = [first, high, low, second]
    if chance.random() < 0.05:
        rates[chance.randrange(4)] = chance.choice(GARBAGE)
    if chance.random() < 0.01:
        rates = [chance.choice(GARBAGE)] * 4
    side = chance.random()
    return Candle(*rates, enter_long=side < 0.5, exit_long=side > 0.7)


def any_config(chance: random.Random) -> dict[str, Any]:
    roi = [0.01, 0.1, chance.uniform(-1e15, 1e15)]
    return {
        "dry_run_wallet": chance.choice([1e-8, 0.1, 1000.0, 1234.56789, 1e15]),
        "stake_amount": chance.choice(["unlimited", "unlimited", 10 ** chance.uniform(-8, 15)]),
        "max_open_trades": chance.randint(1, 4),
        "fee": chance.choice([0, 0.001, chance.uniform(0, 0.5)]),
        "tradable_balance_ratio": chance.random(),
        "stoploss": -chance.uniform(1e-6, 2),
        "minimal_roi": {str(chance.randint(0, 300)): chance.choice(roi) for _ in range(chance.randint(0, 3))},
    }


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_no_cent_is_made_or_lost_whatever_comes(seed: int) -> None:
    chance = random.Random(seed)
    desk = Desk(Path(), **any_config(chance), db_url="sqlite://")
    candles = [{coin: any_candle(chance) for coin in ("BTC", "ETH", "XRP")} for _ in range(40)]
    try:
        for rows in candles:
            desk.candle(**rows)
        with sqlalchemy.orm.Session(desk.book._engine) as session:
            wallet = session.scalars(sqlalchemy.select(Wallet)).one()
            orders = session.scalars(sqlalchemy.select(Order)).all()
            trades = session.scalars(sqlalchemy.select(Trade)).all()
        with localcontext(prec=200):
            moved = sum((o.cost - o.fee if o.side == "exit" else -o.cost - o.fee for o in orders), Decimal(0))
            profit = sum((trade.profit or Decimal(0) for trade in trades), Decimal(0))
            tied = sum((trade.paid for trade in trades if trade.is_open), Decimal(0))
            assert wallet.free == wallet.start + moved
            assert wallet.free == wallet.start + profit - tied
            assert wallet.closed_profit == profit
        for data in (m.data for m in desk.book.outgoing(10_000)):
            assert all(math.isfinite(v) for v in data.values() if isinstance(v, float))
    finally:
        desk.book.close()
