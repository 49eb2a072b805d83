"""consumer.bot.candles."""

from __future__ import annotations

import pytest

from consumer.bot.candles import Candle, read_candles
from hub.frames.columns import Columns
from tests.consumer.bot.replay import at, frame

RATES = {"open": [1.0, 2.0], "high": [3.0, 3.0], "low": [0.5, 0.5], "close": [2.0, 2.5]}


def test_rows_are_read_as_they_were_written() -> None:
    rows = {
        at(0): Candle(1.0, 3.0, 0.5, 2.0, enter_long=True, enter_tag="007"),
        at(1): Candle(2.0, 3.0, 0.5, 2.5, exit_long=True, exit_tag="x"),
    }
    assert read_candles(frame(rows)) == rows


def test_columns_of_signals_and_tags_may_be_missing() -> None:
    read = read_candles(Columns.from_mapping({"date": [at(0), at(1)], **RATES}, {"date": "ts_ms"}))
    assert read[at(1)] == Candle(2.0, 3.0, 0.5, 2.5)


def test_without_a_rate_there_is_nothing_to_read() -> None:
    assert read_candles(Columns.from_mapping({"date": [at(0)], "open": [1.0]}, {"date": "ts_ms"})) == {}


def test_null_and_nan_signals_are_no_signals_and_empty_tags_no_tags() -> None:
    data = {
        "date": [at(0), at(1)],
        **RATES,
        "enter_long": [None, 1.0],
        "exit_long": [float("nan"), 0.0],
        "enter_tag": ["", None],
        "exit_tag": [None, None],
    }
    read = read_candles(Columns.from_mapping(data, {"date": "ts_ms"}))
    assert read[at(0)] == Candle(1.0, 3.0, 0.5, 2.0)
    assert read[at(1)] == Candle(2.0, 3.0, 0.5, 2.5, enter_long=True)


@pytest.mark.parametrize(
    "candle",
    [
        Candle(float("nan"), 3.0, 0.5, 2.0),
        Candle(1.0, float("inf"), 0.5, 2.0),
        Candle(1.0, 3.0, 0.0, 2.0),
        Candle(1.0, 0.4, 0.5, 2.0),
        Candle(4.0, 3.0, 0.5, 2.0),
        Candle(1.0, 3.0, 0.5, 0.4),
    ],
)
def test_a_row_without_sound_rates_is_not_usable(candle: Candle) -> None:
    assert not candle.usable


def test_a_flat_candle_is_usable() -> None:
    assert Candle(1.0, 1.0, 1.0, 1.0).usable
