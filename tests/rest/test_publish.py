"""hub.rest.publish: credentials, results in order, statuses and bounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from auth.credentials import ALPHA, ANY_PUBLISHER, PUBLISHER, READER, basic
from starlette.requests import Request

from hub.protocol.errors import (
    BadMessage,
    Draining,
    Forbidden,
    IdConflict,
    IdExpired,
    NotDurable,
    Overloaded,
    RequestError,
    TooLarge,
    UnknownTopic,
)
from hub.protocol.principal import Principal
from hub.rest.publish import PublishIntake

from .service import Node, Service

pytestmark = pytest.mark.anyio

MAY = {"Authorization": f"Bearer {PUBLISHER}"}
PATH = "/api/v1/publish"
ENTRY = {"bot": "alpha", "topic": "entry", "mid": "m1", "data": {"trade_id": 1, "pair": "A/B"}}


def answering(answer: Any) -> Node:
    node = Node()

    def respond(item: Mapping[str, Any]) -> Mapping[str, Any]:
        given = answer(item) if callable(answer) else answer
        if isinstance(given, Exception):
            raise given
        result: Mapping[str, Any] = given
        return result

    node.answer = respond
    return node


# --- what is accepted


async def test_a_message_is_answered_with_its_position() -> None:
    service = Service(answering({"epoch": "e1", "offset": 7, "duplicate": False}))
    response = await service.request("POST", PATH, headers=MAY, json=ENTRY)
    assert response.status_code == 200
    assert response.json() == {"epoch": "e1", "offset": 7, "duplicate": False}
    ((principal, item),) = service.node.published
    assert principal.name == "pub"
    assert item == ENTRY


async def test_a_list_is_answered_in_order() -> None:
    service = Service(answering(lambda item: {"offset": int(item["mid"])}))
    items = [{**ENTRY, "mid": str(i)} for i in range(100)]
    response = await service.request("POST", PATH, headers=MAY, json=items)
    assert response.status_code == 200
    assert response.json() == [{"offset": i} for i in range(100)]
    assert [item["mid"] for _, item in service.node.published] == [str(i) for i in range(100)]


async def test_an_empty_list_is_nothing_to_do() -> None:
    response = await Service().request("POST", PATH, headers=MAY, json=[])
    assert (response.status_code, response.json()) == (200, [])


async def test_the_answer_waits_for_the_commit_of_all_at_once() -> None:
    committed = asyncio.Event()
    accepted: list[Mapping[str, Any]] = []

    async def publish(_principal: Principal, item: Mapping[str, Any], _order: object) -> Mapping[str, Any]:
        accepted.append(item)
        if len(accepted) == 3:
            committed.set()
        await committed.wait()
        return {"offset": len(accepted)}

    node = Node()
    node.publish = publish  # type: ignore[method-assign]
    response = await Service(node).request("POST", PATH, headers=MAY, json=[ENTRY, ENTRY, ENTRY])
    assert response.json() == [{"offset": 3}] * 3


async def test_a_publisher_of_every_bot() -> None:
    service = Service()
    headers = {"Authorization": f"Bearer {ANY_PUBLISHER}"}
    assert (await service.request("POST", PATH, headers=headers, json=ENTRY)).status_code == 200
    assert service.node.published[0][0].may_publish("any")


# --- who may not


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Bearer", basic(), "Basic !!!"])
async def test_without_a_valid_credential(authorization: str | None) -> None:
    service = Service()
    headers = {} if authorization is None else {"Authorization": authorization}
    response = await service.request("POST", PATH, headers=headers, json=ENTRY)
    assert response.status_code == 401
    assert response.json() == {"detail": "Could not validate credentials"}
    assert response.headers["www-authenticate"] == "Bearer"
    assert service.node.published == []


@pytest.mark.parametrize("token", [READER, ALPHA, "jwt"])
async def test_a_credential_that_only_reads(token: str) -> None:
    service = Service()
    if token == "jwt":
        login = await service.request("POST", "/api/v1/token/login", headers={"Authorization": basic()})
        token = login.json()["access_token"]
    response = await service.request("POST", PATH, headers={"Authorization": f"Bearer {token}"}, json=ENTRY)
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "forbidden"
    assert service.node.published == []


async def test_the_credential_is_checked_before_the_body() -> None:
    service = Service(body_bytes=10)
    assert (await service.request("POST", PATH, content=b"{" * 100)).status_code == 401


# --- what is refused


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestError("x"), 400),
        (Forbidden("x"), 403),
        (IdConflict("x"), 409),
        (IdExpired("x"), 410),
        (TooLarge("x"), 413),
        (BadMessage("x"), 422),
        (UnknownTopic("x"), 422),
        (NotDurable("x"), 503),
        (Overloaded("x"), 503),
        (Draining("x"), 503),
    ],
)
async def test_the_status_tells_the_error(error: RequestError, status: int) -> None:
    response = await Service(answering(error)).request("POST", PATH, headers=MAY, json=ENTRY)
    assert response.status_code == status
    assert response.json() == {"error": error.as_data()}
    assert response.headers.get("retry-after") == ("1" if status == 503 else None)


async def test_all_results_are_told_with_the_status_of_the_first_error() -> None:
    def answer(item: Mapping[str, Any]) -> Any:
        errors = {"b": IdConflict("other body"), "d": Overloaded("full", retry_after_ms=2500)}
        return errors.get(item["mid"], {"offset": item["mid"]})

    service = Service(answering(answer))
    response = await service.request("POST", PATH, headers=MAY, json=[{**ENTRY, "mid": m} for m in "abcd"])
    assert response.status_code == 409
    told = response.json()
    assert [list(t) for t in told] == [["offset"], ["error"], ["offset"], ["error"]]
    assert told[1]["error"] == {"code": "id_conflict", "message": "other body", "temporary": False}
    assert told[3]["error"]["retry_after_ms"] == 2500
    intake = service.rest.state.publish_intake.statistics()
    assert (intake.accepted, intake.refused) == (2, 2)


async def test_retry_after_is_in_whole_seconds() -> None:
    service = Service(answering(Overloaded("full", retry_after_ms=2500)))
    response = await service.request("POST", PATH, headers=MAY, json=ENTRY)
    assert response.headers["retry-after"] == "3"


@pytest.mark.parametrize("item", [1, "x", None, [], True])
async def test_an_item_is_a_map(item: Any) -> None:
    service = Service()
    response = await service.request("POST", PATH, headers=MAY, json=[ENTRY, item])
    assert response.status_code == 400
    assert response.json()[0] == {}
    assert response.json()[1]["error"]["message"] == "expected a map with bot, topic and data"
    assert len(service.node.published) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[1,]", b"\xff", b'{"a": NaN}', b"[Infinity]", b"{} x"])
async def test_a_body_that_is_not_json(content: bytes) -> None:
    response = await Service().request("POST", PATH, headers=MAY, content=content)
    assert response.status_code == 422
    (detail,) = response.json()["detail"]
    assert detail["type"] == "json_invalid"
    assert detail["loc"][0] == "body"


async def test_a_body_that_is_nested_too_deeply() -> None:
    response = await Service().request("POST", PATH, headers=MAY, content=b"[" * 100_000)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "body: nested too deeply"


# --- bounds


async def test_a_body_over_the_limit_is_refused_by_its_declared_size() -> None:
    service = Service(body_bytes=100)
    response = await service.request("POST", PATH, headers=MAY, content=b" " * 101)
    assert response.status_code == 413
    assert response.json()["error"] == {
        "code": "too_large",
        "message": "body: expected at most 100 bytes",
        "temporary": False,
    }


async def test_a_body_of_just_the_limit_is_read() -> None:
    content = json.dumps(ENTRY).encode()
    service = Service(body_bytes=len(content))
    assert (await service.request("POST", PATH, headers=MAY, content=content)).status_code == 200


async def test_too_many_messages() -> None:
    service = Service(items=2)
    response = await service.request("POST", PATH, headers=MAY, json=[ENTRY] * 3)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "body: expected at most 2 messages, got 3"
    assert service.node.published == []


class Body:
    """A request whose body comes as the test says."""

    def __init__(
        self, *chunks: bytes, ends: bool = True, gone: bool = False, length: str | None = None
    ) -> None:
        self._chunks = list(chunks)
        self._ends, self._gone = ends, gone
        self.read = 0
        headers = [] if length is None else [(b"content-length", length.encode())]
        scope = {"type": "http", "method": "POST", "path": PATH, "headers": headers, "query_string": b""}
        self.request = Request(scope, self._receive)

    async def _receive(self) -> dict[str, Any]:
        if self._chunks:
            chunk = self._chunks.pop(0)
            self.read += len(chunk)
            more = bool(self._chunks) or not self._ends
            return {"type": "http.request", "body": chunk, "more_body": more}
        if self._gone:
            return {"type": "http.disconnect"}
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


SOMEONE = Principal(name="pub", publishes=frozenset({"*"}))


def intake(publish: Any = None, **keys: Any) -> PublishIntake:
    async def accept(_principal: Principal, _item: Mapping[str, Any], _order: object) -> Mapping[str, Any]:
        return {}

    bounds: dict[str, Any] = {"items": 10, "body_bytes": 100, "pending_bytes": 150, "body_timeout_s": 30.0}
    return PublishIntake(publish or accept, **{**bounds, **keys})


async def test_reading_stops_at_the_limit_whatever_was_declared() -> None:
    for length in (None, "5", "x", "²"):
        body = Body(*[b" " * 40] * 1000, length=length)
        response = await intake().answer(SOMEONE, body.request)
        assert response.status_code == 413
        assert body.read <= 120


async def test_nothing_is_read_when_too_much_is_declared() -> None:
    body = Body(b"[]", length="101")
    assert (await intake().answer(SOMEONE, body.request)).status_code == 413
    assert body.read == 0


async def test_all_bodies_together_are_bounded_and_counted_until_answered() -> None:
    release, accepted = asyncio.Event(), asyncio.Event()

    async def publish(_principal: Principal, _item: Mapping[str, Any], _order: object) -> Mapping[str, Any]:
        accepted.set()
        await release.wait()
        return {}

    held = intake(publish)
    padded = b"{}" + b" " * 88
    first = asyncio.create_task(held.answer(SOMEONE, Body(padded).request))
    await accepted.wait()
    assert (held.statistics().requests, held.statistics().pending_bytes) == (1, 90)
    second = await held.answer(SOMEONE, Body(padded).request)
    assert second.status_code == 503
    assert json.loads(bytes(second.body))["error"]["code"] == "overloaded"
    assert second.headers["retry-after"] == "1"
    assert held.statistics().pending_bytes == 90
    release.set()
    assert (await first).status_code == 200
    figures = held.statistics()
    assert (figures.requests, figures.pending_bytes, figures.pending_limit_bytes) == (0, 0, 150)


async def test_a_body_that_does_not_come_is_given_up() -> None:
    waiting = intake(body_timeout_s=0.0)
    response = await waiting.answer(SOMEONE, Body(b"[", ends=False).request)
    assert response.status_code == 408
    assert waiting.statistics().pending_bytes == 0


async def test_a_client_that_goes_away_leaves_nothing_behind() -> None:
    left = intake()
    response = await left.answer(SOMEONE, Body(b"[", ends=False, gone=True).request)
    assert response.status_code == 400
    figures = left.statistics()
    assert (figures.requests, figures.pending_bytes, figures.accepted, figures.refused) == (0, 0, 0, 0)
