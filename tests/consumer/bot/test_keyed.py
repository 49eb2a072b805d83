"""Calls with a key: done once, and answered as the first time, also by a process that has died meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from consumer.answering import Answering
from consumer.bot import journal
from consumer.bot.api import PaperAPI
from consumer.bot.models import Answered
from consumer.keyed import IN_HAND, KeyedCall
from hub.protocol.calls import KEY_S, BotAnswer, BotRequest
from tests.consumer.bot.desk import BUY, SOURCE, Desk, flat
from tests.consumer.bot.replay import PAIRS

pytestmark = pytest.mark.anyio

ENTER = ("POST", "/forceenter", {"pair": "BTC/USD"})


class Process:
    """A bot's process on the desk's database; `again` is the next one, after this one was killed."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.now = 1_000_000.0
        self._begin()

    def _begin(self) -> None:
        bot: Any = SimpleNamespace(
            book=self.desk.book, settings=self.desk._settings, source=SOURCE, pairs=PAIRS, config={}
        )
        self.answering = Answering(PaperAPI(bot, clock=lambda: self.now))

    def again(self) -> None:
        self.desk.reopen()
        self._begin()

    async def ask(
        self, method: str, path: str, body: Any = None, *, key: str | None = "k", principal: str = "me"
    ) -> tuple[int, Any]:
        request = BotRequest(method=method, path=path, body=body, key=key, principal=principal)
        answer: BotAnswer = await self.answering(request)
        raw = answer.body if isinstance(answer.body, msgspec.Raw) else msgspec.json.encode(answer.body)
        return answer.status, msgspec.json.decode(raw)

    @property
    def kept(self) -> int:
        return self.desk.book._session.scalar(select(func.count()).select_from(Answered)) or 0


@pytest.fixture
def process(desks: Callable[..., Desk]) -> Process:
    desk = desks(force_entry_enable=True, max_open_trades=10)
    desk.candle(BTC=flat(100), ETH=flat(50, **BUY))
    desk.candle(BTC=flat(100), ETH=flat(50))
    return Process(desk)


def state_of(desk: Desk) -> Any:
    book = desk.book
    locks, blacklist = [(lock.id, lock.pair) for lock in book.locks()], book.blacklist()
    page = book.trades(100, 0)
    return page, book.state, locks, blacklist, book.revision


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ENTER,
        ("POST", "/forceexit", {"tradeid": "1"}),
        ("POST", "/forceexit", {"tradeid": "all"}),
        ("POST", "/forceexit", {"tradeid": "77"}),
        ("DELETE", "/trades/1", None),
        ("DELETE", "/trades/77", None),
        ("DELETE", "/trades/1/open-order", None),
        ("POST", "/blacklist", {"blacklist": ["DOGE/USD", "("]}),
        ("DELETE", "/blacklist", None),
        ("POST", "/locks", [{"pair": "BTC/USD", "until": "2030-01-01T00:00:00Z"}]),
        ("DELETE", "/locks/5", None),
        ("POST", "/locks/delete", {"pair": "BTC/USD"}),
        ("POST", "/stop", None),
        ("POST", "/start", None),
        ("POST", "/pause", None),
    ],
)
async def test_a_repetition_after_a_kill_is_answered_as_the_first_and_does_nothing(
    method: str, path: str, body: Any, process: Process
) -> None:
    first = await process.ask(method, path, body)
    # As without a key, of another bot.
    done = state_of(process.desk)
    process.again()
    assert await process.ask(method, path, body) == first
    assert state_of(process.desk) == done
    process.desk.book.check_invariants()
    # Another key, and another caller, ask anew.
    await process.ask(method, path, body, key="other")
    await process.ask(method, path, body, principal="you")
    assert process.kept == 3


async def test_without_a_key_the_answer_is_the_same_and_nothing_is_kept(desks: Any, process: Process) -> None:
    answers = []
    for key in (None, "k"):
        answers.append(await process.ask(*ENTER, key=key))
        assert process.kept == (key is not None)
        number = answers[-1][1]["trade_id"]
        assert (await process.ask("DELETE", f"/trades/{number}/open-order", key=None))[0] == 200
    for _, told in answers:
        del told["trade_id"]
        for order in told["orders"]:
            del order["order_id"]
    assert answers[0] == answers[1]


async def test_what_dies_before_the_commit_is_done_by_the_repetition(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(process.desk.book._session, "commit", die)
        with pytest.raises(KeyboardInterrupt):
            await process.ask(*ENTER)
    process.again()
    assert process.kept == 0
    assert (await process.ask(*ENTER))[0] == 200
    assert [trade.pair for trade in process.desk.book.open_trades()] == ["ETH/USD", "BTC/USD"]


async def test_what_was_done_before_a_refusal_is_kept_with_it(process: Process) -> None:
    until = "2030-01-01T00:00:00Z"
    body = [{"pair": "BTC/USD", "until": until}, {"pair": "ETH/USD", "until": until, "side": "sideways"}]
    first = await process.ask("POST", "/locks", body)
    assert first[0] == 502
    for _ in range(2):
        assert [lock.pair for lock in process.desk.book.locks()] == ["BTC/USD"]
        process.again()
        assert await process.ask("POST", "/locks", body) == first


async def test_answers_are_kept_for_a_while_and_within_bounds(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MOST_ANSWERS", 3)
    for number in range(5):
        await process.ask("POST", "/stop", key=f"k{number}")
        process.now += 1
    assert process.kept == 3
    assert (await process.ask("POST", "/stop", key="k4"))[1] == {"status": "already stopped"}
    monkeypatch.setattr(journal, "ANSWERS_BYTES", 70)
    await process.ask("POST", "/start", key="k5")
    assert process.kept == 2
    process.now += KEY_S
    assert (await process.ask("POST", "/start", key="k5"))[1] == {"status": "already running"}
    assert process.kept == 1
    # A clock that was far ahead must not keep an answer for ever.
    process.now -= 3 * KEY_S
    assert (await process.ask("POST", "/stop", key="k5"))[1] == {"status": "stopping trader ..."}
    assert process.kept == 1


async def test_reading_with_a_key_keeps_nothing(process: Process) -> None:
    assert (await process.ask("GET", "/count"))[0] == 200
    assert process.kept == 0


async def test_a_key_may_be_anything(process: Process) -> None:
    for key in ("\0", "ä" * 64, "'); DROP TABLE answers; --"):
        first = await process.ask("POST", "/stop", key=key)
        process.again()
        assert await process.ask("POST", "/stop", key=key) == first
    assert IN_HAND.get() is None


def test_a_call_is_known_by_who_asks_what() -> None:
    def of(**fields: Any) -> str:
        named = {"method": "POST", "path": "/stop", "principal": "me", "key": "k", **fields}
        call = KeyedCall.of(BotRequest(**named))
        assert call is not None
        return call.id

    different = [{}, {"method": "PUT"}, {"path": "/stopbuy"}, {"principal": "m"}, {"key": "k2"}]
    assert len({of(**fields) for fields in different}) == len(different)
    assert of(body={"a": 1}) == of()
    assert KeyedCall.of(BotRequest(method="POST", path="/stop")) is None
