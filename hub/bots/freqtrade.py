"""A freqtrade bot that is asked through its own REST: a request and its answer pass through as bytes.

What is the bot's own answer reaches the client unchanged, whatever its status. What goes wrong on the way has freqtrade's shapes:

| case | answer |
|---|---|
| it is out of reach, breaks off, or answers what is no answer of freqtrade | 502 `{"error":"Error querying /api/v1/PATH: TEXT"}` |
| it refuses the hub's login (never the client's 401) | 502 as above |
| too many requests wait for it | 503 `{"detail":"TEXT"}`, Retry-After |
| it does not answer within the deadline | 503 as above; Retry-After only where it is safe to ask again |

A request that may have reached the bot is not repeated unless it is a GET or HEAD, nor is the client told to: a second forceenter
could buy twice. A 401 is repeated with another token, since freqtrade looks at the token before it does anything.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import ssl
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote_from_bytes, unquote, urlencode

import httpx
import msgspec

from hub.bots.login import Login, LoginFailed, LoginRefused
from hub.protocol.botapi import API_PREFIX, BotError, BotGone, refusal

__all__ = ["BotAnswer", "BotBusy", "BotSlow", "FreqtradeBot", "FreqtradeState"]

IN_FLIGHT = 32
# Of those, what anyone may ask without a credential: it is not to crowd out the rest.
OPEN_IN_FLIGHT = 4
ANSWER_BYTES = 64 * 1024 * 1024
HELD_BYTES = 2 * ANSWER_BYTES
# Under the 5 s after which uvicorn closes an idle connection: a request is not to meet its end, and a POST cannot be repeated.
IDLE_S = 2.0
RETRY_AFTER_S = 1
SKEW_NOISE_MS = 2000
_JSON = "application/json"
_REPEATABLE = frozenset({"GET", "HEAD"})
_OPEN_PATHS = frozenset({b"/ping"})
_BROKEN = (httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError)
_TARGET = re.compile(rb"[!\"$-~]+")
_SAFE = bytes(byte for byte in range(0x21, 0x7F) if byte != ord("#"))
_DOTS = re.compile(rb"(?i)(?:/|%2f|\\|%5c)(?:\.|%2e){1,2}(?:/|%2f|\\|%5c|$)")
logger = logging.getLogger("tradewire.bots")


class BotSlow(BotGone):
    """The bot did not answer within its deadline."""


class BotBusy(BotError):
    """Too many requests wait for the bot's answer; ask again later."""


class BotAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it goes to the client. `retry_after` (s) only with the hub's own 503, `content_type` "" without one."""

    status: int
    body: bytes
    content_type: str = _JSON
    retry_after: int | None = None


class FreqtradeState(msgspec.Struct, frozen=True, kw_only=True):
    """What the last request told: `online` is null before the first. `failure` is "" after a success."""

    online: bool | None
    last_success_ms: int | None
    failure: str


class FreqtradeBot:
    """One bot's REST at `host`:`port`. To be closed with `aclose`.

    Answers are at most ANSWER_BYTES each, HELD_BYTES together while they are read; IN_FLIGHT requests wait at most, OPEN_IN_FLIGHT
    of them for a ping. No proxy and no variable of the environment is used, no redirect followed; with `secure` the certificate is
    checked as the system does.

    Args:
        deadline_s: from the call to the whole answer, login included.
        transport: takes the place of the network.
        now_ms: the wall clock, ms since 1970 UTC. monotonic: seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        host: str,
        port: int,
        username: str,
        password: str,
        secure: bool = False,
        deadline_s: float = 10.0,
        transport: httpx.AsyncBaseTransport | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._deadline_s = deadline_s
        self._now_ms = now_ms
        self._origin = f"{'https' if secure else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
        self._client = httpx.AsyncClient(
            transport=transport,
            verify=ssl.create_default_context() if secure else False,
            trust_env=False,
            follow_redirects=False,
            timeout=None,
            limits=httpx.Limits(
                max_connections=IN_FLIGHT + 1, max_keepalive_connections=4, keepalive_expiry=IDLE_S
            ),
            # As sent: what passes through is not to be packed for us.
            headers={"Accept-Encoding": "identity", "User-Agent": "tradewire"},
        )
        self._login = Login(
            name,
            self._client,
            self._origin + API_PREFIX,
            username,
            password,
            timeout_s=deadline_s,
            monotonic=monotonic,
        )
        self._in_flight = 0
        self._open_in_flight = 0
        self._held_bytes = 0
        self._counters = {"answered": 0, "failed": 0, "busy": 0, "repeated": 0}
        self._online: bool | None = None
        self._last_success_ms: int | None = None
        self._failure = ""
        self._skew_ms = 0

    async def aclose(self) -> None:
        """End the login under way and close the connections."""
        await self._login.aclose()
        await self._client.aclose()

    @property
    def skew_ms(self) -> int:
        """How far its clock was ahead of ours at its last answer, by the answer's date; 0 within the second that a date has."""
        return self._skew_ms

    def state(self) -> FreqtradeState:
        """Whether it answered the last time, when it last did, and why not."""
        return FreqtradeState(
            online=self._online, last_success_ms=self._last_success_ms, failure=self._failure
        )

    def statistics(self) -> dict[str, Any]:
        """Requests and bytes of answers under way with their bounds; since the start: answers, failures, logins."""
        return {
            "online": self._online,
            "last_success_ms": self._last_success_ms,
            "in_flight": self._in_flight,
            "in_flight_limit": IN_FLIGHT,
            "held_bytes": self._held_bytes,
            "held_limit_bytes": HELD_BYTES,
            **self._counters,
            "logins": self._login.logins,
            "refreshes": self._login.refreshes,
        }

    async def request(
        self, method: str, path: str, query: str, body: Any, *, principal: str, key: str | None = None
    ) -> tuple[int, bytes]:
        """As hub.bots.ports.Requester; a bot of freqtrade knows neither `principal` nor `key`."""
        content = b"" if body is None else msgspec.json.encode(body)
        kind = None if body is None else _JSON
        answer = await self.pass_on(method, path.encode(), query.encode(), content, kind)
        return answer.status, answer.body

    async def pass_on(
        self, method: str, path: bytes, query: bytes = b"", body: bytes = b"", content_type: str | None = None
    ) -> BotAnswer:
        """The bot's answer to this request, or the hub's own in its place; raises nothing of the bot's.

        `path` (below /api/v1, with its slash) and `query` are percent-encoded as they came, and go out so. A path with dot
        segments is nothing of freqtrade's, and a proxy before the bot may read it as one beside /api/v1: 404.
        """
        if _DOTS.search(path):
            return BotAnswer(status=404, body=b'{"detail":"Not Found"}')
        try:
            return await self._asked(method, path, query, body, content_type)
        except (BotBusy, BotSlow) as error:
            detail = msgspec.json.encode({"detail": str(error)})
            again = isinstance(error, BotBusy) or method in _REPEATABLE
            return BotAnswer(status=503, body=detail, retry_after=RETRY_AFTER_S if again else None)
        except BotError as error:
            told = refusal(error, API_PREFIX + unquote(path.decode("utf-8", "replace")))
            return BotAnswer(status=told.status, body=msgspec.json.encode(told.body))

    async def get_json(self, path: str, **query: Any) -> Any:
        """What GET `path` (such as "/trades") answers, decoded.

        Raises:
            BotGone: out of reach; BotSlow: no answer within the deadline; BotBusy: too many requests; BotError: it answered with an
            error, or not with JSON.
        """
        target = quote_from_bytes(path.encode()).encode()
        answer = await self._asked("GET", target, urlencode(query, doseq=True).encode(), b"", None)
        if answer.status != 200:
            raise BotError(f"bot {self.name} answers GET {path} with {answer.status}")
        try:
            return json.loads(answer.body)
        except (ValueError, RecursionError):
            raise BotError(f"bot {self.name} answers GET {path} with what is not JSON") from None

    # --- one request

    async def _asked(
        self, method: str, path: bytes, query: bytes, body: bytes, content_type: str | None
    ) -> BotAnswer:
        is_open = path in _OPEN_PATHS
        if self._in_flight >= IN_FLIGHT or (is_open and self._open_in_flight >= OPEN_IN_FLIGHT):
            self._counters["busy"] += 1
            raise BotBusy(f"{self._in_flight} requests wait for bot {self.name}")
        self._in_flight += 1
        self._open_in_flight += is_open
        answered = self._counters["answered"]
        try:
            async with asyncio.timeout(self._deadline_s):
                answer = await self._attempts(method, path, query, body, content_type)
        except TimeoutError:
            slow = BotSlow(f"bot {self.name} did not answer within {self._deadline_s:g} s")
            # One slow answer among others does not make a bot that is gone.
            raise self._failed(slow, gone=self._counters["answered"] == answered) from None
        except httpx.HTTPError as error:
            gone = BotGone(f"bot {self.name} is out of reach")
            raise self._failed(gone, type(error).__name__, gone=True) from None
        except BotBusy:
            self._counters["busy"] += 1
            raise
        except BotError as error:
            raise self._failed(error, gone=isinstance(error, LoginFailed)) from None
        finally:
            self._in_flight -= 1
            self._open_in_flight -= is_open
        self._succeeded()
        return answer

    async def _attempts(
        self, method: str, path: bytes, query: bytes, body: bytes, content_type: str | None
    ) -> BotAnswer:
        token = None if path in _OPEN_PATHS else await self._login.token()
        repeated = renewed = False
        while True:
            request = self._request(method, path, query, body, content_type, token)
            try:
                answer = await self._attempt(request)
            except _BROKEN:
                if repeated or method not in _REPEATABLE:
                    raise
                repeated = True
                self._counters["repeated"] += 1
                continue
            if answer.status != 401:
                return answer
            if renewed or token is None:
                raise LoginFailed(f"bot {self.name} refuses the hub's token")
            token, renewed = await self._login.token(refused=token), True

    def _request(
        self,
        method: str,
        path: bytes,
        query: bytes,
        body: bytes,
        content_type: str | None,
        token: str | None,
    ) -> httpx.Request:
        target = API_PREFIX.encode() + path + (b"?" + query if query else b"")
        if not _TARGET.fullmatch(target):
            target = quote_from_bytes(target, safe=_SAFE).encode()
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        if content_type is not None:
            headers["Content-Type"] = content_type
        return self._client.build_request(
            method,
            httpx.URL(self._origin).copy_with(raw_path=target),
            headers=headers,
            content=body or None,
            # httpx would take dot segments out of the path and encode anew.
            extensions={"target": target},
        )

    async def _attempt(self, request: httpx.Request) -> BotAnswer:
        response = await self._client.send(request, stream=True)
        self._note_date(response.headers.get("Date", ""))
        try:
            if response.is_redirect:
                raise BotError(f"bot {self.name} answers with a redirect; expected freqtrade's REST")
            if not 200 <= response.status_code <= 599:
                raise BotError(f"bot {self.name} answers with {response.status_code}, no status of HTTP")
            body = await self._body(response)
        finally:
            await response.aclose()
        kind = response.headers.get("Content-Type", "")
        # What is no ASCII is no media type (RFC 9110 section 8.3.1), and not every server could send it on.
        return BotAnswer(status=response.status_code, body=body, content_type=kind if kind.isascii() else "")

    def _note_date(self, date: str) -> None:
        try:
            at_ms = int(parsedate_to_datetime(date).timestamp() * 1000) + 500
        except (ValueError, TypeError, OverflowError):
            return
        skew_ms = at_ms - self._now_ms()
        self._skew_ms = skew_ms if abs(skew_ms) >= SKEW_NOISE_MS else 0

    async def _body(self, response: httpx.Response) -> bytes:
        body = bytearray()
        try:
            async for chunk in response.aiter_bytes():
                if len(body) + len(chunk) > ANSWER_BYTES:
                    raise BotError(f"bot {self.name} answers with over {ANSWER_BYTES} bytes")
                if self._held_bytes + len(chunk) > HELD_BYTES:
                    raise self._no_room(response.request.method)
                self._held_bytes += len(chunk)
                body += chunk
            return bytes(body)
        finally:
            self._held_bytes -= len(body)

    def _no_room(self, method: str) -> BotError:
        said = f"the answers of bot {self.name} under way are over {HELD_BYTES} bytes"
        # "Again later" would have done twice what the bot has done.
        return BotBusy(said) if method in _REPEATABLE else BotError(said)

    def _failed(self, error: BotError, cause: str = "", *, gone: bool) -> BotError:
        self._counters["failed"] += 1
        self._failure = f"{error} ({cause})" if cause else str(error)
        if gone and self._online is not False:
            self._online = False
            # A refused login has its own line.
            if not isinstance(error, LoginRefused):
                logger.warning("REST: %s", self._failure)
        return error

    def _succeeded(self) -> None:
        if self._online is False:
            logger.info("REST: bot %s answers again", self.name)
        self._online = True
        self._failure = ""
        self._last_success_ms = self._now_ms()
        self._counters["answered"] += 1
