"""The start of a websocket: which wire, who asks, and a refusal over HTTP before the upgrade.

Source: wire-v2 sections 1 and 2; freqtrade's own refusal is HTTP 403 with an empty body. A server that accepts and then
closes is hit 25-95 times a second by freqtrade's consumer, so nothing is refused after the upgrade that can be before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.types import Send

from hub.asgi.fallback import put_close
from hub.auth.authenticator import Authenticator
from hub.protocol.close_codes import CloseCode
from hub.protocol.codec import SUBPROTOCOLS, Wire
from hub.protocol.errors import HandshakeRefused
from hub.protocol.principal import Principal

__all__ = ["authenticate", "choose_wire", "refuse"]

_BEARER = "bearer."
_FORBIDDEN = 403


def choose_wire(offered: Sequence[str]) -> Wire:
    """The first offered wire that the hub knows, in the client's order; freqtrade's when none is offered.

    A credential (`bearer.…`) beside the wires is no offer.

    Raises:
        HandshakeRefused: 400 when wires are offered and none is known: a client of a newer wire must never be taken for
            a freqtrade client.
    """
    wires = [name for name in offered if not name.startswith(_BEARER)]
    for name in wires:
        if name in SUBPROTOCOLS:
            return Wire(name)
    if wires:
        raise HandshakeRefused(
            400, f"none of the offered subprotocols is known; known are {', '.join(SUBPROTOCOLS)}"
        )
    return Wire.FREQTRADE


def authenticate(scope: dict[str, Any], authenticator: Authenticator) -> tuple[Wire, Principal]:
    """The wire and the principal of a websocket's scope. Raises HandshakeRefused."""
    wire = choose_wire(scope.get("subprotocols") or ())
    principal = authenticator.websocket(
        list(scope.get("headers") or ()),
        scope.get("query_string") or b"",
        list(scope.get("subprotocols") or ()),
        v2=wire is not Wire.FREQTRADE,
        client=tuple(scope["client"]) if scope.get("client") else None,
    )
    return wire, principal


async def refuse(scope: dict[str, Any], send: Send, refusal: HandshakeRefused) -> None:
    """Answer over HTTP: 403 with an empty body (freqtrade's), else one line of text, and Retry-After if there is one.

    A server without the `websocket.http.response` extension (daphne) turns the close into a 403 of its own. To a v2 client that
    says stop, so one that is to come again is accepted there and closed with 1013. freqtrade's comes again after a 403 too.
    """
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        wire = _wire_of(scope)
        if wire is None or not (refusal.status == 429 or refusal.status >= 500):
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        await send({"type": "websocket.accept", "subprotocol": wire})
        after_ms = 1000 * (refusal.retry_after or 1)
        await put_close(send, CloseCode.TRY_AGAIN_LATER, f"retry_after_ms={after_ms}")
        return
    body = b"" if refusal.status == _FORBIDDEN else f"{refusal}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    if refusal.retry_after is not None:
        headers.append((b"retry-after", b"%d" % refusal.retry_after))
    await send({"type": "websocket.http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


def _wire_of(scope: dict[str, Any]) -> str | None:
    """The v2 wire that the client would get."""
    return next((name for name in scope.get("subprotocols") or () if name in SUBPROTOCOLS), None)
