"""Columns: a dataframe as an immutable table of numpy arrays.

A table keeps one two-dimensional block per dtype, a row of the block for each column, so that taking over one candle
of forty columns costs as many numpy calls as there are dtypes and not as there are columns. A null is a False in the
block's mask, which exists only when there is a null; the slot of a null holds zero, False or the empty string, so that
equal tables have equal blocks. Null is not NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hub.frames.casting import Array, Cast, Mask, cast_values, zeros
from hub.frames.schema import DTYPES, MAX_ROWS, UNITS_PER_S, Field, Schema, UnknownDtype
from hub.frames.timeframe import MAX_DATE_MS, MIN_DATE_MS
from hub.protocol.errors import BadFrame

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MAX_TEXT_BYTES", "Columns", "Field", "Schema", "UnknownDtype"]

MAX_TEXT_BYTES = 65_536
"""Bytes of UTF-8 that one value of a string column may have."""


class Columns:
    """An immutable dataframe: a schema and `n` rows. Arrays it hands out are read-only.

    `arrays` are the columns in the schema's order, each of the dtype of `DTYPES` (strings as objects) and all of one
    length, at most `MAX_ROWS`; `valid` has for each None (no nulls) or a bool array, True where there is a value. Both
    are copied. Dates lie in the years 1 to 9999, in any order, and may repeat: the store sorts them.

    Raises:
        BadFrame: the text names the column, and the row where one is at fault, and what was expected.
    """

    __slots__ = ("_arrays", "_date_ms", "blocks", "masks", "n", "schema")

    schema: Schema
    n: int
    blocks: dict[str, Array]
    masks: dict[str, Mask]

    def __init__(
        self, schema: Schema, arrays: Sequence[Array], valid: Sequence[Mask | None] | None = None
    ) -> None:
        masks = valid if valid is not None else (None,) * len(arrays)
        if len(arrays) != len(schema.fields) or len(masks) != len(arrays):
            raise BadFrame(f"{len(arrays)} columns: expected {len(schema.fields)}, as in the schema")
        n = len(arrays[0])
        for field, array, mask in zip(schema.fields, arrays, masks, strict=True):
            _check_column(field, array, mask, n)
        blocks: dict[str, Array] = {}
        block_masks: dict[str, Mask] = {}
        for dtype, positions in schema.layout.items():
            blocks[dtype] = np.array([arrays[p] for p in positions], dtype=DTYPES[dtype]).reshape(
                len(positions), n
            )
            given = [masks[p] for p in positions]
            if any(mask is not None for mask in given):
                block_masks[dtype] = np.array([np.ones(n, np.bool_) if m is None else m for m in given])
        self._settle(schema, n, blocks, block_masks)

    @classmethod
    def of_blocks(
        cls, schema: Schema, n: int, blocks: dict[str, Array], masks: dict[str, Mask] | None = None
    ) -> Columns:
        """Take over blocks, without a copy: for each dtype of `schema.layout` an array of shape (columns, n).

        The caller vouches for shapes and dtypes and keeps no other reference; nulls, texts and dates are checked here.
        Raises BadFrame as the constructor.
        """
        columns = cls.__new__(cls)
        columns._settle(schema, n, blocks, masks if masks is not None else {})
        return columns

    def _settle(self, schema: Schema, n: int, blocks: dict[str, Array], masks: dict[str, Mask]) -> None:
        if n > MAX_ROWS:
            raise BadFrame(f"{n} rows: expected at most {MAX_ROWS}")
        self.schema, self.n, self.blocks, self.masks = schema, n, blocks, masks
        self._arrays: tuple[Array, ...] | None = None
        self._date_ms: Array | None = None
        for dtype in [dtype for dtype, mask in masks.items() if mask.all()]:
            del masks[dtype]
        for dtype, mask in masks.items():
            blocks[dtype] = np.where(mask, blocks[dtype], "" if dtype == "str" else DTYPES[dtype].type(0))
        if "str" in blocks:
            _check_texts(schema, blocks["str"])
        _check_dates(schema, n, blocks, masks)
        self._seal()

    def _seal(self) -> None:
        for block in self.blocks.values():
            block.flags.writeable = False
        for mask in self.masks.values():
            mask.flags.writeable = False

    @classmethod
    def of_checked(cls, schema: Schema, n: int, blocks: dict[str, Array], masks: dict[str, Mask]) -> Columns:
        """As `of_blocks` for rows that were in a table before: nothing is checked, only needless masks are dropped."""
        columns = cls.__new__(cls)
        columns.schema, columns.n, columns.blocks = schema, n, blocks
        columns.masks = {dtype: mask for dtype, mask in masks.items() if not mask.all()}
        columns._arrays = columns._date_ms = None
        columns._seal()
        return columns

    @classmethod
    def empty(cls, schema: Schema) -> Columns:
        """A table without rows."""
        return cls(schema, [zeros(field.dtype, 0) for field in schema.fields])

    def __repr__(self) -> str:
        return f"<Columns {self.n} rows, {len(self.schema.fields)} columns, schema {self.schema.id}>"

    def __len__(self) -> int:
        return self.n

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The columns in the schema's order, read-only, without a copy."""
        if self._arrays is None:
            self._arrays = tuple(self.blocks[dtype][slot] for dtype, slot in self.schema.slots)
        return self._arrays

    @property
    def valid(self) -> tuple[Mask | None, ...]:
        """For each column None (no nulls) or a bool array that is True where there is a value."""
        return tuple(self._valid(position) for position in range(len(self.schema.fields)))

    def _valid(self, position: int) -> Mask | None:
        dtype, slot = self.schema.slots[position]
        mask = self.masks.get(dtype)
        if mask is None or mask[slot].all():
            return None
        row: Mask = mask[slot]
        return row

    @property
    def nbytes(self) -> int:
        """Bytes held: values, masks and the UTF-8 of strings."""
        held = sum(array.nbytes for array in (*self.blocks.values(), *self.masks.values()))
        return held + (text_bytes(self.blocks["str"]) if "str" in self.blocks else 0)

    @property
    def date_ms(self) -> Array:
        """The index as int64 ms since 1970 UTC, rounded down."""
        if self._date_ms is None:
            dtype, slot = self.schema.slots[self.schema.positions[self.schema.index]]
            dates = self.blocks[dtype][slot]
            self._date_ms = dates if dtype == "ts_ms" else dates // (UNITS_PER_S[dtype] // 1000)
            self._date_ms.flags.writeable = False
        return self._date_ms

    def column(self, name: str) -> Array:
        """One column, read-only, without a copy; look at `valid` for its nulls. Raises KeyError."""
        return self.arrays[self.schema.positions[name]]

    def select(self, patterns: Iterable[str]) -> Columns:
        """The columns that `Schema.select` keeps, all rows."""
        schema = self.schema.select(patterns)
        return self if schema is self.schema else self._project(schema)

    def _project(self, schema: Schema) -> Columns:
        blocks: dict[str, Array] = {}
        masks: dict[str, Mask] = {}
        for dtype, positions in schema.layout.items():
            slots = [self.schema.slots[self.schema.positions[schema.names[p]]][1] for p in positions]
            blocks[dtype] = self.blocks[dtype][slots]
            if dtype in self.masks:
                masks[dtype] = self.masks[dtype][slots]
        return Columns.of_checked(schema, self.n, blocks, masks)

    def slice(self, start: int, stop: int) -> Columns:
        """Rows `start` to `stop` (exclusive), as Python slices count, without a copy."""
        rows = slice(start, stop)
        n = len(range(*rows.indices(self.n)))
        return Columns.of_checked(
            self.schema,
            n,
            {d: b[:, rows] for d, b in self.blocks.items()},
            {d: m[:, rows] for d, m in self.masks.items()},
        )

    def tail(self, k: int) -> Columns:
        """The last `k` rows, or all when there are fewer; none for k <= 0."""
        return self.slice(max(self.n - max(k, 0), 0), self.n)

    def take(self, indices: Array | Sequence[int]) -> Columns:
        """The rows at `indices` (integers, or a bool array of length n), in that order, copied."""
        rows = np.asarray(indices)
        if rows.dtype.kind == "b":
            rows = np.flatnonzero(rows)
        rows = rows.astype(np.intp, copy=False)
        return Columns.of_checked(
            self.schema,
            len(rows),
            {d: b[:, rows] for d, b in self.blocks.items()},
            {d: m[:, rows] for d, m in self.masks.items()},
        )

    def row(self, i: int) -> list[Any]:
        """Row `i` as Python values in the schema's order: None for a null, times as integers of their unit."""
        out: list[Any] = [None] * len(self.schema.fields)
        for dtype, positions in self.schema.layout.items():
            for position, value in zip(positions, self.blocks[dtype][:, i].tolist(), strict=True):
                out[position] = value
        for dtype, mask in self.masks.items():
            for slot in np.flatnonzero(~mask[:, i]).tolist():
                out[self.schema.layout[dtype][slot]] = None
        return out

    def equals(self, other: Columns) -> bool:
        """Same schema and same rows: floats bit for bit, but any NaN equals any NaN; a null equals only a null."""
        if self.n != other.n or self.schema != other.schema or self.masks.keys() != other.masks.keys():
            return False
        same_nulls = all(np.array_equal(mask, other.masks[dtype]) for dtype, mask in self.masks.items())
        return same_nulls and all(bool(same_values(b, other.blocks[d]).all()) for d, b in self.blocks.items())

    @staticmethod
    def concat(tables: Sequence[Columns]) -> Columns:
        """Rows of all `tables`, one after the other. Raises BadFrame when their schemas differ or there is no table."""
        if not tables:
            raise BadFrame("no tables: expected at least one to join")
        first, n = tables[0], sum(table.n for table in tables)
        if any(table.schema != first.schema for table in tables):
            raise BadFrame(f"tables of different schemas: expected all to be {first.schema.id}")
        blocks = {d: np.concatenate([t.blocks[d] for t in tables], axis=1) for d in first.blocks}
        nullable = {dtype for table in tables for dtype in table.masks}
        masks = {d: np.concatenate([t.mask_or_ones(d) for t in tables], axis=1) for d in nullable}
        if n > MAX_ROWS:
            raise BadFrame(f"{n} rows: expected at most {MAX_ROWS}")
        return Columns.of_checked(first.schema, n, blocks, masks)

    def mask_or_ones(self, dtype: str) -> Mask:
        """The mask of a block, made up when it has no nulls."""
        mask = self.masks.get(dtype)
        return mask if mask is not None else np.ones(self.blocks[dtype].shape, np.bool_)

    def cast_column(self, field: Field) -> Cast:
        """The column named as `field` in its dtype, with what is lost; all null when there is no such column."""
        position = self.schema.positions.get(field.name)
        if position is None:
            return Cast(zeros(field.dtype, self.n), np.zeros(self.n, np.bool_), None)
        source = self.schema.fields[position].dtype
        return cast_values(self.arrays[position], self._valid(position), source, field.dtype)

    def cast(self, schema: Schema, *, lossy: bool = False) -> Columns:
        """The columns of `schema`: in its dtypes, those that are missing here all null, others left out.

        What a dtype cannot hold is refused, or with `lossy` becomes null (but never a date). See `cast_values`.

        Raises:
            BadFrame: a value would be lost; the text names its column and row.
        """
        if schema is self.schema or schema == self.schema:
            return self
        casts = [self.cast_column(field) for field in schema.fields]
        for field, cast in zip(schema.fields, casts, strict=True):
            if cast.lost is not None and not (lossy and field.name != schema.index):
                row = int(np.flatnonzero(cast.lost)[0])
                raise BadFrame(
                    f"column {field.name!r}, row {row}: a value does not fit the dtype {field.dtype}"
                )
        return Columns(schema, [cast.values for cast in casts], [cast.valid for cast in casts])

    @classmethod
    def from_mapping(
        cls, data: Mapping[str, Sequence[Any] | Array], dtypes: Mapping[str, str] | None = None
    ) -> Columns:
        """A table from named sequences or numpy arrays; see `hub.frames.inference` for the dtypes it gives.

        `dtypes` sets some of them; integers in `date` are ms since 1970 UTC, datetimes may stand there too. Raises BadFrame.
        """
        from hub.frames.inference import from_mapping

        return from_mapping(data, dtypes or {})

    @classmethod
    def from_pandas(cls, frame: pd.DataFrame) -> Columns:
        """A table from a pandas frame with a `date` column, which is not changed; see `hub.frames.dataframe`.

        Raises BadFrame naming the column that has no dtype of the wire.
        """
        from hub.frames.dataframe import from_pandas

        return from_pandas(frame)

    def to_pandas(self) -> pd.DataFrame:
        """A new pandas frame that shares nothing with this table; see `hub.frames.dataframe` for the dtypes."""
        from hub.frames.dataframe import to_pandas

        return to_pandas(self)


def same_values(a: Array, b: Array) -> Mask:
    """Elementwise equality of two arrays of one dtype: floats bit for bit, NaN equal to any NaN."""
    if a.dtype.kind != "f":
        same: Mask = a == b
        return same
    same = (a == b) & (np.signbit(a) == np.signbit(b))
    same |= np.isnan(a) & np.isnan(b)
    return same


def text_bytes(block: Array) -> int:
    """Bytes of UTF-8 in a block of strings."""
    texts = block.ravel().tolist()
    joined = "".join(texts)
    return len(joined) if joined.isascii() else len(joined.encode())


def _check_column(field: Field, array: Array, mask: Mask | None, n: int) -> None:
    if array.ndim != 1 or array.dtype != DTYPES[field.dtype]:
        raise BadFrame(
            f"column {field.name!r}: expected a one-dimensional array of {field.dtype}, got {array.dtype}"
        )
    if len(array) != n or (mask is not None and len(mask) != n):
        raise BadFrame(f"column {field.name!r}: {len(array)} rows, expected {n} as in the first column")
    if field.dtype == "str" and not set(map(type, array.tolist())) <= {str}:
        raise BadFrame(f"column {field.name!r}: expected strings only")


def _check_texts(schema: Schema, block: Array) -> None:
    texts = block.ravel().tolist()
    try:
        "".join(texts).encode()
        # Four bytes a character at most: the common case is settled without encoding each text.
        if max(map(len, texts), default=0) * 4 <= MAX_TEXT_BYTES:
            return
    except UnicodeEncodeError:
        pass
    for at, text in enumerate(texts):
        slot, row = divmod(at, block.shape[1])
        name = schema.fields[schema.layout["str"][slot]].name
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise BadFrame(f"column {name!r}, row {row}: expected text that UTF-8 can encode") from None
        if size > MAX_TEXT_BYTES:
            raise BadFrame(f"column {name!r}, row {row}: {size} bytes, expected at most {MAX_TEXT_BYTES}")


def _check_dates(schema: Schema, n: int, blocks: dict[str, Array], masks: dict[str, Mask]) -> None:
    dtype, slot = schema.slots[schema.positions[schema.index]]
    if dtype in masks and not masks[dtype][slot].all():
        row = int(np.argmin(masks[dtype][slot]))
        raise BadFrame(f"column 'date', row {row}: null, expected the opening time of the candle")
    if not n:
        return
    dates, per_ms = blocks[dtype][slot], UNITS_PER_S[dtype] // 1000
    first, last = (int(dates[0]),) * 2 if n == 1 else (int(dates.min()), int(dates.max()))
    if first < MIN_DATE_MS * per_ms or last > MAX_DATE_MS * per_ms + per_ms - 1:
        row = int(dates.argmin() if first < MIN_DATE_MS * per_ms else dates.argmax())
        raise BadFrame(
            f"column 'date', row {row}: {int(dates[row])} {dtype[3:]}, expected a time of the years 1 to 9999"
        )
