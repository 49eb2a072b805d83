"""How an error or a warning words what was given, what was expected and what may have been meant.

A value that may hold a secret is worded by `shape`, which shows none of it; `expected` quotes and is for the other kinds.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping

from hub.protocol.errors import ConfigError

__all__ = ["did_you_mean", "expected", "nearest", "reason", "shape"]

_SHAPES = {str: "text", bool: "true or false", int: "a number", float: "a number", type(None): "null"}


def expected(name: str, what: str, value: object) -> ConfigError:
    """The error for the key or variable `name` whose `value`, which it quotes, is not `what`."""
    return ConfigError(name, f"expected {what}, got {_shown(value)}")


def shape(value: object) -> str:
    """What `value` is, such as "text" or "a map", without quoting it."""
    return _SHAPES.get(type(value)) or _shown(value)


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, Mapping):
        return "a map"
    # An object of a caller's mapping is told by its type: its text could hold anything.
    text = json.dumps(value, default=lambda other: type(other).__name__)
    return text if len(text) <= 60 else text[:57] + "..."


def reason(error: Exception) -> str:
    """Why the system refused, without the path: the caller names it once."""
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


def did_you_mean(key: object, known: Iterable[str]) -> str:
    """The end of a warning of an unknown `key`: the known one that it resembles, else empty."""
    meant = nearest(key, known, cutoff=0.6)
    return f"; did you mean {meant}?" if meant else ""


def nearest(word: object, known: Iterable[str], *, cutoff: float) -> str | None:
    """The known word most like `word`, case aside, or None when none is alike to `cutoff` (0 to 1)."""
    folded = {k.lower(): k for k in known}
    close = difflib.get_close_matches(str(word).lower(), folded, n=1, cutoff=cutoff)
    return folded[close[0]] if close else None
