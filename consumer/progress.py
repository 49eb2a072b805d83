"""How much of what was sent on a connection its peer has taken. Asked while the peer seems gone, never for a message.

The twin of hub.asgi.progress. A transport may be under TLS here: the numbers of bytes mean less then, that they move as much.
"""

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

# struct tcp_info of linux/tcp.h: bytes_acked, notsent_bytes (since Linux 4.6). It only ever grows at its end.
_INFO = struct.Struct("=120xQ16xI")
_QUEUED = struct.Struct("=i")


class Taken(NamedTuple):
    """One look, in bytes.

    - `total` are taken since the connection began; it only grows. Where the kernel does not tell, it is less than the truth.
    - `owed` are sent and not taken; of those, `unsent` have not even left this machine. Under TLS both may be too small, but
      not 0 while something waits behind what the kernel holds.
    """

    total: int
    owed: int
    unsent: int


class Progress:
    """Looks at one transport of asyncio.

    On Linux the kernel says what the peer's kernel has acknowledged. Elsewhere the transport's own buffer must do: what leaves it
    has gone to the kernel, and when that was full, the peer has taken as much. What waits in the kernel is unseen there.
    """

    __slots__ = ("_buffered", "_left", "_transport")

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport
        self._buffered = 0
        self._left = 0

    def look(self) -> Taken:
        """What is taken by now: two system calls, a few microseconds."""
        buffered = self._transport.get_write_buffer_size()
        # A buffer that was filled again between two looks hides what left it.
        self._left += max(0, self._buffered - buffered)
        self._buffered = buffered
        told = _told_by_kernel(self._transport.get_extra_info("socket"))
        if told is None:
            return Taken(self._left, buffered, buffered)
        return Taken(told.total, told.owed + buffered, told.unsent + buffered)


def _told_by_kernel(sock: Any) -> Taken | None:
    """What the kernel knows of its own part; None where it does not tell."""
    if sys.platform != "linux" or sock is None:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
        if len(info) < _INFO.size:
            return None
        acknowledged, unsent = _INFO.unpack(info)
        (queued,) = _QUEUED.unpack(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(_QUEUED.size)))
    except (AttributeError, OSError, ValueError):
        # Closed, no TCP, or another loop's idea of a socket.
        return None
    # A handshake is behind it: a kernel that counted nothing does not count.
    return Taken(acknowledged, queued, unsent) if acknowledged else None
