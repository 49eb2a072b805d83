"""A client of tradewire.v2.msgpack that resumes from a position, and measures how fast it gets what it missed.

`python -m benchmarks.resuming PORT EPOCH OFFSET COUNT PID` prints one line of JSON (`Resumed`). It decodes each message and checks
that the offsets are contiguous: what is measured is a complete replay.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import msgpack

from benchmarks.cpu import cpu_seconds
from benchmarks.framing import handshake, masked
from benchmarks.servers import TOKEN

__all__ = ["Resumed"]

TIMEOUT_S = 60.0


@dataclass
class Resumed:
    """A replay of `messages` in `seconds`; CPU is user plus system seconds."""

    messages: int
    seconds: float
    first_ms: float
    client_cpu_s: float
    server_cpu_s: float


def resume(port: int, epoch: str, offset: int, count: int, pid: int) -> Resumed:
    """Resume and read `count` messages."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as sock:
        _upgrade(sock)
        data = {"want": [{"topics": ["entry_fill"]}], "resume": {"epoch": epoch, "offset": offset}}
        start, own, server = time.perf_counter(), time.process_time(), cpu_seconds(pid)
        sock.sendall(masked(msgpack.packb({"type": "subscribe", "id": 1, "data": data}), text=False))
        reader = _Reader(sock)
        expected, first = offset, 0.0
        while expected < offset + count:
            message = reader.message()
            if message["type"] == "hub.reply" and not (message["ok"] and message["data"]["recovered"]):
                raise RuntimeError(f"not resumed: {message}")
            if message["type"] != "entry_fill":
                continue
            expected += 1
            first = first or time.perf_counter() - start
            if message["offset"] != expected:
                raise RuntimeError(f"expected offset {expected}, got {message['offset']}")
        seconds = time.perf_counter() - start
        return Resumed(
            messages=count,
            seconds=seconds,
            first_ms=1000 * first,
            client_cpu_s=time.process_time() - own,
            server_cpu_s=cpu_seconds(pid) - server,
        )


class _Reader:
    """Whole messages from a socket that sends unmasked frames."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""
        self.at = 0

    def message(self) -> Any:
        """The next message."""
        opcode, length = self._take(2)
        if length == 126:
            length = int.from_bytes(self._take(2), "big")
        elif length == 127:
            length = int.from_bytes(self._take(8), "big")
        payload = self._take(length)
        return msgpack.unpackb(payload) if opcode == 0x82 else {"type": "control"}

    def _take(self, size: int) -> bytes:
        while len(self.buffer) - self.at < size:
            more = self.sock.recv(256 * 1024)
            if not more:
                raise ConnectionError("the hub closed the connection")
            self.buffer = self.buffer[self.at :] + more
            self.at = 0
        self.at += size
        return self.buffer[self.at - size : self.at]


def _upgrade(sock: socket.socket) -> None:
    sock.sendall(
        handshake(
            headers={
                "Sec-WebSocket-Protocol": "tradewire.v2.msgpack",
                "Authorization": f"Bearer {TOKEN}",
            }
        )
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1) or b"\r\n\r\n"
    if b" 101 " not in head[:20]:
        raise ConnectionError(head.decode(errors="replace"))


def main() -> None:
    """Resume once and print what it took."""
    port, epoch, offset, count, pid = sys.argv[1:]
    print(json.dumps(asdict(resume(int(port), epoch, int(offset), int(count), int(pid)))))


if __name__ == "__main__":
    main()
