"""consumer.positions against a model of a hub's ledger."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumer.positions import Loss, Positions, Verdict
from hub.protocol.known import Known

FILLS, EXITS, OTHER = ("a", "entry_fill"), ("a", "exit_fill"), ("b", "entry_fill")
EPOCH = "e7"


def subscribed(base: int = 40) -> Positions:
    positions = Positions()
    positions.subscribed(EPOCH, base, None, {})
    return positions


def test_in_order() -> None:
    positions = subscribed()
    assert positions.message(EPOCH, FILLS, 42, 40) == (Verdict.ACT, None)
    assert positions.message(EPOCH, OTHER, 46, 45) == (Verdict.HOLE, None)
    assert positions.position(EPOCH, 40, 45, [(FILLS, 42)]) == (Verdict.ACT, None)
    assert (positions.base, positions.streams) == (45, 0)
    assert positions.message(EPOCH, OTHER, 46, 45) == (Verdict.ACT, None)


def test_duplicates_are_dropped() -> None:
    positions = subscribed()
    positions.message(EPOCH, FILLS, 42, 40)
    assert positions.message(EPOCH, FILLS, 42, 40) == (Verdict.DUPLICATE, None)
    assert positions.message(EPOCH, FILLS, 40, 39) == (Verdict.DUPLICATE, None)
    assert positions.message(EPOCH, EXITS, 39, 0) == (Verdict.DUPLICATE, None)


def test_a_hole_is_resumed_first_and_declared_lost_when_it_comes_again() -> None:
    positions = subscribed()
    positions.message(EPOCH, FILLS, 45, 40)
    assert positions.message(EPOCH, FILLS, 50, 48) == (Verdict.HOLE, None)
    assert positions.resume == {"epoch": EPOCH, "offset": 40}
    positions.subscribed(EPOCH, 40, True, {})
    assert positions.message(EPOCH, FILLS, 45, 40) == (Verdict.DUPLICATE, None)
    verdict, loss = positions.message(EPOCH, FILLS, 50, 48)
    assert verdict is Verdict.ACT
    assert loss is not None
    assert (loss.streams, loss.first, loss.last) == ((FILLS,), 46, 48)
    assert positions.message(EPOCH, FILLS, 51, 50) == (Verdict.ACT, None)


def test_a_healed_hole_is_forgotten() -> None:
    positions = subscribed()
    assert positions.message(EPOCH, FILLS, 50, 48)[0] is Verdict.HOLE
    assert positions.message(EPOCH, FILLS, 48, 40)[0] is Verdict.ACT
    assert positions.message(EPOCH, FILLS, 50, 48)[0] is Verdict.ACT
    assert positions.message(EPOCH, FILLS, 60, 55)[0] is Verdict.HOLE


def test_a_lost_tail_is_found_by_a_position() -> None:
    positions = subscribed()
    positions.message(EPOCH, FILLS, 42, 40)
    assert positions.position(EPOCH, 40, 45, [(FILLS, 44)]) == (Verdict.HOLE, None)
    verdict, loss = positions.position(EPOCH, 40, 45, [(FILLS, 44)])
    assert verdict is Verdict.ACT
    assert loss is not None
    assert loss.last == 44
    assert positions.position(EPOCH, 47, 50, [])[0] is Verdict.HOLE


def test_another_epoch_ends_the_connection() -> None:
    positions = subscribed()
    assert positions.message("e8", FILLS, 1, 0) == (Verdict.OTHER_EPOCH, None)
    assert positions.position("e8", 0, 1, []) == (Verdict.OTHER_EPOCH, None)
    loss = positions.subscribed("e8", 3, False, {"reason": "epoch"})
    assert loss == Loss((), None, None, "epoch")
    assert positions.resume == {"epoch": "e8", "offset": 3}


def test_answers_to_a_resume() -> None:
    assert Positions().resume is None
    kept = Positions(Known(EPOCH, 40))
    assert kept.subscribed(EPOCH, 40, True, {}) is None
    assert kept.base == 40
    overtaken = Positions(Known(EPOCH, 40))
    loss = overtaken.subscribed(EPOCH, 60, False, {"reason": "retention", "lost": [41, 60]})
    assert loss == Loss((), 41, 60, "retention")
    assert overtaken.base == 60
    future = Positions(Known(EPOCH, 40))
    assert future.subscribed(EPOCH, 5, False, {"reason": "future"}) == Loss((), None, None, "future")
    assert future.base == 5


def test_what_is_the_same_in_the_next_epoch_stays_known() -> None:
    positions = Positions(Known(EPOCH, 40, {FILLS: 45, EXITS: 60}))
    reply = {"recovered": False, "reason": "cut", "cut": [[EPOCH, 51, 62, "more"], ["e8", 51, None]]}
    assert positions.moves("e9", 40, 50, reply) == [
        Loss((), 51, 62, "cut", EPOCH),
        Loss((), 51, None, "cut", "e8"),
    ]
    assert positions.resume == {"epoch": "e9", "offset": 40}
    assert [positions.known(stream) for stream in (FILLS, EXITS, OTHER)] == [45, 50, 40]
    assert positions.message("e9", FILLS, 45, 0)[0] is Verdict.DUPLICATE
    assert positions.message("e9", EXITS, 50, 44)[0] is Verdict.DUPLICATE
    assert positions.message("e9", OTHER, 41, 0)[0] is Verdict.ACT
    assert positions.message("e9", EXITS, 51, 50) == (Verdict.ACT, None)


def test_a_base_beyond_the_cut_turns_back() -> None:
    positions = Positions(Known(EPOCH, 60, {FILLS: 65}))
    assert positions.moves("e8", 50, 50, {"recovered": True}) == []
    assert (positions.resume, positions.streams) == ({"epoch": "e8", "offset": 50}, 0)
    assert positions.message("e8", FILLS, 51, 50) == (Verdict.ACT, None)


def test_a_cut_and_retention_are_two_losses() -> None:
    positions = Positions(Known(EPOCH, 40, {FILLS: 45}))
    reply = {"recovered": False, "reason": "cut", "lost": [41, 55], "cut": [[EPOCH, 51, 62]]}
    assert positions.moves("e8", 55, 50, reply) == [
        Loss((), 51, 62, "cut", EPOCH),
        Loss((), 41, 55, "retention"),
    ]
    assert (positions.resume, positions.streams) == ({"epoch": "e8", "offset": 55}, 0)


@pytest.mark.parametrize("cut", [None, 7, [], [[1, 2, 3]], [["e7", "1", 2], "x"]])
def test_a_cut_that_names_nothing_is_still_told(cut: object) -> None:
    positions = Positions(Known(EPOCH, 40))
    reply = {"recovered": False, "reason": "cut", "cut": cut}
    assert positions.moves("e8", 40, 50, reply) == [Loss((), None, None, "cut")]


def test_a_hub_that_does_not_resume() -> None:
    positions = subscribed()
    positions.message(EPOCH, FILLS, 45, 40)
    assert positions.subscribed(EPOCH, 45, None, {}) is None
    loss = positions.subscribed(EPOCH, 49, None, {})
    assert loss is not None
    assert (loss.first, loss.last) == (46, 49)


def test_a_hub_of_before_positions_after_a_restart_of_the_consumer() -> None:
    """Its base never moves; what was acted on since says what was seen."""
    kept = Positions(Known(EPOCH, 40, {FILLS: 45, OTHER: 39}))
    assert kept.streams == 1
    assert kept.resume == {"epoch": EPOCH, "offset": 40}
    assert kept.subscribed(EPOCH, 45, None, {}) is None
    assert kept.base == 45
    gone = Positions(Known(EPOCH, 40, {FILLS: 45}))
    assert gone.subscribed(EPOCH, 49, None, {}) == Loss((), 46, 49, "the hub did not resume")


def test_a_hole_is_the_same_whatever_comes_in_between() -> None:
    positions = subscribed()
    assert positions.message(EPOCH, FILLS, 50, 48) == (Verdict.HOLE, None)
    assert positions.message(EPOCH, EXITS, 49, 40) == (Verdict.ACT, None)
    # Another claim of the same hole: it begins where the other did.
    verdict, loss = positions.message(EPOCH, FILLS, 60, 55)
    assert verdict is Verdict.ACT
    assert loss == Loss((FILLS,), 41, 55, "the hub skipped them, also after a resume")


def test_positions_that_begin_too_high_end_in_a_loss_and_not_in_a_loop() -> None:
    positions = subscribed()
    assert positions.position(EPOCH, 45, 50, [])[0] is Verdict.HOLE
    verdict, loss = positions.position(EPOCH, 47, 52, [])
    assert verdict is Verdict.ACT
    assert loss is not None
    assert (loss.first, loss.last, positions.base) == (41, 47, 52)


def test_only_the_streams_that_lack_something_are_named() -> None:
    positions = subscribed()
    positions.message(EPOCH, FILLS, 44, 40)
    heads = [(FILLS, 47), (EXITS, 43), (OTHER, 40)]
    assert positions.position(EPOCH, 40, 48, heads)[0] is Verdict.HOLE
    _, loss = positions.position(EPOCH, 40, 48, heads)
    assert loss == Loss((FILLS, EXITS), 41, 47, "the hub skipped them, also after a resume")


def test_a_gap_is_a_loss() -> None:
    positions = subscribed()
    assert positions.gap(EPOCH, 60, "retention") == Loss((), 41, 60, "retention")
    assert positions.gap(EPOCH, 60, "retention") is None
    assert positions.gap("e8", 90, "retention") is None
    assert positions.message(EPOCH, FILLS, 61, 60)[0] is Verdict.ACT


def test_memory_is_bounded_by_the_streams_since_the_last_position() -> None:
    positions = subscribed(0)
    for offset in range(1, 1001):
        positions.message(EPOCH, (f"bot{offset}", "entry_fill"), offset, 0)
    assert positions.streams == 1000
    positions.position(EPOCH, 0, 1000, [])
    assert positions.streams == 0


# --- a model of the hub: one ledger, retention, runs, a session that is one cursor


@dataclass
class Hub:
    """Hub rules H1-H4' of wire-v2 §5. `bug` breaks one of them."""

    bug: str = ""
    log: list[tuple[str, str]] = field(default_factory=list)
    floor: int = 0

    def publish(self, stream: tuple[str, str]) -> None:
        self.log.append(stream)

    def prev(self, offset: int, run: int) -> int:
        """The stream's last offset in the run that began at `run`, else where that run began."""
        stream = self.log[offset - 1]
        if self.bug == "prev_is_offset_minus_one":
            return offset - 1
        return max([run, *(o for o in range(run + 1, offset) if self.log[o - 1] == stream)])


class World:
    """A hub, a client with a filter, and what happened so far."""

    def __init__(self, bug: str) -> None:
        self.hub = Hub(bug)
        self.want = {FILLS, EXITS}
        self.positions = Positions()
        self.seen: list[int] = []
        self.lost: set[int] = set()
        self.alarms = 0
        self.total_order = True
        self.start: int | None = None
        self.cursor: int | None = None
        self.run = 0
        self.told_from = 0

    def connect(self) -> None:
        resume = self.positions.resume
        if resume is None:
            offset, recovered, extra = len(self.hub.log), None, {}
            self.start = offset
        elif resume["offset"] < self.hub.floor and self.hub.bug != "forgets_the_floor":
            offset, recovered = self.hub.floor, False
            extra = {"reason": "retention", "lost": [resume["offset"] + 1, offset]}
        else:
            offset, recovered, extra = resume["offset"], True, {}
        loss = self.positions.subscribed(EPOCH, offset, recovered, extra)
        self.declare(loss, every=True)
        self.cursor = self.run = self.told_from = max(offset, self.hub.floor)

    def declare(self, loss: Loss | None, *, every: bool = False) -> None:
        if loss is None:
            return
        if not every:
            self.alarms += 1
        assert loss.first is not None
        assert loss.last is not None
        self.lost |= set(range(loss.first, loss.last + 1))

    def judge(self, verdict: Verdict, loss: Loss | None, offset: int) -> None:
        self.declare(loss)
        if verdict is Verdict.HOLE:
            self.alarms += 1
            self.cursor = None
        elif verdict is Verdict.ACT and offset:
            assert offset not in self.seen, "acted twice"
            # What a broken hub skipped comes behind what it did send: then each stream is in order, not the whole.
            before = [
                o for o in self.seen if self.total_order or self.hub.log[o - 1] == self.hub.log[offset - 1]
            ]
            assert not before or offset > before[-1], "out of order"
            self.seen.append(offset)

    def send(self, *, skip: bool = False) -> None:
        """The next wanted message, or none when there is none."""
        while self.cursor is not None and self.cursor < len(self.hub.log):
            self.cursor += 1
            stream = self.hub.log[self.cursor - 1]
            if stream in self.want:
                if not skip:
                    offset = self.cursor
                    verdict = self.positions.message(EPOCH, stream, offset, self.hub.prev(offset, self.run))
                    self.judge(*verdict, offset)
                return

    def position(self) -> None:
        if self.cursor is None:
            return
        heads = {}
        for offset in range(self.told_from + 1, self.cursor + 1):
            if self.hub.log[offset - 1] in self.want:
                heads[self.hub.log[offset - 1]] = offset
        start = self.told_from
        self.judge(*self.positions.position(EPOCH, start, self.cursor, list(heads.items())), 0)
        self.told_from = self.cursor if self.cursor is not None else 0

    def retain(self) -> None:
        floor = min(self.hub.floor + 2, len(self.hub.log))
        self.hub.floor = floor
        if self.cursor is not None and self.cursor < floor:
            self.declare(self.positions.gap(EPOCH, floor, "retention"), every=True)
            self.cursor = self.run = self.told_from = floor

    def finish(self) -> None:
        """Bring the client to the end of the ledger."""
        for _ in range(8):
            if self.cursor is None:
                self.connect()
            while self.cursor is not None and self.cursor < len(self.hub.log):
                self.send()
            self.position()
            if self.cursor is not None:
                return
        raise AssertionError("never at rest")

    def check(self) -> None:
        assert self.start is not None
        wanted = {o for o in range(self.start + 1, len(self.hub.log) + 1) if self.hub.log[o - 1] in self.want}
        missed = wanted - set(self.seen) - self.lost
        assert not missed, f"neither delivered nor declared lost: {sorted(missed)}"

    def play(self, schedule: list[int], *, may_skip: bool) -> None:
        self.total_order = not may_skip
        self.connect()
        for choice in schedule:
            act = choice % 9
            if act < 3:
                self.hub.publish((FILLS, EXITS, OTHER)[act])
            elif act < 6:
                self.send(skip=may_skip and act == 5 and choice % 4 == 0)
            elif act == 6:
                self.position()
            elif act == 7:
                self.retain()
            elif self.cursor is None:
                self.connect()
            else:
                self.cursor = None
        self.finish()
        self.check()


schedules = st.lists(st.integers(0, 10_000), max_size=60)


@given(schedules)
def test_nothing_is_missed_without_a_word_and_no_alarm_is_false(schedule: list[int]) -> None:
    world = World("")
    world.play(schedule, may_skip=False)
    assert world.alarms == 0


@given(schedules)
@example([0, 1, 3740])
def test_a_hub_that_skips_messages_is_caught(schedule: list[int]) -> None:
    World("").play(schedule, may_skip=True)


@given(schedules)
def test_a_hub_that_forgets_its_floor_is_caught(schedule: list[int]) -> None:
    World("forgets_the_floor").play(schedule, may_skip=False)


def test_a_hub_with_false_claims_raises_false_alarms() -> None:
    """The model itself can tell: a claim that is not scoped to the stream alarms a filter of streams."""
    generator = random.Random(1)
    for _ in range(200):
        world = World("prev_is_offset_minus_one")
        world.play([generator.randrange(10_000) for _ in range(40)], may_skip=False)
        if world.alarms:
            return
    pytest.fail("no alarm in 200 schedules")
