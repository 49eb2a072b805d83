"""What a call asks of a bot and what the bot answers: REST over a bot's own websocket. Shared by both ends.

A call is one request of a bot's REST: a method, a path below /api/v1, a query string and a JSON body. Source: wire-v2 section 9;
docs/wire-protocol.md, Calls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from hub.protocol.codec import Wire, encode_body
from hub.protocol.errors import BadMessage, RequestError
from hub.protocol.messages import check_name

__all__ = [
    "DEADLINE_MS",
    "FEATURE",
    "IN_FLIGHT",
    "KEY_BYTES",
    "KEY_S",
    "MAX_DEADLINE_MS",
    "READS",
    "RESULT_BYTES",
    "BotAnswer",
    "BotRequest",
    "BotResult",
    "CallResult",
    "Paths",
    "parse_call",
    "parse_paths",
    "read_result",
]

FEATURE: Final = "call"
"""How the welcome's `features` name calls."""
DEADLINE_MS: Final = 10_000
MAX_DEADLINE_MS: Final = 60_000
IN_FLIGHT: Final = 32
"""Calls of one bot without an answer, at most."""
RESULT_BYTES: Final = 8 * 1024 * 1024
"""The largest frame of a result."""
KEY_BYTES: Final = 128
KEY_S: Final = 600.0
"""For how long a bot remembers the answer to a call with a key."""
READS: Final = frozenset({"GET", "HEAD"})
"""Methods that change nothing, so that a bot may break off their work (RFC 9110 section 9.2.1)."""

_PATH_BYTES = 1024
_QUERY_BYTES = 8192
_PATHS = 256
_METHOD = re.compile(r"[A-Z]{1,16}")
_SEGMENT = re.compile(r"\{[^{}/]*\}")


class BotRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a bot's REST.

    `path` is below /api/v1 and percent-encoded ("/status"), `query` what stood behind the "?", `body` a JSON value or None.
    `principal` is the name of who asks, `deadline_ms` how long the answer is waited for (relative: clocks differ). `key` is the
    caller's name for what is to be done once, however often it is asked.
    """

    method: str
    path: str
    query: str = ""
    body: Any = None
    principal: str = ""
    deadline_ms: int = DEADLINE_MS
    key: str | None = None


class BotAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a bot answers: an HTTP status and a body of plain values (null, bool, int, float, str, list, map), or msgspec.Raw JSON."""

    status: int
    body: Any = None


class CallResult(msgspec.Struct, frozen=True, kw_only=True):
    """A bot's answer as the hub passes it on: an HTTP status and the body as JSON bytes, those of the bot where it spoke JSON."""

    status: int
    body: bytes


class BotResult(msgspec.Struct, frozen=True, kw_only=True):
    """A `result` frame of a bot: the number of the call, its result, and the frame's size in bytes.

    `result` is None when the status is none of HTTP, or when JSON cannot carry the body.
    """

    call: int
    result: CallResult | None
    size: int


class Paths(msgspec.Struct, frozen=True):
    """Which requests a bot takes; None for all. Built by `parse_paths`."""

    of: frozenset[tuple[str, tuple[str | None, ...]]] | None = None

    def take(self, method: str, path: str) -> bool:
        """Whether this request is among them. A segment in braces stands for any one segment."""
        if self.of is None:
            return True
        asked = tuple(path.split("/"))
        return any(
            method == known
            and len(asked) == len(segments)
            and all(segment is None or segment == part for part, segment in zip(asked, segments, strict=True))
            for known, segments in self.of
        )


def parse_paths(raw: object) -> Paths:
    """`paths` of an attach: "*", or a list of "METHOD /path" in which `{name}` stands for one segment.

    Raises:
        RequestError: neither.
    """
    if raw == "*":
        return Paths()
    if not isinstance(raw, list) or len(raw) > _PATHS:
        raise RequestError(f'attach.paths: expected "*" or a list of at most {_PATHS} "METHOD /path"')
    return Paths(frozenset(_route(item) for item in raw))


def _route(item: object) -> tuple[str, tuple[str | None, ...]]:
    method, _, path = item.partition(" ") if isinstance(item, str) else ("", "", "")
    try:
        _check_target(method, path)
    except RequestError:
        raise RequestError('attach.paths: expected "METHOD /path", such as "GET /status"') from None
    return method, tuple(None if _SEGMENT.fullmatch(part) else part for part in path.split("/"))


def _check_target(method: object, path: object) -> None:
    if not isinstance(method, str) or not _METHOD.fullmatch(method):
        raise RequestError("call.method: expected an HTTP method in capital letters")
    if not isinstance(path, str) or not path.startswith("/") or not _fits(path, _PATH_BYTES):
        raise RequestError(
            f"call.path: expected a path below /api/v1, such as /status, of at most {_PATH_BYTES} bytes"
        )
    if not path.isprintable() or "?" in path or "#" in path or {".", ".."} & set(path.split("/")):
        raise RequestError('call.path: expected no query, "." or ".." and no control characters')


def _fits(text: str, limit: int) -> bool:
    return len(text) <= limit and len(text.encode(errors="replace")) <= limit


def parse_call(data: Mapping[str, Any], principal: str) -> tuple[str, BotRequest]:
    """The bot and the request of a `call`'s data, asked by `principal`.

    Raises:
        RequestError: a field has the wrong shape; the text names it.
    """
    try:
        bot = check_name("call.bot", data.get("bot"))
    except BadMessage as error:
        raise RequestError(str(error)) from None
    query = data.get("query")
    query = "" if query is None else query
    deadline_ms, key = data.get("deadline_ms", DEADLINE_MS), data.get("key")
    _check_target(data.get("method"), data.get("path"))
    if not isinstance(query, str) or not _fits(query, _QUERY_BYTES) or not query.isprintable():
        raise RequestError(f"call.query: expected a string of at most {_QUERY_BYTES} bytes, without the ?")
    if (
        isinstance(deadline_ms, bool)
        or not isinstance(deadline_ms, int)
        or not 1 <= deadline_ms <= MAX_DEADLINE_MS
    ):
        raise RequestError(f"call.deadline_ms: expected 1 to {MAX_DEADLINE_MS}")
    if key is not None and not (isinstance(key, str) and key and _fits(key, KEY_BYTES)):
        raise RequestError(f"call.key: expected a string of 1 to {KEY_BYTES} bytes")
    return bot, BotRequest(
        method=data["method"],
        path=data["path"],
        query=query,
        body=data.get("body"),
        principal=principal,
        deadline_ms=deadline_ms,
        key=key,
    )


class _Data(msgspec.Struct):
    call: int
    status: int
    body: msgspec.Raw = msgspec.Raw(b"")


class _Frame(msgspec.Struct, tag_field="type", tag="result"):
    data: _Data


_JSON = msgspec.json.Decoder(_Frame)
_MSGPACK = msgspec.msgpack.Decoder(_Frame)


def read_result(
    wire: Wire, payload: bytes | str, awaited: Callable[[int], bool] = lambda _call: True
) -> BotResult | None:
    """A `result` frame with its body untouched, or None for anything else: the codec then says what it is.

    The body of a call that nobody has `awaited` is not looked at.

    From a JSON wire a body is looked at once and built into no objects: 1500 candles of 42 columns (1.1 MB) take 1.4 ms, where
    decoding and encoding them again takes 7 ms, as it does from msgpack.
    """
    json = wire is not Wire.MSGPACK
    if isinstance(payload, str) is not json:
        return None
    try:
        data = (_JSON.decode(payload) if isinstance(payload, str) else _MSGPACK.decode(payload)).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    size = len(payload) if not isinstance(payload, str) or payload.isascii() else len(payload.encode())
    return BotResult(call=data.call, result=_result(data, json) if awaited(data.call) else None, size=size)


def _result(data: _Data, json: bool) -> CallResult | None:
    if not 200 <= data.status <= 599:
        return None
    body = bytes(data.body)
    if json or not body:
        return CallResult(status=data.status, body=body or b"null")
    try:
        return CallResult(status=data.status, body=encode_body(msgspec.msgpack.decode(body)))
    except (BadMessage, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
