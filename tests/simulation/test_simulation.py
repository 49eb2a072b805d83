"""The promise, over schedules: acknowledged ⊆ delivered ∪ named as lost, no effect twice, the ledger's order, memory within bounds.

`python -m tests.simulation N SEED` lives through more of them.
"""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulation.bugs import PLANTED, Planted
from tests.simulation.files import FileLog
from tests.simulation.schedule import Op, Reader, Schedule, make, smaller, whole
from tests.simulation.world import Bugs, Violation, live

TRIED = 60
"""Schedules within which a planted bug must show."""


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_nothing_acknowledged_is_lost_whatever_happens(rng: random.Random) -> None:
    live(make(rng))


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_caught(name: str) -> None:
    planted = PLANTED[name]
    with planted.patch():
        schedule = _caught(planted)
    live(schedule)


def test_nothing_is_lost_with_the_ledger_in_a_file(tmp_path: Path) -> None:
    for seed in range(5):
        schedule = whole(make(random.Random(seed)))
        live(schedule, Bugs(log=partial(FileLog, tmp_path / str(seed))))


def _caught(planted: Planted) -> Schedule:
    for seed in range(planted.first, planted.first + TRIED):
        schedule = make(random.Random(seed), planted.favour)
        try:
            live(schedule, planted.bugs)
        except Violation:
            return schedule
    raise AssertionError(f"lived through {TRIED} schedules")


def test_the_same_schedule_does_the_same() -> None:
    for seed in (3, 11):
        first, second = (live(make(random.Random(seed))) for _ in range(2))
        assert first.trace == second.trace
        assert first.turns == second.turns


def test_schedules_do_something() -> None:
    figures = [live(make(random.Random(seed))) for seed in range(100, 106)]
    for name in ("acked", "effects", "lost", "deaths"):
        assert sum(getattr(each, name) for each in figures) > 0, name


def test_a_failing_schedule_is_made_smaller() -> None:
    ops = tuple(Op(0.1, name) for name in "abcdefghij")

    def fails(schedule: Schedule) -> bool:
        return {op.name for op in schedule.ops} >= {"b", "h"}

    assert [op.name for op in smaller(Schedule(1, ops=ops), fails).ops] == ["b", "h"]


def test_a_reader_that_is_away_is_served_when_it_comes() -> None:
    """The plainest schedule, read by hand: one message before, one while it is dead, one after."""
    kill = Op(0.2, "kill_reader", (0, 3.0, None, 1))
    publish = Op(1.0, "publish", (0, 1))
    figures = live(Schedule(1, readers=(Reader(),), ops=(publish, kill, publish, Op(4.0, "publish", (0, 1)))))
    assert (figures.acked, figures.effects, figures.lost) == (3, 3, 0)
