"""The door: a publish as it arrives becomes a checked one, or is refused. A bad publish is the publisher's error.

A publish is `{bot, topic, mid, ts?, data, key?, schema?}` (docs/wire-protocol.md, Publish). Of a dataframe `data` is `{rows}`
to upsert rows or `{n, cols}` to replace the key's window, `schema` the schema's map, or its id once this hub has seen it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hub.core.entry import Entry
from hub.frames import v2
from hub.frames.columns import Columns, Schema
from hub.frames.timeframe import timeframe_ms
from hub.protocol.codec import Wire
from hub.protocol.errors import BadFrame, BadMessage, Forbidden, IdExpired, Overloaded
from hub.protocol.messages import NAME_LIMIT_BYTES, DeliveryClass, FrameKey, check_name, delivery_class, view
from hub.protocol.principal import Principal
from hub.protocol.values import canonical

__all__ = [
    "FramePublish",
    "Intake",
    "LogPublish",
    "Publish",
    "PublishOrder",
    "ValuePublish",
    "check_la_ms",
    "check_time",
    "frame_key",
]

SCHEMA_BYTES = 16 << 20
SCHEMA_FIELD_BYTES = 200
MAX_FUTURE_MS = 24 * 3600 * 1000
HOLD_S = 30.0


@dataclass(frozen=True, slots=True)
class LogPublish:
    """A message of class ledger or event."""

    entry: Entry
    ledger: bool


@dataclass(frozen=True, slots=True)
class ValuePublish:
    """The newest value of a whitelist or new_candle."""

    bot: str
    topic: str
    key: FrameKey | None
    data: Any
    ts: int


@dataclass(frozen=True, slots=True)
class FramePublish:
    """Rows to upsert into a dataframe key, or its whole window (`replace`)."""

    bot: str
    key: FrameKey
    rows: Columns
    replace: bool
    la_ms: int
    ts: int


Publish = LogPublish | ValuePublish | FramePublish


class PublishOrder:
    """Keeps the ledger messages of one connection, or of one HTTP request, in the order sent.

    After one is refused for now, the later ones are refused too until it is retried: stored ahead of it, an exit could come
    before its entry. A publisher that gives the message up waits HOLD_S, or connects anew.
    """

    __slots__ = ("_held", "_until")

    def __init__(self) -> None:
        self._held: str | None = None
        self._until = 0.0

    def check(self, mid: str | None, now: float) -> None:
        """Whether this ledger message may go now.

        Raises:
            Overloaded: an earlier one must be retried first.
        """
        if self._held is None or mid == self._held or now >= self._until:
            self._held = None
            return
        raise Overloaded(
            f"mid {self._held!r} was refused for now and must be retried first", retry_after_ms=100
        )

    def refused(self, mid: str | None, now: float) -> None:
        """A ledger message was refused for now."""
        if self._held is None:
            self._held, self._until = mid, now + HOLD_S


class Intake:
    """Checks publishes. Keeps the schemas that publishers named, the least recently used ones leave."""

    def __init__(self, dedupe_ms: int) -> None:
        self.dedupe_ms = dedupe_ms
        self.schema_bytes = 0
        self._schemas: OrderedDict[str, Schema] = OrderedDict()

    def parse(self, principal: Principal, item: Any, wire: Wire, now_ms: int) -> Publish:
        """A publish from outside, as decoded from its wire.

        Raises:
            Forbidden: the principal may not publish as this bot. PublishRefused: what is wrong with it, in one line.
        """
        if not isinstance(item, Mapping):
            raise BadMessage(f"publish: expected a map, got {type(item).__name__}")
        bot = check_name("bot", item.get("bot"))
        if not principal.may_publish(bot):
            raise Forbidden(f"{principal.name} may not publish as {bot!r}")
        topic = check_name("topic", item.get("topic"))
        ts = check_time(item.get("ts"), now_ms)
        if topic == "analyzed_df":
            return self._frame(bot, item, wire, ts)
        return self.message(
            bot, topic, item.get("data"), mid=item.get("mid"), publisher=principal.name, ts=ts, now_ms=now_ms
        )

    def message(
        self,
        bot: str,
        topic: str,
        data: Any,
        *,
        mid: object,
        publisher: str,
        ts: int,
        now_ms: int,
        trusted: bool = False,
    ) -> Publish:
        """Any message but a dataframe. `trusted` skips the check of known fields: a relayed bot may be older or newer.

        Raises:
            PublishRefused: what is wrong with it, in one line.
        """
        data, body = canonical(data)
        if not trusted:
            view(topic, data)
        kind = delivery_class(topic)
        if kind is DeliveryClass.STATE:
            return _value(bot, topic, data, ts)
        if mid is not None or kind is DeliveryClass.LEDGER:
            _check_mid(mid)
        if kind is DeliveryClass.LEDGER and ts < now_ms - self.dedupe_ms:
            raise IdExpired(f"{topic}: ts is older than the {self.dedupe_ms} ms for which ids are remembered")
        entry = Entry(bot, topic, ts, body, mid=str(mid) if mid else None, publisher=publisher)
        return LogPublish(entry, kind is DeliveryClass.LEDGER)

    def _frame(self, bot: str, item: Mapping[str, Any], wire: Wire, ts: int) -> FramePublish:
        key = frame_key(item.get("key"))
        data = item.get("data")
        if not isinstance(data, Mapping):
            raise BadFrame("analyzed_df.data: expected a map with rows, or with n and cols")
        schema = self._schema(item.get("schema"))
        kind: Literal["json", "msgpack"] = "msgpack" if wire is Wire.MSGPACK else "json"
        la_ms = check_la_ms(data.get("la_ms", ts))
        if "rows" in data:
            return FramePublish(bot, key, v2.from_rows(schema, data["rows"], kind), False, la_ms, ts)
        columns = v2.from_columns(schema, data.get("n"), data.get("cols"), kind)
        return FramePublish(bot, key, columns, True, la_ms, ts)

    def _schema(self, named: Any) -> Schema:
        if isinstance(named, str):
            known = self._schemas.get(named)
            if known is None:
                raise BadFrame(f"schema {named[:40]!r}: not known here; send the schema itself")
            self._schemas.move_to_end(named)
            return known
        schema = Schema.from_data(named)
        if schema.id in self._schemas:
            self._schemas.move_to_end(schema.id)
            return self._schemas[schema.id]
        self._schemas[schema.id] = schema
        self.schema_bytes += _schema_bytes(schema)
        while self.schema_bytes > SCHEMA_BYTES and len(self._schemas) > 1:
            self.schema_bytes -= _schema_bytes(self._schemas.popitem(last=False)[1])
        return schema

    def statistics(self) -> dict[str, int]:
        """Figures: schemas, schema_bytes and their bound."""
        return {
            "schemas": len(self._schemas),
            "schema_bytes": self.schema_bytes,
            "schema_limit_bytes": SCHEMA_BYTES,
        }


def _schema_bytes(schema: Schema) -> int:
    return sum(SCHEMA_FIELD_BYTES + 4 * len(field.name) for field in schema.fields)


def _value(bot: str, topic: str, data: Any, ts: int) -> ValuePublish:
    if topic == "new_candle":
        return ValuePublish(bot, topic, frame_key(data), data, ts)
    if not isinstance(data, list) or not all(isinstance(pair, str) for pair in data):
        raise BadMessage("whitelist: expected a list of pairs")
    return ValuePublish(bot, topic, None, data, ts)


def frame_key(key: Any) -> FrameKey:
    """A dataframe's key as it may be.

    Raises:
        BadMessage: it is none; the text says what was expected.
    """
    if not isinstance(key, list | tuple) or len(key) != 3 or not all(isinstance(part, str) for part in key):
        raise BadMessage("key: expected [pair, timeframe, candle_type]")
    if not all(1 <= _size(part) <= NAME_LIMIT_BYTES for part in key):
        raise BadMessage(f"key: expected each part to have 1 to {NAME_LIMIT_BYTES} bytes")
    timeframe_ms(key[1])
    return FrameKey(*key)


def check_la_ms(la_ms: Any) -> int:
    """When a bot analyzed a frame, as it may be.

    Raises:
        BadFrame: it is no time.
    """
    if isinstance(la_ms, bool) or not isinstance(la_ms, int):
        raise BadFrame("analyzed_df.data.la_ms: expected ms since 1970 as an integer")
    return la_ms


def check_time(ts: Any, now_ms: int) -> int:
    """When a message happened, as it may be; now when it is not given.

    Raises:
        BadMessage: it is no time, or lies more than a day ahead.
    """
    if ts is None:
        return now_ms
    if isinstance(ts, bool) or not isinstance(ts, int) or not 0 <= ts <= now_ms + MAX_FUTURE_MS:
        raise BadMessage("ts: expected ms since 1970 as an integer, at most a day ahead")
    return ts


def _size(text: str) -> int:
    """Bytes of UTF-8; 0 for what UTF-8 cannot carry."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return 0


def _check_mid(mid: object) -> None:
    if not isinstance(mid, str) or not 1 <= _size(mid) <= NAME_LIMIT_BYTES:
        raise BadMessage(
            f"mid: expected a string of 1 to {NAME_LIMIT_BYTES} bytes, unique for this publisher"
        )
