"""A hub's messages as they come in on a v2 wire, sans-I/O: what to deliver, what to ask for, when to close.

Theory of operation
===================

A `HubState` is fed decoded frames and the time, and answers with a `Step`: deliveries in order, requests to send, and whether the
connection has to go. It outlives connections. Three parts of it know what "correct" means: `Positions` for the ledger (a number and
holes), `Revisions` for dataframes (claims and snapshots), and the book that holds the rows. This module joins them: it decides by the
fields of an envelope which of them a message concerns, so that types which nobody knows yet are judged by the same rules.

The order of judging a message: its envelope; its position, if it has an offset; its content. A content that does not fit its
type is delivered as a GenericMessage that says so, since its position was taken and it will not come again.

Invariants
==========

1. Whatever the peer sends, `receive` raises nothing; a frame that is no message is counted and changes nothing.
2. A ledger message is delivered at most once per epoch, in the hub's order, and a hole before it was reported or resumed first. One
   that is remembered from another epoch is not delivered (`recent`), but its position is.
3. A delivered frame was applied to the book before, and what was not applied is not delivered.
4. Requests in flight are bounded: one subscribe, and one resync for any number of keys.

Source: wire-v2 §4-§7, §12.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeGuard

import msgspec
import numpy as np

from consumer.data import Book
from consumer.errors import ConnectionFailed, ConsumerError, HubRefused, Unauthorized
from consumer.positions import Loss, Positions, Verdict
from consumer.recent import Recent
from consumer.revisions import Applied, Held, Revisions, Unreadable, WireKey
from consumer.step import Step
from hub.protocol.close_codes import CloseCode
from hub.protocol.envelope import Broadcast, Notice, Position, Reply, parse_envelope
from hub.protocol.errors import BadFrame, BadMessage, NotAMessage
from hub.protocol.known import Fingerprint, Known
from hub.protocol.localbot import Advanced, CandleComplete, Connected, Delivery, Lost, Repeated
from hub.protocol.messages import AnalyzedDf, FrameKey, GenericMessage, Message, Whitelist, view
from hub.protocol.subscription import LINEAGE

__all__ = ["HubState"]

_LOG = logging.getLogger(__name__)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FRAME_FIELDS = frozenset({"schema", "rows", "n", "cols", "la_ms"})
_OFFSETS = 2**53
MAX_KEYS_A_REQUEST = 1000


class HubState:
    """The state of one connection's producer on a v2 wire.

    `want` is the subscription, `book` takes rows and whitelists, `start` is what an earlier run had of the ledger.
    """

    def __init__(
        self,
        producer: str,
        book: Book,
        want: list[dict[str, Any]],
        *,
        wire: Literal["msgpack", "json"] = "msgpack",
        client: str = "tradewire-consumer",
        max_message: int = 8 * 1024 * 1024,
        start: Known | None = None,
    ) -> None:
        self.producer = producer
        self.positions = Positions(start)
        self.recent = Recent(start.recent if start is not None else None)
        self.revisions = Revisions(wire)
        self.heartbeat_s = 15.0
        self.reconnect_after_s: float | None = None
        self._request_bytes = 1024 * 1024
        self.subscribed = False
        self._book = book
        self._want = want
        self._limited = any("rows" in item for item in want)
        self._hello = {"client": client, "max_message": max_message, "features": [LINEAGE]}
        self._next_id = 1
        self._subscribe_id = 0
        self._resyncs: dict[int, list[WireKey]] = {}
        self._values: dict[tuple[Any, ...], tuple[str, int]] = {}
        self._messages = 0
        self._counts: Counter[str] = Counter()
        self._told: set[str] = set()

    @property
    def deadline(self) -> float | None:
        """When `tick` is due."""
        return self.revisions.deadline if self.subscribed else None

    def start(self, now: float) -> Step:
        """A connection is open: introduce, subscribe, resume. The hub's welcome need not have come."""
        self.lost()
        self.reconnect_after_s = None
        self._subscribe_id = self._id()
        data: dict[str, Any] = {"want": self._want}
        resume = self.positions.resume
        if resume is not None:
            held = [
                [bot, "analyzed_df", [key.pair, key.timeframe, key.candle_type], epoch, n]
                for (bot, key), epoch, n in self.revisions.held(self._request_bytes // 2)
            ]
            data["resume"] = resume | ({"keys": held} if held else {})
        return Step(
            requests=[
                {"type": "hello", "data": self._hello},
                {"type": "subscribe", "id": self._subscribe_id, "data": data},
            ]
        )

    def lost(self) -> None:
        """The connection ended."""
        self.subscribed = False
        self._resyncs.clear()
        self.revisions.forget_connection()
        self._book.mark_all_stale()

    def tick(self, now: float) -> Step:
        """Ask again for what did not come."""
        step = Step()
        self._resync(step, now)
        return step

    def receive(self, message: Mapping[str, Any], size: int, now: float) -> Step:
        """A decoded frame of `size` bytes came."""
        step = Step()
        self._messages += 1
        try:
            envelope = parse_envelope(message)
        except NotAMessage as error:
            self._malformed(message, str(error), step)
            return step
        if isinstance(envelope, Broadcast):
            self._broadcast(envelope, size, now, step)
        elif isinstance(envelope, Reply):
            self._reply(envelope, now, step)
        else:
            self._notice(envelope, step)
        if self.revisions.asks:
            self._resync(step, now)
        return step

    # --- broadcasts

    def _broadcast(self, message: Broadcast, size: int, now: float, step: Step) -> None:
        if not self._in_order(message, step):
            return
        fingerprint = _fingerprint(message)
        if fingerprint is not None and self._repeated(message, fingerprint, step):
            return
        if message.type == "analyzed_df" and message.key is not None and len(message.key) >= 3:
            self._frame(message, FrameKey(*message.key[:3]), size, now, step)
        elif message.rev is None or self._newer(message):
            self._deliver(message, self._typed(message), step, fingerprint)

    def _in_order(self, message: Broadcast, step: Step) -> bool:
        """Judge the position of a message that has one; True to act on it."""
        if message.epoch is None or message.offset is None:
            return True
        if not (0 <= message.offset < _OFFSETS and (message.prev is None or 0 <= message.prev < _OFFSETS)):
            # Nothing that may be kept: the next claim of the stream finds the hole.
            self._count_problem(message.type, "expected offset and prev from 0 to 2^53-1")
            return False
        stream = (message.bot, message.type)
        verdict, loss = self.positions.message(message.epoch, stream, message.offset, message.prev)
        if verdict is Verdict.ACT and loss is None:
            return True
        return self._judged(verdict, loss, step, f"{message.bot} {message.type} {message.offset}")

    def _judged(self, verdict: Verdict, loss: Loss | None, step: Step, what: str) -> bool:
        if loss is not None:
            self._report(loss, step)
        if verdict is Verdict.DUPLICATE:
            self._counts["duplicates"] += 1
        elif verdict is Verdict.HOLE:
            self._counts["holes"] += 1
            step.close = (CloseCode.POSITION_LOST, f"a hole before {what}")
            _LOG.warning("%s: a hole in the ledger before %s; resuming", self.producer, what)
        elif verdict is Verdict.OTHER_EPOCH:
            step.close = (CloseCode.POSITION_LOST, "another epoch")
        return verdict is Verdict.ACT

    def _repeated(self, message: Broadcast, fingerprint: Fingerprint, step: Step) -> bool:
        """Whether a message was delivered in another epoch; it is remembered as one of this then. Its position was taken."""
        assert message.epoch is not None
        repeated = self.recent.came(fingerprint, message.epoch)
        if repeated:
            self._counts["repeated"] += 1
            _LOG.info("%s: %s of %s was delivered before this epoch", self.producer, message.mid, message.bot)
            step.deliveries.append(
                Delivery(
                    producer=self.producer,
                    bot=message.bot,
                    topic=message.type,
                    message=Repeated(),
                    ts_ms=message.ts,
                    position=message.position,
                    base=self._base(message),
                    mid=message.mid,
                    fingerprint=fingerprint,
                )
            )
        return repeated

    def _newer(self, message: Broadcast) -> bool:
        """Whether a state value is newer than the one that was delivered; a value is a snapshot each time."""
        assert message.rev is not None
        key = (message.bot, message.type, *(message.key or ()))
        epoch, n = self._values.get(key, ("", -1))
        if epoch == message.rev.epoch and message.rev.n <= n:
            self._counts["duplicates"] += 1
            return False
        self._values[key] = (message.rev.epoch, message.rev.n)
        return True

    def _typed(self, message: Broadcast) -> Message | CandleComplete:
        try:
            if message.type == "hub.candle_complete":
                return _candle_complete(message.data)
            return view(message.type, message.data)
        except BadMessage as error:
            self._count_problem(message.type, str(error))
            return GenericMessage(name=message.type, data=message.data, problem=str(error))

    def _deliver(
        self,
        message: Broadcast,
        typed: Message | CandleComplete,
        step: Step,
        fingerprint: Fingerprint | None = None,
    ) -> None:
        if isinstance(typed, Whitelist):
            self._book.set_pairs(message.bot, typed.data)
        key = FrameKey(*message.key[:3]) if message.key is not None and len(message.key) >= 3 else None
        position = message.position
        step.deliveries.append(
            Delivery(
                producer=self.producer,
                bot=message.bot,
                topic=message.type,
                message=typed,
                ts_ms=message.ts,
                key=key,
                position=position,
                base=self.positions.base if position is not None else None,
                mid=message.mid,
                fingerprint=fingerprint,
                snapshot=message.rev is not None and message.rev.prev == 0,
                payload=message.data,
            )
        )

    # --- dataframes

    def _frame(self, message: Broadcast, key: FrameKey, size: int, now: float, step: Step) -> None:
        wire_key = (message.bot, key)
        judged = self.revisions.frame(wire_key, message, size, now)
        problem = judged if isinstance(judged, Unreadable) else None
        if isinstance(judged, Applied):
            problem = self._apply(wire_key, message, judged, now, step)
        elif isinstance(judged, Held) and judged.current:
            self._book.mark_fresh(message.bot, key)
        elif isinstance(judged, Held):
            self._counts["stale"] += 1
            self._book.mark_stale(message.bot, key)
        if problem is not None:
            self._unreadable(wire_key, message, problem.problem, step)

    def _apply(
        self, key: WireKey, message: Broadcast, applied: Applied, now: float, step: Step
    ) -> Unreadable | None:
        columns = self._book.prepared(applied.columns)
        if self._limited and not applied.snapshot:
            # Of a window that was cut at its start, an older row that changed late would stand before a false hole.
            columns = columns.take(np.flatnonzero(columns.date_ms >= self._book.first_ms(*key)))
        try:
            self._book.apply(*key, columns, applied.la_ms, snapshot=applied.snapshot, rev=applied.n)
        except BadFrame as error:
            if applied.snapshot:
                return self.revisions.give_up(key, message, str(error))
            self.revisions.lost(key, now)
            return Unreadable(str(error))
        la = _EPOCH + timedelta(milliseconds=applied.la_ms) if applied.la_ms is not None else None
        typed = AnalyzedDf(key=key[1], df=columns, la=la)
        extra = {name: value for name, value in message.data.items() if name not in _FRAME_FIELDS}
        if extra:
            msgspec.structs.force_setattr(typed, "extra", extra)
        step.deliveries.append(
            Delivery(
                producer=self.producer,
                bot=message.bot,
                topic=message.type,
                message=typed,
                ts_ms=message.ts,
                key=key[1],
                position=message.position,
                base=self._base(message),
                snapshot=applied.snapshot,
            )
        )
        return None

    def _unreadable(self, key: WireKey, message: Broadcast, problem: str, step: Step) -> None:
        self._book.mark_stale(*key, problem=problem)
        self._count_problem(f"{key[0]} {key[1].pair} {key[1].timeframe}", problem)
        self._deliver(message, GenericMessage(name=message.type, data=message.data, problem=problem), step)

    # --- replies and notices

    def _reply(self, message: Reply, now: float, step: Step) -> None:
        error = message.error if isinstance(message.error, dict) else {}
        if message.id == self._subscribe_id:
            if message.ok:
                self._subscribed(message.data if isinstance(message.data, dict) else {}, now, step)
            else:
                step.refused = _refusal(self.producer, error)
        elif message.id in self._resyncs:
            keys = self._resyncs.pop(message.id)
            if not message.ok:
                self.revisions.refused(keys, now, _retry_after_s(error))
            else:
                self._unknown_keys(message.data, now)

    def _unknown_keys(self, data: Any, now: float) -> None:
        unknown = data.get("unknown") if isinstance(data, dict) else None
        for raw in unknown if isinstance(unknown, list) else ():
            if isinstance(raw, list) and len(raw) >= 3 and isinstance(raw[2], list) and len(raw[2]) >= 3:
                bot, pair, timeframe, candle_type = map(str, (raw[0], *raw[2][:3]))
                self.revisions.refused([(bot, FrameKey(pair, timeframe, candle_type))], now, None)

    def _subscribed(self, data: Mapping[str, Any], now: float, step: Step) -> None:
        epoch, offset = data.get("epoch"), data.get("offset")
        if not isinstance(epoch, str) or not epoch or not _is_offset(offset):
            step.refused = HubRefused(f"{self.producer}: the reply to subscribe has no epoch and offset")
            return
        before, same = self.positions.standing, data.get("same")
        shared: Position | None = None
        if before is not None and before.epoch != epoch and _is_offset(same):
            shared = Position(before.epoch, same)
            losses = self.positions.moves(epoch, offset, same, data)
        else:
            loss = self.positions.subscribed(epoch, offset, data.get("recovered"), data)
            losses = [] if loss is None else [loss]
        self.subscribed = True
        self.revisions.expect_held(now)
        resumed = not losses if before is not None else None
        self._say(Connected(producer=self.producer, resumed=resumed), "connected", step)
        for loss in losses:
            self._report(loss, step)
        after = self.positions.standing
        assert after is not None
        if before is None or before != after:
            anew = before is not None and (before.epoch != after.epoch or after < before)
            self._advanced(step, anew=anew, same=shared)
        for name in ("unknown", "denied"):
            listed = data.get(name)
            if isinstance(listed, list) and listed:
                self._once(f"{name} at the hub: {', '.join(map(str, listed[:20]))}")

    def _notice(self, message: Notice, step: Step) -> None:
        handler = _NOTICES.get(message.type)
        if handler is not None:
            handler(self, message, step)
        elif isinstance(message.fields.get("offset"), int):
            self._malformed(message.fields, "an offset without a bot", step)
        else:
            self._counts["other_notices"] += 1

    def _welcome(self, message: Notice, _step: Step) -> None:
        heartbeat = message.data.get("heartbeat_ms")
        if type(heartbeat) is int and heartbeat > 0:
            self.heartbeat_s = heartbeat / 1000
        limits = message.data.get("limits")
        most = limits.get("message") if isinstance(limits, dict) else None
        if type(most) is int and most > 0:
            self._request_bytes = most

    def _schema(self, message: Notice, _step: Step) -> None:
        problem = self.revisions.schema(str(message.fields.get("schema")), message.fields.get("data"))
        if problem is not None:
            self._count_problem("schema", problem)

    def _position(self, message: Notice, step: Step) -> None:
        fields = message.fields
        start, offset, heads = fields.get("from"), fields.get("offset"), fields.get("heads")
        if not _is_offset(start) or not _is_offset(offset) or not isinstance(heads, list):
            self._malformed(fields, "hub.position: expected from, offset and heads", step)
            return
        streams = [((h[0], h[1]), h[2]) for h in heads if _is_head(h)]
        if any(head > offset for _, head in streams):
            self._malformed(fields, "hub.position: expected heads up to its offset", step)
            return
        verdict, loss = self.positions.position(str(fields.get("epoch")), start, offset, streams)
        if self._judged(verdict, loss, step, f"position {offset}"):
            # Also where nothing moved: what was not stored last time may be now.
            self._advanced(step)

    def _gap(self, message: Notice, step: Step) -> None:
        fields = message.fields
        epoch, to = str(fields.get("epoch")), fields.get("to")
        if not _is_offset(to):
            self._malformed(fields, "hub.gap: expected to", step)
        elif epoch != self.positions.epoch:
            self._judged(Verdict.OTHER_EPOCH, None, step, f"gap {to}")
        else:
            loss = self.positions.gap(epoch, to, str(fields.get("reason") or "retention"))
            if loss is not None:
                self._report(loss, step)
                self._advanced(step)

    def _dropped(self, message: Notice, step: Step) -> None:
        topics = message.data.get("topics")
        if isinstance(topics, dict) and topics:
            self._counts["dropped"] += sum(n for n in topics.values() if type(n) is int)
            counts = ", ".join(f"{n} {topic}" for topic, n in topics.items())
            lost = Lost(
                producer=self.producer,
                topics=tuple(map(str, topics)),
                first=None,
                last=None,
                reason=f"this consumer was slow: {counts}",
            )
            self._say(lost, "lost", step)

    def _drain(self, message: Notice, _step: Step) -> None:
        after = message.data.get("reconnect_after_ms")
        self.reconnect_after_s = after / 1000 if type(after) is int and after >= 0 else None

    def _error(self, message: Notice, _step: Step) -> None:
        data = message.data
        self._counts["errors"] += 1
        _LOG.warning("%s: the hub says %s: %s", self.producer, data.get("code"), data.get("message"))

    # --- what all share

    def _report(self, loss: Loss, step: Step) -> None:
        topics = tuple(dict.fromkeys(topic for _, topic in loss.streams))
        lost = Lost(
            producer=self.producer,
            topics=topics,
            first=loss.first,
            last=loss.last,
            reason=loss.reason,
            epoch=loss.epoch or (self.positions.epoch if loss.first is not None else None),
        )
        self._counts["lost"] += 1
        self._say(lost, "lost", step)

    def _advanced(self, step: Step, *, anew: bool = False, same: Position | None = None) -> None:
        position = self.positions.standing
        assert position is not None
        self._say(Advanced(producer=self.producer, position=position, anew=anew, same=same), "advanced", step)

    def _base(self, message: Broadcast) -> int | None:
        return self.positions.base if message.position is not None else None

    def _say(self, message: Connected | Lost | Advanced, topic: str, step: Step) -> None:
        step.deliveries.append(
            Delivery(producer=self.producer, bot=self.producer, topic=topic, message=message)
        )

    def _malformed(self, message: Mapping[str, Any], problem: str, step: Step) -> None:
        """A frame whose envelope does not fit. With a bot and a place in the ledger it is still delivered, as it is."""
        name, bot = str(message.get("type")), message.get("bot")
        self._count_problem(name, problem)
        epoch, offset, prev = message.get("epoch"), message.get("offset"), message.get("prev")
        position = None
        if not isinstance(bot, str):
            return
        if isinstance(epoch, str) and type(offset) is int:
            bare = Broadcast(
                type=name, bot=bot, epoch=epoch, offset=offset, prev=prev if type(prev) is int else None
            )
            if not self._in_order(bare, step):
                return
            position = bare.position
        typed = GenericMessage(name=name, data=message.get("data"), problem=problem)
        step.deliveries.append(
            Delivery(
                producer=self.producer,
                bot=bot,
                topic=name,
                message=typed,
                position=position,
                base=self.positions.base if position is not None else None,
            )
        )

    def _count_problem(self, what: str, problem: str) -> None:
        self._counts["problems"] += 1
        self._once(f"{what}: {problem}")

    def _once(self, text: str) -> None:
        """Log a line the first time only; a broken producer would repeat it for every candle."""
        if text not in self._told and len(self._told) < 1000:
            self._told.add(text)
            _LOG.warning("%s: %s", self.producer, text)

    def _resync(self, step: Step, now: float) -> None:
        if not self.subscribed or step.close is not None:
            return
        due = self.revisions.due(now)
        if not due:
            return
        for start in range(0, len(due), MAX_KEYS_A_REQUEST):
            keys = due[start : start + MAX_KEYS_A_REQUEST]
            number = self._id()
            self._resyncs[number] = keys
            self._counts["resyncs"] += len(keys)
            wire = [[bot, "analyzed_df", [key.pair, key.timeframe, key.candle_type]] for bot, key in keys]
            step.requests.append({"type": "resync", "id": number, "data": {"keys": wire}})

    def _id(self) -> int:
        number = self._next_id
        self._next_id += 1
        return number

    def statistics(self) -> Mapping[str, Any]:
        """Counters; what is buffered, with bounds; the position in the ledger."""
        return {
            "messages": self._messages,
            **self._counts,
            **self.revisions.statistics(),
            "epoch": self.positions.epoch,
            "base": self.positions.base,
            "streams": self.positions.streams,
            "recent": len(self.recent),
        }


_NOTICES = {
    "hub.welcome": HubState._welcome,
    "hub.schema": HubState._schema,
    "hub.position": HubState._position,
    "hub.gap": HubState._gap,
    "hub.dropped": HubState._dropped,
    "hub.drain": HubState._drain,
    "hub.error": HubState._error,
}


class _CandleComplete(msgspec.Struct):
    timeframe: str
    candle_ms: int
    pairs: list[str]
    missing: list[str] = []
    deadline: bool = False


def _candle_complete(data: Any) -> CandleComplete:
    try:
        raw = msgspec.convert(data, _CandleComplete)
    except msgspec.ValidationError as error:
        raise BadMessage(f"hub.candle_complete: {error}") from None
    return CandleComplete(
        timeframe=raw.timeframe,
        candle_ms=raw.candle_ms,
        pairs=tuple(raw.pairs),
        missing=tuple(raw.missing),
        deadline=raw.deadline,
    )


def _fingerprint(message: Broadcast) -> Fingerprint | None:
    """Of what has a place in the ledger and a name."""
    if message.mid is None or message.epoch is None or message.offset is None:
        return None
    return Fingerprint.of(message.bot, message.type, message.mid, message.data)


def _is_head(head: Any) -> bool:
    return (
        isinstance(head, list)
        and len(head) >= 3
        and isinstance(head[0], str)
        and isinstance(head[1], str)
        and _is_offset(head[2])
    )


def _is_offset(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < _OFFSETS


def _refusal(producer: str, error: Mapping[str, Any]) -> ConsumerError:
    """The error object of a refused subscribe as an exception."""
    code, text = str(error.get("code")), str(error.get("message"))
    if error.get("temporary") is True:
        return ConnectionFailed(f"{producer}: {code}: {text}", retry_after_s=_retry_after_s(error))
    if code in ("forbidden", "token_expired"):
        return Unauthorized(f"{producer}: {text}")
    return HubRefused(f"{producer}: the subscription is refused: {code}: {text}")


def _retry_after_s(error: Mapping[str, Any]) -> float | None:
    """Seconds to wait before the same request again; None when it would fail again."""
    if error.get("temporary") is not True:
        return None
    after = error.get("retry_after_ms")
    return after / 1000 if type(after) is int and after >= 0 else 5.0
