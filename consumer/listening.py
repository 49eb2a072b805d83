"""The websocket that `websockets` connects, whose ordinary messages are cut from the stream here.

The library takes 8 µs for a message, most of it in its parser's generator and between its queue and `recv`; here one takes less
than 1. It keeps everything else: the handshake, control frames, fragments, deflated messages, the close, and whatever breaks a
rule. It is fed whole frames only, so its parser stands between two frames whenever one is taken here.

Invariants
==========
1. A message is taken here only while the library stands between two frames and no message in fragments has begun. From the first
   fragment or deflated message on (`_through`) all goes through the library, and `next` reads from there once all that was taken
   before is read.
2. `_buffer` begins with a frame that is not complete, of at most the library's `max_size`, beside what one read brought.
3. Beyond READY_BYTES the socket is not read until all is taken.

Source: RFC 6455 section 5.2.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.protocol import State

__all__ = ["Listening"]

READY_BYTES = 64 * 1024
HEAD_BYTES = 64 * 1024
"""More is no answer to a handshake: the library says why."""
_TEXT, _BINARY = 0x81, 0x82
_CONTROL = frozenset({0x88, 0x89, 0x8A})
_HEAD_END = b"\r\n\r\n"


class Listening(ClientConnection):
    """Read by `next` and `take` instead of the library's `recv`. `heard_at`: the loop's time when bytes last came."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.heard_at = 0.0
        limit = getattr(self.protocol, "max_message_size", None) or getattr(self.protocol, "max_size", None)
        self._max_size: int = limit if limit is not None else 1 << 62
        self._buffer = bytearray()
        self._ready: deque[str | bytes] = deque()
        self._ready_bytes = 0
        self._held = False
        self._answered = False
        self._through = False
        self._waiter: asyncio.Future[None] | None = None

    # --- the reader's side

    def take(self) -> str | bytes | None:
        """The next message, if it is there already."""
        if not self._ready:
            return None
        message = self._ready.popleft()
        if not self._ready:
            self._ready_bytes = 0
            if self._held:
                self._held = False
                self.transport.resume_reading()
        return message

    async def next(self) -> str | bytes:
        """The next message; may be cancelled without a loss.

        Raises:
            ConnectionClosed: it ended, and nothing is left.
        """
        while True:
            message = self.take()
            if message is not None:
                return message
            if self._through or self.protocol.state is not State.OPEN:
                return await self.recv()
            waiter = self._waiter = self.loop.create_future()
            try:
                await waiter
            finally:
                if self._waiter is waiter:
                    self._waiter = None

    # --- the transport's side

    def data_received(self, data: bytes) -> None:
        self.heard_at = self.loop.time()
        self._buffer += data
        if not self._answered:
            self._give_answer()
        if self.protocol.state is State.OPEN and not self._through:
            self._parse()
        elif self._answered and self._buffer:
            self._give(len(self._buffer))
        self._tell()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._tell()

    def _give_answer(self) -> None:
        """The head of the handshake's answer to the library: what follows are frames, or the body of a refusal."""
        end = self._buffer.find(_HEAD_END)
        if end >= 0:
            self._answered = True
            self._give(end + len(_HEAD_END))
        elif len(self._buffer) > HEAD_BYTES:
            self._answered = True

    def _give(self, size: int) -> None:
        """So many bytes to the library."""
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        super().data_received(data)

    def _tell(self) -> None:
        waiter = self._waiter
        there = self._ready or self._through or self.protocol.state is not State.OPEN
        if waiter is not None and not waiter.done() and there:
            waiter.set_result(None)

    def _parse(self) -> None:
        """Take the messages that are whole, and give the library what is no message of one frame."""
        while self.protocol.state is State.OPEN and not self._through:
            self._cut()
            if not self._give_next():
                break
        if self.protocol.state is not State.OPEN and self._buffer:
            self._give(len(self._buffer))
        if not self._held and self._ready_bytes > READY_BYTES:
            self._held = True
            self.transport.pause_reading()

    def _cut(self) -> None:
        """Take whole messages of one frame from the buffer, up to something else."""
        at, have, limit, ready, taken = 0, len(self._buffer), self._max_size, self._ready, 0
        with memoryview(self._buffer) as view:
            while have - at >= 2:
                first, length, start = view[at], view[at + 1], at + 2
                if length == 126 and have - at >= 4:
                    start, length = at + 4, view[at + 2] << 8 | view[at + 3]
                elif length >= 126:
                    start = at + 10
                    if length != 127 or have < start:
                        break
                    length = int.from_bytes(view[at + 2 : start], "big")
                end = start + length
                if end > have or length > limit:
                    break
                if first == _BINARY:
                    ready.append(bytes(view[start:end]))
                elif first == _TEXT:
                    try:
                        ready.append(str(view[start:end], "utf-8"))
                    except UnicodeDecodeError:
                        break
                else:
                    break
                taken += length
                at = end
        self._ready_bytes += taken
        del self._buffer[:at]

    def _give_next(self) -> bool:
        """Judge what stands first, which is not whole or nothing that is taken here; whether something was given."""
        buffer, have = self._buffer, len(self._buffer)
        if have < 2:
            return False
        first, length, start = buffer[0], buffer[1], 2
        if 126 <= length <= 127:
            start = 4 if length == 126 else 10
            if have < start:
                return False
            length = int.from_bytes(buffer[2:start], "big")
        whole = have >= start + length
        if first in _CONTROL and buffer[1] <= 125:
            if whole:
                self._give(start + length)
            return whole
        if first in (_TEXT, _BINARY) and buffer[1] <= 127 and length <= self._max_size and not whole:
            return False
        # Fragments, what is deflated, and what breaks a rule: the library knows them all.
        self._through = True
        self._give(have)
        return True
