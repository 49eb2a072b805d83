"""A bot's trades as its REST answers them, and the fills that its messages should have told of them.

A fill is an order that is no longer open and of which something was filled: freqtrade sends one entry_fill or exit_fill for each, also
for a cancelled order that was filled in part. `Fill.data` makes the message anew from what REST knows. Arithmetic is that of a
position with a weighted average price, as freqtrade 2026.9's messages show it; what REST does not know (`current_rate`,
`fiat_currency`) is null. Two more fields say where it comes from: `source` is "reconciled", `order_id` the order's.

Times are the bot's own, ms since 1970 UTC. Source: `/status`, `/trades` and fills of a running freqtrade 2026.9.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from hub.protocol.messages import NAME_LIMIT_BYTES

__all__ = [
    "FILL_TOPICS",
    "SOURCE",
    "Fill",
    "OrderRow",
    "TradePage",
    "TradeRow",
    "fills_of",
    "open_trades",
    "trade_page",
]

ENTRY_FILL, EXIT_FILL = "entry_fill", "exit_fill"
FILL_TOPICS = frozenset({ENTRY_FILL, EXIT_FILL})
SOURCE = "reconciled"
PLACES = 8
_DIGEST_BYTES = 10
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The year 3000: of a lying bot, too, every time has to become a date.
_LAST_MS = 32_503_680_000_000
Millis = Annotated[int, Meta(ge=0, le=_LAST_MS)]
TradeId = Annotated[int, Meta(ge=0, le=2**53 - 1)]


class OrderRow(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed of an order of /status or /trades."""

    order_id: str
    ft_order_side: str
    is_open: bool
    filled: float | None = None
    safe_price: float | None = None
    order_type: str | None = None
    order_timestamp: Millis | None = None
    order_filled_timestamp: Millis | None = None
    ft_is_entry: bool | None = None
    ft_fee_base: float | None = None
    ft_order_tag: str | None = None
    funding_fee: float | None = None


class TradeRow(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed of a trade of /status or /trades."""

    trade_id: TradeId
    pair: str
    is_open: bool
    open_timestamp: Millis
    orders: list[OrderRow]
    is_short: bool = False
    close_timestamp: Millis | None = None
    exchange: str = ""
    base_currency: str | None = None
    quote_currency: str | None = None
    amount: float | None = None
    stake_amount: float | None = None
    open_rate: float | None = None
    leverage: float | None = None
    fee_open: float | None = None
    fee_close: float | None = None
    enter_tag: str | None = None
    exit_reason: str | None = None
    realized_profit: float | None = None
    close_profit: float | None = None
    close_profit_abs: float | None = None


class TradePage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of closed trades, of `total_trades`."""

    trades: list[TradeRow]
    total_trades: int


_OPEN = msgspec.json.Decoder(list[TradeRow])
_PAGE = msgspec.json.Decoder(TradePage)


def open_trades(body: bytes) -> list[TradeRow]:
    """The answer to /status. Raises ValueError, whose text names the field that does not fit."""
    trades: list[TradeRow] = _decoded(_OPEN, body)
    return trades


def trade_page(body: bytes) -> TradePage:
    """The answer to /trades. Raises ValueError as `open_trades`."""
    page: TradePage = _decoded(_PAGE, body)
    return page


def _decoded(decoder: Any, body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except msgspec.DecodeError as error:
        # The decoder's own text may repeat what the bot sent; one line of it is enough.
        raise ValueError(" ".join(str(error).split())[:200]) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """One filled order. `amounts` are those under which a message may have told it; the first is the one that it should have."""

    topic: str
    trade_id: int
    pair: str
    open_ms: int
    order_id: str
    filled_ms: int
    amounts: tuple[float, ...]
    rate: float
    make: Callable[[], dict[str, Any]]
    """Makes the fields of freqtrade's message; most fills were told, and need none."""

    @property
    def data(self) -> dict[str, Any]:
        """The message's data, made anew."""
        return {**self.make(), "source": SOURCE, "order_id": self.order_id}

    @property
    def mid(self) -> str:
        """The same for this fill for ever: `reconciled/TRADE/OPENED/ORDER`, an order with a long id by its digest.

        OPENED (ms) keeps the trade apart from one of the same number in another database of the bot.
        """
        begin = f"{SOURCE}/{self.trade_id}/{self.open_ms}/"
        plain = begin + self.order_id
        if len(plain.encode()) <= NAME_LIMIT_BYTES:
            return plain
        return begin + hashlib.blake2b(self.order_id.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def fills_of(trade: TradeRow) -> list[Fill]:
    """The fills of a trade, in the order of its orders."""
    filled = [order for order in trade.orders if not order.is_open and (order.filled or 0.0) > 0]
    exits = [order for order in filled if not _is_entry(order, trade)]
    last = exits[-1] if exits and not trade.is_open else None
    walk = _Walk(trade, entries=len(filled) - len(exits), exits=len(exits))
    return [
        walk.entry(order) if _is_entry(order, trade) else walk.exit(order, final=order is last)
        for order in filled
    ]


def _is_entry(order: OrderRow, trade: TradeRow) -> bool:
    if order.ft_is_entry is not None:
        return order.ft_is_entry
    return order.ft_order_side == ("sell" if trade.is_short else "buy")


class _Walk:
    """A trade's position from order to order: `amount` is held, `value` is what it cost without fees, `price` its average."""

    def __init__(self, trade: TradeRow, *, entries: int, exits: int) -> None:
        self._trade = trade
        self._all_entries = entries
        # Then the bot's own stake is that of every moment, without a rounding of ours.
        self._undivided = entries == 1 and exits == (0 if trade.is_open else 1)
        self._leverage = trade.leverage or 1.0
        self._amount = self._value = self._price = 0.0
        self._realized = self._funding = 0.0
        self._entries = 0
        self._entered_ms = 0

    def entry(self, order: OrderRow) -> Fill:
        rate, amounts = order.safe_price or 0.0, _amounts(order)
        self._price = (
            rate if self._amount <= 0 else (self._value + amounts[0] * rate) / (self._amount + amounts[0])
        )
        self._amount = max(self._amount, 0.0) + amounts[0]
        self._value = self._amount * self._price
        self._funding += order.funding_fee or 0.0
        self._entries += 1
        filled_ms = _time(order, self._trade.open_timestamp)
        self._entered_ms = self._entered_ms or filled_ms
        make = partial(
            _entry_data, self._trade, order, rate, amounts[0], stake=self._stake(), added=self._entries > 1
        )
        return self._fill(ENTRY_FILL, order, filled_ms, amounts, rate, make)

    def exit(self, order: OrderRow, *, final: bool) -> Fill:
        trade, rate, held = self._trade, order.safe_price or 0.0, _amounts(order)
        amount = trade.amount if final and trade.amount else held[-1]
        funding = (order.funding_fee or 0.0) + self._funding
        self._realized += self._profit(held[0], self._price, rate, funding)[0]
        # The bot rounds the rate to what its exchange takes, and tells that one until the next entry.
        price = trade.open_rate if trade.open_rate and self._entries == self._all_entries else self._price
        profit, ratio = self._profit(amount, price, rate, funding)
        if self._undivided and trade.close_profit_abs is not None and trade.close_profit is not None:
            profit, ratio = trade.close_profit_abs, trade.close_profit
        stake = trade.stake_amount if final else None
        self._amount -= held[0]
        self._value = self._amount * self._price
        self._funding = 0.0
        filled_ms = max(_time(order, trade.close_timestamp or trade.open_timestamp), self._entered_ms)
        make = partial(
            _exit_data,
            trade,
            order,
            rate,
            amount,
            price=price,
            profit=round(profit, PLACES),
            ratio=round(ratio, PLACES),
            filled_ms=filled_ms,
            stake=self._stake() if stake is None else stake,
            cumulative=self._cumulative(final=final),
            final=final,
        )
        return self._fill(EXIT_FILL, order, filled_ms, tuple(dict.fromkeys((amount, *held))), rate, make)

    def _stake(self) -> float:
        known = self._trade.stake_amount
        return known if self._undivided and known is not None else round(self._value / self._leverage, PLACES)

    def _cumulative(self, *, final: bool) -> float:
        known = self._trade.realized_profit
        return known if final and known is not None else round(self._realized, PLACES)

    def _profit(self, amount: float, price: float, rate: float, funding: float) -> tuple[float, float]:
        sign = -1 if self._trade.is_short else 1
        opened = amount * price * (1 + sign * (self._trade.fee_open or 0.0))
        closed = amount * rate * (1 - sign * (self._trade.fee_close or 0.0)) + sign * funding
        profit = sign * (closed - opened)
        return profit, sign * (closed / opened - 1) * self._leverage if opened else 0.0

    def _fill(
        self,
        topic: str,
        order: OrderRow,
        filled_ms: int,
        amounts: tuple[float, ...],
        rate: float,
        make: Callable[[], dict[str, Any]],
    ) -> Fill:
        trade = self._trade
        return Fill(
            topic=topic,
            trade_id=trade.trade_id,
            pair=trade.pair,
            open_ms=trade.open_timestamp,
            order_id=order.order_id,
            filled_ms=filled_ms,
            amounts=amounts,
            rate=rate,
            make=make,
        )


def _entry_data(
    trade: TradeRow, order: OrderRow, rate: float, amount: float, *, stake: float, added: bool
) -> dict[str, Any]:
    return {
        **_common(trade, order, rate),
        "open_rate": rate,
        "stake_amount": stake,
        "amount": amount,
        "current_rate": None,
        "sub_trade": added,
    }


def _exit_data(
    trade: TradeRow,
    order: OrderRow,
    rate: float,
    amount: float,
    *,
    price: float,
    profit: float,
    ratio: float,
    filled_ms: int,
    stake: float,
    cumulative: float,
    final: bool,
) -> dict[str, Any]:
    return {
        **_common(trade, order, rate),
        "gain": "profit" if ratio > 0 else "loss",
        "amount": amount,
        "open_rate": price,
        "close_rate": rate,
        "current_rate": None,
        "profit_amount": profit,
        "profit_ratio": ratio,
        "exit_reason": (trade.exit_reason if final else None) or order.ft_order_tag or trade.exit_reason,
        "close_date": _iso(filled_ms),
        "stake_amount": stake,
        "sub_trade": not final,
        "cumulative_profit": cumulative,
        "final_profit_ratio": trade.close_profit if final else None,
        "is_final_exit": final,
    }


def _common(trade: TradeRow, order: OrderRow, rate: float) -> dict[str, Any]:
    quote = trade.quote_currency or trade.pair.partition("/")[2].partition(":")[0]
    return {
        "trade_id": trade.trade_id,
        "buy_tag": trade.enter_tag,
        "enter_tag": trade.enter_tag,
        "exchange": trade.exchange.capitalize(),
        "pair": trade.pair,
        "leverage": trade.leverage,
        "direction": "Short" if trade.is_short else "Long",
        "limit": rate,
        "order_rate": rate,
        "order_type": order.order_type or "unknown",
        "open_date": _iso(trade.open_timestamp),
        "stake_currency": quote,
        "base_currency": trade.base_currency or trade.pair.partition("/")[0],
        "quote_currency": quote,
        "fiat_currency": None,
    }


def _amounts(order: OrderRow) -> tuple[float, ...]:
    """What was filled, without the fee that was taken from it, and with it; which is told depends on when the fee was known."""
    filled = order.filled or 0.0
    return (max(filled - order.ft_fee_base, 0.0), filled) if order.ft_fee_base else (filled,)


def _time(order: OrderRow, otherwise: int) -> int:
    return order.order_filled_timestamp or order.order_timestamp or otherwise


def _iso(ms: int) -> str:
    return (_EPOCH + timedelta(milliseconds=min(max(ms, 0), _LAST_MS))).isoformat()
