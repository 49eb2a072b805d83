"""The login at one freqtrade bot: its tokens, renewed before they end, by one request for all who wait.

Source: freqtrade 2026.9 `POST /token/login` (Basic) gives an access JWT of 15 minutes and a refresh JWT of 30 days, `POST
/token/refresh` (Bearer, the refresh JWT) another access JWT; neither is revoked but by another `jwt_secret_key`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable
from typing import Any

import httpx

from hub.protocol.botapi import BotError

__all__ = ["Login", "LoginFailed", "LoginRefused"]

RENEW_BEFORE_S = 60.0
REFUSED_PAUSE_S = 60.0
ANSWER_BYTES = 65_536
logger = logging.getLogger("tradewire.bots")


class LoginFailed(BotError):
    """The bot's login answered something else than tokens."""


class LoginRefused(LoginFailed):
    """The bot does not take the user and password."""


class Login:
    """Tokens for `client`'s requests below `url` (…/api/v1).

    A refused password is asked with again after REFUSED_PAUSE_S at the earliest, and logged once until it is taken. Times are
    in seconds of `monotonic`; a token's own dates only say how long it lasts, so the bot's clock may be wrong.
    """

    def __init__(
        self,
        name: str,
        client: httpx.AsyncClient,
        url: str,
        username: str,
        password: str,
        *,
        timeout_s: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._name = name
        self._client = client
        self._url = url
        self._username = username
        self._basic = base64.b64encode(f"{username}:{password}".encode("utf-8", "surrogatepass")).decode()
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._access: str | None = None
        self._refresh: str | None = None
        self._renew_at = 0.0
        self._asking: asyncio.Task[str] | None = None
        self._refused_at: float | None = None
        self._told = False
        self.logins = 0
        self.refreshes = 0

    async def token(self, refused: str | None = None) -> str:
        """An access token that is good now and is not `refused`, the one that the bot has just answered with 401.

        Cancelling it stops the waiting only: others may wait for the same answer.

        Raises:
            LoginRefused, LoginFailed: the bot answers, but not with a token. httpx.HTTPError: it is out of reach.
            TimeoutError: it does not answer within `timeout_s`.
        """
        access = self._access
        if access is not None and access != refused and self._monotonic() < self._renew_at:
            return access
        if self._asking is None:
            self._check_pause()
            self._asking = asyncio.create_task(self._renewed(), name=f"tradewire-login-{self._name}")
            self._asking.add_done_callback(self._asked)
        return await asyncio.shield(self._asking)

    async def aclose(self) -> None:
        """End what is under way."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    def _asked(self, task: asyncio.Task[str]) -> None:
        self._asking = None
        if not task.cancelled():
            # Nobody may be left to hear of it.
            task.exception()

    def _check_pause(self) -> None:
        if self._refused_at is not None and self._monotonic() < self._refused_at + REFUSED_PAUSE_S:
            raise self._refusal()

    def _refusal(self) -> LoginRefused:
        return LoginRefused(f"bot {self._name} refuses the hub's login")

    async def _renewed(self) -> str:
        async with asyncio.timeout(self._timeout_s):
            return await self._refreshed() or await self._logged_in()

    async def _refreshed(self) -> str | None:
        if self._refresh is None:
            return None
        status, answer = await self._post("/token/refresh", f"Bearer {self._refresh}")
        if status != 200:
            # It ended, or the bot has another key since its restart.
            self._refresh = None
            return None
        self.refreshes += 1
        return self._taken(answer)

    async def _logged_in(self) -> str:
        status, answer = await self._post("/token/login", f"Basic {self._basic}")
        if status == 401:
            self._refused()
            raise self._refusal()
        if status != 200:
            raise LoginFailed(f"bot {self._name} answers the hub's login with {status}")
        access, self._refresh = self._taken(answer), self._text(answer, "refresh_token")
        self.logins += 1
        self._refused_at, self._told = None, False
        return access

    def _refused(self) -> None:
        self._access, self._refused_at = None, self._monotonic()
        if not self._told:
            self._told = True
            logger.error(
                "bot %s: refuses user %s and password of hub.upstreams; its REST is closed to the hub, which asks again"
                " once a minute",
                self._name,
                self._username,
            )

    def _taken(self, answer: Any) -> str:
        access = self._text(answer, "access_token")
        self._access = access
        lifetime_s = _lifetime_s(access)
        self._renew_at = self._monotonic() + max(lifetime_s - RENEW_BEFORE_S, lifetime_s / 2)
        return access

    def _text(self, answer: Any, key: str) -> str:
        value = answer.get(key) if isinstance(answer, dict) else None
        if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not value:
            raise LoginFailed(f"bot {self._name} answers the hub's login without {key}")
        return value

    async def _post(self, path: str, authorization: str) -> tuple[int, Any]:
        headers = {"Authorization": authorization, "Content-Type": "application/json"}
        async with self._client.stream("POST", self._url + path, headers=headers, content=b"{}") as response:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > ANSWER_BYTES:
                    raise LoginFailed(
                        f"bot {self._name} answers the hub's login with over {ANSWER_BYTES} bytes"
                    )
        try:
            return response.status_code, json.loads(body)
        except (ValueError, RecursionError):
            return response.status_code, None


def _lifetime_s(token: str) -> float:
    """How long a JWT lasts by its own dates; for ever when it does not say (a 401 then tells)."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return max(0.0, float(claims["exp"]) - float(claims["iat"]))
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return float("inf")
