"""Requests for a freqtrade bot that is asked through its own REST: authenticated here, bounded, and passed on.

It stands before the REST mount. A request for such a bot goes to it as it came; the hub's own routes, preflights, and every request
for another bot go to the mount. Authentication is the mount's, with its answers; freqtrade's order of checks then goes on at the bot.
A body is read behind it only: where freqtrade tells an anonymous client that its JSON is malformed, the hub says 401.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from hub.auth.throttle import Throttled
from hub.bots.freqtrade import BotAnswer, FreqtradeBot
from hub.protocol.principal import Principal
from hub.rest.bodies import NOT_READ, not_read, read_body
from hub.rest.errors import too_many_guesses

__all__ = ["OWN_PATHS", "PassThrough", "PassingStatistics"]

OWN_PATHS = frozenset(
    {
        "/token/login",
        "/token/refresh",
        "/publish",
        "/fills",
        "/reconcile",
        "/bots",
        "/ws_ticket",
        "/message/ws",
    }
)
"""Routes of the hub itself, below the prefix of the mount."""

_OPEN = frozenset({("GET", b"/ping"), ("HEAD", b"/ping")})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_RETRY_AFTER_S = 1


class PassingStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Of now: requests under way, and the bytes of their bodies and answers that are held, with the bound."""

    requests: int
    held_bytes: int
    held_limit_bytes: int


class PassThrough:
    """The ASGI application before `rest_app`.

    A body is at most `body_bytes` and must arrive within `body_timeout_s` seconds; a ping, which needs no credential, goes without
    one. While the bodies and answers under way have `held_bytes` together (clients that do not read, for one), no request is
    passed on: 503.

    Args:
        passed: the bot of a name, or the default bot's for None, when requests for it are to be passed on.
        user: authenticates as the mount does; raises HTTPException or Throttled.
    """

    def __init__(
        self,
        rest_app: ASGIApp,
        passed: Callable[[str | None], FreqtradeBot | None],
        user: Callable[[Request], Awaitable[Principal]],
        *,
        body_bytes: int = 1_048_576,
        held_bytes: int = 268_435_456,
        body_timeout_s: float = 30.0,
    ) -> None:
        self._rest_app = rest_app
        self._passed = passed
        self._user = user
        self._body_bytes = body_bytes
        self._held_limit = held_bytes
        self._body_timeout_s = body_timeout_s
        self._requests = 0
        self._held = 0

    def statistics(self) -> PassingStatistics:
        """A snapshot of the figures."""
        return PassingStatistics(
            requests=self._requests, held_bytes=self._held, held_limit_bytes=self._held_limit
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        bot = None
        if scope["type"] == "http" and scope["method"] != "OPTIONS":
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            if path not in OWN_PATHS:
                bot = self._passed(scope.get("path_params", {}).get("bot"))
        if bot is None:
            await self._rest_app(scope, receive, send)
            return
        self._requests += 1
        held = _Held(self)
        try:
            response = await self._answer(bot, Request(scope, receive), held)
            await response(scope, receive, send)
        finally:
            held.release()
            self._requests -= 1

    async def _answer(self, bot: FreqtradeBot, request: Request, held: _Held) -> Response:
        raw = _raw_below(request.scope)
        try:
            # TRACE would show the client what the hub sends, CONNECT opens a tunnel.
            if request.method not in _METHODS:
                raise HTTPException(405)
            body = b""
            # By the bytes that the bot gets, as it looks at them: "/%70ing" is asked with the hub's credential.
            if (request.method, raw) not in _OPEN:
                await self._user(request)
                body = await self._read(request, held)
            self._check_room()
        except HTTPException as error:
            return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
        except NOT_READ as error:
            return not_read(error)
        except Throttled as error:
            return too_many_guesses(error)
        answer = await bot.pass_on(
            request.method,
            raw,
            request.scope.get("query_string", b""),
            body,
            request.headers.get("content-type"),
        )
        # Whatever its size: the bot may have done what was asked, and a refusal now would have it done twice.
        held.take(len(answer.body))
        return _response(answer)

    async def _read(self, request: Request, held: _Held) -> bytes:
        def take(size: int) -> None:
            self._check_room()
            held.take(size)

        return await read_body(request, take, body_bytes=self._body_bytes, timeout_s=self._body_timeout_s)

    def _check_room(self) -> None:
        if self._held >= self._held_limit:
            raise HTTPException(503, "too many requests at once", {"Retry-After": str(_RETRY_AFTER_S)})


class _Held:
    """What one request holds of the bytes of all."""

    def __init__(self, owner: PassThrough) -> None:
        self._owner = owner
        self._size = 0

    def take(self, size: int) -> None:
        """Count `size` more bytes."""
        self._owner._held += size
        self._size += size

    def release(self) -> None:
        """All of it is let go."""
        self._owner._held -= self._size
        self._size = 0


def _response(answer: BotAnswer) -> Response:
    headers = {}
    if answer.content_type:
        headers["Content-Type"] = answer.content_type
    if answer.retry_after is not None:
        headers["Retry-After"] = str(answer.retry_after)
    return Response(answer.body, answer.status, headers)


def _raw_below(scope: Scope) -> bytes:
    """The path below the mount as the client wrote it. A server that does not tell gets it encoded anew by whoever sends it."""
    size, raw = len(scope.get("root_path", "").encode()), scope.get("raw_path")
    if raw is None:
        return bytes(scope["path"].encode()[size:])
    # So many bytes, each as it is or as %XX.
    prefix = re.match(rb"(?s)(?:%%[0-9A-Fa-f]{2}|.){%d}" % size, raw)
    return b"" if prefix is None else bytes(raw[prefix.end() :])
