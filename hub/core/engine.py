"""The fan-out: what a publish changes, and what each session is owed.

Theory of operation
===================
A published message goes to one of three places, by its delivery class: the *ledger* (one totally ordered log; core keeps its
tail), an *event ring* (one per bot and topic), or a *state cell* (one per bot, topic and key). Nothing is copied per client:
the log is the queue, a subscriber is a cursor into these places (`Cursor`).

Sessions of one wire with an equal subscription form a *group*. Those that keep up are *hot*: they share the group's cursor, and
`collect` makes the frames for all of them at once. A session whose transport stops accepting *falls behind*: it gets a copy of
the cursor and becomes a *straggler*, which the node serves alone with `pull`, at the client's pace. When its cursor has
reached the group's place it is *level* and hot again. (`moved` are those who became hot or ceased to be; the node looks there.)
So a publish costs nothing per hot session, and a slow client costs the others
nothing: its ledger lag is a number, its state lag at most one mark per key (rows merge in the cell), its event lag is bounded
by the ring and counted. Groups that stand at the same place share what is joined for them (hub.core.runs).

Ledger messages have two phases. `accept` validates and returns an `Append` effect; the node gives it to the log; `committed`
brings the result, and only then is the message delivered and acknowledged. A cursor below the tail yields a `Read` effect,
which the node answers through `loaded`; replay and live join here and nowhere else, by the one cursor. What a cursor passed is
claimed in `hub.position`, so that a client finds every hole and resumes with one number (hub.core.positions).

All methods are synchronous and do no I/O. The node calls them from one thread; between two calls every invariant holds.

Invariants (checked by `check_invariants`)
==========================================
1. A session is in exactly one place: nowhere (no subscription), `group.hot` (cursor is None), or `group.stragglers`.
2. No cursor is beyond the tail's next offset. A group whose hot sessions are owed something is not `level`, and dirty.
   A cursor's heads lie in (claimed, ledger).
3. `due` holds only keys that the subscription takes, and a revision that the receiver really holds (or None).
4. A marker (new_candle, hub.candle_complete) stands in `due` behind the rows of its key that were published before it.
5. A message is appended to the tail exactly once, in the order of its offset.
6. Groups without sessions do not exist.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hub.core import notices, positions
from hub.core.candles import CandleClock
from hub.core.deflate import Deflater
from hub.core.entry import Entry
from hub.core.events import Events
from hub.core.ledger import Append, Appended, LogState, Page, Read, Tail
from hub.core.ledger_lane import LedgerLane
from hub.core.page_runs import LIMIT_BYTES
from hub.core.runs import KEPT_BYTES
from hub.core.session import Cursor, FrameRequest, Group, GroupKey, Session, Stream
from hub.core.state import FrameCache, FrameCell, Parts, StateKey, ValueCell, legacy_frame
from hub.frames.columns import Columns
from hub.frames.timeframe import MAX_DATE_MS, MIN_DATE_MS
from hub.protocol.close_codes import CloseCode
from hub.protocol.codec import Wire, encode_body, frame_of
from hub.protocol.errors import BadFrame, Forbidden, Overloaded, PublishRefused, TooLarge
from hub.protocol.messages import FrameKey
from hub.protocol.principal import Principal
from hub.protocol.subscription import HUB_TOPICS, LINEAGE, Projection, Resume, Subscription

__all__ = ["Core", "CoreLimits", "Pulled"]

LEDGER_MESSAGE_BYTES = 256 * 1024
PART_BYTES = {Wire.MSGPACK: 256 * 1024, Wire.JSON: 256 * 1024}
SCHEMAS_TOLD = 1024
"""Schemas that are remembered as told to a session; more are told again."""
EXPIRING_MS = 60_000
SNAPSHOT_IDLE_S = 10.0
FAIR_SHARE = 4
"""A bot may take this many times what is left free (of keys, of bytes): one alone gets four fifths, and others find room."""
_MARKERS = frozenset({"new_candle"}) | HUB_TOPICS
_EMPTY_SPLIT = '{"columns":[],"index":[],"data":[]}'


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreLimits:
    """The bounds of core's buffers, in bytes unless named otherwise."""

    tail_bytes: int = 16 << 20
    pending_bytes: int = 16 << 20
    event_bytes_per_bot: int = 1 << 20
    event_topics_per_bot: int = 64
    state_bytes: int = 512 << 20
    cache_bytes: int = 64 << 20
    deflate_min_bytes: int = 1024
    deflated_bytes: int = 16 << 20
    held_bytes: int = 128 << 20
    candles: int = 1500
    keys: int = 10_000
    streams: int = 4096
    slow_bytes: int = 8 << 20
    slow_grace_s: float = 30.0
    candle_deadline_s: float = 10.0
    linger_s: Mapping[str, float] = field(default_factory=dict)
    """How long messages of a topic may wait for others to go out with; a topic that is not named: not at all."""


@dataclass(slots=True)
class Traffic:
    """Of one topic since the start: messages, bytes of payload, and the last number."""

    messages: int = 0
    bytes: int = 0
    last: int = 0


@dataclass(frozen=True, slots=True)
class Pulled:
    """Frames for one session, in order; a read to do first, if any; whether it owes nothing more and is hot again."""

    frames: list[bytes]
    read: Read | None
    level: bool


class Core:
    """One node's engine. `now` is monotonic seconds; `*_ms` are ms since 1970 UTC."""

    def __init__(self, log: LogState, rev_epoch: str, limits: CoreLimits) -> None:
        self.limits = limits
        self.epoch = log.epoch
        self.lineage = log.lineage
        self.floor = log.floor
        self.rev_epoch = rev_epoch
        self.tail = Tail(log, limits.tail_bytes)
        self.events = Events(limits.event_bytes_per_bot)
        self.cache = FrameCache(limits.cache_bytes)
        self.deflater = Deflater(limits.deflate_min_bytes, limits.deflated_bytes)
        self.values: dict[StateKey, ValueCell] = {}
        self.cells: dict[StateKey, FrameCell] = {}
        self.candles = CandleClock(limits.candle_deadline_s)
        self.groups: dict[GroupKey, Group] = {}
        self.sessions: dict[str, Session] = {}
        self.dirty: set[Group] = set()
        self.moved: set[Session] = set()
        self.pending_bytes = 0
        self.state_bytes = 0
        self._keys_of: Counter[str] = Counter()
        self._bytes_of: Counter[str] = Counter()
        self.counters: dict[str, int] = dict.fromkeys(
            ("published", "refused", "conflated", "dropped", "gaps", "abandoned", "positions"), 0
        )
        self.traffic: dict[Stream, Traffic] = {}
        self.lane = LedgerLane(self.tail, self.deflater, self.counters)
        self._takers: dict[Stream, tuple[Group, ...]] = {}

    # --- publishing

    def accept(self, entry: Entry, token: object) -> Append:
        """Begin to publish a ledger message; nothing is delivered before `committed`.

        Raises:
            TooLarge: above 256 KiB. Overloaded: too much waits for the log.
        """
        if len(entry.body) > LEDGER_MESSAGE_BYTES:
            raise TooLarge(
                f"{entry.topic}: expected at most {LEDGER_MESSAGE_BYTES} bytes, got {len(entry.body)}"
            )
        if entry.stream not in self.tail.streams and len(self.tail.streams) >= self.limits.streams:
            raise Overloaded(f"more than {self.limits.streams} ledger streams")
        if self.pending_bytes + entry.size > self.limits.pending_bytes:
            raise Overloaded("too many messages wait for the log", retry_after_ms=1000)
        self.pending_bytes += entry.size
        return Append(entry, token)

    def committed(self, results: Iterable[Appended]) -> None:
        """The log is done with these appends, in order: what is new is delivered from now on."""
        firsts: dict[Stream, int] = {}
        for result in results:
            entry = result.append.entry
            self.pending_bytes -= entry.size
            if result.refused is not None:
                continue
            upto = result.offset if result.duplicate else entry.offset - 1
            if upto >= self.tail.next:
                self._touch_takers(firsts)
                self._reach(upto)
            if not result.duplicate:
                self.tail.append(entry)
                self._count(entry.stream, len(entry.body), entry.offset)
                firsts.setdefault(entry.stream, entry.offset)
        self._touch_takers(firsts)

    def _count(self, stream: Stream, size: int, last: int = 0) -> None:
        self.counters["published"] += 1
        traffic = self.traffic.get(stream)
        if traffic is None:
            traffic = self.traffic[stream] = Traffic()
        traffic.messages += 1
        traffic.bytes += size
        traffic.last = last

    def _touch_takers(self, firsts: dict[Stream, int]) -> None:
        """Who takes these streams is owed something, of each from its offset on; in the order of the offsets. Empties it."""
        for stream, offset in firsts.items():
            self._touch(self.groups_of(stream), offset, stream[1])
        firsts.clear()

    def _reach(self, offset: int) -> None:
        """All up to `offset` is in the log. What a log stored but reported as failed is delivered from there."""
        self._touch(self.groups.values(), self.tail.next)
        self.tail.jump(offset + 1)

    def _touch(self, groups: Collection[Group], offset: int, topic: str | None = None) -> None:
        """These groups are owed something again: of this topic, and of the ledger from `offset` on."""
        # Of many groups each message touches all: nothing else is done to those that it touched before.
        self.dirty.update(groups)
        linger_s = self.limits.linger_s.get(topic, 0.0) if topic is not None else 0.0
        for group in groups:
            if group.level:
                group.level = False
                group.cursor.ledger = offset
                group.linger_s = linger_s
            elif linger_s < group.linger_s:
                group.linger_s = linger_s

    def _cursor_of(self, group: Group) -> Cursor:
        """The cursor of the hot sessions, brought to the tail where nothing is owed."""
        if group.level:
            group.cursor.ledger = self.tail.next
        return group.cursor

    def publish_event(self, entry: Entry) -> None:
        """Publish an event: best effort, counted.

        Raises:
            Overloaded: too many topics. TooLarge: above 256 KiB.
        """
        if entry.stream not in self.events.rings:
            if len(self.events.rings) >= self.limits.streams:
                raise Overloaded(f"more than {self.limits.streams} event topics")
            if self.events.topics_of(entry.bot) >= self.limits.event_topics_per_bot:
                raise Overloaded(f"more than {self.limits.event_topics_per_bot} event topics of one bot")
        if len(entry.body) > LEDGER_MESSAGE_BYTES:
            raise TooLarge(
                f"{entry.topic}: expected at most {LEDGER_MESSAGE_BYTES} bytes, got {len(entry.body)}"
            )
        self.events.append(entry)
        self._count(entry.stream, len(entry.body), self.events.rings[entry.stream].next - 1)
        self._touch(self.groups_of(entry.stream), self.tail.next, entry.topic)

    def publish_value(self, bot: str, topic: str, key: FrameKey | None, data: Any, ts: int) -> int:
        """Publish the newest value of a state key (whitelist, new_candle); returns its revision.

        Raises:
            Overloaded: too many keys. BadMessage: the value cannot be encoded. TooLarge: above 256 KiB.
        """
        rev = self._set_value(StateKey(bot, topic, key), data, ts)
        if topic == "whitelist":
            for timeframe, complete in self.candles.whitelist(bot, data):
                self._complete(bot, timeframe, complete, ts)
        return rev

    def _set_value(self, key: StateKey, data: Any, ts: int) -> int:
        body = encode_body(data)
        if len(body) > LEDGER_MESSAGE_BYTES:
            raise TooLarge(f"{key.topic}: expected at most {LEDGER_MESSAGE_BYTES} bytes, got {len(body)}")
        cell = self.values.get(key)
        if cell is None:
            self._room_for_key(key.bot)
            cell = self.values[key] = ValueCell(key, self.rev_epoch)
            self._keys_of[key.bot] += 1
        if key.topic == "whitelist" and cell.n and cell.data == data:
            return cell.n
        growth = cell.nbytes_of(body) - cell.nbytes
        if cell.n and growth > 0:
            self._room_for_rows(key.bot, growth)
        before = cell.nbytes if cell.n else 0
        cell.set(data, ts)
        self._grown(key.bot, cell.nbytes - before)
        self._count((key.bot, key.topic), len(body))
        self._mark(key, cell.n - 1 or None)
        return cell.n

    def publish_frame(
        self, bot: str, key: FrameKey, rows: Columns, *, replace: bool, la_ms: int, ts: int, now: float
    ) -> int:
        """Publish rows of a dataframe key, or its whole window; returns its revision.

        Raises:
            BadFrame: nothing changed; the text names the row or column. Overloaded: too many keys, or frames too large in all.
        """
        if not MIN_DATE_MS <= la_ms <= MAX_DATE_MS:
            raise BadFrame("la_ms: expected a time of the years 1 to 9999 in ms since 1970")
        state_key = StateKey(bot, "analyzed_df", key)
        cell = self.cells.get(state_key)
        is_new = cell is None
        if cell is None:
            self._room_for_key(bot)
            cell = FrameCell(state_key, self.rev_epoch, capacity=self.limits.candles, cache=self.cache)
        elif growth := self._growth(cell, rows):
            self._room_for_rows(bot, growth)
        before, have = cell.nbytes, cell.n
        change = cell.apply(rows, replace=replace, la_ms=la_ms, ts=ts)
        if is_new:
            self.cells[state_key] = cell
            self._keys_of[bot] += 1
            before = 0
        self._grown(bot, cell.nbytes - before)
        if change.unchanged:
            return cell.n
        self._count((bot, "analyzed_df"), rows.nbytes)
        self._mark(state_key, None if is_new or cell.needs_snapshot(have) else have)
        # Of several candles the newest is told, as a value that is set several times at once is.
        for complete in self.candles.rows(bot, key.pair, key.timeframe, rows.date_ms.tolist(), now)[-1:]:
            self._complete(bot, key.timeframe, complete, ts)
        return cell.n

    def _complete(self, bot: str, timeframe: str, data: dict[str, Any], ts: int) -> None:
        """The hub's own word on a candle. No room for it is nobody's error: the rows themselves were taken."""
        try:
            self._set_value(StateKey(bot, "hub.candle_complete", timeframe), data, ts)
        except PublishRefused:
            self.counters["refused"] += 1

    def _room_for_key(self, bot: str) -> None:
        free = self.limits.keys - len(self.values) - len(self.cells)
        if free <= 0:
            raise Overloaded(f"more than {self.limits.keys} state keys")
        if self._keys_of[bot] >= FAIR_SHARE * free:
            raise Overloaded(
                f"{bot!r} has {self._keys_of[bot]} state keys; the {free} that are left are for others"
            )
        self._room_for_rows(bot, 0)

    def _grown(self, bot: str, size: int) -> None:
        self.state_bytes += size
        self._bytes_of[bot] += size

    def _growth(self, cell: FrameCell, rows: Columns) -> int:
        """What these rows may add to a key, in bytes: nothing where they push as many out of a full window."""
        schema = cell.store.schema
        wider = max(0, rows.schema.row_bytes - schema.row_bytes) if schema is not None else 0
        return wider * 2 * self.limits.candles + (rows.nbytes if cell.store.n < self.limits.candles else 0)

    def _room_for_rows(self, bot: str, size: int) -> None:
        free = self.limits.state_bytes - self.state_bytes - size
        if free < 0:
            raise Overloaded(f"frames take more than {self.limits.state_bytes} bytes")
        if self._bytes_of[bot] + size > FAIR_SHARE * free:
            raise Overloaded(
                f"frames of {bot!r} take {self._bytes_of[bot]} bytes; the {free} that are left are for others"
            )

    def _mark(self, key: StateKey, have: int | None) -> None:
        marker = key.topic in _MARKERS
        for group in self.groups_of((key.bot, key.topic)):
            if group.projection(key) is None:
                continue
            self._touch((group,), self.tail.next, key.topic)
            if group.hot:
                _owe(group.cursor, key, have, marker=marker)
            for session in group.stragglers:
                assert session.cursor is not None
                if _owe(session.cursor, key, have, marker=marker):
                    session.merged += 1
                    session.conflated.add(key)
                    self.counters["conflated"] += 1

    def groups_of(self, stream: Stream) -> tuple[Group, ...]:
        """The groups that take a stream."""
        takers = self._takers.get(stream)
        if takers is None:
            if len(self._takers) > 4 * self.limits.keys:
                self._takers.clear()
            takers = self._takers[stream] = tuple(g for g in self.groups.values() if g.wants(stream))
        return takers

    # --- sessions

    def connect(self, session: Session) -> None:
        """A session begins; nothing is owed to it before it subscribes."""
        self.sessions[session.id] = session

    def disconnect(self, session: Session) -> None:
        """A session ends. Idempotent."""
        self.sessions.pop(session.id, None)
        session.requests.clear()
        self._leave(session)
        self.moved.discard(session)

    def subscribe(
        self,
        session: Session,
        subscription: Subscription,
        *,
        snapshots: bool,
        resume: Resume | None = None,
        earliest: bool = False,
    ) -> positions.Start:
        """Replace what a session wants, at its own cursor: what stays is not interrupted, what is new starts.

        What the old subscription owed up to there is claimed first. With `snapshots` every newly wanted state key is owed
        whole, or its change since the revision in `resume`; freqtrade's wire gets changes only. Where a session without
        a subscription begins, `resume` and `earliest` (the floor, not the head) say; `self.floor` is to be current.
        """
        old = session.group
        if old is None:
            head = self.tail.next - 1
            began = positions.start(
                self.epoch,
                min(self.floor, head),
                head,
                resume,
                earliest=earliest,
                lineage=self.lineage if LINEAGE in session.features else (),
            )
            cursor = Cursor(began.offset + 1, replays=began.offset < head)
        else:
            cursor = session.cursor or self._cursor_of(old).copy()
            self.lane.tell_claim(session, cursor)
            began = positions.Start(cursor.ledger - 1)
        self._leave(session)
        if not subscription.items:
            session.page = ()
            return began
        key = (session.wire, session.deflates, subscription)
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group(key, Cursor(self.tail.next))
            self._forward(group)
            self._takers.clear()
        session.group, session.cursor = group, cursor
        group.stragglers.add(session)
        self._carry_over(cursor, old, group, snapshots=snapshots)
        if resume is not None and began.recovered:
            self._take_held(session, cursor, resume)
        return began

    def _take_held(self, session: Session, cursor: Cursor, resume: Resume) -> None:
        """Of keys that the client holds it is owed the change, led by the schema, which it has not heard on this connection."""
        for key in cursor.due:
            rev_epoch, n = resume.keys.get(key, ("", 0))
            cell = self.cells.get(key) or self.values[key]
            if rev_epoch == cell.rev_epoch and 0 < n <= cell.n:
                cursor.due[key] = n
                session.untold.add(key)

    def _carry_over(self, cursor: Cursor, old: Group | None, new: Group, *, snapshots: bool) -> None:
        due = cursor.due
        if cursor.sending is not None:
            # Parts of a snapshot were sent, not all: the receiver holds nothing, whatever became due behind it.
            first: dict[StateKey, int | None] = {cursor.sending[0]: None}
            due = first | due | first
            cursor.sending = None
        cursor.due = {}
        cursor.events_seen = -1
        for key in [*self.values, *self.cells]:
            projection = new.projection(key)
            if projection is None:
                continue
            stays = old is not None and old.projection(key) == projection
            if stays and key in due:
                cursor.due[key] = due[key]
            elif not stays and snapshots:
                cursor.due[key] = None
        _markers_last(cursor)
        for stream, ring in new.rings(self.events):
            if not (old is not None and old.wants(stream)):
                cursor.events[stream] = ring.next

    def _leave(self, session: Session) -> None:
        group, session.group, session.cursor = session.group, None, None
        if group is None:
            return
        self._cool(group, session)
        group.stragglers.discard(session)
        if not group.hot and not group.stragglers:
            del self.groups[group.key]
            self.dirty.discard(group)
            self._takers.clear()

    def fall_behind(self, session: Session) -> None:
        """A hot session's transport stopped accepting: from here on it has a cursor of its own."""
        group = session.group
        if group is not None and session in group.hot:
            self._cool(group, session)
            session.cursor = self._cursor_of(group).copy()
            group.stragglers.add(session)

    def _cool(self, group: Group, session: Session) -> None:
        if session in group.hot:
            del group.hot[session]
            session.sent_at = max(session.sent_at, group.sent_at)
            session.sent_bytes += group.sent_bytes
            self.moved.add(session)

    def resync(self, session: Session, key: StateKey) -> bool:
        """`resync_all` of one key; False when it is not subscribed or does not exist."""
        return key in self.resync_all(session, (key,))

    def resync_all(self, session: Session, keys: Iterable[StateKey]) -> set[StateKey]:
        """A v2 client lost its hold on keys: owe it their snapshots, before what it is owed already.

        Returns those that exist and that it is subscribed to.
        """
        group = session.group
        if group is None:
            return set()
        # The keys come from the client, so look whether they exist before the group remembers them.
        owed: dict[StateKey, int | None] = {
            key: None
            for key in keys
            if (key in self.cells or key in self.values) and group.projection(key) is not None
        }
        if owed:
            self.fall_behind(session)
            cursor = session.cursor
            assert cursor is not None
            if cursor.sending is not None and cursor.sending[0] in owed:
                cursor.sending = None
            cursor.due = owed | {key: have for key, have in cursor.due.items() if key not in owed}
            _markers_last(cursor)
        return set(owed)

    @property
    def bots(self) -> set[str]:
        """Every bot that published."""
        return (
            {stream[0] for stream in self.tail.streams}
            | {s[0] for s in self.events.rings}
            | {key.bot for key in [*self.values, *self.cells]}
        )

    def request_frame(self, session: Session, request: FrameRequest) -> None:
        """A freqtrade client asks for a frame; it is served behind what is already owed."""
        session.requests.append(request)
        self.fall_behind(session)

    # --- delivery

    def collect(self, group: Group, limit_bytes: int, now: float) -> tuple[list[bytes], bool]:
        """What all hot sessions of a group get, about `limit_bytes`, in pieces of whole frames; and whether more is owed."""
        cursor = self._cursor_of(group)
        if not group.hot or cursor.ledger < self.tail.first:
            for session in list(group.hot):
                self.fall_behind(session)
            self._forward(group)
            return [], False
        frames: list[bytes] = []
        size = self.lane.send(group, cursor, frames, limit_bytes, now)
        size += self._events(group, cursor, None, frames, limit_bytes - size)
        self._state(group, cursor, None, frames, limit_bytes - size)
        group.level = self._at_tail(group, cursor)
        group.linger_s = 0.0
        return frames, not group.level

    def _forward(self, group: Group) -> None:
        cursor = group.cursor
        group.level = True
        cursor.ledger = self.tail.next
        cursor.claim_from(self.tail.next - 1)
        group.owes_position = False
        cursor.due.clear()
        cursor.sending = None
        cursor.events_seen = self.events.count
        for stream, ring in group.rings(self.events):
            cursor.events[stream] = ring.next

    def pull(self, session: Session, limit_bytes: int, now: float) -> Pulled:
        """Frames for one session: its replies, and for a straggler what it is owed, about `limit_bytes` of them."""
        frames: list[bytes] = []
        size = _take_control(session, frames)
        group, cursor = session.group, session.cursor
        read = None
        if group is not None and cursor is not None:
            size += self.lane.send(group, cursor, frames, limit_bytes - size, now, session)
            size += self._events(group, cursor, session, frames, limit_bytes - size)
            # An answer under way is of the revision at which it began: newer rows must come behind it.
            if not (session.requests and session.requests[0].parts is not None):
                size += self._state(group, cursor, session, frames, limit_bytes - size)
            read = self.lane.read_for(session, cursor, limit_bytes)
        if size < limit_bytes:
            self._serve_requests(session, frames, limit_bytes - size)
        level = self._level(session, frames, now)
        if frames:
            session.progress_at = now
            session.sent_at = now
            session.sent_bytes += sum(map(len, frames))
        return Pulled(frames, read, level)

    def loaded(self, session: Session, page: Page) -> None:
        """The page that a `Read` asked for. A floor above the cursor is a gap, and is told, never silent."""
        self.floor = max(self.floor, page.floor)
        self.lane.loaded(session, page)

    def _level(self, session: Session, frames: list[bytes], now: float) -> bool:
        group, cursor = session.group, session.cursor
        if session.control or session.requests or session.reading or session.page:
            return False
        if group is None or cursor is None:
            return True
        if not self._at_tail(group, cursor):
            return False
        if not group.hot:
            self._forward(group)
            group.cursor.take_claim(cursor)
        if not group.level:
            # Nobody waits beside a group that lingers.
            group.linger_s = 0.0
            return False
        if positions.joins_with_a_position(cursor, group.cursor):
            self.lane.claim(group, cursor, frames, now)
        group.stragglers.discard(session)
        session.cursor = None
        session.lagging_told = False
        group.hot[session] = None
        session.sent_bytes -= group.sent_bytes
        self.moved.add(session)
        return True

    def _at_tail(self, group: Group, cursor: Cursor) -> bool:
        return (
            cursor.ledger >= self.tail.next
            and not cursor.due
            and cursor.sending is None
            and (cursor.events_seen == self.events.count or self._events_level(group, cursor))
        )

    def _events_level(self, group: Group, cursor: Cursor) -> bool:
        return all(cursor.events.get(stream, 1) >= ring.next for stream, ring in group.rings(self.events))

    def _events(
        self, group: Group, cursor: Cursor, session: Session | None, frames: list[bytes], limit: int
    ) -> int:
        if limit <= 0 or cursor.events_seen == self.events.count:
            return 0
        owed: list[tuple[int, Entry]] = []
        lost: dict[str, int] = {}
        for stream, ring in group.rings(self.events):
            number = cursor.events.get(stream, 1)
            if number >= ring.next:
                continue
            if number < ring.first:
                lost[stream[1]] = lost.get(stream[1], 0) + ring.first - number
                cursor.events[stream] = ring.first
            owed += ring.since(number)
        size = self._tell_dropped(group, lost, frames)
        for _, entry in sorted(owed, key=lambda pair: pair[0]):
            if size >= limit:
                break
            saved = self.deflater.saved_bytes
            prepared = self._frame_for(group, entry.frame(group.wire))
            frames.append(prepared)
            size += len(prepared) + self.deflater.saved_bytes - saved
            cursor.events[entry.stream] = cursor.events.get(entry.stream, 1) + 1
        else:
            cursor.events_seen = self.events.count
        return size

    def _tell_dropped(self, group: Group, lost: dict[str, int], frames: list[bytes]) -> int:
        if not lost:
            return 0
        self.counters["dropped"] += sum(lost.values())
        if group.wire is Wire.FREQTRADE:
            return 0
        frames.append(frame_of(group.wire, notices.dropped(lost)))
        return len(frames[-1])

    def _state(
        self, group: Group, cursor: Cursor, session: Session | None, frames: list[bytes], limit: int
    ) -> int:
        size, began = 0, self.deflater.saved_bytes
        while size + self.deflater.saved_bytes - began < limit:
            if cursor.sending is not None:
                part = next(cursor.sending[2], None)
                if part is None:
                    cursor.sending = None
                    continue
                if not part:
                    return limit
                frames.append(part)
                size += len(part)
            elif cursor.due:
                key = next(iter(cursor.due))
                size += self._send_key(group, cursor, session, key, cursor.due.pop(key), frames)
            else:
                break
        return size + self.deflater.saved_bytes - began

    def _send_key(
        self,
        group: Group,
        cursor: Cursor,
        session: Session | None,
        key: StateKey,
        have: int | None,
        frames: list[bytes],
    ) -> int:
        projection = group.projection(key)
        cell = self.cells.get(key)
        if projection is None:
            return 0
        if cell is None:
            value = self.values[key]
            if have == value.n:
                return 0
            frames.append(self._frame_for(group, value.frame(group.wire)))
        elif group.wire is Wire.FREQTRADE:
            self._bound_held(session)
            cursor.sending = (key, cell.n, self._parts_for(group, cell.legacy_rows(have)))
            return 0
        else:
            # Of a key that is held from before this connection there may be none: that says that it is current.
            rows = cell.rows_frame(group.wire, projection, have, PART_BYTES[group.wire])
            if rows is None:
                return self._begin_snapshot(cursor, session, cell, projection, group, frames)
            size = self._tell_schema(session, cell, projection, frames) if session is not None else 0
            rows = self._frame_for(group, rows)
            frames.append(rows)
            return size + len(rows)
        return len(frames[-1])

    def _frame_for(self, to: Group | Session, plain: bytes) -> bytes:
        return self.deflater.frame(plain) if to.deflates else plain

    def _parts_for(self, to: Group | Session, parts: Parts) -> Parts:
        return parts.changed(self.deflater.spread) if to.deflates else parts

    def _tell_schema(
        self, session: Session, cell: FrameCell, projection: Projection, frames: list[bytes]
    ) -> int:
        """The schema of a key that the client holds from before this connection, ahead of its first rows here."""
        if cell.state_key not in session.untold:
            return 0
        session.untold.discard(cell.state_key)
        schema = cell.schema(projection)
        if schema.id in session.schemas:
            return 0
        _remember_schema(session, schema.id)
        frames.append(frame_of(session.wire, notices.schema_notice(schema)))
        return len(frames[-1])

    def _begin_snapshot(
        self,
        cursor: Cursor,
        session: Session | None,
        cell: FrameCell,
        projection: Projection,
        group: Group,
        frames: list[bytes],
    ) -> int:
        wire, schema = group.wire, cell.schema(projection)
        self._bound_held(session)
        parts = cell.snapshot(wire, projection, PART_BYTES[wire])
        # Binary columns are not worth it.
        if wire is not Wire.MSGPACK:
            parts = self._parts_for(group, parts)
        cursor.sending = (cell.state_key, cell.n, parts)
        if session is not None:
            session.untold.discard(cell.state_key)
            if schema.id in session.schemas:
                return 0
            _remember_schema(session, schema.id)
        frames.append(frame_of(wire, notices.schema_notice(schema)))
        return len(frames[-1])

    def _bound_held(self, session: Session | None) -> None:
        """Make room for one more window: those who made no progress for the longest let go of theirs and begin again later."""
        if self.cache.held_bytes <= self.limits.held_bytes:
            return
        holders = [s for s in self.sessions.values() if s is not session and _holds_window(s)]
        for holder in sorted(holders, key=lambda s: s.progress_at):
            if self.cache.held_bytes <= self.limits.held_bytes // 4 * 3:
                break
            self.counters["abandoned"] += 1
            _abandon_snapshots(holder)

    def _serve_requests(self, session: Session, frames: list[bytes], limit: int) -> None:
        size, began = 0, self.deflater.saved_bytes
        while session.requests and size + self.deflater.saved_bytes - began < limit:
            request = session.requests[0]
            if request.parts is None:
                self._bound_held(session)
                request.parts = self._parts_of(session, request)
            part = next(request.parts, None)
            if part is None:
                del session.requests[0]
                continue
            if not part:
                return
            frames.append(part)
            size += len(part)

    def _parts_of(self, session: Session, request: FrameRequest) -> Iterator[bytes]:
        bot = session.principal.legacy_bot
        cell = self.cells.get(StateKey(bot, "analyzed_df", request.key)) if bot else None
        if cell is not None:
            return self._parts_for(session, cell.legacy_tail(request.limit))
        return iter([legacy_frame(request.key, _EMPTY_SPLIT, 0)])

    # --- time

    def tick(self, now: float, now_ms: int, heartbeat_s: float) -> list[Session]:
        """Let time pass: candles past their deadline, slow consumers, heartbeats, expired credentials.

        Returns the sessions that have something to be told or to be closed for.
        """
        for bot, timeframe, complete in self.candles.tick(now):
            self._complete(bot, timeframe, complete, now_ms)
        self.lane.page_runs.forget_idle(now)
        touched = []
        for group in self.groups.values():
            if group.hot and positions.claim_due(group.cursor, now):
                self.owe_position(group)
        # Of 10 000 sessions nearly all have nothing of this.
        for session in self.sessions.values():
            if session.principal.expires_ms is not None:
                self._expire(session, session.principal.expires_ms, now_ms)
            if session.cursor is not None:
                self._judge_lag(session, session.cursor, now)
            if (session.cursor or session.requests) and now - session.progress_at > SNAPSHOT_IDLE_S:
                _abandon_snapshots(session)
            if not session.control and now - session.last_sent_at >= heartbeat_s:
                self._beat(session, now_ms)
            if session.control or session.closing is not None:
                touched.append(session)
        return touched

    def _beat(self, session: Session, now_ms: int) -> None:
        if session.wire is Wire.FREQTRADE:
            return
        if session.merged:
            session.tell(notices.conflated(len(session.conflated), session.merged))
            session.merged = 0
            session.conflated.clear()
        elif session.group is None:
            session.tell(notices.heartbeat(now_ms))
        elif session.cursor is None:
            self.owe_position(session.group)
        else:
            self.tell_position(session)

    def owe_position(self, group: Group) -> None:
        """The hot sessions of a group are to hear where they are, all by one frame."""
        if group.wire is not Wire.FREQTRADE:
            group.owes_position = True
            group.linger_s = 0.0
            self.dirty.add(group)

    def tell_position(self, session: Session) -> None:
        """A session that is served alone is told where it is."""
        if session.cursor is not None and session.wire is not Wire.FREQTRADE:
            self.lane.tell_position(session, session.cursor)

    def last_words(self, session: Session) -> list[bytes]:
        """What a session that ends is still told: its replies and, when it is served alone, where it is."""
        self.tell_position(session)
        frames: list[bytes] = []
        _take_control(session, frames)
        return frames

    def _expire(self, session: Session, expires: int, now_ms: int) -> None:
        if now_ms < expires - EXPIRING_MS:
            return
        if now_ms >= expires:
            session.close(CloseCode.CREDENTIAL_EXPIRED, "the credential expired")
        elif not session.expiring_told and session.wire is not Wire.FREQTRADE:
            session.expiring_told = True
            session.tell(notices.token_expiring(expires))

    def reauthenticate(self, session: Session, principal: Principal) -> None:
        """Replace the credential of a live session by another of the same principal.

        Rights that are gone end the session with 4403. New ones hold at once: what is subscribed as `*` grows by them.

        Raises:
            Forbidden: it is another principal's; nothing changed.
        """
        old = session.principal
        if principal.name != old.name:
            raise Forbidden(f"expected a credential of {old.name}")
        session.principal = principal
        session.expiring_told = False
        if not principal.covers(old):
            session.close(CloseCode.RIGHTS_CHANGED, "this credential lacks a right that the session has")
        elif principal.reads != old.reads and session.group is not None:
            self.subscribe(
                session, Subscription(session.group.subscription.items, principal.reads), snapshots=True
            )

    def _judge_lag(self, session: Session, cursor: Cursor, now: float) -> None:
        if cursor.ledger >= self.tail.next:
            return
        size = self.unsent_bytes(session, cursor)
        if size > self.limits.slow_bytes and now - session.progress_at > self.limits.slow_grace_s:
            session.close(
                CloseCode.SLOW_CONSUMER, f"{size} bytes unsent without progress; resume when you can"
            )
        elif (
            size > self.limits.slow_bytes // 2
            and not session.lagging_told
            and session.wire is not Wire.FREQTRADE
        ):
            session.lagging_told = True
            session.tell(notices.lagging(self.tail.next - cursor.ledger, size, self.limits.slow_bytes))

    def unsent_bytes(self, session: Session, cursor: Cursor) -> int:
        """Of the ledger, what was not sent from this cursor on, of a session with a subscription."""
        group = session.group
        if group is None:
            return 0
        below = max(0, self.tail.first - cursor.ledger)
        seen = self.tail.bytes_since(cursor.ledger)
        # What left the tail is counted at the tail's own density: the log is not read for a judgement.
        density = self.tail.bytes_since(0) // max(1, self.tail.next - self.tail.first)
        return seen + below * density

    # --- figures

    def statistics(self) -> dict[str, int]:
        """Every buffer of core with its bound, and what went through."""
        control = sum(s.control_bytes for s in self.sessions.values())
        return {
            "sessions": len(self.sessions),
            "groups": len(self.groups),
            "stragglers": sum(len(g.stragglers) for g in self.groups.values()),
            "ledger_head": self.tail.next - 1,
            "tail_bytes": self.tail.bytes,
            "tail_limit_bytes": self.tail.limit_bytes,
            "pending_bytes": self.pending_bytes,
            "pending_limit_bytes": self.limits.pending_bytes,
            "event_bytes": sum(self.events.bytes.values()),
            "event_limit_bytes_per_bot": self.events.limit_bytes,
            "state_keys": len(self.values) + len(self.cells),
            "state_bytes": self.state_bytes,
            "state_limit_bytes": self.limits.state_bytes,
            "cache_bytes": self.cache.bytes,
            "cache_limit_bytes": self.cache.limit_bytes,
            "held_bytes": self.cache.held_bytes,
            "held_limit_bytes": self.limits.held_bytes,
            "control_bytes": control,
            "deflated_bytes": self.deflater.bytes,
            "deflated_limit_bytes": self.deflater.limit_bytes,
            "deflated": self.deflater.frames,
            "deflate_saved_bytes": self.deflater.saved_bytes,
            "joined_bytes": self.lane.runs.bytes,
            "joined_limit_bytes": KEPT_BYTES,
            "replayed_bytes": self.lane.page_runs.bytes,
            "replayed_limit_bytes": LIMIT_BYTES,
            "snapshots_under_way": sum(
                s.cursor is not None and s.cursor.sending is not None for s in self.sessions.values()
            ),
            "requests_waiting": sum(len(s.requests) for s in self.sessions.values()),
            **self.counters,
        }

    def check_invariants(self) -> None:
        """Raise AssertionError if an invariant of the module's docstring is broken."""
        self.tail.check_invariants()
        self.events.check_invariants()
        for key, group in self.groups.items():
            assert group.key == key
            assert group.hot or group.stragglers
            assert not set(group.hot) & group.stragglers
            assert not group.hot or group.level or group in self.dirty
            assert all(s.cursor is None and s.group is group for s in group.hot)
            assert all(s.cursor is not None and s.group is group for s in group.stragglers)
            for cursor in [group.cursor, *(s.cursor for s in group.stragglers if s.cursor)]:
                assert cursor.ledger <= self.tail.next
                assert cursor.claimed < cursor.ledger
                assert all(cursor.claimed < head < cursor.ledger for head in cursor.heads.values())
                assert len(cursor.heads) <= positions.CLAIM_OFFSETS
                self._check_due(group, cursor)

    def _check_due(self, group: Group, cursor: Cursor) -> None:
        for key, have in cursor.due.items():
            assert group.projection(key) is not None, key
            cell = self.cells.get(key) or self.values[key]
            assert have is None or 0 <= have <= cell.n, (key, have, cell.n)


def _owe(cursor: Cursor, key: StateKey, have: int | None, *, marker: bool) -> bool:
    """Mark a key as due; True when it was due already (conflated)."""
    if key not in cursor.due:
        cursor.due[key] = have
        return False
    if marker:
        del cursor.due[key]
        cursor.due[key] = have
    return True


def _holds_window(session: Session) -> bool:
    cursor = session.cursor
    sends = cursor is not None and cursor.sending is not None
    return sends or any(request.parts is not None for request in session.requests)


def _abandon_snapshots(session: Session) -> None:
    """Let go of the windows that a client which takes nothing holds; what it was being sent begins again when it reads."""
    for request in session.requests:
        request.parts = None
    cursor = session.cursor
    if cursor is not None and cursor.sending is not None:
        first: dict[StateKey, int | None] = {cursor.sending[0]: None}
        cursor.due = first | cursor.due | first
        cursor.sending = None


def _markers_last(cursor: Cursor) -> None:
    markers = {key: have for key, have in cursor.due.items() if key.topic in _MARKERS}
    cursor.due = {key: have for key, have in cursor.due.items() if key not in markers} | markers


def _remember_schema(session: Session, schema_id: str) -> None:
    if len(session.schemas) >= SCHEMAS_TOLD:
        session.schemas.clear()
    session.schemas.add(schema_id)


def _take_control(session: Session, frames: list[bytes]) -> int:
    size = session.control_bytes
    frames.extend(session.control)
    session.control = []
    session.control_bytes = 0
    return size
