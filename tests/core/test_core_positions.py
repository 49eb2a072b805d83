"""hub.core.positions and hub.core.ledger_lane: the cases that have a name. Schedules are in test_ledger_model and test_machine."""

from __future__ import annotations

from typing import Any

import pytest

from hub.core.engine import Core, CoreLimits
from hub.core.ledger import Damaged, Ended, LogState, Page, Read
from hub.core.positions import CLAIM_OFFSETS, Start, start
from hub.core.session import Session
from hub.protocol.codec import Wire
from hub.protocol.messages import FrameKey
from hub.protocol.subscription import Resume
from tests.core.doubles import KEY, Rig, rows
from tests.core.model import decode, frames_of

FILLS = {"topics": ["entry_fill"]}
HEARTBEAT_S = 20.0


def rig_of(fills: int = 0, **more: Any) -> Rig:
    rig = Rig(with_positions=True, **more)
    for _ in range(fills):
        rig.fill()
    return rig


def resumed(rig: Rig, resume: Any, *want: dict[str, Any], wire: Wire = Wire.JSON, **more: Any) -> Session:
    session = rig.session(wire)
    rig.ask(session, "subscribe", {"want": list(want or [FILLS]), "resume": resume, **more}, number=1)
    return session


def answer_of(rig: Rig, session: Session) -> dict[str, Any]:
    (answer,) = [m for m in rig.pull(session, 1) if m["type"] == "hub.reply"]
    return answer


def until_it_reads(rig: Rig, session: Session) -> tuple[list[Any], Read]:
    """What it is told before it has to read the log, and that read, which is not answered."""
    got: list[Any] = []
    for _ in range(20):
        pulled = rig.core.pull(session, 1, rig.now)
        got += [told(decode(session.wire, frame)) for frame in frames_of(pulled.frames)]
        if pulled.read is not None:
            return got, pulled.read
    raise AssertionError("it does not read")


def told(message: dict[str, Any]) -> Any:
    """What matters of a message in one line."""
    kind = message["type"]
    if kind == "hub.position":
        return ("position", message["from"], message["offset"], [tuple(head) for head in message["heads"]])
    if kind == "hub.gap":
        return ("gap", message["from"], message["to"], message["reason"])
    return ("reply", message["data"]["offset"]) if kind == "hub.reply" else message.get("offset", kind)


def head(offset: int, bot: str = "a", topic: str = "entry_fill") -> tuple[str, str, int]:
    return (bot, topic, offset)


# --- where a subscription starts


@pytest.mark.parametrize(
    ("resume", "earliest", "expected"),
    [
        (None, False, Start(10)),
        (None, True, Start(3)),
        (Resume("e", 7, {}), False, Start(7, True)),
        (Resume("e", 3, {}), False, Start(3, True)),
        (Resume("e", 10, {}), True, Start(10, True)),
        (Resume("e", 2, {}), False, Start(3, False, "retention", (3, 3))),
        (Resume("e", 0, {}), True, Start(3, False, "retention", (1, 3))),
        (Resume("old", 7, {}), False, Start(10, False, "epoch")),
        (Resume("old", 2**53 - 1, {}), True, Start(3, False, "epoch")),
        (Resume("e", 11, {}), False, Start(10, False, "future")),
        (Resume("e", 2**53 - 1, {}), True, Start(3, False, "future")),
    ],
)
def test_the_table_of_resume(resume: Resume | None, earliest: bool, expected: Start) -> None:
    assert start("e", 3, 10, resume, earliest=earliest) == expected


@pytest.mark.parametrize(
    ("lineage", "resume", "expected"),
    [
        # Behind the cut, before it, at its end, beyond what the mark knew.
        ([Ended("d", 8, 12)], ("d", 7), Start(7, False, "cut", same=8, cut=(("d", 9, 12),))),
        ([Ended("d", 8, 12)], ("d", 10), Start(8, False, "cut", same=8, cut=(("d", 11, 12),))),
        ([Ended("d", 8, 12)], ("d", 12), Start(8, True, same=8)),
        ([Ended("d", 8, 12)], ("d", 15), Start(8, True, same=8)),
        # Nothing went with it, or nobody knows.
        ([Ended("d", 8, 8)], ("d", 8), Start(8, True, same=8)),
        ([Ended("d", 8, None)], ("d", 8), Start(8, False, "cut", same=8, cut=(("d", 9, None),))),
        ([Ended("d", 8, None)], ("d", 11), Start(8, False, "cut", same=8, cut=(("d", 12, None),))),
        # Retention took its part, too.
        ([Ended("d", 8, 8)], ("d", 1), Start(3, False, "retention", (2, 3), 8)),
        ([Ended("d", 2, 5)], ("d", 1), Start(3, False, "cut", (2, 3), 2, (("d", 3, 5),))),
        # Two cuts: the lower counts, and what the epoch in between brought is gone with it.
        (
            [Ended("c", 7, 9), Ended("d", 5, 8)],
            ("c", 4),
            Start(4, False, "cut", same=5, cut=(("c", 6, 9), ("d", 8, 8))),
        ),
        ([Ended("c", 4, 9), Ended("d", 6, 6)], ("c", 9), Start(4, True, same=4)),
        ([Ended("c", 4, 9), Ended("d", 6, 8)], ("d", 5), Start(5, False, "cut", same=6, cut=(("d", 7, 8),))),
        # A new ledger in the place of one that is gone.
        ([Ended("d", 0, 9)], ("d", 4), Start(3, False, "cut", (1, 3), 0, (("d", 5, 9),))),
        ([Ended("d", 8, 12)], ("b", 7), Start(10, False, "epoch")),
        ([], ("d", 7), Start(10, False, "epoch")),
    ],
)
def test_the_table_of_resume_after_cuts(
    lineage: list[Ended], resume: tuple[str, int], expected: Start
) -> None:
    assert start("e", 3, 10, Resume(*resume, {}), earliest=False, lineage=lineage) == expected


@pytest.mark.parametrize("features", [["lineage", "other", 1], []])
def test_only_a_client_that_named_the_feature_goes_on_in_the_next_epoch(features: list[Any]) -> None:
    rig = rig_of(6)
    rig.core.lineage = (Ended("d", 3, 5),)
    session = rig.session()
    rig.ask(session, "hello", {"features": features})
    rig.ask(session, "subscribe", {"want": [FILLS], "resume": {"epoch": "d", "offset": 2}}, number=1)
    data = answer_of(rig, session)["data"]
    got = [m["offset"] for m in rig.served(session) if "prev" in m]
    told = {name: data.get(name) for name in ("epoch", "offset", "recovered", "reason", "same", "cut")}
    if features:
        cut = {"reason": "cut", "same": 3, "cut": [["d", 4, 5]]}
        assert told == {"epoch": "e", "offset": 2, "recovered": False, **cut}
        assert got == [3, 4, 5, 6]
    else:
        nothing = {"reason": "epoch", "same": None, "cut": None}
        assert told == {"epoch": "e", "offset": 6, "recovered": False, **nothing}
        assert got == []


def test_features_that_are_no_list_are_refused() -> None:
    rig = rig_of()
    session = rig.session()
    rig.ask(session, "hello", {"features": "lineage"}, number=1)
    (answer,) = rig.pull(session)
    assert answer["error"]["message"] == "hello.features: expected a list of names"


@pytest.mark.parametrize("wire", [Wire.JSON, Wire.MSGPACK])
def test_a_resume_brings_what_was_missed_and_then_what_is_new(wire: Wire) -> None:
    rig = rig_of(6, tail_bytes=2000)
    assert rig.core.tail.first > 3
    rig.fill(topic="exit_fill")
    session = resumed(rig, {"epoch": "e", "offset": 2}, wire=wire)
    answer = answer_of(rig, session)
    assert answer["data"]["recovered"] is True
    assert answer["data"]["offset"] == 2
    rig.fill()
    got = [told(m) for m in rig.served(session)]
    assert got == [3, 4, 5, 6, 8, ("position", 2, 8, [head(8)])]
    rig.fill()
    assert [told(m) for m in rig.served(session)] == [9]
    assert session.hot


def test_retention_is_answered_with_what_is_lost() -> None:
    rig = rig_of(8, tail_bytes=1000, log_bytes=3000)
    floor = rig.log.floor
    assert floor > 2
    session = resumed(rig, {"epoch": "e", "offset": 1})
    assert answer_of(rig, session)["data"] | {"missing_keys": []} == {
        "epoch": "e",
        "offset": floor,
        "recovered": False,
        "reason": "retention",
        "lost": [2, floor],
        "unknown": [],
        "missing": [],
        "missing_keys": [],
        "denied": [],
    }
    assert [m["offset"] for m in rig.served(session) if "prev" in m] == list(range(floor + 1, 9))


def test_a_floor_that_rises_behind_the_answer_is_a_gap() -> None:
    rig = rig_of(8, tail_bytes=1000)
    session = resumed(rig, {"epoch": "e", "offset": 2})
    _, read = until_it_reads(rig, session)
    while rig.log.floor < 5:
        rig.log._drop_oldest()
    rig.core.loaded(session, rig.page(read))
    assert [told(m) for m in rig.served(session)][:2] == [("gap", 2, 5, "retention"), 6]


def test_what_retention_took_before_core_was_told_of_it_is_no_gap() -> None:
    rig = rig_of(4, tail_bytes=1000)
    session = resumed(rig, {"epoch": "e", "offset": 0})
    until_it_reads(rig, session)
    untold = rig.log._append(rig.fill(commit=False))
    while rig.log.floor < rig.log.head:
        rig.log._drop_oldest()
    rig.core.loaded(session, Page([], rig.log.floor))
    rig.core.check_invariants()
    rig.core.committed([untold])
    assert [told(m) for m in rig.served(session)] == [
        ("gap", 0, 4, "retention"),
        5,
        ("position", 4, 5, [head(5)]),
    ]


def test_a_resume_beside_a_subscription_is_refused_and_changes_nothing() -> None:
    rig = rig_of(3)
    session = rig.subscribed("entry_fill")
    rig.ask(session, "subscribe", {"want": [], "resume": {"epoch": "e", "offset": 1}}, number=2)
    (answer,) = rig.pull(session)
    assert answer["error"]["code"] == "bad_request"
    assert "connect anew" in answer["error"]["message"]
    assert session.group is not None
    rig.ask(session, "unsubscribe", number=3)
    rig.ask(session, "subscribe", {"want": [FILLS], "resume": {"epoch": "e", "offset": 1}}, number=4)
    assert [told(m) for m in rig.served(session)][:4] == [("reply", 3), ("reply", 1), 2, 3]


HOSTILE_RESUMES: list[Any] = [
    5, "e/7", [], ["e", 7], True, {}, {"epoch": "e"}, {"offset": 1},
    *({"epoch": "e", "offset": offset}
      for offset in (-1, 2**53, 2**70, -(2**70), 1.0, 1.5, float("nan"), float("inf"), "1", True, False, None, [1], {"a": 1})),
    *({"epoch": epoch, "offset": 1} for epoch in (None, 7, True, ["e"], {"e": 1}, b"e")),
    *({"epoch": "e", "offset": 1, "keys": keys}
      for keys in (
          "all", {"a": 1}, [1], [[]], [["a", "analyzed_df", ["P", "5m", "spot"], "r"]], [None],
          [["a", "analyzed_df", ["P", "5m", "spot"], "r", -1]], [["a", "analyzed_df", ["P", "5m", "spot"], "r", 2**53]],
          [["a", "analyzed_df", ["P", "5m", "spot"], "r", True]], [["a", "analyzed_df", ["P", "5m", "spot"], "r", 1.0]],
          [["a", "analyzed_df", ["P", "5m"], "r", 1]], [["a", "analyzed_df", "P5s", "r", 1]],
          [["a", "analyzed_df", ["P", "5m", 3], "r", 1]], [["a", "analyzed_df", ["P", "5m", "spot"], 9, 1]],
          [[1, "whitelist", [], "r", 1]], [["a", ["whitelist"], [], "r", 1]], [["a", "whitelist", [[]], "r", 1]],
          [["a", "whitelist", [], "r", 1]] * 101,
      )),
]  # fmt: skip


@pytest.mark.parametrize("resume", HOSTILE_RESUMES, ids=lambda value: repr(value)[:60])
def test_a_position_is_answered_and_never_trusted(resume: Any) -> None:
    rig = rig_of(3)
    session = resumed(rig, resume)
    (answer,) = rig.pull(session)
    assert (answer["ok"], answer["error"]["code"], answer["error"]["temporary"]) == (
        False,
        "bad_request",
        False,
    )
    assert "resume" in answer["error"]["message"]
    assert "\n" not in answer["error"]["message"]
    assert session.group is None
    assert not rig.core.groups


def test_unknown_fields_and_further_elements_of_a_resume_are_ignored() -> None:
    rig = rig_of(3)
    rig.core.publish_value("a", "whitelist", None, ["A/B"], 1)
    keys = [["a", "whitelist", [], "r", 1, "later"], ["nobody", "x", [], "r", 5]]
    resume = {"epoch": "e", "offset": 3, "keys": keys, "hint": {}}
    session = resumed(rig, resume, {"topics": ["entry_fill", "whitelist"]})
    assert [told(m) for m in rig.served(session)] == [("reply", 3)]


# --- keys that a client still holds


def held(n: int, rev_epoch: str = "r", key: FrameKey = KEY) -> list[Any]:
    return ["a", "analyzed_df", [key.pair, key.timeframe, key.candle_type], rev_epoch, n]


def frames_after(rig: Rig, *keys: list[Any], epoch: str = "e", **item: Any) -> list[dict[str, Any]]:
    session = resumed(
        rig, {"epoch": epoch, "offset": 0, "keys": list(keys)}, {"topics": ["analyzed_df"], **item}
    )
    got = rig.served(session)
    assert session.hot
    rig.frame(rows(50))
    return got + [decode(session.wire, frame) for frame in rig.flush()[session.id]]


def shapes(messages: list[dict[str, Any]]) -> list[Any]:
    return [
        (m["rev"][1:], "part" in m) if "rev" in m else m["type"] for m in messages if m["type"] != "hub.reply"
    ]


def test_a_held_key_gets_its_change_behind_its_schema() -> None:
    rig = rig_of()
    for i in range(3):
        rig.frame(rows(1 + i))
    assert shapes(frames_after(rig, held(1))) == ["hub.schema", ([1, 3], False), ([3, 4], False)]


def test_a_held_key_that_did_not_change_is_told_to_be_current() -> None:
    rig = rig_of()
    rig.frame(rows(1))
    assert shapes(frames_after(rig, held(1))) == ["hub.schema", ([1, 1], False), ([1, 2], False)]


def test_two_held_keys_of_one_schema_hear_it_once() -> None:
    rig = rig_of()
    other = FrameKey("ETH/USDT", "5m", "spot")
    for key in (KEY, other):
        rig.frame(rows(1), key=key)
    got = shapes(frames_after(rig, held(1), held(1, key=other)))
    assert got == ["hub.schema", ([1, 1], False), ([1, 1], False), ([1, 2], False)]


@pytest.mark.parametrize(
    ("key", "epoch"),
    [(held(0), "e"), (held(4), "e"), (held(1, "other"), "e"), (held(1), "another ledger")],
    ids=["nothing", "of the future", "another cache", "after recovered: false"],
)
def test_what_is_not_known_to_be_held_comes_whole(key: list[Any], epoch: str) -> None:
    rig = rig_of()
    for i in range(3):
        rig.frame(rows(1 + i))
    assert shapes(frames_after(rig, key, epoch=epoch)) == ["hub.schema", ([0, 3], True), ([3, 4], False)]


def test_a_held_value_comes_again_only_when_it_changed() -> None:
    rig = rig_of()
    rig.core.publish_value("a", "whitelist", None, ["A/B"], 1)
    rig.core.publish_value("b", "whitelist", None, ["A/B"], 1)
    rig.core.publish_value("b", "whitelist", None, ["C/D"], 1)
    keys = [["a", "whitelist", [], "r", 1], ["b", "whitelist", [], "r", 1]]
    session = resumed(rig, {"epoch": "e", "offset": 0, "keys": keys}, {"topics": ["whitelist"]})
    assert [m["bot"] for m in rig.served(session) if "bot" in m] == ["b"]
    rig.core.publish_value("a", "whitelist", None, ["E/F"], 1)
    assert [m["bot"] for m in rig.served(session)] == ["a"]


def test_a_resync_of_a_held_key_is_a_snapshot() -> None:
    rig = rig_of()
    rig.frame(rows(1))
    session = resumed(rig, {"epoch": "e", "offset": 0, "keys": [held(1)]}, {"topics": ["analyzed_df"]})
    rig.ask(session, "resync", {"keys": [["a", "analyzed_df", ["BTC/USDT", "5m", "spot"]]]}, number=2)
    assert shapes(rig.served(session)) == ["hub.schema", ([0, 1], True)]
    assert not session.untold


# --- positions


def test_the_first_message_brings_a_position_in_the_same_write_and_then_one_a_second() -> None:
    rig = rig_of()
    session = rig.subscribed("entry_fill", "exit_fill")
    flushed = []
    for at in (10.0, 10.3, 10.9, 11.0, 11.5):
        rig.now = at
        rig.fill()
        rig.fill("b", "exit_fill")
        flushed.append([told(decode(session.wire, frame)) for frame in rig.flush()[session.id]])
    exits = ("b", "exit_fill")
    assert flushed == [
        [1, 2, ("position", 0, 2, [head(1), (*exits, 2)])],
        [3, 4],
        [5, 6],
        [7, 8, ("position", 2, 8, [head(7), (*exits, 8)])],
        [9, 10],
    ]


def test_the_tick_brings_the_position_that_no_later_message_does() -> None:
    rig = rig_of()
    session = rig.subscribed("entry_fill")
    rig.now = 10.0
    rig.fill()
    rig.flush()
    rig.now = 10.5
    rig.fill()
    rig.flush()
    rig.core.tick(10.9, 1, HEARTBEAT_S)
    assert rig.flush() == {}
    rig.now = 11.1
    rig.core.tick(11.1, 1, HEARTBEAT_S)
    (position,) = rig.flush()[session.id]
    assert told(decode(session.wire, position)) == ("position", 1, 2, [head(2)])
    rig.core.tick(12.2, 1, HEARTBEAT_S)
    assert rig.flush() == {}


def test_one_position_is_made_for_all_that_keep_up_and_none_for_streams_they_do_not_take() -> None:
    rig = rig_of()
    sessions = [rig.subscribed("entry_fill", bots=["a"]) for _ in range(100)]
    rig.fill("b")
    rig.fill("a")
    before = rig.core.counters["positions"]
    flushed = rig.flush()
    assert len({id(flushed[session.id]) for session in sessions}) == 1
    assert rig.core.counters["positions"] == before + 1
    assert told(decode(Wire.JSON, flushed[sessions[0].id][-1])) == ("position", 0, 2, [head(2)])


def test_a_heartbeat_moves_the_base_over_what_was_not_for_this_subscription() -> None:
    rig = rig_of()
    session = rig.subscribed("entry_fill", bots=["b"])
    for _ in range(50):
        rig.fill("a")
    assert rig.flush() == {}
    assert rig.core.tick(HEARTBEAT_S, 1, HEARTBEAT_S) == []
    assert [told(decode(session.wire, f)) for f in rig.flush()[session.id]] == [("position", 0, 50, [])]


def test_a_straggler_that_waits_for_the_log_hears_where_it_is_once() -> None:
    rig = rig_of(6, tail_bytes=1000)
    session = resumed(rig, {"epoch": "e", "offset": 1})
    until_it_reads(rig, session)
    for at in (HEARTBEAT_S, HEARTBEAT_S + 1):
        rig.core.tick(at, 1, HEARTBEAT_S)
    assert [told(m) for m in rig.pull(session, 1)] == [("position", 1, 1, [])]


def test_a_replay_claims_every_thousand_offsets_also_what_it_skips() -> None:
    rig = rig_of(tail_bytes=1 << 22)
    for i in range(2 * CLAIM_OFFSETS + 500):
        rig.fill("a" if i < CLAIM_OFFSETS else "b")
    session = resumed(rig, {"epoch": "e", "offset": 0}, {**FILLS, "bots": ["a"]})
    got = [told(m) for m in rig.served(session) if m["type"] == "hub.position"]
    assert got == [
        ("position", 0, 1000, [head(1000)]),
        ("position", 1000, 2000, []),
        ("position", 2000, 2500, []),
    ]


def test_who_joins_a_group_that_is_ahead_of_its_claim_is_brought_to_the_tail() -> None:
    rig = rig_of()
    quick, slow = rig.subscribed("entry_fill"), rig.subscribed("entry_fill")
    rig.fill("a")
    rig.flush()
    rig.core.fall_behind(slow)
    rig.fill("a", "exit_fill")
    assert quick.group is not None
    rig.core.owe_position(quick.group)
    assert told(decode(quick.wire, rig.flush()[quick.id][0])) == ("position", 1, 2, [])
    assert [told(m) for m in rig.pull(slow)] == [("position", 1, 2, [])]
    assert slow.hot


def test_who_comes_back_at_once_costs_no_position() -> None:
    rig = rig_of()
    quick, slow = rig.subscribed("entry_fill"), rig.subscribed("entry_fill")
    rig.fill("a")
    rig.flush()
    rig.core.fall_behind(slow)
    rig.fill("a")
    rig.flush()
    assert quick.hot
    assert [told(m) for m in rig.pull(slow)] == [2]
    assert slow.hot
    rig.now = 5.0
    rig.fill("a")
    assert told(decode(slow.wire, rig.flush()[slow.id][-1])) == ("position", 1, 3, [head(3)])


def test_a_change_of_subscription_closes_the_old_claim_first() -> None:
    rig = rig_of()
    session = rig.subscribed("entry_fill")
    rig.fill()
    rig.flush()
    rig.fill()
    rig.fill(topic="exit_fill")
    rig.ask(session, "subscribe", {"want": [{"topics": ["exit_fill"]}]}, number=2)
    got = [told(m) for m in rig.served(session)]
    assert got[:2] == [("reply", 1), 3], "the base is at 1 already, and 2 is not wanted any more"
    rig.now = 0.5
    rig.fill(topic="exit_fill")
    rig.flush()
    rig.ask(session, "subscribe", {"want": []}, number=3)
    assert [told(m) for m in rig.served(session)] == [
        ("position", 1, 4, [head(4, topic="exit_fill")]),
        ("reply", 4),
    ]


def test_a_gap_stands_behind_a_claim_of_all_that_came_before() -> None:
    rig = rig_of(4, tail_bytes=1000, log_bytes=3000)
    session = resumed(rig, {"epoch": "e", "offset": rig.log.floor})
    until_it_reads(rig, session)
    first = rig.log.floor + 1
    page = Page([e for e in rig.log._entries if e.offset == first], rig.log.floor)
    rig.core.loaded(session, page)
    for _ in range(6):
        rig.fill()
    got = [told(m) for m in rig.served(session)]
    at = got.index(("gap", first, rig.log.floor, "retention"))
    assert got[at - 2 : at] == [first, ("position", first - 1, first, [head(first)])]


@pytest.mark.parametrize("wire", Wire)
def test_a_damaged_slot_costs_itself_and_nothing_else(wire: Wire) -> None:
    rig = rig_of(6, tail_bytes=1000)
    session = rig.session(wire)
    if wire is Wire.FREQTRADE:
        session = rig.subscribed("entry_fill", wire=wire)
        rig.core.fall_behind(session)
        assert session.cursor is not None
        session.cursor.ledger = 1
        session.cursor.claim_from(0)
    else:
        session = resumed(rig, {"epoch": "e", "offset": 0}, wire=wire)
    slots = [Damaged(e.offset) if e.offset in (1, 3, 4) else e for e in rig.log._entries]
    until_it_reads(rig, session)
    rig.core.loaded(session, Page(slots, 0))
    got = [told(m) for m in rig.served(session)]
    assert rig.core.counters["gaps"] == 3
    if wire is Wire.FREQTRADE:
        assert got == ["entry_fill"] * 3
        return
    assert got == [
        ("gap", 0, 1, "damaged"),
        2,
        ("position", 1, 2, [head(2)]),
        ("gap", 2, 3, "damaged"),
        ("gap", 3, 4, "damaged"),
        5,
        6,
        ("position", 4, 6, [head(6)]),
    ]


def test_a_log_that_gives_nothing_where_something_must_be_ends_the_session() -> None:
    rig = rig_of(6, tail_bytes=1000)
    session = resumed(rig, {"epoch": "e", "offset": 0})
    until_it_reads(rig, session)
    rig.core.loaded(session, Page([], 0))
    assert session.closing == (1011, "the log has a hole")


def test_rights_that_grow_close_the_old_claim_too() -> None:
    rig = rig_of()
    session = rig.session(reads=frozenset({"a"}))
    rig.subscribe(session, FILLS)
    rig.fill("b")
    rig.fill("a")
    rig.served(session)
    rig.now = 0.5
    rig.fill("b")
    rig.core.reauthenticate(session, type(session.principal)(name="p"))
    rig.fill("b")
    assert [told(m) for m in rig.served(session)][:2] == [("position", 2, 3, []), 4]


def test_freqtrades_wire_hears_no_position() -> None:
    rig = rig_of()
    session = rig.subscribed("entry_fill", wire=Wire.FREQTRADE)
    for at in range(100):
        rig.now = float(at)
        rig.fill()
        assert len(rig.flush()[session.id]) == 1
        rig.core.tick(rig.now, 1, HEARTBEAT_S)
    rig.core.tick(1000.0, 1, HEARTBEAT_S)
    assert rig.flush() == {}
    assert rig.core.last_words(session) == []
    assert rig.core.counters["positions"] == 0


def test_the_last_words_of_a_straggler_are_its_replies_and_where_it_is() -> None:
    rig = rig_of()
    session = rig.subscribed("entry_fill")
    rig.core.fall_behind(session)
    rig.fill()
    rig.core.pull(session, 1, 0.0)
    rig.core.fall_behind(session)
    rig.fill()
    rig.ask(session, "ping", number=5)
    said = [decode(session.wire, frame) for frame in rig.core.last_words(session)]
    assert [m["type"] for m in said] == ["hub.reply", "hub.position"]
    assert session.cursor is not None
    assert said[1]["offset"] == session.cursor.ledger - 1


# --- after a restart


def test_a_log_that_was_opened_brings_its_streams() -> None:
    state = LogState("e", 2, 7, {("a", "entry_fill"): 7, ("b", "exit_fill"): 1})
    core = Core(state, "r", CoreLimits(streams=2))
    assert core.bots == {"a", "b"}
    rig = rig_of()
    rig.core = core
    session = rig.session()
    rig.subscribe(session, {"topics": ["entry_fill"], "bots": ["a", "c"]})
    (answer,) = rig.pull(session)
    assert answer["data"]["missing"] == ["c"]
    rig.fill("b", "exit_fill", commit=False)
    with pytest.raises(Exception, match="more than 2 ledger streams"):
        rig.fill("c", commit=False)


def test_a_cursor_below_the_tail_of_a_new_start_is_served_by_reads() -> None:
    rig = rig_of(5)
    rig.core = Core(LogState("e", 0, 5, {("a", "entry_fill"): 5}), "r2", CoreLimits())
    session = resumed(rig, {"epoch": "e", "offset": 3})
    rig.fill()
    assert [told(m) for m in rig.served(session)] == [("reply", 3), 4, 5, 6, ("position", 3, 6, [head(6)])]
