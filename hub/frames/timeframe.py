"""Timeframes: how long a candle lasts and which candle a date belongs to.

Names are those of freqtrade and its exchange library: a count and one of `s m h d w M y` ("5m", "1h", "1w", "1M").
Everything below a month has a fixed length. Months and years are counted by the calendar, in UTC.

A *phase* is by how much the candles of some data are shifted against the nominal grid, in ms: weekly candles open on
Thursdays on the grid of 1970 but on Mondays at an exchange, and some exchanges cut days and months at another hour
than midnight UTC. It is a property of the data, so callers take it from their first row (`phase`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from hub.protocol.errors import BadFrame

__all__ = [
    "MAX_DATE_MS",
    "MIN_DATE_MS",
    "candle_date",
    "candle_index",
    "candles_between",
    "is_calendar",
    "phase",
    "timeframe_ms",
]

MIN_DATE_MS = -62_135_596_800_000
"""0001-01-01 UTC, the first date that a datetime can hold."""
MAX_DATE_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, UTC."""

_MINUTE = 60_000
_DAY = 86_400_000
_FIXED = {"s": 1_000, "m": _MINUTE, "h": 60 * _MINUTE, "d": _DAY, "w": 7 * _DAY}
_MONTHS = {"M": 1, "y": 12}
_NAME = re.compile(r"([1-9][0-9]{0,5})([smhdwMy])", re.ASCII)
_LONGEST_DAYS = 3_660


class _Step(NamedTuple):
    """One candle: `ms` nominal, and `months` instead when it is counted by the calendar (else 0)."""

    ms: int
    months: int


@lru_cache(maxsize=256)
def _step(timeframe: str) -> _Step:
    match = _NAME.fullmatch(timeframe) if isinstance(timeframe, str) else None
    if match is None:
        raise BadFrame(
            f"timeframe {_shown(timeframe)}: expected a count and one of s m h d w M y, such as 5m or 1h"
        )
    count, unit = int(match[1]), match[2]
    months = count * _MONTHS.get(unit, 0)
    ms = months * 30 * _DAY if months else count * _FIXED[unit]
    if ms > _LONGEST_DAYS * _DAY:
        raise BadFrame(f"timeframe {_shown(timeframe)}: expected at most ten years")
    return _Step(ms, months)


def _shown(timeframe: object) -> str:
    return repr(timeframe)[:40]


def timeframe_ms(timeframe: str) -> int:
    """Length of a candle in ms; nominal for the calendar ones: a month counts 30 days and a year 360.

    Raises:
        BadFrame: it is no timeframe; the text names it.
    """
    return _step(timeframe).ms


def is_calendar(timeframe: str) -> bool:
    """True when candles are months or years, whose lengths in ms differ. Raises BadFrame as `timeframe_ms`."""
    return _step(timeframe).months > 0


def phase(timeframe: str, date_ms: int) -> int:
    """The shift in ms under which `date_ms` opens a candle: 0 when it lies on the nominal grid.

    Fixed timeframes: 0 <= phase < length. Calendar ones: the distance to the nearest opening, positive or negative.
    """
    step = _step(timeframe)
    if not step.months:
        return date_ms % step.ms
    before = candle_index(timeframe, date_ms)
    return min((date_ms - candle_date(timeframe, before + k) for k in (0, 1)), key=abs)


@overload
def candle_index(timeframe: str, date_ms: int, phase: int = 0) -> int: ...
@overload
def candle_index(timeframe: str, date_ms: npt.NDArray[np.int64], phase: int = 0) -> npt.NDArray[np.int64]: ...
def candle_index(timeframe: str, date_ms: Any, phase: int = 0) -> Any:
    """Number of the candle that contains `date_ms` (ms since 1970 UTC, one or an int64 array); 0 holds 1970-01-01.

    `candle_date(tf, candle_index(tf, d, p), p) == d` is true exactly when `d` opens a candle.
    """
    step = _step(timeframe)
    if not step.months:
        return (date_ms - phase) // step.ms
    months = np.asarray(date_ms - phase, dtype="M8[ms]").astype("M8[M]").astype(np.int64) // step.months
    return months if isinstance(date_ms, np.ndarray) else int(months)


@overload
def candle_date(timeframe: str, index: int, phase: int = 0) -> int: ...
@overload
def candle_date(timeframe: str, index: npt.NDArray[np.int64], phase: int = 0) -> npt.NDArray[np.int64]: ...
def candle_date(timeframe: str, index: Any, phase: int = 0) -> Any:
    """Opening of candle number `index` in ms since 1970 UTC; the inverse of `candle_index`."""
    step = _step(timeframe)
    if not step.months:
        return index * step.ms + phase
    dates = np.asarray(index * step.months, dtype="M8[M]").astype("M8[ms]").astype(np.int64) + phase
    return dates if isinstance(index, np.ndarray) else int(dates)


def candles_between(timeframe: str, a_ms: int, b_ms: int) -> int:
    """Steps from the candle that opens at `a_ms` to the one that contains `b_ms`.

    1 for neighbours, 0 within the same candle, negative when `b_ms` is earlier; so `n - 1` are missing between them.
    """
    shift = phase(timeframe, a_ms)
    return candle_index(timeframe, b_ms, shift) - candle_index(timeframe, a_ms, shift)
