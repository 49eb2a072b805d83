"""A batch on its way into the table of records: in one statement where every id is new, row by row where one is not.

Python gives up its lock once a statement, and gets it back when the loop's thread is done with its turn, 5 ms later at worst. So a
statement for each row makes a busy hub's commits slow (measured: 23 to 45 ms for 20 rows beside replays), and costs twice as much.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Sequence
from itertools import islice
from typing import Any

from hub.core.entry import Entry
from hub.core.ledger import Append, Appended
from hub.log import database, records
from hub.log.books import Draft
from hub.protocol.errors import BadMessage, IdConflict, IdExpired

__all__ = ["ROWS", "Batch", "NotNew", "insert"]

ROWS = 100
"""In one statement, at most: there is one of each length, and SQLite takes 32 766 values."""


class NotNew(Exception):
    """An append of the batch may be a repetition, or is to be refused: it wants a closer look."""


class Batch:
    """What becomes of a batch in the transaction that `draft` describes. `stored`: (entry, offset, prev) of what goes in."""

    def __init__(self, draft: Draft, now_ms: int) -> None:
        self.draft = draft
        self.results: list[Appended] = []
        self.stored: list[tuple[Entry, int, int]] = []
        self._now_ms = now_ms

    def take_new(self, appends: Sequence[Append]) -> list[Any]:
        """Number all of them; the values of their rows, one after the other.

        Raises:
            NotNew: one of them cannot go in unseen.
        """
        draft, results, stored, now_ms = self.draft, self.results, self.stored, self._now_ms
        offset = draft.head
        values: list[Any] = []
        try:
            for append in appends:
                entry = append.entry
                stream = entry.stream
                if entry.ts <= draft.expired(entry.publisher):
                    raise NotNew
                offset += 1
                prev = draft.last(stream)
                row, size = records.row_of(entry, offset, prev, now_ms)
                values += row
                draft.add(stream, size)
                stored.append((entry, offset, prev))
                results.append(Appended(append, offset))
        except UnicodeEncodeError:
            raise NotNew from None
        return values

    def add_each(self, connection: sqlite3.Connection, appends: Sequence[Append]) -> None:
        """Insert what is new, within a transaction; answer what is known or refused.

        Raises:
            sqlite3.Error.
        """
        self.results += [self._add(connection, append) for append in appends]

    def _add(self, connection: sqlite3.Connection, append: Append) -> Appended:
        entry, draft = append.entry, self.draft
        prev = draft.last(entry.stream)
        try:
            row, size = records.row_of(entry, draft.head + 1, prev, self._now_ms)
        except UnicodeEncodeError:
            return Appended(append, refused=BadMessage(f"{entry.topic}: a text is none that UTF-8 can hold"))
        expired = entry.ts <= draft.expired(entry.publisher)
        if expired or not connection.execute(records.INSERT, row).rowcount:
            known = _known(connection, entry)
            if known is not None:
                return _repeated(append, known)
            if not expired:
                raise database.Malformed(f"offset {draft.head + 1} is there, beyond the head")
            said = f"{entry.topic}: ts is older than what the ledger still holds"
            return Appended(append, refused=IdExpired(said))
        draft.add(entry.stream, size)
        self.stored.append((entry, draft.head, prev))
        return Appended(append, draft.head)


def insert(connection: sqlite3.Connection, values: Sequence[Any]) -> None:
    """Insert rows that `take_new` made. Outside a transaction, up to ROWS of them are one by themselves.

    Raises:
        sqlite3.IntegrityError: one of them is there; the transaction is rolled back. sqlite3.Error.
    """
    rest = iter(values)
    while chunk := list(islice(rest, ROWS * records.FIELDS)):
        connection.execute(_insert_of(len(chunk) // records.FIELDS), chunk)


@functools.cache
def _insert_of(rows: int) -> str:
    row = f"({', '.join('?' * records.FIELDS)})"
    return f"INSERT OR ROLLBACK INTO records ({records.COLUMNS}) VALUES {', '.join([row] * rows)}"


def _known(connection: sqlite3.Connection, entry: Entry) -> records.Row | None:
    row: records.Row | None = connection.execute(
        f"SELECT {records.COLUMNS} FROM records WHERE publisher = ? AND mid = ?",
        (entry.publisher, entry.mid or ""),
    ).fetchone()
    return row


def _repeated(append: Append, row: records.Row) -> Appended:
    """What an id that is known means: a repetition, or another message."""
    entry = append.entry
    # Of a record that is damaged nobody can say what it held; to store it anew could make a fill act twice.
    same = (row[4], row[5], row[8]) == (entry.bot.encode(), entry.topic.encode(), entry.body)
    if same or not records.is_record(row):
        return Appended(append, row[0], duplicate=True)
    return Appended(append, refused=IdConflict(f"mid {entry.mid!r} was used before for another body"))
