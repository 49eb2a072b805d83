"""Runs: what groups that stand at the same place of the tail are sent, joined once for all of them.

However many subscriptions there are, most of them take the same streams of the few messages that one flush brings. A run is a
stretch of the tail; of each selection of its streams that some group takes, its frames are joined once.

Invariant: what is remembered is of the tail as it is: it is forgotten with the next message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from hub.core.deflate import Deflater
from hub.core.entry import Entry
from hub.core.ledger import Tail
from hub.core.session import Stream
from hub.protocol.codec import Wire

__all__ = ["KEPT_BYTES", "Form", "Run", "Runs"]

KEPT_BYTES = 4 << 20
Form = tuple[Wire, bool]
"""A wire, deflated or not."""


class Keeper(Protocol):
    """Who deflates, and bounds what is remembered."""

    deflater: Deflater

    def keep(self, size: int) -> bool:
        """Whether so many bytes more may be remembered."""


class Run:
    """The entries of the ledger from some offset to below `next`, in one form. `heads`: the last offset of each stream in it."""

    __slots__ = ("_entries", "_form", "_joined", "_runs", "heads", "next")

    def __init__(self, runs: Keeper, form: Form, entries: list[Entry]) -> None:
        self._runs = runs
        self._form = form
        self._entries = entries
        self._joined: dict[int, bytes] = {}
        self.next = entries[-1].offset + 1
        self.heads: dict[Stream, int] = {entry.stream: entry.offset for entry in entries}

    def joined(self, wants: Callable[[Stream], bool], heads: dict[Stream, int]) -> bytes:
        """The frames of the streams that are wanted, in order; their last offsets go into `heads`."""
        selection, bit = 0, 1
        for stream, offset in self.heads.items():
            if wants(stream):
                heads[stream] = offset
                selection |= bit
            bit <<= 1
        found = self._joined.get(selection)
        if found is None:
            found = self._join(wants, selection == bit - 1) if selection else b""
            if self._runs.keep(len(found)):
                self._joined[selection] = found
        return found

    def _join(self, wants: Callable[[Stream], bool], everything: bool) -> bytes:
        wire, deflates = self._form
        frames = [entry.frame(wire) for entry in self._entries if everything or wants(entry.stream)]
        if deflates:
            frames = [self._runs.deflater.frame(plain) for plain in frames]
        return frames[0] if len(frames) == 1 else b"".join(frames)


class Runs:
    """The runs that begin at some place of the tail. `bytes` of what is joined are remembered, at most KEPT_BYTES."""

    def __init__(self, tail: Tail, deflater: Deflater) -> None:
        self.deflater = deflater
        self._tail = tail
        self._next = tail.next
        self._runs: dict[tuple[int, int, Form], Run] = {}
        self.bytes = 0

    def at(self, offset: int, last: int, form: Form, limit: int) -> Run:
        """The run from this offset on, which is in memory, to `last` or the tail's end, or about `limit` bytes of payload."""
        if self._next != self._tail.next:
            self.forget()
            self._next = self._tail.next
        last = min(last, self._next - 1)
        run = self._runs.get((offset, last, form))
        if run is None:
            run = self._runs[(offset, last, form)] = Run(self, form, self._entries(offset, last, limit))
        return run

    def _entries(self, offset: int, last: int, limit: int) -> list[Entry]:
        entries: list[Entry] = []
        size = 0
        for entry in self._tail.since(offset):
            entries.append(entry)
            # Not of its frame: nobody on this wire may want it.
            size += len(entry.body)
            if entry.offset >= last or size >= limit:
                break
        return entries

    def keep(self, size: int) -> bool:
        """Whether so many bytes more may be remembered."""
        if self.bytes + size > KEPT_BYTES:
            return False
        self.bytes += size
        return True

    def forget(self) -> None:
        """Let go of all."""
        self._runs.clear()
        self.bytes = 0
