"""hub.bots.freqtrade over real sockets: a server that is slow, breaks off, answers too much or elsewhere, goes and comes back."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from hub.bots import freqtrade
from hub.bots.freqtrade import FreqtradeBot

pytestmark = pytest.mark.anyio

CHUNK = b"x" * 65_536


class Maker:
    """A server with freqtrade's login and routes that misbehave."""

    def __init__(self) -> None:
        self.posts = 0
        self.streamed = 0
        self.elsewhere = 0
        self.stuck = asyncio.Event()

    def app(self) -> Starlette:
        routes: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/token/login": self.login,
            "/echo": self.echo,
            "/slow": self.slow,
            "/half": self.half,
            "/huge": self.huge,
            "/redirect": self.redirect,
        }
        methods = ["GET", "POST"]
        return Starlette(
            routes=[Route(f"/api/v1{path}", endpoint, methods=methods) for path, endpoint in routes.items()]
        )

    async def login(self, _request: Request) -> Response:
        return JSONResponse({"access_token": "a", "refresh_token": "r"})

    async def echo(self, request: Request) -> Response:
        self.elsewhere += "elsewhere" in request.url.query
        target = (
            request.scope["raw_path"] + b"?" + request.scope["query_string"] + b" " + await request.body()
        )
        return Response(target, media_type=request.headers.get("content-type", "none/none"))

    async def slow(self, _request: Request) -> Response:
        await self.stuck.wait()
        return Response()

    async def half(self, request: Request) -> Response:
        self.posts += request.method == "POST"

        async def body() -> AsyncIterator[bytes]:
            yield b"half"

        return StreamingResponse(body(), headers={"Content-Length": "8"})

    async def huge(self, _request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            # uvicorn drops what is sent behind a disconnect, without a word and without a turn of the loop.
            while self.streamed < 2000:
                self.streamed += 1
                yield CHUNK
                await asyncio.sleep(0)

        return StreamingResponse(body())

    async def redirect(self, _request: Request) -> Response:
        return RedirectResponse("/api/v1/echo?elsewhere")


@asynccontextmanager
async def serving(app: Starlette, port: int = 0) -> AsyncIterator[int]:
    sock = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1, lifespan="off", http="h11")
    )
    task = asyncio.create_task(server.serve(sockets=[sock]))
    while not server.started and not task.done():  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    try:
        yield int(sock.getsockname()[1])
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def asking(port: int, deadline_s: float = 10.0) -> AsyncIterator[FreqtradeBot]:
    bot = FreqtradeBot(
        "maker", host="127.0.0.1", port=port, username="u", password="p", deadline_s=deadline_s
    )
    try:
        yield bot
    finally:
        await bot.aclose()


async def test_the_target_and_the_body_arrive_as_they_were() -> None:
    async with serving(Maker().app()) as port, asking(port) as bot:
        answer = await bot.pass_on("POST", b"/echo", b"a=%2F+b&a=", b"null", "application/json")
        assert answer.body == b"/api/v1/echo?a=%2F+b&a= null"
        assert answer.content_type == "application/json"
        # freqtrade-client sends a body with every GET.
        answer = await bot.pass_on("GET", b"/echo", b"", b"null", "application/json")
        assert answer.body == b"/api/v1/echo? null"


async def test_a_slow_answer_costs_its_own_client_only() -> None:
    maker = Maker()
    async with serving(maker.app()) as port, asking(port, 1.0) as bot:
        slow = asyncio.create_task(bot.pass_on("GET", b"/slow"))
        for _ in range(5):
            assert (await bot.pass_on("GET", b"/echo")).status == 200
        assert not slow.done()
        answer = await slow
        assert (answer.status, answer.retry_after) == (503, 1)
        assert answer.body == b'{"detail":"bot maker did not answer within 1 s"}'
        assert (await bot.pass_on("GET", b"/echo")).status == 200
        maker.stuck.set()


async def test_an_answer_that_breaks_off_is_a_502_and_a_post_is_sent_once() -> None:
    maker = Maker()
    async with serving(maker.app()) as port, asking(port) as bot:
        answer = await bot.pass_on("POST", b"/half", b"", b"{}", "application/json")
        assert answer.status == 502
        assert answer.body == b'{"error":"Error querying /api/v1/half: bot maker is out of reach"}'
        assert maker.posts == 1
        assert (await bot.pass_on("GET", b"/half")).status == 502
        assert bot.statistics()["repeated"] == 1


async def test_too_large_an_answer_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freqtrade, "ANSWER_BYTES", 1 << 20)
    maker = Maker()
    async with serving(maker.app()) as port, asking(port) as bot:
        answer = await bot.pass_on("GET", b"/huge")
        assert answer.status == 502
        assert b"over 1048576 bytes" in answer.body
        # The bound, and what the buffers of both sides took.
        assert maker.streamed < 400
        assert bot.statistics()["held_bytes"] == 0
        assert (await bot.pass_on("GET", b"/echo")).status == 200


async def test_a_redirect_leads_nowhere() -> None:
    maker = Maker()
    async with serving(maker.app()) as port, asking(port) as bot:
        assert (await bot.pass_on("GET", b"/redirect")).status == 502
        assert maker.elsewhere == 0


async def test_a_bot_that_went_is_asked_again_when_it_is_back() -> None:
    async with serving(Maker().app()) as port, asking(port) as bot:
        assert (await bot.pass_on("GET", b"/echo")).status == 200
    async with asking(port) as bot:
        answer = await bot.pass_on("POST", b"/echo")
        assert answer.body == b'{"error":"Error querying /api/v1/echo: bot maker is out of reach"}'
        async with serving(Maker().app(), port):
            assert (await bot.pass_on("POST", b"/echo")).status == 200
        async with serving(Maker().app(), port):
            # On the connection that the one before closed.
            assert (await bot.pass_on("GET", b"/echo")).status == 200


async def test_a_reset_in_the_middle_of_an_answer() -> None:
    requests = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        request = await reader.readuntil(b"\r\n\r\n")
        if b"/token/login" in request:
            body = b'{"access_token":"a","refresh_token":"r"}'
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)
            )
            await writer.drain()
        else:
            requests += 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            await writer.drain()
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server, asking(server.sockets[0].getsockname()[1]) as bot:
        assert (await bot.pass_on("POST", b"/forceenter", b"", b"{}")).status == 502
        assert requests == 1
        assert (await bot.pass_on("GET", b"/status")).status == 502
        assert requests == 3
