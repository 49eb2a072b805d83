"""The wallet as REST answers it: balances, the count of trades, and the wallet over time.

Sums are made in Decimals and rounded once. The bot owns the coins of its open trades and, of the stake currency, the tradable part
of its balance less what open trades and waiting entries tie (freqtrade's arithmetic; its free balance still has the fees of open
entries in it, this one does not).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from consumer.bot.fills import base_of
from consumer.bot.records import TradeRecord, WalletPoint, WalletRecord
from consumer.bot.trade_answers import percent, worth
from hub.protocol.answers import Balance, Balances, Count, WalletHistory

__all__ = ["balances", "count", "equity", "wallet_history"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ZERO = Decimal(0)


def equity(wallet: WalletRecord, open_trades: Sequence[TradeRecord]) -> Decimal:
    """What was begun with and all that was realized: the balance, with open trades at what they cost."""
    return wallet.start + wallet.closed_profit + sum((t.realized_profit for t in open_trades), _ZERO)


def balances(wallet: WalletRecord, open_trades: Sequence[TradeRecord], ratio: Decimal) -> Balances:
    """The coins of open trades, oldest trade first, and the stake currency; `ratio` is the tradable part of the balance."""
    held = [trade for trade in open_trades if trade.open_fill_ms is not None]
    coins = [_coin(trade, wallet.currency) for trade in held]
    owned = _owned(wallet, open_trades, ratio)
    money = wallet.free + wallet.reserved
    values = sum((worth(trade).value for trade in held), _ZERO)
    capital = wallet.start * ratio
    gained = float((values + owned) / capital - 1) if capital else 0.0
    return Balances(
        currencies=[*coins, _money(wallet, owned)],
        total=float(values + money),
        total_bot=float(values + owned),
        symbol="",
        value=0.0,
        value_bot=0.0,
        stake=wallet.currency,
        note="Simulated balances",
        starting_capital=float(capital),
        starting_capital_ratio=gained,
        starting_capital_pct=percent(gained),
        starting_capital_fiat=0.0,
        starting_capital_fiat_ratio=0.0,
        starting_capital_fiat_pct=0.0,
    )


def count(open_trades: Sequence[TradeRecord], max_open_trades: int | None) -> Count:
    """Open trades, waiting entries among them; `total_stake` is what the held amounts cost without fees."""
    held = (trade.stake_amount for trade in open_trades if trade.open_fill_ms is not None)
    return Count(
        current=len(open_trades),
        max=-1 if max_open_trades is None else max_open_trades,
        total_stake=float(sum(held, _ZERO)),
    )


def wallet_history(points: Sequence[WalletPoint], created_ms: int) -> WalletHistory:
    """The wallet's worth over time, oldest first."""
    return WalletHistory(
        columns=["date", "__date_ts", "total_quote"],
        length=len(points),
        data=[[_naive(point.at_ms), point.at_ms, float(point.total)] for point in points],
        capture_start_ts=created_ms,
    )


def _owned(wallet: WalletRecord, open_trades: Sequence[TradeRecord], ratio: Decimal) -> Decimal:
    tied = sum((trade.tied for trade in open_trades), wallet.reserved)
    return max(equity(wallet, open_trades) * ratio - tied, _ZERO)


def _coin(trade: TradeRecord, stake: str) -> Balance:
    amount, value = float(trade.amount), float(worth(trade).value)
    return _balance(base_of(trade.pair), amount, amount, 0.0, amount, value, value, stake)


def _money(wallet: WalletRecord, owned: Decimal) -> Balance:
    total = float(wallet.free + wallet.reserved)
    mine = float(owned)
    return _balance(
        wallet.currency, float(wallet.free), total, float(wallet.reserved), mine, total, mine, wallet.currency
    )


def _balance(
    currency: str,
    free: float,
    total: float,
    used: float,
    owned: float,
    est: float,
    est_bot: float,
    stake: str,
) -> Balance:
    return Balance(
        currency=currency,
        free=free,
        balance=total,
        used=used,
        bot_owned=owned,
        est_stake=est,
        est_stake_bot=est_bot,
        stake=stake,
        side="long",
        is_position=False,
        position=0.0,
        is_bot_managed=True,
    )


def _naive(ms: int) -> str:
    return (_EPOCH + timedelta(milliseconds=ms)).replace(tzinfo=None).isoformat()
