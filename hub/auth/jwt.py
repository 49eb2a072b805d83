"""JSON web tokens as freqtrade makes them: HS256, one user, access and refresh.

Claims: `{"identity": {"u": USER}, "exp", "iat", "type": "access" | "refresh"}`; access 15 minutes, refresh 30 days (observed on
freqtrade 2026.9). Unlike there, a token without `exp` is refused: it would never end.
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
        try:
            payload = self._jws.decode(token, self._key, algorithms=[_ALGORITHM])
            claims = json.loads(payload)
        except (PyJWTError, ValueError, RecursionError):
            return None
        if not isinstance(claims, dict) or claims.get("type") != kind:
            return None
        user, ends = _user(claims), _seconds(claims.get("exp"))
        starts = _seconds(claims.get("nbf", 0))
        if user is None or ends is None or starts is None or not starts * 1000 <= now_ms < ends * 1000:
            return None
        return Claims(user, int(ends * 1000))

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
