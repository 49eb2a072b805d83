"""Websocket close codes: what each means and what a client does about it.

4000-4999 is the private range of RFC 6455 section 7.4.2. 4400-4499: stop, the same will fail again. 4500-4599: retry with
backoff. The table in docs/wire-protocol.md is tested against this enum.
"""

from __future__ import annotations

from enum import Enum, IntEnum

__all__ = ["CloseAction", "CloseCode", "action_for"]


class CloseAction(Enum):
    """What a client does after a close."""

    DONE = "done"
    STOP = "stop"
    RETRY = "retry"
    REAUTHENTICATE = "reauthenticate"


class CloseCode(IntEnum):
    """Every code that the hub sends, with the sentence that says when."""

    def __new__(cls, value: int, action: CloseAction, when: str) -> CloseCode:
        code = int.__new__(cls, value)
        code._value_ = value
        code.action = action
        code.when = when
        return code

    action: CloseAction
    when: str

    NORMAL = 1000, CloseAction.DONE, "the peer closed, or the hub ends a finished exchange"
    GOING_AWAY = 1001, CloseAction.DONE, "the peer goes away"
    PROTOCOL_ERROR = 1002, CloseAction.STOP, "a rule of RFC 6455 was broken"
    UNSUPPORTED_DATA = 1003, CloseAction.STOP, "a text frame on a binary wire, or the reverse"
    INVALID_DATA = 1007, CloseAction.STOP, "a frame is not valid JSON, msgpack or UTF-8"
    POLICY_VIOLATION = 1008, CloseAction.STOP, "a rule without a code of its own was broken"
    MESSAGE_TOO_BIG = 1009, CloseAction.STOP, "a frame is over limits.message, or has more than 64 fragments"
    INTERNAL_ERROR = 1011, CloseAction.RETRY, "the hub failed; details are in its log only"
    SERVICE_RESTART = 1012, CloseAction.RETRY, "the hub drains; the reason carries retry_after_ms"
    TRY_AGAIN_LATER = 1013, CloseAction.RETRY, "the hub is full; the reason carries retry_after_ms"
    BAD_REQUEST = (
        4400,
        CloseAction.STOP,
        "a frame is not a map with a string `type`, or a client broke a rule of order",
    )
    CREDENTIAL_EXPIRED = 4401, CloseAction.REAUTHENTICATE, "the session's credential expired"
    RIGHTS_CHANGED = 4403, CloseAction.REAUTHENTICATE, "the principal lost a right that the session uses"
    REPLACED = 4409, CloseAction.STOP, "a newer attachment of the same bot took its place"
    SLOW_CONSUMER = 4508, CloseAction.RETRY, "over the ledger limit without progress for too long"
    POSITION_LOST = (
        4510,
        CloseAction.RETRY,
        "a client's position is unusable; sent by clients that found a hole",
    )
    NO_PONG = 4512, CloseAction.RETRY, "no pong within the keepalive's time"
    TOO_MANY_REQUESTS = 4529, CloseAction.RETRY, "more requests a second than limits.requests_per_s"


_BY_VALUE = {int(code): code for code in CloseCode}


def action_for(code: int) -> CloseAction:
    """What to do about any code, known or not: 4400-4499 stop, everything else unknown retries."""
    known = _BY_VALUE.get(code)
    if known is not None:
        return known.action
    return CloseAction.STOP if 4400 <= code <= 4499 else CloseAction.RETRY
