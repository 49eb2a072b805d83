"""The hub under an ASGI server of others, as a process: the example's application, ordinary sends, that server's own end."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgpack
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from consumer import Publisher

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
READER, WRITER = "reader-" + "r" * 40, "writer-" + "w" * 40
END_S = 20.0


class Served:
    """A hub in a process of another server."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.port = port
        self.process = process
        self.log = log

    def connect(self, wire: str | None = "tradewire.v2.msgpack", token: str = READER) -> connect:
        uri = f"ws://127.0.0.1:{self.port}/api/v1/message/ws"
        if wire is None:
            return connect(f"{uri}?token={token}", proxy=None)
        return connect(
            uri, subprotocols=[wire], additional_headers={"Authorization": f"Bearer {token}"}, proxy=None
        )  # type: ignore[list-item]

    async def publish(self, count: int, pad: int = 0) -> None:
        async with Publisher(f"ws://127.0.0.1:{self.port}", WRITER) as publisher:
            for number in range(count):
                await publisher.publish(
                    "alpha", "entry_fill", {"trade_id": number, "pair": "BTC/USDT" + "x" * pad}
                )

    async def until_it_serves(self) -> None:
        async with httpx.AsyncClient() as client:
            while True:
                assert self.process.poll() is None, self.log.read_text()
                try:
                    if (await client.get(f"http://127.0.0.1:{self.port}/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)

    async def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, END_S)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(command: list[str], directory: Path) -> subprocess.Popen[bytes]:
    env = {"PYTHONPATH": str(ROOT), "HUB_CONFIG": str(directory / "config.json"), "PATH": "/usr/bin:/bin"}
    with (directory / "log").open("wb") as log:
        return subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[Served]:
    port = free_port()
    config = {
        "api_server": {"username": "u", "password": "p" * 40, "jwt_secret_key": "j" * 40, "ws_token": READER},
        "hub": {
            "default_bot": "alpha",
            "publishers": [{"name": "alpha", "token": WRITER, "bots": ["alpha"]}],
            "state_dir": str(directory / "state"),
            "drain_s": 2,
        },
    }
    (directory / "config.json").write_text(json.dumps(config))
    where = ["--workers", "0", "--bind", f"127.0.0.1:{port}", "--access-logfile", "-"]
    command = [sys.executable, "-m", "hypercorn", *where, "examples.asgi_app:app"]
    process = start(command, directory)
    try:
        served = Served(port, process, directory / "log")
        await served.until_it_serves()
        yield served
    finally:
        process.kill()
        process.wait()


async def heard(websocket: ClientConnection, kind: str) -> dict[str, Any]:
    """The next message of this type."""
    while True:
        frame = await websocket.recv()
        message: dict[str, Any] = json.loads(frame) if isinstance(frame, str) else msgpack.unpackb(frame)
        if message["type"] == kind:
            return message


async def subscribe(websocket: ClientConnection) -> None:
    want = {"type": "subscribe", "id": 1, "data": {"want": [{"topics": ["entry_fill"]}]}}
    await websocket.send(msgpack.packb(want))
    await heard(websocket, "hub.reply")


async def closed(websocket: ClientConnection) -> int | None:
    try:
        while True:
            await websocket.recv()
    except ConnectionClosed as error:
        return None if error.rcvd is None else error.rcvd.code


async def test_a_hub_under_hypercorn(tmp_path: Path) -> None:
    async with serving(tmp_path) as hub:
        with pytest.raises(InvalidStatus) as refused:
            async with hub.connect(token="wrong-" + "x" * 40):
                pass
        assert refused.value.response.status_code == 403
        async with hub.connect() as reader, hub.connect(None) as legacy, hub.connect() as stuck:
            await subscribe(reader)
            await subscribe(stuck)
            await legacy.send('{"type":"subscribe","data":["entry_fill"]}')
            await legacy.send('{"type":"ping"}')
            # Nobody reads for this one: it must cost the others nothing.
            stuck.transport.pause_reading()
            await hub.publish(200, pad=20_000)
            offsets = [(await heard(reader, "entry_fill"))["offset"] for _ in range(200)]
            assert offsets == list(range(1, 201))
            assert [(await heard(legacy, "entry_fill"))["trade_id"] for _ in range(200)] == list(range(200))
            # Another server has a bound of its own; the hub's holds there too.
            async with hub.connect() as loud:
                await heard(loud, "hub.welcome")
                await loud.send(bytes(1_500_000))
                assert await closed(loud) == 1009
            stuck.transport.abort()
            ending = asyncio.create_task(closed(reader))
            assert await hub.end() == 0
            assert await ending == 1012
        log = hub.log.read_text()
        assert READER not in log
        assert "Traceback" not in log, log
        assert "/api/v1/message/ws" in log
        # It comes back with its epoch and its offsets.
    async with serving(tmp_path) as hub, hub.connect() as reader:
        assert (await heard(reader, "hub.welcome"))["data"]["head"] == 200
