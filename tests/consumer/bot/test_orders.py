"""consumer.bot.orders, over the book."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from consumer.bot import rules
from consumer.bot.candles import Candle
from consumer.bot.records import OrderStatus
from tests.consumer.bot.desk import BUY, SELL, Desk, flat
from tests.consumer.bot.replay import at

D = Decimal
FORCED = {"force_entry_enable": True, "stoploss": -0.5, "unfilledtimeout": {"entry": 45, "exit": 45}}


def ready(desks: Any, **config: Any) -> Desk:
    """A desk that has seen BTC at 100."""
    desk: Desk = desks(**{**FORCED, **config})
    desk.candle(BTC=flat(100.0))
    return desk


def topics(messages: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [topic for topic, _ in messages]


def bought(desk: Desk) -> int:
    """Enter BTC at 100 at the market, 1 for 100."""
    trade = desk.book.force_enter("BTC/USD")
    desk.candle(BTC=flat(100.0))
    return trade.id


# The candles after an order at 100 that was placed at a close of 100, and what it comes to: (candle, rate) or None.
ENTRIES: list[tuple[str, float | None, list[Candle], tuple[int, str] | None]] = [
    ("market", None, [Candle(103, 105, 99, 104)], (0, "103")),
    ("market", 90, [Candle(103, 105, 99, 104)], (0, "103")),
    ("limit", None, [Candle(103, 105, 99, 104)], (0, "100")),
    ("limit", None, [Candle(97, 105, 96, 104)], (0, "97")),
    ("limit", 95, [Candle(97, 105, 96, 104), Candle(99, 99, 95, 96)], (1, "95")),
    ("limit", 95, [Candle(97, 105, 96, 104), Candle(99, 99, 96, 96), Candle(90, 90, 90, 90)], None),
    ("limit", 120, [Candle(103, 105, 99, 104)], (0, "103")),
]


@pytest.mark.parametrize(("kind", "price", "candles", "outcome"), ENTRIES)
def test_where_an_entry_fills(
    desks: Any, kind: str, price: float | None, candles: list[Candle], outcome: tuple[int, str] | None
) -> None:
    desk = ready(desks)
    placed = desk.book.force_enter("BTC/USD", order_type=kind, price=price)
    assert placed.open_order is not None
    assert (placed.open_fill_ms, placed.paid, placed.open_ms) == (None, 0, at(1))
    reserved = desk.book.wallet().reserved
    assert abs(reserved - placed.stake_amount * D("1.001")) <= D("0.5e-8")
    for candle in candles:
        desk.candle(BTC=candle)
    trade = desk.book.trade(placed.id)
    assert desk.book.wallet().reserved == 0
    if outcome is None:
        assert trade is None
        assert desk.book.wallet().free == 1000
    else:
        assert trade is not None
        assert (trade.open_fill_ms, trade.open_rate) == (at(1 + outcome[0]), D(outcome[1]))
        assert trade.orders[0].average == D(outcome[1])
        assert trade.paid <= D("100.1")
        assert desk.book.wallet().free == 1000 - trade.paid


EXITS: list[tuple[str, float | None, list[Candle], tuple[int, str] | None]] = [
    ("market", None, [Candle(97, 105, 96, 104)], (0, "97")),
    ("limit", None, [Candle(97, 105, 96, 104)], (0, "100")),
    ("limit", None, [Candle(103, 105, 99, 104)], (0, "103")),
    ("limit", 110, [Candle(103, 105, 99, 104), Candle(104, 110, 99, 104)], (1, "110")),
    ("limit", 110, [Candle(103, 105, 99, 104), flat(104.0), flat(120.0)], None),
]


@pytest.mark.parametrize(("kind", "price", "candles", "outcome"), EXITS)
def test_where_an_exit_fills(
    desks: Any, kind: str, price: float | None, candles: list[Candle], outcome: tuple[int, str] | None
) -> None:
    desk = ready(desks)
    number = bought(desk)
    desk.book.force_exit(number, order_type=kind, price=price)
    messages = [message for candle in candles for message in desk.candle(BTC=candle)]
    trade = desk.book.trade(number)
    assert trade is not None
    if outcome is None:
        assert topics(messages) == ["exit_cancel"]
        assert messages[0][1]["reason"] == "cancelled due to timeout"
        assert (trade.is_open, trade.exit_reason, trade.exit_order_status) == (
            True,
            None,
            "cancelled due to timeout",
        )
        assert [order.status for order in trade.orders] == [OrderStatus.CLOSED, OrderStatus.CANCELED]
    else:
        assert topics(messages) == ["exit_fill"]
        assert (trade.close_ms, trade.close_rate) == (at(2 + outcome[0]), D(outcome[1]))
        assert (trade.exit_reason, trade.exit_order_status) == ("force_exit", "closed")


def test_an_entry_that_times_out_is_told_as_freqtrade_tells_it_and_its_number_never_comes_again(
    desks: Any,
) -> None:
    desk = ready(desks)
    desk.book.force_enter("BTC/USD", order_type="limit", price=90.0, tag="mine")
    desk.candle(BTC=flat(101.0))
    desk.candle(ETH=flat(10.0))
    # Another pair's candle is enough: it is candle time that passes.
    ((topic, data),) = desk.candle(ETH=flat(10.0))
    assert topic == "entry_cancel"
    assert data["reason"] == "cancelled due to timeout, fully cancelled"
    assert (data["amount"], data["order_rate"], data["current_rate"]) == (0.0, 90.0, 101.0)
    assert data["open_date"] == "2018-12-01T00:30:00"
    assert (data["enter_tag"], data["order_type"]) == ("mine", "limit")
    desk.reopen()
    assert desk.book.force_enter("BTC/USD").id == 2


def test_an_order_at_the_market_waits_for_its_pair_however_long(desks: Any) -> None:
    desk = ready(desks)
    desk.book.force_enter("BTC/USD")
    for _ in range(5):
        assert desk.candle(ETH=flat(10.0)) == []
    assert topics(desk.candle(BTC=flat(99.0))) == ["entry_fill"]


def test_a_purchase_at_the_market_buys_what_its_stake_buys_at_any_open(desks: Any) -> None:
    desk = ready(desks, stake_amount="unlimited", max_open_trades=1)
    placed = desk.book.force_enter("BTC/USD")
    desk.candle(BTC=flat(300.0))
    trade = desk.book.trade(placed.id)
    assert trade is not None
    assert placed.amount == trade.amount_requested == D("9.99000999")
    assert trade.amount == D("3.33000333")
    assert desk.book.wallet().free == 1000 - trade.paid >= 0
    desk.book.force_exit(1)
    desk.candle(BTC=flat(1.0))
    left = desk.book.wallet().free
    placed = desk.book.force_enter("BTC/USD")
    desk.candle(BTC=flat(1e14))
    # What costs nothing by rounding is not bought.
    assert desk.book.trade(placed.id) is None
    assert desk.book.wallet().free == left


@pytest.mark.parametrize("rate", [3.7, 0.30636, 94.6, 3581.4, 7e-9])
def test_at_the_rate_that_was_asked_it_buys_the_amount_that_was_asked(desks: Any, rate: float) -> None:
    desk = desks(**FORCED)
    desk.candle(BTC=flat(rate), ETH=flat(rate, **BUY))
    placed = desk.book.force_enter("BTC/USD")
    desk.candle(BTC=flat(rate), ETH=flat(rate))
    amount = rules.amount_of(D(100), rules.exact(rate))
    assert {trade.amount for trade in desk.book.open_trades()} == {placed.amount} == {amount}


def test_after_so_many_timeouts_the_exit_is_at_the_market(desks: Any) -> None:
    timeouts = {"entry": 1, "exit": 29, "unit": "minutes", "exit_timeout_count": 2}
    desk = ready(desks, unfilledtimeout=timeouts)
    number = bought(desk)
    told = []
    for _ in range(2):
        desk.book.force_exit(number, order_type="limit", price=200.0)
        told += topics(desk.candle(BTC=flat(100.0)))
        desk.reopen()
        told += topics(desk.candle(BTC=flat(95.0)))
    assert told == ["exit_cancel", "exit_cancel", "exit", "exit_fill"]
    trade = desk.book.trade(number)
    assert trade is not None
    assert (trade.exit_reason, trade.close_rate, trade.orders[-1].order_type) == (
        "emergency_exit",
        95,
        "market",
    )


def test_no_rule_orders_while_an_order_waits(desks: Any) -> None:
    desk = ready(desks, stoploss=-0.1)
    number = bought(desk)
    desk.book.force_exit(number, order_type="limit", price=200.0)
    assert desk.candle(BTC=Candle(100, 100, 50, 60, **SELL)) == []
    # The signal above is used up; the limit times out and the stoploss has its turn in the same candle.
    desk.candle(BTC=flat(60.0))
    assert topics(desk.candle(BTC=flat(60.0))) == ["exit_cancel", "exit", "exit_fill"]


def test_a_signal_leaves_what_an_exit_at_the_same_open_left_over(desks: Any) -> None:
    desk = ready(desks)
    number = bought(desk)
    desk.candle(BTC=flat(100.0, **SELL))
    desk.book.force_exit(number, amount=0.4)
    assert topics(desk.candle(BTC=flat(101.0))) == ["exit_fill", "exit", "exit_fill"]
    reasons = [order.tag for order in desk.book.closed_trades()[0].orders if not order.is_entry]
    assert reasons == ["force_exit", "down"]


def test_within_the_candle_of_a_limit_entry_only_the_stoploss_is_looked_at(desks: Any) -> None:
    desk = ready(desks, stoploss=-0.1, minimal_roi={"0": 0.01})
    desk.book.force_enter("BTC/USD", order_type="limit", price=90.0)
    assert topics(desk.candle(BTC=Candle(100, 130, 90, 95))) == ["entry_fill"]
    (trade,) = desk.book.open_trades()
    assert (trade.min_rate, trade.max_rate) == (90, 95)
    assert topics(desk.candle(BTC=flat(95.0))) == ["exit", "exit_fill"]
    desk.book.force_enter("BTC/USD", order_type="limit", price=90.0)
    messages = desk.candle(BTC=Candle(100, 130, 80, 95))
    assert topics(messages) == ["entry_fill", "exit", "exit_fill"]
    assert messages[-1][1]["close_rate"] == 81.0
    trade = desk.book.closed_trades()[-1]
    assert (trade.min_rate, trade.max_rate) == (81, 90)


def test_an_exit_within_the_candle_frees_no_slot_for_its_open(desks: Any) -> None:
    desk = ready(desks, max_open_trades=1)
    number = bought(desk)
    desk.candle(BTC=flat(100.0), ETH=flat(10.0, **BUY))
    desk.book.force_exit(number, order_type="limit", price=110.0)
    assert topics(desk.candle(BTC=Candle(100, 110, 100, 100), ETH=flat(10.0, **BUY))) == ["exit_fill"]
    assert topics(desk.candle(BTC=flat(100.0), ETH=flat(10.0))) == ["entry", "entry_fill"]


def test_an_exit_at_the_open_frees_its_slot_for_that_open(desks: Any) -> None:
    desk = ready(desks, max_open_trades=1)
    number = bought(desk)
    desk.candle(BTC=flat(100.0), ETH=flat(10.0, **BUY))
    desk.book.force_exit(number, order_type="limit", price=90.0)
    messages = desk.candle(ETH=flat(10.0), BTC=flat(100.0))
    assert topics(messages) == ["exit_fill", "entry", "entry_fill"]


def test_order_types_are_told_and_signals_fill_at_the_open_all_the_same(desks: Any) -> None:
    desk = desks(order_types={"entry": "limit", "exit": "limit", "stoploss": "market"}, stoploss=-0.1)
    desk.candle(BTC=flat(100.0, **BUY))
    messages = desk.candle(BTC=Candle(100, 100, 80, 80))
    assert [(topic, data["order_type"]) for topic, data in messages] == [
        ("entry", "limit"),
        ("entry_fill", "limit"),
        ("exit", "market"),
        ("exit_fill", "market"),
    ]


def test_partial_exits_by_hand(desks: Any) -> None:
    """Bought 1 for 100 and a fee of 0.1; sold 0.25 at 120, 0.25 at 80 and 0.5 at 110, each with a fee of a thousandth."""
    desk = ready(desks)
    number = bought(desk)
    (placed,) = [m for m in desk.book.outgoing(9) if m.topic == "entry_fill"]
    assert placed.data["amount"] == 1.0
    fills = []
    for amount, rate in ((0.25, 120.0), (0.25, 80.0), (None, 110.0)):
        desk.book.force_exit(number, amount=amount)
        fills += [data for topic, data in desk.candle(BTC=flat(rate)) if topic == "exit_fill"]
        desk.reopen()
    # amount, sub_trade, profit, cumulative, final, stake
    assert [
        (
            fill["amount"],
            fill["sub_trade"],
            fill["profit_amount"],
            fill["cumulative_profit"],
            fill["is_final_exit"],
            fill["final_profit_ratio"],
            fill["stake_amount"],
        )
        for fill in fills
    ] == [
        # 30 - 0.03 - 25.025; 20 - 0.02 - 25.025; 55 - 0.055 - 50.05
        (0.25, True, 4.945, 4.945, False, None, 75.0),
        (0.25, True, -5.045, -0.1, False, None, 50.0),
        (0.5, False, 4.895, 4.795, True, 0.0479021, 50.0),
    ]
    trade = desk.book.trade(number)
    assert trade is not None
    assert trade.profit_abs == trade.realized_profit == D("4.795")
    assert (trade.paid, trade.tied, trade.fee_open_cost) == (D("100.1"), 0, D("0.1"))
    assert trade.fee_close_cost == D("0.105")
    assert (trade.amount, trade.stake_amount, trade.max_stake_amount) == (D("0.5"), 50, 100)
    assert (trade.min_rate, trade.max_rate) == (80, 120)
    assert [order.order_id for order in trade.orders] == [
        "paper_buy_BTC/USD_1_1",
        "paper_sell_BTC/USD_1_2",
        "paper_sell_BTC/USD_1_3",
        "paper_sell_BTC/USD_1_4",
    ]
    wallet = desk.book.wallet()
    assert (wallet.free, wallet.closed_profit) == (D("1004.795"), D("4.795"))


def test_what_a_partial_exit_realized_is_stake_for_the_next_entry(desks: Any) -> None:
    desk = ready(desks, stake_amount="unlimited", fee=0)
    number = bought(desk)
    desk.book.force_exit(number, amount=2.5)
    desk.candle(BTC=flat(200.0), ETH=flat(10.0, **BUY))
    desk.candle(BTC=flat(200.0), ETH=flat(10.0))
    # 500 bought 5; 2.5 of them brought 500 for 250: half of 1250 each.
    assert [trade.stake_amount for trade in desk.book.open_trades()] == [250, 625]
    assert desk.book.wallet().free == 1000 - 500 + 500 - 625


def test_a_table_by_hand(desks: Any) -> None:
    """Three trades over four candles: rates, profits and money as computed with pen and paper."""
    desk = ready(desks, stake_amount=200, max_open_trades=3, stoploss=-0.1, minimal_roi={"0": 0.05})
    desk.book.force_enter("BTC/USD", order_type="limit", price=80.0, tag="cheap")
    desk.candle(BTC=Candle(100, 100, 79, 90), ETH=flat(10.0, **BUY), XRP=flat(1.0))
    desk.book.force_enter("XRP/USD", stake=50)
    desk.candle(BTC=flat(84.0), ETH=Candle(10, 10.6, 10, 10), XRP=flat(1.25))
    desk.candle(BTC=flat(70.0), ETH=flat(10.0), XRP=flat(1.25))
    trades = desk.book.closed_trades()
    assert [
        (
            t.pair,
            t.enter_tag,
            t.exit_reason,
            t.amount,
            t.open_rate,
            t.close_rate,
            t.profit_abs,
            t.profit_ratio,
        )
        for t in trades
    ] == [
        # 200 at 80 and 0.2; it opened at 70, under its stop of 72: 175 - 0.175 - 200.2
        ("BTC/USD", "cheap", "stop_loss", D("2.5"), 80, 70, D("-25.375"), D("-0.12674825")),
        # 20 at 10 and 0.2; 10 * 1.001 * 1.05 / 0.999 = 10.5210210210: 210.42042042 - 0.21042042 - 200.2
        ("ETH/USD", "up", "roi", 20, 10, D("10.5210210210"), D("10.01"), D("0.05")),
    ]
    (xrp,) = desk.book.open_trades()
    # 50 at 1 asked, 40 at 1.25 bought.
    assert (xrp.amount_requested, xrp.amount, xrp.stake_amount, xrp.paid) == (50, 40, 50, D("50.05"))
    wallet = desk.book.wallet()
    assert wallet.closed_profit == D("-15.365")
    assert wallet.free == 1000 - D("15.365") - D("50.05")
    # Points are of the hours' first candles: at 00:30 all is money; at 01:00 200 of it are 2.5 at 90, 50.05 wait.
    points = [(point.at_ms - at(0), point.total) for point in desk.book.wallet_points()]
    assert points[0] == (1_800_000, 1000)
    assert points[1] == (3_600_000, D("1000") - D("200.2") + 225)
