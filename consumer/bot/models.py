"""The tables of a PaperBot: wallet, trades and orders, what waits, what is barred, the outbox, and answers to keyed calls.

Money is stored as decimal text, since SQLite has no exact type; times are ms since 1970 UTC, of candles wherever a trade is
meant. SCHEMA_VERSION stands in the wallet's row and changes with every change here.
"""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Dialect, ForeignKey, Integer, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

__all__ = [
    "ADDED",
    "SCHEMA_VERSION",
    "Answered",
    "Base",
    "BlacklistChange",
    "Clock",
    "CustomDatum",
    "Lock",
    "Order",
    "OutboxEntry",
    "Rate",
    "Signal",
    "Trade",
    "Wallet",
    "WalletTotal",
]

SCHEMA_VERSION = 3


# Amounts and fees come again and again in neighbouring rows: one object for them all, and a third of the time to read them.
_decimal = lru_cache(maxsize=8192)(Decimal)


class DecimalText(TypeDecorator[Decimal]):
    """A Decimal kept exactly, as text."""

    impl = String(80)
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> str | None:
        return None if value is None else format(value, "f")

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Decimal | None:
        return None if value is None else _decimal(value)


class Base(DeclarativeBase):
    """Base of the tables."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {Decimal: DecimalText(), int: BigInteger(), str: Text()}


class Wallet(Base):
    """The one row of the dry-run wallet and of the bot itself.

    `instance` tells two databases of one bot apart; it is part of every mid. `reserved` is held by open entry orders.
    `closed_profit` is that of closed trades. `next_trade` is kept, since the number of a deleted trade must not come again.
    `revision` rises with every commit.
    """

    __tablename__ = "wallet"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    schema_version: Mapped[int]
    instance: Mapped[str]
    currency: Mapped[str]
    start: Mapped[Decimal]
    free: Mapped[Decimal]
    reserved: Mapped[Decimal]
    closed_profit: Mapped[Decimal]
    created_ms: Mapped[int]
    state: Mapped[str]
    next_trade: Mapped[int]
    revision: Mapped[int] = mapped_column()

    # An update asks for the value that was read: of two runs on one database, the second to act is refused.
    __mapper_args__ = {"version_id_col": revision, "version_id_generator": False}  # noqa: RUF012


class Trade(Base):
    """A position of one pair, from its first order to its last exit.

    `paid` and `received` are after fees, and sums over all orders; `tied` is what the held amount cost, of `paid`. Until the entry is
    filled `open_fill_ms` is None, `paid` and `tied` are 0, and rate and amount are those of the order. `close_rate_requested` is
    of the newest exit order, `exit_timeouts` counts those that timed out, `last_order` is the number of the newest order.
    """

    __tablename__ = "trades"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    pair: Mapped[str]
    is_open: Mapped[bool] = mapped_column(index=True)
    open_ms: Mapped[int]
    open_fill_ms: Mapped[int | None]
    open_rate: Mapped[Decimal]
    open_rate_requested: Mapped[Decimal]
    amount: Mapped[Decimal]
    amount_requested: Mapped[Decimal]
    stake_amount: Mapped[Decimal]
    max_stake_amount: Mapped[Decimal]
    paid: Mapped[Decimal]
    tied: Mapped[Decimal]
    fee: Mapped[Decimal]
    fee_open_cost: Mapped[Decimal]
    fee_close_cost: Mapped[Decimal]
    stop_rate: Mapped[Decimal]
    initial_stop_rate: Mapped[Decimal]
    min_rate: Mapped[Decimal | None]
    max_rate: Mapped[Decimal | None]
    enter_tag: Mapped[str | None]
    last_order: Mapped[int]
    exit_timeouts: Mapped[int]
    received: Mapped[Decimal]
    realized_profit: Mapped[Decimal]
    close_ms: Mapped[int | None] = mapped_column(default=None)
    close_rate: Mapped[Decimal | None] = mapped_column(default=None)
    close_rate_requested: Mapped[Decimal | None] = mapped_column(default=None)
    profit: Mapped[Decimal | None] = mapped_column(default=None)
    profit_ratio: Mapped[Decimal | None] = mapped_column(default=None)
    exit_reason: Mapped[str | None] = mapped_column(default=None)
    exit_order_status: Mapped[str | None] = mapped_column(default=None)


class Order(Base):
    """One order of a trade; `number` counts within the trade. It is filled wholly or not at all.

    `rate` is what was asked, `average` what it was filled at; `cost` and `fee` are of what is filled. An open entry order holds
    `reserved` of the wallet.
    """

    __tablename__ = "orders"

    trade_id: Mapped[int] = mapped_column(ForeignKey("trades.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    side: Mapped[str]
    filled_ms: Mapped[int | None]
    order_id: Mapped[str]
    type: Mapped[str]
    status: Mapped[str] = mapped_column(index=True)
    placed_ms: Mapped[int]
    rate: Mapped[Decimal]
    amount: Mapped[Decimal]
    filled: Mapped[Decimal]
    average: Mapped[Decimal | None]
    cost: Mapped[Decimal]
    fee: Mapped[Decimal]
    reserved: Mapped[Decimal]
    tag: Mapped[str | None]
    # Never followed: it makes the session write a trade before its orders.
    trade: Mapped[Trade] = relationship(lazy="raise")


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


class Rate(Base):
    """The close of a pair's last usable row."""

    __tablename__ = "rates"

    pair: Mapped[str] = mapped_column(primary_key=True)
    close: Mapped[Decimal]


class WalletTotal(Base):
    """The wallet's worth at the end of a candle; one an hour at most."""

    __tablename__ = "wallet_totals"

    at_ms: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    total: Mapped[Decimal]


class Lock(Base):
    """A pair (or `*`) that is not entered until a time."""

    __tablename__ = "locks"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    pair: Mapped[str]
    side: Mapped[str]
    locked_ms: Mapped[int]
    until_ms: Mapped[int]
    reason: Mapped[str | None]


class BlacklistChange(Base):
    """An entry that was added to the configured blacklist, or taken off it, at run time."""

    __tablename__ = "blacklist"

    entry: Mapped[str] = mapped_column(primary_key=True)
    added: Mapped[bool]
    number: Mapped[int]


class CustomDatum(Base):
    """A value that is kept with a trade, as JSON."""

    __tablename__ = "custom_data"

    trade_id: Mapped[int] = mapped_column(ForeignKey("trades.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
    created_ms: Mapped[int]
    updated_ms: Mapped[int | None]
    trade: Mapped[Trade] = relationship(lazy="raise")


class OutboxEntry(Base):
    """A message to publish: written with its trade, removed once acknowledged. `refused` says why it never will be."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    topic: Mapped[str]
    mid: Mapped[str] = mapped_column(unique=True)
    data: Mapped[str]
    refused: Mapped[str | None] = mapped_column(default=None)


class Answered(Base):
    """The answer to a call with a key, written with the call's effect. `at_ms` is of the time of day, `body` JSON."""

    __tablename__ = "answers"

    call: Mapped[str] = mapped_column(String(64), primary_key=True)
    at_ms: Mapped[int] = mapped_column(index=True)
    status: Mapped[int]
    body: Mapped[str]
    size: Mapped[int]


ADDED = {2: (Answered,)}
"""What was added after a schema version, which had all else as it is now."""
