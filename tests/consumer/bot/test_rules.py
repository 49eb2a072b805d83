"""consumer.bot.rules."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.bot import rules
from consumer.bot.candles import Candle


def candle(open_: float, high: float, low: float, close: float) -> Candle:
    return Candle(open_, high, low, close)


def test_exact_is_the_shortest_decimal() -> None:
    assert rules.exact(4.2e-11) == Decimal("4.2e-11")
    assert rules.exact(4038.5) == Decimal("4038.5")


def test_an_order_is_rounded_as_documented() -> None:
    filled = rules.fill(Decimal("0.12345678"), Decimal("4038.123456"), Decimal("0.001"))
    assert filled.cost == Decimal("498.53371912")
    assert filled.fee == Decimal("0.49853372")
    assert rules.amount_of(Decimal(100), Decimal(3)) == Decimal("33.33333333")


def test_money_is_rounded_half_to_even() -> None:
    assert rules.fill(Decimal(1), Decimal("0.000000005"), Decimal(0)).cost == Decimal("0E-8")
    assert rules.fill(Decimal(1), Decimal("0.000000015"), Decimal(0)).cost == Decimal("2E-8")


def test_an_unlimited_stake_shares_the_tradable_balance() -> None:
    stake = rules.stake(
        wanted=None,
        slots=3,
        equity=Decimal(900),
        tied=Decimal(0),
        free=Decimal(900),
        ratio=Decimal(1),
        fee=Decimal(0),
    )
    assert stake == 300
    rest = rules.stake(
        wanted=None,
        slots=3,
        equity=Decimal(900),
        tied=Decimal(800),
        free=Decimal(100),
        ratio=Decimal(1),
        fee=Decimal(0),
    )
    assert rest == 100


def test_a_fixed_stake_is_taken_whole_or_not_at_all() -> None:
    def stake(free: str) -> Decimal:
        return rules.stake(
            wanted=Decimal(100),
            slots=None,
            equity=Decimal(500),
            tied=Decimal(0),
            free=Decimal(free),
            ratio=Decimal(1),
            fee=Decimal("0.001"),
        )

    assert stake("100.1") == 100
    assert stake("100.09999999") == 0


@given(
    equity=st.decimals("0.00000001", "1e9", places=8),
    tied_part=st.decimals(0, 1, places=4),
    rate=st.decimals("1e-10", "1e7", places=12).filter(lambda d: d > 0),
    fee=st.decimals(0, "0.5", places=6),
    slots=st.integers(1, 20),
)
def test_a_stake_and_its_fee_never_overdraw(
    equity: Decimal, tied_part: Decimal, rate: Decimal, fee: Decimal, slots: int
) -> None:
    tied = (equity * tied_part).quantize(Decimal("1e-8"))
    free = equity - tied
    stake = rules.stake(
        wanted=None, slots=slots, equity=equity, tied=tied, free=free, ratio=Decimal(1), fee=fee
    )
    filled = rules.fill(rules.amount_of(stake, rate), rate, fee)
    assert 0 <= filled.cost + filled.fee <= free


def test_stoploss_fills_at_the_stop_or_at_the_open_below_it() -> None:
    stop = rules.stop_rate(Decimal(100), Decimal("-0.1"))
    assert stop == 90
    assert rules.leave_within(candle(95, 96, 90, 92), stop=stop, roi=None) == rules.Leave(
        Decimal(90), "stop_loss"
    )
    assert rules.leave_within(candle(85, 96, 80, 92), stop=stop, roi=None) == rules.Leave(
        Decimal(85), "stop_loss"
    )
    assert rules.leave_within(candle(95, 96, 90.1, 92), stop=stop, roi=None) is None


def test_roi_fills_at_its_rate_or_at_the_open_above_it() -> None:
    assert rules.leave_within(candle(95, 110, 94, 92), stop=Decimal(0), roi=Decimal(105)) == rules.Leave(
        Decimal(105), "roi"
    )
    assert rules.leave_within(candle(107, 110, 94, 92), stop=Decimal(0), roi=Decimal(105)) == rules.Leave(
        Decimal(107), "roi"
    )


def test_stoploss_goes_before_roi() -> None:
    leave = rules.leave_within(candle(100, 120, 80, 100), stop=Decimal(90), roi=Decimal(105))
    assert leave == rules.Leave(Decimal(90), "stop_loss")


def test_a_stoploss_of_all_is_never_met() -> None:
    assert (
        rules.leave_within(candle(1, 1, 1e-12, 1), stop=rules.stop_rate(Decimal(100), Decimal(-1)), roi=None)
        is None
    )


@pytest.mark.parametrize(
    ("minutes", "ratio"),
    [(0, Decimal("0.05")), (29, Decimal("0.05")), (30, Decimal("0.02")), (999, Decimal(0))],
)
def test_the_newest_roi_step_counts(minutes: int, ratio: Decimal) -> None:
    table = ((0, Decimal("0.05")), (30, Decimal("0.02")), (60, Decimal(0)))
    assert rules.roi_ratio(table, minutes) == ratio


def test_no_roi_before_its_first_step() -> None:
    assert rules.roi_ratio(((10, Decimal("0.05")),), 9) is None


@given(ratio=st.decimals("-0.5", 2, places=4), fee=st.decimals(0, "0.1", places=4))
def test_the_roi_rate_earns_the_ratio_after_fees(ratio: Decimal, fee: Decimal) -> None:
    rate = rules.roi_rate(Decimal(4000), ratio, fee)
    paid, received = 4000 * (1 + fee), rate * (1 - fee)
    assert abs((received - paid) / paid - ratio) < Decimal("1e-9")
