"""The edge under a real uvicorn on loopback, with the websockets client and with raw sockets."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hub.asgi import prepared
from hub.asgi.app import build_app
from hub.asgi.connection import MESSAGE_PATH
from hub.asgi.outlet import HIGH_WATER_BYTES
from hub.asgi.prepared import FRAGMENTS_PER_MESSAGE, SEND_BUFFER_BYTES
from hub.asgi.serving import uvicorn_config
from hub.core.session import Session
from hub.fan_out import FanOut
from hub.protocol.codec import Wire, frame
from hub.protocol.errors import HandshakeRefused
from hub.protocol.principal import Principal

from .doubles import CLOSE, FakeAuthenticator, FakeNode, Lines, client_frame, request, text

pytestmark = pytest.mark.anyio

JSON, MSGPACK = "tradewire.v2.json", "tradewire.v2.msgpack"


class Served:
    def __init__(self, port: int, node: FakeNode, authenticator: FakeAuthenticator) -> None:
        self.port = port
        self.node = node
        self.authenticator = authenticator

    def connect(self, wire: str | None = JSON, **settings: Any) -> connect:
        return connect(
            f"ws://127.0.0.1:{self.port}{MESSAGE_PATH}?token=canary-7f31",
            subprotocols=[wire] if wire else None,  # type: ignore[list-item]
            proxy=None,
            **settings,
        )

    async def raw(self, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A socket of ours with a small receive buffer, after `data` was sent."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
        writer.write(data)
        await writer.drain()
        return reader, writer


@asynccontextmanager
async def serving(*, deflate: bool = False) -> AsyncIterator[Served]:
    node, authenticator = FakeNode(), FakeAuthenticator()
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    app = build_app(node, authenticator)  # type: ignore[arg-type]
    config = uvicorn_config(
        app,
        "127.0.0.1",
        port,
        heartbeat_ms=20_000,
        pong_timeout_ms=10_000,
        message_bytes=1 << 20,
        deflate=deflate,
        verbosity="info",
        shutdown_s=3,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    await until(lambda: server.started or task.done())
    try:
        yield Served(port, node, authenticator)
    finally:
        server.should_exit = True
        await task


@pytest.fixture
def lines() -> Iterator[list[str]]:
    handler = Lines()
    root = logging.getLogger()
    root.addHandler(handler)
    yield handler.lines
    root.removeHandler(handler)


async def _receive_forever(ws: ClientConnection) -> None:
    while True:
        await ws.recv()


async def until(condition: Callable[[], object]) -> None:
    """What only the kernel brings about has no event to wait for; the test's time limit ends it."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def closed(ws: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as error:
        await _receive_forever(ws)
    assert error.value.rcvd is not None, "expected a Close frame"
    return error.value.rcvd.code, error.value.rcvd.reason


async def test_both_wires_are_served(lines: list[str]) -> None:
    async with serving() as hub:
        async with hub.connect(JSON) as ws:
            assert ws.subprotocol == JSON
            assert await ws.recv() == '{"type":"hub.welcome","data":{"protocol":2}}'
            await ws.send('{"type":"ping","id":1}')
            assert await ws.recv() == '{"type":"hub.reply","id":1,"ok":true}'
            await ws.send(["{", '"type":"ping"', ',"id":2}'])
            assert await ws.recv() == '{"type":"hub.reply","id":2,"ok":true}'
        async with hub.connect(MSGPACK) as ws:
            assert b"hub.welcome" in await ws.recv(decode=False)
            await ws.send(b"\x82\xa4type\xa4ping\xa2id\x01")
            assert b"hub.reply" in await ws.recv(decode=False)
        async with hub.connect(None) as ws:
            assert ws.subprotocol is None
            pong = await ws.ping()
            await pong
        await hub.node.gone.wait()
    assert any("WebSocket" in line for line in lines)
    assert not [line for line in lines if "canary" in line or line.startswith(("ERROR", "WARNING"))]


async def test_refusals_have_their_status_and_log_no_error(lines: list[str]) -> None:
    async with serving() as hub:
        for status, retry in [(403, None), (400, None), (429, 5), (503, 10)]:
            hub.authenticator.refusal = HandshakeRefused(status, "why", retry_after=retry)
            with pytest.raises(InvalidStatus) as refused:
                await hub.connect()
            response = refused.value.response
            assert response.status_code == status
            assert response.headers.get("Retry-After") == (None if retry is None else str(retry))
            assert response.body == (b"" if status == 403 else b"why\n")
        hub.authenticator.refusal = None
        with pytest.raises(InvalidStatus) as refused:
            await hub.connect("tradewire.v9")
        assert refused.value.response.status_code == 400
    assert not [line for line in lines if "canary" in line or line.startswith(("ERROR", "WARNING"))]


async def test_malformed_input_gets_a_code_and_logs_no_error(lines: list[str]) -> None:
    async with serving() as hub:
        for data, code in [
            ("{", 1007),
            ("[1]", 4400),
            (b"\x80", 1003),
            ("x" * ((1 << 20) + 1), 1009),
            (["x"] * (FRAGMENTS_PER_MESSAGE + 1), 1009),
        ]:
            async with hub.connect() as ws:
                await ws.send(data)
                assert (await closed(ws))[0] == code
        reader, writer = await hub.raw(request())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(client_frame(1, b"\xff"))
        assert int.from_bytes((await reader.readexactly(4))[2:], "big") == 1007
        writer.close()
    assert not [line for line in lines if line.startswith(("ERROR", "WARNING"))]


async def test_a_large_message_that_is_refused_while_it_is_sent_gets_1009() -> None:
    async with serving() as hub:
        reader, writer = await hub.raw(request())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(client_frame(2, bytes(30_000_000)))
        assert int.from_bytes((await reader.readexactly(4))[2:], "big") == 1009
        writer.transport.abort()


async def test_a_client_that_does_not_read_is_bounded_and_delays_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prepared, "CLOSE_TIMEOUT_S", 0.1)
    async with serving() as hub:
        _, writer = await hub.raw(request())
        await until(lambda: hub.node.outlets)
        [dead] = hub.node.outlets
        data, taken = frame(bytes(1000), text=False), 0
        for _ in range(10_000):
            taken += len(data)
            if not dead.write(data):
                break
            await asyncio.sleep(0)
        assert not dead.writable
        assert dead.unsent_bytes <= HIGH_WATER_BYTES + len(data)
        # The kernel's share: twice the send buffer, and what the peer's own takes.
        assert taken < HIGH_WATER_BYTES + 2 * SEND_BUFFER_BYTES + 256 * 1024
        async with hub.connect() as ws:
            await ws.recv()
            await ws.send('{"type":"ping","id":1}')
            await ws.recv()
        hub.node.gone.clear()
        dead.close(4508, "slow")
        assert dead.write(data) is False
        await hub.node.gone.wait()
        await until(lambda: not dead.unsent_bytes)
        writer.transport.abort()


async def test_a_slow_client_gets_all_once_it_reads() -> None:
    async with serving() as hub:
        reader, writer = await hub.raw(request())
        await reader.readuntil(b"\r\n\r\n")
        [outlet] = hub.node.outlets
        data = frame(bytes(1000), text=False)
        count = 0
        while outlet.write(data):
            count += 1
            await asyncio.sleep(0)
        await reader.readexactly(len(data) * (count + 1))
        assert hub.node.listener.calls == ["writable"]
        assert outlet.writable
        writer.transport.abort()


async def test_a_fan_out_writes_to_the_socket_while_nothing_is_unsent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    through: list[bytes] = []
    write = prepared._Outlet.write
    monkeypatch.setattr(
        prepared._Outlet, "write", lambda outlet, data: (through.append(data), write(outlet, data))[1]
    )
    async with serving() as hub:
        reader, writer = await hub.raw(request())
        await reader.readuntil(b"\r\n\r\n")
        [outlet] = hub.node.outlets
        through.clear()
        session, fan_out = Session("s", Principal(name="x"), Wire.JSON, "test", 0.0), FanOut()
        fan_out.add(session, outlet)
        frames = [frame(bytes([i]) * 50_000, text=False) for i in range(200)]
        count = 1
        while not fan_out.write(frames[count]):
            count += 1
        # The last one did not fit. What follows goes behind its rest, through the transport.
        assert len(through) == 1
        assert not outlet.writable
        assert fan_out.write(frames[count + 1]) == [session]
        expected = b"".join(frames[1 : count + 2])
        assert await reader.readexactly(len(expected)) == expected
        await until(lambda: outlet.writable)
        assert fan_out.write(frames[0]) == []
        assert await reader.readexactly(len(frames[0])) == frames[0]
        assert len(through) == 2
        writer.transport.abort()


async def test_a_fan_out_never_writes_to_a_socket_that_is_closed() -> None:
    async with serving() as hub:
        _, writer = await hub.raw(request())
        await until(lambda: hub.node.outlets)
        outlet: Any = hub.node.outlets[0]
        session, fan_out = Session("s", Principal(name="x"), Wire.JSON, "test", 0.0), FanOut()
        fan_out.add(session, outlet)
        hub.node.gone.clear()
        writer.transport.abort()
        await hub.node.gone.wait()
        # Others that come now get its number.
        others: list[socket.socket] = []
        while outlet.descriptor not in [other.fileno() for other in others]:
            others += socket.socketpair()
        assert fan_out.write(b"not for you") == [session]
        for other in others:
            other.setblocking(False)
            with pytest.raises(BlockingIOError):
                other.recv(100)
        for other in others:
            other.close()


async def test_a_killed_client_is_disconnected_once(lines: list[str]) -> None:
    async with serving() as hub:
        async with hub.connect() as ws:
            await ws.recv()
            ws.transport.abort()
            await hub.node.gone.wait()
        assert hub.node.calls.count("disconnect") == 1
        assert hub.node.listener.calls == ["lost"]
    assert not [line for line in lines if line.startswith(("ERROR", "WARNING"))]


async def test_a_flood_of_pings_lets_others_through() -> None:
    async with serving() as hub:
        reader, writer = await hub.raw(request())
        await reader.readuntil(b"\r\n\r\n")
        async with hub.connect() as ws:
            await ws.recv()
            writer.write(client_frame(9) * 200_000)
            await ws.send('{"type":"ping","id":1}')
            assert await ws.recv() == '{"type":"hub.reply","id":1,"ok":true}'
            # Its 200 000 unread Pongs wait nowhere.
            assert hub.node.outlets[0].unsent_bytes <= HIGH_WATER_BYTES + 4096
        writer.transport.abort()


async def test_shutdown_closes_with_1012(lines: list[str]) -> None:
    async with serving() as hub:
        ws = await hub.connect()
        await ws.recv()
    assert await closed(ws) == (1012, "retry_after_ms=5000")
    assert hub.node.calls.count("disconnect") == 1
    assert not [line for line in lines if line.startswith("ERROR")]


async def test_a_flood_of_messages_is_closed_4529() -> None:
    async with serving() as hub:
        reader, writer = await hub.raw(request())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text('{"type":"x"}') * 5000)
        assert int.from_bytes((await reader.readexactly(4))[2:], "big") == 4529
        writer.write(client_frame(CLOSE, b"\x03\xe8"))
        assert 100 <= len(hub.node.received) <= 110
        writer.transport.abort()
