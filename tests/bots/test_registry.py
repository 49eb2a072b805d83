"""hub.bots.registry: who answers for a name, and what the hub says of a bot that only publishes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import pytest

from hub.bots.registry import API_VERSION, BotRegistry, HubBot
from hub.protocol.botapi import BotAPI, BotError, Health, PairList, ShowConfig, UnknownBot

pytestmark = pytest.mark.anyio


class Source:
    """What a node would know."""

    def __init__(self, **known: Any) -> None:
        self.known = known

    def bots(self) -> Collection[str]:
        return self.known.get("bots", ["alpha"])

    def whitelist(self, bot: str) -> Sequence[str] | None:
        return self.known.get("whitelist")

    def last_message_ms(self, bot: str) -> int | None:
        return self.known.get("last_message_ms")

    def state(self, bot: str) -> str | None:
        return self.known.get("state")

    def timeframe(self, bot: str) -> str | None:
        return self.known.get("timeframe")


def hub_bot(overrides: dict[str, Any] | None = None, **known: Any) -> HubBot:
    return HubBot("alpha", Source(**known), version="tradewire-1.0", overrides=overrides)


async def test_a_bot_of_which_nothing_is_known() -> None:
    shown = await hub_bot().show_config()
    assert (shown.bot_name, shown.version, shown.api_version) == ("alpha", "tradewire-1.0", API_VERSION)
    assert (shown.state, shown.runmode, shown.dry_run) == ("stopped", "dry_run", True)
    assert (shown.timeframe, shown.timeframe_ms, shown.timeframe_min) == (None, 0, 0)
    assert (shown.strategy, shown.exchange, shown.stake_currency) == (None, "", "")
    assert (shown.short_allowed, shown.force_entry_enable) == (False, False)


async def test_show_config_has_every_field_of_freqtrade() -> None:
    required = {
        "version", "api_version", "dry_run", "trading_mode", "margin_mode", "short_allowed", "stake_currency",
        "stake_amount", "stake_currency_decimals", "max_open_trades", "minimal_roi", "stoploss_on_exchange",
        "timeframe_ms", "timeframe_min", "exchange", "demo_trading", "force_entry_enable", "exit_pricing",
        "entry_pricing", "bot_name", "state", "runmode", "position_adjustment_enable",
        "max_entry_position_adjustment",
    }  # fmt: skip
    optional = {
        "strategy_version", "available_capital", "stoploss", "trailing_stop", "trailing_stop_positive",
        "trailing_stop_positive_offset", "trailing_only_offset_is_reached", "unfilledtimeout", "order_types",
        "use_custom_stoploss", "timeframe", "strategy",
    }  # fmt: skip
    shown = msgspec.to_builtins(await hub_bot().show_config())
    assert set(shown) == required | optional
    assert not [name for name in required if shown[name] is None]


def test_the_api_version_opens_freqtrades_websocket_and_promises_no_more() -> None:
    # FreqUI compares numbers: 2.2 is "websocket", 2.21 "new_candle", 2.22 begins what the hub does not serve.
    assert 2.2 <= API_VERSION < 2.22


async def test_the_timeframe_comes_from_the_frames() -> None:
    shown = await hub_bot(timeframe="1h").show_config()
    assert (shown.timeframe, shown.timeframe_ms, shown.timeframe_min) == ("1h", 3_600_000, 60)


async def test_a_timeframe_of_no_meaning_is_no_error() -> None:
    assert (await hub_bot(timeframe="soon").show_config()).timeframe_ms == 0


@pytest.mark.parametrize(
    ("said", "heard", "state"),
    [
        (None, None, "stopped"),
        (None, 5, "running"),
        ("running", 5, "running"),
        ("paused", 5, "paused"),
        ("stopped", 5, "stopped"),
        ("reload_config", 5, "reload_config"),
        ("process died", 5, "stopped"),
        ("some remark", 5, "running"),
    ],
)
async def test_the_state_is_the_last_status(said: str | None, heard: int | None, state: str) -> None:
    assert (await hub_bot(state=said, last_message_ms=heard).show_config()).state == state


async def test_the_owner_may_state_fields() -> None:
    overrides = {
        "dry_run": False,
        "runmode": "live",
        "timeframe": "5m",
        "bot_name": "Alpha",
        "max_open_trades": 3.0,
    }
    shown = await hub_bot(overrides, timeframe="1h").show_config()
    assert (shown.dry_run, shown.runmode, shown.bot_name, shown.max_open_trades) == (
        False,
        "live",
        "Alpha",
        3.0,
    )
    assert (shown.timeframe, shown.timeframe_ms) == ("5m", 300_000)


async def test_the_whitelist() -> None:
    assert await hub_bot(whitelist=("A/B", "C/D:D")).whitelist() == PairList(
        whitelist=["A/B", "C/D:D"], length=2
    )
    assert await hub_bot(whitelist=()).whitelist() == PairList(whitelist=[])


async def test_no_whitelist_yet_is_a_bot_error() -> None:
    with pytest.raises(BotError, match="bot alpha has not published a whitelist yet"):
        await hub_bot().whitelist()


async def test_health_is_the_time_of_the_last_message() -> None:
    assert await hub_bot(last_message_ms=1_795_355_651_103).health() == Health(
        last_process="2026-11-22T13:54:11.103000Z", last_process_ts=1_795_355_651
    )
    assert await hub_bot().health() == Health()


async def test_the_version() -> None:
    assert await hub_bot().version() == "tradewire-1.0"


# --- the registry


class OtherBot:
    """A bot that answers for itself."""

    async def version(self) -> str:
        return "2026.9"

    async def show_config(self) -> ShowConfig:
        return ShowConfig()

    async def whitelist(self) -> PairList:
        return PairList(whitelist=[])

    async def health(self) -> Health:
        return Health()


def registry(**keys: Any) -> BotRegistry:
    return BotRegistry(Source(), default_bot="main", version="v", **keys)


async def shown_name(bot: BotAPI) -> str:
    return (await bot.show_config()).bot_name


async def test_the_default_bot_always_answers() -> None:
    assert await shown_name(registry().bot(None)) == "main"
    assert await shown_name(registry().bot("main")) == "main"


async def test_a_bot_that_published_answers() -> None:
    assert await shown_name(registry().bot("alpha")) == "alpha"


def test_nobody_else_does() -> None:
    with pytest.raises(UnknownBot, match="bot beta: unknown"):
        registry().bot("beta")


async def test_a_configured_bot_answers_before_its_first_message() -> None:
    configured = registry(overrides={"beta": {"exchange": "binance"}})
    assert (await configured.bot("beta").show_config()).exchange == "binance"
    assert configured.names() == ["alpha", "beta", "main"]


async def test_a_registered_bot_takes_over_until_it_is_removed() -> None:
    bots = registry()
    other = OtherBot()
    bots.register("alpha", other)
    bots.register("main", other)
    assert bots.bot("alpha") is other
    assert bots.bot(None) is other
    bots.remove("alpha")
    bots.remove("alpha")
    assert await bots.bot("alpha").version() == "v"
