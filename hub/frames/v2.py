"""tradewire.v2's dataframes: rows and columns as plain objects for orjson and msgpack (wire-v2 §6).

A live candle is a row: its values in the order of a schema that the peer knows by its id. A snapshot is columns: on the
msgpack wire raw little-endian buffers with bitmaps of validity, on the JSON wire lists.

What is read here comes from outside. Every decoder checks lengths against `n` before it allocates, accepts elements
that a newer peer added at the end of an array, and raises BadFrame, and nothing else, for whatever it is given.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from hub.frames.casting import Array, Mask
from hub.frames.columns import Columns
from hub.frames.schema import DTYPES, MAX_ROWS, Field, Schema
from hub.protocol.errors import BadFrame

__all__ = ["PART_BYTES", "Wire", "from_columns", "from_rows", "split", "to_columns", "to_rows"]

Wire = Literal["json", "msgpack"]

PART_BYTES = 256 * 1024
"""Size of one part of a snapshot (wire-v2 §6)."""

_SAFE = 2**53 - 1
_NOT_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_NUMBER = frozenset({int, float})
_INT = frozenset({int})
_LONGEST_INTEGER = 20


# Encoding


def to_rows(columns: Columns, wire: Wire) -> list[list[Any]]:
    """The rows as lists of plain values in the schema's order, for `{schema, rows}`.

    A null is None. On the JSON wire NaN and ±inf are the strings "NaN", "Infinity", "-Infinity", and integers beyond
    ±(2^53-1) are strings of digits.
    """
    fields = columns.schema.fields
    if not fields or not columns.n:
        return []
    by_position: list[list[Any]] = [[]] * len(fields)
    for dtype, positions in columns.schema.layout.items():
        for position, values in zip(positions, _block_values(columns, dtype, wire), strict=True):
            by_position[position] = values
    return list(map(list, zip(*by_position, strict=True)))


def to_columns(columns: Columns, wire: Wire) -> list[Any]:
    """The columns as plain objects in the schema's order, for `{schema, n, cols}`.

    msgpack: `[valid, buffer]`, strings `[valid, offsets, UTF-8]`, where valid is None or a bitmap, least significant bit
    first. JSON: a list of the values that `to_rows` gives.
    """
    if wire == "msgpack":
        return [
            [_bitmap(valid), *_buffers(field, values)]
            for field, values, valid in zip(columns.schema.fields, columns.arrays, columns.valid, strict=True)
        ]
    blocks = {dtype: _block_values(columns, dtype, wire) for dtype in columns.schema.layout}
    return [blocks[dtype][slot] for dtype, slot in columns.schema.slots]


def _block_values(columns: Columns, dtype: str, wire: Wire) -> list[list[Any]]:
    block = columns.blocks[dtype]
    values: list[list[Any]] = block.tolist()
    if wire == "json":
        for slot, row, value in _unsafe_in_json(block):
            values[slot][row] = value
    mask = columns.masks.get(dtype)
    if mask is not None:
        for slot, row in np.argwhere(~mask).tolist():
            values[slot][row] = None
    return values


def _unsafe_in_json(block: Array) -> Iterator[tuple[int, int, str]]:
    """Where a JSON reader would not get the number that was written, and the string to write instead."""
    if block.dtype.kind == "f":
        finite = np.isfinite(block)
        for slot, row in [] if finite.all() else np.argwhere(~finite).tolist():
            value = block[slot, row]
            yield slot, row, "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    elif block.dtype.kind in "iu" and block.dtype.itemsize == 8:
        beyond = (block > _SAFE) | (block < -_SAFE) if block.dtype.kind == "i" else block > _SAFE
        for slot, row in np.argwhere(beyond).tolist() if beyond.any() else []:
            yield slot, row, str(block[slot, row])


def _bitmap(valid: Mask | None) -> bytes | None:
    return None if valid is None else np.packbits(valid, bitorder="little").tobytes()


def _buffers(field: Field, values: Array) -> list[bytes]:
    if field.dtype != "str":
        return [values.tobytes()]
    encoded = [text.encode() for text in values.tolist()]
    offsets = np.zeros(len(encoded) + 1, np.dtype("<i4"))
    np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=offsets[1:])
    return [offsets.tobytes(), b"".join(encoded)]


_JSON_WIDTH = {"f4": 25, "f8": 25, "bool": 6, "i1": 5, "u1": 4, "i2": 7, "u2": 6, "i4": 12, "u4": 11}
_WIDEST_JSON_INTEGER = 23


def split(columns: Columns, max_bytes: int = PART_BYTES, wire: Wire = "msgpack") -> Iterator[tuple[int, int]]:
    """Ranges `(start, stop)` of whole rows that each encode to at most `max_bytes`, covering all rows in order.

    Nothing is encoded here: the caller encodes `columns.slice(start, stop)` part by part, with a yield in between. Sizes are
    upper bounds, so parts on the JSON wire come out somewhat smaller. A single row above `max_bytes` is a range of its
    own. `max_bytes` is for the columns alone; leave room for the envelope. No rows, no ranges.
    """
    fixed, per_row = _widths(columns, wire)
    sizes = np.cumsum(per_row)
    budget = max(max_bytes - fixed, 1)
    start = 0
    while start < columns.n:
        before = int(sizes[start - 1]) if start else 0
        stop = max(int(np.searchsorted(sizes, before + budget, side="right")), start + 1)
        yield start, stop
        start = stop


def _widths(columns: Columns, wire: Wire) -> tuple[int, Array]:
    """Upper bounds of the bytes of the columns without rows, and of each row."""
    row = np.zeros(columns.n)
    fixed = 16
    for field, values in zip(columns.schema.fields, columns.arrays, strict=True):
        # Headers of the array and of up to three buffers, and the last byte of a bitmap.
        fixed += 24
        if field.dtype == "str":
            row += _text_widths(values, wire)
        elif wire == "msgpack":
            row += DTYPES[field.dtype].itemsize + 0.125
        else:
            row += _JSON_WIDTH.get(field.dtype, _WIDEST_JSON_INTEGER)
    return fixed, row


def _text_widths(values: Array, wire: Wire) -> Array:
    texts = values.tolist()
    if wire == "msgpack":
        return np.fromiter((len(text.encode()) + 4.125 for text in texts), np.float64, len(texts))
    # A control character takes six bytes; null, quotes and the comma take up to five more.
    return np.fromiter((_escaped(text) + 5 for text in texts), np.float64, len(texts))


def _escaped(text: str) -> int:
    plain = text.isprintable() and '"' not in text and "\\" not in text
    return len(text.encode()) * (1 if plain else 6)


# Decoding rows


def from_rows(schema: Schema, rows: object, wire: Wire) -> Columns:
    """The table of `rows`, lists of values in the order of `schema`; what `to_rows` gives, and more at their ends.

    Raises:
        BadFrame: the text names the column and the row, and what was expected.
    """
    if not isinstance(rows, (list, tuple)):
        raise BadFrame(f"rows: expected a list of rows, got {type(rows).__name__}")
    if len(rows) > MAX_ROWS:
        raise BadFrame(f"rows: {len(rows)} of them, expected at most {MAX_ROWS}")
    width = len(schema.fields)
    for i, row in enumerate(rows):
        if not isinstance(row, (list, tuple)) or len(row) < width:
            raise BadFrame(f"row {i}: expected a list of {width} values, as in schema {schema.id}")
    return _from_values(schema, len(rows), rows, wire, by_row=True)


def _from_values(
    schema: Schema, n: int, values: Sequence[Sequence[Any]], wire: Wire, *, by_row: bool
) -> Columns:
    blocks: dict[str, Array] = {}
    masks: dict[str, Mask] = {}
    for dtype, positions in schema.layout.items():
        if by_row and n == 1:
            row = values[0]
            flat = [row[p] for p in positions]
        elif by_row:
            flat = [row[p] for p in positions for row in values]
        else:
            flat = [value for p in positions for value in values[p][:n]]
        try:
            block, mask = _block(dtype, flat, wire)
        except _Unfit as unfit:
            slot, at = divmod(unfit.at, n)
            name = schema.names[positions[slot]]
            raise BadFrame(f"column {name!r}, row {at}: {unfit.text}") from None
        blocks[dtype] = block.reshape(len(positions), n)
        if mask is not None:
            masks[dtype] = mask.reshape(len(positions), n)
    return Columns.of_blocks(schema, n, blocks, masks)


class _Unfit(Exception):
    """A value that does not fit its dtype: its place in the flat list of a block, and why."""

    def __init__(self, at: int, text: str) -> None:
        self.at = at
        self.text = text


def _block(dtype: str, values: list[Any], wire: Wire) -> tuple[Array, Mask | None]:
    """A flat list of values of one dtype as an array, with a mask if there are nulls."""
    types = set(map(type, values))
    mask: Mask | None = None
    if type(None) in types:
        mask = np.fromiter((value is not None for value in values), np.bool_, len(values))
        null: Any = "" if dtype == "str" else 0.0 if dtype[0] == "f" else dtype != "bool" and 0
        values = [null if value is None else value for value in values]
        types = set(map(type, values))
    kind = DTYPES[dtype].kind
    if kind == "f":
        return _floats(dtype, values, types, wire), mask
    if kind == "O":
        _expect(values, types, str, "a string")
        return _objects(values), mask
    if kind == "b":
        _expect(values, types, bool, "true or false")
        return np.array(values, np.bool_), mask
    return _integers(dtype, values, types, wire), mask


def _expect(values: list[Any], types: set[type], wanted: type, text: str) -> None:
    if types <= {wanted}:
        return
    at = next(i for i, value in enumerate(values) if type(value) is not wanted)
    raise _Unfit(at, f"expected {text}, got {type(values[at]).__name__}")


def _objects(values: list[str]) -> Array:
    out = np.empty(len(values), object)
    out[:] = values
    return out


def _floats(dtype: str, values: list[Any], types: set[type], wire: Wire) -> Array:
    if not types <= _NUMBER:
        values = [_float(i, value, wire) for i, value in enumerate(values)]
    try:
        with np.errstate(over="raise"):
            return np.array(values, np.float64).astype(DTYPES[dtype], copy=False)
    except (OverflowError, FloatingPointError):
        raise _Unfit(_too_large(dtype, values), f"expected a number that {dtype} can hold") from None


def _float(at: int, value: Any, wire: Wire) -> float:
    if type(value) in _NUMBER:
        return value  # type: ignore[no-any-return]
    if wire == "json" and isinstance(value, str) and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    also = ' or "NaN", "Infinity", "-Infinity"' if wire == "json" else ""
    raise _Unfit(at, f"expected a number{also}, got {type(value).__name__}")


def _too_large(dtype: str, values: list[Any]) -> int:
    limit = float(np.finfo(DTYPES[dtype]).max)
    return next((i for i, v in enumerate(values) if v == v and abs(v) != float("inf") and abs(v) > limit), 0)


def _integers(dtype: str, values: list[Any], types: set[type], wire: Wire) -> Array:
    if not types <= _INT:
        values = [_integer(i, value, wire) for i, value in enumerate(values)]
    info = np.iinfo(DTYPES[dtype])
    if values and not (info.min <= min(values) and max(values) <= info.max):
        at = next(i for i, v in enumerate(values) if not info.min <= v <= info.max)
        raise _Unfit(at, f"expected an integer that {dtype} can hold")
    return np.array(values, DTYPES[dtype])


def _integer(at: int, value: Any, wire: Wire) -> int:
    if type(value) is int:
        return value
    if wire == "json" and isinstance(value, str) and len(value) <= _LONGEST_INTEGER:
        digits = value.removeprefix("-")
        if digits.isascii() and digits.isdigit():
            return int(value)
    also = " or a string of digits" if wire == "json" else ""
    raise _Unfit(at, f"expected an integer{also}, got {type(value).__name__}")


# Decoding columns


def from_columns(schema: Schema, n: object, cols: object, wire: Wire) -> Columns:
    """The table of `cols`, `n` rows each, in the order of `schema`; what `to_columns` gives, and more at their ends.

    Raises:
        BadFrame: the text names the column, and what was expected.
    """
    if type(n) is not int or not 0 <= n <= MAX_ROWS:
        raise BadFrame(f"n: expected an integer of 0 to {MAX_ROWS}, got {repr(n)[:40]}")
    if not isinstance(cols, (list, tuple)) or len(cols) < len(schema.fields):
        raise BadFrame(f"cols: expected a list of {len(schema.fields)} columns, as in schema {schema.id}")
    if wire == "json":
        for field, values in zip(schema.fields, cols, strict=False):
            if not isinstance(values, (list, tuple)) or len(values) < n:
                raise BadFrame(f"column {field.name!r}: expected a list of {n} values")
        return _from_values(schema, n, cols, wire, by_row=False)
    return _from_buffers(schema, n, cols)


def _from_buffers(schema: Schema, n: int, cols: Sequence[Any]) -> Columns:
    parts = [_parts(field, n, column) for field, column in zip(schema.fields, cols, strict=False)]
    blocks: dict[str, Array] = {}
    masks: dict[str, Mask] = {}
    for dtype, positions in schema.layout.items():
        shape = (len(positions), n)
        block = np.full(shape, "", object) if dtype == "str" else np.empty(shape, DTYPES[dtype])
        for slot, position in enumerate(positions):
            valid, *buffers = parts[position]
            block[slot] = _values(schema.fields[position], n, buffers)
            if valid is not None:
                mask = masks.setdefault(dtype, np.ones(shape, np.bool_))
                mask[slot] = np.unpackbits(np.frombuffer(valid, np.uint8), count=n, bitorder="little")
        blocks[dtype] = block
    return Columns.of_blocks(schema, n, blocks, masks)


def _parts(field: Field, n: int, column: Any) -> list[Any]:
    """`[valid, buffer]` or `[valid, offsets, UTF-8]`, with every length right."""
    text = field.dtype == "str"
    count = 3 if text else 2
    if not isinstance(column, (list, tuple)) or len(column) < count:
        raise BadFrame(
            f"column {field.name!r}: expected {'[valid, offsets, text]' if text else '[valid, buffer]'}"
        )
    valid, *buffers = column[:count]
    if not all(isinstance(buffer, (bytes, bytearray, memoryview)) for buffer in buffers):
        raise BadFrame(f"column {field.name!r}: expected buffers of bytes")
    if valid is not None and (
        not isinstance(valid, (bytes, bytearray, memoryview)) or len(valid) != (n + 7) // 8
    ):
        raise BadFrame(
            f"column {field.name!r}: expected valid to be null or a bitmap of {(n + 7) // 8} bytes"
        )
    width, rows = (4, n + 1) if text else (DTYPES[field.dtype].itemsize, n)
    if len(buffers[0]) != width * rows:
        raise BadFrame(
            f"column {field.name!r}: {len(buffers[0])} bytes, expected {width * rows} for {n} rows"
        )
    return [valid, *buffers]


def _values(field: Field, n: int, buffers: list[Any]) -> Array:
    if field.dtype == "str":
        return _objects(_texts(field, np.frombuffer(buffers[0], "<i4"), bytes(buffers[1])))
    if field.dtype == "bool":
        flags = np.frombuffer(buffers[0], np.uint8)
        if n and flags.max() > 1:
            raise BadFrame(f"column {field.name!r}, row {int(np.argmax(flags > 1))}: expected a byte 0 or 1")
        return flags.view(np.bool_)
    return np.frombuffer(buffers[0], DTYPES[field.dtype])


def _texts(field: Field, offsets: Array, text: bytes) -> list[str]:
    if offsets[0] != 0 or offsets[-1] != len(text) or (np.diff(offsets.astype(np.int64)) < 0).any():
        raise BadFrame(
            f"column {field.name!r}: expected offsets that rise from 0 to the {len(text)} bytes of text"
        )
    bounds = offsets.tolist()
    try:
        if text.isascii():
            whole = text.decode("ascii")
            return [whole[a:b] for a, b in itertools.pairwise(bounds)]
        return [text[a:b].decode() for a, b in itertools.pairwise(bounds)]
    except UnicodeDecodeError:
        raise BadFrame(f"column {field.name!r}: expected UTF-8") from None
