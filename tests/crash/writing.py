"""A bare publisher: what the hub answers to one publish, and many at once."""

from __future__ import annotations

import itertools
import json
from typing import Any

from .fills import fill
from .parties import publisher_token
from .reading import ask, dialled

__all__ = ["burst", "publish"]

BATCH = 100
_ids = itertools.count(1)


def publish(port: int, number: int, n: int, **more: Any) -> dict[str, Any]:
    """The reply to one publish of bot `number`."""
    with dialled(port, publisher_token(number)) as websocket:
        return ask(websocket, {"type": "publish", "id": next(_ids), "data": _item(number, n, **more)})


def burst(port: int, number: int, *, messages: int, padding: int = 0) -> None:
    """Publish fills 1 to `messages` of bot `number`, a hundred at a time."""
    with dialled(port, publisher_token(number)) as websocket:
        for first in range(1, messages + 1, BATCH):
            items = [_item(number, n, padding) for n in range(first, min(messages + 1, first + BATCH))]
            answer = ask(websocket, {"type": "publish", "id": next(_ids), "data": {"items": items}})
            assert answer["ok"], answer
            refused = [result for result in answer["data"] if "error" in result]
            assert not refused, json.dumps(refused[:3])


def _item(number: int, n: int, padding: int = 0, mid: str | None = None) -> dict[str, Any]:
    return {
        "bot": f"bot{number}",
        "topic": "entry_fill",
        "mid": mid or f"bare-{n}",
        "data": fill(n, padding),
    }
