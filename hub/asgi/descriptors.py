"""How many sockets the process's open files allow, and who leaves when there are more.

asyncio has no answer to a process out of file descriptors: Python 3.11 logs a traceback for each of `backlog` failed accepts, over
and over (measured: 400 silent sockets at 200 files wrote 50 MB of log in 90 s, and nobody was served meanwhile). So the hub
never gets there: it takes few sockets a turn, knows its bound, and lets the oldest of those go that have shown nothing yet.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Protocol

__all__ = ["ACCEPT_BATCH", "MAX_WAITING", "Room", "Waiting", "raise_open_files", "room_for"]

ACCEPT_BATCH = 32
"""Sockets accepted in one turn of the loop: what is let go is closed only with the next."""

RESERVED = 160
"""Files kept for all else: three turns of accepts, the log, upstreams, the process's own."""

MAX_WAITING = 4096
_UNKNOWN = 1 << 20


class _Abortable(Protocol):
    def abort(self) -> None: ...


class Waiting:
    """Sockets that are no accepted websocket: in a handshake, in a request, idle or refused. At most `limit`: the oldest go."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.aborted = 0
        self._sockets: dict[_Abortable, None] = {}

    def __len__(self) -> int:
        return len(self._sockets)

    def statistics(self) -> dict[str, int]:
        """Figures: how many wait, their bound, how many were aborted for it."""
        return {"waiting": len(self), "limit": self.limit, "aborted": self.aborted}

    def enter(self, transport: _Abortable) -> None:
        """A socket came, or turned from HTTP to a handshake: it keeps its place then."""
        self._sockets.setdefault(transport)
        if len(self._sockets) > self.limit:
            oldest = next(iter(self._sockets))
            del self._sockets[oldest]
            self.aborted += 1
            oldest.abort()

    def leave(self, transport: _Abortable) -> None:
        """It is a websocket now, or gone. Idempotent."""
        self._sockets.pop(transport, None)


class Room:
    """How many websockets and how many waiting sockets fit."""

    def __init__(self, connections: int, waiting: int) -> None:
        self.connections = connections
        self.waiting = waiting


def room_for(connections: int) -> Room:
    """The room under the limit of open files for at most so many websockets."""
    free = max(_open_files() - RESERVED, 8)
    waiting = min(MAX_WAITING, max(free // 4, 4))
    return Room(min(connections, free - waiting), waiting)


def raise_open_files() -> None:
    """Raise this process's limit of open files to what it may have; where that fails it stays."""
    if sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _open_files() -> int:
    if sys.platform == "win32":
        return _UNKNOWN
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _UNKNOWN if soft == resource.RLIM_INFINITY else soft
