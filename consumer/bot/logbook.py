"""The newest log rows of this process, kept in memory for those who ask over REST.

Bounds: MOST_ROWS rows of at most MOST_CHARACTERS each. What a configuration names as a secret is blotted out of every row, and so is
what follows `token=` and the like in a URL.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from hub.protocol.answers import Logs

__all__ = ["LogBook", "secrets_of"]

MOST_ROWS, MOST_CHARACTERS = 1000, 2000
_BLOT = "***"
_SECRET = re.compile(r"token|secret|password|passphrase|jwt|(^|_)key$|db_url", re.IGNORECASE)
_IN_URL = re.compile(r"(?i)\b((?:ws_)?token|secret|password|key)=[^\s&\"']+")
_SHORTEST = 4
"""Characters of a secret: blotting out shorter ones would spoil every row."""


class LogBook(logging.Handler):
    """A handler for the root logger. `secrets` are texts that no row shows."""

    def __init__(self, secrets: Iterator[str] | tuple[str, ...] = ()) -> None:
        super().__init__()
        found = sorted({text for text in secrets if len(text) >= _SHORTEST}, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, found))) if found else None
        self._rows: deque[list[Any]] = deque(maxlen=MOST_ROWS)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a row; what cannot be formatted is left to logging's own report."""
        try:
            text = self._clean(record.getMessage())
            if record.exc_info and record.exc_info[1] is not None:
                text += f"\n{self._clean(f'{type(record.exc_info[1]).__name__}: {record.exc_info[1]}')}"
            at = datetime.fromtimestamp(record.created, UTC)
            row = [f"{at:%Y-%m-%d %H:%M:%S}", record.created * 1000, record.name, record.levelname]
            self._rows.append([*row, text[:MOST_CHARACTERS]])
        except Exception:
            self.handleError(record)

    def logs(self, limit: int | None = None) -> Logs:
        """The newest `limit` rows, oldest first; None and 0 give all, and -N all but the oldest N, as in freqtrade."""
        # A copy in one step: rows arrive from any thread.
        rows = list(self._rows)
        chosen = rows[-limit:] if limit else rows
        return Logs(log_count=len(chosen), logs=chosen)

    def _clean(self, text: str) -> str:
        text = _IN_URL.sub(rf"\1={_BLOT}", text)
        return text if self._secrets is None else self._secrets.sub(_BLOT, text)


def secrets_of(config: Any, key: str = "") -> Iterator[str]:
    """The texts under keys of a configuration that name a secret, at any depth."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            yield from secrets_of(value, str(name))
    elif isinstance(config, list | tuple):
        for value in config:
            yield from secrets_of(value, key)
    elif isinstance(config, str) and _SECRET.search(key):
        yield config
