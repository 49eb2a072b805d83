"""Locks, blacklist, custom data and settings as REST answers them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any

from consumer.bot.records import BlacklistRecord, BotState, CustomDataRecord, LockRecord
from consumer.bot.settings import PaperSettings
from consumer.bot.trade_answers import date_text
from hub.frames.timeframe import timeframe_ms
from hub.protocol.answers import Blacklist, CustomData, Lock, Locks, Market, ShowConfig, TradeCustomData
from hub.protocol.botapi import API_VERSION

__all__ = ["blacklist", "custom_data", "locks", "market", "moment", "show_config"]

METHOD = "ProducerPairList"
"""freqtrade's name for a whitelist that another bot makes."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DECIMALS = {"BTC": 8, "ETH": 5}
_USUAL_DECIMALS = 3
"""Decimals in which freqtrade shows amounts of a currency."""


def locks(records: Sequence[LockRecord]) -> Locks:
    """Locks that hold."""
    return Locks(
        lock_count=len(records),
        locks=[
            Lock(
                id=record.id,
                active=True,
                lock_end_time=date_text(record.until_ms),
                lock_end_timestamp=record.until_ms,
                lock_time=date_text(record.locked_ms),
                lock_timestamp=record.locked_ms,
                pair=record.pair,
                side=record.side,
                reason=record.reason,
            )
            for record in records
        ],
    )


def blacklist(record: BlacklistRecord) -> Blacklist:
    """The blacklist, with the entries that were refused."""
    return Blacklist(
        blacklist=list(record.entries),
        blacklist_expanded=list(record.pairs),
        errors={entry: {"error_msg": reason} for entry, reason in record.errors.items()},
        length=len(record.entries),
        method=[METHOD],
    )


def custom_data(records: Iterable[CustomDataRecord]) -> list[TradeCustomData]:
    """Custom data by trade, in the order given."""
    return [
        TradeCustomData(trade_id=trade_id, custom_data=[_datum(record) for record in own])
        for trade_id, own in groupby(records, lambda record: record.trade_id)
    ]


def market(pair: str) -> Market:
    """A pair that is traded, read off its name."""
    base, _, rest = pair.partition("/")
    quote, _, settle = rest.partition(":")
    return Market(symbol=pair, base=base, quote=quote, spot=not settle, swap=bool(settle), active=True)


def moment(ms: int) -> str:
    """A moment as freqtrade writes it in health: RFC 3339 in UTC."""
    return (_EPOCH + timedelta(milliseconds=ms)).isoformat().replace("+00:00", "Z")


def show_config(
    settings: PaperSettings,
    config: Mapping[str, Any],
    *,
    strategy: str,
    version: str,
    timeframe: str | None,
    state: BotState,
) -> ShowConfig:
    """What the bot says of itself. `timeframe` is that of the frames it follows, None before the first."""
    length_ms = 0 if timeframe is None else timeframe_ms(timeframe)
    unlimited = settings.max_open_trades is None
    return ShowConfig(
        version=version,
        api_version=API_VERSION,
        dry_run=True,
        stake_currency=settings.stake_currency,
        stake_amount=_stake(settings.stake_amount),
        stake_currency_decimals=_DECIMALS.get(settings.stake_currency, _USUAL_DECIMALS),
        max_open_trades=-1.0 if unlimited else float(settings.max_open_trades or 0),
        minimal_roi={str(minutes): float(ratio) for minutes, ratio in settings.minimal_roi},
        stoploss=float(settings.stoploss),
        trailing_stop=False,
        trailing_stop_positive_offset=0.0,
        trailing_only_offset_is_reached=False,
        unfilledtimeout=_timeouts(settings),
        order_types={
            **{str(kind): how for kind, how in settings.order_types.items()},
            "stoploss_on_exchange": False,
        },
        use_custom_stoploss=False,
        timeframe=timeframe,
        timeframe_ms=length_ms,
        timeframe_min=length_ms // 60_000,
        exchange=settings.exchange.lower(),
        strategy=strategy,
        force_entry_enable=settings.force_entry,
        exit_pricing=_section(config, "exit_pricing"),
        entry_pricing=_section(config, "entry_pricing"),
        bot_name=settings.name,
        state=str(state),
        runmode="dry_run",
    )


def _datum(record: CustomDataRecord) -> CustomData:
    return CustomData(
        key=record.key,
        type=type(record.value).__name__,
        value=record.value,
        created_at=_naive(record.created_ms),
        updated_at=None if record.updated_ms is None else _naive(record.updated_ms),
    )


def _naive(ms: int) -> str:
    return (_EPOCH + timedelta(milliseconds=ms)).replace(tzinfo=None).isoformat()


def _stake(amount: Decimal | None) -> str:
    return "unlimited" if amount is None else format(amount.normalize(), "f")


def _timeouts(settings: PaperSettings) -> dict[str, Any]:
    after = settings.unfilled_timeout
    return {
        "entry": after.entry,
        "exit": after.exit,
        "unit": after.unit,
        "exit_timeout_count": after.exit_timeout_count,
    }


def _section(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    return dict(value) if isinstance(value, Mapping) else {}
