"""The notices that the hub sends of itself (docs/wire-protocol.md, Notices)."""

from __future__ import annotations

from typing import Any

from hub.core.session import Session
from hub.frames.columns import Schema
from hub.protocol.calls import FEATURE, BotRequest
from hub.protocol.subscription import LINEAGE

__all__ = [
    "call",
    "cancel",
    "conflated",
    "dropped",
    "error",
    "gap",
    "heartbeat",
    "lagging",
    "position",
    "reconciled",
    "schema_notice",
    "token_expiring",
    "welcome",
]


def welcome(
    session: Session,
    *,
    version: str,
    node: str,
    now_ms: int,
    epoch: str,
    floor: int,
    head: int,
    heartbeat_ms: int,
    limits: dict[str, int],
) -> dict[str, Any]:
    """The first frame of every v2 session."""
    return {
        "type": "hub.welcome",
        "data": {
            "hub": f"tradewire/{version}",
            "protocol": 2,
            "node": node,
            "session": session.id,
            "now_ms": now_ms,
            "epoch": epoch,
            "floor": floor,
            "head": head,
            "principal": {"name": session.principal.name, "scopes": session.principal.scopes},
            "expires_ms": session.principal.expires_ms,
            "heartbeat_ms": heartbeat_ms,
            "features": [FEATURE, LINEAGE],
            "limits": limits,
        },
    }


def call(number: int, request: BotRequest) -> dict[str, Any]:
    """A request for the bot that a session has attached as; it answers with a `result` of this number."""
    data = {
        "call": number,
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "body": request.body,
        "deadline_ms": request.deadline_ms,
        "principal": request.principal,
    }
    return {"type": "hub.call", "data": data if request.key is None else data | {"key": request.key}}


def cancel(number: int) -> dict[str, Any]:
    """Nobody waits for the result of this call any more."""
    return {"type": "hub.cancel", "data": {"call": number}}


def error(data: dict[str, Any]) -> dict[str, Any]:
    """An error that answers no `id`."""
    return {"type": "hub.error", "data": data}


def dropped(topics: dict[str, int]) -> dict[str, Any]:
    """Events that the session lost since the last such notice, per topic."""
    return {"type": "hub.dropped", "data": {"topics": topics}}


def gap(epoch: str, first: int, last: int, *, reason: str = "retention") -> dict[str, Any]:
    """Everything in (first, last] is lost to the session: retention overtook it, or the log cannot read it ("damaged")."""
    return {"type": "hub.gap", "epoch": epoch, "from": first, "to": last, "reason": reason}


def position(epoch: str, first: int, last: int, heads: list[list[Any]]) -> dict[str, Any]:
    """Of the subscription, the last messages in (first, last] are `heads` ([bot, topic, offset]); other streams have none there."""
    return {"type": "hub.position", "epoch": epoch, "from": first, "offset": last, "heads": heads}


def lagging(messages: int, size: int, limit: int) -> dict[str, Any]:
    """The session's unsent ledger messages are half-way to the limit."""
    return {"type": "hub.lagging", "data": {"messages": messages, "bytes": size, "limit_bytes": limit}}


def conflated(keys: int, merged: int) -> dict[str, Any]:
    """State changes that were joined for this session since the last such notice, and of how many keys."""
    return {"type": "hub.conflated", "data": {"keys": keys, "merged": merged}}


def reconciled(bot: str, *, missing: int, published: int, unknown: int) -> dict[str, Any]:
    """A bot's own trades were compared with the ledger, and they differ."""
    data = {"bot": bot, "missing": missing, "published": published, "unknown": unknown}
    return {"type": "hub.reconciled", "data": data}


def token_expiring(expires_ms: int) -> dict[str, Any]:
    """The credential ends soon; `auth` replaces it."""
    return {"type": "hub.token_expiring", "data": {"expires_ms": expires_ms}}


def heartbeat(now_ms: int) -> dict[str, Any]:
    """Something to hear for clients that cannot see pings; sent when nothing else was."""
    return {"type": "hub.heartbeat", "data": {"now_ms": now_ms}}


def schema_notice(schema: Schema) -> dict[str, Any]:
    """What a schema id means; precedes its first use in a session."""
    return {"type": "hub.schema", "schema": schema.id, "data": schema.data()}
