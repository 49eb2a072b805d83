"""What a whole hub serves at its root: a build, a page of its own, and the documents of its interfaces."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from hub.server import Hub

from .conftest import CONFIG


@contextmanager
def hub_with(*, ui_dir: Path | None = None, enable_openapi: bool = False) -> Iterator[Hub]:
    api_server = {**CONFIG["api_server"], "enable_openapi": enable_openapi}
    with Hub({"api_server": api_server, "hub": {**CONFIG["hub"], "ui_dir": ui_dir}}) as hub:
        yield hub


@pytest.fixture
def build(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "index.html").write_text("<title>a build</title>")
    return tmp_path / "dist"


def raw(hub: Hub, target: str) -> bytes:
    """The answer to a request target as it is, which clients of good manners would not send."""
    with socket.create_connection(("127.0.0.1", hub.port), 5) as sock:
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: sock.recv(65536), b""))


def test_a_build_is_served_and_the_hubs_own_routes_stay(build: Path) -> None:
    with hub_with(ui_dir=build, enable_openapi=True) as hub, httpx.Client(base_url=hub.url) as client:
        assert client.get("/dashboard").text == "<title>a build</title>"
        assert client.get("/api/v1/ping").json() == {"status": "pong"}
        assert client.get("/livez").json() == {"status": "alive"}
        assert "paths" in client.get("/openapi.json").json()
        assert "channels" in client.get("/asyncapi.json").json()
        assert "swagger" in client.get("/docs").text
        for target in ("/../secret", "/%2e%2e/secret", "/..%2fsecret", "/index.html%00", "/api/v1/nothing"):
            assert raw(hub, target).startswith(b"HTTP/1.1 404 ")
        assert b"outside" not in raw(hub, f"/{build.parent}/secret")


def test_without_a_build_and_enable_openapi_there_is_one_page() -> None:
    with hub_with() as hub, httpx.Client(base_url=hub.url) as client:
        assert "ui_dir" in client.get("/").text
        for path in ("/dashboard", "/docs", "/openapi.json", "/asyncapi.json"):
            response = client.get(path)
            assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})
