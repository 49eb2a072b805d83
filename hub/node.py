"""The asyncio driver of one node: core, log and clock; owner of every task; it decides nothing that core can decide.

Bytes enter through `receive` and `publish`; a ledger message waits in `_appends` for the committer, everything else in core;
a slow client is closed where `_act` sees core's decision. Tasks: the committer (batches appends into the log), the ticker, and
one short read task for each session that reads the log; a timer ends calls at their deadlines. Everything runs on one loop; other
threads come in through `hub.server`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from hub.bots.hub_bot import Candles
from hub.core import notices, requests
from hub.core.call_requests import CALL_REQUESTS, At, respond_call
from hub.core.calls import CallLimits, Calls
from hub.core.engine import Core, CoreLimits
from hub.core.entry import Entry
from hub.core.intake import Intake, LogPublish, Publish, PublishOrder, ValuePublish
from hub.core.ledger import Append, Appended, Found, Log, Query, Read
from hub.core.session import Group, Session
from hub.core.state import StateKey
from hub.protocol.calls import DEADLINE_MS, BotRequest, CallResult
from hub.protocol.close_codes import CloseCode
from hub.protocol.codec import Wire
from hub.protocol.envelope import reply, reply_error
from hub.protocol.errors import (
    Draining,
    HandshakeRefused,
    LedgerUnreadable,
    NotAMessage,
    NotDurable,
    ProtocolError,
    RequestError,
    TokenExpired,
)
from hub.protocol.messages import FrameKey
from hub.protocol.principal import Principal

__all__ = ["Clock", "Node", "NodeLimits", "Outlet", "OutletListener"]

VERSION = "0.1.0"
FLUSH_BYTES = 256 * 1024
PULL_BYTES = 64 * 1024
PULLS_A_TURN = 4
"""Stragglers that are served in one turn of the loop: however many replay, a commit waits for so many slices, not for all."""
TICK_S = 1.0
STOP_S = 2.0
CLOSE_LOG_S = 5.0
"""A stop waits so long for the node's tasks, and then for the log: a disk that hangs must not keep the process."""
READY_LAG_S = 5.0
TIMER_SLACK_S = 0.001
_TRADED_CANDLES = ("spot", "futures", "")
logger = logging.getLogger("tradewire.node")


class OutletListener(Protocol):
    """What an outlet tells."""

    def on_writable(self) -> None:
        """The transport accepts again."""

    def on_lost(self) -> None:
        """The transport is gone."""


class Outlet(Protocol):
    """The writing side of one connection. All methods are synchronous and never block."""

    def write(self, data: bytes) -> bool:
        """Write whole websocket frames; False when the transport is now above its high water mark."""

    @property
    def writable(self) -> bool:
        """Whether the transport accepts more."""

    @property
    def unsent_bytes(self) -> int:
        """Bytes in the transport's buffer."""

    def close(self, code: int, reason: str) -> None:
        """Send a Close frame behind what was written; idempotent; nothing is written afterwards."""

    def set_listener(self, listener: OutletListener) -> None:
        """Who is told of `on_writable` and `on_lost`."""


class Clock(Protocol):
    """Time, given so that tests can give another."""

    def monotonic(self) -> float:
        """Seconds that only grow."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLimits:
    """The bounds of a node; the message limits are announced in hub.welcome."""

    connections: int = 10_000
    message: int = 1 << 20
    items: int = 256
    keys: int = 10_000
    in_flight: int = 64
    publish_in_flight: int = 256
    requests_per_s: int = 50
    control_bytes: int = 1 << 20
    dedupe_ms: int = 86_400_000
    heartbeat_ms: int = 20_000
    pong_timeout_ms: int = 10_000
    core: CoreLimits = field(default_factory=CoreLimits)
    calls: CallLimits = field(default_factory=CallLimits)

    def announced(self) -> dict[str, int]:
        """`limits` of hub.welcome."""
        return {
            "message": self.message,
            "items": self.items,
            "keys": self.keys,
            "in_flight": self.in_flight,
            "publish_in_flight": self.publish_in_flight,
            "dedupe_ms": self.dedupe_ms,
            "requests_per_s": self.requests_per_s,
        }


class _Connection:
    """A session with its outlet; listens to the outlet for the node."""

    __slots__ = ("address", "driving", "node", "order", "outlet", "readable", "session")

    def __init__(self, node: Node, session: Session, outlet: Outlet, address: str | None) -> None:
        self.node = node
        self.address = address
        self.session = session
        self.outlet = outlet
        self.order = PublishOrder()
        self.driving = False
        self.readable = asyncio.Event()
        self.readable.set()

    def on_writable(self) -> None:
        self.node._drive_soon(self)

    def on_lost(self) -> None:
        self.node.disconnect(self.session)


T = TypeVar("T")
Ack = Mapping[str, Any]
Done = Callable[[Ack | RequestError], None]


class Node:
    """One hub process. Create it on the loop that will run it; `start` before use, `drain` then `stop` at the end."""

    def __init__(
        self, log: Log, limits: NodeLimits | None = None, *, clock: Clock | None = None, name: str = "n1"
    ) -> None:
        self.limits = limits or NodeLimits()
        self.clock: Clock = clock or SystemClock()
        self.name = name
        self.log = log
        self.intake = Intake(self.limits.dedupe_ms)
        self.calls = Calls(self.limits.calls)
        self.core: Core
        self.authenticate: Callable[[bytes, str | None], Principal | None] | None = None
        """Whose the token of an `auth` is, by the address that shows it; None or a RequestError for nobody's."""
        self.draining = False
        self.started_ms = 0
        self.last_ms: dict[str, int] = {}
        self.states: dict[str, str] = {}
        self._timeframes: dict[str, str] = {}
        self._links: dict[str, set[str]] = {}
        self._connections: dict[str, _Connection] = {}
        self._appends: deque[Append] = deque()
        self._committing: list[Append] = []
        self._answered: dict[_Connection, None] | None = None
        self._stopped = False
        self._told_unreadable = False
        self._wake_committer = asyncio.Event()
        self._flush_scheduled = False
        self._behind: deque[_Connection] = deque()
        self._behind_scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticked_at = 0.0
        self._committer: asyncio.Task[None] | None = None
        self._call_timer: asyncio.TimerHandle | None = None

    # --- life

    async def start(self) -> None:
        """Open the log and start the node's tasks."""
        state = await self.log.open()
        self.core = Core(state, secrets.token_hex(4), self.limits.core)
        self.started_ms = self.clock.now_ms()
        self._ticked_at = self.clock.monotonic()
        self._committer = self._own(self._commit_forever(), "committer")
        self._own(self._tick_forever(), "ticker")

    def _own(self, coroutine: Any, name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine, name=f"tradewire-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("task %s failed", task.get_name(), exc_info=task.exception())

    async def drain(self, deadline_s: float, *, reconnect_after_ms: int = 1000) -> None:
        """Refuse intake, tell every session, commit what was accepted, deliver until the deadline, close with 1012.

        Last a v2 client hears its position, behind the last message that it was sent. What the log has not answered by the
        deadline is refused as NotDurable: it may have been stored. Returns at the deadline, whatever hangs. Every client is
        told the same `reconnect_after_ms`; it adds its own jitter.
        """
        self.draining = True
        end = self.clock.monotonic() + deadline_s
        for connection in self._connections.values():
            if connection.session.wire is not Wire.FREQTRADE:
                data = {"reconnect_after_ms": reconnect_after_ms, "deadline_ms": int(deadline_s * 1000)}
                connection.session.tell({"type": "hub.drain", "data": data})
            self._drive_soon(connection)
        while self.clock.monotonic() < end and self._owes_anything():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self._end_commits("the hub ended before the log answered")
        self._tell_last_positions()
        for connection in list(self._connections.values()):
            connection.outlet.close(CloseCode.SERVICE_RESTART, f"retry_after_ms={reconnect_after_ms}")

    def _tell_last_positions(self) -> None:
        for group in self.core.groups.values():
            self.core.owe_position(group)
        self._flush()
        for connection in list(self._connections.values()):
            frames = self.core.last_words(connection.session)
            if frames:
                connection.outlet.write(b"".join(frames))

    def _owes_anything(self) -> bool:
        if (
            self._appends
            or self.core.pending_bytes
            or self.core.dirty
            or self.calls.next_deadline is not None
        ):
            return True
        return any(
            c.session.control or (c.session.group and not c.session.hot) or c.outlet.unsent_bytes
            for c in self._connections.values()
        )

    async def stop(self) -> None:
        """End the tasks and close the log; what hangs is left after STOP_S and CLOSE_LOG_S. Idempotent."""
        self.draining = True
        await self._end_tasks()
        self._end_commits("the hub stopped before the log answered")
        self.calls.stop()
        self._after_calls()
        for connection in list(self._connections.values()):
            connection.outlet.close(CloseCode.SERVICE_RESTART, "retry_after_ms=1000")
        if not self._stopped:
            self._stopped = True
            await self._close_log()

    async def _end_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=STOP_S)
            for task in left:
                logger.error("task %s does not end", task.get_name())

    def _end_commits(self, why: str) -> None:
        """Nothing more is stored; who waits for an answer is told that it is unknown."""
        unanswered = [*self._committing, *self._appends]
        self._committing = []
        self._appends.clear()
        if unanswered and self._committer is not None:
            self._committer.cancel()
        for append in unanswered:
            _tell(append, NotDurable(f"{why}; retry with the same mid", retry_after_ms=1000))

    async def _close_log(self) -> None:
        closing = asyncio.get_running_loop().create_task(self.log.close(), name="tradewire-log-close")
        await asyncio.wait((closing,), timeout=CLOSE_LOG_S)
        if closing.done():
            closing.result()
        else:
            closing.cancel()
            logger.error("the log does not close; what it acknowledged is stored")

    # --- sessions

    def admit(self, principal: Principal) -> None:
        """Whether one more connection may come.

        Raises:
            HandshakeRefused: 503 with Retry-After, when full or draining.
        """
        if self.draining:
            raise HandshakeRefused(503, "the hub is draining", retry_after=2)
        if len(self._connections) >= self.limits.connections:
            raise HandshakeRefused(503, "the hub is full", retry_after=10)

    def connect(
        self, principal: Principal, wire: Wire, outlet: Outlet, *, client: str, address: str | None = None
    ) -> Session:
        """A connection is up: its session begins. v2 clients are welcomed at once.

        `client` is what the log calls it; `address` is whose wrong tokens are counted, None when unknown.
        """
        session = Session(secrets.token_hex(8), principal, wire, client, self.clock.monotonic())
        connection = self._connections[session.id] = _Connection(self, session, outlet, address)
        self.core.connect(session)
        outlet.set_listener(connection)
        if wire is not Wire.FREQTRADE:
            session.tell(self._welcome(session))
            self._drive(connection)
        return session

    def _welcome(self, session: Session) -> dict[str, Any]:
        self._note_floor()
        return notices.welcome(
            session,
            version=VERSION,
            node=self.name,
            now_ms=self.clock.now_ms(),
            epoch=self.epoch,
            floor=self.core.floor,
            head=self.head,
            heartbeat_ms=self.limits.heartbeat_ms,
            limits=self.limits.announced(),
        )

    def disconnect(self, session: Session) -> None:
        """A connection is gone. Idempotent."""
        connection = self._connections.pop(session.id, None)
        if connection is not None:
            connection.readable.set()
            self.core.disconnect(session)
            self.calls.gone(session)
            self._after_calls()

    def announce(self, bot: str, *, online: bool, link: str = "relay") -> None:
        """Tell every v2 client that may read the bot whether it is connected: while one of its links is up, relay or attachment."""
        before, links = self.online(bot), self._links.setdefault(bot, set())
        if online:
            links.add(link)
        else:
            links.discard(link)
        online = bool(links)
        if online is not before:
            self.tell_readers(bot, {"type": "hub.bot", "data": {"bot": bot, "online": online}})

    def tell_readers(self, bot: str, notice: dict[str, Any]) -> None:
        """Tell every v2 client that may read the bot."""
        for connection in self._connections.values():
            session = connection.session
            if session.wire is not Wire.FREQTRADE and session.principal.may_read(bot):
                session.tell(notice)
                self._drive_soon(connection)

    def receive(self, session: Session, message: Mapping[str, Any]) -> None:
        """One decoded message of a client. Replies by itself; a breach of the protocol closes the connection."""
        connection = self._connections.get(session.id)
        if connection is None or session.closing is not None:
            return
        try:
            if message["type"] == "publish" and session.wire is not Wire.FREQTRADE:
                self._receive_publish(connection, message)
            elif message["type"] == "auth" and session.wire is not Wire.FREQTRADE:
                self._receive_auth(connection, message)
            elif message["type"] in CALL_REQUESTS and session.wire is not Wire.FREQTRADE:
                respond_call(self.calls, session, message, self._at())
                self._after_calls()
            else:
                # Retention by age may have moved it since the last commit, and a resume is answered by it.
                self._note_floor()
                requests.respond(self.core, session, message, self.clock.now_ms(), self.limits.announced())
        except ProtocolError as error:
            session.close(error.close_code, str(error))
        self._drive(connection)

    def _receive_auth(self, connection: _Connection, message: Mapping[str, Any]) -> None:
        session = connection.session
        number = requests.request_id(message)
        data = message.get("data")
        token = data.get("token") if isinstance(data, Mapping) else None
        try:
            if not isinstance(token, str):
                raise RequestError("auth.token: expected a string")
            shown = token.encode(errors="replace")
            principal = self.authenticate(shown, connection.address) if self.authenticate else None
            if principal is None:
                raise TokenExpired("auth.token: expected a valid token")
            self.core.reauthenticate(session, principal)
        except RequestError as error:
            requests.refuse(session, number, error)
            return
        if number is not None:
            session.tell(reply(number, {"expires_ms": principal.expires_ms}))

    async def readable(self, session: Session) -> None:
        """Wait until this session has room for another request: its publishes in flight and its unread replies are bounded."""
        connection = self._connections.get(session.id)
        if connection is not None:
            await connection.readable.wait()

    def _bound_reading(self, connection: _Connection) -> None:
        session = connection.session
        full = (
            session.unanswered >= self.limits.publish_in_flight
            or session.control_bytes > self.limits.control_bytes
            or len(session.requests) > self.limits.in_flight
        )
        if full:
            connection.readable.clear()
        else:
            connection.readable.set()

    # --- calls of bots

    def attached(self) -> set[str]:
        """The bots that are attached now and so can be called."""
        return self.calls.attached()

    def awaits(self, session: Session, number: int) -> bool:
        """Whether the bot of this session has a call of this number to answer."""
        return self.calls.awaits(session, number)

    async def call(
        self,
        bot: str,
        *,
        method: str,
        path: str,
        query: str = "",
        body: Any = None,
        principal: str,
        deadline_ms: int = DEADLINE_MS,
        key: str | None = None,
    ) -> CallResult:
        """Ask an attached bot, in the name of `principal`, whose rights the caller has checked; fields as of BotRequest.

        Cancelled, it cancels the call: the bot is told, and nobody knows what it did. The hub repeats nothing.

        Raises:
            BotUnreachable: the bot is not attached, or goes away. DeadlinePassed: no answer within `deadline_ms`.
            UnknownRequest: it does not answer this method and path. Overloaded: too much is in flight. TooLarge: the request
            or the result. Draining: the hub ends.
        """
        if self.draining:
            raise Draining("the hub is draining", retry_after_ms=2000)
        request = BotRequest(
            method=method,
            path=path,
            query=query,
            body=body,
            principal=principal,
            deadline_ms=deadline_ms,
            key=key,
        )
        future: asyncio.Future[CallResult] = asyncio.get_running_loop().create_future()
        done = functools.partial(_settle, future)
        self.calls.call(future, bot, request, done, self.clock.monotonic())
        self._after_calls()
        try:
            return await future
        finally:
            if self.calls.cancel(future):
                self._after_calls()

    def _at(self) -> At:
        return At(self.clock.monotonic(), draining=self.draining, control_bytes=self.limits.control_bytes)

    def _after_calls(self) -> None:
        """Do what calls decided: serve sessions, announce bots, be there at the next deadline."""
        touched, self.calls.touched = self.calls.touched, set()
        for session in touched:
            connection = self._connections.get(session.id)
            if connection is not None:
                self._drive_soon(connection)
        news, self.calls.news = self.calls.news, []
        for bot, online in news:
            self.announce(bot, online=online, link="attachment")
        self._set_call_timer()

    def _set_call_timer(self) -> None:
        timer, due = self._call_timer, self.calls.next_deadline
        if due is not None:
            loop = asyncio.get_running_loop()
            when = loop.time() + due - self.clock.monotonic()
            # One that fires too early sets itself again.
            if timer is not None and timer.when() <= when + TIMER_SLACK_S:
                return
            self._call_timer = loop.call_at(when, self._end_overdue_calls)
        else:
            self._call_timer = None
        if timer is not None:
            timer.cancel()

    def _end_overdue_calls(self) -> None:
        self._call_timer = None
        self.calls.tick(self.clock.monotonic())
        self._after_calls()

    # --- publishing

    def _receive_publish(self, connection: _Connection, message: Mapping[str, Any]) -> None:
        session = connection.session
        number = requests.request_id(message)
        if number is None:
            raise NotAMessage("publish: expected an id")
        data = message.get("data")
        batch = data.get("items") if isinstance(data, Mapping) and "items" in data else None
        items = batch if isinstance(batch, list) else [data]
        results: list[Any] = [None] * len(items)
        left = len(items)
        session.unanswered += 1

        def done(i: int, result: Ack | RequestError) -> None:
            nonlocal left
            results[i] = result
            left -= 1
            if left == 0:
                self._answer_publish(connection, number, results, batch is not None)

        if len(items) > self.limits.items:
            error = RequestError(f"items: expected at most {self.limits.items}, got {len(items)}")
            left, items, results, batch = 1, [None], [None], None
            done(0, error)
            return
        if not items:
            self._answer_publish(connection, number, [], True)
        for i, item in enumerate(items):
            self.publish(session.principal, item, session.wire, functools.partial(done, i), connection.order)

    def _answer_publish(self, connection: _Connection, number: int, results: list[Any], batch: bool) -> None:
        session = connection.session
        session.unanswered -= 1
        answers = [{"error": r.as_data()} if isinstance(r, RequestError) else r for r in results]
        if batch:
            session.tell(reply(number, answers))
        elif isinstance(results[0], RequestError):
            session.tell(reply_error(number, results[0].as_data()))
        else:
            session.tell(reply(number, answers[0]))
        if self._answered is None:
            self._drive_soon(connection)
        else:
            self._answered[connection] = None

    def publish(
        self, principal: Principal, item: Any, wire: Wire, done: Done, order: PublishOrder | None = None
    ) -> None:
        """Publish one item as decoded from `wire`; `done` is called once, with the ack or the refusal.

        It is called at once for all but ledger messages, for those once the log has committed. With an `order`, ledger
        messages of the same order are never stored ahead of an earlier one that was refused for now.
        """
        try:
            publish = self.intake.parse(principal, item, wire, self.clock.now_ms())
        except RequestError as error:
            self.core.counters["refused"] += 1
            done(error)
            return
        if order is not None and isinstance(publish, LogPublish) and publish.ledger:
            self._publish_in_order(publish, done, order)
        else:
            self.publish_checked(publish, done)

    def _publish_in_order(self, publish: LogPublish, done: Done, order: PublishOrder) -> None:
        mid = publish.entry.mid

        def note(result: Ack | RequestError) -> None:
            if isinstance(result, RequestError) and result.temporary:
                order.refused(mid, self.clock.monotonic())
            done(result)

        try:
            order.check(mid, self.clock.monotonic())
        except RequestError as error:
            self.core.counters["refused"] += 1
            done(error)
        else:
            self.publish_checked(publish, note)

    def publish_checked(self, publish: Publish, done: Done) -> None:
        """Publish what the intake has checked."""
        now = self.clock.monotonic()
        try:
            if self.draining:
                raise Draining("the hub is draining", retry_after_ms=2000)
            if isinstance(publish, LogPublish) and publish.ledger:
                self._appends.append(self.core.accept(publish.entry, done))
                self._wake_committer.set()
                self._seen(publish.entry.bot)
                return
            ack = self._publish_now(publish, now)
        except RequestError as error:
            self.core.counters["refused"] += 1
            done(error)
            return
        self._flush_soon()
        done(ack)

    def _publish_now(self, publish: Publish, now: float) -> Ack:
        if isinstance(publish, LogPublish):
            self.core.publish_event(publish.entry)
            self._seen(publish.entry.bot)
            self._note_state(publish.entry)
            return {}
        if isinstance(publish, ValuePublish):
            rev = self.core.publish_value(publish.bot, publish.topic, publish.key, publish.data, publish.ts)
        else:
            rev = self.core.publish_frame(
                publish.bot,
                publish.key,
                publish.rows,
                replace=publish.replace,
                la_ms=publish.la_ms,
                ts=publish.ts,
                now=now,
            )
            # Remembered: GET /bots asks for every bot's, and to look through 4000 keys for each takes 15 ms.
            self._timeframes.setdefault(publish.bot, publish.key.timeframe)
        self._seen(publish.bot)
        return {"rev": rev}

    def _seen(self, bot: str) -> None:
        self.last_ms[bot] = self.clock.now_ms()

    def _note_state(self, entry: Entry) -> None:
        if entry.topic == "status" and isinstance(entry.data, Mapping):
            self.states[entry.bot] = str(entry.data.get("status", ""))[:64]

    async def publish_and_wait(
        self, principal: Principal, item: Any, order: PublishOrder | None = None, wire: Wire = Wire.JSON
    ) -> Ack:
        """Publish and wait for the ack; on cancellation the message may still be stored. `order` as of `publish`.

        Raises:
            RequestError: it was refused.
        """
        future: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        self.publish(principal, item, wire, lambda result: _settle(future, result), order)
        return await future

    async def publish_checked_and_wait(self, publish: Publish) -> Ack:
        """As `publish_and_wait`, of what the intake has checked."""
        future: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        self.publish_checked(publish, lambda result: _settle(future, result))
        return await future

    async def _commit_forever(self) -> None:
        while True:
            await self._wake_committer.wait()
            self._wake_committer.clear()
            self._committing = list(self._appends)
            self._appends.clear()
            if self._committing:
                await self._commit(self._committing)
                self._committing = []

    async def _commit(self, batch: list[Append]) -> None:
        try:
            results = await self.log.append(batch)
        except Exception as error:
            # What was accepted behind the batch must not be stored ahead of its retry.
            batch += self._appends
            self._appends.clear()
            refused = self._not_durable(error, len(batch))
            results = [Appended(append, refused=refused) for append in batch]
        if batch is not self._committing:
            return
        self._note_floor()
        self.core.committed(results)
        self._flush_soon()
        answered: dict[_Connection, None] = {}
        self._answered = answered
        try:
            for result in results:
                if result.refused is not None:
                    _tell(result.append, result.refused)
                else:
                    ack = {"epoch": self.epoch, "offset": result.offset, "duplicate": result.duplicate}
                    _tell(result.append, ack)
        finally:
            self._answered = None
        self._drive_now(answered)

    def _not_durable(self, error: Exception, count: int) -> NotDurable:
        """What publishers are told of a log that could not store. One that says why has also logged it, once."""
        if not isinstance(error, NotDurable):
            logger.error("the log failed; %d messages are not acknowledged", count, exc_info=error)
            error = NotDurable("the log could not store the message")
        return NotDurable(str(error), retry_after_ms=error.retry_after_ms or 1000)

    def _note_floor(self) -> None:
        self.core.floor = max(self.core.floor, self.log.floor)

    # --- delivery

    def _flush_soon(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        dirty, self.core.dirty = self.core.dirty, set()
        for group in dirty:
            try:
                self._flush_group(group)
            except Exception:
                logger.exception("a group could not be served; its sessions end and may resume")
                self._end_group(group)
        if self.core.dirty:
            self._flush_soon()

    def _end_group(self, group: Group) -> None:
        """What the group's cursor passed may not have been written: nobody goes on with a silent hole."""
        for session in [*group.hot, *group.stragglers]:
            session.close(CloseCode.INTERNAL_ERROR, "internal error; resume when you can")
            self._act(self._connections[session.id])

    def _flush_group(self, group: Group) -> None:
        before = set(group.stragglers) if group.stragglers else set()
        frames, more = self.core.collect(group, FLUSH_BYTES, self.clock.monotonic())
        if frames:
            self._write_hot(group, frames[0] if len(frames) == 1 else b"".join(frames))
        if more:
            self.core.dirty.add(group)
        for session in group.stragglers - before:
            self._drive_soon(self._connections[session.id])

    def _write_hot(self, group: Group, data: bytes) -> None:
        now = self.clock.monotonic()
        full: list[Session] = []
        connections = self._connections
        for session in list(group.hot):
            session.sent_at = now
            if not connections[session.id].outlet.write(data):
                full.append(session)
        for session in full:
            self.core.fall_behind(session)

    def _drive_soon(self, connection: _Connection) -> None:
        if not connection.driving:
            connection.driving = True
            if connection.session.cursor is None:
                asyncio.get_running_loop().call_soon(self._drive_scheduled, connection)
            else:
                self._behind.append(connection)
                self._drive_behind_soon()

    def _drive_behind_soon(self) -> None:
        if self._behind and not self._behind_scheduled:
            self._behind_scheduled = True
            asyncio.get_running_loop().call_soon(self._drive_behind)

    def _drive_behind(self) -> None:
        """Serve the next few stragglers, in turn."""
        self._behind_scheduled = False
        try:
            for _ in range(min(len(self._behind), PULLS_A_TURN)):
                self._drive_scheduled(self._behind.popleft())
        finally:
            self._drive_behind_soon()

    def _drive_now(self, connections: Iterable[_Connection]) -> None:
        """In this turn of the loop: what publishers wait for goes ahead of the fan-out."""
        for connection in connections:
            try:
                self._drive(connection)
            except Exception:
                logger.exception("a session could not be served; it ends")
                connection.session.close(CloseCode.INTERNAL_ERROR, "internal error")
                self._act(connection)

    def _drive_scheduled(self, connection: _Connection) -> None:
        connection.driving = False
        self._drive(connection)

    def _drive(self, connection: _Connection) -> None:
        """Send a session what is owed to it alone, as far as its transport takes it, a slice a turn."""
        session, outlet = connection.session, connection.outlet
        if session.id not in self._connections:
            return
        if outlet.writable:
            pulled = self.core.pull(session, PULL_BYTES, self.clock.monotonic())
            if pulled.frames:
                outlet.write(b"".join(pulled.frames))
            if pulled.read is not None:
                self._own(self._read(connection, pulled.read), "read")
            elif not pulled.level and not session.reading and outlet.writable and session.closing is None:
                self._drive_soon(connection)
        elif session.hot and session.control:
            self.core.fall_behind(session)
        self._bound_reading(connection)
        self._act(connection)

    def _act(self, connection: _Connection) -> None:
        closing = connection.session.closing
        if closing is not None:
            connection.outlet.close(*closing)

    async def _read(self, connection: _Connection, read: Read) -> None:
        session = connection.session
        try:
            page = await self.log.read(read)
        except Exception:
            logger.exception("the log cannot be read; a session that is behind ends")
            session.close(CloseCode.INTERNAL_ERROR, "the log cannot be read; resume when you can")
            self._act(connection)
            return
        self.core.loaded(session, page)
        self._drive(connection)

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._ticked_at = self.clock.monotonic()
            touched = self.core.tick(self._ticked_at, self.clock.now_ms(), self.limits.heartbeat_ms / 1000)
            if self.core.dirty:
                self._flush_soon()
            for session in touched:
                connection = self._connections.get(session.id)
                if connection is not None:
                    self._drive_soon(connection)

    # --- what REST asks

    def alive(self) -> bool:
        """Whether the loop turns: the ticker ran within the last 5 s."""
        return self.clock.monotonic() - self._ticked_at < READY_LAG_S

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether it takes clients and publishes, and why not."""
        committer = self._committer is not None and not self._committer.done()
        checks = {"ledger": committer, "loop": self.alive(), "not_draining": not self.draining}
        return all(checks.values()), checks

    @property
    def epoch(self) -> str:
        """The ledger's epoch."""
        return self.core.epoch

    @property
    def head(self) -> int:
        """The newest offset of the ledger."""
        return self.core.tail.next - 1

    async def find(self, query: Query) -> Found:
        """Search the ledger, off the loop and at no cost to appends. What the query may see, the caller has checked.

        Raises:
            LedgerUnreadable: the log cannot be read now.
        """
        try:
            found = await self.log.find(query)
        except Exception as error:
            # Once, not for each client that asks again.
            if not self._told_unreadable:
                self._told_unreadable = True
                logger.error("the log cannot be searched", exc_info=error)
            raise LedgerUnreadable("the ledger cannot be read now") from None
        self._told_unreadable = False
        return found

    def bots(self) -> set[str]:
        """Every bot that published since the start."""
        return set(self.last_ms)

    def whitelist(self, bot: str) -> list[str] | None:
        """The bot's whitelist, or None when it never published one."""
        cell = self.core.values.get(StateKey(bot, "whitelist", None))
        return None if cell is None else list(cell.data)

    def last_message_ms(self, bot: str) -> int | None:
        """When the bot last published anything."""
        return self.last_ms.get(bot)

    def state(self, bot: str) -> str | None:
        """The bot's last `status`."""
        return self.states.get(bot)

    def timeframe(self, bot: str) -> str | None:
        """The timeframe of the bot's frames, the first that it published."""
        return self._timeframes.get(bot)

    def online(self, bot: str) -> bool | None:
        """What `announce` last told of the bot, None before."""
        links = self._links.get(bot)
        return None if links is None else bool(links)

    def candles(self, bot: str, pair: str, timeframe: str) -> Candles | None:
        """A copy of the bot's frame of a pair; of several candle types the one that it trades on, spot before futures."""
        for candle_type in _TRADED_CANDLES:
            cell = self.core.cells.get(StateKey(bot, "analyzed_df", FrameKey(pair, timeframe, candle_type)))
            if cell is not None:
                return Candles(cell.store.tail(), cell.la_ms)
        return None

    def statistics(self) -> dict[str, Any]:
        """Every buffer with its bound, and what went through."""
        return {
            "core": self.core.statistics(),
            "log": self.log.statistics(),
            "intake": self.intake.statistics(),
            "calls": self.calls.statistics(),
            "node": {
                "connections": len(self._connections),
                "connections_limit": self.limits.connections,
                "unsent_bytes": sum(c.outlet.unsent_bytes for c in self._connections.values()),
                "appends_waiting": len(self._appends),
                "tasks": len(self._tasks),
            },
        }


def _tell(append: Append, result: Ack | RequestError) -> None:
    """Answer one publisher; what its callback does wrong must not keep the others from their answers."""
    done: Any = append.token
    try:
        done(result)
    except Exception:
        logger.exception("a publisher's callback failed")


def _settle(future: asyncio.Future[T], result: T | RequestError) -> None:
    if future.done():
        return
    if isinstance(result, RequestError):
        future.set_exception(result)
    else:
        future.set_result(result)
