"""hub.rest.routes: every operation of a bot, the order of checks, the bounds of bodies, and GET /bots."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from auth.credentials import NOW_MS, basic

from hub.bots.hub_bot import Candles
from hub.bots.ports import InProcess
from hub.frames.columns import Columns
from hub.protocol.answers import PairHistory
from hub.protocol.botapi import (
    OPERATIONS,
    BotBusy,
    BotError,
    BotFault,
    LockOrder,
    OrderType,
    Side,
    WrongState,
)

from .ledger_bot import LedgerBot
from .service import Service

pytestmark = pytest.mark.anyio

USER = {"Authorization": basic()}
JSON = {"Content-Type": "application/json"}
NULL = {"content": b"null", "headers": {**USER, **JSON}}
BODIES: dict[str, Any] = {
    "force_enter": {"pair": "BTC/USDT"},
    "force_exit": {"tradeid": "all"},
    "add_to_blacklist": {"blacklist": ["A/B"]},
    "add_locks": [{"pair": "A/B", "until": "2030-01-01T00:00:00Z"}],
    "delete_locks": {},
    "chosen_pair_candles": {"pair": "BTC/USDT", "timeframe": "5m"},
}


@pytest.fixture(scope="module")
def service() -> Service:
    return Service(body_bytes=100_000, body_timeout_s=0.05)


@pytest.fixture
def bot(service: Service) -> Iterator[LedgerBot]:
    bot = LedgerBot()
    port = service.in_process["main"] = InProcess("main", bot)
    yield bot
    del service.in_process["main"]
    port.close()


async def ask(service: Service, method: str, path: str, **keys: Any) -> httpx.Response:
    return await service.request(method, f"/api/v1{path}", **{"headers": USER, **keys})


async def entered(service: Service) -> int:
    return int((await ask(service, "POST", "/forceenter", json={"pair": "BTC/USDT"})).json()["trade_id"])


# --- every operation


@pytest.mark.parametrize(
    ("name", "path"), [(op.name, path) for op in OPERATIONS.values() for path in op.paths]
)
async def test_every_route_asks_the_bot_and_answers_in_its_type(
    service: Service, bot: LedgerBot, name: str, path: str
) -> None:
    operation = OPERATIONS[name]
    number = await entered(service)
    values = {"tradeid": number, "trade_id": number, "lockid": number, "strategy": "Ledger"}
    query = {"pair": "BTC/USDT", "timeframe": "5m"} if name == "pair_candles" else {}
    body = {"json": BODIES[name]} if name in BODIES else {}
    if name == "cancel_open_order":
        bot._trades[number].has_open_orders = True
    response = await ask(service, operation.method, path.format(**values), params=query, **body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    if name == "force_enter":
        assert response.json()["pair"] == "BTC/USDT"
    else:
        msgspec.json.decode(response.content, type=operation.answer)
    called, arguments = bot.calls[-1]
    assert called == name
    assert set(arguments) == {p.name for p in operation.parameters}


async def test_arguments_come_as_botapi_has_them(service: Service, bot: LedgerBot) -> None:
    await ask(service, "GET", "/trades?limit=3&offset=1&order_by_id=false")
    await ask(service, "DELETE", "/blacklist?pairs_to_delete=A/B&pairs_to_delete=C/D:D")
    await ask(
        service, "POST", "/forcebuy", json={"pair": "A/B", "side": "long", "ordertype": "market", "price": 1}
    )
    until = "2030-01-01T02:00:00+02:00"
    await ask(service, "POST", "/locks", json=[{"pair": "*", "until": until, "side": "long", "reason": "x"}])
    assert bot.calls == [
        ("trades", {"limit": 3, "offset": 1, "order_by_id": False}),
        ("delete_from_blacklist", {"pairs_to_delete": ["A/B", "C/D:D"]}),
        (
            "force_enter",
            {
                "pair": "A/B",
                "side": Side.LONG,
                "price": 1.0,
                "ordertype": OrderType.MARKET,
                "stakeamount": None,
                "entry_tag": None,
                "leverage": None,
            },
        ),
        (
            "add_locks",
            {"locks": [LockOrder(pair="*", until=datetime(2030, 1, 1, tzinfo=UTC), side="long", reason="x")]},
        ),
    ]


async def test_what_is_changed_is_seen(service: Service, bot: LedgerBot) -> None:
    first, second = await entered(service), await entered(service)
    await ask(service, "POST", "/forcesell", json={"tradeid": first})
    assert [t["trade_id"] for t in (await ask(service, "GET", "/status")).json()] == [second]
    await ask(service, "DELETE", f"/trades/{second}")
    assert (await ask(service, "GET", f"/trade/{second}")).json() == {"detail": "Trade not found."}
    assert (await ask(service, "GET", "/trades")).json()["total_trades"] == 1
    await ask(service, "POST", "/stopbuy", **NULL)
    assert (await ask(service, "GET", "/show_config")).json()["state"] == "paused"


async def test_a_body_of_null_is_none_where_a_route_takes_none(service: Service, bot: LedgerBot) -> None:
    for operation in OPERATIONS.values():
        if operation.path.count("{") == 0 and not any(p.required for p in operation.parameters):
            body = NULL if operation.name not in BODIES else {"json": BODIES[operation.name]}
            assert (await ask(service, operation.method, operation.path, **body)).status_code == 200


# --- errors


@pytest.mark.parametrize(
    ("error", "status", "body", "retry"),
    [
        (
            BotError("trader is not running"),
            502,
            {"error": "Error querying /api/v1/count: trader is not running"},
            None,
        ),
        (BotFault("x"), 502, {"detail": "x"}, None),
        (WrongState(), 503, {"detail": "Bot is not in the correct state."}, None),
        (BotBusy("wait"), 503, {"detail": "wait"}, "1"),
        (
            RuntimeError("secret"),
            502,
            {"error": "Error querying /api/v1/count: bot main failed; the hub's log says how"},
            None,
        ),
    ],
)
async def test_a_bots_errors(
    service: Service,
    bot: LedgerBot,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    body: dict[str, str],
    retry: str | None,
) -> None:
    async def fails() -> None:
        raise error

    monkeypatch.setattr(bot, "count", fails)
    response = await ask(service, "GET", "/count")
    assert (response.status_code, response.json(), response.headers.get("retry-after")) == (
        status,
        body,
        retry,
    )


async def test_the_path_of_an_error_is_the_whole_path(service: Service) -> None:
    response = await service.get("/bots/alpha/api/v1/count", headers=USER)
    assert response.status_code == 502
    assert response.json()["error"] == (
        "Error querying /bots/alpha/api/v1/count: bot alpha is not reachable over REST: it is neither attached nor has it a "
        "REST upstream"
    )


@pytest.mark.parametrize(
    "method_and_path",
    [
        "GET strategies",
        "POST backtest",
        "DELETE background/clear",
        "PATCH backtest/history/x",
        "GET background/7",
    ],
)
async def test_routes_of_the_webserver_mode(service: Service, method_and_path: str) -> None:
    method, path = method_and_path.split()
    assert (await ask(service, method, f"/{path}", headers={})).status_code == 401
    response = await ask(service, method, f"/{path}")
    assert (response.status_code, response.json()) == (503, {"detail": "Bot is not in the correct state."})
    assert (await ask(service, "PUT", f"/{path}")).status_code == 405


async def test_the_order_of_checks(service: Service, bot: LedgerBot) -> None:
    bad_json = {"content": b"{", "headers": JSON}
    for path in ("/forceenter", "/backtest"):
        response = await ask(service, "POST", path, **bad_json)
        assert response.status_code == 422
        assert response.json()["detail"][0]["type"] == "json_invalid"
    wrong = {"content": b'{"pair": 1}', "headers": JSON}
    assert (await ask(service, "POST", "/forceenter", **wrong)).status_code == 401
    unknown = await service.request(
        "POST", "/bots/nobody/api/v1/forceenter", content=b'{"pair": 1}', headers={**USER, **JSON}
    )
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Not Found"})
    assert (await ask(service, "GET", "/daily?timescale=x", headers={})).status_code == 401
    assert not bot.calls


# --- bodies


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b'{"pair": "A/B", "price": NaN}', 422),
        (b'{"pair": "A/B", "price": "nan"}', 422),
        (b'{"pair": "\\ud800"}', 422),
        (b'{"pair": "\xff"}', 422),
        (b"[" * 50_000, 400),
        (b'{"pair": ' + b"9" * 5000 + b"}", 422),
        (b'{"pair": [' + b"1," * 40_000 + b"1]}", 422),
    ],
)
async def test_a_hostile_body_is_refused(
    service: Service, bot: LedgerBot, content: bytes, status: int
) -> None:
    response = await ask(service, "POST", "/forceenter", content=content, headers={**USER, **JSON})
    assert response.status_code == status
    assert response.json()["detail"]
    assert not bot.calls


async def test_a_body_that_is_not_declared_as_json_is_none(service: Service, bot: LedgerBot) -> None:
    response = await ask(service, "POST", "/forceenter", content=b"\xff\x00")
    assert response.status_code == 422
    assert response.json()["detail"][0]["type"] == "model_attributes_type"


async def test_many_wrong_items_are_one_error(service: Service, bot: LedgerBot) -> None:
    response = await ask(
        service, "POST", "/locks", content=json.dumps([3] * 30_000), headers={**USER, **JSON}
    )
    assert [error["type"] for error in response.json()["detail"]] == ["too_long"]


async def test_a_body_that_is_too_large(service: Service) -> None:
    large = {"content": b'"' + b"x" * 100_000 + b'"'}
    response = await ask(service, "POST", "/forceenter", headers={**USER, **JSON}, **large)
    assert (response.status_code, response.json()) == (413, {"detail": "body: expected at most 100000 bytes"})
    # Of an anonymous client so much is not even looked at.
    assert (await ask(service, "POST", "/forceenter", headers=JSON, **large)).status_code == 401


async def slow() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.sleep(10)


async def test_a_body_that_does_not_come(service: Service) -> None:
    response = await ask(service, "POST", "/forceenter", headers={**USER, **JSON}, content=slow())
    assert response.status_code == 408
    assert service.rest.state.bodies.statistics().pending_bytes == 0


async def test_anonymous_bodies_do_not_take_the_room_of_users(service: Service, bot: LedgerBot) -> None:
    async with asyncio.TaskGroup() as tasks:
        pending = [
            tasks.create_task(ask(service, "POST", "/forceenter", headers=JSON, content=slow()))
            for _ in range(20)
        ]
        await asyncio.sleep(0.01)
        assert service.rest.state.bodies.statistics().requests == 0
        assert await entered(service) == 1
        for task in pending:
            task.cancel()


async def test_a_route_without_a_body_does_not_wait_for_one(service: Service, bot: LedgerBot) -> None:
    response = await ask(service, "POST", "/start", content=b"{", headers={**USER, **JSON})
    assert response.json() == {"status": "starting trader ..."}


# --- candles of a bot that only publishes


def frame(rows: int, columns: int = 5) -> Columns:
    start = 1_795_348_800_000
    data = {"date": [start + n * 300_000 for n in range(rows)]}
    names = ["open", "high", "low", "close", "volume", "enter_long"]
    names += [f"x{n}" for n in range(columns - len(names))]
    return Columns.from_mapping(data | {name: np.arange(rows) / 7 for name in names})


async def test_candles_come_from_the_hubs_frames(service: Service) -> None:
    service.node.frames = {("BTC/USDT", "5m"): Candles(frame(10, 8), NOW_MS)}
    got = (await ask(service, "GET", "/pair_candles?pair=BTC/USDT&timeframe=5m&limit=2")).json()
    assert (got["length"], got["pair"], got["data_start"]) == (2, "BTC/USDT", "2026-11-22 12:40:00+00:00")
    assert got["data"][0][0] == "2026-11-22T12:40:00Z"
    chosen = {"pair": "BTC/USDT", "timeframe": "5m", "columns": ["x1"]}
    got = (await ask(service, "POST", "/pair_candles", json=chosen)).json()
    assert "x1" in got["columns"]
    assert "x0" not in got["columns"]
    assert {"x0", "x1"} <= set(got["all_columns"])
    empty = (await ask(service, "GET", "/pair_candles?pair=NO/NE&timeframe=5m")).json()
    assert (empty["length"], empty["data"], empty["last_analyzed_ts"]) == (0, [], 0)
    unknown = await ask(service, "GET", "/pair_candles?pair=NO/NE&timeframe=soon")
    assert unknown.status_code == 502
    assert "timeframe" in unknown.json()["detail"]
    assert (await ask(service, "GET", "/plot_config")).json() == {}


async def test_large_candles_let_the_loop_turn(service: Service) -> None:
    service.node.frames = {("BTC/USDT", "5m"): Candles(frame(1500, 42), NOW_MS)}
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    response = await ask(service, "GET", "/pair_candles?pair=BTC/USDT&timeframe=5m")
    counting.cancel()
    assert len(msgspec.json.decode(response.content, type=PairHistory).data) == 1500
    # 63 000 cells in slices of 8000.
    assert turns >= 8


# --- GET /bots


async def test_the_list_of_bots(service: Service, bot: LedgerBot) -> None:
    assert (await ask(service, "GET", "/bots", headers={})).status_code == 401
    fresh: dict[str, Any] = {
        "state": "running",
        "timeframe": "5m",
        "last_message_ts": 1_795_355_651_103,
        "stale": False,
    }
    assert (await ask(service, "GET", "/bots")).json() == [
        {"name": "alpha", "kind": "messages", "default": False, "online": None, **fresh},
        {"name": "main", "kind": "in_process", "default": True, "online": True, **fresh},
    ]
    # Two candles and a minute later.
    service.now_ms = fresh["last_message_ts"] + 660_001
    assert {b["stale"] for b in (await ask(service, "GET", "/bots")).json()} == {True}
    service.now_ms = NOW_MS


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_has_none(status: int) -> None:
    class Bot:
        async def request(self, *_: Any, **__: Any) -> tuple[int, bytes]:
            return status, b"{}"

    service = Service()
    service.attached["alpha"] = Bot()
    response = await service.get("/bots/alpha/api/v1/version", headers={"Authorization": basic()})
    assert (response.status_code, response.content) == (status, b"")
