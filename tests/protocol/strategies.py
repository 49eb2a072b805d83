"""Hypothesis strategies for values of the wire and of Python, shared by the tests of this package."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
from hypothesis import strategies as st

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
INTS = st.integers(-(2**63), 2**64 - 1)
ZONES = st.sampled_from([None, dt.UTC, dt.timezone(dt.timedelta(hours=5, minutes=30))])

PLAIN = st.recursive(
    st.none() | st.booleans() | INTS | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
"""What a decoder gives."""

SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    TEXT,
    st.text(max_size=3),
    st.decimals(),
    st.datetimes(timezones=ZONES),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.binary(max_size=3),
    st.floats().map(np.float64),
    st.floats(width=32).map(np.float32),
    INTS.filter(lambda i: i < 2**63).map(np.int64),
    st.integers(0, 255).map(np.uint8),
    st.booleans().map(np.bool_),
    st.integers(-(2**62), 2**62).map(lambda i: np.datetime64(i, "ns")),
    st.integers(-(2**62), 2**62).map(lambda i: np.datetime64(i, "s")),
    st.integers(-(2**62), 2**62).map(lambda i: np.timedelta64(i, "h")),
    st.integers(-(2**62), 2**62).map(lambda i: np.timedelta64(i, "M")),
    st.complex_numbers(),
    st.just(Decimal("sNaN")),
    st.just(object()),
)

ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(TEXT | st.integers(), inner, max_size=4)
        | st.sets(st.integers(), max_size=2)
    ),
    max_leaves=12,
)
"""What a strategy may put into a message."""
