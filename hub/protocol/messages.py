"""The messages of bots: one typed Struct for each of freqtrade 2026.9's 17 types, and the registry of topics.

The canonical payload of a message is the mapping as received. A Struct is a validated *view* of it (`view`): fields that
freqtrade does not have in this version stay in the mapping, survive every hop, and are `message.extra` here. A Struct is
never encoded in place of its mapping.

Source of the fields: freqtrade 2026.9 as observed (docs/wire-protocol.md, Messages). Fields that every version of freqtrade
sends and without which a consumer cannot act are required; the others may be absent in older or newer peers and are None.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any, ClassVar, TypeVar

import msgspec

from hub.protocol.errors import BadMessage, UnknownTopic

__all__ = [
    "BARE_DATA",
    "LEDGER_TOPICS",
    "REGISTRY",
    "STATE_TOPICS",
    "TOPICS",
    "AnalyzedDf",
    "DeliveryClass",
    "Entry",
    "EntryCancel",
    "EntryFill",
    "ExceptionMessage",
    "Exit",
    "ExitCancel",
    "ExitFill",
    "FrameKey",
    "GenericMessage",
    "LiquidationWarning",
    "Message",
    "NewCandle",
    "ProtectionTrigger",
    "ProtectionTriggerGlobal",
    "Startup",
    "Status",
    "StrategyMsg",
    "Warning_",
    "Whitelist",
    "check_name",
    "delivery_class",
    "view",
]

NAME_LIMIT_BYTES = 64
M = TypeVar("M", bound="Message")


class DeliveryClass(Enum):
    """How a topic is delivered (docs/wire-protocol.md, Delivery classes)."""

    LEDGER = "ledger"
    STATE = "state"
    EVENT = "event"


class FrameKey(msgspec.Struct, frozen=True, array_like=True, order=True):
    """The key of a dataframe: `[pair, timeframe, candle_type]`. `pair` is never parsed: symbols hold `/`, `:` and `-`."""

    pair: str
    timeframe: str
    candle_type: str


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every message. `extra` holds the fields that this version does not know."""

    topic: ClassVar[str] = ""
    delivery: ClassVar[DeliveryClass] = DeliveryClass.EVENT

    extra: dict[str, Any] = msgspec.field(default_factory=dict, name="(extra)")

    @property
    def type(self) -> str:
        """The message's type on the wire."""
        return type(self).topic


class GenericMessage(Message, frozen=True, kw_only=True):
    """A message without a Struct: a type of a newer peer, or a body that does not fit its type (`problem` says how)."""

    name: str
    data: Any = None
    problem: str | None = None

    @property
    def type(self) -> str:
        return self.name


class _Trade(Message, frozen=True, kw_only=True):
    delivery: ClassVar[DeliveryClass] = DeliveryClass.LEDGER

    trade_id: int
    pair: str
    exchange: str | None = None
    leverage: float | None = None
    direction: str | None = None
    limit: float | None = None
    order_rate: float | None = None
    order_type: str | None = None
    open_rate: float | None = None
    amount: float | None = None
    open_date: datetime | None = None
    current_rate: float | None = None
    buy_tag: str | None = None
    enter_tag: str | None = None
    stake_amount: float | None = None
    stake_currency: str | None = None
    base_currency: str | None = None
    quote_currency: str | None = None
    fiat_currency: str | None = None
    sub_trade: bool | None = None


class Entry(_Trade, frozen=True, kw_only=True):
    """An entry order was placed."""

    topic: ClassVar[str] = "entry"


class EntryFill(_Trade, frozen=True, kw_only=True):
    """An entry order was filled."""

    topic: ClassVar[str] = "entry_fill"


class EntryCancel(_Trade, frozen=True, kw_only=True):
    """An entry order was cancelled. freqtrade sends `open_date` without an offset here: it is UTC."""

    topic: ClassVar[str] = "entry_cancel"

    reason: str | None = None


class _Exit(_Trade, frozen=True, kw_only=True):
    gain: str | None = None
    profit_amount: float | None = None
    profit_ratio: float | None = None
    exit_reason: str | None = None
    close_date: datetime | None = None


class _ExitOrder(_Exit, frozen=True, kw_only=True):
    close_rate: float | None = None
    cumulative_profit: float | None = None
    final_profit_ratio: float | None = None
    is_final_exit: bool | None = None


class Exit(_ExitOrder, frozen=True, kw_only=True):
    """An exit order was placed."""

    topic: ClassVar[str] = "exit"


class ExitFill(_ExitOrder, frozen=True, kw_only=True):
    """An exit order was filled."""

    topic: ClassVar[str] = "exit_fill"


class ExitCancel(_Exit, frozen=True, kw_only=True):
    """An exit order was cancelled. Its dates carry no offset in freqtrade: they are UTC."""

    topic: ClassVar[str] = "exit_cancel"

    reason: str | None = None


class _Protection(Message, frozen=True, kw_only=True):
    delivery: ClassVar[DeliveryClass] = DeliveryClass.LEDGER

    pair: str
    id: int | None = None
    base_currency: str | None = None
    lock_time: str | None = None
    lock_timestamp: int | None = None
    lock_end_time: str | None = None
    lock_end_timestamp: int | None = None
    reason: str | None = None
    side: str | None = None
    active: bool | None = None


class ProtectionTrigger(_Protection, frozen=True, kw_only=True):
    """A protection locked one pair."""

    topic: ClassVar[str] = "protection_trigger"


class ProtectionTriggerGlobal(_Protection, frozen=True, kw_only=True):
    """A protection locked all pairs."""

    topic: ClassVar[str] = "protection_trigger_global"


class LiquidationWarning(Message, frozen=True, kw_only=True):
    """A futures position is near its liquidation price."""

    topic: ClassVar[str] = "liquidation_warning"
    delivery: ClassVar[DeliveryClass] = DeliveryClass.LEDGER

    trade_id: int
    pair: str
    exchange: str | None = None
    margin_mode: str | None = None
    base_currency: str | None = None
    quote_currency: str | None = None
    direction: str | None = None
    leverage: float | None = None
    current_rate: float | None = None
    liquidation_price: float | None = None
    remaining_ratio: float | None = None
    warn_ratio: float | None = None
    positions_at_risk: int | None = None
    open_positions: int | None = None


class Status(Message, frozen=True, kw_only=True):
    """The bot's state changed."""

    topic: ClassVar[str] = "status"

    status: str


class Warning_(Message, frozen=True, kw_only=True):  # noqa: N801
    """A warning of the bot."""

    topic: ClassVar[str] = "warning"

    status: str


class Startup(Message, frozen=True, kw_only=True):
    """What the bot says of itself at its start, in Markdown."""

    topic: ClassVar[str] = "startup"

    status: str


class ExceptionMessage(Message, frozen=True, kw_only=True):
    """A fatal error of the bot (`status`), or freqtrade's answer to a bad websocket request (`data`)."""

    topic: ClassVar[str] = "exception"

    status: str | None = None
    data: Any = None


class StrategyMsg(Message, frozen=True, kw_only=True):
    """A message that a strategy sends."""

    topic: ClassVar[str] = "strategy_msg"

    msg: str


class Whitelist(Message, frozen=True, kw_only=True):
    """The pairs that the bot trades now. An empty list is data."""

    topic: ClassVar[str] = "whitelist"
    delivery: ClassVar[DeliveryClass] = DeliveryClass.STATE

    data: list[str]


class NewCandle(Message, frozen=True, kw_only=True):
    """A new candle of a key was analyzed; sent right behind its analyzed_df."""

    topic: ClassVar[str] = "new_candle"
    delivery: ClassVar[DeliveryClass] = DeliveryClass.STATE

    data: FrameKey


class AnalyzedDf(Message, frozen=True, kw_only=True):
    """Analyzed rows of a key. `df` is the encoded frame of the wire it came by; `la` when the bot analyzed it."""

    topic: ClassVar[str] = "analyzed_df"
    delivery: ClassVar[DeliveryClass] = DeliveryClass.STATE

    key: FrameKey
    df: Any = None
    la: datetime | None = None


REGISTRY: Mapping[str, type[Message]] = {
    cls.topic: cls
    for cls in (
        Status,
        Warning_,
        Startup,
        ExceptionMessage,
        StrategyMsg,
        Entry,
        EntryFill,
        EntryCancel,
        Exit,
        ExitFill,
        ExitCancel,
        ProtectionTrigger,
        ProtectionTriggerGlobal,
        LiquidationWarning,
        Whitelist,
        AnalyzedDf,
        NewCandle,
    )
}
"""Every topic of freqtrade 2026.9 and its Struct: the one registry."""

TOPICS = frozenset(REGISTRY)
LEDGER_TOPICS = frozenset(t for t, cls in REGISTRY.items() if cls.delivery is DeliveryClass.LEDGER)
STATE_TOPICS = frozenset(t for t, cls in REGISTRY.items() if cls.delivery is DeliveryClass.STATE)

# On v2 and in the canonical payload, `data` of these is freqtrade's `data`, not the flat fields.
BARE_DATA = frozenset({"whitelist", "new_candle"})

_EXTRA = "(extra)"
_FIELDS: Mapping[str, frozenset[str]] = {
    topic: frozenset(f.encode_name for f in msgspec.structs.fields(cls)) - {_EXTRA}
    for topic, cls in REGISTRY.items()
}


def delivery_class(topic: str) -> DeliveryClass:
    """The class of any topic; a type of a newer peer is an event."""
    cls = REGISTRY.get(topic)
    return cls.delivery if cls is not None else DeliveryClass.EVENT


def check_name(what: str, name: object) -> str:
    """A bot's or topic's name as it may be: a string of 1..64 bytes of UTF-8; a topic has no dot.

    Raises:
        UnknownTopic: for a topic. BadMessage: for anything else.
    """
    error = UnknownTopic if what == "topic" else BadMessage
    if not isinstance(name, str):
        raise error(f"{what}: expected a string, got {type(name).__name__}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise error(f"{what}: expected valid UTF-8") from None
    if not 1 <= size <= NAME_LIMIT_BYTES:
        raise error(f"{what}: expected 1 to {NAME_LIMIT_BYTES} bytes, got {size}")
    if what == "topic" and "." in name:
        raise error(f"topic {name!r}: names with a dot are the hub's own")
    return name


def view(topic: str, data: Any) -> Message:
    """The typed view of a canonical payload.

    `data` is what v2 carries under `data`: the flat fields, or the bare value for whitelist and new_candle.
    An unknown topic gives a GenericMessage.

    Raises:
        BadMessage: the payload does not fit its type; the text names the field.
    """
    cls = REGISTRY.get(topic)
    if cls is None:
        return GenericMessage(name=topic, data=data)
    if topic in BARE_DATA:
        data = {"data": data}
    if type(data) is not dict and not isinstance(data, Mapping):
        raise BadMessage(f"{topic}: expected a map of fields, got {type(data).__name__}")
    known = _FIELDS[topic]
    # A struct takes no notice of what it does not know, but for the name under which it keeps that.
    fields = {name: data[name] for name in data.keys() & known} if _EXTRA in data else data
    try:
        message = msgspec.convert(fields, cls)
    except msgspec.ValidationError as error:
        raise BadMessage(f"{topic}: {error}") from None
    if not known.issuperset(data):
        extra = {name: data[name] for name in data if name not in known}
        msgspec.structs.force_setattr(message, "extra", extra)
    return message
