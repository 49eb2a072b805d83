"""The requests of calls on the v2 wires: attach, detach, call, cancel and result."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from hub.core.calls import UNKNOWN_OUTCOME, Calls
from hub.core.requests import refuse, request_id
from hub.core.session import Session
from hub.protocol.calls import BotResult, CallResult, parse_call, parse_paths
from hub.protocol.codec import CODECS, embedded, frame
from hub.protocol.envelope import reply
from hub.protocol.errors import (
    BadMessage,
    BotUnreachable,
    Draining,
    Forbidden,
    Overloaded,
    RequestError,
    TooLarge,
    Undecodable,
)
from hub.protocol.messages import check_name

__all__ = ["CALL_REQUESTS", "respond_call"]

_Handler = Callable[[Calls, Session, int | None, Mapping[str, Any], "At"], Any]


class At:
    """What holds at the time of a request: seconds, whether the hub drains, and the bound of a session's unread replies."""

    __slots__ = ("control_bytes", "draining", "now")

    def __init__(self, now: float, *, draining: bool, control_bytes: int) -> None:
        self.now = now
        self.draining = draining
        self.control_bytes = control_bytes


def respond_call(calls: Calls, session: Session, message: Mapping[str, Any], at: At) -> None:
    """Do one request of CALL_REQUESTS and queue what the session is told; a call's reply comes when the call ends.

    Raises:
        NotAMessage: the client broke a rule of the envelope; the connection is closed.
    """
    number = request_id(message)
    name, data = message["type"], message.get("data")
    try:
        if isinstance(data, BotResult):
            calls.result(session, data)
            return
        if not isinstance(data, Mapping):
            raise RequestError(f"{name}.data: expected a map")
        answer = CALL_REQUESTS[name](calls, session, number, data, at)
    except RequestError as error:
        refuse(session, number, error)
        return
    if number is not None and answer is not None:
        session.tell(reply(number, answer))


def _attach(calls: Calls, session: Session, number: int | None, data: Mapping[str, Any], at: At) -> Any:
    bot = _bot("attach", data)
    if not session.principal.may_publish(bot):
        raise Forbidden(f"{session.principal.name} may not attach as {bot!r}")
    if at.draining:
        raise Draining("the hub is draining", retry_after_ms=2000)
    calls.attach(session, bot, parse_paths(data.get("paths", "*")))
    return {}


def _detach(calls: Calls, session: Session, number: int | None, data: Mapping[str, Any], at: At) -> Any:
    return {"detached": calls.detach(session, _bot("detach", data))}


def _bot(request: str, data: Mapping[str, Any]) -> str:
    try:
        return check_name(f"{request}.bot", data.get("bot"))
    except BadMessage as error:
        raise RequestError(str(error)) from None


def _call(calls: Calls, session: Session, number: int | None, data: Mapping[str, Any], at: At) -> Any:
    bot, request = parse_call(data, session.principal.name)
    if number is None:
        raise RequestError("call: expected an id")
    if not session.principal.may_control(bot):
        raise Forbidden(f"{session.principal.name} may not call {bot!r}")
    if at.draining:
        raise Draining("the hub is draining", retry_after_ms=2000)
    if calls.in_flight(session, number):
        raise RequestError(f"id: a call with {number} is in flight")
    done = functools.partial(_tell, calls, session, number, at.control_bytes)
    calls.call(session, bot, request, done, at.now, name=number)


def _cancel(calls: Calls, session: Session, number: int | None, data: Mapping[str, Any], at: At) -> Any:
    return {"cancelled": calls.cancel(session, data.get("id"))}


def _no_result(calls: Calls, session: Session, number: int | None, data: Mapping[str, Any], at: At) -> Any:
    # A result of an attached session was read before it came here, if it can be.
    if not session.attached:
        raise RequestError("result: this connection is not attached")
    raise RequestError("result: expected {call, status, body} with integers as call and status")


CALL_REQUESTS: Mapping[str, _Handler] = {
    "attach": _attach,
    "detach": _detach,
    "call": _call,
    "cancel": _cancel,
    "result": _no_result,
}
"""The requests that `respond_call` does."""


def _tell(
    calls: Calls, session: Session, number: int, control_bytes: int, outcome: CallResult | RequestError
) -> None:
    """Tell a caller how its call ended."""
    if session.closing is not None:
        return
    calls.touched.add(session)
    if isinstance(outcome, RequestError):
        refuse(session, number, outcome)
        return
    try:
        session.tell_frame(_reply_frame(session, number, control_bytes, outcome))
    except RequestError as error:
        refuse(session, number, error)


def _reply_frame(session: Session, number: int, control_bytes: int, result: CallResult) -> bytes:
    if session.control_bytes > control_bytes:
        raise Overloaded("the replies before this one are not read", data=UNKNOWN_OUTCOME)
    codec = CODECS[session.wire]
    try:
        body = embedded(session.wire, result.body)
        prepared = frame(
            codec.encode(reply(number, {"status": result.status, "body": body})), text=codec.text
        )
    except (BadMessage, Undecodable):
        raise BotUnreachable("the bot's answer cannot be carried by this wire", sent=True) from None
    if len(prepared) > session.max_message:
        raise TooLarge(
            f"the reply has {len(prepared)} bytes; hello said at most {session.max_message}",
            data=UNKNOWN_OUTCOME,
        )
    return prepared
