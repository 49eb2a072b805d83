"""A small ledger as bytes: put on disk, damaged, opened and judged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub.core.entry import Entry
from hub.core.ledger import Append, Damaged, Query
from hub.log.files import Directory
from hub.log.mark import Mark, MarkFile, identity_of
from hub.log.sqlite import SqliteLog
from tests.log.messages import content, entry, whole

STREAMS = [(bot, topic) for bot in ("alpha", "beta") for topic in ("entry_fill", "exit_fill")]


@dataclass
class Ledger:
    """What a hub stored, and the files that it left: `wal` is None when it closed."""

    epoch: str
    stored: dict[int, tuple[Any, ...]]
    floor: int
    database: bytes
    wal: bytes | None

    def put(self, directory: Path) -> None:
        """Lay the files out as the hub left them, with a mark that knows them."""
        for path in directory.iterdir():
            path.unlink()
        at = Directory(directory)
        at.database.write_bytes(self.database)
        if self.wal is not None:
            at.wal.write_bytes(self.wal)
        mark = MarkFile(at.mark)
        mark.open()
        for _ in range(2):
            mark.write(Mark(self.epoch, max(self.stored), identity_of(at.database)))
        mark.close()


def some(number: int) -> Entry:
    """An entry; some are large enough for overflow pages."""
    bot, topic = STREAMS[number * 7 % 4]
    pad = 9000 if number % 11 == 0 else number * 37 % 500
    return entry(str(number), bot=bot, topic=topic, publisher=f"p{number % 3}", pad=pad)


async def build(directory: Path, count: int, *, killed: bool, room: int = 1 << 30) -> Ledger:
    """A ledger with so many messages, of a hub that closed it or was killed."""
    log = SqliteLog(directory, max_bytes=room)
    state = await log.open()
    at = log.directory
    entries = [some(i) for i in range(1, count + 1)]
    for i in range(0, count, 4):
        await log.append([Append(e, None) for e in entries[i : i + 4]])
    stored = {e.offset: content(e) for e in entries}
    files = (at.database.read_bytes(), _frames(at.wal.read_bytes()))
    await log.close()
    if not killed:
        files = (at.database.read_bytes(), b"")
    return Ledger(state.epoch, stored, log.floor, files[0], files[1] if killed else None)


def _frames(wal: bytes) -> bytes:
    """Without what the writer laid out ahead."""
    count = -(-(len(wal.rstrip(b"\0")) - 32) // 4120)
    return wal[: 32 + 4120 * count]


def flip(path: Path, bit: int) -> None:
    """One bit of a file is another."""
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    with path.open("r+b") as file:
        file.write(data)


async def judge(ledger: Ledger, directory: Path) -> str:
    """Open a damaged ledger: nothing is silently lost, out of order or invented. What came of it, in a word."""
    log = SqliteLog(directory)
    state = await log.open()
    try:
        slots = await whole(log)
        lost = [slot.offset for slot in slots if isinstance(slot, Damaged)]
        offsets = [slot.offset for slot in slots]
        assert offsets == list(range(state.floor + 1, state.head + 1))
        for slot in slots:
            if isinstance(slot, Entry):
                assert content(slot) == ledger.stored[slot.offset]
        fresh = state.epoch != ledger.epoch
        if not fresh:
            # Where the newest row of meta is lost, an older one tells a lower floor: what retention removed is back, or damaged.
            assert max(ledger.stored) == state.head
            assert set(range(ledger.floor + 1, state.head + 1)) <= set(offsets) | set(range(state.floor + 1))
            assert state.floor == ledger.floor or slots
        await _judge_search(log, set(offsets) - set(lost))
        await _judge_repetitions(log, ledger, offsets, set(lost), fresh=fresh)
        await _judge_next(log, ledger, state.head, fresh=fresh)
        # What was found once is found again.
        again = [slot.offset for slot in await whole(log) if isinstance(slot, Damaged)]
        assert again == lost
        return "epoch" if fresh else f"damaged {len(lost)}" if lost else "whole"
    finally:
        await log.close()


async def _judge_search(log: SqliteLog, good: set[int]) -> None:
    got: set[int] = set()
    for stream in STREAMS:
        query = Query(bots=frozenset(stream[:1]), topics=frozenset(stream[1:]))
        got |= {slot.offset for slot in (await log.find(query)).entries if isinstance(slot, Entry)}
    assert got == good


async def _judge_repetitions(
    log: SqliteLog, ledger: Ledger, offsets: list[int], lost: set[int], *, fresh: bool
) -> None:
    """A publisher that never heard tries each message again: none that is there is stored twice."""
    for offset in offsets:
        if offset in lost:
            continue
        (result,) = await log.append([Append(some(int(ledger.stored[offset][6])), None)])
        assert (result.offset, result.duplicate) == (offset, True), result


async def _judge_next(log: SqliteLog, ledger: Ledger, head: int, *, fresh: bool) -> None:
    """The next messages get the next numbers, and their `prev` is at or behind the true predecessor."""
    assert log.statistics()["head"] == head
    last: dict[tuple[Any, Any], int] = {}
    for offset, stored in ledger.stored.items():
        last[stored[2:4]] = offset
    for i, (bot, topic) in enumerate(STREAMS):
        one = entry(f"{10_000 + i}", bot=bot, topic=topic)
        (result,) = await log.append([Append(one, None)])
        assert (result.offset, result.duplicate, result.refused) == (head + 1 + i, False, None)
        if not fresh:
            assert last[bot, topic] <= one.prev < one.offset
