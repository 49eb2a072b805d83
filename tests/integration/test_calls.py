"""Calls through a real hub: a bot attaches over a real websocket; a v2 client with a JWT and the node call it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection

from consumer.attachment import Attachment
from consumer.errors import Replaced
from hub.bots.attached import AttachedBot
from hub.protocol.calls import BotAnswer, BotRequest
from hub.protocol.errors import BotUnreachable, DeadlinePassed, Overloaded, RequestError, TooLarge
from hub.server import Hub

from .conftest import READER, WRITER, Clients, ask, fill, heard, say

pytestmark = pytest.mark.anyio


class Bot:
    """A bot's REST: what it answers by path, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[BotRequest] = []
        self.gate = asyncio.Event()

    async def answer(self, request: BotRequest) -> BotAnswer:
        self.asked.append(request)
        if request.path == "/slow":
            await self.gate.wait()
        if request.path == "/large":
            return BotAnswer(status=200, body=["x" * 1023] * (5 * 1024))
        if request.path == "/too_large":
            return BotAnswer(status=200, body="x" * (9 << 20))
        return BotAnswer(status=200, body={"path": request.path, "body": request.body})


def url(hub: Hub) -> str:
    return hub.url.replace("http", "ws", 1)


@asynccontextmanager
async def attached(hub: Hub, bot: Bot, **more: Any) -> AsyncIterator[Attachment]:
    async with Attachment(url(hub), WRITER, "alpha", bot.answer, **more) as attachment:
        await attachment.ready()
        yield attachment


async def of_hub(hub: Hub, path: str, *, bot: str = "alpha", deadline_ms: int = 10_000) -> tuple[int, Any]:
    """What REST does: asks through the adapter, on the hub's loop."""
    node, loop = hub._node, hub._loop
    assert node is not None
    assert loop is not None
    adapter = AttachedBot(bot, node.call, deadline_ms=deadline_ms)
    future = asyncio.run_coroutine_threadsafe(adapter.request("GET", path, "", None, "user:somebody"), loop)
    status, body = await asyncio.wrap_future(future)
    return status, json.loads(body)


async def access_token(hub: Hub) -> str:
    async with httpx.AsyncClient() as client:
        answer = await client.post(
            f"{hub.url}/api/v1/token/login", auth=("somebody", "a-long-password-1"), timeout=10
        )
        token: str = answer.json()["access_token"]
        return token


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition of another thread or task holds, at most 5 s."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def call(number: int, path: str = "/status", **more: Any) -> dict[str, Any]:
    return {"type": "call", "id": number, "data": {"bot": "alpha", "method": "GET", "path": path, **more}}


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
async def test_a_user_calls_a_bot_without_a_port(hub: Hub, clients: Clients, encoding: Any) -> None:
    bot = Bot()
    async with clients.v2(await access_token(hub)) as user, clients.v2(READER) as reader:
        assert (await ask(user, call(1)))["error"]["code"] == "bot_gone"
        async with attached(hub, bot, encoding=encoding):
            assert (await heard(reader))["data"] == {"bot": "alpha", "online": True}
            request = call(2, "/forceenter", method="POST", body={"pair": "A/B"}, query="a=b", key="k")
            for _ in range(2):
                assert (await ask(user, request))["data"] == {
                    "status": 200,
                    "body": {"path": "/forceenter", "body": {"pair": "A/B"}},
                }
            assert bot.asked == [
                BotRequest(
                    method="POST",
                    path="/forceenter",
                    query="a=b",
                    body={"pair": "A/B"},
                    principal="user:somebody",
                    key="k",
                )
            ]
            assert (await ask(reader, call(3)))["error"]["code"] == "forbidden"
            assert await of_hub(hub, "/status") == (200, {"path": "/status", "body": None})
        assert (await heard(reader))["data"] == {"bot": "alpha", "online": False}
        with pytest.raises(BotUnreachable):
            await of_hub(hub, "/status")


async def test_a_slow_bot_costs_its_caller_the_deadline_and_nobody_else_anything(
    hub: Hub, clients: Clients
) -> None:
    bot = Bot()
    async with attached(hub, bot) as attachment, clients.v2(await access_token(hub)) as user:
        await say(user, call(1, "/slow", deadline_ms=200))
        slow = asyncio.create_task(of_hub(hub, "/slow", deadline_ms=250))
        assert (await ask(user, call(2)))["data"]["status"] == 200
        answer = await heard(user)
        assert (answer["id"], answer["error"]["code"]) == (1, "deadline")
        assert answer["error"]["data"] == {"outcome": "unknown"}
        with pytest.raises(DeadlinePassed):
            await slow
        await say(user, call(3, "/slow"))
        answer = await ask(user, {"type": "cancel", "id": 4, "data": {"id": 3}})
        # The call's own reply comes first and is thrown away by `ask`.
        assert answer["data"] == {"cancelled": True}
        await until(lambda: not attachment.statistics()["in_hand"])
        assert hub.statistics()["calls"]["in_flight"] == 0


async def test_the_bots_socket_dies_in_the_middle(hub: Hub, clients: Clients) -> None:
    async with clients.v2(await access_token(hub)) as user:
        async with clients.v2(WRITER) as socket:
            await ask(socket, {"type": "attach", "id": 1, "data": {"bot": "alpha"}})
            await say(user, call(1))
            while (await heard(socket))["type"] != "hub.call":
                pass
            socket.transport.abort()
            while (answer := await heard(user)).get("id") != 1:
                pass
        assert answer["error"]["code"] == "bot_gone"
        assert answer["error"]["data"] == {"outcome": "unknown"}


async def test_an_attachment_that_is_replaced_stops(hub: Hub) -> None:
    old, new = Bot(), Bot()
    async with attached(hub, old) as first:
        asked = asyncio.create_task(of_hub(hub, "/slow"))
        await until(lambda: old.asked)
        async with attached(hub, new):
            with pytest.raises(BotUnreachable):
                await asked
            await until(lambda: not first.statistics()["attached"])
            with pytest.raises(Replaced, match="a newer attachment of alpha"):
                await first.ready()
            assert (await of_hub(hub, "/status"))[0] == 200
    assert [r.path for r in new.asked] == ["/status"]


async def test_the_33rd_call_is_too_many(hub: Hub) -> None:
    bot = Bot()
    async with attached(hub, bot, at_once=4):
        asked = [asyncio.create_task(of_hub(hub, "/slow")) for _ in range(32)]
        await until(lambda: hub.statistics()["calls"]["in_flight"] == 32)
        with pytest.raises(Overloaded, match="32 calls wait"):
            await of_hub(hub, "/status")
        bot.gate.set()
        assert {status for status, _ in await asyncio.gather(*asked)} == {200}


async def test_large_results_pass_and_delay_no_fill(hub: Hub, clients: Clients) -> None:
    bot = Bot()
    async with attached(hub, bot), clients.v2(READER) as reader, clients.v2(await access_token(hub)) as user:
        await ask(reader, {"type": "subscribe", "id": 1, "data": {"want": [{"topics": ["entry_fill"]}]}})
        reading = asyncio.create_task(_fills(reader, 400))
        asked = [asyncio.create_task(of_hub(hub, "/large")) for _ in range(4)]
        for i in range(400):
            hub.publish("entry_fill", fill(i))
            if i % 20 == 0:
                await asyncio.sleep(0)
        for status, body in await asyncio.gather(*asked):
            assert (status, len(body), set(body)) == (200, 5 * 1024, {"x" * 1023})
        async with asyncio.timeout(10):
            assert await reading == list(range(400))
        # Its hello did not say that it takes as much.
        assert (await ask(user, call(2, "/large")))["error"]["code"] == "too_large"
        assert await of_hub(hub, "/too_large") == (
            502,
            {"error": "Error querying /api/v1/too_large: the answer has over 8388608 bytes"},
        )


async def _fills(websocket: ClientConnection, count: int) -> list[int]:
    received: list[int] = []
    while len(received) < count:
        message = await heard(websocket)
        if message["type"] == "entry_fill":
            received.append(message["data"]["trade_id"])
    return received


async def test_results_are_bounded_by_the_hub_too(hub: Hub, clients: Clients) -> None:
    async with clients.v2(WRITER) as socket:
        await ask(socket, {"type": "attach", "id": 1, "data": {"bot": "alpha"}})
        asked = asyncio.create_task(of_hub(hub, "/x"))
        number = await _call_number(socket)
        await say(
            socket, {"type": "result", "data": {"call": number, "status": 200, "body": "x" * (8 << 20)}}
        )
        with pytest.raises(TooLarge):
            await asked
        assert (await heard(socket))["data"]["code"] == "too_large"


async def _call_number(socket: ClientConnection) -> int:
    while (message := await heard(socket))["type"] != "hub.call":
        pass
    number: int = message["data"]["call"]
    return number


async def test_a_bot_that_does_not_take_a_path(hub: Hub) -> None:
    async with attached(hub, Bot(), paths=["GET /status"]):
        assert (await of_hub(hub, "/status"))[0] == 200
        with pytest.raises(RequestError, match="does not answer GET /balance"):
            await of_hub(hub, "/balance")
