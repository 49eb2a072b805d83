"""The hub's exception tree and the error codes of the wire.

::

    HubError
    ├── ConfigError            the operator's: a key of the configuration is wrong
    ├── ProtocolError          the peer's: it broke a rule of the wire; the connection is closed with `close_code`
    │   ├── WrongOpcode        1003
    │   ├── Undecodable        1007
    │   └── NotAMessage        4400
    ├── RequestError           the client's: one request is refused; the connection stays
    │   ├── BadFilter          bad_filter
    │   ├── OverlappingItems   overlap
    │   ├── Forbidden          forbidden
    │   ├── TokenExpired       token_expired
    │   ├── UnknownRequest     unknown_request
    │   ├── CallFailed         a call of a bot got no answer; `data.outcome` "unknown": the bot may have done it
    │   │   ├── DeadlinePassed the bot's: deadline (temporary)
    │   │   ├── BotUnreachable the bot's: bot_gone (temporary)
    │   │   └── CallCancelled  the caller's: cancelled
    │   └── PublishRefused     the publisher's: one message is refused
    │       ├── BadMessage     bad_message
    │       │   └── BadFrame   bad_message, of a dataframe
    │       ├── UnknownTopic   unknown_topic
    │       ├── TooLarge       too_large
    │       ├── IdConflict     id_conflict
    │       ├── IdExpired      id_expired
    │       ├── NotDurable     not_durable (temporary)
    │       ├── Overloaded     overloaded (temporary)
    │       └── Draining       draining (temporary)
    ├── LedgerUnreadable       the hub's: the ledger cannot be read now; answered over HTTP with 503
    │   └── LedgerBusy         too many search it already
    └── HandshakeRefused       the client's: no websocket; answered over HTTP with `status`

Whose fault it is shows in the type. `str(error)` is one line that names what was wrong and what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar

from hub.protocol.close_codes import CloseCode

__all__ = [
    "BadFilter",
    "BadFrame",
    "BadMessage",
    "BotUnreachable",
    "CallCancelled",
    "CallFailed",
    "ConfigError",
    "DeadlinePassed",
    "Draining",
    "ErrorCode",
    "Forbidden",
    "HandshakeRefused",
    "HubError",
    "IdConflict",
    "IdExpired",
    "LedgerBusy",
    "LedgerUnreadable",
    "NotAMessage",
    "NotDurable",
    "OverlappingItems",
    "Overloaded",
    "ProtocolError",
    "PublishRefused",
    "RequestError",
    "TokenExpired",
    "TooLarge",
    "Undecodable",
    "UnknownRequest",
    "UnknownTopic",
    "WrongOpcode",
]


class ErrorCode(StrEnum):
    """Codes of an error object (wire-protocol.md, Errors). An open set: an unknown code is judged by `temporary`."""

    BAD_REQUEST = "bad_request"
    BAD_FILTER = "bad_filter"
    UNKNOWN_REQUEST = "unknown_request"
    UNKNOWN_TOPIC = "unknown_topic"
    UNKNOWN_KEY = "unknown_key"
    UNKNOWN_BOT = "unknown_bot"
    OVERLAP = "overlap"
    TOO_LARGE = "too_large"
    FORBIDDEN = "forbidden"
    TOKEN_EXPIRED = "token_expired"
    BAD_MESSAGE = "bad_message"
    ID_CONFLICT = "id_conflict"
    ID_EXPIRED = "id_expired"
    NOT_DURABLE = "not_durable"
    OVERLOADED = "overloaded"
    DRAINING = "draining"
    DEADLINE = "deadline"
    BOT_GONE = "bot_gone"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


class HubError(Exception):
    """Root of everything the hub raises on purpose."""


class ConfigError(HubError):
    """A configuration cannot be used. `key` is the dotted path of the key at fault, or empty for the file."""

    def __init__(self, key: str, expected: str) -> None:
        self.key = key
        self.expected = expected
        super().__init__(f"{key}: {expected}" if key else expected)


class ProtocolError(HubError):
    """A peer broke a rule of the wire; the connection is closed with `close_code` and this text as the reason."""

    close_code: ClassVar[CloseCode] = CloseCode.BAD_REQUEST


class WrongOpcode(ProtocolError):
    """A text frame on a binary wire or the reverse."""

    close_code = CloseCode.UNSUPPORTED_DATA


class Undecodable(ProtocolError):
    """A frame that is not valid JSON, msgpack or UTF-8."""

    close_code = CloseCode.INVALID_DATA


class NotAMessage(ProtocolError):
    """A frame that decodes to something else than a map with a string `type`."""

    close_code = CloseCode.BAD_REQUEST


class RequestError(HubError):
    """One request is refused and the connection stays. On the wire it is an error object (`as_data`)."""

    code: ClassVar[ErrorCode] = ErrorCode.BAD_REQUEST
    temporary: ClassVar[bool] = False

    def __init__(
        self, message: str, *, data: Mapping[str, Any] | None = None, retry_after_ms: int | None = None
    ) -> None:
        super().__init__(message)
        self.data = data
        self.retry_after_ms = retry_after_ms

    def as_data(self) -> dict[str, Any]:
        """The error object of the wire: `{code, message, temporary, retry_after_ms?, data?}`."""
        error: dict[str, Any] = {"code": str(self.code), "message": str(self), "temporary": self.temporary}
        if self.retry_after_ms is not None:
            error["retry_after_ms"] = self.retry_after_ms
        if self.data is not None:
            error["data"] = dict(self.data)
        return error


class BadFilter(RequestError):
    """An item of a subscription is not a filter."""

    code = ErrorCode.BAD_FILTER


class OverlappingItems(RequestError):
    """Two items of a subscription match the same key with different columns or rows."""

    code = ErrorCode.OVERLAP


class Forbidden(RequestError):
    """The principal lacks the right."""

    code = ErrorCode.FORBIDDEN


class TokenExpired(RequestError):
    """The token of an `auth` is not, or no longer, valid."""

    code = ErrorCode.TOKEN_EXPIRED


class UnknownRequest(RequestError):
    """A request type that this hub does not have."""

    code = ErrorCode.UNKNOWN_REQUEST


class CallFailed(RequestError):
    """A call of a bot got no answer. `sent` tells whether the bot may have got it: nobody knows then what it did.

    On the wire that is `data: {"outcome": "unknown"}`; without it the bot did nothing.
    """

    def __init__(self, message: str, *, sent: bool = False) -> None:
        super().__init__(message, data={"outcome": "unknown"} if sent else None)
        self.sent = sent


class DeadlinePassed(CallFailed):
    """The bot did not answer within the call's deadline."""

    code = ErrorCode.DEADLINE
    temporary = True


class BotUnreachable(CallFailed):
    """The bot is not attached, its connection ended before it answered, or its answer cannot be read."""

    code = ErrorCode.BOT_GONE
    temporary = True


class CallCancelled(CallFailed):
    """The caller took the call back."""

    code = ErrorCode.CANCELLED


class PublishRefused(RequestError):
    """A publish is refused: nothing of it was stored or delivered. The publisher's to mend, never a subscriber's."""

    code = ErrorCode.BAD_MESSAGE


class BadMessage(PublishRefused):
    """A message that does not fit its type, or a value that no wire can carry."""


class BadFrame(BadMessage):
    """A dataframe that cannot be read or stored; the text names the column or row and what was expected."""


class UnknownTopic(PublishRefused):
    """A topic name that breaks the naming rule: 1..64 bytes, no dot (names with a dot are the hub's own)."""

    code = ErrorCode.UNKNOWN_TOPIC


class TooLarge(PublishRefused):
    """A message above its size limit."""

    code = ErrorCode.TOO_LARGE


class IdConflict(PublishRefused):
    """The `mid` was used before for another body."""

    code = ErrorCode.ID_CONFLICT


class IdExpired(PublishRefused):
    """The message is older than the time for which the hub remembers ids; storing it might repeat it."""

    code = ErrorCode.ID_EXPIRED


class NotDurable(PublishRefused):
    """The log could not store the message now; it may have been stored, so retry with the same `mid`."""

    code = ErrorCode.NOT_DURABLE
    temporary = True


class Overloaded(PublishRefused):
    """A bound of the hub is reached; retry after `retry_after_ms`."""

    code = ErrorCode.OVERLOADED
    temporary = True


class Draining(PublishRefused):
    """The hub is shutting down; retry at the next one."""

    code = ErrorCode.DRAINING
    temporary = True


class LedgerUnreadable(HubError):
    """The log cannot be read now, whatever is asked of it; its own log line says why."""


class LedgerBusy(LedgerUnreadable):
    """As many clients search the ledger as may at once: the next finds room when one of them has its answer."""


class HandshakeRefused(HubError):
    """No websocket for this client: answered over HTTP before the upgrade.

    `status` is the HTTP status, `retry_after` seconds for 429 and 503.
    """

    def __init__(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
