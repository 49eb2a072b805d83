"""A peer of RestClient without a socket: freqtrade's token routes, and answers by request."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from consumer.rest import RestClient
from hub.protocol.botapi import OPERATIONS
from hub.protocol.operations import Operation

SAMPLES: dict[str, Any] = json.loads(Path(__file__).with_name("rest_samples.json").read_text())
"""Answers of a real freqtrade 2026.9 bot, by path under /api/v1."""
USER, PASSWORD = "me", "correct horse battery"
BASIC = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()
Respond = Callable[[httpx.Request], httpx.Response]


def sample_operation(path: str) -> Operation | None:
    """The operation whose answer the sample of `path` is; None for ping."""
    found = OPERATIONS.find("GET", "/" + path.partition("?")[0])
    return None if found is None else found[0]


class Peer:
    """Answers `respond`'s to whoever has the newest access token; `seen` are all requests that came."""

    def __init__(self, respond: Respond, *, tokens: bool = True) -> None:
        self.respond = respond
        self.tokens = tokens
        self.access = 0
        self.refreshes = True
        self.seen: list[httpx.Request] = []

    def client(self, **more: Any) -> RestClient:
        given = {"username": USER, "password": PASSWORD} | more
        return RestClient("http://hub:1", transport=httpx.MockTransport(self._answer), **given)

    def lines(self) -> list[str]:
        """The requests: method, path with query, and the first word of the authorization."""
        return [
            f"{r.method} {r.url.raw_path.decode()} {r.headers.get('Authorization', '-').split()[0]}"
            for r in self.seen
        ]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        authorization = request.headers.get("Authorization")
        path = request.url.path
        if path.startswith("/api/v1/token/") and not self.tokens:
            return httpx.Response(404, json={"detail": "Not Found"})
        if path == "/api/v1/token/login":
            if authorization != BASIC:
                return httpx.Response(401, json={"detail": "Incorrect username or password"})
            self.access += 1
            return httpx.Response(
                200, json={"access_token": f"access-{self.access}", "refresh_token": "refresh-1"}
            )
        if path == "/api/v1/token/refresh":
            if authorization != "Bearer refresh-1" or not self.refreshes:
                return httpx.Response(401, json={"detail": "Could not validate credentials"})
            self.access += 1
            return httpx.Response(200, json={"access_token": f"access-{self.access}"})
        expected = f"Bearer access-{self.access}" if self.tokens else BASIC
        if path.endswith("/ping") or authorization == expected:
            return self.respond(request)
        return httpx.Response(401, json={"detail": "Could not validate credentials"})


def always(data: Any, status: int = 200, **more: Any) -> Respond:
    """Answers everything with one JSON."""
    return lambda _: httpx.Response(status, json=data, **more)
