"""All trades of a book, kept between questions, so that statistics over many do not read them again at every candle.

A closed trade never changes, but for the current rate of its pair, which no statistics use; it can only be deleted. So what is
kept are the closed trades, and a question reads which there are and the records of those that it does not know. Reading 10,000
trades takes seconds on a busy machine; their numbers and the newest few take milliseconds.

The memory is that of the closed trades with their orders: about 2.5 KB each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
        known = {trade.id: trade for trade in self._trades.closed} if self._trades is not None else {}
        numbers = reading.closed_numbers()
        found = known | {
            t.id: t for t in reading.closed([number for number in numbers if number not in known])
        }
        return Trades(
            revision=reading.revision,
            closed=tuple(found[number] for number in numbers),
            open=reading.open_trades(),
            wallet=reading.wallet(),
        )
