"""What clients ask: the requests of both wires. (Of calls: hub.core.call_requests. Of publish: hub.core.publish_requests.)

v2: every request with an `id` gets exactly one reply; without one only errors are told. freqtrade's wire: no reply to
subscribe; whitelist and analyzed_df are answered from the hub's own cells, so that any number of consumers costs a producer nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hub.core import notices
from hub.core.engine import Core
from hub.core.session import FrameRequest, Session
from hub.core.state import Cell, FrameCell, StateKey
from hub.protocol.close_codes import CloseCode
from hub.protocol.codec import Wire
from hub.protocol.envelope import reply, reply_error
from hub.protocol.errors import BadFilter, Forbidden, NotAMessage, RequestError, TokenExpired, UnknownRequest
from hub.protocol.messages import TOPICS, FrameKey
from hub.protocol.principal import Principal
from hub.protocol.subscription import (
    HUB_TOPICS,
    LINEAGE,
    Item,
    Subscription,
    names_of,
    parse_resume,
    parse_want,
)

__all__ = ["refuse", "request_id", "respond", "respond_auth"]

MIN_MESSAGE_BYTES = 512 * 1024
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_ID = 2**53 - 1
KEYS_REPLY_BYTES = 256 * 1024
LEGACY_MAX_ROWS = 1500
LEGACY_YOUNG_ROWS = 100


def respond(
    core: Core, session: Session, message: Mapping[str, Any], now_ms: int, limits: Mapping[str, int]
) -> None:
    """Do one request and queue what the session is told.

    Raises:
        NotAMessage: the client broke a rule of the envelope; the connection is closed.
    """
    if session.wire is Wire.FREQTRADE:
        _respond_legacy(core, session, message)
        return
    number = request_id(message)
    name, data = message["type"], message.get("data")
    try:
        handler = _REQUESTS.get(name)
        if handler is None:
            raise UnknownRequest(f"{name[:64]!r} is not a request of this hub")
        if data is not None and not isinstance(data, Mapping):
            raise RequestError(f"{name}.data: expected a map")
        handler(core, session, data or {}, number, {"now_ms": now_ms, **limits})
    except RequestError as error:
        refuse(session, number, error)


def respond_auth(
    core: Core,
    session: Session,
    message: Mapping[str, Any],
    authenticate: Callable[[bytes], Principal | None],
) -> None:
    """Take another credential for a session of v2. `authenticate`: whose a token is; None or a RequestError for nobody's.

    Raises:
        NotAMessage: as of `respond`.
    """
    number = request_id(message)
    data = message.get("data")
    token = data.get("token") if isinstance(data, Mapping) else None
    try:
        if not isinstance(token, str):
            raise RequestError("auth.token: expected a string")
        principal = authenticate(token.encode(errors="replace"))
        if principal is None:
            raise TokenExpired("auth.token: expected a valid token")
        core.reauthenticate(session, principal)
    except RequestError as error:
        refuse(session, number, error)
        return
    if number is not None:
        session.tell(reply(number, {"expires_ms": principal.expires_ms}))


def refuse(session: Session, number: int | None, error: RequestError) -> None:
    """Tell a session that its request is refused."""
    data = error.as_data()
    session.tell(reply_error(number, data) if number is not None else notices.error(data))


def request_id(message: Mapping[str, Any]) -> int | None:
    """The request's `id`, or None.

    Raises:
        NotAMessage: it is no integer from 1 to 2**53-1.
    """
    number = message.get("id")
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MAX_ID:
        raise NotAMessage("id: expected an integer from 1 to 2**53-1")
    return number


def _done(session: Session, number: int | None, data: Any) -> None:
    if number is not None:
        session.tell(reply(number, data))


# --- tradewire.v2


def _hello(
    core: Core, session: Session, data: Mapping[str, Any], number: int | None, at: Mapping[str, int]
) -> None:
    if session.group is not None:
        session.close(CloseCode.BAD_REQUEST, "hello: expected before the first subscribe")
        return
    size = data.get("max_message", session.max_message)
    if (
        isinstance(size, bool)
        or not isinstance(size, int)
        or not MIN_MESSAGE_BYTES <= size <= MAX_MESSAGE_BYTES
    ):
        raise RequestError(f"hello.max_message: expected {MIN_MESSAGE_BYTES} to {MAX_MESSAGE_BYTES} bytes")
    features = data.get("features", [])
    if not isinstance(features, list):
        raise RequestError("hello.features: expected a list of names")
    session.max_message = size
    # Of what a client names, only what this hub knows: any number of names must not stay.
    session.features = frozenset(name for name in features if name == LINEAGE)
    client = data.get("client")
    if isinstance(client, str):
        # A later hello replaces the name of an earlier one: it must not grow.
        session.client = f"{session.client.partition(' ')[0]} {client[:64]}"


def _ping(
    core: Core, session: Session, data: Mapping[str, Any], number: int | None, at: Mapping[str, int]
) -> None:
    _done(session, number, {**data, "now_ms": at["now_ms"]})


def _subscribe(
    core: Core, session: Session, data: Mapping[str, Any], number: int | None, at: Mapping[str, int]
) -> None:
    want = data.get("want")
    if isinstance(want, list) and len(want) > at["items"]:
        raise BadFilter(f"want: expected at most {at['items']} items, got {len(want)}")
    if data.get("from", "live") not in ("live", "earliest"):
        raise BadFilter('from: expected "live" or "earliest"')
    resume = parse_resume(data.get("resume"), at["keys"])
    if resume is not None and session.group is not None:
        raise RequestError("resume: this connection has a subscription already; connect anew to resume")
    items, unknown = parse_want(want)
    denied = _denied(session, items)
    items = tuple(item for item in items if item.bots is None or item.bots - set(denied))
    if want and not items:
        raise Forbidden("nothing is left of this subscription", data={"denied": denied})
    began = core.subscribe(
        session,
        Subscription(items, session.principal.reads),
        snapshots=True,
        resume=resume,
        earliest=data.get("from") == "earliest",
    )
    # The old subscription's last position was told by now, and nothing of the new one is sent before this reply.
    _done(
        session,
        number,
        {
            **began.as_data(core.epoch),
            "unknown": unknown,
            "missing": _missing(core, items),
            "missing_keys": _missing_keys(core, session, items),
            "denied": denied,
        },
    )


def _denied(session: Session, items: tuple[Item, ...]) -> list[str]:
    named = frozenset[str]().union(*(i.bots for i in items if i.bots is not None))
    return sorted(bot for bot in named if not session.principal.may_read(bot))


def _missing(core: Core, items: tuple[Item, ...]) -> list[str]:
    named = frozenset[str]().union(*(i.bots for i in items if i.bots is not None))
    return sorted(named - core.bots)


def _missing_keys(core: Core, session: Session, items: tuple[Item, ...]) -> list[list[str]]:
    """[topic, pair] of pairs that an item names and of which there is no key yet; they stay wanted.

    Keys of bots that the session may not read do not exist for it.
    """
    if not any(item.pairs for item in items):
        return []
    owners: dict[tuple[str, str], set[str]] = {}
    for key in [*core.cells, *core.values]:
        if isinstance(key.key, FrameKey) and session.principal.may_read(key.bot):
            owners.setdefault((key.topic, key.key.pair), set()).add(key.bot)
    nobody: set[str] = set()
    return [
        [topic, pair]
        for item in items
        for topic in sorted(item.topics & {"analyzed_df", "new_candle"})
        for pair in sorted(item.pairs or ())
        if not (bots := owners.get((topic, pair), nobody)) or (item.bots and item.bots.isdisjoint(bots))
    ]


def _unsubscribe(
    core: Core, session: Session, data: Mapping[str, Any], number: int | None, at: Mapping[str, int]
) -> None:
    _subscribe(core, session, {"want": []}, number, at)


def _keys(
    core: Core, session: Session, data: Mapping[str, Any], number: int | None, at: Mapping[str, int]
) -> None:
    """Lists state keys as `[bot, topic, key, columns, rows, as_of_ms]`; `more` when the reply would grow over its bound."""
    bots, topics = (names_of(data.get(name), f"keys.{name}") for name in ("bots", "topics"))
    rows: list[list[Any]] = []
    size = 0
    for key, cell in [*core.values.items(), *core.cells.items()]:
        if not (session.principal.may_read(key.bot) and _named(bots, key.bot) and _named(topics, key.topic)):
            continue
        if size > KEYS_REPLY_BYTES or len(rows) >= at["keys"]:
            _done(session, number, {"keys": rows, "more": True})
            return
        columns, count = _shape(cell)
        rows.append([key.bot, key.topic, _wire_key(key), columns, count, cell.ts])
        size += 100 + sum(map(len, columns)) + 3 * len(columns)
    _done(session, number, {"keys": rows, "more": False})


def _shape(cell: Cell) -> tuple[list[str], int]:
    if not isinstance(cell, FrameCell):
        return [], 1
    schema = cell.store.schema
    return [field.name for field in schema.fields] if schema else [], cell.store.n


def _named(names: frozenset[str] | None, name: str) -> bool:
    return names is None or name in names


def _wire_key(key: StateKey) -> list[str]:
    if isinstance(key.key, FrameKey):
        return [key.key.pair, key.key.timeframe, key.key.candle_type]
    return [] if key.key is None else [key.key]


def _resync(
    core: Core, session: Session, data: Mapping[str, Any], number: int | None, at: Mapping[str, int]
) -> None:
    keys = data.get("keys")
    if not isinstance(keys, list) or len(keys) > at["keys"]:
        raise RequestError(f"resync.keys: expected a list of at most {at['keys']} [bot, topic, key]")
    wanted = [_state_key(raw) for raw in keys]
    owed = core.resync_all(session, wanted)
    unknown = [raw for raw, key in zip(keys, wanted, strict=True) if key not in owed]
    _done(session, number, {"unknown": unknown})


def _state_key(raw: Any) -> StateKey:
    if isinstance(raw, list | tuple) and len(raw) == 3 and isinstance(raw[2], list | tuple):
        bot, topic, key = raw
        if isinstance(bot, str) and isinstance(topic, str) and all(isinstance(part, str) for part in key):
            if len(key) == 3:
                return StateKey(bot, topic, FrameKey(*key))
            if not key:
                return StateKey(bot, topic, None)
    raise RequestError("resync.keys: expected [bot, topic, [pair, timeframe, candle_type]]")


_Handler = Callable[[Core, Session, Mapping[str, Any], int | None, Mapping[str, int]], None]
_REQUESTS: Mapping[str, _Handler] = {
    "hello": _hello,
    "ping": _ping,
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "keys": _keys,
    "resync": _resync,
}


# --- freqtrade's wire


def _respond_legacy(core: Core, session: Session, message: Mapping[str, Any]) -> None:
    name, data = message["type"], message.get("data")
    if name == "subscribe":
        _legacy_subscribe(core, session, data)
    elif name == "whitelist":
        _legacy_whitelist(core, session)
    elif name == "analyzed_df":
        _legacy_frames(core, session, data)
    else:
        session.tell({"type": "exception", "data": f"Invalid request type: {name[:64]}"})


def _legacy_subscribe(core: Core, session: Session, data: Any) -> None:
    """Replaces the set; an empty list or null keeps it; a string is ignored; unknown topics are skipped (§15.7)."""
    if data is not None and not isinstance(data, list | str):
        raise NotAMessage("subscribe: expected a list of topics")
    bot = session.principal.legacy_bot
    if not isinstance(data, list) or bot is None:
        return
    topics = frozenset(t for t in data if isinstance(t, str)) - HUB_TOPICS
    if not topics & TOPICS:
        return
    item = Item(topics=topics, bots=frozenset({bot}))
    core.subscribe(session, Subscription((item,), session.principal.reads), snapshots=False)


def _legacy_whitelist(core: Core, session: Session) -> None:
    cell = core.values.get(StateKey(session.principal.legacy_bot or "", "whitelist", None))
    if cell is None:
        session.tell({"type": "whitelist", "data": []})
    else:
        session.tell_frame(cell.frame(Wire.FREQTRADE))


def _legacy_frames(core: Core, session: Session, data: Any) -> None:
    limit, pair = _legacy_arguments(data)
    bot = session.principal.legacy_bot or ""
    cells = {
        key.key: cell for key, cell in core.cells.items() if key.bot == bot and isinstance(key.key, FrameKey)
    }
    if pair is not None:
        keys = [key for key in cells if key.pair == pair]
        if not keys:
            # freqtrade's consumer refuses a key whose candle type it does not know.
            like = next(iter(cells), FrameKey(pair, "", "spot"))
            unknown = FrameKey(pair, like.timeframe, like.candle_type)
            core.request_frame(session, FrameRequest(unknown, limit))
    else:
        whitelist = core.values.get(StateKey(bot, "whitelist", None))
        pairs = set(whitelist.data) if whitelist is not None else {key.pair for key in cells}
        keys = [key for key in cells if key.pair in pairs]
    for key in keys:
        if not _held_back(session, key, cells[key], asked_alone=pair is not None):
            core.request_frame(session, FrameRequest(key, limit))


def _legacy_arguments(data: Any) -> tuple[int | None, str | None]:
    """(limit, pair): no limit asks for 1500 rows, 0 or no data at all for all; above 1500 is cut to it."""
    if data is None or data == "":
        return None, None
    if not isinstance(data, Mapping):
        raise NotAMessage("analyzed_df: expected {limit, pair}")
    limit, pair = data.get("limit", LEGACY_MAX_ROWS), data.get("pair")
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise NotAMessage("analyzed_df.limit: expected a whole number")
    if pair is not None and not isinstance(pair, str):
        raise NotAMessage("analyzed_df.pair: expected a pair or null")
    # freqtrade slices with a negative limit; nobody can want that, so it counts as no limit.
    return (None if limit <= 0 else min(limit, LEGACY_MAX_ROWS)), pair


def _held_back(session: Session, key: FrameKey, cell: FrameCell, *, asked_alone: bool) -> bool:
    """freqtrade's consumer asks for ever for a pair with fewer than 100 candles: answer it at most once per candle then."""
    if not asked_alone or cell.store.n >= LEGACY_YOUNG_ROWS:
        return False
    last = cell.store.last_ms or 0
    asked, answered = session.young.get(key, (0, -1))
    session.young[key] = (asked + 1, last)
    return asked >= 2 and answered == last
