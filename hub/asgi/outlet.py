"""The writing side of a connection as the edge sees it, and its bounds.

`hub.delivery` says what it needs of an outlet (`Outlet`, `OutletListener`); here is what the edge's two outlets promise beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from hub.fan_out import Outlet

__all__ = [
    "CLOSE_TIMEOUT_S",
    "EXTENSION",
    "HIGH_WATER_BYTES",
    "LOW_WATER_BYTES",
    "EdgeOutlet",
    "Statistics",
    "close_reason",
]

EXTENSION = "tradewire.outlet"
"""The key of `scope["extensions"]` under which a server that can write prepared frames offers an EdgeOutlet."""

HIGH_WATER_BYTES = 64 * 1024
LOW_WATER_BYTES = 16 * 1024
CLOSE_TIMEOUT_S = 10.0
REASON_BYTES = 123


Statistics = Mapping[str, int | Mapping[str, int]]
"""Figures by name, or counts by code."""


class EdgeOutlet(Outlet, Protocol):
    """An outlet of a connection of ours. Synchronous; to be used on the loop's thread only.

    `write` returns False for: stop until `on_writable`, since the buffer is above its high water mark, or nothing can be sent
    any more (then `on_lost` follows or came). A writer that stops keeps `unsent_bytes` within HIGH_WATER_BYTES plus one
    write; what is written nevertheless is kept too. `on_writable` comes when the buffer is at LOW_WATER_BYTES or below.

    `close` ends reading too: the first code counts, and what the client sent before and the hub has not handled is dropped.
    The transport is aborted when the peer does not answer within CLOSE_TIMEOUT_S.

    `on_lost` is called once in an outlet's life, never from inside `write` or `close`; a listener that is set later gets it
    with the loop's next turn.
    """

    @property
    def closed(self) -> bool:
        """Whether a Close was sent or received, or the connection is lost."""

    @property
    def deflates(self) -> bool:
        """Whether the client takes frames that are deflated without context (permessage-deflate, RFC 7692)."""

    @property
    def unread_bytes(self) -> int:
        """Bytes that were read from the client and not handled yet; bounded by one read and one message."""

    def expect_messages(self, size: int) -> None:
        """Take messages of up to `size` bytes from the client, from its second one on. Where the server bounds them itself:
        no effect."""

    def running(self) -> AbstractAsyncContextManager[Any]:
        """The time in which it writes. The body is cancelled when the connection must not live on; leaving it waits for
        the Close."""


def close_reason(text: str) -> str:
    """`text` cut to the 123 bytes that RFC 6455 section 5.5 leaves the reason of a Close frame."""
    return text.encode()[:REASON_BYTES].decode(errors="ignore")
