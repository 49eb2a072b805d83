from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hub.frames.casting import cast_values
from hub.frames.schema import DTYPES

NAN = float("nan")


@pytest.mark.parametrize(
    ("source", "values", "target", "survives"),
    [
        ("f8", [1.0, 1.5, NAN, -0.0, 2.0**63, -(2.0**63), float("inf")], "i8", [1, 0, 0, 0, 0, 1, 0]),
        ("f8", [0.5, 0.1, NAN, 1e300], "f4", [1, 0, 1, 0]),
        ("f8", [0.0, 1.0, 2.0], "bool", [1, 1, 0]),
        ("i8", [2**53, 2**53 + 1, -(2**53)], "f8", [1, 0, 1]),
        ("i8", [127, 128, -128, -129], "i1", [1, 0, 1, 0]),
        ("i8", [-1, 0, 2**63 - 1], "u8", [0, 1, 1]),
        ("u8", [2**63 - 1, 2**63], "i8", [1, 0]),
        ("u8", [5, 2**64 - 1], "f8", [1, 0]),
        ("bool", [True, False], "f8", [1, 1]),
        ("ts_us", [1000, 1001, -1000], "ts_ms", [1, 0, 1]),
        ("ts_ms", [1, 2**62], "ts_ns", [1, 0]),
        ("i8", [1], "ts_ms", [0]),
        ("f8", [1.0], "str", [0]),
    ],
)
def test_a_value_survives_or_becomes_null(
    source: str, values: list[Any], target: str, survives: list[int]
) -> None:
    cast = cast_values(np.array(values, DTYPES[source]), None, source, target)
    lost = np.zeros(len(values), bool) if cast.lost is None else cast.lost
    assert (~lost).astype(int).tolist() == survives
    valid = np.ones(len(values), bool) if cast.valid is None else cast.valid
    assert valid.tolist() == [bool(s) for s in survives]
    assert cast.values.dtype == DTYPES[target]
    assert not cast.values[~valid].any()


@pytest.mark.parametrize("target", ["str", "bool"])
def test_nan_is_nothing_where_there_is_no_nan(target: str) -> None:
    cast = cast_values(np.array([NAN]), None, "f8", target)
    assert cast.lost is None
    assert cast.valid is not None
    assert not cast.valid.any()


@pytest.mark.parametrize("source", sorted(DTYPES))
@pytest.mark.parametrize("target", sorted(DTYPES))
def test_a_null_stays_a_null_in_every_dtype(source: str, target: str) -> None:
    values = np.full(2, "", object) if source == "str" else np.zeros(2, DTYPES[source])
    cast = cast_values(values, np.zeros(2, np.bool_), source, target)
    assert cast.lost is None
    assert cast.valid is not None
    assert not cast.valid.any()
    assert cast.values.dtype == DTYPES[target]
