"""A loop with a clock that is moved by hand, a transport that records, and a node and an authenticator that do as told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from anyio.lowlevel import checkpoint
from uvicorn.config import Config
from uvicorn.server import ServerState

from hub.asgi.prepared import PreparedWebSocketProtocol
from hub.asgi.prepared_http import PreparedHTTPProtocol
from hub.protocol.codec import CODECS, Wire, frame
from hub.protocol.errors import HandshakeRefused
from hub.protocol.principal import Principal


class Timer:
    def __init__(self, due: float, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.due = due
        self.callback = callback
        self.args = args
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """What a protocol asks of a loop; tasks run on the real one, time moves by `advance` only."""

    def __init__(self) -> None:
        self.now = 100.0
        self.ready: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> None:
        self.ready.append((callback, args))

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Timer:
        timer = Timer(self.now + delay, callback, args)
        self.timers.append(timer)
        return timer

    def create_task(self, coroutine: Coroutine[Any, Any, Any], **_: Any) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(coroutine)

    def turn(self) -> None:
        """One turn: what is ready now, not what that makes ready."""
        ready, self.ready = self.ready, []
        for callback, args in ready:
            callback(*args)

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while due := [t for t in self.timers if t.due <= until and not t.cancelled]:
            timer = min(due, key=lambda t: t.due)
            self.timers.remove(timer)
            self.now = timer.due
            timer.callback(*timer.args)
        self.now = until

    async def settle(self) -> None:
        """Turns until nothing moves."""
        for _ in range(40):
            self.turn()
            await checkpoint()


class FakeTransport(asyncio.Transport):
    """Records what is written. `hold` bytes stay in its buffer; it tells its protocol as asyncio's does."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.protocol: Any = None
        self.buffered = 0
        self.stuck = False
        self.high = 65536
        self.low = 16384
        self.paused_writing = False
        self.reading = True
        self.closing = False
        self.aborted = False
        self.eof = False
        self.limits: tuple[int | None, int | None] = (None, None)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 50000), "sockname": ("127.0.0.1", 8080)}.get(name, default)

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = (high, low)
        self.high, self.low = high or self.high, low or self.low

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def write(self, data: Any) -> None:
        assert not self.eof, "write after write_eof"
        self.written += data
        if self.stuck:
            self.buffered += len(data)
            if self.buffered > self.high and not self.paused_writing:
                self.paused_writing = True
                self.protocol.pause_writing()

    def drain(self, left: int = 0) -> None:
        """The peer reads until `left` bytes are left."""
        self.buffered = left
        if self.paused_writing and self.buffered <= self.low:
            self.paused_writing = False
            self.protocol.resume_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True
        self.aborted = True


def client_frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A client's frame, masked with zeroes."""
    size = len(payload)
    head = bytes((opcode | (0x80 if fin else 0),))
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 65536:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    return head + length + bytes(4) + payload


def text(payload: str) -> bytes:
    return client_frame(1, payload.encode())


PING, PONG, CLOSE = 9, 10, 8

REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
)


def request(path: str = "/api/v1/message/ws?token=canary-7f31", extra: str = "") -> bytes:
    return REQUEST.format(path=path, extra=extra).encode()


@dataclass
class Peer:
    """One websocket protocol between a test's app and a test's transport."""

    app: Any
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.loop = FakeLoop()
        self.transport = FakeTransport()
        self.state = ServerState()
        config = Config(
            self.app,
            **{
                "http": PreparedHTTPProtocol,
                "ws": PreparedWebSocketProtocol,
                "lifespan": "off",
                "log_config": None,
                "ws_per_message_deflate": False,
                "ws_ping_interval": 20.0,
                "ws_ping_timeout": 10.0,
                "ws_max_size": 1024 * 1024,
                "proxy_headers": False,
                "interface": "asgi3",
                **self.settings,
            },
        )
        config.load()
        self.config = config
        self.protocol = PreparedWebSocketProtocol(config, self.state, {}, _loop=self.loop)  # type: ignore[arg-type]
        self.transport.protocol = self.protocol
        self.protocol.connection_made(self.transport)

    async def send(self, data: bytes) -> None:
        self.protocol.data_received(data)
        await self.loop.settle()

    async def connect(self, path: str = "/api/v1/message/ws?token=canary-7f31", extra: str = "") -> None:
        await self.send(request(path, extra))

    def taken(self) -> bytes:
        """What was written since the last call."""
        data = bytes(self.transport.written)
        self.transport.written.clear()
        return data

    async def lose(self) -> None:
        self.protocol.connection_lost(None)
        await self.loop.settle()


class RecordingListener:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_writable(self) -> None:
        self.calls.append("writable")

    def on_lost(self) -> None:
        self.calls.append("lost")


@dataclass
class Limits:
    message: int = 1024 * 1024
    requests_per_s: int = 50
    heartbeat_ms: int = 15_000
    pong_timeout_ms: int = 10_000


@dataclass
class FakeSession:
    outlet: Any
    wire: Wire
    principal: Principal
    attached: bool = False


class FakeNode:
    """Welcomes, echoes `ping`, and records. `on_receive` does what a test wants."""

    def __init__(self) -> None:
        self.limits = Limits()
        self.draining = False
        self.refusal: HandshakeRefused | None = None
        self.calls: list[str] = []
        self.received: list[dict[str, Any]] = []
        self.outlets: list[Any] = []
        self.clients: list[str] = []
        self.addresses: list[str | None] = []
        self.listener = RecordingListener()
        self.on_receive: Callable[[Any, dict[str, Any]], None] = self.echo
        self.gate: asyncio.Event | None = None
        self.gone = asyncio.Event()
        self.awaited = True

    def awaits(self, session: Any, number: int) -> bool:
        return self.awaited

    def admit(self, principal: Principal) -> None:
        self.calls.append("admit")
        if self.refusal is not None:
            raise self.refusal

    def connect(
        self,
        principal: Principal,
        wire: Wire,
        outlet: Any,
        *,
        client: str,
        address: str | None = None,
        deflates: bool = False,
    ) -> Any:
        self.calls.append("connect")
        self.clients.append(client)
        self.addresses.append(address)
        self.outlets.append(outlet)
        outlet.set_listener(self.listener)
        if wire is not Wire.FREQTRADE:
            outlet.write(encoded(wire, {"type": "hub.welcome", "data": {"protocol": 2}}))
        return FakeSession(outlet, wire, principal)

    def receive(self, session: Any, message: dict[str, Any]) -> None:
        self.received.append(message)
        self.on_receive(session, message)

    def echo(self, session: Any, message: dict[str, Any]) -> None:
        if message["type"] == "ping":
            session.outlet.write(
                encoded(session.wire, {"type": "hub.reply", "id": message.get("id", 0), "ok": True})
            )

    async def readable(self, session: Any) -> None:
        if self.gate is not None:
            await self.gate.wait()

    def disconnect(self, session: Any) -> None:
        self.calls.append("disconnect")
        self.gone.set()


def encoded(wire: Wire, message: dict[str, Any]) -> bytes:
    codec = CODECS[wire]
    return frame(codec.encode(message), text=codec.text)


class FakeAuthenticator:
    def __init__(self) -> None:
        self.refusal: HandshakeRefused | None = None
        self.principal = Principal(name="reader")
        self.asked: list[dict[str, Any]] = []

    def websocket(
        self,
        headers: list[tuple[bytes, bytes]],
        query_string: bytes,
        subprotocols: list[str],
        *,
        v2: bool,
        client: tuple[str, int] | None,
    ) -> Principal:
        self.asked.append(
            {
                "headers": headers,
                "query": query_string,
                "subprotocols": subprotocols,
                "v2": v2,
                "client": client,
            }
        )
        if self.refusal is not None:
            raise self.refusal
        return self.principal


class Lines(logging.Handler):
    """Every record of every logger, formatted."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {self.format(record)}")


class AsgiSocket:
    """A client of an ASGI application on a server that offers nothing of ours."""

    def __init__(self, app: Any, path: str, subprotocols: list[str] | None = None) -> None:
        self.scope = {
            "type": "websocket",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [],
            "subprotocols": subprotocols or [],
            "client": ("127.0.0.1", 5),
            "extensions": {"websocket.http.response": {}},
        }
        self._app = app
        self._in: asyncio.Queue[Any] = asyncio.Queue()
        self._out: asyncio.Queue[Any] = asyncio.Queue()

    async def __aenter__(self) -> AsgiSocket:
        self._in.put_nowait({"type": "websocket.connect"})
        self._task = asyncio.create_task(self._app(self.scope, self._in.get, self._put))
        return self

    async def _put(self, message: Any) -> None:
        self._out.put_nowait(message)
        if message["type"] == "websocket.close":
            self._in.put_nowait({"type": "websocket.disconnect", "code": message["code"]})

    async def __aexit__(self, *_: object) -> None:
        self._in.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await self._task

    def send(self, **payload: Any) -> None:
        self._in.put_nowait({"type": "websocket.receive", **payload})

    async def take(self) -> Any:
        """The next message of the application."""
        return await self._out.get()

    async def ended(self) -> None:
        """Until the application returns by itself."""
        await asyncio.shield(self._task)
