"""The rule by which a Python value becomes a value of the wire; applied once, at publish.

| value | on the wire |
|---|---|
| None, bool, str | as it is; a string must be valid Unicode |
| int | as it is, within -2**63 .. 2**64-1; beyond: refused |
| float | float64; NaN and ±inf are null (inside dataframes they are kept, see hub.frames) |
| Decimal | the nearest float64; NaN and ±inf are null |
| numpy scalar | the exact Python value of it, then as above; NaT is null, a time beyond the years 1 to 9999 refused |
| datetime | RFC 3339 with its offset, or without one when naive (as freqtrade sends it); NaT is null |
| date, time | ISO 8601 |
| timedelta | seconds as a float |
| Enum | its value |
| UUID | its text |
| list, tuple | list |
| a Message of hub.protocol.messages | its payload: its fields with those of `extra` beside them, or its bare `data` |
| mapping with string keys, Struct, dataclass | map; a key that is an Enum counts as its value |
| anything else | refused with BadMessage, naming the path |
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any
from uuid import UUID

import msgspec
import orjson

from hub.protocol.errors import BadMessage
from hub.protocol.messages import BARE_DATA, GenericMessage, Message

__all__ = ["canonical", "plain", "trimmed"]

MAX_DEPTH = 32
MAX_VALUES = 131_072
"""More take more than 256 KiB of JSON, which no message may have; to find that out at the end would take seconds."""
_QUICK_BYTES = 2 * MAX_VALUES
# What orjson would write by a rule of its own is left to ours.
_AS_OURS = (
    orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS
)
_CONTAINERS = frozenset({dict, list, tuple})
_SECONDS = {
    "W": Fraction(604_800),
    "D": Fraction(86_400),
    "h": Fraction(3600),
    "m": Fraction(60),
    "s": Fraction(1),
} | {f"{prefix}s": Fraction(1, 1000**power) for power, prefix in enumerate("munpfa", 1)}
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1


def plain(value: Any, path: str = "data") -> Any:
    """`value` made of None, bool, int, float, str, list and dict only. Already plain containers are copied.

    Raises:
        BadMessage: a value that no wire can carry; the text names its path.
    """
    try:
        _check_count(value, path)
        return _plain(value, path, 0)
    except BadMessage as error:
        raise BadMessage(_one_line(str(error))) from None


def canonical(value: Any) -> tuple[Any, bytes]:
    """`plain(value)`, and the JSON that a log stores, compares and measures.

    Where orjson takes the value, and the JSON has too few brackets and bytes to be too deep or too many, plain is what it reads
    back: 4 µs for a fill, where a walk takes 14.

    Raises:
        BadMessage: as `plain`.
    """
    try:
        body = orjson.dumps(value, option=_AS_OURS)
    except (TypeError, ValueError):
        body = b""
    if body and len(body) < _QUICK_BYTES and body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return orjson.loads(body), trimmed(body)
    value = plain(value)
    try:
        return value, trimmed(orjson.dumps(value))
    except (TypeError, ValueError) as error:
        raise BadMessage(f"cannot be sent as JSON: {error}") from None


def trimmed(made: bytes) -> bytes:
    """A copy of what orjson made, to be kept. orjson 3.13 leaves the room that it wrote in: 4 to 8 KiB behind 400 bytes."""
    return memoryview(made).tobytes()


def _check_count(value: Any, path: str) -> None:
    left, containers = MAX_VALUES, [value]
    while containers:
        container = containers.pop()
        if type(container) is dict:
            container = container.values()
        elif type(container) is not list and type(container) is not tuple:
            continue
        left -= len(container)
        if left < 0:
            raise BadMessage(f"{path}: expected at most {MAX_VALUES} values in at most {MAX_DEPTH} levels")
        containers += [inner for inner in container if type(inner) in _CONTAINERS]


def _one_line(text: str) -> str:
    # The path is made of the publisher's keys.
    return "".join(c if c.isprintable() else "?" for c in text[-400:])


def _plain(value: Any, path: str, depth: int) -> Any:
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        return _text(value, path)
    if kind is float:
        return value if math.isfinite(value) else None
    if kind is int:
        if _INT_MIN <= value <= _INT_MAX:
            return value
        raise BadMessage(f"{path}: expected an integer within 64 bits, got {_short(value)}")
    if kind is dict or kind is list or kind is tuple:
        return _container(value, path, depth)
    return _other(value, path, depth)


def _text(value: str, path: str) -> str:
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadMessage(f"{path}: expected valid Unicode, got a lone surrogate") from None
    return value


def _container(value: Any, path: str, depth: int) -> Any:
    if depth >= MAX_DEPTH:
        raise BadMessage(f"{path}: expected at most {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        return {
            _key(k, path): v if _is_plain(v) else _plain(v, f"{path}.{k}", depth + 1)
            for k, v in value.items()
        }
    return [v if _is_plain(v) else _plain(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(value)]


def _is_plain(value: Any) -> bool:
    # Most values are plain already: no path is made for them (a fill costs 6.8 instead of 8.3 µs).
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    if kind is str:
        return bool(value.isascii())
    return value is None or kind is bool or (kind is int and _INT_MIN <= value <= _INT_MAX)


def _key(key: Any, path: str) -> str:
    if isinstance(key, Enum):
        key = key.value
    if not isinstance(key, str):
        raise BadMessage(f"{path}: expected string keys, got {type(key).__name__} {_short(key)}")
    return _text(str(key), path)


def _other(value: Any, path: str, depth: int) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value, path, depth)
    if isinstance(value, Decimal):
        number = float(value) if value.is_finite() else None
        return number if number is None or math.isfinite(number) else None
    if isinstance(value, dt.datetime | dt.date | dt.time):
        # pandas' NaT is a datetime that equals nothing, itself included.
        return value.isoformat() if value == value else None
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if type(value).__module__ == "numpy" and hasattr(value, "item") and not getattr(value, "shape", ()):
        return _numpy(value, path, depth)
    if isinstance(value, str | float | int):
        base = next(t for t in (str, float, int) if isinstance(value, t))
        return _plain(base(value), path, depth)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Message):
        return _message(value, path, depth)
    if isinstance(value, msgspec.Struct):
        as_list = type(value).__struct_config__.array_like
        fields = msgspec.structs.astuple(value) if as_list else msgspec.structs.asdict(value)
        return _plain(fields, path, depth)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain({f.name: getattr(value, f.name) for f in dataclasses.fields(value)}, path, depth)
    if isinstance(value, Mapping | list | tuple):
        return _container(value, path, depth)
    if type(value).__name__ in ("NaTType", "NAType"):
        return None
    raise BadMessage(
        f"{path}: cannot be sent: {type(value).__name__}; expected numbers, text, dates, lists or maps"
    )


def _numpy(value: Any, path: str, depth: int) -> Any:
    kind = value.dtype.kind
    if kind in "mM":
        return _numpy_time(value, path) if value == value else None
    item = value.item()
    if type(item).__module__ == "numpy" and kind == "f":
        # A long double has no Python type of its own.
        item = float(item)
    if type(item).__module__ == "numpy" or depth >= MAX_DEPTH:
        raise BadMessage(f"{path}: cannot be sent: numpy.{value.dtype}; expected a number")
    return _plain(item, path, depth + 1)


def _numpy_time(value: Any, path: str) -> str | float:
    # item() gives a bare integer for nanoseconds and for what datetime cannot hold, and conversions overflow silently.
    unit, count = _datetime_data(value.dtype.str)
    if value.dtype.kind == "m":
        if unit not in _SECONDS:
            raise BadMessage(f"{path}: cannot be sent: a timedelta in units of {unit!r}; expected seconds")
        return float(int(value.astype("i8")) * count * _SECONDS[unit])
    if not 1 <= 1970 + int(value.astype("M8[Y]").astype("i8")) <= 9999:
        raise BadMessage(f"{path}: expected a time of the years 1 to 9999, got {_short(str(value))}")
    moment: dt.datetime = value.astype("M8[us]").item()
    return moment.isoformat()


def _datetime_data(dtype: str) -> tuple[str, int]:
    """("D", 7) of "<m8[7D]"."""
    _, _, inner = dtype.partition("[")
    digits = inner.rstrip("]").rstrip("YMWDhmsunpfa")
    return inner.rstrip("]")[len(digits) :], int(digits or 1)


def _short(value: object) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**40 else "a longer one"
    return text if len(text) <= 40 else text[:37] + "..."


def _message(value: Message, path: str, depth: int) -> Any:
    fields = msgspec.structs.asdict(value)
    extra = fields.pop("extra")
    if value.type in BARE_DATA or isinstance(value, GenericMessage):
        return _plain(fields["data"], path, depth)
    return _plain({**extra, **fields}, path, depth)
