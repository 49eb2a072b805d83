"""The hub as an ASGI application that a server of others runs: its lifespan starts the hub and drains it.

Servers differ in what they do with websockets when they end, and none tells the application in time. hypercorn 0.18 waits for
them (3 s, on Python 3.12 and later without an end), then cancels them, and only then says `lifespan.shutdown`; granian 2.8 tells
each that its client has gone. So in the main thread the signals that end a server are heard too, beside the server's own handler,
and the drain begins with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from hub.asgi.handshake import refuse
from hub.protocol.errors import ConfigError, HandshakeRefused

__all__ = ["MountedApp", "Running"]

_NOT_STARTED = "the hub is not started: the server has to run the application's lifespan"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Running:
    """A hub between its start and its end: its application, and what begins its drain; idempotent, on the loop's thread."""

    app: ASGIApp
    begin_drain: Callable[[], None]


class MountedApp:
    """An ASGI application around a hub, for any asyncio server with lifespan.

    Guarantees: what `run` enters is left again in the same task, whatever ends the server; a request that comes before that or
    after it is refused with 503. A configuration that cannot be used ends the server's start with one line.

    Under an application of your own `lifespan` takes the place of the server's: `Starlette(routes=[Mount("/", app)],
    lifespan=app.lifespan)`.
    """

    def __init__(
        self, run: Callable[[], AbstractAsyncContextManager[Running]], trusted_proxies: tuple[str, ...] = ()
    ) -> None:
        self._run = run
        self._running: Running | None = None
        request: Any = self._request
        self._serve: Any = request
        if trusted_proxies:
            # uvicorn has it around the application where it is the server.
            self._serve = ProxyHeadersMiddleware(request, list(trusted_proxies))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await self._serve(scope, receive, send)

    @contextlib.asynccontextmanager
    async def lifespan(self, _parent: object = None) -> AsyncIterator[None]:
        """The hub's life: it serves inside, and has drained and stopped afterwards.

        Raises:
            ConfigError: the configuration cannot be used, or this hub runs already, or the loop is not asyncio's.
        """
        loop = _asyncio_loop()
        try:
            async with self._run() as running:
                self._running = running
                with _heard(loop, running.begin_drain):
                    yield
        finally:
            self._running = None

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with contextlib.AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self.lifespan())
            except ConfigError as error:
                await send({"type": "lifespan.startup.failed", "message": f"tradewire: {error}"})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        running = self._running
        if running is not None:
            await running.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await refuse(dict(scope), send, HandshakeRefused(503, _NOT_STARTED, retry_after=1))
        else:
            await send({"type": "http.response.start", "status": 503, "headers": _PLAIN})
            await send({"type": "http.response.body", "body": f"{_NOT_STARTED}\n".encode()})


_PLAIN = [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", b"1")]


def _asyncio_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigError("", "the hub runs on asyncio only: choose the server's asyncio worker") from None


@contextlib.contextmanager
def _heard(loop: asyncio.AbstractEventLoop, then: Callable[[], None]) -> Iterator[None]:
    """While inside, `then` is called on the loop when a signal comes that the server handles, beside its handler.

    A signal that nobody handles stays as it is, and so do all of them outside the main thread.
    """
    with contextlib.ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                _hear(number, lambda: loop.call_soon_threadsafe(then), stack)
        yield


def _hear(number: signal.Signals, told: Callable[[], object], stack: contextlib.ExitStack) -> None:
    before = signal.getsignal(number)
    if not callable(before):
        return

    def heard(signum: int, frame: FrameType | None) -> None:
        told()
        before(signum, frame)

    def unhear() -> None:
        if signal.getsignal(number) is heard:
            signal.signal(number, before)

    signal.signal(number, heard)
    # asyncio hears of it by its wakeup descriptor, whoever the handler is; its own handler is empty.
    signal.siginterrupt(number, False)
    stack.callback(unhear)
