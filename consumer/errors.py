"""The consumer's exception tree: whose fault a failure is shows in its type.

::

    ConsumerError
    ├── ConfigError          the user's: a key of the configuration, a URL or an option is wrong
    ├── ConnectionFailed     nobody's: no connection now (refused, timed out, TLS, closed); trying again may help
    │   ├── HandshakeFailed  the peer answered the handshake with an HTTP status that says "later" (429, 5xx)
    │   └── OutcomeUnknown   a REST request that changes something was sent and not answered: look before trying again
    ├── Unauthorized         the user's: the token is not accepted (401, 403, 4401, 4403), also at a second try; terminal
    ├── HubRefused           one side is too old or wrong: the hub refuses what this client asks, for good; terminal
    │   ├── Replaced         a newer attachment of the same bot took this one's place; terminal
    │   └── TooBig           a peer's message is over `message_size_limit`, whatever is asked of it; terminal
    ├── RestError            a REST request failed (`status`)
    │   ├── BadRequest       the caller's: a parameter is unknown, missing or wrong; told before anything is sent, or by 422
    │   ├── NotFound         the caller's: no such trade, lock, bot or operation there (404, 405)
    │   ├── BotRefused       the bot's: it cannot do this now (502)
    │   ├── Unavailable      nobody's: the bot is busy, gone or in another mode, or the hub is full (429, 502, 503, 504)
    │   └── BadAnswer        the peer's: what it answers is not what REST answers, or too large
    ├── PublishError         the publisher's: one message was refused (`code`, `temporary`)
    │   └── NotStored        nobody's: the publisher's outbox cannot store it now (full disk)
    ├── StoreFailed          the local bot's: what it keeps of positions in its database cannot be read or written
    │   ├── AlreadyActed     a message is saved a second time: its effect must not be either
    │   └── TakenOver        another run uses the database now
    └── BotFailed            the local bot's: it raised an exception, or did not end

`str(error)` is one line that names what was wrong and what was expected. No token or password is ever part of it.
"""

from __future__ import annotations

__all__ = [
    "AlreadyActed",
    "BadAnswer",
    "BadRequest",
    "BotFailed",
    "BotRefused",
    "ConfigError",
    "ConnectionFailed",
    "ConsumerError",
    "HandshakeFailed",
    "HubRefused",
    "NotFound",
    "NotStored",
    "OutcomeUnknown",
    "PublishError",
    "Replaced",
    "RestError",
    "StoreFailed",
    "TakenOver",
    "TooBig",
    "Unauthorized",
    "Unavailable",
]


class ConsumerError(Exception):
    """Root of everything the consumer raises on purpose."""


class ConfigError(ConsumerError):
    """A configuration cannot be used. `key` is the dotted path of the key at fault, or empty for the whole."""

    def __init__(self, key: str, expected: str) -> None:
        self.key = key
        self.expected = expected
        super().__init__(f"{key}: {expected}" if key else expected)


class ConnectionFailed(ConsumerError):
    """There is no connection now; trying again may help. `retry_after_s` is what the peer asked for, if it did."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class HandshakeFailed(ConnectionFailed):
    """The peer answered the handshake with HTTP `status` instead of a websocket."""

    def __init__(self, message: str, *, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.status = status


class OutcomeUnknown(ConnectionFailed):
    """A request that changes something was sent, and no answer came: the bot may have done it or not."""


class Unauthorized(ConsumerError):
    """The peer does not accept the token, or the user name and password."""


class HubRefused(ConsumerError):
    """The peer refuses what this client asks, and would again."""


class Replaced(HubRefused):
    """A newer attachment of the same bot took this one's place."""


class TooBig(HubRefused):
    """A message of the peer is over `message_size_limit` and cannot be asked for in a smaller form."""


class RestError(ConsumerError):
    """A REST request failed. `status` is the HTTP status of the answer; None when this side found the fault."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class BadRequest(RestError):
    """A parameter is unknown, missing or wrong; the text names it. Nothing was done."""


class NotFound(RestError):
    """There is no such thing at the peer."""


class BotRefused(RestError):
    """The bot cannot do this now, in its words."""


class Unavailable(RestError):
    """Nobody can answer this now. `retry_after_s` is what the peer asked for, if it did."""

    def __init__(self, message: str, *, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(message, status=status)
        self.retry_after_s = retry_after_s


class BadAnswer(RestError):
    """What the peer answered is not what a hub or a freqtrade bot answers."""


class PublishError(ConsumerError):
    """A message was refused; nothing of it was stored or delivered.

    `code` is the hub's error code (docs/wire-protocol.md, Errors). `temporary` tells whether the same message may be
    accepted later.
    """

    def __init__(self, code: str, message: str, *, temporary: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.temporary = temporary


class NotStored(PublishError):
    """A message could not be put into the publisher's outbox on disk, and is not sent. Try again with the same mid."""

    def __init__(self, message: str) -> None:
        super().__init__("not_durable", message, temporary=True)


class BotFailed(ConsumerError):
    """The local bot raised an exception or did not end; the text names the bot, what it was doing and the exception."""


class StoreFailed(ConsumerError):
    """A PositionStore cannot be used; the text names the table, or what was expected of the bot."""


class AlreadyActed(StoreFailed):
    """A delivery was saved before. Raised in the transaction of a second effect, which must not be committed."""


class TakenOver(StoreFailed):
    """A later run has loaded the positions. Raised in the transaction of an effect, which must not be committed."""
