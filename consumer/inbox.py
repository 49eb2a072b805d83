"""A buffer between connections and whoever reads deliveries: bounded in bytes, never dropping.

Writers are tasks of one event loop and so is the reader. When it is full, writers wait; a connection that waits does not read its
socket, so that TCP tells the peer.
"""

from __future__ import annotations

import asyncio
from collections import deque

from hub.frames.columns import Columns
from hub.protocol.localbot import Delivery
from hub.protocol.messages import AnalyzedDf

__all__ = ["Inbox", "weight"]

LIMIT_BYTES = 32 * 1024 * 1024
_OVERHEAD_BYTES = 600


def weight(delivery: Delivery, size: int) -> int:
    """Bytes that a delivery takes in memory, about; `size` is that of the frame it came in."""
    message = delivery.message
    if type(message) is AnalyzedDf and isinstance(message.df, Columns):
        return message.df.nbytes + _OVERHEAD_BYTES
    # A decoded map takes about four times the bytes of its text.
    return 4 * size + _OVERHEAD_BYTES


class Inbox:
    """Deliveries in order of arrival. One that is heavier than the whole limit is let in alone."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self.peak_bytes = 0
        self._items: deque[tuple[Delivery, int]] = deque()
        self._room = asyncio.Event()
        self._room.set()
        self._some = asyncio.Event()
        self._awaited = False
        self._ended = False
        self._error: BaseException | None = None

    def __len__(self) -> int:
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether a writer has to wait."""
        return self.bytes >= self.limit_bytes

    def put(self, delivery: Delivery, nbytes: int) -> None:
        """Add a delivery; call `room` first."""
        self._items.append((delivery, nbytes))
        self.bytes = held = self.bytes + nbytes
        if held > self.peak_bytes:
            self.peak_bytes = held
        if self._awaited:
            self._awaited = False
            self._some.set()
        if held >= self.limit_bytes:
            self._room.clear()

    async def room(self, timeout_s: float) -> bool:
        """Wait until there is room, at most `timeout_s`; whether there is."""
        if not self.full:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._room.wait()
        except TimeoutError:
            return False
        return True

    async def get(self) -> Delivery:
        """The next delivery.

        Raises:
            StopAsyncIteration: ended, and nothing is left. Or the error that it ended with.
        """
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._some.clear()
            self._awaited = True
            await self._some.wait()
        delivery, nbytes = self._items.popleft()
        was, limit = self.bytes, self.limit_bytes
        self.bytes = was - nbytes
        if was >= limit > self.bytes:
            self._room.set()
        return delivery

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more comes. What is in it can still be read; then `get` raises `error`, or stops."""
        self._ended = True
        self._error = self._error or error
        self._some.set()

    def statistics(self) -> dict[str, int]:
        """What waits, with its bound."""
        return {
            "inbox_messages": len(self._items),
            "inbox_bytes": self.bytes,
            "inbox_peak_bytes": self.peak_bytes,
            "inbox_limit_bytes": self.limit_bytes,
        }
