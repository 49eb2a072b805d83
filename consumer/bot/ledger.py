"""All trades of a book, kept between questions, so that statistics over many do not read them again at every candle.

A closed trade never changes, but for the current rate of its pair, which no statistics use; it can only be deleted. So what is
kept are the closed trades, and a question reads the newest ones until it has as many as the book and their profits add up to the
wallet's closed profit, exactly; when that does not come out, a trade was deleted and all are read again. Reading 10,000 trades
takes seconds on a busy machine; the newest few take milliseconds.

The memory is that of the closed trades with their orders: about 2.5 KB each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from threading import Lock

from consumer.bot.book import Book
from consumer.bot.queries import Reading
from consumer.bot.records import TradeRecord, WalletRecord

__all__ = ["Ledger", "Trades"]


@dataclass(frozen=True, slots=True)
class Trades:
    """All trades, by number, and the wallet, of one commit."""

    revision: int
    closed: Sequence[TradeRecord]
    open: Sequence[TradeRecord]
    wallet: WalletRecord


class Ledger:
    """The trades of the book that is asked; one ledger per book. From any thread; a second question waits for the first."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._trades: Trades | None = None

    def trades(self, book: Book) -> Trades:
        """All trades, as of now. Raises DatabaseFailed."""
        with self._lock:
            if self._trades is None or self._trades.revision != book.revision:
                with book.reading() as reading:
                    self._trades = self._read(reading)
            return self._trades

    def statistics(self) -> dict[str, int]:
        """How many closed trades are kept."""
        trades = self._trades
        return {"closed_trades": 0 if trades is None else len(trades.closed)}

    def _read(self, reading: Reading) -> Trades:
        wallet = reading.wallet()
        known = self._trades.closed if self._trades is not None else ()
        closed = _with_newest(known, reading, wallet.closed_profit) if known else None
        return Trades(
            revision=reading.revision,
            closed=reading.closed_trades() if closed is None else closed,
            open=reading.open_trades(),
            wallet=wallet,
        )


def _with_newest(
    known: Sequence[TradeRecord], reading: Reading, closed_profit: Decimal
) -> Sequence[TradeRecord] | None:
    """`known` and the trades that were closed since, by number; None when that is not all there is."""
    missing = reading.trades(1).total - len(known)
    if missing < 0:
        return None
    found = {trade.id: trade for trade in known}
    if missing:
        newest = reading.trades(missing, order_by_id=False).trades
        found |= {trade.id: trade for trade in newest}
    if len(found) != len(known) + missing or _profit(found.values()) != closed_profit:
        return None
    return tuple(sorted(found.values(), key=lambda trade: trade.id)) if missing else known


def _profit(trades: Iterable[TradeRecord]) -> Decimal:
    return sum((trade.profit_abs or Decimal(0) for trade in trades), Decimal(0))
