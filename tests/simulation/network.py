"""The network between clients and a hub: ordered within a connection, and no other promise.

A `Link` is one websocket: two pipes, a client's end (the consumer's `Connection`) and a hub's end (the node's `Outlet`, and the
reader that stands for the websocket edge). A link can be cut: each pipe then loses any suffix of what is under way, and each end
hears of it at its own time, so a hub may still read an old connection of a client that has a new one. It can fall silent for a
while. And, as no network but a broken hub can, it can lose a single message of the ledger.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Protocol

from consumer.connection import Closed, Connection, Dial, Endpoint
from consumer.errors import ConnectionFailed, HandshakeFailed
from consumer.progress import Taken
from hub.core.session import Session
from hub.fan_out import FanOut, OutletListener
from hub.node import Node
from hub.protocol.codec import CODECS, Wire
from hub.protocol.errors import HandshakeRefused, ProtocolError
from hub.protocol.principal import Principal

__all__ = ["Host", "Link", "Network"]

WINDOW_BYTES = 4096
HIGH_WATER_BYTES = 4096
CLOSE_S = 5.0
LATENCIES_S = (0.0005, 0.005, 0.05, 0.3)
PONG = object()
"""A Ping on its way up, and its Pong on the way down."""
LOST = Closed(1006, "the connection was lost", local=False)


class Host(Protocol):
    """Where a hub runs, at times."""

    @property
    def node(self) -> Node | None:
        """The node that can be reached now."""

    def own(self, task: asyncio.Task[None]) -> None:
        """A task of the hub's process; it ends with it."""


def _payloads(data: bytes) -> list[bytes]:
    """What is in the websocket frames that a hub wrote."""
    found = []
    at = 0
    while at < len(data):
        size, head = data[at + 1], 2
        if size == 126:
            size, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
        elif size == 127:
            size, head = int.from_bytes(data[at + 2 : at + 10], "big"), 10
        found.append(data[at + head : at + head + size])
        at += head + size
    assert at == len(data), "the hub wrote half a frame"
    return found


class _Pipe:
    """One direction: what goes in comes out in order, later."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, rng: random.Random, out: Callable[[Any], None]
    ) -> None:
        self._loop, self._rng, self._out = loop, rng, out
        self._under_way: deque[tuple[float, Any]] = deque()
        self._last = 0.0
        self._silent_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.latency_s = rng.choice(LATENCIES_S)

    def send(self, item: Any) -> None:
        if self._closed:
            return
        at = self._loop.time() + self.latency_s * (0.5 + self._rng.random())
        self._last = max(self._last, at)
        self._under_way.append((self._last, item))
        self._arm()

    def end(self, item: Any, after_s: float = 0.0) -> None:
        """The last thing that comes out, not before `after_s`."""
        if not self._closed:
            self._last = max(self._last, self._loop.time() + after_s)
            self.send(item)
            self._closed = True

    def lose_suffix(self) -> None:
        keep = self._rng.randint(0, len(self._under_way))
        while len(self._under_way) > keep:
            self._under_way.pop()

    def silence(self, seconds: float) -> None:
        self._silent_until = max(self._silent_until, self._loop.time() + seconds)

    def drop(self) -> None:
        self._closed = True
        self._under_way.clear()

    def _arm(self) -> None:
        if self._timer is None and self._under_way:
            at = max(self._under_way[0][0], self._silent_until)
            self._timer = self._loop.call_at(at, self._arrived)

    def _arrived(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._under_way and self._under_way[0][0] <= now and self._silent_until <= now:
            self._out(self._under_way.popleft()[1])
        self._arm()


class Link:
    """One websocket of `client` to the node that ran when it was opened."""

    def __init__(self, network: Network, client: str, rng: random.Random, wire: Wire, node: Node) -> None:
        self.client = client
        self.wire = wire
        self.node = node
        self.loop = network.loop
        self._network = network
        self.client_end = ClientEnd(self)
        self.hub_end = HubEnd(self)
        self.down = _Pipe(self.loop, rng, self.client_end.arrived)
        self.up = _Pipe(self.loop, rng, self.hub_end.arrived)
        network.links[self] = None

    def cut(self, client_hears_s: float, hub_hears_s: float) -> None:
        """The connection breaks; each end hears of it by itself."""
        self.hub_end.pump(flush=True)
        self.down.lose_suffix()
        self.up.lose_suffix()
        self.down.end(LOST, client_hears_s)
        self.up.end(None, hub_hears_s)

    def silence(self, seconds: float) -> None:
        """Nothing passes for a while; then all of it does."""
        self.down.silence(seconds)
        self.up.silence(seconds)

    def client_died(self, hub_hears_s: float) -> None:
        """The client's process is gone; what it had sent may still arrive."""
        self.client_end.dead = True
        self.down.drop()
        self.up.lose_suffix()
        self.up.end(None, hub_hears_s)

    def hub_died(self, client_hears_s: float) -> None:
        """The hub's process is gone; what it had sent may still arrive."""
        self.hub_end.dead = True
        self.up.drop()
        self.down.lose_suffix()
        self.down.end(LOST, client_hears_s)
        self.forget()

    def forget(self) -> None:
        """It is over for the hub."""
        self._network.links.pop(self, None)


class ClientEnd:
    """A `Connection`: what the consumer's own code holds."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._came: deque[bytes | Closed] = deque()
        self._some = asyncio.Event()
        self._closed: Closed | None = None
        self.unread_bytes = 0
        self.heard_at = 0.0
        self.dead = False

    @property
    def subprotocol(self) -> str | None:
        return None if self._link.wire is Wire.FREQTRADE else self._link.wire.value

    def taken(self) -> Taken:
        # What a client sends goes into the link at once.
        return Taken(0, 0, 0)

    def arrived(self, item: Any) -> None:
        if not self.dead:
            self.heard_at = self._link.loop.time()
        if item is PONG:
            return
        if isinstance(item, bytes):
            self._link.hub_end.under_way_bytes -= len(item)
        if self._closed is None and not self.dead:
            self._came.append(item)
            if isinstance(item, bytes):
                self.unread_bytes += len(item)
            self._some.set()

    async def receive(self) -> str | bytes:
        while not self._came:
            self._check()
            self._some.clear()
            await self._some.wait()
        item = self._came.popleft()
        if isinstance(item, Closed):
            self._end(item)
            self._link.up.end(None)
            raise item
        return self._read(item)

    def ready(self) -> str | bytes | None:
        if not self._came or isinstance(self._came[0], Closed):
            return None
        item = self._came.popleft()
        assert isinstance(item, bytes)
        return self._read(item)

    def _read(self, item: bytes) -> str | bytes:
        self.unread_bytes -= len(item)
        self._link.hub_end.pump()
        return item.decode() if CODECS[self._link.wire].text else item

    async def send(self, payload: bytes, *, text: bool) -> None:
        self._check()
        if not self.dead:
            self._link.up.send(payload)

    async def ping(self) -> None:
        self._check()
        if not self.dead:
            self._link.up.send(PONG)

    async def pong(self) -> None:
        self._check()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if self._closed is None:
            self._end(Closed(code, reason, local=True))
            if not self.dead:
                self._link.up.end(None)

    def _check(self) -> None:
        if self._closed is not None:
            raise self._closed

    def _end(self, closed: Closed) -> None:
        self._closed = closed
        self._came.clear()
        self.unread_bytes = 0
        self._some.set()


class HubEnd:
    """An `Outlet`, and the reader that hands the node what comes in."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: deque[bytes] = deque()
        self._listener: OutletListener | None = None
        self._came: deque[Any] = deque()
        self._some = asyncio.Event()
        self._full = False
        self._closing = False
        self.unsent_bytes = 0
        self.moves = 0
        self.under_way_bytes = 0
        self.dead = False
        self.skips = 0
        """Messages of the ledger that the hub, being broken, will not send."""

    # --- the outlet

    def write(self, data: bytes) -> bool:
        if self._closing or self.dead:
            return True
        for payload in _payloads(data):
            if self.skips and self._is_ledger(payload):
                self.skips -= 1
                continue
            self._waiting.append(payload)
            self.unsent_bytes += len(payload)
        self.pump()
        self._full = self.unsent_bytes > HIGH_WATER_BYTES
        return not self._full

    def _is_ledger(self, payload: bytes) -> bool:
        codec = CODECS[self._link.wire]
        message = codec.decode(payload.decode() if codec.text else payload)
        return "offset" in message and "bot" in message

    @property
    def writable(self) -> bool:
        return not self._full

    def close(self, code: int, reason: str) -> None:
        if self._closing or self.dead:
            return
        self._closing = True
        self.pump(flush=True)
        self._link.down.end(Closed(int(code), reason, local=False))
        self._link.loop.call_later(CLOSE_S, self.arrived, None)

    def set_fan_out(self, fan_out: FanOut | None) -> None:
        pass

    def set_listener(self, listener: OutletListener) -> None:
        self._listener = listener

    def pump(self, *, flush: bool = False) -> None:
        """Move what waits into the network as far as its window is open."""
        if self.dead:
            return
        client = self._link.client_end
        while self._waiting and (flush or self.under_way_bytes + client.unread_bytes < WINDOW_BYTES):
            payload = self._waiting.popleft()
            self.unsent_bytes -= len(payload)
            self.moves += 1
            self.under_way_bytes += len(payload)
            self._link.down.send(payload)
        if self._full and self.unsent_bytes < HIGH_WATER_BYTES // 4:
            self._full = False
            if self._listener is not None and not self._closing:
                self._link.loop.call_soon(self._listener.on_writable)

    # --- the reader

    def arrived(self, item: Any) -> None:
        if item is PONG:
            if not self.dead:
                self._link.down.send(item)
        elif not self.dead:
            self._came.append(item)
            self._some.set()

    async def serve(self, principal: Principal) -> None:
        """As the websocket edge does: every message to the node, in order, while the node wants more."""
        node = self._link.node
        session = node.connect(principal, self._link.wire, self, client=self._link.client)
        try:
            await self._read(node, session)
        finally:
            if not self.dead:
                node.disconnect(session)
            self._link.forget()

    async def _read(self, node: Node, session: Session) -> None:
        codec = CODECS[self._link.wire]
        while True:
            while not self._came:
                self._some.clear()
                await self._some.wait()
            item = self._came.popleft()
            if item is None:
                return
            try:
                node.receive(session, codec.decode(item.decode() if codec.text else item))
            except ProtocolError as error:
                self.close(error.close_code, str(error))
            await node.readable(session)


class Network:
    """All links. `seed` decides every delay and every loss, each link's by itself."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seed: int, host: Host) -> None:
        self.loop = loop
        self.seed = seed
        self.host = host
        self.links: dict[Link, None] = {}
        self._opened: Counter[str] = Counter()

    def of(self, client: str) -> list[Link]:
        """The links of a client that the hub still has, oldest first."""
        return [link for link in self.links if link.client == client]

    def dialler(self, client: str, principal: Principal) -> Dial:
        """What a client of this name opens its connections with."""

        async def dial(endpoint: Endpoint, wire: Wire, max_size: int) -> Connection:
            self._opened[client] += 1
            rng = random.Random(f"{self.seed}/{client}/{self._opened[client]}")
            await asyncio.sleep(rng.choice(LATENCIES_S))
            node = self.host.node
            if node is None:
                raise ConnectionFailed(f"{endpoint}: connection refused")
            try:
                node.admit(principal)
            except HandshakeRefused as refused:
                raise HandshakeFailed(
                    f"{endpoint}: {refused}", status=refused.status, retry_after_s=refused.retry_after
                ) from None
            link = Link(self, client, rng, wire, node)
            self.host.own(self.loop.create_task(link.hub_end.serve(principal)))
            try:
                await asyncio.sleep(rng.choice(LATENCIES_S))
            except asyncio.CancelledError:
                link.client_died(1.0)
                raise
            return link.client_end

        return dial
