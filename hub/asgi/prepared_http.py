"""The uvicorn HTTP class in front of both the websockets and the REST mount: bounded in time and size.

uvicorn has no time limit for a request's headers or body (measured: 300 of 300 half handshakes were still held after 35 s),
h11 takes ten thousand headers and answers a request with both Content-Length and Transfer-Encoding (RFC 9112 section 6.3
lets a server refuse it, since two parsers in a row may disagree where it ends). This class, named in `Config(http=...)`,
drops the slow and refuses the others with 400. Who does not read its answer is dropped as well (hub.asgi.unsent). Access lines
leave the query string out.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from hub.asgi.descriptors import MAX_WAITING, Waiting
from hub.asgi.unsent import PIECE_BYTES, STALL_S, Unsent

__all__ = ["HEADER_BYTES", "PreparedHTTPProtocol", "waiting_of"]

HEADER_BYTES = 16 * 1024
HEADER_COUNT = 100
HEADER_TIMEOUT_S = 10.0
BODY_TIMEOUT_S = 30.0
_ENDS = b'{"detail":"The hub is shutting down."}'


class _StrictConnection(h11.Connection):
    """h11's server side with bounds on a request's head."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=HEADER_BYTES)

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            _check_head(event)
        return event


def _check_head(request: h11.Request) -> None:
    names = {name for name, _ in request.headers}
    if len(request.headers) > HEADER_COUNT:
        raise h11.RemoteProtocolError(f"expected at most {HEADER_COUNT} headers")
    if len(request.target) + sum(len(name) + len(value) for name, value in request.headers) > HEADER_BYTES:
        raise h11.RemoteProtocolError(f"expected at most {HEADER_BYTES} bytes of headers")
    if b"content-length" in names and b"transfer-encoding" in names:
        raise h11.RemoteProtocolError("expected Content-Length or Transfer-Encoding, got both")


def waiting_of(config: Config) -> Waiting:
    """The sockets that wait at the server of this configuration (hub.asgi.serving sets it)."""
    waiting = getattr(config, "waiting", None)
    return waiting if isinstance(waiting, Waiting) else Waiting(MAX_WAITING)


def _unsent_of(config: Config) -> Unsent:
    """The answers under way at the server of this configuration (hub.asgi.serving sets it)."""
    unsent = getattr(config, "unsent", None)
    return unsent if isinstance(unsent, Unsent) else Unsent()


class _WithoutQuery(logging.LoggerAdapter[logging.Logger]):
    """Access lines whose path ends before the query string, in which legacy tokens and tickets are."""

    def info(self, msg: object, *args: object, **kwargs: Any) -> None:
        client, method, path, *rest = args
        self.logger.info(msg, client, method, str(path).partition("?")[0], *rest)


class PreparedHTTPProtocol(H11Protocol):
    """One HTTP connection of uvicorn.

    Guarantees: a request's headers are complete HEADER_TIMEOUT_S after their first byte (after the connect, for the first)
    and its body BODY_TIMEOUT_S later, or the connection is aborted; at most HEADER_COUNT headers and HEADER_BYTES of them. A
    client that does not take PIECE_BYTES of its answer in STALL_S is aborted, and so is one that leaves the end of it.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = _StrictConnection()
        self._waiting = waiting_of(config)
        self.access_logger = _WithoutQuery(self.access_logger)  # type: ignore[assignment]
        self._deadline: asyncio.TimerHandle | None = None
        self._deadline_is_body = False
        self._unsent = _unsent_of(config)
        self._stall: asyncio.TimerHandle | None = None
        self._served, self.app = self.app, self._in_pieces

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waiting.enter(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        self._waiting.leave(self.transport)
        self._forget_stall()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.get_protocol() is self:
            self._watch()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._forget_deadline()
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            # The answer has begun: there is no place for another.
            self.transport.close()
        self._expect_end()

    # --- answers

    async def _in_pieces(self, scope: Any, receive: Any, send: Any) -> None:
        """The application; its bodies go out in pieces, and `send` waits until the transport has room for each."""
        try:
            await self._served(scope, receive, lambda message: self._send(send, message))
        except asyncio.CancelledError:
            # uvicorn cancels what outlives its shutdown, and would log a traceback and answer 500 for it.
            await self._give_up(send)
        finally:
            self._unsent.leave(self.transport)

    async def _give_up(self, send: Any) -> None:
        if self.cycle.response_started:
            # Else uvicorn logs that the answer is not complete.
            self.cycle.disconnected = True
            self.transport.abort()
            return
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(_ENDS)),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": _ENDS})

    async def _send(self, send: Any, message: Any) -> None:
        body = message.get("body", b"")
        if message["type"] != "http.response.body" or len(body) <= PIECE_BYTES:
            await send(message)
            return
        self._unsent.enter(self.transport, len(body))
        for first in range(0, len(body), PIECE_BYTES):
            piece = body[first : first + PIECE_BYTES]
            more = first + len(piece) < len(body) or message.get("more_body", False)
            await send({"type": "http.response.body", "body": piece, "more_body": more})
            self._unsent.sent(self.transport, len(piece))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_progress()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget_stall()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect_end()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._expect_end()

    def _expect_end(self) -> None:
        # asyncio keeps a closed socket for as long as its buffer is not empty.
        if self.transport.is_closing():
            self._expect_progress()

    def _expect_progress(self) -> None:
        if self._stall is None:
            self._stall = self.loop.call_later(STALL_S, self.transport.abort)

    def _forget_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    # --- requests

    def _watch(self) -> None:
        """Keep the deadline for what is missing: headers, a body, or nothing."""
        if self.transport.is_closing():
            self._forget_deadline()
            return
        body = self.cycle is not None and not self.cycle.response_complete
        if body and not self.cycle.more_body:
            self._forget_deadline()
        elif self._deadline is None or body != self._deadline_is_body:
            self._forget_deadline()
            self._deadline_is_body = body
            seconds = BODY_TIMEOUT_S if body else HEADER_TIMEOUT_S
            self._deadline = self.loop.call_later(seconds, self._overdue)

    def _overdue(self) -> None:
        self._deadline = None
        waiting = self.cycle is None or self.cycle.response_complete or self.cycle.more_body
        if waiting:
            self.transport.abort()

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
