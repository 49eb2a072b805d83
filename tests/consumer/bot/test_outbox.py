"""consumer.bot.outbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from consumer.bot.book import Book, Outgoing
from consumer.bot.candles import Candle
from consumer.bot.clock import ReadyCandle
from consumer.bot.database import DatabaseFailed
from consumer.bot.outbox import Outbox
from consumer.bot.settings import PaperSettings
from consumer.errors import ConnectionFailed, HubRefused, PublishError, Unauthorized
from hub.protocol.envelope import Position
from tests.consumer.bot.replay import Context, at
from tests.consumer.bot.test_book import SOURCE

pytestmark = pytest.mark.anyio
GRACE_S = 30.0


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    made = Book(PaperSettings.from_config({"stake_currency": "USD"}, name="paper", data_dir=tmp_path))
    yield made
    made.close()


def trade(book: Book, index: int = 0) -> None:
    """One entry and one exit: four messages."""
    for offset, signals in enumerate([{"enter_long": True}, {"exit_long": True}, {}]):
        candle = Candle(100.0, 100.0, 100.0, 100.0, **signals)
        book.act([ReadyCandle(at(index + offset), [("BTC/USD", candle)])], source=SOURCE, listed=["BTC/USD"])


async def test_what_an_earlier_run_left_is_published_in_order(book: Book) -> None:
    trade(book)
    context = Context({})
    outbox = Outbox(book, context)
    outbox.start()
    await outbox.stop(GRACE_S)
    assert [topic for topic, _, _ in context.published] == ["entry", "entry_fill", "exit", "exit_fill"]
    assert book.summary().outbox == 0


async def test_new_messages_are_published_when_woken(book: Book) -> None:
    context = Context({})
    outbox = Outbox(book, context)
    outbox.start()
    for index in (0, 10, 20):
        trade(book, index)
        outbox.wake()
    await outbox.stop(GRACE_S)
    assert len(context.published) == 12
    assert len({mid for _, _, mid in context.published}) == 12


async def test_what_is_not_acknowledged_is_published_again(book: Book) -> None:
    trade(book)
    context = Context({})
    context.failure = PublishError("draining", "later", temporary=True)
    outbox = Outbox(book, context)
    outbox.start()
    await outbox.stop(GRACE_S)
    assert book.summary().outbox == 4
    context.failure = None
    again = Outbox(book, context)
    again.start()
    await again.stop(GRACE_S)
    assert len(context.published) == 4


async def test_a_refused_message_is_set_aside_and_told(book: Book, caplog: pytest.LogCaptureFixture) -> None:
    trade(book)
    context = Context({})
    context.failure = PublishError("bad_message", "no")
    outbox = Outbox(book, context)
    outbox.start()
    await outbox.stop(GRACE_S)
    assert (book.summary().outbox, book.summary().refused) == (0, 4)
    assert len(caplog.records) == 4


class Heard(Context):
    """A context that tells when something was published."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.heard = asyncio.Event()

    async def publish(self, topic: str, data: Any, *, mid: str, kept: bool = False) -> Position | None:
        position = await super().publish(topic, data, mid=mid, kept=kept)
        self.heard.set()
        return position


class Waits:
    """A sleep that ends at once, `most` times, and calls `then` before the last; it remembers the seconds."""

    def __init__(self, most: int, then: Callable[[], object] = lambda: None) -> None:
        self.seconds: list[float] = []
        self._most, self._then = most, then

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if len(self.seconds) == self._most:
            self._then()
        elif len(self.seconds) > self._most:
            await asyncio.Event().wait()
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("failure", "seconds"),
    [
        (PublishError("forbidden", "may not publish as paper"), [60, 60]),
        (PublishError("token_expired", "no"), [60, 60]),
        (Unauthorized("the token is not accepted"), [60, 60]),
        (HubRefused("no hub"), [60, 60]),
        (PublishError("draining", "later", temporary=True), [1, 2]),
        (ConnectionFailed("closed"), [1, 2]),
        (ZeroDivisionError("a fault"), [60, 60]),
    ],
)
async def test_what_may_heal_is_tried_again_while_the_bot_runs(
    book: Book, caplog: pytest.LogCaptureFixture, failure: Exception, seconds: list[float]
) -> None:
    trade(book)
    context = Heard({})
    context.failure = failure

    def heal() -> None:
        context.failure = None

    waits = Waits(2, heal)
    outbox = Outbox(book, context, sleep=waits)
    outbox.start()
    await context.heard.wait()
    await outbox.stop(GRACE_S)
    assert waits.seconds == seconds
    assert [topic for topic, _, _ in context.published] == ["entry", "entry_fill", "exit", "exit_fill"]
    assert book.summary().refused == 0
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert str(failure) in told[0]
    assert told[1] == "fills are published again"


async def test_a_database_that_fails_is_tried_again(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    trade(book)
    context = Heard({})
    outgoing, failures = book.outgoing, [DatabaseFailed("locked")]

    def failing(limit: int) -> list[Outgoing]:
        if failures:
            raise failures.pop()
        return outgoing(limit)

    monkeypatch.setattr(book, "outgoing", failing)
    waits = Waits(9)
    outbox = Outbox(book, context, sleep=waits)
    outbox.start()
    await context.heard.wait()
    await outbox.stop(GRACE_S)
    assert (waits.seconds, len(context.published)) == ([1.0], 4)


async def test_stop_without_start_and_wake_before_start_do_nothing(book: Book) -> None:
    outbox = Outbox(book, Context({}))
    outbox.wake()
    await outbox.stop(GRACE_S)
