"""freqtrade's dataframes: the split JSON text that travels in `__value__`, without pandas.

The text is `{"columns": [...], "index": [...], "data": [[...], ...]}`, one list per row. Every time is an integer, ms since
1970 UTC; NaN, ±inf and null are null. freqtrade rounds floats to ten decimals; here they are written so that they read
back as the same float, and so that its reader, which is not exact, takes them to a relative error of 1e-15 (measured with
freqtrade 2026.9 and pandas 3.1).

Reading has to guess, since the text names no dtypes: a column that is all null in one row, or all whole numbers, says little.
So the reader is given the schema that the key had before (`like`) and keeps its dtypes as long as the values fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import orjson

from hub.frames.casting import Array, Mask, cast_values, zeros
from hub.frames.columns import Columns
from hub.frames.inference import Series
from hub.frames.schema import DTYPES, MAX_COLUMNS, MAX_ROWS, UNITS_PER_S, Field, Schema
from hub.protocol.errors import BadFrame

__all__ = ["decode_split", "encode_split", "iter_split"]

_EMPTY = Schema((Field("date", "ts_ms", "UTC"),))
_NULL = type(None)
_NAT = -(2**63)
"""What freqtrade sends for a time that is null in another column than `date`."""
_FIRST_WITHOUT_EXPONENT = 1e-5


# Encoding


def encode_split(columns: Columns, start: int = 0) -> str:
    """The text for `__value__`. The index counts from `start` (freqtrade sends the row's place in its own frame).

    Times are ms, rounded down; a null time is null. Floats keep a point (`1.0`) and integers have none, as pandas writes
    them. Takes 3 to 20 us a row of 42 columns; `iter_split` does it in slices.
    """
    return "".join(iter_split(columns, start, rows=max(columns.n, 1)))


def iter_split(columns: Columns, start: int = 0, *, rows: int = 250) -> Iterator[str]:
    """`encode_split` in pieces of `rows` rows: joined they are the text. For a caller that yields in between."""
    names = orjson.dumps(columns.schema.names).decode()
    index = orjson.dumps(list(range(start, start + columns.n))).decode()
    yield f'{{"columns":{names},"index":{index},"data":['
    for first in range(0, columns.n, rows):
        text = orjson.dumps(_row_lists(columns.slice(first, first + rows))).decode()
        yield ("," if first else "") + text[1:-1]
    yield "]}"


def _row_lists(columns: Columns) -> list[tuple[Any, ...]]:
    by_position: list[list[Any]] = [[]] * len(columns.schema.fields)
    for dtype, positions in columns.schema.layout.items():
        block = columns.blocks[dtype]
        if dtype in UNITS_PER_S:
            block = block // (UNITS_PER_S[dtype] // 1000)
        values = block.tolist()
        if block.dtype.kind == "f":
            _spell_out(block, values)
        if dtype in columns.masks:
            for slot, row in np.argwhere(~columns.masks[dtype]).tolist():
                values[slot][row] = None
        for position, column in zip(positions, values, strict=True):
            by_position[position] = column
    return list(zip(*by_position, strict=True))


def _spell_out(block: Array, values: list[list[Any]]) -> None:
    """Write fractions that have more than 15 decimals as an integer with an exponent, in `values`.

    They are the same numbers to any reader of JSON. pandas' reader stops at the 15th decimal, which takes the last six
    digits from 0.00012345678901234567; of an integer it looks at every digit.
    """
    block = block.astype(np.float64, copy=False)
    size = np.abs(block)
    fractions = np.where((size < 1) & (size >= _FIRST_WITHOUT_EXPONENT), block, 0)
    slots, rows = np.nonzero(np.round(fractions, 15) != fractions)
    if not len(slots):
        return
    texts = orjson.dumps(block[slots, rows].tolist())[1:-1].decode().split(",")
    for slot, row, text in zip(slots.tolist(), rows.tolist(), texts, strict=True):
        if "e" not in text:
            sign, _, decimals = text.partition("0.")
            values[slot][row] = orjson.Fragment(f"{sign}{decimals.lstrip('0')}e-{len(decimals)}")


# Decoding


def decode_split(text: str | bytes, *, like: Schema | None = None) -> Columns:
    """Read the text of `__value__`.

    `date` is ms in UTC. A column takes its dtype in `like` if there is one of its name that holds the values; a null is NaN
    in a float and makes an integer column f8, as in pandas. A time that is null, or NaT as freqtrade writes it, is
    null. Otherwise the column takes the dtype that its values show: bool, str, i8 or u8
    for integers without nulls, f8 for numbers; f8 and all null when there is nothing but null. Numbers beside strings become
    their text. Columns of one name are numbered as pandas does (`a`, `a.1`). An empty frame without columns gives one with
    a date and no rows. When all dtypes are those of `like`, the table's schema is that very object.

    Raises:
        BadFrame: not such a text, or a cell with a list or map in it; the text names the column and row.
    """
    names, rows = _parse(text)
    if not names and not rows:
        return Columns.empty(like if like is not None else _EMPTY)
    if len(rows) == 1 and like is not None and names == list(like.names):
        fast = _one_row(rows[0], like)
        if fast is not None:
            return fast
    cells: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    known = {field.name: field for field in like.fields} if like is not None else {}
    series = [_column(name, column, known.get(name)) for name, column in zip(names, cells, strict=True)]
    fields = tuple(s.field for s in series)
    schema = like if like is not None and like.fields == fields else Schema(fields)
    return Columns(schema, [s.values for s in series], [s.valid for s in series])


def _parse(text: str | bytes) -> tuple[list[str], list[list[Any]]]:
    try:
        frame = orjson.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise BadFrame("dataframe: expected a JSON text as pandas writes with orient='split'") from None
    columns = frame.get("columns") if isinstance(frame, dict) else None
    rows = frame.get("data") if isinstance(frame, dict) else None
    if not isinstance(columns, list) or not isinstance(rows, list):
        raise BadFrame("dataframe: expected an object with the lists columns, index and data")
    if len(columns) > MAX_COLUMNS or len(rows) > MAX_ROWS:
        raise BadFrame(
            f"dataframe: {len(columns)} columns and {len(rows)} rows, expected at most {MAX_COLUMNS} and {MAX_ROWS}"
        )
    for i, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(columns):
            raise BadFrame(f"row {i}: expected a list of {len(columns)} values, one for each column")
    return _distinct(columns), rows


def _distinct(columns: list[Any]) -> list[str]:
    names: list[str] = []
    seen: dict[str, int] = {}
    for column in columns:
        if not isinstance(column, (str, int, float)):
            raise BadFrame(f"column {repr(column)[:40]}: expected a name that is a string")
        name = base = str(column)
        while name in seen:
            seen[base] += 1
            name = f"{base}.{seen[base]}"
        seen[name] = 0
        names.append(name)
    return names


def _one_row(row: list[Any], like: Schema) -> Columns | None:
    """The row in the schema of its key, block by block; None when a value does not fit it plainly."""
    blocks: dict[str, Array] = {}
    masks: dict[str, Mask] = {}
    for dtype, positions in like.layout.items():
        values = [row[p] for p in positions]
        types = set(map(type, values))
        if dtype == "f8" and types <= {float, int, _NULL}:
            block = np.array(
                [np.nan if v is None else v for v in values] if _NULL in types else values, np.float64
            )
        elif dtype == "str" and types <= {str, _NULL}:
            block = np.empty(len(values), object)
            block[:] = ["" if v is None else v for v in values] if _NULL in types else values
        elif dtype == "bool" and types <= {bool, _NULL}:
            block = np.array([bool(v) for v in values], np.bool_)
        elif dtype == "i8" and types <= {int} and -(2**63) <= min(values) <= max(values) < 2**63:
            block = np.array(values, DTYPES["i8"])
        elif dtype == "ts_ms" and types <= {int} and -(2**63) < min(values) <= max(values) < 2**63:
            block = np.array(values, DTYPES["ts_ms"])
        else:
            return None
        if _NULL in types and dtype != "f8":
            masks[dtype] = np.array([[v is not None] for v in values], np.bool_)
        blocks[dtype] = block.reshape(len(positions), 1)
    return Columns.of_blocks(like, 1, blocks, masks)


def _column(name: str, values: Sequence[Any], known: Field | None) -> Series:
    types = set(map(type, values))
    if name == "date":
        return _dates(values, types, known)
    if known is not None and known.dtype in UNITS_PER_S and types <= {int, _NULL}:
        times = _times(known, values)
        if times is not None:
            return times
    if known is not None and known.dtype == "str" and types <= {str, int, float, bool, _NULL}:
        return _texts(name, values)
    found = _inferred(name, values, types)
    return found if known is None else _as_known(found, known)


def _as_known(found: Series, known: Field) -> Series:
    """The column in the dtype it had before, if its values fit."""
    if known.dtype[0] in "iu" and found.field.dtype == "f8":
        found = _with_nan(found)
    cast = cast_values(found.values, found.valid, found.field.dtype, known.dtype)
    kept = found if cast.lost is not None else Series(known, cast.values, cast.valid)
    return _with_nan(kept) if kept.field.dtype in ("f4", "f8") else kept


def _with_nan(series: Series) -> Series:
    """A float column whose nulls are NaN, as freqtrade has them."""
    if series.valid is None:
        return series
    return Series(series.field, np.where(series.valid, series.values, series.values.dtype.type(np.nan)))


def _dates(values: Sequence[Any], types: set[type], known: Field | None) -> Series:
    if not types <= {int}:
        row = next(i for i, value in enumerate(values) if type(value) is not int)
        raise BadFrame(
            f"column 'date', row {row}: expected ms since 1970 as an integer, got {type(values[row]).__name__}"
        )
    for field in (known, Field("date", "ts_ms", "UTC")):
        times = _times(field, values) if field is not None else None
        if times is not None:
            return times
    raise BadFrame("column 'date': expected ms since 1970 of the years 1 to 9999")


def _times(field: Field, values: Sequence[Any]) -> Series | None:
    """ms since 1970, as times in the unit of `field`; None when they do not fit it."""
    factor = UNITS_PER_S[field.dtype] // 1000
    valid = np.array([value is not None and value != _NAT for value in values], np.bool_)
    stamps = [value if there else 0 for value, there in zip(values, valid.tolist(), strict=True)]
    bound = (2**63 - 1) // factor
    if stamps and not (-bound <= min(stamps) and max(stamps) <= bound):
        return None
    return Series(field, np.array(stamps, np.int64) * factor, None if valid.all() else valid)


def _inferred(name: str, values: Sequence[Any], types: set[type]) -> Series:
    something = types - {_NULL}
    n = len(values)
    if not something:
        return Series(Field(name, "f8"), zeros("f8", n), np.zeros(n, np.bool_) if n else None)
    if not something <= {str, bool, int, float}:
        row = next(i for i, value in enumerate(values) if type(value) in (list, dict))
        raise BadFrame(f"column {name!r}, row {row}: expected a number, a string, a bool or null")
    if str in something:
        return _texts(name, values)
    if something == {bool}:
        return _nullable(name, "bool", values)
    if types == {int}:
        for dtype in ("i8", "u8"):
            info = np.iinfo(DTYPES[dtype])
            if info.min <= min(values) and max(values) <= info.max:
                return Series(Field(name, dtype), np.array(values, DTYPES[dtype]))
    return Series(Field(name, "f8"), np.array([np.nan if v is None else v for v in values], np.float64))


def _texts(name: str, values: Sequence[Any]) -> Series:
    return _nullable(
        name, "str", [v if v is None or type(v) is str else orjson.dumps(v).decode() for v in values]
    )


def _nullable(name: str, dtype: str, values: Sequence[Any]) -> Series:
    valid = np.array([value is not None for value in values], np.bool_)
    out = zeros(dtype, len(values))
    out[valid] = [value for value in values if value is not None]
    return Series(Field(name, dtype), out, None if valid.all() else valid)
