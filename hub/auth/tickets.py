"""One-time tickets: how a page in a browser opens a websocket without its JWT in the URL.

A browser cannot set headers on a websocket, and what stands in a URL ends up in the logs of proxies. So the page asks for a ticket
over REST, with its JWT, and puts that into the query: good once, for LIFETIME_MS, and only from the page's own Origin.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import NamedTuple

from hub.protocol.errors import Overloaded
from hub.protocol.principal import Principal

__all__ = ["LIFETIME_MS", "TICKETS", "Ticket", "TicketStore"]

LIFETIME_MS = 30_000
TICKETS = 1024
"""How many may wait to be used."""
_BYTES = 32


class Ticket(NamedTuple):
    """What a client gets. `expires_ms` in ms since 1970 UTC."""

    text: str
    expires_ms: int


class _Issued(NamedTuple):
    principal: Principal
    origin: bytes | None
    expires_ms: int


class TicketStore:
    """The tickets that were not used yet, at most `limit` of them. `now_ms` in ms since 1970 UTC.

    Kept by their hash: a lookup's time tells nothing about a ticket, and no dump of this object holds one.
    """

    def __init__(self, limit: int = TICKETS) -> None:
        self._limit = limit
        self._issued: dict[bytes, _Issued] = {}

    def __len__(self) -> int:
        return len(self._issued)

    def issue(self, principal: Principal, origin: bytes | None, now_ms: int) -> Ticket:
        """A ticket for `principal`, for pages of `origin` only, or without one for whoever the hub lets in.

        It ends with the credential that asked for it, if that is sooner.

        Raises:
            Overloaded: too many tickets wait to be used.
        """
        self._forget_ended(now_ms)
        if len(self._issued) >= self._limit:
            first = next(iter(self._issued.values()))
            raise Overloaded(
                f"{len(self._issued)} tickets wait to be used", retry_after_ms=first.expires_ms - now_ms
            )
        expires_ms = now_ms + LIFETIME_MS
        if principal.expires_ms is not None:
            expires_ms = min(expires_ms, principal.expires_ms)
        text = secrets.token_urlsafe(_BYTES)
        self._issued[_digest(text.encode())] = _Issued(principal, origin, expires_ms)
        return Ticket(text, expires_ms)

    def redeem(self, ticket: bytes, origin: bytes | None, now_ms: int) -> Principal | None:
        """Whose ticket it is, or None: unknown, used, ended, or shown by another Origin. It is used up in any case."""
        issued = self._issued.pop(_digest(ticket), None)
        if issued is None or now_ms >= issued.expires_ms:
            return None
        return issued.principal if issued.origin in (None, origin) else None

    def _forget_ended(self, now_ms: int) -> None:
        ended = [digest for digest, issued in self._issued.items() if now_ms >= issued.expires_ms]
        for digest in ended:
            del self._issued[digest]


def _digest(ticket: bytes) -> bytes:
    return hashlib.sha256(ticket).digest()
