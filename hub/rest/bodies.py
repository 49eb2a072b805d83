"""Request bodies within bounds: their size, the time they take, the bytes that all hold at once; and their JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import msgspec
from starlette.requests import Request

from hub.protocol.errors import Overloaded, TooLarge

__all__ = ["Bodies", "BodyStatistics", "parse_json"]

_RETRY_AFTER_MS = 1000


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
        body = bytearray()
        self._requests += 1
        try:
            await self._fill(request, body)
            yield bytes(body)
        finally:
            self._requests -= 1
            self._pending_bytes -= len(body)

    async def _fill(self, request: Request, body: bytearray) -> None:
        if (declared := request.headers.get("content-length", "")).isdecimal() and len(declared) < 20:
            self._check_size(int(declared))
        async with asyncio.timeout(self._timeout_s):
            async for chunk in request.stream():
                self._check_size(len(body) + len(chunk))
                if self._pending_bytes + len(chunk) > self._pending_limit:
                    raise Overloaded("too many bodies at once", retry_after_ms=_RETRY_AFTER_MS)
                self._pending_bytes += len(chunk)
                body += chunk

    def _check_size(self, size: int) -> None:
        if size > self._body_bytes:
            raise TooLarge(f"body: expected at most {self._body_bytes} bytes")


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
