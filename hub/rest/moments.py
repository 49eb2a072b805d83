"""A moment as a parameter: ms since 1970, or RFC 3339."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

__all__ = ["Moment"]

_EXPECTED = "expected ms since 1970, or RFC 3339 with an offset (its + as %2B)"
_LAST_MS = 32_503_680_000_000


def _moment(value: object) -> int:
    """ms since 1970 UTC. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        ms = value
    elif isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        ms = int(value)
    elif isinstance(value, str):
        ms = _of_text(value)
    else:
        raise ValueError(_EXPECTED)
    if not 0 <= ms <= _LAST_MS:
        raise ValueError(_EXPECTED)
    return ms


def _of_text(text: str) -> int:
    try:
        # RFC 3339 takes small letters too.
        at = datetime.fromisoformat(text.upper())
    except ValueError:
        raise ValueError(_EXPECTED) from None
    if at.tzinfo is None:
        raise ValueError(_EXPECTED)
    return round((at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000)


Moment = Annotated[
    int,
    BeforeValidator(_moment),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": _LAST_MS},
                {"type": "string", "format": "date-time"},
            ]
        }
    ),
]
"""ms since 1970 UTC, as an int; refused with freqtrade's 422."""
