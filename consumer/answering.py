"""Answers the requests of a hub with a BotAPI: finds the operation, converts what was given, performs it, and words its errors.

Shapes are those of the REST mount (freqtrade 2026.9's), so that a client cannot tell whether a bot is in the hub's process or not.
"""

from __future__ import annotations

import logging
import traceback
from typing import Any

import msgspec

from consumer.keyed import IN_HAND, KeyedCall, Remembering
from hub.protocol.botapi import (
    API_PREFIX,
    OPERATIONS,
    BotAPI,
    BotError,
    BotUnavailable,
    NotFound,
    perform,
    refusal,
)
from hub.protocol.calls import BotAnswer, BotRequest
from hub.protocol.operations import BadArguments, Operation, Place

__all__ = ["Answering"]

_LOG = logging.getLogger(__name__)


class Answering:
    """Called with a request, gives its answer; raises nothing of the bot's. For `Attachment`.

    A request for no operation is a 404, one whose arguments are wrong a 422 that names the first of them (a hub has checked
    them before; other callers may not have). An exception that is none of BotAPI's is logged, without what was asked, and is a 502.
    A call with a key is answered as before by a bot that remembers (`keyed`).
    """

    def __init__(self, bot: BotAPI) -> None:
        self._bot = bot

    async def __call__(self, request: BotRequest) -> BotAnswer:
        found = OPERATIONS.find(request.method, request.path)
        if found is None:
            return BotAnswer(status=404, body={"detail": "Not Found"})
        operation, in_path = found
        try:
            arguments = operation.arguments(in_path, request.query, request.body)
            call = None if operation.reads else KeyedCall.of(request)
            if call is not None and isinstance(self._bot, Remembering):
                kept = await self._bot.answered(call)
                if kept is not None:
                    return kept
            token = IN_HAND.set(call)
            try:
                answer = await perform(self._bot, operation, arguments)
            finally:
                IN_HAND.reset(token)
            return BotAnswer(status=200, body=msgspec.Raw(msgspec.json.encode(answer)))
        except BadArguments as error:
            return BotAnswer(status=422, body={"detail": [_mistake(operation, error)]})
        except (BotError, BotUnavailable, NotFound) as error:
            told = refusal(error, API_PREFIX + request.path)
            return BotAnswer(status=told.status, body=told.body)
        except Exception as error:
            # The frames only: the text of an exception may quote what was asked.
            frames = "".join(traceback.format_tb(error.__traceback__)).rstrip()
            _LOG.error("%s failed: %s\n%s", operation.name, type(error).__name__, frames)
            told = refusal(BotError("the bot failed; its log says how"), API_PREFIX + request.path)
            return BotAnswer(status=told.status, body=told.body)


def _mistake(operation: Operation, error: BadArguments) -> dict[str, Any]:
    """A mistake in an argument in the form of FastAPI, whose words for it are another library's."""
    name, _, reason = str(error).partition(": ")
    places = {parameter.name: str(parameter.place) for parameter in operation.parameters}
    if reason == "missing":
        location = [places.get(name, "body"), name]
        return {"type": "missing", "loc": location, "msg": "Field required", "input": None}
    if name not in places or operation.whole_body:
        return {"type": "value_error", "loc": [str(Place.BODY)], "msg": str(error), "input": None}
    return {"type": "value_error", "loc": [places[name], name], "msg": reason, "input": None}
