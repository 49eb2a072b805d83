"""The SQLite ledger in a simulated world: its writer and its reader, called in the loop's thread.

What a death leaves is what was committed, as with a killed process; that the machine's power fails is `ledger.Disk`'s part. The
disk of the world is kept beside, as what the checks know of the truth.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hub.core.ledger import Append, Appended, Found, LogState, Page, Query, Read
from hub.log.files import Directory
from hub.log.mark import MarkFile
from hub.log.opening import open_database
from hub.log.reading import Reader, Snapshot
from hub.log.retention import Retention
from hub.log.writer import Writer
from hub.protocol.errors import NotDurable
from tests.simulation.ledger import Disk, Point, Record, SimLog

__all__ = ["FileLog"]

RECORD_BYTES = 220
"""What a record of these worlds takes, about, in the words of `Retention`."""


class FileLog(SimLog):
    """A Log in the directory `path`, which outlives it."""

    def __init__(self, path: Path, disk: Disk, loop: Any, point: Point) -> None:
        super().__init__(disk, loop, point)
        self._directory = Directory(path)
        self._reader = Reader(self._directory.database)
        self._writer: Writer | None = None
        self._abandoned = False

    @property
    def floor(self) -> int:
        return 0 if self._writer is None else self._writer.books.meta.floor

    async def open(self) -> LogState:
        path, loop = self._directory, self._loop
        path.path.mkdir(exist_ok=True)
        mark = MarkFile(path.mark)
        opened = open_database(path, mark, self._new_epoch)
        self._writer = Writer(
            path,
            mark,
            opened,
            Retention(min(self.disk.keep * RECORD_BYTES, 1 << 40)),
            now_ms=loop.now_ms,
            monotonic_ms=lambda: round(loop.time() * 1000),
            retry_after_ms=300,
        )
        meta = opened.books.meta
        assert meta.epoch == self.disk.epoch, (meta.epoch, self.disk.epoch)
        return LogState(meta.epoch, meta.floor, meta.head, dict(opened.books.streams), opened.books.lineage)

    def _new_epoch(self) -> str:
        assert not self.disk.history, "a new epoch without a reason"
        return self.disk.epoch

    async def append(self, batch: Sequence[Append]) -> list[Appended]:
        disk, writer = self.disk, self._writer
        assert writer is not None
        await self._alive("append")
        full = self._loop.time() < disk.full_until
        if not (full and not disk.full_stores):
            results = writer.commit(batch)
            disk.written += [
                record_of(result) for result in results if result.refused is None and not result.duplicate
            ]
            disk.fsync()
            disk.retain(self.floor)
        if full:
            raise NotDurable("disk full", retry_after_ms=300)
        await self._point("fsynced")
        await asyncio.sleep(self._rng.choice((0.0003, 0.003, 0.05)))
        await self._point("telling")
        return results

    async def read(self, read: Read) -> Page:
        await self._alive("read")
        self._damage()
        page = self._reader.page(self._snapshot(), read)
        await asyncio.sleep(self._rng.choice((0.0, 0.0005, 0.2)))
        return page

    async def find(self, query: Query) -> Found:
        return self._reader.find(self._snapshot(), query)

    def _snapshot(self) -> Snapshot:
        writer = self._writer
        assert writer is not None
        return Snapshot(writer.books.meta.epoch, self.floor, writer.told, writer.generation)

    def _damage(self) -> None:
        """What is damaged on the world's disk is damaged in the file."""
        assert self._writer is not None
        connection = self._writer._connection
        assert connection is not None
        for record in self.disk.records:
            if record.damaged:
                connection.execute(
                    "UPDATE records SET ts = ts + 1 WHERE offset = ? AND ts = ?", (record.offset, record.ts)
                )

    async def _alive(self, point: str) -> None:
        """What a dead hub still begins comes to nothing."""
        await self._point(point)
        if self._abandoned:
            await self._loop.create_future()

    def abandon(self) -> None:
        self._abandoned = True
        self._reader.close()
        if self._writer is not None:
            self._writer.close()


def record_of(result: Appended) -> Record:
    """What the checks know of a record."""
    entry = result.append.entry
    return Record(
        result.offset,
        entry.prev,
        entry.bot,
        entry.topic,
        entry.ts,
        entry.body,
        entry.publisher,
        entry.mid or "",
    )
