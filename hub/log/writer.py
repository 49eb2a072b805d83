"""The writer: appends, retention and checkpoints on the one connection that writes, and what follows when one of them fails.

Theory of operation
===================
`commit` takes what waits and makes one transaction of it: an id that is known is answered from its record, everything else gets
the next offset; where there are too many bytes, retention takes some from the other end; now and then the books go in with them.
One COMMIT is one sync of the WAL. The mark is written next, and only then are results returned. A batch of new messages, with
nothing else due, is one statement (`batch`), which is a transaction by itself: three pages of the WAL for one message.

A sync writes the pages and nothing else only while the file's inode stays as it is: else the inode or the journal of the file
system is a third write, and takes half as long again (240 us where it is 160). So the WAL is laid out once, in zeros, which SQLite
takes for no frame, and is not asked for its size between commits: the kernel (6.13 and newer) gives a file that was
asked a new time at the next write.

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

from hub.core.ledger import Append, Appended
from hub.log import database, quarantine
from hub.log.batch import ROWS, Batch, NotNew, insert
from hub.log.books import Books, Draft
from hub.log.files import Directory
from hub.log.mark import Mark, MarkFile
from hub.log.opening import Cut, Opened, reopen_database
from hub.log.quarantine import Range
from hub.log.retention import Retention, remove
from hub.protocol.errors import NotDurable

__all__ = ["Writer"]

WAL_FRAMES = 8000
"""Pages in the WAL, about, after which they are copied into the database: 16 MiB."""
FRAMES_PER_COMMIT = 3
FRAMES_PER_RECORD = 2
WAL_TRUNCATE_BYTES = 64 << 20
WAL_AHEAD = bytes(2 << 20)
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
        cache_bytes: int = 16 << 20,
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
        self.cache_bytes = cache_bytes
        self._opened = opened
        self._connection: sqlite3.Connection | None = opened.connection
        database.keep_pages(opened.connection, cache_bytes)
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
        self._frames = 0
        self._copied = (b"", 0)
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

    def _transact(self, appends: Sequence[Append]) -> list[Appended]:
        batch = self._store_new(appends) or self._store_each(appends)
        draft = batch.draft
        if draft.changed:
            draft.keep()
            self.commits += 1
            self._frames += FRAMES_PER_COMMIT + FRAMES_PER_RECORD * len(batch.stored)
        # A repetition may be of what was stored when it was reported as failed.
        told = max(self.told, draft.head)
        epoch = self.books.meta.epoch
        if told != self.told:
            self._mark.write(Mark(epoch, told, self._opened.identity))
            self.told = told
        for entry, offset, prev in batch.stored:
            entry.epoch, entry.offset, entry.prev = epoch, offset, prev
        self.appended += len(batch.stored)
        self.largest_group = max(self.largest_group, len(batch.stored))
        return batch.results

    def _store_new(self, appends: Sequence[Append]) -> Batch | None:
        """Store a batch in which every id is new; None, and nothing has happened, where one is not."""
        connection = self._connection
        assert connection is not None
        batch = Batch(Draft(self.books), self._now_ms())
        try:
            values = batch.take_new(appends)
            if len(appends) <= ROWS and not self._is_more_due(batch.draft):
                insert(connection, values)
            else:
                with _transaction(connection):
                    insert(connection, values)
                    self._do_what_is_due(connection, batch)
        except (NotNew, sqlite3.IntegrityError):
            return None
        return batch

    def _store_each(self, appends: Sequence[Append]) -> Batch:
        connection = self._connection
        assert connection is not None
        batch = Batch(Draft(self.books), self._now_ms())
        with _transaction(connection):
            batch.add_each(connection, appends)
            self._do_what_is_due(connection, batch)
        return batch

    def _is_more_due(self, draft: Draft) -> bool:
        return self.retention.is_over(draft.bytes) or draft.is_due

    def _do_what_is_due(self, connection: sqlite3.Connection, batch: Batch) -> None:
        if self.retention.is_over(batch.draft.bytes):
            limit = 2 * len(batch.stored) + REMOVED_PER_COMMIT
            remove(connection, batch.draft, self.retention, self._now_ms(), limit)
        batch.draft.write_due(connection)

    # --- between appends

    def maintain(self) -> bool:
        """Retention by age, checkpoints, the mark to the disk; True when there is more to do at once."""
        if self.failure is not None:
            return False
        try:
            removed = self._retain()
            self._mark.sync()
            self._bound_wal()
            self._lay_out_wal()
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
        """Copy the WAL into the database when it has grown; between commits, so that none waits for it."""
        if self.failure is None:
            try:
                self._bound_wal()
            except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
                self._fail(error)

    def _bound_wal(self) -> None:
        assert self._connection is not None
        if self._frames < WAL_FRAMES:
            return
        # What was counted is what a commit may need at most; a record among many needs a tenth of it.
        salt, frames = database.wal_position(self.directory.shm)
        copied = self._copied[1] if self._copied[0] == salt else 0
        self._frames = frames - copied
        if self._frames >= WAL_FRAMES:
            self._frames, self._copied = 0, (salt, frames)
            # A reader may hold a part of the WAL back; where that went on for long, the next readers wait for once.
            if self.wal_bytes() > WAL_TRUNCATE_BYTES:
                self._connection.execute(f"PRAGMA busy_timeout = {TRUNCATE_WAIT_MS}")
                database.checkpoint(self._connection, truncate=True)
                self._connection.execute(f"PRAGMA busy_timeout = {database.BUSY_MS}")
            else:
                database.checkpoint(self._connection, truncate=False)

    def _lay_out_wal(self) -> None:
        size = self.wal_bytes()
        if not 0 < size < database.WAL_KEPT_BYTES:
            return
        # A disk that is full says so to the next commit that needs more.
        with contextlib.suppress(OSError):
            descriptor = os.open(self.directory.wal, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(descriptor, WAL_AHEAD, size)
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)

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
            return self.directory.wal.stat().st_size
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
        database.keep_pages(opened.connection, self.cache_bytes)
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


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _slots(first: int, last: int) -> str:
    return f"record {first}" if first == last else f"records {first} to {last}"
