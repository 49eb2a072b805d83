"""Reading: pages and searches on connections of their own, beside the writer, each in one read transaction.

Floor and slots are read in the same transaction, so a slot is never missing for a retention that the page does not know of.
What a page passes is contiguous: a slot without a row, or with one that does not fit its checksum, or that SQLite cannot read, is
Damaged. A range that SQLite gives up in the middle is gone on with slot by slot.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hub.core.entry import Entry
from hub.core.ledger import Damaged, Found, Page, Query, Read, matches
from hub.log import database
from hub.log.books import Meta, read_meta
from hub.log.quarantine import quarantined
from hub.log.records import COLUMNS, entry_of

__all__ = ["Reader", "Snapshot", "slots"]

SCAN_ENTRIES = 4096
"""Slots that a search looks at before it answers with where to go on."""
SCAN_BYTES = 8 << 20
PAUSE_SLOTS = 16
INDEXED_STREAMS = 64
_BY_OFFSET = f"SELECT {COLUMNS} FROM records WHERE offset >= ? AND offset <= ? ORDER BY offset"
_BY_STREAM = (
    "SELECT offset FROM records INDEXED BY records_by_stream "
    "WHERE bot = ? AND topic = ? AND offset > ? AND offset <= ? ORDER BY offset LIMIT ?"
)

Stream = tuple[str, str]
Slot = Entry | Damaged


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the writer has told when a read begins: nothing above `told` is read."""

    epoch: str
    floor: int
    told: int
    generation: int
    streams: Collection[Stream] = ()


class Reader:
    """One connection; for one thread at a time. It is opened with the first read and again when the writer says so."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._generation = -1

    def page(self, snapshot: Snapshot, read: Read) -> Page:
        """Slots from `read.offset` on.

        Raises:
            sqlite3.Error: the database cannot be read at all.
        """
        with self._transaction(snapshot) as (connection, floor, head):
            taken: list[Slot] = []
            size = 0
            first = max(read.offset, floor + 1)
            for slot in slots(connection, snapshot.epoch, first, min(head, first + read.limit_slots - 1)):
                taken.append(slot)
                size += _size(slot)
                if size >= read.limit_bytes:
                    break
            return Page(taken, floor)

    def find(self, snapshot: Snapshot, query: Query, pause: Callable[[], None] = lambda: None) -> Found:
        """What a query looks for, within a bounded number of slots. `pause` is called every PAUSE_SLOTS, and may raise to end it.

        Raises:
            sqlite3.Error: the database cannot be read at all.
        """
        with self._transaction(snapshot) as (connection, floor, head):
            first = max(query.after, floor) + 1
            candidates = _candidates(connection, snapshot, query, first, head)
            return _found(candidates, query, floor, head, pause)

    def _transaction(self, snapshot: Snapshot) -> _Transaction:
        if self._generation != snapshot.generation:
            self.close()
        if self._connection is None:
            self._connection = database.connect_to_read(self._path)
            self._generation = snapshot.generation
        return _Transaction(self._connection, snapshot)

    def close(self) -> None:
        """Release. Idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Transaction:
    """A read transaction: (connection, floor, head)."""

    def __init__(self, connection: sqlite3.Connection, snapshot: Snapshot) -> None:
        self._connection = connection
        self._snapshot = snapshot

    def __enter__(self) -> tuple[sqlite3.Connection, int, int]:
        self._connection.execute("BEGIN")
        try:
            meta = self._meta()
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        # The head that is written may lie behind what was told.
        return self._connection, meta.floor, self._snapshot.told

    def _meta(self) -> Meta:
        snapshot = self._snapshot
        try:
            return read_meta(self._connection)
        except sqlite3.Error as error:
            if not database.is_malformed(error):
                raise
            # The writer has it in memory, and writes it anew with its next commit.
            return Meta(snapshot.epoch, snapshot.floor, snapshot.told)

    def __exit__(self, *_: object) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def slots(connection: sqlite3.Connection, epoch: str, first: int, last: int) -> Iterator[Slot]:
    """Each slot of first..last, in order, whatever has become of it."""
    expected = first
    while expected <= last:
        try:
            for row in connection.execute(_BY_OFFSET, (expected, last)):
                while expected < row[0]:
                    yield Damaged(expected)
                    expected += 1
                slot = entry_of(row, epoch) or Damaged(expected)
                yield slot
                expected += 1
            while expected <= last:
                yield Damaged(expected)
                expected += 1
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if not database.is_malformed(error):
                raise
            yield _slot(connection, epoch, expected)
            expected += 1


def _slot(connection: sqlite3.Connection, epoch: str, offset: int) -> Slot:
    try:
        row = connection.execute(_BY_OFFSET, (offset, offset)).fetchone()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        if not database.is_malformed(error):
            raise
        row = None
    entry = None if row is None else entry_of(row, epoch)
    return Damaged(offset) if entry is None else entry


def _size(slot: Slot) -> int:
    return len(slot.body) if isinstance(slot, Entry) else 0


# --- searching


def _candidates(
    connection: sqlite3.Connection, snapshot: Snapshot, query: Query, first: int, head: int
) -> Iterator[Slot]:
    """The slots to look at, ascending: those of the streams that are asked for, where these are few."""
    streams = _streams_of(snapshot.streams, query)
    if streams is None:
        return slots(connection, snapshot.epoch, first, head)
    return _of_streams(connection, snapshot.epoch, streams, first, head)


def _streams_of(known: Collection[Stream], query: Query) -> Sequence[Stream] | None:
    """The streams that a query can match; None when the index is no help."""
    if query.bots is None and query.topics is None:
        return None
    wanted = [
        stream
        for stream in known
        if (query.bots is None or stream[0] in query.bots)
        and (query.topics is None or stream[1] in query.topics)
    ]
    return None if len(wanted) > INDEXED_STREAMS or len(wanted) == len(known) else wanted


def _of_streams(
    connection: sqlite3.Connection, epoch: str, streams: Sequence[Stream], first: int, head: int
) -> Iterator[Slot]:
    lists = [
        _offsets(connection.execute(_BY_STREAM, (*stream, first - 1, head, SCAN_ENTRIES + 1)))
        for stream in streams
    ]
    known = (
        offset
        for a, b in quarantined(connection, first, head)
        for offset in range(a, min(b, a + SCAN_ENTRIES) + 1)
    )
    before = 0
    for offset in heapq.merge(*lists, known):
        if offset != before:
            before = offset
            yield _slot(connection, epoch, offset)


def _offsets(rows: sqlite3.Cursor) -> Iterator[int]:
    for (offset,) in rows:
        yield offset


def _found(
    candidates: Iterator[Slot], query: Query, floor: int, head: int, pause: Callable[[], None]
) -> Found:
    found: list[Slot] = []
    size = looked_bytes = 0
    for looked, slot in enumerate(candidates, 1):
        looked_bytes += _size(slot)
        if isinstance(slot, Damaged) or matches(query, slot):
            found.append(slot)
            size += _size(slot)
        if (
            len(found) >= query.limit
            or size >= query.limit_bytes
            or looked >= SCAN_ENTRIES
            or looked_bytes >= SCAN_BYTES
        ):
            return Found(found, slot.offset if slot.offset < head else None, floor, head)
        if not looked % PAUSE_SLOTS:
            pause()
    return Found(found, None, floor, head)
