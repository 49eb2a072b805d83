"""Every message on every wire, byte for byte, and from each wire to each other without loss."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hub.core.state import legacy_frame
from hub.frames import v2
from hub.frames.columns import Schema
from hub.frames.freqtrade import decode_split, encode_split
from hub.protocol.codec import CODECS, Wire, encode_body, payload_of
from hub.protocol.envelope import Broadcast, Notice, Reply, parse_envelope
from hub.protocol.messages import REGISTRY, ExceptionMessage, FrameKey, GenericMessage, view
from tests.wire.golden import (
    BOT,
    FREQTRADE,
    V2_WIRES,
    canonical,
    entry_of,
    freqtrade_message,
    golden,
    path_of,
)

FLAT = [name for name in FREQTRADE if name not in ("analyzed_df", "whitelist", "new_candle")]


def read(wire: Wire, name: str) -> dict[str, Any]:
    payload = path_of(wire, name).read_bytes()
    return CODECS[wire].decode(payload.decode() if CODECS[wire].text else payload)


@pytest.mark.parametrize("wire", V2_WIRES)
def test_the_bytes_are_those_of_the_files(wire: Wire) -> None:
    made = golden(wire)
    files = {path.name for path in path_of(wire, "x").parent.iterdir()}
    assert files == {path_of(wire, name).name for name in made}
    for name, payload in made.items():
        assert payload == path_of(wire, name).read_bytes(), name


def test_every_type_of_freqtrade_has_a_file() -> None:
    assert {freqtrade_message(name)["type"] for name in FREQTRADE} == set(REGISTRY)


@pytest.mark.parametrize("name", FREQTRADE)
def test_a_real_message_fits_its_struct_and_nothing_is_left_over(name: str) -> None:
    topic, data = canonical(freqtrade_message(name))
    message = view(topic, data)
    assert type(message) is REGISTRY[topic]
    assert message.type == topic
    assert message.extra == {}


@pytest.mark.parametrize("name", FLAT)
def test_round_through_all_wires(name: str) -> None:
    """freqtrade → canonical → v2.json → v2.msgpack → freqtrade, with a field and a branch that nobody knows."""
    sent = freqtrade_message(name) | {"new_field": {"deep": [1, None, "é", 1e-12]}, "übrig": 2**53 + 1}
    text = CODECS[Wire.FREQTRADE].encode(sent).decode()
    topic, data = canonical(CODECS[Wire.FREQTRADE].decode(text))
    for wire in V2_WIRES:
        codec = CODECS[wire]
        payload = payload_of(entry_of(topic, data).frame(wire))
        broadcast = parse_envelope(codec.decode(payload.decode() if codec.text else payload))
        assert isinstance(broadcast, Broadcast)
        assert (broadcast.type, broadcast.bot, broadcast.data) == (topic, BOT, data)
        data = broadcast.data
    assert view(topic, data).extra == {"new_field": sent["new_field"], "übrig": sent["übrig"]}
    again = payload_of(entry_of(topic, data).frame(Wire.FREQTRADE))
    assert json.loads(again) == sent
    # The same bytes with the body spliced in and without.
    spliced = CODECS[Wire.FREQTRADE].broadcast(topic, data, {}, encode_body(data))
    assert json.loads(spliced) == json.loads(CODECS[Wire.FREQTRADE].broadcast(topic, data, {}))


@pytest.mark.parametrize("name", ["whitelist", "new_candle"])
def test_bare_data_on_all_wires(name: str) -> None:
    sent = freqtrade_message(name)
    for wire in V2_WIRES:
        assert read(wire, name)["data"] == sent["data"]
    topic, data = canonical(sent)
    assert json.loads(CODECS[Wire.FREQTRADE].broadcast(topic, data, {"bot": "x"}, encode_body(data))) == sent


def test_a_dataframe_on_all_wires() -> None:
    sent = freqtrade_message("analyzed_df")
    rows = decode_split(sent["data"]["df"]["__value__"])
    for wire in V2_WIRES:
        kind = "msgpack" if wire is Wire.MSGPACK else "json"
        schema = Schema.from_data(read(wire, "hub.schema")["data"])
        message = parse_envelope(read(wire, "analyzed_df.snapshot"))
        assert isinstance(message, Broadcast)
        assert message.data["schema"] == schema.id == rows.schema.id
        assert message.key == sent["data"]["key"]
        assert message.rev is not None
        assert (message.rev.prev, message.rev.n, message.part) == (0, 1, (1, 1))
        assert v2.from_columns(schema, message.data["n"], message.data["cols"], kind).equals(rows)
        live = read(wire, "analyzed_df.rows")
        assert live["rev"] == ["r9", 1, 2]
        changed = v2.from_rows(schema, live["data"]["rows"], kind)
        assert changed.column("close")[0] == rows.column("close")[0] + 1
    text = encode_split(rows, start=999)
    frame = legacy_frame(FrameKey(*sent["data"]["key"]), text, 1_795_356_061_620)
    again = json.loads(payload_of(frame))
    assert json.loads(again["data"].pop("df")["__value__"]) == json.loads(sent["data"].pop("df")["__value__"])
    assert again["data"].pop("la")[:23] == sent["data"].pop("la")[:23]
    assert again == sent


def test_the_kinds_are_told_apart_by_their_fields() -> None:
    for wire in V2_WIRES:
        for name in golden(wire):
            if name.startswith("request."):
                continue
            kind = parse_envelope(read(wire, name))
            if name.startswith("hub.reply"):
                assert isinstance(kind, Reply)
            elif name.startswith("hub.") and name != "hub.candle_complete":
                assert isinstance(kind, Notice)
            else:
                assert isinstance(kind, Broadcast)


def test_both_shapes_of_exception() -> None:
    bot = view(*canonical(freqtrade_message("exception")))
    request = view(*canonical(freqtrade_message("exception_request")))
    assert isinstance(bot, ExceptionMessage)
    assert isinstance(request, ExceptionMessage)
    assert bot.status
    assert bot.data is None
    assert request.status is None
    assert request.data == "Invalid request type: no_such_request"


def test_a_type_of_a_newer_peer_is_a_generic_message() -> None:
    for wire in V2_WIRES:
        message = read(wire, "unknown_type")
        generic = view(message["type"], message["data"])
        assert isinstance(generic, GenericMessage)
        assert generic.type == "funding_fee"
        assert generic.data == {"pair": "BTC/USDT:USDT", "fee": 1e-17, "no": None}
