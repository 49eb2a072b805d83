"""A whole hub over real sockets: JWTs that end, tickets on both wires, and guesses through a proxy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from hub.server import Hub

from .conftest import CONFIG, READER, Clients, ask, heard, settled

pytestmark = pytest.mark.anyio

JWT_KEY = CONFIG["api_server"]["jwt_secret_key"]
V2 = [Subprotocol("tradewire.v2.json")]


def access(user: str = "somebody", seconds: int = 900) -> str:
    now = int(time.time())
    claims = {"identity": {"u": user}, "exp": now + seconds, "iat": now, "type": "access"}
    return jwt.encode(claims, JWT_KEY, "HS256")


async def closed(websocket: ClientConnection) -> int:
    try:
        while True:
            await heard(websocket)
    except ConnectionClosed as end:
        return end.rcvd.code if end.rcvd is not None else 1006


async def ticket(hub: Hub, headers: dict[str, str]) -> str:
    async with httpx.AsyncClient() as page:
        answer = await page.post(f"{hub.url}/api/v1/ws_ticket", headers=headers, json={})
    assert answer.status_code == 200
    return str(answer.json()["ticket"])


async def test_a_websocket_ends_when_its_jwt_does_unless_it_is_renewed(clients: Clients) -> None:
    short = access(seconds=2)
    async with clients.v2(short) as v2, clients.v2(short) as renewed, clients.legacy(short) as legacy:
        for websocket in (v2, renewed):
            notice = await heard(websocket)
            assert notice["type"] == "hub.token_expiring"
        other = await ask(renewed, {"type": "auth", "id": 1, "data": {"token": access("else")}})
        assert other["error"]["code"] == "forbidden"
        answer = await ask(renewed, {"type": "auth", "id": 2, "data": {"token": access()}})
        assert answer["ok"] is True
        assert [await closed(v2), await closed(legacy)] == [4401, 4401]
        assert (await ask(renewed, {"type": "ping", "id": 3}))["ok"] is True


async def test_a_ticket_opens_either_wire_once_and_ends_with_its_jwt(hub: Hub) -> None:
    url = f"ws://127.0.0.1:{hub.port}/api/v1/message/ws?ticket="
    bearer = {"Authorization": f"Bearer {access(seconds=2)}"}
    page = {"Origin": hub.url}
    one, two, three = [await ticket(hub, bearer | page) for _ in range(3)]
    async with (
        connect(url + one, subprotocols=V2, origin=Origin(hub.url)) as v2,
        connect(url + two, origin=Origin(hub.url)) as legacy,
    ):
        assert (await heard(v2))["data"]["principal"] == {
            "name": "user:somebody",
            "scopes": ["read:*", "control:*"],
        }
        await settled(legacy)
        for used, origin in ((one, Origin(hub.url)), (three, None)):
            with pytest.raises(InvalidStatus) as refused:
                async with connect(url + used, subprotocols=V2, origin=origin):
                    pass
            assert refused.value.response.status_code == 403
        assert hub.statistics()["auth"]["tickets"] == 0
        assert [await closed(v2), await closed(legacy)] == [4401, 4401]


async def test_an_attacker_is_refused_before_the_upgrade_and_its_neighbours_are_not(
    hub: Hub, clients: Clients
) -> None:
    refusals = []
    for _ in range(22):
        with pytest.raises(InvalidStatus) as refused:
            async with clients.legacy("guess"):
                pass
        refusals.append(refused.value.response)
    assert [response.status_code for response in refusals[:20]] == [403] * 20
    assert refusals[-1].status_code == 429
    assert refusals[-1].headers["Retry-After"] in ("1", "2", "3")
    async with clients.legacy(READER), clients.v2(access()):
        figures = hub.statistics()
    assert figures["edge"]["refused"]["429"] >= 1
    assert figures["auth"]["throttled"] >= 1


@pytest.fixture(params=[["127.0.0.1"], []], ids=["trusted", "untrusted"])
def proxied(request: pytest.FixtureRequest) -> Iterator[tuple[Hub, bool]]:
    config: dict[str, Any] = {**CONFIG, "hub": {**CONFIG["hub"], "trusted_proxies": request.param}}
    with Hub(config) as running:
        yield running, bool(request.param)


async def test_a_proxys_word_on_the_address_counts_if_it_is_trusted(proxied: tuple[Hub, bool]) -> None:
    hub, trusted = proxied
    wrong = {"Authorization": "Bearer guess"}
    async with httpx.AsyncClient(base_url=f"{hub.url}/api/v1") as proxy:
        for i in range(21):
            # What the client wrote itself stands before what the proxy appends.
            claimed = {"X-Forwarded-For": f"192.0.2.{i}, 198.51.100.7"}
            last = await proxy.get("/version", headers=wrong | claimed)
    assert last.status_code == 429
    url = f"ws://127.0.0.1:{hub.port}/api/v1/message/ws?token="
    for address, status in (("198.51.100.7", 429), ("203.0.113.9", 403 if trusted else 429)):
        headers = {"X-Forwarded-For": address}
        with pytest.raises(InvalidStatus) as refused:
            async with connect(url + "guess", additional_headers=headers):
                pass
        assert refused.value.response.status_code == status
        async with connect(url + READER, additional_headers=headers) as websocket:
            await settled(websocket)
