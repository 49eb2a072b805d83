"""RestClient: ask a hub, or a freqtrade bot, over REST from a program.

    with RestClient("http://127.0.0.1:8080", "me", "secret", bot="maker") as client:
        for trade in client.ask(BotAPI.status):
            print(trade.pair, trade.profit_pct)
        client.ask(BotAPI.force_exit, tradeid=3, amount=0.5)
        page = client.ask("trades", limit=5, raw=True)

An operation is named by the method of BotAPI that says it. So the type checker and the editor know every parameter and the answer of
all of them, and there is no second list of 45 methods here that could differ from BotAPI; what BotAPI gets, this has. By its name as
a text the same operation is asked without types, as a command line needs it.

Rules
=====

1. The password goes out in `token/login` alone. Afterwards each request carries the access token, which is refreshed when the peer no
   longer takes it (401), once per request. A peer without a token route gets Basic with every request.
2. A request that changes something is sent once. It goes out again only after a 401, with which nothing was done; where its answer is
   lost the error says so (OutcomeUnknown). A read is repeated once when its connection breaks.
3. No proxy and no netrc of the environment, no redirects: the credentials go where the URL says.
4. An answer is bounded in bytes and in time.
5. No text of an error or `repr` has the password or a token, also when the peer sends it back.

Source: the routes, bodies and errors of freqtrade 2026.9, observed on a running one.
"""

from __future__ import annotations

import math
import re
import ssl
import time
import typing
from base64 import b64encode
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType, UnionType
from typing import Any, Concatenate, NoReturn, ParamSpec, Self, TypeVar, overload
from urllib.parse import quote, urlencode, urlsplit

import httpx
import msgspec

from consumer.config import checked_bot_name
from consumer.connection import connect_reason, retry_after, software_version, tls
from consumer.errors import (
    BadAnswer,
    BadRequest,
    BotRefused,
    ConfigError,
    ConnectionFailed,
    LedgerReplaced,
    NotFound,
    OutcomeUnknown,
    Unauthorized,
    Unavailable,
)
from consumer.wording import clean, nearest
from hub.protocol.botapi import API_PREFIX, OPERATIONS, BotAPI
from hub.protocol.ledger_answers import FillsPage, LedgerFill, Reconciliation
from hub.protocol.operations import Operation, Place

__all__ = ["MAX_ANSWER_BYTES", "BotAPI", "RestClient", "Moment", "decoded", "plain_json", "typed"]

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Over a hundred times what 1500 candles of 42 columns take."""
RECONCILE_S = 120.0
"""How long a hub may be silent while it reconciles: it asks the bot, and waits for messages that may be on their way."""
ANSWER_TIMEOUTS = 6
"""A whole answer may take so many times `timeout_s`, however steadily it trickles."""

_ERROR_BODY_BYTES = 64 * 1024
_SECRET_BYTES = 8
_QUERYING = re.compile(r"^Error querying \S+: ")
Moment = int | datetime
"""ms since 1970 UTC, or a datetime with an offset."""
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes = field(repr=False)
    retry_after_s: float | None
    page: bool
    """Whether it is for a browser: freqtrade answers every path that it does not know with its user interface."""


class RestClient:
    """One peer, and at a hub one bot of it (None: its default bot). For one thread at a time; connections are kept until `close`.

    `url` is http://host:port, https://host:port, either with the path under which a proxy has the peer, or host:port. `timeout_s`
    bounds the connect and each silence. `ca_file` is a PEM file of authorities to trust beside the system's. `transport` is for tests.

    Every method raises:
        ConnectionFailed: not reachable, or no answer in time; OutcomeUnknown where the request may have been acted on.
        Unauthorized: the user name or password is not accepted.
        BadRequest: a parameter is wrong. NotFound, BotRefused, Unavailable: the peer says so. BadAnswer: it is no such peer.
    """

    def __init__(
        self,
        url: str,
        username: str,
        password: str,
        *,
        bot: str | None = None,
        timeout_s: float = 10.0,
        ca_file: str | None = None,
        transport: httpx.BaseTransport | None = None,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        """Connects to nothing yet.

        Raises:
            ConfigError: the URL, the user name, the bot's name or `ca_file` cannot be used.
        """
        self.url = _base(url)
        self.bot = None if bot is None else checked_bot_name("bot", bot)
        if self.bot in (".", ".."):
            raise ConfigError("bot", "expected the name of a bot")
        self._prefix = API_PREFIX if self.bot is None else f"/bots/{quote(self.bot, safe='')}{API_PREFIX}"
        self._basic = _basic(username, password)
        self._password = password
        self._tokens: tuple[str, str] | None = None
        self._has_tokens = True
        self._max_bytes = max_answer_bytes
        self._timeout_s = timeout_s
        # Without https nothing is verified, and loading the system's authorities takes longer than a request.
        secure = self.url.startswith("https:") and transport is None
        self._http = httpx.Client(
            transport=transport,
            timeout=timeout_s,
            verify=tls(ca_file) if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            trust_env=False,
            follow_redirects=False,
            headers={"User-Agent": f"tradewire-consumer/{software_version()}"},
        )

    def __repr__(self) -> str:
        return f"RestClient({self.url!r}, bot={self.bot!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and forget the tokens."""
        self._tokens = None
        self._http.close()

    # --- asking

    @overload
    def ask(
        self,
        operation: Callable[Concatenate[BotAPI, P], Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **arguments: P.kwargs,
    ) -> T: ...

    @overload
    def ask(self, operation: str, /, *, raw: bool = False, **arguments: Any) -> Any: ...

    def ask(self, operation: Any, /, *args: Any, **arguments: Any) -> Any:
        """The answer to an operation, as its type in hub.protocol.answers; with `raw` as plain JSON.

        Arguments are checked before anything is sent; None stands for none. Fields that the type does not have are ignored,
        fields that it lacks are a BadAnswer, so a peer of another version may need `raw`.
        """
        known = _operation(operation)
        if args:
            raise BadRequest(f"{known.name}: expected its parameters by name")
        raw = arguments.pop("raw", False)
        body = self.fetch(known.name, arguments)
        return plain_json(body) if raw else decoded(known, body)

    def fetch(self, operation: str, arguments: Mapping[str, Any] | None = None) -> bytes:
        """The answer to an operation of OPERATIONS as the peer's own bytes of JSON."""
        known = _operation(operation)
        try:
            path, query, body = known.request(_checked(known, arguments or {}))
            content = None if body is None else msgspec.json.encode(body)
        except UnicodeEncodeError:
            raise BadRequest(f"{known.name}: expected valid Unicode") from None
        target = f"{self._prefix}{path}{'?' + query if query else ''}"
        return self._authorized(known.method, target, content)

    def bots(self) -> Any:
        """The bots of a hub with their state, as plain JSON. NotFound at a freqtrade bot, and at a hub that lists none."""
        return plain_json(self.fetch_bots())

    def fetch_bots(self) -> bytes:
        """`bots` as the hub's own bytes of JSON."""
        return self._authorized("GET", f"{API_PREFIX}/bots", None)

    # --- a hub's ledger

    def fills(
        self,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        topics: Iterable[str] | None = None,
        after: int = 0,
        epoch: str | None = None,
    ) -> Iterator[LedgerFill]:
        """The fills of a hub's ledger, oldest first, page by page; of `bot`, without one of all bots that the user may read.

        `since` <= ts < `until`: ms since 1970 UTC or a datetime with an offset. `topics`: other ledger topics, "*" for all. `after`
        goes on behind an offset, within `epoch`.

        Raises:
            LedgerReplaced: the ledger is of another epoch, also when it changes on the way.
        """
        for page in self.fill_pages(since=since, until=until, topics=topics, after=after, epoch=epoch):
            yield from page.fills

    def fill_pages(
        self,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        topics: Iterable[str] | None = None,
        after: int = 0,
        epoch: str | None = None,
    ) -> Iterator[FillsPage]:
        """As `fills`, the pages: they tell of the epoch, and of what cannot be read."""
        chosen = None if topics is None else list(topics)
        while True:
            body = self.fetch_fills(since=since, until=until, topic=chosen, after=after, epoch=epoch)
            page: FillsPage = typed(FillsPage, body, "fills")
            yield page
            if page.after is None:
                return
            if page.after <= after:
                raise BadAnswer("the answer to fills is none: its cursor does not move on")
            after, epoch = page.after, page.epoch

    def fetch_fills(
        self,
        *,
        since: Moment | str | None = None,
        until: Moment | str | None = None,
        topic: list[str] | None = None,
        after: int = 0,
        limit: int = 500,
        epoch: str | None = None,
    ) -> bytes:
        """A page of `fills` as the hub's own bytes of JSON; `since` and `until` in RFC 3339, too."""
        asked: list[tuple[str, Any]] = [("after", after), ("limit", limit)]
        asked += [
            (name, _moment(name, at)) for name, at in (("since", since), ("until", until)) if at is not None
        ]
        asked += [("topic", name) for name in topic or ()]
        asked += [("epoch", epoch)] if epoch is not None else []
        return self._authorized("GET", f"{self._prefix}/fills?{urlencode(asked)}", None)

    def reconcile(
        self, bot: str | None = None, *, publish: bool = False, since: Moment | None = None
    ) -> Reconciliation:
        """Have a hub compare its ledger with a bot's own trades, and with `publish` store the fills that it missed. It takes a while.

        `since` takes the place of the time before which fills are left alone. To ask again does no harm.
        """
        answer: Reconciliation = typed(
            Reconciliation, self.fetch_reconcile(bot, publish=publish, since=since), "reconcile"
        )
        return answer

    def fetch_reconcile(
        self, bot: str | None = None, *, publish: bool = False, since: Moment | str | None = None
    ) -> bytes:
        """`reconcile` as the hub's own bytes of JSON."""
        order: dict[str, Any] = {"publish": publish}
        if bot is not None:
            order["bot"] = checked_bot_name("bot", bot)
        if since is not None:
            order["since"] = _moment("since", since)
        prefix = self._prefix if bot is None else API_PREFIX
        content = msgspec.json.encode(order)
        timeout_s = max(self._timeout_s, RECONCILE_S)
        try:
            return self._authorized("POST", f"{prefix}/reconcile", content, reads=True, timeout_s=timeout_s)
        except NotFound as error:
            if bot is None:
                raise
            text = f"{self.url}: no such operation there, or no bot {bot!r} (HTTP {error.status})"
            raise NotFound(text, status=error.status) from None

    def ping(self) -> None:
        """Returns when the peer answers. Sends no credentials and says nothing of them."""
        self.fetch_ping()

    def fetch_ping(self) -> bytes:
        """`ping` with the answer's own bytes of JSON."""
        return self._good(self._sent("GET", f"{self._prefix}/ping", {}, None))

    # --- authorization

    def _authorized(
        self,
        method: str,
        target: str,
        content: bytes | None,
        *,
        reads: bool | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        how: dict[str, Any] = {"reads": reads, "timeout_s": timeout_s}
        answer = self._sent(method, target, self._authorization(), content, **how)
        if answer.status == 401 and self._tokens is not None:
            self._renew()
            answer = self._sent(method, target, self._authorization(), content, **how)
        return self._good(answer)

    def _authorization(self) -> dict[str, str]:
        if self._tokens is None and self._has_tokens:
            self._login()
        if self._tokens is None:
            return {"Authorization": self._basic}
        return {"Authorization": f"Bearer {self._tokens[0]}"}

    def _login(self) -> None:
        target = f"{API_PREFIX}/token/login"
        answer = self._sent("POST", target, {"Authorization": self._basic}, None, reads=True)
        if answer.status in (404, 405):
            self._has_tokens = False
            return
        tokens = plain_json(self._good(answer))
        access, refresh = self._token(tokens, "access_token"), self._token(tokens, "refresh_token")
        self._tokens = access, refresh

    def _renew(self) -> None:
        """A new access token from the refresh token, or by a login where that ended as well."""
        assert self._tokens is not None
        refresh, self._tokens = self._tokens[1], None
        headers = {"Authorization": f"Bearer {refresh}"}
        answer = self._sent("POST", f"{API_PREFIX}/token/refresh", headers, None, reads=True)
        if answer.status == 200:
            self._tokens = self._token(plain_json(answer.body), "access_token"), refresh

    def _token(self, tokens: Any, name: str) -> str:
        token = tokens.get(name) if isinstance(tokens, dict) else None
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise BadAnswer(f"{self.url}: expected {name} in the answer to a login")
        return token

    # --- one request

    def _sent(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        content: bytes | None,
        *,
        reads: bool | None = None,
        timeout_s: float | None = None,
    ) -> _Answer:
        """The answer to one request; one that only `reads` (default: a GET) is sent again when its connection breaks."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        reads = method == "GET" if reads is None else reads
        if content is not None:
            headers = {**headers, "Content-Type": "application/json"}
        try:
            return self._exchange(method, target, headers, content, timeout_s)
        except (httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError) as error:
            if not reads:
                self._fail(error, timeout_s, reads=False)
        except httpx.TransportError as error:
            self._fail(error, timeout_s, reads=reads)
        try:
            return self._exchange(method, target, headers, content, timeout_s)
        except httpx.TransportError as error:
            self._fail(error, timeout_s, reads=True)

    def _exchange(
        self, method: str, target: str, headers: Mapping[str, str], content: bytes | None, timeout_s: float
    ) -> _Answer:
        url = f"{self.url}{target}"
        try:
            with self._http.stream(
                method, url, headers=headers, content=content, timeout=timeout_s
            ) as response:
                body = self._bounded(response)
                after = retry_after(response.headers.get("Retry-After"))
                page = response.headers.get("Content-Type", "").startswith("text/html")
                return _Answer(response.status_code, body, after, page)
        except httpx.DecodingError:
            raise BadAnswer(f"{self.url}: the answer's compression is broken") from None

    def _bounded(self, response: httpx.Response) -> bytes:
        limit = self._max_bytes if response.is_success else _ERROR_BODY_BYTES
        end = time.monotonic() + ANSWER_TIMEOUTS * self._timeout_s
        parts, size = [], 0
        for part in response.iter_bytes(65536):
            size += len(part)
            if size > limit and response.is_success:
                raise BadAnswer(f"{self.url}: the answer is over {limit} bytes", status=response.status_code)
            if time.monotonic() > end:
                raise httpx.ReadTimeout("the answer trickles", request=response.request)
            parts.append(part)
            if size > limit:
                break
        return b"".join(parts)

    def _fail(self, error: httpx.TransportError, timeout_s: float, *, reads: bool) -> NoReturn:
        if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
            raise ConfigError("URL", "a request to it cannot be made") from None
        text = self._transport_text(error, timeout_s)
        if reads or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
            raise ConnectionFailed(text) from None
        raise OutcomeUnknown(f"{text}; the bot may have done it or not") from None

    def _transport_text(self, error: httpx.TransportError, timeout_s: float) -> str:
        if isinstance(error, httpx.TimeoutException):
            return f"{self.url}: no answer within {timeout_s:g} s"
        if isinstance(error, httpx.ConnectError):
            cause = next((e for e in _causes(error) if isinstance(e, OSError)), None)
            why = self._said(str(error)) if cause is None else connect_reason(cause)
            return f"{self.url}: cannot connect: {why}"
        return f"{self.url}: the connection broke before the answer came"

    # --- what an answer means

    def _good(self, answer: _Answer) -> bytes:
        """The body of a success; every other answer is raised."""
        if 200 <= answer.status < 300:
            if not answer.page:
                return answer.body
            peer = f"a hub that has bots, such as {self.bot!r}" if self.bot else "a hub or bot"
            raise BadAnswer(
                f"{self.url}: a page for a browser; expected the address of {peer}", status=answer.status
            )
        said = self._detail(answer.body)
        status = answer.status
        raise self._refusal(status, said, answer.retry_after_s)

    def _refusal(self, status: int, said: str, after: float | None) -> Exception:
        http = f"(HTTP {status})"
        match status:
            case 401 | 403:
                return Unauthorized(f"{self.url}: the user name or password is not accepted {http}")
            case 404 if said and said != "Not Found":
                return NotFound(f"not found: {said}", status=status)
            case 404 | 405:
                asked = (
                    f"no such operation there, or no bot {self.bot!r}"
                    if self.bot
                    else "no such operation there"
                )
                return NotFound(f"{self.url}: {asked} {http}", status=status)
            case 409 if said:
                return LedgerReplaced(said, status=status)
            case 422:
                return BadRequest(said or f"the request is not accepted {http}", status=status)
            case 502 if said:
                return BotRefused(f"the bot refuses: {said}", status=status)
            case 429 | 502 | 503 | 504:
                later = f"; try again in {after:g} s" if after is not None else ""
                text = f"{self.url}: not available now {http}{': ' + said if said else ''}{later}"
                return Unavailable(text, status=status, retry_after_s=after)
            case _ if 300 <= status < 400:
                return BadAnswer(
                    f"{self.url}: a redirect {http}; expected the address of the hub or bot itself",
                    status=status,
                )
        return BadAnswer(f"{self.url}: failed {http}{': ' + said if said else ''}", status=status)

    def _detail(self, body: bytes) -> str:
        """What an error's body says, on one line; empty when it is not one of freqtrade's shapes."""
        try:
            data = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return ""
        if not isinstance(data, dict):
            return ""
        if isinstance(data.get("error"), str):
            return self._said(_QUERYING.sub("", data["error"]))
        detail = data.get("detail")
        if isinstance(detail, list):
            return self._said(_faults(detail))
        return self._said(detail) if isinstance(detail, str) else ""

    def _said(self, text: str) -> str:
        """A peer's text on one line, without our secrets."""
        for secret in (self._password, *(self._tokens or ())):
            # What is shorter is part of words, and to blot it out there would tell it.
            if len(secret) >= _SECRET_BYTES:
                text = text.replace(secret, "***")
        return clean(text.strip())[:300]


def decoded(operation: Operation, body: bytes) -> Any:
    """An answer's JSON as the operation's type. Raises BadAnswer when it does not fit."""
    return typed(operation.answer, body, operation.name)


def typed(answer: Any, body: bytes, name: str) -> Any:
    """The JSON of the answer to `name` as the type `answer`. Raises BadAnswer when it does not fit."""
    failure = ""
    for kind in _alternatives(answer):
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            failure = failure or clean(str(error))[:200]
    raise BadAnswer(f"the answer to {name} is none: {failure}")


def plain_json(body: bytes) -> Any:
    """An answer's JSON as dicts, lists and values. Raises BadAnswer when it is none."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadAnswer("the answer is not JSON; is the URL the address of a hub or bot?") from None


def _alternatives(kind: Any) -> tuple[Any, ...]:
    # msgspec cannot tell two Structs of a union apart by itself.
    return typing.get_args(kind) if isinstance(kind, UnionType) else (kind,)


def _operation(named: Any) -> Operation:
    name = named if isinstance(named, str) else getattr(named, "__name__", "")
    found = OPERATIONS.get(name)
    if found is None:
        raise BadRequest(f"{clean(name)[:60]}: no such operation{nearest(name, OPERATIONS)}")
    return found


def _checked(operation: Operation, arguments: Mapping[str, Any]) -> dict[str, Any]:
    known = {p.name: p for p in operation.parameters}
    for name in arguments:
        if name not in known:
            raise BadRequest(f"{operation.name}: no parameter {clean(name)[:60]}{nearest(name, known)}")
    for name, parameter in known.items():
        if parameter.required and arguments.get(name) is None:
            raise BadRequest(f"{operation.name}: {name}: missing")
    return {
        name: _value(
            f"{operation.name}: {name}", value, known[name].type, path=known[name].place is Place.PATH
        )
        for name, value in arguments.items()
        if value is not None
    }


def _value(key: str, value: Any, kind: Any, *, path: bool) -> Any:
    try:
        checked = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{key}: {clean(str(error))[:200]}") from None
    # In JSON it would be null: to exit with an amount of NaN would be to exit everything.
    if isinstance(checked, float) and not math.isfinite(checked):
        raise BadRequest(f"{key}: expected a finite number")
    if path and checked in ("", ".", ".."):
        raise BadRequest(f"{key}: expected a name")
    return checked


def _moment(name: str, at: Moment | str) -> int | str:
    """A moment as the hub takes it."""
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise BadRequest(f"{name}: expected a datetime with an offset")
        return at.isoformat()
    return at


def _faults(detail: list[Any]) -> str:
    """FastAPI's list of what is wrong with a request: the first, by the name of its parameter."""
    first = detail[0] if detail and isinstance(detail[0], dict) else {}
    place = first.get("loc")
    where = ".".join(str(part) for part in place[1:]) if isinstance(place, list) else ""
    more = f" (and {len(detail) - 1} more)" if len(detail) > 1 else ""
    return f"{where or 'request'}: {first.get('msg', 'not accepted')}{more}"


def _base(url: str) -> str:
    """The URL without a slash or /api/v1 at its end. The text of an error does not repeat it: it may hold a password."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError("URL", "expected a host, and a port from 1 to 65535 behind the colon") from None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ConfigError("URL", "expected http://host:port, https://host:port or host:port")
    if parts.username or parts.password:
        raise ConfigError("URL", "expected no user or password in it")
    if parts.query or parts.fragment or re.search(r"[\s\x00-\x1f%]", host):
        raise ConfigError("URL", "expected a host name or an address, without a query")
    authority = f"[{host}]" if ":" in host else host
    port = port or (443 if parts.scheme == "https" else 8080)
    path = parts.path.rstrip("/").removesuffix(API_PREFIX)
    base = f"{parts.scheme}://{authority}:{port}{path}"
    try:
        httpx.URL(base)
    except (httpx.InvalidURL, UnicodeError):
        raise ConfigError("URL", "expected http://host:port, https://host:port or host:port") from None
    return base


def _basic(username: str, password: str) -> str:
    if ":" in username:
        raise ConfigError("username", "expected a name without a colon")
    try:
        credentials = f"{username}:{password}".encode()
    except UnicodeEncodeError:
        raise ConfigError("password", "expected valid Unicode") from None
    return f"Basic {b64encode(credentials).decode()}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
