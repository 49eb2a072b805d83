"""Salvage: the good records of a malformed database, copied into a fresh one.

What is taken proves itself: a record by its checksum over offset and content, so that neither an old page nor garbage can be
taken for one. Every slot between floor and head that has no record then is quarantined; numbers are kept. `prev` of the next
message in a stream may lie behind what was lost: it names the highest slot that could have been its predecessor, which is true
whatever was lost (docs/wire-protocol.md, the ledger).

The malformed database is put aside under a name of its own.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub.core.ledger import Ended
from hub.log import books, database, pages, records
from hub.log.books import Books, Meta
from hub.log.files import Directory, sync_directory
from hub.log.quarantine import missing, write_ranges

__all__ = ["Salvaged", "lines", "salvage"]

_ROWS_PER_COMMIT = 20_000


@dataclass(slots=True)
class Salvaged:
    """What came of it: where the malformed file is, how many records are good and how many slots are lost.

    `meta` is None when nothing of a ledger was found at all; the fresh database is empty then.
    """

    aside: Path
    meta: Meta | None
    records: int = 0
    lost: int = 0


@dataclass(slots=True)
class _Found:
    meta: Meta | None = None
    expired: dict[str, int] = field(default_factory=dict)
    ended: dict[str, Ended] = field(default_factory=dict)
    twins: list[tuple[Any, ...]] = field(default_factory=list)
    """Records whose id another one has: of one that retention removed, or stored twice for a damaged index."""


def salvage(directory: Directory, fallback_epoch: str, told: int) -> Salvaged:
    """Make a fresh database of what is good in the malformed one, and put it in its place. No connection has it open.

    `fallback_epoch` is for a ledger whose own epoch cannot be read, and `told` is what was told in that epoch: what is missing up
    to there is lost.

    Raises:
        OSError, sqlite3.Error: there is no room for it, or the like; the malformed database is where it was.
    """
    directory.remove_new()
    wals = [wal for wal in (directory.wal, directory.kept_wal) if wal.exists()]
    connection = database.create(directory.new)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        found = _copy(connection, directory.database, wals)
        salvaged = _complete(connection, found, fallback_epoch, told)
        connection.execute("PRAGMA synchronous = FULL")
        database.checkpoint(connection, truncate=True)
    finally:
        connection.close()
    salvaged.aside = _exchange(directory)
    return salvaged


def _copy(connection: sqlite3.Connection, path: Path, wals: list[Path]) -> _Found:
    found = _Found()
    inserted = 0
    connection.execute("BEGIN")
    for rowid, columns in pages.rows(path, wals):
        if len(columns) == 10:
            row: tuple[Any, ...] = (rowid, *columns[1:])
            if rowid > 0 and records.is_record(row):
                row = (*row[:4], *(text.decode() for text in row[4:8]), *row[8:])
                if not connection.execute(records.INSERT, row).rowcount:
                    _note_twin(connection, found, row)
                inserted += 1
                if inserted % _ROWS_PER_COMMIT == 0:
                    connection.execute("COMMIT")
                    database.checkpoint(connection, truncate=True)
                    connection.execute("BEGIN")
        elif len(columns) == 9 and rowid == 1:
            _better_meta(found, books.is_meta(columns[1:]))
        elif len(columns) == 6:
            ended = books.is_ended(columns[1:])
            if ended is not None:
                found.ended[ended[0]] = ended[1]
        elif len(columns) == 3:
            known = books.is_publisher(columns)
            if known is not None:
                found.expired[known[0]] = max(known[1], found.expired.get(known[0], -1))
    connection.execute("COMMIT")
    return found


def _note_twin(connection: sqlite3.Connection, found: _Found, row: tuple[Any, ...]) -> None:
    """Only if it is no further version of a slot that is there."""
    if connection.execute("SELECT 1 FROM records WHERE offset = ?", row[:1]).fetchone() is None:
        found.twins.append(row)


def _better_meta(found: _Found, meta: Meta | None) -> None:
    """Of several versions the latest holds: what the pages of an older one hold is older, too."""
    before = found.meta
    if meta is not None and (before is None or (meta.head, meta.floor) > (before.head, before.floor)):
        found.meta = meta


def _complete(connection: sqlite3.Connection, found: _Found, fallback_epoch: str, told: int) -> Salvaged:
    """Remove what was removed before, quarantine what is missing, write the books."""
    connection.execute("BEGIN")
    lowest, highest = connection.execute("SELECT min(offset), max(offset) FROM records").fetchone()
    meta = found.meta
    if meta is None and lowest is not None:
        meta = Meta(fallback_epoch, floor=lowest - 1, head=highest)
    if meta is None:
        books.write_books(connection, Books(Meta(fallback_epoch)))
        connection.execute("COMMIT")
        return Salvaged(Path(), None)
    floor, head = meta.floor, max(meta.head, highest or 0, told if meta.epoch == fallback_epoch else 0)
    connection.execute("DELETE FROM records WHERE offset <= ?", (floor,))
    connection.executemany(records.INSERT, (row for row in found.twins if row[0] > floor))
    ranges = list(missing(connection, floor, head))
    write_ranges(connection, ranges)
    lost = sum(last - first + 1 for first, last in ranges)
    least = max(floor, ranges[-1][1] if ranges else 0, meta.least_prev)
    streams, expired, size, count = _read_good(connection, floor)
    streams = {stream: max(last, ranges[-1][1] if ranges else 0) for stream, last in streams.items()}
    expired |= found.expired
    lineage = books.lineage_of(meta.epoch, found.ended)
    made = Meta(meta.epoch, floor, head, size, least)
    books.write_books(connection, Books(made, streams, expired if floor else {}, lineage))
    connection.execute("COMMIT")
    return Salvaged(Path(), made, count, lost)


def _read_good(
    connection: sqlite3.Connection, floor: int
) -> tuple[dict[tuple[str, str], int], dict[str, int], int, int]:
    """Last offsets, what was removed of each publisher at least, bytes and number of what was copied."""
    streams: dict[tuple[str, str], int] = {}
    oldest: dict[str, int] = {}
    size = count = 0
    for row in connection.execute(f"SELECT {records.COLUMNS} FROM records ORDER BY offset"):
        bot, topic, publisher = (value.decode() for value in row[4:7])
        streams[bot, topic] = row[0]
        # What retention removed of a publisher is known from its own row only; without it, that it came before.
        oldest.setdefault(publisher, row[3] - 1)
        size += records.size_of(row)
        count += 1
    return streams, oldest, size, count


def _exchange(directory: Directory) -> Path:
    """The fresh database takes the name; the malformed one keeps its WAL beside it."""
    descriptor = os.open(directory.new, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    aside = directory.damaged()
    for suffix in ("-wal", "-wal.kept"):
        wal = directory.database.with_name(directory.database.name + suffix)
        with contextlib.suppress(FileNotFoundError):
            wal.rename(aside.with_name(aside.name + suffix))
    directory.shm.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        directory.database.rename(aside)
    directory.new.rename(directory.database)
    for suffix in ("-wal", "-shm"):
        directory.new.with_name(directory.new.name + suffix).unlink(missing_ok=True)
    sync_directory(directory.path)
    return aside


def lines(salvaged: Salvaged) -> Iterator[str]:
    """What to tell of it."""
    if salvaged.meta is None:
        yield f"the ledger's database is none; it is kept as {salvaged.aside}, and a new one begins"
        return
    yield (
        f"the ledger's database was malformed; {salvaged.records} records were salvaged, {salvaged.lost} are lost "
        f"and told as damaged; the malformed file is kept as {salvaged.aside}"
    )
