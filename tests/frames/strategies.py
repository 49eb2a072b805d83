"""Hypothesis strategies for schemas and tables, shared by the tests of this package."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from hub.frames.columns import Columns
from hub.frames.schema import DTYPES, UNITS_PER_S, Field, Schema

NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8).filter(
    lambda name: name != "date"
)


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    names = draw(st.lists(NAMES, max_size=6, unique=True))
    fields = [Field(name, draw(st.sampled_from(sorted(DTYPES)))) for name in names]
    fields = [
        Field(f.name, f.dtype, draw(st.sampled_from([None, "UTC", "Europe/Berlin"])))
        if f.dtype in UNITS_PER_S
        else f
        for f in fields
    ]
    fields.insert(
        draw(st.integers(0, len(fields))), Field("date", draw(st.sampled_from(sorted(UNITS_PER_S))), "UTC")
    )
    return Schema(tuple(fields))


def values(field: Field) -> st.SearchStrategy[Any]:
    dtype = DTYPES[field.dtype]
    if field.name == "date":
        return st.integers(0, 10**6).map(lambda n: n * UNITS_PER_S[field.dtype])
    if dtype.kind == "O":
        return st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
    if dtype.kind == "b":
        return st.booleans()
    if dtype.kind == "f":
        return st.floats(width=8 * dtype.itemsize)  # type: ignore[arg-type]
    info = np.iinfo(dtype)
    return st.integers(int(info.min), int(info.max))


@st.composite
def tables(draw: st.DrawFn, schema: Schema | None = None) -> Columns:
    schema = draw(schemas()) if schema is None else schema
    n = draw(st.integers(0, 9))
    arrays, valid = [], []
    for field in schema.fields:
        column = np.empty(n, DTYPES[field.dtype])
        column[:] = draw(st.lists(values(field), min_size=n, max_size=n))
        nullable = field.name != "date" and draw(st.booleans())
        arrays.append(column)
        valid.append(
            np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), np.bool_) if nullable else None
        )
    return Columns(schema, arrays, valid)
