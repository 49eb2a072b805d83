"""Dataframes as JSON that loses nothing: how tests and the freqtrade processes they start hand frames to each other.

Both sides import this module, each with its own pandas. A frame is
`{"index_start": int, "columns": [[name, dtype, values], ...]}`. Floats travel as `float.hex()` text, so nan, inf and the
last bit arrive; dates as integer nanoseconds since the epoch (null for NaT); everything else as JSON has it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

__all__ = ["dump", "hard_frame", "load"]


def dump(frame: pd.DataFrame) -> dict[str, Any]:
    """The JSON form of `frame`. Does not change its argument."""
    start = int(frame.index[0]) if len(frame) else 0
    return {"index_start": start, "columns": [_dump_column(str(name), frame[name]) for name in frame.columns]}


def load(data: dict[str, Any]) -> pd.DataFrame:
    """The frame that `dump` was given: same columns, dtypes and values, index `index_start` and up."""
    columns = {name: _load_column(dtype, values) for name, dtype, values in data["columns"]}
    frame = pd.DataFrame(columns)
    frame.index = pd.RangeIndex(data["index_start"], data["index_start"] + len(frame))
    return frame


def hard_frame(rows: int, *, start_ms: int, step_ms: int, seed: int = 0) -> pd.DataFrame:
    """A frame of `rows` candles with everything that freqtrade's own encoder is known to hurt.

    Prices of 4.2e-11 and 1.23456789012e-08, thirds, both infinities, NaN heads and holes, tags that look like numbers,
    booleans, integers and a column that is all NaN. `seed` shifts the values, so that two frames differ.
    """
    steps = np.arange(rows, dtype="float64") + seed
    dates = pd.to_datetime(start_ms + np.arange(rows, dtype="int64") * step_ms, unit="ms", utc=True)
    tags = np.array(["", "007", "rig_m1", "12"], dtype=object)
    infinities = np.where(steps % 10 == 3, np.inf, np.where(steps % 10 == 7, -np.inf, steps / 3))
    return pd.DataFrame(
        {
            "date": dates,
            "open": 1.23456789012e-08 * (1 + steps / 7),
            "high": 60000.123456789 + steps / 3,
            "low": 4.2e-11 * (1 + steps / 9),
            "close": (1 + steps) / 3,
            "volume": np.sqrt(2.0 + steps) * 1e6,
            "ema": np.where(steps < seed + 20, np.nan, np.sin(steps)),
            "holes": np.where(steps % 5 == 0, np.nan, np.cos(steps)),
            "some_inf": infinities,
            "always_nan": np.full(rows, np.nan),
            "whole": steps * 2.0,
            "count": np.arange(rows, dtype="int64") + seed,
            "is_green": steps % 2 == 0,
            "enter_long": np.where(steps % 4 == 1, 1.0, np.nan),
            "enter_tag": tags[(np.arange(rows) + seed) % 4],
            "exit_long": np.where(steps % 4 == 3, 1.0, np.nan),
            "exit_tag": np.where(steps % 4 == 3, "out", ""),
        }
    )


def _dump_column(name: str, column: pd.Series) -> list[Any]:
    if isinstance(column.dtype, pd.DatetimeTZDtype) or column.dtype.kind == "M":
        stamps = column.dt.as_unit("ns").astype("int64").tolist()
        return [
            name,
            str(column.dtype),
            [None if lost else ns for ns, lost in zip(stamps, column.isna(), strict=True)],
        ]
    return [name, str(column.dtype), [_dump_value(value) for value in column.tolist()]]


def _dump_value(value: Any) -> Any:
    if isinstance(value, float):
        return {"f": value.hex()}
    if value is None or value is pd.NA:
        return None
    return value


def _load_column(dtype: str, values: list[Any]) -> pd.Series:
    if dtype.startswith("datetime64"):
        zone = "UTC" if "UTC" in dtype else None
        stamps = pd.Series(
            pd.to_datetime([pd.NaT if ns is None else pd.Timestamp(ns, unit="ns") for ns in values])
        )
        return stamps.dt.tz_localize(zone).astype(dtype)
    return pd.Series([_load_value(value) for value in values], dtype=dtype)


def _load_value(value: Any) -> Any:
    return float.fromhex(value["f"]) if isinstance(value, dict) else value
