"""The answers of REST for the OpenAPI document: JSON Schemas of their Structs as components, and the responses of a route."""

from __future__ import annotations

import functools
import types
import typing
from typing import Any

import msgspec

from hub.bots.registry import BotListing
from hub.protocol.botapi import OPERATIONS
from hub.protocol.ledger_answers import FillsPage, OtherLedger, Reconciliation

__all__ = ["RETRY", "UNAUTHORIZED", "Detail", "QueryError", "components", "described", "responses"]

_REF = "#/components/schemas/{name}"


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """An error: of the request (401, 404, 408, 413), or that the bot does not answer this now (502, 503)."""

    detail: str


class QueryError(msgspec.Struct, frozen=True, kw_only=True):
    """The bot's error: "Error querying PATH: TEXT"."""

    error: str


def _plain(answer: Any) -> list[Any]:
    """The types of a union one by one: msgspec takes no union of Structs without tags."""
    return (
        list(typing.get_args(answer))
        if typing.get_origin(answer) in (typing.Union, types.UnionType)
        else [answer]
    )


def _all_types() -> list[Any]:
    answers = [plain for operation in OPERATIONS.values() for plain in _plain(operation.answer)]
    return [*answers, list[BotListing], FillsPage, OtherLedger, Reconciliation, Detail, QueryError]


def components() -> dict[str, Any]:
    """The schema of every Struct that a route answers, by name."""
    return msgspec.json.schema_components(_all_types(), ref_template=_REF)[1]


@functools.cache
def _schema(answer: Any) -> dict[str, Any]:
    schemas, _ = msgspec.json.schema_components(_plain(answer), ref_template=_REF)
    return schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}


def described(description: str, answer: Any) -> dict[str, Any]:
    """One response, with the schema of `answer`."""
    return {"description": description, "content": {"application/json": {"schema": _schema(answer)}}}


UNAUTHORIZED = described("The credential is missing, wrong or ended.", Detail)
"""The response of every route that wants a credential."""

RETRY = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds, where waiting helps."}}
_OF_ALL: dict[int | str, dict[str, Any]] = {
    401: UNAUTHORIZED,
    404: described("There is no such bot, trade or strategy.", Detail),
    502: described("The bot cannot do this, or is out of reach.", QueryError | Detail),
    503: described("The bot is busy, or in another run mode.", Detail) | {"headers": RETRY},
}
_OF_BODIES: dict[int | str, dict[str, Any]] = {
    400: described("The body is nested too deeply.", Detail),
    408: described("The body did not arrive in time.", Detail),
    413: described("The body is too large.", Detail),
}


def responses(answer: Any, *, body: bool = False) -> dict[int | str, dict[str, Any]]:
    """The responses of a route of a bot that answers `answer`; `body` when it reads one. 422 is FastAPI's own to describe."""
    return {200: described("Successful Response", answer), **_OF_ALL, **(_OF_BODIES if body else {})}
