"""hub.rest.asyncapi: the document against the Structs, the registries and the golden files of the wire.

That it is AsyncAPI 3 by that standard's own schema is tested in tests/browser/asyncapi.test.mjs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from hub.core.requests import _REQUESTS
from hub.protocol.codec import SUBPROTOCOLS
from hub.protocol.messages import REGISTRY
from hub.protocol.notices import NOTICES
from hub.protocol.requests import REQUESTS
from hub.protocol.subscription import HUB_TOPICS
from hub.rest.asyncapi import asyncapi_document, asyncapi_routes

from .service import Service

WIRE = Path(__file__).parents[1] / "wire"
DOCUMENT = asyncapi_document("1.2.3")
V2, FREQTRADE = "tradewire.v2", "freqtrade"
REPLIES_IN_FILES = {
    "hub.reply.subscribe": "reply.subscribe",
    "hub.reply.publish": "reply.publish",
    "hub.reply.error": "reply.publish",
}


def golden(folder: str) -> list[Path]:
    return [path for path in sorted((WIRE / folder).glob("*.json")) if path.stem != "unknown_type"]


def message_of(path: Path) -> str:
    """The name of the message that a golden file is an example of."""
    parts = path.stem.split(".")
    if parts[:2] == ["hub", "reply"]:
        return REPLIES_IN_FILES[".".join(parts[:3])]
    return ".".join(parts[:2]) if parts[0] in ("hub", "request") else parts[0].removesuffix("_request")


def errors(wire: str, name: str, message: Any) -> list[str]:
    schema = {**DOCUMENT, "$ref": f"#/components/messages/{wire}.{name}/payload"}
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(message)]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_reference_leads_somewhere() -> None:
    found = set(references(DOCUMENT))
    assert len(found) > 100
    for reference in found:
        at: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            at = at[part]


def test_everything_that_goes_over_the_wire_is_a_message() -> None:
    channels = DOCUMENT["channels"]
    assert {channel["address"] for channel in channels.values()} == {"/api/v1/message/ws"}
    assert set(REGISTRY) < set(channels[FREQTRADE]["messages"])
    assert {*REGISTRY, *HUB_TOPICS, *NOTICES} < set(channels[V2]["messages"])
    assert {*_REQUESTS, "auth", "publish"} <= set(REQUESTS)
    assert {f"request.{name}" for name in REQUESTS} < set(channels[V2]["messages"])
    headers = channels[V2]["bindings"]["ws"]["headers"]["properties"]
    assert headers["Sec-WebSocket-Protocol"]["enum"] == list(SUBPROTOCOLS)
    assert set(DOCUMENT["components"]["securitySchemes"]) == {"bearer", "subprotocol", "token", "ticket"}


def test_every_message_is_of_an_operation() -> None:
    told = set(references(list(DOCUMENT["operations"].values())))
    for wire, channel in DOCUMENT["channels"].items():
        assert {f"#/channels/{wire}/messages/{name}" for name in channel["messages"]} <= told


@pytest.mark.parametrize("path", golden("v2.json"), ids=lambda path: path.stem)
def test_a_golden_file_of_v2_fits_its_message(path: Path) -> None:
    assert errors(V2, message_of(path), json.loads(path.read_text())) == []


@pytest.mark.parametrize("path", golden("freqtrade"), ids=lambda path: path.stem)
def test_what_a_real_freqtrade_sent_fits_its_message(path: Path) -> None:
    assert errors(FREQTRADE, message_of(path), json.loads(path.read_text())) == []


@pytest.mark.parametrize(
    ("wire", "name", "message"),
    [
        (
            V2,
            "entry_fill",
            {"type": "entry_fill", "bot": "a", "ts": 1, "data": {"trade_id": 1, "pair": "A/B"}},
        ),
        (V2, "hub.dropped", {"type": "hub.dropped", "data": {"topics": {"status": "many"}}}),
        (V2, "hub.gap", {"type": "hub.gap", "epoch": "e", "from": 1, "reason": "retention"}),
        (V2, "whitelist", {"type": "whitelist", "bot": "a", "ts": 1, "key": [], "rev": ["r", 0], "data": []}),
        (
            V2,
            "whitelist",
            {"type": "whitelist", "bot": "a", "ts": 1, "key": [], "rev": ["r", 0, 1], "data": "A/B"},
        ),
        (V2, "reply.ping", {"type": "hub.reply", "id": 1, "ok": True, "data": {}}),
        (V2, "reply.ping", {"type": "hub.reply", "id": 1, "ok": False, "error": {"code": "internal"}}),
        (V2, "request.subscribe", {"type": "subscribe", "id": 0, "data": {"want": []}}),
        (V2, "request.subscribe", {"type": "subscribe", "id": 1, "data": {"want": [{"bots": "*"}]}}),
        (V2, "request.publish", {"type": "publish", "id": 1, "data": {"topic": "status"}}),
        (V2, "request.ping", {"type": "pong"}),
        (FREQTRADE, "entry_fill", {"type": "entry_fill", "pair": "A/B"}),
        (FREQTRADE, "new_candle", {"type": "new_candle", "data": ["A/B", "5m"]}),
        (FREQTRADE, "request.subscribe", {"type": "subscribe", "data": {"topics": []}}),
    ],
)
def test_what_is_no_such_message_does_not_fit(wire: str, name: str, message: Any) -> None:
    assert errors(wire, name, message)


def keeps(before: Any, after: Any) -> bool:
    """Whether all of `before` is in `after`."""
    if isinstance(before, Mapping):
        return isinstance(after, Mapping) and all(
            k in after and keeps(v, after[k]) for k, v in before.items()
        )
    return (
        len(before) == len(after) and all(map(keeps, before, after))
        if isinstance(before, list)
        else before == after
    )


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in golden("v2.json")
        if path.stem.startswith(("hub.", "request.")) and not path.stem.startswith("hub.reply")
    ],
    ids=lambda path: path.stem,
)
def test_a_struct_knows_every_field_of_the_hubs_own_frames(path: Path) -> None:
    message = json.loads(path.read_text())
    cls = {**NOTICES, **REQUESTS}.get(message["type"])
    if cls is None:
        assert message["type"] in HUB_TOPICS
        return
    assert keeps(message, msgspec.to_builtins(msgspec.convert(message, cls)))


@pytest.mark.anyio
async def test_it_is_served_without_a_credential() -> None:
    response = await Service(routes=asyncapi_routes(version="1.2.3")).get("/asyncapi.json")
    assert response.status_code == 200
    assert response.json() == DOCUMENT
