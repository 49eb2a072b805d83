"""Consume producers: connect, authenticate, subscribe, reconnect; an async iterator of deliveries.

Theory of operation
===================

A `Client` owns one task that opens a connection, feeds its frames to the receiver of the wire (`state` for tradewire.v2,
`legacy` for freqtrade's) and does what the receiver's `Step` says. What is to be delivered goes into an inbox that is bounded
in bytes; while it is full the socket is not read. The receiver outlives connections, so a reconnect continues where the last
one ended.

Every end of a connection and every failed connect is judged: for good (the error ends the iteration), or for now (wait by
`Backoff`, try again). The consumer of deliveries is told once by Disconnected, and by Connected when it is over.

Invariants
==========

1. At most one connection is open or being opened, and none without the backoff's wait since the last one ended.
2. What a receiver gave out is delivered, in order, also when the connection ends meanwhile.
3. Nothing is dropped for lack of room.
4. A peer that was silent for `wait_timeout` (a hub, for its heartbeat where that is shorter) and then for `ping_timeout` after a
   ping is given up; one that this side is too slow to read is not, and hears a pong now and then.

Source: wire-v2 §2, §11; freqtrade's consumer as observed, and what it does wrong: docs/wire-protocol.md.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from consumer.backoff import CAP_S, HEALTHY_S, Backoff
from consumer.config import DEFAULT_CANDLE_LIMIT, ConsumerConfig, ProducerConfig
from consumer.connection import Closed, Connection, Dial, Endpoint, Keepalive, dial, retry_after_in
from consumer.data import ProducerData
from consumer.errors import ConnectionFailed, ConsumerError, HubRefused, TooBig, Unauthorized
from consumer.inbox import Inbox, weight
from consumer.legacy import LegacyState
from consumer.state import HubState
from consumer.step import Step
from consumer.uplink import Sleep
from hub.protocol.close_codes import CloseAction, action_for
from hub.protocol.codec import CODECS, Wire
from hub.protocol.envelope import Position
from hub.protocol.errors import ProtocolError
from hub.protocol.known import Known
from hub.protocol.localbot import Advanced, Connected, Delivery, Disconnected, Repeated
from hub.protocol.messages import TOPICS
from hub.protocol.subscription import HUB_TOPICS

__all__ = ["Client", "Consumer"]

_LOG = logging.getLogger(__name__)
FRAMES_A_TURN = 64
_NOT_PLAIN = frozenset({Connected, Advanced, Repeated})

Callback = Callable[[Delivery], Awaitable[None] | None]

_V2 = {"msgpack": Wire.MSGPACK, "json": Wire.JSON}


class Client:
    """One producer's deliveries: `async with Client(...) as client: async for delivery in client: ...`.

    Deliveries come in the order of the wire, with Connected, Disconnected and Lost among them at the place where they happened.
    Iteration ends with an error only where trying again is no use:

    Raises (while iterating):
        Unauthorized: the token is refused, also at a second try. HubRefused, TooBig: the peer refuses what this client asks.
        ConfigError: the producer's address or CA file cannot be used.

    `data` is brought up to date as messages arrive, which may be ahead of what was iterated. `topics` replaces the
    producer's. `position` is what an earlier run had of a hub's ledger, to go on from; who keeps that stores a Known: `base`
    and the offset of each ledger message, and each Advanced, which `advances` adds to the deliveries. Leaving the block closes
    the connection; what was not iterated by then is dropped. The keyword arguments from `inbox` on are for tests and for
    `Consumer`.
    """

    def __init__(
        self,
        producer: ProducerConfig,
        settings: ConsumerConfig,
        *,
        data: ProducerData | None = None,
        topics: Iterable[str] | None = None,
        position: Known | Position | None = None,
        advances: bool = False,
        inbox: Inbox | None = None,
        dial: Dial = dial,
        sleep: Sleep = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.producer = producer
        self.data = data if data is not None else ProducerData.of(settings)
        self._settings = settings
        self._topics = _topics(producer, topics)
        self._known = Known.at(position) if isinstance(position, Position) else position
        self._advances = advances
        self._inbox = inbox if inbox is not None else Inbox()
        self._dial, self._sleep = dial, sleep
        self._backoff = Backoff(random)
        self._endpoint = Endpoint.of(producer)
        self._worked: Wire | None = None
        self._receivers: dict[bool, HubState | LegacyState] = {}
        self._receiver: HubState | LegacyState | None = None
        self._denied = 0
        self._down: str | None = None
        self._frames = self._bytes = self._deliveries = 0
        self._counts: Counter[str] = Counter()
        self._callbacks: list[tuple[str, Callback]] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"consumer {self.producer.name}")
        self._task.add_done_callback(self._ended)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._inbox.end(None if task.cancelled() else task.exception())

    def __aiter__(self) -> AsyncIterator[Delivery]:
        return self

    def __anext__(self) -> Awaitable[Delivery]:
        return self._inbox.get()

    def on(self, topic: str, callback: Callback) -> None:
        """Have `run` call `callback` for every delivery of `topic`; "*" for all. Coroutine functions are awaited.

        Connected, Disconnected and Lost are of the topics "connected", "disconnected" and "lost".
        """
        self._callbacks.append((topic, callback))

    async def run(self) -> None:
        """Connect and call the callbacks, one delivery at a time, until cancelled.

        Raises as iteration does; what a callback raises ends the run.
        """
        async with self:
            async for delivery in self:
                for topic, callback in self._callbacks:
                    if topic in (delivery.topic, "*"):
                        done = callback(delivery)
                        if done is not None:
                            await done

    def statistics(self) -> Mapping[str, Any]:
        """What was received, buffered and lost so far. `*_bytes` of buffers stand beside their `*_limit_bytes`."""
        receiver = self._receiver
        return {
            "producer": self.producer.name,
            "wire": self._worked.value if self._worked is not None else None,
            "connected": self._down is None and receiver is not None,
            "frames": self._frames,
            "bytes": self._bytes,
            "deliveries": self._deliveries,
            **self._counts,
            **(receiver.statistics() if receiver is not None else {}),
            **self._inbox.statistics(),
            "data": self.data.book(self.producer.name).statistics(),
        }

    # --- the task

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connected_at = None
            cap = CAP_S
            try:
                connection, wire = await self._open()
                connected_at = loop.time()
                self._backoff.connected(connected_at)
                await self._hold(connection, wire)
            except ConnectionFailed as error:
                failure: ConsumerError = error
                cap = CAP_S if connected_at is not None else self._settings.sleep_time
            except Unauthorized as error:
                failure = self._denial(error, connected_at, loop.time())
                if not self._counts["connections"]:
                    # A wrong token is told once, by the error that the second try ends with.
                    await self._sleep(self._backoff.failed(loop.time(), cap_s=cap))
                    continue
            asked = failure.retry_after_s if isinstance(failure, ConnectionFailed) else None
            self._tell_down(failure)
            await self._sleep(self._backoff.failed(loop.time(), cap_s=cap, asked_s=asked))

    async def _open(self) -> tuple[Connection, Wire]:
        """A connection on the wire that the peer speaks."""
        wires = [self._worked] if self._worked is not None else self._offers()
        for wire in wires:
            last = wire is wires[-1]
            self._counts["connects"] += 1
            try:
                connection = await self._dial(self._endpoint, wire, self._settings.message_size_bytes)
            except (Unauthorized, HubRefused):
                if last:
                    raise
                continue
            if wire is Wire.FREQTRADE or connection.subprotocol == wire.value:
                self._worked = wire
                return connection, wire
            await connection.close()
            if last:
                raise HubRefused(f"{self._endpoint}: does not speak {wire.value}")
        raise AssertionError("no wires")

    def _offers(self) -> list[Wire]:
        v2 = _V2[self.producer.encoding]
        return {"auto": [v2, Wire.FREQTRADE], "v2": [v2], "freqtrade": [Wire.FREQTRADE]}[
            self.producer.protocol
        ]

    async def _hold(self, connection: Connection, wire: Wire) -> None:
        """Serve one connection until it ends, and judge its end."""
        receiver = self._receiver = self._receiver_of(wire)
        try:
            await self._serve(connection, wire, receiver)
        except Closed as closed:
            raise self._judged(closed, wire, receiver) from None
        finally:
            receiver.lost()
            await connection.close()

    def _receiver_of(self, wire: Wire) -> HubState | LegacyState:
        legacy = wire is Wire.FREQTRADE
        if legacy not in self._receivers:
            self._receivers[legacy] = self._legacy_state() if legacy else self._hub_state(wire)
        return self._receivers[legacy]

    def _legacy_state(self) -> LegacyState:
        limit = self._settings.initial_candle_limit
        return LegacyState(
            self.producer.name,
            self.data.book(self.producer.name),
            topics=self._topics,
            limit=DEFAULT_CANDLE_LIMIT if limit is None else limit,
        )

    def _hub_state(self, wire: Wire) -> HubState:
        bots = self.producer.bots
        return HubState(
            self.producer.name,
            self.data.book(self.producer.name, bots if isinstance(bots, list) else ()),
            _want(self.producer, self._topics, self._settings.initial_candle_limit),
            wire="json" if wire is Wire.JSON else "msgpack",
            max_message=self._settings.message_size_bytes,
            start=self._known,
        )

    async def _serve(self, connection: Connection, wire: Wire, receiver: HubState | LegacyState) -> None:
        loop = asyncio.get_running_loop()
        settings = self._settings
        keepalive = Keepalive(
            connection, self._endpoint, wait_s=settings.wait_timeout, ping_s=settings.ping_timeout
        )
        await self._do(receiver.start(loop.time()), 0, keepalive, wire)
        while True:
            due = receiver.deadline
            heartbeat_s = receiver.heartbeat_s if isinstance(receiver, HubState) else None
            payload = await keepalive.receive(due, heartbeat_s=heartbeat_s)
            if payload is not None:
                await self._receive(payload, keepalive, wire, receiver)
            if due is not None and loop.time() >= due:
                await self._do(receiver.tick(loop.time()), 0, keepalive, wire)

    async def _receive(
        self, payload: str | bytes, keepalive: Keepalive, wire: Wire, receiver: HubState | LegacyState
    ) -> None:
        """A frame, and what came with it; who reads the deliveries is to have a turn too."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for left in range(FRAMES_A_TURN, 0, -1):
            step = self._take(payload, wire, receiver, now)
            if step is not None:
                await self._do(step, len(payload), keepalive, wire)
                now = loop.time()
            following = keepalive.connection.ready() if left > 1 else None
            if following is None:
                break
            payload = following
        if left == 1:
            await asyncio.sleep(0)

    def _take(
        self, payload: str | bytes, wire: Wire, receiver: HubState | LegacyState, now: float
    ) -> Step | None:
        """Receive a frame, and deliver what came of it; the step that is still to be done, where it needs more than room."""
        size = len(payload)
        self._frames += 1
        self._bytes += size
        try:
            message = CODECS[wire].decode(payload)
        except ProtocolError as error:
            # What it carried is missed by number, where it had one; the connection may be fine.
            self._counts["undecodable"] += 1
            if self._counts["undecodable"] == 1:
                _LOG.warning("%s: a frame cannot be read, skipped: %s", self._endpoint, error)
            return None
        step = receiver.receive(message, size, now)
        if step.requests or step.close is not None or step.refused is not None or self._inbox.full:
            return step
        deliveries = step.deliveries
        for delivery in deliveries:
            if type(delivery.message) in _NOT_PLAIN:
                return step
        for delivery in deliveries:
            self._put(delivery, size)
        return None

    def _put(self, delivery: Delivery, size: int) -> None:
        self._inbox.put(delivery, weight(delivery, size))
        self._deliveries += 1

    async def _do(self, step: Step, size: int, keepalive: Keepalive, wire: Wire) -> None:
        """What a receiver wants done. Deliveries are made also when the connection is gone."""
        failed: ConnectionFailed | None = None
        codec = CODECS[wire]
        try:
            for request in step.requests:
                await keepalive.send(codec.encode(request), text=codec.text)
        except ConnectionFailed as error:
            failed = error
        for delivery in step.deliveries:
            if isinstance(delivery.message, Advanced | Repeated) and not self._advances:
                continue
            await self._deliver(delivery, size, keepalive.connection)
        if step.refused is not None:
            raise step.refused
        if failed is not None:
            raise failed
        if step.close is not None:
            code, reason = step.close
            await keepalive.connection.close(code, reason)
            raise ConnectionFailed(f"{self._endpoint}: closed with {code}: {reason}")

    async def _deliver(self, delivery: Delivery, size: int, connection: Connection) -> None:
        receiver = self._receiver
        alive_s = receiver.heartbeat_s / 2 if isinstance(receiver, HubState) else 10.0
        while not await self._inbox.room(alive_s):
            # The hub must not take a consumer that is busy for one that is dead.
            try:
                await connection.pong()
            except Closed:
                await asyncio.sleep(alive_s)
        if delivery.topic == "connected":
            self._down = None
            self._counts["connections"] += 1
        self._put(delivery, size)

    # --- judging an end

    def _judged(self, closed: Closed, wire: Wire, receiver: HubState | LegacyState) -> ConsumerError:
        limit = f"message_size_limit ({self._settings.message_size_limit:g} MiB)"
        if closed.local and closed.code == 1009:
            if isinstance(receiver, HubState) or not receiver.shrink():
                return TooBig(f"{self._endpoint}: a message is over {limit}; raise it")
            candles = receiver.statistics()["candle_limit"]
            return ConnectionFailed(
                f"{self._endpoint}: a frame is over {limit}; asking for {candles} candles next time"
            )
        asked = retry_after_in(closed.reason)
        if asked is None and isinstance(receiver, HubState):
            asked = receiver.reconnect_after_s
        failed = ConnectionFailed(f"{self._endpoint}: {closed}", retry_after_s=asked)
        # freqtrade closes with 1000 for anything; a code of ours means the same on either wire.
        if closed.local or (wire is Wire.FREQTRADE and closed.code < 4000):
            return failed
        action = action_for(closed.code)
        if action is CloseAction.STOP:
            return HubRefused(f"{self._endpoint}: {closed}")
        return Unauthorized(f"{self._endpoint}: {closed}") if action is CloseAction.REAUTHENTICATE else failed

    def _denial(self, error: Unauthorized, connected_at: float | None, now: float) -> Unauthorized:
        """The token was refused: once may be a restart or a rotation, twice is not."""
        if connected_at is not None and now - connected_at >= HEALTHY_S:
            self._denied = 0
        self._denied += 1
        self._worked = None
        if self._denied > 1:
            raise error
        return error

    def _tell_down(self, failure: ConsumerError) -> None:
        """Deliver Disconnected once per outage and reason."""
        self._counts["failures"] += 1
        reason = str(failure)
        if reason != self._down:
            self._down = reason
            _LOG.info("%s", reason)
            message = Disconnected(producer=self.producer.name, reason=reason)
            delivery = Delivery(
                producer=self.producer.name, bot=self.producer.name, topic="disconnected", message=message
            )
            self._inbox.put(delivery, weight(delivery, len(reason)))


class Consumer:
    """All producers of a configuration as one async iterator of deliveries, in order of arrival.

    `data` holds what all of them sent. `topics` replaces every producer's; `positions` are by producer's name, and as `Client`
    has them, like `advances`. One producer that refuses for good ends the iteration with its error, as `Client` does: a consumer
    that trades without one of its producers would be a surprise.
    """

    def __init__(
        self,
        settings: ConsumerConfig,
        *,
        topics: Iterable[str] | None = None,
        positions: Mapping[str, Known | Position] | None = None,
        inbox: Inbox | None = None,
        **client_options: Any,
    ) -> None:
        self.data = ProducerData.of(settings)
        self._inbox = inbox if inbox is not None else Inbox()
        wanted = list(topics) if topics is not None else None
        self._clients = [
            Client(
                producer,
                settings,
                data=self.data,
                topics=wanted,
                position=(positions or {}).get(producer.name),
                inbox=self._inbox,
                **client_options,
            )
            for producer in settings.producers
        ]
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for client in self._clients:
            await self._stack.enter_async_context(client)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def __aiter__(self) -> AsyncIterator[Delivery]:
        return self

    async def __anext__(self) -> Delivery:
        return await self._inbox.get()

    def statistics(self) -> Mapping[str, Any]:
        """Per producer, as `Client.statistics`."""
        return {client.producer.name: client.statistics() for client in self._clients}


def _topics(producer: ProducerConfig, topics: Iterable[str] | None) -> frozenset[str]:
    if topics is not None:
        return frozenset(topics)
    return TOPICS | HUB_TOPICS if producer.topics == "*" else frozenset(producer.topics)


def _want(producer: ProducerConfig, topics: frozenset[str], limit: int | None) -> list[dict[str, Any]]:
    """The subscription: dataframes in an item of their own, since only they have columns and rows."""
    plain = sorted(topics - {"analyzed_df"})
    want: list[dict[str, Any]] = []
    if plain:
        want.append({"topics": plain, "bots": producer.bots})
    if "analyzed_df" in topics:
        frames: dict[str, Any] = {
            "topics": ["analyzed_df"],
            "bots": producer.bots,
            "columns": producer.columns,
        }
        if limit is not None:
            # A subscription has a snapshot of at least one row.
            frames["rows"] = max(1, limit)
        want.append(frames)
    return want
