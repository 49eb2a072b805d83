"""Turns what a client shows, over a websocket's handshake or REST, into a principal."""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import unquote_to_bytes

from hub.auth.jwt import Claims, JwtKey
from hub.auth.passwords import PasswordCheck
from hub.auth.throttle import Throttle, Throttled
from hub.auth.tickets import TICKETS, Ticket, TicketStore
from hub.auth.tokens import TokenTable
from hub.config import Config, is_guessable
from hub.protocol.errors import Forbidden, HandshakeRefused, Overloaded
from hub.protocol.principal import EVERY_BOT, Principal

__all__ = ["Authenticator", "Header", "authorization"]

Header = tuple[bytes, bytes]

_BEARER_SUBPROTOCOL = "bearer."
_DEFAULT_PORTS = {b"http": b"80", b"https": b"443", b"ws": b"80", b"wss": b"443"}
_ORIGIN = re.compile(rb"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[^\s:/?#@\[\]]+)(?::([0-9]{1,5}))?")
_HOST = re.compile(rb"(\[[0-9a-f:.]+\]|[^\s:/?#@\[\]]+)(?::([0-9]{1,5}))?")


class Authenticator:
    """All credentials of one hub. `clock` gives ms since 1970 UTC, `monotonic` seconds for what throttles.

    Every method that takes a credential takes the `address` that shows it, None when unknown: wrong ones are counted, and above
    `hub.throttle` raise Throttled (hub.auth.throttle says who then still gets in). Nothing of a credential is in any exception.

    Raises:
        ConfigError: at construction, when a token has two roles or the JWT key cannot be one.
    """

    def __init__(
        self, config: Config, clock: Callable[[], int], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        server = config.api_server
        self._clock = clock
        self._tokens = TokenTable(config)
        self._tickets = TicketStore()
        self._jwt = JwtKey(server.jwt_secret_key)
        self._jwt_guessable = is_guessable(server.jwt_secret_key)
        self._password = PasswordCheck(server.username, server.password)
        self._password_guessable = is_guessable(server.password)
        self._throttle = Throttle(config.hub.throttle.per_minute, config.hub.throttle.burst, monotonic)
        self._username = server.username
        self._default_bot = config.default_bot
        self._query_token = config.hub.allow_query_token
        origins = {*config.hub.allowed_origins, *server.CORS_origins}
        self._any_origin = "*" in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    def websocket(
        self,
        headers: Iterable[Header],
        query_string: bytes,
        subprotocols: Sequence[str],
        *,
        v2: bool,
        client: tuple[str, int] | None = None,
    ) -> Principal:
        """The principal of a websocket's handshake.

        A credential is a `?ticket=` or a token. On freqtrade's wire only `?token=` counts, as there. On v2 a token is an
        `Authorization: Bearer`, a subprotocol `bearer.` + unpadded base64url, or with `allow_query_token` a `?token=`.
        `client` is the address and port.

        Raises:
            HandshakeRefused: 400 for more than one credential, 403 for a missing or wrong one and for a foreign Origin, 429 when
                its address showed too many wrong ones.
        """
        headers = list(headers)
        self._check_origin(headers)
        tickets, tokens = _query_values(query_string, b"ticket"), _query_values(query_string, b"token")
        if v2:
            tokens = self._tokens_on_v2(tokens, headers, subprotocols, alone=not tickets)
        shown = len(tickets) + len(tokens)
        if shown > 1:
            raise HandshakeRefused(400, f"expected one credential, got {shown}")
        if not shown:
            raise HandshakeRefused(403, "expected a token, got none")
        address = client[0] if client else None
        try:
            principal = (
                self._of_ticket(tickets[0], headers, address)
                if tickets
                else self.of_token(tokens[0], address)
            )
        except Throttled as throttled:
            raise HandshakeRefused(429, str(throttled), retry_after=throttled.retry_after_s) from None
        if principal is None:
            raise HandshakeRefused(403, "expected a valid ticket" if tickets else "expected a valid token")
        return principal

    def renew(self, token: bytes, address: str | None = None) -> Principal | None:
        """The principal of a ws_token or an access JWT that a live session shows, or None.

        Raises:
            Overloaded: its address showed too many wrong credentials.
        """
        try:
            return self.of_token(token, address)
        except Throttled as throttled:
            raise Overloaded(str(throttled), retry_after_ms=1000 * throttled.retry_after_s) from None

    def bearer(self, token: bytes, address: str | None = None) -> Principal | None:
        """The user of an access JWT, or None. Static tokens are for websockets and publishing, as in freqtrade.

        Raises:
            Throttled: see the class.
        """
        claims = self._claims(token, "access", address)
        return None if claims is None else self._of_user(claims.user, claims.expires_ms)

    def basic(self, encoded: bytes, address: str | None = None) -> Principal | None:
        """The user of HTTP Basic (the base64 behind the scheme), or None.

        Raises:
            MalformedBasic: it is not the base64 of `user:password`. Throttled: see the class.
        """
        user = self._of_user(self._username, None) if self._password(encoded) else None
        name = None if user is None else user.name
        self._throttle.judge(self._throttle.passwords, address, name, guessable=self._password_guessable)
        return user

    def publisher(self, headers: Iterable[Header], address: str | None = None) -> Principal | None:
        """The principal of a publish over HTTP, by its `Authorization: Bearer`; None when there is no valid one.

        Raises:
            Forbidden: the credential is valid, but has no right to publish. Throttled: see the class.
        """
        scheme, token = authorization(headers)
        principal = self.of_token(token, address) if scheme == b"bearer" else None
        if principal is not None and not principal.publishes:
            raise Forbidden("this credential may not publish; expected a token of hub.publishers")
        return principal

    def issue(self, principal: Principal) -> tuple[str, str]:
        """An access and a refresh JWT for a user that `basic` gave."""
        user, now = principal.name.removeprefix("user:"), self._clock()
        return self._jwt.issue_access(user, now), self._jwt.issue_refresh(user, now)

    def refresh(self, token: bytes, address: str | None = None) -> str | None:
        """A new access JWT for a refresh JWT, or None. It can be used any number of times until it ends, at once too.

        Raises:
            Throttled: see the class.
        """
        claims = self._claims(token, "refresh", address)
        return None if claims is None else self._jwt.issue_access(claims.user, self._clock())

    def ticket(self, principal: Principal, headers: Iterable[Header]) -> Ticket:
        """A ticket for one websocket of a user that `basic` or `bearer` gave, from the Origin of this request if it has one.

        Raises:
            Overloaded: too many tickets wait to be used.
        """
        return self._tickets.issue(principal, _origin(headers), self._clock())

    def of_token(self, token: bytes, address: str | None = None) -> Principal | None:
        """The principal of a ws_token, a publisher's token or an access JWT, or None.

        Raises:
            Throttled: see the class.
        """
        found = self._tokens.find(token)
        if found is None:
            return self.bearer(token, address)
        guessable = self._tokens.guessable(found.name)
        self._throttle.judge(self._throttle.tokens, address, found.name, guessable=guessable)
        return found

    def statistics(self) -> dict[str, int]:
        """Tickets that wait to be used, and the figures of the throttle."""
        return {"tickets": len(self._tickets), "tickets_limit": TICKETS, **self._throttle.statistics()}

    def _tokens_on_v2(
        self, query: list[bytes], headers: list[Header], subprotocols: Sequence[str], *, alone: bool
    ) -> list[bytes]:
        bearers = [value for scheme, value in _authorizations(headers) if scheme == b"bearer"]
        offered = [_decoded(p) for p in subprotocols if p.startswith(_BEARER_SUBPROTOCOL)]
        shown = [*bearers, *offered, *query]
        if alone and len(shown) == 1 and query and not self._query_token:
            raise HandshakeRefused(
                403, "expected Authorization: Bearer; a token in the query is off (allow_query_token)"
            )
        return shown

    def _of_ticket(self, ticket: bytes, headers: list[Header], address: str | None) -> Principal | None:
        principal = self._tickets.redeem(ticket, _origin(headers), self._clock())
        name = None if principal is None else principal.name
        self._throttle.judge(self._throttle.tokens, address, name, guessable=False)
        return principal

    def _claims(self, token: bytes, kind: str, address: str | None) -> Claims | None:
        claims = self._jwt.verify(token, kind, self._clock())
        # One of ours that is of no use now is no guess; it counts as right here.
        user = self._jwt.signed_for(token) if claims is None else claims.user
        name = None if user is None else f"user:{user}"
        self._throttle.judge(self._throttle.tokens, address, name, guessable=self._jwt_guessable)
        return claims

    def _of_user(self, user: str, expires_ms: int | None) -> Principal:
        return Principal(
            name=f"user:{user}", controls=EVERY_BOT, legacy_bot=self._default_bot, expires_ms=expires_ms
        )

    def _check_origin(self, headers: list[Header]) -> None:
        # A browser sends a page's cookies and lets it connect anywhere; the server has to look (RFC 6455 section 10.2).
        origins = _values(headers, b"origin")
        if not origins or (self._any_origin and len(origins) == 1):
            return
        origin = origins[0].lower()
        hosts = _values(headers, b"host")
        own = len(hosts) == 1 and _same_host(origin, hosts[0].lower())
        if len(origins) > 1 or not (own or origin in self._origins):
            raise HandshakeRefused(403, "this Origin is not allowed; see hub.allowed_origins")


def authorization(headers: Iterable[Header]) -> tuple[bytes, bytes]:
    """The lower-case scheme and the value of the Authorization header; empty without one, or with several."""
    found = _authorizations(headers)
    return found[0] if len(found) == 1 else (b"", b"")


def _authorizations(headers: Iterable[Header]) -> list[tuple[bytes, bytes]]:
    parts = [value.strip().partition(b" ") for value in _values(headers, b"authorization")]
    return [(scheme.lower(), value.strip()) for scheme, _, value in parts]


def _values(headers: Iterable[Header], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def _origin(headers: Iterable[Header]) -> bytes | None:
    # Several are none that a browser sends: joined, they equal no single one.
    origins = _values(headers, b"origin")
    return b", ".join(origins).lower() if origins else None


def _query_values(query_string: bytes, name: bytes) -> list[bytes]:
    # By bytes, since a token is compared by bytes: no charset can fail.
    pairs = (part.partition(b"=") for part in query_string.split(b"&"))
    return [unquote_to_bytes(value.replace(b"+", b" ")) for key, _, value in pairs if key == name]


def _decoded(subprotocol: str) -> bytes:
    text = subprotocol.removeprefix(_BEARER_SUBPROTOCOL)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        # A broken credential is still the one that was shown; the empty token is nobody's.
        return b""


def _same_host(origin: bytes, host: bytes) -> bool:
    by, at = _ORIGIN.fullmatch(origin), _HOST.fullmatch(host)
    if by is None or at is None:
        return False
    default = _DEFAULT_PORTS.get(by[1], b"")
    return by[2] == at[1] and (by[3] or default) == (at[2] or default)
