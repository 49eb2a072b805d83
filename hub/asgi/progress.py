"""How much of what was written to a socket its peer has taken. Asked about a peer that seems gone, never for a message."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from typing import Any, NamedTuple

if sys.platform == "linux":
    import fcntl
    import termios

__all__ = ["Progress", "Taken"]

# struct tcp_info of linux/tcp.h: bytes_acked, notsent_bytes, delivered (since Linux 4.18). It only ever grows at its end.
_INFO = struct.Struct("=120xQ16xI44xI")
_QUEUED = struct.Struct("=i")


class Taken(NamedTuple):
    """One look.

    - `moves` grows whenever the peer takes something: packets, or bytes where the kernel does not tell. Also what arrives
      behind a packet that was lost counts, though the peer cannot acknowledge it yet.
    - `total` bytes are taken since the connection began; it only grows. Where the kernel does not tell, it is less than the truth.
    - `owed` bytes are written and not taken; of those, `unsent` bytes have not even left this machine.
    """

    moves: int
    total: int
    owed: int
    unsent: int


class Progress:
    """Looks at one transport of asyncio.

    On Linux without TLS the kernel says what the peer has acknowledged. Elsewhere the transport's own buffer must do: what
    leaves it has gone to the kernel, and when that was full, the peer has taken as much. What waits in the kernel is unseen there.
    """

    __slots__ = ("_buffered", "_left", "_socket", "_transport")

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport
        # Under TLS the kernel counts what the transport's buffer does not: records, not bytes.
        plain = transport.get_extra_info("sslcontext") is None
        self._socket: Any = transport.get_extra_info("socket") if plain else None
        self._buffered = 0
        self._left = 0

    def look(self) -> Taken:
        """What is taken by now: two system calls, about a microsecond."""
        buffered = self._transport.get_write_buffer_size()
        # A buffer that was filled again between two looks hides what left it.
        self._left += max(0, self._buffered - buffered)
        self._buffered = buffered
        told = _told_by_kernel(self._socket)
        if told is None:
            return Taken(self._left, self._left, buffered, buffered)
        return told._replace(owed=told.owed + buffered, unsent=told.unsent + buffered)


def _told_by_kernel(sock: Any) -> Taken | None:
    """What the kernel knows of its own part; None where it does not tell."""
    if sys.platform != "linux" or sock is None:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
        if len(info) < _INFO.size:
            return None
        acknowledged, unsent, delivered = _INFO.unpack(info)
        (queued,) = _QUEUED.unpack(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(_QUEUED.size)))
    except (AttributeError, OSError, ValueError):
        # Closed, no TCP, or another loop's idea of a socket.
        return None
    # A handshake is behind it: a kernel that counted nothing does not count.
    return Taken(delivered, acknowledged, queued, unsent) if acknowledged else None
