"""What a session wants: the filter of a subscription, parsed, checked and matched, and where a client was before.

A subscription is hashable: sessions of one wire with an equal subscription and equal rights share frames. Names are matched
exactly; only `columns` has a pattern (`*`). Pairs are never parsed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from hub.protocol.errors import BadFilter, OverlappingItems, RequestError
from hub.protocol.messages import STATE_TOPICS, TOPICS, DeliveryClass, FrameKey, delivery_class
from hub.protocol.principal import EVERY_BOT

__all__ = [
    "HUB_TOPICS",
    "LINEAGE",
    "WHOLE",
    "Item",
    "Projection",
    "Resume",
    "Subscription",
    "names_of",
    "parse_resume",
    "parse_want",
]

HUB_TOPICS = frozenset({"hub.candle_complete"})
LINEAGE = "lineage"
"""How the welcome's and hello's `features` name that a resume may be of an earlier epoch."""
"""The hub's own broadcasts that a client may subscribe to."""

MAX_NAMES = 10_000
MAX_NAMES_IN_ALL = 20_000
"""Names of all items together: what a subscription takes in memory is bounded by it."""


class Projection(msgspec.Struct, frozen=True):
    """The part of a frame that a session gets: `columns` as patterns (None: all), and at most `rows` rows at first."""

    columns: tuple[str, ...] | None = None
    rows: int | None = None


WHOLE = Projection()


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One filter: everything that matches each named field. None means all, now and later."""

    topics: frozenset[str]
    bots: frozenset[str] | None = None
    pairs: frozenset[str] | None = None
    timeframes: frozenset[str] | None = None
    candle_types: frozenset[str] | None = None
    projection: Projection = WHOLE

    def takes(self, bot: str, topic: str) -> bool:
        """Whether messages of this bot and topic pass, keys aside."""
        return topic in self.topics and (self.bots is None or bot in self.bots)

    def takes_key(self, key: FrameKey) -> bool:
        """Whether the key passes."""
        return (
            (self.pairs is None or key.pair in self.pairs)
            and (self.timeframes is None or key.timeframe in self.timeframes)
            and (self.candle_types is None or key.candle_type in self.candle_types)
        )

    def overlaps(self, other: Item) -> bool:
        """Whether some key of a state topic could match both."""
        if STATE_TOPICS.isdisjoint(self.topics & other.topics):
            return False
        mine = (self.bots, self.pairs, self.timeframes, self.candle_types)
        theirs = (other.bots, other.pairs, other.timeframes, other.candle_types)
        return all(a is None or b is None or not a.isdisjoint(b) for a, b in zip(mine, theirs, strict=True))

    @property
    def names(self) -> int:
        """How many names it lists."""
        lists = (self.topics, self.bots, self.pairs, self.timeframes, self.candle_types)
        return sum(len(names) for names in (*lists, self.projection.columns) if names is not None)


class Subscription(msgspec.Struct, frozen=True):
    """All that a session wants and may have. `reads` are the principal's bots, so rights are part of the group."""

    items: tuple[Item, ...] = ()
    reads: frozenset[str] = EVERY_BOT

    def wants(self, bot: str, topic: str) -> bool:
        """Whether messages of this stream are delivered, keys aside."""
        return ("*" in self.reads or bot in self.reads) and any(i.takes(bot, topic) for i in self.items)

    def projection(self, bot: str, topic: str, key: FrameKey | None) -> Projection | None:
        """The part of this state key that is delivered, or None for nothing."""
        if not ("*" in self.reads or bot in self.reads):
            return None
        for item in self.items:
            if item.takes(bot, topic) and (key is None or item.takes_key(key)):
                return item.projection
        return None

    @property
    def topics(self) -> frozenset[str]:
        """All topics named."""
        return frozenset().union(*(i.topics for i in self.items))


def parse_want(want: Any) -> tuple[tuple[Item, ...], list[str]]:
    """The items of a subscribe request, and the topics in it that this hub does not know.

    Unknown topics stay wanted: a bot of a newer version may publish them.

    Raises:
        BadFilter: an item is no filter; the text names item and field. OverlappingItems: two items could match the same
            state key with different columns or rows.
    """
    if not isinstance(want, list):
        raise BadFilter("want: expected a list of items")
    items = tuple(_item(raw, f"want[{i}]") for i, raw in enumerate(want))
    if sum(item.names for item in items) > MAX_NAMES_IN_ALL:
        raise BadFilter(f"want: expected at most {MAX_NAMES_IN_ALL} names in all items together")
    for i, a in enumerate(items):
        for j in range(i + 1, len(items)):
            if a.projection != items[j].projection and a.overlaps(items[j]):
                raise OverlappingItems(
                    f"want[{i}] and want[{j}] match the same keys with different columns or rows"
                )
    named = frozenset().union(*(i.topics for i in items))
    return items, sorted(named - TOPICS - HUB_TOPICS)


def _item(raw: Any, path: str) -> Item:
    if not isinstance(raw, Mapping):
        raise BadFilter(f"{path}: expected a map")
    if raw.get("topics") in ("*", ["*"]):
        raise BadFilter(
            f'{path}.topics: expected topics by name, such as "entry_fill"; there is no "*" for them'
        )
    topics = names_of(raw.get("topics"), f"{path}.topics")
    if topics is None:
        raise BadFilter(f"{path}.topics: expected a list of topics")
    _check_state_only(raw, topics, path)
    return Item(
        topics=topics,
        bots=names_of(raw.get("bots"), f"{path}.bots"),
        pairs=names_of(raw.get("pairs"), f"{path}.pairs"),
        timeframes=names_of(raw.get("timeframes"), f"{path}.timeframes"),
        candle_types=names_of(raw.get("candle_types"), f"{path}.candle_types"),
        projection=Projection(_columns(raw.get("columns"), path), _rows(raw.get("rows"), path)),
    )


def _check_state_only(raw: Mapping[str, Any], topics: Iterable[str], path: str) -> None:
    narrowed = [
        name
        for name in ("pairs", "timeframes", "candle_types", "columns", "rows")
        if raw.get(name) not in (None, "*")
    ]
    ledger = sorted(t for t in topics if delivery_class(t) is DeliveryClass.LEDGER)
    if narrowed and ledger:
        raise BadFilter(
            f"{path}.{narrowed[0]}: not with the ledger topic {ledger[0]}; filter fills in the consumer"
        )


class Resume(msgspec.Struct, frozen=True):
    """Where a client was: everything up to `offset` of `epoch`, and the state keys it holds, each with (rev_epoch, n)."""

    epoch: str
    offset: int
    keys: Mapping[tuple[str, str, FrameKey | str | None], tuple[str, int]]


def parse_resume(raw: Any, max_keys: int) -> Resume | None:
    """`resume` of a subscribe request; None where there is none. A position is checked for its shape alone: whether it is one
    of this ledger is for the ledger to say.

    Raises:
        RequestError: it has another shape; the text names the field.
    """
    if raw is None:
        return None
    if not isinstance(raw, Mapping):
        raise RequestError("resume: expected {epoch, offset, keys?}")
    if not isinstance(raw.get("epoch"), str):
        raise RequestError("resume.epoch: expected a string")
    if not _is_offset(raw.get("offset")):
        raise RequestError("resume.offset: expected an integer from 0 to 2**53-1")
    keys = raw.get("keys")
    if keys is not None and (not isinstance(keys, list) or len(keys) > max_keys):
        raise RequestError(
            f"resume.keys: expected a list of at most {max_keys} [bot, topic, key, rev_epoch, n]"
        )
    return Resume(raw["epoch"], raw["offset"], dict(_held_key(item) for item in keys or ()))


def _held_key(raw: Any) -> tuple[tuple[str, str, FrameKey | str | None], tuple[str, int]]:
    if isinstance(raw, list) and len(raw) >= 5 and isinstance(raw[2], list) and len(raw[2]) in (0, 3):
        bot, topic, key, rev_epoch, n = raw[:5]
        texts = (bot, topic, *key, rev_epoch)
        if all(isinstance(text, str) for text in texts) and _is_offset(n):
            return (bot, topic, FrameKey(*key) if key else None), (rev_epoch, n)
    raise RequestError(
        "resume.keys: expected [bot, topic, [pair, timeframe, candle_type] or [], rev_epoch, n] in each"
    )


def _is_offset(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def names_of(value: Any, path: str) -> frozenset[str] | None:
    """A list of names of a request; None for `"*"` or nothing at all: every name.

    Raises:
        BadFilter: it is neither, or has more than MAX_NAMES; the text begins with `path`.
    """
    if value is None or value == "*":
        return None
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise BadFilter(f'{path}: expected "*" or a list of names')
    if "*" in value:
        raise BadFilter(f'{path}: "*" is no name; for all of them it stands in place of the list')
    if len(value) > MAX_NAMES:
        raise BadFilter(f"{path}: expected at most {MAX_NAMES} names, got {len(value)}")
    return frozenset(value)


def _columns(value: Any, path: str) -> tuple[str, ...] | None:
    names = names_of(value, f"{path}.columns")
    return None if names is None else tuple(sorted(names))


def _rows(value: Any, path: str) -> int | None:
    if value is None or value == "*":
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadFilter(f"{path}.rows: expected a whole number from 1")
    return value
