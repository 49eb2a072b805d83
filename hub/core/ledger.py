"""The ledger's interface towards its log, and the tail of it that core keeps in memory.

A log (hub.log) assigns offsets when it commits; nothing of ledger class is delivered or acknowledged before that. The tail is
the newest entries, contiguous and bounded in bytes; a cursor below it is served by a read of the log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hub.core.entry import Entry
from hub.protocol.errors import PublishRefused

__all__ = [
    "Append",
    "Appended",
    "Damaged",
    "Ended",
    "Found",
    "Log",
    "LogState",
    "Page",
    "Query",
    "Read",
    "Tail",
    "matches",
]


@dataclass(slots=True)
class Append:
    """Effect: store this entry. `token` comes back with the result."""

    entry: Entry
    token: object


@dataclass(slots=True)
class Appended:
    """What became of one append: committed (perhaps before: `duplicate`), or refused. Nobody changes it."""

    append: Append
    offset: int = 0
    duplicate: bool = False
    refused: PublishRefused | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """Effect: read the log from `offset` on, about `limit_bytes` of it and at most `limit_slots`."""

    offset: int
    limit_bytes: int
    limit_slots: int = 512


@dataclass(frozen=True, slots=True)
class Damaged:
    """A slot of the log whose record cannot be read any more: the message is lost, and only its offset is known."""

    offset: int


@dataclass(frozen=True, slots=True)
class Page:
    """Slots with contiguous offsets, and the log's floor, taken in the same step as the read."""

    entries: Sequence[Entry | Damaged]
    floor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A search in the log: at most `limit` entries above `after`, oldest first; `since_ms` <= ts < `until_ms`.

    `bots` and `topics` are exact names, None for all.
    """

    after: int = 0
    bots: frozenset[str] | None = None
    topics: frozenset[str] | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    limit: int = 500
    limit_bytes: int = 1 << 20


def matches(query: Query, entry: Entry) -> bool:
    """Whether an entry is what a query looks for, wherever it stands."""
    return (
        (query.bots is None or entry.bot in query.bots)
        and (query.topics is None or entry.topic in query.topics)
        and (query.since_ms is None or entry.ts >= query.since_ms)
        and (query.until_ms is None or entry.ts < query.until_ms)
    )


@dataclass(frozen=True, slots=True)
class Found:
    """What a query found. `after` goes on from here; None at the head. `floor`: what is at or below it is gone.

    `entries` has a Damaged for each slot that was passed and cannot be read, whatever it held.
    """

    entries: Sequence[Entry | Damaged]
    after: int | None
    floor: int
    head: int


@dataclass(frozen=True, slots=True)
class Ended:
    """An earlier epoch of a ledger. Its offsets up to `upto` are the same messages in the epoch that followed it.

    `told` is the highest offset that was told in it, None where nobody knows.
    """

    epoch: str
    upto: int
    told: int | None


@dataclass(frozen=True, slots=True)
class LogState:
    """What a log holds when it is opened: offsets in (floor, head] can be read. `streams`: each (bot, topic) and its last offset.

    `lineage`: the epochs before this one, oldest first, as far as they are known; each was followed by the next.
    """

    epoch: str
    floor: int
    head: int
    streams: Mapping[tuple[str, str], int] = field(default_factory=dict)
    lineage: tuple[Ended, ...] = ()


class Log(Protocol):
    """Where acknowledged messages live.

    Guarantees:

    - One writer appends, in order; a batch is one commit. When `append` returns, what it did not refuse is as durable as this
      log promises (SQLite: fsynced). An exception, or a cancelled call, leaves open what was stored: a retry with the same mid tells.
    - The log sets `epoch`, `offset` and `prev` of each entry before it returns. Offsets grow by one. An offset that was returned or
      read is never given to another message in its epoch: not after retention has emptied the log, not after a restart. Where that
      cannot be held (a cut below a returned offset, a restored backup) `open` gives a new epoch, and tells of
      the one before in `lineage`.
    - `prev` is the true predecessor in the stream (bot, topic), 0 for none, also when retention has removed it.
    - An append that repeats (publisher, mid) with an equal body is answered with the first offset and `duplicate`; with another
      body it is refused with IdConflict. An id is remembered as long as its record. A message with an unknown id that
      is not newer (`ts`) than what retention has removed of its publisher is refused with IdExpired, since it may be a repetition.
    - Retention removes only a prefix. A record that cannot be read is a Damaged slot; those behind it stay.
    """

    @property
    def floor(self) -> int:
        """The highest offset that retention removed; 0 when nothing was. Known without waiting."""

    async def open(self) -> LogState:
        """Make ready for appends.

        Raises:
            ConfigError: it cannot be used; one line says what to do.
        """

    async def append(self, batch: Sequence[Append]) -> list[Appended]:
        """Commit a batch; one result for each append, in order.

        Raises:
            NotDurable: nothing of it is known to be durable (full disk); it may succeed later.
        """

    async def read(self, read: Read) -> Page:
        """A page from `read.offset` on (or from the floor, where that is above it). Empty at the head."""

    async def find(self, query: Query) -> Found:
        """Search; costs appends nothing."""

    async def close(self) -> None:
        """Flush and release."""

    def statistics(self) -> dict[str, int]:
        """Figures: entries, bytes, limit_bytes, floor, head."""


class Tail:
    """The newest committed entries. Invariants: offsets are contiguous, `first` .. `next - 1`; bytes <= limit unless one
    entry alone is larger; `_before` holds for each entry the payload bytes of all that came before it."""

    def __init__(self, state: LogState, limit_bytes: int) -> None:
        self.epoch = state.epoch
        self.next = state.head + 1
        self.bytes = 0
        self.total_bytes = 0
        self.limit_bytes = limit_bytes
        self.streams: set[tuple[str, str]] = set(state.streams)
        self._entries: deque[Entry] = deque()
        self._before: deque[int] = deque()

    @property
    def first(self) -> int:
        """The lowest offset in memory; `next` when empty."""
        return self.next - len(self._entries)

    def append(self, entry: Entry) -> None:
        """Add the entry with offset `next`, or a later one: what lies between is in the log alone (see `jump`)."""
        if entry.offset != self.next:
            self.jump(entry.offset)
        self._entries.append(entry)
        self._before.append(self.total_bytes)
        self.streams.add(entry.stream)
        self.next += 1
        self.bytes += entry.size
        self.total_bytes += len(entry.body)
        while self.bytes > self.limit_bytes and len(self._entries) > 1:
            self.bytes -= self._entries.popleft().size
            self._before.popleft()

    def jump(self, offset: int) -> None:
        """Go on at `offset`, with nothing in memory: the log holds entries below it that were never told.

        A log that failed may have stored what it reported as lost; its numbers are used, and readers get it from the log.
        """
        assert offset > self.next, (offset, self.next)
        self._entries.clear()
        self._before.clear()
        self.bytes = 0
        self.next = offset

    def since(self, offset: int) -> Iterator[Entry]:
        """Entries from `offset` (>= first) on, oldest first."""
        skip = offset - self.first
        if skip == 0:
            return iter(self._entries)
        if 2 * skip < len(self._entries):
            return _skip(iter(self._entries), skip)
        newest = [
            entry for entry, _ in zip(reversed(self._entries), range(len(self._entries) - skip), strict=False)
        ]
        return reversed(newest)

    def bytes_since(self, offset: int) -> int:
        """Bytes of payload from `offset` on, as far as they are in memory. Costs no walk over the entries."""
        at = max(offset - self.first, 0)
        return self.total_bytes - self._before[at] if at < len(self._before) else 0

    def check_invariants(self) -> None:
        """Raise AssertionError if an invariant is broken."""
        offsets = [entry.offset for entry in self._entries]
        assert offsets == list(range(self.first, self.next)), offsets
        assert self.bytes == sum(entry.size for entry in self._entries)
        assert self.bytes <= self.limit_bytes or len(self._entries) == 1
        assert len(self._before) == len(self._entries)


def _skip(entries: Iterable[Entry], count: int) -> Iterator[Entry]:
    iterator = iter(entries)
    for _ in range(count):
        next(iterator)
    return iterator
