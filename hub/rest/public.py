"""What anyone may ask without a credential: /livez and /readyz, and with `enable_openapi` the documentation.

The documentation needs no internet: Swagger UI comes from the package fastapi-offline.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from hub.protocol.errors import ConfigError
from hub.rest.schemas import UNAUTHORIZED, components

__all__ = ["Probed", "documentation_routes", "openapi_document", "probe_routes"]

_ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
_SECURITY = {
    "HTTPBasic": {"type": "http", "scheme": "basic"},
    "OAuth2PasswordBearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "PublisherToken": {"type": "http", "scheme": "bearer"},
    "ReaderToken": {"type": "http", "scheme": "bearer"},
}


class Probed(Protocol):
    """What is asked of the node. Both answer at once."""

    def alive(self) -> bool:
        """False when only a restart helps: slow to fail."""

    def ready(self) -> tuple[bool, Mapping[str, Any]]:
        """Whether to send clients here now (fast to fail), and the single checks by name; nothing secret in them."""


def probe_routes(node: Probed) -> list[BaseRoute]:
    """GET and HEAD /livez and /readyz: 200 or 503. `/readyz?verbose` tells the single checks."""

    async def livez(_request: Request) -> Response:
        alive = node.alive()
        return _probe(alive, {"status": "alive" if alive else "dead"})

    async def readyz(request: Request) -> Response:
        ready, checks = node.ready()
        body: dict[str, Any] = {"status": "ready" if ready else "not ready"}
        if "verbose" in request.query_params:
            body["checks"] = dict(checks)
        return _probe(ready, body)

    return [Route("/livez", livez), Route("/readyz", readyz)]


def _probe(good: bool, body: Mapping[str, Any]) -> Response:
    return JSONResponse(body, 200 if good else 503, headers={"Cache-Control": "no-store"})


def documentation_routes(rest: FastAPI, *, prefix: str, version: str, default_bot: str) -> list[BaseRoute]:
    """/docs and /openapi.json of the mount `rest` under `prefix`, for the outer application.

    Raises:
        ConfigError: the package with Swagger UI is not installed.
    """
    # Encoded once: it takes milliseconds of the loop, and anyone may ask.
    document = JSONResponse(
        openapi_document(rest, prefix=prefix, version=version, default_bot=default_bot)
    ).body
    assets = _assets()

    async def openapi(_request: Request) -> Response:
        return Response(document, media_type="application/json")

    async def docs(request: Request) -> Response:
        root = request.scope.get("root_path", "")
        return get_swagger_ui_html(
            openapi_url=f"{root}/openapi.json",
            title="tradewire",
            swagger_js_url=f"{root}/docs/swagger-ui-bundle.js",
            swagger_css_url=f"{root}/docs/swagger-ui.css",
            swagger_favicon_url="data:,",
        )

    files = [Route(f"/docs/{name}", _file(assets / name, kind)) for name, kind in _ASSETS.items()]
    return [Route("/openapi.json", openapi), Route("/docs", docs), *files]


def openapi_document(rest: FastAPI, *, prefix: str, version: str, default_bot: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of `rest` with the full paths under `prefix`.

    Each path is there once: the second server, `/bots/{bot}`, is the same API for each bot by name. Answers are components, the
    Structs of hub.protocol.answers.
    """
    document = get_openapi(title="tradewire", version=version, routes=rest.routes)
    document["paths"] = {f"{prefix}{path}": operations for path, operations in document["paths"].items()}
    for operation in (o for operations in document["paths"].values() for o in operations.values()):
        if operation.get("security"):
            operation["responses"].setdefault("401", UNAUTHORIZED)
    parts = document.setdefault("components", {})
    parts["securitySchemes"] = _SECURITY
    parts["schemas"] = dict(sorted((parts.get("schemas", {}) | components()).items()))
    bot = {"default": default_bot, "description": "A name of GET /api/v1/bots, percent-encoded."}
    document["servers"] = [
        {"url": "/", "description": f"The default bot, {default_bot}."},
        {"url": "/bots/{bot}", "description": "Each bot by its name.", "variables": {"bot": bot}},
    ]
    return document


def _assets() -> Path:
    # Found, not imported: only its files are of use.
    found = importlib.util.find_spec("fastapi_offline")
    if found is None or found.origin is None:
        raise ConfigError(
            "api_server.enable_openapi", "needs the package fastapi-offline (pip install 'tradewire[hub]')"
        )
    return Path(found.origin).parent / "static"


def _file(path: Path, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def file(_request: Request) -> Response:
        return FileResponse(path, media_type=media_type)

    return file
