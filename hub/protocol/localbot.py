"""LocalBot: what a bot must offer so that the consumer can feed it, and what it is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec

from hub.protocol.botapi import BotAPI
from hub.protocol.envelope import Position
from hub.protocol.known import Fingerprint, Known
from hub.protocol.messages import AnalyzedDf, FrameKey, Message

__all__ = [
    "Advanced",
    "AskableBot",
    "BotContext",
    "CandleComplete",
    "Connected",
    "Delivery",
    "Disconnected",
    "LocalBot",
    "Lost",
    "PositionStore",
    "Repeated",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """The producer is reachable (again). `resumed` tells whether nothing of the ledger was missed meanwhile."""

    producer: str
    resumed: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected:
    """The producer is out of reach; the consumer keeps trying."""

    producer: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Messages are gone for good: the hub said so. `last` is None where the hub cannot tell how many.

    `epoch` is that of `first` and `last`, where a hub told them; after a cut it is one that ended.
    """

    producer: str
    topics: tuple[str, ...]
    first: int | None
    last: int | None
    reason: str
    epoch: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Advanced:
    """Everything of this subscription up to `position` came before this: the place to resume from, once that was acted on.

    With `anew` what was known before is void: it was of another epoch, or of a ledger that is shorter now; but where `same` is set
    the offsets up to it mean the same messages in its epoch and in that of `position`, and what was known of them stays. A local
    bot is not given these; the feed stores them.
    """

    producer: str
    position: Position
    anew: bool = False
    same: Position | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """The ledger message of this delivery came before, in another epoch: its writer published it again to a hub that had lost it.

    A local bot is not given these; the feed stores their positions.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class CandleComplete:
    """All pairs of a candle are in, or are known to be missing. Times in ms since 1970 UTC."""

    timeframe: str
    candle_ms: int
    pairs: tuple[str, ...]
    missing: tuple[str, ...]
    deadline: bool


def _committed() -> None:
    """Of a delivery that nothing is kept of."""


class Delivery(msgspec.Struct, kw_only=True):
    """One message for a local bot. Nobody changes it, but for the feed, which sets `commit` before it hands it over.

    `producer` is the configured name of the connection it came by, `bot` the bot that published it (the producer's name on
    freqtrade's wire, which names no bot). `message` is the typed message: for analyzed_df an AnalyzedDf whose `df` is a
    hub.frames Columns of the rows that changed, oldest first (all of them where `snapshot` is set). `payload` is the
    canonical payload as received (None for dataframes), with every field that `message` does not know. `position` is set on
    ledger messages of a hub, and with it `base`: the offset to resume from (docs/wire-protocol.md, The ledger), `mid`: what their
    writer calls them, and `fingerprint`, of that and of the content: by its `digest` a PositionStore knows them again in another
    epoch. `commit`
    says that the effect is durable, of this and of all deliveries before it; returning from `handle` without an exception says so
    too. A bot that saves the delivery to a PositionStore in the same transaction as its effect acts exactly once.
    """

    producer: str
    bot: str
    topic: str
    message: Message | CandleComplete | Connected | Disconnected | Lost | Advanced | Repeated
    ts_ms: int | None = None
    key: FrameKey | None = None
    position: Position | None = None
    base: int | None = None
    mid: str | None = None
    fingerprint: Fingerprint | None = None
    snapshot: bool = False
    payload: Any = None
    commit: Callable[[], None] = _committed

    @property
    def digest(self) -> str | None:
        """What a ledger message is known by in another epoch (`Known.recent`)."""
        return self.fingerprint.digest if self.fingerprint is not None else None


@runtime_checkable
class PositionStore(Protocol):
    """Where a bot keeps, in its own database, what it has acted on. It returns one from `start`.

    The bot's part is to save each delivery with a position in the transaction of its effect; how, is the store's own
    (`consumer.stores`). The rest is called by the feed, `load` in the event loop once `start` returned, the others where `handle`
    runs, never while it does, and not after it failed. Each raises a ConsumerError when the database cannot be used, or when a
    later run has loaded the positions.
    """

    def load(self, producer: str) -> Known | None:
        """What was acted on of a producer's ledger; None: nothing yet. From now on no earlier run can save any more."""

    def saved(self, delivery: Delivery) -> bool:
        """Whether the bot has saved this delivery, or a later one of its stream."""

    def advance(self, producer: str, known: Known, *, anew: bool = False) -> None:
        """Store `known` in a transaction of its own; within an epoch nothing is turned back by it, unless `anew`."""


class BotContext(Protocol):
    """What a local bot may use while it runs."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The whole configuration file."""

    @property
    def data_dir(self) -> Path:
        """Where the bot keeps its files; it is there, and this run holds it alone."""

    @property
    def name(self) -> str:
        """The bot's own name, under which it publishes."""

    async def publish(self, topic: str, data: Any, *, mid: str, kept: bool = False) -> Position | None:
        """Publish under the bot's name; returns once the hub acknowledged (the position, for ledger topics).

        Waits through reconnects and while the hub has no room; a new_candle is refused then (PublishError, temporary). Without a
        hub to publish to, returns None at once. A whitelist is published again to a hub that restarted. A ledger message is kept on
        disk meanwhile, so that a later run publishes it if this one dies; not with `kept`: the bot keeps it by itself until this
        returns. A `mid` that says what the message is of (`f"{trade_id}/{order_id}/fill"`) makes it harmless to publish it again.
        """

    async def reload(self, check: Callable[[Mapping[str, Any], str], object] | None = None) -> None:
        """Read the configuration file again and begin anew with it; of the event loop.

        The file is read at once; `check` gets the whole configuration and the bot's name in it, in a thread, and raises what a
        start would when the bot cannot run with it. Then this run ends between two deliveries, as by a signal: `stop` is called,
        and a new bot is made and started in the same process. What the hub asked before, over REST, is answered before.

        Raises:
            BotError: there is no file, or it cannot be used (the text names the key); this run goes on as if nothing was asked.
        """

    def get_producer_pairs(self, producer_name: str = "default") -> list[str]:
        """The producer's whitelist."""

    def analyzed_df(self, key: FrameKey, producer_name: str = "default") -> AnalyzedDf | None:
        """The producer's newest frame of `key`, None when there is none: `df` is a hub.frames Columns, a copy of all held rows.

        `producer_name` is the configured name, or `name/bot` for one bot of several. From any thread.
        """


@runtime_checkable
class LocalBot(Protocol):
    """A bot in the consumer's process. `handle` may be a coroutine function, or a plain one, which then runs in a thread.

    Deliveries come one at a time, in order. An exception from `handle`, SystemExit included, ends the run with one line that
    names it and its place: what was not committed is delivered again after a restart, as far as its class promises.

    A run ends between two deliveries: what `handle` is at may finish, for 30 s, and so may `stop`; then the run ends with an
    error. A coroutine must not block: nothing else runs meanwhile, not even the answer to Ctrl-C.
    """

    async def start(self, context: BotContext) -> PositionStore | Position | None:
        """Make ready; returns where what the bot has acted on is kept, or how far that is in the one ledger that it follows.

        None: the feed keeps it in a file, and the bot may see a message again after a crash.
        """

    def handle(self, delivery: Delivery) -> Awaitable[None] | None:
        """Act on one message."""

    async def stop(self) -> None:
        """Flush and release. Called once, also after an exception, and when a plain `handle` never returned."""


@runtime_checkable
class AskableBot(Protocol):
    """A local bot that also answers REST. Where it publishes to a hub, the hub answers for it under /bots/NAME/api/v1."""

    def api(self) -> BotAPI:
        """What REST asks; called once the bot has started. It is asked in the event loop until `stop`, and must not block it."""
