"""consumer.feed."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any

import pytest
from feed_doubles import AsyncBot, Bot, advanced, event, fill, handled, lost

from consumer import feed, lane
from consumer.bookmarks import read_file
from consumer.bot import PaperBot
from consumer.config import ConsumerConfig, ProducerConfig
from consumer.errors import BotFailed, ConfigError, Unauthorized
from consumer.feed import Feed
from consumer.publisher import Ack, Publication
from hub.frames.columns import Columns
from hub.protocol.botapi import BotError
from hub.protocol.envelope import Position
from hub.protocol.known import Known
from hub.protocol.localbot import BotContext, Connected, Delivery, Disconnected, Lost
from hub.protocol.messages import AnalyzedDf, FrameKey

pytestmark = pytest.mark.anyio


class FakeConsumer:
    """A Consumer over a list: deliveries, exceptions to raise, or callables to await in between."""

    script: list[Any]
    positions: Mapping[str, Known]
    taken: int
    closed: bool

    def __init__(self, settings: ConsumerConfig, *, positions: Mapping[str, Known], advances: bool) -> None:
        assert advances
        type(self).positions = dict(positions)
        type(self).taken = 0
        type(self).closed = False
        self.data = self

    def get_producer_pairs(self, producer_name: str = "default") -> list[str]:
        return ["BTC/USD"]

    async def __aenter__(self) -> FakeConsumer:
        return self

    async def __aexit__(self, *_: object) -> None:
        # A real one waits for its connections to close.
        await asyncio.sleep(0)
        type(self).closed = True

    def __aiter__(self) -> FakeConsumer:
        return self

    async def __anext__(self) -> Delivery:
        while self.script:
            item = self.script.pop(0)
            if isinstance(item, Exception):
                raise item
            if isinstance(item, Delivery):
                type(self).taken += 1
                return item
            await item()
        raise StopAsyncIteration


class FakePublisher:
    """A Publisher that remembers what it was given."""

    made: list[FakePublisher]

    def __init__(
        self, url: str, token: str, *, outbox: Path | None, name: str, ca_file: str | None, restate: Any
    ) -> None:
        self.url, self.name, self.published = url, name, list[tuple[Any, ...]]()
        self.outbox = outbox
        self.restate = restate
        type(self).made.append(self)

    async def __aenter__(self) -> FakePublisher:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def publish(
        self, bot: str, topic: str, data: Any, *, mid: str, expendable: bool, kept: bool
    ) -> Ack:
        assert expendable == (topic == "new_candle")
        self.published.append((bot, topic, data, mid, kept))
        return Ack(position=Position("e1", 7))


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    FakePublisher.made = []
    monkeypatch.setattr(feed, "Consumer", FakeConsumer)
    monkeypatch.setattr(feed, "Publisher", FakePublisher)


def config(*names: str, **raw: Any) -> ConsumerConfig:
    producers = [ProducerConfig(name=name, host="localhost", ws_token="t") for name in names or ("hub",)]
    return ConsumerConfig(enabled=True, producers=tuple(producers), raw=raw)


async def feed_with(bot: Bot, path: Path, *script: Any, settings: ConsumerConfig | None = None) -> Feed:
    FakeConsumer.script = list(script)
    made = Feed(settings or config(), lambda: bot, data_dir=path)
    await made.run()
    return made


def stored(path: Path) -> dict[str, Known]:
    return read_file(path / "positions.json")


@pytest.mark.parametrize("kind", [Bot, AsyncBot])
async def test_deliveries_come_in_order_and_stop_comes_once(kind: type[Bot], tmp_path: Path) -> None:
    bot = kind()
    script = [event(str(i)) for i in range(200)]
    made = await feed_with(bot, tmp_path, *script, lambda: handled(bot, 200))
    assert [d.message.status for d in bot.seen] == [str(i) for i in range(200)]  # type: ignore[union-attr]
    assert bot.stops == 1
    assert made.statistics().handled == 200


async def test_a_plain_handle_runs_in_one_thread_of_its_own(tmp_path: Path) -> None:
    bot = Bot()
    await feed_with(bot, tmp_path, *[event() for _ in range(50)], lambda: handled(bot, 50))
    assert len(bot.threads) == 1
    assert threading.get_ident() not in bot.threads


async def test_an_async_handle_runs_in_the_loop(tmp_path: Path) -> None:
    bot = AsyncBot()
    await feed_with(bot, tmp_path, event())
    assert bot.threads == {threading.get_ident()}


async def test_a_plain_handle_may_return_an_awaitable(tmp_path: Path) -> None:
    done: list[int] = []
    all_done = asyncio.Event()

    class Wrapped(Bot):
        def handle(self, delivery: Delivery) -> Awaitable[None]:
            super().handle(delivery)

            async def later() -> None:
                await asyncio.sleep(0)
                done.append(threading.get_ident())
                all_done.set()

            return later()

    await feed_with(Wrapped(), tmp_path, event(), all_done.wait)
    assert done == [threading.get_ident()]


async def test_a_slow_bot_slows_the_reading_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Columns.from_mapping({"date": list(range(0, 60_000_000, 60_000))}, {"date": "ts_ms"})
    message = AnalyzedDf(key=FrameKey("BTC/USD", "1m", "spot"), df=rows)
    frame = Delivery(producer="hub", bot="alpha", topic="analyzed_df", message=message)
    monkeypatch.setitem(lane._ThreadLane.__init__.__kwdefaults__, "limit_bytes", 3 * (rows.nbytes + 1024))
    gate, entered, bot = threading.Event(), threading.Event(), Bot()

    def wait(delivery: Delivery) -> None:
        entered.set()
        gate.wait()

    bot.on = wait
    made = Feed(config(), lambda: bot, data_dir=tmp_path)
    full = asyncio.Event()

    async def after_three() -> None:
        await asyncio.to_thread(entered.wait)
        full.set()

    FakeConsumer.script = [*[frame] * 3, after_three, *[frame] * 17, lambda: handled(bot, 20)]
    running = asyncio.ensure_future(made.run())
    await full.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    figures = made.statistics()
    assert figures.waiting_bytes <= figures.limit_bytes
    # Two wait, one is being handled, one waits for room.
    assert FakeConsumer.taken == 4
    gate.set()
    await running
    assert len(bot.seen) == 20
    assert made.statistics().waiting_bytes == 0


@pytest.mark.parametrize("kind", [Bot, AsyncBot])
async def test_an_exception_ends_the_run_in_one_line(kind: type[Bot], tmp_path: Path) -> None:
    bot = kind()

    def fail(delivery: Delivery) -> None:
        raise ValueError("no such pair\nsecond line")

    bot.on = fail
    FakeConsumer.script = [event(), asyncio.Event().wait]
    said: list[str] = []
    assert await feed.run(config(), lambda: bot, data_dir=tmp_path, say=said.append) == 1
    (told,) = said
    assert told.startswith(f"{kind.__name__}.handle: status of alpha: ValueError: no such pair")
    assert bot.stops == 1


async def test_a_failing_message_is_not_committed(tmp_path: Path) -> None:
    bot = Bot()

    def fail(delivery: Delivery) -> None:
        if delivery.position == Position("e1", 3):
            raise ValueError

    bot.on = fail
    with pytest.raises(BotFailed):
        await feed_with(bot, tmp_path, fill(1), fill(2), fill(3), asyncio.Event().wait)
    assert stored(tmp_path) == {"hub": Known("e1", 2)}


async def test_an_effect_that_the_bot_committed_before_it_failed_is_kept(tmp_path: Path) -> None:
    bot = Bot()

    def fail(delivery: Delivery) -> None:
        delivery.commit()
        delivery.commit()
        raise ValueError

    bot.on = fail
    with pytest.raises(BotFailed):
        await feed_with(bot, tmp_path, fill(1), asyncio.Event().wait)
    again = Bot()
    await feed_with(again, tmp_path, fill(1), fill(2), lambda: handled(again, 1))
    assert [d.position for d in again.seen] == [Position("e1", 2)]


@pytest.mark.parametrize("kind", [Bot, AsyncBot])
async def test_the_next_run_goes_on_behind_what_was_committed(kind: type[Bot], tmp_path: Path) -> None:
    bot = kind()
    await feed_with(bot, tmp_path, fill(4), fill(9), event(), lambda: handled(bot, 3))
    again = kind()
    await feed_with(again, tmp_path, fill(4), fill(9), fill(10), lambda: handled(again, 1))
    assert FakeConsumer.positions == {"hub": Known("e1", 9)}
    assert [d.position for d in again.seen] == [Position("e1", 10)]
    assert stored(tmp_path) == {"hub": Known("e1", 10)}


async def test_repetitions_within_a_run_are_dropped_also_before_the_commit(tmp_path: Path) -> None:
    gate, bot = threading.Event(), Bot()
    bot.on = lambda delivery: gate.wait()

    async def open_gate() -> None:
        gate.set()

    await feed_with(bot, tmp_path, fill(1), fill(1), fill(2), fill(1), open_gate, lambda: handled(bot, 2))
    assert [d.position for d in bot.seen] == [Position("e1", 1), Position("e1", 2)]


async def test_a_new_epoch_begins_anew(tmp_path: Path) -> None:
    bot = Bot()
    await feed_with(bot, tmp_path, fill(9), fill(1, epoch="e2"), lambda: handled(bot, 2))
    assert len(bot.seen) == 2
    assert stored(tmp_path) == {"hub": Known("e2", 1)}


async def test_a_bot_that_keeps_its_position_decides(tmp_path: Path) -> None:
    bot = Bot(start=Position("e1", 5))
    await feed_with(bot, tmp_path, fill(5), fill(6), lambda: handled(bot, 1))
    assert FakeConsumer.positions == {"hub": Known("e1", 5)}
    assert [d.position for d in bot.seen] == [Position("e1", 6)]
    assert stored(tmp_path) == {"hub": Known("e1", 6)}


async def test_a_bots_position_belongs_to_the_producer_of_its_epoch(tmp_path: Path) -> None:
    settings = config("one", "two")
    first = Bot()
    script = [fill(1, producer="one"), fill(1, producer="two", epoch="e2"), lambda: handled(first, 2)]
    await feed_with(first, tmp_path, *script, settings=settings)
    await feed_with(Bot(start=Position("e2", 1)), tmp_path, settings=settings)
    assert FakeConsumer.positions == {"one": Known("e1", 1), "two": Known("e2", 1)}


async def test_a_repetition_is_one_of_its_stream(tmp_path: Path) -> None:
    """After a resume a stream may be behind another one: one number would drop what never came."""
    bot = Bot()
    script = [
        fill(9, base=4),
        fill(6, base=4, topic="exit_fill"),
        fill(9, base=4),
        advanced(9),
        fill(8, base=4),
    ]
    await feed_with(bot, tmp_path, *script, lambda: handled(bot, 2))
    assert [(d.topic, d.position) for d in bot.seen] == [
        ("entry_fill", Position("e1", 9)),
        ("exit_fill", Position("e1", 6)),
    ]
    assert stored(tmp_path) == {"hub": Known("e1", 9)}


async def test_the_bot_is_not_given_positions(tmp_path: Path) -> None:
    bot = Bot()
    made = await feed_with(bot, tmp_path, advanced(3), event(), advanced(5), lambda: handled(bot, 1))
    assert [d.topic for d in bot.seen] == ["status"]
    assert stored(tmp_path)["hub"].base in (3, 5)
    assert made.statistics().waiting_bytes == 0


async def test_a_ledger_that_is_begun_anew_is_not_taken_for_a_repetition(tmp_path: Path) -> None:
    bot = Bot()
    script = [fill(9, base=8), lost(9, 9), advanced(3, anew=True), fill(4, base=3)]
    await feed_with(bot, tmp_path, *script, lambda: handled(bot, 3))
    assert [d.position for d in bot.seen] == [Position("e1", 9), None, Position("e1", 4)]
    assert stored(tmp_path) == {"hub": Known("e1", 3, {("alpha", "entry_fill"): 4})}


@pytest.mark.parametrize("offset", [-1, 2**53, "1"])
async def test_a_position_that_is_none_is_told(offset: Any, tmp_path: Path) -> None:
    with pytest.raises(BotFailed, match=r"Bot\.start: offset: expected an integer"):
        await feed_with(Bot(start=Position("e1", offset)), tmp_path)


async def test_a_paper_bot_keeps_its_place_though_fills_are_nothing_to_it(tmp_path: Path) -> None:
    bot = PaperBot()

    async def acted() -> None:
        while bot.last_process_ms is None:  # noqa: ASYNC110
            await asyncio.sleep(0)

    settings = config("hub", db_url="sqlite://")
    await feed_with(bot, tmp_path, advanced(3), fill(5, base=3), acted, settings=settings)  # type: ignore[arg-type]
    assert stored(tmp_path) == {"hub": Known("e1", 3, {("alpha", "entry_fill"): 5})}


async def test_a_damaged_file_of_positions_is_told(tmp_path: Path) -> None:
    (tmp_path / "positions.json").write_text('{"positions": 3}')
    bot = Bot()
    with pytest.raises(ConfigError, match=r"positions\.json cannot be read"):
        await feed_with(bot, tmp_path)
    assert bot.stops == 0


async def test_a_second_run_on_the_same_data_is_refused(tmp_path: Path) -> None:
    inner: list[str] = []

    async def second() -> None:
        FakeConsumer.script, kept = [], FakeConsumer.script
        assert await feed.run(config(), Bot, data_dir=tmp_path, say=inner.append) == 1
        FakeConsumer.script = kept

    await feed_with(Bot(), tmp_path, second)
    assert inner == [f"--data-dir: {tmp_path} is in use by another run"]


async def test_what_the_consumer_cannot_mend_ends_the_run(tmp_path: Path) -> None:
    bot, said = Bot(), list[str]()
    FakeConsumer.script = [Unauthorized("hub: the token is not accepted")]
    assert await feed.run(config(), lambda: bot, data_dir=tmp_path, say=said.append) == 1
    assert said == ["hub: the token is not accepted"]
    assert bot.stops == 1


async def test_a_start_that_fails_is_told_and_stopped(tmp_path: Path) -> None:
    class Broken(Bot):
        async def start(self, context: BotContext) -> Position | None:
            raise KeyError("x")

        async def stop(self) -> None:
            await super().stop()
            raise RuntimeError("never started")

    bot, said = Broken(), list[str]()
    FakeConsumer.script = []
    assert await feed.run(config(), lambda: bot, data_dir=tmp_path, say=said.append) == 1
    assert re.fullmatch(r"Broken\.start: KeyError: 'x' \(test_feed\.py:\d+\)", *said)
    assert bot.stops == 1


async def test_a_stop_that_fails_is_told_when_nothing_else_was(tmp_path: Path) -> None:
    class Broken(Bot):
        async def stop(self) -> None:
            raise RuntimeError("disk")

    said: list[str] = []
    FakeConsumer.script = []
    assert await feed.run(config(), Broken, data_dir=tmp_path, say=said.append) == 1
    assert re.fullmatch(r"Broken\.stop: RuntimeError: disk \(test_feed\.py:\d+\)", *said)


class NoHandle:
    async def start(self, context: BotContext) -> Position | None: ...

    async def stop(self) -> None: ...


class NeedsMore(Bot):
    def __init__(self, more: int) -> None: ...


class WrongStart(Bot):
    async def start(self, context: BotContext) -> Position | None:
        return 17  # type: ignore[return-value]


class Exits(Bot):
    async def start(self, context: BotContext) -> Position | None:
        sys.exit("bye")


@pytest.mark.parametrize(
    ("factory", "text"),
    [
        (NoHandle, "NoHandle: expected a bot with start, handle and stop; handle is missing"),
        (NeedsMore, "NeedsMore.__init__: TypeError: "),
        (WrongStart, "WrongStart.start: expected a PositionStore, a Position or None, got int"),
        (Exits, "Exits.start: SystemExit: bye"),
    ],
)
async def test_a_bot_that_is_none_is_told_in_one_line(factory: Any, text: str, tmp_path: Path) -> None:
    FakeConsumer.script = []
    said: list[str] = []
    assert await feed.run(config(), factory, data_dir=tmp_path, say=said.append) == 1
    (told,) = said
    assert told.startswith(text)


async def test_plain_start_and_stop_do_as_well(tmp_path: Path) -> None:
    class Plain(Bot):
        def start(self, context: BotContext) -> Position | None:  # type: ignore[override]
            return Position("e1", 5)

        def stop(self) -> None:  # type: ignore[override]
            self.stops += 1

    bot = Plain()
    await feed_with(bot, tmp_path, fill(5), fill(6), lambda: handled(bot, 1))
    assert [d.position for d in bot.seen] == [Position("e1", 6)]
    assert bot.stops == 1


async def test_a_stop_that_never_returns_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "STOP_S", 0)

    class Endless(AsyncBot):
        async def stop(self) -> None:
            await asyncio.Event().wait()

    FakeConsumer.script = []
    said: list[str] = []
    assert await feed.run(config(), Endless, data_dir=tmp_path, say=said.append) == 1
    assert said == ["Endless.stop: did not return within 0 s of the end of the run"]


async def test_a_signal_reaches_a_start_that_takes_long(tmp_path: Path) -> None:
    class Slow(Bot):
        async def start(self, context: BotContext) -> Position | None:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
            return None

    bot = Slow()
    FakeConsumer.script = []
    assert await feed.run(config(), lambda: bot, data_dir=tmp_path) == 0
    assert bot.stops == 1


async def test_a_coroutine_is_not_cut_off_by_the_stop(tmp_path: Path) -> None:
    halves: list[int] = []

    class Halves(Bot):
        async def handle(self, delivery: Delivery) -> None:  # type: ignore[override]
            halves.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(20):
                await asyncio.sleep(0)
            halves.append(2)

    FakeConsumer.script = [fill(1), asyncio.Event().wait]
    assert await feed.run(config(), Halves, data_dir=tmp_path) == 0
    assert halves == [1, 2]
    assert stored(tmp_path) == {"hub": Known("e1", 1)}


@pytest.mark.parametrize("kind", [Bot, AsyncBot])
async def test_a_failure_after_the_signal_is_told(kind: type[Bot], tmp_path: Path) -> None:
    bot = kind()

    def fail(delivery: Delivery) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError("late")

    bot.on = fail
    FakeConsumer.script = [fill(1), asyncio.Event().wait]
    said: list[str] = []
    assert await feed.run(config(), lambda: bot, data_dir=tmp_path, say=said.append) == 1
    assert "ValueError: late" in said[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", [Bot, AsyncBot])
async def test_a_signal_is_a_clean_stop(kind: type[Bot], number: int, tmp_path: Path) -> None:
    bot = kind()

    async def signalled() -> None:
        await handled(bot, 1)
        os.kill(os.getpid(), number)
        await asyncio.Event().wait()

    FakeConsumer.script = [fill(1), signalled]
    assert await feed.run(config(), lambda: bot, data_dir=tmp_path) == 0
    assert bot.stops == 1
    assert FakeConsumer.closed
    assert stored(tmp_path) == {"hub": Known("e1", 1)}


async def test_the_context_publishes_under_the_bots_name(tmp_path: Path) -> None:
    bot = Bot()
    section = {"host": "::1", "port": 9000, "token": "t", "bot": "paper"}
    settings = config(publish=section, bot_name="other")

    async def publish() -> None:
        assert bot.context is not None
        assert bot.context.name == "paper"
        assert bot.context.data_dir == tmp_path
        assert bot.context.get_producer_pairs() == ["BTC/USD"]
        assert await bot.context.publish("entry", {"a": 1}, mid="m") == Position("e1", 7)
        await bot.context.publish("entry", {"a": 1}, mid="n", kept=True)

    await feed_with(bot, tmp_path, publish, settings=settings)
    (publisher,) = FakePublisher.made
    assert publisher.url == "ws://[::1]:9000"
    assert publisher.published == [
        ("paper", "entry", {"a": 1}, "m", False),
        ("paper", "entry", {"a": 1}, "n", True),
    ]
    assert publisher.outbox == tmp_path / "outbox.sqlite"


async def test_without_a_hub_to_publish_to_publish_returns_none(tmp_path: Path) -> None:
    bot = Bot()

    async def publish() -> None:
        assert bot.context is not None
        assert bot.context.name == "mine"
        assert await bot.context.publish("entry", {}, mid="m") is None

    await feed_with(bot, tmp_path, publish, settings=config(bot_name="mine"))
    assert FakePublisher.made == []


async def test_a_hub_that_restarted_hears_the_newest_whitelist_again(tmp_path: Path) -> None:
    bot = Bot()
    settings = config(publish={"url": "ws://h", "token": "t"}, bot_name="paper")

    async def publish() -> None:
        assert bot.context is not None
        (publisher,) = FakePublisher.made
        assert list(publisher.restate()) == []
        for pairs in (["A/B"], ["C/D"]):
            await bot.context.publish("whitelist", pairs, mid="m")
        await bot.context.publish("new_candle", ["C/D", "5m", "spot"], mid="m")
        assert list(publisher.restate()) == [Publication(bot="paper", topic="whitelist", data=["C/D"])]

    await feed_with(bot, tmp_path, publish, settings=settings)


class Reloading:
    """Bots made one after the other, and the file that they are started by: a configuration, or a mistake in it."""

    def __init__(self, kind: type[Bot]) -> None:
        self.kind = kind
        self.bots: list[Bot] = []
        self.file: ConsumerConfig | ConfigError = config()
        self.stopped_before: list[bool] = []

    def made(self) -> Bot:
        self.stopped_before.append(all(bot.stops == 1 for bot in self.bots))
        self.bots.append(self.kind())
        return self.bots[-1]

    def read(self) -> ConsumerConfig:
        if isinstance(self.file, ConfigError):
            raise self.file
        return self.file

    async def reload(self, check: Any = None) -> None:
        context = self.bots[-1].context
        assert context is not None
        await context.reload(check)


@pytest.mark.parametrize("kind", [Bot, AsyncBot])
async def test_a_bot_begins_anew_with_the_file_of_now(kind: type[Bot], tmp_path: Path) -> None:
    bots = Reloading(kind)
    section = {"url": "ws://other", "token": "t"}
    checked: list[Any] = []

    async def reload() -> None:
        await handled(bots.bots[0], 2)
        bots.file = config(publish=section, bot_name="new")
        await bots.reload(lambda raw, name: checked.append((raw["publish"], name)))
        assert bots.bots[0].stops == 0
        await asyncio.Event().wait()

    async def again() -> None:
        await handled(bots.bots[1], 1)
        assert bots.bots[1].context is not None
        await bots.bots[1].context.publish("entry", {}, mid="m")
        inner: list[str] = []
        assert await feed.run(config(), Bot, data_dir=tmp_path, say=inner.append) == 1
        assert "in use by another run" in inner[0]
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    FakeConsumer.script = [fill(1), fill(2), reload, fill(2), fill(3), again]
    assert await feed.run(config(), bots.made, data_dir=tmp_path, read=bots.read) == 0
    assert checked == [(section, "new")]
    assert bots.stopped_before == [True, True]
    assert [[d.position for d in bot.seen] for bot in bots.bots] == [
        [Position("e1", 1), Position("e1", 2)],
        [Position("e1", 3)],
    ]
    assert [bot.stops for bot in bots.bots] == [1, 1]
    assert FakePublisher.made[-1].published == [("new", "entry", {}, "m", False)]


async def test_a_file_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    bots = Reloading(Bot)

    def refuse(raw: Mapping[str, Any], name: str) -> None:
        raise ConfigError("max_open_trades", "expected a whole number")

    async def reload() -> None:
        with pytest.raises(BotError, match=r"^max_open_trades: expected a whole number$"):
            await bots.reload(refuse)
        for file, text in (
            (ConfigError("", "c.json: line 3 is not JSON"), "line 3 is not JSON"),
            (config(publish={"url": "ws://h"}), r"publish\.token: missing"),
            (config(bot_name=""), "bot_name: expected"),
        ):
            bots.file = file
            with pytest.raises(BotError, match=text):
                await bots.reload()

    FakeConsumer.script = [reload, event()]
    made = Feed(config(), bots.made, data_dir=tmp_path, read=bots.read)
    await made.run()
    assert len(bots.bots) == 1


async def test_without_a_file_there_is_nothing_to_read_again(tmp_path: Path) -> None:
    bot = Bot()

    async def reload() -> None:
        assert bot.context is not None
        with pytest.raises(BotError, match="not started from a configuration file"):
            await bot.context.reload()

    await feed_with(bot, tmp_path, reload)


async def test_a_signal_goes_before_the_wish_to_begin_anew(tmp_path: Path) -> None:
    bots = Reloading(Bot)

    async def both() -> None:
        await bots.reload()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    FakeConsumer.script = [both]
    assert await feed.run(config(), bots.made, data_dir=tmp_path, read=bots.read) == 0
    assert len(bots.bots) == 1


async def test_a_new_start_that_fails_ends_the_process_with_its_line(tmp_path: Path) -> None:
    class Once(Bot):
        async def start(self, context: BotContext) -> Position | None:
            if len(bots.bots) > 1:
                raise ConfigError("db_url", "cannot be opened")
            return await super().start(context)

    bots = Reloading(Once)
    said: list[str] = []
    FakeConsumer.script = [bots.reload, asyncio.Event().wait]
    assert await feed.run(config(), bots.made, data_dir=tmp_path, say=said.append, read=bots.read) == 1
    assert said == ["db_url: cannot be opened"]
    assert [bot.stops for bot in bots.bots] == [1, 1]


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ([], "publish"),
        ({"url": "ws://h"}, "publish.token"),
        ({"token": "secret-token"}, "publish.url"),
        ({"token": "secret-token", "url": "ws://h", "host": "h"}, "publish.url"),
        ({"token": "secret-token", "host": "h", "port": "80"}, "publish.port"),
        ({"token": "secret-token", "host": "h", "secure": 1}, "publish.secure"),
        ({"token": "secret-token", "host": "h", "bot": ""}, "publish.bot"),
    ],
)
async def test_a_wrong_publish_section_names_its_key(section: Any, key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        await feed_with(Bot(), tmp_path, settings=config(publish=section))
    assert caught.value.key == key
    assert "secret-token" not in str(caught.value)


async def test_the_exception_is_logged_for_who_looks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bot = Bot()

    def fail(delivery: Delivery) -> None:
        raise ValueError("why")

    bot.on = fail
    with caplog.at_level(logging.DEBUG), pytest.raises(BotFailed):
        await feed_with(bot, tmp_path, event(), asyncio.Event().wait)
    assert any(record.exc_info for record in caplog.records)


def notice(message: Connected | Disconnected | Lost) -> Delivery:
    return Delivery(producer="hub", bot="hub", topic=type(message).__name__.lower(), message=message)


async def test_what_a_user_must_know_is_told_whatever_the_bot_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = [
        notice(Connected(producer="hub")),
        notice(Disconnected(producer="hub", reason="ws://localhost:8080: refused")),
        notice(Lost(producer="hub", topics=("entry_fill",), first=3, last=None, reason="a new epoch")),
        notice(Connected(producer="hub", resumed=False)),
        notice(Connected(producer="hub")),
    ]
    with caplog.at_level(logging.WARNING):
        await feed_with(AsyncBot(), tmp_path, *script)
    assert [record.getMessage() for record in caplog.records] == [
        "ws://localhost:8080: refused; trying again",
        "hub: entry_fill 3.. are lost: a new epoch",
        "hub: connected again; not everything that was missed came back",
    ]
