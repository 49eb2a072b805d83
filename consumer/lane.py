"""The lane: hands deliveries over to a local bot, in the event loop or in the bot's own thread.

Theory of operation
-------------------
A coroutine `handle` is awaited in the event loop, a plain one runs in one thread of its own. Either way the order is that of
arrival and a bot that is slow slows the reading of the sockets; nothing is dropped on the way. The thread's lane holds at most
HAND_OVER_BYTES (and one delivery that is larger than that by itself).

When the run ends, a `handle` that is at work is let finish, in either lane, for STOP_S; what waits behind it is not begun.

An Advanced and a Repeated pass through the lane like a message, so that what they say is noted behind everything that came before
them; the bot does not see them. What is due is stored behind each delivery, and at the end. A bot's own store is used where its
`handle` runs, and not after that failed: a half-done transaction may be open there.

Invariants
----------
1. `handle` never runs twice at the same time, and sees the deliveries in the order of `put`.
2. A delivery counts as committed once `handle` returned, not when it raised.
3. Whatever `handle` raises ends the run as a ConsumerError, also what is no Exception: a bot must not end by accident in a
   way that looks like a stop that was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
import traceback
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio

from consumer.bookmarks import Bookmarks
from consumer.errors import BotFailed, ConsumerError
from hub.frames.columns import Columns
from hub.protocol.localbot import Advanced, Delivery, LocalBot, Repeated
from hub.protocol.messages import AnalyzedDf

__all__ = ["HAND_OVER_BYTES", "STOP_S", "Lane", "LaneStatistics", "failure", "lane_to", "leaf", "stop"]

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
        self._failed = False
        self._scope = anyio.CancelScope()

    async def __aenter__(self) -> _LoopLane:
        return self

    async def __aexit__(self, *_: object) -> None:
        # A cancellation must not undo that the bot has committed.
        with anyio.CancelScope(shield=True):
            if self._bookmarks.blocking:
                await asyncio.to_thread(self._bookmarks.close)
            elif not self._failed:
                self._bookmarks.close()

    async def put(self, delivery: Delivery) -> None:
        if isinstance(delivery.message, Advanced):
            self._bookmarks.advance(delivery.message)
        elif isinstance(delivery.message, Repeated):
            delivery.commit()
        else:
            await self._handle(delivery)
            if delivery.position is None:
                return
        if self._bookmarks.blocking:
            await asyncio.to_thread(self._bookmarks.settle, delivery, idle=True)
        else:
            self._bookmarks.settle(delivery, idle=True)

    async def _handle(self, delivery: Delivery) -> None:
        self._failed = True
        try:
            # Shielded: half an effect helps nobody. Only `failed` sets a deadline.
            with anyio.CancelScope(shield=True) as self._scope:
                result = self._bot.handle(delivery)
                if result is not None:
                    await result
        except (Exception, asyncio.CancelledError, SystemExit) as error:
            raise failure(self._bot, _handling(delivery), error) from error
        if self._scope.cancelled_caught:
            raise _stuck(self._bot, "handle")
        delivery.commit()
        self._failed = False
        self._handled += 1

    async def failed(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            # The run is over: what the bot is at has this long to end.
            self._scope.deadline = anyio.current_time() + STOP_S

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
            raise _stuck(self._bot, "handle")
        # A failure while the run is being stopped is still one; another error of the run came first.
        if self._failure is not None and not (isinstance(kind, type) and issubclass(kind, Exception)):
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
            if self._failure is None or self._bookmarks.blocking:
                self._bookmarks.close()
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
        if isinstance(delivery.message, Advanced):
            self._bookmarks.advance(delivery.message)
        elif isinstance(delivery.message, Repeated):
            delivery.commit()
        else:
            self._hand_over(delivery)
        with self._changed:
            self._bytes -= size
            self._handled += 1
            idle = not self._queue
        if not self._room.is_set():
            self._loop.call_soon_threadsafe(self._room.set)
        self._bookmarks.settle(delivery, idle=idle)

    def _hand_over(self, delivery: Delivery) -> None:
        try:
            result = self._bot.handle(delivery)
            if result is not None and inspect.isawaitable(result):
                asyncio.run_coroutine_threadsafe(_awaited(result), self._loop).result()
        except BaseException as error:
            raise failure(self._bot, _handling(delivery), error) from error
        delivery.commit()


async def _awaited(result: Awaitable[None]) -> None:
    await result


def failure(bot: object, doing: str, error: BaseException) -> ConsumerError:
    """What ends the run when a bot, or what makes one, raised `error` in `doing`; the consumer's own errors stay as they are."""
    error = leaf(error)
    if isinstance(error, ConsumerError):
        return error
    log.debug("the bot failed", exc_info=error)
    text = str(error).splitlines()
    described = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
    named = bot if hasattr(bot, "__name__") else type(bot)
    return BotFailed(f"{named.__name__}.{doing}: {described}{_place(named.__module__, error)}")


async def stop(bot: LocalBot) -> None:
    """Call the bot's `stop`, for STOP_S at most, also when cancelled.

    Raises:
        ConsumerError: it raised or did not return.
    """
    try:
        with anyio.CancelScope(shield=True), anyio.move_on_after(STOP_S) as waited:
            stopping: object = bot.stop()
            if inspect.isawaitable(stopping):
                await stopping
    except (Exception, asyncio.CancelledError, SystemExit) as error:
        raise failure(bot, "stop", error) from error
    if waited.cancelled_caught:
        raise _stuck(bot, "stop")


def _stuck(bot: LocalBot, method: str) -> BotFailed:
    return BotFailed(
        f"{type(bot).__name__}.{method}: did not return within {STOP_S:.0f} s of the end of the run"
    )


def leaf(error: BaseException) -> BaseException:
    """The first exception that is no group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _place(module: str, error: BaseException) -> str:
    """The line of the bot's own module that the exception passed last, since its author sees no traceback."""
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__") == module:
            place = f" ({Path(frame.f_code.co_filename).name}:{line})"
    return place


def _handling(delivery: Delivery) -> str:
    return f"handle: {delivery.topic} of {delivery.bot}"


def _size(delivery: Delivery) -> int:
    message = delivery.message
    if isinstance(message, AnalyzedDf) and isinstance(message.df, Columns):
        return _DELIVERY_BYTES + message.df.nbytes
    return _DELIVERY_BYTES
