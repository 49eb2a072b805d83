"""A gate: what one who waits passes when another opens it.

asyncio's Event for the few of many that are ever waited for: it has a deque of 760 bytes, of which a connection would have five.
"""

from __future__ import annotations

import asyncio

__all__ = ["Gate"]


class Gate:
    """Open at first. On the loop's thread only; has the methods of asyncio.Event that are used here."""

    __slots__ = ("_open", "_waiters")

    def __init__(self) -> None:
        self._open = True
        self._waiters: list[asyncio.Future[None]] | None = None

    def is_set(self) -> bool:
        """Whether it is open."""
        return self._open

    def set(self) -> None:
        """Open it: who waits goes on with the loop's next turn."""
        self._open = True
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def clear(self) -> None:
        """Close it."""
        self._open = False

    async def wait(self) -> None:
        """Wait until it is opened."""
        if not self._open:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters = [*(self._waiters or ()), waiter]
            await waiter
