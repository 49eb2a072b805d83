"""hub.rest.app: freqtrade's shapes, errors and order of checks."""

from __future__ import annotations

from typing import Any

import httpx
import jwt as pyjwt
import pytest
from auth.credentials import JWT_KEY, NOW_MS, READER, basic

from .service import Node, Service

pytestmark = pytest.mark.anyio

USER = {"Authorization": basic()}
PROTECTED = ("version", "show_config", "health", "whitelist")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def logged_in(service: Service) -> dict[str, str]:
    response = await service.request("POST", "/api/v1/token/login", headers=USER, json={})
    assert response.status_code == 200
    tokens: dict[str, str] = response.json()
    return tokens


# --- what anyone may ask


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_ping(method: str) -> None:
    response = await Service().request(method, "/api/v1/ping")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.text == ('{"status":"pong"}' if method == "GET" else "")


async def test_a_body_of_null_is_no_body() -> None:
    null = {"content": b"null", "headers": {"Content-Type": "application/json", **USER}}
    service = Service()
    for path in ("ping", *PROTECTED):
        assert (await service.get(f"/api/v1/{path}", **null)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("GET", "/api/v1/nope", 404, "Not Found"),
        ("GET", "/api/v1/ping/", 404, "Not Found"),
        ("GET", "/api/v1/message/ws", 404, "Not Found"),
        ("GET", "/api/v1/docs", 404, "Not Found"),
        ("GET", "/api/v1/openapi.json", 404, "Not Found"),
        ("POST", "/api/v1/ping", 405, "Method Not Allowed"),
        ("HEAD", "/api/v1/version", 405, None),
        ("GET", "/api/v1/token/login", 404, "Not Found"),
        ("GET", "/api/v1/publish", 404, "Not Found"),
        ("PUT", "/api/v1/publish", 405, "Method Not Allowed"),
    ],
)
async def test_no_such_route_or_method(method: str, path: str, status: int, detail: str | None) -> None:
    response = await Service().request(method, path)
    assert response.status_code == status
    if detail is not None:
        assert response.json() == {"detail": detail}


# --- 401


@pytest.mark.parametrize("path", PROTECTED)
@pytest.mark.parametrize(
    ("authorization", "detail", "challenge"),
    [
        (None, "Unauthorized", None),
        (basic("Freqtrader", "wrong"), "Unauthorized", None),
        (basic("freqtrader"), "Unauthorized", None),
        ("Digest x", "Unauthorized", None),
        ("Bearer", "Unauthorized", None),
        ("Basic", "Not authenticated", "Basic"),
        ("Basic !!!", "Not authenticated", "Basic"),
        ("Basic YWJj", "Not authenticated", "Basic"),
        ("Bearer abc", "Could not validate credentials", "Bearer"),
        (f"Bearer {READER}", "Could not validate credentials", "Bearer"),
    ],
)
async def test_unauthorized(path: str, authorization: str | None, detail: str, challenge: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = await Service().get(f"/api/v1/{path}", headers=headers)
    assert response.status_code == 401
    assert response.json() == {"detail": detail}
    assert response.headers.get("www-authenticate") == challenge


async def test_two_authorizations_are_none() -> None:
    headers = [("Authorization", basic()), ("Authorization", basic())]
    assert (await Service().get("/api/v1/version", headers=headers)).status_code == 401


async def test_a_password_in_latin_1_is_understood() -> None:
    headers = {"Authorization": basic(charset="latin-1")}
    assert (await Service().get("/api/v1/version", headers=headers)).status_code == 200


# --- tokens


async def test_login_gives_freqtrades_tokens() -> None:
    tokens = await logged_in(Service())
    assert list(tokens) == ["access_token", "refresh_token"]
    options: Any = {"verify_exp": False, "verify_iat": False}
    claims = [pyjwt.decode(token, JWT_KEY, ["HS256"], options=options) for token in tokens.values()]
    now = NOW_MS // 1000
    assert claims == [
        {"identity": {"u": "Freqtrader"}, "exp": now + 900, "iat": now, "type": "access"},
        {"identity": {"u": "Freqtrader"}, "exp": now + 2_592_000, "iat": now, "type": "refresh"},
    ]


@pytest.mark.parametrize("content", [b"", b"{}", b"null", b"{"])
async def test_the_body_of_a_login_is_not_looked_at(content: bytes) -> None:
    headers = {**USER, "Content-Type": "application/json"}
    response = await Service().request("POST", "/api/v1/token/login", headers=headers, content=content)
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("authorization", "detail", "challenge"),
    [
        (None, "Not authenticated", "Basic"),
        ("Bearer abc", "Not authenticated", "Basic"),
        ("Basic !!!", "Not authenticated", "Basic"),
        (basic("a", "b"), "Incorrect username or password", None),
    ],
)
async def test_a_failed_login(authorization: str | None, detail: str, challenge: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = await Service().request("POST", "/api/v1/token/login", headers=headers)
    assert response.status_code == 401
    assert response.json() == {"detail": detail}
    # With a challenge a browser would open a dialog of its own over FreqUI's.
    assert response.headers.get("www-authenticate") == challenge


async def test_an_access_token_opens_what_basic_opens_until_it_ends() -> None:
    service = Service()
    headers = bearer((await logged_in(service))["access_token"])
    for path in PROTECTED:
        assert (await service.get(f"/api/v1/{path}", headers=headers)).status_code == 200
    service.now_ms += 15 * 60 * 1000
    response = await service.get("/api/v1/version", headers=headers)
    assert response.status_code == 401
    assert response.json() == {"detail": "Could not validate credentials"}


async def test_refresh_gives_a_new_access_token() -> None:
    service = Service()
    tokens = await logged_in(service)
    service.now_ms += 24 * 3600 * 1000
    response = await service.request(
        "POST", "/api/v1/token/refresh", headers=bearer(tokens["refresh_token"]), json={}
    )
    assert response.status_code == 200
    assert list(response.json()) == ["access_token"]
    renewed = bearer(response.json()["access_token"])
    assert (await service.get("/api/v1/version", headers=renewed)).status_code == 200


@pytest.mark.parametrize("which", ["none", "access", "basic", "broken"])
async def test_a_failed_refresh(which: str) -> None:
    service = Service()
    tokens = await logged_in(service)
    headers: dict[str, dict[str, str]] = {
        "none": {},
        "access": bearer(tokens["access_token"]),
        "basic": USER,
        "broken": bearer("x.y.z"),
    }
    response = await service.request("POST", "/api/v1/token/refresh", headers=headers[which])
    assert response.status_code == 401
    assert response.json() == {"detail": "Could not validate credentials"}
    assert response.headers["www-authenticate"] == "Bearer"


async def test_a_refresh_token_opens_nothing_else() -> None:
    service = Service()
    headers = bearer((await logged_in(service))["refresh_token"])
    assert (await service.get("/api/v1/version", headers=headers)).status_code == 401


# --- bots


async def test_version() -> None:
    response = await Service().get("/api/v1/version", headers=USER)
    assert response.json() == {"version": "tradewire-1.0"}


async def test_show_config() -> None:
    shown = (await Service().get("/api/v1/show_config", headers=USER)).json()
    assert (shown["bot_name"], shown["state"], shown["timeframe"]) == ("main", "running", "5m")
    assert isinstance(shown["api_version"], float)
    assert isinstance(shown["max_open_trades"], float)
    assert shown["stoploss"] is None
    assert "proxy_coin" not in shown


async def test_health() -> None:
    response = await Service().get("/api/v1/health", headers=USER)
    assert response.json() == {
        "last_process": "2026-11-22T13:54:11.103000Z",
        "last_process_ts": 1_795_355_651,
        "bot_start": None,
        "bot_start_ts": None,
        "bot_startup": None,
        "bot_startup_ts": None,
    }


async def test_whitelist() -> None:
    response = await Service().get("/api/v1/whitelist", headers=USER)
    assert response.json() == {"whitelist": ["BTC/USDT", "ETH/USDT:USDT"], "length": 2, "method": []}


async def test_no_whitelist_yet_is_freqtrades_502() -> None:
    node = Node()
    node.pairs = None
    response = await Service(node).get("/api/v1/whitelist", headers=USER)
    assert response.status_code == 502
    assert response.json() == {
        "error": "Error querying /api/v1/whitelist: bot main has not published a whitelist yet"
    }


async def test_every_bot_has_the_same_api_under_its_name() -> None:
    service = Service()
    shown = (await service.get("/bots/alpha/api/v1/show_config", headers=USER)).json()
    assert shown["bot_name"] == "alpha"
    assert (await service.get("/bots/alpha/api/v1/ping")).json() == {"status": "pong"}


async def test_an_unknown_bot_is_not_found_but_only_for_who_may_ask() -> None:
    service = Service()
    response = await service.get("/bots/beta/api/v1/show_config", headers=USER)
    assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})
    assert (await service.get("/bots/beta/api/v1/show_config")).status_code == 401


# --- CORS

UI = "http://ui.example"


def cors(response: httpx.Response) -> tuple[str | None, str | None]:
    headers = response.headers
    return headers.get("access-control-allow-origin"), headers.get("access-control-allow-credentials")


async def test_a_listed_origin_may_read_answers_and_errors() -> None:
    service = Service(cors_origins=[UI])
    for path in ("ping", "version", "nope"):
        response = await service.get(f"/api/v1/{path}", headers={"Origin": UI})
        assert cors(response) == (UI, "true")
        assert response.headers["vary"] == "Origin"


async def test_another_origin_may_not() -> None:
    response = await Service(cors_origins=[UI]).get("/api/v1/ping", headers={"Origin": "http://evil.example"})
    assert response.status_code == 200
    assert cors(response)[0] is None


async def test_preflights() -> None:
    service = Service(cors_origins=[UI])
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    good = await service.request("OPTIONS", "/api/v1/version", headers={"Origin": UI, **asked})
    assert good.status_code == 200
    assert cors(good) == (UI, "true")
    assert good.headers["access-control-allow-headers"] == "authorization"
    bad = await service.request(
        "OPTIONS", "/api/v1/version", headers={"Origin": "http://evil.example", **asked}
    )
    assert (bad.status_code, bad.text) == (400, "Disallowed CORS origin")
