"""What a ledger on disk holds, in figures. Reads only, also beside a running hub."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

from hub.core.entry import Entry
from hub.log.audit import ledger_to_read
from hub.log.books import read_books
from hub.log.files import Directory
from hub.log.quarantine import count
from hub.log.reading import slots

__all__ = ["StreamFigures", "Summary", "summarize"]


@dataclass(frozen=True, slots=True)
class StreamFigures:
    """Of one stream: records that are there, and its last offset, also where retention removed that."""

    bot: str
    topic: str
    records: int
    last: int


@dataclass(slots=True)
class Summary:
    """Offsets in (floor, head] can be read, but for `damaged` ones. Times in ms since 1970 UTC; files in bytes."""

    epoch: str
    floor: int
    head: int
    bytes: int
    damaged: int
    oldest_ms: int | None = None
    newest_ms: int | None = None
    streams: list[StreamFigures] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)

    @property
    def entries(self) -> int:
        """Slots, damaged ones included."""
        return self.head - self.floor


def summarize(path: Path) -> Summary:
    """Count a ledger.

    Raises:
        FileNotFoundError: there is no ledger. OSError, sqlite3.Error: it cannot be read. OtherVersion.
    """
    with ledger_to_read(path) as connection:
        books = read_books(connection)
        meta = books.meta
        summary = Summary(meta.epoch, meta.floor, meta.head, meta.bytes, count(connection, meta.floor))
        counted = {
            (bot.decode(), topic.decode()): records
            for bot, topic, records in connection.execute(
                "SELECT bot, topic, count(*) FROM records INDEXED BY records_by_stream GROUP BY bot, topic"
            )
        }
        summary.streams = [
            StreamFigures(bot, topic, counted.get((bot, topic), 0), last)
            for (bot, topic), last in sorted(books.streams.items())
        ]
        summary.oldest_ms = _first_ms(connection, meta.epoch, range(meta.floor + 1, meta.head + 1))
        summary.newest_ms = _first_ms(connection, meta.epoch, range(meta.head, meta.floor, -1))
    at = Directory(path)
    for file in (at.database, at.wal, at.shm, at.mark, *sorted(path.glob("ledger.sqlite.damaged-*"))):
        if file.exists():
            summary.files[file.name] = file.stat().st_size
    return summary


def _first_ms(connection: sqlite3.Connection, epoch: str, offsets: range) -> int | None:
    """The time of the first record that can be read, of a few."""
    for offset in offsets[:100]:
        (slot,) = slots(connection, epoch, offset, offset)
        if isinstance(slot, Entry):
            return slot.ts
    return None
