"""Auditing a ledger on disk: everything is read and compared with everything else. Reads only, also beside a running hub."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hub.core.entry import Entry
from hub.log import database
from hub.log.books import Books, read_books
from hub.log.files import Directory
from hub.log.mark import MarkFile
from hub.log.quarantine import Range, quarantined, ranges_of
from hub.log.reading import slots

__all__ = ["Audit", "audit", "ledger_to_read"]

MAX_FINDINGS = 100


@dataclass(slots=True)
class Audit:
    """What was found. `damaged` slots are among the findings; `findings` is cut at 100, `more` counts the rest."""

    epoch: str = ""
    floor: int = 0
    head: int = 0
    records: int = 0
    damaged: int = 0
    findings: list[str] = field(default_factory=list)
    more: int = 0

    def find(self, text: str) -> None:
        """One finding."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(text)
        else:
            self.more += 1


def audit(path: Path) -> Audit:
    """Read all of the ledger in a directory: its trees, each record's checksum, contiguity, the chain of `prev`, ids, books, mark.

    Raises:
        FileNotFoundError: there is no ledger. OSError: it cannot be read. OtherVersion.
    """
    result = Audit()
    try:
        # The mark is read first: a running hub only goes on from there.
        mark = MarkFile.load(Directory(path).mark)
        with ledger_to_read(path) as connection:
            books = _audit_books(connection, result)
            if books is not None:
                damaged = list(ranges_of(_audit_records(connection, books, result)))
                _audit_damaged(connection, damaged, result)
                _audit_tree(connection, result)
            if mark is None:
                result.find("mark: missing or unreadable; the next start gives a new epoch")
            elif books is not None and mark.epoch != books.meta.epoch:
                result.find(f"mark: it is of epoch {mark.epoch}, the ledger of {books.meta.epoch}")
            elif books is not None and mark.offset > books.meta.head:
                result.find(f"mark: {mark.offset} was told, the ledger ends at {books.meta.head}")
    except (sqlite3.Error, UnicodeDecodeError) as error:
        if not database.is_malformed(error):
            raise OSError(database.said(error)) from None
        result.find(f"database: {database.said(error)}; the next start of the hub salvages it")
    return result


@contextlib.contextmanager
def ledger_to_read(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection in a read transaction.

    Raises:
        FileNotFoundError: there is no ledger. sqlite3.Error.
    """
    name = Directory(path).database
    if not name.exists():
        raise FileNotFoundError(f"{path}: there is no ledger")
    connection = database.connect_to_read(name)
    try:
        connection.execute("BEGIN")
        yield connection
    finally:
        connection.close()


def _audit_books(connection: sqlite3.Connection, result: Audit) -> Books | None:
    database.check_schema(connection)
    try:
        books = read_books(connection)
    except database.Malformed as error:
        result.find(f"books: {error}; the next start of the hub salvages the database")
        return None
    result.epoch, result.floor, result.head = books.meta.epoch, books.meta.floor, books.meta.head
    return books


def _audit_records(connection: sqlite3.Connection, books: Books, result: Audit) -> Iterator[int]:
    """Damaged offsets; everything else is a finding."""
    meta = books.meta
    last: dict[tuple[str, str], int] = {}
    unsure = meta.least_prev
    for slot in slots(connection, meta.epoch, meta.floor + 1, meta.head):
        if not isinstance(slot, Entry):
            unsure = slot.offset
            yield slot.offset
            continue
        result.records += 1
        _audit_prev(slot, last, max(unsure, meta.floor), result)
        last[slot.stream] = slot.offset
        _audit_id(connection, slot, result)
    for stream, offset in last.items():
        told = books.streams.get(stream, 0)
        if not offset <= told <= max(offset, unsure):
            result.find(f"streams: {stream} ends at {offset}, the books say {told}")


def _audit_prev(slot: Entry, last: dict[tuple[str, str], int], unsure: int, result: Audit) -> None:
    """`prev` is the last record of the stream; where slots are lost or removed, it may be one of these."""
    known = last.get(slot.stream, 0)
    if not (slot.prev == known or known < slot.prev <= unsure < slot.offset):
        result.find(f"record {slot.offset}: its prev is {slot.prev}, the stream's last record {known}")


def _audit_id(connection: sqlite3.Connection, slot: Entry, result: Audit) -> None:
    try:
        row = connection.execute(
            "SELECT offset FROM records WHERE publisher = ? AND mid = ?", (slot.publisher, slot.mid)
        ).fetchone()
    except sqlite3.Error as error:
        result.find(f"record {slot.offset}: its id cannot be looked up: {database.said(error)}")
        return
    if row is None or row[0] != slot.offset:
        result.find(f"record {slot.offset}: its id leads to {'nothing' if row is None else row[0]}")


def _audit_damaged(connection: sqlite3.Connection, damaged: list[Range], result: Audit) -> None:
    for first, last in damaged:
        result.damaged += last - first + 1
        known = sum(b - a + 1 for a, b in quarantined(connection, first, last)) == last - first + 1
        which = f"record {first}" if first == last else f"records {first} to {last}"
        result.find(f"{which}: damaged{', quarantined' if known else ''}")


def _audit_tree(connection: sqlite3.Connection, result: Audit) -> None:
    for (line,) in connection.execute(f"PRAGMA integrity_check({MAX_FINDINGS})"):
        if line != b"ok":
            result.find(f"database: {line.decode(errors='replace')}")
