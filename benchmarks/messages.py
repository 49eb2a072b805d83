"""What the fan-out benchmark publishes: fills of a given size, and dataframes; as templates into which the message's number is put.

The number makes a fill's id unique, and one dataframe another than the one before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgpack
import numpy as np

from benchmarks.framing import masked
from hub.frames import v2
from hub.frames.columns import Columns
from hub.frames.dataframe import from_pandas

__all__ = [
    "BOT",
    "KEY",
    "Fill",
    "Frame",
    "Message",
    "Place",
    "Template",
    "columns",
    "flat",
    "frame_text",
    "publish",
    "template",
]

BOT = "bench"
TOPIC = "entry_fill"
KEY = ("BTC/USDT", "5m", "spot")
NUMBER = 1_111_111_111
"""Stands for the message's number, in digits or in msgpack's four bytes."""
_FRAME_COLUMNS = 40
_FILL: dict[str, Any] = {
    "trade_id": 7, "enter_tag": "momentum", "exchange": "Binance", "pair": "BTC/USDT", "leverage": 1.0,
    "direction": "Long", "limit": 59530.92, "open_rate": 59530.92, "order_type": "limit", "stake_amount": 199.428582,
    "stake_currency": "USDT", "base_currency": "BTC", "amount": 0.00335, "open_date": "2026-11-22T14:01:01+00:00",
    "current_rate": 59530.92, "sub_trade": False, "number": str(NUMBER),
}  # fmt: skip


@dataclass(frozen=True)
class Fill:
    """An `entry_fill` whose flat JSON has `size` bytes."""

    size: int


@dataclass(frozen=True)
class Frame:
    """A dataframe that replaces its key's window, of about `size` bytes on the wire of the subscribers."""

    size: int


Message = Fill | Frame


@dataclass(frozen=True)
class Place:
    """Where the number is put: in digits ("d"), or in bytes, big-endian ("b")."""

    kind: Literal["d", "b"]
    offset: int
    width: int


@dataclass(frozen=True)
class Template:
    """The bytes of one publish, and where its number goes."""

    payload: bytes
    numbers: tuple[Place, ...]


def template(payload: bytes) -> Template:
    """A template of bytes that hold the number's stand-ins.

    Raises:
        ValueError: there is none.
    """
    digits = [Place("d", at, len(str(NUMBER))) for at in _places(str(NUMBER).encode(), payload)]
    packed = [Place("b", at + 1, 4) for at in _places(b"\xce" + NUMBER.to_bytes(4, "big"), payload)]
    if not digits + packed:
        raise ValueError("expected a place for the number, got none")
    return Template(payload, tuple(digits + packed))


def _places(needle: bytes, payload: bytes) -> list[int]:
    return [match.start() for match in re.finditer(re.escape(needle), payload)]


def flat(size: int) -> bytes:
    """A fill as freqtrade's wire has it, in `size` bytes.

    Raises:
        ValueError: it does not fit.
    """
    missing = size - len(_compact({"type": TOPIC, **_FILL}))
    if missing < 0:
        raise ValueError(f"a fill takes {size - missing} bytes at least, got {size}")
    return _compact({"type": TOPIC, **_fill(missing)})


def frame_text(size: int) -> bytes:
    """What a server that knows nothing of dataframes delivers in place of one: text of `size` bytes."""
    text = _compact({"type": "analyzed_df", "data": "", "number": str(NUMBER)})
    return text.replace(b'""', b'"' + b"0.123456789 " * (size // 12) + b'"', 1)


def _fill(padding: int) -> dict[str, Any]:
    return {**_FILL, "enter_tag": _FILL["enter_tag"] + "-" * padding}


def publish(message: Message, *, wide: bool) -> bytes:
    """A frame of a publisher on tradewire.v2.msgpack. `wide`: of a dataframe, the subscribers' wire is msgpack and not JSON."""
    data: dict[str, Any] = {"bot": BOT}
    if isinstance(message, Fill):
        body = json.loads(flat(message.size))
        data |= {"topic": body.pop("type"), "mid": str(NUMBER), "data": body}
    else:
        frame = columns(_rows(message.size, wide=wide))
        data |= {
            "topic": "analyzed_df",
            "key": list(KEY),
            "schema": frame.schema.data(),
            "data": {"n": frame.n, "cols": v2.to_columns(frame, "msgpack")},
        }
    return masked(msgpack.packb({"type": "publish", "id": NUMBER, "data": data}), text=False)


def _rows(size: int, *, wide: bool) -> int:
    """How many rows take `size` bytes: 8 for a number in msgpack's columns, about 17 in JSON."""
    return size // ((8 if wide else 17) * (_FRAME_COLUMNS + 1))


def columns(rows: int, width: int = _FRAME_COLUMNS, seed: int = 7) -> Columns:
    """Candles with indicators: a date, `width` columns of floats, and a tag that has the number in its last row."""
    import pandas as pd

    values = np.random.default_rng(seed).normal(100.0, 1.0, (rows, width)).round(12)
    frame = pd.DataFrame(values, columns=[f"indicator_{i}" for i in range(width)])
    frame.insert(0, "date", pd.date_range("2026-11-01", periods=rows, freq="5min", tz="UTC"))
    tags = [""] * rows
    tags[-1] = str(NUMBER)
    frame["enter_tag"] = tags
    return from_pandas(frame)


def _compact(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()
