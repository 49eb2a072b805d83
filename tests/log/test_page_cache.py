"""hub.log.page_cache: who shares a read, what is kept and how much, and what makes it go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from hub.core.entry import Entry
from hub.core.ledger import Damaged, Page, Read
from hub.log.memory import MemoryLog
from hub.log.page_cache import IDLE_S, PAGE_BYTES, PAGE_SLOTS, PageCache
from hub.protocol.codec import Wire
from hub.protocol.errors import LedgerUnreadable
from tests.log.messages import append, entry

pytestmark = pytest.mark.anyio
LIMIT = 64 * 1024
ONE = entry("1").size


class SlowLog(MemoryLog):
    """A log that answers reads when it is let, each with objects of its own; it notes them."""

    def __init__(self, entries: float = 1e6) -> None:
        super().__init__("e", int(entries * ONE))
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked: list[int] = []
        self.failing: Exception | None = None
        self.damaged: set[int] = set()
        self.missing: set[int] = set()

    async def read(self, read: Read) -> Page:
        self.asked.append(read.offset)
        page = await super().read(read)
        await self.gate.wait()
        if self.failing is not None:
            raise self.failing
        slots = [Damaged(e.offset) if e.offset in self.damaged else copied(e) for e in page.entries]
        return Page([slot for slot in slots if slot.offset not in self.missing], page.floor)


def copied(one: Entry | Damaged) -> Entry:
    assert isinstance(one, Entry)
    twin = Entry(one.bot, one.topic, one.ts, one.body, mid=one.mid, publisher=one.publisher)
    twin.epoch, twin.offset, twin.prev = one.epoch, one.offset, one.prev
    return twin


class Bench:
    """A cache on a log, a clock, and the tasks of its reads."""

    def __init__(self, limit_bytes: int, **log: Any) -> None:
        self.log = SlowLog(**log)
        self.now = 0.0
        self.tasks: set[asyncio.Task[None]] = set()
        self.pages = PageCache(self.log, limit_bytes, self.own, lambda: self.now)

    def own(self, coroutine: Coroutine[Any, Any, None], _name: str) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def fill(self, count: int, pad: int = 0) -> None:
        """Append so many more messages."""
        first = self.log.head + 1
        await append(self.log, *(entry(str(i), pad=pad) for i in range(first, first + count)))

    async def read(self, offset: int, limit_bytes: int = LIMIT) -> list[int]:
        """The offsets that a reader is given."""
        page = await self.pages.read(Read(offset, limit_bytes))
        self.pages.check_invariants()
        return [slot.offset for slot in page.entries]

    def begin(self, offset: int) -> asyncio.Task[list[int]]:
        """A reader who waits."""
        return asyncio.ensure_future(self.read(offset))


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Bench]]:
    """Makes a bench; at the end no read may be left."""
    made: list[Bench] = []

    def one(limit_bytes: int = 1 << 30, **log: Any) -> Bench:
        made.append(Bench(limit_bytes, **log))
        return made[-1]

    yield one
    for bench in made:
        assert not bench.tasks
        assert not bench.pages._pending


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


# --- sharing


async def test_who_waits_for_the_same_page_joins_one_read(make: Callable[..., Bench]) -> None:
    bench = make()
    await bench.fill(300)
    bench.log.gate.clear()
    waiting = [bench.begin(offset) for offset in (7, 100, 7, 2)]
    await turns()
    assert bench.log.asked == [1], "of the whole page, wherever in it they are"
    bench.log.gate.set()
    got = await asyncio.gather(*waiting)
    assert [offsets[0] for offsets in got] == [7, 100, 7, 2]
    assert all(offsets == list(range(offsets[0], PAGE_SLOTS + 1)) for offsets in got)
    assert bench.pages.shared == 3


async def test_who_comes_later_finds_it_and_shares_the_frames(make: Callable[..., Bench]) -> None:
    bench = make()
    await bench.fill(300)
    first = await bench.pages.read(Read(1, LIMIT))
    later = bench.pages.kept(Read(50, LIMIT))
    assert later is not None
    assert later.entries[0] is first.entries[49]
    one, other = first.entries[49], later.entries[0]
    assert isinstance(one, Entry)
    assert isinstance(other, Entry)
    assert one.frame(Wire.JSON) is other.frame(Wire.JSON)
    assert bench.log.asked == [1]


async def test_who_was_given_the_end_of_a_page_finds_the_next(make: Callable[..., Bench]) -> None:
    bench = make()
    await bench.fill(PAGE_SLOTS + 100)
    await bench.read(1, 1)
    await turns()
    assert bench.log.asked == [1]
    bench.log.gate.clear()
    assert await bench.read(2) == list(range(2, PAGE_SLOTS + 1))
    assert await bench.read(3) == list(range(3, PAGE_SLOTS + 1))
    await turns()
    assert bench.log.asked == [1, PAGE_SLOTS + 1], "once"
    waiting = bench.begin(PAGE_SLOTS + 5)
    bench.log.gate.set()
    assert (await waiting)[-1] == PAGE_SLOTS + 100
    await turns()
    assert bench.log.asked == [1, PAGE_SLOTS + 1], "behind the head there is nothing to read ahead"


async def test_pages_lead_through_the_log_whatever_their_size(make: Callable[..., Bench]) -> None:
    bench = make()
    await bench.fill(40)
    await bench.fill(10, pad=PAGE_BYTES // 3)
    await bench.fill(600)
    for start in (1, 42, 45, 300):
        at = start
        while offsets := await bench.read(at):
            assert offsets == list(range(at, at + len(offsets)))
            at = offsets[-1] + 1
        assert at == 651
    assert len(bench.log.asked) < 20
    assert bench.pages.statistics()["kept"] > 4


async def test_a_slice_is_bounded_in_bytes(make: Callable[..., Bench]) -> None:
    bench = make()
    await bench.fill(100, pad=1000)
    assert await bench.read(3, 1) == [3]
    assert await bench.read(3, 2500) == [3, 4, 5]
    bench.log.damaged = {4}
    bench.pages.forget()
    assert await bench.read(3, 2500) == [3, 4, 5, 6], "of what is not kept too"


async def test_what_was_appended_since_a_page_ended_at_the_head_is_read(make: Callable[..., Bench]) -> None:
    bench = make()
    await bench.fill(3)
    assert await bench.read(1) == [1, 2, 3]
    assert await bench.read(4) == []
    await bench.fill(3)
    assert await bench.read(2) == [2, 3]
    assert await bench.read(4) == [4, 5, 6]


async def test_what_was_appended_while_its_page_was_read_ahead(make: Callable[..., Bench]) -> None:
    bench = make()
    await bench.fill(PAGE_SLOTS)
    await bench.pages.read(Read(1, 1))
    bench.log.gate.clear()
    await bench.read(1)
    await turns()
    assert bench.log.asked == [1, PAGE_SLOTS + 1], "there was nothing yet"
    await bench.fill(5)
    waiting = bench.begin(PAGE_SLOTS + 1)
    await turns()
    bench.log.gate.set()
    assert await waiting == list(range(PAGE_SLOTS + 1, PAGE_SLOTS + 6))


# --- who goes away


@pytest.mark.parametrize("leaving", [0, 1, 2])
async def test_a_reader_that_goes_away_takes_nobody_with_it(make: Callable[..., Bench], leaving: int) -> None:
    bench = make()
    await bench.fill(10)
    bench.log.gate.clear()
    waiting = [bench.begin(offset) for offset in (1, 5, 9)]
    await turns()
    gone = waiting.pop(leaving)
    gone.cancel()
    await turns()
    assert gone.cancelled()
    bench.log.gate.set()
    for task in waiting:
        assert (await task)[-1] == 10
    assert bench.log.asked == [1]


async def test_a_read_for_which_nobody_waits_any_more_is_kept(make: Callable[..., Bench]) -> None:
    bench = make()
    await bench.fill(10)
    bench.log.gate.clear()
    gone = bench.begin(1)
    await turns()
    gone.cancel()
    await turns()
    bench.log.gate.set()
    await turns()
    assert bench.pages.kept(Read(1, LIMIT)) is not None


async def test_the_end_of_the_reads_ends_those_who_wait(make: Callable[..., Bench]) -> None:
    bench = make()
    await bench.fill(10)
    bench.log.gate.clear()
    waiting = [bench.begin(offset) for offset in (1, 5)]
    await turns()
    for task in bench.tasks:
        task.cancel()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 2


async def test_a_log_that_cannot_be_read_is_told_once_and_asked_again(
    make: Callable[..., Bench], caplog: pytest.LogCaptureFixture
) -> None:
    bench = make()
    await bench.fill(10)
    bench.log.failing = OSError("disk")
    results = await asyncio.gather(bench.begin(1), bench.begin(5), return_exceptions=True)
    assert [type(result) for result in results] == [LedgerUnreadable] * 2
    assert caplog.text.count("the log cannot be read") == 1
    bench.log.failing = None
    assert (await bench.read(5))[0] == 5


# --- bounds


async def test_what_is_kept_is_bounded_and_what_was_asked_for_last_stays(make: Callable[..., Bench]) -> None:
    bench = make(3 * PAGE_SLOTS * ONE + 100_000)
    await bench.fill(5 * PAGE_SLOTS)
    begins = [1 + i * PAGE_SLOTS for i in range(5)]
    for offset in (begins[0], begins[1], begins[2], begins[0], begins[3]):
        await bench.read(offset)
    figures = bench.pages.statistics()
    assert figures["kept"] == 3
    assert 0 < figures["bytes"] <= figures["limit_bytes"]
    assert [bench.pages.kept(Read(o, 1)) is not None for o in begins] == [True, False, True, True, False]


async def test_with_no_room_each_reads_where_it_asks(make: Callable[..., Bench]) -> None:
    bench = make(0)
    await bench.fill(300)
    got = await asyncio.gather(bench.begin(7), bench.begin(100), bench.begin(7))
    assert [offsets[0] for offsets in got] == [7, 100, 7]
    assert bench.log.asked == [7, 100]
    assert bench.pages.statistics() == {"kept": 0, "bytes": 0, "limit_bytes": 0, "reads": 2, "shared": 1}


async def test_a_page_larger_than_the_room_is_given_all_the_same(make: Callable[..., Bench]) -> None:
    bench = make(10 * ONE)
    await bench.fill(40)
    assert await bench.read(30) == list(range(30, 41))
    assert bench.pages.bytes == 0


async def test_what_nobody_asks_for_leaves(make: Callable[..., Bench]) -> None:
    bench = make()
    await bench.fill(2 * PAGE_SLOTS)
    await bench.read(1)
    await bench.read(PAGE_SLOTS + 1)
    bench.now = IDLE_S
    assert bench.pages.kept(Read(1, LIMIT)) is not None
    bench.now = IDLE_S + 1
    bench.pages.forget_idle()
    assert bench.pages.kept(Read(PAGE_SLOTS + 1, LIMIT)) is None
    assert bench.pages.kept(Read(1, LIMIT)) is not None
    bench.pages.check_invariants()


# --- what makes it go


async def test_retention_takes_what_is_kept_along(make: Callable[..., Bench]) -> None:
    bench = make(entries=2 * PAGE_SLOTS)
    await bench.fill(2 * PAGE_SLOTS)
    await bench.read(1)
    await bench.read(PAGE_SLOTS + 1)
    await bench.fill(100)
    floor = bench.log.floor
    assert 0 < floor < PAGE_SLOTS
    assert bench.pages.kept(Read(floor, LIMIT)) is None
    page = bench.pages.kept(Read(floor + 1, LIMIT))
    assert page is not None
    assert (page.floor, page.entries[0].offset) == (floor, floor + 1)
    page = await bench.pages.read(Read(5, LIMIT))
    assert (page.floor, page.entries[0].offset) == (floor, floor + 1), "the gap is told, as by the log"
    await bench.fill(PAGE_SLOTS)
    assert (await bench.read(1))[0] == bench.log.floor + 1
    assert min(bench.pages._pages) > floor + 1, "a page that is gone as a whole is not held"


async def test_retention_while_a_page_is_read(make: Callable[..., Bench]) -> None:
    bench = make(entries=PAGE_SLOTS)
    await bench.fill(PAGE_SLOTS)
    bench.log.gate.clear()
    waiting = [asyncio.ensure_future(bench.pages.read(Read(o, LIMIT))) for o in (1, 100)]
    await turns()
    await bench.fill(50)
    floor = bench.log.floor
    assert 1 < floor < 100
    bench.log.gate.set()
    early, late = await asyncio.gather(*waiting)
    assert (early.floor, early.entries[0].offset) == (floor, floor + 1)
    assert (late.floor, late.entries[0].offset) == (floor, 100)


async def test_retention_beyond_all_that_was_read(make: Callable[..., Bench]) -> None:
    bench = make(entries=50)
    await bench.fill(50)
    bench.log.gate.clear()
    waiting = asyncio.ensure_future(bench.pages.read(Read(1, LIMIT)))
    await turns()
    await bench.fill(200)
    bench.log.gate.set()
    page = await waiting
    assert bench.log.floor > 50
    assert (list(page.entries), page.floor) == ([], bench.log.floor)


async def test_a_damaged_slot_is_told_to_who_waits_and_asked_for_again(make: Callable[..., Bench]) -> None:
    bench = make()
    await bench.fill(10)
    bench.log.damaged = {4}
    pages = await asyncio.gather(bench.pages.read(Read(1, LIMIT)), bench.pages.read(Read(3, LIMIT)))
    assert [[s.offset for s in p.entries if isinstance(s, Damaged)] for p in pages] == [[4], [4]]
    assert bench.log.asked == [1]
    bench.log.damaged = set()
    page = await bench.pages.read(Read(4, LIMIT))
    assert isinstance(page.entries[0], Entry), "the disk failed once"


async def test_what_is_kept_is_good_though_its_record_is_damaged_later(make: Callable[..., Bench]) -> None:
    bench = make()
    await bench.fill(10)
    await bench.read(1)
    bench.log.damaged = {4}
    page = await bench.pages.read(Read(1, LIMIT))
    assert not any(isinstance(slot, Damaged) for slot in page.entries)


async def test_a_page_with_a_hole_is_passed_on_as_it_is(make: Callable[..., Bench]) -> None:
    bench = make()
    await bench.fill(10)
    bench.log.missing = {4}
    assert await bench.read(3) == [3, 5, 6, 7, 8, 9, 10], "core ends the session"
    assert bench.pages.statistics()["kept"] == 0


async def test_another_epoch_empties_it(make: Callable[..., Bench]) -> None:
    bench = make()
    await bench.fill(2 * PAGE_SLOTS)
    await bench.read(1)
    for one in bench.log._entries:
        one.epoch = "f"
    await bench.read(PAGE_SLOTS + 1)
    assert bench.pages.kept(Read(1, LIMIT)) is None
    assert (await bench.pages.read(Read(1, LIMIT))).entries[0].epoch == "f"  # type: ignore[union-attr]


# --- whatever comes


@pytest.mark.parametrize("seed", range(10))
async def test_every_reader_gets_every_slot_or_the_floor(make: Callable[..., Bench], seed: int) -> None:
    chance = random.Random(seed)
    bench = make(chance.choice([0, 20 * ONE, 600 * ONE, 1 << 30]), entries=chance.choice([300, 900, 1e6]))
    await bench.fill(700, pad=chance.choice([0, 0, 2000]))

    async def reader() -> None:
        at = chance.randrange(1, 700)
        for _ in range(30):
            page = await bench.pages.read(Read(at, chance.choice([1, 3000, LIMIT])))
            bench.pages.check_invariants()
            if page.floor >= at:
                at = page.floor + 1
            got = [slot.offset for slot in page.entries]
            assert got == list(range(at, at + len(got)))
            assert got or at > page.floor
            at += len(got)
            if chance.random() < 0.1:
                await bench.fill(chance.randrange(100))

    readers = [asyncio.ensure_future(reader()) for _ in range(20)]
    for victim in chance.sample(readers, 3):
        await turns()
        victim.cancel()
    results = await asyncio.gather(*readers, return_exceptions=True)
    assert [r for r in results if r is not None and not isinstance(r, asyncio.CancelledError)] == []
    await turns()
