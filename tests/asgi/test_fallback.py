"""hub.asgi.fallback: splitting frames and the writer over ordinary sends."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from hub.asgi import fallback
from hub.asgi.fallback import FallbackOutlet, split
from hub.asgi.outlet import HIGH_WATER_BYTES
from hub.protocol.codec import frame

from .doubles import RecordingListener


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 300) | st.integers(65530, 65545))))
def test_split_undoes_joined_frames(messages: list[tuple[bool, int]]) -> None:
    joined = b"".join(frame(b"x" * size, text=text) for text, size in messages)
    assert [(text, len(payload)) for text, payload in split(joined)] == messages


class Server:
    """The send side of an ASGI server, which can stall or fail."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.free = asyncio.Event()
        self.free.set()
        self.error: Exception | None = None

    async def send(self, message: Any) -> None:
        await self.free.wait()
        if self.error is not None:
            raise self.error
        self.sent.append(message)


async def settle() -> None:
    for _ in range(20):
        await checkpoint()


@pytest.mark.anyio
async def test_frames_become_messages_by_opcode() -> None:
    server = Server()
    outlet = FallbackOutlet(server.send)
    async with outlet.running():
        assert outlet.write(frame("é".encode(), text=True) + frame(b"\x81", text=False))
        await settle()
        assert outlet.unsent_bytes == 0
    assert server.sent == [
        {"type": "websocket.send", "text": "é"},
        {"type": "websocket.send", "bytes": b"\x81"},
    ]


@pytest.mark.anyio
async def test_the_buffer_has_a_high_and_a_low_water_mark() -> None:
    server = Server()
    server.free.clear()
    listener = RecordingListener()
    outlet = FallbackOutlet(server.send)
    outlet.set_listener(listener)
    async with outlet.running():
        data = frame(bytes(16_000), text=False)
        writes = 1
        while outlet.write(data):
            writes += 1
        assert not outlet.writable
        assert HIGH_WATER_BYTES < outlet.unsent_bytes <= HIGH_WATER_BYTES + len(data)
        assert listener.calls == []
        assert outlet.moves == 0
        server.free.set()
        await settle()
        assert outlet.moves == writes
        assert listener.calls == ["writable"]
        assert outlet.writable
    assert len(server.sent) == writes


@pytest.mark.anyio
async def test_close_goes_behind_what_was_written() -> None:
    server = Server()
    server.free.clear()
    outlet = FallbackOutlet(server.send)
    async with outlet.running():
        outlet.write(frame(b"a", text=True))
        outlet.close(4508, "slow" * 50)
        outlet.close(1000, "again")
        assert outlet.write(frame(b"b", text=True)) is False
        assert outlet.closed
        server.free.set()
    assert server.sent == [
        {"type": "websocket.send", "text": "a"},
        {"type": "websocket.close", "code": 4508, "reason": ("slow" * 50)[:123]},
    ]


@pytest.mark.anyio
async def test_close_ends_a_body_that_waits() -> None:
    outlet = FallbackOutlet(Server().send)
    reached = False
    async with outlet.running():
        outlet.close(1000, "")
        await anyio.sleep_forever()
        reached = True
    assert not reached


@pytest.mark.anyio
async def test_close_gives_up_on_a_server_that_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fallback, "CLOSE_TIMEOUT_S", 0.0)
    server = Server()
    server.free.clear()
    listener = RecordingListener()
    outlet = FallbackOutlet(server.send)
    outlet.set_listener(listener)
    async with outlet.running():
        outlet.write(frame(b"a", text=True))
        outlet.close(1000, "")
        await anyio.sleep_forever()
    assert listener.calls == ["lost"]
    assert outlet.unsent_bytes == 0


@pytest.mark.anyio
@pytest.mark.parametrize("error", [OSError(), RuntimeError("closed")])
async def test_a_failing_send_means_lost(error: Exception) -> None:
    server = Server()
    server.error = error
    listener = RecordingListener()
    outlet = FallbackOutlet(server.send)
    outlet.set_listener(listener)
    async with outlet.running():
        outlet.write(frame(b"a", text=True))
        await anyio.sleep_forever()
    assert listener.calls == ["lost"]
    assert outlet.write(b"x") is False


@pytest.mark.anyio
async def test_a_body_that_ends_drops_the_rest() -> None:
    server = Server()
    server.free.clear()
    outlet = FallbackOutlet(server.send)
    async with outlet.running():
        outlet.write(frame(b"a", text=True))
    assert server.sent == []
    assert outlet.closed


@pytest.mark.anyio
async def test_cancellation_passes_through() -> None:
    server = Server()
    server.free.clear()
    listener = RecordingListener()
    outlet = FallbackOutlet(server.send)
    outlet.set_listener(listener)
    with anyio.CancelScope() as scope:
        async with outlet.running():
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert listener.calls == ["lost"]


@pytest.mark.anyio
@pytest.mark.parametrize(("code", "substitute"), [(1007, 4400), (1012, 4500)])
async def test_a_server_that_cannot_send_a_code_sends_one_of_the_same_action(
    code: int, substitute: int
) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        if message["code"] < 3000:
            raise ValueError("invalid close code")
        sent.append(message)

    outlet = FallbackOutlet(send)
    async with outlet.running():
        outlet.close(code, "why")
    assert sent == [{"type": "websocket.close", "code": substitute, "reason": "why"}]
