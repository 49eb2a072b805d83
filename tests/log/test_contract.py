"""What hub.core.ledger.Log promises, of each log."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.core.entry import Entry
from hub.core.ledger import Append, Log, LogState, Query, Read
from hub.log.memory import MemoryLog
from hub.log.records import row_of
from hub.log.sqlite import SqliteLog
from hub.protocol.errors import IdConflict, IdExpired
from tests.log.messages import append, content, entry, offsets, results, whole

pytestmark = pytest.mark.anyio
KINDS = ["memory", "sqlite"]


def make(kind: str, path: Path, *, entries: float = 1e6) -> Log:
    """A log with room for so many entries like `entry("1")`."""
    one = entry("1")
    if kind == "memory":
        return MemoryLog("e", int(entries * one.size))
    return SqliteLog(path / "ledger", max_bytes=int(entries * row_of(one, 1, 0, 1)[1]), new_epoch=lambda: "e")


Made = Callable[..., Awaitable[Log]]


@pytest.fixture(params=KINDS)
async def made(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Made]:
    """Makes an open log."""
    logs = []

    async def make_one(**room: Any) -> Log:
        log = make(request.param, tmp_path, **room)
        await log.open()
        logs.append(log)
        return log

    yield make_one
    for log in logs:
        await log.close()


@pytest.fixture
async def log(made: Made) -> Log:
    return await made()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_new_log_is_empty(kind: str, tmp_path: Path) -> None:
    log = make(kind, tmp_path)
    assert await log.open() == LogState("e", 0, 0, {})
    assert (await log.read(Read(1, 1000))).entries == []
    found = await log.find(Query())
    assert (list(found.entries), found.after, found.floor, found.head) == ([], None, 0, 0)
    assert log.floor == 0
    await log.close()


async def test_an_empty_batch_is_nothing(log: Log) -> None:
    assert await log.append([]) == []


async def test_offsets_count_from_one_and_prev_is_the_streams_last(log: Log) -> None:
    entries = [
        entry("1"),
        entry("2", bot="b"),
        entry("3"),
        entry("4", topic="exit_fill"),
        entry("5", bot="b"),
    ]
    assert await append(log, *entries[:2]) == [(1, False), (2, False)]
    assert await append(log, *entries[2:]) == [(3, False), (4, False), (5, False)]
    chain = [("e", 1, 0), ("e", 2, 0), ("e", 3, 1), ("e", 4, 0), ("e", 5, 2)]
    assert [(e.epoch, e.offset, e.prev) for e in entries] == chain
    read = await whole(log)
    assert [(e.epoch, e.offset, e.prev) for e in read] == chain
    assert [content(e) for e in read] == [content(e) for e in entries]
    assert read[0].data == entries[0].data


async def test_a_repetition_is_told_from_another_body_and_from_another_publisher(log: Log) -> None:
    await append(log, entry("m"))
    assert await append(log, entry("m", ts=999)) == [(1, True)], "the time is no part of the body"
    for other in (entry("m", pad=1), entry("m", topic="exit_fill"), entry("m", bot="b")):
        (result,) = await results(log, other)
        assert isinstance(result.refused, IdConflict)
        assert "'m'" in str(result.refused)
    assert await append(log, entry("m", publisher="q")) == [(2, False)]
    assert log.statistics()["head"] == 2


async def test_a_repetition_within_one_batch(log: Log) -> None:
    assert await append(log, entry("m"), entry("m"), entry("n")) == [(1, False), (1, True), (2, False)]


async def test_what_is_refused_takes_nothing_with_it(log: Log) -> None:
    await append(log, entry("m"))
    before, refused, after = await results(log, entry("n"), entry("m", pad=1), entry("o"))
    assert (before.offset, refused.offset, after.offset) == (2, 0, 3)
    assert await offsets(log, 1) == [1, 2, 3]


async def test_names_and_bodies_come_back_as_they_were(log: Log) -> None:
    odd = [
        Entry("ä/:☃", "top\0ic", 2**53, b'{"a":"\xf0\x9f\x90\x8d"}', mid="\0" * 64, publisher=""),
        Entry("b" * 64, "t", 0, bytes(range(256)) * 1024, mid="m" * 64, publisher="p\U0001f40d"),
        Entry("a", "t", -1, b"", mid="'; --", publisher="p"),
    ]
    expired = await append(log, *odd[:2])
    assert expired == [(1, False), (2, False)]
    assert [content(e) for e in await whole(log)] == [content(e) for e in odd[:2]]


async def test_retention_removes_a_prefix_and_its_ids_with_it(made: Made) -> None:
    log = await made(entries=3)
    await append(log, *(entry(str(i)) for i in range(1, 6)))
    assert (log.floor, await offsets(log, 0)) == (2, [3, 4, 5])
    assert await append(log, entry("3")) == [(3, True)]
    (old,) = await results(log, entry("1"))
    assert isinstance(old.refused, IdExpired), "its id left with it, so nobody knows whether it was stored"
    assert await append(log, entry("1", publisher="q")) == [(6, False)]
    assert await append(log, entry("7")) == [(7, False)]
    assert log.floor == 4


async def test_prev_is_exact_also_when_retention_has_removed_it(made: Made) -> None:
    log = await made(entries=2)
    await append(log, entry("1", bot="b"))
    await append(log, *(entry(str(i)) for i in range(2, 6)))
    late = entry("6", bot="b")
    await append(log, late)
    assert (log.floor, late.prev) == (4, 1)


async def test_one_entry_above_the_bound_is_kept_alone(made: Made) -> None:
    log = await made(entries=1)
    await append(log, entry("1"), entry("2", pad=5000))
    assert (log.floor, await offsets(log, 1)) == (1, [2])
    await append(log, entry("3"))
    assert (log.floor, await offsets(log, 1)) == (2, [3])


async def test_reads_at_the_floor_below_it_and_at_the_head(made: Made) -> None:
    log = await made(entries=3)
    await append(log, *(entry(str(i)) for i in range(1, 6)))
    below = await log.read(Read(1, 1 << 20))
    assert (below.floor, [e.offset for e in below.entries]) == (2, [3, 4, 5])
    assert await offsets(log, 3) == [3, 4, 5]
    assert await offsets(log, 5) == [5]
    assert await offsets(log, 6) == []
    assert await offsets(log, 99) == []


async def test_a_page_is_bounded_in_bytes_and_entries(log: Log) -> None:
    await append(log, *(entry(f"{i}", pad=1000) for i in range(10)))
    assert await offsets(log, 1, 1) == [1]
    assert await offsets(log, 1, 2500) == [1, 2, 3]
    await append(log, *(entry(f"s{i}", ts=100) for i in range(600)))
    assert len(await offsets(log, 1)) == Read(1, 1).limit_slots
    assert [e.offset for e in (await log.read(Read(5, 1 << 20, 3))).entries] == [5, 6, 7]


# --- searching


async def found(log: Log, **query: Any) -> list[int]:
    """The offsets of all pages of a search."""
    got: list[int] = []
    after: int | None = query.pop("after", 0)
    while after is not None:
        page = await log.find(Query(after=after, **query))
        got += [slot.offset for slot in page.entries]
        assert page.after is None or page.after > after
        after = page.after
    return got


async def test_a_search_by_bot_topic_and_time(log: Log) -> None:
    streams = [(bot, topic) for bot in "abc" for topic in ("entry_fill", "exit_fill")]
    await append(log, *(entry(str(i), bot=streams[i % 6][0], topic=streams[i % 6][1]) for i in range(1, 61)))
    everything = range(1, 61)
    assert await found(log) == list(everything)
    assert await found(log, bots=frozenset("a")) == [i for i in everything if i % 6 in (0, 1)]
    assert await found(log, topics=frozenset({"exit_fill"}), bots=frozenset("bx")) == list(range(3, 61, 6))
    assert await found(log, topics=frozenset({"none"})) == []
    assert await found(log, since_ms=10, until_ms=20) == list(range(10, 20))
    assert await found(log, since_ms=50, bots=frozenset("a"), limit=1) == [54, 55, 60]
    assert await found(log, after=57) == [58, 59, 60]
    assert await found(log, after=60) == []


async def test_a_search_is_bounded_and_tells_where_to_go_on(log: Log) -> None:
    await append(log, *(entry(str(i), pad=1000) for i in range(1, 11)))
    page = await log.find(Query(limit=3))
    assert ([e.offset for e in page.entries], page.after, page.head) == ([1, 2, 3], 3, 10)
    page = await log.find(Query(limit_bytes=2500, after=3))
    assert ([e.offset for e in page.entries], page.after) == ([4, 5, 6], 6)
    assert (await log.find(Query(limit=4, after=6))).after is None


async def test_a_search_after_retention_tells_the_floor(made: Made) -> None:
    log = await made(entries=3)
    await append(log, *(entry(str(i)) for i in range(1, 6)))
    page = await log.find(Query(bots=frozenset("a")))
    assert ([e.offset for e in page.entries], page.floor) == ([3, 4, 5], 2)


# --- whatever comes


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(0, 8), st.integers(0, 300), st.sampled_from("ab")), max_size=8),
        max_size=10,
    ),
    room=st.floats(1, 8),
)
def test_it_is_a_log(kind: str, batches: list[list[tuple[int, int, str]]], room: float) -> None:
    directory = Path(tempfile.mkdtemp())
    try:
        asyncio.run(_is_a_log(make(kind, directory, entries=room), batches))
    finally:
        shutil.rmtree(directory)


async def _is_a_log(log: Log, batches: list[list[tuple[int, int, str]]]) -> None:
    await log.open()
    stored: dict[int, Entry] = {}
    last: dict[str, int] = {}
    for batch in batches:
        entries = [entry(str(mid), pad=pad, bot=bot) for mid, pad, bot in batch]
        for result in await log.append([Append(one, None) for one in entries]):
            one = result.append.entry
            if result.refused is None and not result.duplicate:
                stored[result.offset] = one
                assert one.offset == result.offset == max(stored)
                assert one.prev == last.get(one.bot, 0)
                last[one.bot] = one.offset
            elif result.duplicate:
                assert (stored[result.offset].body, stored[result.offset].bot) == (one.body, one.bot)
        head = max(stored, default=0)
        figures = log.statistics()
        assert (figures["floor"], figures["head"]) == (log.floor, head)
        read = await whole(log)
        assert [e.offset for e in read] == list(range(log.floor + 1, head + 1))
        assert [content(e) for e in read] == [content(stored[e.offset]) for e in read]
        assert figures["entries"] == len(read)
        assert figures["bytes"] <= figures["limit_bytes"] or len(read) == 1
    await log.close()
