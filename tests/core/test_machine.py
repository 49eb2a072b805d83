"""The fan-out under arbitrary schedules: publishes, commits, subscriptions, stalls, slices, late reads, retention.

The machine drives `Core` and a `MemoryLog` as a node would, but with every step and every delay chosen by hypothesis:
what the log stored may be told late, or be told as a failure; a page read from the log may arrive long after. Receivers
(`tests.core.model`) decode what each session gets and judge every frame.

A long run: `python -m tests.core.test_machine 2000`.
"""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hub.core import engine, requests
from hub.core.engine import Core, CoreLimits
from hub.core.entry import Entry
from hub.core.ledger import Append, Appended, Damaged, Page, Read
from hub.core.session import Session
from hub.core.state import StateKey
from hub.frames.columns import Columns
from hub.log.memory import MemoryLog
from hub.protocol.codec import Wire, encode_body
from hub.protocol.errors import NotDurable, Overloaded
from hub.protocol.messages import FrameKey
from hub.protocol.principal import Principal
from hub.protocol.subscription import Subscription, parse_want
from tests.core.model import CANDLES, STEP_MS, TIMEFRAME, LegacyReceiver, Truth, V2Receiver

BOTS = ("a", "b")
LEDGER = ("entry_fill", "exit_fill")
EVENTS = ("status", "future_type")
PAIRS = ("X/{}", "Y/{}")
LIMITS = {"items": 256, "keys": 1000}
T = TypeVar("T")


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    raise AssertionError("it waited")


class DamagedLog(MemoryLog):
    """A log some of whose records cannot be read any more."""

    def __init__(self, epoch: str, limit_bytes: int) -> None:
        super().__init__(epoch, limit_bytes)
        self.damaged: set[int] = set()

    async def read(self, read: Read) -> Page:
        page = await super().read(read)
        slots = [Damaged(slot.offset) if slot.offset in self.damaged else slot for slot in page.entries]
        return Page(slots, page.floor)


def key_of(bot: str, pair: int) -> FrameKey:
    return FrameKey(PAIRS[pair].format(bot), TIMEFRAME, "spot")


def rows_of(start: int, n: int, seed: int, *, wide: bool) -> Columns:
    dates = (np.arange(start, start + n) * STEP_MS).astype(np.int64)
    data: dict[str, Any] = {"date": dates, "close": dates % 7919 + seed / 3, "tag": [str(seed % 5)] * n}
    if wide:
        data["extra"] = dates / 7
    return Columns.from_mapping(data)


# Small choices, and one that is chosen often: two changes must meet on one key to tell anything.
bots = st.sampled_from(["a", "a", "a", "b"])
pairs_of = st.sampled_from([0, 0, 0, 1])
some_bots = st.sampled_from([None, None, ["a"], ["b"], ["a", "later"]])


@st.composite
def wants(draw: st.DrawFn) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    ledger = draw(st.sampled_from([LEDGER, LEDGER, ("entry_fill",), ()]))
    if ledger:
        ledger = list(ledger)
        items.append({"topics": ledger, "bots": draw(some_bots)})
    if draw(st.sampled_from([True, True, True, False])):
        topics = draw(st.sampled_from([["analyzed_df", "new_candle"], ["analyzed_df"], ["new_candle"]]))
        item: dict[str, Any] = {"topics": topics, "bots": draw(some_bots)}
        item["columns"] = draw(st.sampled_from([None, None, ["close"], ["c*", "extra"]]))
        item["rows"] = draw(st.sampled_from([None, None, 2]))
        item["pairs"] = draw(st.sampled_from([None, None, ["X/a", "Y/b"]]))
        items.append(item)
    others = draw(
        st.lists(st.sampled_from([*EVENTS, "whitelist", "hub.candle_complete"]), unique=True, max_size=4)
    )
    if others:
        items.append({"topics": others, "bots": draw(some_bots)})
    return items


class Machine(RuleBasedStateMachine):
    """See the module's docstring."""

    def __init__(self) -> None:
        super().__init__()
        self.parts, engine.PART_BYTES = (
            engine.PART_BYTES,
            {Wire.MSGPACK: 900, Wire.JSON: 900},
        )
        self.now = 0.0
        self.number = 0
        self.order = 0
        self.waiting: list[Append] = []
        self.stored: list[list[Appended]] = []
        self.reads: list[tuple[Session, Read, Page | None]] = []
        self.receivers: dict[str, V2Receiver | LegacyReceiver] = {}
        self.stalled: set[str] = set()
        self.sent_mids: list[Entry] = []
        self.wants: dict[str, list[dict[str, Any]]] = {}
        self.requests = 0

    @initialize(
        tail=st.sampled_from([3000, 20_000]),
        log=st.sampled_from([12_000, 200_000]),
        rows=st.sampled_from([0, 3, 110]),
        wires=st.lists(st.sampled_from(list(Wire)), min_size=1, max_size=3),
        want=wants(),
    )
    def begin(self, tail: int, log: int, rows: int, wires: list[Wire], want: list[dict[str, Any]]) -> None:
        self.log = DamagedLog("e", log)
        limits = CoreLimits(
            tail_bytes=tail,
            pending_bytes=20_000,
            event_bytes_per_bot=4000,
            cache_bytes=30_000,
            candles=CANDLES,
            slow_bytes=20_000,
        )
        self.core = Core(at_once(self.log.open()), "r", limits)
        self.truth = Truth(self.core, damaged=self.log.damaged)
        if rows:
            self.publish_rows("a", 0, 0, rows, False, False, 1)
        for wire in wires:
            self.connect(wire, "a", want)
        self.settle(rest=True)

    def teardown(self) -> None:
        if hasattr(self, "core"):
            self.settle(rest=True)
        engine.PART_BYTES = self.parts

    # --- publishing

    @rule(bot=bots, topic=st.sampled_from(LEDGER), size=st.sampled_from([10, 100, 1500]), n=st.integers(1, 4))
    def publish(self, bot: str, topic: str, size: int, n: int) -> None:
        for _ in range(n):
            self._publish(bot, topic, size)

    def _publish(self, bot: str, topic: str, size: int) -> None:
        self.number += 1
        data = {"number": self.number, "pad": "x" * size}
        entry = Entry(bot, topic, self.number, encode_body(data), mid=f"m{self.number}", publisher=bot)
        self._accept(entry)

    @precondition(lambda self: self.sent_mids)
    @rule(which=st.integers(0, 10), same=st.booleans())
    def publish_again(self, which: int, same: bool) -> None:
        old = self.sent_mids[-1 - which % len(self.sent_mids)]
        data = old.data if same else old.data | {"number": 0}
        entry = Entry(old.bot, old.topic, old.ts, encode_body(data), mid=old.mid, publisher=old.publisher)
        if (old.publisher, old.mid) in self.log._ids or same:
            self._accept(entry)

    def _accept(self, entry: Entry) -> None:
        before = self.core.pending_bytes
        try:
            self.waiting.append(self.core.accept(entry, None))
        except Overloaded:
            assert before + entry.size > self.core.limits.pending_bytes
            assert self.core.pending_bytes == before
        else:
            self.sent_mids.append(entry)

    @precondition(lambda self: self.waiting)
    @rule(count=st.sampled_from([1, 50]))
    def store(self, count: int) -> None:
        batch, self.waiting = self.waiting[:count], self.waiting[count:]
        results = at_once(self.log.append(batch))
        for result in results:
            entry = result.append.entry
            if result.refused is None and not result.duplicate:
                self.truth.ledger[entry.offset] = (entry.stream, entry.data)
        self.stored.append(results)

    @precondition(lambda self: self.stored)
    @rule(lie=st.integers(0, 5))
    def tell_committed(self, lie: int) -> None:
        results = self.stored.pop(0)
        if lie == 0:
            results = [Appended(r.append, refused=NotDurable("the disk is full")) for r in results]
        self.core.committed(results)

    @rule(count=st.integers(1, 8), bot=bots, topic=st.sampled_from(LEDGER))
    def publish_and_commit(self, count: int, bot: str, topic: str) -> None:
        for _ in range(count):
            self._publish(bot, topic, 100)
        if self.waiting:
            self.store(len(self.waiting))
        while self.stored:
            self.tell_committed(1)

    @rule(bot=bots, topic=st.sampled_from(EVENTS), count=st.sampled_from([1, 1, 2, 8]))
    def publish_event(self, bot: str, topic: str, count: int) -> None:
        for _ in range(count):
            self.order += 1
            data = {"status": "s", "order": self.order, "bot_tag": bot}
            self.truth.events.setdefault((bot, topic), []).append(self.order)
            self.truth.event_data[self.order] = ((bot, topic), data)
            self.core.publish_event(Entry(bot, topic, 1, encode_body(data)))

    @rule(bot=bots, pairs=st.lists(st.sampled_from([0, 1]), unique=True))
    def publish_whitelist(self, bot: str, pairs: list[int]) -> None:
        self.core.publish_value(bot, "whitelist", None, [PAIRS[p].format(bot) for p in pairs], 1)

    @rule(
        bot=bots,
        pair=pairs_of,
        back=st.sampled_from([0, 0, 0, 1, 2, 5, 108, -1]),
        n=st.sampled_from([1, 1, 1, 2, 3, 40, 110]),
        wide=st.sampled_from([False, False, False, False, False, True]),
        replace=st.sampled_from([False, False, False, False, False, True]),
        seed=st.integers(0, 3),
    )
    def publish_rows(
        self, bot: str, pair: int, back: int, n: int, wide: bool, replace: bool, seed: int
    ) -> None:
        key = key_of(bot, pair)
        state_key = StateKey(bot, "analyzed_df", key)
        cell = self.core.cells.get(state_key)
        last = cell.store.last_ms if cell is not None else None
        start = (last // STEP_MS if last is not None else 1000) + 1 - back
        n_rev = self.core.publish_frame(
            bot, key, rows_of(start, n, seed, wide=wide), replace=replace, la_ms=1, ts=1, now=self.now
        )
        self.truth.tables[state_key, n_rev] = self.core.cells[state_key].store.tail()

    @rule(bot=bots, pair=pairs_of, n=st.integers(1, 2), candle=st.booleans())
    def publish_candles(self, bot: str, pair: int, n: int, candle: bool) -> None:
        """As a bot does: a row, and behind it the news of it."""
        for _ in range(n):
            self.publish_rows(bot, pair, 0, 1, False, False, 1)
            if candle:
                self.publish_new_candle(bot, pair)

    @rule(bot=bots, pair=pairs_of)
    def publish_new_candle(self, bot: str, pair: int) -> None:
        key = key_of(bot, pair)
        n = self.core.publish_value(bot, "new_candle", key, [key.pair, key.timeframe, key.candle_type], 1)
        cell = self.core.cells.get(StateKey(bot, "analyzed_df", key))
        self.truth.marked_at[StateKey(bot, "new_candle", key), n] = cell.n if cell is not None else 0

    # --- clients

    @precondition(lambda self: len(self.receivers) < 6)
    @rule(wire=st.sampled_from(list(Wire)), bot=bots, want=wants())
    def connect(self, wire: Wire, bot: str, want: list[dict[str, Any]]) -> None:
        self.requests += 1
        principal = Principal(name="p", legacy_bot=bot)
        session = Session(f"s{self.requests}", principal, wire, "c", self.now)
        self.core.connect(session)
        if wire is Wire.FREQTRADE:
            self.receivers[session.id] = LegacyReceiver(self.truth, session, bot)
        else:
            self.receivers[session.id] = V2Receiver(self.truth, session)
        self._subscribe(self.receivers[session.id], want)

    @precondition(lambda self: self.receivers)
    @rule(who=st.integers(0, 5), want=wants())
    def resubscribe(self, who: int, want: list[dict[str, Any]]) -> None:
        self._subscribe(self._nth(who), want)

    @precondition(lambda self: self.receivers)
    @rule(who=st.integers(0, 5))
    def resubscribe_a_little(self, who: int) -> None:
        """The ledger part comes or goes, the rest stays."""
        receiver = self._nth(who)
        want = self.wants[receiver.session.id]
        stays = [item for item in want if not set(item["topics"]) & set(LEDGER)]
        self._subscribe(receiver, stays if len(stays) < len(want) else [*want, {"topics": ["exit_fill"]}])

    @precondition(lambda self: self.receivers)
    @rule(who=st.integers(0, 5))
    def unsubscribe(self, who: int) -> None:
        receiver = self._nth(who)
        if isinstance(receiver, V2Receiver):
            self._subscribe(receiver, [])

    def _subscribe(
        self,
        receiver: V2Receiver | LegacyReceiver,
        want: list[dict[str, Any]],
        resume: dict[str, Any] | None = None,
    ) -> None:
        session = receiver.session
        self.wants[session.id] = want
        if isinstance(receiver, LegacyReceiver):
            topics = sorted({t for item in want for t in item["topics"]} | {"status"})
            self._legacy(receiver, {"type": "subscribe", "data": topics})
            if session.group is not None:
                assert session.cursor is not None
                position = session.cursor.ledger - 1
                if receiver.subscription is not None:
                    missed = self.truth.wanted(receiver.subscription, receiver.at, position)
                    assert not missed
                receiver.subscription, receiver.at = session.group.subscription, position
                if not receiver.subscription.wants(receiver.bot, "analyzed_df"):
                    receiver.local.clear()
                    receiver.revs.clear()
                    receiver.unhealed.clear()
            if "analyzed_df" in topics:
                self._legacy(receiver, {"type": "analyzed_df", "data": {"limit": 1500, "pair": None}})
            return
        self.requests += 1
        items, _ = parse_want(want)
        new = Subscription(items, session.principal.reads) if items else None
        receiver.asked[self.requests] = new
        receiver.subscribing(new)
        start = "earliest" if self.requests % 3 == 0 else "live"
        message = {
            "type": "subscribe",
            "id": self.requests,
            "data": {"want": want, "from": start, "resume": resume},
        }
        self.core.floor = max(self.core.floor, self.log.floor)
        requests.respond(self.core, session, message, 1, LIMITS)

    def _legacy(self, receiver: LegacyReceiver, message: dict[str, Any]) -> None:
        requests.respond(self.core, receiver.session, message, 1, LIMITS)

    @precondition(lambda self: self.receivers)
    @rule(who=st.integers(0, 5), which=st.integers(0, 7))
    def resync(self, who: int, which: int) -> None:
        session = self._nth(who).session
        keys = [*self.core.cells, *self.core.values, StateKey("a", "analyzed_df", key_of("nobody", 0))]
        taken = [k for k in keys if session.group is not None and session.group.projection(k) is not None]
        if session.wire is not Wire.FREQTRADE and taken:
            key = taken[which % len(taken)]
            exists = key in self.core.cells or key in self.core.values
            assert self.core.resync(session, key) is exists

    @precondition(lambda self: self.receivers)
    @rule(who=st.integers(0, 5))
    def request_frames(self, who: int) -> None:
        receiver = self._nth(who)
        if isinstance(receiver, LegacyReceiver):
            self._legacy(receiver, {"type": "analyzed_df", "data": {"limit": 1500, "pair": None}})

    @precondition(lambda self: self.receivers)
    @rule(who=st.integers(0, 5))
    def request_whitelist(self, who: int) -> None:
        receiver = self._nth(who)
        if isinstance(receiver, LegacyReceiver):
            self._legacy(receiver, {"type": "whitelist", "data": ""})

    @precondition(lambda self: self.receivers)
    @rule(who=st.integers(0, 5), same=st.sampled_from([True, True, False]), want=wants())
    def connect_anew(self, who: int, same: bool, want: list[dict[str, Any]]) -> None:
        """The connection is cut, and the client resumes on a new one."""
        receiver = self._nth(who)
        old = receiver.session
        if not isinstance(receiver, V2Receiver) or receiver.subscription is None:
            return
        receiver.cut()
        want = self.wants[old.id] if same else want
        self.core.disconnect(old)
        del self.receivers[old.id]
        self.stalled.discard(old.id)
        self.requests += 1
        session = Session(f"s{self.requests}", old.principal, old.wire, "c", self.now)
        self.core.connect(session)
        self.receivers[session.id] = receiver
        items, _ = parse_want(want)
        new = Subscription(items, session.principal.reads) if items else None
        self._subscribe(receiver, want, receiver.resume(session, new))

    @precondition(lambda self: self.log.head > self.log.floor)
    @rule(back=st.integers(0, 20))
    def damage(self, back: int) -> None:
        self.log.damaged.add(max(self.log.floor + 1, self.log.head - back))

    @precondition(lambda self: self.receivers)
    @rule(who=st.integers(0, 5))
    def disconnect(self, who: int) -> None:
        self._drop(self._nth(who))

    def _drop(self, receiver: V2Receiver | LegacyReceiver) -> None:
        session = receiver.session
        self.core.disconnect(session)
        self.core.disconnect(session)
        del self.receivers[session.id]
        self.stalled.discard(session.id)

    @precondition(lambda self: self.receivers)
    @rule(who=st.integers(0, 5))
    def stall(self, who: int) -> None:
        session = self._nth(who).session
        self.stalled.add(session.id)
        self.core.fall_behind(session)

    # Two situations that chance alone seldom brings about, and in which most can go wrong.

    @precondition(lambda self: self.receivers)
    @rule(who=st.integers(0, 5), told=st.booleans())
    def fall_far_behind(self, who: int, told: bool) -> None:
        """Until it reads the log, and holds a page of it."""
        receiver = self._nth(who)
        self.core.fall_behind(receiver.session)
        for _ in range(3):
            self.publish_and_commit(4, "a", "entry_fill")
        self._pull(receiver, 1)
        if not told:
            self.publish("a", "exit_fill", 10, 2)
            if self.waiting:
                self.store(len(self.waiting))
        while self.reads:
            self.loaded(0)

    @precondition(lambda self: self.receivers)
    @rule(who=st.integers(0, 5), parts=st.integers(1, 3), more=st.booleans(), again=st.booleans())
    def begin_a_snapshot(self, who: int, parts: int, more: bool, again: bool) -> None:
        """And leave it unfinished, with newer rows behind it."""
        key = StateKey("a", "analyzed_df", key_of("a", 0))
        takers = [r for r in self.receivers.values() if r.session.group and r.session.group.projection(key)]
        if not takers:
            return
        receiver = takers[who % len(takers)]
        session = receiver.session
        self.publish_rows("a", 0, 0, 110, False, True, 2)
        self.core.fall_behind(session)
        if isinstance(receiver, LegacyReceiver):
            self._legacy(receiver, {"type": "analyzed_df", "data": {"limit": 1500, "pair": None}})
        for _ in range(4 + parts):
            if session.id in self.receivers and not self.reads:
                self._pull(receiver, 1)
        if more:
            self.publish_candles("a", 0, 1, True)
        if again and session.id in self.receivers:
            self.resubscribe_a_little(list(self.receivers).index(session.id))

    def _nth(self, who: int) -> V2Receiver | LegacyReceiver:
        return list(self.receivers.values())[who % len(self.receivers)]

    # --- delivery

    @rule(limit=st.sampled_from([1, 500, 100_000]))
    def flush(self, limit: int) -> None:
        dirty, self.core.dirty = self.core.dirty, set()
        for group in sorted(dirty, key=lambda g: (g.wire, repr(g.subscription))):
            frames, more = self.core.collect(group, limit, self.now)
            for session in list(group.hot):
                self.receivers[session.id].take(frames)
            if more:
                self.core.dirty.add(group)

    @precondition(lambda self: self.receivers)
    @rule(who=st.integers(0, 5), limit=st.sampled_from([1, 1, 500, 100_000]), times=st.integers(1, 4))
    def pull(self, who: int, limit: int, times: int) -> None:
        receiver = self._nth(who)
        for _ in range(times):
            if receiver.session.id in self.receivers:
                self._pull(receiver, limit)

    def _pull(self, receiver: V2Receiver | LegacyReceiver, limit: int) -> bool:
        session = receiver.session
        pulled = self.core.pull(session, limit, self.now)
        receiver.take(pulled.frames)
        if pulled.read is not None:
            self.reads.append((session, pulled.read, None))
        if session.closing is not None:
            self._drop(receiver)
            return True
        if isinstance(receiver, LegacyReceiver) and pulled.level:
            for ask in receiver.requests():
                self._legacy(receiver, ask)
        return pulled.level and not session.requests

    @precondition(lambda self: self.reads)
    @rule(which=st.integers(0, 5))
    def read(self, which: int) -> None:
        session, read, page = self.reads[which % len(self.reads)]
        if page is None:
            self.reads[which % len(self.reads)] = (session, read, at_once(self.log.read(read)))

    @precondition(lambda self: self.reads)
    @rule(which=st.integers(0, 5))
    def loaded(self, which: int) -> None:
        session, read, page = self.reads.pop(which % len(self.reads))
        page = page if page is not None else at_once(self.log.read(read))
        self.core.loaded(session, page)
        if session.closing is not None and session.id in self.receivers:
            self._drop(self.receivers[session.id])

    @rule(seconds=st.sampled_from([0.5, 11.0, 40.0]))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        for session in self.core.tick(self.now, 1, 20.0):
            if session.closing is not None and session.id in self.receivers:
                assert session.id in self.stalled or session.cursor is not None
                self._drop(self.receivers[session.id])

    @rule()
    def settle_most(self) -> None:
        self.settle(rest=False)

    def settle(self, rest: bool) -> None:
        """Serve everybody (but the stalled ones, unless `rest`) until nothing is owed; then all must be there."""
        if rest:
            self.stalled.clear()
        for _ in range(400):
            if self._turn():
                break
        else:
            raise AssertionError("it never comes to rest")
        for receiver in self.receivers.values():
            if receiver.session.id not in self.stalled:
                receiver.at_rest()

    def _turn(self) -> bool:
        self.flush(5000)
        quiet = not self.core.dirty
        for receiver in list(self.receivers.values()):
            if receiver.session.id not in self.stalled:
                quiet &= self._pull(receiver, 5000)
        while self.reads:
            self.loaded(0)
            quiet = False
        return quiet

    # --- what always holds

    @invariant()
    def within_bounds(self) -> None:
        if not hasattr(self, "core"):
            return
        core = self.core
        core.check_invariants()
        assert 0 <= core.pending_bytes <= core.limits.pending_bytes
        held = self.waiting + [r.append for batch in self.stored for r in batch]
        assert core.pending_bytes == sum(a.entry.size for a in held)
        assert core.cache.bytes <= core.cache.limit_bytes or len(core.cache._items) == 1
        assert core.state_bytes == sum(c.nbytes for c in [*core.values.values(), *core.cells.values()])
        assert self.log.bytes <= self.log.limit_bytes or self.log.head - self.log.floor == 1
        for session in core.sessions.values():
            assert session.control_bytes == sum(map(len, session.control))
            assert len(session.page) <= 512
        assert set(core.sessions) == set(self.receivers)
        assert {s.id for g in core.groups.values() for s in [*g.hot, *g.stragglers]} <= set(core.sessions)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)

if __name__ == "__main__":
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        Machine, settings=settings(max_examples=int(sys.argv[1]), stateful_step_count=50, deadline=None)
    )
