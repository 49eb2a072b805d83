"""Request bodies within bounds: their size, the time they take, the bytes that all hold at once; and their JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from hub.protocol.errors import Overloaded, TooLarge

__all__ = ["NOT_READ", "Bodies", "BodyStatistics", "not_read", "parse_json", "read_body"]

_RETRY_AFTER_MS = 1000
NOT_READ = (TooLarge, Overloaded, TimeoutError, ClientDisconnect)
"""Why a body is not there."""


class BodyStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Of now: requests whose bodies are read or in use, and the bytes of those."""

    requests: int
    pending_bytes: int
    pending_limit_bytes: int


class Bodies:
    """Reads bodies of at most `body_bytes` that arrive within `timeout_s` seconds; all together hold at most `pending_bytes`."""

    def __init__(self, *, body_bytes: int, pending_bytes: int, timeout_s: float) -> None:
        self._body_bytes = body_bytes
        self._pending_limit = pending_bytes
        self._timeout_s = timeout_s
        self._requests = 0
        self._pending_bytes = 0

    def statistics(self) -> BodyStatistics:
        """A snapshot of the figures."""
        return BodyStatistics(
            requests=self._requests,
            pending_bytes=self._pending_bytes,
            pending_limit_bytes=self._pending_limit,
        )

    @contextlib.asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body, held as long as the context lasts.

        Raises:
            TooLarge: over the bound. Overloaded: other bodies hold too much. TimeoutError: it did not arrive in time.
            ClientDisconnect: the client went away.
        """
        held = 0

        def take(size: int) -> None:
            nonlocal held
            if self._pending_bytes + size > self._pending_limit:
                raise Overloaded("too many bodies at once", retry_after_ms=_RETRY_AFTER_MS)
            self._pending_bytes += size
            held += size

        self._requests += 1
        try:
            yield await read_body(request, take, body_bytes=self._body_bytes, timeout_s=self._timeout_s)
        finally:
            self._requests -= 1
            self._pending_bytes -= held


async def read_body(
    request: Request, take: Callable[[int], None], *, body_bytes: int, timeout_s: float
) -> bytes:
    """The whole body; `take` is told of the bytes of each piece before it is kept, and may refuse it by raising.

    Raises:
        TooLarge: over `body_bytes`. TimeoutError: not there within `timeout_s` seconds. ClientDisconnect: the client went away.
    """

    def check(size: int) -> None:
        if size > body_bytes:
            raise TooLarge(f"body: expected at most {body_bytes} bytes")

    body = bytearray()
    if (declared := request.headers.get("content-length", "")).isdecimal() and len(declared) < 20:
        check(int(declared))
    async with asyncio.timeout(timeout_s):
        async for chunk in request.stream():
            check(len(body) + len(chunk))
            take(len(chunk))
            body += chunk
    return bytes(body)


def not_read(error: Exception) -> Response:
    """The response to a request whose body is not there, for one of NOT_READ, in freqtrade's shape."""
    match error:
        case TooLarge():
            return JSONResponse({"detail": str(error)}, 413)
        case Overloaded():
            return JSONResponse({"detail": str(error)}, 503, {"Retry-After": "1"})
        case TimeoutError():
            return JSONResponse({"detail": "The body did not arrive in time."}, 408)
        case _:
            # The client went away; nobody is there to read it.
            return Response(status_code=400)


def parse_json(body: bytes) -> Any:
    """The value of a JSON text, which holds neither NaN nor half a surrogate pair: both would fail on the way to a bot.

    Raises:
        JSONDecodeError: it is not JSON; for a text that is, but is not taken, at position 0. RecursionError: it is nested too
        deeply.
    """
    try:
        text = body.decode(json.detect_encoding(body))
        value = json.loads(text, parse_constant=_refuse_constant)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError:
        raise
    except ValueError:
        raise json.JSONDecodeError("not UTF-8 or not a JSON number", "", 0) from None
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
