"""Answer for a bot without a port: attach to a hub over a websocket of one's own, and answer the calls that come.

Theory of operation
===================

The reader takes `hub.call` and gives each a task of its own; at most `at_once` of them run the bot's `answer`, the others wait.
Every call has a deadline. A call that has not begun by then, or that the hub cancels before, never begins. One that has begun is
broken off if its method only reads; if it may change something it runs to its end, since a change broken off half-way is worse
than one whose answer nobody hears. When the connection ends the hub has given up all calls, so they count as cancelled.

The answer to a call with a `key` is remembered for 10 min, so that a caller who repeats a call that it has no answer of gets the
first one's; a repetition that comes while the first one runs waits for it.

Invariants
==========

1. `answer` runs at most `at_once` times at a time, and at most once for one key within 10 min, as long as its answer is remembered.
2. At most WAITING calls are in hand; the hub's own bound is lower.
3. What is remembered is at most `remembered_bytes` and REMEMBERED answers; the oldest go first.
4. A call is answered at most once, and not after its cancellation or its connection's end.

Source: wire-v2 section 9; docs/wire-protocol.md, Calls.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import msgspec

from consumer.connection import Dial, Endpoint, dial
from consumer.errors import ConnectionFailed, ConsumerError, HubRefused
from consumer.uplink import HubConnection, Sleep, Uplink
from hub.protocol.calls import FEATURE, IN_FLIGHT, KEY_S, READS, RESULT_BYTES, BotAnswer, BotRequest
from hub.protocol.codec import CODECS, Wire, embedded
from hub.protocol.errors import BadMessage

__all__ = ["Answer", "Attachment"]

_LOG = logging.getLogger(__name__)

AT_ONCE = 8
WAITING = 2 * IN_FLIGHT
REMEMBERED = 1000
REMEMBERED_BYTES = 16 * 1024 * 1024
CLOSE_S = 5.0
MAX_MESSAGE = 4 * 1024 * 1024
_ATTACH_ID, _LEAVE_ID = 1, 2
_OVERHEAD_BYTES = 300
_WIRES: Mapping[str, Wire] = {"msgpack": Wire.MSGPACK, "json": Wire.JSON}

Answer = Callable[[BotRequest], Awaitable[BotAnswer]]
"""Answers one request of the bot's REST. Cancelled when nobody waits any more, unless the method may change something."""

_Key = tuple[str, str, str, str]


@dataclass(slots=True, eq=False)
class _Call:
    """A call in hand. `changing`: it may be changing something now; `heard` is false once nobody waits for its answer."""

    number: int
    request: BotRequest
    hub: HubConnection
    deadline: float
    task: asyncio.Task[None] | None = None
    changing: bool = False
    heard: bool = True

    @property
    def key(self) -> _Key | None:
        request = self.request
        return None if request.key is None else (request.principal, request.method, request.path, request.key)


@dataclass(frozen=True, slots=True)
class _Remembered:
    answer: BotAnswer
    size: int
    until: float


class _Answers:
    """The answers to calls with a key, of the last KEY_S seconds, within bounds."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._answers: OrderedDict[_Key, _Remembered] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: _Key, now: float) -> BotAnswer | None:
        self._forget(now)
        found = self._answers.get(key)
        return None if found is None else found.answer

    def put(self, key: _Key, answer: BotAnswer, size: int, now: float) -> None:
        old = self._answers.pop(key, None)
        if old is not None:
            self.bytes -= old.size
        self._answers[key] = _Remembered(answer, size, now + KEY_S)
        self.bytes += size
        self._forget(now)

    def _forget(self, now: float) -> None:
        while self._answers:
            oldest = next(iter(self._answers.values()))
            if oldest.until > now and len(self._answers) <= REMEMBERED and self.bytes <= self.limit_bytes:
                return
            self._answers.popitem(last=False)
            self.bytes -= oldest.size


class Attachment:
    """A bot's attachment to a hub: `async with Attachment(url, token, bot, answer): ...`, or `await attachment.run()`.

    It connects, attaches and reconnects by itself, with backoff. `token` is one that may publish as `bot`. `paths` are the
    requests that the bot takes ("GET /status", `{name}` for any one segment), or "*". `at_once` is how many run at a time.

    An exception of `answer` is logged and answered with freqtrade's 502 and no detail of it. Leaving the block detaches and waits
    up to 5 s for calls in hand, then up to 5 s for what may be changing something, and closes. Belongs to one event loop.

    Raises (from `run` and `ready`; a block logs it as one line instead):
        Replaced: a newer attachment of the bot took this one's place. Unauthorized: the token is refused, also at a second try.
        HubRefused: the hub takes no calls, or no attachment of this bot with this token. ConfigError: the URL or CA file.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        bot: str,
        answer: Answer,
        *,
        paths: Iterable[str] | Literal["*"] = "*",
        at_once: int = AT_ONCE,
        encoding: Literal["msgpack", "json"] = "json",
        ca_file: str | None = None,
        remembered_bytes: int = REMEMBERED_BYTES,
        dial: Dial = dial,
        sleep: Sleep = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.bot = bot
        self._answer = answer
        self._paths = "*" if paths == "*" else list(paths)
        self._uplink = Uplink(
            Endpoint.parse(url, token, ca_file=ca_file),
            _WIRES[encoding],
            client=f"tradewire-attachment {bot}",
            dial=dial,
            sleep=sleep,
            random=random,
            max_message=MAX_MESSAGE,
        )
        self._at_once = at_once
        self._slots = asyncio.Semaphore(at_once)
        self._calls: dict[int, _Call] = {}
        self._finishing: set[_Call] = set()
        self._running: dict[_Key, asyncio.Future[BotAnswer]] = {}
        self._answers = _Answers(remembered_bytes)
        self._counts: Counter[str] = Counter()
        self._hub: HubConnection | None = None
        self._attached = asyncio.Event()
        self._heard = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.run(), name=f"attachment {self.bot}")
        self._task.add_done_callback(self._ended)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        if error is None:
            await self._leave()
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _leave(self) -> None:
        """Detach, and answer what was asked before, within CLOSE_S.

        A hub need not read what comes right before a close frame, so the answers are known to be read before the connection ends.
        """
        hub = self._hub
        if hub is None or not self._attached.is_set():
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                await hub.send(CODECS[hub.wire].encode({"type": "detach", "data": {"bot": self.bot}}))
                while tasks := [call.task for call in self._calls.values() if call.task is not None]:
                    await asyncio.wait(tasks)
                if self._counts["answered"]:
                    await hub.send(CODECS[hub.wire].encode({"type": "ping", "id": _LEAVE_ID}))
                    await self._heard.wait()
        except (TimeoutError, ConnectionFailed):
            pass

    async def run(self) -> None:
        """Attach and answer until cancelled. Raises as the class says. Not beside a block of the same attachment."""
        try:
            await self._uplink.run(self._hold)
        finally:
            self._give_up()
            await self._finish()

    async def ready(self) -> None:
        """Wait until the bot is attached; inside the block only. Raises as `run`, or ConnectionFailed when it was left."""
        assert self._task is not None
        waiting = asyncio.ensure_future(self._attached.wait())
        try:
            await asyncio.wait([waiting, self._task], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._task.done():
            error = None if self._task.cancelled() else self._task.exception()
            raise error or ConnectionFailed(f"{self._uplink.endpoint}: the attachment was closed")

    def statistics(self) -> Mapping[str, Any]:
        """Calls in hand and answers remembered, with their bounds, and counters."""
        return {
            "attached": self._attached.is_set(),
            "in_hand": len(self._calls) + len(self._finishing),
            "in_hand_limit": WAITING,
            "remembered": len(self._answers),
            "remembered_bytes": self._answers.bytes,
            "remembered_limit_bytes": self._answers.limit_bytes,
            **self._uplink.counts,
            **self._counts,
        }

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, ConsumerError):
            _LOG.error("bot %s is no longer attached: %s", self.bot, error)
        elif error is not None:
            _LOG.error("bot %s is no longer attached", self.bot, exc_info=error)

    # --- the connection

    async def _hold(self, hub: HubConnection) -> None:
        if FEATURE not in hub.features:
            raise HubRefused(f"{hub.endpoint}: this hub takes no calls")
        self._hub = hub
        request = {"type": "attach", "id": _ATTACH_ID, "data": {"bot": self.bot, "paths": self._paths}}
        try:
            await hub.send(CODECS[hub.wire].encode(request))
            while True:
                self._take(hub, await hub.receive())
        finally:
            self._attached.clear()
            self._give_up()
            self._hub = None

    def _take(self, hub: HubConnection, message: Mapping[str, Any]) -> None:
        kind, data = message["type"], message.get("data")
        if kind == "hub.reply" and message.get("id") == _ATTACH_ID:
            self._attach_answered(hub, message)
        elif kind == "hub.reply" and message.get("id") == _LEAVE_ID:
            self._heard.set()
        elif kind == "hub.call":
            self._begin(hub, data)
        elif kind == "hub.cancel":
            call = self._calls.get(data.get("call", 0)) if isinstance(data, Mapping) else None
            if call is not None:
                self._counts["cancelled"] += 1
                self._drop(call)
        elif kind == "hub.error" and isinstance(data, Mapping):
            _LOG.warning("%s: the hub says %s: %s", hub.endpoint, data.get("code"), data.get("message"))

    def _attach_answered(self, hub: HubConnection, reply: Mapping[str, Any]) -> None:
        if reply.get("ok") is True:
            self._attached.set()
            return
        error = reply.get("error")
        error = error if isinstance(error, Mapping) else {}
        text = f"{hub.endpoint}: {self.bot} may not attach: {error.get('code')}: {error.get('message')}"
        if error.get("temporary") is not True:
            raise HubRefused(text)
        after = error.get("retry_after_ms")
        raise ConnectionFailed(text, retry_after_s=after / 1000 if type(after) is int else None)

    # --- calls

    def _begin(self, hub: HubConnection, data: Any) -> None:
        request = _request(data)
        if request is None:
            self._counts["unreadable"] += 1
            return
        if len(self._calls) + len(self._finishing) >= WAITING:
            # More than a hub of ours sends; its deadline is the answer.
            self._counts["overloaded"] += 1
            return
        self._counts["calls"] += 1
        loop = asyncio.get_running_loop()
        call = _Call(data["call"], request, hub, loop.time() + request.deadline_ms / 1000)
        self._calls[call.number] = call
        call.task = loop.create_task(self._work(call), name=f"call {call.number} of {self.bot}")
        call.task.add_done_callback(lambda _: self._done(call))

    def _done(self, call: _Call) -> None:
        self._finishing.discard(call)
        if self._calls.get(call.number) is call:
            del self._calls[call.number]

    def _drop(self, call: _Call) -> None:
        """Nobody waits for this call any more."""
        del self._calls[call.number]
        call.heard = False
        self._finishing.add(call)
        if call.task is not None and not call.changing:
            call.task.cancel()

    def _give_up(self) -> None:
        for call in list(self._calls.values()):
            self._drop(call)

    async def _finish(self) -> None:
        """Wait for what may not be broken off, for a while; then break it off all the same."""
        tasks = [call.task for call in self._finishing if call.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=CLOSE_S)
            for task in late:
                task.cancel()
            if late:
                _LOG.warning("bot %s: %d calls did not end within %g s", self.bot, len(late), CLOSE_S)
                await asyncio.wait(late)

    async def _work(self, call: _Call) -> None:
        deadline = asyncio.get_running_loop().call_at(call.deadline, self._overdue, call)
        try:
            # The slot is held until the answer is sent: so many large answers wait for the hub to read, and no more.
            async with self._slots:
                answer = await self._answered(call)
                if call.heard:
                    await self._send(call, answer)
                else:
                    self._counts["unheard"] += 1
        finally:
            deadline.cancel()

    def _overdue(self, call: _Call) -> None:
        if self._calls.get(call.number) is call:
            self._counts["overdue"] += 1
            self._drop(call)

    async def _answered(self, call: _Call) -> BotAnswer:
        key = call.key
        if key is None:
            return await self._asked(call)
        answer = self._answers.get(key, asyncio.get_running_loop().time())
        if answer is not None:
            self._counts["repeated"] += 1
            return answer
        while (first := self._running.get(key)) is not None:
            await asyncio.wait([first])
            if not first.cancelled():
                self._counts["repeated"] += 1
                return first.result()
        return await self._asked_once(call, key)

    async def _asked_once(self, call: _Call, key: _Key) -> BotAnswer:
        loop = asyncio.get_running_loop()
        future = self._running[key] = loop.create_future()
        try:
            answer = await self._asked(call)
        except BaseException:
            # Broken off: who waits for its answer asks anew.
            future.cancel()
            raise
        finally:
            del self._running[key]
        future.set_result(answer)
        self._answers.put(key, answer, len(self._payload(call, answer)) + _OVERHEAD_BYTES, loop.time())
        return answer

    async def _asked(self, call: _Call) -> BotAnswer:
        call.changing = call.request.method not in READS
        try:
            return await self._answer(call.request)
        except Exception:
            self._counts["failed"] += 1
            _LOG.exception("bot %s: %s %s failed", self.bot, call.request.method, call.request.path)
            return _bad_gateway(call.request, "internal error")
        finally:
            call.changing = False

    async def _send(self, call: _Call, answer: BotAnswer) -> None:
        payload = self._payload(call, answer)
        try:
            await call.hub.send(payload)
            self._counts["answered"] += 1
        except ConnectionFailed:
            self._counts["unheard"] += 1

    def _payload(self, call: _Call, answer: BotAnswer) -> bytes:
        codec = CODECS[call.hub.wire]

        def frame(answer: BotAnswer) -> bytes:
            body = answer.body
            if isinstance(body, msgspec.Raw):
                body = embedded(call.hub.wire, bytes(body))
            data = {"call": call.number, "status": answer.status, "body": body}
            return codec.encode({"type": "result", "data": data})

        try:
            payload = frame(answer)
        except BadMessage as error:
            self._counts["failed"] += 1
            _LOG.error("bot %s: %s %s: %s", self.bot, call.request.method, call.request.path, error)
            return frame(_bad_gateway(call.request, "internal error"))
        if len(payload) > RESULT_BYTES:
            self._counts["failed"] += 1
            return frame(_bad_gateway(call.request, f"the answer has over {RESULT_BYTES} bytes"))
        return payload


def _request(data: Any) -> BotRequest | None:
    if not isinstance(data, Mapping) or type(data.get("call")) is not int:
        return None
    try:
        request = msgspec.convert(data, BotRequest)
    except msgspec.ValidationError:
        return None
    return request if request.deadline_ms > 0 else None


def _bad_gateway(request: BotRequest, why: str) -> BotAnswer:
    """freqtrade's answer when a bot cannot do what is asked."""
    return BotAnswer(status=502, body={"error": f"Error querying /api/v1{request.path}: {why}"})
