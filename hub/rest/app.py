"""freqtrade's REST API of a trading bot, and the hub's own routes, as a sub-application to be mounted under /api/v1.

The answer for a bot is the same under `/api/v1` (the default bot) and `/bots/{bot}/api/v1`: mount the same application under
both. Shapes, error bodies and the order of checks are those of freqtrade 2026.9, observed on a running one:

| case | answer |
|---|---|
| no Authorization, another scheme, wrong Basic | 401 `{"detail":"Unauthorized"}` |
| Basic that is not the base64 of `user:password` | 401 `{"detail":"Not authenticated"}`, `WWW-Authenticate: Basic` |
| a Bearer that is no valid access JWT | 401 `{"detail":"Could not validate credentials"}`, `WWW-Authenticate: Bearer` |
| too many wrong credentials from this address | 429 `{"detail":"Too many …"}`, `Retry-After` (not freqtrade's: it has no limit) |
| login without Basic; with a wrong one | 401 `Not authenticated` as above; 401 `{"detail":"Incorrect username or password"}` |
| the bot cannot answer | as of hub.protocol.botapi |
| no such route, no GET of it; another method that it has not | 404 `{"detail":"Not Found"}`; 405 `{"detail":"Method Not Allowed"}` |

A body that a route does not use is not read as JSON: freqtrade-client sends `null` with every GET, FreqUI `{}` with a login.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import Depends, FastAPI, HTTPException, Request
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response

from hub.auth.authenticator import Authenticator, authorization
from hub.auth.passwords import MalformedBasic
from hub.bots.registry import BotRegistry
from hub.protocol.principal import Principal
from hub.rest.bodies import Bodies
from hub.rest.errors import answer_errors
from hub.rest.fills import LedgerSource, add_fills
from hub.rest.publish import Publish, PublishIntake
from hub.rest.reconcile import Reconcile
from hub.rest.routes import add_bot_routes, bounded_route

__all__ = ["RestSettings", "build_rest"]


class RestSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the mount takes from the configuration.

    `items` is the most messages in one publish. A body is at most `body_bytes` and arrives within `body_timeout_s` seconds; those of
    all publishes hold at most `pending_bytes` together, and those of all other routes as much again.
    """

    cors_origins: Sequence[str] = ()
    items: int = 256
    body_bytes: int = 1_048_576
    pending_bytes: int = 33_554_432
    body_timeout_s: float = 30.0


def build_rest(
    authenticator: Authenticator,
    registry: BotRegistry,
    publish: Publish,
    source: LedgerSource,
    reconcile: Reconcile,
    settings: RestSettings | None = None,
) -> FastAPI:
    """The sub-application. `app.state.publish_intake` and `app.state.bodies` have `statistics()` of the bodies they hold;
    `app.state.user` is how a request is authenticated.

    With `cors_origins` it answers CORS itself; without, it refuses preflights that the application around it did not answer.
    `publish` and `source` are the node's, `reconcile` the reconciler's.
    """
    settings = settings or RestSettings()
    # A redirect would be FastAPI's own idea; freqtrade answers 404 to a slash at the end.
    app = FastAPI(title="tradewire", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    intake = PublishIntake(
        publish,
        items=settings.items,
        body_bytes=settings.body_bytes,
        pending_bytes=settings.pending_bytes,
        body_timeout_s=settings.body_timeout_s,
    )
    bodies = Bodies(
        body_bytes=settings.body_bytes,
        pending_bytes=settings.pending_bytes,
        timeout_s=settings.body_timeout_s,
    )
    app.state.publish_intake = intake
    app.state.bodies = bodies
    app.state.user = user = _User(authenticator)
    app.router.route_class = bounded_route(user, bodies)
    answer_errors(app)
    _add_ping(app)
    add_bot_routes(app, user, registry, reconcile)
    add_fills(app, _Reader(authenticator), source)
    _add_tokens(app, authenticator)
    _add_publish(app, authenticator, intake)
    _answer_every_get(app)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(settings.cors_origins),
        allow_credentials=True,
        allow_methods=["*"],
        allow_headers=["*"],
    )
    return app


def _unauthorized(detail: str, challenge: str | None = None) -> HTTPException:
    headers = None if challenge is None else {"WWW-Authenticate": challenge}
    return HTTPException(401, detail, headers)


class _User:
    """The dependency of every protected route."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def _bearer(self, token: bytes, address: str | None) -> Principal | None:
        return self._authenticator.bearer(token, address)

    async def __call__(self, request: Request) -> Principal:
        scheme, value = authorization(request.headers.raw)
        principal = None
        if scheme == b"bearer" and value:
            principal = self._bearer(value, _address(request))
            if principal is None:
                raise _unauthorized("Could not validate credentials", "Bearer")
        elif scheme == b"basic":
            principal = _basic(self._authenticator, value, request)
        if principal is None:
            raise _unauthorized("Unauthorized")
        return principal


class _Reader(_User):
    """The dependency of what is only read: it takes the tokens of websockets, too."""

    def _bearer(self, token: bytes, address: str | None) -> Principal | None:
        return self._authenticator.of_token(token, address)


def _address(request: Request) -> str | None:
    return None if request.client is None else request.client.host


def _basic(authenticator: Authenticator, value: bytes, request: Request) -> Principal | None:
    try:
        return authenticator.basic(value, _address(request))
    except MalformedBasic:
        raise _unauthorized("Not authenticated", "Basic") from None


def _json(value: Any, status: int = 200) -> JSONResponse:
    return JSONResponse(msgspec.to_builtins(value), status)


def _documented(**fields: str) -> dict[int | str, dict[str, Any]]:
    """The 200 of a route in OpenAPI, from the names and types of its fields."""
    schema = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in fields.items()},
        "required": list(fields),
    }
    return {200: {"description": "Successful Response", "content": {"application/json": {"schema": schema}}}}


_USER_SECURITY: dict[str, Any] = {"security": [{"HTTPBasic": []}, {"OAuth2PasswordBearer": []}]}


def _add_ping(app: FastAPI) -> None:
    pong = JSONResponse({"status": "pong"})

    @app.head("/ping", tags=["Info"], responses=_documented(status="string"), response_model=None)
    @app.get("/ping", tags=["Info"], responses=_documented(status="string"), response_model=None)
    async def ping() -> Response:
        return pong


def _add_tokens(app: FastAPI, authenticator: Authenticator) -> None:
    @app.post(
        "/token/login",
        tags=["Auth"],
        responses=_documented(access_token="string", refresh_token="string"),
        openapi_extra={"security": [{"HTTPBasic": []}]},
        response_model=None,
    )
    async def login(request: Request) -> Response:
        scheme, value = authorization(request.headers.raw)
        if scheme != b"basic":
            raise _unauthorized("Not authenticated", "Basic")
        principal = _basic(authenticator, value, request)
        if principal is None:
            raise _unauthorized("Incorrect username or password")
        access, refresh = authenticator.issue(principal)
        return _json({"access_token": access, "refresh_token": refresh})

    @app.post(
        "/token/refresh",
        tags=["Auth"],
        responses=_documented(access_token="string"),
        openapi_extra={"security": [{"OAuth2PasswordBearer": []}]},
        response_model=None,
    )
    async def refresh(request: Request) -> Response:
        scheme, value = authorization(request.headers.raw)
        access = authenticator.refresh(value, _address(request)) if scheme == b"bearer" else None
        if access is None:
            raise _unauthorized("Could not validate credentials", "Bearer")
        return _json({"access_token": access})

    user = Depends(_User(authenticator))

    @app.post(
        "/ws_ticket",
        tags=["Auth"],
        responses=_documented(ticket="string", expires_ms="integer"),
        openapi_extra=_USER_SECURITY,
        response_model=None,
    )
    async def ws_ticket(request: Request, principal: Principal = user) -> Response:
        ticket = authenticator.ticket(principal, request.headers.raw)
        answer = JSONResponse({"ticket": ticket.text, "expires_ms": ticket.expires_ms})
        answer.headers["Cache-Control"] = "no-store"
        return answer


def _add_publish(app: FastAPI, authenticator: Authenticator, intake: PublishIntake) -> None:
    @app.post(
        "/publish",
        tags=["Hub"],
        openapi_extra={
            "security": [{"PublisherToken": []}],
            "requestBody": {"required": True, "content": {"application/json": {"schema": _PUBLISH_SCHEMA}}},
        },
        responses=_PUBLISH_RESPONSES,
        response_model=None,
    )
    async def publish(request: Request) -> Response:
        principal = authenticator.publisher(request.headers.raw, _address(request))
        if principal is None:
            raise _unauthorized("Could not validate credentials", "Bearer")
        return await intake.answer(principal, request)


def _answer_every_get(app: FastAPI) -> None:
    @app.get("/{path:path}", include_in_schema=False, response_model=None)
    async def not_found() -> Response:
        # The last route: freqtrade's UI takes what no GET route takes, also where another method is known. So 404 and not 405.
        raise HTTPException(404)


_MESSAGE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["bot", "topic", "data"],
    "properties": {
        "bot": {"type": "string"},
        "topic": {"type": "string"},
        "mid": {
            "type": "string",
            "description": "unique per publisher for ever; the same one when repeating",
        },
        "ts": {"type": "integer", "description": "ms since 1970 UTC"},
        "data": {},
        "key": {"type": "array", "items": {"type": "string"}},
        "schema": {},
    },
}
_PUBLISH_SCHEMA: dict[str, Any] = {"oneOf": [_MESSAGE_SCHEMA, {"type": "array", "items": _MESSAGE_SCHEMA}]}
_PUBLISH_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "All were accepted: the answer of each, in order."},
    400: {"description": "The request, or a message of it, is malformed."},
    401: {"description": "No valid token."},
    403: {"description": "The token may not publish, or not for this bot."},
    408: {"description": "The body did not arrive in time."},
    409: {"description": "The mid was used with other content."},
    410: {"description": "The mid is too old to be told from a duplicate."},
    413: {"description": "Too large."},
    422: {"description": "Not JSON, or not what the topic expects."},
    503: {"description": "Not stored now; repeat the refused ones with the same mid, after Retry-After."},
}
