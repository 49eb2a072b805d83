"""Receivers as the specifications describe them: what a session's frames mean to the client that gets them.

They decode the very bytes that core hands out and know what was published (`Truth`), so they can say of every frame
whether it may come now. A receiver raises AssertionError at the first frame that a correct hub would not have sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson
from msgspec import structs

from hub.core.engine import Core
from hub.core.session import Session
from hub.core.state import StateKey
from hub.frames import freqtrade, v2
from hub.frames.columns import Columns, Schema
from hub.frames.store import CandleStore
from hub.protocol.codec import CODECS, Wire, payload_of
from hub.protocol.messages import DeliveryClass, FrameKey, delivery_class
from hub.protocol.subscription import Subscription

CANDLES = 120
TIMEFRAME = "5m"
STEP_MS = 300_000
FULL_FRAME_ROWS = 100

Stream = tuple[str, str]
Row = tuple[Any, ...]


@dataclass
class Truth:
    """What was published, as the model of a test remembers it."""

    core: Core
    ledger: dict[int, tuple[Stream, Any]] = field(default_factory=dict)
    events: dict[Stream, list[int]] = field(default_factory=dict)
    event_data: dict[int, tuple[Stream, Any]] = field(default_factory=dict)
    tables: dict[tuple[StateKey, int], Columns] = field(default_factory=dict)
    marked_at: dict[tuple[StateKey, int], int] = field(default_factory=dict)
    damaged: set[int] = field(default_factory=set)

    @property
    def head(self) -> int:
        """The last offset that core was told of."""
        return self.core.tail.next - 1

    def wanted(self, subscription: Subscription | None, after: int, upto: int) -> list[int]:
        """Offsets in (after, upto] that the subscription takes."""
        if subscription is None:
            return []
        return [
            o
            for o in range(after + 1, upto + 1)
            if o in self.ledger and subscription.wants(*self.ledger[o][0])
        ]


def decode(wire: Wire, frame: bytes) -> dict[str, Any]:
    """The message in a websocket frame."""
    codec = CODECS[wire]
    assert frame[0] == (0x81 if codec.text else 0x82)
    payload = payload_of(frame)
    return codec.decode(payload.decode() if codec.text else payload)


def frames_of(pieces: Iterable[bytes]) -> list[bytes]:
    """The websocket frames that these pieces consist of."""
    data, frames = b"".join(pieces), []
    while data:
        length, head = data[1], 2
        if length >= 126:
            head = 4 if length == 126 else 10
            length = int.from_bytes(data[2:head])
        frames.append(data[: head + length])
        data = data[head + length :]
    return frames


@dataclass
class _Held:
    """A dataframe key at a v2 receiver."""

    store: CandleStore | None = None
    parts: list[Columns] = field(default_factory=list)
    part_rev: int = 0
    first_ms: int | None = None


class V2Receiver:
    """A client of tradewire.v2: rules 1-4 of wire-v2 §5 and the receiver of §6, with every alarm an error."""

    def __init__(self, truth: Truth, session: Session) -> None:
        self.truth = truth
        self.session = session
        self.subscription: Subscription | None = None
        self.asked: dict[int, Subscription | None] = {}
        self.at = 0
        self.base = 0
        self.last: dict[Stream, int] = {}
        self.events_from: dict[Stream, int] = {}
        self.events_done: dict[str, int] = {}
        self.events_got: dict[str, int] = {}
        self.event_order = 0
        self.schemas: dict[str, Schema] = {}
        self.frames: dict[StateKey, _Held] = {}
        self.values: dict[StateKey, int] = {}
        self.gaps = 0
        self.resumes: int | None = None
        self.repeats_until = 0

    def take(self, frames: list[bytes]) -> None:
        """All of these arrived, in order."""
        for frame in frames_of(frames):
            message = decode(self.session.wire, frame)
            kind = message["type"]
            if "bot" in message:
                self._broadcast(message)
            elif kind == "hub.reply":
                self._reply(message)
            elif kind == "hub.gap":
                self._gap(message)
            elif kind == "hub.position":
                self._position(message)
            elif kind == "hub.dropped":
                self._dropped(message["data"]["topics"])
            elif kind == "hub.schema":
                schema = Schema.from_data(message["data"])
                assert schema.id == message["schema"]
                self.schemas[schema.id] = schema
            else:
                assert kind in ("hub.lagging", "hub.heartbeat", "hub.conflated"), message

    def _broadcast(self, message: dict[str, Any]) -> None:
        bot, topic = message["bot"], message["type"]
        assert self.subscription is not None, message
        assert self.subscription.wants(bot, topic), message
        kind = delivery_class(topic)
        if kind is DeliveryClass.LEDGER:
            self._ledger((bot, topic), message)
        elif topic == "analyzed_df":
            self._rows(StateKey(bot, topic, FrameKey(*message["key"])), message)
        elif topic in ("whitelist", "new_candle"):
            self._value(bot, topic, message)
        elif topic == "hub.candle_complete":
            assert message["data"]["bot"] == bot
        else:
            self._event((bot, topic), message)

    # --- ledger

    def _ledger(self, stream: Stream, message: dict[str, Any]) -> None:
        offset, prev = message["offset"], message["prev"]
        assert offset <= self.truth.head, "sent before its commit was told"
        assert self.truth.ledger[offset] == (stream, message["data"])
        known = max(self.base, self.last.get(stream, 0))
        if offset <= known:
            assert offset <= self.repeats_until, f"repeated {offset}, known {known}"
            self._reach(offset, but=offset)
            return
        assert prev <= known, f"false alarm: prev {prev} > known {known}"
        self._reach(offset, but=offset)
        self.last[stream] = offset

    def _reach(self, offset: int, *, but: int | None = None) -> None:
        assert offset >= self.at, f"back from {self.at} to {offset}"
        missed = [o for o in self.truth.wanted(self.subscription, self.at, offset) if o != but]
        assert not missed, f"lost without a word: {missed}"
        self.at = offset

    def _gap(self, message: dict[str, Any]) -> None:
        assert message["from"] < message["to"]
        if message["reason"] == "damaged":
            assert message["to"] == message["from"] + 1
            assert message["to"] in self.truth.damaged
        else:
            assert message["reason"] == "retention"
        self._reach(message["from"])
        assert self.base >= message["from"], (
            "no position before the gap: a client takes more for lost than is"
        )
        self.at = message["to"]
        self.base = max(self.base, self.at)
        self.gaps += 1

    def _position(self, message: dict[str, Any]) -> None:
        assert self.subscription is not None
        assert message["epoch"] == self.truth.core.epoch
        first, last = message["from"], message["offset"]
        assert first <= last <= self.truth.head
        assert first <= self.base, f"false alarm: from {first} > base {self.base}"
        heads = {(bot, topic): offset for bot, topic, offset in message["heads"]}
        true = {self.truth.ledger[o][0]: o for o in self.truth.wanted(self.subscription, first, last)}
        assert heads == true, f"a false claim: {heads}, not {true}"
        for stream, head in heads.items():
            assert head <= max(self.base, self.last.get(stream, 0)), f"false alarm: head {head} of {stream}"
        self._reach(last)
        self.base = max(self.base, last)

    def _reply(self, message: dict[str, Any]) -> None:
        if message["id"] not in self.asked:
            return
        assert message["ok"], message
        new = self.asked.pop(message["id"])
        offset = message["data"]["offset"]
        if self.subscription is not None:
            self._reach(offset)
        if self.resumes is not None:
            self._resumed(message["data"], self.resumes)
        elif self.subscription is None:
            # A new beginning, perhaps at the floor: what was seen before may come again.
            self.base, self.last = offset, {}
        self.at, self.base = offset, max(self.base, offset)
        self._change(new)

    def _resumed(self, answer: dict[str, Any], base: int) -> None:
        self.resumes = None
        if answer["recovered"]:
            assert answer["offset"] == base
            return
        assert answer["reason"] == "retention"
        assert answer["lost"] == [base + 1, answer["offset"]]
        self.frames.clear()

    # --- a new connection

    def cut(self) -> None:
        """The connection is gone, and with it what was on its way."""
        self.subscribing(None)
        self.subscription_before, self.subscription = self.subscription, None
        self.repeats_until = self.at
        self.asked.clear()
        self.schemas.clear()
        for key, held in list(self.frames.items()):
            held.parts = []
            if held.store is None:
                del self.frames[key]

    subscription_before: Subscription | None = None

    def resume(self, session: Session, new: Subscription | None) -> dict[str, Any]:
        """What it asks on a new connection: its base, and the keys that it holds and wants at the same projection."""
        self.session = session
        self.resumes = self.base
        before = self.subscription_before
        keys: list[list[Any]] = []
        for key in [*self.frames, *self.values]:
            mine = before.projection(key.bot, key.topic, _frame_key(key)) if before is not None else None
            theirs = new.projection(key.bot, key.topic, _frame_key(key)) if new is not None else None
            if mine is None or mine != theirs:
                self.frames.pop(key, None)
                continue
            held = self.frames.get(key)
            n = held.store.rev if held is not None and held.store is not None else self.values[key]
            parts = list(structs.astuple(key.key)) if isinstance(key.key, FrameKey) else []
            keys.append([key.bot, key.topic, parts, "r", n])
        # What it held stays as it is: to the hub it is no new subscription of these keys.
        self.subscription = None
        return {"epoch": "e", "offset": self.base, "keys": keys}

    def _change(self, new: Subscription | None) -> None:
        old, self.subscription = self.subscription or self.subscription_before, new
        self.subscription_before = None
        for key in list(self.frames):
            before = old.projection(key.bot, key.topic, _frame_key(key)) if old is not None else None
            after = new.projection(key.bot, key.topic, _frame_key(key)) if new is not None else None
            if after is None or before != after:
                del self.frames[key]

    # --- events

    def subscribing(self, new: Subscription | None) -> None:
        """The hub is about to take a subscribe: what is newly wanted counts from here, what is given up no longer."""
        group, cursor = self.session.group, self.session.cursor
        old = group.subscription if group is not None else None
        at = cursor or (group.cursor if group is not None else None)
        for stream, published in self.truth.events.items():
            was = old is not None and old.wants(*stream)
            will = new is not None and new.wants(*stream)
            if will and not was:
                self.events_from[stream] = len(published)
            elif was and not will:
                assert at is not None
                consumed = at.events.get(stream, 1) - 1 - self.events_from.pop(stream, 0)
                self.events_done[stream[1]] = self.events_done.get(stream[1], 0) + consumed

    def _event(self, stream: Stream, message: dict[str, Any]) -> None:
        order = message["data"]["order"]
        assert self.truth.event_data[order] == (stream, message["data"])
        assert order > self.event_order, "events out of order, or twice"
        self.event_order = order
        self.events_got[stream[1]] = self.events_got.get(stream[1], 0) + 1

    def _dropped(self, topics: dict[str, int]) -> None:
        for topic, count in topics.items():
            assert count > 0
            self.events_got[topic] = self.events_got.get(topic, 0) + count

    # --- state

    def _value(self, bot: str, topic: str, message: dict[str, Any]) -> None:
        key = StateKey(bot, topic, FrameKey(*message["key"]) if message["key"] else None)
        n = message["rev"][2]
        assert n >= self.values.get(key, 0)
        self.values[key] = n
        if topic != "new_candle":
            return
        assert self.subscription is not None
        rows_key = StateKey(bot, "analyzed_df", key.key)
        if self.subscription.projection(bot, "analyzed_df", _frame_key(key)) is not None:
            needed = self.truth.marked_at[key, n]
            held = self.frames.get(rows_key)
            have = held.store.rev if held is not None and held.store is not None else 0
            assert have >= needed, f"new_candle {n} before its rows: have {have}, needs {needed}"

    def _rows(self, key: StateKey, message: dict[str, Any]) -> None:
        data, (_, prev, n) = message["data"], message["rev"]
        schema = self.schemas.get(data["schema"])
        assert schema is not None, f"schema {data['schema']} before its notice"
        held = self.frames.setdefault(key, _Held())
        kind = "msgpack" if self.session.wire is Wire.MSGPACK else "json"
        if "rows" in data:
            assert not held.parts, "rows between the parts of a snapshot"
            assert held.store is not None, "rows before the snapshot"
            assert prev <= held.store.rev, f"false alarm: prev {prev} > have {held.store.rev}"
            if n > held.store.rev:
                self._upsert(held, v2.from_rows(schema, data["rows"], kind), n)
        else:
            assert prev == 0
            columns = v2.from_columns(schema, data["n"], data["cols"], kind)
            i, of = message["part"]
            if i == 1:
                held.parts, held.part_rev = [], n
            assert (i, n) == (len(held.parts) + 1, held.part_rev)
            held.parts.append(columns)
            if i < of:
                return
            self._replace(held, n)
        self._check(key, held)

    def _upsert(self, held: _Held, rows: Columns, n: int) -> None:
        assert held.store is not None
        # A receiver of only the newest rows leaves out what is older than its first: it has no window there.
        if held.first_ms is not None:
            rows = rows.take(rows.date_ms >= held.first_ms)
        held.store.upsert(rows, rev=n)

    def _replace(self, held: _Held, n: int) -> None:
        held.store = CandleStore(TIMEFRAME, CANDLES)
        held.store.replace(Columns.concat(held.parts), rev=max(n, 1))
        held.store.rev = n
        held.parts = []
        held.first_ms = held.store.first_ms

    def _check(self, key: StateKey, held: _Held) -> None:
        assert held.store is not None
        assert self.subscription is not None
        projection = self.subscription.projection(key.bot, key.topic, _frame_key(key))
        assert projection is not None
        truth = self.truth.tables[key, held.store.rev]
        if projection.columns is not None:
            truth = truth.select(projection.columns)
        mine = held.store.tail()
        if projection.rows is not None and held.first_ms is not None:
            truth = truth.take(truth.date_ms >= held.first_ms)
            mine = mine.take(mine.date_ms >= (truth.date_ms[0] if truth.n else held.first_ms))
        else:
            held.first_ms = None
        assert mine.equals(truth), f"{key} at {held.store.rev}: {mine.date_ms} {truth.date_ms}"

    def at_rest(self) -> None:
        """Nothing more is owed: everything is here."""
        if self.subscription is None:
            return
        missed = self.truth.wanted(self.subscription, self.at, self.truth.head)
        assert not missed, f"never came: {missed}"
        core = self.truth.core
        for key, cell in core.cells.items():
            if self.subscription.projection(key.bot, key.topic, _frame_key(key)) is not None:
                held = self.frames.get(key)
                assert held is not None, f"{key} never came"
                assert held.store is not None
                assert held.store.rev == cell.n, (key, held.store.rev, cell.n)
                assert not held.parts
        for key, value in core.values.items():
            if key.topic in ("whitelist", "new_candle") and (
                self.subscription.projection(key.bot, key.topic, _frame_key(key)) is not None
            ):
                assert self.values.get(key) == value.n, key
        for topic in {t for _, t in self.truth.events}:
            streams = [s for s in self.truth.events if s[1] == topic and self.subscription.wants(*s)]
            published = sum(len(self.truth.events[s]) - self.events_from.get(s, 0) for s in streams)
            due = published + self.events_done.get(topic, 0)
            assert self.events_got.get(topic, 0) == due, (
                f"{topic}: {due} events, not all seen or counted as lost"
            )


class LegacyReceiver:
    """freqtrade's consumer as observed (freqtrade-wire §7, §8): its rules for rows, and the order of fills."""

    def __init__(self, truth: Truth, session: Session, bot: str) -> None:
        self.truth = truth
        self.session = session
        self.bot = bot
        self.subscription: Subscription | None = None
        self.ledger: list[Any] = []
        self.expected: list[Any] = []
        self.event_order = 0
        self.local: dict[FrameKey, list[Row]] = {}
        self.revs: dict[FrameKey, int] = {}
        self.unhealed: dict[FrameKey, int] = {}
        self.asked: set[FrameKey] = set()
        self.at = 0

    def take(self, frames: list[bytes]) -> None:
        """All of these arrived, in order."""
        for frame in frames_of(frames):
            message = decode(Wire.FREQTRADE, frame)
            topic = message["type"]
            if topic == "analyzed_df":
                self._frame(message["data"])
            elif topic == "whitelist":
                assert all(pair.endswith(self.bot) for pair in message["data"]), "two bots mixed"
            elif topic == "new_candle":
                self._new_candle(FrameKey(*message["data"]))
            elif delivery_class(topic) is DeliveryClass.LEDGER:
                self._ledger({k: v for k, v in message.items() if k != "type"}, topic)
            else:
                assert message["bot_tag"] == self.bot, "two bots mixed"
                assert message["order"] > self.event_order
                self.event_order = message["order"]

    def _ledger(self, data: Any, topic: str) -> None:
        offset = data["number"]
        stored = next(o for o in range(self.at + 1, self.truth.head + 1) if self.truth.ledger[o][1] == data)
        assert self.truth.ledger[stored][0] == (self.bot, topic), "two bots mixed"
        missed = set(self.truth.wanted(self.subscription, self.at, stored - 1)) - self.truth.damaged
        assert not missed, f"lost without a word before number {offset}: {missed}"
        self.at = stored

    def _frame(self, data: Any) -> None:
        key = FrameKey(*data["key"])
        columns = freqtrade.decode_split(data["df"]["__value__"])
        if not columns.n:
            return
        assert key.pair.endswith(self.bot), "two bots mixed"
        self.asked.discard(key)
        self.revs[key] = self.truth.core.cells[StateKey(self.bot, "analyzed_df", key)].n
        rows = [_plain(columns.row(i)) for i in range(columns.n)]
        local = self.local.get(key)
        if columns.n >= FULL_FRAME_ROWS:
            self.local[key] = rows
        elif local is None:
            self.unhealed[key] = FULL_FRAME_ROWS
            return
        else:
            missing = (rows[0][0] - local[-1][0]) // STEP_MS
            if missing > 1:
                self.unhealed[key] = missing
                return
            self.local[key] = [row for row in local if row[0] < rows[0][0]] + rows
        self.unhealed.pop(key, None)

    def _new_candle(self, key: FrameKey) -> None:
        assert key.pair.endswith(self.bot), "two bots mixed"
        if self.subscription is None or not self.subscription.wants(self.bot, "analyzed_df"):
            return
        state_key = StateKey(self.bot, "new_candle", key)
        needed = self.truth.marked_at[state_key, self.truth.core.values[state_key].n]
        if key in self.revs:
            assert self.revs[key] >= needed, "new_candle before its rows"

    def requests(self) -> list[dict[str, Any]]:
        """What the consumer asks again now."""
        asks = []
        for key, missing in self.unhealed.items():
            if key in self.asked:
                continue
            self.asked.add(key)
            limit = 1500 if missing >= FULL_FRAME_ROWS else missing + 1
            asks.append({"type": "analyzed_df", "data": {"limit": limit, "pair": key.pair}})
        return asks

    def at_rest(self) -> None:
        """Nothing more is owed: what is here equals the hub's tail."""
        if self.subscription is None:
            return
        missed = set(self.truth.wanted(self.subscription, self.at, self.truth.head)) - self.truth.damaged
        assert not missed, f"never came: {missed}"
        if not self.subscription.wants(self.bot, "analyzed_df"):
            return
        for key, local in self.local.items():
            store = self.truth.core.cells[StateKey(self.bot, "analyzed_df", key)].store
            if key in self.unhealed and store.n < FULL_FRAME_ROWS:
                # Fewer than 100 candles beyond a hole: freqtrade's consumer can never join them.
                continue
            window = store.tail()
            first = store.first_ms
            assert first is not None
            hub = [
                _plain(freqtrade.decode_split(freqtrade.encode_split(window)).row(i)) for i in range(window.n)
            ]
            mine = [row for row in local if row[0] >= first]
            assert mine == hub, (key, [r[0] for r in mine], [r[0] for r in hub])


def _plain(row: list[Any]) -> Row:
    return tuple(orjson.dumps(value) if index else value for index, value in enumerate(row))


def _frame_key(key: StateKey) -> FrameKey | None:
    return key.key if isinstance(key.key, FrameKey) else None
