"""What the edge and the node ask of each other: the writing side of a connection, and the node behind it.

Structural types: `hub.node` imports nothing from here and fits them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from hub.protocol.codec import Wire
from hub.protocol.principal import Principal

__all__ = [
    "CLOSE_TIMEOUT_S",
    "EXTENSION",
    "HIGH_WATER_BYTES",
    "LOW_WATER_BYTES",
    "AuthenticatorLike",
    "EdgeLimits",
    "EdgeOutlet",
    "Listener",
    "NodeLike",
    "Outlet",
    "close_reason",
]

EXTENSION = "tradewire.outlet"
"""The key of `scope["extensions"]` under which a server that can write prepared frames offers an EdgeOutlet."""

HIGH_WATER_BYTES = 64 * 1024
LOW_WATER_BYTES = 16 * 1024
CLOSE_TIMEOUT_S = 10.0
REASON_BYTES = 123


class Listener(Protocol):
    """Who writes to an outlet."""

    def on_writable(self) -> None:
        """The outlet fell below its low water mark after a `write` that returned False."""

    def on_lost(self) -> None:
        """Nothing can be written any more. Called once in an outlet's life, never from inside `write` or `close`."""


class Outlet(Protocol):
    """One connection's writing side. Synchronous; to be used on the loop's thread only."""

    def write(self, data: bytes) -> bool:
        """Send whole websocket frames (unmasked, headers included, joined).

        False: stop until `on_writable`, for the buffer is above its high water mark, or nothing can be sent any more
        (then `on_lost` follows or came). A writer that stops keeps the buffer within HIGH_WATER_BYTES plus one write;
        what is written nevertheless is kept too.
        """

    @property
    def writable(self) -> bool:
        """Whether `write` is welcome: open and not above the high water mark."""

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait in this process; the kernel's buffer is bounded apart from it."""

    def close(self, code: int, reason: str) -> None:
        """End with a Close frame behind what was written; nothing is written afterwards and nothing more is received.

        Idempotent: the first code counts. The transport is aborted when the peer does not answer within CLOSE_TIMEOUT_S.
        """

    def set_listener(self, listener: Listener) -> None:
        """Who is told. When the connection is lost already, `on_lost` comes with the loop's next turn."""


class EdgeOutlet(Outlet, Protocol):
    """An outlet as the edge itself sees it."""

    @property
    def closed(self) -> bool:
        """Whether a Close was sent or received, or the connection is lost."""

    def running(self) -> AbstractAsyncContextManager[Any]:
        """The time in which it writes. The body is cancelled when the connection must not live on; leaving it waits for
        the Close."""


class EdgeLimits(Protocol):
    """The bounds that the edge itself enforces."""

    @property
    def message(self) -> int:
        """Bytes of one message from a client."""

    @property
    def requests_per_s(self) -> int:
        """Requests a second and connection, publishes aside."""


class NodeLike(Protocol):
    """What the edge needs of `hub.node`."""

    @property
    def limits(self) -> EdgeLimits:
        """The bounds for clients."""

    def admit(self, principal: Principal) -> None:
        """Before the upgrade. Raises HandshakeRefused (503, with `retry_after`) when the hub is full or draining."""

    def connect(self, principal: Principal, wire: Wire, outlet: Outlet, *, client: str) -> Any:
        """After the upgrade: a new session; the hub's first message is written by the node."""

    def receive(self, session: Any, message: dict[str, Any]) -> None:
        """One decoded message of the client. Replies by itself; may close the outlet."""

    async def readable(self, session: Any) -> None:
        """Waits while the session has too much unanswered; at once when it is disconnected."""

    def disconnect(self, session: Any) -> None:
        """The connection is over. Idempotent."""


class AuthenticatorLike(Protocol):
    """What the edge needs of `hub.auth`."""

    def websocket(
        self,
        headers: list[tuple[bytes, bytes]],
        query_string: bytes,
        subprotocols: list[str],
        *,
        v2: bool,
        client: tuple[str, int] | None,
    ) -> Principal:
        """Who the client is. Raises HandshakeRefused."""


def close_reason(text: str) -> str:
    """`text` cut to the 123 bytes that RFC 6455 section 5.5 leaves the reason of a Close frame."""
    return text.encode()[:REASON_BYTES].decode(errors="ignore")


Statistics = Mapping[str, int | Mapping[str, int]]
