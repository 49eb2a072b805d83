"""hub.node, with outlets and a clock of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

import hub.node
from hub.core.engine import CoreLimits
from hub.core.intake import PublishOrder
from hub.core.ledger import Append, Appended, Found, Page, Query, Read
from hub.core.session import Session
from hub.delivery import PULLS_A_TURN
from hub.fan_out import FanOut, OutletListener
from hub.limits import NodeLimits
from hub.log.memory import MemoryLog
from hub.node import Node
from hub.protocol.close_codes import CloseCode
from hub.protocol.codec import CODECS, Wire
from hub.protocol.errors import (
    Draining,
    HandshakeRefused,
    IdExpired,
    LedgerBusy,
    LedgerUnreadable,
    NotDurable,
    Overloaded,
)
from hub.protocol.principal import EVERY_BOT, Principal

PUBLISHER = Principal(name="pub", publishes=EVERY_BOT, legacy_bot="a")
BIG = 1 << 30
turn = asyncio.sleep


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def now_ms(self) -> int:
        return int(self.now * 1000)


class FakeOutlet:
    """Accepts until `high` bytes are unsent; the test takes them."""

    def __init__(self, wire: Wire = Wire.JSON, high: int = BIG) -> None:
        self.wire = wire
        self.high = high
        self.writes: list[bytes] = []
        self.buffered = 0
        self.taken = 0
        self.closed: tuple[int, str] | None = None
        self.listener: OutletListener | None = None

    def write(self, data: bytes) -> bool:
        if self.closed is None:
            self.writes.append(data)
            self.buffered += len(data)
        return self.writable

    @property
    def writable(self) -> bool:
        return self.buffered < self.high

    @property
    def unsent_bytes(self) -> int:
        return self.buffered

    @property
    def moves(self) -> int:
        return self.taken

    def close(self, code: int, reason: str) -> None:
        self.closed = self.closed or (int(code), reason)

    def set_fan_out(self, fan_out: FanOut | None) -> None:
        pass

    def set_listener(self, listener: OutletListener) -> None:
        self.listener = listener

    def take(self, *, positions: bool = False) -> list[dict[str, Any]]:
        """All messages so far, positions only when asked for; the transport is empty then."""
        messages = list(_messages(self.wire, b"".join(self.writes)))
        if not positions:
            messages = [message for message in messages if message["type"] != "hub.position"]
        self.writes.clear()
        self.taken += self.buffered
        self.buffered = 0
        if self.listener is not None:
            self.listener.on_writable()
        return messages


def _messages(wire: Wire, data: bytes) -> Any:
    while data:
        size, start = data[1], 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, start = int.from_bytes(data[2:10], "big"), 10
        payload, data = data[start : start + size], data[start + size :]
        yield CODECS[wire].decode(payload.decode() if CODECS[wire].text else payload)


class GatedLog(MemoryLog):
    """A log that commits when it is let, and fails when it is told to."""

    def __init__(self, limit_bytes: int = BIG) -> None:
        super().__init__("e", limit_bytes)
        self.gate = asyncio.Event()
        self.gate.set()
        self.searching = asyncio.Event()
        self.searching.set()
        self.failing: Exception | None = None
        self.closes = 0
        self.stuck = False
        self.batches: list[int] = []

    async def append(self, batch: Sequence[Append]) -> list[Appended]:
        await self.gate.wait()
        if self.failing is not None:
            raise self.failing
        self.batches.append(len(batch))
        return await super().append(batch)

    async def read(self, read: Read) -> Page:
        await self.gate.wait()
        if self.failing is not None:
            raise self.failing
        return await super().read(read)

    async def find(self, query: Query) -> Found:
        await self.searching.wait()
        if self.failing is not None:
            raise self.failing
        return await super().find(query)

    async def close(self) -> None:
        self.closes += 1
        if self.stuck:
            await asyncio.Event().wait()


class Bench:
    """A started node and what the tests do to it."""

    def __init__(self, node: Node, log: GatedLog, clock: FakeClock) -> None:
        self.node = node
        self.log = log
        self.clock = clock
        self.count = 0

    def connect(self, wire: Wire = Wire.JSON, high: int = BIG) -> tuple[Session, FakeOutlet]:
        outlet = FakeOutlet(wire, high)
        return self.node.connect(PUBLISHER, wire, outlet, client="c"), outlet

    async def subscribed(
        self, *topics: str, high: int = BIG, wire: Wire = Wire.JSON
    ) -> tuple[Session, FakeOutlet]:
        session, outlet = self.connect(wire)
        if wire is Wire.FREQTRADE:
            self.node.receive(session, {"type": "subscribe", "data": list(topics)})
        else:
            self.node.receive(
                session, {"type": "subscribe", "id": 1, "data": {"want": [{"topics": list(topics)}]}}
            )
        await settle()
        assert session.hot
        outlet.take()
        outlet.high = high
        return session, outlet

    def item(self, topic: str = "entry_fill", pad: int = 0) -> dict[str, Any]:
        self.count += 1
        data = {"trade_id": self.count, "pair": "x" * pad, "status": f"{self.count}{'x' * pad}"}
        return {"bot": "a", "topic": topic, "mid": f"m{self.count}", "data": data}

    def publish(self, topic: str = "entry_fill", pad: int = 0) -> list[Any]:
        answers: list[Any] = []
        self.node.publish(PUBLISHER, self.item(topic, pad), Wire.JSON, answers.append)
        return answers


async def settle() -> None:
    for _ in range(30):
        await turn(0)


def on_node(
    test: Callable[[Bench], Awaitable[None]],
    *,
    log_bytes: int = BIG,
    core: CoreLimits | None = None,
    **limits: Any,
) -> None:
    async def main() -> None:
        log, clock = GatedLog(log_bytes), FakeClock()
        node = Node(log, NodeLimits(core=core or CoreLimits(), **limits), clock=clock)
        await node.start()
        try:
            await test(Bench(node, log, clock))
        finally:
            log.gate.set()
            await node.stop()
        assert not node._tasks

    asyncio.run(main())


def kinds(messages: list[dict[str, Any]]) -> list[str]:
    return [m["type"] for m in messages]


# --- hot fan-out


def test_one_write_a_turn_for_each_client_however_many_messages() -> None:
    async def test(bench: Bench) -> None:
        clients = [await bench.subscribed("entry_fill", "status") for _ in range(3)]
        for _ in range(50):
            bench.publish("entry_fill")
            bench.publish("status")
        await settle()
        assert bench.log.batches == [50]
        written = [outlet.writes for _, outlet in clients]
        assert [len(w) for w in written] == [1, 1, 1]
        assert written[0][0] is written[1][0] is written[2][0], "the very same bytes"
        assert len(clients[0][1].take()) == 100

    on_node(test)


# --- linger


LINGERING = CoreLimits(linger_s={"status": 500.0, "startup": 100.0})


def test_messages_of_a_topic_that_lingers_go_out_together_when_the_first_is_due() -> None:
    async def test(bench: Bench) -> None:
        _, outlet = await bench.subscribed("status")
        bench.publish("status")
        await settle()
        bench.clock.now += 499
        bench.publish("status")
        await settle()
        assert outlet.writes == []
        bench.clock.now += 1
        bench.node._delivery.flush()
        assert len(outlet.writes) == 1
        assert len(outlet.take()) == 2

    on_node(test, core=LINGERING)


def test_the_shortest_linger_of_what_a_group_is_owed_counts() -> None:
    async def test(bench: Bench) -> None:
        _, outlet = await bench.subscribed("status", "startup")
        bench.publish("status")
        await settle()
        bench.publish("startup")
        await settle()
        bench.clock.now += 100
        bench.node._delivery.flush()
        assert kinds(outlet.take()) == ["status", "startup"]

    on_node(test, core=LINGERING)


def test_a_fill_waits_for_nothing_and_takes_along_what_does() -> None:
    async def test(bench: Bench) -> None:
        _, outlet = await bench.subscribed("status", "entry_fill")
        _, other = await bench.subscribed("status")
        bench.publish("status")
        await settle()
        assert outlet.writes == []
        bench.publish("entry_fill")
        await settle()
        assert kinds(outlet.take()) == ["entry_fill", "status"]
        # Who does not take fills waits on.
        assert other.writes == []
        assert bench.node._delivery.owes_anything()

    on_node(test, core=LINGERING)


def test_nothing_lingers_beyond_what_one_flush_writes() -> None:
    async def test(bench: Bench) -> None:
        _, outlet = await bench.subscribed("exit_fill")
        for _ in range(2):
            bench.publish("exit_fill", pad=60_000)
            await settle()
            assert outlet.writes == []
        bench.publish("exit_fill", pad=60_000)
        await settle()
        assert len(outlet.take()) == 3

    on_node(test, core=CoreLimits(linger_s={"exit_fill": 500.0}))


def test_who_comes_level_with_a_group_that_lingers_ends_its_wait() -> None:
    async def test(bench: Bench) -> None:
        _, quick = await bench.subscribed("status")
        session, slow = await bench.subscribed("status")
        bench.publish("status")
        await settle()
        bench.node.core.fall_behind(session)
        assert quick.writes == []
        bench.node._delivery.drive_soon(bench.node._connections[session.id])
        await settle()
        assert [len(outlet.take()) for outlet in (quick, slow)] == [1, 1]
        await settle()
        assert session.hot

    on_node(test, core=LINGERING)


def test_a_drain_waits_for_no_linger() -> None:
    async def test(bench: Bench) -> None:
        _, outlet = await bench.subscribed("status")
        bench.publish("status")
        await settle()
        await bench.node.drain(0.0)
        assert "status" in kinds(outlet.take())

    on_node(test, core=LINGERING)


def test_a_full_client_falls_behind_alone_and_comes_back() -> None:
    async def test(bench: Bench) -> None:
        _, quick = await bench.subscribed("entry_fill")
        session, slow = await bench.subscribed("entry_fill", high=100)
        for i in range(5):
            bench.publish()
            await settle()
            assert len(quick.take()) == 1, i
        assert not session.hot
        assert len(slow.writes) == 1, "nothing is written to a full transport"
        got: list[Any] = []
        for _ in range(10):
            got += slow.take()
            await settle()
        assert [m["offset"] for m in got] == [1, 2, 3, 4, 5]
        assert session.hot
        bench.publish()
        await settle()
        assert len(slow.take()) == 1

    on_node(test)


def test_a_client_behind_the_tail_reads_the_log() -> None:
    async def test(bench: Bench) -> None:
        session, slow = await bench.subscribed("entry_fill", high=100)
        for _ in range(30):
            bench.publish()
            await settle()
        assert bench.node.core.tail.first > 20
        slow.high = BIG
        got = slow.take()
        await settle()
        got += slow.take()
        assert [m["offset"] for m in got] == list(range(1, 31))
        assert session.hot

    on_node(test, core=CoreLimits(tail_bytes=4000))


def test_a_log_that_cannot_be_read_ends_the_session_that_needs_it(caplog: pytest.LogCaptureFixture) -> None:
    async def test(bench: Bench) -> None:
        session, slow = await bench.subscribed("entry_fill", high=100)
        for _ in range(30):
            bench.publish()
            await settle()
        bench.log.failing = OSError("disk")
        slow.take()
        await settle()
        assert slow.closed is not None
        assert slow.closed[0] == 1011
        assert session.closing is not None

    on_node(test, core=CoreLimits(tail_bytes=4000))
    assert "the log cannot be read" in caplog.text


def test_a_group_that_fails_does_not_take_the_others_with_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(bench: Bench) -> None:
        bad, bad_outlet = await bench.subscribed("status")
        _, good = await bench.subscribed("entry_fill")
        collect = bench.node.core.collect

        def failing(group: Any, *args: Any) -> Any:
            if group is bad.group:
                raise ValueError("boom")
            return collect(group, *args)

        monkeypatch.setattr(bench.node.core, "collect", failing)
        for _ in range(3):
            bench.publish("status")
            bench.publish("entry_fill")
            await settle()
        assert len(good.take()) == 3
        assert bad_outlet.closed is not None
        assert bad_outlet.closed[0] == 1011

    on_node(test)
    assert "a group could not be served" in caplog.text


# --- publishing


def test_nothing_is_acknowledged_or_delivered_before_the_commit() -> None:
    async def test(bench: Bench) -> None:
        _, outlet = await bench.subscribed("entry_fill")
        bench.log.gate.clear()
        answers = bench.publish()
        await settle()
        assert answers == []
        assert outlet.take() == []
        bench.log.gate.set()
        await settle()
        assert answers == [{"epoch": "e", "offset": 1, "duplicate": False}]
        assert [m["offset"] for m in outlet.take()] == [1]

    on_node(test)


def test_a_log_that_fails_is_told_to_the_publisher_and_nothing_is_delivered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(bench: Bench) -> None:
        _, outlet = await bench.subscribed("entry_fill")
        bench.log.failing = OSError("disk full: /secret/path")
        (answer,) = [bench.publish()]
        await settle()
        assert isinstance(answer[0], NotDurable)
        assert answer[0].temporary
        assert answer[0].retry_after_ms
        assert "secret" not in str(answer[0])
        assert outlet.take() == []
        bench.log.failing = None
        again = bench.publish()
        await settle()
        assert again[0]["offset"] == 1
        assert bench.node.core.pending_bytes == 0
        assert bench.node.ready()[1]["ledger"]

    on_node(test)
    assert "not acknowledged" in caplog.text


def test_the_logs_own_words_and_time_reach_the_publisher_and_its_later_messages_wait(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(bench: Bench) -> None:
        order = PublishOrder()
        answers: list[Any] = []

        def publish(item: dict[str, Any]) -> None:
            bench.node.publish(PUBLISHER, item, Wire.JSON, answers.append, order)

        first, second = bench.item(), bench.item()
        bench.log.failing = NotDurable("the disk is full", retry_after_ms=4000)
        publish(first)
        await settle()
        publish(second)
        publish(first)
        await settle()
        assert [type(answer) for answer in answers] == [NotDurable, Overloaded, NotDurable]
        assert (str(answers[0]), answers[0].retry_after_ms) == ("the disk is full", 4000)
        bench.log.failing = None
        publish(first)
        await settle()
        publish(second)
        await settle()
        assert [answer["offset"] for answer in answers[3:]] == [1, 2]

    on_node(test)
    assert not caplog.records, "a log that says why it stores nothing has also logged it"


def test_an_id_that_the_log_has_forgotten_is_refused_for_good_and_holds_up_nothing() -> None:
    async def test(bench: Bench) -> None:
        order = PublishOrder()
        answers: list[Any] = []
        now = bench.clock.now_ms()
        for mid, ts in (("a", now), ("b", now + 5), ("c", now + 9), ("late", now + 3), ("d", now + 10)):
            item = bench.item(pad=200) | {"mid": mid, "ts": ts}
            bench.node.publish(PUBLISHER, item, Wire.JSON, answers.append, order)
            await settle()
        assert isinstance(answers[3], IdExpired)
        assert not answers[3].temporary
        assert [answer["offset"] for answer in answers if isinstance(answer, dict)] == [1, 2, 3, 4]

    on_node(test, log_bytes=2000)


def test_a_resume_is_answered_by_the_floor_of_the_log_as_it_is_now() -> None:
    async def test(bench: Bench) -> None:
        for _ in range(4):
            bench.publish()
        await settle()
        bench.log._drop_oldest()
        bench.log._drop_oldest()
        session, outlet = bench.connect()
        assert outlet.take()[0]["data"]["floor"] == 2
        bench.log._drop_oldest()
        want = {"want": [{"topics": ["entry_fill"]}], "resume": {"epoch": "e", "offset": 1}}
        bench.node.receive(session, {"type": "subscribe", "id": 1, "data": want})
        await settle()
        reply, *rest = outlet.take()
        assert (reply["data"]["reason"], reply["data"]["lost"]) == ("retention", [2, 3])
        assert [m["offset"] for m in rest] == [4]

    on_node(test)


def test_a_callback_that_raises_keeps_nobody_from_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def test(bench: Bench) -> None:
        bench.node.publish(PUBLISHER, bench.item(), Wire.JSON, lambda result: 1 / 0)  # type: ignore[arg-type, return-value]
        other = bench.publish()
        await settle()
        assert other[0]["offset"] == 2
        later = bench.publish()
        await settle()
        assert later[0]["offset"] == 3

    on_node(test)
    assert "callback failed" in caplog.text


def test_publishes_in_flight_are_bounded() -> None:
    async def test(bench: Bench) -> None:
        session, outlet = bench.connect()
        bench.log.gate.clear()
        for i in range(1, 4):
            assert await ready(bench.node, session)
            bench.node.receive(session, {"type": "publish", "id": i, "data": bench.item()})
        assert not await ready(bench.node, session)
        bench.log.gate.set()
        await settle()
        assert await ready(bench.node, session)
        assert [m["id"] for m in outlet.take() if m["type"] == "hub.reply"] == [1, 2, 3]

    on_node(test, publish_in_flight=3)


async def ready(node: Node, session: Session) -> bool:
    task = asyncio.ensure_future(node.readable(session))
    await turn(0)
    await turn(0)
    done = task.done()
    task.cancel()
    return done


def test_replies_that_are_not_read_are_bounded() -> None:
    async def test(bench: Bench) -> None:
        session, outlet = bench.connect(high=1)
        for i in range(1, 50):
            if not await ready(bench.node, session):
                break
            bench.node.receive(session, {"type": "ping", "id": i, "data": {"pad": "x" * 100}})
        assert i < 20
        assert session.control_bytes < 2000
        assert bench.node.statistics()["core"]["control_bytes"] == session.control_bytes
        outlet.take()
        await settle()
        outlet.high = BIG
        outlet.take()
        await settle()
        assert await ready(bench.node, session)

    on_node(test, control_bytes=1000)


def test_frame_requests_that_are_not_read_are_bounded() -> None:
    async def test(bench: Bench) -> None:
        session, outlet = bench.connect(Wire.FREQTRADE, high=1)
        bench.node.receive(session, {"type": "whitelist", "data": ""})
        asked = 0
        while await ready(bench.node, session):
            bench.node.receive(session, {"type": "analyzed_df", "data": {"limit": 5, "pair": f"P{asked}"}})
            asked += 1
        assert asked < 20
        assert bench.node.statistics()["core"]["requests_waiting"] == len(session.requests)
        outlet.high = BIG
        outlet.take()
        await settle()
        assert await ready(bench.node, session)
        assert len(outlet.take()) == asked

    on_node(test, in_flight=8)


def test_a_batch_is_answered_with_a_list_in_its_order() -> None:
    async def test(bench: Bench) -> None:
        session, outlet = bench.connect()
        outlet.take()
        items = [
            bench.item(),
            {"bot": "a", "topic": "status", "data": {}},
            bench.item("status"),
            bench.item(),
        ]
        bench.node.receive(session, {"type": "publish", "id": 1, "data": {"items": items}})
        bench.node.receive(session, {"type": "publish", "id": 2, "data": {"items": []}})
        bench.node.receive(session, {"type": "publish", "id": 3, "data": {"items": [bench.item()] * 300}})
        bench.node.receive(session, {"type": "publish", "id": 4, "data": None})
        await settle()
        replies = {m["id"]: m for m in outlet.take()}
        first = replies[1]["data"]
        assert [first[0]["offset"], first[1]["error"]["code"], first[2], first[3]["offset"]] == [
            1,
            "bad_message",
            {},
            2,
        ]
        assert replies[2]["data"] == []
        assert replies[3]["error"]["code"] == "bad_request"
        assert replies[4]["error"]["code"] == "bad_message"
        assert session.unanswered == 0

    on_node(test)


def test_a_publish_without_an_id_closes_and_a_reader_is_refused() -> None:
    async def test(bench: Bench) -> None:
        session, outlet = bench.connect()
        bench.node.receive(session, {"type": "publish", "data": bench.item()})
        assert outlet.closed is not None
        assert outlet.closed[0] == 4400
        bench.node.receive(session, {"type": "ping", "id": 1})
        reader = FakeOutlet()
        session = bench.node.connect(Principal(name="r"), Wire.JSON, reader, client="c")
        bench.node.receive(session, {"type": "publish", "id": 1, "data": bench.item()})
        await settle()
        assert reader.take()[-1]["error"]["code"] == "forbidden"
        assert bench.log.head == 0

    on_node(test)


def test_too_much_for_the_log_is_refused_for_now() -> None:
    async def test(bench: Bench) -> None:
        bench.log.gate.clear()
        answers = [bench.publish() for _ in range(10)]
        await settle()
        refused = [a for a in answers if a]
        assert refused
        assert all(isinstance(a[0], Overloaded) for a in refused)
        assert bench.node.core.pending_bytes <= 4000
        bench.log.gate.set()
        await settle()
        assert all(len(a) == 1 for a in answers)

    on_node(test, core=CoreLimits(pending_bytes=4000))


def test_a_refused_publish_leaves_no_trace_of_its_bot() -> None:
    async def test(bench: Bench) -> None:
        bench.publish("status")
        for i in range(50):
            item = {"bot": f"b{i}", "topic": "whitelist", "data": []}
            bench.node.publish(PUBLISHER, item, Wire.JSON, lambda result: None)
        assert len(bench.node.last_ms) == 2

    on_node(test, core=CoreLimits(keys=1))


# --- connections


def test_full_and_draining_are_refused_with_503() -> None:
    async def test(bench: Bench) -> None:
        one, _ = bench.connect()
        bench.node.admit(PUBLISHER)
        bench.connect()
        with pytest.raises(HandshakeRefused) as caught:
            bench.node.admit(PUBLISHER)
        assert (caught.value.status, bool(caught.value.retry_after)) == (503, True)
        bench.node.disconnect(one)
        bench.node.admit(PUBLISHER)
        await bench.node.drain(0.0)
        with pytest.raises(HandshakeRefused):
            bench.node.admit(PUBLISHER)

    on_node(test, connections=2)


def test_the_hub_speaks_first_on_v2_and_not_on_freqtrades_wire() -> None:
    async def test(bench: Bench) -> None:
        for wire in (Wire.JSON, Wire.MSGPACK):
            (welcome,) = bench.connect(wire)[1].take()
            assert welcome["type"] == "hub.welcome"
            assert welcome["data"]["limits"]["publish_in_flight"] == 256
        assert bench.connect(Wire.FREQTRADE)[1].take() == []

    on_node(test)


def test_disconnect_in_the_middle_of_everything() -> None:
    async def test(bench: Bench) -> None:
        _, stays = await bench.subscribed("entry_fill")
        session, slow = await bench.subscribed("entry_fill", high=100)
        for _ in range(30):
            bench.publish()
            await settle()
        stays.take()
        bench.log.gate.clear()
        slow.high = BIG
        slow.take()
        await settle()
        assert session.reading
        bench.node.receive(session, {"type": "publish", "id": 9, "data": bench.item()})
        await settle()
        assert slow.listener is not None
        slow.listener.on_lost()
        bench.node.disconnect(session)
        slow.listener.on_writable()
        bench.node.receive(session, {"type": "ping", "id": 10})
        assert await ready(bench.node, session)
        bench.log.gate.set()
        await settle()
        assert len(stays.take()) == 1, "its publish was accepted and is delivered"
        assert bench.node.core.sessions.keys() == set(bench.node._connections)
        assert len(bench.node._connections) == 1
        bench.node.core.check_invariants()

    on_node(test, core=CoreLimits(tail_bytes=4000))


def test_a_client_lost_while_it_is_written_to() -> None:
    async def test(bench: Bench) -> None:
        first, dying = await bench.subscribed("entry_fill")
        _, stays = await bench.subscribed("entry_fill")
        write = dying.write

        def lost(data: bytes) -> bool:
            write(data)
            bench.node.disconnect(first)
            return False

        dying.write = lost  # type: ignore[method-assign]
        bench.publish()
        await settle()
        bench.publish()
        await settle()
        assert len(stays.take()) == 2
        bench.node.core.check_invariants()

    on_node(test)


def test_a_client_on_a_slow_link_makes_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.node, "TICK_S", 0)

    async def test(bench: Bench) -> None:
        session, slow = await bench.subscribed("entry_fill", high=100)
        for _ in range(30):
            bench.publish(pad=200)
            await settle()
        assert not session.hot
        for _ in range(20):
            bench.clock.now += 6
            slow.taken += 1
            await settle()
        assert slow.closed is None
        # What it took since it was last looked at is noticed late, by a look.
        slow.taken += 1
        bench.clock.now += 6
        await settle()
        bench.clock.now += 31
        await settle()
        assert slow.closed is not None
        assert slow.closed[0] == 4508

    on_node(test, core=CoreLimits(slow_bytes=1000, slow_grace_s=30.0))


def test_every_session_hears_something_within_the_heartbeat(turns: list[FakeClock]) -> None:
    async def test(bench: Bench) -> None:
        turns.append(bench.clock)
        _, idle = bench.connect()
        _, subscriber = await bench.subscribed("entry_fill")
        heard = {idle: bench.clock.now, subscriber: bench.clock.now}
        beats, end = 0, bench.clock.now + 210
        while bench.clock.now < end:
            await turn(0)
            for outlet in heard:
                if outlet.take(positions=True):
                    beats += 1
                    heard[outlet] = bench.clock.now
                assert bench.clock.now - heard[outlet] <= 15
        assert 2 * 14 <= beats <= 2 * 16

    on_node(test, heartbeat_ms=15_000)


def test_the_tick_closes_expired_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.node, "TICK_S", 0)

    async def test(bench: Bench) -> None:
        outlet = FakeOutlet()
        principal = Principal(name="p", expires_ms=bench.clock.now_ms() + 1000)
        bench.node.connect(principal, Wire.JSON, outlet, client="c")
        await settle()
        assert outlet.closed is None
        bench.clock.now += 1
        await settle()
        assert outlet.closed is not None
        assert outlet.closed[0] == 4401
        assert bench.node.alive()

    on_node(test)


def test_a_credential_is_renewed_in_a_live_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.node, "TICK_S", 0)
    asked: list[tuple[bytes, str | None]] = []

    async def test(bench: Bench) -> None:
        now_ms = bench.clock.now_ms()
        user = Principal(name="user:u", expires_ms=now_ms + 30_000)
        longer = msgspec.structs.replace(user, expires_ms=now_ms + 900_000)
        known = {b"new": longer, b"other": Principal(name="user:v")}

        def authenticate(token: bytes, address: str | None) -> Principal | None:
            asked.append((token, address))
            if token == b"one too many":
                raise Overloaded("wait", retry_after_ms=3000)
            return known.get(token)

        bench.node.authenticate = authenticate
        outlet = FakeOutlet()
        session = bench.node.connect(user, Wire.JSON, outlet, client="c", address="192.0.2.1")
        await settle()
        assert [m["type"] for m in outlet.take()] == ["hub.welcome", "hub.token_expiring"]
        for number, token in enumerate(("wrong", "other", "one too many", 5, "new"), 1):
            bench.node.receive(session, {"type": "auth", "id": number, "data": {"token": token}})
        *refused, renewed = outlet.take()
        assert [answer["error"]["code"] for answer in refused] == [
            "token_expired",
            "forbidden",
            "overloaded",
            "bad_request",
        ]
        assert (refused[2]["error"]["temporary"], refused[2]["error"]["retry_after_ms"]) == (True, 3000)
        assert renewed["data"] == {"expires_ms": longer.expires_ms}
        bench.clock.now += 30
        await settle()
        assert outlet.closed is None
        bench.clock.now += 870
        await settle()
        assert outlet.closed == (4401, "the credential expired")

    on_node(test)
    assert asked[0] == (b"wrong", "192.0.2.1")


# --- the end


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[FakeClock]:
    """`asyncio.sleep` is one turn of the loop, and moves the clocks in the list."""
    clocks: list[FakeClock] = []

    async def sleep(seconds: float, result: object = None) -> None:
        await turn(0)
        for clock in clocks:
            clock.now += seconds

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return clocks


def test_drain_delivers_what_was_accepted_and_closes_with_1012(turns: list[FakeClock]) -> None:
    async def test(bench: Bench) -> None:
        _, v2 = await bench.subscribed("entry_fill")
        _, legacy = await bench.subscribed("entry_fill", wire=Wire.FREQTRADE)
        answers = bench.publish()
        task = asyncio.ensure_future(bench.node.drain(5.0, reconnect_after_ms=1500))
        await turn(0)
        late = bench.publish()
        assert isinstance(late[0], Draining)
        got = []
        while not task.done():
            await turn(0)
            got += v2.take()
            legacy.buffered = 0
        assert answers[0]["offset"] == 1
        assert kinds(got) == ["hub.drain", "entry_fill"] or kinds(got) == ["entry_fill", "hub.drain"]
        assert kinds(legacy.take()) == ["entry_fill"]
        assert v2.closed == legacy.closed == (1012, "retry_after_ms=1500")

    on_node(test)


def test_a_drain_ends_with_the_position_behind_the_last_message(turns: list[FakeClock]) -> None:
    async def test(bench: Bench) -> None:
        turns.append(bench.clock)
        _, hot = await bench.subscribed("entry_fill")
        _, stuck = await bench.subscribed("entry_fill", high=1)
        _, silent = bench.connect()
        for _ in range(3):
            bench.publish()
            await settle()
        await bench.node.drain(2.0)
        last = hot.take(positions=True)[-1]
        assert (last["type"], last["offset"]) == ("hub.position", 3)
        written = stuck.take(positions=True)
        assert written[-1]["type"] == "hub.position"
        assert written[-1]["offset"] == max(m["offset"] for m in written if "prev" in m)
        assert set(kinds(silent.take(positions=True))) == {"hub.welcome", "hub.heartbeat", "hub.drain"}

    on_node(test)


def test_a_log_that_hangs_keeps_neither_a_drain_nor_a_stop(
    turns: list[FakeClock], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hub.node, "CLOSE_LOG_S", 0.0)

    async def test(bench: Bench) -> None:
        turns.append(bench.clock)
        session, outlet = await bench.subscribed("entry_fill")
        bench.log.gate.clear()
        bench.log.stuck = True
        committing = bench.publish()
        await settle()
        behind = bench.publish()
        before = bench.clock.now
        await bench.node.drain(3.0)
        assert 3.0 <= bench.clock.now - before < 4.0
        for (answer,) in (committing, behind):
            assert isinstance(answer, NotDurable)
            assert "same mid" in str(answer)
        assert session.id in bench.node._connections
        assert outlet.closed is not None
        bench.log.gate.set()
        await settle()
        assert (len(committing), len(behind)) == (1, 1), "nobody is answered twice"
        assert bench.node.core.tail.next == 1, "and nothing is delivered any more"
        await bench.node.stop()
        assert bench.log.closes == 1

    on_node(test)
    assert "the log does not close" in caplog.text


def test_a_task_that_does_not_end_keeps_no_stop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hub.node, "STOP_S", 0.0)

    async def test(bench: Bench) -> None:
        let_go = asyncio.Event()

        async def stubborn(batch: Sequence[Append]) -> list[Appended]:
            while not let_go.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await let_go.wait()
            return []

        monkeypatch.setattr(bench.log, "append", stubborn)
        answers = bench.publish()
        await settle()
        await bench.node.stop()
        assert [type(answer) for answer in answers] == [NotDurable]
        let_go.set()
        await settle()
        assert len(answers) == 1

    on_node(test)
    assert "tradewire-committer does not end" in caplog.text


def test_drain_waits_for_slow_clients_until_its_deadline(turns: list[FakeClock]) -> None:
    async def test(bench: Bench) -> None:
        turns.append(bench.clock)
        _, stuck = await bench.subscribed("entry_fill", high=1)
        bench.publish()
        await settle()
        before = bench.clock.now
        await bench.node.drain(2.0)
        assert bench.clock.now >= before + 2.0
        assert stuck.closed is not None
        assert stuck.closed[0] == 1012

    on_node(test)


def test_stop_answers_who_still_waits_and_is_idempotent() -> None:
    async def test(bench: Bench) -> None:
        _, outlet = await bench.subscribed("entry_fill")
        bench.log.gate.clear()
        committing = bench.publish()
        await settle()
        waiting = bench.publish()
        future = asyncio.ensure_future(bench.node.publish_and_wait(PUBLISHER, bench.item()))
        await turn(0)
        await bench.node.stop()
        await bench.node.stop()
        assert bench.log.closes == 1
        assert isinstance(committing[0], NotDurable)
        assert isinstance(waiting[0], NotDurable)
        with pytest.raises(NotDurable, match="same mid"):
            await future
        assert isinstance(bench.publish()[0], Draining)
        assert outlet.closed is not None

    on_node(test)


def test_a_publish_that_is_cancelled_harms_nobody() -> None:
    async def test(bench: Bench) -> None:
        bench.log.gate.clear()
        task = asyncio.ensure_future(bench.node.publish_and_wait(PUBLISHER, bench.item()))
        await settle()
        task.cancel()
        bench.log.gate.set()
        other = bench.publish()
        await settle()
        assert other[0]["offset"] == 2

    on_node(test)


def test_a_log_that_cannot_be_searched_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async def test(bench: Bench) -> None:
        bench.log.failing = OSError("no such file: /secret/path")
        for _ in range(2):
            with pytest.raises(LedgerUnreadable) as refused:
                await bench.node.find(Query())
            assert "secret" not in str(refused.value)
        assert caplog.text.count("cannot be searched") == 1
        bench.log.failing = None
        assert (await bench.node.find(Query())).head == 0

    on_node(test)


def test_so_many_clients_search_at_once_and_the_hub_itself_besides() -> None:
    async def test(bench: Bench) -> None:
        bench.log.searching.clear()
        node = bench.node
        running = [asyncio.ensure_future(node.search(Query())) for _ in range(2)]
        await settle()
        assert node.statistics()["node"] | {"searches": 2, "searches_limit": 2} == node.statistics()["node"]
        with pytest.raises(LedgerBusy):
            await node.search(Query())
        own = asyncio.ensure_future(node.find(Query()))
        running.pop().cancel()
        await settle()
        running.append(asyncio.ensure_future(node.search(Query())))
        bench.log.searching.set()
        assert [found.head for found in await asyncio.gather(own, *running)] == [0, 0, 0]
        assert node.statistics()["node"]["searches"] == 0

    on_node(test, searches=2)


def test_a_turn_of_the_loop_serves_few_of_those_who_are_behind() -> None:
    async def test(bench: Bench) -> None:
        bench.publish()
        await settle()
        clients = [await bench.subscribed("entry_fill") for _ in range(4 * PULLS_A_TURN)]
        await settle()
        for session, _ in clients:
            bench.node.core.fall_behind(session)
            bench.node._delivery.drive_soon(bench.node._connections[session.id])
        bench.publish()
        pulled: list[Session] = []
        pull = bench.node.core.pull
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bench.node.core, "pull", lambda s, *rest: (pulled.append(s), pull(s, *rest))[1])
            await turn(0)
            assert [s.id for s in pulled] == [s.id for s, _ in clients[:PULLS_A_TURN]]
            await settle()
        assert all([m["offset"] for m in outlet.take() if "mid" in m] == [2] for _, outlet in clients)

    on_node(test)


async def came_back(bench: Bench, count: int) -> list[tuple[Session, FakeOutlet]]:
    """Clients that all resume from the ledger's beginning and wait for its first page: the log is shut."""
    for _ in range(30):
        bench.publish()
    await settle()
    assert bench.node.core.tail.first > 20
    bench.log.gate.clear()
    clients = [bench.connect() for _ in range(count)]
    data = {"want": [{"topics": ["entry_fill"]}], "resume": {"epoch": "e", "offset": 0}}
    for session, _ in clients:
        bench.node.receive(session, {"type": "subscribe", "id": 1, "data": data})
    await settle()
    assert all(session.reading for session, _ in clients)
    return clients


def missed(outlet: FakeOutlet) -> list[int]:
    return [m["offset"] for m in outlet.take() if "mid" in m]


def test_those_who_come_back_together_read_the_log_once_and_are_served_in_turns() -> None:
    async def test(bench: Bench) -> None:
        clients = await came_back(bench, 3 * PULLS_A_TURN)
        assert bench.node.statistics()["pages"]["reads"] == 1
        most = 0
        pull = bench.node.core.pull
        pulled: list[Session] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bench.node.core, "pull", lambda s, *rest: (pulled.append(s), pull(s, *rest))[1])
            bench.log.gate.set()
            for _ in range(30):
                before = len(pulled)
                await turn(0)
                most = max(most, len(pulled) - before)
        assert 0 < most <= PULLS_A_TURN
        assert [missed(outlet) for _, outlet in clients] == [list(range(1, 31))] * len(clients)
        late, outlet = bench.connect()
        data = {"want": [{"topics": ["entry_fill"]}], "resume": {"epoch": "e", "offset": 3}}
        bench.node.receive(late, {"type": "subscribe", "id": 1, "data": data})
        await settle()
        assert missed(outlet) == list(range(4, 31))
        assert bench.node.statistics()["pages"]["reads"] == 1
        bench.node.core.check_invariants()

    on_node(test, core=CoreLimits(tail_bytes=4000))


def test_who_goes_away_while_a_page_is_read_harms_nobody() -> None:
    async def test(bench: Bench) -> None:
        (first, _), (_, stays), (last, _) = await came_back(bench, 3)
        bench.node.disconnect(first)
        bench.node.disconnect(last)
        await settle()
        bench.log.gate.set()
        await settle()
        assert missed(stays) == list(range(1, 31))
        assert bench.node.statistics()["pages"]["reads"] == 1

    on_node(test, core=CoreLimits(tail_bytes=4000))


def test_a_session_that_is_closed_while_it_is_behind_does_not_keep_the_loop_busy() -> None:
    async def test(bench: Bench) -> None:
        ((session, outlet),) = await came_back(bench, 1)
        bench.log.gate.set()
        session.close(CloseCode.SLOW_CONSUMER, "slow")
        await settle()
        pulled = []
        with pytest.MonkeyPatch.context() as patch:
            pull = bench.node.core.pull
            patch.setattr(bench.node.core, "pull", lambda s, *rest: (pulled.append(s), pull(s, *rest))[1])
            await settle()
        assert outlet.closed is not None
        assert not pulled

    on_node(test, core=CoreLimits(tail_bytes=4000))


def test_pages_that_nobody_asks_for_leave_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.node, "TICK_S", 0)

    async def test(bench: Bench) -> None:
        await came_back(bench, 1)
        bench.log.gate.set()
        await settle()
        assert bench.node.statistics()["pages"]["bytes"] > 0
        bench.clock.now += 60.0
        await settle()
        assert bench.node.statistics()["pages"]["bytes"] == 0

    on_node(test, core=CoreLimits(tail_bytes=4000))


def test_statistics_and_readiness() -> None:
    async def test(bench: Bench) -> None:
        figures = bench.node.statistics()
        assert set(figures) >= {"core", "log", "intake", "node"}
        assert bench.node.ready()[0]

    on_node(test)
