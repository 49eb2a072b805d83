"""consumer over real sockets of this machine: servers that refuse, close at once, are silent or speak freqtrade's wire."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from consumer_doubles import KEY, rows
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from consumer.client import Client
from consumer.config import ConsumerConfig, ProducerConfig
from consumer.connection import Closed, Endpoint, dial
from consumer.errors import ConnectionFailed, HandshakeFailed, HubRefused, Unauthorized
from hub.frames.freqtrade import encode_split
from hub.protocol.codec import Wire
from hub.protocol.localbot import Connected, Delivery, Disconnected
from hub.protocol.messages import AnalyzedDf

pytestmark = pytest.mark.anyio

TOKEN = "s3cret+token/with=odd&characters"
Handler = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler, **options: Any) -> AsyncIterator[int]:
    server: Server
    async with serve(handler, "127.0.0.1", 0, compression=None, **options) as server:
        yield next(iter(server.sockets)).getsockname()[1]


def producer(port: int, **more: Any) -> ProducerConfig:
    return ProducerConfig(name="p", host="127.0.0.1", port=port, ws_token=TOKEN, **more)


class Sleeps:
    """Waits that are noted instead of waited."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._more = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        self._more.set()
        await asyncio.sleep(0)

    async def reached(self, count: int) -> None:
        while len(self.asked) < count:
            self._more.clear()
            await self._more.wait()


def freqtrade_only(connection: ServerConnection, request: Request) -> Response | None:
    """As a real bot: 403 without its token in the query."""
    if request.path == "/api/v1/message/ws?token=s3cret%2Btoken%2Fwith%3Dodd%26characters":
        return None
    return Response(403, "Forbidden", Headers({"Content-Length": "0"}), b"")


async def freqtrade(connection: ServerConnection) -> None:
    async for text in connection:
        request = json.loads(text)
        if request["type"] == "whitelist":
            await connection.send(json.dumps({"type": "whitelist", "data": [KEY[0]]}))
        elif request["type"] == "analyzed_df":
            df = {"__type__": "dataframe", "__value__": encode_split(rows(0, request["data"]["limit"]))}
            data = {"key": list(KEY), "df": df, "la": "2026-11-22T14:01:01+00:00"}
            await connection.send(json.dumps({"type": "analyzed_df", "data": data}))


async def test_a_freqtrade_bot_is_found_behind_auto() -> None:
    async with serving(freqtrade, process_request=freqtrade_only) as port:
        async with Client(producer(port), ConsumerConfig(initial_candle_limit=20)) as client:
            connected, whitelist, frame = [await anext(client) for _ in range(3)]
        assert isinstance(connected.message, Connected)
        assert whitelist.topic == "whitelist"
        assert isinstance(frame.message, AnalyzedDf)
        assert frame.message.df.n == 20
        got, _ = client.data.get_producer_df(KEY[0], producer_name="p")
        assert got["close"].tolist() == [float(i) for i in range(20)]


async def test_a_server_that_accepts_and_closes_is_hit_by_the_backoff() -> None:
    accepted = 0

    async def close(connection: ServerConnection) -> None:
        nonlocal accepted
        accepted += 1
        await connection.close(1012, "")

    sleeps = Sleeps()
    async with serving(close) as port:
        client = Client(
            producer(port, protocol="freqtrade"), ConsumerConfig(), sleep=sleeps, random=lambda: 1.0
        )
        async with client:
            while accepted < 9:
                await anext(client)
    assert sleeps.asked[:8] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert accepted - 1 <= len(sleeps.asked) <= accepted


async def test_a_port_where_nobody_listens() -> None:
    async with serving(freqtrade) as port:
        pass
    sleeps = Sleeps()
    client = Client(producer(port), ConsumerConfig(sleep_time=2), sleep=sleeps, random=lambda: 1.0)
    async with client:
        down = await anext(client)
        await sleeps.reached(5)
    assert isinstance(down.message, Disconnected)
    assert down.message.reason == f"ws://127.0.0.1:{port}: cannot connect: connection refused"
    assert sleeps.asked[:5] == [0.5, 1, 2, 2, 2]


async def test_a_wrong_token() -> None:
    def refuse(connection: ServerConnection, request: Request) -> Response:
        return Response(403, "Forbidden", Headers({"Content-Length": "0"}), b"")

    async with serving(freqtrade, process_request=refuse) as port:
        async with Client(producer(port), ConsumerConfig(), sleep=Sleeps()) as client:
            with pytest.raises(Unauthorized) as caught:
                await anext(client)
        assert str(caught.value) == f"ws://127.0.0.1:{port}: the token is not accepted (HTTP 403)"


async def refused(status: int, body: str = "", **headers: str) -> Exception:
    def refuse(connection: ServerConnection, request: Request) -> Response:
        response = connection.respond(HTTPStatus(status), body)
        response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
        return response

    async with serving(freqtrade, process_request=refuse) as port:
        with pytest.raises((HandshakeFailed, HubRefused)) as caught:
            await dial(Endpoint(host="127.0.0.1", port=port, token=TOKEN), Wire.JSON, 1 << 20)
    assert TOKEN not in str(caught.value)
    return caught.value


async def test_refusals_before_the_upgrade() -> None:
    full = await refused(503, "full\nmore", Retry_After="7")
    assert isinstance(full, HandshakeFailed)
    assert (full.status, full.retry_after_s) == (503, 7)
    assert str(full).endswith("refused (HTTP 503): full")
    dated = await refused(429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")
    assert isinstance(dated, HandshakeFailed)
    assert dated.retry_after_s == 0
    odd = await refused(502, "<html>", Retry_After="soon")
    assert isinstance(odd, HandshakeFailed)
    assert odd.retry_after_s is None
    assert "html" not in str(odd)
    assert isinstance(await refused(400, "tradewire.v3 only"), HubRefused)


async def test_retry_after_is_kept_to() -> None:
    tries = 0

    def busy_once(connection: ServerConnection, request: Request) -> Response | None:
        nonlocal tries
        tries += 1
        if tries > 1:
            return None
        response = connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "")
        response.headers["Retry-After"] = "7"
        return response

    sleeps = Sleeps()
    async with serving(freqtrade, process_request=busy_once) as port:
        client = Client(
            producer(port, protocol="freqtrade"), ConsumerConfig(), sleep=sleeps, random=lambda: 1.0
        )
        async with client:
            while not isinstance((await anext(client)).message, Connected):
                pass
    assert sleeps.asked == [7.5]


async def test_a_redirect_is_not_followed() -> None:
    followed: list[str] = []

    def elsewhere(connection: ServerConnection, request: Request) -> Response:
        followed.append(request.path)
        response = connection.respond(HTTPStatus.FOUND, "")
        response.headers["Location"] = "/other"
        return response

    async with serving(freqtrade, process_request=elsewhere) as port:
        with pytest.raises(HandshakeFailed, match="HTTP 302"):
            await dial(Endpoint(host="127.0.0.1", port=port, token=TOKEN), Wire.FREQTRADE, 1 << 20)
    assert len(followed) == 1


async def test_what_is_no_websocket_server() -> None:
    async def gibberish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail ready\r\n")
        writer.close()

    server = await asyncio.start_server(gibberish, "127.0.0.1", 0)
    async with server:
        endpoint = Endpoint(host="127.0.0.1", port=server.sockets[0].getsockname()[1], token=TOKEN)
        with pytest.raises(ConnectionFailed, match="no websocket there"):
            await dial(endpoint, Wire.FREQTRADE, 1 << 20)
        with pytest.raises(ConnectionFailed, match="no TLS there"):
            await dial(Endpoint(host="127.0.0.1", port=endpoint.port, secure=True), Wire.FREQTRADE, 1 << 20)


async def test_a_frame_over_the_limit_is_asked_for_in_smaller_form() -> None:
    asked: list[int] = []

    async def bulky(connection: ServerConnection) -> None:
        async for text in connection:
            request = json.loads(text)
            if request["type"] == "analyzed_df":
                asked.append(request["data"]["limit"])
                filler = "x" * (1500 * request["data"]["limit"])
                df = {"__type__": "dataframe", "__value__": encode_split(rows(0, 100)), "filler": filler}
                data = {"key": list(KEY), "df": df, "la": None}
                await connection.send(json.dumps({"type": "analyzed_df", "data": data}))

    settings = ConsumerConfig(message_size_limit=1)
    got: list[Delivery] = []
    async with (
        serving(bulky, max_size=None) as port,
        Client(producer(port, protocol="freqtrade"), settings, sleep=Sleeps()) as client,
    ):
        while not got or got[-1].topic != "analyzed_df":
            got.append(await anext(client))
    assert asked == [1500, 750, 375]
    reasons = [d.message.reason for d in got if isinstance(d.message, Disconnected)]
    assert len(reasons) == 2
    assert "over message_size_limit (1 MiB); asking for 750 candles next time" in reasons[0]


async def test_what_is_deflated_is_read_where_it_was_asked_for() -> None:
    offers: list[str | None] = []

    async def say(connection: ServerConnection) -> None:
        assert connection.request is not None
        offers.append(connection.request.headers.get("Sec-WebSocket-Extensions"))
        for text in ("small", "large " * 5000, "behind it"):
            await connection.send(text)
        assert await connection.recv() == b"answered " * 200
        await connection.close(1012, "")

    async with serve(say, "127.0.0.1", 0) as server:
        for compression in (False, True):
            endpoint = Endpoint(
                host="127.0.0.1", port=next(iter(server.sockets)).getsockname()[1], compression=compression
            )
            connection = await dial(endpoint, Wire.MSGPACK, 1 << 20)
            assert [await connection.receive() for _ in range(3)] == ["small", "large " * 5000, "behind it"]
            await connection.send(b"answered " * 200, text=False)
            with pytest.raises(Closed, match="1012"):
                await connection.receive()
    assert offers[0] is None
    assert "permessage-deflate" in (offers[1] or "")


@pytest.mark.parametrize(("size", "code"), [(1 << 20, None), ((1 << 20) + 1, 1009), (100 << 20, 1009)])
async def test_what_inflates_beyond_the_limit_is_not_read(size: int, code: int | None) -> None:
    async def say(connection: ServerConnection) -> None:
        await connection.send(bytes(size))
        await connection.wait_closed()

    async with serve(say, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        endpoint = Endpoint(host="127.0.0.1", port=port, compression=True)
        connection = await dial(endpoint, Wire.MSGPACK, 1 << 20)
        if code is None:
            assert len(await connection.receive()) == size
        else:
            with pytest.raises(Closed) as closed:
                await connection.receive()
            assert (closed.value.code, closed.value.local) == (code, True)
        await connection.close()


async def test_what_a_peer_has_taken_is_known() -> None:
    async def echo(connection: ServerConnection) -> None:
        async for text in connection:
            await connection.send(text)

    async with serving(echo) as port:
        connection = await dial(Endpoint(host="127.0.0.1", port=port, token="t"), Wire.FREQTRADE, 1 << 20)
        before = connection.taken()
        await connection.send(b"x" * 1000, text=True)
        # What is answered was taken.
        assert await connection.receive() == "x" * 1000
        after = connection.taken()
        await connection.close()
    assert (after.owed, after.unsent) == (0, 0)
    if sys.platform == "linux":
        assert after.total >= before.total + 1000


async def test_no_token_in_any_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(
        freqtrade, process_request=freqtrade_only, logger=logging.getLogger("other.end")
    ) as port:
        logging.getLogger("other.end").setLevel(logging.CRITICAL)
        async with Client(producer(port), ConsumerConfig(initial_candle_limit=2)) as client:
            await anext(client)
    assert "s3cret" not in caplog.text


async def test_an_endpoint_with_a_ca_file_that_is_none(tmp_path: Path) -> None:
    from consumer.errors import ConfigError

    broken = tmp_path / "ca.pem"
    broken.write_text("no certificate")
    endpoint = Endpoint(host="127.0.0.1", port=1, secure=True, ca_file=str(broken))
    with pytest.raises(ConfigError, match="expected a PEM file"):
        await dial(endpoint, Wire.JSON, 1 << 20)
