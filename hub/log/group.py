"""Group commit: the thread of the writer, and how appends get to it and back.

Appends that wait while a commit is under way share the next one, up to a bound in bytes. The loop is told once a commit.
Between commits the thread does what the writer has to do besides: readers' finds, checkpoints, and once a second retention by age
and the mark.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from hub.core.ledger import Append, Appended
from hub.log.writer import Writer
from hub.protocol.errors import NotDurable

__all__ = ["COMMIT_BYTES", "QUEUE_BYTES", "Group"]

COMMIT_BYTES = 4 << 20
QUEUE_BYTES = 64 << 20
MAINTAIN_S = 1.0
logger = logging.getLogger("tradewire.log")
T = TypeVar("T")


@dataclass(slots=True)
class _Call(Generic[T]):
    """Something to do with the writer in its thread; the future may be None."""

    function: Callable[[], T]
    future: asyncio.Future[T] | None


@dataclass(slots=True)
class _Job:
    """One append, and whom to tell."""

    batch: Sequence[Append]
    size: int
    future: asyncio.Future[list[Appended]]


class Group:
    """The thread. Its methods are the loop's, but for what says otherwise."""

    def __init__(self) -> None:
        self.queued_bytes = 0
        self.writer: Writer | None = None
        self._queue: queue.SimpleQueue[_Job | _Call[None] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="tradewire-ledger", daemon=True)
        self._ended = asyncio.Event()
        self._closing = False

    async def start(self, make: Callable[[], Writer]) -> Writer:
        """Start the thread with the writer that `make` makes in it.

        Raises:
            whatever `make` raises; the thread has ended then.
        """
        made: asyncio.Future[Writer] = self._loop.create_future()
        self._thread.start()
        self._queue.put(_Call(lambda: self._make(make, made), None))
        try:
            return await asyncio.shield(made)
        except BaseException:
            await self.close()
            raise

    def _make(self, make: Callable[[], Writer], made: asyncio.Future[Writer]) -> None:
        try:
            self.writer = make()
        except BaseException as error:
            self._tell(_settle, made, None, error)
        else:
            self._tell(_settle, made, self.writer, None)

    async def append(self, batch: Sequence[Append]) -> list[Appended]:
        """Commit a batch with what else waits.

        Raises:
            NotDurable: nothing of it is known to be durable, or too much waits.
        """
        if self._closing:
            raise NotDurable("the ledger is closed")
        size = sum(append.entry.size for append in batch)
        if self.queued_bytes and self.queued_bytes + size > QUEUE_BYTES:
            raise NotDurable("too much waits for the ledger", retry_after_ms=1000)
        self.queued_bytes += size
        job = _Job(batch, size, self._loop.create_future())
        self._queue.put(job)
        return await job.future

    def call(self, function: Callable[[], None]) -> None:
        """Let the thread call this between commits; from any thread."""
        self._queue.put(_Call(function, None))

    async def close(self) -> None:
        """Commit what waits, close the writer and end the thread. Idempotent."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        await self._ended.wait()

    # --- in the thread

    def _run(self) -> None:
        due = time.monotonic() + MAINTAIN_S
        try:
            while True:
                try:
                    item = self._queue.get(timeout=max(0.0, due - time.monotonic()))
                except queue.Empty:
                    due = time.monotonic() + (0.0 if self._maintain() else MAINTAIN_S)
                    continue
                if item is None:
                    return
                if isinstance(item, _Call):
                    self._guarded(item.function)
                else:
                    if not self._commit(item):
                        return
                if time.monotonic() >= due:
                    due = time.monotonic() + (0.0 if self._maintain() else MAINTAIN_S)
        finally:
            if self.writer is not None:
                self._guarded(self.writer.close)
            self._refuse_rest()
            self._tell(self._ended.set)

    def _maintain(self) -> bool:
        writer = self.writer
        if writer is None:
            return False
        try:
            return writer.maintain()
        except Exception:
            logger.exception("the ledger's upkeep failed")
            return False

    def _guarded(self, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception:
            logger.exception("a call in the ledger's thread failed")

    def _commit(self, first: _Job) -> bool:
        """Commit a job and what waits behind it; False when the thread is to end."""
        jobs, go_on, calls = self._gather(first)
        writer = self.writer
        assert writer is not None
        error: Exception | None = None
        results: list[Appended] = []
        try:
            results = writer.commit([append for job in jobs for append in job.batch])
        except Exception as caught:
            if not isinstance(caught, NotDurable):
                logger.exception("a commit of the ledger failed")
                caught = NotDurable("the ledger could not store the message")
            error = caught
        self._tell(self._answer, jobs, results, error)
        for call in calls:
            self._guarded(call.function)
        self._guarded(writer.tend_wal)
        return go_on

    def _gather(self, first: _Job) -> tuple[list[_Job], bool, list[_Call[None]]]:
        jobs, size = [first], first.size
        calls: list[_Call[None]] = []
        while size < COMMIT_BYTES:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:
                return jobs, False, calls
            if isinstance(item, _Call):
                calls.append(item)
            else:
                jobs.append(item)
                size += item.size
        return jobs, True, calls

    def _refuse_rest(self) -> None:
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return
            if isinstance(item, _Job):
                self._tell(self._answer, [item], [], NotDurable("the ledger is closed"))

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        # A loop that is closed has nobody who waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    # --- on the loop

    def _answer(self, jobs: Sequence[_Job], results: list[Appended], error: Exception | None) -> None:
        at = 0
        for job in jobs:
            self.queued_bytes -= job.size
            end = at + len(job.batch)
            _settle(job.future, results[at:end], error)
            at = end


def _settle(future: asyncio.Future[T], result: T, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
