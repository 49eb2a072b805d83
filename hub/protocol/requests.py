"""What a client sends, one Struct for each request of both wires, and what the data of its reply is.

They say how a request looks (docs/wire-protocol.md, Requests; the AsyncAPI document is made of them). Whether it is granted is the
core's to check, field by field and with its own words, so that a client is told the field. Unknown fields are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from hub.protocol.messages import FrameKey

__all__ = ["FREQTRADE_REQUESTS", "REPLIES", "REQUESTS", "Publish", "PublishItem", "PublishItems"]

Id = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
Offset = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Names = list[str] | Literal["*"] | None
Count = Annotated[int, msgspec.Meta(ge=1)]
StateKey = tuple[str, str, list[str]]


class _Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    id: Id | None = None


class HelloData(msgspec.Struct, frozen=True, kw_only=True):
    """The client's name, the largest frame that it takes, in bytes, and what it understands of what came later (`features`)."""

    client: str | None = None
    max_message: Annotated[int, msgspec.Meta(ge=512 * 1024, le=64 * 1024 * 1024)] = 1_048_576
    features: list[str] = []


class Hello(_Request, frozen=True, kw_only=True, tag="hello"):
    """What the client says of itself, before its first subscribe. No reply."""

    data: HelloData = HelloData()


class WantedItem(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that matches each named field; "*" and nothing at all are all that one may see, now and later.

    `*` in a column is any run of characters. `rows` is how many rows a snapshot has.
    """

    topics: list[str]
    bots: Names = None
    pairs: Names = None
    timeframes: Names = None
    candle_types: Names = None
    columns: Names = None
    rows: Count | Literal["*"] | None = None


class ResumeData(msgspec.Struct, frozen=True, kw_only=True):
    """The base of the client, and the state keys that it holds, each as `[bot, topic, key, rev_epoch, n]`."""

    epoch: str
    offset: Offset
    keys: list[tuple[str, str, list[str], str, Offset]] = []


class SubscribeData(msgspec.Struct, frozen=True, kw_only=True, rename={"start": "from"}):
    """The whole subscription, and where a connection's first one begins in the ledger."""

    want: list[WantedItem]
    resume: ResumeData | None = None
    start: Literal["live", "earliest"] = "live"


class Subscribe(_Request, frozen=True, kw_only=True, tag="subscribe"):
    """States the connection's one subscription anew."""

    data: SubscribeData


class Unsubscribe(_Request, frozen=True, kw_only=True, tag="unsubscribe"):
    """Ends the subscription."""

    data: dict[str, Any] | None = None


class ResyncData(msgspec.Struct, frozen=True, kw_only=True):
    """Keys as `[bot, topic, [pair, timeframe, candle_type]]`; `[]` is the key of a whitelist."""

    keys: list[StateKey]


class Resync(_Request, frozen=True, kw_only=True, tag="resync"):
    """Asks for snapshots of state keys."""

    data: ResyncData


class KeysData(msgspec.Struct, frozen=True, kw_only=True):
    """Of which bots and topics."""

    bots: Names = None
    topics: Names = None


class Keys(_Request, frozen=True, kw_only=True, tag="keys"):
    """Asks which state keys there are."""

    data: KeysData = KeysData()


class Ping(_Request, frozen=True, kw_only=True, tag="ping"):
    """Any map, which comes back with the hub's time."""

    data: dict[str, Any] | None = None


class AuthData(msgspec.Struct, frozen=True, kw_only=True):
    """A ws_token or an access JWT of the same principal."""

    token: str


class Auth(_Request, frozen=True, kw_only=True, tag="auth"):
    """Replaces the credential of the session."""

    data: AuthData


class PublishItem(msgspec.Struct, frozen=True, kw_only=True):
    """One message to publish. `mid` is required of ledger topics; `key` and `schema` belong to dataframes; times are ms since 1970."""

    bot: str
    topic: str
    data: Any = None
    mid: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    ts: int | None = None
    key: FrameKey | None = None
    schema: str | dict[str, Any] | None = None


class PublishItems(msgspec.Struct, frozen=True, kw_only=True):
    """Several messages in one request, answered with a list."""

    items: list[PublishItem]


class Publish(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="publish"):
    """Publishes one message or several: `data` is a PublishItem or PublishItems."""

    id: Id
    data: Any


class AttachData(msgspec.Struct, frozen=True, kw_only=True):
    """As which bot, and which `"METHOD /path"` it answers."""

    bot: str
    paths: Names = None


class Attach(_Request, frozen=True, kw_only=True, tag="attach"):
    """Answers the bot's REST over this connection from now on."""

    data: AttachData


class DetachData(msgspec.Struct, frozen=True, kw_only=True):
    """As which bot."""

    bot: str


class Detach(_Request, frozen=True, kw_only=True, tag="detach"):
    """Takes no more calls."""

    data: DetachData


class CallData(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a bot's REST. `path` is below /api/v1; `key` names what is to be done once, however often it is asked."""

    bot: str
    method: str
    path: str
    query: str = ""
    body: Any = None
    deadline_ms: Annotated[int, msgspec.Meta(ge=1, le=60_000)] = 10_000
    key: Annotated[str, msgspec.Meta(max_length=128)] | None = None


class Call(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="call"):
    """Asks the REST of a bot."""

    id: Id
    data: CallData


class CancelData(msgspec.Struct, frozen=True, kw_only=True):
    """The `id` of the call."""

    id: Id


class Cancel(_Request, frozen=True, kw_only=True, tag="cancel"):
    """Takes back a call of this connection."""

    data: CancelData


class ResultData(msgspec.Struct, frozen=True, kw_only=True):
    """The number of the call, an HTTP status and a JSON value."""

    call: int
    status: Annotated[int, msgspec.Meta(ge=200, le=599)]
    body: Any = None


class Result(_Request, frozen=True, kw_only=True, tag="result"):
    """What an attached bot answers to a call. No reply."""

    data: ResultData


# --- the data of replies


class Subscribed(msgspec.Struct, frozen=True, kw_only=True):
    """All of the ledger with a greater offset follows. The lists say what of the request does not hold, or not yet.

    `recovered` false has a `reason` ("retention", "cut", "epoch", "future"); `lost` are the first and last offset that retention
    took. After a cut: offsets up to `same` mean the same messages in the epoch that was resumed from; `cut` names what went, as
    (epoch, first, last), where a `last` of null is not known.
    """

    epoch: str
    offset: int
    recovered: bool | None
    reason: str | None = None
    lost: tuple[int, int] | None = None
    same: int | None = None
    cut: list[tuple[str, int, int | None]] = []
    unknown: list[str]
    missing: list[str]
    denied: list[str]
    missing_keys: list[tuple[str, str]] = []


class Resynced(msgspec.Struct, frozen=True, kw_only=True):
    """The keys that do not exist or are not subscribed, as they were asked for."""

    unknown: list[StateKey]


class KeysListed(msgspec.Struct, frozen=True, kw_only=True):
    """`[bot, topic, key, columns, rows, ts]` of each key; `more` when there are more than one reply holds."""

    keys: list[tuple[str, str, list[str], list[str], int, int]]
    more: bool


class Pong(msgspec.Struct, frozen=True, kw_only=True):
    """What was sent, and the hub's time in ms since 1970 UTC."""

    now_ms: int


class Authenticated(msgspec.Struct, frozen=True, kw_only=True):
    """When the new credential ends, in ms since 1970 UTC; null: never."""

    expires_ms: int | None


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """A ledger message has epoch, offset and duplicate; a state message its revision; an event nothing. Of a list, a refused
    item has its error."""

    epoch: str | None = None
    offset: int | None = None
    duplicate: bool | None = None
    rev: Any = None
    error: dict[str, Any] | None = None


class Attached(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing."""


class Detached(msgspec.Struct, frozen=True, kw_only=True):
    """Whether this connection was attached as the bot."""

    detached: bool


class Called(msgspec.Struct, frozen=True, kw_only=True):
    """What the bot answered."""

    status: int
    body: Any = None


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the call was in flight."""

    cancelled: bool


REPLIES: Mapping[type[msgspec.Struct], Any] = {
    Hello: None,
    Subscribe: Subscribed,
    Unsubscribe: Subscribed,
    Resync: Resynced,
    Keys: KeysListed,
    Ping: Pong,
    Auth: Authenticated,
    Publish: Published | list[Published],
    Attach: Attached,
    Detach: Detached,
    Call: Called,
    Cancel: Cancelled,
    Result: None,
}
"""Every request of tradewire.v2, and the type of its reply's data; None for those without a reply."""

REQUESTS: Mapping[str, type[msgspec.Struct]] = {str(cls.__struct_config__.tag): cls for cls in REPLIES}


# --- freqtrade's wire


class FreqtradeSubscribe(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="subscribe"):
    """Replaces the set of topics. An empty list or null keeps it. No reply."""

    data: list[str] | str | None = None


class FreqtradeWhitelist(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="whitelist"):
    """Asks for the whitelist; the data is not looked at. Answered with a `whitelist`."""

    data: Any = None


class FrameArguments(msgspec.Struct, frozen=True, kw_only=True):
    """How many of the newest rows (at most 1500), and of which pair; null: of every pair of the whitelist."""

    limit: int = 1500
    pair: str | None = None


class FreqtradeAnalyzedDf(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="analyzed_df"):
    """Asks for dataframes. Answered with an `analyzed_df` for each."""

    data: FrameArguments | Literal[""] | None = None


FREQTRADE_REQUESTS: Mapping[str, type[msgspec.Struct]] = {
    str(cls.__struct_config__.tag): cls
    for cls in (FreqtradeSubscribe, FreqtradeWhitelist, FreqtradeAnalyzedDf)
}
"""Every request of freqtrade's wire."""
