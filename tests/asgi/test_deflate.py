"""permessage-deflate over a real uvicorn: what is agreed on, and what clients that deflate may send."""

from __future__ import annotations

import zlib

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from hub.core.deflate import Deflater
from hub.protocol.codec import frame
from tests.asgi.test_real_server import closed, serving

from .doubles import client_frame, request

pytestmark = pytest.mark.anyio


async def agreed(offer: str | None, *, deflate: bool = True) -> str:
    """The hub's answer to an offer; empty: none."""
    extra = "" if offer is None else f"Sec-WebSocket-Extensions: {offer}\r\n"
    async with serving(deflate=deflate) as hub:
        reader, writer = await hub.raw(request(extra=extra))
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.transport.abort()
        assert head.startswith("HTTP/1.1 101")
        answers = [
            line for line in head.split("\r\n") if line.lower().startswith("sec-websocket-extensions:")
        ]
        return answers[0].split(":", 1)[1].strip() if answers else ""


ALWAYS = {"server_no_context_takeover", "client_no_context_takeover", "server_max_window_bits=12"}


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
        "permessage-deflate; server_max_window_bits=15",
        "permessage-deflate; server_max_window_bits=9, permessage-deflate",
        "x-unknown, permessage-deflate; server_no_context_takeover",
    ],
)
async def test_no_context_is_kept_whatever_is_offered(offer: str) -> None:
    name, *parameters = (await agreed(offer)).split("; ")
    assert name == "permessage-deflate"
    assert set(parameters) - {"client_max_window_bits=12"} == ALWAYS


@pytest.mark.parametrize(
    "offer",
    [None, "permessage-deflate; server_max_window_bits=11", "permessage-deflate; server_max_window_bits=7", "x-unknown",
     "permessage-deflate; window=4"],
)  # fmt: skip
async def test_what_cannot_be_shared_is_declined(offer: str | None) -> None:
    assert await agreed(offer) == ""


async def test_it_is_off_by_default() -> None:
    assert await agreed("permessage-deflate", deflate=False) == ""


@pytest.mark.parametrize("bits", [12, 15])
async def test_a_client_of_websockets_reads_what_is_shared(bits: int) -> None:
    factory = ClientPerMessageDeflateFactory(server_max_window_bits=bits, client_max_window_bits=True)
    deflater = Deflater(64, 1 << 20)
    async with serving(deflate=True) as hub, hub.connect(compression=None, extensions=[factory]) as ws:
        await ws.recv()
        [outlet] = hub.node.outlets
        assert outlet.deflates
        said = ['{"data":"%s"}' % ("x" * size) for size in (10, 100, 5000, 60_000)]
        for text in said:
            outlet.write(deflater.frame(frame(text.encode(), text=True)))
        assert [await ws.recv() for _ in said] == said
        # What it deflates in turn is understood.
        await ws.send('{"type":"ping","id":1,"data":"%s"}' % ("y" * 5000))
        assert await ws.recv() == '{"type":"hub.reply","id":1,"ok":true}'
        await ws.send('{"type":"ping","id":2}')
        assert await ws.recv() == '{"type":"hub.reply","id":2,"ok":true}'


async def test_who_did_not_agree_may_not_deflate() -> None:
    async with serving(deflate=True) as hub, hub.connect(compression=None) as ws:
        await ws.recv()
        assert not hub.node.outlets[0].deflates
        ws.transport.write(bytes((0xC1,)) + client_frame(1, b"{}")[1:])
        assert (await closed(ws))[0] == 1002


def deflated(payload: bytes) -> bytes:
    made = zlib.compressobj(9, zlib.DEFLATED, -12)
    return (made.compress(payload) + made.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


@pytest.mark.parametrize(
    ("payload", "code"), [(deflated(bytes(200 << 20)), 1009), (b"\xff\xff\xff no deflate", 1002)]
)
async def test_a_bomb_and_rubbish_cost_their_sender_the_connection(payload: bytes, code: int) -> None:
    async with serving(deflate=True) as hub, hub.connect(compression="deflate") as ws, hub.connect() as other:
        await ws.recv()
        await other.recv()
        bomb = client_frame(2, payload)
        ws.transport.write(bytes((bomb[0] | 0x40,)) + bomb[1:])
        assert (await closed(ws))[0] == code
        await other.send('{"type":"ping","id":1}')
        assert await other.recv() == '{"type":"hub.reply","id":1,"ok":true}'
