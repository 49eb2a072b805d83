"""The ledger in memory: commits at once, bounded in bytes, gone with the process (so each start is a new epoch)."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections import deque
from collections.abc import Sequence

from hub.core.entry import Entry
from hub.core.ledger import Append, Appended, Found, LogState, Page, Query, Read, matches
from hub.protocol.errors import IdConflict, IdExpired

__all__ = ["MemoryLog"]

FIND_SLICE = 1024


class MemoryLog:
    """A Log. Retention removes the oldest entries above `limit_bytes`, and with each its id.

    Invariants: offsets are contiguous from floor + 1 to head; an id is remembered exactly as long as its entry.
    """

    def __init__(self, epoch: str, limit_bytes: int) -> None:
        self.epoch = epoch
        self.limit_bytes = limit_bytes
        self.floor = 0
        self.head = 0
        self.bytes = 0
        self._entries: deque[Entry] = deque()
        self._ids: dict[tuple[str, str], tuple[int, bytes]] = {}
        self._last: dict[tuple[str, str], int] = {}
        self._removed_ts: dict[str, int] = {}

    async def open(self) -> LogState:
        """Nothing to open: an empty ledger of a new epoch."""
        return LogState(self.epoch, self.floor, self.head, dict(self._last))

    async def append(self, batch: Sequence[Append]) -> list[Appended]:
        """Commit at once. Entries share their object with core's tail: memory holds a message once."""
        return [self._append(append) for append in batch]

    def _append(self, append: Append) -> Appended:
        entry = append.entry
        name = (entry.publisher, entry.mid or "")
        digest = _digest(entry)
        known = self._ids.get(name)
        if known is not None:
            if known[1] == digest:
                return Appended(append, known[0], duplicate=True)
            return Appended(append, refused=IdConflict(f"mid {entry.mid!r} was used before for another body"))
        if entry.ts <= self._removed_ts.get(entry.publisher, -1):
            return Appended(
                append, refused=IdExpired(f"{entry.topic}: ts is older than what the ledger still holds")
            )
        self.head += 1
        entry.epoch, entry.offset, entry.prev = self.epoch, self.head, self._last.get(entry.stream, 0)
        self._last[entry.stream] = self.head
        self._ids[name] = (self.head, digest)
        self._entries.append(entry)
        self.bytes += entry.size
        while self.bytes > self.limit_bytes and len(self._entries) > 1:
            self._drop_oldest()
        return Appended(append, entry.offset)

    def _drop_oldest(self) -> None:
        old = self._entries.popleft()
        self.bytes -= old.size
        self.floor = old.offset
        self._ids.pop((old.publisher, old.mid or ""), None)
        self._removed_ts[old.publisher] = max(old.ts, self._removed_ts.get(old.publisher, -1))

    async def read(self, read: Read) -> Page:
        """Entries from `read.offset` on."""
        entries: list[Entry] = []
        size = 0
        start = max(read.offset - self.floor - 1, 0)
        for i in range(start, min(len(self._entries), start + read.limit_slots)):
            entries.append(self._entries[i])
            size += len(self._entries[i].body)
            if size >= read.limit_bytes:
                break
        return Page(entries, self.floor)

    async def find(self, query: Query) -> Found:
        """Walks the entries above `query.after`, with a turn of the loop after each slice of them."""
        found: list[Entry] = []
        size = 0
        after = query.after
        while walked := self._slice(after):
            for entry in walked:
                if not matches(query, entry):
                    continue
                found.append(entry)
                size += len(entry.body)
                if len(found) >= query.limit or size >= query.limit_bytes:
                    more = entry.offset < self.head
                    return Found(found, entry.offset if more else None, self.floor, self.head)
            after = walked[-1].offset
            await asyncio.sleep(0)
        return Found(found, None, self.floor, self.head)

    def _slice(self, after: int) -> list[Entry]:
        """The next entries above an offset."""
        first = max(after - self.floor, 0)
        return list(itertools.islice(self._entries, first, first + FIND_SLICE))

    async def close(self) -> None:
        """Nothing to flush."""

    def statistics(self) -> dict[str, int]:
        """Figures: entries, bytes, limit_bytes, floor, head."""
        return {
            "entries": len(self._entries),
            "bytes": self.bytes,
            "limit_bytes": self.limit_bytes,
            "floor": self.floor,
            "head": self.head,
        }


def _digest(entry: Entry) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in (entry.bot.encode(), entry.topic.encode(), entry.body):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()
