"""A ledger on disk as JSON lines. Reads only, also beside a running hub."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hub.core.entry import Entry
from hub.core.ledger import Damaged, Query
from hub.log.audit import ledger_to_read
from hub.log.books import read_books
from hub.log.files import Directory
from hub.log.reading import Reader, Snapshot
from hub.protocol.codec import encode_body

__all__ = ["export", "line_of"]


def export(path: Path, query: Query) -> Iterator[bytes]:
    """Each slot that a query looks for, and each damaged one that it passes, as a line of JSON; oldest first.

    Raises:
        FileNotFoundError: there is no ledger. OSError, sqlite3.Error: it cannot be read. OtherVersion.
    """
    with ledger_to_read(path) as connection:
        books = read_books(connection)
    snapshot = Snapshot(books.meta.epoch, books.meta.floor, books.meta.head, 0, list(books.streams))
    reader = Reader(Directory(path).database)
    try:
        after: int | None = query.after
        while after is not None:
            found = reader.find(snapshot, replace(query, after=after))
            for slot in found.entries:
                yield line_of(slot, snapshot.epoch)
            after = found.after
    finally:
        reader.close()


def line_of(slot: Entry | Damaged, epoch: str) -> bytes:
    """`{epoch, offset, prev, bot, topic, ts, publisher, mid, data}`, or `{epoch, offset, damaged: true}`."""
    if isinstance(slot, Damaged):
        return encode_body({"epoch": epoch, "offset": slot.offset, "damaged": True}) + b"\n"
    head = {
        "epoch": epoch,
        "offset": slot.offset,
        "prev": slot.prev,
        "bot": slot.bot,
        "topic": slot.topic,
        "ts": slot.ts,
        "publisher": slot.publisher,
        "mid": slot.mid,
    }
    return encode_body({**head, "data": slot.data}) + b"\n"
