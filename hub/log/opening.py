"""Opening a ledger: make it, or check what is there, salvage it where it is malformed, and decide whether its epoch holds.

The order matters. The WAL that a process left which was killed is kept as a copy before SQLite reads it: SQLite drops all of it
behind a frame that is damaged, and then the copy still has the records. The database is compared with the mark before anything is
written. A new epoch is written into the database first and into the mark second: a kill between them shows as two epochs, which
is one more new epoch.

What an epoch has in common with the next
-----------------------------------------
The books name the epoch that their records were numbered in, and no two ledgers go on in one: of whatever made a copy or a cut, the
records that are there are those of their epoch. So up to the head the numbers mean the same in both epochs, always. How far the old
one was told is known by the mark of this directory, if it is of that epoch and was not copied itself; else nobody knows.

`PRAGMA quick_check` reads the whole file (0.12 s for 100 MB in the page cache), so it runs at every start; `integrity_check` takes
0.66 s for them and finds an index that does not fit its table as well: it runs where the file has at most 64 MiB.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from hub.core.ledger import Ended
from hub.log import database, pages
from hub.log.books import Books, Meta, read_books, write_books
from hub.log.database import Malformed
from hub.log.files import Directory, sync_directory
from hub.log.mark import Identity, Mark, MarkFile, identity_of
from hub.log.records import is_record
from hub.log.salvage import lines, salvage

__all__ = ["Cut", "Opened", "open_database", "reopen_database"]

INTEGRITY_CHECK_BYTES = 64 << 20
logger = logging.getLogger("tradewire.log")
# What is the same in the header of every database of ours, as (offset, bytes).
_CONSTANT = (
    (0, b"SQLite format 3\0"),
    (16, database.PAGE_BYTES.to_bytes(2, "big") + b"\x02\x02\x00\x40\x20\x20"),
    (44, (4).to_bytes(4, "big")),
    (52, bytes(4) + (1).to_bytes(4, "big")),
    (64, bytes(4) + database.APPLICATION_ID.to_bytes(4, "big") + bytes(20)),
)
_MAX_REPAIRED_BYTES = 4


class Cut(Exception):
    """A ledger that was open in this process has lost what it acknowledged; only a start can give it a new epoch."""


@dataclass(slots=True)
class Opened:
    """The writing connection, the books, and which file it is. `durable`: all of it is known to be on the disk."""

    connection: sqlite3.Connection
    books: Books
    identity: Identity
    durable: bool


def open_database(directory: Directory, mark: MarkFile, new_epoch: Callable[[], str]) -> Opened:
    """Open the ledger of a directory that this process has locked, at the start of a hub.

    Raises:
        OSError, sqlite3.Error: it cannot be used. OtherVersion.
    """
    before = mark.open()
    directory.remove_new()
    if not directory.database.exists():
        return _begin(directory, mark, before, new_epoch)
    _keep_wal(directory)
    _repair_header(directory.database)
    identity = identity_of(directory.database)
    # Of another file nobody knows which epoch it was in.
    ours = before is not None and before.identity.is_of(identity)
    fallback = before.epoch if before is not None and ours else new_epoch()
    try:
        connection, books = _checked(directory)
        if before is not None and _dropped(directory, books, before):
            connection.close()
            raise Malformed("SQLite dropped a part of its WAL")
    except (sqlite3.Error, UnicodeDecodeError) as error:
        if not database.is_malformed(error):
            raise
        logger.warning("the ledger's database %s is damaged: %s", directory.database, database.said(error))
        told = before.offset if before is not None and before.identity.is_of(identity) else 0
        salvaged = salvage(directory, fallback, told)
        for line in lines(salvaged):
            logger.warning("%s", line)
        if salvaged.meta is None:
            directory.database.unlink()
            return _begin(directory, mark, before, new_epoch)
        # It is the same ledger in another file.
        now = identity_of(directory.database)
        before = replace(before, identity=now) if before is not None and ours else None
        identity = now
        connection, books = _checked(directory)
    try:
        _settle_epoch(connection, books, before, identity, new_epoch)
        durable = _make_durable(connection)
        # Both of its places, so that damage to one leaves the other.
        for _ in range(2):
            mark.write(Mark(books.meta.epoch, books.meta.head, identity))
        directory.kept_wal.unlink(missing_ok=True)
    except BaseException:
        connection.close()
        raise
    return Opened(connection, books, identity, durable)


def reopen_database(directory: Directory, opened: Opened, told: int, *, malformed: bool) -> Opened:
    """Open it again in a running hub, after a failure. What was stored and not told stays; `told` is the highest offset that was.

    Raises:
        Cut: it lost what it had told. OSError, sqlite3.Error: it cannot be used, now.
    """
    epoch = opened.books.meta.epoch
    identity = opened.identity
    if malformed:
        for line in lines(salvage(directory, epoch, told)):
            logger.warning("%s", line)
        identity = identity_of(directory.database)
    elif directory.database.stat().st_ino != identity.inode:
        raise Cut("another file has the name of its database")
    connection = database.connect(directory.database)
    try:
        books = read_books(connection)
        if (books.meta.epoch, max(told, books.meta.head)) != (epoch, books.meta.head):
            raise Cut(f"it ends at {books.meta.head}, and {told} was told")
        if not database.checkpoint(connection, truncate=True):
            raise OSError("a reader holds the WAL")
    except BaseException:
        connection.close()
        raise
    return Opened(connection, books, identity, durable=True)


def _begin(directory: Directory, mark: MarkFile, before: Mark | None, new_epoch: Callable[[], str]) -> Opened:
    """A new ledger. It gets its name when it is whole."""
    if before is not None and before.offset:
        logger.warning(
            "the ledger's database is gone (%d messages were told); a new one begins, with a new epoch",
            before.offset,
        )
    for stale in (directory.wal, directory.shm, directory.kept_wal):
        stale.unlink(missing_ok=True)
    directory.remove_new()
    books = Books(Meta(new_epoch()))
    if before is not None:
        books.lineage = (Ended(before.epoch, 0, before.offset if before.in_place else None),)
    connection = database.create(directory.new)
    try:
        connection.execute("BEGIN")
        write_books(connection, books)
        connection.execute("COMMIT")
        database.checkpoint(connection, truncate=True)
    finally:
        connection.close()
    directory.new.rename(directory.database)
    sync_directory(directory.path)
    identity = identity_of(directory.database)
    for _ in range(2):
        mark.write(Mark(books.meta.epoch, 0, identity))
    return Opened(database.connect(directory.database), books, identity, durable=True)


def _keep_wal(directory: Directory) -> None:
    """A copy of the WAL of a process that was killed; one that closed left none."""
    # One that is there is of a start that did not end: SQLite may have cut the WAL since.
    if directory.kept_wal.exists() or not directory.wal.exists() or not directory.wal.stat().st_size:
        return
    try:
        shutil.copyfile(directory.wal, directory.kept_wal)
        directory.kept_wal.chmod(0o600)
    except OSError as error:
        directory.kept_wal.unlink(missing_ok=True)
        logger.warning("the WAL of the ledger cannot be kept while it is checked: %s", database.said(error))


def _repair_header(path: Path) -> None:
    """Put right what can only be one thing: else SQLite takes the file for none of its own, or ignores the WAL.

    A file that differs in more than a few bytes is left alone: it may be something else.
    """
    with path.open("r+b", buffering=0) as file:
        header = bytearray(file.read(100))
        if len(header) < 100:
            return
        repaired = bytearray(header)
        for at, constant in _CONSTANT:
            repaired[at : at + len(constant)] = constant
        differing = sum(a != b for a, b in zip(header, repaired, strict=True))
        if 0 < differing <= _MAX_REPAIRED_BYTES:
            logger.warning("the header of %s was damaged and is repaired (%d bytes)", path, differing)
            os.pwrite(file.fileno(), repaired, 0)
            os.fsync(file.fileno())


def _checked(directory: Directory) -> tuple[sqlite3.Connection, Books]:
    connection = database.connect(directory.database)
    try:
        database.check_schema(connection)
        check = "integrity_check" if _size(directory) <= INTEGRITY_CHECK_BYTES else "quick_check"
        (verdict,) = connection.execute(f"PRAGMA {check}(1)").fetchone()
        if verdict != b"ok":
            raise Malformed(verdict.decode(errors="replace").replace("\n", " ")[:200])
        books = read_books(connection)
    except BaseException:
        connection.close()
        raise
    return connection, books


def _make_durable(connection: sqlite3.Connection) -> bool:
    """What the last process wrote may be in the page cache only, if its sync failed: copied and synced, it is durable."""
    try:
        return database.checkpoint(connection, truncate=True)
    except sqlite3.OperationalError as error:
        if database.is_malformed(error):
            raise
        logger.warning("the ledger takes nothing yet: %s", database.said(error))
        return False


def _size(directory: Directory) -> int:
    size = directory.database.stat().st_size
    with contextlib.suppress(FileNotFoundError):
        size += directory.wal.stat().st_size
    return size


def _dropped(directory: Directory, books: Books, before: Mark) -> bool:
    """Whether the WAL has records that were told, and that SQLite passed over for a damaged frame before them."""
    head = books.meta.head
    if books.meta.epoch != before.epoch or head >= before.offset or not directory.kept_wal.exists():
        return False
    return any(
        head < rowid <= before.offset and len(columns) == 10 and is_record((rowid, *columns[1:]))
        for rowid, columns in pages.rows(None, [directory.kept_wal])
    )


def _settle_epoch(
    connection: sqlite3.Connection,
    books: Books,
    before: Mark | None,
    identity: Identity,
    new_epoch: Callable[[], str],
) -> None:
    """Give the ledger a new epoch where its numbers could be those of other messages, and say why."""
    reason = _broken(books, before, identity)
    if reason is None:
        return
    books.end(new_epoch(), _told(books.meta, before))
    connection.execute("BEGIN IMMEDIATE")
    write_books(connection, books)
    connection.execute("COMMIT")
    logger.warning("the ledger gets a new epoch, %s: %s", books.meta.epoch, reason)


def _told(meta: Meta, before: Mark | None) -> int | None:
    """The highest offset that was told in the epoch of the books. What they have beyond the mark is told in the next."""
    if before is None or before.epoch != meta.epoch or not before.in_place:
        return None
    return max(before.offset, meta.head)


def _broken(books: Books, before: Mark | None, identity: Identity) -> str | None:
    meta = books.meta
    if not meta.head and (before is None or before.epoch != meta.epoch or not before.offset):
        return None
    if before is None:
        return "its mark is missing, so nobody knows how far it had come"
    if before.epoch != meta.epoch:
        return "its mark is of another ledger"
    if meta.head < before.offset:
        return f"it ends at {meta.head}, and messages up to {before.offset} were acknowledged; they are lost"
    if not before.identity.is_of(identity):
        return "its database is a copy, or was restored"
    return None
