"""Messages for a log, and short ways to store and read them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hub.core.entry import Entry
from hub.core.ledger import Append, Appended, Log, Read
from hub.log.sqlite import SqliteLog
from hub.protocol.codec import encode_body


def entry(
    mid: str,
    *,
    bot: str = "a",
    topic: str = "entry_fill",
    publisher: str = "p",
    ts: int | None = None,
    pad: int = 0,
) -> Entry:
    """A fill; its time is its number, as of a publisher that keeps the time of a message through its retries."""
    data = {"number": mid.split("/")[0], "pad": "x" * pad}
    at = ts if ts is not None else int(mid) if mid.isdigit() else 1
    return Entry(bot, topic, at, encode_body(data), mid=mid, publisher=publisher)


async def results(log: Log, *entries: Entry) -> list[Appended]:
    """Store a batch."""
    appended = await log.append([Append(e, i) for i, e in enumerate(entries)])
    assert [r.append.token for r in appended] == list(range(len(entries)))
    return appended


async def append(log: Log, *entries: Entry) -> list[tuple[int, bool]]:
    """Store a batch of which nothing is refused."""
    appended = await results(log, *entries)
    assert [r.refused for r in appended] == [None] * len(entries)
    return [(r.offset, r.duplicate) for r in appended]


async def offsets(log: Log, start: int, limit: int = 1 << 20) -> list[int]:
    """The offsets of a page."""
    return [e.offset for e in (await log.read(Read(start, limit))).entries]


async def whole(log: Log) -> list[Any]:
    """Every slot that the log has, page by page."""
    slots: list[Any] = []
    start = 1
    while True:
        page = await log.read(Read(start, 1 << 20))
        if not page.entries:
            return slots
        slots += page.entries
        start = slots[-1].offset + 1


def content(e: Entry) -> tuple[Any, ...]:
    """All that a record must give back."""
    return (e.offset, e.prev, e.bot, e.topic, e.ts, e.publisher, e.mid, e.body)


class Time:
    """Clocks that stand still until a test moves them."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.ms


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SqliteLog]:
    """A ledger on disk, open."""
    log = SqliteLog(path, **options)
    await log.open()
    try:
        yield log
    finally:
        await log.close()


async def until(condition: Any) -> None:
    """Let the ledger's thread do what it was asked, for 10 s at most."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
