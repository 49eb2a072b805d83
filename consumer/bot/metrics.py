"""Metrics: what a list of profits says of a strategy, by freqtrade's definitions.

Profits are floats in stake currency, in the order in which the trades ended; `start` is the balance that they are measured
against. These are statistics, not money: they are computed in floats. Each figure equals freqtrade 2026.9's to the last few
digits (tests/interop/test_paper_metrics.py), also where there is nothing to divide by: -100 where a deviation or drawdown is
zero, 0 where there is no time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "Drawdown",
    "cagr",
    "calmar",
    "drawdown",
    "expectancy",
    "profit_factor",
    "sharpe",
    "sortino",
    "sqn",
]

_DAYS = math.sqrt(365)
_NONE = -100.0
_NO_LOSS = 100.0
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Drawdown:
    """The deepest fall of the balance from a high, and the present one. `at` are places in the list of profits.

    `ratio` is the fall to the balance at its high. Without any fall, high and low are the first trade.
    """

    amount: float
    ratio: float
    high_at: int
    low_at: int
    current_amount: float
    current_ratio: float
    current_high: float
    current_high_at: int


def expectancy(profits: Sequence[float]) -> tuple[float, float]:
    """The mean profit, and what a trade earns per unit that it risks (100 where nothing was lost)."""
    if not profits:
        return 0.0, _NO_LOSS
    wins, losses = [p for p in profits if p > 0], [-p for p in profits if p < 0]
    mean = math.fsum(profits) / len(profits)
    if not losses:
        return mean, _NO_LOSS
    won = math.fsum(wins) / len(wins) if wins else 0.0
    risk_reward = won / (math.fsum(losses) / len(losses))
    return mean, (1 + risk_reward) * (len(wins) / len(profits)) - 1


def profit_factor(profits: Sequence[float]) -> float:
    """What was won to what was lost; infinite where nothing was lost."""
    lost = -math.fsum(p for p in profits if p < 0)
    return math.fsum(p for p in profits if p > 0) / lost if lost else math.inf


def sharpe(profits: Sequence[float], first_ms: int, last_ms: int, start: float) -> float:
    """The yearly Sharpe ratio of trades between two moments, in ms."""
    return _per_risk(profits, profits, first_ms, last_ms, start)


def sortino(profits: Sequence[float], first_ms: int, last_ms: int, start: float) -> float:
    """As `sharpe`, with the deviation of the losses only."""
    return _per_risk(profits, [p for p in profits if p < 0], first_ms, last_ms, start)


def calmar(profits: Sequence[float], first_ms: int, last_ms: int, start: float) -> float:
    """The yearly return, in per cent, to the deepest drawdown."""
    days = _days(profits, first_ms, last_ms)
    if not days:
        return 0.0
    deepest = drawdown(profits, start).ratio
    return math.fsum(profits) / start / days * 100 / deepest * _DAYS if deepest else _NONE


def sqn(profits: Sequence[float], start: float) -> float:
    """Van Tharp's System Quality Number, to four places."""
    if not profits:
        return 0.0
    ratios = np.asarray(profits, np.float64) / start
    spread = _deviation(ratios, 1) if len(profits) > 1 else 0.0
    return round(math.sqrt(len(profits)) * float(ratios.mean()) / spread, 4) if spread else _NONE


def cagr(days: int, start: float, end: float) -> float:
    """The growth of a year at the pace of `days`; 0 where that is beyond any number or cannot be said."""
    if days <= 0 or start <= 0 or end < 0:
        return 0.0
    try:
        return float((end / start) ** (365 / days)) - 1
    except OverflowError:
        return 0.0


def drawdown(profits: Sequence[float], start: float) -> Drawdown:
    """The drawdowns of a balance that began with `start`; `profits` are not empty."""
    totals = np.cumsum(np.asarray(profits, np.float64))
    highs = np.maximum(np.maximum.accumulate(totals), 0.0)
    falls = highs - totals
    low = int(falls.argmax())
    high = int(highs[: low + 1].argmax())
    current = float(highs[-1])
    return Drawdown(
        amount=float(falls[low]),
        ratio=float(falls[low] / (start + highs[low])),
        high_at=high,
        low_at=low,
        current_amount=float(falls[-1]),
        current_ratio=float(falls[-1] / (start + current)),
        current_high=current,
        current_high_at=int(highs.argmax()),
    )


def _per_risk(
    profits: Sequence[float], risky: Sequence[float], first_ms: int, last_ms: int, start: float
) -> float:
    days = _days(profits, first_ms, last_ms)
    if not days:
        return 0.0
    spread = _deviation(np.asarray(risky, np.float64) / start, 0)
    return math.fsum(profits) / start / days / spread * _DAYS if spread else _NONE


def _days(profits: Sequence[float], first_ms: int, last_ms: int) -> int:
    """Whole days, at least one; 0 where there is nothing to measure."""
    return 0 if not profits or first_ms == last_ms else max((last_ms - first_ms) // _DAY_MS, 1)


def _deviation(ratios: npt.NDArray[np.float64], degrees: int) -> float:
    """The standard deviation; exactly 0 where all are equal, which a mean of floats would miss."""
    if not len(ratios) or bool((ratios == ratios[0]).all()):
        return 0.0
    return float(ratios.std(ddof=degrees))
