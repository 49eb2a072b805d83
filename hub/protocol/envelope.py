"""What the hub sends: broadcasts, replies and notices, and a position in the ledger.

Source: docs/wire-protocol.md, Envelope. The three kinds are told apart by their fields: a reply has `id` and the type
`hub.reply`, a broadcast has `bot`, a notice has neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from hub.protocol.errors import NotAMessage

__all__ = ["Broadcast", "Notice", "Position", "Reply", "Rev", "parse_envelope", "reply", "reply_error"]


class Position(msgspec.Struct, frozen=True, order=True):
    """A place in a hub's ledger: all up to and including `offset` of `epoch`. Compared, never parsed."""

    epoch: str
    offset: int


class Rev(msgspec.Struct, frozen=True, array_like=True):
    """A claim: who holds the key at a revision in [prev, n] and applies this message holds revision n."""

    epoch: str
    prev: int
    n: int


class Broadcast(msgspec.Struct, frozen=True, kw_only=True):
    """A message for every subscriber. Ledger messages carry epoch, offset, prev and mid; state messages key and rev."""

    type: str
    bot: str
    data: Any = None
    ts: int | None = None
    epoch: str | None = None
    offset: int | None = None
    prev: int | None = None
    mid: str | None = None
    key: list[str] | None = None
    rev: Rev | None = None
    part: tuple[int, int] | None = None

    @property
    def position(self) -> Position | None:
        """Where it stands in the ledger, if it does."""
        return (
            Position(self.epoch, self.offset) if self.epoch is not None and self.offset is not None else None
        )


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to the request with this `id`."""

    id: int
    ok: bool
    data: Any = None
    error: dict[str, Any] | None = None


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something the hub says of itself; `fields` is the whole map."""

    type: str
    fields: dict[str, Any]

    @property
    def data(self) -> dict[str, Any]:
        """The notice's `data`, or an empty map."""
        data = self.fields.get("data")
        return data if isinstance(data, dict) else {}


def parse_envelope(message: Mapping[str, Any]) -> Broadcast | Reply | Notice:
    """A decoded v2 frame of the hub as one of its three kinds. Unknown fields and extra elements are ignored.

    Raises:
        NotAMessage: a field of the envelope has the wrong type; the text names it.
    """
    try:
        if message["type"] == "hub.reply":
            return msgspec.convert(message, Reply)
        if "bot" in message:
            return msgspec.convert(_trimmed(message) if "part" in message else message, Broadcast)
    except msgspec.ValidationError as error:
        raise NotAMessage(f"{message['type']}: {error}") from None
    return Notice(type=message["type"], fields=dict(message))


def _trimmed(message: Mapping[str, Any]) -> Mapping[str, Any]:
    part = message["part"]
    if isinstance(part, list) and len(part) > 2:
        return {**message, "part": part[:2]}
    return message


def reply(request_id: int, data: Any) -> dict[str, Any]:
    """The reply to a request that was done."""
    return {"type": "hub.reply", "id": request_id, "ok": True, "data": data}


def reply_error(request_id: int, error: Mapping[str, Any]) -> dict[str, Any]:
    """The reply to a request that was refused; `error` is an error object."""
    return {"type": "hub.reply", "id": request_id, "ok": False, "error": dict(error)}
