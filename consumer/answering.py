"""Answers the requests of a bot's REST that come over its own websocket (calls), from its BotAPI.

A request goes the way that it would go over HTTP: the operation by method and path, the arguments converted, the answer as plain
values, an error as status and body.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

import msgspec

from hub.protocol.botapi import API_PREFIX, OPERATIONS, BotAPI, perform, refusal
from hub.protocol.errors import HubError
from hub.protocol.operations import BadArguments, Operation, Place

__all__ = ["Answering", "PlainAnswer", "Request"]

_LOG = logging.getLogger(__name__)


class Request(Protocol):
    """A request of REST: `path` below /api/v1 and decoded, `query` without the "?", `body` a JSON value or None."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def query(self) -> str: ...
    @property
    def body(self) -> Any: ...


class PlainAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP status and a body of plain values."""

    status: int
    body: Any = None


class Answering:
    """Answers for `bot`. Never raises but when cancelled: an unexpected exception is one line in the log and a 502."""

    def __init__(self, bot: BotAPI) -> None:
        self._bot = bot

    async def __call__(self, request: Request) -> PlainAnswer:
        """The answer to one request; cancelling it does not take back what the bot does by then."""
        path = API_PREFIX + request.path
        # Paths of operations come percent-encoded over HTTP; a `/` in a value would otherwise be two segments.
        found = OPERATIONS.find(request.method, _quoted(request.path))
        if found is None:
            return PlainAnswer(status=404, body={"detail": "Not Found"})
        operation, in_path = found
        try:
            arguments = operation.arguments(in_path, request.query, request.body)
        except BadArguments as error:
            return PlainAnswer(status=422, body={"detail": [_mistake(operation, error)]})
        try:
            return PlainAnswer(status=200, body=_plain(await perform(self._bot, operation, arguments)))
        except HubError as error:
            refused = refusal(error, path)
            return PlainAnswer(status=refused.status, body=refused.body)
        except Exception as error:
            # Neither the arguments nor the text of the exception: both may hold what is none of the log's business.
            _LOG.error("%s %s: unexpected %s", request.method, operation.path, type(error).__name__)
            return PlainAnswer(status=502, body={"error": f"Error querying {path}: internal error"})


def _quoted(path: str) -> str:
    return path.replace("%", "%25")


def _mistake(operation: Operation, error: BadArguments) -> dict[str, Any]:
    """A mistake in an argument in the form of FastAPI, whose words for it are another library's."""
    name, _, reason = str(error).partition(": ")
    places = {parameter.name: str(parameter.place) for parameter in operation.parameters}
    if reason == "missing":
        return {
            "type": "missing",
            "loc": [places.get(name, "body"), name],
            "msg": "Field required",
            "input": None,
        }
    if name not in places or operation.whole_body:
        return {"type": "value_error", "loc": [str(Place.BODY)], "msg": str(error), "input": None}
    return {"type": "value_error", "loc": [places[name], name], "msg": reason, "input": None}


def _plain(answer: Any) -> Any:
    """The answer without types; what is JSON already, such as the rows of candles, is decoded."""
    return msgspec.to_builtins(answer, enc_hook=_decoded)


def _decoded(value: Any) -> Any:
    if isinstance(value, msgspec.Raw):
        return msgspec.json.decode(value)
    raise TypeError(f"{type(value).__name__} is no plain value")
