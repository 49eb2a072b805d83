"""consumer.backoff."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from consumer.backoff import Backoff


def full() -> float:
    return 1.0


def test_doubles_up_to_the_cap() -> None:
    backoff = Backoff(full)
    assert [backoff.failed(0.0, cap_s=30) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_jitter_is_full() -> None:
    backoff = Backoff(lambda: 0.25)
    assert [backoff.failed(0.0, cap_s=30) for _ in range(3)] == [0.125, 0.25, 0.5]


def test_cap_of_the_configuration_counts_but_never_hammers() -> None:
    assert [Backoff(full).failed(0.0, cap_s=0) for _ in range(3)] == [0.5, 0.5, 0.5]
    patient = Backoff(full)
    assert max(patient.failed(0.0, cap_s=120) for _ in range(20)) == 120


def test_a_short_connection_does_not_end_the_row() -> None:
    backoff = Backoff(full)
    waits = []
    for now in range(5):
        backoff.connected(float(now))
        waits.append(backoff.failed(now + 0.01))
    assert waits == [0.5, 1, 2, 4, 8]


def test_a_healthy_connection_does() -> None:
    backoff = Backoff(full)
    for _ in range(5):
        backoff.failed(0.0)
    backoff.connected(100.0)
    assert backoff.failed(160.0) == 0.5


def test_what_the_peer_asks_comes_on_top_of_the_jitter() -> None:
    assert Backoff(full).failed(0.0, asked_s=7) == 7.5
    assert Backoff(full).failed(0.0, asked_s=-7) == 0.5
    assert Backoff(full).failed(0.0, asked_s=1e9) == 3600.5


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1e6)), max_size=2000), st.floats(0, 1e4))
def test_any_history_gives_a_sane_wait(history: list[tuple[bool, float]], cap: float) -> None:
    backoff = Backoff(random.Random(0).random)
    now = 0.0
    for connects, passes in history:
        now += passes
        if connects:
            backoff.connected(now)
        assert 0 <= backoff.failed(now, cap_s=cap) <= max(cap, 0.5)
