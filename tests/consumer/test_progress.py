"""consumer.progress: what the kernel of this machine tells of a socket, and what is known where it does not."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from consumer import progress
from consumer.progress import Progress, Taken

pytestmark = pytest.mark.anyio

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


class Buffer:
    """A transport of which only the buffer is known."""

    def __init__(self) -> None:
        self.buffered = 0

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default


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
async def test_what_a_peer_takes_is_seen_and_what_it_leaves_too() -> None:
    async with connected() as (transport, peer):
        looking = Progress(transport)
        transport.write(b"x" * 1000)
        assert (await until(looking, peer, 0)) == (1000, 0, 0)
        # More than both kernels hold.
        transport.write(bytes(1_000_000))
        begun = looking.look()
        assert begun.total < 1_001_000
        assert 0 < begun.unsent <= begun.owed
        going = await until(looking, peer, 500_000)
        assert 1_001_000 > going.total > begun.total
        assert (await until(looking, peer, 0)) == (1_001_000, 0, 0)


@linux
async def test_a_socket_that_is_closed_tells_nothing_and_breaks_nothing() -> None:
    async with connected() as (transport, peer):
        looking = Progress(transport)
        transport.write(b"x")
        assert (await until(looking, peer, 0)).total == 1
        transport.abort()
        await asyncio.sleep(0)
        assert looking.look().total == 0


async def test_without_the_kernel_a_buffer_that_shrinks_is_progress() -> None:
    transport: Any = Buffer()
    looking = Progress(transport)
    assert looking.look() == (0, 0, 0)
    transport.buffered = 5000
    assert looking.look() == (0, 5000, 5000)
    transport.buffered = 2000
    assert looking.look() == (3000, 2000, 2000)
    transport.buffered = 9000
    assert looking.look() == (3000, 9000, 9000)


async def test_what_is_no_tcp_socket_tells_nothing() -> None:
    assert progress._told_by_kernel(object()) is None
    one, other = socket.socketpair()
    with one, other:
        assert progress._told_by_kernel(one) is None
