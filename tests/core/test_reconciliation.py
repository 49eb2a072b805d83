"""hub.core.reconciliation: which fills are missing, for every way in which a bot fills and a ledger is told of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.bot_trades import OrderRow, TradeRow, fills_of
from hub.core.entry import Entry
from hub.core.reconciliation import MARGIN_MS, MAX_PAIRS, Comparison, Told, compare, told
from hub.protocol.codec import encode_body

T0 = 1_795_356_000_000
SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000


def order(number: int, amount: float, price: float, at_s: float, side: str = "buy") -> OrderRow:
    return OrderRow(
        order_id=f"o{number}",
        ft_order_side=side,
        is_open=False,
        filled=amount,
        safe_price=price,
        order_filled_timestamp=T0 + int(at_s * SECOND),
    )


def trade(*orders: OrderRow, number: int = 1, opened_s: float = 0, **more: Any) -> TradeRow:
    return TradeRow(
        **{"pair": "BTC/USDT", "is_open": True} | more,
        trade_id=number,
        open_timestamp=T0 + int(opened_s * SECOND),
        orders=list(orders),
    )


def iso(ms: float) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()


class Ledger:
    """Messages as a ledger has them, made of fields."""

    def __init__(self) -> None:
        self.told: list[Told] = []

    def add(self, topic: str, at_s: float, data: Any) -> Ledger:
        entry = Entry("maker", topic, T0 + int(at_s * SECOND), encode_body(data))
        entry.offset = len(self.told) + 1
        message = told(entry)
        assert message is not None
        self.told.append(message)
        return self

    def entry(
        self, amount: float, price: float, at_s: float, *, number: int = 1, opened_s: float = 0, **more: Any
    ) -> Ledger:
        data = {
            "trade_id": number,
            "pair": "BTC/USDT",
            "open_date": iso(T0 + opened_s * SECOND),
            "amount": amount,
            "open_rate": price,
        }
        return self.add("entry_fill", at_s, data | more)

    def exit(
        self, amount: float, price: float, at_s: float, *, closed_s: float | None = None, opened_s: float = 0
    ) -> Ledger:
        data = {
            "trade_id": 1,
            "pair": "BTC/USDT",
            "open_date": iso(T0 + opened_s * SECOND),
            "close_date": iso(T0 + (at_s if closed_s is None else closed_s) * SECOND),
            "amount": amount,
            "close_rate": price,
        }
        return self.add("exit_fill", at_s, data)


def compared(trades: Iterable[TradeRow], ledger: Ledger, since_s: float = -100, **more: Any) -> Comparison:
    return compare(
        trades,
        ledger.told,
        since_ms=T0 + int(since_s * SECOND),
        **{"known_up_to": len(ledger.told)} | more,
    )


def missing(trades: Iterable[TradeRow], ledger: Ledger, **more: Any) -> list[str]:
    return [fill.order_id for fill in compared(trades, ledger, **more).missing]


# --- what is told is not missing


def test_nothing_of_nothing() -> None:
    empty = compared([], Ledger())
    assert (empty.missing, empty.unknown, empty.trades, empty.fills, empty.messages) == ([], [], 0, 0, 0)


def test_a_fill_that_was_told_is_not_missing_and_one_that_was_not_is() -> None:
    row = trade(order(1, 1.0, 100.0, 0), order(2, 1.0, 110.0, 60, "sell"))
    ledger = Ledger().entry(1.0, 100.0, 1)
    assert missing([row], ledger) == ["o2"]
    assert missing([row], ledger.exit(1.0, 110.0, 61)) == []
    assert compared([row], ledger).unknown == []


def test_a_multiset_of_equal_fills_is_counted() -> None:
    row = trade(*(order(i, 1.0, 100.0, 600 * i) for i in range(4)))
    for kept in itertools.chain.from_iterable(itertools.combinations(range(4), n) for n in range(5)):
        ledger = Ledger()
        for i in kept:
            ledger.entry(1.0, 100.0, 600 * i + 1)
        assert missing([row], ledger) == [f"o{i}" for i in range(4) if i not in kept]


def test_partial_exits_are_told_apart_by_their_amounts() -> None:
    exits = [(1, 0.25, 110.0, 60), (2, 0.25, 110.0, 61), (3, 0.5, 111.0, 62)]
    row = trade(order(0, 1.0, 100.0, 0), *(order(n, a, p, t, "sell") for n, a, p, t in exits))
    ledger = Ledger().entry(1.0, 100.0, 0).exit(0.5, 111.0, 63).exit(0.25, 110.0, 61.2, closed_s=61)
    assert missing([row], ledger) == ["o1"]


def test_amounts_and_rates_are_compared_beyond_rounding_only() -> None:
    row = trade(order(1, 0.1 + 0.2, 4.2e-11, 0), order(2, 5.0, 4.2e-11, 600))
    assert missing([row], Ledger().entry(0.3, 4.2000000001e-11, 900)) == ["o2"]


def test_a_final_exit_tells_the_amount_of_the_trade() -> None:
    row = trade(
        order(1, 1.0, 100.0, 0),
        order(2, 0.9999, 110.0, 60, "sell"),
        is_open=False,
        amount=1.0,
        open_rate=100.0,
    )
    ledger = Ledger().entry(1.0, 100.0, 0).exit(1.0, 110.0, 60)
    assert missing([row], ledger) == []


def test_a_message_whose_figures_were_corrected_later_counts_as_told() -> None:
    row = trade(order(1, 1.0, 100.0, 0), order(2, 1.0, 101.0, HOUR / SECOND))
    ledger = Ledger().entry(1.0, 100.0, 0).entry(0.7, 101.2, 4000)
    assert missing([row], ledger) == []


def test_a_repeated_message_does_not_hide_another_fill() -> None:
    row = trade(order(1, 1.0, 100.0, 0), order(2, 3.0, 90.0, 3600))
    ledger = Ledger().entry(1.0, 100.0, 0).entry(1.0, 100.0, 30)
    result = compared([row], ledger)
    assert [fill.order_id for fill in result.missing] == ["o2"]
    assert [message.offset for message in result.unknown] == [2]


def test_with_as_many_messages_as_orders_near_their_times_nothing_is_missing() -> None:
    row = trade(order(1, 1.0, 100.0, 0), order(2, 2.0, 90.0, 3600))
    assert missing([row], Ledger().entry(1.0, 100.0, 0).entry(1.0, 100.0, 3601)) == []


def test_a_message_without_figures_or_dates_counts() -> None:
    row = trade(order(1, 1.0, 100.0, 0))
    ledger = Ledger().add("entry_fill", 1, {"trade_id": 1, "pair": "BTC/USDT"})
    assert missing([row], ledger) == []


# --- which trade it is


def test_a_number_used_again_by_another_database_is_another_trade() -> None:
    ledger = Ledger().entry(1.0, 100.0, 0)
    again = trade(order(1, 1.0, 100.0, 7200), opened_s=7200)
    result = compared([again], ledger)
    assert [fill.order_id for fill in result.missing] == ["o1"]
    assert [message.offset for message in result.unknown] == [1]
    assert result.missing[0].mid != fills_of(trade(order(1, 1.0, 100.0, 0)))[0].mid


def test_the_pair_is_part_of_the_trade() -> None:
    row = trade(order(1, 1.0, 100.0, 0), pair="ETH/USDT")
    assert missing([row], Ledger().entry(1.0, 100.0, 0)) == ["o1"]


def test_dates_without_a_fraction_of_a_second_are_near_enough() -> None:
    row = trade(order(1, 1.0, 100.0, 0), opened_s=0.999)
    assert missing([row], Ledger().entry(1.0, 100.0, 1, opened_s=0)) == []


def test_a_naive_date_is_utc() -> None:
    ledger = Ledger().entry(1.0, 100.0, 1, open_date=iso(T0).removesuffix("+00:00"))
    assert missing([trade(order(1, 1.0, 100.0, 0))], ledger) == []


def test_a_trade_read_twice_counts_once_as_it_was_last() -> None:
    first, then = (
        trade(order(1, 1.0, 100.0, 0)),
        trade(order(1, 1.0, 100.0, 0), order(2, 1.0, 110.0, 9, "sell")),
    )
    result = compared([first, then], Ledger().entry(1.0, 100.0, 0))
    assert [fill.order_id for fill in result.missing] == ["o2"]
    assert (result.trades, result.fills) == (1, 2)


# --- what was reconciled before


def test_a_published_fill_is_told_for_ever_by_its_order() -> None:
    row = trade(order(1, 1.0, 100.0, 0), order(2, 1.0, 100.0, 1))
    ledger = Ledger().entry(1.0, 100.0, 0, source="reconciled", order_id="o2")
    assert missing([row], ledger) == ["o1"]


def test_a_reconciled_message_is_of_no_other_order() -> None:
    row = trade(order(1, 1.0, 100.0, 0))
    ledger = Ledger().entry(1.0, 100.0, 0, source="reconciled", order_id="gone")
    assert missing([row], ledger) == ["o1"]


def test_an_order_id_of_a_bots_own_is_a_hint_only() -> None:
    row = trade(order(1, 1.0, 100.0, 0))
    assert missing([row], Ledger().entry(1.0, 100.0, 0, order_id="its-own")) == []


# --- from when on, and by whose clock


def test_what_was_filled_before_is_left_alone() -> None:
    row = trade(order(1, 1.0, 100.0, 0), order(2, 2.0, 100.0, 600))
    assert missing([row], Ledger(), since_s=600) == ["o2"]
    assert missing([row], Ledger(), since_s=600.001) == []


def test_an_old_fill_does_not_take_the_message_of_a_young_one() -> None:
    row = trade(order(1, 1.0, 100.0, -1200), order(2, 1.0, 100.0, 0))
    assert missing([row], Ledger().entry(1.0, 100.0, 5), since_s=-60) == []


def test_an_old_fill_takes_its_own_message() -> None:
    row = trade(order(1, 1.0, 100.0, -70), order(2, 1.0, 100.0, 0))
    assert missing([row], Ledger().entry(1.0, 100.0, -65), since_s=-60) == ["o2"]


@pytest.mark.parametrize("skew_s", [-7200, 7200])
def test_a_bots_clock_that_is_wrong(skew_s: int) -> None:
    row = trade(order(1, 1.0, 100.0, skew_s), order(2, 1.0, 100.0, skew_s + 600), opened_s=skew_s)
    ledger = Ledger().entry(1.0, 100.0, 600, opened_s=skew_s)
    skew = {"skew_ms": skew_s * SECOND}
    assert missing([row], ledger, since_s=-10, **skew) == ["o1"]
    assert missing([row], Ledger(), since_s=10, **skew) == ["o2"]


# --- the other direction


def test_a_fill_that_the_bot_does_not_know_is_reported_if_it_can_know_it() -> None:
    ledger = (
        Ledger()
        .entry(1.0, 100.0, -500, number=6)
        .entry(1.0, 100.0, 1, number=7)
        .entry(1.0, 100.0, 2, number=8)
    )
    unknown = compared([], ledger, since_s=-100, known_up_to=2).unknown
    assert [message.offset for message in unknown] == [2]
    assert compared([], ledger, known_up_to=None).unknown == []


def test_a_bot_that_lives_in_other_days_has_no_unknown_fills() -> None:
    days = -40 * 24 * 3600
    row = trade(
        order(1, 1.0, 100.0, days),
        order(2, 1.0, 110.0, days + 60, "sell"),
        opened_s=days,
        is_open=False,
        close_timestamp=T0 + (days + 60) * SECOND,
    )
    ledger = Ledger().entry(1.0, 100.0, 1, opened_s=days)
    ledger.exit(1.0, 110.0, 2, closed_s=days + 60, opened_s=days)
    for trades in ([row], []):
        result = compared(trades, ledger)
        assert (result.missing, result.unknown) == ([], [])


def test_a_second_message_of_an_old_fill_is_unknown() -> None:
    row = trade(order(1, 1.0, 100.0, -1200))
    result = compared([row], Ledger().entry(1.0, 100.0, 1).entry(1.0, 100.0, 2))
    assert [message.offset for message in result.unknown] == [2]


# --- order


def test_missing_fills_come_by_time_and_an_entry_before_its_exit() -> None:
    first = trade(order(2, 1.0, 100.0, 5, "sell"), order(1, 1.0, 100.0, 5))
    second = trade(order(3, 1.0, 100.0, 1), order(4, 1.0, 100.0, 9, "sell"), number=2)
    assert missing([first, second], Ledger()) == ["o3", "o1", "o2", "o4"]


# --- hostile


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "x",
        {},
        {"trade_id": True, "pair": "A/B"},
        {"trade_id": "1", "pair": "A/B"},
        {"trade_id": 1, "pair": 2},
    ],
)
def test_a_message_that_cannot_be_matched_is_none(data: Any) -> None:
    assert told(Entry("maker", "entry_fill", T0, encode_body(data))) is None


def test_fields_of_other_types_say_nothing() -> None:
    data = {
        "trade_id": 1,
        "pair": "A/B",
        "open_date": "soon",
        "close_date": 5,
        "amount": "1",
        "close_rate": True,
        "order_id": 3,
    }
    message = told(Entry("maker", "exit_fill", T0, encode_body(data)))
    assert message is not None
    assert (message.open_ms, message.amount, message.rate, message.order_id) == (None, None, None, None)
    assert message.at_ms == T0


def test_too_many_fills_of_one_trade_are_refused() -> None:
    many = int(MAX_PAIRS**0.5) + 1
    row = trade(*(order(i, 1.0, 100.0, 0) for i in range(many)))
    ledger = Ledger().entry(1.0, 100.0, 0)
    with pytest.raises(ValueError, match="trade 1: too many"):
        compare([row], ledger.told * many, since_ms=T0)


# --- every schedule


FILLS = st.lists(
    st.tuples(st.sampled_from([1.0, 2.0]), st.sampled_from([100.0, 101.0]), st.integers(0, 40)), max_size=7
)


@given(FILLS, st.lists(st.booleans(), min_size=7, max_size=7), st.integers(0, 5))
def test_what_was_told_late_or_early_is_never_missing_and_what_was_not_is_counted(
    fills: Sequence[tuple[float, float, int]], kept: list[bool], late_s: int
) -> None:
    """Whatever was told of a trade, so many fills are missing as were not told, of the same figures; told again, none is."""
    row = trade(*(order(i, amount, price, 300 * at) for i, (amount, price, at) in enumerate(fills)))
    ledger = Ledger()
    for (amount, price, at), keep in zip(fills, kept, strict=False):
        if keep:
            ledger.entry(amount, price, 300 * at + late_s)
    lost = [fill[:2] for fill, keep in zip(fills, kept, strict=False) if not keep]
    result = compared([row], ledger)
    assert sorted((fill.amounts[0], fill.rate) for fill in result.missing) == sorted(lost)
    assert result.unknown == []
    for fill in result.missing:
        ledger.add("entry_fill", (fill.filled_ms - T0) / SECOND, dict(fill.data))
    assert missing([row], ledger) == []


def test_the_margin_covers_the_lateness_of_a_message() -> None:
    assert MARGIN_MS >= MINUTE
