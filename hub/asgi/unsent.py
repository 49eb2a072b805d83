"""The answers over HTTP that clients have not taken yet, and who is dropped when there are too many bytes of them.

uvicorn hands an answer's whole body to the transport at once (measured: 100 clients that do not read, of 1 MB each, held 100 MB,
for ever and seen by no figure). Here a body goes out in pieces, each when the transport has room, and what waits is counted.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["PIECE_BYTES", "STALL_S", "UNSENT_BYTES", "Unsent"]

PIECE_BYTES = 65_536
STALL_S = 30.0
"""For a client to take a piece."""

UNSENT_BYTES = 268_435_456


class _Abortable(Protocol):
    def abort(self) -> None: ...


class Unsent:
    """Bodies that are on their way, one a socket. Over `limit` bytes together, the sockets that wait the longest are aborted."""

    def __init__(self, limit: int = UNSENT_BYTES) -> None:
        self.limit = limit
        self.bytes = 0
        self.aborted = 0
        self._left: dict[_Abortable, int] = {}

    def __len__(self) -> int:
        return len(self._left)

    def statistics(self) -> dict[str, int]:
        """Figures: answers under way, the bytes of them that are not sent, their bound, how many were aborted for it."""
        return {
            "answers": len(self),
            "unsent_bytes": self.bytes,
            "unsent_limit_bytes": self.limit,
            "aborted": self.aborted,
        }

    def enter(self, transport: _Abortable, size: int) -> None:
        """A body of `size` bytes is to be sent."""
        self.leave(transport)
        self._left[transport] = size
        self.bytes += size
        while self.bytes > self.limit and len(self._left) > 1:
            oldest = next(iter(self._left))
            self.leave(oldest)
            self.aborted += 1
            oldest.abort()

    def sent(self, transport: _Abortable, size: int) -> None:
        """The transport has taken `size` bytes more."""
        if transport in self._left:
            self._left[transport] -= size
            self.bytes -= size

    def leave(self, transport: _Abortable) -> None:
        """The body is sent, or the socket gone. Idempotent."""
        self.bytes -= self._left.pop(transport, 0)
