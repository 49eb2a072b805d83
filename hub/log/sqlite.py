"""The ledger on disk: a Log in one SQLite database, with its writer in a thread of its own.

A directory holds `ledger.sqlite` and SQLite's -wal and -shm, the high-water mark `ledger.mark`, and `ledger.lock`, which one
hub holds. What is promised and how: `writer` (durability), `group` (who shares a commit), `opening` (epochs), `reading`,
`retention`, `salvage` (damage), `mark`.
"""

from __future__ import annotations

import functools
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hub.core.ledger import Append, Appended, Damaged, Found, LogState, Page, Query, Read
from hub.log import database
from hub.log.books import OtherVersion
from hub.log.files import Directory, InUse, Lock
from hub.log.group import QUEUE_BYTES, Group
from hub.log.mark import MarkFile
from hub.log.opening import open_database
from hub.log.quarantine import ranges_of
from hub.log.reading import Snapshot
from hub.log.retention import Retention
from hub.log.threads import Pauses, ReadingThreads
from hub.log.writer import Writer
from hub.protocol.errors import ConfigError

__all__ = ["SqliteLog"]

READERS = 2


class SqliteLog:
    """A Log (hub.core.ledger) in a directory, which is made when it is not there.

    `cache_bytes`: memory for pages of the database, in which new ids are looked for. `key` is the configuration key that names the
    directory, for errors. Cancelled, `append` leaves open what was stored.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = 1 << 30,
        max_age_ms: int | None = None,
        retry_after_ms: int = 1000,
        cache_bytes: int = 16 << 20,
        key: str = "hub.ledger.path",
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
        new_epoch: Callable[[], str] = lambda: secrets.token_hex(6),
    ) -> None:
        self.directory = Directory(path)
        self._retention = Retention(max_bytes, max_age_ms)
        self._retry_after_ms = retry_after_ms
        self._cache_bytes = cache_bytes
        self._key = key
        self._now_ms = now_ms
        self._monotonic_ms = monotonic_ms
        self._new_epoch = new_epoch
        self._lock: Lock | None = None
        self._group: Group | None = None
        self._writer: Writer | None = None
        self._replays: ReadingThreads | None = None
        self._searches: ReadingThreads | None = None

    # --- life

    async def open(self) -> LogState:
        """Make ready for appends; salvages a damaged database first, which takes about 90 s for 1 GiB.

        Raises:
            ConfigError: it cannot be used; one line says what to do.
        """
        try:
            self._lock = self._locked()
            self._group = Group()
            self._writer = await self._group.start(self._make_writer)
        except BaseException as error:
            self._unlock()
            said = self._refused(error)
            if said is None:
                raise
            raise ConfigError(self._key, said) from None
        self._replays = ReadingThreads(self.directory.database, READERS, "tradewire-ledger-read")
        # One: a search may look through a whole ledger, and must not take the turns of who reads pages.
        self._searches = ReadingThreads(self.directory.database, 1, "tradewire-ledger-search")
        books = self._writer.books
        meta = books.meta
        return LogState(meta.epoch, meta.floor, meta.head, dict(books.streams), books.lineage)

    def _locked(self) -> Lock:
        self.directory.make()
        return Lock(self.directory.lock)

    def _unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def _make_writer(self) -> Writer:
        mark = MarkFile(self.directory.mark)
        try:
            opened = open_database(self.directory, mark, self._new_epoch)
        except BaseException:
            mark.close()
            raise
        return Writer(
            self.directory,
            mark,
            opened,
            self._retention,
            now_ms=self._now_ms,
            monotonic_ms=self._monotonic_ms,
            retry_after_ms=self._retry_after_ms,
            cache_bytes=self._cache_bytes,
        )

    def _refused(self, error: BaseException) -> str | None:
        where = str(self.directory.path).encode(errors="replace").decode()
        if isinstance(error, InUse):
            return f"another hub has the ledger in {where}; give each hub a directory of its own"
        if isinstance(error, OtherVersion):
            return f"the ledger in {where} is of another version ({error}); move it away or run that version"
        if isinstance(error, OSError | sqlite3.Error | ValueError):
            return f"the ledger in {where} cannot be used: {database.said(error)}"
        return None

    async def close(self) -> None:
        """Commit what waits, and release. Idempotent."""
        group = self._group
        # Readers first: SQLite removes the WAL with the last connection, if that one may write.
        for threads in (self._replays, self._searches):
            if threads is not None:
                await threads.close()
        if group is not None:
            await group.close()
        self._unlock()

    # --- what a Log does

    @property
    def floor(self) -> int:
        """The highest offset that retention removed."""
        return 0 if self._writer is None else self._writer.books.meta.floor

    async def append(self, batch: Sequence[Append]) -> list[Appended]:
        """Commit a batch, with others that wait: one sync of the disk for all of them.

        Raises:
            NotDurable: nothing of it is known to be durable (full disk, a failed sync); it may succeed later.
        """
        assert self._group is not None
        return await self._group.append(batch)

    async def read(self, read: Read) -> Page:
        """A page, read beside the writer.

        Raises:
            sqlite3.Error: the database cannot be read at all, now.
        """
        assert self._replays is not None
        page = await self._replays.run(lambda reader: reader.page(self._snapshot(), read))
        self._report(page.entries)
        return page

    async def find(self, query: Query) -> Found:
        """Search, some thousand slots a call at most: it may find nothing and yet tell where to go on.

        One search at a time; others wait, and no page or append for any. Cancelled, it ends within some slots.

        Raises:
            sqlite3.Error: the database cannot be read at all, now.
        """
        assert self._searches is not None
        pauses = Pauses()
        try:
            found = await self._searches.run(
                lambda reader: reader.find(self._snapshot(streams=True), query, pauses)
            )
        finally:
            pauses.end()
        self._report(found.entries)
        return found

    def _snapshot(self, *, streams: bool = False) -> Snapshot:
        writer = self._writer
        assert writer is not None
        told, generation, books = writer.told, writer.generation, writer.books
        # list() of a dict is one step for other threads.
        known = list(books.streams) if streams else ()
        return Snapshot(books.meta.epoch, books.meta.floor, told, generation, known)

    def _report(self, slots: Sequence[object]) -> None:
        """Let the writer quarantine what a read found damaged."""
        damaged = list(ranges_of(slot.offset for slot in slots if isinstance(slot, Damaged)))
        if damaged and self._group is not None and self._writer is not None:
            self._group.call(functools.partial(self._writer.quarantine, damaged))

    def statistics(self) -> dict[str, int]:
        """Figures: entries, bytes, limit_bytes, floor, head, and what the disk has to do with it."""
        writer, group = self._writer, self._group
        if writer is None or group is None:
            return {}
        meta = writer.books.meta
        return {
            "entries": meta.head - meta.floor,
            "bytes": meta.bytes,
            "limit_bytes": self._retention.max_bytes,
            "floor": meta.floor,
            "head": meta.head,
            "queued_bytes": group.queued_bytes,
            "queued_limit_bytes": QUEUE_BYTES,
            "wal_bytes": writer.wal_bytes(),
            "cache_limit_bytes": writer.cache_bytes,
            "commits": writer.commits,
            "appended": writer.appended,
            "largest_group": writer.largest_group,
            "damaged": writer.damaged,
            "failed_commits": writer.failed_commits,
            "failing": int(writer.failure is not None),
        }
