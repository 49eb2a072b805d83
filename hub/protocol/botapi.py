"""BotAPI: what REST asks of a bot, with its answers and errors.

Fields and types are those of freqtrade 2026.9's REST API, so that its client and FreqUI read them.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from hub.protocol.errors import HubError

__all__ = ["BotAPI", "BotError", "BotGone", "Health", "PairList", "ShowConfig", "UnknownBot"]


class BotError(HubError):
    """The bot answered that it cannot do this now; over REST a 502 with the text."""


class BotGone(BotError):
    """The bot is out of reach."""


class UnknownBot(HubError):
    """No bot of this name; over REST a 404."""


class PairList(msgspec.Struct, frozen=True, kw_only=True):
    """The bot's whitelist, and the methods that made it as far as they are known."""

    whitelist: list[str]
    method: list[str] = []


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Signs of life: dates as RFC 3339 in UTC, `_ts` in whole seconds since 1970; null where nobody knows."""

    last_process: str | None = None
    last_process_ts: int | None = None
    bot_start: str | None = None
    bot_start_ts: int | None = None
    bot_startup: str | None = None
    bot_startup_ts: int | None = None


class ShowConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a bot says of itself. The defaults are of a bot of which nothing is known: no feature, no number, no name."""

    version: str = ""
    strategy_version: str | None = None
    api_version: float = 0.0
    dry_run: bool = True
    trading_mode: str = "spot"
    margin_mode: str = ""
    short_allowed: bool = False
    stake_currency: str = ""
    stake_amount: str = ""
    available_capital: float | None = None
    stake_currency_decimals: int = 8
    max_open_trades: float = -1.0
    minimal_roi: dict[str, Any] = {}
    stoploss: float | None = None
    stoploss_on_exchange: bool = False
    trailing_stop: bool | None = None
    trailing_stop_positive: float | None = None
    trailing_stop_positive_offset: float | None = None
    trailing_only_offset_is_reached: bool | None = None
    unfilledtimeout: dict[str, Any] | None = None
    order_types: dict[str, Any] | None = None
    use_custom_stoploss: bool | None = None
    timeframe: str | None = None
    timeframe_ms: int = 0
    timeframe_min: int = 0
    exchange: str = ""
    demo_trading: bool = False
    strategy: str | None = None
    force_entry_enable: bool = False
    exit_pricing: dict[str, Any] = {}
    entry_pricing: dict[str, Any] = {}
    bot_name: str = ""
    state: str = ""
    runmode: str = "dry_run"
    position_adjustment_enable: bool = False
    max_entry_position_adjustment: int = -1
    proxy_coin: str | UnsetType | None = UNSET


class BotAPI(Protocol):
    """One bot, wherever it runs. Each call may wait for the bot; cancelling it has no effect on the bot.

    Each raises BotError, or BotGone when the bot is out of reach.
    """

    async def version(self) -> str:
        """The version of the software that answers."""

    async def show_config(self) -> ShowConfig:
        """Its settings and state."""

    async def whitelist(self) -> PairList:
        """The pairs that it trades now."""

    async def health(self) -> Health:
        """When it last did something."""
