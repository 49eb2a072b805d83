"""hub.asgi.prepared_http against a transport and a clock of the test's own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from hub.asgi import prepared_http
from hub.asgi.prepared import PreparedWebSocketProtocol
from hub.asgi.prepared_http import PreparedHTTPProtocol

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
    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.transport = FakeTransport()
        config = Config(
            echo,
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
