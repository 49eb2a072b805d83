"""Ports: how REST asks a bot, however the bot is reached.

| port | the bot |
|---|---|
| InProcess | an object of the program that embeds the hub |
| Requested | takes whole requests: attached over its own websocket, or a freqtrade bot with a REST of its own |
| hub.bots.hub_bot.HubBot | only publishes; the hub answers what it knows |

A bot that is slow, stuck or gone ends in BotBusy or BotGone within a deadline, and never holds up the hub's loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from hub.protocol.answers import PairHistory
from hub.protocol.botapi import BotAPI, BotBusy, BotError, BotGone, BotUnavailable, NotFound, perform
from hub.protocol.errors import RequestError
from hub.protocol.operations import Operation

__all__ = ["DEADLINE_S", "IN_FLIGHT", "BotPort", "Bound", "InProcess", "PortAnswer", "Requested", "Requester"]

DEADLINE_S = 10.0
IN_FLIGHT = 32
_SLICE_ROWS = 100
logger = logging.getLogger("tradewire.bots")


class PortAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it goes to the client: `body` is JSON. `status` is not 200 where the bot itself made an error's body."""

    status: int
    body: bytes


class BotPort(Protocol):
    """A bot as REST asks it."""

    async def perform(
        self, operation: Operation, arguments: Mapping[str, Any], *, principal: str
    ) -> PortAnswer:
        """Ask for an operation of OPERATIONS with all its arguments, in the name of `principal`.

        Cancelling it does not take back what the bot does by then.

        Raises:
            BotError, BotUnavailable, NotFound: as BotAPI; nothing else on purpose.
        """


class Bound:
    """How many requests may wait for one bot; from any thread."""

    def __init__(self, bot: str, limit: int = IN_FLIGHT) -> None:
        self._bot = bot
        self._lock = threading.Lock()
        self.limit = limit
        self.in_flight = 0
        self.busy = 0

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Count a request while it lasts. Raises BotBusy when there is no room."""
        self.take()
        try:
            yield
        finally:
            self.give()

    def take(self) -> None:
        """A request begins. Raises BotBusy when there is no room."""
        with self._lock:
            if self.in_flight < self.limit:
                self.in_flight += 1
                return
            self.busy += 1
        raise BotBusy(f"{self.limit} requests wait for bot {self._bot}")

    def give(self) -> None:
        """A request has ended."""
        with self._lock:
            self.in_flight -= 1


class Requester(Protocol):
    """A bot that takes whole requests."""

    async def request(
        self, method: str, path: str, query: str, body: Any, *, principal: str, key: str | None = None
    ) -> tuple[int, bytes]:
        """The status and the JSON of the answer; `path` is relative to /api/v1, `body` the decoded JSON or None.

        `path` and `query` are percent-encoded. Raises as BotPort, or the RequestError of a call over the bot's websocket.
        """


class Requested:
    """The port of a Requester, which has its own deadline and bounds."""

    def __init__(self, bot: Requester) -> None:
        self._bot = bot

    async def perform(
        self, operation: Operation, arguments: Mapping[str, Any], *, principal: str
    ) -> PortAnswer:
        path, query, body = operation.request(arguments)
        try:
            status, answer = await self._bot.request(operation.method, path, query, body, principal=principal)
        except RequestError as error:
            raise _of_call(error) from None
        return PortAnswer(status=status, body=answer)


def _of_call(error: RequestError) -> BotError | BotUnavailable | NotFound:
    """A call over the bot's websocket that failed, as REST tells it."""
    if error.code == "bot_gone":
        return BotGone(str(error))
    if error.code == "unknown_request":
        return NotFound("Not Found")
    return BotBusy(str(error)) if error.temporary else BotError(str(error))


class InProcess:
    """The port of a BotAPI that the embedding program registered.

    Its methods are called on `loop`, or without one on a loop in a thread that this port starts and that `close` ends, so that a
    bot which blocks (SQL, a lock) blocks nobody else. Answers are encoded there too. `close` and the constructor may be called
    from any thread, `perform` on the hub's loop. After `close` the port starts anew when it is asked.

    A request that is not answered within `deadline_s` is given up: BotBusy. Reads are then cancelled; what changes something
    goes on, since a bot must not be left half way. It counts among the `in_flight` requests until the bot has really ended it.
    """

    def __init__(
        self,
        name: str,
        bot: BotAPI,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        deadline_s: float = DEADLINE_S,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self.name = name
        self.bot = bot
        self._given = loop
        self._own: asyncio.AbstractEventLoop | None = None
        self._ended = False
        self._lock = threading.Lock()
        self._deadline_s = deadline_s
        self._bound = Bound(name, in_flight)
        self._counters = {"answered": 0, "failed": 0, "late": 0}

    def statistics(self) -> dict[str, Any]:
        """Requests under way with their bound; since the start: answers, errors, and requests that were given up or refused."""
        return {
            "in_flight": self._bound.in_flight,
            "in_flight_limit": self._bound.limit,
            **self._counters,
            "busy": self._bound.busy,
        }

    def close(self, *, for_good: bool = False) -> None:
        """End the thread, if there is one; requests under way end with BotGone, and later ones too when it is `for_good`.

        Does not wait for a bot that blocks.
        """
        with self._lock:
            self._ended = self._ended or for_good
            loop, self._own = self._own, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    async def perform(
        self, operation: Operation, arguments: Mapping[str, Any], *, principal: str
    ) -> PortAnswer:
        future: concurrent.futures.Future[bytes] = concurrent.futures.Future()
        self._bound.take()
        self._call(self._begin, operation, dict(arguments), future)
        try:
            async with asyncio.timeout(self._deadline_s):
                body = await asyncio.wrap_future(future)
        except TimeoutError:
            self._counters["late"] += 1
            raise BotBusy(f"bot {self.name} did not answer within {self._deadline_s:g} s") from None
        except BaseException:
            self._counters["failed"] += 1
            raise
        self._counters["answered"] += 1
        return PortAnswer(status=200, body=body)

    def _call(self, begin: Callable[..., None], *arguments: Any) -> None:
        # Under the lock, so that `close` stops the loop behind it, never before.
        with self._lock:
            if self._ended:
                # Whoever was about to ask when the bot was taken back; a thread begun now nobody would end.
                self._bound.give()
                raise BotGone(f"bot {self.name} has ended")
            loop = self._given
            if loop is None:
                loop = self._own = self._own or _loop_in_a_thread(f"tradewire-bot-{self.name}")
            try:
                loop.call_soon_threadsafe(begin, *arguments)
            except RuntimeError:
                self._bound.give()
                raise BotGone(f"bot {self.name} has ended") from None

    # --- on the bot's loop

    def _begin(
        self, operation: Operation, arguments: dict[str, Any], future: concurrent.futures.Future[bytes]
    ) -> None:
        if future.cancelled():
            self._bound.give()
            return
        task = asyncio.get_running_loop().create_task(self._answer(operation, arguments))
        loop = task.get_loop()
        if operation.reads:
            future.add_done_callback(lambda _: _tell(loop, task.cancel) if future.cancelled() else None)
        task.add_done_callback(functools.partial(self._settle, future=future))

    async def _answer(self, operation: Operation, arguments: dict[str, Any]) -> bytes:
        try:
            return await encoded(await perform(self.bot, operation, arguments))
        except (BotError, BotUnavailable, NotFound):
            raise
        except Exception:
            logger.exception("bot %s failed at %s", self.name, operation.name)
            raise BotError(f"bot {self.name} failed; the hub's log says how") from None

    def _settle(self, task: asyncio.Task[bytes], future: concurrent.futures.Future[bytes]) -> None:
        self._bound.give()
        if not future.set_running_or_notify_cancel():
            # Nobody waits; an error is looked at all the same, or asyncio complains.
            if not task.cancelled():
                task.exception()
        elif task.cancelled():
            future.set_exception(BotGone(f"bot {self.name} has ended"))
        elif (error := task.exception()) is not None:
            future.set_exception(error)
        else:
            future.set_result(task.result())


async def encoded(answer: Any) -> bytes:
    """The JSON of an operation's answer. Rows of candles are encoded in slices with a turn of the loop (and the GIL) between."""
    if not isinstance(answer, PairHistory) or not isinstance(answer.data, list | tuple):
        return msgspec.json.encode(answer)
    pieces = []
    for first in range(0, len(answer.data), _SLICE_ROWS):
        pieces.append(msgspec.json.encode(answer.data[first : first + _SLICE_ROWS])[1:-1])
        await asyncio.sleep(0)
    return msgspec.json.encode(
        msgspec.structs.replace(answer, data=msgspec.Raw(b"[" + b",".join(pieces) + b"]"))
    )


def _tell(loop: asyncio.AbstractEventLoop, callback: Any) -> None:
    """Run `callback` on another loop, unless that one is closed and nobody cares any more."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)


def _loop_in_a_thread(name: str) -> asyncio.AbstractEventLoop:
    # The factory keeps the runner from making this loop the one of the calling thread.
    runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
    loop = runner.get_loop()

    def run() -> None:
        with runner:
            loop.run_forever()

    # A bot that blocks for ever must not keep the program from its end.
    threading.Thread(target=run, name=name, daemon=True).start()
    return loop
