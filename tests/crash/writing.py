"""A bare publisher: what the hub answers to one publish, and many at once."""

from __future__ import annotations

import itertools
import json
from typing import Any

from .parties import publisher_token
from .reading import ask, dialled

__all__ = ["burst", "fill", "publish"]

BATCH = 100
_ids = itertools.count(1)


def fill(n: int, padding: int = 0) -> dict[str, Any]:
    """The fields of fill `n`; about 250 bytes and `padding`."""
    return {
        "trade_id": n, "type_of_order": "limit", "pair": "BTC/USDT", "exchange": "Binance", "leverage": 1.0,
        "direction": "Long", "stake_amount": 199.428582, "stake_currency": "USDT", "base_currency": "BTC",
        "amount": 0.00335, "open_rate": 59530.92, "current_rate": 59530.92, "enter_tag": "x" * padding,
    }  # fmt: skip


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
