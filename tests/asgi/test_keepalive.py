"""hub.asgi.keepalive: who is pinged and who is gone, with looks and times of the test's own."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hub.asgi.keepalive import LOOKS, Keepalive, Verdict
from hub.asgi.progress import Taken

INTERVAL_S, TIMEOUT_S = 15.0, 10.0
LOOK_S = TIMEOUT_S / LOOKS
LINK = 8000


class Link:
    """A peer's end. `backlog` bytes are with this machine, of those `in_flight` on their way."""

    def __init__(self) -> None:
        self.moves = self.total = self.backlog = self.in_flight = 0

    def look(self) -> Taken:
        return Taken(self.moves, self.total, self.backlog, self.backlog - self.in_flight)

    def write(self, size: int, *, flying: bool = False) -> None:
        self.backlog += size
        self.in_flight += size * flying

    def take(self, size: int) -> None:
        """The peer acknowledges up to `size` bytes."""
        taken = min(size, self.backlog)
        self.backlog -= taken
        self.in_flight = min(self.in_flight, self.backlog)
        self.total += taken
        self.moves += taken > 0


class Watch:
    """Judges a link as the protocol does, from time 0 on."""

    def __init__(self, *, interval_s: float = INTERVAL_S, timeout_s: float = TIMEOUT_S) -> None:
        self.link = Link()
        progress: Any = self.link
        self.keepalive = Keepalive(progress, interval_s=interval_s, timeout_s=timeout_s, now=0.0)
        self.now = 0.0
        self.deaf = False
        self.pings: list[float] = []
        self.gone_at: float | None = None
        self._judge_at = interval_s

    def hear(self) -> None:
        self.keepalive.heard_at = self.now

    def run(self, until: float) -> None:
        while self.gone_at is None and self._judge_at <= until:
            self.now = self._judge_at
            verdict, again_s = self.keepalive.judge(self.now, deaf=self.deaf)
            if verdict is Verdict.PING:
                self.pings.append(self.now)
                self.link.write(2)
            elif verdict is Verdict.GONE:
                self.gone_at = self.now
            self._judge_at = self.now + again_s
        self.now = max(self.now, until)


def test_a_peer_that_vanished_is_gone_after_both_times() -> None:
    watch = Watch()
    watch.link.write(100_000)
    watch.run(1000)
    assert (watch.pings, watch.gone_at) == ([15.0], 25.0)


def test_a_pong_begins_the_silence_anew() -> None:
    watch = Watch()
    watch.run(15.1)
    watch.hear()
    watch.run(1000)
    assert (watch.pings, watch.gone_at) == ([15.0, 30.1], 40.1)


def test_a_pong_counts_though_the_silence_since_is_longer_than_the_interval() -> None:
    watch = Watch(interval_s=5.0, timeout_s=40.0)
    watch.run(5.1)
    watch.hear()
    watch.run(50)
    assert watch.gone_at is None
    assert len(watch.pings) == 2


def test_a_ping_behind_a_backlog_on_a_slow_link_is_waited_for() -> None:
    watch = Watch()
    watch.link.write(192 * 1024)
    while watch.link.backlog:
        watch.run(watch.now + 1)
        watch.link.take(LINK)
    assert watch.pings == [15.0]
    assert watch.gone_at is None
    taken_at = watch.now
    watch.run(taken_at + TIMEOUT_S)
    watch.hear()
    watch.run(watch.now + INTERVAL_S)
    assert watch.gone_at is None


def test_one_byte_within_the_time_is_enough() -> None:
    watch = Watch()
    watch.link.write(1000)
    for _ in range(100):
        watch.run(watch.now + TIMEOUT_S - LOOK_S)
        watch.link.take(1)
    assert watch.gone_at is None


def test_who_takes_all_and_never_answers_is_gone() -> None:
    watch = Watch()
    watch.link.write(20 * LINK)
    while watch.gone_at is None:
        watch.run(watch.now + 1)
        watch.link.take(LINK)
    # The backlog and the Ping took 21 s.
    assert watch.gone_at <= 21 + LOOK_S + TIMEOUT_S


def test_new_messages_that_are_taken_at_once_do_not_hide_a_missing_pong() -> None:
    watch = Watch()
    watch.run(INTERVAL_S)
    while watch.gone_at is None:
        watch.link.take(1 << 20)
        watch.link.write(400, flying=True)
        watch.run(watch.now + 0.5)
    assert watch.gone_at <= INTERVAL_S + LOOK_S + TIMEOUT_S


def test_a_peer_that_stops_reading_is_gone_once_its_window_is_closed() -> None:
    watch = Watch()
    watch.link.write(1 << 20)
    for _ in range(30):
        watch.run(watch.now + 1)
        watch.link.take(LINK)
    assert watch.gone_at is None
    watch.run(1000)
    assert watch.gone_at is not None
    assert watch.gone_at <= 30 + LOOK_S + TIMEOUT_S


def test_a_peer_that_cannot_be_heard_lives_while_it_takes_what_it_is_sent() -> None:
    watch = Watch()
    watch.deaf = True
    for at in range(1000):
        watch.run(float(at))
        watch.link.take(LINK)
    assert watch.gone_at is None
    watch.link.write(1)
    watch.run(2000)
    assert watch.gone_at is not None


@given(
    st.lists(
        st.tuples(st.floats(0.01, 30), st.sampled_from(["hear", "take", "write", "fly", "deaf", "hears"])),
        max_size=40,
    ),
    st.booleans(),
)
def test_who_gives_signs_stays_and_who_gives_none_is_gone(
    events: list[tuple[float, str]], read: bool
) -> None:
    watch = Watch()
    heard_at = moved_at = 0.0
    for pause, event in events:
        before = watch.now
        watch.run(before + pause)
        if watch.gone_at is not None:
            assert watch.gone_at - heard_at >= INTERVAL_S + TIMEOUT_S
            return
        if event == "hear":
            watch.hear()
            heard_at = watch.now
        elif event == "take":
            watch.link.take(500)
            moved_at = watch.now
        elif event in ("write", "fly"):
            watch.link.write(1000, flying=event == "fly")
        else:
            watch.deaf = event == "deaf"
    vanished_at = watch.now
    watch.deaf = False
    if read:
        watch.link.take(1 << 30)
    watch.run(vanished_at + 1000)
    assert watch.gone_at is not None
    latest = max(heard_at, moved_at, vanished_at)
    assert watch.gone_at <= latest + max(INTERVAL_S + TIMEOUT_S, LOOK_S + TIMEOUT_S)
