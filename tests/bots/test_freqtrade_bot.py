"""hub.bots.freqtrade: what passes through, the login, and what a client gets in the place of an answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpx
import jwt as pyjwt
import pytest

from hub.bots import freqtrade
from hub.bots.freqtrade import BotAnswer, BotBusy, BotSlow, FreqtradeBot
from hub.bots.login import REFUSED_PAUSE_S
from hub.protocol.botapi import BotError, BotGone

pytestmark = pytest.mark.anyio

KEY = "k" * 40
BASIC = "Basic " + base64.b64encode(b"freqtrader:secret-canary").decode()
GONE = b'{"error":"Error querying /api/v1/count: bot maker is out of reach"}'
HUGE = base64.urlsafe_b64encode(b'{"exp":1%s,"iat":0}' % (b"0" * 400)).decode().rstrip("=")
Handler = Callable[[httpx.Request], Awaitable[httpx.Response]]


class Upstream:
    """A freqtrade as far as its login goes. `answer` answers the rest, `key` signs its tokens."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.key = KEY
        self.basic = BASIC
        self.issued = 0
        self.asked: list[str] = []
        self.requests: list[httpx.Request] = []
        self.answer: Handler = self._count
        self.gate: asyncio.Event | None = None

    def bot(self, **settings: Any) -> FreqtradeBot:
        keys = {"host": "maker.example", "port": 8080, "username": "freqtrader", "password": "secret-canary"}
        return FreqtradeBot(
            "maker",
            **{**keys, **settings},
            transport=httpx.MockTransport(self._handle),
            now_ms=lambda: int(self.now * 1000),
            monotonic=lambda: self.now,
        )

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v1")
        if path.startswith("/token/"):
            self.asked.append(path)
            if self.gate is not None:
                await self.gate.wait()
            return self._tokens(path, request.headers["Authorization"])
        self.requests.append(request)
        if path != "/ping" and not self._good(request.headers["Authorization"], "access"):
            return httpx.Response(401, json={"detail": "Could not validate credentials"})
        return await self.answer(request)

    def _tokens(self, path: str, shown: str) -> httpx.Response:
        if path == "/token/login" and shown == self.basic:
            return httpx.Response(
                200, json={"access_token": self._token("access"), "refresh_token": self._token("refresh")}
            )
        if path == "/token/refresh" and self._good(shown, "refresh"):
            return httpx.Response(200, json={"access_token": self._token("access")})
        return httpx.Response(401, json={"detail": "Incorrect username or password"})

    def _token(self, kind: str) -> str:
        self.issued += 1
        lasts_s = {"access": 900, "refresh": 30 * 86400}[kind]
        # The bot's clock is an hour off: only differences may count.
        issued = int(self.now) + 3600
        claims = {"exp": issued + lasts_s, "iat": issued, "type": kind, "n": self.issued}
        return pyjwt.encode(claims, self.key, "HS256")

    def _good(self, shown: str, kind: str) -> bool:
        try:
            claims = pyjwt.decode(
                shown.removeprefix("Bearer "),
                self.key,
                ["HS256"],
                options={"verify_exp": False, "verify_iat": False},
            )
        except pyjwt.InvalidTokenError:
            return False
        return bool(claims["type"] == kind and claims["exp"] > self.now + 3600)

    async def _count(self, _request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"current": 1})


def failing(error: Exception, after: int = 0) -> tuple[list[httpx.Request], Handler]:
    """A handler that raises `error`, from the second request on when `after` is 1, with what it saw."""
    seen: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if after and len(seen) > after:
            return httpx.Response(200, json=[])
        raise error

    return seen, answer


# --- what passes


async def test_a_request_and_its_answer_pass_through_unchanged() -> None:
    upstream = Upstream()
    body = '{ "pair" : "ÄB/USDT", "side": "long" }\n'.encode()

    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(422, content=b'{"x":1.10 }', headers={"Content-Type": "application/json; a=b"})

    upstream.answer = answer
    bot = upstream.bot()
    got = await bot.pass_on("POST", b"/a%2Fb/..c/%C3%A4//", b"q=%2F&q=a+b&=", body, "application/json;x=1")
    assert got == BotAnswer(status=422, body=b'{"x":1.10 }', content_type="application/json; a=b")
    (request,) = upstream.requests
    assert request.method == "POST"
    assert request.extensions["target"] == b"/api/v1/a%2Fb/..c/%C3%A4//?q=%2F&q=a+b&="
    assert request.content == body
    assert request.headers["Content-Type"] == "application/json;x=1"
    assert request.headers["Host"] == "maker.example:8080"
    assert request.headers["Accept-Encoding"] == "identity"
    await bot.aclose()


async def test_bytes_that_no_request_line_may_have_are_encoded() -> None:
    upstream = Upstream()
    await upstream.bot().pass_on("GET", "/ä b\r\nX: y".encode())
    assert upstream.requests[0].extensions["target"] == b"/api/v1/%C3%A4%20b%0D%0AX:%20y"


@pytest.mark.parametrize("path", ["/..", "/./ping", "/a/../../x", "/%2e%2E/x", "/a%2f..%2fx", "/a\\..\\x"])
async def test_a_path_stays_below_its_prefix(path: str) -> None:
    upstream = Upstream()
    answer = await upstream.bot().pass_on("GET", path.encode())
    assert answer == BotAnswer(status=404, body=b'{"detail":"Not Found"}')
    assert upstream.requests == []


async def test_a_ping_needs_no_login() -> None:
    upstream = Upstream()
    upstream.basic = "another"
    assert (await upstream.bot().pass_on("GET", b"/ping")).status == 200
    assert upstream.asked == []
    assert "Authorization" not in upstream.requests[0].headers


@pytest.mark.parametrize("status", [200, 201, 400, 403, 404, 405, 422, 500, 502, 503])
async def test_every_status_of_the_bot_is_the_clients(status: int) -> None:
    upstream = Upstream()

    async def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=b"x")

    upstream.answer = answer
    bot = upstream.bot()
    assert await bot.pass_on("GET", b"/count") == BotAnswer(status=status, body=b"x", content_type="")
    assert bot.state().online is True


@pytest.mark.parametrize("status", [600, 999])
async def test_what_is_no_status_of_http_is_a_502(status: int) -> None:
    upstream = Upstream()

    async def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=b"x")

    upstream.answer = answer
    answered = await upstream.bot().pass_on("GET", b"/count")
    assert answered.status == 502
    assert f"answers with {status}".encode() in answered.body


@pytest.mark.parametrize("kind", ["text/\u20ac".encode(), b"text/\xff\xfe"])
async def test_a_content_type_that_is_none_is_left_out(kind: bytes) -> None:
    upstream = Upstream()

    async def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b"x", headers=[(b"Content-Type", kind)])

    upstream.answer = answer
    assert await upstream.bot().pass_on("GET", b"/count") == BotAnswer(status=200, body=b"x", content_type="")


# --- the login


async def test_one_login_serves_all_who_wait() -> None:
    upstream = Upstream()
    upstream.gate = asyncio.Event()
    bot = upstream.bot()
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(bot.pass_on, "GET", b"/count")
        await anyio.wait_all_tasks_blocked()
        assert upstream.asked == ["/token/login"]
        upstream.gate.set()
    assert upstream.asked == ["/token/login"]
    assert len(upstream.requests) == 20


async def test_who_goes_away_does_not_end_the_login_of_the_others() -> None:
    upstream = Upstream()
    upstream.gate = asyncio.Event()
    bot = upstream.bot()
    first = asyncio.create_task(bot.pass_on("GET", b"/count"))
    second = asyncio.create_task(bot.pass_on("GET", b"/count"))
    await anyio.wait_all_tasks_blocked()
    first.cancel()
    await anyio.wait_all_tasks_blocked()
    upstream.gate.set()
    assert (await second).status == 200
    assert upstream.asked == ["/token/login"]


async def test_the_token_is_refreshed_before_it_ends() -> None:
    upstream = Upstream()
    bot = upstream.bot()
    for after_s, asked in [(0, 1), (830, 1), (20, 2), (830, 2)]:
        upstream.now += after_s
        assert (await bot.pass_on("GET", b"/count")).status == 200
        assert len(upstream.asked) == asked
    assert upstream.asked == ["/token/login", "/token/refresh"]
    assert len(upstream.requests) == 4


async def test_after_a_401_the_request_is_repeated_with_a_new_token() -> None:
    upstream = Upstream()
    bot = upstream.bot()
    await bot.pass_on("GET", b"/count")
    upstream.key = "n" * 40
    assert (await bot.pass_on("POST", b"/forceenter", b"", b"{}", "application/json")).status == 200
    assert upstream.asked == ["/token/login", "/token/refresh", "/token/login"]
    assert [request.content for request in upstream.requests[-2:]] == [b"{}", b"{}"]


async def test_the_bots_401_is_never_the_clients(caplog: pytest.LogCaptureFixture) -> None:
    upstream = Upstream()

    async def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, json={"detail": "of a handler"})

    upstream.answer = answer
    answered = await upstream.bot().pass_on("GET", b"/count")
    assert answered.status == 502
    assert answered.body == b'{"error":"Error querying /api/v1/count: bot maker refuses the hub\'s token"}'
    assert len(upstream.requests) == 2
    assert [record.getMessage() for record in caplog.records] == ["REST: bot maker refuses the hub's token"]


async def test_a_wrong_password_is_told_once_and_asked_with_again_after_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    upstream = Upstream()
    upstream.basic = "another"
    bot = upstream.bot()
    for _ in range(3):
        answer = await bot.pass_on("GET", b"/count")
        assert answer.status == 502
        assert answer.body == b'{"error":"Error querying /api/v1/count: bot maker refuses the hub\'s login"}'
    assert upstream.asked == ["/token/login"]
    upstream.now += REFUSED_PAUSE_S
    await bot.pass_on("GET", b"/count")
    assert upstream.asked == ["/token/login"] * 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "bot maker: refuses user freqtrader" in caplog.text
    assert "canary" not in caplog.text + repr(bot) + str(vars(bot))
    upstream.basic = BASIC
    upstream.now += REFUSED_PAUSE_S
    assert (await bot.pass_on("GET", b"/count")).status == 200
    assert bot.state().online is True


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"<html>", 200, "without access_token"),
        (b'{"access_token":"a"}', 200, "without refresh_token"),
        (b'{"access_token":"a\\n","refresh_token":"b"}', 200, "without access_token"),
        (b"{}", 404, "with 404"),
        (b"x" * 70_000, 200, "with over 65536 bytes"),
    ],
)
async def test_what_is_no_freqtrade_is_a_502(content: bytes, status: int, said: str) -> None:
    transport = httpx.MockTransport(lambda _request: httpx.Response(status, content=content))
    bot = FreqtradeBot("maker", host="h", port=1, username="u", password="p", transport=transport)
    answer = await bot.pass_on("GET", b"/count")
    assert answer.status == 502
    assert said in answer.body.decode()


@pytest.mark.parametrize("token", ["opaque", f"a.{HUGE}.b", "a.!.b"])
async def test_a_token_that_does_not_say_how_long_it_lasts_is_used_until_a_401(token: str) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, json={"access_token": token, "refresh_token": "opaque"})

    bot = FreqtradeBot(
        "m", host="h", port=1, username="u", password="p", transport=httpx.MockTransport(answer)
    )
    for _ in range(2):
        await bot.pass_on("GET", b"/count")
    assert asked == ["/api/v1/token/login", "/api/v1/count", "/api/v1/count"]


# --- what goes wrong on the way


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), httpx.ConnectError("no such name")])
async def test_a_bot_that_is_gone_has_freqtrades_502(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    upstream = Upstream()
    seen, upstream.answer = failing(error)
    bot = upstream.bot()
    for _ in range(2):
        assert await bot.pass_on("GET", b"/count", b"a=b") == BotAnswer(status=502, body=GONE)
    assert len(seen) == 2, "nobody was there: no repetition"
    assert [record.getMessage() for record in caplog.records] == [
        "REST: bot maker is out of reach (ConnectError)"
    ]
    assert bot.state().online is False
    assert bot.state().failure == "bot maker is out of reach (ConnectError)"


BROKEN = [httpx.ReadError("reset"), httpx.WriteError("reset"), httpx.RemoteProtocolError("closed")]


@pytest.mark.parametrize("error", BROKEN)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_read_that_broke_off_is_repeated_once(error: Exception, method: str) -> None:
    upstream = Upstream()
    seen, upstream.answer = failing(error, after=1)
    assert (await upstream.bot().pass_on(method, b"/trades")).status == 200
    assert len(seen) == 2
    seen, upstream.answer = failing(error)
    assert (await upstream.bot().pass_on(method, b"/trades")).status == 502
    assert len(seen) == 2


@pytest.mark.parametrize("error", BROKEN)
@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH", "PUT"])
async def test_what_may_have_reached_the_bot_is_not_repeated(error: Exception, method: str) -> None:
    upstream = Upstream()
    seen, upstream.answer = failing(error, after=1)
    assert (await upstream.bot().pass_on(method, b"/count", b"", b"{}")).body == GONE
    assert len(seen) == 1


async def test_a_restart_may_cost_both_a_connection_and_a_token() -> None:
    upstream = Upstream()
    bot = upstream.bot()
    await bot.pass_on("GET", b"/count")
    upstream.key = "n" * 40
    good, broke = upstream._good, []

    def good_after_a_reset(shown: str, kind: str) -> bool:
        if kind == "access" and not broke:
            broke.append(True)
            raise httpx.ReadError("reset")
        return good(shown, kind)

    upstream._good = good_after_a_reset  # type: ignore[method-assign]
    assert (await bot.pass_on("GET", b"/count")).status == 200


async def never(_request: httpx.Request) -> httpx.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def test_the_deadline_has_freqtrades_503() -> None:
    upstream = Upstream()
    upstream.answer = never
    bot = upstream.bot(deadline_s=0.02)
    answer = await bot.pass_on("GET", b"/count")
    said = b'{"detail":"bot maker did not answer within 0.02 s"}'
    assert answer == BotAnswer(status=503, body=said, retry_after=1)
    assert bot.state().online is False
    assert bot.statistics()["in_flight"] == 0
    # The bot may do it yet: nobody is told to ask again.
    assert await bot.pass_on("POST", b"/forceenter") == BotAnswer(status=503, body=said)


async def test_the_deadline_holds_for_the_login_too() -> None:
    upstream = Upstream()
    upstream.gate = asyncio.Event()
    bot = upstream.bot(deadline_s=0.02)
    assert (await bot.pass_on("POST", b"/start")).status == 503
    assert upstream.requests == []
    await bot.aclose()


async def test_one_slow_answer_among_others_does_not_make_a_bot_that_is_gone() -> None:
    upstream = Upstream()
    quick = upstream.answer

    async def answer(request: httpx.Request) -> httpx.Response:
        return await (never if request.url.path.endswith("/slow") else quick)(request)

    upstream.answer = answer
    bot = upstream.bot(deadline_s=0.05)
    slow = asyncio.create_task(bot.pass_on("GET", b"/slow"))
    await anyio.wait_all_tasks_blocked()
    await bot.pass_on("GET", b"/count")
    assert (await slow).status == 503
    assert bot.state().online is True


async def test_more_than_so_many_requests_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freqtrade, "IN_FLIGHT", 3)
    upstream = Upstream()
    upstream.answer = never
    bot = upstream.bot()
    waiting = [asyncio.create_task(bot.pass_on("GET", b"/count")) for _ in range(3)]
    await anyio.wait_all_tasks_blocked()
    answer = await bot.pass_on("GET", b"/count")
    assert answer == BotAnswer(status=503, body=b'{"detail":"3 requests wait for bot maker"}', retry_after=1)
    assert bot.statistics()["busy"] == 1
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert bot.statistics()["in_flight"] == 0


async def test_pings_do_not_crowd_out_what_needs_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freqtrade, "OPEN_IN_FLIGHT", 1)
    upstream = Upstream()
    quick, upstream.answer = upstream.answer, never
    bot = upstream.bot()
    ping = asyncio.create_task(bot.pass_on("GET", b"/ping"))
    await anyio.wait_all_tasks_blocked()
    assert (await bot.pass_on("GET", b"/ping")).status == 503
    upstream.answer = quick
    assert (await bot.pass_on("GET", b"/count")).status == 200
    ping.cancel()
    await asyncio.wait([ping])
    assert (await bot.pass_on("GET", b"/ping")).status == 200


async def test_no_byte_of_a_target_is_a_fault() -> None:
    upstream = Upstream()
    bot = upstream.bot()
    for byte in set(range(256)) - {ord(".")}:
        for target in (b"/x%c" % byte, b"/x%c%%" % byte, b"/%c//:@[" % byte):
            assert (await bot.pass_on("GET", target, b"q=%c" % byte)).status == 200
    assert all(request.extensions["target"].isascii() for request in upstream.requests)


async def test_an_answer_is_bounded_and_so_are_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freqtrade, "ANSWER_BYTES", 100)
    monkeypatch.setattr(freqtrade, "HELD_BYTES", 150)
    upstream = Upstream()
    rest = asyncio.Event()

    async def large(size: int) -> Any:
        yield b"x" * size
        await rest.wait()

    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=large(int(request.url.params["size"])))

    upstream.answer = answer
    bot = upstream.bot()
    too_large = await bot.pass_on("GET", b"/trades", b"size=101")
    assert too_large.status == 502
    assert b"over 100 bytes" in too_large.body
    assert bot.state().online is None
    first = asyncio.create_task(bot.pass_on("GET", b"/trades", b"size=100"))
    await anyio.wait_all_tasks_blocked()
    assert bot.statistics()["held_bytes"] == 100
    assert (await bot.pass_on("GET", b"/trades", b"size=51")).status == 503
    assert (await bot.pass_on("POST", b"/trades", b"size=51")).status == 502
    rest.set()
    assert (await first).status == 200
    assert bot.statistics()["held_bytes"] == 0


async def test_a_redirect_is_not_followed() -> None:
    upstream = Upstream()

    async def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(307, headers={"Location": "http://elsewhere/"})

    upstream.answer = answer
    answered = await upstream.bot().pass_on("GET", b"/count")
    assert answered.status == 502
    assert b"redirect" in answered.body
    assert len(upstream.requests) == 1


async def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://proxy.example:3128")
    bot = FreqtradeBot("m", host="h", port=1, username="u", password="p")
    assert bot._client._mounts == {}
    await bot.aclose()


# --- asked from Python


async def test_get_json() -> None:
    upstream = Upstream()

    async def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"trades": []})

    upstream.answer = answer
    assert await upstream.bot().get_json("/trades", limit=500, tag=["a b", "c"]) == {"trades": []}
    assert upstream.requests[0].extensions["target"] == b"/api/v1/trades?limit=500&tag=a+b&tag=c"


async def test_get_json_says_whose_fault_it_is() -> None:
    upstream = Upstream()

    async def asked(answer: Handler, **settings: Any) -> None:
        upstream.answer = answer
        await upstream.bot(**settings).get_json("/trades")

    async def missing(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(404, json={"detail": "Not Found"})

    async def text(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b"<html>")

    with pytest.raises(BotGone, match="out of reach"):
        await asked(failing(httpx.ConnectError("x"))[1])
    with pytest.raises(BotSlow):
        await asked(never, deadline_s=0.01)
    with pytest.raises(BotError, match="answers GET /trades with 404"):
        await asked(missing)
    with pytest.raises(BotError, match="not JSON"):
        await asked(text)
    assert issubclass(BotBusy, BotError)
    assert not issubclass(BotBusy, BotGone)


async def test_the_state_and_its_freshness() -> None:
    upstream = Upstream()
    bot = upstream.bot()
    assert (bot.state().online, bot.state().last_success_ms, bot.state().failure) == (None, None, "")
    await bot.pass_on("GET", b"/count")
    upstream.now += 5
    _, upstream.answer = failing(httpx.ConnectError("x"))
    await bot.pass_on("GET", b"/count")
    state = bot.state()
    assert (state.online, state.last_success_ms) == (False, 1_000_000)
    assert json.loads(GONE)["error"].endswith(state.failure.removesuffix(" (ConnectError)"))
    figures = bot.statistics()
    assert (figures["answered"], figures["failed"], figures["logins"]) == (1, 1, 1)


# --- its clock


@pytest.mark.parametrize(
    ("date", "skew_ms"),
    [
        ("Thu, 01 Jan 1970 00:16:40 GMT", 0),
        ("Thu, 01 Jan 1970 00:16:41 GMT", 0),
        ("Thu, 01 Jan 1970 01:16:40 GMT", 3_600_500),
        ("Thu, 01 Jan 1970 00:00:00 GMT", -999_500),
        ("yesterday", 0),
        ("Thu, 01 Jan 99999 00:00:00 GMT", 0),
        (None, 0),
    ],
)
async def test_the_date_of_an_answer_tells_of_a_clock_that_is_wrong(date: str | None, skew_ms: int) -> None:
    upstream = Upstream()

    async def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=[], headers={} if date is None else {"Date": date})

    upstream.answer = answer
    async with contextlib.aclosing(upstream.bot()) as bot:
        await bot.get_json("/status")
        assert bot.skew_ms == skew_ms
