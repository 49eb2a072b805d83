"""Words for people: a peer's text made harmless, and the known name that a wrong one may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["clean", "nearest"]


def clean(text: str) -> str:
    """Text of a peer without control characters: it must not drive the terminal."""
    return "".join(c if c.isprintable() else "�" if c != "\n" else " " for c in text)


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a line that says that `name` is unknown: "; did you mean …?", or nothing when none is near."""
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
