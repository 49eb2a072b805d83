"""Keeps credentials out of log records: the query of a websocket's path, headers, and the configured secrets themselves.

uvicorn's `uvicorn.error` logger prints a websocket's path with its query at INFO even without an access log, and legacy tokens
arrive in that query.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hub.config import BotToken, Config, PublisherEntry, Secret

__all__ = ["LOGGERS", "Redaction", "install", "secrets_of"]

LOGGERS = (
    "",
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "uvicorn.asgi",
    "websockets",
    "websockets.server",
    "hypercorn.access",
    "hypercorn.error",
    "granian.access",
    "_granian",
)
"""The loggers, root first, that print what clients send."""

_HIDDEN = "***"
_SHORTEST_SECRET = 8
_PATTERNS = (
    # A query's or form's token=…, also percent-encoded; the value ends where a query's value does.
    re.compile(r"(?i)((?:\b|_|%[0-9a-f]{2})(?:token|ticket)(?:=|%3d))[^&\s\"'<>#;,)]+"),
    # An Authorization header in any spelling: a line, a pair of bytes, a dict.
    re.compile(r"(?i)(\bauthorization\b['\"]?\s*[:=,]\s*(?:b(?=['\"]))?['\"]?)(?:[a-z]+\s+)?[^\s'\",)}\]]+"),
    re.compile(r"(?i)(\b(?:bearer|basic)\s+)(?!auth\w*\b|credentials?\b)[\w.~+/=-]{6,}"),
    re.compile(r"(\bbearer\.)[A-Za-z0-9_-]+"),
    # A JWT anywhere: its header's JSON begins with {" and so does its payload's.
    re.compile(r"()\beyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"),
)


class Redaction(logging.Filter):
    """A logging filter that passes every record, without what looks like a credential or is one of `secrets`.

    Arguments of the record stay arguments (access log formatters need them) unless only the whole line gives it away.
    """

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        super().__init__()
        # Shorter ones would blank out ordinary words.
        known = sorted({s.reveal() for s in secrets if len(s) >= _SHORTEST_SECRET}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        """`text` without credentials; doing it twice changes nothing more."""
        if self._known is not None:
            text = self._known.sub(_HIDDEN, text)
        for pattern in _PATTERNS:
            text = pattern.sub(rf"\g<1>{_HIDDEN}", text)
        return text

    def filter(self, record: logging.LogRecord) -> bool:
        # Not the format itself: "token=%s" would lose its place for the argument.
        record.args = _cleaned(record.args, self)
        try:
            line = record.getMessage()
        except Exception:
            # A format that does not fit its arguments, or an argument without a text: what cannot be checked is left out.
            record.msg, record.args = f"{record.msg} (unprintable arguments)", ()
            return True
        clean = self(line)
        if clean != line:
            record.msg, record.args = clean, ()
        self._clean_traceback(record)
        return True

    def _clean_traceback(self, record: logging.LogRecord) -> None:
        if record.exc_info and not record.exc_text:
            text = logging.Formatter().formatException(record.exc_info)
            clean = self(text)
            if clean != text:
                # A formatter uses this text in place of the exception.
                record.exc_text = clean
        elif record.exc_text:
            record.exc_text = self(record.exc_text)


def _cleaned(args: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(args, Mapping):
        changed = {key: new for key, old in args.items() if (new := _cleaned_one(old, clean)) is not old}
        if not changed or not isinstance(args, dict):
            return {**args, **changed}
        # Of its own class: hypercorn's has an answer for names that are not in it.
        cleaned = copy.copy(args)
        cleaned.update(changed)
        return cleaned
    if isinstance(args, tuple):
        return tuple(_cleaned_one(value, clean) for value in args)
    return args


def _cleaned_one(value: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(value, int | float | None):
        return value
    try:
        text = str(value)
    except Exception:
        return value
    redacted = clean(text)
    return value if redacted == text else redacted


def secrets_of(config: Config) -> list[Secret]:
    """Every secret of a configuration."""
    server, hub = config.api_server, config.hub
    entries: tuple[BotToken | PublisherEntry, ...] = (*hub.tokens, *hub.publishers)
    return [
        server.password,
        server.jwt_secret_key,
        *server.ws_token,
        *(entry.token for entry in entries),
        *(upstream.ws_token for upstream in hub.upstreams),
        *(upstream.password for upstream in hub.upstreams if upstream.password is not None),
    ]


def install(redaction: Redaction, loggers: Iterable[str] = LOGGERS) -> Callable[[], None]:
    """Put `redaction` on these loggers and on the handlers they have now; returns what takes it off again.

    A logger's filter does not see its children's records, its handlers' filters do: hence both.
    """
    places: list[logging.Filterer] = []
    for name in loggers:
        logger = logging.getLogger(name)
        places += [logger, *logger.handlers]
    added = [place for place in places if redaction not in place.filters]
    for place in added:
        place.addFilter(redaction)

    def remove() -> None:
        for place in added:
            place.removeFilter(redaction)

    return remove
