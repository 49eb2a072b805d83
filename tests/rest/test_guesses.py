"""hub.rest.app: logins and tokens under attack, refreshes at once, and tickets."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from auth.credentials import NOW_MS, READER, basic

from .service import Service

pytestmark = pytest.mark.anyio

USER = {"Authorization": basic()}
GUESS = {"Authorization": basic(password="guess")}
TOO_MANY = {"detail": "Too many wrong credentials. Try again later."}
BURST = 20
HERE, THERE = "192.0.2.1", "198.51.100.7"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def tokens(client: httpx.AsyncClient) -> tuple[str, str]:
    answer = (await client.post("/api/v1/token/login", headers=USER)).json()
    return answer["access_token"], answer["refresh_token"]


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/api/v1/token/login", GUESS),
        ("GET", "/api/v1/version", GUESS),
        ("GET", "/bots/alpha/api/v1/version", GUESS),
        ("GET", "/api/v1/version", bearer("a.b.c")),
        ("POST", "/api/v1/token/refresh", bearer("a.b.c")),
        ("POST", "/api/v1/ws_ticket", bearer(READER)),
        ("POST", "/api/v1/publish", bearer("guess")),
    ],
)
async def test_too_many_guesses_are_429(method: str, path: str, headers: dict[str, str]) -> None:
    service = Service(cors_origins=["http://ui.example"])
    headers = headers | {"Origin": "http://ui.example"}
    async with service.client(HERE) as attacker, service.client(THERE) as other:
        for _ in range(BURST):
            assert (await attacker.request(method, path, headers=headers)).status_code == 401
        refused = await attacker.request(method, path, headers=headers)
        assert (refused.status_code, refused.json()) == (429, TOO_MANY)
        assert refused.headers["retry-after"] == "3"
        assert refused.headers["access-control-allow-origin"] == "http://ui.example"
        assert (await other.request(method, path, headers=headers)).status_code == 401
        service.now_s += 3
        assert (await attacker.request(method, path, headers=headers)).status_code == 401


async def test_a_right_password_over_budget_looks_like_a_wrong_one() -> None:
    service = Service()
    async with service.client(HERE) as attacker:
        for _ in range(BURST):
            await attacker.post("/api/v1/token/login", headers=GUESS)
        answers = [await attacker.post("/api/v1/token/login", headers=shown) for shown in (USER, GUESS)]
        right, wrong = [(a.status_code, a.content, sorted(a.headers.items())) for a in answers]
        assert right == wrong


async def test_good_clients_beside_the_attacker_go_on() -> None:
    """FreqUI with its tokens and freqtrade-client with a password, at the attacker's own address."""
    service = Service()
    async with service.client(HERE) as client:
        access, refresh = await tokens(client)
        for _ in range(BURST * 5):
            await client.post("/api/v1/token/login", headers=GUESS)
            await client.get("/api/v1/version", headers=bearer("a.b.c"))
        assert (await client.get("/api/v1/version", headers=GUESS)).status_code == 429
        for headers in (bearer(access), USER):
            assert (await client.get("/api/v1/version", headers=headers)).status_code == 200
        assert (await client.post("/api/v1/token/refresh", headers=bearer(refresh))).status_code == 200


async def test_no_credentials_and_unreadable_ones_are_no_guesses() -> None:
    service = Service()
    for headers in ({}, {"Authorization": "Basic !!!"}, {"Authorization": "Digest x"}):
        for _ in range(BURST + 5):
            assert (await service.get("/api/v1/version", headers=headers)).status_code == 401


async def test_all_refreshes_of_one_expiry_succeed() -> None:
    """FreqUI's requests run into the expiry together, and each refreshes."""
    service = Service()
    async with service.client() as client:
        access, refresh = await tokens(client)
        service.now_ms += 15 * 60_000
        expired = [client.get("/api/v1/version", headers=bearer(access)) for _ in range(30)]
        assert {answer.status_code for answer in await asyncio.gather(*expired)} == {401}
        refreshes = [
            client.post("/api/v1/token/refresh", headers=bearer(refresh), json={}) for _ in range(30)
        ]
        answers = await asyncio.gather(*refreshes)
        assert {answer.status_code for answer in answers} == {200}
        for answer in answers:
            renewed = bearer(answer.json()["access_token"])
            assert (await client.get("/api/v1/version", headers=renewed)).status_code == 200


# --- tickets


@pytest.mark.parametrize("by", ["basic", "jwt"])
@pytest.mark.parametrize("content", [b"", b"null", b"{}", b"{"])
async def test_a_ticket(by: str, content: bytes) -> None:
    service = Service()
    async with service.client() as client:
        headers = USER if by == "basic" else bearer((await tokens(client))[0])
        headers = headers | {"Content-Type": "application/json", "Origin": "http://hub.example:8080"}
        answer = await client.post("/api/v1/ws_ticket", headers=headers, content=content)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert sorted(answer.json()) == ["expires_ms", "ticket"]
    assert answer.json()["expires_ms"] == NOW_MS + 30_000
    query = b"ticket=" + answer.json()["ticket"].encode()
    shaken = [(b"host", b"hub.example:8080"), (b"origin", b"http://hub.example:8080")]
    principal = service.authenticator.websocket(shaken, query, [], v2=True)
    assert principal.name == "user:Freqtrader"
    assert principal.expires_ms == (None if by == "basic" else (NOW_MS // 1000 + 900) * 1000)


@pytest.mark.parametrize("headers", [{}, bearer(READER), GUESS])
async def test_a_ticket_is_for_users(headers: dict[str, str]) -> None:
    answer = await Service().request("POST", "/api/v1/ws_ticket", headers=headers)
    assert answer.status_code == 401


async def test_tickets_that_nobody_uses_are_bounded() -> None:
    service = Service()
    async with service.client() as client:
        user = service.authenticator.basic(basic().split()[1].encode())
        assert user is not None
        for _ in range(1024):
            service.authenticator.ticket(user, [])
        answer = await client.post("/api/v1/ws_ticket", headers=USER)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
        service.now_ms += 30_000
        assert (await client.post("/api/v1/ws_ticket", headers=USER)).status_code == 200
