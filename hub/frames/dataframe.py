"""Dataframes: pandas in and out. The only module of the hub's frames that imports pandas, and only when called."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from typing import TYPE_CHECKING, Any

import numpy as np

from hub.frames.casting import Array, Mask
from hub.frames.columns import Columns
from hub.frames.inference import Series, infer_array, infer_objects, table
from hub.frames.schema import DTYPES, UNITS_PER_S, Field
from hub.protocol.errors import BadFrame

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["from_pandas", "named_zone", "to_pandas"]

_OFFSET = re.compile(r"UTC([+-])([0-9]{2}):([0-9]{2})", re.ASCII)


def from_pandas(frame: pd.DataFrame) -> Columns:
    """A table from a pandas frame that has its dates in a column `date`. The frame is not changed and nothing is shared.

    float, int, bool and datetime64 (s, ms, us, ns; naive or with a zone) keep their dtype, masked and pyarrow-backed
    ones too, with nulls; NaT is null, NaN in float64 stays NaN; strings of every kind are str with nulls; a category is
    what its categories are; objects as `infer_objects` says. A naive `date` is UTC.

    Raises:
        BadFrame: a column has no dtype of the wire, a name is no string or stands twice, `date` is missing.
    """
    names = list(frame.columns)
    for name in names:
        if not isinstance(name, str):
            raise BadFrame(
                f"column {repr(name)[:40]}: expected a name that is a string, got {type(name).__name__}"
            )
    if len(set(names)) != len(names):
        raise BadFrame(f"column {next(n for n in names if names.count(n) > 1)!r}: expected each name once")
    return table([_series(str(name), frame[name]) for name in names])


def _series(name: str, series: Any) -> Series:
    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        return (
            infer_objects(name, series.tolist())
            if dtype.kind == "O"
            else infer_array(name, series.to_numpy())
        )
    kind = getattr(dtype, "kind", "O")
    if str(dtype) == "category":
        return _category(name, series)
    if getattr(dtype, "tz", None) is not None and hasattr(dtype, "unit"):
        return infer_array(name, series.to_numpy(dtype=f"M8[{dtype.unit}]"), _zone_name(name, dtype.tz))
    if _is_masked(dtype) and kind in "iufb":
        return _masked(name, series)
    if kind in "OU" and _is_text(dtype):
        return infer_objects(
            name, [None if gone else v for v, gone in zip(series.tolist(), series.isna(), strict=True)]
        )
    raise BadFrame(f"column {name!r}: {dtype} has no dtype on the wire, expected one of {' '.join(DTYPES)}")


def _is_masked(dtype: Any) -> bool:
    return isinstance(getattr(dtype, "numpy_dtype", None), np.dtype)


def _is_text(dtype: Any) -> bool:
    return str(dtype).startswith(("str", "string", "large_string"))


def _masked(name: str, series: Any) -> Series:
    gone = series.isna().to_numpy(dtype=np.bool_)
    base = series.dtype.numpy_dtype
    values = series.to_numpy(dtype=base, na_value=base.type(0))
    if base.kind == "f":
        # pandas counts a NaN beside its mask as missing as well, and so do its users.
        values = np.where(gone, base.type(0), values)
    found = infer_array(name, values)
    return Series(found.field, found.values, None if not gone.any() else ~gone)


def _category(name: str, series: Any) -> Series:
    codes = series.cat.codes.to_numpy()
    categories = series.cat.categories.to_series()
    if not len(categories):
        return infer_objects(name, [None] * len(codes))
    found = _series(name, categories)
    there: Mask = codes >= 0
    rows = np.where(there, codes, 0).astype(np.intp)
    valid = there if found.valid is None else there & found.valid[rows]
    return Series(found.field, found.values[rows], None if valid.all() else valid)


def _zone_name(name: str, zone: dt.tzinfo) -> str:
    text = str(zone)
    key = (
        text
        if named_zone(text) is not None
        else str(getattr(zone, "key", None) or getattr(zone, "zone", None) or "")
    )
    if not key or named_zone(key) is None:
        raise BadFrame(f"column {name!r}: expected a zone with a name or a fixed offset, got {text[:40]!r}")
    return key


def named_zone(name: str) -> dt.tzinfo | None:
    """The zone of that name, or None. Only names of the zone database and `UTC±hh:mm`: never a file, never "local"."""
    if name == "UTC":
        return dt.UTC
    offset = _OFFSET.fullmatch(name)
    if offset is not None:
        shift = dt.timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        return dt.timezone(-shift if offset[1] == "-" else shift) if shift < dt.timedelta(days=1) else None
    try:
        return zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return None


def to_pandas(columns: Columns) -> pd.DataFrame:
    """A new frame with the columns in order and a plain range as its index.

    Numbers keep their dtype. With nulls: floats NaN, integers pandas' masked dtype, bools objects with None, strings None
    in an object column, times NaT. `date` is aware and in UTC unless its zone says otherwise; other times are naive without
    a zone. A zone that this machine does not know is shown as UTC: the instants are the same.
    """
    import pandas as pd

    data = {
        field.name: _pandas_values(pd, field, values, valid)
        for field, values, valid in zip(columns.schema.fields, columns.arrays, columns.valid, strict=True)
    }
    return pd.DataFrame(data, index=pd.RangeIndex(columns.n), copy=True)


def _pandas_values(pd: Any, field: Field, values: Array, valid: Mask | None) -> Any:
    if field.dtype in UNITS_PER_S:
        return _pandas_times(pd, field, values, valid)
    if field.dtype == "str":
        return pd.Series(values if valid is None else _with_none(values, valid), dtype=object)
    if valid is None:
        return values
    if field.dtype == "bool":
        return pd.Series(_with_none(values, valid), dtype=object)
    if field.dtype[0] == "f":
        return np.where(valid, values, values.dtype.type(np.nan))
    return pd.arrays.IntegerArray(values.astype(values.dtype.newbyteorder("=")), ~valid)


def _with_none(values: Array, valid: Mask) -> Array:
    objects = values.astype(object)
    objects[~valid] = None
    return objects


def _pandas_times(pd: Any, field: Field, values: Array, valid: Mask | None) -> Any:
    stamps = values if valid is None else np.where(valid, values, np.iinfo(np.int64).min)
    naive = pd.Series(stamps.view(f"M8[{field.dtype[3:]}]"))
    if field.zone is None and field.name != "date":
        return naive
    utc = naive.dt.tz_localize("UTC")
    zone = named_zone(field.zone) if field.zone is not None else None
    return utc if zone is None or zone is dt.UTC else utc.dt.tz_convert(zone)
