"""The page cache: pages of a log, read once for all who ask at about the same time, and kept while there is room.

Whoever comes back after a restart or a cut of the network asks for about the same past, and all at once. What they share is the raw
page: its entries, and with them the frames that these make once per wire. What of it a session is sent is decided behind the cache.

Theory of operation
===================
The log is read in pages that begin behind a multiple of PAGE_SLOTS, wherever in them one asks, so that readers who are not at the
very same place share too; each gets a slice, from its own offset on. A page ends with the next multiple, or earlier by its bytes or
at the head; what is behind such an end is read from where it is asked. `kept` answers at once; `read` waits for the log, together
with all who wait for the same page. Such a read is a task of its own: who asked first may go away, and the others get their page.
Who was given the end of a page asks for the next one soon: it is read ahead, so that disk and socket are not idle by turns.

The page that nobody has asked for longest leaves first, and any that nobody has asked for IDLE_S. Their bound is what their entries
may cost in memory, with frames (`Entry.size`). What a session holds of a page that has left is bounded by the slice that it was given.

Invariants
==========
1. What is kept is contiguous, of one epoch and undamaged. A page with a damaged slot is given to those who wait for it and then
   forgotten: the slot may be readable next time (a disk that failed once, a salvage), and who asks then shall have it. A record that
   is damaged later is good here all the same: its checksum was right when it was read.
2. Nothing at or below the log's floor is given out, and each answer tells the floor as it is at that moment.
3. `bytes` is the size of what is kept, at most `limit_bytes`.
4. The same page is read once at a time.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from hub.core.entry import Entry
from hub.core.ledger import Damaged, Log, Page, Read
from hub.protocol.errors import LedgerUnreadable

__all__ = ["IDLE_S", "PAGE_BYTES", "PAGE_SLOTS", "PageCache"]

PAGE_SLOTS = 256
PAGE_BYTES = 256 * 1024
IDLE_S = 30.0
logger = logging.getLogger("tradewire.log")

Slot = Entry | Damaged
Own = Callable[[Coroutine[Any, Any, None], str], object]
"""Runs a coroutine as a task of this name, until it returns or its owner ends."""


class _Slots:
    """A page that is kept: `first`..`last` without a hole. `upto`: for each slot the bytes of bodies up to and with its own."""

    __slots__ = ("asked_at", "entries", "first", "last", "size", "upto")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.first = entries[0].offset
        self.last = entries[-1].offset
        self.upto = list(itertools.accumulate([len(entry.body) for entry in entries]))
        self.size = sum([entry.size for entry in entries])
        self.asked_at = 0.0

    @property
    def ended(self) -> bool:
        """Whether it ends where a page ends, and not at what was the head."""
        return self.last % PAGE_SLOTS == 0 or self.upto[-1] >= PAGE_BYTES

    def __contains__(self, offset: int) -> bool:
        return self.first <= offset <= self.last

    def since(self, offset: int, limit_bytes: int) -> Sequence[Entry]:
        """From `offset`, which is here, to where `limit_bytes` are reached: one slot at least."""
        start = offset - self.first
        passed = self.upto[start - 1] if start else 0
        end = bisect.bisect_left(self.upto, passed + limit_bytes, start) + 1
        return self.entries[start:end]


class PageCache:
    """Reads of one log, which is open. On the loop's thread only; a log that is opened anew gets a cache anew.

    `own` runs its reads, `now` is monotonic seconds. With `limit_bytes` 0 nothing is kept, and only those share a read who ask for the
    very same offset meanwhile. `reads` counts those of the log, `shared` what was answered without one.
    """

    def __init__(self, log: Log, limit_bytes: int, own: Own, now: Callable[[], float]) -> None:
        self._log = log
        self._own = own
        self._now = now
        self._pages: OrderedDict[int, _Slots] = OrderedDict()
        self._blocks: dict[int, list[_Slots]] = {}
        self._pending: dict[int, asyncio.Future[Page | None]] = {}
        self._floor = 0
        self._epoch: str | None = None
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self.reads = 0
        self.shared = 0

    # --- asking

    def kept(self, read: Read) -> Page | None:
        """The slots from `read.offset` on, about `read.limit_bytes` of them and one at least, if they are here."""
        page = self._kept(read)
        self.shared += page is not None
        return page

    def _kept(self, read: Read) -> Page | None:
        self._forget_removed()
        slots = next((s for s in self._blocks.get(_block(read.offset), ()) if read.offset in s), None)
        if slots is None or read.offset <= self._floor:
            return None
        slots.asked_at = self._now()
        self._pages.move_to_end(slots.first)
        page = Page(slots.since(read.offset, read.limit_bytes), self._floor)
        if page.entries[-1].offset == slots.last and slots.ended:
            self._read_ahead(slots.last + 1)
        return page

    def _read_ahead(self, offset: int) -> None:
        """Begin to read the page that a reader who has come to the end of one will ask for next."""
        if any(offset in s for s in self._blocks.get(_block(offset), ())):
            return
        first = self._beginning(offset)
        if first not in self._pending:
            self._begin(first)

    async def read(self, read: Read) -> Page:
        """As of `Log.read`: a page from `read.offset` on, or from the floor where that is above it; empty at the head.

        Cancelled, it leaves the read to those who wait for it too.

        Raises:
            LedgerUnreadable: the log cannot be read now; its own log line says why.
        """
        page = self.kept(read)
        if page is not None:
            return page
        page = await self._from_log(self._beginning(read.offset))
        if not page.entries or page.entries[-1].offset < read.offset:
            # It is full before that, or was read before this was appended.
            page = await self._from_log(read.offset)
        return self._kept(read) or self._slice(page, read)

    def _beginning(self, offset: int) -> int:
        """Where the page of this offset begins: behind a multiple, unless that one is here and ends below the offset."""
        if not self.limit_bytes or any(s.first <= offset for s in self._blocks.get(_block(offset), ())):
            return offset
        return _block(offset) * PAGE_SLOTS + 1

    def _slice(self, page: Page, read: Read) -> Page:
        """What a page that is not kept has for one of those who waited for it."""
        floor = max(page.floor, self._log.floor)
        entries = [slot for slot in page.entries if slot.offset >= read.offset and slot.offset > floor]
        size, end = 0, 0
        while end < len(entries) and size < read.limit_bytes:
            size += _body_bytes(entries[end])
            end += 1
        return Page(entries[:end], floor)

    # --- reading

    async def _from_log(self, first: int) -> Page:
        pending = self._pending.get(first)
        if pending is None:
            pending = self._begin(first)
        else:
            self.shared += 1
        page = await asyncio.shield(pending)
        if page is None:
            raise LedgerUnreadable("the log cannot be read now")
        return page

    def _begin(self, first: int) -> asyncio.Future[Page | None]:
        pending = self._pending[first] = asyncio.get_running_loop().create_future()
        self.reads += 1
        self._own(self._fetch(first, pending), "read")
        return pending

    async def _fetch(self, first: int, pending: asyncio.Future[Page | None]) -> None:
        page: Page | None = None
        try:
            slots = (_block(first) + 1) * PAGE_SLOTS + 1 - first
            page = await self._log.read(Read(first, PAGE_BYTES, slots))
            self._keep(page)
        except asyncio.CancelledError:
            pending.cancel()
            raise
        except Exception:
            # Once, not for each who waits.
            logger.exception("the log cannot be read; sessions that are behind end")
        finally:
            del self._pending[first]
            if not pending.done():
                pending.set_result(page)

    # --- keeping

    def _keep(self, page: Page) -> None:
        entries = [slot for slot in page.entries if isinstance(slot, Entry)]
        if not self.limit_bytes or not entries or len(entries) < len(page.entries) or not _is_one(entries):
            return
        self._forget_removed()
        # From a floor within the page, or above it, the log reads further than to the next multiple.
        slots = _Slots(entries[: (_block(entries[0].offset) + 1) * PAGE_SLOTS + 1 - entries[0].offset])
        if entries[0].epoch != self._epoch:
            self.forget()
            self._epoch = entries[0].epoch
        if slots.first in self._pages:
            self._drop(slots.first)
        slots.asked_at = self._now()
        self._pages[slots.first] = slots
        self._blocks.setdefault(_block(slots.first), []).append(slots)
        self.bytes += slots.size
        while self.bytes > self.limit_bytes:
            self._drop(next(iter(self._pages)))

    def _drop(self, first: int) -> None:
        slots = self._pages.pop(first)
        self.bytes -= slots.size
        block = self._blocks[_block(first)]
        block.remove(slots)
        if not block:
            del self._blocks[_block(first)]

    def _forget_removed(self) -> None:
        """Let go of pages that retention has removed."""
        floor = self._log.floor
        if floor != self._floor:
            self._floor = floor
            for first in [first for first, slots in self._pages.items() if slots.last <= floor]:
                self._drop(first)

    def forget_idle(self) -> None:
        """Let go of pages that nobody has asked for IDLE_S."""
        before = self._now() - IDLE_S
        while self._pages and next(iter(self._pages.values())).asked_at < before:
            self._drop(next(iter(self._pages)))

    def forget(self) -> None:
        """Let go of all."""
        self._pages.clear()
        self._blocks.clear()
        self.bytes = 0

    # --- figures

    def statistics(self) -> dict[str, int]:
        """What is kept with its bound, and how often the log was read, and was not."""
        return {
            "kept": len(self._pages),
            "bytes": self.bytes,
            "limit_bytes": self.limit_bytes,
            "reads": self.reads,
            "shared": self.shared,
        }

    def check_invariants(self) -> None:
        """Raise AssertionError if an invariant of the module's docstring is broken."""
        assert self.bytes == sum(slots.size for slots in self._pages.values()) <= self.limit_bytes
        listed = [slots for block in self._blocks.values() for slots in block]
        assert len(listed) == len(self._pages)
        for block, pages in self._blocks.items():
            for slots in pages:
                assert self._pages[slots.first] is slots
                assert _is_one(slots.entries)
                assert slots.entries[0].epoch == self._epoch
                assert _block(slots.first) == block == _block(slots.last)


def _block(offset: int) -> int:
    return (offset - 1) // PAGE_SLOTS


def _body_bytes(slot: Slot) -> int:
    return len(slot.body) if isinstance(slot, Entry) else 0


def _is_one(entries: Sequence[Entry]) -> bool:
    """Whether there is no hole, and one epoch."""
    first = entries[0].offset
    numbers = list(range(first, first + len(entries)))
    return [entry.offset for entry in entries] == numbers and len({entry.epoch for entry in entries}) == 1
