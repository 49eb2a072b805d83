"""What clients deflate (permessage-deflate, RFC 7692), on a transport of the test's own: understood, bounded, refused when bad."""

from __future__ import annotations

import asyncio
import itertools
import logging
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.asgi.prepared import READ_BYTES
from hub.core.deflate import WINDOW_BITS

from .doubles import CLOSE, PING, Peer, client_frame
from .test_prepared import App, messages

pytestmark = pytest.mark.anyio

LIMIT = 1 << 20
TEXT, BINARY, CONT = 1, 2, 0
OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"


async def agreed(**settings: Any) -> tuple[App, Peer]:
    app = App()
    peer = Peer(app, {"ws_per_message_deflate": True, "ws_max_size": LIMIT} | settings)
    await peer.connect(extra=OFFER)
    assert b"permessage-deflate; server_no_context_takeover" in peer.taken()
    return app, peer


def rsv1(made: bytes) -> bytes:
    return bytes((made[0] | 0x40,)) + made[1:]


def deflated(payload: bytes) -> bytes:
    made = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (made.compress(payload) + made.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def close_code(written: bytes) -> int | None:
    """Of the Close frame at the end of what was written."""
    at = written.rfind(bytes((0x80 | CLOSE,)))
    return int.from_bytes(written[at + 2 : at + 4], "big") if at >= 0 else None


# RFC 7692, section 7.2.3.
HELLO = bytes.fromhex("f2 48 cd c9 c9 07 00")


@pytest.mark.parametrize(
    "payload",
    [HELLO, bytes.fromhex("00 05 00 fa ff 48 65 6c 6c 6f 00"), bytes.fromhex("f3 48 cd c9 c9 07 00 00"),
     bytes.fromhex("f2 48 05 00 00 00 ff ff ca c9 c9 07 00")],
    ids=["fixed Huffman codes", "no compression", "BFINAL", "two blocks"],
)  # fmt: skip
async def test_the_examples_of_the_rfc_are_understood(payload: bytes) -> None:
    app, peer = await agreed()
    await peer.send(rsv1(client_frame(TEXT, payload)) + client_frame(TEXT, b"plain"))
    await peer.send(rsv1(client_frame(TEXT, payload[:3], fin=False)) + client_frame(PING))
    await peer.send(client_frame(CONT, payload[3:]))
    assert messages(app) == ["Hello", "plain", "Hello"]
    assert peer.taken() == b"\x8a\x00"
    await peer.lose()


async def test_who_refers_to_a_message_before_is_closed() -> None:
    app, peer = await agreed()
    await peer.send(rsv1(client_frame(TEXT, HELLO)))
    # The example of section 7.2.3.2: Hello again, of the context that was agreed not to be kept.
    await peer.send(rsv1(client_frame(TEXT, bytes.fromhex("f2 00 11 00 00"))))
    assert messages(app) == ["Hello"]
    assert close_code(peer.taken()) == 1002
    await peer.lose()


async def test_every_message_begins_anew_and_leaves_nothing() -> None:
    app, peer = await agreed()
    for number in range(3):
        await peer.send(rsv1(client_frame(BINARY, deflated(b"%d" % number * 1000))))
        [extension] = peer.protocol.conn.extensions
        assert not hasattr(extension, "decoder")
        assert not hasattr(extension, "encoder")
    assert messages(app) == [b"%d" % number * 1000 for number in range(3)]
    await peer.lose()


@pytest.mark.parametrize(
    "frames",
    [
        [rsv1(client_frame(BINARY, HELLO, fin=False)), rsv1(client_frame(CONT, b""))],
        [rsv1(client_frame(PING, HELLO))],
        [bytes((0xA2,)) + client_frame(BINARY, HELLO)[1:]],
        [rsv1(client_frame(BINARY, b"\x07"))],
    ],
    ids=["a continuation says so again", "a ping", "another reserved bit", "a block of no type"],
)
async def test_what_breaks_the_rfc_is_closed(frames: list[bytes]) -> None:
    app, peer = await agreed()
    await peer.send(b"".join(frames))
    assert messages(app) == []
    assert close_code(peer.taken()) == 1002
    await peer.lose()


async def test_text_that_is_inflated_to_no_utf8_is_closed() -> None:
    _, peer = await agreed()
    await peer.send(rsv1(client_frame(TEXT, deflated(b"\xff" * 2000))))
    assert close_code(peer.taken()) == 1007
    await peer.lose()


@pytest.mark.parametrize("size", [LIMIT + 1, 200 << 20])
@pytest.mark.parametrize("fragments", [1, 2, 7])
async def test_what_inflates_beyond_a_message_is_too_big(size: int, fragments: int) -> None:
    app, peer = await agreed()
    payload = deflated(bytes(size))
    cuts = [len(payload) * i // fragments for i in range(fragments + 1)]
    pieces = [payload[start:end] for start, end in itertools.pairwise(cuts)]
    bomb = [
        client_frame(CONT if i else BINARY, piece, fin=i == fragments - 1) for i, piece in enumerate(pieces)
    ]
    bomb[0] = rsv1(bomb[0])
    await peer.send(b"".join(bomb))
    assert messages(app) == []
    assert close_code(peer.taken()) == 1009
    await peer.lose()


async def test_as_much_as_a_message_may_be_is_read() -> None:
    app, peer = await agreed()
    await peer.send(rsv1(client_frame(BINARY, deflated(bytes(LIMIT)))))
    assert [len(message) for message in messages(app)] == [LIMIT]
    await peer.lose()


async def test_one_turn_inflates_few_messages() -> None:
    app, peer = await agreed()
    app.hold = asyncio.Event()
    full = rsv1(client_frame(BINARY, deflated(bytes(LIMIT))))
    assert len(full) < 2000
    peer.protocol.data_received(full * (READ_BYTES // len(full)))
    assert 0 < peer.protocol.unread_bytes <= READ_BYTES + 2 * LIMIT
    app.hold.set()
    for _ in range(READ_BYTES // len(full)):
        await peer.loop.settle()
    assert [len(message) for message in messages(app)] == [LIMIT] * (READ_BYTES // len(full))
    await peer.lose()


# --- anything at all

PAYLOADS = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=300).map(deflated),
    st.integers(1, 4 * LIMIT).map(lambda size: deflated(bytes(size))),
    st.binary(max_size=3000).map(lambda noise: deflated(bytes(9000)) + noise),
)
FRAMES = st.lists(
    st.tuples(st.sampled_from([CONT, TEXT, BINARY, PING]), PAYLOADS, st.booleans(), st.integers(0, 7)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(FRAMES, st.integers(1, 5000))
def test_whatever_comes_costs_its_sender_at_most_the_connection(
    frames: list[tuple[int, bytes, bool, int]], cut: int
) -> None:
    sent = b""
    for opcode, payload, fin, reserved in frames:
        made = client_frame(opcode, payload, fin=fin)
        # Mostly RSV1 alone.
        sent += bytes((made[0] | (reserved << 4 if reserved > 5 else 0x40 * (reserved > 1)),)) + made[1:]

    async def run() -> None:
        app, peer = await agreed()
        for start in range(0, len(sent), cut):
            await peer.send(sent[start : start + cut])
            assert peer.protocol.unread_bytes <= READ_BYTES + 2 * LIMIT
        assert all(len(message) <= LIMIT for message in messages(app))
        assert close_code(peer.taken()) in (None, 1002, 1007, 1009)
        await peer.lose()

    asyncio.run(run())


NAMES = ["server_no_context_takeover", "client_no_context_takeover", "server_max_window_bits"]
PARAMETERS = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from(["client_max_window_bits", "client_max_window_bits=15", "client_max_window_bits=8"]),
    st.integers(0, 20).map("server_max_window_bits={}".format),
    st.sampled_from([
        'server_max_window_bits="12"', "server_max_window_bits=012", "server_max_window_bits=",
        "client_no_context_takeover=1", "x=y", "=", "", '"', ";", "\x00", "\t", "server_max_window_bits=+12",
    ]),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(PARAMETERS, max_size=4), min_size=1, max_size=3))
def test_an_offer_is_answered_in_one_way_or_not_at_all(offers: list[list[str]]) -> None:
    line = ", ".join("; ".join(["permessage-deflate", *offer]) for offer in offers)

    async def run() -> None:
        app = App()
        peer = Peer(app, {"ws_per_message_deflate": True})
        await peer.connect(extra=f"Sec-WebSocket-Extensions: {line}\r\n")
        head = peer.taken().decode()
        if not head.startswith("HTTP/1.1 101 "):
            assert head.startswith("HTTP/1.1 400 ")
            return
        answers = [h for h in head.split("\r\n") if h.startswith("Sec-WebSocket-Extensions: ")]
        assert app.outlet.deflates == bool(answers)
        for answer in answers:
            name, *parameters = answer.partition(": ")[2].split("; ")
            assert name == "permessage-deflate"
            assert set(parameters) >= {*NAMES[:2], f"{NAMES[2]}={WINDOW_BITS}"}
            # The client may be told of its own window only where it said that it can be.
            assert len(parameters) == 3 or "client_max_window_bits" in line
        await peer.lose()

    asyncio.run(run())


@pytest.mark.parametrize(
    "offer",
    ["server_max_window_bits", "server_max_window_bits=16", "server_max_window_bits=012", "client_max_window_bits=7",
     "server_no_context_takeover=1", "client_no_context_takeover; client_no_context_takeover", "unknown"],
)  # fmt: skip
async def test_an_offer_that_the_rfc_does_not_know_is_declined(offer: str) -> None:
    app = App()
    peer = Peer(app, {"ws_per_message_deflate": True})
    await peer.connect(extra=f"Sec-WebSocket-Extensions: permessage-deflate; {offer}\r\n")
    head = peer.taken()
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"Extensions" not in head
    assert not app.outlet.deflates
    await peer.lose()


async def test_nothing_is_logged_for_a_bad_offer(caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    peer = Peer(app, {"ws_per_message_deflate": True})
    with caplog.at_level(logging.INFO):
        await peer.connect(extra='Sec-WebSocket-Extensions: permessage-deflate; "\r\n')
    assert peer.taken().startswith(b"HTTP/1.1 400 ")
    assert caplog.records == []
