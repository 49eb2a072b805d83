"""The UI at `/`: a single-page build from a directory, or a page of our own that says how to get one.

A single-page build routes in the browser: a path that is no file of it gets its index.html, so that `/dashboard` can be
opened and reloaded. As freqtrade does (2026.9, observed), paths of an API that does not exist are left out of that, and names
that begin with a dot. Every path is resolved, links included, and must then lie in the directory.
"""

from __future__ import annotations

import mimetypes
import os
import re
import stat
from pathlib import Path

import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

__all__ = ["ui_routes"]

INDEX = "index.html"
VERSION_FILE = ".uiversion"
VERSION_BYTES = 256
NO_VERSION = "not_installed"
"""freqtrade's word in `/ui_version` for a build of which it knows no version."""

_PAGE = Path(__file__).with_name("ui_missing.html")
_ICON = Path(__file__).with_name("ui_icon.svg")
_NOT_OF_THE_UI = re.compile(r"api|bots/.+/api(/|$)|(openapi|asyncapi)\.json$")
_HASHED = re.compile(r"[.-]([A-Za-z0-9_-]{8,})(\.[a-z0-9]+)+$")
_IMMUTABLE = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"

# An instance of its own: what the machine knows of types (a registry that calls .js text/plain) must not matter.
_TYPES = mimetypes.MimeTypes()
for _type, _endings in {
    "text/javascript": (".js", ".mjs"),
    "application/json": (".json", ".map"),
    "application/manifest+json": (".webmanifest",),
    "font/woff": (".woff",),
    "font/woff2": (".woff2",),
    "image/svg+xml": (".svg",),
    "image/webp": (".webp",),
    "image/x-icon": (".ico",),
}.items():
    for _ending in _endings:
        _TYPES.add_type(_type, _ending)


def ui_routes(directory: Path | None) -> list[BaseRoute]:
    """GET and HEAD of every path that no other route takes; to come last. None: there is only our own page at `/`.

    Files are looked up and read off the loop, at each request: a build may be replaced while it is served.
    """
    ui = _UI(directory)
    return [
        Route("/ui_version", ui.version),
        Route("/fallback_file.html", ui.page),
        Route("/favicon.ico", ui.icon),
        Route("/{path:path}", ui.file),
    ]


class _UI:
    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    async def version(self, _request: Request) -> Response:
        version = await anyio.to_thread.run_sync(self._version)
        return JSONResponse({"version": version}, headers={"Cache-Control": _ASK_AGAIN})

    async def page(self, request: Request) -> Response:
        return await _answer(request, _PAGE)

    async def icon(self, request: Request) -> Response:
        return await _answer(request, await self._find("favicon.ico") or _ICON)

    async def file(self, request: Request) -> Response:
        path: str = request.path_params["path"]
        if _NOT_OF_THE_UI.match(path) or _unsafe(path) or (path and self._directory is None):
            raise HTTPException(404)
        return await _answer(request, await self._find(path) or await self._find(INDEX) or _PAGE)

    async def _find(self, path: str) -> Path | None:
        """The file of the build at `path`, None without one.

        Raises:
            HTTPException: 404, the path leads out of the directory.
        """
        if self._directory is None:
            return None
        return await anyio.to_thread.run_sync(_resolved, self._directory, path)

    def _version(self) -> str:
        if self._directory is None:
            return NO_VERSION
        try:
            with (self._directory / VERSION_FILE).open("rb") as file:
                return file.read(VERSION_BYTES).decode(errors="replace").strip() or NO_VERSION
        except OSError:
            return NO_VERSION


def _unsafe(path: str) -> bool:
    """Whether a part of `path` is hidden or leads upwards, or a character could be read as more than itself."""
    return "\0" in path or "\\" in path or any(part.startswith(".") for part in path.split("/"))


def _resolved(directory: Path, path: str) -> Path | None:
    root = os.path.realpath(directory)
    try:
        real = os.path.realpath(os.path.join(root, path.lstrip("/")))
        if os.path.commonpath((root, real)) != root:
            raise HTTPException(404)
        return Path(real) if stat.S_ISREG(os.stat(real).st_mode) else None
    except (OSError, ValueError):
        return None


async def _answer(request: Request, path: Path) -> Response:
    """The file, or 304 to a browser that has it."""
    try:
        found = await anyio.to_thread.run_sync(os.stat, path)
    except OSError:
        raise HTTPException(404) from None
    media_type = _TYPES.guess_type(path.name)[0] or "application/octet-stream"
    headers = {
        "Cache-Control": _IMMUTABLE if _is_hashed(path) else _ASK_AGAIN,
        "X-Content-Type-Options": "nosniff",
    }
    response = FileResponse(path, headers=headers, media_type=media_type, stat_result=found)
    if _has(request, response.headers["etag"]):
        return Response(status_code=304, headers={**headers, "ETag": response.headers["etag"]})
    return response


def _is_hashed(path: Path) -> bool:
    """Whether a bundler named the file by its content, so that it can never change.

    In doubt it may: a browser that asks once too often is better than one that never sees the new file.
    """
    hashed = _HASHED.search(path.name)
    # A word of a plain name ("logo-transparent.png") has neither a digit nor a capital inside.
    return path.parent.name == "assets" and hashed is not None and bool(re.search("[0-9]|.[A-Z]", hashed[1]))


def _has(request: Request, etag: str) -> bool:
    held = request.headers.get("if-none-match", "")
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in held.split(","))
