"""A TCP proxy between the parties of a crash test: it resets, goes silent, or loses what the hub says. In a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

__all__ = ["Proxy"]

T = TypeVar("T")
_RESET = struct.pack("ii", 1, 0)


class _Link:
    """One connection through the proxy: a client's socket and the hub's."""

    def __init__(self, client: asyncio.StreamWriter, hub: asyncio.StreamWriter) -> None:
        self.writers = (client, hub)

    def reset(self) -> None:
        """End both sides with RST: nothing that was under way arrives."""
        for writer in self.writers:
            sock: socket.socket | None = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                if sock is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


class Proxy:
    """Forwards `port` of 127.0.0.1 to `target`. The faults may be made from any thread.

    `accepted` has the moments (monotonic) at which connections came. `lost` counts the bytes of the hub that `mute` threw away.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.accepted: list[float] = []
        self.lost = 0
        self._muted = False
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._open: asyncio.Event
        self._server: asyncio.Server

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def reset(self) -> int:
        """Reset every connection; how many."""
        return self._do(self._reset())

    def partition(self) -> None:
        """Forward nothing in either direction, and close nothing: new connections are taken and stay silent too."""
        self._do(self._set(False))

    def heal(self) -> None:
        """Forward again, what waited first."""
        self._do(self._set(True))

    def mute(self, muted: bool = True) -> None:
        """Throw away what the hub says, while it hears everything: acknowledgements are lost."""
        self._muted = muted

    def _do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    async def _start(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        self._server.close()
        await self._reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _reset(self) -> int:
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    async def _set(self, open_: bool) -> None:
        if open_:
            self._open.set()
        else:
            self._open.clear()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted.append(time.monotonic())
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link: _Link | None = None
        try:
            await self._open.wait()
            hub_reader, hub_writer = await asyncio.open_connection("127.0.0.1", self.target)
            link = _Link(writer, hub_writer)
            self._links.add(link)
            pumps = [
                asyncio.ensure_future(self._pump(reader, hub_writer, from_hub=False)),
                asyncio.ensure_future(self._pump(hub_reader, writer, from_hub=True)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass
        finally:
            if link is not None:
                self._links.discard(link)
                link.reset()
            else:
                writer.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_hub: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._open.wait()
                if from_hub and self._muted:
                    self.lost += len(data)
                    continue
                writer.write(data)
                await writer.drain()
