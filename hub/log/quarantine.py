"""Quarantine: the slots whose records cannot be read any more, as ranges of offsets."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

__all__ = ["Range", "count", "missing", "quarantined", "ranges_of", "write_ranges"]

Range = tuple[int, int]
"""(first, last), both included."""


def ranges_of(offsets: Iterable[int]) -> Iterator[Range]:
    """Ascending offsets as ranges."""
    first = last = None
    for offset in offsets:
        if first is None or last is None:
            first = last = offset
        elif offset == last + 1:
            last = offset
        else:
            yield first, last
            first = last = offset
    if first is not None and last is not None:
        yield first, last


def missing(connection: sqlite3.Connection, floor: int, head: int) -> Iterator[Range]:
    """The slots in (floor, head] without a row."""
    expected = floor + 1
    for (offset,) in connection.execute(
        "SELECT offset FROM records WHERE offset > ? AND offset <= ? ORDER BY offset", (floor, head)
    ):
        if offset > expected:
            yield expected, offset - 1
        expected = offset + 1
    if expected <= head:
        yield expected, head


def write_ranges(connection: sqlite3.Connection, ranges: Iterable[Range]) -> None:
    """Remember these, within a transaction."""
    connection.executemany("INSERT OR REPLACE INTO quarantine VALUES (?, ?)", ranges)


def quarantined(connection: sqlite3.Connection, first: int, last: int) -> list[Range]:
    """What is known to be damaged in first..last, ascending and cut to it."""
    rows = connection.execute(
        "SELECT first, last FROM quarantine WHERE last >= ? AND first <= ? ORDER BY first", (first, last)
    )
    return [(max(a, first), min(b, last)) for a, b in rows if type(a) is int and type(b) is int]


def count(connection: sqlite3.Connection, floor: int) -> int:
    """How many slots above the floor are quarantined."""
    return sum(b - a + 1 for a, b in quarantined(connection, floor + 1, 1 << 62))
