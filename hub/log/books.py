"""The books: what the log knows beside its records, in memory and in the database, changed in one transaction with them.

They are the epoch, floor, head, bytes, the last offset of each stream, how far retention went for each publisher, and the epochs
before this one. `meta` is one row with a checksum over itself; its column `books` is a sum over the rows of `streams`, `publishers`
and `lineage`, so that a row which was changed or is missing shows when the database is opened.

A row of `lineage` is written once and never changed: it says of an epoch how it ended, and which one followed. What later cuts make
of it follows from the rows behind it. So no old version of a row can say too much, and a chain with a row missing ends there.

To write them with every commit would more than double its pages. They are written with every transaction of retention, since
nothing else knows the floor, and else once in 256 records: who reads them adds the records behind `meta.head`. Such a record
whose content is damaged could be of any stream: none has its last offset before it then.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hub.core.ledger import Ended
from hub.log import records
from hub.log.database import VERSION, Malformed

__all__ = [
    "EPOCHS",
    "Books",
    "Draft",
    "Meta",
    "is_ended",
    "is_meta",
    "is_publisher",
    "lineage_of",
    "meta_row",
    "publisher_row",
    "read_books",
    "read_meta",
    "write_books",
]

EPOCHS = 16
"""How many earlier epochs are remembered, the newest."""
Stream = tuple[str, str]
MAGIC = f"tradewire ledger {VERSION}"
_FAMILY = b"tradewire ledger "
_RECORDS_PER_WRITE = 256
_META = "magic, epoch, floor, head, bytes, least_prev, books, checksum"


@dataclass(frozen=True, slots=True)
class Meta:
    """The row of `meta`. `least_prev` is the `prev` of a stream that is not known: 0, unless records were lost."""

    epoch: str
    floor: int = 0
    head: int = 0
    bytes: int = 0
    least_prev: int = 0
    books: int = 0


class OtherVersion(Exception):
    """The database is of another version of this program, which says so in one line."""


@dataclass(slots=True)
class Books:
    """The books as they were committed last. `meta.books` is the sum of what is written."""

    meta: Meta
    streams: dict[Stream, int] = field(default_factory=dict)
    expired: dict[str, int] = field(default_factory=dict)
    lineage: tuple[Ended, ...] = ()
    written: int = 0
    """The head that the row of `meta` says."""
    unwritten: dict[Stream, int | None] = field(default_factory=dict)
    """What the table says of the streams that have changed since."""

    def end(self, epoch: str, told: int | None) -> None:
        """Begin another epoch here, and remember this one. `told` is the highest offset that was told in it."""
        ended = Ended(self.meta.epoch, self.meta.head, told)
        self.lineage = (*self.lineage, ended)[-EPOCHS:]
        self.meta = replace(self.meta, epoch=epoch)

    def sum(self) -> int:
        """What the column `books` must say when all is written."""
        total = 0
        for (bot, topic), last in self.streams.items():
            total ^= _number_of("s", bot, topic, last)
        for publisher, ts in self.expired.items():
            total ^= _number_of("p", publisher, "", ts)
        for row in _lineage_rows(self):
            total ^= _number_of("l", *row[1:5])
        return total


class Draft:
    """The books as a transaction is about to leave them. `keep` after its COMMIT; dropped, nothing has changed."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self.floor = books.meta.floor
        self.head = books.meta.head
        self.bytes = books.meta.bytes
        self._streams: dict[Stream, int] = {}
        self._expired: dict[str, int] = {}
        self._sum: int | None = None

    def last(self, stream: Stream) -> int:
        """The last offset of a stream: what its next message names as `prev`."""
        known = self._streams.get(stream)
        return self._books.streams.get(stream, self._books.meta.least_prev) if known is None else known

    def add(self, stream: Stream, size: int) -> None:
        """The record with offset `head + 1` is in."""
        self.head += 1
        self.bytes += size
        self._streams[stream] = self.head

    def expired(self, publisher: str) -> int:
        """The newest `ts` that retention removed of a publisher, -1 for none."""
        known = self._expired.get(publisher)
        return self._books.expired.get(publisher, -1) if known is None else known

    def remove(self, publisher: str, ts: int, size: int) -> None:
        """Retention takes a record out."""
        self.bytes = max(0, self.bytes - size)
        if ts > self.expired(publisher):
            self._expired[publisher] = ts

    @property
    def changed(self) -> bool:
        """Whether the transaction did anything."""
        return (self.floor, self.head) != (self._books.meta.floor, self._books.meta.head)

    @property
    def is_due(self) -> bool:
        """Whether the transaction has to write the books: retention moved the floor, or they were written long ago."""
        books = self._books
        return self.floor != books.meta.floor or self.head - books.written >= _RECORDS_PER_WRITE

    def write_due(self, connection: sqlite3.Connection) -> None:
        """Write what changed since the books were written, if they have to be, within the transaction."""
        if self.is_due:
            self._write(connection)

    def _write(self, connection: sqlite3.Connection) -> None:
        books = self._books
        total = books.meta.books
        streams = {stream: books.streams[stream] for stream in books.unwritten} | self._streams
        for (bot, topic), last in streams.items():
            before = books.unwritten.get((bot, topic), books.streams.get((bot, topic)))
            if before is not None:
                total ^= _number_of("s", bot, topic, before)
            total ^= _number_of("s", bot, topic, last)
        for publisher, ts in self._expired.items():
            if publisher in books.expired:
                total ^= _number_of("p", publisher, "", books.expired[publisher])
            total ^= _number_of("p", publisher, "", ts)
        connection.executemany(
            "INSERT OR REPLACE INTO streams VALUES (?, ?, ?)",
            ((bot, topic, last) for (bot, topic), last in streams.items()),
        )
        connection.executemany(
            "INSERT OR REPLACE INTO publishers VALUES (?, ?, ?)",
            (publisher_row(publisher, ts) for publisher, ts in self._expired.items()),
        )
        self._sum = total
        _write_meta(connection, self._meta())

    def _meta(self) -> Meta:
        before = self._books.meta
        size = 0 if self.floor == self.head else self.bytes
        total = before.books if self._sum is None else self._sum
        return Meta(before.epoch, self.floor, self.head, size, before.least_prev, total)

    def keep(self) -> None:
        """It is committed."""
        books = self._books
        if self._sum is None:
            for stream in self._streams:
                books.unwritten.setdefault(stream, books.streams.get(stream))
        else:
            books.unwritten.clear()
            books.written = self.head
        books.streams.update(self._streams)
        books.expired.update(self._expired)
        books.meta = self._meta()


def meta_row(meta: Meta) -> tuple[Any, ...]:
    """The columns of `meta` behind its id."""
    row = (MAGIC, meta.epoch, meta.floor, meta.head, meta.bytes, meta.least_prev, meta.books)
    return (*row, _checksum("meta", *row))


def is_meta(row: Sequence[Any]) -> Meta | None:
    """The Meta of columns that were read (texts as bytes), None when they are not what was written."""
    if (
        len(row) != 8
        or not all(type(v) is bytes for v in row[:2])
        or not all(type(v) is int for v in row[2:7])
    ):
        return None
    try:
        magic, epoch = row[0].decode(), row[1].decode()
    except UnicodeDecodeError:
        return None
    if magic != MAGIC or _checksum("meta", magic, epoch, *row[2:7]) != row[7]:
        return None
    return Meta(epoch, *row[2:7])


def publisher_row(publisher: str, ts: int) -> tuple[str, int, bytes]:
    """A row of `publishers`."""
    return publisher, ts, _checksum("publisher", publisher, ts)


def is_publisher(row: Sequence[Any]) -> tuple[str, int] | None:
    """(publisher, expired_ts) of a row that was read, None when it is not what was written."""
    if len(row) != 3 or type(row[0]) is not bytes or type(row[1]) is not int:
        return None
    publisher = row[0].decode(errors="replace")
    return (publisher, row[1]) if _checksum("publisher", publisher, row[1]) == row[2] else None


def is_ended(row: Sequence[Any]) -> tuple[str, Ended] | None:
    """(the epoch that followed, the one that ended) of the columns of `lineage` behind its number; None when they are not what was
    written."""
    if len(row) != 5 or not all(type(v) is bytes for v in row[:2]) or type(row[2]) is not int:
        return None
    epoch, successor = (v.decode(errors="replace") for v in row[:2])
    if (
        not (row[3] is None or type(row[3]) is int)
        or _checksum("ended", epoch, successor, *row[2:4]) != row[4]
    ):
        return None
    return successor, Ended(epoch, row[2], row[3])


def lineage_of(epoch: str, ended: Mapping[str, Ended]) -> tuple[Ended, ...]:
    """The epochs before `epoch`, oldest first, as far as the chain goes. `ended`: each by the one that followed it."""
    chain: list[Ended] = []
    while epoch in ended and len(chain) < EPOCHS:
        chain.append(ended[epoch])
        epoch = chain[-1].epoch
    return tuple(reversed(chain))


def _lineage_rows(books: Books) -> list[tuple[Any, ...]]:
    successors = [*(ended.epoch for ended in books.lineage[1:]), books.meta.epoch]
    rows = []
    for number, (ended, successor) in enumerate(zip(books.lineage, successors, strict=False), 1):
        row = (ended.epoch, successor, ended.upto, ended.told)
        rows.append((number, *row, _checksum("ended", *row)))
    return rows


def read_meta(connection: sqlite3.Connection) -> Meta:
    """The row of `meta`.

    Raises:
        Malformed: it is missing or not what was written. OtherVersion: it is of another version. sqlite3.Error.
    """
    row = connection.execute(f"SELECT {_META} FROM meta WHERE id = 1").fetchone()
    meta = None if row is None else is_meta(row)
    if meta is not None:
        return meta
    if row is not None and type(row[0]) is bytes and _is_other_version(row[0]):
        raise OtherVersion(row[0].decode(errors="replace"))
    raise Malformed("its row of meta does not fit its checksum")


def _is_other_version(magic: bytes) -> bool:
    number = magic.removeprefix(_FAMILY)
    return number != magic and number.isdigit() and 1 < int(number) < 1000


def read_books(connection: sqlite3.Connection) -> Books:
    """All of the books, checked, and brought up to the newest record.

    Raises:
        Malformed: something in them is not what was written. OtherVersion. sqlite3.Error.
    """
    books = Books(read_meta(connection))
    for bot, topic, last in connection.execute("SELECT bot, topic, last FROM streams"):
        books.streams[_text(bot), _text(topic)] = _integer(last)
    for row in connection.execute("SELECT publisher, expired_ts, checksum FROM publishers"):
        known = is_publisher(row)
        if known is None:
            raise Malformed("a row of publishers does not fit its checksum")
        books.expired[known[0]] = known[1]
    books.lineage = _read_lineage(connection, books.meta.epoch)
    if books.sum() != books.meta.books:
        raise Malformed("streams, publishers and lineage do not fit their checksum")
    if not 0 <= books.meta.floor <= books.meta.head:
        raise Malformed("its floor lies beyond its head")
    books.written = books.meta.head
    _add_unwritten(connection, books)
    return books


def _add_unwritten(connection: sqlite3.Connection, books: Books) -> None:
    """Add the records behind the head that was written."""
    head, size, least = books.written, books.meta.bytes, books.meta.least_prev
    changed: dict[Stream, int] = {}
    asked = f"SELECT {records.COLUMNS} FROM records WHERE offset > ? ORDER BY offset"
    for row in connection.execute(asked, (head,)):
        good = records.is_record(row)
        # Only a good record proves that the numbers before it were given.
        if type(row[0]) is not int or row[0] <= head or (row[0] > head + 1 and not good):
            raise Malformed("its records lie beyond its head")
        if row[0] > head + 1 or not good:
            least = row[0] - 1 if good else row[0]
        head = row[0]
        if good:
            changed[row[4].decode(), row[5].decode()] = head
            size += records.size_of(row)
    meta = books.meta
    if least != meta.least_prev:
        changed = {stream: max(least, changed.get(stream, 0)) for stream in {**books.streams, **changed}}
    books.unwritten = {stream: books.streams.get(stream) for stream in changed}
    books.streams |= changed
    books.meta = Meta(meta.epoch, meta.floor, head, size, least, meta.books)


def _read_lineage(connection: sqlite3.Connection, epoch: str) -> tuple[Ended, ...]:
    ended: dict[str, Ended] = {}
    for row in connection.execute("SELECT epoch, successor, upto, told, checksum FROM lineage"):
        known = is_ended(row)
        if known is None:
            raise Malformed("a row of lineage does not fit its checksum")
        ended[known[0]] = known[1]
    return lineage_of(epoch, ended)


def write_books(connection: sqlite3.Connection, books: Books) -> None:
    """Write all of the books, into a new database or in place of what is there."""
    connection.execute("DELETE FROM streams")
    connection.execute("DELETE FROM publishers")
    connection.execute("DELETE FROM lineage")
    rows = ((bot, topic, last) for (bot, topic), last in books.streams.items())
    connection.executemany("INSERT INTO streams VALUES (?, ?, ?)", rows)
    connection.executemany(
        "INSERT INTO publishers VALUES (?, ?, ?)", (publisher_row(*known) for known in books.expired.items())
    )
    connection.executemany("INSERT INTO lineage VALUES (?, ?, ?, ?, ?, ?)", _lineage_rows(books))
    meta = books.meta
    books.meta = Meta(meta.epoch, meta.floor, meta.head, meta.bytes, meta.least_prev, books.sum())
    books.written = meta.head
    books.unwritten = {}
    _write_meta(connection, books.meta)


def _write_meta(connection: sqlite3.Connection, meta: Meta) -> None:
    connection.execute(
        f"INSERT OR REPLACE INTO meta (id, {_META}) VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)", meta_row(meta)
    )


def _text(value: Any) -> str:
    if type(value) is not bytes:
        raise Malformed("a text of the books is none")
    return value.decode(errors="replace")


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise Malformed("a number of the books is none")
    return value


def _checksum(*values: Any) -> bytes:
    return hashlib.blake2b(repr(values).encode(errors="replace"), digest_size=8).digest()


def _number_of(*values: Any) -> int:
    return int.from_bytes(_checksum(*values), "little", signed=True)
