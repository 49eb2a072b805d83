"""consumer.bot.outbox."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.bot.book import Book
from consumer.bot.candles import Candle
from consumer.bot.clock import ReadyCandle
from consumer.bot.outbox import Outbox
from consumer.bot.settings import PaperSettings
from consumer.errors import PublishError
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


async def test_a_missing_right_stops_publishing_and_loses_nothing(
    book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    trade(book)
    context = Context({})
    context.failure = PublishError("forbidden", "may not publish as paper")
    outbox = Outbox(book, context)
    with caplog.at_level(logging.ERROR):
        outbox.start()
        await outbox.stop(GRACE_S)
    assert (book.summary().outbox, book.summary().refused) == (4, 0)
    assert "until the next start" in caplog.text


async def test_stop_without_start_and_wake_before_start_do_nothing(book: Book) -> None:
    outbox = Outbox(book, Context({}))
    outbox.wake()
    await outbox.stop(GRACE_S)
