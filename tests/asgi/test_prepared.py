"""hub.asgi.prepared against a transport and a clock of the test's own."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from hub.asgi import prepared, progress
from hub.asgi.outlet import CLOSE_TIMEOUT_S, EXTENSION, HIGH_WATER_BYTES
from hub.asgi.prepared import ABSENT_GRACE_S, FRAGMENTS_PER_MESSAGE, check_uvicorn
from hub.asgi.progress import Taken
from hub.protocol.codec import close_frame, frame
from hub.protocol.errors import ConfigError

from .doubles import CLOSE, PING, PONG, Lines, Peer, RecordingListener, client_frame, text

pytestmark = pytest.mark.anyio


class App:
    """Accepts and keeps what it receives; `hold` stops it from receiving."""

    def __init__(self) -> None:
        self.scope: Any = None
        self.outlet: Any = None
        self.listener = RecordingListener()
        self.events: list[Any] = []
        self.hold: asyncio.Event | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope
        self.outlet = scope["extensions"][EXTENSION]
        self.early = self.outlet.write(b"too early")
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        self.outlet.set_listener(self.listener)
        while True:
            if self.hold is not None:
                await self.hold.wait()
            event = await receive()
            self.events.append(event)
            if event["type"] == "websocket.disconnect":
                return


@pytest.fixture
def lines() -> Iterator[list[str]]:
    handler = Lines()
    loggers = [logging.getLogger(name) for name in ("", "uvicorn", "uvicorn.error", "hub")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    logging.getLogger().addHandler(handler)
    yield handler.lines
    logging.getLogger().removeHandler(handler)
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


async def opened(**settings: Any) -> tuple[App, Peer]:
    app = App()
    peer = Peer(app, settings)
    await peer.connect()
    assert peer.taken().startswith(b"HTTP/1.1 101 ")
    return app, peer


def messages(app: App) -> list[Any]:
    return [e.get("text", e.get("bytes")) for e in app.events if e["type"] == "websocket.receive"]


async def test_write_goes_to_the_transport_as_it_is() -> None:
    app, peer = await opened()
    data = frame(b'{"type":"status"}', text=True)
    assert app.outlet.write(data)
    assert app.outlet.writable
    assert peer.taken() == data
    await peer.lose()


async def test_write_is_refused_before_the_upgrade() -> None:
    app, peer = await opened()
    assert app.early is False
    await peer.lose()


async def test_the_buffers_are_bounded() -> None:
    app, peer = await opened()
    assert peer.transport.limits == (0, None)
    peer.transport.stuck = True
    app.outlet.write(bytes(1000))
    assert app.outlet.unsent_bytes == 1000
    await peer.lose()


async def test_pause_inside_write_shows_in_its_answer() -> None:
    app, peer = await opened()
    peer.transport.stuck = True
    assert app.outlet.write(bytes(HIGH_WATER_BYTES))
    assert app.outlet.write(b"x") is False
    assert not app.outlet.writable
    assert app.listener.calls == []
    peer.transport.drain(20000)
    assert app.listener.calls == []
    peer.transport.drain()
    assert app.listener.calls == ["writable"]
    assert app.outlet.writable
    await peer.lose()


async def test_close_is_idempotent_and_the_last_that_is_written() -> None:
    app, peer = await opened()
    app.outlet.write(b"before")
    app.outlet.close(4508, "slow")
    app.outlet.close(1000, "again")
    assert app.outlet.write(b"after") is False
    assert app.outlet.closed
    await peer.loop.settle()
    assert peer.taken() == b"before" + close_frame(4508, "slow")
    assert app.events == [{"type": "websocket.disconnect", "code": 4508, "reason": "slow"}]
    assert app.listener.calls == []
    await peer.lose()
    assert app.listener.calls == ["lost"]


async def test_close_cuts_a_long_reason_within_a_character() -> None:
    app, peer = await opened()
    app.outlet.close(4400, "x" * 122 + "é")
    assert peer.taken() == close_frame(4400, "x" * 122)
    await peer.lose()


async def test_close_ends_when_the_peer_answers() -> None:
    app, peer = await opened()
    app.outlet.close(1000, "")
    await peer.send(client_frame(CLOSE, b"\x03\xe8"))
    assert peer.transport.closing
    assert not peer.transport.aborted
    await peer.lose()


async def test_close_aborts_when_the_peer_does_not_answer() -> None:
    app, peer = await opened()
    app.outlet.close(1000, "")
    await peer.loop.settle()
    assert not peer.transport.closing
    peer.loop.advance(CLOSE_TIMEOUT_S)
    assert peer.transport.aborted
    await peer.lose()


async def test_a_peer_that_closes_and_does_not_read_is_aborted() -> None:
    app, peer = await opened()
    peer.transport.stuck = True
    app.outlet.write(bytes(1000))
    await peer.send(client_frame(CLOSE, b"\x03\xe8"))
    assert app.listener.calls == ["lost"]
    assert app.outlet.write(b"after") is False
    peer.loop.advance(CLOSE_TIMEOUT_S)
    assert peer.transport.aborted
    await peer.lose()
    assert app.listener.calls == ["lost"]


async def test_a_peer_that_closes_is_aborted_though_the_app_is_busy() -> None:
    app, peer = await opened()
    app.hold = asyncio.Event()
    await peer.send(text("one") + client_frame(CLOSE, b"\x03\xe8"))
    assert messages(app) == ["one"]
    assert peer.state.tasks
    peer.loop.advance(CLOSE_TIMEOUT_S)
    assert peer.transport.aborted
    app.hold.set()
    await peer.lose()


async def test_nothing_is_written_to_a_transport_that_closes() -> None:
    app, peer = await opened()
    peer.transport.close()
    assert app.outlet.write(b"x") is False
    assert peer.taken() == b""
    await peer.lose()


async def test_what_waits_is_not_handled_after_close() -> None:
    app, peer = await opened()
    app.hold = asyncio.Event()
    await peer.send(text("one"))
    await peer.send(text("two") + text("three"))
    app.outlet.close(4529, "")
    app.hold.set()
    await peer.loop.settle()
    assert messages(app) == ["one"]
    assert peer.transport.reading
    await peer.lose()


async def test_a_lost_connection_is_told_once() -> None:
    app, peer = await opened()
    await peer.lose()
    assert app.listener.calls == ["lost"]
    assert app.events[-1]["type"] == "websocket.disconnect"
    assert app.outlet.write(b"x") is False
    assert app.outlet.unsent_bytes == 0
    app.outlet.close(1000, "")


async def test_a_listener_that_comes_late_is_told() -> None:
    app, peer = await opened()
    await peer.lose()
    late = RecordingListener()
    app.outlet.set_listener(late)
    assert late.calls == []
    await peer.loop.settle()
    assert late.calls == ["lost"]


async def test_text_and_binary_arrive() -> None:
    app, peer = await opened()
    await peer.send(text("é") + client_frame(2, b"\x81\xa1"))
    assert messages(app) == ["é", b"\x81\xa1"]
    await peer.lose()


async def test_a_message_in_many_reads_arrives() -> None:
    app, peer = await opened()
    whole = text("x" * 300_000)
    for at in range(0, len(whole), 50_000):
        await peer.send(whole[at : at + 50_000])
    assert messages(app) == ["x" * 300_000]
    await peer.lose()


async def test_fragments_are_joined_and_controls_go_between() -> None:
    app, peer = await opened()
    await peer.send(
        client_frame(1, b"a", fin=False) + client_frame(PING, b"p") + client_frame(0, b"b", fin=False)
    )
    await peer.send(client_frame(0, b"c"))
    assert messages(app) == ["abc"]
    assert peer.taken() == b"\x8a\x01p"
    await peer.lose()


@pytest.mark.parametrize("payload", [b"x", b""])
async def test_too_many_fragments_close_1009(payload: bytes) -> None:
    app, peer = await opened()
    await peer.send(client_frame(2, payload, fin=False))
    await peer.send(client_frame(0, payload, fin=False) * (FRAGMENTS_PER_MESSAGE - 1))
    assert peer.taken() == b""
    await peer.send(client_frame(0, payload))
    assert peer.taken()[2:4] == (1009).to_bytes(2, "big")
    assert app.events[-1]["code"] == 1009
    assert app.listener.calls == ["lost"]
    await peer.lose()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (client_frame(1, b"\xff\xfe"), 1007),
        (client_frame(1, bytes(2_000_000)), 1009),
        (client_frame(1, bytes(600_000), fin=False) + client_frame(0, bytes(600_000)), 1009),
        (b"\x81\x01x", 1002),
        (client_frame(3, b"x"), 1002),
        (client_frame(0, b"x"), 1002),
        (client_frame(CLOSE, b"x"), 1002),
        (client_frame(CLOSE, b"\x03\xe8\xff"), 1007),
    ],
)
async def test_a_broken_rule_has_its_code_and_no_traceback(data: bytes, code: int, lines: list[str]) -> None:
    app, peer = await opened()
    await peer.send(data)
    written = peer.taken()
    assert written[0] == 0x88
    assert int.from_bytes(written[2:4], "big") == code
    assert app.events[-1]["code"] == code
    assert not [line for line in lines if "Traceback" in line or line.startswith(("ERROR", "WARNING"))]
    await peer.lose()


async def test_messages_before_a_broken_rule_are_delivered() -> None:
    app, peer = await opened()
    await peer.send(text("good") + b"\x81\x01x")
    assert messages(app) == ["good"]
    await peer.lose()


async def test_after_a_broken_rule_the_rest_is_read_and_thrown_away() -> None:
    app, peer = await opened()
    await peer.send(b"\x81\x01x")
    assert peer.transport.eof
    assert not peer.transport.closing
    for _ in range(10):
        await peer.send(text("more"))
    assert peer.transport.reading
    assert messages(app) == []
    assert peer.protocol.unread_bytes == 0
    peer.loop.advance(CLOSE_TIMEOUT_S)
    assert peer.transport.aborted
    await peer.lose()


async def test_a_rule_broken_on_a_connection_that_is_reset_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel knows of the reset before the loop does."""
    app, peer = await opened()

    def not_connected() -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    monkeypatch.setattr(peer.transport, "write_eof", not_connected)
    await peer.send(b"\x81\x01x")
    assert peer.transport.aborted
    assert app.listener.calls == ["lost"]
    await peer.lose()


async def test_reading_stops_while_a_message_waits() -> None:
    app, peer = await opened()
    app.hold = asyncio.Event()
    await peer.send(text("one"))
    await peer.send(text("two"))
    await peer.send(text("three") * 1000)
    assert not peer.transport.reading
    assert app.outlet.unread_bytes == len("two") + len(text("three") * 1000)
    app.hold.set()
    await peer.loop.settle()
    for _ in range(40):
        await peer.loop.settle()
    assert messages(app) == ["one", "two"] + ["three"] * 1000
    assert app.outlet.unread_bytes == 0
    assert peer.transport.reading
    await peer.lose()


async def test_a_flood_of_frames_is_handled_a_budget_a_turn() -> None:
    _app, peer = await opened()
    peer.protocol.data_received(client_frame(PING) * 40_000)
    most = prepared.FRAMES_PER_TURN + prepared.PIECE_BYTES // 6 + 1
    assert 0 < len(peer.taken()) // 2 <= most
    assert not peer.transport.reading
    peer.loop.turn()
    assert 0 < len(peer.taken()) // 2 <= most
    for _ in range(20):
        await peer.loop.settle()
    assert peer.transport.reading
    await peer.lose()


async def test_pings_of_a_peer_that_does_not_read_cost_one_pong() -> None:
    app, peer = await opened()
    peer.transport.stuck = True
    app.outlet.write(bytes(HIGH_WATER_BYTES + 1))
    peer.taken()
    for n in range(1000):
        await_data = client_frame(PING, b"%04d" % n)
        peer.protocol.data_received(await_data)
    assert peer.taken() == b""
    peer.transport.drain()
    assert peer.taken() == b"\x8a\x040999"
    await peer.lose()


async def test_frames_before_the_upgrade_wait() -> None:
    release = asyncio.Event()
    got: list[Any] = []

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await release.wait()
        await send({"type": "websocket.accept"})
        got.append(await receive())

    peer = Peer(slow)
    await peer.connect()
    await peer.send(text("early") + b"\x81\x01x")
    assert peer.taken() == b""
    release.set()
    await peer.loop.settle()
    assert got == [{"type": "websocket.receive", "text": "early"}]
    await peer.lose()


async def test_an_unfinished_handshake_is_dropped() -> None:
    async def never(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()

    peer = Peer(never)
    await peer.connect()
    peer.loop.advance(prepared.HANDSHAKE_TIMEOUT_S)
    assert peer.transport.aborted
    await peer.lose()


async def test_a_finished_handshake_is_not_dropped() -> None:
    _app, peer = await opened(ws_ping_interval=1000.0)
    peer.loop.advance(prepared.HANDSHAKE_TIMEOUT_S * 2)
    assert not peer.transport.closing
    await peer.lose()


async def test_a_request_that_is_no_handshake_is_answered() -> None:
    app = App()
    peer = Peer(app)
    await peer.send(b"POST /api/v1/message/ws HTTP/1.1\r\nHost: hub\r\nContent-Length: 3\r\n\r\nabc")
    assert peer.taken().startswith(b"HTTP/1.1 4")
    assert app.scope is None
    await peer.lose()


async def test_a_request_with_too_many_headers_is_answered() -> None:
    peer = Peer(App())
    await peer.connect(extra="".join(f"X-{n}: y\r\n" for n in range(300)))
    assert peer.taken().startswith(b"HTTP/1.1 4")
    await peer.lose()


@pytest.mark.parametrize("status", [400, 403, 429, 503])
async def test_a_refusal_logs_no_error_and_no_query(status: int, lines: list[str]) -> None:
    async def refusing(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert scope["query_string"] == b"token=canary-7f31"
        await send(
            {"type": "websocket.http.response.start", "status": status, "headers": [(b"retry-after", b"7")]}
        )
        await send({"type": "websocket.http.response.body", "body": b"no\n"})

    peer = Peer(refusing)
    await peer.connect(extra="Authorization: Bearer canary-7f31\r\n")
    written = peer.taken().lower()
    assert written.startswith(b"http/1.1 %d " % status)
    assert b"retry-after: 7\r\n" in written
    assert peer.transport.closing
    assert any(str(status) in line for line in lines)
    assert not [line for line in lines if line.startswith(("ERROR", "WARNING"))]
    assert not [line for line in lines if "canary" in line]
    await peer.lose()


async def test_no_line_holds_the_query_or_what_was_said(lines: list[str]) -> None:
    app, peer = await opened()
    await peer.send(text("canary-7f31"))
    app.outlet.write(frame(b"canary-7f31", text=True))
    await peer.lose()
    assert any("/api/v1/message/ws" in line for line in lines)
    assert not [line for line in lines if "canary" in line]


async def test_an_app_that_fails_ends_the_connection(lines: list[str]) -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("bug")

    peer = Peer(failing)
    await peer.connect()
    assert peer.taken().startswith(b"HTTP/1.1 500 ")
    assert peer.transport.closing
    await peer.lose()


async def test_a_cancelled_app_logs_no_traceback(lines: list[str]) -> None:
    _app, peer = await opened()
    for task in list(peer.state.tasks):
        task.cancel()
    await peer.loop.settle()
    assert peer.transport.aborted
    assert not [line for line in lines if line.startswith("ERROR")]
    await peer.lose()


async def test_ordinary_sends_work_too() -> None:
    async def ordinary(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "tradewire.v2.json"})
        await send({"type": "websocket.send", "text": "hi"})
        await send({"type": "websocket.close", "code": 1000})

    peer = Peer(ordinary)
    await peer.connect()
    written = peer.taken()
    assert b"Sec-WebSocket-Protocol: tradewire.v2.json\r\n" in written
    assert written.endswith(frame(b"hi", text=True) + close_frame(1000))
    peer.loop.advance(CLOSE_TIMEOUT_S)
    assert peer.transport.aborted
    await peer.lose()


async def test_silence_is_pinged_and_then_closed() -> None:
    app, peer = await opened()
    peer.loop.advance(19.9)
    assert peer.taken() == b""
    peer.loop.advance(0.2)
    assert peer.taken() == b"\x89\x00"
    peer.loop.advance(9.7)
    assert peer.taken() == b""
    peer.loop.advance(0.5)
    assert peer.taken() == close_frame(4512, "no pong in time")
    assert app.listener.calls == ["lost"]
    await peer.loop.settle()
    assert app.events[-1]["code"] == 4512
    peer.loop.advance(ABSENT_GRACE_S)
    assert peer.transport.aborted
    await peer.lose()


async def test_any_bytes_end_the_silence() -> None:
    app, peer = await opened()
    for _ in range(5):
        peer.loop.advance(20.1)
        await peer.send(client_frame(PONG))
    peer.loop.advance(15)
    assert app.listener.calls == []
    await peer.lose()


async def test_what_the_hub_does_not_read_is_no_silence() -> None:
    app, peer = await opened()
    app.hold = asyncio.Event()
    for _ in range(3):
        await peer.send(text("m"))
    assert not peer.transport.reading
    peer.loop.advance(500)
    assert app.listener.calls == []
    app.hold.set()
    await peer.loop.settle()
    assert peer.transport.reading
    peer.loop.advance(500)
    assert app.listener.calls == ["lost"]
    await peer.lose()


async def test_a_buffer_that_drains_is_no_silence() -> None:
    app, peer = await opened()
    peer.transport.stuck = True
    for _ in range(6):
        app.outlet.write(bytes(HIGH_WATER_BYTES + 1))
        peer.loop.advance(9)
        peer.transport.drain()
    assert "lost" not in app.listener.calls
    await peer.lose()


class Kernel:
    """What a kernel tells of a socket whose peer takes `rate` bytes a second of a backlog."""

    def __init__(self, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken = Taken(0, 0, 0, 0)
        self._loop = peer.loop
        monkeypatch.setattr(progress, "_told_by_kernel", lambda sock: self.taken)

    def drain(self, rate: int, seconds: int) -> None:
        for _ in range(seconds):
            self._loop.advance(1)
            moves, total, owed, _ = self.taken
            size = min(rate, owed)
            self.taken = Taken(moves + (size > 0), total + size, owed - size, owed - size)


async def test_a_ping_behind_a_backlog_on_a_slow_link_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    app, peer = await opened()
    kernel = Kernel(peer, monkeypatch)
    kernel.taken = Taken(1, 300, 400_000, 400_000)
    kernel.drain(8000, 50)
    assert peer.taken() == b"\x89\x00"
    assert app.listener.calls == []
    # It was delivered 30 s after it was sent, and is answered.
    await peer.send(client_frame(PONG))
    kernel.drain(8000, 20)
    assert app.listener.calls == []
    await peer.lose()


@pytest.mark.parametrize("left", [0, 100_000])
async def test_a_peer_that_takes_nothing_more_is_closed(
    left: int, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    app, peer = await opened()
    kernel = Kernel(peer, monkeypatch)
    kernel.taken = Taken(1, 300, 240_000 + left, 240_000 + left)
    kernel.drain(8000, 30)
    kernel.drain(0, 12)
    assert app.listener.calls == ["lost"]
    assert peer.taken().endswith(close_frame(4512, "no pong in time"))
    assert any("closed 127.0.0.1:50000 with 4512: no pong in time" in line for line in lines)
    await peer.lose()


async def test_who_is_neither_read_nor_takes_anything_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    app, peer = await opened()
    kernel = Kernel(peer, monkeypatch)
    app.hold = asyncio.Event()
    for _ in range(3):
        await peer.send(text("m"))
    assert not peer.transport.reading
    kernel.taken = Taken(1, 300, 0, 0)
    kernel.drain(0, 500)
    assert app.listener.calls == []
    kernel.taken = Taken(1, 300, 1000, 1000)
    kernel.drain(0, 60)
    assert app.listener.calls == ["lost"]
    app.hold.set()
    await peer.lose()


async def test_an_outlet_tells_whether_its_peer_takes_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    app, peer = await opened()
    kernel = Kernel(peer, monkeypatch)
    kernel.taken = Taken(7, 300, 0, 0)
    assert app.outlet.moves == 7
    await peer.lose()


async def test_shutdown_closes_1012_and_does_not_wait_long() -> None:
    app, peer = await opened()
    peer.protocol.shutdown()
    assert peer.taken() == close_frame(1012, "retry_after_ms=5000")
    assert app.listener.calls == ["lost"]
    peer.loop.advance(prepared.SHUTDOWN_GRACE_S)
    assert peer.transport.aborted
    await peer.lose()


async def test_shutdown_after_a_drain_writes_nothing_more() -> None:
    app, peer = await opened()
    app.outlet.close(1012, "retry_after_ms=100")
    peer.taken()
    peer.protocol.shutdown()
    assert peer.taken() == b""
    peer.loop.advance(prepared.SHUTDOWN_GRACE_S)
    assert peer.transport.aborted
    await peer.lose()


async def test_shutdown_in_a_handshake_answers_503(lines: list[str]) -> None:
    release = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await release.wait()
        await send({"type": "websocket.accept"})

    peer = Peer(slow)
    await peer.connect()
    peer.protocol.shutdown()
    written = peer.taken()
    assert written.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 5\r\n" in written
    release.set()
    await peer.loop.settle()
    assert peer.taken() == b""
    assert not [line for line in lines if line.startswith("ERROR")]
    await peer.lose()


async def test_a_peer_that_leaves_before_accept_logs_no_error(lines: list[str]) -> None:
    release = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await release.wait()
        await send({"type": "websocket.accept"})

    peer = Peer(slow)
    await peer.connect()
    peer.transport.close()
    release.set()
    await peer.loop.settle()
    assert peer.taken() == b""
    assert not [line for line in lines if line.startswith("ERROR")]
    await peer.lose()


_message = st.tuples(st.sampled_from([1, 2]), st.lists(st.integers(0, 3000), min_size=1, max_size=5))


@given(st.lists(_message, max_size=12), st.integers(1, 9000), st.booleans())
@settings(max_examples=50)
def test_messages_do_not_depend_on_where_reads_end(
    sent: list[tuple[int, list[int]]], step: int, pinged: bool
) -> None:
    data = b"".join(
        client_frame(opcode if at == 0 else 0, b"x" * size, fin=at == len(sizes) - 1)
        + (client_frame(PING, b"p") if pinged else b"")
        for opcode, sizes in sent
        for at, size in enumerate(sizes)
    )

    async def run() -> None:
        app, peer = await opened()
        for at in range(0, len(data), step):
            peer.protocol.data_received(data[at : at + step])
        await peer.loop.settle()
        assert [len(m) for m in messages(app)] == [sum(sizes) for _, sizes in sent]
        assert [isinstance(m, str) for m in messages(app)] == [opcode == 1 for opcode, _ in sent]
        assert peer.taken() == b"\x8a\x01p" * (pinged * sum(len(sizes) for _, sizes in sent))
        await peer.lose()

    asyncio.run(run())


async def test_eof_of_the_peer_ends_the_writing() -> None:
    app, peer = await opened()
    peer.protocol.eof_received()
    assert app.listener.calls == ["lost"]
    assert app.outlet.write(b"x") is False
    await peer.lose()


def test_check_uvicorn_accepts_what_is_installed() -> None:
    check_uvicorn()


def test_check_uvicorn_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(WebSocketsSansIOProtocol, "handle_parser_exception")
    with pytest.raises(ConfigError, match=r"^uvicorn .* \(no handle_parser_exception\)"):
        check_uvicorn()
