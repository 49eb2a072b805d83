"""hub.asgi.prepared_http against a transport and a clock of the test's own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from hub.asgi import prepared_http
from hub.asgi.prepared import PreparedWebSocketProtocol
from hub.asgi.prepared_http import PreparedHTTPProtocol
from hub.asgi.unsent import PIECE_BYTES, UNSENT_BYTES, Unsent

from .doubles import FakeLoop, FakeTransport, Lines, request

pytestmark = pytest.mark.anyio


async def echo(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        return
    body, more = b"", True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        body, more = body + event["body"], event["more_body"]
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
    )
    await send({"type": "http.response.body", "body": body})


class Visitor:
    def __init__(self, app: Any = echo) -> None:
        self.loop = FakeLoop()
        self.transport = FakeTransport()
        config = Config(
            app,
            http=PreparedHTTPProtocol,
            ws=PreparedWebSocketProtocol,
            lifespan="off",
            log_config=None,
            interface="asgi3",
            proxy_headers=False,
        )
        config.load()
        self.protocol = PreparedHTTPProtocol(config, ServerState(), {}, _loop=self.loop)  # type: ignore[arg-type]
        self.transport.protocol = self.protocol
        self.protocol.connection_made(self.transport)

    async def send(self, data: bytes) -> bytes:
        self.transport.protocol.data_received(data)
        await self.loop.settle()
        written = bytes(self.transport.written)
        self.transport.written.clear()
        return written


@pytest.fixture
def access_lines() -> Iterator[list[str]]:
    handler = Lines()
    access = logging.getLogger("uvicorn.access")
    before = access.level, access.handlers, access.propagate
    access.setLevel(logging.INFO)
    access.handlers, access.propagate = [handler], False
    yield handler.lines
    access.level, access.handlers, access.propagate = before
    access.setLevel(before[0])


GET = b"GET /api/v1/ping?token=canary-7f31 HTTP/1.1\r\nHost: hub\r\n\r\n"


async def test_a_request_is_answered() -> None:
    visitor = Visitor()
    assert (await visitor.send(GET)).startswith(b"HTTP/1.1 200 ")
    assert not visitor.transport.closing


async def test_an_access_line_has_no_query(access_lines: list[str]) -> None:
    visitor = Visitor()
    await visitor.send(GET)
    assert access_lines == ['INFO 127.0.0.1:50000 - "GET /api/v1/ping HTTP/1.1" 200']


async def test_a_silent_socket_is_dropped() -> None:
    visitor = Visitor()
    visitor.loop.advance(prepared_http.HEADER_TIMEOUT_S)
    assert visitor.transport.aborted


async def test_headers_that_trickle_are_dropped() -> None:
    visitor = Visitor()
    for at in range(9):
        await visitor.send(GET[at : at + 1])
        visitor.loop.advance(1)
    assert not visitor.transport.aborted
    visitor.loop.advance(1)
    assert visitor.transport.aborted


async def test_headers_of_a_second_request_have_the_same_time() -> None:
    visitor = Visitor()
    await visitor.send(GET)
    await visitor.send(GET[:10])
    visitor.loop.advance(prepared_http.HEADER_TIMEOUT_S - 1)
    assert not visitor.transport.aborted
    visitor.loop.advance(1)
    assert visitor.transport.aborted


async def test_a_body_has_its_own_time() -> None:
    visitor = Visitor()
    await visitor.send(b"POST / HTTP/1.1\r\nHost: hub\r\nContent-Length: 3\r\n\r\na")
    visitor.loop.advance(prepared_http.BODY_TIMEOUT_S - 1)
    assert not visitor.transport.aborted
    visitor.loop.advance(1)
    assert visitor.transport.aborted


async def test_a_complete_request_is_not_dropped() -> None:
    visitor = Visitor()
    await visitor.send(b"POST / HTTP/1.1\r\nHost: hub\r\nContent-Length: 3\r\n\r\na")
    assert (await visitor.send(b"bc")).endswith(b"abc")
    visitor.loop.advance(4)
    assert not visitor.transport.closing


@pytest.mark.parametrize(
    "head",
    [
        b"Host: hub\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Host: hub\r\nHost: other\r\n",
        b"X: y\r\n",
        b"Host: hub\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(prepared_http.HEADER_COUNT)),
        b"Host: hub\r\nX: " + b"y" * prepared_http.HEADER_BYTES + b"\r\n",
    ],
    ids=["both lengths", "two hosts", "no host", "many headers", "long headers"],
)
async def test_a_bad_head_gets_400(head: bytes) -> None:
    visitor = Visitor()
    answer = await visitor.send(b"POST / HTTP/1.1\r\n" + head + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert visitor.transport.closing


async def test_an_endless_head_gets_400() -> None:
    visitor = Visitor()
    answer = b""
    for _ in range(5):
        answer += await visitor.send((b"" if answer else b"GET / HTTP/1.1\r\nX: ") + b"y" * 8000)
        if answer:
            break
    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_an_upgrade_ends_the_deadline() -> None:
    visitor = Visitor()
    assert (await visitor.send(request())).startswith(b"HTTP/1.1 101 ")
    visitor.loop.advance(prepared_http.HEADER_TIMEOUT_S + 1)
    assert not visitor.transport.closing
    assert isinstance(visitor.transport.protocol, PreparedWebSocketProtocol)
    visitor.transport.protocol.connection_lost(None)
    await visitor.loop.settle()


def answering(body: bytes, *, started: list[Any] | None = None) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        if started is not None:
            started.append(scope)

    return app


async def test_a_large_answer_waits_for_its_reader() -> None:
    body = bytes(range(256)) * 4096
    ended: list[Any] = []
    visitor = Visitor(answering(body, started=ended))
    visitor.transport.stuck = True
    written = await visitor.send(GET)
    unsent = visitor.protocol._unsent
    assert visitor.transport.buffered < 2 * PIECE_BYTES
    assert unsent.statistics()["unsent_bytes"] > len(body) - 2 * PIECE_BYTES
    while not ended:
        visitor.transport.drain()
        await visitor.loop.settle()
    assert (written + visitor.transport.written).partition(b"\r\n\r\n")[2] == body
    assert unsent.statistics() == {
        "answers": 0,
        "unsent_bytes": 0,
        "unsent_limit_bytes": UNSENT_BYTES,
        "aborted": 0,
    }


async def test_who_does_not_read_is_dropped() -> None:
    visitor = Visitor(answering(bytes(10 * PIECE_BYTES)))
    visitor.transport.stuck = True
    await visitor.send(GET)
    visitor.loop.advance(prepared_http.STALL_S - 1)
    visitor.transport.drain()
    await visitor.loop.settle()
    visitor.loop.advance(prepared_http.STALL_S - 1)
    assert not visitor.transport.aborted
    visitor.loop.advance(1)
    assert visitor.transport.aborted
    visitor.protocol.connection_lost(None)
    await visitor.loop.settle()
    assert len(visitor.protocol._unsent) == 0


async def test_who_leaves_the_end_of_an_answer_is_dropped() -> None:
    visitor = Visitor(answering(b"x" * 1000))
    visitor.transport.stuck = True
    await visitor.send(GET.replace(b"Host", b"Connection: close\r\nHost"))
    assert visitor.transport.closing
    visitor.loop.advance(prepared_http.STALL_S)
    assert visitor.transport.aborted


async def test_garbage_behind_an_answer_ends_the_connection() -> None:
    visitor = Visitor(answering(b"early"))
    head = b"POST / HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert (await visitor.send(head)).endswith(b"early")
    assert await visitor.send(b"ZZ\r\nx\r\n") == b""
    assert visitor.transport.closing


async def test_what_outlives_the_shutdown_is_answered_503(caplog: pytest.LogCaptureFixture) -> None:
    async def stuck(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    visitor = Visitor(stuck)
    await visitor.send(GET)
    for task in visitor.protocol.tasks:
        task.cancel()
    await visitor.loop.settle()
    written = bytes(visitor.transport.written)
    assert written.startswith(b"HTTP/1.1 503 ")
    assert written.endswith(b'{"detail":"The hub is shutting down."}')
    assert visitor.transport.closing
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_an_answer_that_has_begun_breaks_off_at_the_shutdown(caplog: pytest.LogCaptureFixture) -> None:
    visitor = Visitor(answering(bytes(10 * PIECE_BYTES)))
    visitor.transport.stuck = True
    await visitor.send(GET)
    for task in visitor.protocol.tasks:
        task.cancel()
    await visitor.loop.settle()
    assert visitor.transport.aborted
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_who_waits_the_longest_makes_room() -> None:
    transports = [FakeTransport() for _ in range(3)]
    unsent = Unsent(limit=100)
    for transport in transports:
        unsent.enter(transport, 40)
    assert [t.aborted for t in transports] == [True, False, False]
    unsent.sent(transports[1], 30)
    unsent.enter(transports[0], 40)
    assert [t.aborted for t in transports] == [True, False, False]
    assert unsent.statistics() == {
        "answers": 3,
        "unsent_bytes": 90,
        "unsent_limit_bytes": 100,
        "aborted": 1,
    }
    for transport in transports:
        unsent.leave(transport)
        unsent.leave(transport)
    assert unsent.bytes == 0
