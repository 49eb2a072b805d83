"""Turns what a client shows, over a websocket's handshake or REST, into a principal."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import unquote_to_bytes

from hub.auth.jwt import JwtKey
from hub.auth.passwords import PasswordCheck
from hub.auth.tokens import TokenTable
from hub.config import Config
from hub.protocol.errors import Forbidden, HandshakeRefused
from hub.protocol.principal import EVERY_BOT, Principal

__all__ = ["Authenticator", "Header", "authorization"]

Header = tuple[bytes, bytes]

_BEARER_SUBPROTOCOL = "bearer."
_DEFAULT_PORTS = {b"http": b"80", b"https": b"443", b"ws": b"80", b"wss": b"443"}
_ORIGIN = re.compile(rb"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[^\s:/?#@\[\]]+)(?::([0-9]{1,5}))?")
_HOST = re.compile(rb"(\[[0-9a-f:.]+\]|[^\s:/?#@\[\]]+)(?::([0-9]{1,5}))?")


class Authenticator:
    """All credentials of one hub. `clock` gives ms since 1970 UTC.

    Pure but for the clock; nothing of a credential is in any exception.

    Raises:
        ConfigError: at construction, when a token has two roles or the JWT key cannot be one.
    """

    def __init__(self, config: Config, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._tokens = TokenTable(config)
        self._jwt = JwtKey(config.api_server.jwt_secret_key)
        self._password = PasswordCheck(config.api_server.username, config.api_server.password)
        self._username = config.api_server.username
        self._default_bot = config.default_bot
        self._query_token = config.hub.allow_query_token
        origins = {*config.hub.allowed_origins, *config.api_server.CORS_origins}
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

        On freqtrade's wire only `?token=` counts, as there. On v2 a credential is an `Authorization: Bearer`, a subprotocol
        `bearer.` + unpadded base64url, or with `allow_query_token` a `?token=`. `client` is for what throttles by address.

        Raises:
            HandshakeRefused: 400 for more than one credential, 403 for a missing or wrong one and for a foreign Origin.
        """
        headers = list(headers)
        self._check_origin(headers)
        shown = _query_values(query_string, b"token")
        if v2:
            shown = self._shown_on_v2(shown, headers, query_string, subprotocols)
        if len(shown) > 1:
            raise HandshakeRefused(400, f"expected one credential, got {len(shown)}")
        principal = self.of_token(shown[0]) if shown else None
        if principal is None:
            raise HandshakeRefused(403, "expected a valid token" if shown else "expected a token, got none")
        return principal

    def bearer(self, token: bytes) -> Principal | None:
        """The user of an access JWT, or None. Static tokens are for websockets and publishing, as in freqtrade."""
        claims = self._jwt.verify(token, "access", self._clock())
        return None if claims is None else self._of_user(claims.user, claims.expires_ms)

    def basic(self, encoded: bytes) -> Principal | None:
        """The user of HTTP Basic (the base64 behind the scheme), or None.

        Raises:
            MalformedBasic: it is not the base64 of `user:password`.
        """
        return self._of_user(self._username, None) if self._password(encoded) else None

    def publisher(self, headers: Iterable[Header]) -> Principal | None:
        """The principal of a publish over HTTP, by its `Authorization: Bearer`; None when there is no valid one.

        Raises:
            Forbidden: the credential is valid, but has no right to publish.
        """
        scheme, token = authorization(headers)
        principal = self.of_token(token) if scheme == b"bearer" else None
        if principal is not None and not principal.publishes:
            raise Forbidden("this credential may not publish; expected a token of hub.publishers")
        return principal

    def issue(self, principal: Principal) -> tuple[str, str]:
        """An access and a refresh JWT for a user that `basic` gave."""
        user, now = principal.name.removeprefix("user:"), self._clock()
        return self._jwt.issue_access(user, now), self._jwt.issue_refresh(user, now)

    def refresh(self, token: bytes) -> str | None:
        """A new access JWT for a refresh JWT, or None."""
        now = self._clock()
        claims = self._jwt.verify(token, "refresh", now)
        return None if claims is None else self._jwt.issue_access(claims.user, now)

    def _shown_on_v2(
        self, query: list[bytes], headers: list[Header], query_string: bytes, subprotocols: Sequence[str]
    ) -> list[bytes]:
        bearers = [value for scheme, value in _authorizations(headers) if scheme == b"bearer"]
        offered = [_decoded(p) for p in subprotocols if p.startswith(_BEARER_SUBPROTOCOL)]
        tickets = _query_values(query_string, b"ticket")
        shown = [*bearers, *offered, *query, *tickets]
        if len(shown) == 1 and query and not self._query_token:
            raise HandshakeRefused(
                403, "expected Authorization: Bearer; a token in the query is off (allow_query_token)"
            )
        if len(shown) == 1 and tickets:
            raise HandshakeRefused(403, "expected Authorization: Bearer; this hub gives out no tickets")
        return shown

    def of_token(self, token: bytes) -> Principal | None:
        """The principal of a ws_token or an access JWT, or None."""
        return self._tokens.find(token) or self.bearer(token)

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
