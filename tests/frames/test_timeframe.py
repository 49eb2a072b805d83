from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.frames.timeframe import candle_date, candle_index, candles_between, is_calendar, phase, timeframe_ms
from hub.protocol.errors import BadFrame

MS = "datetime64[ms]"


def ms(text: str) -> int:
    return int(np.datetime64(text, "ms").astype(int))


@pytest.mark.parametrize(
    ("timeframe", "expected"),
    [
        ("1s", 1000),
        ("1m", 60_000),
        ("5m", 300_000),
        ("1h", 3_600_000),
        ("3d", 259_200_000),
        ("1w", 604_800_000),
        ("1M", 2_592_000_000),
    ],
)
def test_length_of_a_candle(timeframe: str, expected: int) -> None:
    assert timeframe_ms(timeframe) == expected


def test_months_and_years_go_by_the_calendar() -> None:
    assert [is_calendar(t) for t in ("1w", "1M", "3M", "1y")] == [False, True, True, True]


@pytest.mark.parametrize("name", ["", "5", "m", "0m", "5 m", "5min", "-5m", "5m\n", "٥m", "9999999m", "99y"])
def test_what_is_no_timeframe_is_named(name: str) -> None:
    with pytest.raises(BadFrame, match="timeframe"):
        timeframe_ms(name)


def test_months_have_their_own_lengths() -> None:
    assert candles_between("1M", ms("2024-01-01"), ms("2024-03-01")) == 2
    assert candle_date("1M", candle_index("1M", ms("2024-02-29T23:59"))) == ms("2024-02-01")
    assert candle_date("3M", candle_index("3M", ms("1969-12-31"))) == ms("1969-10-01")


def test_weeks_have_the_phase_of_the_data() -> None:
    monday = ms("2024-01-01")
    assert phase("1w", monday) == 4 * 86_400_000
    assert candles_between("1w", monday, ms("2024-01-15")) == 2
    assert candles_between("1w", monday, ms("2024-01-14T23:59")) == 1


def test_months_that_open_at_another_hour() -> None:
    opens = ms("2023-12-31T16:00")
    shift = phase("1M", opens)
    assert shift == -8 * 3_600_000
    assert candle_date("1M", candle_index("1M", opens, shift), shift) == opens
    assert candles_between("1M", opens, ms("2024-01-31T16:00")) == 1


@given(
    st.sampled_from(["1m", "5m", "1h", "1w", "1M", "3M", "1y"]),
    st.integers(-(10**12), 10**13),
    st.integers(-200, 200),
)
def test_index_and_date_are_inverse(timeframe: str, date: int, steps: int) -> None:
    shift = phase(timeframe, date) if not is_calendar(timeframe) else 0
    index = candle_index(timeframe, date, shift)
    opening = candle_date(timeframe, index, shift)
    assert opening <= date < candle_date(timeframe, index + 1, shift)
    assert candle_index(timeframe, candle_date(timeframe, index + steps, shift), shift) == index + steps


@given(st.sampled_from(["5m", "1w", "1M"]), st.lists(st.integers(-(10**12), 10**13), max_size=5))
def test_arrays_as_single_dates(timeframe: str, dates: list[int]) -> None:
    array = np.array(dates, np.int64)
    indices = candle_index(timeframe, array)
    assert indices.tolist() == [candle_index(timeframe, date) for date in dates]
    assert candle_date(timeframe, indices).tolist() == [candle_date(timeframe, int(i)) for i in indices]
