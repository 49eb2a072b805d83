"""Candles: the rows of a producer's frame as a PaperBot reads them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hub.frames.columns import Columns

__all__ = ["LEAST_RATE", "MOST_RATE", "Candle", "read_candles"]

LEAST_RATE, MOST_RATE = 1e-20, 1e15
"""What a rate can be; beyond, a row is a mistake, and trading on it could lose the exactness of every sum (`rules`)."""

# Measured with sys.getsizeof: the tuple, four floats, the dict slot; tags are added.
_ROW_BYTES = 320
_RATES = ("open", "high", "low", "close")


class Candle(NamedTuple):
    """One row as the bot needs it. Rates in quote currency; signals and tags as freqtrade's columns have them."""

    open: float
    high: float
    low: float
    close: float
    enter_long: bool = False
    exit_long: bool = False
    enter_tag: str | None = None
    exit_tag: str | None = None

    @property
    def nbytes(self) -> int:
        """About what it occupies."""
        return _ROW_BYTES + len(self.enter_tag or "") + len(self.exit_tag or "")

    @property
    def usable(self) -> bool:
        """Whether one can trade on it: rates that can be, and none outside of low and high. NaN is none."""
        return (
            LEAST_RATE <= self.low <= self.open <= self.high <= MOST_RATE
            and self.low <= self.close <= self.high
        )


def read_candles(frame: Columns) -> dict[int, Candle]:
    """The rows of `frame` by date in ms since 1970 UTC; of rows with the same date the last one.

    A rate that is null reads as NaN, a signal as False. Columns for signals and tags may be missing; without one of the
    rates there is nothing to trade on and no row is read.
    """
    if any(name not in frame.schema.positions for name in _RATES):
        return {}
    rates = [_floats(frame, name).tolist() for name in _RATES]
    signals = [(_floats(frame, name) == 1).tolist() for name in ("enter_long", "exit_long")]
    tags = [_tags(frame, name) for name in ("enter_tag", "exit_tag")]
    rows = zip(*rates, *signals, *tags, strict=True)
    return {date: Candle(*row) for date, row in zip(frame.date_ms.tolist(), rows, strict=True)}


def _floats(frame: Columns, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    position = frame.schema.positions.get(name)
    if position is None or frame.schema.fields[position].dtype == "str":
        return np.full(frame.n, np.nan)
    values = frame.arrays[position].astype(np.float64)
    valid = frame.valid[position]
    return values if valid is None else np.where(valid, values, np.nan)


def _tags(frame: Columns, name: str) -> list[str | None]:
    position = frame.schema.positions.get(name)
    if position is None or frame.schema.fields[position].dtype != "str":
        return [None] * frame.n
    # A null tag is stored as the empty string, and freqtrade means the same by both.
    return [tag or None for tag in frame.arrays[position].tolist()]
