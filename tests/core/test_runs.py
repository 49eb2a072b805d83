"""hub.core.runs: what groups at the same place of the ledger share."""

from __future__ import annotations

import pytest

from hub.core import ledger_lane, runs
from hub.core.positions import CLAIM_OFFSETS
from hub.core.session import Session
from hub.protocol.codec import Wire
from tests.core.doubles import BIG, Rig
from tests.core.model import decode, frames_of


def pieces(rig: Rig, session: Session, limit: int = BIG) -> list[bytes]:
    """What the hot sessions of this one's group are sent."""
    assert session.group is not None
    return rig.core.collect(session.group, limit, rig.now)[0]


def offsets(sent: list[bytes], wire: Wire = Wire.JSON) -> list[int]:
    return [m["offset"] for m in (decode(wire, frame) for frame in frames_of(sent)) if "prev" in m]


def test_subscriptions_that_differ_elsewhere_share_what_is_joined() -> None:
    rig = Rig()
    one, other = rig.subscribed("entry_fill"), rig.subscribed("entry_fill", "status")
    assert one.group is not other.group
    rig.fill()
    rig.fill()
    shared = pieces(rig, one)
    assert offsets(shared) == [1, 2]
    assert pieces(rig, other)[0] is shared[0]


def test_each_selection_of_streams_is_its_own() -> None:
    rig = Rig()
    entries, exits, both = (
        rig.subscribed(*topics) for topics in (("entry_fill",), ("exit_fill",), ("entry_fill", "exit_fill"))
    )
    rig.fill(topic="entry_fill")
    rig.fill(topic="exit_fill")
    rig.fill(topic="entry_fill")
    assert [offsets(pieces(rig, s)) for s in (entries, exits, both)] == [[1, 3], [2], [1, 2, 3]]
    assert all(s.group is not None and s.group.level for s in (entries, exits, both))


def test_wires_share_nothing() -> None:
    rig = Rig()
    sessions = [rig.subscribed("entry_fill", wire=wire) for wire in (Wire.JSON, Wire.MSGPACK)]
    rig.fill()
    assert [offsets(pieces(rig, s), s.wire) for s in sessions] == [[1], [1]]


def test_a_run_ends_at_the_limit_and_the_next_begins_there() -> None:
    rig = Rig()
    session = rig.subscribed("entry_fill")
    for _ in range(5):
        rig.fill(pad=100)
    got = []
    while rig.core.dirty:
        assert session.group is not None
        frames, more = rig.core.collect(session.group, 200, rig.now)
        got.append(offsets(frames))
        if not more:
            rig.core.dirty.clear()
    assert got == [[1, 2], [3, 4], [5]]


def test_what_is_remembered_is_bounded_and_of_the_newest_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "KEPT_BYTES", 1000)
    rig = Rig()
    one, other = rig.subscribed("entry_fill"), rig.subscribed("entry_fill", "status")
    rig.fill(pad=2000)
    assert offsets(pieces(rig, one)) == offsets(pieces(rig, other)) == [1]
    assert rig.core.statistics()["joined_bytes"] == 0
    rig.fill()
    pieces(rig, one)
    assert 0 < rig.core.statistics()["joined_bytes"] <= 1000
    rig.fill()
    assert offsets(pieces(rig, one)) == [3]


def test_a_position_goes_where_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    real = ledger_lane.frame_of
    monkeypatch.setattr(
        ledger_lane, "frame_of", lambda wire, message: (made.append(message), real(wire, message))[1]
    )
    rig = Rig(with_positions=True)
    sessions = [rig.subscribed("entry_fill"), rig.subscribed("entry_fill", "status")]
    made.clear()
    for _ in range(CLAIM_OFFSETS + 1):
        rig.fill()
    for session in sessions:
        sent = [decode(Wire.JSON, frame) for frame in frames_of(pieces(rig, session))]
        at = [i for i, message in enumerate(sent) if message["type"] == "hub.position"]
        assert [sent[i - 1]["offset"] for i in at] == [sent[i]["offset"] for i in at]
        assert at[0] == CLAIM_OFFSETS
    # Both groups claim the same, and it is encoded once.
    assert len(made) == len(at)
