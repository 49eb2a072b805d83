"""hub.rest.reconcile: who may have a bot's trades compared, and how it is told."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from auth.credentials import PUBLISHER, READER, basic

from hub.protocol.botapi import BotBusy, BotError, UnknownBot
from hub.protocol.ledger_answers import MissedFill

from .service import AGREED, Service

pytestmark = pytest.mark.anyio

USER = {"Authorization": basic()}
PATH = "/api/v1/reconcile"
MISSED = MissedFill(
    topic="entry_fill",
    trade_id=7,
    pair="BTC/USDT",
    order_id="o1",
    amount=0.1,
    rate=4.2e-11,
    ts=5,
    mid="reconciled/7/1/o1",
    offset=9,
    refused=None,
)


async def asked(made: Service, body: Any, path: str = PATH) -> Any:
    return await made.request("POST", path, headers=USER, json=body)


MEANT: list[tuple[str, Any, Any]] = [
    (PATH, {}, ("main", False, None)),
    (PATH, {"bot": "alpha", "publish": True}, ("alpha", True, None)),
    ("/bots/beta/api/v1/reconcile", {}, ("beta", False, None)),
    ("/bots/beta/api/v1/reconcile", {"bot": "alpha"}, ("beta", False, None)),
    (PATH, {"since": 5}, ("main", False, 5)),
    (PATH, {"since": "2026-11-22T14:00:00+00:00"}, ("main", False, 1_795_356_000_000)),
]


async def test_the_bot_that_is_meant_is_compared() -> None:
    made = Service()
    async with made.client() as client:
        for path, body, _ in MEANT:
            response = await client.post(path, headers=USER, json=body)
            assert response.status_code == 200, response.text
    assert made.node.reconciled == [expected for _, _, expected in MEANT]


async def test_the_answer_is_whole() -> None:
    made = Service()
    made.node.reconciliation = msgspec.structs.replace(AGREED, missing_count=1, published=1, missing=[MISSED])
    response = await asked(made, {"bot": "alpha", "publish": True})
    assert response.json() == msgspec.to_builtins(made.node.reconciliation)
    assert b"4.2e-11" in response.content


@pytest.mark.parametrize("token", [READER, PUBLISHER, "wrong", None])
async def test_only_who_controls_the_bot_may(token: str | None) -> None:
    made = Service()
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    response = await made.request("POST", PATH, headers=headers, json={"bot": "alpha"})
    assert response.status_code == 401
    assert made.node.reconciled == []


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (UnknownBot("bot x: unknown"), 404, {"detail": "Not Found"}),
        (BotError("no REST"), 502, {"error": "Error querying /api/v1/reconcile: no REST"}),
        (BotBusy("too long"), 503, {"detail": "too long"}),
    ],
)
async def test_errors_have_freqtrades_shapes(error: Exception, status: int, body: Any) -> None:
    made = Service()
    made.node.reconciliation = error
    response = await asked(made, {"bot": "x"})
    assert (response.status_code, response.json()) == (status, body)


WRONG: list[Any] = [
    None,
    [],
    "x",
    {"bot": 1},
    {"bot": "b" * 65},
    {"publish": "perhaps"},
    {"since": "soon"},
    {"since": True},
    {"since": -1},
    {"since": 1.5},
    {"publsh": True},
]


async def test_wrong_bodies_are_422() -> None:
    made = Service()
    async with made.client() as client:
        for body in WRONG:
            response = await client.post(PATH, headers=USER, json=body)
            assert response.status_code == 422, body
            assert response.json()["detail"][0]["loc"][0] == "body"
    assert made.node.reconciled == []


async def test_a_body_that_is_not_json_is_422_also_for_nobody() -> None:
    made = Service()
    headers = {"Content-Type": "application/json"}
    response = await made.request("POST", PATH, headers=headers, content=b"{")
    assert (response.status_code, response.json()["detail"][0]["type"]) == (422, "json_invalid")
