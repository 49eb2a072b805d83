"""POST /publish: a message or a list of messages, answered once committed.

Each message is answered, in order, as over the websocket: `{epoch, offset, duplicate}` for a ledger message, `{rev}` for state,
`{}` for an event, or `{"error": ERROR OBJECT}`. A single message gets its one answer, a list the list of them. The status is 200
when all were accepted, else that of the first error; the body has all answers either way, so a publisher repeats exactly the
refused ones, with their `mid`. Messages are accepted in the order of the list; a refused one does not stop the next.

| error code | status |
|---|---|
| bad_request | 400 |
| forbidden | 403 |
| id_conflict | 409 |
| id_expired | 410 |
| too_large | 413 |
| bad_message, unknown_topic | 422 |
| not_durable, overloaded, draining | 503 with Retry-After |
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hub.core.intake import PublishOrder
from hub.protocol.errors import ErrorCode, RequestError
from hub.protocol.principal import Principal
from hub.rest.bodies import NOT_READ, Bodies, not_read, parse_json

__all__ = ["Publish", "PublishIntake", "PublishStatistics", "refusal"]

Publish = Callable[[Principal, Mapping[str, Any], PublishOrder], Awaitable[Mapping[str, Any]]]
"""Publishes one message and returns its answer once committed; raises RequestError when it is refused."""

_STATUS = {
    ErrorCode.BAD_REQUEST: 400,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.ID_CONFLICT: 409,
    ErrorCode.ID_EXPIRED: 410,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.BAD_MESSAGE: 422,
    ErrorCode.UNKNOWN_TOPIC: 422,
    ErrorCode.NOT_DURABLE: 503,
    ErrorCode.OVERLOADED: 503,
    ErrorCode.DRAINING: 503,
}
_RETRY_AFTER_MS = 1000


class PublishStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Of now: requests that are read or wait for their commit and the bytes of their bodies; since the start: messages."""

    requests: int
    pending_bytes: int
    pending_limit_bytes: int
    accepted: int
    refused: int


class PublishIntake:
    """Reads bodies within bounds and publishes what is in them.

    A body is at most `body_bytes` and must arrive within `body_timeout_s` seconds; all bodies together are at most
    `pending_bytes`, held until their messages are answered. A client that goes away does not take back what it sent whole.
    """

    def __init__(
        self, publish: Publish, *, items: int, body_bytes: int, pending_bytes: int, body_timeout_s: float
    ) -> None:
        self._publish = publish
        self._items = items
        self._bodies = Bodies(body_bytes=body_bytes, pending_bytes=pending_bytes, timeout_s=body_timeout_s)
        self._accepted = 0
        self._refused = 0

    def statistics(self) -> PublishStatistics:
        """A snapshot of the figures."""
        bodies = self._bodies.statistics()
        return PublishStatistics(
            requests=bodies.requests,
            pending_bytes=bodies.pending_bytes,
            pending_limit_bytes=bodies.pending_limit_bytes,
            accepted=self._accepted,
            refused=self._refused,
        )

    async def answer(self, principal: Principal, request: Request) -> Response:
        """The response to one request of `principal`, which may publish."""
        try:
            async with self._bodies.read(request) as body:
                return await self._answered(principal, body)
        except RequestError as error:
            return refusal(error)
        except NOT_READ as error:
            return not_read(error)

    async def _answered(self, principal: Principal, body: bytes) -> Response:
        try:
            document = parse_json(body)
        except RecursionError:
            raise RequestError("body: nested too deeply") from None
        except json.JSONDecodeError as error:
            return _not_json(error)
        items = document if isinstance(document, list) else [document]
        if len(items) > self._items:
            raise RequestError(f"body: expected at most {self._items} messages, got {len(items)}")
        # The tasks begin in this order and the node accepts before it waits, so one commit can take the whole list.
        order = PublishOrder()
        results = await asyncio.gather(*(self._one(principal, item, order) for item in items))
        answers = [{"error": r.as_data()} if isinstance(r, RequestError) else dict(r) for r in results]
        errors = [r for r in results if isinstance(r, RequestError)]
        return _response(answers if isinstance(document, list) else answers[0], errors)

    async def _one(
        self, principal: Principal, item: Any, order: PublishOrder
    ) -> Mapping[str, Any] | RequestError:
        try:
            if not isinstance(item, dict):
                raise RequestError("expected a map with bot, topic and data")
            answer = await self._publish(principal, item, order)
        except RequestError as error:
            self._refused += 1
            return error
        self._accepted += 1
        return answer


def refusal(error: RequestError) -> Response:
    """The response to a request that is refused as a whole."""
    return _response({"error": error.as_data()}, [error])


def _response(body: Any, errors: list[RequestError]) -> Response:
    if not errors:
        return JSONResponse(body)
    first = errors[0]
    headers = {}
    if first.temporary:
        waits = [error.retry_after_ms or _RETRY_AFTER_MS for error in errors if error.temporary]
        headers["Retry-After"] = str(math.ceil(max(waits) / 1000))
    return JSONResponse(body, _STATUS.get(first.code, 500), headers)


def _not_json(error: json.JSONDecodeError) -> Response:
    # FastAPI's own answer to a body that is not JSON, as freqtrade's routes give it.
    detail = {
        "type": "json_invalid",
        "loc": ["body", error.pos],
        "msg": "JSON decode error",
        "input": {},
        "ctx": {"error": error.msg},
    }
    return JSONResponse({"detail": [detail]}, 422)
