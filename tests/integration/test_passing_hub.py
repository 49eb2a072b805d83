"""A hub whose upstream's REST it may use. The upstream is another hub: it has freqtrade's login and wire."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from hub.server import Hub, _bound

from .conftest import CONFIG, READER, fill, heard, say, settled

pytestmark = pytest.mark.anyio

NAME = "my bot/ä"
HERE = f"/bots/{quote(NAME, safe='')}"
MAKER = {"username": "theirs", "password": "their-password-canary"}
UI = "http://ui.example"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def maker(port: int = 0, key: str = "m" * 40) -> Hub:
    server = {**CONFIG["api_server"], **MAKER, "listen_port": port, "jwt_secret_key": key}
    return Hub(
        {"api_server": server, "hub": {"default_bot": "theirs", "drain_s": 1, "ledger": {"kind": "memory"}}}
    )


def hub_of(port: int, **changes: Any) -> Hub:
    upstream = {
        "name": NAME,
        "host": "127.0.0.1",
        "port": port,
        "ws_token": READER,
        "reconcile": "off",
        **MAKER,
        **changes,
    }
    server = {**CONFIG["api_server"], "CORS_origins": [UI]}
    return Hub({"api_server": server, "hub": {**CONFIG["hub"], "upstreams": [upstream], "default_bot": NAME}})


def client_of(hub: Hub) -> httpx.Client:
    return httpx.Client(base_url=hub.url, auth=("somebody", "a-long-password-1"), trust_env=False)


def test_the_bot_answers_through_the_hub_and_comes_back(stack: ExitStack) -> None:
    upstream = stack.enter_context(maker())
    hub = stack.enter_context(hub_of(upstream.port))
    client = stack.enter_context(client_of(hub))
    for base in ("/api/v1", f"{HERE}/api/v1"):
        answer = client.get(f"{base}/show_config", headers={"Origin": UI})
        assert answer.json()["bot_name"] == "theirs"
        assert answer.headers["access-control-allow-origin"] == UI
        answer = client.get(f"{base}/whitelist")
        assert (answer.status_code, answer.json()) == (
            502,
            {"error": "Error querying /api/v1/whitelist: bot theirs has not published a whitelist yet"},
        )
        assert client.get(f"{base}/nope").json() == {"detail": "Not Found"}
        assert client.get(f"{base}/version", auth=("somebody", "wrong")).status_code == 401
        assert client.get("/bots/alpha/api/v1/show_config").status_code == 404
    upstream.stop()
    gone = client.get(f"{HERE}/api/v1/count")
    assert (gone.status_code, gone.json()) == (
        502,
        {"error": f"Error querying /api/v1/count: bot {NAME} is out of reach"},
    )
    stack.enter_context(maker(upstream.port, "n" * 40))
    assert client.get(f"{HERE}/api/v1/version").status_code == 200
    figures = hub.statistics()["bots"][NAME]
    assert (figures["logins"], figures["in_flight"], figures["held_bytes"]) == (2, 0, 0)


def test_a_wrong_password_is_never_the_clients_401(
    stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    upstream = stack.enter_context(maker())
    hub = stack.enter_context(hub_of(upstream.port, password="wrong-password-canary"))
    client = stack.enter_context(client_of(hub))
    for _ in range(2):
        assert client.get("/api/v1/version").status_code == 502
    assert client.get("/api/v1/ping").json() == {"status": "pong"}
    told = [record.getMessage() for record in caplog.records if record.name == "tradewire.bots"]
    assert len(told) == 1
    assert "refuses user theirs" in told[0]
    assert "canary" not in caplog.text


async def test_a_legacy_client_sees_the_bot_of_its_path(stack: ExitStack) -> None:
    hub = stack.enter_context(Hub(CONFIG))
    url = f"ws://127.0.0.1:{hub.port}/bots/{{}}/api/v1/message/ws?token={READER}"
    hub.publish("status", {"status": "running"}, bot=NAME).result()
    hub.publish("status", {"status": "running"}, bot="beta").result()
    async with (
        connect(url.format(quote(NAME, safe="")), compression=None) as mine,
        connect(url.format("beta"), compression=None) as beta,
    ):
        for websocket in (mine, beta):
            await say(websocket, {"type": "subscribe", "data": ["entry_fill"]})
            await settled(websocket)
        for number, bot in enumerate((NAME, "beta")):
            hub.publish("entry_fill", fill(number), bot=bot, mid=f"m{number}").result()
        for number, websocket in enumerate((mine, beta)):
            assert (await heard(websocket))["trade_id"] == number
    with pytest.raises(InvalidStatus) as refused:
        await connect(url.format("nobody"), compression=None)
    assert refused.value.response.status_code == 403


async def test_no_answer_waits_for_the_acknowledgement_of_its_head() -> None:
    accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    server = await asyncio.start_server(
        lambda _reader, writer: accepted.put_nowait(writer), sock=_bound("127.0.0.1", 0)
    )
    async with server:
        _, client = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer = await accepted.get()
        assert writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        writer.close()
        client.close()
        await asyncio.gather(writer.wait_closed(), client.wait_closed())
