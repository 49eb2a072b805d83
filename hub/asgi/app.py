"""The outer ASGI application: the websocket route, the public routes and the REST mount. It runs on any ASGI server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from hub.asgi.connection import MESSAGE_PATH, MessageEndpoint
from hub.asgi.outlet import Statistics
from hub.auth.authenticator import Authenticator
from hub.node import Node
from hub.protocol.botapi import API_PREFIX

__all__ = ["BOTS_PREFIX", "REST_PREFIX", "HubApp", "build_app"]

REST_PREFIX = API_PREFIX
BOTS_PREFIX = "/bots/"


class HubApp(Starlette):
    """Starlette with the message endpoint in front: its websockets take no part in middleware and routing.

    For 10 000 connections that saves the frames of four middlewares each. `endpoint` has the edge's figures. FreqUI makes the
    websocket's URL from a bot's, so each bot has a message path too; a name in it was decoded by the server, and may have slashes.
    """

    def __init__(
        self,
        endpoint: MessageEndpoint,
        routes: Sequence[BaseRoute],
        middleware: Sequence[Middleware],
        lifespan: Lifespan[HubApp] | None,
    ) -> None:
        super().__init__(
            routes=routes,
            middleware=middleware,
            lifespan=lifespan,
            exception_handlers={404: _refused, 405: _refused},
        )
        self.router.redirect_slashes = False
        self.endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            path = _route_path(scope)
            if path == MESSAGE_PATH:
                await self.endpoint(scope, receive, send)
                return
            if (bot := _bot_of(path)) is not None:
                await self.endpoint(scope, receive, send, bot)
                return
        await super().__call__(scope, receive, send)

    def statistics(self) -> Statistics:
        """The edge's figures (MessageEndpoint.statistics)."""
        return self.endpoint.statistics()


def _route_path(scope: Scope) -> str:
    """The path without what the application is mounted under; as Starlette has it for its routes."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _bot_of(path: str) -> str | None:
    """Whose message path this is."""
    if path.startswith(BOTS_PREFIX) and path.endswith(MESSAGE_PATH):
        return path[len(BOTS_PREFIX) : -len(MESSAGE_PATH)] or None
    return None


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": HTTPStatus(error.status_code).phrase}, error.status_code, error.headers)


def build_app(
    node: Node,
    authenticator: Authenticator,
    rest_app: ASGIApp | None = None,
    public_routes: Sequence[BaseRoute] = (),
    *,
    ui: Sequence[BaseRoute] = (),
    cors_origins: Sequence[str] = (),
    knows: Callable[[str], bool] = lambda _bot: True,
    lifespan: Lifespan[HubApp] | None = None,
) -> HubApp:
    """The hub's application.

    `rest_app` is mounted under REST_PREFIX, and under it for each bot: `path_params` of its scope then have `bot`. `knows` says
    whether a bot of a name exists. `public_routes` come before it, `ui` (ui_routes) after all. `cors_origins` concern HTTP only
    (the authenticator judges a websocket's Origin); leave it empty when `rest_app` answers CORS itself. The node is started and
    drained by whoever owns it, before the server ends the sockets; a lifespan's shutdown is too late for that (hub.asgi.mounted).
    """
    endpoint = MessageEndpoint(node, authenticator, knows=knows)
    routes: list[BaseRoute] = list(public_routes)
    if rest_app is not None:
        routes.append(Mount(REST_PREFIX, rest_app))
        # Not one segment only: a name may have a slash, which is decoded before routes are matched.
        routes.append(Mount(f"{BOTS_PREFIX}{{bot:path}}{REST_PREFIX}", rest_app))
    routes += ui
    middleware = [
        Middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_credentials=True,
            allow_methods=["*"],
            allow_headers=["*"],
        )
    ]
    return HubApp(endpoint, routes, middleware if cors_origins else [], lifespan)
