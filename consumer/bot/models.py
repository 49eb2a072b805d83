"""The tables of a PaperBot: wallet, trades, orders, signals, clocks and the outbox.

Money is stored as decimal text, since SQLite has no exact type; times are ms since 1970 UTC, of candles wherever a trade is
meant. SCHEMA_VERSION stands in the wallet's row and changes with every change here.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Dialect, ForeignKey, Integer, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

__all__ = ["SCHEMA_VERSION", "Base", "Clock", "Order", "OutboxEntry", "Signal", "Trade", "Wallet"]

SCHEMA_VERSION = 1


class DecimalText(TypeDecorator[Decimal]):
    """A Decimal kept exactly, as text."""

    impl = String(80)
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> str | None:
        return None if value is None else format(value, "f")

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


class Base(DeclarativeBase):
    """Base of the tables."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {Decimal: DecimalText(), int: BigInteger(), str: Text()}


class Wallet(Base):
    """The one row of the dry-run wallet. `instance` tells two databases of one bot apart; it is part of every mid."""

    __tablename__ = "wallet"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    schema_version: Mapped[int]
    instance: Mapped[str]
    currency: Mapped[str]
    start: Mapped[Decimal]
    free: Mapped[Decimal]
    closed_profit: Mapped[Decimal]


class Trade(Base):
    """A position of one pair, from its entry to its exit. `paid` and `received` are after fees."""

    __tablename__ = "trades"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    pair: Mapped[str]
    is_open: Mapped[bool] = mapped_column(index=True)
    open_ms: Mapped[int]
    open_rate: Mapped[Decimal]
    amount: Mapped[Decimal]
    stake_amount: Mapped[Decimal]
    paid: Mapped[Decimal]
    fee: Mapped[Decimal]
    stop_rate: Mapped[Decimal]
    enter_tag: Mapped[str | None]
    close_ms: Mapped[int | None] = mapped_column(default=None)
    close_rate: Mapped[Decimal | None] = mapped_column(default=None)
    received: Mapped[Decimal | None] = mapped_column(default=None)
    profit: Mapped[Decimal | None] = mapped_column(default=None)
    profit_ratio: Mapped[Decimal | None] = mapped_column(default=None)
    exit_reason: Mapped[str | None] = mapped_column(default=None)
    orders: Mapped[list[Order]] = relationship(back_populates="trade", order_by="Order.number")


class Order(Base):
    """One order of a trade; a dry run fills it at once. `number` counts within the trade."""

    __tablename__ = "orders"

    trade_id: Mapped[int] = mapped_column(ForeignKey("trades.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    side: Mapped[str]
    filled_ms: Mapped[int]
    rate: Mapped[Decimal]
    amount: Mapped[Decimal]
    cost: Mapped[Decimal]
    fee: Mapped[Decimal]
    trade: Mapped[Trade] = relationship(back_populates="orders")


class Signal(Base):
    """What a pair's last candle asked for; carried out at the open of its next one."""

    __tablename__ = "signals"

    pair: Mapped[str] = mapped_column(primary_key=True)
    side: Mapped[str]
    tag: Mapped[str | None]
    candle_ms: Mapped[int]


class Clock(Base):
    """The last candle acted on, for each producing bot and timeframe."""

    __tablename__ = "clocks"

    producer: Mapped[str] = mapped_column(primary_key=True)
    bot: Mapped[str] = mapped_column(primary_key=True)
    timeframe: Mapped[str] = mapped_column(primary_key=True)
    candle_type: Mapped[str] = mapped_column(primary_key=True)
    acted_ms: Mapped[int] = mapped_column()

    # An update asks for the value that was read: of two runs on one database, the second to act is refused.
    __mapper_args__ = {"version_id_col": acted_ms, "version_id_generator": False}  # noqa: RUF012


class OutboxEntry(Base):
    """A message to publish: written with its trade, removed once acknowledged. `refused` says why it never will be."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    topic: Mapped[str]
    mid: Mapped[str] = mapped_column(unique=True)
    data: Mapped[str]
    refused: Mapped[str | None] = mapped_column(default=None)
