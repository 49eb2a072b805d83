"""The REST mount as the hub mounts it, with a node of the tests' own, spoken to in process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import httpx
from auth.credentials import NOW_MS, config
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount

from hub.auth.authenticator import Authenticator
from hub.bots.hub_bot import Candles
from hub.bots.ports import InProcess, Requester
from hub.bots.registry import BotRegistry
from hub.core.ledger import Found, Query
from hub.log.memory import MemoryLog
from hub.protocol.ledger_answers import Reconciliation
from hub.protocol.principal import Principal
from hub.rest.app import RestSettings, build_rest

BASE = "http://hub.example:8080"
AGREED = Reconciliation(
    bot="alpha",
    epoch="e1",
    since_ms=0,
    skew_ms=0,
    trades=0,
    fills=0,
    messages=0,
    complete=True,
    damaged=0,
    missing_count=0,
    unknown_count=0,
    published=0,
    refused=0,
    missing=[],
    unknown=[],
)


class Node:
    """Knows a bot, remembers what was published."""

    def __init__(self) -> None:
        self.pairs: list[str] | None = ["BTC/USDT", "ETH/USDT:USDT"]
        self.frames: dict[tuple[str, str], Candles] = {}
        self.published: list[tuple[Principal, Mapping[str, Any]]] = []
        self.log = MemoryLog("e1", 1 << 20)
        self.queries: list[Query] = []
        self.reconciled: list[tuple[str, bool, int | None]] = []
        self.reconciliation: Reconciliation | Exception = AGREED
        self.answer: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda _item: {}

    def bots(self) -> Collection[str]:
        return ["alpha"]

    def whitelist(self, bot: str) -> Sequence[str] | None:
        return self.pairs

    def last_message_ms(self, bot: str) -> int | None:
        return 1_795_355_651_103

    def state(self, bot: str) -> str | None:
        return "running"

    def timeframe(self, bot: str) -> str | None:
        return "5m"

    def online(self, bot: str) -> bool | None:
        return None

    def candles(self, bot: str, pair: str, timeframe: str) -> Candles | None:
        return self.frames.get((pair, timeframe))

    epoch = "e1"

    async def search(self, query: Query) -> Found:
        self.queries.append(query)
        return await self.log.find(query)

    async def reconcile(
        self, name: str, *, publish: bool = False, since_ms: int | None = None
    ) -> Reconciliation:
        self.reconciled.append((name, publish, since_ms))
        given = self.reconciliation
        if isinstance(given, Exception):
            raise given
        return given

    async def publish(
        self, principal: Principal, item: Mapping[str, Any], _order: object = None
    ) -> Mapping[str, Any]:
        self.published.append((principal, item))
        return self.answer(item)


class Service:
    """The application and its clock, and clients of it."""

    def __init__(
        self, node: Node | None = None, *, routes: Sequence[BaseRoute] = (), **settings: Any
    ) -> None:
        self.node = node or Node()
        self.now_ms = NOW_MS
        self.now_s = 0.0
        self.authenticator = Authenticator(config(), lambda: self.now_ms, lambda: self.now_s)
        self.in_process: dict[str, InProcess] = {}
        self.attached: dict[str, Requester] = {}
        registry = BotRegistry(
            self.node,
            default_bot="main",
            version="tradewire-1.0",
            now_ms=lambda: self.now_ms,
            in_process=self.in_process,
            attached=lambda: self.attached,
            attach=self.attached.__getitem__,
        )
        self.rest = build_rest(
            self.authenticator,
            registry,
            self.node.publish,
            self.node,
            self.node.reconcile,
            RestSettings(**settings),
        )
        mounts = [Mount("/api/v1", self.rest), Mount("/bots/{bot}/api/v1", self.rest)]
        self.app = Starlette(routes=[*routes, *mounts])

    def client(self, address: str = "127.0.0.1") -> httpx.AsyncClient:
        """A client of the application; no socket is opened."""
        transport = httpx.ASGITransport(self.app, client=(address, 123))
        return httpx.AsyncClient(transport=transport, base_url=BASE)

    async def request(self, method: str, path: str, **keys: Any) -> httpx.Response:
        """One request by a client of its own."""
        async with self.client() as client:
            return await client.request(method, path, **keys)

    async def get(self, path: str, **keys: Any) -> httpx.Response:
        """GET by a client of its own."""
        return await self.request("GET", path, **keys)
