"""The trading rules of the PaperBot: money, stakes, stoploss and ROI as pure functions.

Rounding, everywhere the same: amounts of the base currency to 8 places, down; money of the quote currency to 8 places,
half to even; a rate that is computed (stoploss, ROI) to 12 significant digits, half to even. Rates of candles are taken
exactly as the shortest decimal that reads back as the same float64.

A position costs `amount * rate` and a fee of that, and brings `amount * rate` less a fee of that; the profit ratio is the
profit to what it cost, fees included, as freqtrade counts it. A part of a position costs its share of that, and the last part
what is left of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Context, Decimal

from consumer.bot.candles import Candle

__all__ = [
    "CONTEXT",
    "LEAST_MONEY",
    "MOST_MONEY",
    "Fill",
    "Leave",
    "affordable",
    "amount_of",
    "available",
    "base_amount",
    "exact",
    "fill",
    "leave_within",
    "profit_ratio",
    "roi_rate",
    "roi_ratio",
    "share",
    "stake",
    "stop_rate",
]

CONTEXT = Context(prec=120, rounding=ROUND_HALF_EVEN)
"""Wide enough that products of amount, rate and fee, and sums of money, are exact: a stake is at most MOST_MONEY, a rate of a
usable candle between `candles.LEAST_RATE` and `candles.MOST_RATE`. Python's own context has 28 digits."""

LEAST_MONEY, MOST_MONEY = Decimal("1e-8"), Decimal("1e15")

_PLACES = Decimal("1e-8")
_RATE = Context(prec=12, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True)
class Fill:
    """What one order moved: `cost` is amount times rate, without `fee`; both in quote currency."""

    rate: Decimal
    amount: Decimal
    cost: Decimal
    fee: Decimal


@dataclass(frozen=True, slots=True)
class Leave:
    """That a position is left within a candle, at which rate and why (freqtrade's word for it)."""

    rate: Decimal
    reason: str


def exact(value: float) -> Decimal:
    """The shortest decimal that reads back as `value`."""
    return Decimal(repr(value))


def fill(amount: Decimal, rate: Decimal, fee: Decimal) -> Fill:
    """An order of `amount` at `rate`, filled at once and wholly, with the ratio `fee`."""
    cost = CONTEXT.multiply(amount, rate).quantize(_PLACES, ROUND_HALF_EVEN, CONTEXT)
    return Fill(rate, amount, cost, CONTEXT.multiply(cost, fee).quantize(_PLACES, ROUND_HALF_EVEN, CONTEXT))


def amount_of(stake: Decimal, rate: Decimal) -> Decimal:
    """How much `stake` buys at `rate`; may be zero."""
    return CONTEXT.divide(stake, rate).quantize(_PLACES, ROUND_DOWN, CONTEXT)


def base_amount(amount: Decimal) -> Decimal:
    """An amount of base currency as it can be held; may be zero."""
    return amount.quantize(_PLACES, ROUND_DOWN, CONTEXT)


def available(*, equity: Decimal, tied: Decimal, free: Decimal, ratio: Decimal) -> Decimal:
    """What may be paid now, fees included: what is left of the tradable balance and of the wallet; may be under 0.

    The tradable balance is `equity` times `ratio`; `tied` is what open trades cost or reserve, `free` the money in the wallet.
    """
    return min(_tradable(equity, ratio) - tied, free)


def affordable(paid: Decimal, fee: Decimal) -> Decimal:
    """The largest stake whose cost and fee together are at most `paid`; 0 when there is none. Never over MOST_MONEY."""
    stake = CONTEXT.divide(min(paid, MOST_MONEY), 1 + fee).quantize(_PLACES, ROUND_DOWN, CONTEXT)
    return max(stake, Decimal(0))


def _tradable(equity: Decimal, ratio: Decimal) -> Decimal:
    return CONTEXT.multiply(equity, ratio).quantize(_PLACES, ROUND_DOWN, CONTEXT)


def stake(
    *,
    wanted: Decimal | None,
    slots: int | None,
    equity: Decimal,
    tied: Decimal,
    free: Decimal,
    ratio: Decimal,
    fee: Decimal,
) -> Decimal:
    """The stake of the next trade without its fee; 0 when the tradable balance does not allow it.

    `wanted` None shares the tradable balance (`equity` times `ratio`) among `slots`, as freqtrade's "unlimited"; a number
    is taken whole or not at all. A stake is never over MOST_MONEY. `tied` is what open trades cost, `free` the money in the
    wallet. Stake and fee never exceed either balance: both are multiples of the last place, so rounding cannot overdraw.
    """
    left = available(equity=equity, tied=tied, free=free, ratio=ratio)
    if wanted is not None:
        size = wanted.quantize(_PLACES, ROUND_DOWN, CONTEXT)
        return size if CONTEXT.multiply(size, 1 + fee) <= left else Decimal(0)
    if not slots:
        return Decimal(0)
    return affordable(min(CONTEXT.divide(_tradable(equity, ratio), Decimal(slots)), left), fee)


def stop_rate(open_rate: Decimal, stoploss: Decimal) -> Decimal:
    """Where the stoploss is: `stoploss` is a ratio below zero; 0 or less means that it is never met."""
    return _RATE.plus(CONTEXT.multiply(open_rate, 1 + stoploss))


def roi_ratio(table: Sequence[tuple[int, Decimal]], minutes: int) -> Decimal | None:
    """The profit ratio that is enough after `minutes`: the newest step of the table that came into effect."""
    due = [ratio for age, ratio in table if age <= minutes]
    return due[-1] if due else None


def roi_rate(open_rate: Decimal, ratio: Decimal, fee: Decimal) -> Decimal:
    """The rate at which a position has earned `ratio` after both fees."""
    gross = CONTEXT.multiply(open_rate, CONTEXT.multiply(1 + fee, 1 + ratio))
    return _RATE.plus(CONTEXT.divide(gross, 1 - fee))


def leave_within(candle: Candle, *, stop: Decimal, roi: Decimal | None) -> Leave | None:
    """Whether a position is left within `candle` by its stoploss or its ROI (rates), and where.

    The stoploss is looked at first: when a candle meets both, nobody knows which came first, and this is the careful
    guess. It fills at the stop, or at the open when the candle opened below it; the ROI at its rate, or at the open when
    the candle opened above it. The rules are those of freqtrade's backtest (documentation: "Assumptions made by
    backtesting"); ours is only that the open takes over what it gapped through, on both sides, as an order at the market
    would: freqtrade takes the stop wherever the candle still reaches it, and the candle's low for a ROI below it.
    """
    if exact(candle.low) <= stop:
        return Leave(min(stop, exact(candle.open)), "stop_loss")
    if roi is not None and exact(candle.high) >= roi:
        return Leave(max(roi, exact(candle.open)), "roi")
    return None


def share(tied: Decimal, part: Decimal, whole: Decimal) -> Decimal:
    """What `part` of a held amount cost, when the whole cost `tied`: to 8 places; of the whole all of it."""
    if part == whole:
        return tied
    return CONTEXT.divide(CONTEXT.multiply(tied, part), whole).quantize(_PLACES, ROUND_HALF_EVEN, CONTEXT)


def profit_ratio(profit: Decimal, paid: Decimal) -> Decimal:
    """Profit to what was paid, to 8 places; 0 for what cost nothing, as a part may by rounding."""
    if not paid:
        return Decimal(0)
    return CONTEXT.divide(profit, paid).quantize(_PLACES, ROUND_HALF_EVEN, CONTEXT)
