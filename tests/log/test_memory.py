"""hub.log.memory."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from hub.core.entry import Entry
from hub.core.ledger import Append, LogState, Read
from hub.log.memory import MAX_PAGE_ENTRIES, MemoryLog
from hub.protocol.codec import encode_body
from hub.protocol.errors import IdConflict, IdExpired


def entry(
    mid: str,
    *,
    bot: str = "a",
    topic: str = "entry_fill",
    publisher: str = "p",
    ts: int | None = None,
    pad: int = 0,
) -> Entry:
    data = {"number": mid.split("/")[0], "pad": "x" * pad}
    # As of a publisher that keeps the time of a message through its retries.
    at = ts if ts is not None else int(mid) if mid.isdigit() else 1
    return Entry(bot, topic, at, data, encode_body(data), mid=mid, publisher=publisher)


def append(log: MemoryLog, *entries: Entry) -> list[tuple[int, bool]]:
    results = asyncio.run(log.append([Append(e, i) for i, e in enumerate(entries)]))
    assert [r.append.token for r in results] == list(range(len(entries)))
    return [(r.offset, r.duplicate) for r in results]


def offsets(log: MemoryLog, start: int, limit: int = 1 << 20) -> list[int]:
    return [e.offset for e in asyncio.run(log.read(Read(start, limit))).entries]


def test_a_new_log_is_empty() -> None:
    log = MemoryLog("e", 10_000)
    assert asyncio.run(log.open()) == LogState("e", 0, 0)
    assert asyncio.run(log.read(Read(1, 1000))).entries == []


def test_offsets_count_from_one_and_prev_is_the_streams_last() -> None:
    log = MemoryLog("e", 100_000)
    entries = [
        entry("1"),
        entry("2", bot="b"),
        entry("3"),
        entry("4", topic="exit_fill"),
        entry("5", bot="b"),
    ]
    assert append(log, *entries[:2]) == [(1, False), (2, False)]
    assert append(log, *entries[2:]) == [(3, False), (4, False), (5, False)]
    assert [(e.epoch, e.offset, e.prev) for e in entries] == [
        ("e", 1, 0),
        ("e", 2, 0),
        ("e", 3, 1),
        ("e", 4, 0),
        ("e", 5, 2),
    ]


def test_a_repetition_is_told_from_another_body_and_from_another_publisher() -> None:
    log = MemoryLog("e", 100_000)
    append(log, entry("m"))
    assert append(log, entry("m", ts=999)) == [(1, True)], "the time is no part of the body"
    for other in (entry("m", pad=1), entry("m", topic="exit_fill"), entry("m", bot="b")):
        (result,) = asyncio.run(log.append([Append(other, None)]))
        assert isinstance(result.refused, IdConflict)
        assert "'m'" in str(result.refused)
    assert append(log, entry("m", publisher="q")) == [(2, False)]
    assert log.head == 2


def test_a_repetition_within_one_batch() -> None:
    log = MemoryLog("e", 100_000)
    assert append(log, entry("m"), entry("m"), entry("n")) == [(1, False), (1, True), (2, False)]


def test_retention_removes_a_prefix_and_its_ids_with_it() -> None:
    size = entry("0").size
    log = MemoryLog("e", 3 * size)
    append(log, *(entry(str(i)) for i in range(1, 6)))
    assert (log.floor, log.head, offsets(log, 0)) == (2, 5, [3, 4, 5])
    assert len(log._ids) == 3
    assert append(log, entry("3")) == [(3, True)]
    (old,) = asyncio.run(log.append([Append(entry("1"), None)]))
    assert isinstance(old.refused, IdExpired), "its id left with it, so nobody knows whether it was stored"
    assert append(log, entry("1", publisher="q")) == [(6, False)]
    assert append(log, entry("7")) == [(7, False)]


def test_one_entry_above_the_bound_is_kept_alone() -> None:
    log = MemoryLog("e", 1000)
    append(log, entry("1"), entry("2", pad=5000))
    assert (log.floor, log.head, len(log._ids)) == (1, 2, 1)
    append(log, entry("3"))
    assert (log.floor, offsets(log, 1)) == (2, [3])


def test_reads_at_the_floor_below_it_and_at_the_head() -> None:
    log = MemoryLog("e", 3 * entry("0").size)
    append(log, *(entry(str(i)) for i in range(1, 6)))
    below = asyncio.run(log.read(Read(1, 1 << 20)))
    assert (below.floor, [e.offset for e in below.entries]) == (2, [3, 4, 5])
    assert offsets(log, 3) == [3, 4, 5]
    assert offsets(log, 5) == [5]
    assert offsets(log, 6) == []
    assert offsets(log, 99) == []


def test_a_page_is_bounded_in_bytes_and_entries() -> None:
    log = MemoryLog("e", 1 << 30)
    append(log, *(entry(f"{i}", pad=1000) for i in range(10)))
    assert offsets(log, 1, 1) == [1]
    assert offsets(log, 1, 2500) == [1, 2, 3]
    append(log, *(entry(f"s{i}") for i in range(600)))
    assert len(offsets(log, 1)) == MAX_PAGE_ENTRIES


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 300)), max_size=60), st.integers(1000, 6000))
def test_it_is_a_log(messages: list[tuple[int, int]], limit: int) -> None:
    log = MemoryLog("e", limit)
    stored: dict[int, Entry] = {}
    for mid, pad in messages:
        one = entry(str(mid), pad=pad)
        (result,) = asyncio.run(log.append([Append(one, None)]))
        if result.refused is None and not result.duplicate:
            stored[result.offset] = one
        elif result.duplicate:
            assert stored[result.offset].body == one.body
            assert result.offset > log.floor
        retained = [o for o in stored if o > log.floor]
        assert offsets(log, 0) == retained == list(range(log.floor + 1, log.head + 1))
        assert log.bytes == sum(stored[o].size for o in retained)
        assert log.bytes <= limit or len(retained) == 1
        assert len(log._ids) == len(retained)
        assert log.statistics() == {
            "entries": len(retained),
            "bytes": log.bytes,
            "limit_bytes": limit,
            "floor": log.floor,
            "head": log.head,
        }
