"""Schemas: the names and dtypes of a dataframe's columns, and the id that stands for them on the wire."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from hub.protocol.errors import BadFrame

__all__ = [
    "DTYPES",
    "MAX_COLUMNS",
    "MAX_NAME_BYTES",
    "MAX_ROWS",
    "Field",
    "Schema",
    "UnknownDtype",
    "name_matches",
    "widen_dtype",
]

MAX_COLUMNS = 4096
MAX_ROWS = 1_000_000
MAX_NAME_BYTES = 256
_MAX_ZONE_BYTES = 64

DTYPES: Mapping[str, np.dtype[Any]] = {
    **{name: np.dtype("<" + name) for name in ("f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8")},
    "i1": np.dtype("i1"),
    "u1": np.dtype("u1"),
    "bool": np.dtype(np.bool_),
    "str": np.dtype(object),
    **{name: np.dtype("<i8") for name in ("ts_ms", "ts_us", "ts_ns")},
}
"""The dtypes of the wire (wire-v2 §6) and what holds them in memory: little-endian, strings as Python objects."""

UNITS_PER_S = {"ts_ms": 1_000, "ts_us": 1_000_000, "ts_ns": 1_000_000_000}
_NUMBERS = frozenset(DTYPES) - {"str", *UNITS_PER_S}


class UnknownDtype(BadFrame):
    """A column has a dtype of a newer peer: its key cannot be read, the connection is fine (wire-v2 §12)."""


@dataclass(frozen=True, slots=True)
class Field:
    """One column: its name, its dtype (one of `DTYPES`) and, for `ts_*`, the zone in which it is shown.

    A zone changes how pandas shows an instant, never the instant. Raises BadFrame, or UnknownDtype for a dtype that
    is none of `DTYPES`.
    """

    name: str
    dtype: str
    zone: str | None = None

    def __post_init__(self) -> None:
        _check_name(self.name)
        if not isinstance(self.dtype, str):
            raise BadFrame(
                f"column {self.name!r}: expected the name of a dtype, got {type(self.dtype).__name__}"
            )
        if self.dtype not in DTYPES:
            raise UnknownDtype(
                f"column {self.name!r}: unknown dtype {self.dtype[:40]!r}, expected one of {' '.join(DTYPES)}"
            )
        if self.zone is not None:
            self._check_zone(self.zone)

    def _check_zone(self, zone: object) -> None:
        if self.dtype not in UNITS_PER_S:
            raise BadFrame(f"column {self.name!r}: only ts_* columns have a zone, this is {self.dtype}")
        if not isinstance(zone, str) or not 1 <= _utf8_length(zone) <= _MAX_ZONE_BYTES:
            raise BadFrame(f"column {self.name!r}: expected a zone of 1 to {_MAX_ZONE_BYTES} bytes")

    def data(self) -> list[str]:
        """`[name, dtype]` or `[name, dtype, zone]`, as on the wire."""
        return [self.name, self.dtype] if self.zone is None else [self.name, self.dtype, self.zone]


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise BadFrame(
            f"column {repr(name)[:40]}: expected a name that is a string, got {type(name).__name__}"
        )
    if not 1 <= _utf8_length(name) <= MAX_NAME_BYTES:
        raise BadFrame(f"column {name[:40]!r}: expected a name of 1 to {MAX_NAME_BYTES} bytes of UTF-8")


def _utf8_length(text: str) -> int:
    """Bytes of `text`, or -1 when a lone surrogate makes it no text."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return -1


@dataclass(frozen=True, eq=False)
class Schema:
    """The columns of a dataframe, in order; hashable, and equal when all fields are.

    Exactly one column is the index: named `date`, of a `ts_*` dtype, without nulls. Names are unique, there are at most
    `MAX_COLUMNS`. Raises BadFrame naming the column that breaks this.
    """

    fields: tuple[Field, ...]
    index: str = "date"

    def __post_init__(self) -> None:
        if self.index != "date":
            raise BadFrame(f"index {repr(self.index)[:40]}: expected 'date'")
        if len(self.fields) > MAX_COLUMNS:
            raise BadFrame(f"{len(self.fields)} columns: expected at most {MAX_COLUMNS}")
        if len(self.positions) != len(self.fields):
            raise BadFrame(f"column {self._duplicate()!r}: expected each name once")
        if self.index not in self.positions:
            raise BadFrame("column 'date': missing; a dataframe is indexed by the date of its candles")
        if self.index_field.dtype not in UNITS_PER_S:
            raise BadFrame(f"column 'date': expected ts_ms, ts_us or ts_ns, got {self.index_field.dtype}")

    def _duplicate(self) -> str:
        seen: set[str] = set()
        return next(name for name in self.names if name in seen or seen.add(name))  # type: ignore[func-returns-value]

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Schema):
            return NotImplemented
        return self._hash == other._hash and self.fields == other.fields

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.fields)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(field.name for field in self.fields)

    @cached_property
    def positions(self) -> dict[str, int]:
        """Position of each column by its name."""
        return {field.name: i for i, field in enumerate(self.fields)}

    @cached_property
    def layout(self) -> dict[str, tuple[int, ...]]:
        """Positions of the columns of each dtype: the rows of the block that holds them."""
        layout: dict[str, list[int]] = {}
        for i, field in enumerate(self.fields):
            layout.setdefault(field.dtype, []).append(i)
        return {dtype: tuple(positions) for dtype, positions in layout.items()}

    @cached_property
    def slots(self) -> tuple[tuple[str, int], ...]:
        """For each column the block (a dtype) that holds it and its row there."""
        where = {p: (dtype, slot) for dtype, ps in self.layout.items() for slot, p in enumerate(ps)}
        return tuple(where[i] for i in range(len(self.fields)))

    @cached_property
    def index_field(self) -> Field:
        """The field of the index."""
        return self.fields[self.positions[self.index]]

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one row in memory: values and one byte of validity each, without the text of strings."""
        return sum(DTYPES[field.dtype].itemsize + 1 for field in self.fields)

    @cached_property
    def id(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical JSON of `data()`: the same at every node and for ever."""
        canonical = json.dumps(self.data(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def data(self) -> dict[str, Any]:
        """`{"columns": [[name, dtype, zone?], ...], "index": "date"}`, the `data` of a `hub.schema` message."""
        return {"columns": [field.data() for field in self.fields], "index": self.index}

    @classmethod
    def from_data(cls, data: object) -> Schema:
        """Read what `data()` gives. Unknown keys and extra elements of a column are ignored (wire-v2 §12).

        Raises:
            UnknownDtype: a dtype of a newer peer.
            BadFrame: anything else that is no schema; the text names the column.
        """
        columns = data.get("columns") if isinstance(data, Mapping) else None
        if not isinstance(columns, (list, tuple)):
            raise BadFrame("schema: expected {columns: [[name, dtype, zone?], ...], index: 'date'}")
        if len(columns) > MAX_COLUMNS:
            raise BadFrame(f"schema: {len(columns)} columns, expected at most {MAX_COLUMNS}")
        assert isinstance(data, Mapping)
        return cls(tuple(map(_field, columns)), data.get("index", "date"))

    def select(self, patterns: Iterable[str]) -> Schema:
        """The columns whose names match one of `patterns`, and the index, in this schema's order.

        A `*` stands for any run of characters, `\\*` for a star; nothing else is special.
        """
        wanted = tuple(patterns)
        keep = tuple(
            f for f in self.fields if f.name == self.index or any(name_matches(p, f.name) for p in wanted)
        )
        return self if len(keep) == len(self.fields) else Schema(keep, self.index)

    def widen(self, other: Schema) -> Schema:
        """The schema that a frame of this one takes on when rows of `other` join it.

        `other` is the newer: its names are kept (in this schema's order when both have the same names, else in
        `other`'s), with the narrowest dtype that holds both, or `other`'s where none does. A column shown in a zone
        here stays in it. Returns this very object when nothing changes.
        """
        same_names = self.positions.keys() == other.positions.keys()
        order = self.names if same_names else other.names
        fields = tuple(self._widened(name, other.fields[other.positions[name]]) for name in order)
        return self if fields == self.fields else Schema(fields, self.index)

    def _widened(self, name: str, newer: Field) -> Field:
        if name not in self.positions:
            return newer
        mine = self.fields[self.positions[name]]
        dtype = widen_dtype(mine.dtype, newer.dtype) or newer.dtype
        zone = (mine.zone or newer.zone) if dtype in UNITS_PER_S else None
        return Field(name, dtype, zone)


@lru_cache(maxsize=512)
def widen_dtype(a: str, b: str) -> str | None:
    """The narrowest dtype that holds the values of both, or None when there is none (a number and a string).

    Numbers as numpy promotes them (so an 8-byte integer and a float give f8), bool counts as 0 and 1, times take the
    finer unit.
    """
    if a == b:
        return a
    if a in UNITS_PER_S and b in UNITS_PER_S:
        return max(a, b, key=UNITS_PER_S.__getitem__)
    if a not in _NUMBERS or b not in _NUMBERS:
        return None
    promoted = np.promote_types(DTYPES[a], DTYPES[b])
    return next(name for name in DTYPES if name in _NUMBERS and DTYPES[name] == promoted)


def name_matches(pattern: str, name: str) -> bool:
    """True when `pattern` covers all of `name`: `*` is any run, `\\*` a star, all else itself. Linear in both lengths."""
    first, *rest = _literals(pattern)
    if not rest:
        return name == first
    *middle, last = rest
    if not name.startswith(first) or len(name) < len(first) + len(last) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for literal in middle:
        found = name.find(literal, at, end)
        if found < 0:
            return False
        at = found + len(literal)
    return True


@lru_cache(maxsize=1024)
def _literals(pattern: str) -> Sequence[str]:
    """What stands between the stars of a pattern."""
    parts, current, i = [], "", 0
    while i < len(pattern):
        if pattern.startswith("\\*", i):
            current, i = current + "*", i + 2
        elif pattern[i] == "*":
            parts.append(current)
            current, i = "", i + 1
        else:
            current, i = current + pattern[i], i + 1
    return (*parts, current)


def _field(column: object) -> Field:
    if not isinstance(column, (list, tuple)) or len(column) < 2:
        raise BadFrame(f"schema: expected a column as [name, dtype, zone?], got {repr(column)[:40]}")
    return Field(column[0], column[1], column[2] if len(column) > 2 else None)
