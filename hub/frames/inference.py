"""Inference: which dtype a sequence of Python or numpy values is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hub.frames.casting import Array, Mask, cast_values, zeros
from hub.frames.columns import Columns
from hub.frames.schema import DTYPES, UNITS_PER_S, Field, Schema
from hub.protocol.errors import BadFrame

__all__ = ["Series", "from_mapping", "infer_array", "infer_objects", "table"]

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_NAT = np.iinfo(np.int64).min
_DATETIME_UNITS = {"s": ("ts_ms", 1000), "ms": ("ts_ms", 1), "us": ("ts_us", 1), "ns": ("ts_ns", 1)}


class Series(NamedTuple):
    """One column with its field; `valid` None means no nulls."""

    field: Field
    values: Array
    valid: Mask | None = None


def table(series: Sequence[Series]) -> Columns:
    """The columns as a table. Raises BadFrame as `Schema` and `Columns`; a date without a zone is UTC."""
    dated = [_in_utc(s.field) if s.field.name == "date" else s.field for s in series]
    return Columns(Schema(tuple(dated)), [s.values for s in series], [s.valid for s in series])


def _in_utc(field: Field) -> Field:
    return (
        Field(field.name, field.dtype, "UTC") if field.dtype in UNITS_PER_S and field.zone is None else field
    )


def from_mapping(data: Mapping[str, Sequence[Any] | Array], dtypes: Mapping[str, str]) -> Columns:
    """See `Columns.from_mapping`. Arrays keep their dtype, lists take that of `infer_objects`.

    Integers stay integers, unless mixed with floats or None. Raises BadFrame.
    """
    unknown = dtypes.keys() - data.keys()
    if unknown:
        raise BadFrame(f"column {min(unknown)!r}: has a dtype but no values")
    return table([_column(name, values, dtypes.get(name)) for name, values in data.items()])


def _column(name: str, values: Sequence[Any] | Array, dtype: str | None) -> Series:
    if isinstance(values, np.ndarray) and values.dtype.kind != "O":
        found = infer_array(name, values)
    else:
        found = infer_objects(name, list(values), integers=True)
    if dtype is None:
        dtype = "ts_ms" if name == "date" and found.field.dtype in ("i4", "i8") else found.field.dtype
    if dtype == found.field.dtype:
        return found
    wanted = Field(name, dtype)
    if dtype in UNITS_PER_S and found.field.dtype[0] in "iu":
        return Series(wanted, *cast_values(found.values, found.valid, found.field.dtype, "i8")[:2])
    cast = cast_values(found.values, found.valid, found.field.dtype, dtype)
    # Asking for a narrower float is asking for rounding; nothing else may be lost.
    if (found.field.dtype, dtype) == ("f8", "f4"):
        with np.errstate(over="ignore"):
            return Series(wanted, found.values.astype(DTYPES["f4"]), found.valid)
    if cast.lost is not None:
        row = int(np.flatnonzero(cast.lost)[0])
        raise BadFrame(f"column {name!r}, row {row}: a value does not fit the dtype {dtype}")
    return Series(wanted, cast.values, cast.valid)


def infer_array(name: str, values: Array, zone: str | None = None) -> Series:
    """A numpy array that is not of objects, in its own dtype; half floats become f4, datetimes ts_*, NaT null.

    Raises:
        BadFrame: the dtype has no counterpart on the wire (complex, timedelta, bytes, days, long double).
    """
    dtype = values.dtype
    if dtype.kind == "M":
        return _datetimes(name, values, zone)
    if dtype.kind == "f" and dtype.itemsize == 2:
        return Series(Field(name, "f4"), values.astype(DTYPES["f4"]))
    if dtype.kind in "iufb":
        wire = "bool" if dtype.kind == "b" else f"{dtype.kind}{dtype.itemsize}"
        if wire in DTYPES:
            return Series(Field(name, wire), values.astype(DTYPES[wire], copy=False))
    if dtype.kind == "U":
        return Series(Field(name, "str"), values.astype(object))
    raise BadFrame(f"column {name!r}: {dtype} has no dtype on the wire, expected one of {' '.join(DTYPES)}")


def _datetimes(name: str, values: Array, zone: str | None) -> Series:
    unit, count = np.datetime_data(values.dtype)
    if unit not in _DATETIME_UNITS or count != 1:
        raise BadFrame(
            f"column {name!r}: {values.dtype} has no dtype on the wire, expected datetime64 in s, ms, us or ns"
        )
    wire, factor = _DATETIME_UNITS[unit]
    stamps = values.astype(np.int64)
    valid = stamps != _NAT
    stamps = np.where(valid, stamps, 0) * factor
    return Series(Field(name, wire, zone), stamps, None if valid.all() else valid)


def infer_objects(name: str, values: list[Any], *, integers: bool = False) -> Series:
    """A list of Python values: all bool, all numbers, all strings or all datetimes; None and NaN are nulls beside them.

    Numbers become f8 (None there is NaN); with `integers` a list of nothing but integers becomes i8 or u8. All None is f8,
    all null: a column whose dtype is not known yet. Datetimes become ts_us in UTC.

    Raises:
        BadFrame: anything else; the text names the column, the row and the type.
    """
    kinds = {_kind(value) for value in values}
    something = kinds - {"null", "nan"}
    if (len(something) > 1 and something != {"int", "float"}) or "other" in something:
        _refuse(name, values)
    if something == {"str"}:
        return _nullable(name, "str", values, str)
    if something == {"bool"}:
        return _nullable(name, "bool", values, bool)
    if something == {"time"}:
        return _nullable(name, "ts_us", values, _microseconds, zone="UTC")
    if not something and "nan" not in kinds:
        return Series(
            Field(name, "f8"), zeros("f8", len(values)), np.zeros(len(values), np.bool_) if values else None
        )
    if integers and kinds == {"int"}:
        return _integers(name, [int(v) for v in values])
    return _floats(name, values)


_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "bool",
    np.bool_: "bool",
    str: "str",
    np.str_: "str",
    int: "int",
}


def _kind(value: Any) -> str:
    known = _KINDS.get(type(value))
    if known is not None:
        return known
    if isinstance(value, (float, np.floating)):
        return "nan" if value != value else "float"
    if isinstance(value, np.integer):
        return "int"
    if isinstance(value, str):
        return "str"
    # pandas' own nulls, known by name so that pandas is not imported for them.
    if type(value).__name__ in ("NAType", "NaTType"):
        return "null"
    return "time" if isinstance(value, dt.datetime) else "other"


def _refuse(name: str, values: Iterable[Any]) -> None:
    first: str | None = None
    for row, value in enumerate(values):
        kind = _kind(value)
        if kind in ("null", "nan"):
            continue
        group = "number" if kind in ("int", "float") else kind
        first = first or group
        if group != first or group == "other":
            expected = (
                "a bool, a number, a string or a datetime" if group == "other" else f"a {first} as above"
            )
            raise BadFrame(f"column {name!r}, row {row}: {type(value).__name__}, expected {expected}")


def _nullable(name: str, dtype: str, values: list[Any], convert: Any, zone: str | None = None) -> Series:
    valid = np.array([_kind(value) not in ("null", "nan") for value in values], np.bool_)
    out = zeros(dtype, len(values))
    out[valid] = [convert(v) for v, there in zip(values, valid.tolist(), strict=True) if there]
    return Series(Field(name, dtype, zone), out, None if valid.all() else valid)


def _integers(name: str, values: list[int]) -> Series:
    for dtype in ("i8", "u8"):
        info = np.iinfo(DTYPES[dtype])
        if not values or (info.min <= min(values) and max(values) <= info.max):
            return Series(Field(name, dtype), np.array(values, DTYPES[dtype]))
    raise BadFrame(f"column {name!r}: expected integers of at most 64 bits")


def _floats(name: str, values: list[Any]) -> Series:
    out = np.empty(len(values), DTYPES["f8"])
    for row, value in enumerate(values):
        try:
            out[row] = np.nan if _kind(value) == "null" else value
        except OverflowError:
            raise BadFrame(f"column {name!r}, row {row}: expected a number that a float64 can hold") from None
    return Series(Field(name, "f8"), out)


def _microseconds(value: dt.datetime) -> int:
    aware = value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
    return (aware - _EPOCH) // _MICROSECOND
