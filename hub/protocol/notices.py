"""What the hub says of itself on tradewire.v2, one Struct for each, and the rows of dataframes.

They say how a notice looks (docs/wire-protocol.md, Notices; the AsyncAPI document is made of them). `hub.core.notices` builds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = ["NOTICES", "CandleComplete", "ErrorData", "LiveRows", "Snapshot"]


class _Notice(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    pass


class ErrorData(msgspec.Struct, frozen=True, kw_only=True):
    """A refusal. `temporary`: the same request may succeed later. Codes are an open set."""

    code: str
    message: str
    temporary: bool
    id: int | None = None
    retry_after_ms: int | None = None
    data: dict[str, Any] | None = None


class WelcomePrincipal(msgspec.Struct, frozen=True, kw_only=True):
    """Whom the hub takes the client for, and its rights, such as read:alpha."""

    name: str
    scopes: list[str]


class WelcomeData(msgspec.Struct, frozen=True, kw_only=True):
    """The hub, the session, and the ledger: its offsets are in (floor, head]. Times are ms since 1970 UTC."""

    hub: str
    protocol: int
    node: str
    session: str
    now_ms: int
    epoch: str
    floor: int
    head: int
    principal: WelcomePrincipal
    expires_ms: int | None
    heartbeat_ms: int
    features: list[str]
    limits: dict[str, int]


class Welcome(_Notice, frozen=True, kw_only=True, tag="hub.welcome"):
    """The first frame of every session."""

    data: WelcomeData


class Gap(_Notice, frozen=True, kw_only=True, tag="hub.gap", rename={"begin": "from", "end": "to"}):
    """The offsets in (from, to] are lost to the session. `reason`: "retention" overtook it, or the record is "damaged"."""

    epoch: str
    begin: int
    end: int
    reason: str


class LedgerPosition(_Notice, frozen=True, kw_only=True, tag="hub.position", rename={"begin": "from"}):
    """Of the subscription, the last messages in (from, offset] are `heads`, each [bot, topic, offset]; others have none there."""

    epoch: str
    begin: int
    offset: int
    heads: list[tuple[str, str, int]]


class DroppedData(msgspec.Struct, frozen=True, kw_only=True):
    """How many, by topic."""

    topics: dict[str, int]


class Dropped(_Notice, frozen=True, kw_only=True, tag="hub.dropped"):
    """Events that the session lost since the last such notice."""

    data: DroppedData


class LaggingData(msgspec.Struct, frozen=True, kw_only=True):
    """How far behind, and the limit."""

    messages: int
    bytes: int
    limit_bytes: int


class Lagging(_Notice, frozen=True, kw_only=True, tag="hub.lagging"):
    """The session's unsent ledger messages are half-way to the limit."""

    data: LaggingData


class ConflatedData(msgspec.Struct, frozen=True, kw_only=True):
    """Changes that were merged, and of how many keys."""

    keys: int
    merged: int


class Conflated(_Notice, frozen=True, kw_only=True, tag="hub.conflated"):
    """State changes that were joined for this session since the last such notice."""

    data: ConflatedData


class TokenExpiringData(msgspec.Struct, frozen=True, kw_only=True):
    """When, in ms since 1970 UTC."""

    expires_ms: int


class TokenExpiring(_Notice, frozen=True, kw_only=True, tag="hub.token_expiring"):
    """The credential ends soon; `auth` replaces it."""

    data: TokenExpiringData


class HeartbeatData(msgspec.Struct, frozen=True, kw_only=True):
    """The hub's time in ms since 1970 UTC."""

    now_ms: int


class Heartbeat(_Notice, frozen=True, kw_only=True, tag="hub.heartbeat"):
    """Something to hear for clients that cannot see pings."""

    data: HeartbeatData


class SchemaData(msgspec.Struct, frozen=True, kw_only=True):
    """`[name, dtype, zone?]` of each column, and the name of the date column."""

    columns: list[list[str]]
    index: str


class SchemaNotice(_Notice, frozen=True, kw_only=True, tag="hub.schema"):
    """What a schema id means; precedes its first use in a session."""

    schema: str
    data: SchemaData


class ErrorNotice(_Notice, frozen=True, kw_only=True, tag="hub.error"):
    """An error that answers no request with an `id`."""

    data: ErrorData


class DrainData(msgspec.Struct, frozen=True, kw_only=True):
    """When to come back, and when the connection is closed, both in ms from now."""

    reconnect_after_ms: int
    deadline_ms: int


class Drain(_Notice, frozen=True, kw_only=True, tag="hub.drain"):
    """The hub stops: what is owed is still sent, nothing is taken."""

    data: DrainData


class BotOnlineData(msgspec.Struct, frozen=True, kw_only=True):
    """Which bot, and whether it can be reached."""

    bot: str
    online: bool


class BotOnline(_Notice, frozen=True, kw_only=True, tag="hub.bot"):
    """The hub's link to a bot went up or down."""

    data: BotOnlineData


class BotCallData(msgspec.Struct, frozen=True, kw_only=True):
    """A request of the bot's REST, by number; `principal` is who asks."""

    call: int
    method: str
    path: str
    query: str
    body: Any
    deadline_ms: int
    principal: str
    key: str | None = None


class BotCall(_Notice, frozen=True, kw_only=True, tag="hub.call"):
    """To an attached bot, which answers with `result`."""

    data: BotCallData


class BotCancelData(msgspec.Struct, frozen=True, kw_only=True):
    """The number of the call."""

    call: int


class BotCancel(_Notice, frozen=True, kw_only=True, tag="hub.cancel"):
    """To an attached bot: nobody waits for this result any more."""

    data: BotCancelData


NOTICES: Mapping[str, type[msgspec.Struct]] = {
    str(cls.__struct_config__.tag): cls
    for cls in (
        Welcome,
        Gap,
        LedgerPosition,
        Dropped,
        Lagging,
        Conflated,
        TokenExpiring,
        Heartbeat,
        SchemaNotice,
        ErrorNotice,
        Drain,
        BotOnline,
        BotCall,
        BotCancel,
    )
}
"""Every notice by its type."""


class CandleComplete(msgspec.Struct, frozen=True, kw_only=True):
    """The data of `hub.candle_complete`: a candle of a bot is in, but for the pairs in `missing`."""

    bot: str
    timeframe: str
    candle_ms: int
    pairs: list[str]
    missing: list[str]
    deadline: bool


class LiveRows(msgspec.Struct, frozen=True, kw_only=True):
    """Rows to join to a dataframe by date, each a list in the order of the schema's columns."""

    schema: str
    rows: list[list[Any]]
    la_ms: int


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The `n` rows of a part of a snapshot as columns, in the order of the schema."""

    schema: str
    n: int
    cols: list[list[Any]]
    la_ms: int
