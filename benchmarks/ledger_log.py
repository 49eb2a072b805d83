"""The ledger on disk: acknowledged appends a second by publishers, group commit against one commit per message.

    python -m benchmarks.ledger_log [SECONDS]

Both write the same rows with the same pragmas; the arms take turns, so that a slow disk is slow for both. With `strace -f -c -e
trace=fsync,fdatasync` in front of it the syncs can be counted: never more acknowledgements than their commits bring.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hub.core.entry import Entry
from hub.core.ledger import Append
from hub.log import database, records
from hub.log.sqlite import SqliteLog
from hub.protocol.codec import encode_body

PUBLISHERS = (1, 10, 100)
ROUNDS = 3
BODY_BYTES = 400
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Cell:
    """Of one round: acknowledged a second, and how long an acknowledgement took."""

    rate: float
    p50_ms: float
    p99_ms: float


def message() -> Entry:
    """A fill of about 400 bytes."""
    number = next(_numbers)
    data = {"trade_id": number, "pair": "BTC/USDT", "pad": "x" * (BODY_BYTES - 60)}
    return Entry("bot", "entry_fill", number, encode_body(data), mid=f"run/{number}", publisher="p")


async def measure(append: Callable[[Entry], Awaitable[object]], publishers: int, seconds: float) -> Cell:
    """Each publisher sends its next message when the last is acknowledged."""
    end = time.perf_counter() + seconds
    times: list[float] = []

    async def publish() -> None:
        while (start := time.perf_counter()) < end:
            await append(message())
            times.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(publish() for _ in range(publishers)))
    took = time.perf_counter() - start
    cuts = statistics.quantiles(times, n=100)
    return Cell(len(times) / took, cuts[49] * 1000, cuts[98] * 1000)


class OneByOne:
    """A commit for every message, in a thread of its own."""

    def __init__(self, path: Path) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._connection = self._thread.submit(database.create, path).result()
        self._head = 0

    async def append(self, entry: Entry) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, entry)

    def _commit(self, entry: Entry) -> None:
        self._head += 1
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute(records.INSERT, records.row_of(entry, self._head, self._head - 1, 1)[0])
        self._connection.execute("COMMIT")
        if self._head % 1000 == 0:
            with contextlib.suppress(sqlite3.OperationalError):
                database.checkpoint(self._connection, truncate=False)

    def close(self) -> None:
        self._thread.submit(self._connection.close).result()
        self._thread.shutdown()


async def run(directory: Path, seconds: float) -> None:
    log = SqliteLog(directory / "ledger")
    await log.open()
    single = OneByOne(directory / "single.sqlite")
    for publishers in PUBLISHERS:
        group_cells: list[Cell] = []
        single_cells: list[Cell] = []
        before = log.statistics()
        for _ in range(ROUNDS):
            group_cells.append(
                await measure(lambda entry: log.append([Append(entry, None)]), publishers, seconds)
            )
            single_cells.append(await measure(single.append, publishers, seconds))
        after = log.statistics()
        grouped = (after["appended"] - before["appended"]) / (after["commits"] - before["commits"])
        ratio = statistics.median(g.rate / s.rate for g, s in zip(group_cells, single_cells, strict=True))
        print(f"{publishers:4} publishers: {ratio:5.1f} x; {grouped:5.1f} messages a commit")
        for name, cells in (("group commit", group_cells), ("one by one", single_cells)):
            cell = sorted(cells, key=lambda c: c.rate)[len(cells) // 2]
            print(
                f"       {name:13} {cell.rate:8.0f}/s, p50 {cell.p50_ms:6.2f} ms, p99 {cell.p99_ms:6.2f} ms"
            )
    single.close()
    await log.close()


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    with tempfile.TemporaryDirectory(prefix="tradewire-ledger-") as directory:
        asyncio.run(run(Path(directory), seconds))


if __name__ == "__main__":
    main()
