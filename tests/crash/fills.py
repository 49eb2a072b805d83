"""What a fill of a crash test looks like."""

from __future__ import annotations

from typing import Any

__all__ = ["fill"]


def fill(n: int, padding: int = 0) -> dict[str, Any]:
    """The fields of fill `n`; about 250 bytes and `padding`."""
    return {
        "trade_id": n, "type_of_order": "limit", "pair": "BTC/USDT", "exchange": "Binance", "leverage": 1.0,
        "direction": "Long", "stake_amount": 199.428582, "stake_currency": "USDT", "base_currency": "BTC",
        "amount": 0.00335, "open_rate": 59530.92, "current_rate": 59530.92, "enter_tag": "x" * padding,
    }  # fmt: skip
