"""hub.core.deflate: frames deflated once for all who negotiated it."""

from __future__ import annotations

import os
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core import deflate
from hub.core.deflate import Deflater
from hub.core.session import Session
from hub.protocol.codec import Wire, frame, payload_of
from hub.protocol.messages import FrameKey
from hub.protocol.principal import Principal
from tests.core.doubles import Rig, rows
from tests.core.model import decode, frames_of


def inflated(deflated: bytes) -> bytes:
    """The frame that a client makes of it (RFC 7692 section 7.2.2)."""
    if not deflated[0] & 0x40:
        return deflated
    inflate = zlib.decompressobj(-deflate.WINDOW_BITS)
    payload = inflate.decompress(payload_of(deflated) + b"\x00\x00\xff\xff") + inflate.flush()
    return frame(payload, text=deflated[0] & 0x0F == 1)


def text(size: int) -> bytes:
    return frame(b'{"a":1.5}' * (size // 9), text=True)


@given(st.binary(max_size=3000), st.booleans())
def test_what_is_inflated_is_what_was_deflated(payload: bytes, is_text: bool) -> None:
    plain = frame(payload, text=is_text)
    made = Deflater(1, 1 << 20).frame(plain)
    assert inflated(made) == plain
    assert len(made) <= len(plain)


def test_a_frame_is_deflated_once() -> None:
    deflater, plain = Deflater(100, 1 << 20), text(5000)
    made = deflater.frame(plain)
    assert made[0] == 0xC1
    assert deflater.frame(plain) is made
    assert deflater.frames == 1
    assert deflater.saved_bytes == len(plain) - len(made)


def test_what_is_small_or_gains_nothing_stays_as_it_is() -> None:
    deflater = Deflater(100, 1 << 20)
    small, noise = text(90), frame(os.urandom(1000), text=False)
    assert deflater.frame(small) is small
    assert deflater.frame(noise) is noise
    assert deflater.frame(noise) is noise
    assert deflater.frames == 1


def test_a_large_message_is_left_and_a_large_part_is_deflated_in_slices() -> None:
    deflater, plain = Deflater(100, 1 << 30), text(400_000)
    assert deflater.frame(plain) is plain
    one, other = deflater.spread(iter([plain])), deflater.spread(iter([plain]))
    steps = [next(one), next(other), *one]
    assert steps.count(b"") >= 400_000 // deflate.SLICE_BYTES
    assert inflated(steps[-1]) == plain
    # They share the work and its fruit.
    assert next(part for part in other if part) is steps[-1]
    assert [*deflater.spread(iter([plain]))] == [steps[-1]]
    assert deflater.frames == 1


def test_a_large_part_that_is_asked_for_again_stays() -> None:
    large = text(200_000)
    deflater = Deflater(100, 230_000)
    [made] = [part for part in deflater.spread(iter([large])) if part]
    for i in range(20):
        deflater.frame(text(4000 + 9 * i))
        assert [*deflater.spread(iter([large]))] == [made]
    assert deflater.frames == 21


def test_what_is_remembered_is_bounded() -> None:
    deflater = Deflater(100, 20_000)
    frames = [text(4000 + 9 * i) for i in range(20)]
    for plain in frames:
        deflater.frame(plain)
        assert deflater.bytes <= 20_000
    assert deflater.frames == 20
    assert inflated(deflater.frame(frames[0])) == frames[0]
    assert deflater.frames == 21


# --- with the engine


def pair(rig: Rig, wire: Wire, *topics: str) -> tuple[Session, Session]:
    """Two hot sessions, of which the second negotiated deflate."""
    plain = rig.subscribed(*topics, wire=wire)
    rig.number += 1
    session = Session(
        f"z{rig.number}", Principal(name="p", legacy_bot="a"), wire, "c", rig.now, deflates=True
    )
    rig.core.connect(session)
    rig.subscribe(session, {"topics": list(topics)})
    rig.served(session)
    assert session.hot
    return plain, session


def sent(rig: Rig, session: Session) -> list[bytes]:
    frames: list[bytes] = []
    while session.group in rig.core.dirty:
        assert session.group is not None
        pieces, more = rig.core.collect(session.group, 1 << 20, rig.now)
        frames += frames_of(pieces)
        if not more:
            rig.core.dirty.discard(session.group)
    return frames


@pytest.mark.parametrize("wire", Wire)
def test_who_negotiated_it_gets_the_same_in_fewer_bytes(wire: Wire) -> None:
    rig = Rig(deflate_min_bytes=200)
    plain, session = pair(rig, wire, "entry_fill", "status", "whitelist", "analyzed_df")
    assert plain.group is not session.group
    rig.fill(pad=2000)
    rig.event(pad=2000)
    rig.core.publish_value("a", "whitelist", None, [f"P{i}/USDT" for i in range(200)], 1)
    rig.frame(rows(1, 1200))
    expected, got = sent(rig, plain), sent(rig, session)
    assert [inflated(one) for one in got] == expected
    assert [decode(wire, inflated(one))["type"] for one in got] == [
        decode(wire, one)["type"] for one in expected
    ]
    assert sum(map(len, got)) < 0.8 * sum(map(len, expected))


def test_it_is_deflated_once_for_many_groups_and_for_who_falls_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(deflate_min_bytes=200)
    sessions = [pair(rig, Wire.JSON, "entry_fill", *more)[1] for more in ((), ("status",), ("exit_fill",))]
    rig.core.fall_behind(sessions[0])
    rig.fill(pad=3000)
    alone = rig.core.pull(sessions[0], 1 << 20, rig.now).frames
    shared = [sent(rig, session) for session in sessions[1:]]
    assert alone[0][0] == 0xC1
    assert shared[0] == shared[1] == alone
    assert rig.core.deflater.frames == 1
    assert rig.core.statistics()["deflate_saved_bytes"] > 2000


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("kind", ["fill", "event", "frame", "request"])
def test_a_turn_deflates_no_more_than_it_would_send_plain(kind: str, alone: bool) -> None:
    limit, size = 64 * 1024, 20_000
    rig = Rig(deflate_min_bytes=200, event_bytes_per_bot=8 << 20)
    # Frames without pauses of their own.
    wide = {f"c{i}": np.full(90, 1.25) for i in range(30)}
    wire = Wire.JSON if kind == "frame" else Wire.FREQTRADE
    _, session = pair(rig, wire, "entry_fill", "status", *["analyzed_df"] * (kind != "request"))
    if alone or kind == "request":
        rig.core.fall_behind(session)
    for i in range(40):
        if kind == "fill":
            rig.fill(pad=size)
        elif kind == "event":
            rig.event(pad=size)
        else:
            rig.frame(rows(1, 90, **wide), key=FrameKey(f"P{i}/USDT", "5m", "spot"))
            if kind == "request":
                rig.ask(session, "analyzed_df", {"limit": 90, "pair": f"P{i}/USDT"})
    deflater = rig.core.deflater
    assert deflater.frames == 0
    for _ in range(80):
        saved = deflater.saved_bytes
        if session.hot:
            assert session.group is not None
            pieces, _ = rig.core.collect(session.group, limit, rig.now)
        else:
            pieces = rig.core.pull(session, limit, rig.now).frames
        # One message may go beyond.
        assert sum(map(len, pieces)) + deflater.saved_bytes - saved < limit + 25_000
    assert deflater.frames == 40
    assert deflater.saved_bytes > 4 * limit


def test_a_freqtrade_client_that_asks_for_a_frame_gets_it_deflated() -> None:
    rig = Rig(deflate_min_bytes=200)
    rig.frame(rows(1, 1500))
    _, session = pair(rig, Wire.FREQTRADE, "analyzed_df")
    rig.ask(session, "analyzed_df", {"limit": 1500, "pair": "BTC/USDT"})
    frames = [f for _ in range(60) for f in rig.core.pull(session, 1 << 20, rig.now).frames]
    assert [frame[0] for frame in frames] == [0xC1]
    assert decode(Wire.FREQTRADE, inflated(frames[0]))["type"] == "analyzed_df"
