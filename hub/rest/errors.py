"""Errors as responses: those of a bot and those of a request's parameters, in freqtrade's shapes."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse, Response

from hub.auth.throttle import Throttled
from hub.protocol import botapi
from hub.protocol.botapi import BotError, BotUnavailable, NotFound
from hub.protocol.errors import HubError, LedgerUnreadable, RequestError
from hub.rest import publish

__all__ = ["answer_errors", "too_many_guesses"]


def answer_errors(app: FastAPI) -> None:
    """Let `app` answer what its routes raise."""
    for kind in (BotError, BotUnavailable, NotFound):
        app.add_exception_handler(kind, _bot_error)
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(LedgerUnreadable, _unreadable)
    app.add_exception_handler(Throttled, _throttled)
    app.add_exception_handler(RequestValidationError, _wrong_parameters)


async def _bot_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HubError)
    told = botapi.refusal(error, request.url.path)
    headers = None if told.retry_after_s is None else {"Retry-After": str(told.retry_after_s)}
    return JSONResponse(told.body, told.status, headers)


def too_many_guesses(error: Throttled) -> Response:
    """The response to a client whose address showed too many wrong credentials; freqtrade has no such limit."""
    detail = "Too many wrong credentials. Try again later."
    return JSONResponse({"detail": detail}, 429, {"Retry-After": str(error.retry_after_s)})


async def _throttled(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Throttled)
    return too_many_guesses(error)


async def _request_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return publish.refusal(error)


async def _unreadable(_request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 503, {"Retry-After": "1"})


async def _wrong_parameters(_request: Request, error: Exception) -> Response:
    """FastAPI's answer, made by one call in C: its own goes through a large `input` value by value, and fails on some."""
    assert isinstance(error, RequestValidationError)
    text = json.dumps({"detail": error.errors()}, ensure_ascii=False, separators=(",", ":"), default=_shown)
    return Response(text.encode(errors="replace"), 422, media_type="application/json")


def _shown(value: Any) -> str:
    # A body that is not declared as JSON is bytes.
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
