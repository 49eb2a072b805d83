"""Event topics: a short ring for each (bot, topic), best effort and counted.

All rings of a bot share one bound in bytes. An entry's `offset` is its number in its ring (1, 2, 3 …), so what a cursor
lost is a subtraction; `count` numbers all events of the hub, so that topics of one bot can be merged in order.
"""

from __future__ import annotations

from collections import Counter, deque

from hub.core.entry import Entry

__all__ = ["EventRing", "Events"]

Stream = tuple[str, str]


class EventRing:
    """One event topic of one bot. Offsets in memory: `first` .. `next - 1`."""

    __slots__ = ("entries", "next")

    def __init__(self) -> None:
        self.entries: deque[tuple[int, Entry]] = deque()
        self.next = 1

    @property
    def first(self) -> int:
        """The lowest number in memory; `next` when empty."""
        return self.next - len(self.entries)

    def since(self, number: int) -> list[tuple[int, Entry]]:
        """(order, entry) from `number` on, as far as they are in memory."""
        count = self.next - max(number, self.first)
        return [self.entries[i] for i in range(len(self.entries) - count, len(self.entries))]


class Events:
    """All event rings. Invariant: the bytes of a bot's rings <= limit unless one entry alone is larger."""

    def __init__(self, limit_bytes_per_bot: int) -> None:
        self.limit_bytes = limit_bytes_per_bot
        self.rings: dict[Stream, EventRing] = {}
        self.listed: list[tuple[Stream, EventRing]] = []
        self.bytes: dict[str, int] = {}
        self.count = 0
        self._oldest: dict[str, deque[str]] = {}
        self._topics: Counter[str] = Counter()

    def topics_of(self, bot: str) -> int:
        """How many event topics a bot has."""
        return self._topics[bot]

    def append(self, entry: Entry) -> None:
        """Add an event; the oldest events of the same bot leave when it is over its bound."""
        ring = self.rings.get(entry.stream)
        if ring is None:
            ring = self.rings[entry.stream] = EventRing()
            self.listed.append((entry.stream, ring))
            self._topics[entry.bot] += 1
        self.count += 1
        ring.entries.append((self.count, entry))
        ring.next += 1
        by_age = self._oldest.setdefault(entry.bot, deque())
        by_age.append(entry.topic)
        used = self.bytes.get(entry.bot, 0) + entry.size
        while used > self.limit_bytes and len(by_age) > 1:
            _, old = self.rings[(entry.bot, by_age.popleft())].entries.popleft()
            used -= old.size
        self.bytes[entry.bot] = used

    def check_invariants(self) -> None:
        """Raise AssertionError if an invariant is broken."""
        for bot, used in self.bytes.items():
            entries = [e for (b, _), ring in self.rings.items() if b == bot for _, e in ring.entries]
            assert used == sum(e.size for e in entries)
            assert used <= self.limit_bytes or len(entries) == 1
