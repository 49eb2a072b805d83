"""A log with the durability of SQLite's WAL with fsync, on a disk that a test can tear, fill and damage.

A commit has steps: *written* (in the WAL, not fsynced), *fsynced*, *told*. A crash keeps what was fsynced, and of what was only
written a prefix that the schedule chooses. The disk outlives the log; each start of a hub opens it anew.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import orjson

from hub.core.entry import Entry
from hub.core.ledger import Append, Appended, Damaged, Ended, Found, LogState, Page, Query, Read, matches
from hub.protocol.envelope import Position
from hub.protocol.errors import IdConflict, IdExpired, NotDurable

__all__ = ["Disk", "Point", "Record", "SimLog"]

Point = Callable[[str], Awaitable[None]]
"""Called at each step with its name; the process may end there."""

_OVERHEAD_BYTES = 100
_EVER = 1 << 60


@dataclass(slots=True)
class Record:
    """A slot of the ledger. `damaged`: it cannot be read any more."""

    offset: int
    prev: int
    bot: str
    topic: str
    ts: int
    body: bytes
    publisher: str
    mid: str
    damaged: bool = False

    name: tuple[str, str] = field(init=False)
    """What the message is by its content, whatever id its writer gave it."""

    def __post_init__(self) -> None:
        self.name = (self.publisher, orjson.loads(self.body)["buy_tag"])

    @property
    def id(self) -> tuple[str, str]:
        """What a log tells a repetition by."""
        return (self.publisher, self.mid)

    def slot(self, epoch: str) -> Entry | Damaged:
        """The record as it is read."""
        if self.damaged:
            return Damaged(self.offset)
        entry = Entry(self.bot, self.topic, self.ts, self.body, mid=self.mid, publisher=self.publisher)
        entry.epoch, entry.offset, entry.prev = epoch, self.offset, self.prev
        return entry


@dataclass
class Disk:
    """What is left when a hub dies. `told` is the highest offset that anyone was told of or has read (the high-water mark)."""

    rng: random.Random
    keep: int = _EVER
    epoch_number: int = 1
    records: list[Record] = field(default_factory=list)
    written: list[Record] = field(default_factory=list)
    floor: int = 0
    head: int = 0
    told: int = 0
    last: dict[tuple[str, str], int] = field(default_factory=dict)
    ids: dict[tuple[str, str], Record] = field(default_factory=dict)
    removed_ts: dict[str, int] = field(default_factory=dict)
    full_until: float = 0.0
    full_stores: bool = False
    history: dict[Position, Record] = field(default_factory=dict)
    """Every record that was fsynced, by epoch and offset. For the checks: no log remembers so much."""
    places: dict[tuple[str, str], list[Position]] = field(default_factory=dict)
    """Where each message stands or stood, in the order in which it got there. For the checks."""
    order: dict[Position, int] = field(default_factory=dict)
    ended: list[Ended] = field(default_factory=list)
    """The epochs before this one, oldest first."""

    @property
    def epoch(self) -> str:
        return f"e{self.epoch_number}"

    def fsync(self) -> None:
        """What was written is durable."""
        for record in self.written:
            self._index(record)
        self.records += self.written
        self.written = []

    def _index(self, record: Record) -> None:
        self.head = record.offset
        self.last[record.bot, record.topic] = record.offset
        self.ids[record.id] = record
        self._remember(record)

    def _remember(self, record: Record) -> None:
        place = Position(self.epoch, record.offset)
        self.history[place] = record
        self.places.setdefault(record.name, []).append(place)
        self.order[place] = len(self.order)

    def crash(self) -> None:
        """The process is gone, and with it what was written only; or not all of it."""
        del self.written[self.rng.randint(0, len(self.written)) :]
        self.fsync()

    def tear(self, count: int) -> None:
        """The end of the file is gone. `open` sees whether anyone was told of it."""
        cut = max(0, len(self.records) - count)
        torn = self.records[cut:]
        del self.records[cut:]
        self.head = self.records[-1].offset if self.records else self.floor
        for record in torn:
            self.last[record.bot, record.topic] = record.prev
            self.ids.pop(record.id, None)
        for record in torn:
            self.last[record.bot, record.topic] = min(record.prev, self.last[record.bot, record.topic])

    def open(self) -> None:
        """A cut below what anyone was told of is a new epoch: the numbers behind it would be given out again."""
        if self.head < self.told:
            self.ended.append(Ended(self.epoch, self.head, self.told))
            self.epoch_number += 1
            for record in self.records:
                self._remember(record)
        # The state that a log is opened with is told, too: as the head of a welcome, and where a subscription begins.
        self.told = self.head

    def damage(self, nth: int) -> None:
        """One record cannot be read any more."""
        if self.records:
            self.records[nth % len(self.records)].damaged = True

    def retain(self, floor: int = 0) -> None:
        """Remove the oldest records, beyond `keep` or up to `floor`; in the commit that brings new ones, so before these are told."""
        while len(self.records) > self.keep or (self.records and self.records[0].offset <= floor):
            old = self.records.pop(0)
            self.floor = old.offset
            self.removed_ts[old.publisher] = max(old.ts, self.removed_ts.get(old.publisher, -1))
            self.ids.pop(old.id, None)


class SimLog:
    """A Log on a `Disk`."""

    def __init__(self, disk: Disk, loop: asyncio.AbstractEventLoop, point: Point) -> None:
        self.disk = disk
        self._loop = loop
        self._point = point
        self._rng = random.Random(disk.rng.random())

    @property
    def floor(self) -> int:
        return self.disk.floor

    async def open(self) -> LogState:
        disk = self.disk
        disk.open()
        return LogState(disk.epoch, disk.floor, disk.head, dict(disk.last), tuple(disk.ended))

    async def append(self, batch: Sequence[Append]) -> list[Appended]:
        disk = self.disk
        results, new = self._judge(batch)
        await self._point("append")
        if self._loop.time() < disk.full_until:
            if disk.full_stores:
                disk.written += new
                disk.fsync()
            raise NotDurable("disk full", retry_after_ms=300)
        disk.written += new
        await self._point("written")
        await asyncio.sleep(self._rng.choice((0.0003, 0.003, 0.05)))
        await self._point("fsync")
        disk.fsync()
        disk.retain()
        await self._point("fsynced")
        await asyncio.sleep(self._rng.choice((0.0, 0.0002, 0.02)))
        await self._point("telling")
        disk.told = max([disk.told, *(result.offset for result in results)])
        return results

    def _judge(self, batch: Sequence[Append]) -> tuple[list[Appended], list[Record]]:
        results: list[Appended] = []
        new: list[Record] = []
        within: dict[tuple[str, str], Record] = {}
        last: dict[tuple[str, str], int] = {}
        for append in batch:
            entry = append.entry
            name = (entry.publisher, entry.mid or "")
            known = self.disk.ids.get(name) or within.get(name)
            if known is not None:
                results.append(_again(append, known))
            elif entry.ts <= self.disk.removed_ts.get(entry.publisher, -1):
                results.append(Appended(append, refused=IdExpired(f"{entry.mid}: older than what is held")))
            else:
                offset = self.disk.head + len(new) + 1
                prev = last.get(entry.stream, self.disk.last.get(entry.stream, 0))
                entry.epoch, entry.offset, entry.prev = self.disk.epoch, offset, prev
                last[entry.stream] = offset
                within[name] = Record(
                    offset, prev, entry.bot, entry.topic, entry.ts, entry.body, entry.publisher, name[1]
                )
                new.append(within[name])
                results.append(Appended(append, offset))
        return results, new

    async def read(self, read: Read) -> Page:
        await self._point("read")
        await asyncio.sleep(self._rng.choice((0.0, 0.0005, 0.01)))
        disk = self.disk
        slots: list[Entry | Damaged] = []
        size = 0
        for record in disk.records[max(0, read.offset - disk.floor - 1) :]:
            slots.append(record.slot(disk.epoch))
            size += len(record.body) + _OVERHEAD_BYTES
            if size >= read.limit_bytes:
                break
        disk.told = max([disk.told, *(slot.offset for slot in slots)])
        page = Page(slots, disk.floor)
        await asyncio.sleep(self._rng.choice((0.0, 0.0005, 0.2)))
        return page

    async def find(self, query: Query) -> Found:
        disk = self.disk
        found: list[Entry | Damaged] = []
        for record in disk.records:
            slot = record.slot(disk.epoch)
            if record.offset > query.after and (isinstance(slot, Damaged) or matches(query, slot)):
                found.append(slot)
                if len(found) >= query.limit:
                    return Found(found, record.offset, disk.floor, disk.head)
        return Found(found, None, disk.floor, disk.head)

    async def close(self) -> None:
        pass

    def abandon(self) -> None:
        """The process that has it died."""

    def statistics(self) -> dict[str, int]:
        disk = self.disk
        size = sum(len(record.body) + _OVERHEAD_BYTES for record in disk.records)
        return {
            "entries": len(disk.records),
            "bytes": size,
            "limit_bytes": max(size, 1),
            "floor": disk.floor,
            "head": disk.head,
        }


def _again(append: Append, known: Record) -> Appended:
    entry = append.entry
    if (known.bot, known.topic, known.body) == (entry.bot, entry.topic, entry.body):
        return Appended(append, known.offset, duplicate=True)
    return Appended(append, refused=IdConflict(f"mid {entry.mid!r} was used before for another body"))
