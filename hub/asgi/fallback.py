"""The outlet over ordinary ASGI sends, for servers other than our uvicorn class (hypercorn, granian, daphne, a test client).

Theory of operation
-------------------
One writer task per connection takes joined frames from a bounded buffer, splits them and awaits one ASGI send for each message. A
send that does not return is all that is seen of a slow client: meanwhile the buffer fills, `write` says stop, and the client is
served later, from the log. Fragments, frame sizes and Pings are the server's own business; the keepalive that is left to us is a
send that waits while nothing is heard of the client either.

The end, whoever begins it:

1. `close` cancels the body. A server may hold a Close back while the app waits in `receive` (granian 2.8 does, since that has
   its lock on the socket), so nobody may wait there.
2. What was written goes out, then the Close.
3. The writer goes on receiving until the server tells of the disconnect. Bytes of the peer that nobody reads would make the
   kernel answer with RST, which destroys the Close on its way; and hypercorn 0.18 waits for room in the app's queue, for ever,
   to put the disconnect there.
4. At the deadline a Close is tried once more, though it cannot get through: a server that was told of the end drops the
   connection when the send is cancelled (granian) or when the app returns (hypercorn), and would otherwise wait on a peer that
   does not read.

Invariants
----------
- Only the writer sends, after the handshake. While `_reading` is not cancelled only the body receives, then only the writer.
- The writer cannot be cancelled from outside, but it ends: `_writing` has a deadline from the first of `close` and a cancellation on.
- `_unsent` is what `write` took and no send has returned for, until `_lost`; then it is 0.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from starlette.types import Receive, Send

from hub.asgi.outlet import CLOSE_TIMEOUT_S, HIGH_WATER_BYTES, LOW_WATER_BYTES, close_reason
from hub.fan_out import FanOut, OutletListener
from hub.protocol.close_codes import CloseAction, CloseCode, action_for

__all__ = ["FallbackOutlet", "put_close", "specified", "split"]

LAST_S = 1.0
"""For a Close that is tried without hope, or while the server is about to end."""

MESSAGES_PER_TURN = 64
PAUSE_S = 0.1
"""Between so many messages that come after the end: they are thrown away, and must not cost others the loop."""

_TEXT = 0x81
# Stands for any code that a client answers with another attempt: 4500-4599, known or not (wire-v2, section 11).
_RETRY = 4500
_STOP = int(CloseCode.BAD_REQUEST)

logger = logging.getLogger("tradewire.asgi")


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


def specified(send: Send) -> Send:
    """A server's `send` that raises what the ASGI specification says, ConnectionError, when the peer has gone.

    Servers raise what they like there: granian RuntimeError, others what their parser raises.
    """

    async def sending(message: Any) -> None:
        try:
            await send(message)
        except Exception as error:
            logger.debug("the server does not take a %s: %s", message["type"], type(error).__name__)
            raise ConnectionError("the server takes no more messages for this peer") from None

    return sending


async def put_close(send: Send, code: int, reason: str) -> None:
    """Close with `code`, or where the server cannot send that one, by a code for which clients do the same.

    daphne cannot send 1001-1015 and raises.

    Raises:
        ConnectionError: by `send`, which is a `specified` one; the peer has gone.
    """
    try:
        await send(_closing(code, reason))
    except ConnectionError:
        await send(_closing(_STOP if action_for(code) is CloseAction.STOP else _RETRY, reason))


class FallbackOutlet:
    """One connection's writing side on any ASGI server (hub.asgi.outlet.EdgeOutlet), and the `receive` that goes with it.

    `unsent_bytes` counts what this object holds, the message in flight included; what the server buffers behind its `send`
    is unseen. `send` is a `specified` one. Who takes nothing and says nothing for `silence_s` seconds is closed with 4512. On
    the loop's thread only.
    """

    def __init__(self, send: Send, receive: Receive, *, silence_s: float) -> None:
        self._send = send
        self._receive = receive
        self._silence_s = silence_s
        self._buffer: deque[bytes] = deque()
        self._unsent = 0
        self._moves = 0
        self._paused = False
        self._close: tuple[int, str] | None = None
        self._lost = False
        self._disconnected = False
        self._listener: OutletListener | None = None
        self._wake = anyio.Event()
        self._reading = anyio.CancelScope()
        self._writing = anyio.CancelScope(shield=True)
        self._sending_since: float | None = None
        self._heard_at = 0.0
        self._watch: asyncio.TimerHandle | None = None

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
        self._reading.cancel()
        self._end_within(CLOSE_TIMEOUT_S)

    @property
    def deflates(self) -> bool:
        return False

    def set_fan_out(self, fan_out: FanOut | None) -> None:
        pass

    def set_listener(self, listener: OutletListener) -> None:
        self._listener = listener
        if self._lost:
            asyncio.get_running_loop().call_soon(listener.on_lost)

    def expect_messages(self, size: int) -> None:
        pass

    async def receive(self) -> Any:
        """The server's next event for this connection; a disconnect too when the server fails instead of telling."""
        try:
            event = await self._receive()
        except Exception as error:
            logger.debug("the server's receive fails: %s", type(error).__name__)
            event = {"type": "websocket.disconnect", "code": 1006}
        self._heard_at = asyncio.get_running_loop().time()
        self._disconnected = event["type"] != "websocket.receive"
        return event

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs the writer. Leaving the body without `close` means that the peer has gone: what is unsent is dropped.

        The body is cancelled by `close`, and when the peer takes no more. Cancellation of the caller: what is unsent and the
        Close (of `close`, if it was called) have LAST_S and once more LAST_S, then it goes on.
        """
        written = anyio.Event()
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._write_all, written)
                self._watch_silence()
                try:
                    with self._reading:
                        yield
                    self._drop_unless_closing()
                    await written.wait()
                except BaseException:
                    self._drop_unless_closing()
                    self._end_within(LAST_S)
                    raise
        finally:
            if self._watch is not None:
                self._watch.cancel()
            self._lose()

    def _drop_unless_closing(self) -> None:
        if self._close is None:
            self._writing.cancel()

    def _end_within(self, seconds: float) -> None:
        self._writing.deadline = min(self._writing.deadline, anyio.current_time() + seconds)

    async def _write_all(self, written: anyio.Event) -> None:
        try:
            with self._writing, suppress(ConnectionError):
                await self._drain()
            if self._close is not None:
                await self._end(*self._close)
        finally:
            self._reading.cancel()
            self._lose()
            written.set()

    async def _drain(self) -> None:
        sent = 0
        while self._buffer or self._close is None:
            if not self._buffer:
                await self._wake.wait()
                self._wake = anyio.Event()
                continue
            data = self._buffer.popleft()
            headers = len(data)
            for text, payload in split(data):
                await self._put(_message(text, payload))
                self._moves += 1
                self._sent(len(payload))
                headers -= len(payload)
                sent += 1
                if sent % MESSAGES_PER_TURN == 0:
                    # A server that has room may never let the loop turn.
                    await checkpoint()
            self._sent(headers)

    async def _put(self, message: dict[str, Any]) -> None:
        self._sending_since = asyncio.get_running_loop().time()
        await self._send(message)
        self._sending_since = None

    def _sent(self, size: int) -> None:
        if self._lost:
            return
        self._unsent -= size
        if self._paused and self._unsent <= LOW_WATER_BYTES:
            self._paused = False
            if self._listener is not None and not self.closed:
                self._listener.on_writable()

    async def _end(self, code: int, reason: str) -> None:
        deadline = max(self._writing.deadline, anyio.current_time() + LAST_S)
        self._writing = anyio.CancelScope(shield=True, deadline=deadline)
        with self._writing, suppress(ConnectionError):
            await put_close(self._send, code, reason)
            await self._until_disconnected()

    async def _until_disconnected(self) -> None:
        received = 0
        while not self._disconnected:
            await self.receive()
            received += 1
            if received % MESSAGES_PER_TURN == 0:
                await anyio.sleep(PAUSE_S)

    def _watch_silence(self) -> None:
        loop = asyncio.get_running_loop()
        since = loop.time() if self._sending_since is None else max(self._sending_since, self._heard_at)
        left = since + self._silence_s - loop.time()
        if left > 0:
            self._watch = loop.call_later(left, self._watch_silence)
        elif not self.closed:
            self.close(CloseCode.NO_PONG, "nothing taken and nothing heard in time")
            # Who takes nothing will take no Close either.
            self._end_within(LAST_S)
            self._lose()

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
