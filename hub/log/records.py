"""A record: one row of the ledger's table, with a checksum over all of it.

The checksum covers the offset and the predecessor too, so a row that is found anywhere (in its place, in a page of a damaged
file) proves by itself which slot it is and what it held. It is blake2b of 8 bytes: 1.1 us for a fill of 400 bytes, where crc32
takes 0.4 us of the 21 us that a record costs, and salvage takes as true whatever fits its checksum.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from hub.core.entry import Entry

__all__ = ["COLUMNS", "FIELDS", "INSERT", "Row", "entry_of", "is_record", "row_of", "size_of"]

Row = Sequence[Any]
"""(offset, prev, stored_ms, ts, bot, topic, publisher, mid, body, checksum); texts as UTF-8 bytes when they are read."""

COLUMNS = "offset, prev, stored_ms, ts, bot, topic, publisher, mid, body, checksum"
FIELDS = 10
INSERT = f"INSERT OR IGNORE INTO records ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
"""It inserts no row where its offset or its id is there."""
_INTEGERS = slice(0, 4)
_TEXTS = slice(4, 8)
_BODY, _CHECKSUM = 8, 9
_TYPES = (*[int] * 4, *[bytes] * 6)
_OVERHEAD_BYTES = 64


def _checksum(numbers: Sequence[int], texts: Sequence[bytes], body: bytes) -> bytes:
    bot, topic, publisher, mid = texts
    sizes = (len(bot), len(topic), len(publisher), len(mid), len(body))
    head = b"%d %d %d %d %d %d %d %d %d " % (*numbers, *sizes)
    return blake2b(b"".join((head, bot, topic, publisher, mid, body)), digest_size=8).digest()


def row_of(entry: Entry, offset: int, prev: int, stored_ms: int) -> tuple[Row, int]:
    """The row that stores an entry, its texts as str; and what `size_of` says of it.

    Raises:
        UnicodeEncodeError: one of its texts is none that UTF-8 can hold.
    """
    bot, topic, publisher, mid, body = entry.bot, entry.topic, entry.publisher, entry.mid or "", entry.body
    numbers = (offset, prev, stored_ms, entry.ts)
    encoded = (bot.encode(), topic.encode(), publisher.encode(), mid.encode())
    checksum = _checksum(numbers, encoded, body)
    return (*numbers, bot, topic, publisher, mid, body, checksum), _size(encoded, body)


def is_record(row: Row) -> bool:
    """Whether a row that was read is what was stored."""
    return (
        tuple(map(type, row)) == _TYPES
        and _checksum(row[_INTEGERS], row[_TEXTS], row[_BODY]) == row[_CHECKSUM]
    )


def entry_of(row: Row, epoch: str) -> Entry | None:
    """The entry of a row that was read; None when it is not what was stored."""
    if not is_record(row):
        return None
    bot, topic, publisher, mid = (value.decode() for value in row[_TEXTS])
    entry = Entry(bot, topic, row[3], row[_BODY], mid=mid, publisher=publisher)
    entry.epoch, entry.offset, entry.prev = epoch, row[0], row[1]
    return entry


def size_of(row: Row) -> int:
    """Bytes that a record which was read takes on disk, about: its texts stand in the table and in the indexes."""
    return _size(row[_TEXTS], row[_BODY])


def _size(texts: Sequence[bytes], body: bytes) -> int:
    return len(body) + 2 * sum(map(len, texts)) + _OVERHEAD_BYTES
