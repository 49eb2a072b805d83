"""The writer: appends, retention and checkpoints on the one connection that writes, and what follows when one of them fails.

Theory of operation
===================
`commit` takes what waits and makes one transaction of it: an id that is known is answered from its record, everything else gets
the next offset; where there are too many bytes, retention takes some from the other end; now and then the books go in with them.
One COMMIT is one sync of the WAL. The mark is written next, and only then are results returned.

An append that comes alone, with nothing else due, is one statement, which is a transaction by itself: three pages of the WAL.
The WAL is laid out ahead of it in zeros, which SQLite takes for no frame: a sync of a file that grows is two writes more, one of
them in the journal of the file system, and takes twice as long.

A commit that failed leaves everything open. A sync that failed tells its error once; the pages may count as clean now and yet
not be on the disk, so neither the WAL nor a second sync can be believed. So the connection is opened again, the books are read
anew (what was stored after all keeps its number), and nothing is acknowledged, no repetition either, until a checkpoint has
copied the whole WAL into the database, synced that, and emptied the WAL. Where the database is malformed it is salvaged first.
All this is tried again with each append, at most twice a second (salvage: once in five minutes).

Everything here runs in the writer's thread. What others read (`told`, `books.meta`, the figures) is replaced whole.

Invariants
==========
1. An offset is told (returned, or in LogState) only after its COMMIT succeeded and the mark says so.
2. `books` is what the database holds, whenever no transaction is under way and `failure` is None.
3. After a failure nothing is told before a checkpoint with TRUNCATE succeeded.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hub.core.entry import Entry
from hub.core.ledger import Append, Appended
from hub.log import database, quarantine, records
from hub.log.books import Books, Draft
from hub.log.files import Directory
from hub.log.mark import Mark, MarkFile
from hub.log.opening import Cut, Opened, reopen_database
from hub.log.quarantine import Range
from hub.log.retention import Retention, remove
from hub.protocol.errors import BadMessage, IdConflict, IdExpired, NotDurable

__all__ = ["Writer"]

WAL_FRAMES = 4000
"""Pages in the WAL, about, after which they are copied into the database: 16 MiB."""
FRAMES_PER_COMMIT = 3
FRAMES_PER_RECORD = 2
WAL_TRUNCATE_BYTES = 64 << 20
WAL_AHEAD = bytes(512 << 10)
TRUNCATE_WAIT_MS = 50
REMOVED_PER_COMMIT = 64
RETENTION_STEP = 256
RECOVER_AGAIN_MS = 500
RECOVERED_MS = 10_000
SALVAGE_AGAIN_MS = 300_000
logger = logging.getLogger("tradewire.log")


class Writer:
    """Not a task and not a thread: `hub.log.group` calls it in one. `monotonic_ms` only grows, `now_ms` is since 1970 UTC."""

    def __init__(
        self,
        directory: Directory,
        mark: MarkFile,
        opened: Opened,
        retention: Retention,
        *,
        now_ms: Callable[[], int],
        monotonic_ms: Callable[[], int],
        retry_after_ms: int,
    ) -> None:
        self.directory = directory
        self.retention = retention
        self.told = opened.books.meta.head
        self.generation = 0
        """Grows when readers have to open the database again."""
        self.commits = 0
        self.appended = 0
        self.largest_group = 0
        self.failed_commits = 0
        self.failure: str | None = None if opened.durable else "its WAL could not be copied at the start"
        self._opened = opened
        self._connection: sqlite3.Connection | None = opened.connection
        self._mark = mark
        self._now_ms = now_ms
        self._monotonic_ms = monotonic_ms
        self._retry_after_ms = retry_after_ms
        self._malformed = False
        self._told_failure = False
        self._failed_at = 0
        self._recovered_at: int | None = None
        self._salvaged_at: int | None = None
        self._cut = False
        self._stored: list[tuple[Entry, int, int]] = []
        self._frames = 0
        self._laid_out = 0
        # Asked after every commit, where a Path costs ten times its stat.
        self._wal = os.fspath(directory.wal)
        self.damaged = quarantine.count(opened.connection, opened.books.meta.floor)
        self._wal_inode = _inode(directory.wal)

    @property
    def books(self) -> Books:
        """As they were committed last."""
        return self._opened.books

    # --- appends

    def commit(self, batch: Sequence[Append]) -> list[Appended]:
        """Store a batch in one transaction; one result each.

        Raises:
            NotDurable: nothing of it is known to be durable.
        """
        try:
            self._make_ready()
            results = self._transact(batch)
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
            self._fail(error)
            raise self._not_durable() from error
        self._succeeded()
        return results

    def _transact(self, batch: Sequence[Append]) -> list[Appended]:
        connection = self._connection
        assert connection is not None
        draft = Draft(self.books)
        self._stored = []
        if len(batch) == 1 and not self._is_more_due(batch[0].entry):
            results = [self._append(connection, draft, batch[0])]
        else:
            with _transaction(connection):
                results = [self._append(connection, draft, append) for append in batch]
                if self.retention.is_over(draft.bytes):
                    limit = 2 * len(self._stored) + REMOVED_PER_COMMIT
                    remove(connection, draft, self.retention, self._now_ms(), limit)
                draft.write_due(connection)
        stored = len(self._stored)
        if draft.changed:
            draft.keep()
            self.commits += 1
            self._frames += FRAMES_PER_COMMIT + FRAMES_PER_RECORD * stored
        # A repetition may be of what was stored when it was reported as failed.
        told = max(self.told, draft.head)
        if told != self.told:
            self._mark.write(Mark(self.books.meta.epoch, told, self._opened.identity))
            self.told = told
        for entry, offset, prev in self._stored:
            entry.epoch, entry.offset, entry.prev = self.books.meta.epoch, offset, prev
        self.appended += stored
        self.largest_group = max(self.largest_group, stored)
        return results

    def _is_more_due(self, entry: Entry) -> bool:
        """Whether this entry's transaction has more to do than to store it."""
        return self.books.is_due(1) or self.retention.is_over(self.books.meta.bytes + entry.size)

    def _append(self, connection: sqlite3.Connection, draft: Draft, append: Append) -> Appended:
        entry = append.entry
        try:
            prev = draft.last(entry.stream)
            row, size = records.row_of(entry, draft.head + 1, prev, self._now_ms())
        except UnicodeEncodeError:
            return Appended(append, refused=BadMessage(f"{entry.topic}: a text is none that UTF-8 can hold"))
        expired = entry.ts <= draft.expired(entry.publisher)
        if expired or not connection.execute(records.INSERT, row).rowcount:
            known = self._known(connection, entry)
            if known is not None:
                return _repeated(append, known)
            if not expired:
                raise database.Malformed(f"offset {draft.head + 1} is there, beyond the head")
            said = f"{entry.topic}: ts is older than what the ledger still holds"
            return Appended(append, refused=IdExpired(said))
        draft.add(entry.stream, size)
        self._stored.append((entry, draft.head, prev))
        return Appended(append, draft.head)

    def _known(self, connection: sqlite3.Connection, entry: Entry) -> records.Row | None:
        row: records.Row | None = connection.execute(
            f"SELECT {records.COLUMNS} FROM records WHERE publisher = ? AND mid = ?",
            (entry.publisher, entry.mid or ""),
        ).fetchone()
        return row

    # --- between appends

    def maintain(self) -> bool:
        """Retention by age, checkpoints, the mark to the disk; True when there is more to do at once."""
        if self.failure is not None:
            return False
        try:
            removed = self._retain()
            self._mark.sync()
            self._bound_wal()
            self._check_name()
            self._succeeded()
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
            self._fail(error)
            return False
        return removed >= RETENTION_STEP

    def _retain(self) -> int:
        connection = self._connection
        assert connection is not None
        draft = Draft(self.books)
        with _transaction(connection):
            removed = remove(connection, draft, self.retention, self._now_ms(), RETENTION_STEP)
            draft.write_due(connection)
        if draft.changed:
            draft.keep()
            self._frames += FRAMES_PER_COMMIT + removed
        return removed

    def tend_wal(self) -> None:
        """Copy the WAL into the database when it has grown, or lay it out; between commits, so that none waits for it."""
        if self.failure is None:
            try:
                self._bound_wal()
                self._lay_out_wal()
            except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
                self._fail(error)

    def _bound_wal(self) -> None:
        assert self._connection is not None
        if self._frames >= WAL_FRAMES:
            self._frames = 0
            # A reader may hold a part of the WAL back; where that went on for long, the next readers wait for once.
            if self.wal_bytes() > WAL_TRUNCATE_BYTES:
                self._connection.execute(f"PRAGMA busy_timeout = {TRUNCATE_WAIT_MS}")
                database.checkpoint(self._connection, truncate=True)
                self._connection.execute(f"PRAGMA busy_timeout = {database.BUSY_MS}")
            else:
                database.checkpoint(self._connection, truncate=False)

    def _lay_out_wal(self) -> None:
        size = self.wal_bytes()
        if not 0 < size < database.WAL_KEPT_BYTES or size == self._laid_out:
            return
        # A disk that is full says so to the next commit that needs more.
        with contextlib.suppress(OSError):
            descriptor = os.open(self._wal, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(descriptor, WAL_AHEAD, size)
            finally:
                os.close(descriptor)
        self._laid_out = self.wal_bytes()

    def _check_name(self) -> None:
        """Someone may have moved the file away: what is written to it then is lost at the next start."""
        if self.directory.database.stat().st_ino != self._opened.identity.inode:
            self._cut = True
            raise OSError("another file has the name of its database; start the hub again")
        if _inode(self.directory.wal) != self._wal_inode:
            assert self._connection is not None
            logger.warning("the WAL of the ledger %s was removed while it is open", self.directory.database)
            # Readers no longer find what it holds, nor would the next start; by its descriptor it can still be copied.
            database.checkpoint(self._connection, truncate=True)
            self._recover(self._monotonic_ms())

    def wal_bytes(self) -> int:
        """The size of the WAL."""
        try:
            return os.stat(self._wal).st_size
        except OSError:
            return 0

    def quarantine(self, ranges: Sequence[Range]) -> None:
        """Remember slots that a reader found damaged, and say so, once."""
        connection = self._connection
        if self.failure is not None or connection is None:
            return
        try:
            floor = self.books.meta.floor
            fresh = [r for r in ranges if r[1] > floor and not self._is_known(connection, r)]
            if not fresh:
                return
            connection.execute("BEGIN IMMEDIATE")
            quarantine.write_ranges(connection, fresh)
            connection.execute("COMMIT")
            self.damaged = quarantine.count(connection, floor)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            self._fail(error)
            return
        for first, last in fresh:
            logger.error(
                "the ledger's %s cannot be read any more; it is told as damaged", _slots(first, last)
            )

    def _is_known(self, connection: sqlite3.Connection, slots: Range) -> bool:
        known = quarantine.quarantined(connection, *slots)
        return sum(last - first + 1 for first, last in known) == slots[1] - slots[0] + 1

    # --- failure and recovery

    def _fail(self, error: Exception) -> None:
        self.failed_commits += 1
        self.failure = database.said(error)
        if database.is_malformed(error):
            self._malformed = True
        self._failed_at = self._monotonic_ms()
        if not self._told_failure:
            self._told_failure = True
            logger.error("the ledger %s takes nothing: %s", self.directory.database, self.failure)
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _succeeded(self) -> None:
        # A disk that is nearly full takes a little now and then: that is one failure, told once.
        if self._told_failure and self._monotonic_ms() - self._failed_at >= RECOVERED_MS:
            self._told_failure = False
            logger.warning("the ledger %s takes messages again", self.directory.database)

    def _not_durable(self) -> NotDurable:
        return NotDurable(
            f"the ledger could not store the message: {self.failure}", retry_after_ms=self._retry_after_ms
        )

    def _make_ready(self) -> None:
        """After a failure: open again, and let nothing be told before all of it is known to be durable."""
        if self.failure is None:
            return
        now = self._monotonic_ms()
        if self._cut or (self._recovered_at is not None and now - self._recovered_at < RECOVER_AGAIN_MS):
            raise OSError(self.failure)
        self._recovered_at = now
        self._recover(now)

    def _recover(self, now: int) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._malformed:
            if self._salvaged_at is not None and now - self._salvaged_at < SALVAGE_AGAIN_MS:
                assert self.failure is not None
                raise OSError(self.failure)
            self._salvaged_at = now
        try:
            opened = reopen_database(self.directory, self._opened, self.told, malformed=self._malformed)
        except Cut as error:
            self._cut = True
            raise OSError(f"{error}; start the hub again") from None
        self._opened, self._connection = opened, opened.connection
        self.generation += 1
        self._malformed = False
        self.failure = None
        self.damaged = quarantine.count(opened.connection, opened.books.meta.floor)
        self._wal_inode = _inode(self.directory.wal)

    def close(self) -> None:
        """Copy the WAL into the database, bring the mark to the disk, release."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error as error:
                logger.warning("the ledger was not closed well: %s", database.said(error))
        self._mark.close()


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _repeated(append: Append, row: records.Row) -> Appended:
    """What an id that is known means: a repetition, or another message."""
    entry = append.entry
    # Of a record that is damaged nobody can say what it held; to store it anew could make a fill act twice.
    same = (row[4], row[5], row[8]) == (entry.bot.encode(), entry.topic.encode(), entry.body)
    if same or not records.is_record(row):
        return Appended(append, row[0], duplicate=True)
    return Appended(append, refused=IdConflict(f"mid {entry.mid!r} was used before for another body"))


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _slots(first: int, last: int) -> str:
    return f"record {first}" if first == last else f"records {first} to {last}"
