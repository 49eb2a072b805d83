"""The three wires and how a message becomes the bytes of each. The only module that knows orjson and msgpack.

A codec turns a map into the payload of one websocket frame and back. It knows nothing of connections. `frame` puts the header
of RFC 6455 section 5.2 before a payload: a server's frames are unmasked, so header and payload are the same for every client
of a wire and are built once.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol

import msgpack
import msgspec
import orjson

from hub.protocol.errors import BadMessage, NotAMessage, Undecodable, WrongOpcode
from hub.protocol.values import trimmed

__all__ = [
    "CODECS",
    "SUBPROTOCOLS",
    "UNDER_DATA",
    "Codec",
    "Wire",
    "close_frame",
    "decode_body",
    "embedded",
    "encode_body",
    "encode_loose",
    "frame",
    "frame_of",
    "payload_of",
    "with_payload",
]

UNDER_DATA = frozenset({"whitelist", "new_candle", "analyzed_df"})
"""The topics whose payload freqtrade sends under `data`, not as flat fields."""

_TEXT, _RSV1 = 0x81, 0x40


class Wire(StrEnum):
    """A wire by the name of its subprotocol; freqtrade's has none."""

    FREQTRADE = "freqtrade"
    JSON = "tradewire.v2.json"
    MSGPACK = "tradewire.v2.msgpack"


SUBPROTOCOLS = (Wire.MSGPACK, Wire.JSON)
"""The subprotocols that may be offered in `Sec-WebSocket-Protocol`."""


class Codec(Protocol):
    """One wire's encoding. Stateless: one instance serves all connections."""

    wire: Wire
    text: bool

    def encode(self, message: Mapping[str, Any]) -> bytes:
        """The payload of one frame.

        Raises:
            BadMessage: a value that this wire cannot carry (see hub.protocol.values for what can).
        """

    def decode(self, payload: bytes | str) -> dict[str, Any]:
        """The map that a frame carries.

        Raises:
            WrongOpcode: text on a binary wire or the reverse. Undecodable: not valid. NotAMessage: no map, or no `type`.
        """

    def broadcast(self, topic: str, data: Any, header: Mapping[str, Any], body: bytes | None = None) -> bytes:
        """The payload of a broadcast. `header` holds v2's fields between `type` and `data`; freqtrade's wire drops it.

        `body` is `encode_body(data)` where the caller has it: the JSON wires splice it in and encode nothing twice.
        """


def _checked(message: Any) -> dict[str, Any]:
    if type(message) is not dict:
        raise NotAMessage(f"expected a map, got {_kind(message)}")
    if type(message.get("type")) is not str:
        raise NotAMessage("expected a string `type`")
    return message


def _kind(value: object) -> str:
    names: dict[type, str] = {
        list: "a list",
        str: "a string",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)


class _Json:
    text = True

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    def encode(self, message: Mapping[str, Any]) -> bytes:
        try:
            return orjson.dumps(message)
        except (TypeError, ValueError) as error:
            raise BadMessage(f"cannot be sent as JSON: {error}") from None

    def decode(self, payload: bytes | str) -> dict[str, Any]:
        if not isinstance(payload, str):
            raise WrongOpcode(f"{self.wire}: expected a text frame")
        try:
            return _checked(orjson.loads(payload))
        except orjson.JSONDecodeError as error:
            raise Undecodable(f"not valid JSON: {error.msg} at character {error.pos}") from None

    def broadcast(self, topic: str, data: Any, header: Mapping[str, Any], body: bytes | None = None) -> bytes:
        return self.encode({"type": topic, **header, "data": data if body is None else orjson.Fragment(body)})


class _Freqtrade(_Json):
    def __init__(self) -> None:
        super().__init__(Wire.FREQTRADE)

    def broadcast(self, topic: str, data: Any, header: Mapping[str, Any], body: bytes | None = None) -> bytes:
        if topic in UNDER_DATA or not isinstance(data, Mapping):
            return self.encode({"type": topic, "data": data if body is None else orjson.Fragment(body)})
        if body is None or not data or "type" in data:
            return self.encode({**data, "type": topic})
        return b'{"type":' + orjson.dumps(topic) + b"," + body[1:]


# The library msgpack takes twice the time to decode.
_unpack = msgspec.msgpack.Decoder().decode


class _Msgpack:
    wire = Wire.MSGPACK
    text = False

    def encode(self, message: Mapping[str, Any]) -> bytes:
        try:
            return msgpack.packb(message, use_bin_type=True)  # type: ignore[no-any-return]
        except (TypeError, ValueError, OverflowError) as error:
            raise BadMessage(f"cannot be sent as msgpack: {error}") from None

    def decode(self, payload: bytes | str) -> dict[str, Any]:
        if isinstance(payload, str):
            raise WrongOpcode(f"{self.wire}: expected a binary frame")
        try:
            return _checked(_unpack(payload))
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise Undecodable(f"not valid msgpack: {str(error) or type(error).__name__}") from None

    def broadcast(self, topic: str, data: Any, header: Mapping[str, Any], body: bytes | None = None) -> bytes:
        return self.encode({"type": topic, **header, "data": data})


CODECS: Mapping[Wire, Codec] = {
    Wire.FREQTRADE: _Freqtrade(),
    Wire.JSON: _Json(Wire.JSON),
    Wire.MSGPACK: _Msgpack(),
}
"""The codec of each wire."""


def encode_body(data: Any) -> bytes:
    """The canonical payload as JSON: what a log stores, compares and measures.

    Raises:
        BadMessage: a value that JSON cannot carry.
    """
    return trimmed(encode_loose(data))


def encode_loose(data: Any) -> bytes:
    """As `encode_body`, and as quick as can be: the bytes take up to twice their length in memory."""
    try:
        return orjson.dumps(data)
    except (TypeError, ValueError) as error:
        raise BadMessage(f"cannot be sent as JSON: {error}") from None


def decode_body(body: bytes) -> Any:
    """The canonical payload that `encode_body` made `body` of."""
    return orjson.loads(body)


def embedded(wire: Wire, body: bytes) -> Any:
    """The value that stands for `body`, which is JSON, in a map that the codec of `wire` encodes; JSON is spliced in as it is.

    Raises:
        Undecodable: it is not JSON, or nested too deeply. Only msgpack looks.
    """
    if wire is not Wire.MSGPACK:
        return orjson.Fragment(body)
    try:
        return decode_body(body)
    except orjson.JSONDecodeError as error:
        raise Undecodable(f"not valid JSON: {error.msg} at character {error.pos}") from None


def frame(payload: bytes, *, text: bool) -> bytes:
    """`payload` as one unmasked, unfragmented websocket frame (RFC 6455 section 5.2)."""
    size = len(payload)
    first = b"\x81" if text else b"\x82"
    if size < 126:
        return first + bytes((size,)) + payload
    if size < 65536:
        return first + b"\x7e" + size.to_bytes(2, "big") + payload
    return first + b"\x7f" + size.to_bytes(8, "big") + payload


def frame_of(wire: Wire, message: Mapping[str, Any]) -> bytes:
    """A message as one websocket frame of a wire.

    Raises:
        BadMessage: a value that the wire cannot carry.
    """
    codec = CODECS[wire]
    return frame(codec.encode(message), text=codec.text)


def payload_of(prepared: bytes) -> bytes:
    """The payload of a frame that `frame` made; for servers that write the header themselves."""
    size = prepared[1]
    return prepared[2:] if size < 126 else prepared[4:] if size == 126 else prepared[10:]


def with_payload(prepared: bytes, payload: bytes, *, compressed: bool) -> bytes:
    """A frame like one that `frame` made, with another payload, which is `compressed` or not (RSV1 of RFC 7692 section 6)."""
    made = frame(payload, text=prepared[0] == _TEXT)
    return bytes((made[0] | _RSV1,)) + made[1:] if compressed else made


def close_frame(code: int, reason: str = "") -> bytes:
    """A Close frame; the reason is cut to the 123 bytes that RFC 6455 section 5.5 leaves it."""
    body = (
        int(code).to_bytes(2, "big") + reason.encode(errors="replace")[:123].decode(errors="ignore").encode()
    )
    return b"\x88" + bytes((len(body),)) + body
