"""hub.rest.passing: what goes to the bot, what stays at the hub, who may, and within which bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from auth.credentials import basic
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount

from hub.bots.freqtrade import BotAnswer
from hub.rest.passing import OWN_PATHS, PassThrough

from .service import Service

pytestmark = pytest.mark.anyio

USER = {"Authorization": basic()}
Passed = tuple[str, bytes, bytes, bytes, str | None]


class Bot:
    """Records what is passed on to it."""

    def __init__(self) -> None:
        self.passed: list[Passed] = []
        self.answer = BotAnswer(status=200, body=b'{"from":"the bot"}')

    async def pass_on(
        self, method: str, path: bytes, query: bytes = b"", body: bytes = b"", content_type: str | None = None
    ) -> BotAnswer:
        self.passed.append((method, path, query, body, content_type))
        return self.answer


class Passing(Service):
    """The mount behind a PassThrough; "maker" and, unless `default` is another, the default bot are passed on."""

    def __init__(self, *, default: str = "maker", **settings: Any) -> None:
        super().__init__()
        self.bot = Bot()
        self.passing = PassThrough(
            self.rest,
            lambda name: self.bot if (name or default) == "maker" else None,  # type: ignore[arg-type, return-value]
            self.rest.state.user,
            **settings,
        )
        mounts = [Mount("/api/v1", self.passing), Mount("/bots/{bot:path}/api/v1", self.passing)]
        cors = Middleware(
            CORSMiddleware,
            allow_origins=["http://ui"],
            allow_credentials=True,
            allow_methods=["*"],
            allow_headers=["*"],
        )
        self.app = Starlette(routes=mounts, middleware=[cors])


@pytest.mark.parametrize("prefix", ["/api/v1", "/bots/maker/api/v1", "/bots/%6Daker/%61pi/v1"])
async def test_a_request_goes_to_the_bot_as_it_came(prefix: str) -> None:
    service = Passing()
    headers = {**USER, "Content-Type": "application/json; x=y"}
    response = await service.request(
        "DELETE", f"{prefix}/a%2Fb/%C3%A4/?x=%2F&y=a+b", headers=headers, content=b"null"
    )
    assert service.bot.passed == [
        ("DELETE", b"/a%2Fb/%C3%A4/", b"x=%2F&y=a+b", b"null", "application/json; x=y")
    ]
    assert (response.status_code, response.text) == (200, '{"from":"the bot"}')
    assert response.headers["content-type"] == "application/json"


async def test_the_bots_answer_is_the_clients() -> None:
    service = Passing()
    service.bot.answer = BotAnswer(status=422, body=b"[ 1 ]", content_type="text/x")
    response = await service.get("/api/v1/status", headers=USER)
    assert (response.status_code, response.content, response.headers["content-type"]) == (
        422,
        b"[ 1 ]",
        "text/x",
    )
    service.bot.answer = BotAnswer(status=503, body=b"", content_type="", retry_after=7)
    response = await service.get("/api/v1/status", headers=USER)
    assert (response.status_code, response.headers["retry-after"]) == (503, "7")
    assert "content-type" not in response.headers


@pytest.mark.parametrize("path", sorted(OWN_PATHS))
@pytest.mark.parametrize("prefix", ["/api/v1", "/bots/maker/api/v1"])
async def test_the_hubs_own_routes_stay_at_the_hub(prefix: str, path: str) -> None:
    service = Passing()
    for method in ("GET", "POST"):
        await service.request(method, prefix + path, headers=USER)
    assert service.bot.passed == []


async def test_a_login_at_the_hub_opens_the_bot() -> None:
    service = Passing()
    login = await service.request("POST", "/bots/maker/api/v1/token/login", headers=USER, json={})
    bearer = {"Authorization": f"Bearer {login.json()['access_token']}"}
    assert (await service.get("/bots/maker/api/v1/status", headers=bearer)).text == '{"from":"the bot"}'


@pytest.mark.parametrize("path", ["/bots/alpha/api/v1/version", "/bots/nobody/api/v1/version"])
async def test_other_bots_are_the_mounts(path: str) -> None:
    service = Passing()
    response = await service.get(path, headers=USER)
    assert service.bot.passed == []
    assert response.status_code == (200 if "alpha" in path else 404)


@pytest.mark.parametrize("default", ["maker", "alpha"])
async def test_the_plain_mount_is_the_default_bots(default: str) -> None:
    service = Passing(default=default)
    await service.get("/api/v1/version", headers=USER)
    assert len(service.bot.passed) == (default == "maker")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_ping_needs_no_credential(method: str) -> None:
    service = Passing()
    assert (await service.request(method, "/api/v1/ping")).status_code == 200
    assert service.bot.passed == [(method, b"/ping", b"", b"", None)]


@pytest.mark.parametrize(
    "authorization",
    [None, basic("freqtrader", "wrong"), "Basic !", "Basic eA==", "Bearer x", "Digest x", "Bearer"],
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/version"), ("POST", "/forceenter"), ("POST", "/ping")]
)
async def test_a_401_is_the_mounts(authorization: str | None, method: str, path: str) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    service = Passing()
    got = await service.request(method, f"/api/v1{path}", headers=headers)
    wanted = await service.get("/bots/alpha/api/v1/version", headers=headers)
    assert wanted.status_code == 401
    assert (got.status_code, got.content) == (401, wanted.content)
    assert got.headers.get("www-authenticate") == wanted.headers.get("www-authenticate")
    assert service.bot.passed == []


async def test_a_ping_goes_without_its_body_and_only_as_it_is() -> None:
    # Else who has no credential could fill what users need, and be asked for with the hub's own.
    service = Passing(held_bytes=10)
    assert (await service.request("GET", "/api/v1/ping", content=b"x" * 1000)).status_code == 200
    assert service.bot.passed == [("GET", b"/ping", b"", b"", None)]
    assert (await service.get("/api/v1/%70ing")).status_code == 401
    assert len(service.bot.passed) == 1


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "BREW"])
async def test_what_is_no_method_of_rest_is_not_passed_on(method: str) -> None:
    service = Passing()
    response = await service.request(method, "/api/v1/version", headers=USER)
    assert (response.status_code, response.json()) == (405, {"detail": "Method Not Allowed"})
    assert service.bot.passed == []


async def test_cors_is_around_what_is_passed_on() -> None:
    service = Passing()
    for path in ("/api/v1/status", "/bots/alpha/api/v1/version"):
        for origin, allowed in (("http://ui", "http://ui"), ("http://x", None)):
            headers = {**USER, "Origin": origin}
            response = await service.get(path, headers=headers)
            assert response.headers.get("access-control-allow-origin") == allowed
            preflight = {"Origin": origin, "Access-Control-Request-Method": "DELETE"}
            response = await service.request("OPTIONS", path, headers=preflight)
            assert response.status_code == (200 if allowed else 400)
            assert response.headers.get("access-control-allow-origin") == allowed
    assert [method for method, *_ in service.bot.passed] == ["GET", "GET"]
    await service.request("OPTIONS", "/api/v1/status", headers=USER)
    assert len(service.bot.passed) == 2


# --- bounds


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize("content", [b"x" * 101, chunks(b"x" * 60, b"x" * 41)])
async def test_a_body_is_bounded(content: Any) -> None:
    service = Passing(body_bytes=100)
    response = await service.request("POST", "/api/v1/forceenter", headers=USER, content=content)
    assert response.status_code == 413
    assert response.json() == {"detail": "body: expected at most 100 bytes"}
    assert service.bot.passed == []
    assert service.passing.statistics().held_bytes == 0
    assert (await service.request("POST", "/api/v1/x", headers=USER, content=b"x" * 100)).status_code == 200


async def ask(service: Passing, receive: Any, sent: list[Any], method: str = "POST") -> None:
    """One request on an ASGI server of the test's own."""
    scope = {
        "type": "http",
        "method": method,
        "path": "/api/v1/status",
        "root_path": "/api/v1",
        "query_string": b"",
        "headers": [(b"authorization", basic().encode())],
    }

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) == 2 and sent[0]["status"] == 200:
            await asyncio.Event().wait()

    await service.passing(scope, receive, send)


async def test_a_body_must_arrive_in_time() -> None:
    async def receive() -> Any:
        await asyncio.Event().wait()

    sent: list[Any] = []
    service = Passing(body_timeout_s=0.01)
    await ask(service, receive, sent)
    assert sent[0]["status"] == 408
    assert sent[1]["body"] == b'{"detail":"The body did not arrive in time."}'


async def test_who_goes_away_before_the_body_is_whole_has_asked_nothing() -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    service = Passing()
    await ask(service, receive, [])
    assert service.bot.passed == []
    assert service.passing.statistics().requests == 0


async def test_clients_that_do_not_read_are_bounded_together() -> None:
    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    service = Passing(held_bytes=100)
    service.bot.answer = BotAnswer(status=200, body=b"x" * 60)
    waiting = [asyncio.create_task(ask(service, receive, [])) for _ in range(2)]
    await anyio.wait_all_tasks_blocked()
    figures = service.passing.statistics()
    assert (figures.requests, figures.held_bytes, figures.held_limit_bytes) == (2, 120, 100)
    response = await service.get("/api/v1/status", headers=USER)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json() == {"detail": "too many requests at once"}
    assert len(service.bot.passed) == 2
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert service.passing.statistics().held_bytes == 0
    assert (await service.get("/api/v1/status", headers=USER)).status_code == 200


async def test_a_server_that_tells_no_raw_path() -> None:
    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    service = Passing()
    service.bot.answer = BotAnswer(status=204, body=b"")
    sent: list[Any] = []
    await ask(service, receive, sent, "GET")
    assert service.bot.passed == [("GET", b"/status", b"", b"", None)]
    assert sent[0]["status"] == 204
