"""hub.asgi.descriptors, and the protocol classes that use it."""

from __future__ import annotations

from typing import Any

import pytest

from hub.asgi import descriptors
from hub.asgi.descriptors import MAX_WAITING, RESERVED, Waiting, room_for
from tests.asgi.doubles import Peer


class Socket:
    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def test_the_oldest_that_waits_goes() -> None:
    waiting, sockets = Waiting(2), [Socket() for _ in range(4)]
    for socket in sockets[:2]:
        waiting.enter(socket)
    waiting.enter(sockets[0])
    assert not any(socket.aborted for socket in sockets)
    waiting.enter(sockets[2])
    assert [socket.aborted for socket in sockets] == [True, False, False, False]
    waiting.leave(sockets[1])
    waiting.leave(sockets[1])
    waiting.enter(sockets[3])
    assert [socket.aborted for socket in sockets] == [True, False, False, False]
    assert waiting.statistics() == {"waiting": 2, "limit": 2, "aborted": 1}


@pytest.mark.parametrize("files", [64, 200, 1024, 1 << 20])
def test_all_that_fits_fits_with_the_reserve(files: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "_open_files", lambda: files)
    room = room_for(10_000)
    assert 4 <= room.waiting <= MAX_WAITING
    assert 4 <= room.connections <= 10_000
    if files > RESERVED + 8:
        assert room.connections + room.waiting <= files - RESERVED


@pytest.mark.anyio
async def test_an_accepted_websocket_waits_no_more_and_a_refused_one_does() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": answers.pop()})
        await receive()

    waiting = Waiting(10)
    answers = ["websocket.close", "websocket.accept"]
    counts = []
    while answers:
        peer = Peer(app)
        peer.protocol._waiting = waiting
        waiting.enter(peer.transport)
        await peer.connect()
        counts.append(len(waiting))
        await peer.lose()
        assert len(waiting) == 0
    assert counts == [0, 1]
