"""A v2 connection to a hub that is kept up: dialled, greeted, served, judged at its end, and dialled again with backoff.

What the publisher and the attachment share. Source: docs/wire-protocol.md, Start, Keepalive and close codes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from consumer.backoff import CAP_S, HEALTHY_S, Backoff
from consumer.connection import Closed, Connection, Dial, Endpoint, Keepalive, retry_after_in
from consumer.errors import ConnectionFailed, ConsumerError, HubRefused, Replaced, Unauthorized
from hub.protocol.close_codes import CloseAction, CloseCode, action_for
from hub.protocol.codec import CODECS, Wire
from hub.protocol.errors import ProtocolError

__all__ = ["MESSAGE_BYTES", "HubConnection", "Serve", "Sleep", "Uplink"]

_LOG = logging.getLogger(__name__)

WAIT_S, PING_S = 15.0, 10.0
MESSAGE_BYTES = 1024 * 1024

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class HubConnection:
    """One connection past its welcome. `limits` and `features` are the hub's."""

    endpoint: Endpoint
    wire: Wire
    limits: Mapping[str, int]
    features: frozenset[str]
    _connection: Connection
    _keepalive: Keepalive
    _heartbeat_s: float | None

    async def send(self, payload: bytes) -> None:
        """Send one frame of this wire; waits while the hub does not read.

        Raises:
            Closed: the connection ended.
        """
        await self._connection.send(payload, text=CODECS[self.wire].text)

    async def receive(self) -> dict[str, Any]:
        """The next message. May be cancelled without a loss.

        Raises:
            ConnectionFailed: the connection ended, or a frame cannot be read: an answer may be lost in it, so only a new
                connection finds out.
        """
        while (payload := await self._keepalive.receive(heartbeat_s=self._heartbeat_s)) is None:
            pass
        return _decoded(self.endpoint, self.wire, payload)


Serve = Callable[[HubConnection], Awaitable[None]]
"""Uses one connection until it ends; what it raises judges the end."""


class Uplink:
    """Keeps one connection to a hub up. `client` names this side in `hello`; `max_message` is what it takes, in bytes.

    `counts` has `connections` and `failures` since the start.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        wire: Wire,
        *,
        client: str,
        dial: Dial,
        sleep: Sleep,
        random: Callable[[], float],
        max_message: int = MESSAGE_BYTES,
    ) -> None:
        self.endpoint = endpoint
        self.wire = wire
        self.counts = Counter(connections=0, failures=0)
        self._max_message = max_message
        self._hello = {"client": client[:64], "max_message": max_message, "features": []}
        self._dial, self._sleep = dial, sleep
        self._backoff = Backoff(random)
        self._denied = 0
        self._down: str | None = None

    async def run(self, serve: Serve) -> NoReturn:
        """Connect, serve and connect again, until cancelled.

        Raises:
            Unauthorized: the token is refused, also at a second try. Replaced: a newer attachment took this one's place.
            HubRefused: not a hub that speaks this protocol, or it refuses for good. ConfigError: the address cannot be used.
        """
        loop = asyncio.get_running_loop()
        while True:
            connected_at = None
            try:
                connection = await self._open()
                connected_at = loop.time()
                self._backoff.connected(connected_at)
                await self._hold(connection, serve)
            except ConnectionFailed as error:
                failure: ConsumerError = error
            except Unauthorized as error:
                if connected_at is not None and loop.time() - connected_at >= HEALTHY_S:
                    self._denied = 0
                self._denied += 1
                if self._denied > 1:
                    raise
                failure = error
            self.counts["failures"] += 1
            if str(failure) != self._down:
                self._down = str(failure)
                _LOG.info("%s", failure)
            asked = failure.retry_after_s if isinstance(failure, ConnectionFailed) else None
            await self._sleep(self._backoff.failed(loop.time(), cap_s=CAP_S, asked_s=asked))

    async def _open(self) -> Connection:
        connection = await self._dial(self.endpoint, self.wire, self._max_message)
        if connection.subprotocol != self.wire.value:
            await connection.close()
            raise HubRefused(f"{self.endpoint}: does not speak {self.wire.value}")
        return connection

    async def _hold(self, connection: Connection, serve: Serve) -> None:
        try:
            hub = await self._welcomed(connection)
            self._down = None
            self.counts["connections"] += 1
            await serve(hub)
        except Closed as closed:
            raise self._judged(closed) from None
        finally:
            await connection.close()
        raise ConnectionFailed(f"{self.endpoint}: the connection ended")

    async def _welcomed(self, connection: Connection) -> HubConnection:
        """Say hello and wait for the hub's limits; it speaks first."""
        keepalive = Keepalive(connection, self.endpoint, wait_s=WAIT_S, ping_s=PING_S)
        codec = CODECS[self.wire]
        await connection.send(codec.encode({"type": "hello", "data": self._hello}), text=codec.text)
        payload = await keepalive.receive(asyncio.get_running_loop().time() + WAIT_S)
        message = None if payload is None else _decoded(self.endpoint, self.wire, payload)
        if message is None or message["type"] != "hub.welcome":
            raise ConnectionFailed(f"{self.endpoint}: no hub.welcome came")
        data = message.get("data")
        data = data if isinstance(data, dict) else {}
        limits, features = data.get("limits"), data.get("features")
        heartbeat_ms = data.get("heartbeat_ms")
        return HubConnection(
            self.endpoint,
            self.wire,
            {k: v for k, v in limits.items() if type(v) is int and v > 0} if isinstance(limits, dict) else {},
            frozenset(f for f in features if isinstance(f, str))
            if isinstance(features, list)
            else frozenset(),
            connection,
            keepalive,
            heartbeat_ms / 1000 if type(heartbeat_ms) is int and heartbeat_ms > 0 else None,
        )

    def _judged(self, closed: Closed) -> ConsumerError:
        action = CloseAction.RETRY if closed.local else action_for(closed.code)
        if closed.code == CloseCode.REPLACED and not closed.local:
            return Replaced(f"{self.endpoint}: {closed.reason or closed}")
        if action is CloseAction.STOP:
            return HubRefused(f"{self.endpoint}: {closed}")
        if action is CloseAction.REAUTHENTICATE:
            return Unauthorized(f"{self.endpoint}: {closed}")
        return ConnectionFailed(f"{self.endpoint}: {closed}", retry_after_s=retry_after_in(closed.reason))


def _decoded(endpoint: Endpoint, wire: Wire, payload: str | bytes) -> dict[str, Any]:
    try:
        return CODECS[wire].decode(payload)
    except ProtocolError as error:
        raise ConnectionFailed(f"{endpoint}: a frame cannot be read: {error}") from None
