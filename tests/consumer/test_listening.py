"""consumer.listening: the same messages as the library's parser, however the stream is cut, and its word on all else."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close, Frame, Opcode

from consumer.listening import READY_BYTES, Listening

pytestmark = pytest.mark.anyio
MAX_SIZE = 70_000


def accept(request: bytes) -> bytes:
    """The answer to a handshake."""
    key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
    digest = hashlib.sha1(key.split(b":", 1)[1].strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )


@asynccontextmanager
async def sent(*pieces: bytes, end: bool = True) -> AsyncIterator[Listening]:
    """A connection to a server that sends these bytes, the first of them with its answer, and then ends or says nothing."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(accept(await reader.readuntil(b"\r\n\r\n")) + pieces[0])
        for piece in pieces[1:]:
            await writer.drain()
            # A read of its own.
            await asyncio.sleep(0.001)
            writer.write(piece)
        if end:
            writer.write_eof()
        with contextlib.suppress(ConnectionError):
            # Until its Close, which stands behind its Pongs.
            while b"\x88" not in (data := await reader.read(65536)) and data:
                pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        websocket: ClientConnection = await connect(
            f"ws://127.0.0.1:{port}/", create_connection=Listening, compression=None, max_size=MAX_SIZE, proxy=None,
            ping_interval=None, close_timeout=0.2,
        )  # fmt: skip
        assert isinstance(websocket, Listening)
        try:
            yield websocket
        finally:
            await websocket.close()


async def taken(websocket: Listening) -> tuple[list[str | bytes], int | None]:
    """All messages, and the code with which this side ended it, if it broke a rule."""
    messages: list[str | bytes] = []
    try:
        while True:
            messages.append(await websocket.next())
    except ConnectionClosed as closed:
        return messages, closed.sent.code if closed.sent is not None else None


def frame(payload: bytes, opcode: Opcode = Opcode.BINARY, *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=False)


async def test_messages_of_every_length_in_their_order() -> None:
    payloads = [b"x" * size for size in (0, 1, 125, 126, 127, 65535, 65536, 66000)]
    stream = b"".join(map(frame, payloads)) + frame("é".encode(), Opcode.TEXT)
    async with sent(stream) as websocket:
        assert await taken(websocket) == ([*payloads, "é"], None)


ANY = st.one_of(
    st.tuples(st.just("binary"), st.binary(max_size=300)),
    st.tuples(st.just("text"), st.text(max_size=80).map(str.encode)),
    st.tuples(st.just("ping"), st.binary(max_size=20)),
    st.tuples(st.just("fragments"), st.binary(max_size=300)),
)


def stream_of(parts: list[tuple[str, bytes]]) -> tuple[bytes, list[str | bytes]]:
    """The bytes, and the messages in them."""
    data, messages = b"", list[str | bytes]()
    for kind, payload in parts:
        if kind == "ping":
            data += frame(payload, Opcode.PING)
            continue
        messages.append(payload.decode() if kind == "text" else payload)
        if kind == "fragments":
            third = len(payload) // 3
            data += frame(payload[:third], fin=False) + frame(b"between", Opcode.PING)
            data += frame(payload[third : 2 * third], Opcode.CONT, fin=False)
            data += frame(payload[2 * third :], Opcode.CONT)
        else:
            data += frame(payload, Opcode.TEXT if kind == "text" else Opcode.BINARY)
    return data, messages


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ANY, max_size=12), st.lists(st.integers(0, 4000), max_size=6))
async def test_however_the_stream_is_cut(parts: list[tuple[str, bytes]], cuts: list[int]) -> None:
    data, messages = stream_of(parts)
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    pieces = [data[a:b] for a, b in itertools.pairwise(places)] or [b""]
    async with sent(*pieces) as websocket:
        assert await taken(websocket) == (messages, None)


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (b"\x82\x81\x00\x00\x00\x00x", 1002),
        (b"\xc2\x01x", 1002),
        (b"\x83\x01x", 1002),
        (b"\x80\x01x", 1002),
        (b"\x09\x00", 1002),
        (b"\x89\x7e\x00\x80" + bytes(128), 1002),
        (b"\x82\x7f" + (1 << 63).to_bytes(8, "big"), 1009),
        (b"\x82\x7f" + (MAX_SIZE + 1).to_bytes(8, "big"), 1009),
        (b"\x81\x01\xff", 1007),
    ],
)
async def test_what_breaks_a_rule_is_the_librarys_to_judge(broken: bytes, code: int) -> None:
    async with sent(frame(b"before") + broken + frame(b"behind"), end=False) as websocket:
        assert await taken(websocket) == ([b"before"], code)


async def test_a_close_comes_behind_what_was_sent_before() -> None:
    close = Frame(Opcode.CLOSE, Close(4508, "slow").serialize()).serialize(mask=False)
    async with sent(frame(b"a") + frame(b"b") + close) as websocket:
        assert await websocket.next() == b"a"
        assert websocket.take() == b"b"
        assert websocket.take() is None
        with pytest.raises(ConnectionClosed) as closed:
            await websocket.next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4508


async def test_who_waits_may_be_cancelled_without_a_loss() -> None:
    async with sent(b"", frame(b"late")) as websocket:
        waiting = asyncio.ensure_future(websocket.next())
        await asyncio.sleep(0)
        waiting.cancel()
        assert await taken(websocket) == ([b"late"], None)


async def test_many_pings_cost_no_recursion() -> None:
    async with sent(frame(b"", Opcode.PING) * 5000 + frame(b"then")) as websocket:
        assert await websocket.next() == b"then"


async def test_the_socket_is_not_read_beyond_what_was_taken() -> None:
    messages = 4000
    async with sent(frame(bytes(1000)) * messages, end=False) as websocket:
        first = await websocket.next()
        assert len(first) == 1000
        for _ in range(20):
            await asyncio.sleep(0.005)
        # One read of the transport brings at most 256 KiB.
        assert websocket._ready_bytes <= READY_BYTES + 256 * 1024
        count = 1
        while count < messages:
            await websocket.next()
            count += 1
