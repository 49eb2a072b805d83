"""The uvicorn websocket class that writes prepared frames straight to the transport.

Theory of operation
-------------------
uvicorn makes one `PreparedWebSocketProtocol` per websocket (`Config(ws=...)`, see hub.asgi.serving). It is uvicorn's sans-I/O
class with five things of our own:

1. An outlet in the ASGI scope (`scope["extensions"]["tradewire.outlet"]`): a write is one `transport.write` of bytes that all
   clients of a group share; no ASGI message, no task, no copy (0.16 µs against 2.1 µs for an ASGI send).
2. A way to the end that always ends. Whoever closes, the Close frame goes out behind what was written, the peer's bytes are
   still read (so that the kernel answers with FIN and not with RST, which would destroy the Close frame on its way), and
   after CLOSE_TIMEOUT_S the transport is aborted: `transport.close()` alone waits for ever on a peer that does not read.
3. A budget for reading. One read may bring READ_BYTES, that is 10 922 empty frames; they are parsed in pieces of
   PIECE_BYTES until a turn of the loop has handled FRAMES_PER_TURN, so that a client that floods slows itself only. All reads
   of a thread go into one buffer: asyncio's own way allocates 256 KiB for each, new pages from the kernel that cost 10 µs.
4. Keepalive by silence: a Ping when nothing was received for `ws_ping_interval`, Close 4512 when neither anything came nor the
   peer took anything for a further `ws_ping_timeout` (hub.asgi.keepalive).
5. Quiet logs: no query string (legacy tokens are in it), no ERROR for a refusal, no traceback for a client's fault.

Invariants
----------
- `_Outlet.open` is true from the upgrade until the first of: Close sent, Close received, a parser failure, the transport lost.
  Only while it is true do bytes go to the transport, Pongs included.
- While messages of one turn wait in `queue` nothing more is parsed, and reading is paused as soon as more arrives. So `queue`
  holds at most what one read brought and the message that it completed, and `_unread` one read; `unread_bytes` counts both.
  Where messages are inflated, it is what two pieces brought: two of the largest messages.
- Before the upgrade nothing is parsed but the request, and `_unread` waits.
- A Pong that cannot be written now is kept until it can, the newest only (RFC 6455 section 5.5.3 allows it).
- From the first Close on `close_timer` is set: that is also how uvicorn's `run_asgi` knows to leave the transport alone.

Sources: RFC 6455 sections 5 and 7; uvicorn 0.52.1-0.54 `websockets_sansio_impl`, whose attributes `check_uvicorn` verifies.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from asyncio.transports import BaseTransport
from collections.abc import Iterator
from typing import Any, cast

import uvicorn
from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State

from hub.asgi.deflate import SharedDeflate
from hub.asgi.incoming import Incoming
from hub.asgi.keepalive import Keepalive, Verdict
from hub.asgi.outlet import (
    CLOSE_TIMEOUT_S,
    EXTENSION,
    close_reason,
)
from hub.asgi.prepared_http import waiting_of
from hub.asgi.progress import Progress
from hub.fan_out import FanOut, OutletListener
from hub.gate import Gate
from hub.protocol.close_codes import CloseCode
from hub.protocol.errors import ConfigError

__all__ = ["PreparedWebSocketProtocol", "check_uvicorn"]

READ_BYTES = 64 * 1024
PIECE_BYTES = 1024
# The next piece after one that completed no frame: the inside of a large message costs no more turns and few calls.
LARGE_PIECE_BYTES = 8 * 1024
FRAMES_PER_TURN = 64
FRAGMENTS_PER_MESSAGE = 64
# The kernel doubles it for its own book-keeping; unbounded, it holds up to 4 MB per slow client, unseen in our memory.
SEND_BUFFER_BYTES = 128 * 1024
HANDSHAKE_TIMEOUT_S = 10.0
SHUTDOWN_GRACE_S = 1.0
ABSENT_GRACE_S = 1.0
RETRY_AFTER_S = 5
_PING = b"\x89\x00"

logger = logging.getLogger("tradewire.asgi")
# The parser would log requests with their query and headers at DEBUG, and each connection twice at INFO.
_parser_logger = logging.getLogger("tradewire.asgi.parser")
_parser_logger.setLevel(logging.ERROR)


class _ReadBuffer(threading.local):
    """What a read of this thread goes into; a turn of the loop takes it before the next read."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ_BYTES))


_read_buffer = _ReadBuffer()


class _Outlet:
    """The outlet of one websocket (hub.asgi.outlet.EdgeOutlet). Its state is its protocol's.

    `descriptor` is that of a plain socket, and -1 where bytes must go through the transport: of TLS, or of another loop.
    """

    __slots__ = (
        "_direct",
        "_fan_out",
        "_listener",
        "_lost",
        "_protocol",
        "_transport",
        "descriptor",
        "open",
        "paused",
    )

    def __init__(
        self, protocol: PreparedWebSocketProtocol, transport: asyncio.Transport, descriptor: int
    ) -> None:
        self._protocol = protocol
        self._transport = transport
        self._listener: OutletListener | None = None
        self._lost = False
        self._fan_out: FanOut | None = None
        self._direct = False
        self.descriptor = descriptor
        self.open = False
        self.paused = False

    def write(self, data: bytes) -> bool:
        if not self.open or self._transport.is_closing():
            return False
        self._transport.write(data)
        return not self.paused

    @property
    def writable(self) -> bool:
        return self.open and not self.paused

    @property
    def closed(self) -> bool:
        return not self.open

    @property
    def unsent_bytes(self) -> int:
        return self._transport.get_write_buffer_size()

    @property
    def deflates(self) -> bool:
        return bool(self._protocol.conn.extensions)

    @property
    def moves(self) -> int:
        return self._protocol.progress.look().moves

    @property
    def unread_bytes(self) -> int:
        return self._protocol.unread_bytes

    def close(self, code: int, reason: str) -> None:
        if self.open:
            self._protocol.close_with(code, reason)

    def set_listener(self, listener: OutletListener) -> None:
        self._listener = listener
        if self._lost:
            self._protocol.loop.call_soon(listener.on_lost)

    def set_fan_out(self, fan_out: FanOut | None) -> None:
        self._go_indirect()
        self._fan_out = fan_out
        self._go_direct()

    def _go_direct(self) -> None:
        if self._fan_out is not None and self.writable and self.descriptor >= 0 and not self._direct:
            self._direct = True
            self._fan_out.direct(self, self.descriptor)

    def _go_indirect(self) -> None:
        if self._fan_out is not None and self._direct:
            self._direct = False
            self._fan_out.indirect(self.descriptor)

    def expect_messages(self, size: int) -> None:
        # The parser waits for the first frame already, with the limit that it began with.
        conn = self._protocol.conn
        setattr(conn, next(name for name in _LIMIT_NAMES if hasattr(conn, name)), size)

    def running(self) -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()

    def pause(self) -> None:
        """The transport holds something unsent."""
        self.paused = True
        self._go_indirect()

    def drained(self) -> None:
        """The transport holds nothing unsent."""
        self.paused = False
        self._go_direct()
        if self.open and self._listener is not None:
            self._listener.on_writable()

    def shut(self) -> None:
        """Nothing is to be written any more."""
        self.open = False
        self._go_indirect()

    def lose(self) -> None:
        self.shut()
        if self._lost:
            return
        self._lost = True
        if self._listener is not None:
            self._listener.on_lost()


class PreparedWebSocketProtocol(WebSocketsSansIOProtocol, asyncio.BufferedProtocol):
    """A websocket of uvicorn with an outlet; see the module's theory of operation.

    `Config.ws_max_size` bounds a message, unless the outlet's `expect_messages` says more; `ws_ping_interval` and
    `ws_ping_timeout` (seconds) are the keepalive's times.
    """

    _outlet: _Outlet
    _keepalive: Keepalive
    _served: Any
    progress: Progress

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.queue = cast(Any, Incoming())
        self.writable = cast(Any, Gate())
        self.conn.debug = False
        self.conn.available_extensions = [SharedDeflate()] if config.ws_per_message_deflate else []
        self.conn.logger = _parser_logger
        self._waiting = waiting_of(config)
        self._unread = bytearray()
        self._waiting_bytes = 0
        self._turn_due = False
        self._frames_handled = 0
        self._discarding = False
        self._late_pong = b""

    # The transport's side.

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self._waiting.enter(self.transport)
        self._outlet = _Outlet(self, self.transport, _descriptor(self.transport, self.loop))
        # Paused is to mean that something is unsent: the kernel's buffer is the one that a slow client may fill.
        self.transport.set_write_buffer_limits(high=0)
        self.progress = Progress(self.transport)
        interval_s = self.ping_interval or 0.0
        self._keepalive = Keepalive(
            self.progress,
            interval_s=interval_s,
            timeout_s=self.ping_timeout or interval_s,
            now=self.loop.time(),
        )
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.ping_timer = self.loop.call_later(HANDSHAKE_TIMEOUT_S, self._handshake_overdue)

    def connection_lost(self, exc: Exception | None) -> None:
        # First: when this returns, the socket is closed, and its number may be another's.
        self._outlet.shut()
        self._unread.clear()
        self._waiting.leave(self.transport)
        super().connection_lost(exc)
        self._outlet.lose()

    def eof_received(self) -> None:
        # asyncio closes the transport now, which on its own waits for what an absent reader will never take.
        if self._outlet.open:
            self._outlet.lose()
        self._abort_after(CLOSE_TIMEOUT_S)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._outlet.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        # The peer took most of a buffer: it lives, and need not be asked.
        self._keepalive.heard_at = self.loop.time()
        self._write_late_pong()
        self._outlet.drained()

    def shutdown(self) -> None:
        """uvicorn's end of all connections; the node drained before (wire-v2, section 11)."""
        if not self.handshake_complete:
            self._refuse_for_shutdown()
        elif self._outlet.open:
            self.close_with(CloseCode.SERVICE_RESTART, f"retry_after_ms={RETRY_AFTER_S * 1000}")
            self._outlet.lose()
        self.stop_keepalive()
        self._abort_after(SHUTDOWN_GRACE_S)

    # Reading.

    @property
    def unread_bytes(self) -> int:
        """Bytes that were read and that the app has not taken: unparsed, in fragments, or in messages."""
        return len(self._unread) + sum(map(len, self.frames)) + self._waiting_bytes

    def get_buffer(self, sizehint: int) -> memoryview:
        return _read_buffer.view

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(_read_buffer.view[:nbytes])

    def data_received(self, data: bytes | memoryview) -> None:
        self._keepalive.heard_at = self.loop.time()
        if self._discarding:
            return
        self._unread += data
        if not self._turn_due:
            self._turn()

    def _turn(self) -> None:
        """Parse what one turn of the loop may, if the app has taken what the last one brought."""
        self._turn_due = False
        self._frames_handled = 0
        size = PIECE_BYTES
        # Little may be inflated to much, a thousandfold: a piece must not hold many messages.
        large = PIECE_BYTES if self.conn.extensions else LARGE_PIECE_BYTES
        goes = self._takes()
        while (
            goes
            and self._unread
            and self._frames_handled < FRAMES_PER_TURN
            and self._waiting_bytes < READ_BYTES
        ):
            piece = self._unread[:size]
            del self._unread[:size]
            before = self._frames_handled
            self._feed(piece)
            size = large if self._frames_handled == before else PIECE_BYTES
            goes = self._parses()
        self._regulate()

    def _parses(self) -> bool:
        if self._discarding or self.disconnected:
            return False
        return self.handshake_complete or not self.handshake_initiated

    def _takes(self) -> bool:
        return self._parses() and (self.close_sent or self.queue.empty())

    def _feed(self, piece: bytearray) -> None:
        self.conn.receive_data(piece)
        self.handle_events()
        if self._discarding:
            return
        if self.conn.parser_exc is not None:
            self.handle_parser_exception()
        elif self.conn.handshake_exc is not None and not self.handshake_complete:
            self._answer_bad_request()
        else:
            self._answer_pings(self.conn.data_to_send())

    def _regulate(self) -> None:
        """Read from the socket only when all that was read is parsed."""
        if self.disconnected:
            return
        if self._unread and not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()
        elif not self._unread and self.read_paused:
            self.read_paused = False
            self._keepalive.heard_at = self.loop.time()
            self.transport.resume_reading()
        if self._unread and self._takes():
            self._next_turn()

    def _next_turn(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            self.loop.call_soon(self._turn)

    async def receive(self) -> Any:
        message = await self.queue.get()
        if self.queue.empty():
            self._waiting_bytes = 0
            if self._unread:
                # With the next turn and not now: the app would never let the loop run while a client floods.
                self._next_turn()
        return message

    def handle_events(self) -> None:
        for event in self.conn.events_received():
            if self._discarding:
                return
            if isinstance(event, Request):
                self.handle_connect(event)
            elif isinstance(event, Frame):
                self._frames_handled += 1
                self._handle_frame(event)

    def _handle_frame(self, event: Frame) -> None:
        if event.opcode is Opcode.TEXT:
            self.handle_text(event)
        elif event.opcode is Opcode.BINARY:
            self.handle_bytes(event)
        elif event.opcode is Opcode.CONT:
            self.handle_cont(event)
        elif event.opcode is Opcode.CLOSE:
            self.handle_close(event)

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= FRAGMENTS_PER_MESSAGE:
            self._fail(
                CloseCode.MESSAGE_TOO_BIG, f"expected at most {FRAGMENTS_PER_MESSAGE} fragments a message"
            )
            return
        super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        if self.close_sent:
            return
        self._waiting_bytes += len(data)
        if self.curr_msg_data_type == "bytes":
            self.queue.put_nowait({"type": "websocket.receive", "bytes": data})
            return
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            self._fail(CloseCode.INVALID_DATA, f"not valid UTF-8 at byte {error.start}")
            return
        self.queue.put_nowait({"type": "websocket.receive", "text": text})

    def _answer_pings(self, pongs: list[bytes]) -> None:
        if not pongs or not self._outlet.open:
            return
        if self._outlet.paused:
            self._late_pong = pongs[-1]
        else:
            self.transport.write(b"".join(pongs))

    def _write_late_pong(self) -> None:
        pong, self._late_pong = self._late_pong, b""
        if pong and self._outlet.open and not self.transport.is_closing():
            self.transport.write(pong)

    # The handshake.

    async def run_asgi(self) -> None:
        app = self.app
        self._served = scope = self.scope
        scope["extensions"] = {**(scope["extensions"] or {}), EXTENSION: cast(Any, self._outlet)}
        # uvicorn logs self.scope's path with its query string, and legacy tokens are there.
        self.scope = cast(Any, {**scope, "query_string": b""})
        self._app_scope = scope

        async def run(_scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            except asyncio.CancelledError:
                # uvicorn cancels what outlives its shutdown, and would log a traceback for it.
                self.transport.abort()

        self.app = run
        await super().run_asgi()
        if not self.disconnected and self.close_timer is None:
            self._abort_after(CLOSE_TIMEOUT_S)

    async def send(self, message: Any) -> None:
        if self._ended():
            raise ClientDisconnected
        was_open = self._outlet.open
        await super().send(message)
        if message["type"] == "websocket.accept":
            self._opened()
        elif self._ended():
            # A refusal over HTTP is a complete handshake too: else uvicorn logs an ERROR for each.
            self.handshake_complete = True
            self._outlet.shut()
            self._abort_after(CLOSE_TIMEOUT_S)
            if was_open:
                self._regulate()

    def _opened(self) -> None:
        if not self.handshake_complete or self.disconnected:
            # The peer left meanwhile. To uvicorn an app that ends before a handshake is in error.
            self.handshake_complete = True
            raise ClientDisconnected
        self._outlet.open = True
        self._waiting.leave(self.transport)
        self._forget_handshake()
        self._next_turn()

    def _forget_handshake(self) -> None:
        """Nobody asks for the request's headers any more: 8 KB of an idle connection's 28."""
        # The parser, which runs on from its handshake, has the request too.
        self.request.headers.clear()
        for scope in (self._app_scope, self.scope):
            scope["headers"] = []
        self.request = self.response = cast(Any, None)

    def _ended(self) -> bool:
        return self.close_sent

    def _handshake_overdue(self) -> None:
        self.ping_timer = None
        self.transport.abort()

    def _answer_bad_request(self) -> None:
        answer = b"".join(self.conn.data_to_send()) or _plain_response(
            "400 Bad Request", "not a websocket handshake: expected a GET request without a body"
        )
        self._answer_http(answer)

    def _refuse_for_shutdown(self) -> None:
        if self.initial_response is None:
            self._answer_http(
                _plain_response(
                    "503 Service Unavailable", "the hub is shutting down", retry_after=RETRY_AFTER_S
                )
            )

    def _answer_http(self, response: bytes) -> None:
        self.handshake_complete = True
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})
        self.transport.write(response)
        self._linger()

    # The end.

    def close_with(self, code: int, reason: str) -> None:
        """Send Close behind what was written and wait for the peer's, at most CLOSE_TIMEOUT_S. Does nothing twice."""
        if not self._outlet.open:
            return
        self._outlet.shut()
        self.stop_keepalive()
        if self.conn.state is State.OPEN and not self.transport.is_closing():
            self.conn.send_close(int(code), close_reason(reason))
            self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._disconnect_app(int(code), reason)
        self._abort_after(CLOSE_TIMEOUT_S)
        self._regulate()

    def _disconnect_app(self, code: int, reason: str) -> None:
        # What the client sent before the hub closed is not acted on after it.
        while not self.queue.empty():
            self.queue.get_nowait()
        self._waiting_bytes = 0
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})

    def handle_close(self, event: Frame) -> None:
        super().handle_close(event)
        self.stop_keepalive()
        self._outlet.lose()
        self._abort_after(CLOSE_TIMEOUT_S)

    def _fail(self, code: CloseCode, reason: str) -> None:
        self.conn.fail(int(code), reason)
        self.handle_parser_exception()

    def handle_parser_exception(self) -> None:
        """The peer broke a rule of RFC 6455: its Close is on its way out; what it still sends is thrown away."""
        close = self.conn.close_sent
        output = b"".join(self.conn.data_to_send())
        if self._outlet.open and not self.transport.is_closing():
            self.transport.write(output)
        code, reason = (close.code, close.reason) if close is not None else (1006, "")
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.close_sent = True
        self.stop_keepalive()
        self._linger()
        self._outlet.lose()

    def _linger(self) -> None:
        self._discarding = True
        self._unread.clear()
        self.frames = []
        self._outlet.shut()
        self._abort_after(CLOSE_TIMEOUT_S)
        if self.transport.is_closing():
            return
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        try:
            self.transport.write_eof()
        except OSError:
            # The peer has reset the connection, which the loop has not seen yet.
            self.transport.abort()
        else:
            self._regulate()

    def _abort_after(self, seconds: float) -> None:
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.close_timer = None if self.disconnected else self.loop.call_later(seconds, self.transport.abort)

    # Keepalive.

    def start_keepalive(self) -> None:
        self.stop_keepalive()
        self._keepalive.heard_at = self.loop.time()
        if self.ping_interval:
            self.ping_timer = self.loop.call_later(self.ping_interval, self._check_silence)

    def _check_silence(self) -> None:
        self.ping_timer = None
        if not self._outlet.open:
            return
        verdict, again_s = self._keepalive.judge(self.loop.time(), deaf=self.read_paused)
        if verdict is Verdict.GONE:
            self._give_up()
            return
        if verdict is Verdict.PING:
            self.transport.write(_PING)
        self.ping_timer = self.loop.call_later(again_s, self._check_silence)

    def _client(self) -> str:
        # A trusted proxy's word for it is in the scope that the app was called with.
        client = self._served["client"]
        return f"{client[0]}:{client[1]}" if client else "unknown"

    def _give_up(self) -> None:
        logger.info("closed %s with %d: no pong in time", self._client(), CloseCode.NO_PONG)
        self.close_with(CloseCode.NO_PONG, "no pong in time")
        self._outlet.lose()
        # Who answered no Ping will answer no Close either.
        self._abort_after(ABSENT_GRACE_S)


def _descriptor(transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> int:
    """Of a socket that may be written to beside its transport, when that holds nothing unsent; else -1.

    TLS has a state of its own there, and loops in C (uvloop) hold bytes back that they do not tell of.
    """
    sock = transport.get_extra_info("socket")
    plain = transport.get_extra_info("sslcontext") is None
    return sock.fileno() if plain and sock is not None and isinstance(loop, asyncio.SelectorEventLoop) else -1


def _plain_response(status: str, text: str, *, retry_after: int | None = None) -> bytes:
    body = f"{text}\n".encode()
    extra = "" if retry_after is None else f"Retry-After: {retry_after}\r\n"
    head = (
        f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\n{extra}\r\n"
    )
    return head.encode() + body


# What a protocol of uvicorn and a parser of websockets must have, checked on instances.
_PROTOCOL_NAMES = """
    app close_sent close_timer conn connection_lost connection_made curr_msg_data_type disconnected eof_received frames
    handle_bytes handle_close handle_cont handle_connect handle_events handle_parser_exception handle_text
    handshake_complete handshake_initiated initial_response loop pause_writing ping_interval ping_timeout ping_timer
    queue read_paused receive resume_writing run_asgi send send_receive_event_to_app shutdown start_keepalive
    stop_keepalive transport writable
"""
_PARSER_NAMES = """
    available_extensions close_sent data_to_send debug events_received extensions fail handshake_exc logger parser_exc
    receive_data send_close state
"""
# Where the parser keeps the limit of a message: since websockets 16, and before.
_LIMIT_NAMES = ("max_message_size", "max_size")


def check_uvicorn() -> None:
    """Raises ConfigError when the installed uvicorn or websockets lacks something that this module builds on.

    Both are private interfaces of uvicorn; pyproject.toml pins a tested range. Costs about a millisecond; opens nothing.
    """
    missing = list(_missing_names())
    if missing:
        raise ConfigError(
            "",
            f"uvicorn {uvicorn.__version__} does not fit this hub (no {', '.join(missing)}): "
            "install the version that tradewire[hub] asks for",
        )


def _missing_names() -> Iterator[str]:
    config = Config(app=_no_app, lifespan="off", log_config=None, ws=WebSocketsSansIOProtocol, http="h11")
    config.load()
    protocol = WebSocketsSansIOProtocol(config, ServerState(), {}, _loop=cast(Any, object()))
    yield from (name for name in _PROTOCOL_NAMES.split() if not hasattr(protocol, name))
    parser = getattr(protocol, "conn", None)
    yield from (f"conn.{name}" for name in _PARSER_NAMES.split() if not hasattr(parser, name))
    if not any(hasattr(parser, name) for name in _LIMIT_NAMES):
        yield f"conn.{_LIMIT_NAMES[0]}"


async def _no_app(scope: Any, receive: Any, send: Any) -> None:
    """Stands for an application in a configuration that is never served."""
