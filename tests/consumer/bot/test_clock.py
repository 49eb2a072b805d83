"""consumer.bot.clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumer.bot.candles import Candle
from consumer.bot.clock import CandleClock
from tests.consumer.bot.replay import PAIRS, STEP_MS, at

A, B, C = PAIRS


def row(value: float = 1.0) -> Candle:
    return Candle(value, value, value, value)


def clock(**options: object) -> CandleClock:
    made = CandleClock(timeframe_ms=STEP_MS, **{"start_from": "earliest", **options})  # type: ignore[arg-type]
    made.whitelist(PAIRS)
    return made


def dates(made: CandleClock) -> list[int]:
    taken = []
    while (ready := made.ready()) is not None:
        taken.append((ready.date_ms - at(0)) // STEP_MS)
    made.check_invariants()
    return taken


def give(made: CandleClock, pair: str, *indices: int, snapshot: bool = False) -> None:
    made.rows(pair, {at(i): row() for i in indices}, snapshot=snapshot)


def test_a_candle_waits_for_all_pairs() -> None:
    made = clock()
    give(made, A, 0)
    give(made, B, 0)
    assert dates(made) == []
    assert made.statistics().waiting_for == (C,)
    give(made, C, 0)
    assert dates(made) == [0]


def test_nothing_is_acted_on_before_a_whitelist_came() -> None:
    made = CandleClock(timeframe_ms=STEP_MS, start_from="earliest")
    give(made, A, 0)
    assert dates(made) == []
    made.whitelist([A])
    assert dates(made) == [0]


def test_a_later_row_settles_an_earlier_candle() -> None:
    made = clock()
    give(made, A, 0, 1)
    give(made, B, 0, 1)
    give(made, C, 1)
    assert dates(made) == [0, 1]


def test_candle_complete_settles_the_pairs_it_names_as_missing() -> None:
    made = clock()
    give(made, A, 0)
    give(made, B, 0)
    made.complete(at(0), [A, B], [C])
    assert dates(made) == [0]


def test_candle_complete_of_a_later_candle_settles_all_before() -> None:
    made = clock()
    give(made, A, 0, 1, 2)
    give(made, B, 0, 1, 2)
    made.complete(at(2), [A, B], [C])
    assert dates(made) == [0, 1, 2]


def test_rows_come_in_pair_order_and_pairs_off_the_list_last() -> None:
    made = clock()
    made.whitelist([C, A])
    for pair in (A, B, C):
        give(made, pair, 0)
    ready = made.ready()
    assert ready is not None
    assert [pair for pair, _ in ready.rows] == [C, A, B]


def test_late_rows_are_counted_and_ignored() -> None:
    made = clock()
    for pair in PAIRS:
        give(made, pair, 0, 1)
    assert dates(made) == [0, 1]
    give(made, A, 0)
    give(made, B, 0, 1, snapshot=True)
    assert dates(made) == []
    assert made.statistics().late_rows == 1


def test_a_waiting_row_is_replaced() -> None:
    made = clock()
    give(made, A, 0)
    made.rows(A, {at(0): row(2.0)})
    give(made, B, 0)
    give(made, C, 0)
    ready = made.ready()
    assert ready is not None
    assert dict(ready.rows)[A] == row(2.0)
    assert made.statistics().waiting_bytes == 0


def test_outages_of_all_pairs_are_skipped() -> None:
    made = clock()
    for pair in PAIRS:
        give(made, pair, 0, 7)
    assert dates(made) == [0, 7]


def test_live_begins_behind_the_newest_first_frame() -> None:
    made = clock(start_from="live")
    give(made, A, 0, 1, 2, snapshot=True)
    give(made, B, 0, 1, snapshot=True)
    assert dates(made) == []
    give(made, C, 0, 1, 2, 3, snapshot=True)
    assert dates(made) == []
    for pair in (A, B):
        give(made, pair, 3, 4)
    give(made, C, 4)
    assert dates(made) == [4]


def test_live_keeps_what_came_while_the_last_snapshot_was_on_its_way() -> None:
    made = clock(start_from="live")
    for pair in (A, B):
        give(made, pair, 0, snapshot=True)
        give(made, pair, 1)
    give(made, C, 0, 1, snapshot=True)
    give(made, A, 2)
    give(made, B, 2)
    give(made, C, 2)
    assert dates(made) == [2]


def test_live_does_not_wait_for_a_pair_known_to_be_missing() -> None:
    made = clock(start_from="live")
    give(made, A, 0, snapshot=True)
    give(made, B, 0, snapshot=True)
    made.complete(at(0), [A, B], [C])
    assert dates(made) == []
    give(made, A, 1)
    give(made, B, 1)
    give(made, C, 1)
    assert dates(made) == [1]


def test_a_restarted_clock_goes_on_behind_its_last_candle() -> None:
    made = clock(start_from="live", acted_ms=at(1))
    for pair in PAIRS:
        give(made, pair, 0, 1, 2, 3, snapshot=True)
    assert dates(made) == [2, 3]


def test_a_silent_pair_is_given_up_only_on_request() -> None:
    made = clock(wait_candles=3)
    give(made, A, 0, 1, 2)
    give(made, B, 0, 1, 2)
    assert dates(made) == []
    give(made, A, 3)
    assert dates(made) == [0]
    assert made.statistics().given_up == 1


def test_what_waits_is_bounded_in_bytes() -> None:
    made = clock(limit_bytes=2000)
    give(made, A, *range(5))
    give(made, B, *range(5))
    assert dates(made) == [0, 1]
    figures = made.statistics()
    assert figures.waiting_bytes <= 2000
    assert figures.given_up == 2
    assert made.ahead == 2


@st.composite
def shuffled(draw: st.DrawFn) -> tuple[dict[str, set[int]], list[tuple[str, list[int]]], list[int]]:
    """Which pairs have which candles, the same rows cut up and in any order between pairs, and points of restart."""
    have = {pair: draw(st.sets(st.integers(0, 14))) | {15} for pair in PAIRS}
    queues = {pair: sorted(rows) for pair, rows in have.items()}
    parts: list[tuple[str, list[int]]] = []
    while any(queues.values()):
        pair = draw(st.sampled_from([p for p in PAIRS if queues[p]]))
        size = draw(st.integers(1, len(queues[pair])))
        again = draw(st.booleans())
        part, queues[pair] = queues[pair][:size], queues[pair][size if not again else size - 1 or size :]
        parts.append((pair, part))
    return have, parts, draw(st.lists(st.integers(0, len(parts)), max_size=3))


@given(shuffled())
def test_order_batches_repetitions_and_restarts_do_not_change_what_is_acted_on(
    case: tuple[dict[str, set[int]], list[tuple[str, list[int]]], list[int]],
) -> None:
    have, parts, restarts = case
    made, acted, seen = clock(), [], {pair: set[int]() for pair in PAIRS}
    for index, (pair, part) in enumerate(parts):
        if index in restarts:
            made = clock(acted_ms=made.acted_ms, start_from="earliest")
            for known, indices in seen.items():
                give(made, known, *indices, snapshot=True)
        seen[pair] |= set(part)
        give(made, pair, *part)
        while (ready := made.ready()) is not None:
            acted.append((ready.date_ms, [p for p, _ in ready.rows]))
        made.check_invariants()
    every = sorted(set.union(*have.values()))
    assert acted == [(at(i), [p for p in PAIRS if i in have[p]]) for i in every]
