"""hub.core.page_runs: what sessions that replay the same past share, and where it is not to be shared."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import pytest

from hub.core import page_runs
from hub.core.deflate import Deflater
from hub.core.entry import Entry
from hub.core.ledger import Damaged, Page, Read
from hub.core.page_runs import IDLE_S, PageRuns
from hub.core.positions import CLAIM_OFFSETS
from hub.core.session import Session
from hub.protocol.codec import Wire
from tests.core.doubles import Rig
from tests.core.model import decode, frames_of

PAGE = 256
LIMIT = 64 * 1024


class Replays(Rig):
    """A rig whose pages are cut at multiples of `slots`, as those of the page cache are."""

    def __init__(self, fills: int, slots: int = PAGE) -> None:
        super().__init__(tail_bytes=1000, with_positions=True)
        self.slots = slots
        for _ in range(fills):
            self.fill()

    def page(self, read: Read) -> Page:
        end = read.offset + self.slots - (read.offset - 1) % self.slots
        return Page([e for e in super().page(read).entries if e.offset < end], self.log.floor)

    def resumed(self, offset: int, *topics: str, wire: Wire = Wire.JSON, deflates: bool = False) -> Session:
        """A session that goes on behind an offset, with its page at hand and its reply read."""
        session = self.session(wire)
        session.deflates = deflates
        want = [{"topics": list(topics or ["entry_fill"])}]
        self.ask(session, "subscribe", {"want": want, "resume": {"epoch": "e", "offset": offset}}, number=1)
        self.pull(session)
        return session

    def pieces(self, session: Session, limit: int = LIMIT) -> list[bytes]:
        """One slice as core hands it out; the next page is read."""
        pulled = self.core.pull(session, limit, self.now)
        if pulled.read is not None:
            self.core.loaded(session, self.page(pulled.read))
        self.core.check_invariants()
        return pulled.frames


def told(wire: Wire, pieces: Iterable[bytes]) -> list[Any]:
    """Offsets of messages, and (from, offset) of positions."""
    messages = [decode(wire, frame) for frame in frames_of(pieces)]
    return [(m["from"], m["offset"]) if m["type"] == "hub.position" else m["offset"] for m in messages]


def offsets(wire: Wire, pieces: Iterable[bytes]) -> list[int]:
    """Of messages."""
    return [each for each in told(wire, pieces) if isinstance(each, int)]


def test_sessions_that_pass_the_same_share_what_is_joined() -> None:
    rig = Replays(600)
    first, second = rig.resumed(0), rig.resumed(0)
    for expected in (range(1, PAGE + 1), range(PAGE + 1, 2 * PAGE + 1)):
        one, other = rig.pieces(first)[0], rig.pieces(second)[0]
        assert one is other
        assert told(Wire.JSON, [one]) == list(expected)


def test_who_came_from_elsewhere_shares_from_the_next_page_on() -> None:
    rig = Replays(2000)
    sessions = [rig.resumed(offset) for offset in (0, 7, 200)]
    shared = []
    for session in sessions:
        pieces = [rig.pieces(session) for _ in range(7)]
        messages = [piece for frames in pieces for piece in frames if len(frames_of([piece])) > 1]
        shared.append(messages[1:])
        got = offsets(Wire.JSON, itertools.chain.from_iterable(pieces))
        assert got == list(range(got[0], got[0] + len(got)))
    assert [id(piece) for piece in shared[0]] == [id(piece) for piece in shared[1]]
    assert [id(piece) for piece in shared[0]] == [id(piece) for piece in shared[2]]


def test_subscriptions_and_wires_are_kept_apart() -> None:
    rig = Replays(0)
    for i in range(300):
        rig.fill(topic=("entry_fill", "exit_fill")[i % 2])
    odd, even = range(1, PAGE + 1, 2), range(2, PAGE + 1, 2)
    expected = {("entry_fill",): odd, ("exit_fill",): even, ("entry_fill", "exit_fill"): range(1, PAGE + 1)}
    for wire in (Wire.JSON, Wire.MSGPACK):
        for topics, passed in expected.items():
            session = rig.resumed(0, *topics, wire=wire)
            assert offsets(wire, rig.pieces(session)) == list(passed)
    nothing = rig.resumed(0, "exit")
    assert offsets(Wire.JSON, rig.pieces(nothing)) == []
    assert nothing.cursor is not None
    assert nothing.cursor.ledger == PAGE + 1


def test_who_deflates_shares_with_who_deflates() -> None:
    rig = Replays(0)
    rig.core.deflater.min_bytes = 100
    for _ in range(300):
        rig.fill(pad=60)
    plain = rig.pieces(rig.resumed(0))[0]
    one, other = (rig.pieces(rig.resumed(0, deflates=True))[0] for _ in range(2))
    assert one is other
    assert len(one) < len(plain)
    assert rig.core.deflater.frames == PAGE


def test_a_position_stands_between_pages_and_claims_at_most_so_much() -> None:
    rig = Replays(2600)
    session = rig.resumed(100)
    said = []
    while not session.hot:
        rig.flush()
        said += told(Wire.JSON, rig.pieces(session))
    claims = [each for each in said if isinstance(each, tuple)]
    assert [each for each in said if isinstance(each, int)] == list(range(101, 2601))
    assert claims[0][0] == 100
    assert all(before[1] == after[0] for before, after in itertools.pairwise(claims))
    assert all(last - first <= CLAIM_OFFSETS for first, last in claims)
    assert claims[0][1] % PAGE == claims[1][1] % PAGE == 0
    assert claims[-1][1] == 2600


def test_a_page_of_more_than_a_position_may_claim() -> None:
    rig = Replays(5000, slots=4 * CLAIM_OFFSETS)
    session = rig.resumed(0)
    said = told(Wire.JSON, rig.pieces(session, 1 << 30))
    claims = [each for each in said if isinstance(each, tuple)]
    assert len(claims) == 4
    assert all(last - first <= CLAIM_OFFSETS + 1 for first, last in claims)


def test_a_page_with_a_damaged_slot_is_passed_slot_by_slot() -> None:
    rig = Replays(300)
    sessions = [rig.resumed(0), rig.resumed(0)]
    for session in sessions:
        assert not isinstance(session.page, tuple)
        session.page[3] = Damaged(4)
        messages = [decode(Wire.JSON, frame) for frame in frames_of(rig.pieces(session))]
        assert [m["type"] for m in messages[:5]] == [*["entry_fill"] * 3, "hub.position", "hub.gap"]
        assert [m["offset"] for m in messages if "prev" in m] == [1, 2, 3, *range(5, PAGE + 1)]


def test_a_page_that_is_more_than_is_asked_for_is_cut() -> None:
    rig = Replays(300)
    session = rig.resumed(0)
    assert offsets(Wire.JSON, rig.pieces(session, 1)) == [1]
    assert offsets(Wire.JSON, rig.pieces(session)) == list(range(2, PAGE + 1))


# --- bounds


def entries(first: int, count: int = 4, pad: int = 0) -> list[Entry]:
    made = []
    for offset in range(first, first + count):
        one = Entry("a", "entry_fill", 1, b'{"pad":"%s"}' % (b"x" * pad), mid=f"m{offset}")
        one.epoch, one.offset = "e", offset
        made.append(one)
    return made


def join(runs: PageRuns, first: int, now: float = 0.0, *, wanted: bool = True, **more: Any) -> bytes:
    run = runs.of(entries(first, **more), (Wire.JSON, False), now)  # type: ignore[arg-type]
    assert run is not None
    return run.joined(lambda _stream: wanted, {})


def test_what_is_remembered_is_bounded_and_what_was_used_last_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = PageRuns(Deflater(1 << 20, 1 << 20))
    pieces = {first: join(runs, first) for first in (1, 5)}
    monkeypatch.setattr(page_runs, "LIMIT_BYTES", runs.bytes + 100)
    assert join(runs, 1) is pieces[1]
    join(runs, 9)
    assert runs.bytes <= page_runs.LIMIT_BYTES
    assert join(runs, 1) is pieces[1]
    assert join(runs, 5) is not pieces[5]
    join(runs, 20, pad=10_000)
    assert len(runs._runs) == 1, "one alone may cost more"
    assert runs.bytes > page_runs.LIMIT_BYTES


def test_selections_of_one_run_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_runs, "RUN_BYTES", 100)
    runs = PageRuns(Deflater(1 << 20, 1 << 20))
    first, second = join(runs, 1), join(runs, 1)
    assert first == second
    assert first is not second
    assert runs.bytes == sum(entry.size for entry in entries(1))


def test_what_nobody_uses_is_let_go() -> None:
    runs = PageRuns(Deflater(1 << 20, 1 << 20))
    kept = join(runs, 1)
    runs.forget_idle(IDLE_S)
    assert join(runs, 1, IDLE_S) is kept
    runs.forget_idle(2 * IDLE_S + 1)
    assert runs.bytes == 0
    assert join(runs, 1) is not kept


def test_core_lets_go_with_time() -> None:
    rig = Replays(300)
    rig.pieces(rig.resumed(0))
    assert 0 < rig.core.statistics()["replayed_bytes"] <= rig.core.statistics()["replayed_limit_bytes"]
    rig.core.tick(rig.now + IDLE_S + 1, 0, 1e9)
    assert rig.core.statistics()["replayed_bytes"] == 0
