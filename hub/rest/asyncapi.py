"""The AsyncAPI 3 document of the websocket, made of the Structs of its messages, at /asyncapi.json.

The two wires are two channels with one address, told apart by the subprotocol. tradewire.v2.msgpack carries the same maps as
tradewire.v2.json, but for the columns of dataframes, which are binary there (docs/wire-protocol.md, Dataframes).
Source: AsyncAPI 3.0.0; its schemas are those of JSON Schema draft 7.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from hub.protocol.codec import SUBPROTOCOLS, UNDER_DATA
from hub.protocol.envelope import Broadcast
from hub.protocol.messages import BARE_DATA, REGISTRY, DeliveryClass, delivery_class
from hub.protocol.notices import NOTICES, CandleComplete, ErrorData, LiveRows, Snapshot
from hub.protocol.requests import FREQTRADE_REQUESTS, REPLIES, REQUESTS, Publish, PublishItem, PublishItems
from hub.protocol.subscription import HUB_TOPICS

__all__ = ["asyncapi_document", "asyncapi_routes"]

Json = dict[str, Any]

MESSAGE_PATH = "/api/v1/message/ws"
FREQTRADE, V2 = "freqtrade", "tradewire.v2"
_SCHEMAS = "#/components/schemas/"
_DATA_OF_HUB_TOPICS = {"hub.candle_complete": CandleComplete}
_REQUIRED = {
    DeliveryClass.LEDGER: ["epoch", "offset", "prev", "mid"],
    DeliveryClass.STATE: ["key", "rev"],
    DeliveryClass.EVENT: [],
}
_ANSWERS = {"whitelist": "whitelist", "analyzed_df": "analyzed_df"}
"""What answers a request of freqtrade's wire."""

_SECURITY: Mapping[str, Json] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "a ws_token, a publisher's token or an access JWT; tradewire.v2",
    },
    "subprotocol": {
        "type": "httpApiKey",
        "in": "header",
        "name": "Sec-WebSocket-Protocol",
        "description": "`bearer.` and the base64url of the same, beside the wire; for browsers; tradewire.v2",
    },
    "token": {
        "type": "httpApiKey",
        "in": "query",
        "name": "token",
        "description": "a ws_token or an access JWT; freqtrade's wire, tradewire.v2 with hub.allow_query_token only",
    },
    "ticket": {
        "type": "httpApiKey",
        "in": "query",
        "name": "ticket",
        "description": "good for one handshake; from POST /api/v1/ws_ticket",
    },
}


def asyncapi_routes(*, version: str) -> list[BaseRoute]:
    """/asyncapi.json, for the outer application."""
    # Encoded once: anyone may ask.
    document = JSONResponse(asyncapi_document(version)).body

    async def asyncapi(_request: Request) -> Response:
        return Response(document, media_type="application/json")

    return [Route("/asyncapi.json", asyncapi)]


def asyncapi_document(version: str) -> Json:
    """The document of a hub of this version; the application that it speaks of is the hub."""
    freqtrade, v2 = _freqtrade_messages(), _v2_messages()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "tradewire",
            "version": version,
            "description": "The websocket of a message hub for trading bots.",
        },
        "defaultContentType": "application/json",
        "servers": {"hub": _server()},
        "channels": {
            FREQTRADE: _channel(FREQTRADE, freqtrade, "freqtrade's wire: flat JSON, no subprotocol.", None),
            V2: _channel(V2, v2, "The hub's own wire.", [str(name) for name in SUBPROTOCOLS]),
        },
        "operations": {**_freqtrade_operations(), **_v2_operations()},
        "components": {
            "schemas": _schemas(),
            "messages": {
                _component(wire, name): message
                for wire, messages in ((FREQTRADE, freqtrade), (V2, v2))
                for name, message in messages.items()
            },
            "securitySchemes": dict(_SECURITY),
        },
    }


def _server() -> Json:
    return {
        "host": "{host}",
        "protocol": "ws",
        "variables": {"host": {"default": "127.0.0.1:8080", "description": "where the hub listens"}},
        "security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in _SECURITY],
    }


def _channel(
    wire: str, messages: Mapping[str, Json], description: str, subprotocols: list[str] | None
) -> Json:
    ws: Json = {"method": "GET", "bindingVersion": "0.1.0"}
    if subprotocols is not None:
        ws["headers"] = {
            "type": "object",
            "required": ["Sec-WebSocket-Protocol"],
            "properties": {"Sec-WebSocket-Protocol": {"type": "string", "enum": subprotocols}},
        }
    return {
        "address": MESSAGE_PATH,
        "description": description,
        "messages": {name: {"$ref": f"#/components/messages/{_component(wire, name)}"} for name in messages},
        "bindings": {"ws": ws},
    }


def _component(wire: str, name: str) -> str:
    return f"{wire}.{name}"


# --- the messages, by their name in their channel: a request's is `request.` and its type, what the hub sends is by its type


def _freqtrade_messages() -> dict[str, Json]:
    messages = {f"request.{name}": _message(name, _ref(cls), cls) for name, cls in FREQTRADE_REQUESTS.items()}
    for topic, cls in REGISTRY.items():
        fields = _typed(topic)
        if topic in UNDER_DATA - BARE_DATA:
            payload = _typed(topic, required=["data"], data=_ref(cls))
        else:
            payload = {"allOf": [fields, _ref(cls)]}
        messages[topic] = _message(topic, payload, cls)
    return messages


def _v2_messages() -> dict[str, Json]:
    messages: dict[str, Json] = {}
    for name, cls in REQUESTS.items():
        messages[f"request.{name}"] = _message(name, _request(cls), cls)
        if REPLIES[cls] is not None:
            messages[f"reply.{name}"] = _reply(name, REPLIES[cls])
    for topic in (*REGISTRY, *sorted(HUB_TOPICS)):
        messages[topic] = _broadcast(topic)
    for name, cls in NOTICES.items():
        messages[name] = _message(name, _ref(cls), cls)
    return messages


def _request(cls: type[msgspec.Struct]) -> Json:
    if cls is not Publish:
        return _ref(cls)
    # Structs without a tag cannot be told apart by msgspec, so the Struct says no more than Any.
    return {
        "allOf": [_ref(cls), {"properties": {"data": {"anyOf": [_ref(PublishItem), _ref(PublishItems)]}}}]
    }


def _reply(name: str, data: Any) -> Json:
    done = _typed(
        "hub.reply",
        required=["id", "ok", "data"],
        id={"type": "integer"},
        ok={"const": True},
        data=_ref(data),
    )
    refused = _typed(
        "hub.reply",
        required=["id", "ok", "error"],
        id={"type": "integer"},
        ok={"const": False},
        error=_ref(ErrorData),
    )
    return {
        "name": "hub.reply",
        "title": f"The reply to {name}",
        "payload": {"anyOf": [done, refused]},
        "correlationId": {"location": "$message.payload#/id", "description": "the `id` of the request"},
    }


def _broadcast(topic: str) -> Json:
    cls = _DATA_OF_HUB_TOPICS.get(topic) or REGISTRY[topic]
    # The hub's own broadcast is of its subscribers' making: it has no key and no revision.
    numbered = [] if topic in HUB_TOPICS else _REQUIRED[delivery_class(topic)]
    fields = _typed(topic, required=["ts", "data", *numbered], data=_data(topic, cls))
    return _message(topic, {"allOf": [_ref(Broadcast), fields]}, cls)


def _data(topic: str, cls: type[msgspec.Struct]) -> Json:
    if topic in BARE_DATA:
        return {"$ref": f"{_SCHEMAS}{cls.__name__}/properties/data"}
    if topic == "analyzed_df":
        return {"anyOf": [_ref(LiveRows), _ref(Snapshot)]}
    return _ref(cls)


def _message(name: str, payload: Json, cls: type[msgspec.Struct]) -> Json:
    lines = (cls.__doc__ or "").strip().split("\n\n")
    summary = " ".join(line.strip() for line in lines[0].splitlines())
    return {"name": name, "summary": summary, "payload": payload}


def _typed(name: str, *, required: list[str] | None = None, **properties: Json) -> Json:
    return {
        "type": "object",
        "required": ["type", *(required or [])],
        "properties": {"type": {"const": name}, **properties},
    }


# --- the operations: what the hub receives, with its answer, and what it sends unasked


def _freqtrade_operations() -> Json:
    asked = {
        f"{FREQTRADE}.{name}": _operation(
            "receive", FREQTRADE, [f"request.{name}"], answers=_ANSWERS.get(name)
        )
        for name in FREQTRADE_REQUESTS
    }
    return {**asked, f"{FREQTRADE}.messages": _operation("send", FREQTRADE, list(REGISTRY))}


def _v2_operations() -> Json:
    asked = {
        f"{V2}.{name}": _operation(
            "receive", V2, [f"request.{name}"], answers=None if REPLIES[cls] is None else f"reply.{name}"
        )
        for name, cls in REQUESTS.items()
    }
    return {
        **asked,
        f"{V2}.messages": _operation("send", V2, [*REGISTRY, *sorted(HUB_TOPICS)]),
        f"{V2}.notices": _operation("send", V2, list(NOTICES)),
    }


def _operation(action: str, wire: str, messages: list[str], *, answers: str | None = None) -> Json:
    def refs(names: list[str]) -> list[Json]:
        return [{"$ref": f"#/channels/{wire}/messages/{name}"} for name in names]

    channel = {"$ref": f"#/channels/{wire}"}
    operation: Json = {"action": action, "channel": channel, "messages": refs(messages)}
    if answers is not None:
        operation["reply"] = {"channel": channel, "messages": refs([answers])}
    return operation


# --- the schemas


def _ref(cls: Any) -> Json:
    [schema], _ = msgspec.json.schema_components([cls], ref_template=f"{_SCHEMAS}{{name}}")
    plain: Json = _draft_7(schema)
    return plain


def _structs() -> Iterator[Any]:
    yield from REGISTRY.values()
    yield from REQUESTS.values()
    yield from (data for data in REPLIES.values() if data is not None)
    yield from FREQTRADE_REQUESTS.values()
    yield from NOTICES.values()
    yield from (Broadcast, CandleComplete, ErrorData, LiveRows, Snapshot, PublishItem, PublishItems)


def _schemas() -> Json:
    _, components = msgspec.json.schema_components(list(_structs()), ref_template=f"{_SCHEMAS}{{name}}")
    for schema in components.values():
        # What a Struct does not know is beside its fields on the wire.
        schema.get("properties", {}).pop("(extra)", None)
    plain: Json = _draft_7(components)
    return plain


def _draft_7(schema: Any) -> Any:
    """The schema with a tuple's items as draft 7 words them."""
    if isinstance(schema, list):
        return [_draft_7(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _draft_7(value) for name, value in schema.items()}
    if "prefixItems" in plain:
        plain["additionalItems"] = plain.get("items", True)
        plain["items"] = plain.pop("prefixItems")
    return plain
