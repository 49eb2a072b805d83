"""Candles out of CSV files: what can be healed is, what cannot is skipped, and either is told with file and line.

A file is named PAIR-TIMEFRAME.csv with `_` for the slash (BTC_USD-30m.csv) and has the columns date, open, high, low, close
and volume in any order; dates are RFC 3339 (UTC without an offset) or ms since 1970. Missing candles are an exchange's outages and
stay missing.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from hub.frames.timeframe import timeframe_ms
from hub.protocol.errors import BadFrame

__all__ = ["BadData", "CandleFile", "read_directory", "read_file"]

_RATES = ("open", "high", "low", "close")
_COLUMNS = ("date", *_RATES, "volume")
_MAX_MS = 253_402_300_799_999
_DAY_MS = 86_400_000


class BadData(Exception):
    """Data that cannot be replayed at all; one line that names the file."""


@dataclass(frozen=True, slots=True)
class CandleFile:
    """The candles of one pair by date in ms: (open, high, low, close, volume). `problems` are lines for the user."""

    pair: str
    timeframe: str
    rows: dict[int, tuple[float, ...]]
    problems: list[str] = field(default_factory=list)

    @property
    def outages(self) -> list[tuple[int, int]]:
        """Where candles are missing: the dates before and after."""
        step, dates = timeframe_ms(self.timeframe), list(self.rows)
        return [(a, b) for a, b in itertools.pairwise(dates) if b - a > step]


def read_directory(directory: Path) -> list[CandleFile]:
    """All CSV files of a directory, by name.

    Raises:
        BadData: there is none, one cannot be read, or they are of several timeframes.
    """
    paths = sorted(directory.glob("*.csv"))
    if not paths:
        raise BadData(f"{directory}: expected files such as BTC_USD-30m.csv, found none")
    files = [read_file(path) for path in paths]
    if len({file.timeframe for file in files}) > 1:
        raise BadData(f"{directory}: expected files of one timeframe")
    if len({file.pair for file in files}) < len(files):
        raise BadData(f"{directory}: expected one file per pair")
    _tell_ends(files)
    return files


def read_file(path: Path) -> CandleFile:
    """One file; rows sorted by date.

    Raises:
        BadData: the name or the header is wrong, the file cannot be read, or no row is of use.
    """
    pair, timeframe = _names(path)
    problems: list[str] = []
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as text:
            rows = _read(path.name, text, timeframe_ms(timeframe), problems)
    except OSError as error:
        raise BadData(f"{path}: cannot be read: {error.strerror}") from None
    if not rows:
        first = f"; {problems[0]}" if problems else ""
        raise BadData(f"{path}: expected candles, found none that can be used{first}")
    return CandleFile(pair, timeframe, dict(sorted(rows.items())), problems)


def _tell_ends(files: list[CandleFile]) -> None:
    """A replay goes no further than the pair that ends first."""
    first = min(files, key=lambda file: max(file.rows))
    if any(max(file.rows) > max(first.rows) for file in files):
        end = datetime.fromtimestamp(max(first.rows) / 1000, UTC)
        first.problems.append(
            f"{first.pair} ends at {end:%Y-%m-%d %H:%M}, before others; the replay ends there"
        )


def _names(path: Path) -> tuple[str, str]:
    pair, dash, timeframe = path.stem.rpartition("-")
    try:
        if not dash or not pair:
            raise BadFrame("no dash")
        timeframe_ms(timeframe)
    except BadFrame:
        raise BadData(f"{path}: expected a name such as BTC_USD-30m.csv") from None
    return pair.replace("_", "/", 1), timeframe


def _read(name: str, text: Iterable[str], step_ms: int, problems: list[str]) -> dict[int, tuple[float, ...]]:
    lines = _lines(name, text, problems)
    first, columns = next(lines, (1, []))
    header = [cell.strip().lower() for cell in columns]
    missing = [column for column in _COLUMNS if column not in header]
    if missing:
        raise BadData(f"{name}:{first}: expected the columns {', '.join(_COLUMNS)}; {missing[0]} is missing")
    places = [header.index(column) for column in _COLUMNS]
    rows: dict[int, tuple[float, ...]] = {}
    newest = -math.inf
    for line, cells in lines:
        try:
            date_ms, row = _row(cells, places, step_ms)
        except ValueError as error:
            problems.append(f"{name}:{line}: skipped: {error}")
            continue
        if date_ms in rows:
            same = rows[date_ms] == row
            problems.append(
                f"{name}:{line}: skipped: the date is there already{'' if same else ', with other values'}"
            )
            continue
        if date_ms < newest:
            problems.append(f"{name}:{line}: put in order: the date is before that of an earlier line")
        newest = max(newest, date_ms)
        rows[date_ms] = row
    return rows


def _lines(name: str, text: Iterable[str], problems: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Lines that are not blank with their number. Each by itself, so that a quote left open costs its own line only."""
    for number, line in enumerate(text, 1):
        try:
            cells = next(csv.reader([line], strict=True), [])
        except csv.Error as error:
            problems.append(f"{name}:{number}: skipped: {error}")
            continue
        if any(cell.strip() for cell in cells):
            yield number, cells


def _row(cells: list[str], places: list[int], step_ms: int) -> tuple[int, tuple[float, ...]]:
    if len(cells) <= max(places):
        raise ValueError(f"expected {max(places) + 1} columns, got {len(cells)}")
    date_ms = _date(cells[places[0]])
    # Weeks and months do not begin at multiples of their length.
    if step_ms <= _DAY_MS and date_ms % step_ms:
        raise ValueError("the date is not that of a candle of this timeframe")
    values = tuple(
        _number(column, cells[place]) for column, place in zip(_COLUMNS[1:], places[1:], strict=True)
    )
    _check(values)
    return date_ms, values


def _date(text: str) -> int:
    text = text.strip()
    try:
        if text.isdecimal():
            date_ms = int(text)
        else:
            date = datetime.fromisoformat(text)
            date_ms = round((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        date_ms = -1
    if not 0 <= date_ms <= _MAX_MS:
        raise ValueError(f"expected a date, got {_shown(text)}")
    return date_ms


def _number(column: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{column}: expected a number, got {_shown(text)}") from None
    if not math.isfinite(number):
        raise ValueError(f"{column}: expected a finite number, got {_shown(text)}")
    return number


def _check(values: Iterable[float]) -> None:
    open_, high, low, close, volume = values
    if low <= 0:
        raise ValueError("low: expected a rate above 0")
    if high < low:
        raise ValueError("high is below low")
    if not low <= min(open_, close) <= max(open_, close) <= high:
        raise ValueError("open or close is outside of low and high")
    if volume < 0:
        raise ValueError("volume: expected 0 or more")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
