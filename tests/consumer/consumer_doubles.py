"""Stand-ins for sockets and clocks: an event loop whose time is virtual, a connection and a dialler that are driven by a test."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import numpy as np

from consumer.connection import Closed, Endpoint
from consumer.progress import Taken
from hub.frames.columns import Columns
from hub.protocol.codec import CODECS, Wire

T = TypeVar("T")

START_MS = 1_795_392_000_000
STEP_MS = 300_000
KEY = ("BTC/USDT", "5m", "spot")


class _Skipping(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("every task waits for something that never comes")
        if not ready and timeout:
            self.loop.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Whenever every task waits, time jumps to the next timer."""

    def __init__(self) -> None:
        self.now = 1000.0
        selector = _Skipping()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


class FakeConnection:
    """A connection whose peer is the test: `feed` what it sends; `sent` is what it was sent, decoded."""

    def __init__(self, wire: Wire = Wire.JSON, *, subprotocol: str | None = "", pongs: bool = True) -> None:
        self.wire = wire
        self.subprotocol = (
            (None if wire is Wire.FREQTRADE else wire.value) if subprotocol == "" else subprotocol
        )
        self.sent: list[dict[str, Any]] = []
        self.closed_with: tuple[int, str] | None = None
        self.pings = 0
        self.unasked_pongs = 0
        self.heard_at = 0.0
        self.progress = Taken(0, 0, 0)
        self.taking = asyncio.Event()
        self.taking.set()
        self.answer: Callable[[dict[str, Any]], Sequence[dict[str, Any]]] | None = None
        self.held: list[Any] | None = None
        self._pongs = pongs
        self._incoming: asyncio.Queue[Any] = asyncio.Queue()

    def hold(self) -> None:
        """Keep what is fed back until `release`."""
        self.held = []

    def release(self) -> None:
        held, self.held = self.held or [], None
        self.feed(*held)

    def feed(self, *messages: Any) -> None:
        for message in messages:
            if self.held is not None:
                self.held.append(message)
            else:
                self.hear()
                self._incoming.put_nowait(message)

    def hear(self) -> None:
        """Bytes come, of which no message is complete yet."""
        self.heard_at = asyncio.get_running_loop().time()

    def taken(self) -> Taken:
        return self.progress

    def owe(self, size: int, *, flying: bool = False) -> None:
        """So many bytes are sent, and have left this machine where `flying`."""
        total, owed, unsent = self.progress
        self.progress = Taken(total, owed + size, unsent + (0 if flying else size))

    def take(self, size: int) -> None:
        """The peer takes up to so many bytes of what is owed."""
        total, owed, unsent = self.progress
        size = min(size, owed)
        self.progress = Taken(total + size, owed - size, min(unsent, owed - size))

    def end(self, code: int, reason: str = "", *, local: bool = False) -> None:
        self.feed(Closed(code, reason, local=local))

    async def receive(self) -> str | bytes:
        message = await self._incoming.get()
        if isinstance(message, Closed):
            self._incoming.put_nowait(message)
            raise message
        return self._payload(message)

    def ready(self) -> str | bytes | None:
        if self._incoming.empty() or isinstance(self._incoming._queue[0], Closed):  # type: ignore[attr-defined]
            return None
        return self._payload(self._incoming.get_nowait())

    def _payload(self, message: Any) -> str | bytes:
        if isinstance(message, str | bytes):
            return message
        payload = CODECS[self.wire].encode(message)
        return payload.decode() if CODECS[self.wire].text else payload

    async def send(self, payload: bytes, *, text: bool) -> None:
        assert text is CODECS[self.wire].text
        if self.closed_with is not None:
            raise Closed(*self.closed_with, local=True)
        await self.taking.wait()
        message = CODECS[self.wire].decode(payload.decode() if text else payload)
        self.sent.append(message)
        for answer in self.answer(message) if self.answer is not None else ():
            self._incoming.put_nowait(answer)
            self.release()

    def fall_silent(self) -> None:
        """No more answers to Pings."""
        self._pongs = False

    async def ping(self) -> None:
        self.pings += 1
        if self._pongs:
            self.hear()

    async def pong(self) -> None:
        self.unasked_pongs += 1

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if self.closed_with is None:
            self.closed_with = (code, reason)
            self.release()
            self.end(code, reason, local=True)


class FakeDial:
    """Gives out connections, or raises errors, in the order of `script`; then `rest` for ever. Notes when it was asked."""

    def __init__(self, *script: Any, rest: Callable[[], Any] | None = None) -> None:
        self._script = list(script)
        self._rest = rest
        self.attempts: list[tuple[float, Wire]] = []

    async def __call__(self, endpoint: Endpoint, wire: Wire, max_size: int) -> Any:
        self.attempts.append((asyncio.get_running_loop().time(), wire))
        if not self._script and self._rest is None:
            await asyncio.Event().wait()
        result = self._script.pop(0) if self._script else self._rest() if self._rest is not None else None
        if isinstance(result, BaseException):
            raise result
        return result


async def until(condition: Callable[[], object], tries: int = 10_000) -> None:
    """Let other tasks run until `condition` holds, without letting time pass."""
    for _ in range(tries):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came true")


def rows(first: int, n: int = 1, *, value: float | None = None, **more: Sequence[Any]) -> Columns:
    """`n` five-minute candles from number `first` on; `close` is the number unless `value` is given."""
    if not n:
        return rows(first).take(np.array([], np.int64))
    numbers = range(first, first + n)
    data: dict[str, Any] = {
        "date": [START_MS + i * STEP_MS for i in numbers],
        "close": np.array([float(i) if value is None else value for i in numbers]),
    }
    return Columns.from_mapping(data | more)


def numbers(columns: Columns) -> list[int]:
    """The numbers of candles, the inverse of `rows`."""
    return [(int(date) - START_MS) // STEP_MS for date in columns.date_ms]


def welcome(**limits: int) -> dict[str, Any]:
    return {"type": "hub.welcome", "data": {"heartbeat_ms": 15000, "limits": {"message": 1 << 20, **limits}}}


Answer = Callable[[dict[str, Any]], Sequence[dict[str, Any]]]
Awaited = Awaitable[Any]
