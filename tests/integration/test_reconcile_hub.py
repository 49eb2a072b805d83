"""A hub whose upstream fills while nobody listens: the missed fills come back over REST, as its configuration says.

The upstream is a small server with freqtrade's login, its websocket and its two routes of trades; the real one is in tests/interop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from hub import server
from hub.reconciler import ReconcileLimits, Reconciler
from hub.server import Hub

from .conftest import ALPHA, BETA, CONFIG, READER, Clients, ask, fill, heard

pytestmark = pytest.mark.anyio

NAME = "maker"
LOGIN = {"username": "theirs", "password": "their-password-canary"}
USER = ("somebody", "a-long-password-1")
BUY = {"trade_id": 7, "pair": "BTC/USDT"}


class Maker:
    """A freqtrade as far as its fills go. `trades` are its open ones; whoever listens is told."""

    def __init__(self) -> None:
        self.trades: list[dict[str, Any]] = []
        self.listeners: set[WebSocket] = set()
        self.answer: Callable[[], Response] | None = None

    def app(self) -> Starlette:
        routes: list[Any] = [
            Route("/api/v1/token/login", self.login, methods=["POST"]),
            Route("/api/v1/status", self.status),
            Route("/api/v1/trades", self.closed),
            WebSocketRoute("/api/v1/message/ws", self.websocket),
        ]
        return Starlette(routes=routes)

    def fill(self, number: int) -> None:
        """A trade is opened; nobody is told."""
        now_ms = time.time_ns() // 1_000_000
        bought = {
            "order_id": f"o{number}",
            "ft_order_side": "buy",
            "is_open": False,
            "filled": 0.1,
            "safe_price": 100.0,
            "order_type": "limit",
            "order_filled_timestamp": now_ms,
        }
        self.trades.append(
            {
                "trade_id": number,
                "pair": "BTC/USDT",
                "is_open": True,
                "open_timestamp": now_ms,
                "exchange": "binance",
                "orders": [bought],
            }
        )

    async def tell(self, number: int) -> None:
        """The fill of a trade as the bot sends it."""
        (row,) = [row for row in self.trades if row["trade_id"] == number]
        message = {"type": "entry_fill", **fill(number), "novelty": [row["open_timestamp"]]}
        for listener in self.listeners:
            await listener.send_text(json.dumps(message))

    async def cut(self) -> None:
        """End every websocket."""
        for listener in list(self.listeners):
            await listener.close(1001)

    async def login(self, _request: Request) -> Response:
        return JSONResponse({"access_token": "a", "refresh_token": "r"})

    async def status(self, _request: Request) -> Response:
        return self.answer() if self.answer is not None else JSONResponse(self.trades)

    async def closed(self, _request: Request) -> Response:
        return JSONResponse({"trades": [], "trades_count": 0, "offset": 0, "total_trades": 0})

    async def websocket(self, websocket: WebSocket) -> None:
        await websocket.accept()
        self.listeners.add(websocket)
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await websocket.receive_text()
        self.listeners.discard(websocket)


@contextlib.asynccontextmanager
async def serving(maker: Maker) -> AsyncIterator[int]:
    sock = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(
        uvicorn.Config(
            maker.app(), log_config=None, lifespan="off", timeout_graceful_shutdown=1, ws="websockets-sansio"
        )
    )
    task = asyncio.create_task(running.serve(sockets=[sock]))
    try:
        yield int(sock.getsockname()[1])
    finally:
        running.should_exit = True
        await task


@contextlib.asynccontextmanager
async def world(monkeypatch: pytest.MonkeyPatch, reconcile: str) -> AsyncIterator[tuple[Maker, Hub]]:
    limits = ReconcileLimits(settle_s=0.0, grace_s=0.05, publish_grace_s=0.05)
    monkeypatch.setattr(server, "Reconciler", lambda node, registry: Reconciler(node, registry, limits))
    maker = Maker()
    async with serving(maker) as port:
        upstream = {
            "name": NAME, "host": "127.0.0.1", "port": port, "ws_token": READER, "reconcile": reconcile, **LOGIN,
        }  # fmt: skip
        hub = Hub({**CONFIG, "hub": {**CONFIG["hub"], "upstreams": [upstream], "default_bot": NAME}})
        await asyncio.to_thread(hub.start)
        try:
            await until(lambda: bool(maker.listeners))
            yield maker, hub
        finally:
            await asyncio.to_thread(hub.stop)


async def until(found: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not found():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def figures(hub: Hub) -> dict[str, int]:
    known = hub.statistics()["reconciliation"].get(NAME, {})
    return {name: known.get(name, 0) for name in ("runs", "failed", "missing", "published", "waiting")}


def compared(hub: Hub) -> bool:
    """Whether the run after the first link has ended."""
    return figures(hub)["runs"] >= 1 and not figures(hub)["waiting"]


async def rest(hub: Hub, method: str, path: str, **keys: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=hub.url, trust_env=False, auth=USER) as client:
        return await client.request(method, f"/api/v1/{path}", **keys)


async def ledger(hub: Hub) -> list[tuple[int, str | None]]:
    """The trade and the source of every fill."""
    answer = await rest(hub, "GET", "fills")
    return [(f["data"]["trade_id"], f["data"].get("source")) for f in answer.json()["fills"]]


async def test_what_was_missed_is_published_once_and_a_consumer_gets_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world(monkeypatch, "publish") as (maker, hub), Clients(hub).v2(READER) as websocket:
        want = {"want": [{"topics": ["entry_fill"]}]}
        await ask(websocket, {"type": "subscribe", "id": 1, "data": want})
        maker.fill(1)
        await maker.tell(1)
        assert (await heard(websocket))["data"]["trade_id"] == 1
        await until(lambda: compared(hub))

        maker.fill(2)
        await maker.cut()
        messages = [await heard(websocket) for _ in range(4)]
        (reconciled,) = [m for m in messages if m["type"] == "entry_fill"]
        assert (
            reconciled["data"] | {"trade_id": 2, "source": "reconciled", "order_id": "o2"}
            == reconciled["data"]
        )
        (told,) = [m["data"] for m in messages if m["type"] == "hub.reconciled"]
        assert told == {"bot": NAME, "missing": 1, "published": 1, "unknown": 0}
        # The link went down and up.
        assert [m["data"]["online"] for m in messages if m["type"] == "hub.bot"] == [False, True]

        answer = await rest(hub, "POST", "reconcile", json={"publish": True})
        assert (answer.status_code, answer.json()["missing"], answer.json()["published"]) == (200, [], 0)
        assert await ledger(hub) == [(1, None), (2, "reconciled")]


async def test_what_was_missed_is_reported_and_published_when_asked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(monkeypatch, "report") as (maker, hub):
        maker.fill(1)
        await maker.cut()
        await until(lambda: figures(hub)["missing"] == 1)
        assert "bot maker: missed: entry_fill of trade 1" in caplog.text
        assert await ledger(hub) == []
        orders = [rest(hub, "POST", "reconcile", json={"bot": NAME, "publish": True}) for _ in range(3)]
        answers = [answer.json() for answer in await asyncio.gather(*orders)]
        assert sorted(answer["published"] for answer in answers) == [0, 0, 1]
        assert await ledger(hub) == [(1, "reconciled")]
        assert (figures(hub)["missing"], figures(hub)["published"]) == (0, 1)


async def test_a_bot_that_lies_or_is_gone_costs_its_run_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(monkeypatch, "publish") as (maker, hub):
        await until(lambda: compared(hub))
        for answer, expected in (
            (Response("<html>"), "cannot be reconciled"),
            (JSONResponse([{"trade_id": "1"}]), "trade_id"),
            (JSONResponse({"detail": "no"}, 503), "GET /status with 503"),
        ):
            maker.answer = lambda answer=answer: answer  # type: ignore[misc]
            refused = await rest(hub, "POST", "reconcile", json={})
            assert refused.status_code == 502
            assert expected in refused.json()["error"]
        maker.fill(1)
        await maker.tell(1)
        await until(lambda: hub.statistics()["log"]["entries"] == 1)
        assert figures(hub)["failed"] == 3


async def test_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(monkeypatch, "off") as (_, hub):
        hub.publish("entry_fill", fill(1), bot="alpha").result(10)
        assert figures(hub)["runs"] == 0
        assert (await rest(hub, "POST", "reconcile", json={"bot": "alpha"})).status_code == 502
        assert (await rest(hub, "POST", "reconcile", json={"bot": "nobody"})).status_code == 404
        async with httpx.AsyncClient(base_url=hub.url, trust_env=False) as client:
            for token, seen in ((READER, [1]), (ALPHA, [1]), (BETA, [])):
                headers = {"Authorization": f"Bearer {token}"}
                answer = await client.get("/api/v1/fills?bot=alpha", headers=headers)
                assert [f["offset"] for f in answer.json()["fills"]] == seen
                refused = await client.post("/api/v1/reconcile", headers=headers, json={})
                assert refused.status_code == 401
