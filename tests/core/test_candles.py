"""hub.core.candles."""

from __future__ import annotations

from typing import Any

from hub.core.candles import MAX_OPEN, CandleClock


def clock(*pairs: str, bot: str = "a") -> CandleClock:
    made = CandleClock(10.0)
    if pairs:
        assert made.whitelist(bot, pairs) == []
    return made


def brief(done: list[dict[str, Any]]) -> list[tuple[int, list[str], list[str], bool]]:
    return [(d["candle_ms"], d["pairs"], d["missing"], d["deadline"]) for d in done]


def test_whole_when_all_pairs_are_in() -> None:
    c = clock("X", "Y")
    assert c.rows("a", "X", "5m", [1], 0.0) == []
    assert brief(c.rows("a", "Y", "5m", [1], 0.0)) == [(1, ["X", "Y"], [], False)]
    assert c.rows("a", "Y", "5m", [1], 0.0) == [], "told once"


def test_a_pair_with_a_later_row_is_known_to_be_missing() -> None:
    c = clock("X", "Y")
    c.rows("a", "Y", "5m", [1], 0.0)
    c.rows("a", "X", "5m", [1], 0.0)
    assert c.rows("a", "X", "5m", [2], 0.0) == []
    assert brief(c.rows("a", "Y", "5m", [3], 0.0)) == [(2, ["X"], ["Y"], False)]


def test_the_first_block_of_a_pair_is_history_in_whatever_order() -> None:
    c = clock("X")
    assert brief(c.rows("a", "X", "5m", [3, 5, 4], 0.0)) == [(5, ["X"], [], False)]


def test_a_correction_of_an_old_row_opens_no_candle() -> None:
    c = clock("X", "Y")
    c.rows("a", "X", "5m", [9], 0.0)
    c.rows("a", "X", "5m", [5], 0.0)
    assert brief(c.rows("a", "Y", "5m", [9], 0.0)) == [(9, ["X", "Y"], [], False)]
    assert c.tick(1e9) == []


def test_past_the_deadline_with_those_that_did_not_come() -> None:
    c = clock("X", "Y")
    c.rows("a", "X", "5m", [1], 0.0)
    c.rows("a", "X", "5m", [2], 5.0)
    assert c.tick(9.9) == []
    (late,) = c.tick(10.0)
    assert late[:2] == ("a", "5m")
    assert brief([late[2]]) == [(1, ["X"], ["Y"], True)]
    assert brief(c.rows("a", "Y", "5m", [1, 2], 11.0)) == [(2, ["X", "Y"], [], False)]


def test_in_ascending_order_though_a_later_candle_came_first() -> None:
    c = clock("X", "Y")
    c.rows("a", "X", "5m", [0], 0.0)
    c.rows("a", "Y", "5m", [0], 0.0)
    c.rows("a", "X", "5m", [2], 0.0)
    assert brief(c.rows("a", "Y", "5m", [1], 5.0)) == [(1, ["Y"], ["X"], False)]
    assert brief([t[2] for t in c.tick(10.0)]) == [(2, ["X"], ["Y"], True)]


def test_a_pair_that_leaves_the_whitelist_is_not_waited_for() -> None:
    c = clock("X", "Y")
    c.rows("a", "X", "5m", [1], 0.0)
    ((timeframe, data),) = c.whitelist("a", ["X"])
    assert timeframe == "5m"
    assert brief([data]) == [(1, ["X"], [], False)]


def test_bots_and_timeframes_are_apart() -> None:
    c = clock("X")
    c.whitelist("b", ["X"])
    assert len(c.rows("a", "X", "5m", [1], 0.0)) == 1
    assert len(c.rows("a", "X", "1h", [1], 0.0)) == 1
    assert len(c.rows("b", "X", "5m", [1], 0.0)) == 1


def test_open_candles_are_bounded_and_nothing_is_told_of_a_bot_without_a_whitelist() -> None:
    c = clock()
    c.rows("a", "X", "5m", [0], 0.0)
    for i in range(1, 300):
        assert c.rows("a", "X", "5m", [i], 0.0) == []
    assert len(c._tracks["a", "5m"].open) == MAX_OPEN
    assert c.tick(1e9) == []
    c = clock("X", "Y")
    c.rows("a", "X", "5m", [0], 0.0)
    told = [d for i in range(1, 300) for d in c.rows("a", "X", "5m", [i], 0.0)]
    assert [d["candle_ms"] for d in told] == list(range(300 - MAX_OPEN))
