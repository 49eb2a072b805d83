"""JSON web tokens as freqtrade makes them: HS256, one user, access and refresh.

Claims: `{"identity": {"u": USER}, "exp", "iat", "type": "access" | "refresh"}`; access 15 minutes, refresh 30 days (observed on
freqtrade 2026.9). Unlike there, a token without `exp` is refused: it would never end. One that was issued in the future is
refused as there, but for a minute that the clock may have been set back.
"""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

from jwt import PyJWS
from jwt.algorithms import HMACAlgorithm
from jwt.exceptions import PyJWTError

from hub.config import Secret
from hub.protocol.errors import ConfigError

__all__ = ["ACCESS_S", "REFRESH_S", "Claims", "JwtKey"]

ACCESS_S = 15 * 60
REFRESH_S = 30 * 24 * 3600
_ALGORITHM = "HS256"
_LONGEST = 4096
_CLOCK_SET_BACK_S = 60


class Claims(NamedTuple):
    """What a valid token says. `expires_ms` in ms since 1970 UTC."""

    user: str
    expires_ms: int


class _Hmac(HMACAlgorithm):
    def check_key_length(self, key: bytes) -> str | None:
        # PyJWT would warn at every use; the configuration warns of a short key once, or refuses it.
        return None


class JwtKey:
    """Signs and verifies with one secret. Times are passed in, in ms since 1970 UTC.

    Raises:
        ConfigError: at construction, when the secret cannot be a key: empty, or a PEM or JWK document.
    """

    def __init__(self, secret: Secret) -> None:
        self._key = secret.bytes()
        # No other algorithm is known to this instance, so a token's header cannot choose one ("none" least of all).
        self._jws = PyJWS(algorithms=[])
        algorithm = _Hmac(HMACAlgorithm.SHA256)
        self._jws.register_algorithm(_ALGORITHM, algorithm)
        try:
            algorithm.prepare_key(self._key)
        except PyJWTError:
            raise ConfigError(
                "api_server.jwt_secret_key", "expected a secret text, not an empty one and no PEM or JWK key"
            ) from None

    def issue_access(self, user: str, now_ms: int) -> str:
        """A token for REST and the websocket, good for 15 minutes."""
        return self._issue(user, "access", now_ms, ACCESS_S)

    def issue_refresh(self, user: str, now_ms: int) -> str:
        """A token that is good for new access tokens only, for 30 days."""
        return self._issue(user, "refresh", now_ms, REFRESH_S)

    def verify(self, token: bytes, kind: str, now_ms: int) -> Claims | None:
        """The claims of a `kind` ("access" or "refresh") token that is ours and has not ended; else None, for any input."""
        claims = self._signed(token)
        if claims is None or claims.get("type") != kind:
            return None
        user, ends = _user(claims), _seconds(claims.get("exp"))
        starts, issued = _seconds(claims.get("nbf", 0)), _seconds(claims.get("iat", 0))
        if user is None or ends is None or starts is None or issued is None:
            return None
        starts = max(starts, issued - _CLOCK_SET_BACK_S)
        return Claims(user, int(ends * 1000)) if starts * 1000 <= now_ms < ends * 1000 else None

    def signed_for(self, token: bytes) -> str | None:
        """The user of a token that our key signed, whether or not it is good for anything now; else None, for any input."""
        claims = self._signed(token)
        return None if claims is None else _user(claims)

    def _signed(self, token: bytes) -> dict[str, Any] | None:
        # Ours have about 200 bytes; a longer one is not worth a hash.
        if len(token) > _LONGEST:
            return None
        try:
            claims = json.loads(self._jws.decode(token, self._key, algorithms=[_ALGORITHM]))
        except (PyJWTError, ValueError, RecursionError):
            return None
        return claims if isinstance(claims, dict) else None

    def _issue(self, user: str, kind: str, now_ms: int, lifetime_s: int) -> str:
        now = now_ms // 1000
        claims = {"identity": {"u": user}, "exp": now + lifetime_s, "iat": now, "type": kind}
        payload = json.dumps(claims, separators=(",", ":")).encode()
        return self._jws.encode(payload, self._key, algorithm=_ALGORITHM)


def _user(claims: dict[str, Any]) -> str | None:
    identity = claims.get("identity")
    user = identity.get("u") if isinstance(identity, dict) else None
    return user if isinstance(user, str) and user else None


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**53:
        return None
    return value if math.isfinite(value) else None
