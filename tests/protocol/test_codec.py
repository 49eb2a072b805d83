"""hub.protocol.codec."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.protocol.codec import CODECS, SUBPROTOCOLS, Wire, close_frame, encode_body, frame, payload_of
from hub.protocol.errors import BadMessage, NotAMessage, Undecodable, WrongOpcode
from tests.protocol.strategies import PLAIN, TEXT

JSONS = (Wire.FREQTRADE, Wire.JSON)
MAPS = st.dictionaries(TEXT, PLAIN, max_size=5)


@pytest.mark.parametrize("wire", Wire)
def test_the_wire_and_the_opcode(wire: Wire) -> None:
    codec = CODECS[wire]
    assert codec.wire is wire
    payload = codec.encode({"type": "x"})
    with pytest.raises(WrongOpcode, match="expected a"):
        codec.decode(payload if codec.text else payload.decode("latin-1"))


def test_the_subprotocols_are_our_own_wires() -> None:
    assert set(SUBPROTOCOLS) == {Wire.JSON, Wire.MSGPACK}
    assert SUBPROTOCOLS[0] is Wire.MSGPACK


@given(MAPS)
def test_round_trip(data: dict[str, Any]) -> None:
    message = data | {"type": "x"}
    for codec in CODECS.values():
        payload = codec.encode(message)
        assert codec.decode(payload.decode() if codec.text else payload) == message


@given(st.binary(max_size=200) | st.builds(msgpack.packb, PLAIN))
def test_arbitrary_bytes_raise_protocol_errors_only(payload: bytes) -> None:
    for codec in CODECS.values():
        given_ = payload.decode(errors="surrogateescape") if codec.text else payload
        try:
            message = codec.decode(given_)
        except (WrongOpcode, Undecodable, NotAMessage) as error:
            close_frame(error.close_code, str(error))
        else:
            assert isinstance(message["type"], str)


@given(PLAIN)
def test_whatever_is_no_message_is_said_so(value: Any) -> None:
    for codec in CODECS.values():
        payload = json.dumps(value) if codec.text else msgpack.packb(value)
        if isinstance(value, dict) and isinstance(value.get("type"), str):
            assert codec.decode(payload) == value
        else:
            with pytest.raises(NotAMessage):
                codec.decode(payload)


@pytest.mark.parametrize("wire", JSONS)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"type":"x"',
        "nul",
        '{"type":NaN}',
        '{"type":"\ud800"}',
        '{"a":1e999}',
        "[" * 100_000,
        '{"type":"x"}x',
    ],
)
def test_bad_json(wire: Wire, text: str) -> None:
    with pytest.raises(Undecodable, match="not valid JSON"):
        CODECS[wire].decode(text)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x81\xa4type",
        b"\x81\xa1\xff\x01",
        b"\x91" * 5000 + b"\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        msgpack.packb({"type": "x"}) + b"\x01",
        b"\x81\xa4type\xd5\xff\x00\x00",
    ],
)
def test_bad_msgpack(payload: bytes) -> None:
    with pytest.raises(Undecodable, match="not valid msgpack"):
        CODECS[Wire.MSGPACK].decode(payload)


def test_a_map_with_other_keys_than_strings_is_no_message() -> None:
    with pytest.raises(NotAMessage, match="type"):
        CODECS[Wire.MSGPACK].decode(msgpack.packb({1: 2}))


def test_deep_nesting_decodes_or_is_refused_but_never_ends_the_process() -> None:
    for depth in (100, 500, 1000, 50_000):
        for codec in CODECS.values():
            text = '{"type":"x","a":' + "[" * depth + "]" * depth + "}"
            packed = b"\x82\xa4type\xa1x\xa1a" + b"\x91" * depth + b"\x90"
            try:
                codec.decode(text if codec.text else packed)
            except Undecodable:
                pass


def test_of_a_key_given_twice_the_last_counts() -> None:
    assert CODECS[Wire.JSON].decode('{"type":"a","type":"b"}') == {"type": "b"}
    assert CODECS[Wire.MSGPACK].decode(b"\x82\xa4type\xa1a\xa4type\xa1b") == {"type": "b"}


def test_extension_types_do_not_reach_what_is_encoded_as_json() -> None:
    message = CODECS[Wire.MSGPACK].decode(msgpack.packb({"type": "x", "data": msgpack.ExtType(5, b"12")}))
    with pytest.raises(BadMessage):
        CODECS[Wire.JSON].encode(message)
    with pytest.raises(BadMessage):
        encode_body(message)


@pytest.mark.parametrize("value", [object(), 2**64, "\ud800", {1: 2}, 1j, {1}])
def test_what_a_wire_cannot_carry_is_the_callers(value: Any) -> None:
    for codec in CODECS.values():
        if value == {1: 2} and not codec.text:
            continue
        with pytest.raises(BadMessage, match="cannot be sent as"):
            codec.encode({"type": "x", "data": value})


@given(TEXT, MAPS, MAPS.map(lambda header: {k: v for k, v in header.items() if k != "type"}))
def test_a_broadcast_with_its_body_spliced_in_is_the_same(
    topic: str, data: dict[str, Any], header: dict[str, Any]
) -> None:
    for codec in CODECS.values():
        plain = codec.broadcast(topic, data, header)
        spliced = codec.broadcast(topic, data, header, encode_body(data))
        decoded = codec.decode(plain.decode() if codec.text else plain)
        assert codec.decode(spliced.decode() if codec.text else spliced) == decoded
        assert decoded["type"] == topic


@given(TEXT.filter(lambda t: t not in ("whitelist", "new_candle", "analyzed_df")), MAPS)
def test_freqtrades_wire_is_flat_and_has_no_header(topic: str, data: dict[str, Any]) -> None:
    payload = CODECS[Wire.FREQTRADE].broadcast(topic, data, {"bot": "secret"}, encode_body(data))
    assert json.loads(payload) == data | {"type": topic}


@pytest.mark.parametrize("data", [None, [], ["A/B"], 5, "text"])
def test_freqtrades_wire_carries_what_is_no_map_under_data(data: Any) -> None:
    for topic in ("whitelist", "future_type"):
        for body in (None, encode_body(data)):
            payload = CODECS[Wire.FREQTRADE].broadcast(topic, data, {}, body)
            assert json.loads(payload) == {"type": topic, "data": data}


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65535, b"\x81\x7e\xff\xff"),
        (65536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_the_frame_header(size: int, header: bytes) -> None:
    payload = b"x" * size
    assert frame(payload, text=True) == header + payload
    assert frame(payload, text=False) == b"\x82" + header[1:] + payload
    assert payload_of(frame(payload, text=True)) == payload


def test_a_close_frame_is_cut_on_a_character_boundary() -> None:
    assert close_frame(1000) == b"\x88\x02\x03\xe8"
    assert close_frame(4400, "no") == b"\x88\x04\x11\x30no"
    for reason in ("x" * 500, "é" * 100, "x" + "é" * 100, "xx" + "€" * 60, "😀" * 40):
        made = close_frame(4400, reason)
        assert made[1] == len(made) - 2 <= 125
        text = made[4:].decode()
        assert reason.startswith(text)
        assert len(text.encode()) > 119
    close_frame(4400, "\ud800")
