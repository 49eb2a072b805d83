"""hub.bots.ports: a bot in process that is slow, stuck, broken or gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from hub.bots.ports import InProcess
from hub.protocol.answers import Count, PairHistory, StatusText, Version
from hub.protocol.botapi import OPERATIONS, BotBusy, BotError, BotGone, NotFound

pytestmark = pytest.mark.anyio


class Bot:
    """Waits where it is told to."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.thread = ""
        self.cancelled = threading.Event()
        self.started: list[str] = []

    async def version(self) -> Version:
        self.thread = threading.current_thread().name
        return Version(version="1")

    async def count(self) -> Count:
        self.release.wait(30)
        return Count(current=0, max=1, total_stake=0.0)

    async def status(self) -> list[Any]:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return []

    async def start(self) -> StatusText:
        await asyncio.to_thread(self.release.wait, 30)
        self.started.append("whole")
        return StatusText(status="started")

    async def balance(self) -> Any:
        return object()

    async def trade(self, *, tradeid: int) -> Any:
        raise NotFound("Trade not found.")

    async def stop(self) -> Any:
        raise TimeoutError("the exchange does not answer")


@pytest.fixture
def bot() -> Bot:
    return Bot()


@pytest.fixture
def port(bot: Bot) -> Iterator[InProcess]:
    port = InProcess("a", bot, deadline_s=0.05, in_flight=2)  # type: ignore[arg-type]
    yield port
    bot.release.set()
    port.close()


async def ask(port: InProcess, name: str, **arguments: Any) -> Any:
    answer = await port.perform(OPERATIONS[name], arguments, principal="user:a")
    return msgspec.json.decode(answer.body)


async def until(true: Any) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_it_is_asked_in_a_thread_of_its_own(port: InProcess, bot: Bot) -> None:
    assert await ask(port, "version") == {"version": "1"}
    assert bot.thread == "tradewire-bot-a"


async def test_a_bot_may_be_asked_on_a_loop_that_it_names(bot: Bot) -> None:
    port = InProcess("a", bot, loop=asyncio.get_running_loop())  # type: ignore[arg-type]
    await ask(port, "version")
    assert bot.thread == threading.current_thread().name
    port.close()


async def test_a_bot_that_blocks_holds_up_nobody_and_is_bounded(port: InProcess, bot: Bot) -> None:
    for _ in range(2):
        with pytest.raises(BotBusy, match=r"bot a did not answer within 0\.05 s"):
            await ask(port, "count")
    with pytest.raises(BotBusy, match="2 requests wait for bot a"):
        await ask(port, "version")
    assert port.statistics() == {
        "in_flight": 2, "in_flight_limit": 2, "answered": 0, "failed": 0, "late": 2, "busy": 1,
    }  # fmt: skip
    bot.release.set()
    await until(lambda: port.statistics()["in_flight"] == 0)
    assert await ask(port, "version") == {"version": "1"}


async def test_a_read_that_is_late_is_cancelled(port: InProcess, bot: Bot) -> None:
    with pytest.raises(BotBusy):
        await ask(port, "status")
    await until(bot.cancelled.is_set)
    await until(lambda: port.statistics()["in_flight"] == 0)


async def test_a_change_that_is_late_is_done_to_its_end(port: InProcess, bot: Bot) -> None:
    with pytest.raises(BotBusy):
        await ask(port, "start")
    bot.release.set()
    await until(lambda: bot.started == ["whole"])


async def test_its_errors(port: InProcess, bot: Bot, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(NotFound, match=r"Trade not found\."):
        await ask(port, "trade", tradeid=1)
    for broken in ("balance", "stop"):
        with pytest.raises(BotError, match="bot a failed; the hub's log says how"):
            await ask(port, broken)
    with pytest.raises(BotError, match="this bot does not answer locks"):
        await ask(port, "locks")
    assert "the exchange does not answer" in caplog.text


async def test_what_waits_when_it_ends_is_told_and_it_may_begin_again(bot: Bot) -> None:
    port = InProcess("a", bot)  # type: ignore[arg-type]
    waiting = asyncio.create_task(ask(port, "status"))
    await until(lambda: port.statistics()["in_flight"] == 1)
    await ask(port, "version")
    port.close()
    with pytest.raises(BotGone, match="bot a has ended"):
        await waiting
    assert await ask(port, "version") == {"version": "1"}
    port.close()


async def test_a_loop_that_is_closed_is_a_bot_that_is_gone(bot: Bot) -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    port = InProcess("a", bot, loop=loop)  # type: ignore[arg-type]
    with pytest.raises(BotGone):
        await ask(port, "version")
    assert port.statistics()["in_flight"] == 0


async def test_rows_of_candles_are_encoded_in_slices_to_the_same_json() -> None:
    class Candles:
        async def pair_candles(self, **_asked: Any) -> PairHistory:
            fields = {f.name: f.type for f in msgspec.structs.fields(PairHistory) if f.required}
            zero: dict[str, Any] = {
                name: {"int": 0, "str": ""}.get(kind, []) for name, kind in fields.items()
            }
            return PairHistory(**zero | {"data": [[n, n / 3] for n in range(250)]})

    port = InProcess("a", Candles(), loop=asyncio.get_running_loop())  # type: ignore[arg-type]
    answer = await ask(port, "pair_candles", pair="A/B", timeframe="5m", limit=None)
    assert answer["data"] == [[n, n / 3] for n in range(250)]


async def test_a_port_that_was_taken_back_begins_no_thread(port: InProcess) -> None:
    assert await ask(port, "version") == {"version": "1"}
    port.close()
    assert await ask(port, "version") == {"version": "1"}
    port.close(for_good=True)
    with pytest.raises(BotGone):
        await ask(port, "version")
    assert port.statistics()["in_flight"] == 0
    assert port._own is None
