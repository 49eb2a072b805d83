"""A whole hub over real sockets: rights, bots apart, slow clients, the end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hub.protocol.errors import Draining
from hub.server import Hub

from .conftest import ALPHA, BETA, READER, WRITER, Clients, ask, fill, heard, say, settled

pytestmark = pytest.mark.anyio


def publication(number: int, bot: str, topic: str, data: Any, **more: Any) -> dict[str, Any]:
    return {"type": "publish", "id": number, "data": {"bot": bot, "topic": topic, "data": data, **more}}


async def test_a_plain_ws_token_only_reads(clients: Clients) -> None:
    async with clients.v2(READER) as reader:
        answer = await ask(reader, publication(1, "alpha", "entry_fill", fill(1), mid="m1"))
        assert answer["ok"] is False
        assert answer["error"]["code"] == "forbidden"
        assert answer["error"]["temporary"] is False


async def test_a_publisher_publishes_only_as_its_bots(clients: Clients) -> None:
    async with clients.v2(WRITER) as writer:
        assert (await ask(writer, publication(1, "alpha", "entry_fill", fill(1), mid="m1")))["ok"] is True
        answer = await ask(writer, publication(2, "gamma", "entry_fill", fill(1), mid="m2"))
        assert answer["error"]["code"] == "forbidden"


async def test_a_repetition_is_told_and_not_delivered_twice(clients: Clients) -> None:
    async with clients.v2(WRITER) as writer, clients.v2(READER) as reader:
        await ask(reader, {"type": "subscribe", "id": 1, "data": {"want": [{"topics": ["entry_fill"]}]}})
        first = await ask(writer, publication(1, "alpha", "entry_fill", fill(1), mid="m1"))
        again = await ask(writer, publication(2, "alpha", "entry_fill", fill(1), mid="m1"))
        other = await ask(writer, publication(3, "alpha", "entry_fill", fill(2), mid="m1"))
        await ask(writer, publication(4, "alpha", "entry_fill", fill(3), mid="m2"))
        assert again["data"] == first["data"] | {"duplicate": True}
        assert other["error"]["code"] == "id_conflict"
        assert [(await heard(reader))["data"]["trade_id"] for _ in range(2)] == [1, 3]


async def test_two_bots_never_mix_on_a_legacy_socket(hub: Hub, clients: Clients) -> None:
    async with (
        clients.legacy(ALPHA) as alpha,
        clients.legacy(BETA) as beta,
        clients.legacy(READER) as default,
    ):
        for websocket in (alpha, beta, default):
            await say(websocket, {"type": "subscribe", "data": ["whitelist", "entry_fill", "status"]})
            await settled(websocket)
        for i in range(20):
            bot = ("alpha", "beta")[i % 2]
            hub.publish("entry_fill", fill(i), bot=bot).result(5)
            hub.publish("whitelist", [f"{bot}{i}/USDT"], bot=bot).result(5)
            hub.publish("status", {"status": f"{bot} {i}"}, bot=bot).result(5)
        assert await _trades(alpha) == await _trades(default) == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
        assert await _trades(beta) == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]
        await say(beta, {"type": "whitelist", "data": ""})
        assert await heard(beta) == {"type": "whitelist", "data": ["beta19/USDT"]}


async def _trades(websocket: ClientConnection) -> list[int]:
    received = [await heard(websocket) for _ in range(30)]
    return [message["trade_id"] for message in received if message["type"] == "entry_fill"]


async def test_bad_credentials_are_refused_before_the_upgrade(clients: Clients) -> None:
    for token in ("", "wrong", "w%C3%BCrg", READER + "x"):
        with pytest.raises(InvalidStatus) as refused:
            async with clients.legacy(token):
                pass
        assert refused.value.response.status_code == 403


async def test_a_client_that_does_not_read_delays_nobody(hub: Hub, clients: Clients) -> None:
    async with clients.legacy(READER, max_queue=1) as stuck, clients.legacy(READER) as healthy:
        for websocket in (stuck, healthy):
            await say(websocket, {"type": "subscribe", "data": ["entry_fill"]})
            await settled(websocket)
        stuck.transport.pause_reading()
        reading = asyncio.create_task(_read(healthy, 3000))
        for start in range(0, 3000, 100):
            done = [
                hub.publish("entry_fill", fill(i) | {"reason": "x" * 2000}) for i in range(start, start + 100)
            ]
            await asyncio.to_thread(done[-1].result, 10)
        async with asyncio.timeout(20):
            assert await reading == list(range(3000))
        figures = hub.statistics()
        assert figures["core"]["stragglers"] == 1
        assert figures["node"]["unsent_bytes"] < 2_000_000
        stuck.transport.resume_reading()
        async with asyncio.timeout(20):
            assert await _read(stuck, 3000) == list(range(3000))


async def _read(websocket: ClientConnection, count: int) -> list[int]:
    return [json.loads(await websocket.recv())["trade_id"] for _ in range(count)]


async def test_a_stop_tells_when_to_come_back(hub: Hub, clients: Clients) -> None:
    async with clients.v2(READER) as v2, clients.legacy(READER) as legacy:
        await settled(legacy)
        stopping = asyncio.create_task(asyncio.to_thread(hub.stop))
        assert (await heard(v2))["type"] == "hub.drain"
        for websocket in (v2, legacy):
            with pytest.raises(ConnectionClosed) as closed:
                await heard(websocket)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1012, "retry_after_ms=1000")
        await stopping
    with pytest.raises(Draining):
        hub.publish("status", {"status": "running"})


async def test_from_earliest_brings_what_the_ledger_still_holds(hub: Hub, clients: Clients) -> None:
    for i in range(3):
        hub.publish("entry_fill", fill(i)).result(5)
    async with clients.v2(READER) as reader:
        want = [{"topics": ["entry_fill"]}]
        answer = await ask(reader, {"type": "subscribe", "id": 1, "data": {"want": want, "from": "earliest"}})
        assert answer["data"]["offset"] == 0
        received = [await heard(reader) for _ in range(3)]
        assert [(m["offset"], m["prev"], m["data"]["trade_id"]) for m in received] == [
            (1, 0, 0),
            (2, 1, 1),
            (3, 2, 2),
        ]
        hub.publish("entry_fill", fill(3)).result(5)
        assert (await heard(reader))["data"]["trade_id"] == 3


async def test_a_live_session_takes_a_new_credential_of_its_principal(hub: Hub, clients: Clients) -> None:
    async with clients.v2(READER) as reader:
        again = await ask(reader, {"type": "auth", "id": 1, "data": {"token": READER}})
        assert again == {"type": "hub.reply", "id": 1, "ok": True, "data": {"expires_ms": None}}
        wrong = await ask(reader, {"type": "auth", "id": 2, "data": {"token": "no such token"}})
        assert wrong["error"]["code"] == "token_expired"
        other = await ask(reader, {"type": "auth", "id": 3, "data": {"token": WRITER}})
        assert other["error"]["code"] == "forbidden"
        want = [{"topics": ["analyzed_df"], "pairs": ["NO/NE"]}]
        answer = await ask(reader, {"type": "subscribe", "id": 4, "data": {"want": want}})
        assert answer["data"]["missing_keys"] == [["analyzed_df", "NO/NE"]]
