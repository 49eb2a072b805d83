"""hub.core.calls and hub.core.call_requests: attachments, calls, and every way in which a call ends."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgpack
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hub.core.call_requests import At, respond_call
from hub.core.calls import CallLimits, Calls
from hub.core.session import Session
from hub.protocol.calls import (
    RESULT_BYTES,
    BotRequest,
    BotResult,
    CallResult,
    parse_call,
    parse_paths,
    read_result,
)
from hub.protocol.codec import CODECS, Wire
from hub.protocol.errors import (
    BotUnreachable,
    CallFailed,
    DeadlinePassed,
    Overloaded,
    RequestError,
    TooLarge,
    UnknownRequest,
)
from hub.protocol.principal import EVERY_BOT, Principal
from tests.core.model import decode

STATUS = BotRequest(method="GET", path="/status", principal="user:u")
OK = CallResult(status=200, body=b"[]")
AT = At(0.0, draining=False, control_bytes=1 << 20)
Outcome = CallResult | RequestError


class Rig:
    """Calls with sessions whose control queues the test takes, as a transport does."""

    def __init__(self, **limits: int) -> None:
        self.calls = Calls(CallLimits(**limits))
        self.count = 0
        self.outcomes: dict[object, Outcome] = {}

    def session(self, wire: Wire = Wire.JSON, **rights: Any) -> Session:
        self.count += 1
        rights = rights or {"publishes": EVERY_BOT, "controls": EVERY_BOT}
        return Session(f"s{self.count}", Principal(name="p", **rights), wire, "c", 0.0)

    def bot(self, name: str = "a", paths: object = "*") -> Session:
        session = self.session()
        self.calls.attach(session, name, parse_paths(paths))
        return session

    def ask(self, session: Session, name: str, number: int | None = 1, at: At = AT, **data: Any) -> None:
        respond_call(
            self.calls, session, {"type": name, "data": data} | ({"id": number} if number else {}), at
        )
        self.calls.check_invariants()

    def call(self, owner: object, bot: str = "a", request: BotRequest = STATUS, now: float = 0.0) -> None:
        self.calls.call(owner, bot, request, lambda outcome: self.end(owner, outcome), now)
        self.calls.check_invariants()

    def end(self, owner: object, outcome: Outcome) -> None:
        assert owner not in self.outcomes
        self.outcomes[owner] = outcome

    def result(self, session: Session, number: int, result: CallResult | None = OK, size: int = 100) -> None:
        try:
            self.calls.result(session, BotResult(call=number, result=result, size=size))
        finally:
            self.calls.check_invariants()


def taken(session: Session) -> list[dict[str, Any]]:
    """What the transport takes of a session's control queue."""
    frames = list(session.control)
    session.control.clear()
    session.control_bytes = 0
    return [decode(session.wire, prepared) for prepared in frames]


def told(session: Session) -> list[Any]:
    """What a caller is told, short."""
    return [m.get("data") if m.get("ok") else m["error"]["code"] for m in taken(session)]


def test_a_call_reaches_the_bot_and_its_result_the_caller() -> None:
    rig = Rig()
    bot, caller = rig.session(publishes={"a"}), rig.session(controls={"a"})
    rig.ask(bot, "attach", bot="a")
    assert told(bot) == [{}]
    assert rig.calls.news == [("a", True)]
    rig.ask(
        caller,
        "call",
        7,
        bot="a",
        method="POST",
        path="/forceenter",
        query="x=1",
        body={"pair": "A/B"},
        key="k",
    )
    (message,) = taken(bot)
    assert message == {
        "type": "hub.call",
        "data": {
            "call": 1,
            "method": "POST",
            "path": "/forceenter",
            "query": "x=1",
            "body": {"pair": "A/B"},
            "deadline_ms": 10_000,
            "principal": "p",
            "key": "k",
        },
    }
    assert rig.calls.touched == {bot}
    respond_call(
        rig.calls,
        bot,
        {
            "type": "result",
            "data": read_result(Wire.JSON, '{"type":"result","data":{"call":1,"status":502,"body":[1.50]}}'),
        },
        AT,
    )
    assert told(caller) == [{"status": 502, "body": [1.5]}]
    assert taken(bot) == []
    assert rig.calls.next_deadline is None
    rig.calls.check_invariants()


@pytest.mark.parametrize(
    ("rights", "name", "data", "code"),
    [
        ({"publishes": {"b"}}, "attach", {"bot": "a"}, "forbidden"),
        ({"publishes": {"a"}}, "attach", {"bot": ""}, "bad_request"),
        ({"publishes": {"a"}}, "attach", {"bot": "a", "paths": ["status"]}, "bad_request"),
        ({"publishes": {"a"}}, "attach", {"bot": "a", "paths": "all"}, "bad_request"),
        ({"publishes": EVERY_BOT}, "call", {"bot": "a", "method": "GET", "path": "/x"}, "forbidden"),
        ({"controls": {"a"}}, "call", {"bot": "a", "method": "GET", "path": "x"}, "bad_request"),
        ({"controls": {"a"}}, "call", {"bot": "a", "method": "GET", "path": "/a/../b"}, "bad_request"),
        ({"controls": {"a"}}, "call", {"bot": "a", "method": "GET", "path": "/x?y"}, "bad_request"),
        ({"controls": {"a"}}, "call", {"bot": "a", "method": "get", "path": "/x"}, "bad_request"),
        ({"controls": {"a"}}, "call", {"bot": "a", "method": "GET", "path": "/x", "query": 1}, "bad_request"),
        (
            {"controls": {"a"}},
            "call",
            {"bot": "a", "method": "GET", "path": "/x", "deadline_ms": 0},
            "bad_request",
        ),
        (
            {"controls": {"a"}},
            "call",
            {"bot": "a", "method": "GET", "path": "/x", "deadline_ms": 60_001},
            "bad_request",
        ),
        (
            {"controls": {"a"}},
            "call",
            {"bot": "a", "method": "GET", "path": "/x", "deadline_ms": True},
            "bad_request",
        ),
        ({"controls": {"a"}}, "call", {"bot": "a", "method": "GET", "path": "/x", "key": ""}, "bad_request"),
        ({"controls": {"a"}}, "call", {"bot": "a", "method": "GET", "path": "/x"}, "bot_gone"),
        ({"publishes": {"a"}}, "result", {"call": 1, "status": 200}, "bad_request"),
    ],
)
def test_refusals(rights: dict[str, Any], name: str, data: dict[str, Any], code: str) -> None:
    rig = Rig()
    session = rig.session(**{right: frozenset(bots) for right, bots in rights.items()})
    rig.ask(session, name, **data)
    assert told(session) == [code]
    assert rig.calls.attached() == set()


def test_paths_are_a_filter() -> None:
    rig = Rig()
    bot = rig.bot(paths=["GET /status", "DELETE /trades/{tradeid}"])
    for method, path, taken_ in [
        ("GET", "/status", True),
        ("POST", "/status", False),
        ("GET", "/status/", False),
        ("DELETE", "/trades/7", True),
        ("DELETE", "/trades/7/open-order", False),
        ("DELETE", "/trades", False),
    ]:
        if taken_:
            rig.call((method, path), request=BotRequest(method=method, path=path))
        else:
            with pytest.raises(UnknownRequest, match=f"{method} {path}"):
                rig.call((method, path), request=BotRequest(method=method, path=path))
    rig.calls.attach(bot, "a", parse_paths("*"))
    rig.call("again", request=BotRequest(method="GET", path="/balance"))
    assert bot.closing is None
    assert rig.calls.news == [("a", True)]


def test_a_newer_attachment_replaces_the_old() -> None:
    rig = Rig()
    old = rig.bot()
    rig.call("before")
    taken(old)
    rig.call("unsent")
    new = rig.bot()
    assert old.closing == (4409, "a newer attachment of a took this one's place")
    assert _outcome(rig, "before") == (BotUnreachable, True)
    assert _outcome(rig, "unsent") == (BotUnreachable, False)
    assert rig.calls.attached() == {"a"}
    assert rig.calls.news == [("a", True)]
    rig.call("after")
    assert [m["data"]["call"] for m in taken(new)] == [3]
    rig.calls.gone(old)
    assert rig.calls.attached() == {"a"}
    rig.result(old, 3)
    assert rig.calls.counters["late"] == 1
    rig.result(new, 3)
    assert rig.outcomes["after"] is OK


def _outcome(rig: Rig, owner: object) -> tuple[type, bool]:
    outcome = rig.outcomes[owner]
    assert isinstance(outcome, CallFailed)
    assert outcome.data == ({"outcome": "unknown"} if outcome.sent else None)
    return type(outcome), outcome.sent


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("way", ["deadline", "cancel", "leave", "bot", "stop"])
def test_a_call_ends_and_whether_the_bot_may_have_done_it(way: str, sent: bool) -> None:
    rig = Rig()
    bot, caller = rig.bot(), rig.session()
    rig.ask(caller, "call", 7, bot="a", method="POST", path="/stop", deadline_ms=1500)
    if sent:
        taken(bot)
    if way == "deadline":
        assert rig.calls.next_deadline == 1.5
        rig.calls.tick(1.4999)
        assert taken(caller) == []
        rig.calls.tick(1.5)
    elif way == "cancel":
        rig.ask(caller, "cancel", 8, id=6)
        rig.ask(caller, "cancel", 9, id=7)
    elif way == "leave":
        rig.calls.gone(caller)
    elif way == "bot":
        rig.calls.gone(bot)
    else:
        rig.calls.stop()
    rig.calls.check_invariants()
    code = {"deadline": "deadline", "cancel": "cancelled", "leave": "cancelled"}.get(way, "bot_gone")
    answers = {m["id"]: m for m in taken(caller)}
    error = answers[7]["error"]
    assert (error["code"], error.get("data")) == (code, {"outcome": "unknown"} if sent else None)
    if way == "cancel":
        assert [answers[n]["data"] for n in (8, 9)] == [{"cancelled": False}, {"cancelled": True}]
    notified = taken(bot)
    by_caller = way in ("deadline", "cancel", "leave")
    assert notified == ([{"type": "hub.cancel", "data": {"call": 1}}] if sent and by_caller else [])
    rig.result(bot, 1)
    assert rig.calls.counters["late"] == 1
    assert taken(caller) == []


def test_bounds_per_bot_and_in_all() -> None:
    rig = Rig(in_flight=2, bytes_per_bot=2000, bytes=2500)
    a, b = rig.bot("a"), rig.bot("b")
    large = BotRequest(method="POST", path="/x", body="x" * 1200)
    rig.call(1)
    rig.call(2)
    with pytest.raises(Overloaded, match="2 calls wait"):
        rig.call(3)
    rig.call(4, "b", large)
    with pytest.raises(Overloaded, match="bytes"):
        rig.call(5, "b", large)
    taken(a)
    rig.result(a, 1)
    with pytest.raises(Overloaded, match="bytes"):
        rig.call(6, "a", large)
    taken(b)
    rig.calls.cancel(4)
    rig.call(7, "a", large)
    b.max_message = 1000
    with pytest.raises(TooLarge, match="at most 1000 bytes"):
        rig.call(8, "b", large)
    assert rig.calls.statistics()["refused"] == 4
    for i in range(63):
        rig.calls.attach(a, f"bot{i}", parse_paths("*"))
    with pytest.raises(Overloaded, match="64 bots"):
        rig.calls.attach(a, "one too many", parse_paths("*"))
    assert len(rig.calls.attached()) == 65


def test_results_that_cannot_be_passed_on() -> None:
    rig = Rig()
    bot, caller = rig.bot(), rig.session()
    for number in range(1, 5):
        rig.ask(caller, "call", number, bot="a", method="GET", path="/x")
    rig.ask(caller, "call", 4, bot="a", method="GET", path="/x")
    assert told(caller) == ["bad_request"]
    taken(bot)
    for number, result, size in [(1, OK, RESULT_BYTES + 1), (2, None, 10)]:
        data = BotResult(call=number, result=result, size=size)
        respond_call(rig.calls, bot, {"type": "result", "data": data}, AT)
    assert [m["data"]["code"] for m in taken(bot)] == ["too_large", "bad_request"]
    rig.result(bot, 3, CallResult(status=200, body=b'"%b"' % (b"x" * (1 << 20))))
    caller.control_bytes += AT.control_bytes + 1
    rig.result(bot, 4)
    answers = [(m["id"], m["error"]["code"], m["error"]["data"]) for m in taken(caller)]
    unknown = {"outcome": "unknown"}
    assert answers == [
        (1, "too_large", unknown),
        (2, "bot_gone", unknown),
        (3, "too_large", unknown),
        (4, "overloaded", unknown),
    ]


def test_detach_lets_calls_in_flight_be_answered() -> None:
    rig = Rig()
    bot = rig.bot()
    rig.call(1)
    taken(bot)
    for detached in (True, False):
        rig.ask(bot, "detach", bot="a")
        assert told(bot) == [{"detached": detached}]
    assert rig.calls.news == [("a", True), ("a", False)]
    with pytest.raises(BotUnreachable, match="not attached"):
        rig.call(2)
    rig.result(bot, 1)
    assert rig.outcomes[1] is OK


def test_a_draining_hub_takes_neither() -> None:
    rig = Rig()
    session, at = rig.session(), At(0.0, draining=True, control_bytes=1)
    rig.ask(session, "attach", 1, at, bot="a")
    rig.ask(session, "call", 2, at, bot="a", method="GET", path="/x")
    assert told(session) == ["draining", "draining"]


@pytest.mark.parametrize("wire", [Wire.JSON, Wire.MSGPACK])
@pytest.mark.parametrize("to", [Wire.JSON, Wire.MSGPACK])
def test_a_body_passes_from_wire_to_wire(wire: Wire, to: Wire) -> None:
    rig = Rig()
    bot, caller = rig.bot(), rig.session(to)
    body = {"a": [1, 2.5, None, True, "ü", 2**63], "": {}}
    rig.ask(caller, "call", 1, bot="a", method="GET", path="/x")
    taken(bot)
    payload = CODECS[wire].encode(
        {"type": "result", "data": {"call": 1, "status": 200, "body": body}, "more": 1}
    )
    read = read_result(wire, payload.decode() if CODECS[wire].text else payload)
    assert read is not None
    assert read.size == len(payload)
    respond_call(rig.calls, bot, {"type": "result", "data": read}, AT)
    assert told(caller) == [{"status": 200, "body": body}]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ('{"type":"result","data":{"call":1,"status":200}}', CallResult(status=200, body=b"null")),
        (
            '{"data":{"body": {"a":1.10},"status":404,"call":1},"type":"result"}',
            CallResult(status=404, body=b'{"a":1.10}'),
        ),
        ('{"type":"result","data":{"call":1,"status":99}}', None),
        (msgpack.packb({"type": "result", "data": {"call": 1, "status": 200, "body": b"\x00"}}), None),
        (msgpack.packb({"type": "result", "data": {"call": 1, "status": 200, "body": {1: 2}}}), None),
        (
            msgpack.packb({"type": "result", "data": {"call": 1, "status": 200, "body": "ab"}})[:-2]
            + b"\xff\xfe",
            None,
        ),
    ],
)
def test_read_result(payload: str | bytes, expected: CallResult | None) -> None:
    read = read_result(Wire.JSON if isinstance(payload, str) else Wire.MSGPACK, payload)
    assert read is not None
    assert (read.call, read.result) == (1, expected)


def test_the_body_of_a_result_that_comes_too_late_is_not_looked_at() -> None:
    payload = msgpack.packb({"type": "result", "data": {"call": 1, "status": 200, "body": [1]}})
    read = read_result(Wire.MSGPACK, payload, lambda call: call != 1)
    assert read == BotResult(call=1, result=None, size=len(payload))


@pytest.mark.parametrize(
    "payload",
    [
        '{"type":"result","data":{"call":"1","status":200}}',
        '{"type":"result","data":{"call":1,"status":200,"body":NaN}}',
        '{"type":"result","data":{"call":1,"status":200,"body":' + "[" * 100_000 + "]" * 100_000 + "}}",
        '{"type":"publish","id":1,"data":{}}',
        '{"type":"result"',
        b"\x80",
        b"",
        msgpack.packb({"type": "ping"}),
    ],
)
def test_what_is_no_result_is_left_to_the_codec(payload: str | bytes) -> None:
    for wire in (Wire.JSON, Wire.MSGPACK):
        assert read_result(wire, payload) is None


def test_parse_call_takes_what_is_left_out() -> None:
    bot, request = parse_call({"bot": "a", "method": "GET", "path": "/x", "query": None}, "user:u")
    assert (bot, request) == ("a", BotRequest(method="GET", path="/x", principal="user:u"))


class CallMachine(RuleBasedStateMachine):
    """Any order of attaching, calling, answering, cancelling, leaving and time, against what must hold of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = Calls(CallLimits(in_flight=3, bytes_per_bot=700, bytes=1200))
        self.rig = Rig()
        self.sessions: list[Session] = []
        self.now = 0.0
        self.owners = 0
        self.open: dict[int, tuple[Session, str, float]] = {}
        self.number_of: dict[int, int] = {}
        self.seen: dict[Session, set[int]] = {}
        self.ended: Counter[int] = Counter()

    def live(self) -> list[Session]:
        return [s for s in self.sessions if s.closing is None]

    @rule()
    def connect(self) -> None:
        session = self.rig.session()
        self.sessions.append(session)
        self.seen[session] = set()

    @precondition(lambda self: self.live())
    @rule(data=st.data(), bot=st.sampled_from("ab"))
    def attach(self, data: st.DataObject, bot: str) -> None:
        session = data.draw(st.sampled_from(self.live()))
        self.calls.attach(session, bot, parse_paths("*"))
        assert bot in self.calls.attached()

    @rule(bot=st.sampled_from("ab"), deadline_ms=st.integers(1, 3000), size=st.integers(0, 400))
    def call(self, bot: str, deadline_ms: int, size: int) -> None:
        self.owners += 1
        owner = self.owners
        request = BotRequest(method="GET", path="/x", deadline_ms=deadline_ms, body="x" * size)
        holder = [s for s in self.live() if (bot, s) in self.attachments()]
        try:
            self.calls.call(owner, bot, request, lambda outcome: self.end(owner, outcome), self.now)
        except BotUnreachable:
            assert not holder
            return
        except Overloaded:
            assert holder
            return
        self.open[owner] = (holder[0], bot, self.now + deadline_ms / 1000)
        self.number_of[owner] = self.calls._numbers

    def attachments(self) -> set[tuple[str, Session]]:
        return {(bot, a.session) for bot, a in self.calls._attachments.items()}

    def end(self, owner: int, outcome: Outcome) -> None:
        self.ended[owner] += 1
        session, _, deadline = self.open.pop(owner)
        if isinstance(outcome, CallFailed):
            # What the bot never saw was not done; whether it saw it is what `sent` says.
            assert outcome.sent == (self.number_of[owner] in self.seen[session])
        if isinstance(outcome, DeadlinePassed):
            assert deadline <= self.now

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(self.sessions))
        for message in taken(session):
            number = message["data"]["call"]
            if message["type"] == "hub.call":
                self.seen[session].add(number)
            else:
                assert number in self.seen[session]

    @precondition(lambda self: self.open)
    @rule(data=st.data(), right=st.booleans())
    def answer(self, data: st.DataObject, right: bool) -> None:
        owner = data.draw(st.sampled_from(sorted(self.open)))
        session = self.open[owner][0] if right else data.draw(st.sampled_from(self.sessions))
        number = self.number_of[owner]
        if number in self.seen[session]:
            self.calls.result(session, BotResult(call=number, result=OK, size=1))
            assert owner not in self.open
        elif session is not self.open[owner][0]:
            self.calls.result(session, BotResult(call=number, result=OK, size=1))
            assert owner in self.open

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        owner = data.draw(st.integers(0, self.owners + 1))
        in_flight = owner in self.open
        assert self.calls.cancel(owner) is in_flight

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(self.sessions))
        self.sessions.remove(session)
        self.calls.gone(session)
        assert not any(s is session for s, _, _ in self.open.values())

    @rule(seconds=st.floats(0, 2))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.calls.tick(self.now)

    @invariant()
    def holds(self) -> None:
        self.calls.check_invariants()
        assert all(count == 1 for count in self.ended.values())
        assert self.calls.statistics()["in_flight"] == len(self.open)
        deadlines = [deadline for _, _, deadline in self.open.values()]
        assert all(deadline > self.now for deadline in deadlines)
        assert self.calls.next_deadline == (min(deadlines) if deadlines else None)
        # A replaced session has no call left, and every call is of an attached bot or one that may still answer.
        assert all(session.closing is None for session, _, _ in self.open.values())


CallMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestCallMachine = CallMachine.TestCase
