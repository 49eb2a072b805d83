"""Candle history: a table as REST answers it, rows of JSON with the columns that charts need.

The columns are those of the frame, or, when some are named, `date` to `volume`, the signals and the named ones that exist, in
the frame's order (tags only when named). Behind them come `__date_ts` (ms) and for each signal column that the frame has
`_SIGNAL_signal_close`: the close where the signal is 1, else null. NaN, ±inf and null are null. Times are RFC 3339: whole
seconds without a fraction, others with six digits; UTC as `Z`, none where the column has no zone (`date` is always UTC).

All of this is what freqtrade 2026.9 answers (measured against a running bot), but for an unknown timeframe, on which it fails.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import msgspec
import numpy as np
import orjson

from hub.frames.casting import Array
from hub.frames.columns import Columns
from hub.frames.dataframe import named_zone
from hub.frames.schema import UNITS_PER_S, Field
from hub.frames.timeframe import timeframe_ms
from hub.protocol.answers import PairHistory

__all__ = ["History", "pair_history"]

_SIGNALS = ("enter_long", "exit_long", "enter_short", "exit_short")
_ALWAYS = frozenset({"date", "open", "high", "low", "close", "volume", *_SIGNALS})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CELLS = 8_000
"""Cells of one piece: about a millisecond of work."""


def pair_history(
    frame: Columns | None,
    *,
    strategy: str,
    pair: str,
    timeframe: str,
    analyzed_ms: int | None,
    limit: int | None = None,
    columns: Collection[str] | None = None,
) -> PairHistory:
    """The whole answer at once; arguments and errors as `History`."""
    history = History(
        frame,
        strategy=strategy,
        pair=pair,
        timeframe=timeframe,
        analyzed_ms=analyzed_ms,
        limit=limit,
        columns=columns,
    )
    return history.answer(b"".join(history.pieces()))


class History:
    """The candles of one pair on their way to an answer: `pieces` makes the rows, `answer` the rest.

    A frame that is None or without rows gives the empty answer of freqtrade: no columns, analyzed in 1970. `analyzed_ms` is when
    the producer analyzed the frame, in ms since 1970 UTC, None where that is unknown. `limit` counts as freqtrade's does: None
    and 0 give all rows, N the newest N, -N all but the oldest N. `columns` None gives all columns. Everything but `pieces` is
    O(columns); nothing of the frame is changed or copied.

    Raises:
        BadFrame: `timeframe` is none.
    """

    def __init__(
        self,
        frame: Columns | None,
        *,
        strategy: str,
        pair: str,
        timeframe: str,
        analyzed_ms: int | None,
        limit: int | None = None,
        columns: Collection[str] | None = None,
    ) -> None:
        self._strategy, self._pair, self._timeframe = strategy, pair, timeframe
        self._timeframe_ms = timeframe_ms(timeframe)
        self._analyzed_ms = analyzed_ms or 0
        known = frame is not None and frame.n > 0
        self._rows = frame.slice(-limit if limit else 0, frame.n) if frame is not None and known else None
        self._all = list(frame.schema.names) if frame is not None and known else []
        signals = [name for name in _SIGNALS if name in self._all]
        added = {"__date_ts", *map(_close_of, signals)}
        self._kept = [
            name
            for name in self._all
            if name not in added and (columns is None or name in _ALWAYS or name in columns)
        ]
        self._signals = signals

    @property
    def columns(self) -> list[str]:
        """The names of a row's cells."""
        return [*self._kept, "__date_ts", *map(_close_of, self._signals)] if self._rows is not None else []

    def pieces(self, cells: int = _CELLS) -> Iterator[bytes]:
        """The JSON array of the rows, in pieces of about `cells` values, for a caller that yields in between."""
        n = self._rows.n if self._rows is not None else 0
        step = max(cells // max(len(self.columns), 1), 1)
        yield b"["
        for first in range(0, n, step):
            assert self._rows is not None
            text = orjson.dumps(self._lists(self._rows.slice(first, first + step)))
            yield b"," + text[1:-1] if first else text[1:-1]
        yield b"]"

    def answer(self, data: bytes) -> PairHistory:
        """The answer with `data`, the joined pieces, as its rows."""
        counts = {name: self._count(name) for name in _SIGNALS}
        dates = self._rows.date_ms if self._rows is not None and self._rows.n else None
        first, last = (int(dates[0]), int(dates[-1])) if dates is not None else (0, 0)
        return PairHistory(
            strategy=self._strategy,
            pair=self._pair,
            timeframe=self._timeframe,
            timeframe_ms=self._timeframe_ms,
            columns=self.columns,
            all_columns=self._all,
            data=msgspec.Raw(data),
            annotations=[],
            length=self._rows.n if self._rows is not None else 0,
            buy_signals=counts["enter_long"],
            sell_signals=counts["exit_long"],
            enter_long_signals=counts["enter_long"],
            exit_long_signals=counts["exit_long"],
            enter_short_signals=counts["enter_short"],
            exit_short_signals=counts["exit_short"],
            last_analyzed=_moment(self._analyzed_ms),
            last_analyzed_ts=self._analyzed_ms // 1000,
            data_start_ts=first,
            data_start=_spaced(first) if dates is not None else "",
            data_stop=_spaced(last) if dates is not None else "",
            data_stop_ts=last,
        )

    def _count(self, signal: str) -> int:
        if self._rows is None or signal not in self._signals:
            return 0
        return int(np.count_nonzero(_given(self._rows, signal)))

    def _lists(self, rows: Columns) -> list[tuple[Any, ...]]:
        by_column = [_values(rows, name) for name in self._kept]
        by_column.append(rows.date_ms.tolist())
        closes = _values(rows, "close") if "close" in rows.schema.positions else [None] * rows.n
        for signal in self._signals:
            given = _given(rows, signal).tolist()
            by_column.append([close if on else None for close, on in zip(closes, given, strict=True)])
        return list(zip(*by_column, strict=True))


def _close_of(signal: str) -> str:
    return f"_{signal}_signal_close"


def _given(rows: Columns, signal: str) -> Array:
    """Where a signal is 1; the slot of a null holds 0."""
    return np.asarray(rows.column(signal) == 1, dtype=np.bool_)


def _values(rows: Columns, name: str) -> list[Any]:
    """A column as what orjson writes: it makes null of NaN and of infinities."""
    position = rows.schema.positions[name]
    field, array = rows.schema.fields[position], rows.arrays[position]
    values: list[Any] = _texts(field, array) if field.dtype in UNITS_PER_S else array.tolist()
    valid = rows.valid[position]
    if valid is not None:
        for row in np.flatnonzero(~valid).tolist():
            values[row] = None
    return values


def _texts(field: Field, array: Array) -> list[Any]:
    zone = named_zone("UTC" if field.name == "date" else field.zone) if field.zone is not None else None
    seconds, rest = np.divmod(array, UNITS_PER_S[field.dtype])
    micros = rest * 1_000_000 // UNITS_PER_S[field.dtype]
    if zone is not None and zone is not UTC:
        return _in_zone(zone, seconds.tolist(), micros.tolist())
    suffix = "Z" if zone is UTC or field.name == "date" else ""
    texts: list[str] = np.datetime_as_string(seconds.astype("M8[s]")).tolist()
    return [
        f"{text}.{micro:06d}{suffix}" if micro else text + suffix
        for text, micro in zip(texts, micros.tolist(), strict=True)
    ]


def _in_zone(zone: tzinfo, seconds: list[int], micros: list[int]) -> list[Any]:
    """Times with the offset of their zone; null beyond the years 1 to 9999."""
    texts: list[Any] = []
    for second, micro in zip(seconds, micros, strict=True):
        try:
            moment = _EPOCH + timedelta(seconds=second, microseconds=micro)
            texts.append(moment.astimezone(zone).isoformat())
        except (OverflowError, ValueError):
            texts.append(None)
    return texts


def _moment(ms: int) -> str:
    return (_EPOCH + timedelta(milliseconds=ms)).isoformat().replace("+00:00", "Z")


def _spaced(ms: int) -> str:
    return (_EPOCH + timedelta(milliseconds=ms)).isoformat(" ")
