"""Many bare websocket clients in one process that count frames: the cheapest receiver, so that the server is what is measured."""

from __future__ import annotations

import asyncio
import base64
import json

__all__ = ["Receivers"]


class _Client(asyncio.Protocol):
    """One connection: a handshake, one text frame sent, then frames are counted and thrown away."""

    def __init__(self, owner: Receivers, request: bytes, first: bytes) -> None:
        self.owner = owner
        self.request = request
        self.first = first
        self.upgraded = False
        self.buffer = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        data = self.buffer + data
        if not self.upgraded:
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self.buffer = head
                return
            if b" 101 " not in head[:20]:
                raise ConnectionError(head.split(b"\r\n", 1)[0].decode())
            self.upgraded = True
            assert self.transport is not None
            self.transport.write(self.first)
            self.owner.upgraded += 1
        self._count(data)

    def _count(self, data: bytes) -> None:
        at, size, frames = 0, len(data), 0
        while size - at >= 2:
            length, header = data[at + 1], 2
            if length == 126:
                if size - at < 4:
                    break
                length, header = int.from_bytes(data[at + 2 : at + 4], "big"), 4
            elif length == 127:
                if size - at < 10:
                    break
                length, header = int.from_bytes(data[at + 2 : at + 10], "big"), 10
            if size - at < header + length:
                break
            frames += 1
            at += header + length
        self.buffer = data[at:]
        self.owner.add(frames)


class Receivers:
    """`count` connections to one server."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.upgraded = 0
        self.frames = 0
        self._target = 0
        self._reached = asyncio.Event()
        self._transports: list[asyncio.BaseTransport] = []

    def add(self, frames: int) -> None:
        """Count frames."""
        self.frames += frames
        if self.frames >= self._target:
            self._reached.set()

    async def connect(self, port: int, token: str, subscribe: object) -> None:
        """Open all connections and send each `subscribe` as a text frame."""
        key = base64.b64encode(b"benchmark-client").decode()
        request = (
            f"GET /api/v1/message/ws?token={token} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
        first = _masked(json.dumps(subscribe).encode())
        loop = asyncio.get_running_loop()
        for _ in range(self.count):
            transport, _ = await loop.create_connection(
                lambda: _Client(self, request, first), "127.0.0.1", port
            )
            self._transports.append(transport)
        async with asyncio.timeout(30):
            while self.upgraded < self.count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)

    async def reach(self, frames: int, timeout_s: float) -> bool:
        """Wait until `frames` have been counted in all; False when it took too long."""
        self._target = frames
        self._reached.clear()
        if self.frames >= frames:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._reached.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Close all connections."""
        for transport in self._transports:
            transport.close()


def _masked(payload: bytes) -> bytes:
    mask = b"\x01\x02\x03\x04"
    body = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    header = (
        bytes((0x81, 0x80 | len(payload)))
        if len(payload) < 126
        else b"\x81\xfe" + len(payload).to_bytes(2, "big")
    )
    return header + mask + body
