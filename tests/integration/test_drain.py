"""The end of a hub, and of peers that are not there any more, over real sockets."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hub.protocol.errors import NotDurable
from hub.server import Hub

from .conftest import CONFIG, READER, WRITER, Clients, ask, fill, heard, say, settled

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def serving(**section: Any) -> AsyncIterator[tuple[Hub, Clients]]:
    hub = Hub(CONFIG | {"hub": CONFIG["hub"] | section})
    await asyncio.to_thread(hub.start)
    try:
        yield hub, Clients(hub)
    finally:
        await asyncio.to_thread(hub.stop)


async def _refusal(clients: Clients, wire: str) -> tuple[int, bool]:
    with pytest.raises(InvalidStatus) as refused:
        async with clients.v2(READER) if wire == "v2" else clients.legacy(READER):
            pass
    response = refused.value.response
    return response.status_code, int(response.headers["Retry-After"]) > 0


async def _end(websocket: ClientConnection) -> tuple[dict[str, Any], tuple[int, str] | None]:
    """The last message, and the code and reason of the Close."""
    last: dict[str, Any] = {}
    while True:
        try:
            last = await heard(websocket, positions=True)
        except ConnectionClosed as closed:
            return last, (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd is not None else None


async def test_a_drain_with_a_log_that_hangs_and_a_client_that_does_not_read() -> None:
    async with (
        serving(drain_s=1) as (hub, clients),
        clients.v2(READER) as reader,
        clients.legacy(READER) as stuck,
    ):
        await ask(reader, {"type": "subscribe", "id": 1, "data": {"want": [{"topics": ["entry_fill"]}]}})
        await say(stuck, {"type": "subscribe", "data": ["entry_fill"]})
        await settled(stuck)
        stuck.transport.pause_reading()
        await asyncio.wrap_future(hub.publish("entry_fill", fill(1)))
        assert (await heard(reader))["offset"] == 1
        node = hub._node
        assert node is not None
        node.log.append = lambda _batch: asyncio.Event().wait()  # type: ignore[assignment, method-assign, return-value]
        unanswered = hub.publish("entry_fill", fill(2))
        url = f"http://127.0.0.1:{hub.port}/api/v1/publish"
        item = {"bot": "alpha", "topic": "entry_fill", "mid": "m3", "data": fill(3)}
        headers = {"Authorization": f"Bearer {WRITER}"}
        async with httpx.AsyncClient(timeout=20) as http:
            posted = asyncio.create_task(http.post(url, json=item, headers=headers))
            await asyncio.sleep(0.05)
            stopping = asyncio.create_task(asyncio.to_thread(hub.stop))
            assert (await heard(reader))["type"] == "hub.drain"
            for wire in ("v2", "freqtrade"):
                assert await _refusal(clients, wire) == (503, True)
            refused = await http.post(url, json=item | {"mid": "m4"}, headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
            last, closed = await _end(reader)
            assert closed == (1012, "retry_after_ms=1000")
            assert (last["type"], last["offset"]) == ("hub.position", 1)
            with pytest.raises(NotDurable, match="same mid"):
                await asyncio.wrap_future(unanswered)
            answer = await posted
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_durable")
            async with asyncio.timeout(20):
                await stopping
        stuck.transport.abort()


@pytest.mark.parametrize("wire", ["v2", "freqtrade"])
async def test_a_peer_that_is_there_no_more_is_gone_after_a_ping(wire: str) -> None:
    """It sends nothing and takes nothing, and its connection does not end."""
    async with serving(heartbeat_ms=100, pong_timeout_ms=100) as (hub, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        offered = "Sec-WebSocket-Protocol: tradewire.v2.json\r\n" if wire == "v2" else ""
        query, token = (
            ("", f"Authorization: Bearer {READER}\r\n") if wire == "v2" else (f"?token={READER}", "")
        )
        key = base64.b64encode(bytes(16)).decode()
        writer.write(
            f"GET /api/v1/message/ws{query} HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{offered}{token}\r\n".encode()
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        assert hub.statistics()["node"]["connections"] == 1
        async with asyncio.timeout(10):
            while hub.statistics()["node"]["connections"]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        writer.transport.abort()
