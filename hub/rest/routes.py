"""The routes of a bot: one for each operation of BotAPI, those of freqtrade's webserver mode, GET /bots and POST /reconcile.

Order of checks, as freqtrade's: a body that is not JSON (422, also for who has no credential), the credential (401), the bot
(404), the run mode (503), the parameters (422), the bot's own answer. A route that takes no body does not look at one.

Bodies are bounded. Of who shows no valid credential only ANONYMOUS_BYTES are read, from a small store of their own: beyond them
the answer is the 401 that it would be anyway, and nobody can fill what users need.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, NamedTuple

import msgspec
from fastapi import Body, Depends, FastAPI, HTTPException, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from hub.bots.ports import BotPort
from hub.bots.registry import BotListing, BotRegistry
from hub.protocol.botapi import OPERATIONS, WrongState
from hub.protocol.operations import Operation, Place
from hub.protocol.principal import Principal
from hub.rest.bodies import NOT_READ, Bodies, not_read, parse_json
from hub.rest.parameters import arguments_of, declared
from hub.rest.reconcile import Reconcile, add_reconcile
from hub.rest.schemas import responses

__all__ = ["ANONYMOUS_BYTES", "User", "add_bot_routes", "bounded_route"]

ANONYMOUS_BYTES = 16_384
_ANONYMOUS_PENDING_BYTES = 1_048_576
_ANONYMOUS_TIMEOUT_S = 5.0
_SECURITY: dict[str, Any] = {"security": [{"HTTPBasic": []}, {"OAuth2PasswordBearer": []}]}
_WEBSERVER = {
    "GET": "strategies exchanges hyperoptloss freqaimodels available_pairs backtest backtest/abort backtest/history "
    "backtest/history/result backtest/history/{file}/market_change backtest/history/{file}/{strategy}/wallet background "
    "background/{jobid} pair_history pairlists/available pairlists/evaluate/{jobid} lookahead_analysis/{jobid} "
    "recursive_analysis/{jobid}",
    "POST": "backtest pair_history pairlists/evaluate download_data lookahead_analysis recursive_analysis",
    "PATCH": "backtest/history/{file}",
    "DELETE": "backtest backtest/history/{file} background/{jobid} background/clear",
}

User = Callable[[Request], Awaitable[Principal]]
"""Who asks; raises HTTPException with 401."""


class _Asked(NamedTuple):
    """A request that may be answered: who asks, and which bot."""

    principal: Principal
    port: BotPort


class _Read(Request):
    """A request whose body has been read."""

    def __init__(self, request: Request, body: bytes) -> None:
        super().__init__(request.scope, request.receive)
        self._read = body

    async def body(self) -> bytes:
        return self._read

    async def json(self) -> Any:
        return parse_json(self._read)


def bounded_route(user: User, bodies: Bodies) -> type[APIRoute]:
    """The class of all routes of the mount: it reads the body of a route that declares one, within the bounds of `bodies`."""
    anonymous = Bodies(
        body_bytes=ANONYMOUS_BYTES, pending_bytes=_ANONYMOUS_PENDING_BYTES, timeout_s=_ANONYMOUS_TIMEOUT_S
    )

    class BoundedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handler = super().get_route_handler()

            async def bounded(request: Request) -> Response:
                return await _bounded(request, handler, user, bodies, anonymous)

            return handler if self.body_field is None else bounded

    return BoundedRoute


async def _bounded(
    request: Request,
    handler: Callable[[Request], Awaitable[Response]],
    user: User,
    bodies: Bodies,
    anonymous: Bodies,
) -> Response:
    refused: HTTPException | None = None
    try:
        request.state.user = await user(request)
    except HTTPException as error:
        request.state.user = refused = error
    async with contextlib.AsyncExitStack() as stack:
        try:
            body = await stack.enter_async_context((anonymous if refused else bodies).read(request))
        except NOT_READ as error:
            if refused is not None:
                raise refused from None
            return not_read(error)
        return await handler(_Read(request, body))


def add_bot_routes(app: FastAPI, user: User, registry: BotRegistry, reconcile: Reconcile) -> None:
    """Add the routes. The bot is the one of the path's `bot`, where the mount has one, else the default bot."""

    async def known(request: Request) -> Principal:
        found: Principal | HTTPException | None = getattr(request.state, "user", None)
        if isinstance(found, HTTPException):
            raise found
        return found if found is not None else await user(request)

    async def ask(request: Request) -> _Asked:
        principal = await known(request)
        return _Asked(principal, registry.port(request.path_params.get("bot")))

    routes = [(op, path) for op in OPERATIONS.values() for path in op.paths]
    # A path without parameters goes first: /trades/open/custom-data is no trade called "open".
    for operation, path in sorted(routes, key=lambda route: route[1].count("{")):
        _add_operation(app, operation, path, ask)
    _add_webserver_routes(app, ask)
    _add_bots(app, known, registry)
    add_reconcile(app, known, registry, reconcile)


def _add_operation(
    app: FastAPI, operation: Operation, path: str, ask: Callable[[Request], Awaitable[_Asked]]
) -> None:
    alias = "" if path == operation.path else path.replace("/", "_")
    # An alias goes to the bot as what was asked: its errors name the path.
    asked = msgspec.structs.replace(operation, paths=(path, *(p for p in operation.paths if p != path)))
    app.add_api_route(
        path,
        _endpoint(asked, ask),
        methods=[operation.method],
        tags=[operation.tag],
        operation_id=operation.name + alias,
        summary=operation.summary.partition("\n")[0],
        responses=responses(operation.answer, body=bool(operation.of(Place.BODY))),
        openapi_extra=_SECURITY,
        response_model=None,
    )


def _endpoint(operation: Operation, ask: Callable[[Request], Awaitable[_Asked]]) -> Any:
    async def endpoint(asked: _Asked, **given: Any) -> Response:
        arguments = arguments_of(operation, given)
        answer = await asked.port.perform(operation, arguments, principal=asked.principal.name)
        # Those two have no body (RFC 9110 sections 15.3.5 and 15.4.5), whatever the bot says.
        body = b"" if answer.status in (204, 304) else answer.body
        return Response(body, answer.status, media_type="application/json")

    dependency = inspect.Parameter(
        "asked", inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[Any, Depends(ask)]
    )
    endpoint.__name__ = operation.name
    endpoint.__signature__ = inspect.Signature([dependency, *declared(operation)])  # type: ignore[attr-defined]
    return endpoint


def _add_webserver_routes(app: FastAPI, ask: Callable[[Request], Awaitable[_Asked]]) -> None:
    dependencies = [Depends(ask)]

    async def without_body() -> Response:
        raise WrongState

    async def with_body(_payload: Annotated[Any, Body()] = None) -> Response:
        raise WrongState

    for method, paths in _WEBSERVER.items():
        endpoint = with_body if method in ("POST", "PATCH") else without_body
        for path in paths.split():
            app.add_api_route(
                f"/{path}",
                endpoint,
                methods=[method],
                dependencies=dependencies,
                include_in_schema=False,
                response_model=None,
            )


def _add_bots(app: FastAPI, known: User, registry: BotRegistry) -> None:
    described = responses(list[BotListing])

    @app.get(
        "/bots",
        tags=["Hub"],
        operation_id="bots",
        summary="Every bot of the hub, with its state and how fresh it is.",
        dependencies=[Depends(known)],
        responses={status: described[status] for status in (200, 401)},
        openapi_extra=_SECURITY,
        response_model=None,
    )
    async def bots() -> Response:
        return Response(msgspec.json.encode(registry.list()), media_type="application/json")
