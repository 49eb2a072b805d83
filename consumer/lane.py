"""The lane: hands deliveries over to a local bot, in the event loop or in the bot's own thread.

Theory of operation
-------------------
A coroutine `handle` is awaited in the event loop, a plain one runs in one thread of its own. Either way the order is that of
arrival and a bot that is slow slows the reading of the sockets; nothing is dropped on the way. The thread's lane holds at most
HAND_OVER_BYTES (and one delivery that is larger than that by itself).

Invariants
----------
1. `handle` never runs twice at the same time, and sees the deliveries in the order of `put`.
2. A delivery counts as committed once `handle` returned, not when it raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

import anyio

from consumer.bookmarks import Bookmarks
from consumer.errors import BotFailed, ConsumerError
from hub.frames.columns import Columns
from hub.protocol.localbot import Delivery, LocalBot
from hub.protocol.messages import AnalyzedDf

__all__ = ["HAND_OVER_BYTES", "STOP_S", "Lane", "LaneStatistics", "failure", "lane_to"]

log = logging.getLogger(__name__)

HAND_OVER_BYTES = 8 * 1024 * 1024
STOP_S = 30.0
_DELIVERY_BYTES = 1024


@dataclass(frozen=True, slots=True)
class LaneStatistics:
    """A snapshot of the way to the bot: handed over, handled, and what waits in between."""

    handed: int
    handled: int
    waiting: int
    waiting_bytes: int
    limit_bytes: int


class Lane(Protocol):
    """The way from the consumer to `handle`."""

    async def __aenter__(self) -> Lane: ...

    async def __aexit__(self, kind: object, *_: object) -> None: ...

    async def put(self, delivery: Delivery) -> None:
        """Hand over; waits while too much waits in the lane."""

    async def failed(self) -> None:
        """Waits for ever, or raises BotFailed as soon as the bot failed."""

    def statistics(self) -> LaneStatistics: ...


def lane_to(bot: LocalBot, bookmarks: Bookmarks) -> Lane:
    """The lane that fits the bot's `handle`."""
    return (_LoopLane if inspect.iscoroutinefunction(bot.handle) else _ThreadLane)(bot, bookmarks)


class _LoopLane:
    """Awaits `handle` in the event loop: nothing waits here."""

    def __init__(self, bot: LocalBot, bookmarks: Bookmarks) -> None:
        self._bot = bot
        self._bookmarks = bookmarks
        self._handled = 0
        self._unwritten = False

    async def __aenter__(self) -> _LoopLane:
        return self

    async def __aexit__(self, *_: object) -> None:
        # A cancellation must not undo that the bot has committed.
        with anyio.CancelScope(shield=True):
            await asyncio.to_thread(self._bookmarks.write, idle=True)

    async def put(self, delivery: Delivery) -> None:
        try:
            result = self._bot.handle(delivery)
            if result is not None:
                await result
        except Exception as error:
            raise failure(self._bot, _handling(delivery), error) from error
        delivery.commit()
        self._handled += 1
        if delivery.position is not None:
            await asyncio.to_thread(self._bookmarks.write, idle=True)

    async def failed(self) -> None:
        await anyio.sleep_forever()

    def statistics(self) -> LaneStatistics:
        return LaneStatistics(self._handled, self._handled, 0, 0, 0)


class _ThreadLane:
    """Runs a plain `handle` in one thread, behind a queue that is bounded in bytes."""

    def __init__(self, bot: LocalBot, bookmarks: Bookmarks, *, limit_bytes: int = HAND_OVER_BYTES) -> None:
        self._bot = bot
        self._bookmarks = bookmarks
        self._limit_bytes = limit_bytes
        self._queue: deque[tuple[Delivery, int]] = deque()
        self._bytes = self._handed = self._handled = 0
        self._closing = False
        self._changed = threading.Condition()
        self._room = asyncio.Event()
        self._over = asyncio.Event()
        self._failure: ConsumerError | None = None
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="local bot", daemon=True)

    async def __aenter__(self) -> _ThreadLane:
        self._thread.start()
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        with anyio.CancelScope(shield=True), anyio.move_on_after(STOP_S) as waited:
            await self._over.wait()
        if waited.cancelled_caught:
            raise BotFailed(
                f"{type(self._bot).__name__}.handle did not return within {STOP_S:.0f} s after the stop"
            )
        if self._failure is not None and kind is None:
            raise self._failure

    async def put(self, delivery: Delivery) -> None:
        size = _size(delivery)
        while True:
            with self._changed:
                if not self._bytes or self._bytes + size <= self._limit_bytes:
                    self._queue.append((delivery, size))
                    self._bytes += size
                    self._handed += 1
                    self._changed.notify()
                    return
                self._room.clear()
            await self._room.wait()

    async def failed(self) -> None:
        await self._over.wait()
        if self._failure is not None:
            raise self._failure

    def statistics(self) -> LaneStatistics:
        with self._changed:
            return LaneStatistics(
                self._handed, self._handled, len(self._queue), self._bytes, self._limit_bytes
            )

    def _work(self) -> None:
        try:
            while (item := self._take()) is not None:
                self._handle(*item)
        except ConsumerError as error:
            self._failure = error
        try:
            self._bookmarks.write(idle=True)
        except ConsumerError as error:
            self._failure = self._failure or error
        finally:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._over.set)

    def _take(self) -> tuple[Delivery, int] | None:
        with self._changed:
            while not self._queue and not self._closing:
                self._changed.wait()
            # What still waits was not committed: the next run gets it again.
            return None if self._closing else self._queue.popleft()

    def _handle(self, delivery: Delivery, size: int) -> None:
        try:
            result = self._bot.handle(delivery)
            if result is not None and inspect.isawaitable(result):
                asyncio.run_coroutine_threadsafe(_awaited(result), self._loop).result()
        except Exception as error:
            raise failure(self._bot, _handling(delivery), error) from error
        delivery.commit()
        with self._changed:
            self._bytes -= size
            self._handled += 1
            idle = not self._queue
        if not self._room.is_set():
            self._loop.call_soon_threadsafe(self._room.set)
        self._bookmarks.write(idle=idle)


async def _awaited(result: Awaitable[None]) -> None:
    await result


def failure(bot: LocalBot, doing: str, error: Exception) -> ConsumerError:
    """What ends the run when the bot raised `error` in `doing`; the consumer's own errors stay what they are."""
    if isinstance(error, ConsumerError):
        return error
    log.debug("the bot failed", exc_info=error)
    text = str(error).splitlines()
    described = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
    return BotFailed(f"{type(bot).__name__}.{doing}: {described}")


def _handling(delivery: Delivery) -> str:
    return f"handle: {delivery.topic} of {delivery.bot}"


def _size(delivery: Delivery) -> int:
    message = delivery.message
    if isinstance(message, AnalyzedDf) and isinstance(message.df, Columns):
        return _DELIVERY_BYTES + message.df.nbytes
    return _DELIVERY_BYTES
