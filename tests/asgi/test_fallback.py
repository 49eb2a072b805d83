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
from hub.asgi.fallback import FallbackOutlet, specified, split
from hub.asgi.outlet import HIGH_WATER_BYTES
from hub.protocol.codec import frame

from .doubles import RecordingListener


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 300) | st.integers(65530, 65545))))
def test_split_undoes_joined_frames(messages: list[tuple[bool, int]]) -> None:
    joined = b"".join(frame(b"x" * size, text=text) for text, size in messages)
    assert [(text, len(payload)) for text, payload in split(joined)] == messages


DISCONNECT = {"type": "websocket.disconnect", "code": 1000}


class Server:
    """One connection of an ASGI server, which can stall or fail. Its client answers a Close."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.free = asyncio.Event()
        self.free.set()
        self.error: Exception | None = None
        self.events: asyncio.Queue[Any] = asyncio.Queue()

    async def send(self, message: Any) -> None:
        await self.free.wait()
        if self.error is not None:
            raise self.error
        self.sent.append(message)
        if message["type"] == "websocket.close":
            self.events.put_nowait(DISCONNECT)

    async def receive(self) -> Any:
        event = await self.events.get()
        if isinstance(event, Exception):
            raise event
        return event

    def outlet(self, silence_s: float = 1000.0) -> FallbackOutlet:
        return FallbackOutlet(specified(self.send), self.receive, silence_s=silence_s)


@pytest.fixture(autouse=True)
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has a little time at the end has none here."""
    monkeypatch.setattr(fallback, "LAST_S", 0.0)
    monkeypatch.setattr(fallback, "PAUSE_S", 0.0)


async def settle() -> None:
    for _ in range(20):
        await checkpoint()


@pytest.mark.anyio
async def test_frames_become_messages_by_opcode() -> None:
    server = Server()
    outlet = server.outlet()
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
    outlet = server.outlet()
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
    outlet = server.outlet()
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
    outlet = Server().outlet()
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
    outlet = server.outlet()
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
    outlet = server.outlet()
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
    outlet = server.outlet()
    async with outlet.running():
        outlet.write(frame(b"a", text=True))
    assert server.sent == []
    assert outlet.closed


@pytest.mark.anyio
async def test_cancellation_passes_through() -> None:
    server = Server()
    server.free.clear()
    listener = RecordingListener()
    outlet = server.outlet()
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
    server = Server()

    async def send(message: Any) -> None:
        if message["code"] < 3000:
            raise ValueError("invalid close code")
        await server.send(message)

    outlet = FallbackOutlet(specified(send), server.receive, silence_s=1000.0)
    async with outlet.running():
        outlet.close(code, "why")
    assert server.sent == [{"type": "websocket.close", "code": substitute, "reason": "why"}]


@pytest.mark.anyio
async def test_what_comes_after_the_end_is_taken_until_the_server_tells_it() -> None:
    # Unread, it would make the kernel answer with RST, and that would destroy the Close.
    server = Server()
    outlet = server.outlet()
    async with outlet.running():
        for _ in range(200):
            server.events.put_nowait({"type": "websocket.receive", "text": "late"})
        outlet.close(4508, "slow")
        await anyio.sleep_forever()
    assert server.sent == [{"type": "websocket.close", "code": 4508, "reason": "slow"}]
    assert server.events.empty()


@pytest.mark.anyio
async def test_a_client_that_takes_nothing_and_says_nothing_is_closed() -> None:
    server = Server()
    server.free.clear()
    listener = RecordingListener()
    outlet = server.outlet(silence_s=0.0)
    outlet.set_listener(listener)
    async with outlet.running():
        outlet.write(frame(b"a", text=True))
        await anyio.sleep_forever()
    assert outlet.closed
    assert listener.calls == ["lost"]
    assert outlet.unsent_bytes == 0


@pytest.mark.anyio
async def test_who_takes_all_is_not_silent_while_nothing_is_sent() -> None:
    server = Server()
    outlet = server.outlet(silence_s=0.01)
    async with outlet.running():
        outlet.write(frame(b"a", text=True))
        # By the loop's clock, beyond the silence that is put up with.
        await anyio.sleep(0.03)
        assert not outlet.closed


@pytest.mark.anyio
async def test_a_server_that_fails_to_receive_means_that_the_client_has_gone() -> None:
    server = Server()
    outlet = server.outlet()
    server.events.put_nowait({"type": "websocket.receive", "text": "a"})
    server.events.put_nowait(RuntimeError("the parser's own error"))
    assert await outlet.receive() == {"type": "websocket.receive", "text": "a"}
    assert await outlet.receive() == {"type": "websocket.disconnect", "code": 1006}


@pytest.mark.anyio
async def test_many_messages_let_the_loop_turn() -> None:
    server = Server()
    outlet = server.outlet()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while len(server.sent) < 1000:
            await checkpoint()
            turns += 1

    async with outlet.running(), anyio.create_task_group() as group:
        outlet.write(frame(b"a", text=True) * 1000)
        group.start_soon(count)
    assert turns >= 1000 // fallback.MESSAGES_PER_TURN
