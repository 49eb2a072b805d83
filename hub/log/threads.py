"""Threads that read the ledger: a few for one purpose, each with a connection of its own, so that no purpose waits for another."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hub.log.reading import Reader

__all__ = ["Pauses", "ReadingThreads"]

PAUSE_S = 0.0002
T = TypeVar("T")


class ReadingThreads:
    """At most `count` threads; what is asked of them beyond that waits, in order."""

    def __init__(self, database: Path, count: int, name: str) -> None:
        self._database = database
        self._threads = concurrent.futures.ThreadPoolExecutor(count, name)
        self._local = threading.local()
        self._readers: list[Reader] = []

    async def run(self, function: Callable[[Reader], T]) -> T:
        """What a function says of a reader, in a thread. Cancelled before it has begun, it does not begin."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, functools.partial(self._with_reader, function))

    def _with_reader(self, function: Callable[[Reader], T]) -> T:
        reader: Reader | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = Reader(self._database)
            self._readers.append(reader)
        return function(reader)

    async def close(self) -> None:
        """End the threads, behind what waits for them, and their connections. Idempotent."""
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)
        for reader in self._readers:
            with contextlib.suppress(sqlite3.Error):
                reader.close()
        self._readers.clear()


class Pauses:
    """The pauses of one long search, in its thread.

    Python lets a thread that computes go on for 5 ms while others wait, and gives no turn in between to who commits or delivers: in a
    pause they get theirs. `end` is for the loop: the search ends with its next pause.
    """

    def __init__(self) -> None:
        self._ended = False

    def end(self) -> None:
        """Nobody waits for the search any more."""
        self._ended = True

    def __call__(self) -> None:
        if self._ended:
            raise concurrent.futures.CancelledError
        time.sleep(PAUSE_S)
