"""The outlet over ordinary ASGI sends, for servers other than our uvicorn class (hypercorn, daphne, a test client).

One writer task per connection takes joined frames from a bounded buffer, splits them and sends one ASGI message each.
Keepalive, fragments and frame sizes are the server's own business there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import TaskGroup
from starlette.types import Send

from hub.asgi.outlet import CLOSE_TIMEOUT_S, HIGH_WATER_BYTES, LOW_WATER_BYTES, close_reason
from hub.fan_out import FanOut, OutletListener
from hub.protocol.close_codes import CloseAction, CloseCode, action_for

__all__ = ["FallbackOutlet", "split"]

_TEXT = 0x81
# Stands for any code that a client answers with another attempt: 4500-4599, known or not (wire-v2, section 11).
_RETRY = 4500
_STOP = int(CloseCode.BAD_REQUEST)


def split(frames: bytes) -> Iterator[tuple[bool, memoryview]]:
    """Each frame of `frames` as (is text, payload).

    `frames` are what `hub.protocol.codec.frame` made, joined: unmasked, unfragmented text and binary frames.
    """
    view = memoryview(frames)
    at = 0
    while at < len(view):
        size, header = view[at + 1], 2
        if size == 126:
            size, header = int.from_bytes(view[at + 2 : at + 4], "big"), 4
        elif size == 127:
            size, header = int.from_bytes(view[at + 2 : at + 10], "big"), 10
        start = at + header
        yield view[at] == _TEXT, view[start : start + size]
        at = start + size


class _Gone(Exception):
    """The server takes no more messages for this peer."""


class FallbackOutlet:
    """One connection's writing side on any ASGI server (hub.asgi.outlet.EdgeOutlet).

    `unsent_bytes` counts what this object holds, the message in flight included; what the server buffers behind its `send`
    is unseen. On the loop's thread only.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._buffer: deque[bytes] = deque()
        self._unsent = 0
        self._moves = 0
        self._paused = False
        self._close: tuple[int, str] | None = None
        self._lost = False
        self._listener: OutletListener | None = None
        self._wake = anyio.Event()
        self._group: TaskGroup | None = None

    def write(self, data: bytes) -> bool:
        if self.closed:
            return False
        self._buffer.append(data)
        self._unsent += len(data)
        self._paused = self._paused or self._unsent > HIGH_WATER_BYTES
        self._wake.set()
        return not self._paused

    @property
    def writable(self) -> bool:
        return not (self.closed or self._paused)

    @property
    def closed(self) -> bool:
        return self._lost or self._close is not None

    @property
    def unsent_bytes(self) -> int:
        return self._unsent

    @property
    def moves(self) -> int:
        return self._moves

    @property
    def unread_bytes(self) -> int:
        return 0

    def close(self, code: int, reason: str) -> None:
        if self.closed:
            return
        self._close = (int(code), close_reason(reason))
        self._wake.set()
        if self._group is not None:
            self._group.cancel_scope.deadline = anyio.current_time() + CLOSE_TIMEOUT_S

    @property
    def deflates(self) -> bool:
        return False

    def set_fan_out(self, fan_out: FanOut | None) -> None:
        pass

    def set_listener(self, listener: OutletListener) -> None:
        self._listener = listener
        if self._lost and self._group is not None:
            self._group.start_soon(self._tell_lost)

    def expect_messages(self, size: int) -> None:
        pass

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs the writer. Leaving the body without `close` means that the peer has gone: what is unsent is dropped.

        Cancellation: of the caller ends the writer at once. Once a Close was sent, or CLOSE_TIMEOUT_S after `close`, the body
        itself is cancelled, since a server may never tell a peer's end.
        """
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                group.start_soon(self._write_all)
                yield
                if self._close is None:
                    group.cancel_scope.cancel()
        finally:
            self._lose()

    async def _write_all(self) -> None:
        try:
            await self._drain()
            if self._close is not None:
                await self._put_close(*self._close)
        except _Gone:
            self._lose()
        if self._group is not None:
            self._group.cancel_scope.cancel()

    async def _drain(self) -> None:
        while self._buffer or self._close is None:
            if not self._buffer:
                await self._wake.wait()
                self._wake = anyio.Event()
                continue
            data = self._buffer.popleft()
            for text, payload in split(data):
                await self._put(_message(text, payload))
                self._moves += 1
            self._unsent -= len(data)
            if self._paused and self._unsent <= LOW_WATER_BYTES:
                self._paused = False
                if self._listener is not None and not self.closed:
                    self._listener.on_writable()

    async def _put(self, message: dict[str, Any]) -> None:
        try:
            await self._send(message)
        except Exception:
            # When the peer has gone, servers raise what they like: OSError by the specification, RuntimeError in practice.
            raise _Gone from None

    async def _put_close(self, code: int, reason: str) -> None:
        try:
            await self._put(_closing(code, reason))
        except _Gone:
            # daphne cannot send 1001-1015 and raises; it can send a code by which clients do the same.
            substitute = _STOP if action_for(code) is CloseAction.STOP else _RETRY
            await self._put(_closing(substitute, reason))

    async def _tell_lost(self) -> None:
        if self._listener is not None:
            self._listener.on_lost()

    def _lose(self) -> None:
        if self._lost:
            return
        self._lost = True
        self._buffer.clear()
        self._unsent = 0
        if self._listener is not None:
            self._listener.on_lost()


def _closing(code: int, reason: str) -> dict[str, Any]:
    return {"type": "websocket.close", "code": code, "reason": reason}


def _message(text: bool, payload: memoryview) -> dict[str, Any]:
    if text:
        return {"type": "websocket.send", "text": str(payload, "utf-8")}
    return {"type": "websocket.send", "bytes": bytes(payload)}
