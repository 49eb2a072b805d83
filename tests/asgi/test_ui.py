"""hub.asgi.ui: a single-page build at `/`, and what is there without one."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, Router
from starlette.types import Receive, Scope, Send

from hub.asgi.app import build_app
from hub.asgi.ui import ui_routes

from .doubles import FakeAuthenticator, FakeNode

pytestmark = pytest.mark.anyio

INDEX = b"<!doctype html><title>a build</title>"
IMMUTABLE = "public, max-age=31536000, immutable"
FILES = {
    "index.html": INDEX,
    "favicon.ico": b"icon",
    ".uiversion": b"2.3.4\n",
    ".env": b"hidden",
    "assets/index-BZdPs9Lq.js": b"export {}",
    "assets/index-BZdPs9Lq.js.map": b"{}",
    "assets/index-DiwrgTda.css": b"a{}",
    "assets/inter-latin-Dx4kXJAl.woff2": b"font",
    "assets/logo-transparent.png": b"png",
    "assets/.hidden/key": b"hidden",
    "index-BZdPs9Lq.mjs": b"export {}",
    "manifest.webmanifest": b"{}",
    "a b/ü.txt": b"text",
    "empty.bin": b"",
}


@pytest.fixture
def build(tmp_path: Path) -> Path:
    directory = tmp_path / "dist"
    for name, content in FILES.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "secret").write_bytes(b"outside")
    (tmp_path / "dist-of-another").mkdir()
    (tmp_path / "dist-of-another" / "secret").write_bytes(b"outside")
    return directory


async def _rest(_request: Request) -> Response:
    return PlainTextResponse("rest")


async def get(directory: Path | None, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    """The answer to the path as it is; a client of good manners would leave out its dots."""
    app = build_app(
        FakeNode(),  # type: ignore[arg-type]
        FakeAuthenticator(),  # type: ignore[arg-type]
        Router([Route("/ping", _rest)]),
        [Route("/livez", _rest), Mount("/bots/{bot}/api/v1", Router([Route("/ping", _rest)]))],
        ui=ui_routes(directory),
    )

    async def exactly(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "path": unquote(path), "raw_path": path.encode()}, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(exactly), base_url="http://hub") as client:
        return await client.request(method, "/", headers=headers)


@pytest.mark.parametrize(
    ("path", "name", "media_type"),
    [
        ("/", "index.html", "text/html; charset=utf-8"),
        ("/index.html", "index.html", "text/html; charset=utf-8"),
        ("/favicon.ico", "favicon.ico", "image/x-icon"),
        ("/assets/index-BZdPs9Lq.js", "assets/index-BZdPs9Lq.js", "text/javascript; charset=utf-8"),
        ("/assets/index-BZdPs9Lq.js.map", "assets/index-BZdPs9Lq.js.map", "application/json"),
        ("/assets/index-DiwrgTda.css", "assets/index-DiwrgTda.css", "text/css; charset=utf-8"),
        ("/assets/inter-latin-Dx4kXJAl.woff2", "assets/inter-latin-Dx4kXJAl.woff2", "font/woff2"),
        ("/index-BZdPs9Lq.mjs", "index-BZdPs9Lq.mjs", "text/javascript; charset=utf-8"),
        ("/manifest.webmanifest", "manifest.webmanifest", "application/manifest+json"),
        ("/a%20b/%C3%BC.txt", "a b/ü.txt", "text/plain; charset=utf-8"),
        ("/empty.bin", "empty.bin", "application/octet-stream"),
    ],
)
async def test_a_file_of_the_build(build: Path, path: str, name: str, media_type: str) -> None:
    response = await get(build, path)
    assert (response.status_code, response.content) == (200, FILES[name])
    assert response.headers["content-type"] == media_type
    assert response.headers["x-content-type-options"] == "nosniff"
    head = await get(build, path, "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(FILES[name]))


@pytest.mark.parametrize(
    "path",
    [
        "/dashboard",
        "/trade/5",
        "/assets/gone.js",
        "/assets",
        "/assets/",
        "/bots/alpha",
        "/a%0Db",
        "//etc/passwd",
    ],
)
async def test_a_path_that_is_no_file_is_routed_in_the_browser(build: Path, path: str) -> None:
    response = await get(build, path)
    assert (response.status_code, response.content) == (200, INDEX)
    assert response.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path",
    [
        "/api",
        "/api/v1",
        "/api/v1/nothing",
        "/api/v9/ping",
        "/apix",
        "/bots/alpha/api",
        "/bots/alpha/api/v1/nothing",
        "/bots/alpha/api/v9/ping",
        "/bots/a/b/api/v9/ping",
        "/openapi.json",
        "/asyncapi.json",
        "/.env",
        "/.uiversion",
        "/.git/config",
        "/assets/.hidden/key",
    ],
)
async def test_an_api_that_is_not_there_and_hidden_names_are_404(build: Path, path: str) -> None:
    response = await get(build, path)
    assert (response.status_code, response.json()) == (404, {"detail": "Not Found"}) or (
        path.endswith("v1/nothing") and response.status_code == 404
    )


@pytest.mark.parametrize(
    "path",
    [
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/%2e%2e%2fsecret",
        "/assets/../../secret",
        "/assets/%2e%2e/%2e%2e/secret",
        "/..%5csecret",
        "/assets%5c..%5c..%5csecret",
        "/../dist-of-another/secret",
        "/%2e%2e/dist/index.html",
        "/./index.html",
        "/a%0Ab",
        "/index.html%00",
        "/%00",
        "/secret%00.js",
        "/....//secret",
        "/%2Fapi/../../secret",
    ],
)
async def test_nothing_leads_out_of_the_build(build: Path, path: str) -> None:
    response = await get(build, path)
    assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})


async def test_an_absolute_path_and_twice_encoded_dots_are_names_in_the_build(
    build: Path, tmp_path: Path
) -> None:
    for path in (f"/{tmp_path}/secret", f"/%2F{tmp_path}/secret", "/%252e%252e%252fsecret", "/" + "a" * 5000):
        assert (await get(build, path)).content == INDEX


async def test_a_link_must_stay_in_the_build(build: Path, tmp_path: Path) -> None:
    (build / "out").symlink_to(tmp_path / "secret")
    (build / "away").symlink_to(tmp_path)
    (build / "in").symlink_to(build / "assets" / "index-DiwrgTda.css")
    (build / "loop").symlink_to(build / "loop")
    for path in ("/out", "/away/secret", "/away/dist-of-another/secret"):
        assert (await get(build, path)).status_code == 404
    assert (await get(build, "/in")).content == b"a{}"
    assert (await get(build, "/loop")).content == INDEX
    # The directory itself may be a link, so that a build is exchanged at once.
    current = tmp_path / "current"
    current.symlink_to(build)
    assert (await get(current, "/assets/index-DiwrgTda.css")).content == b"a{}"


async def test_what_is_no_regular_file_is_not_opened(build: Path) -> None:
    os.mkfifo(build / "pipe")
    assert (await get(build, "/pipe")).content == INDEX


@pytest.mark.parametrize(
    ("path", "caching"),
    [
        ("/assets/index-BZdPs9Lq.js", IMMUTABLE),
        ("/assets/index-BZdPs9Lq.js.map", IMMUTABLE),
        ("/assets/inter-latin-Dx4kXJAl.woff2", IMMUTABLE),
        ("/assets/logo-transparent.png", "no-cache"),
        ("/index-BZdPs9Lq.mjs", "no-cache"),
        ("/favicon.ico", "no-cache"),
        ("/", "no-cache"),
        ("/ui_version", "no-cache"),
    ],
)
async def test_what_a_browser_may_keep(build: Path, path: str, caching: str) -> None:
    assert (await get(build, path)).headers["cache-control"] == caching


async def test_a_browser_that_has_the_file_is_told_so(build: Path) -> None:
    first = await get(build, "/")
    etag = first.headers["etag"]
    for held in (etag, f'"x", W/{etag}', "*"):
        again = await get(build, "/dashboard", **{"If-None-Match": held})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert again.headers["cache-control"] == "no-cache"
    (build / "index.html").write_bytes(INDEX + b" ")
    assert (await get(build, "/", **{"If-None-Match": etag})).status_code == 200


async def test_the_version_of_the_build(build: Path) -> None:
    assert (await get(build, "/ui_version")).json() == {"version": "2.3.4"}
    (build / ".uiversion").unlink()
    assert (await get(build, "/ui_version")).json() == {"version": "not_installed"}
    assert (await get(None, "/ui_version")).json() == {"version": "not_installed"}


async def test_the_routes_of_the_hub_come_first(build: Path) -> None:
    for path in ("/livez", "/api/v1/ping", "/bots/alpha/api/v1/ping"):
        assert (await get(build, path)).text == "rest"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_the_build_is_only_read(build: Path, method: str) -> None:
    response = await get(build, "/index.html", method)
    assert (response.status_code, response.json()) == (405, {"detail": "Method Not Allowed"})
    assert set(response.headers["allow"].replace(",", " ").split()) == {"GET", "HEAD"}


async def test_without_a_build_there_is_a_page_of_our_own(tmp_path: Path) -> None:
    page = await get(None, "/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "hub" in page.text
    assert "ui_dir" in page.text
    assert "http://" not in page.text
    assert (await get(None, "/fallback_file.html")).content == page.content
    assert (await get(None, "/favicon.ico")).headers["content-type"] == "image/svg+xml"
    for path in ("/dashboard", "/openapi.json", "/docs"):
        assert (await get(None, path)).json() == {"detail": "Not Found"}
    # A build that was removed while it was served.
    assert (await get(tmp_path / "gone", "/dashboard")).content == page.content
