"""A real hub on a free port of 127.0.0.1, and clients of both wires."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from hub.server import Hub

READER = "reader-token-0123456789abcdefghijkl"
ALPHA = "alpha-token-0123456789abcdefghijklm"
BETA = "beta-token-0123456789abcdefghijklmn"
WRITER = "writer-token-0123456789abcdefghijkl"
CONFIG: dict[str, Any] = {
    "api_server": {
        "listen_port": 0,
        "username": "somebody",
        "password": "a-long-password-1",
        "jwt_secret_key": "jwt-key-0123456789abcdefghijklmnopq",
        "ws_token": READER,
    },
    "hub": {
        "default_bot": "alpha",
        "tokens": [{"token": ALPHA, "bot": "alpha"}, {"token": BETA, "bot": "beta"}],
        "publishers": [{"name": "writer", "token": WRITER, "bots": ["alpha", "beta"]}],
        "drain_s": 2,
    },
}


class Clients:
    """Opens websockets to one hub."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    @asynccontextmanager
    async def legacy(self, token: str, **options: Any) -> AsyncIterator[ClientConnection]:
        """A client of freqtrade's wire."""
        url = f"ws://127.0.0.1:{self.hub.port}/api/v1/message/ws?token={token}"
        async with connect(url, compression=None, **options) as websocket:
            yield websocket

    @asynccontextmanager
    async def v2(self, token: str, **options: Any) -> AsyncIterator[ClientConnection]:
        """A client of the JSON wire, past its welcome."""
        url = f"ws://127.0.0.1:{self.hub.port}/api/v1/message/ws"
        headers = {"Authorization": f"Bearer {token}"}
        async with connect(
            url,
            compression=None,
            subprotocols=[Subprotocol("tradewire.v2.json")],
            additional_headers=headers,
            **options,
        ) as websocket:
            assert (await heard(websocket))["type"] == "hub.welcome"
            yield websocket


async def say(websocket: ClientConnection, message: dict[str, Any]) -> None:
    """Send one message."""
    await websocket.send(json.dumps(message))


async def heard(websocket: ClientConnection, *, positions: bool = False) -> dict[str, Any]:
    """The next message that is no position, unless those are asked for too, within 10 s."""
    async with asyncio.timeout(10):
        while True:
            message: dict[str, Any] = json.loads(await websocket.recv())
            if positions or message["type"] != "hub.position":
                return message


async def ask(websocket: ClientConnection, request: dict[str, Any]) -> dict[str, Any]:
    """Send a request and wait for its reply; what comes before it is thrown away."""
    await say(websocket, request)
    while True:
        message = await heard(websocket)
        if message.get("id") == request["id"]:
            return message


async def settled(websocket: ClientConnection) -> None:
    """Wait until the hub has handled what a legacy client sent before."""
    await say(websocket, {"type": "no_such_request"})
    while (await heard(websocket))["type"] != "exception":
        pass


def fill(trade_id: int, pair: str = "BTC/USDT") -> dict[str, Any]:
    """The fields of an entry_fill."""
    return {"trade_id": trade_id, "pair": pair, "amount": 0.1, "open_rate": 100.0}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub(CONFIG) as running:
        yield running


@pytest.fixture
def clients(hub: Hub) -> Clients:
    return Clients(hub)
