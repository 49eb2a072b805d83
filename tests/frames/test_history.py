from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given, settings

from hub.frames.columns import Columns
from hub.frames.history import History, pair_history
from hub.protocol.answers import PairHistory
from hub.protocol.errors import BadFrame

from .strategies import tables

BASE = ["date", "open", "high", "low", "close", "volume"]
SIGNALS = ["enter_tag", "enter_long", "exit_tag", "exit_long"]
ADDED = ["__date_ts", "_enter_long_signal_close", "_exit_long_signal_close"]

# Rows of a dry-run bot (freqtrade 2026.9), as its REST answered them, and the frame that its strategy made.
ROWS = [
    ["2026-11-26T00:09:00Z", 59637.2, 59657.17, 59380.96, 59380.96, 1.116757, 59813.920999999995,
     "2026-11-26T00:08:58.500000Z", "2026-11-26T00:09:00", None, 997, 4.2e-11, "abc", False, 59380.9609375,
     "", None, "", None, 1795651740000, None, None],
    ["2026-11-26T00:10:00Z", 59380.96, 59380.96, 59133.14, 59139.82, 0.697219, 59768.48400000001,
     None, "2026-11-26T00:10:00", None, 998, 4.2e-11, None, False, 59139.8203125,
     "", None, "rigx", 1.0, 1795651800000, None, 59139.82],
]  # fmt: skip
NAMES = [*BASE, "sma20", "other_date", "naive", "inf", "whole", "tiny", "text", "is_green", "f32", *SIGNALS]


def frame() -> Columns:
    date = pd.to_datetime(["2026-11-26T00:09:00Z", "2026-11-26T00:10:00Z"])
    columns: dict[str, Any] = {name: [row[i] for row in ROWS] for i, name in enumerate(NAMES)}
    columns |= {
        "date": date,
        "other_date": pd.to_datetime(["2026-11-26T00:08:58.5Z", None]),
        "naive": date.tz_localize(None),
        "inf": [np.inf, -np.inf],
        "f32": np.array([59380.96, 59139.82], np.float32),
        "enter_long": [np.nan, np.nan],
        "exit_long": [np.nan, 1.0],
    }
    return Columns.from_pandas(pd.DataFrame(columns))


def history(table: Columns | None, **chosen: Any) -> PairHistory:
    given: dict[str, Any] = {
        "strategy": "S",
        "pair": "BTC/USDT",
        "timeframe": "1m",
        "analyzed_ms": 1795651921788,
    }
    return pair_history(table, **given | chosen)


def rows(answer: PairHistory) -> list[list[Any]]:
    decoded: list[list[Any]] = orjson.loads(bytes(answer.data))
    return decoded


def test_rows_are_those_of_freqtrades_answer() -> None:
    answer = history(frame())
    assert rows(answer) == ROWS
    assert answer.columns == [*NAMES, *ADDED]
    assert answer.all_columns == NAMES
    told = msgspec.to_builtins(msgspec.structs.replace(answer, data=None, columns=[], all_columns=[]))
    assert told == {
        "strategy": "S", "pair": "BTC/USDT", "timeframe": "1m", "timeframe_ms": 60000, "columns": [],
        "all_columns": [], "data": None, "annotations": [], "length": 2, "buy_signals": 0, "sell_signals": 1,
        "enter_long_signals": 0, "exit_long_signals": 1, "enter_short_signals": 0, "exit_short_signals": 0,
        "last_analyzed": "2026-11-26T00:12:01.788000Z", "last_analyzed_ts": 1795651921,
        "data_start_ts": 1795651740000, "data_start": "2026-11-26 00:09:00+00:00",
        "data_stop": "2026-11-26 00:10:00+00:00", "data_stop_ts": 1795651800000,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("named", "kept"),
    [
        (["whole", "nope", "sma20", "date"], [*BASE, "sma20", "whole", "enter_long", "exit_long"]),
        ([], [*BASE, "enter_long", "exit_long"]),
        (["exit_tag"], [*BASE, "enter_long", "exit_tag", "exit_long"]),
        (None, NAMES),
    ],
)
def test_named_columns_come_with_those_that_charts_need(named: list[str] | None, kept: list[str]) -> None:
    answer = history(frame(), columns=named)
    assert answer.columns == [*kept, *ADDED]
    assert [len(row) for row in rows(answer)] == [len(answer.columns)] * 2
    assert answer.all_columns == NAMES


@pytest.mark.parametrize(("limit", "first"), [(None, 0), (0, 0), (1, 1), (2, 0), (99, 0), (-1, 1), (-2, 2)])
def test_a_limit_counts_as_freqtrades(limit: int | None, first: int) -> None:
    answer = history(frame(), limit=limit)
    assert rows(answer) == ROWS[first:]
    assert answer.length == len(ROWS) - first
    assert answer.sell_signals == (1 if answer.length else 0)


@pytest.mark.parametrize("empty", [None, "rows"])
def test_nothing_known_gives_freqtrades_empty_answer(empty: str | None) -> None:
    answer = history(None if empty is None else frame().tail(0), analyzed_ms=None, columns=["sma20"])
    assert (answer.columns, answer.all_columns, rows(answer), answer.length) == ([], [], [], 0)
    assert (answer.last_analyzed, answer.last_analyzed_ts) == ("1970-01-01T00:00:00Z", 0)
    assert (answer.data_start, answer.data_start_ts, answer.data_stop, answer.data_stop_ts) == ("", 0, "", 0)


def test_a_zone_shows_as_an_offset() -> None:
    table = Columns.from_pandas(
        pd.DataFrame(
            {
                "date": pd.to_datetime(["2026-07-01T00:00Z"]),
                "at": pd.to_datetime(["2026-07-01T00:00Z"]).tz_convert("Europe/Berlin"),
            }
        )
    )
    assert rows(history(table))[0][1] == "2026-07-01T02:00:00+02:00"


def test_short_signals_have_closes_too() -> None:
    table = Columns.from_mapping(
        {"date": [0, 60_000], "close": [1.5, 2.5], "enter_short": [1, 0], "exit_short": [0, 0]}
    )
    answer = history(table)
    assert answer.columns[-3:] == ["__date_ts", "_enter_short_signal_close", "_exit_short_signal_close"]
    assert [row[-2:] for row in rows(answer)] == [[1.5, None], [None, None]]
    assert (answer.enter_short_signals, answer.exit_short_signals) == (1, 0)


def test_an_unknown_timeframe_is_refused() -> None:
    with pytest.raises(BadFrame, match="timeframe 'xx'"):
        history(frame(), timeframe="xx")


@given(tables())
@settings(max_examples=60)
def test_pieces_of_any_size_make_the_same_rows(table: Columns) -> None:
    made = History(table, strategy="S", pair="P", timeframe="1s", analyzed_ms=None)
    whole = b"".join(made.pieces())
    assert b"".join(made.pieces(1)) == whole
    decoded = orjson.loads(whole)
    assert len(decoded) == made.answer(whole).length
    assert all(len(row) == len(made.columns) for row in decoded)
