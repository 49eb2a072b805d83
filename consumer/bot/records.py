"""Records: what a book tells of trades, orders, locks and the wallet, as exact values that cannot change under the reader.

Rates, amounts and money are Decimals (see `rules` for how each is rounded); times are ms since 1970 UTC in candle time: an order
is placed and filled at the opening of a candle, and "now" is the end of the last candle acted on.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

__all__ = [
    "BlacklistRecord",
    "BotState",
    "CustomDataRecord",
    "LockRecord",
    "OrderRecord",
    "OrderStatus",
    "TradePageRecord",
    "TradeRecord",
    "WalletPoint",
    "WalletRecord",
]


class BotState(StrEnum):
    """freqtrade's states of a bot: paused leaves by the rules and enters nothing, stopped acts on nothing."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


class OrderStatus(StrEnum):
    """ccxt's states of an order."""

    OPEN = "open"
    CLOSED = "closed"
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRecord:
    """One order. `rate` is what was asked (of a market order the rate known then), `average` what it was filled at.

    `cost` and `fee` are of what is filled, in quote currency. Orders fill wholly or not at all.
    """

    number: int
    order_id: str
    is_entry: bool
    order_type: str
    status: OrderStatus
    rate: Decimal
    amount: Decimal
    filled: Decimal
    average: Decimal | None
    cost: Decimal
    fee: Decimal
    tag: str | None
    placed_ms: int
    filled_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeRecord:
    """One trade, from its first order on.

    `open_fill_ms` is None until the entry is filled, and `paid` (cost and fee of the entry) is 0 until then; `tied` is the part of
    `paid` that the held amount cost, 0 once it is closed. `amount` is what is held now, and what was held at last once it is
    closed; `stake_amount` is the cost of that amount at the open rate, `max_stake_amount` that of all that was bought. `fee` is
    the ratio, `fee_close_cost` the sum over all exits. `exit_order_status` is as freqtrade has it: None before the first exit
    order, "" while one waits, the reason once it was cancelled, "closed" at last. `realized_profit` is that of the parts left,
    `profit_abs` that of the closed trade as a whole, `profit_ratio` its ratio to what was paid; both None while it is open.
    `current_rate` is the pair's last close, None before its first candle; of a closed trade its close rate, as freqtrade has it.
    """

    id: int
    pair: str
    is_open: bool
    enter_tag: str | None
    open_ms: int
    open_fill_ms: int | None
    open_rate: Decimal
    open_rate_requested: Decimal
    amount: Decimal
    amount_requested: Decimal
    stake_amount: Decimal
    max_stake_amount: Decimal
    paid: Decimal
    tied: Decimal
    fee: Decimal
    fee_open_cost: Decimal
    fee_close_cost: Decimal
    stop_rate: Decimal
    initial_stop_rate: Decimal
    min_rate: Decimal | None
    max_rate: Decimal | None
    close_ms: int | None
    close_rate: Decimal | None
    close_rate_requested: Decimal | None
    realized_profit: Decimal
    profit_abs: Decimal | None
    profit_ratio: Decimal | None
    exit_reason: str | None
    exit_order_status: str | None
    current_rate: Decimal | None
    orders: tuple[OrderRecord, ...]

    @property
    def open_order(self) -> OrderRecord | None:
        """The order that waits to be filled; there is one at most."""
        return next((order for order in self.orders if order.status is OrderStatus.OPEN), None)


@dataclass(frozen=True, slots=True)
class TradePageRecord:
    """A page of closed trades, and how many closed trades there are in all."""

    trades: tuple[TradeRecord, ...]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LockRecord:
    """A lock: the pair (or `*`) is not entered from `locked_ms` until `until_ms`."""

    id: int
    pair: str
    side: str
    locked_ms: int
    until_ms: int
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlacklistRecord:
    """The blacklist: entries as written, the known pairs that they match, and a reason for each entry that was refused."""

    entries: tuple[str, ...]
    pairs: tuple[str, ...]
    errors: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletRecord:
    """The dry-run wallet. `reserved` is what open entry orders hold; free + reserved + what open trades tie == start +
    `closed_profit` + what open trades realized, exactly. `created_ms` is when the database was made (time of day)."""

    currency: str
    start: Decimal
    free: Decimal
    reserved: Decimal
    closed_profit: Decimal
    created_ms: int


@dataclass(frozen=True, slots=True)
class WalletPoint:
    """The wallet's worth at the end of a candle: money and open trades at their close."""

    at_ms: int
    total: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomDataRecord:
    """A value kept with a trade; plain JSON. `created_ms` and `updated_ms` in candle time."""

    trade_id: int
    key: str
    value: Any
    created_ms: int
    updated_ms: int | None
