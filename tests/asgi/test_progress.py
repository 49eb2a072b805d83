"""hub.asgi.progress: what the kernel of this machine tells of a socket, and what is known where it does not."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from hub.asgi import progress
from hub.asgi.progress import Progress, Taken

from .doubles import FakeTransport

pytestmark = pytest.mark.anyio

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.WriteTransport, socket.socket]]:
    """A transport of asyncio with a small send buffer, and the peer's socket with a small receive buffer."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(server.getsockname())
        sock, _ = server.accept()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        _, writer = await asyncio.open_connection(sock=sock)
        peer.setblocking(False)
        try:
            yield writer.transport, peer
        finally:
            writer.transport.abort()


async def until(looking: Progress, peer: socket.socket, owed: int) -> Taken:
    """Read until so little is owed; only the kernel knows when it has told the other side."""
    while (taken := looking.look()).owed > owed:
        try:
            peer.recv(65536)
        except BlockingIOError:
            await asyncio.sleep(0.001)
    return taken


@linux
async def test_what_a_peer_acknowledges_is_seen() -> None:
    async with connected() as (transport, peer):
        looking = Progress(transport)
        transport.write(b"x" * 1000)
        taken = await until(looking, peer, 0)
        assert (taken.total, taken.unsent) == (1000, 0)
        # More than both kernels hold.
        transport.write(bytes(1_000_000))
        begun = looking.look()
        assert begun.total < 1_001_000
        assert 0 < begun.unsent <= begun.owed
        going = await until(looking, peer, 500_000)
        assert going.moves > begun.moves
        assert 1_001_000 > going.total > begun.total
        done = await until(looking, peer, 0)
        assert (done.total, done.unsent) == (1_001_000, 0)


@linux
async def test_a_socket_that_is_closed_tells_nothing_and_breaks_nothing() -> None:
    async with connected() as (transport, peer):
        looking = Progress(transport)
        transport.write(b"x")
        assert (await until(looking, peer, 0)).total == 1
        transport.abort()
        await asyncio.sleep(0)
        assert looking.look().total == 0


async def test_without_the_kernel_a_buffer_that_shrinks_is_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_told_by_kernel", lambda sock: None)
    transport = FakeTransport()
    looking = Progress(transport)
    assert looking.look() == (0, 0, 0, 0)
    transport.buffered = 5000
    assert looking.look() == (0, 0, 5000, 5000)
    transport.buffered = 2000
    assert looking.look() == (3000, 3000, 2000, 2000)
    transport.buffered = 9000
    assert looking.look() == (3000, 3000, 9000, 9000)


@pytest.mark.parametrize("family", [socket.AF_UNIX, None])
async def test_what_is_no_tcp_socket_tells_nothing(family: socket.AddressFamily | None) -> None:
    if family is None:
        assert progress._told_by_kernel(object()) is None
        return
    one, other = socket.socketpair(family)
    with one, other:
        assert progress._told_by_kernel(one) is None


async def test_under_tls_the_kernel_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tls(FakeTransport):
        def get_extra_info(self, name: str, default: object = None) -> object:
            return object() if name in ("socket", "sslcontext") else super().get_extra_info(name, default)

    monkeypatch.setattr(progress, "_told_by_kernel", lambda sock: Taken(9, 9, 9, 9) if sock else None)
    assert Progress(Tls()).look() == (0, 0, 0, 0)
