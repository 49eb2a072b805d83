from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hub.frames.columns import Columns
from hub.frames.schema import Field, Schema
from hub.frames.store import CandleStore, Change
from hub.protocol.errors import BadFrame

STEP = 300_000
START = 1_700_000_100_000
SCHEMA = Schema((Field("date", "ts_ms", "UTC"), Field("close", "f8"), Field("tag", "str")))


def date(candle: float) -> int:
    return START + int(candle * STEP)


def block(*candles: float, close: float = 0.0, tag: str | None = "t") -> Columns:
    n = len(candles)
    dates = np.array([date(c) for c in candles], np.int64)
    tags = np.full(n, tag or "", object)
    return Columns(SCHEMA, [dates, dates / STEP + close, tags], [None, None, np.full(n, tag is not None)])


def candles(store: CandleStore) -> list[int]:
    return [(int(d) - START) // STEP for d in store.tail().date_ms]


def filled(n: int = 500, capacity: int = 1500) -> CandleStore:
    store = CandleStore("5m", capacity)
    store.upsert(block(*range(n)))
    return store


# The table of research/dataframes.md §3: what freqtrade's append does to a candle, and what is right.


def test_the_next_candle_is_appended() -> None:
    store = filled()
    change = store.upsert(block(500))
    assert change == Change(2, appended=1, first_changed_ms=date(500), last_ms=date(500))
    assert candles(store) == list(range(501))


def test_the_last_candle_is_replaced() -> None:
    store = filled()
    change = store.upsert(block(499, close=1.0))
    assert change == Change(2, replaced=1, first_changed_ms=date(499), last_ms=date(499))
    assert store.tail(1).row(0) == block(499, close=1.0).row(0)
    assert store.n == 500


def test_three_missing_candles_are_told_exactly() -> None:
    store = filled()
    assert store.missing_before(date(503)) == 3
    assert store.upsert(block(503)).holes == ((date(500), date(503)),)
    assert store.holes() == [(date(500), date(503))]
    assert candles(store)[-2:] == [499, 503]


def test_a_late_candle_is_patched_in_place() -> None:
    store = filled()
    change = store.upsert(block(489, close=1.0))
    assert (change.patched, change.first_changed_ms, change.last_ms) == (1, date(489), date(499))
    assert candles(store) == list(range(500))
    assert store.tail().row(489) == block(489, close=1.0).row(0)


def test_a_late_candle_fills_its_hole() -> None:
    store = filled()
    store.upsert(block(503))
    change = store.upsert(block(501))
    assert (change.patched, change.holes) == (1, ())
    assert store.holes() == [(date(500), date(501)), (date(502), date(503))]


def test_a_candle_before_a_full_window_is_old() -> None:
    store = filled(500, capacity=500)
    change = store.upsert(block(-1))
    assert change == Change(1, old=1, unchanged=True, last_ms=date(499))
    assert candles(store) == list(range(500))


def test_a_candle_before_a_young_window_joins_it() -> None:
    store = filled()
    assert store.upsert(block(-2)).holes == ((date(-1), date(0)),)
    assert candles(store)[:2] == [-2, 0]


@pytest.mark.parametrize("candle", [500.5, 501.5, 499.5, -0.5])
def test_a_misaligned_candle_is_refused_and_nothing_changes(candle: float) -> None:
    store = filled()
    before = store.statistics(), store.tail()
    with pytest.raises(BadFrame, match=r"'date', row 1: 2023-.*5m"):
        store.upsert(block(500, candle))
    assert store.tail().equals(before[1])
    assert store.statistics().nbytes == before[0].nbytes
    assert store.rev == 1


def test_a_block_that_is_misaligned_in_itself_is_refused() -> None:
    store = CandleStore("5m")
    for change in (store.upsert, store.replace):
        with pytest.raises(BadFrame, match="row 1"):
            change(block(0, 1.5))
    assert (store.n, store.rev, store.schema) == (0, 0, None)


def test_a_refill_with_an_inner_hole_tells_it() -> None:
    change = filled().upsert(block(*range(490, 505), *range(508, 520)))
    assert change.holes == ((date(505), date(508)),)


def test_rows_that_come_twice_in_a_block_count_once_and_are_sorted() -> None:
    store = filled()
    two = Columns.concat([block(502, 500), block(501, close=1.0), block(501, close=2.0)])
    assert store.upsert(two).appended == 3
    assert candles(store) == list(range(503))
    assert store.tail(2).row(0) == block(501, close=2.0).row(0)


def test_a_refill_that_overlaps_is_merged() -> None:
    store = filled()
    change = store.upsert(block(*range(389, 509)))
    assert (change.appended, change.replaced, change.patched) == (9, 0, 0)
    assert store.n == 509


def test_stale_rows_do_not_replace_newer_ones() -> None:
    store = filled(500, capacity=500)
    assert store.upsert(block(*range(-200, -80))) == Change(1, old=120, unchanged=True, last_ms=date(499))


def test_a_young_pair_is_stored() -> None:
    store = CandleStore("5m")
    assert store.upsert(block(0)).appended == 1
    assert store.missing_before(date(0)) == store.missing_before(date(1)) == 0


def test_months() -> None:
    store = CandleStore("1M")
    months = [
        int(np.datetime64(m, "ms").astype(int))
        for m in ("2024-01-01", "2024-02-01", "2024-03-01", "2024-06-01")
    ]
    store.upsert(Columns.from_mapping({"date": months[:3]}))
    assert store.missing_before(months[3]) == 2
    april = int(np.datetime64("2024-04-01", "ms").astype(int))
    assert store.upsert(Columns.from_mapping({"date": months[3:]})).holes == ((april, months[3]),)
    with pytest.raises(BadFrame, match="2024-06-01"):
        store.upsert(Columns.from_mapping({"date": [months[3] + 86_400_000]}))
    store.check_invariants()


def test_weeks_that_open_on_mondays() -> None:
    monday = int(np.datetime64("2024-01-01", "ms").astype(int))
    store = CandleStore("1w")
    store.upsert(Columns.from_mapping({"date": [monday]}))
    assert store.missing_before(monday + 14 * 86_400_000) == 1
    with pytest.raises(BadFrame, match="1w"):
        store.upsert(Columns.from_mapping({"date": [monday + 86_400_000]}))


def test_a_frame_longer_than_the_window_is_cut() -> None:
    store = CandleStore("5m", 1500)
    change = store.upsert(block(*range(5000)))
    assert (change.appended, change.old, store.n, store.first_ms) == (1500, 3500, 1500, date(3500))


def test_more_than_a_window_pushes_all_out() -> None:
    store = filled(10, capacity=10)
    change = store.upsert(block(*range(5, 40)))
    assert (change.appended, change.evicted, change.old) == (10, 10, 25)
    assert candles(store) == list(range(30, 40))
    store.check_invariants()


# Revisions


def test_what_did_not_change_wakes_nobody() -> None:
    store = filled()
    assert store.upsert(block(498, 499)).unchanged
    assert store.replace(store.tail()).unchanged
    assert store.upsert(Columns.empty(SCHEMA)).unchanged
    assert store.rev == 1


def test_only_the_rows_that_changed_are_told() -> None:
    store = filled()
    store.upsert(Columns.concat([block(400, close=1.0), block(401), block(500)]))
    changed = store.changed_since(1)
    assert changed is not None
    assert changed.date_ms.tolist() == [date(400), date(500)]
    contiguous = store.from_first_changed(1)
    assert contiguous is not None
    assert contiguous.n == 101
    for current in (store.changed_since(2), store.from_first_changed(2)):
        assert current is not None
        assert current.n == 0


def test_filling_a_hole_tells_only_what_fills_it() -> None:
    store = filled()
    store.upsert(block(503))
    store.upsert(block(501))
    changed = store.changed_since(2)
    assert changed is not None
    assert changed.date_ms.tolist() == [date(501)]


@pytest.mark.parametrize("rev", [-1, 0, 3])
def test_a_revision_that_says_nothing_needs_a_snapshot(rev: int) -> None:
    store = filled()
    store.upsert(block(500))
    assert store.changed_since(rev) is None
    assert store.from_first_changed(rev) is None


def test_a_row_that_leaves_unseen_needs_a_snapshot() -> None:
    store = filled(10, capacity=10)
    store.upsert(block(0, close=1.0))
    store.upsert(block(10))
    assert store.changed_since(1) is None
    assert store.changed_since(2) is not None


def test_a_given_revision_is_taken() -> None:
    store = CandleStore("5m")
    assert store.upsert(block(0), rev=7).rev == 7
    assert store.upsert(block(0), rev=9) == Change(9, unchanged=True, last_ms=date(0))
    with pytest.raises(ValueError, match="rev 9"):
        store.upsert(block(1), rev=9)
    assert store.replace(block(0, 1), rev=3).rev == store.floor_rev == 3


def test_a_snapshot_replaces_all() -> None:
    store = filled()
    change = store.replace(block(600, 602))
    assert change == Change(
        2, appended=2, first_changed_ms=date(600), last_ms=date(602), holes=((date(601), date(602)),)
    )
    assert store.changed_since(1) is None
    assert store.replace(Columns.empty(SCHEMA)).last_ms is None
    assert store.n == 0
    store.check_invariants()


def test_clear_frees_the_memory() -> None:
    store = filled()
    store.clear()
    assert (store.n, store.nbytes, store.schema, store.rev) == (0, 0, None, 2)
    assert store.tail().n == 0
    assert store.changed_since(2) is None
    assert store.upsert(block(0.5)).appended == 1


# Schemas


def mapping(candle: int, **values: Any) -> Columns:
    return Columns.from_mapping({"date": [date(candle)], **{name: [value] for name, value in values.items()}})


@pytest.mark.parametrize(
    ("have", "comes", "dtype", "rows"),
    [
        (1.5, 1, "f8", [1.5, 1.0]),
        (1, 1.0, "i8", [1, 1]),
        (1, 1.5, "f8", [1.0, 1.5]),
        (1, float("nan"), "f8", [1.0, float("nan")]),
        (1, None, "i8", [1, None]),
        (True, None, "bool", [True, None]),
        ("a", None, "str", ["a", None]),
        ("a", float("nan"), "str", ["a", None]),
        (None, "a", "str", [None, "a"]),
        (float("nan"), "a", "str", [None, "a"]),
        (1.5, "a", "str", [None, "a"]),
        ("a", 1.5, "f8", [None, 1.5]),
        (True, 0.5, "f8", [1.0, 0.5]),
    ],
)
def test_dtypes_of_one_column_drift(have: Any, comes: Any, dtype: str, rows: list[Any]) -> None:
    store = CandleStore("5m")
    store.upsert(mapping(0, x=have))
    before = store.schema
    change = store.upsert(mapping(1, x=comes))
    assert store.schema is not None
    assert store.schema.fields[1].dtype == dtype
    assert change.schema_changed is (store.schema != before)
    assert repr([store.tail().row(i)[1] for i in range(2)]) == repr(rows)
    assert (store.changed_since(1) is None) is change.schema_changed
    store.check_invariants()


def test_one_columns_drift_does_not_cost_another_its_values() -> None:
    store = CandleStore("5m")
    store.upsert(mapping(0, tag="a", x=1))
    store.upsert(mapping(1, tag=float("nan"), x=1.5))
    assert store.tail().row(0) == [date(0), "a", 1.0]


def test_a_column_is_born_and_one_leaves() -> None:
    store = CandleStore("5m")
    store.upsert(mapping(0, kept=1.0, gone=2.0))
    assert store.upsert(mapping(1, born="b", kept=3.0)).schema_changed
    assert [store.tail().row(i) for i in range(2)] == [[date(0), None, 1.0], [date(1), "b", 3.0]]


def test_columns_in_another_order_are_the_same_columns() -> None:
    store = CandleStore("5m")
    store.upsert(mapping(0, a=1.0, b=2.0))
    assert not store.upsert(mapping(1, b=4.0, a=3.0)).schema_changed
    assert store.tail(1).row(0) == [date(1), 3.0, 4.0]


def test_a_frame_of_other_columns_starts_afresh() -> None:
    store = CandleStore("5m")
    store.upsert(mapping(0, a=1.0))
    change = store.upsert(mapping(5, b=1.0))
    assert change.schema_changed
    assert candles(store) == [5]


def test_dates_in_another_unit_are_the_same_dates() -> None:
    store = CandleStore("5m")
    store.upsert(block(0))
    fine = Schema((Field("date", "ts_us", "UTC"), *SCHEMA.fields[1:]))
    assert not store.upsert(block(1).cast(fine)).schema_changed
    off = Columns(Schema((Field("date", "ts_us"),)), [np.array([date(2) * 1000 + 1])])
    with pytest.raises(BadFrame, match="date"):
        store.upsert(off)


# Memory


def test_arrays_and_text_are_bounded() -> None:
    store = CandleStore("5m", 10, max_bytes=1500)
    store.upsert(block(0, tag="x" * 100))
    with pytest.raises(BadFrame, match="1500"):
        store.upsert(block(1, tag="x" * 1000))
    wide = Columns.from_mapping({"date": [date(0)], **{f"c{i}": [1.0] for i in range(50)}})
    for change in (store.upsert, store.replace):
        with pytest.raises(BadFrame, match="1500"):
            change(wide)
    assert store.tail().row(0) == block(0, tag="x" * 100).row(0)
    store.check_invariants()


def test_one_row_of_many_columns_takes_little() -> None:
    store = CandleStore("5m", 1500)
    store.upsert(Columns.from_mapping({"date": [date(0)], **{f"c{i}": [1.0] for i in range(1000)}}))
    assert store.nbytes < 100_000


def test_text_is_given_back() -> None:
    store = CandleStore("5m", 3)
    for candle in range(40):
        store.upsert(block(candle, tag="é" * (candle % 5)))
        store.check_invariants()
    assert store.statistics().text_bytes == 2 * (2 + 3 + 4)
    store.upsert(block(39, tag=None))
    assert store.statistics().text_bytes == 2 * (2 + 3)


def test_tables_handed_out_do_not_change() -> None:
    store = filled(10, capacity=10)
    held, rows = store.tail(), [store.tail().row(i) for i in range(10)]
    store.upsert(block(*range(5, 15), close=3.0))
    assert [held.row(i) for i in range(10)] == rows


def test_a_pandas_frame_is_built_once_and_belongs_to_its_holder() -> None:
    store = filled(3)
    first = store.frame()
    assert store.statistics().frame_bytes > 0
    first.loc[0, "close"] = -1.0
    pd.testing.assert_frame_equal(store.frame(), store.tail().to_pandas())
    store.upsert(block(3))
    assert store.statistics().frame_bytes == 0
    assert len(store.frame()) == 4
    store.replace(block(0))
    assert len(store.frame()) == 1


def test_statistics_count() -> None:
    store = filled(10, capacity=10)
    store.upsert(block(9, close=1.0))
    store.upsert(block(10))
    store.upsert(block(-5))
    figures = store.statistics()
    assert (figures.appended, figures.replaced, figures.evicted, figures.old, figures.unchanged) == (
        11,
        1,
        1,
        1,
        1,
    )
    assert (figures.rows, figures.capacity, figures.upserts) == (10, 10, 4)


@pytest.mark.parametrize("capacity", [0, 500_001])
def test_capacity_is_bounded(capacity: int) -> None:
    with pytest.raises(ValueError, match="capacity"):
        CandleStore("5m", capacity)


def test_a_timeframe_that_is_none() -> None:
    with pytest.raises(BadFrame, match="timeframe"):
        CandleStore("5 minutes")


# Against a model

CANDLES = st.lists(st.integers(-3, 30), min_size=1, max_size=12)
VALUES = st.sampled_from([0.0, -0.0, 1.5, float("nan"), float("inf")])
TAGS = st.sampled_from([None, "", "a", "é"])


class StoreMachine(RuleBasedStateMachine):
    """A store, a dict that says what it should hold, and a follower that hears of changes at odd times."""

    def __init__(self) -> None:
        super().__init__()
        self.store = CandleStore("5m", 7)
        self.follower = CandleStore("5m", 7)
        self.model: dict[int, list[Any]] = {}
        self.at = 10

    def block(self, data: st.DataObject, at: list[int]) -> Columns:
        n = len(at)
        tags = data.draw(st.lists(TAGS, min_size=n, max_size=n))
        return Columns(
            SCHEMA,
            [
                np.array([date(c) for c in at], np.int64),
                np.array(data.draw(st.lists(VALUES, min_size=n, max_size=n)), np.float64),
                np.array([tag or "" for tag in tags], object),
            ],
            [None, None, np.array([tag is not None for tag in tags])],
        )

    def settle(self, rows: Columns) -> None:
        for i in range(rows.n):
            self.model[int(rows.date_ms[i])] = rows.row(i)
        for gone in sorted(self.model)[:-7]:
            del self.model[gone]

    @rule(data=st.data(), at=CANDLES)
    def upsert(self, data: st.DataObject, at: list[int]) -> None:
        rows = self.block(data, at)
        before, rev, holes = dict(self.model), self.store.rev, set(self.store.holes())
        self.settle(rows)
        change = self.store.upsert(rows)
        assert change.unchanged is (repr(before) == repr(self.model))
        assert self.store.rev == change.rev == rev + (not change.unchanged)
        was_last = max(before, default=-1)
        assert change.appended == len([d for d in self.model if d > was_last])
        assert change.evicted == len([d for d in before if d not in self.model])
        changed = [d for d in self.model if repr(before.get(d)) != repr(self.model[d])]
        assert change.appended + change.replaced + change.patched == len(changed)
        assert change.first_changed_ms == min(changed, default=None)
        if before:
            outside = {h for h in self.store.holes() if h[0] < min(before) or h[1] > was_last}
            assert set(change.holes) == outside
            assert holes or not set(self.store.holes()) - outside

    @rule(data=st.data(), steps=st.integers(1, 2))
    def next_candle(self, data: st.DataObject, steps: int) -> None:
        last = self.store.last_ms
        self.upsert(data, [0 if last is None else (last - START) // STEP + steps])

    @rule(data=st.data(), at=CANDLES)
    def replace(self, data: st.DataObject, at: list[int]) -> None:
        rows = self.block(data, at)
        self.model = {}
        self.settle(rows)
        self.store.replace(rows)

    @rule()
    def follow(self) -> None:
        if self.follower.rev == self.store.rev and self.follower.schema is not None:
            return
        changed = self.store.changed_since(self.follower.rev)
        if changed is None:
            self.follower.replace(self.store.tail(), rev=self.store.rev)
        else:
            self.follower.upsert(changed, rev=self.store.rev)
        assert self.follower.rev == self.store.rev
        assert self.follower.tail().equals(self.store.tail())

    @precondition(lambda self: self.follower.rev > 0)
    @rule()
    def legacy_follow(self) -> None:
        rows = self.store.from_first_changed(self.follower.rev)
        if rows is None or not rows.n:
            return
        held = self.follower.tail()
        kept = held.slice(0, int(np.searchsorted(held.date_ms, rows.date_ms[0])))
        assert Columns.concat([kept, rows]).tail(7).equals(self.store.tail())

    @invariant()
    def as_the_model(self) -> None:
        self.store.check_invariants()
        self.follower.check_invariants()
        window = self.store.tail()
        assert repr([window.row(i) for i in range(window.n)]) == repr(
            [self.model[d] for d in sorted(self.model)]
        )
        missing = [d for a, b in self.store.holes() for d in range(a, b, STEP)]
        span = range(min(self.model), max(self.model), STEP) if self.model else []
        assert missing == [d for d in span if d not in self.model]


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)

DRIFTING = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from([None, 1, 2.5, float("nan"), True, "text", 2**60 + 1]),
    max_size=3,
)


class DriftMachine(RuleBasedStateMachine):
    """Columns that come, go and change their dtype: never an error, and a follower is never led astray."""

    def __init__(self) -> None:
        super().__init__()
        self.store = CandleStore("5m", 5)
        self.follower = CandleStore("5m", 5)

    @rule(candle=st.integers(0, 12), values=DRIFTING)
    def upsert(self, candle: int, values: dict[str, Any]) -> None:
        rows = mapping(candle, **values)
        change = self.store.upsert(rows)
        if change.old:
            return
        window = self.store.tail()
        at = window.date_ms.tolist().index(date(candle))
        stored = dict(zip(window.schema.names, window.row(at), strict=True))
        for name, value in values.items():
            nothing = value is None or value != value
            assert nothing if stored[name] is None or stored[name] != stored[name] else stored[name] == value

    @rule()
    def follow(self) -> None:
        if self.follower.rev == self.store.rev:
            return
        changed = self.store.changed_since(self.follower.rev)
        if changed is None:
            self.follower.replace(self.store.tail(), rev=self.store.rev)
        else:
            self.follower.upsert(changed, rev=self.store.rev)
        assert self.follower.tail().equals(self.store.tail())

    @invariant()
    def sound(self) -> None:
        self.store.check_invariants()
        self.follower.check_invariants()


TestDriftMachine = DriftMachine.TestCase
TestDriftMachine.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
