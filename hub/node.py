"""The asyncio driver of one node: core, log and clock; owner of every task; it decides nothing that core can decide.

Bytes enter through `receive` (what a connection sent) and `publish` (anybody in this process). A ledger message waits for the log
in the committer (hub.committer), everything else in core. Delivery (hub.delivery) writes what core owes, and closes a slow client
when core has decided so. Here are life, sessions, calls, the intake of publishes, and what REST asks.

Tasks: the committer, the ticker, and one short read task for each session that reads the log; a timer ends overdue calls.
Everything runs on one loop; other threads come in through `hub.server`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from hub.bots.hub_bot import Candles
from hub.clock import Clock, SystemClock, Timer
from hub.committer import Ack, Committer, Done
from hub.core import notices, requests
from hub.core.bot_trades import Fill
from hub.core.call_requests import CALL_REQUESTS, At, respond_call
from hub.core.calls import Calls
from hub.core.engine import Core
from hub.core.entry import Entry
from hub.core.figures import SessionFigures, TopicFigures, session_figures, topic_figures
from hub.core.intake import Intake, LogPublish, Publish, PublishOrder, ValuePublish
from hub.core.late_fills import LateFills
from hub.core.ledger import Found, Log, Query
from hub.core.publish_requests import PublishRequest
from hub.core.session import Session
from hub.core.state import StateKey
from hub.delivery import FLUSH_BYTES, Connection, Delivery
from hub.fan_out import Outlet
from hub.limits import NodeLimits
from hub.protocol.calls import DEADLINE_MS, BotRequest, CallResult
from hub.protocol.close_codes import CloseCode
from hub.protocol.codec import Wire
from hub.protocol.errors import (
    Draining,
    HandshakeRefused,
    LedgerBusy,
    LedgerUnreadable,
    ProtocolError,
    RequestError,
)
from hub.protocol.messages import FrameKey
from hub.protocol.principal import Principal
from hub.tasks import Tasks

__all__ = ["VERSION", "Node"]

VERSION = "0.1.0"
TICK_S = 1.0
STOP_S = 2.0
CLOSE_LOG_S = 5.0
"""A stop waits so long for the node's tasks, and then for the log: a disk that hangs must not keep the process."""
READY_LAG_S = 5.0
_TRADED_CANDLES = ("spot", "futures", "")
logger = logging.getLogger("tradewire.node")
T = TypeVar("T")


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
        self.late_fills = LateFills()
        self.on_late_fill: Callable[[str, Fill, int], None] = lambda _bot, _fill, _offset: None
        """Told of a fill that came after reconciliation had stored it, at this offset."""
        self.draining = False
        self.started_ms = 0
        self.last_ms: dict[str, int] = {}
        self.states: dict[str, str] = {}
        self._timeframes: dict[str, str] = {}
        self._links: dict[str, set[str]] = {}
        self._connections: dict[str, Connection] = {}
        self._tasks = Tasks()
        self._delivery = Delivery(log, self.clock, self.limits, self._connections, self._tasks)
        self._committer = Committer(log, self._delivery, self._tasks)
        self._stopped = False
        self._told_unreadable = False
        self._searches = 0
        self._ticked_at = 0.0
        self._call_timer = Timer(self.clock, self._end_overdue_calls)

    # --- life

    async def start(self) -> None:
        """Open the log and start the node's tasks."""
        state = await self.log.open()
        self.core = Core(state, secrets.token_hex(4), self.limits.core)
        self.started_ms = self.clock.now_ms()
        self._ticked_at = self.clock.monotonic()
        self._delivery.start(self.core)
        self._committer.start(self.core)
        self._tasks.own(self._tick_forever(), "ticker")

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._ticked_at = self.clock.monotonic()
            self._delivery.note_progress(self._ticked_at)
            self._delivery.pages.forget_idle()
            # At the next tick a session would have heard nothing for longer than its heartbeat.
            heartbeat_s = max(0.0, self.limits.heartbeat_ms / 1000 - TICK_S)
            touched = self.core.tick(self._ticked_at, self.clock.now_ms(), heartbeat_s)
            if self.core.dirty:
                self._delivery.flush_soon()
            self._delivery.drive_sessions_soon(touched)

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
            self._delivery.drive_soon(connection)
        while self.clock.monotonic() < end and self._owes_anything():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self._committer.end("the hub ended before the log answered")
        self._delivery.tell_last_positions()
        for connection in list(self._connections.values()):
            connection.outlet.close(CloseCode.SERVICE_RESTART, f"retry_after_ms={reconnect_after_ms}")

    def _owes_anything(self) -> bool:
        return bool(
            self._committer.waiting
            or self.core.pending_bytes
            or self.calls.next_deadline is not None
            or self._delivery.owes_anything()
        )

    async def stop(self) -> None:
        """End the tasks and close the log; what hangs is left after STOP_S and CLOSE_LOG_S. Idempotent."""
        self.draining = True
        await self._tasks.end(STOP_S)
        self._committer.end("the hub stopped before the log answered")
        self.calls.stop()
        self._after_calls()
        self._delivery.stop()
        for connection in list(self._connections.values()):
            connection.outlet.close(CloseCode.SERVICE_RESTART, "retry_after_ms=1000")
        if not self._stopped:
            self._stopped = True
            await self._close_log()

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
        self,
        principal: Principal,
        wire: Wire,
        outlet: Outlet,
        *,
        client: str,
        address: str | None = None,
        deflates: bool = False,
    ) -> Session:
        """A connection is up: its session begins. v2 clients are welcomed at once.

        `client` is what the log calls it; `address` is whose wrong tokens are counted, None when unknown. `deflates`: it takes
        deflated frames.
        """
        now = self.clock.monotonic()
        session = Session(secrets.token_hex(8), principal, wire, client, now, deflates=deflates)
        connection = self._connections[session.id] = Connection(
            session, outlet, address, self._delivery, self.disconnect
        )
        self.core.connect(session)
        outlet.set_listener(connection)
        if wire is not Wire.FREQTRADE:
            session.tell(self._welcome(session))
            self._delivery.drive(connection)
        return session

    def _welcome(self, session: Session) -> dict[str, Any]:
        self._committer.note_floor()
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
            self._delivery.gone(connection)
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
                self._delivery.drive_soon(connection)

    def receive(self, session: Session, message: Mapping[str, Any]) -> None:
        """One decoded message of a client. Replies by itself; a breach of the protocol closes the connection."""
        connection = self._connections.get(session.id)
        if connection is None or session.closing is not None:
            return
        try:
            if message["type"] == "publish" and session.wire is not Wire.FREQTRADE:
                self._receive_publish(connection, message)
            elif message["type"] == "auth" and session.wire is not Wire.FREQTRADE:
                authenticate = functools.partial(self._principal_of, connection)
                requests.respond_auth(self.core, session, message, authenticate)
            elif message["type"] in CALL_REQUESTS and session.wire is not Wire.FREQTRADE:
                respond_call(self.calls, session, message, self._at())
                self._after_calls()
            else:
                # Retention by age may have moved it since the last commit, and a resume is answered by it.
                self._committer.note_floor()
                requests.respond(self.core, session, message, self.clock.now_ms(), self.limits.announced())
        except ProtocolError as error:
            session.close(error.close_code, str(error))
        self._delivery.drive(connection)

    def _principal_of(self, connection: Connection, token: bytes) -> Principal | None:
        return self.authenticate(token, connection.address) if self.authenticate else None

    async def readable(self, session: Session) -> None:
        """Wait until this session has room for another request: its publishes in flight and its unread replies are bounded."""
        connection = self._connections.get(session.id)
        if connection is not None:
            await connection.readable.wait()

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
        self._delivery.drive_sessions_soon(touched)
        news, self.calls.news = self.calls.news, []
        for bot, online in news:
            self.announce(bot, online=online, link="attachment")
        self._call_timer.set(self.calls.next_deadline)

    def _end_overdue_calls(self) -> None:
        self.calls.tick(self.clock.monotonic())
        self._after_calls()

    # --- publishing

    def _receive_publish(self, connection: Connection, message: Mapping[str, Any]) -> None:
        session = connection.session
        request = PublishRequest(session, message, self.limits.items)
        if request.answered:
            self._delivery.replied(connection)
        for i, item in enumerate(request.items):
            done = functools.partial(self._item_answered, connection, request, i)
            self.publish(session.principal, item, session.wire, done, connection.order)

    def _item_answered(
        self, connection: Connection, request: PublishRequest, index: int, result: Ack | RequestError
    ) -> None:
        if request.answer(index, result):
            self._delivery.replied(connection)

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
                if not self._is_late(publish, done):
                    self._committer.accept(publish.entry, done)
                self._seen(publish.entry.bot)
                return
            ack = self._publish_now(publish, now)
        except RequestError as error:
            self.core.counters["refused"] += 1
            done(error)
            return
        self._delivery.flush_soon()
        done(ack)

    def _is_late(self, publish: LogPublish, done: Done) -> bool:
        """Whether reconciliation has stored this fill meanwhile; the publisher is told the offset of that."""
        stored = self.late_fills.take(publish.entry, self.clock.now_ms())
        if stored is None:
            return False

        def known(offset: int | None) -> None:
            if offset is None:
                self.late_fills.give_up(publish.entry)
                self.publish_checked(publish, done)
            else:
                done({"epoch": self.epoch, "offset": offset, "duplicate": True})
                self.on_late_fill(stored.bot, stored.fill, offset)

        stored.when_known(known)
        return True

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

    # --- what REST asks

    def alive(self) -> bool:
        """Whether the loop turns: the ticker ran within the last 5 s."""
        return self.clock.monotonic() - self._ticked_at < READY_LAG_S

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether it takes clients and publishes, and why not."""
        checks = {"ledger": self._committer.running, "loop": self.alive(), "not_draining": not self.draining}
        return all(checks.values()), checks

    @property
    def epoch(self) -> str:
        """The ledger's epoch."""
        return self.core.epoch

    @property
    def head(self) -> int:
        """The newest offset of the ledger."""
        return self.core.tail.next - 1

    async def search(self, query: Query) -> Found:
        """`find` for a client: `limits.searches` at once. What it may see, the caller has checked.

        Raises:
            LedgerBusy: so many run or wait already. LedgerUnreadable: the log cannot be read now.
        """
        if self._searches >= self.limits.searches:
            raise LedgerBusy(f"{self._searches} searches of the ledger run")
        self._searches += 1
        try:
            return await self.find(query)
        finally:
            self._searches -= 1

    async def find(self, query: Query) -> Found:
        """Search the ledger, off the loop and at no cost to appends and replays. Cancelled, it ends soon.

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

    def topics(self) -> list[TopicFigures]:
        """The figures of each topic that was published to since the start."""
        return list(topic_figures(self.core))

    def sessions(self) -> list[SessionFigures]:
        """The figures of each session."""
        now = self.clock.monotonic()
        return [
            session_figures(self.core, connection.session, connection.outlet.unsent_bytes, now)
            for connection in self._connections.values()
        ]

    def statistics(self) -> dict[str, Any]:
        """Every buffer with its bound, and what went through."""
        return {
            "core": self.core.statistics(),
            "log": self.log.statistics(),
            "intake": self.intake.statistics(),
            "pages": self._delivery.pages.statistics(),
            "calls": self.calls.statistics(),
            "node": {
                "connections": len(self._connections),
                "connections_limit": self.limits.connections,
                "unsent_bytes": sum(c.outlet.unsent_bytes for c in self._connections.values()),
                "flush_limit_bytes": FLUSH_BYTES,
                "appends_waiting": self._committer.waiting,
                "tasks": len(self._tasks),
                "searches": self._searches,
                "searches_limit": self.limits.searches,
            },
        }


def _settle(future: asyncio.Future[T], result: T | RequestError) -> None:
    if future.done():
        return
    if isinstance(result, RequestError):
        future.set_exception(result)
    else:
        future.set_result(result)
