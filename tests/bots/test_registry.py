"""hub.bots.registry and hub.bots.hub_bot: who answers for a name, and what the hub says of a bot that only publishes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import pytest

from hub.bots.freqtrade import FreqtradeState
from hub.bots.hub_bot import HUB_API_VERSION, Candles, HubBot, Turns
from hub.bots.ports import InProcess
from hub.bots.registry import BotKind, BotRegistry
from hub.protocol.answers import Health, PairList, Version
from hub.protocol.botapi import API_VERSION, OPERATIONS, BotBusy, BotError, BotGone, UnknownBot
from hub.protocol.errors import Forbidden, Overloaded, RequestError

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

    def online(self, bot: str) -> bool | None:
        return self.known.get("online")

    def candles(self, bot: str, pair: str, timeframe: str) -> Candles | None:
        return None


def hub_bot(overrides: dict[str, Any] | None = None, **known: Any) -> HubBot:
    return HubBot("alpha", Source(**known), version="tradewire-1.0", overrides=overrides)


async def test_a_bot_of_which_nothing_is_known() -> None:
    shown = await hub_bot().show_config()
    assert (shown.bot_name, shown.version, shown.api_version) == ("alpha", "tradewire-1.0", HUB_API_VERSION)
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


def test_the_api_version_promises_no_more_than_the_hub_answers_by_itself() -> None:
    # FreqUI compares numbers: 2.2 is "websocket", 2.21 "new_candle", 2.35 pair_candles by POST, 2.42 begins what needs the bot.
    assert 2.35 <= HUB_API_VERSION < 2.42 < API_VERSION


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
    assert await hub_bot(whitelist=()).whitelist() == PairList(whitelist=[], length=0)


async def test_no_whitelist_yet_is_a_bot_error() -> None:
    with pytest.raises(BotError, match="bot alpha has not published a whitelist yet"):
        await hub_bot().whitelist()


async def test_health_is_the_time_of_the_last_message() -> None:
    assert await hub_bot(last_message_ms=1_795_355_651_103).health() == Health(
        last_process="2026-11-22T13:54:11.103000Z", last_process_ts=1_795_355_651
    )
    assert await hub_bot().health() == Health()


async def test_the_version() -> None:
    assert await hub_bot().version() == Version(version="tradewire-1.0")


async def test_what_only_the_bot_knows_is_a_bot_error() -> None:
    answered = {"version", "show_config", "health", "plot_config"}
    for operation in OPERATIONS.values():
        if operation.name in answered:
            assert (await hub_bot().perform(operation, {}, principal="user:a")).status == 200
        elif operation.name not in {"whitelist", "pair_candles", "chosen_pair_candles"}:
            with pytest.raises(BotError, match="bot alpha is not reachable over REST"):
                await hub_bot().perform(operation, {}, principal="user:a")


# --- the registry


class Requester:
    """A bot that takes whole requests, and answers as it is told."""

    name = "alpha"

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[tuple[Any, ...]] = []

    def state(self) -> FreqtradeState:
        return FreqtradeState(online=True, last_success_ms=None, failure="")

    async def request(
        self, method: str, path: str, query: str, body: Any, *, principal: str, key: str | None = None
    ) -> tuple[int, bytes]:
        self.asked.append((method, path, query, body, principal))
        if self.error is not None:
            raise self.error
        return 418, b"[]"


class Known:
    """A registry with every kind of bot."""

    def __init__(self, source: Source | None = None, **keys: Any) -> None:
        self.in_process: dict[str, InProcess] = {}
        self.attached: dict[str, Requester] = {}
        self.registry = BotRegistry(
            source or Source(),
            default_bot="main",
            version="v",
            now_ms=lambda: 0,
            in_process=self.in_process,
            attached=lambda: self.attached,
            attach=self.attached.__getitem__,
            **keys,
        )

    async def shown_name(self, name: str | None) -> str:
        answer = await self.registry.port(name).perform(OPERATIONS["show_config"], {}, principal="user:a")
        return str(msgspec.json.decode(answer.body)["bot_name"])

    def kinds(self) -> dict[str, BotKind]:
        return {listing.name: listing.kind for listing in self.registry.list()}


async def test_the_default_bot_always_answers() -> None:
    assert await Known().shown_name(None) == "main"
    assert await Known().shown_name("main") == "main"


async def test_a_bot_that_published_answers() -> None:
    assert await Known().shown_name("alpha") == "alpha"


def test_nobody_else_does() -> None:
    with pytest.raises(UnknownBot, match="bot beta: unknown"):
        Known().registry.port("beta")
    assert not Known().registry.knows("beta")


async def test_a_configured_bot_answers_before_its_first_message() -> None:
    known = Known(overrides={"beta": {"exchange": "binance", "bot_name": "B"}})
    assert await known.shown_name("beta") == "B"
    assert known.registry.names() == ["alpha", "beta", "main"]


def test_the_nearest_way_to_a_bot_is_taken() -> None:
    known, freqtrade = Known(), Requester()
    assert known.kinds()["alpha"] is BotKind.MESSAGES
    known.registry.pass_to(freqtrade)
    assert known.kinds()["alpha"] is BotKind.FREQTRADE
    assert known.registry.passed("alpha") is freqtrade
    known.attached["alpha"] = Requester()
    assert known.kinds()["alpha"] is BotKind.ATTACHED
    assert known.registry.passed("alpha") is None
    port = known.in_process["alpha"] = InProcess("alpha", None)  # type: ignore[arg-type]
    assert known.registry.port("alpha") is port
    assert known.kinds() == {"alpha": BotKind.IN_PROCESS, "main": BotKind.MESSAGES}
    del known.in_process["alpha"], known.attached["alpha"]
    assert known.kinds()["alpha"] is BotKind.FREQTRADE


def test_a_bot_of_any_kind_is_listed_without_a_message() -> None:
    known = Known(Source(bots=[]))
    known.attached["a"] = Requester()
    known.in_process["b"] = InProcess("b", None)  # type: ignore[arg-type]
    listings = {listing.name: listing for listing in known.registry.list()}
    assert list(listings) == ["a", "b", "main"]
    assert listings["a"].online
    assert (listings["main"].online, listings["main"].stale, listings["main"].default) == (None, None, True)
    assert all(known.registry.knows(name) for name in listings)


async def test_an_attached_bot_gets_the_request_of_the_operation() -> None:
    known = Known()
    bot = known.attached["alpha"] = Requester()
    operation = OPERATIONS["force_exit"]
    answer = await known.registry.port("alpha").perform(operation, {"tradeid": 3}, principal="user:a")
    assert (answer.status, answer.body) == (418, b"[]")
    assert bot.asked == [("POST", "/forceexit", "", {"tradeid": 3}, "user:a")]


def gone() -> RequestError:
    """As hub.protocol.errors.BotUnreachable."""
    error = Overloaded("g")
    error.code = "bot_gone"  # type: ignore[misc, assignment]
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [(gone(), BotGone), (Overloaded("o"), BotBusy), (Forbidden("f"), BotError), (BotBusy("b"), BotBusy)],
)
async def test_a_call_that_fails_is_one_of_botapis_errors(
    error: Exception, expected: type[Exception]
) -> None:
    known = Known()
    known.attached["alpha"] = Requester(error)
    with pytest.raises(expected) as raised:
        await known.registry.port("alpha").perform(OPERATIONS["count"], {}, principal="user:a")
    assert type(raised.value) is expected


async def test_of_many_long_answers_one_slice_is_made_a_turn() -> None:
    loop, turns, turn = asyncio.get_running_loop(), Turns(), 0
    slices: list[int] = []
    ended = asyncio.Event()

    def count() -> None:
        nonlocal turn
        turn += 1
        if not ended.is_set():
            loop.call_soon(count)

    async def work() -> None:
        for _ in range(4):
            await turns.next()
            slices.append(turn)

    count()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(work())
    ended.set()
    assert len(slices) == 32
    assert max(Counter(slices).values()) == 1
