"""The events of one connection that wait for its app: asyncio's Queue for one who waits, without its four deques of 760 bytes."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["Incoming"]


class Incoming:
    """First in, first out; it has the methods of asyncio.Queue that uvicorn and we use. What puts events in bounds them."""

    __slots__ = ("_events", "_waiter")

    def __init__(self) -> None:
        self._events: list[Any] = []
        self._waiter: asyncio.Future[None] | None = None

    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._events

    def put_nowait(self, event: Any) -> None:
        """Add an event."""
        self._events.append(event)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def get_nowait(self) -> Any:
        """The oldest event.

        Raises:
            IndexError: nothing waits.
        """
        return self._events.pop(0)

    async def get(self) -> Any:
        """The oldest event, once there is one. For one task at a time; cancelled, it takes none."""
        while not self._events:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._events.pop(0)
