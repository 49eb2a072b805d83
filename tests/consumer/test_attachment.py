"""consumer.attachment, in virtual time and against a hub that the test plays."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from consumer_doubles import FakeConnection, FakeDial, run_virtual, until, welcome

from consumer.attachment import WAITING, Attachment
from consumer.errors import ConnectionFailed, HubRefused, Replaced, Unauthorized
from hub.protocol.calls import KEY_S, RESULT_BYTES, BotAnswer, BotRequest


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that runs in virtual time."""

    def run() -> None:
        run_virtual(test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def connection(error: dict[str, Any] | None = None, features: tuple[str, ...] = ("call",)) -> FakeConnection:
    """A hub that takes the attachment, or refuses it with `error`."""
    fake = FakeConnection()
    hello = welcome()
    hello["data"]["features"] = list(features)
    fake.feed(hello)

    def answer(message: dict[str, Any]) -> list[dict[str, Any]]:
        if message["type"] != "attach":
            return []
        end = {"ok": True, "data": {}} if error is None else {"ok": False, "error": error}
        return [{"type": "hub.reply", "id": message["id"], **end}]

    fake.answer = answer
    return fake


class Bot:
    """Answers when the test lets it; notes what it was asked and what was broken off."""

    def __init__(self) -> None:
        self.asked: list[BotRequest] = []
        self.broken_off: list[str] = []
        self.running = self.peak = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.body: Any = {"ok": True}

    async def answer(self, request: BotRequest) -> BotAnswer:
        self.asked.append(request)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.broken_off.append(request.path)
            raise
        finally:
            self.running -= 1
        if isinstance(self.body, Exception):
            raise self.body
        return BotAnswer(status=200, body=self.body)


def attachment(bot: Bot, *dialled: Any, **more: Any) -> Attachment:
    return Attachment(
        "ws://h", "s3cret", "alpha", bot.answer, dial=FakeDial(*dialled), random=lambda: 1.0, **more
    )


def call(number: int, method: str = "GET", path: str = "/status", **more: Any) -> dict[str, Any]:
    data = {"call": number, "method": method, "path": path, "deadline_ms": 10_000, "principal": "user:u"}
    return {"type": "hub.call", "data": data | more}


def results(fake: FakeConnection) -> dict[int, dict[str, Any]]:
    return {m["data"]["call"]: m["data"] for m in fake.sent if m["type"] == "result"}


@asynccontextmanager
async def attached(bot: Bot, **more: Any) -> AsyncIterator[tuple[Attachment, FakeConnection]]:
    fake = connection()
    async with attachment(bot, fake, **more) as link:
        await link.ready()
        yield link, fake


@virtual
async def test_it_attaches_and_answers() -> None:
    bot = Bot()
    async with attached(bot, paths=["GET /status"]) as (link, fake):
        assert [m["type"] for m in fake.sent] == ["hello", "attach"]
        assert fake.sent[0]["data"]["client"] == "tradewire-attachment alpha"
        assert fake.sent[1]["data"] == {"bot": "alpha", "paths": ["GET /status"]}
        fake.feed(call(17, query="limit=5", body={"a": 1}), {"type": "hub.heartbeat"}, {"type": "hub.call"})
        await until(lambda: results(fake))
        assert link.statistics()["attached"] is True
        assert link.statistics()["unreadable"] == 1
    assert bot.asked == [
        BotRequest(method="GET", path="/status", query="limit=5", body={"a": 1}, principal="user:u")
    ]
    assert results(fake) == {17: {"call": 17, "status": 200, "body": {"ok": True}}}
    assert fake.sent[-2:] == [{"type": "detach", "data": {"bot": "alpha"}}, {"type": "ping", "id": 2}]
    assert link.statistics()["in_hand"] == 0


@virtual
async def test_so_many_at_once_and_not_more_in_hand() -> None:
    bot = Bot()
    bot.gate.clear()
    async with attached(bot, at_once=3) as (link, fake):
        fake.feed(*(call(i) for i in range(1, WAITING + 3)))
        await until(lambda: link.statistics().get("overloaded") == 2)
        await until(lambda: bot.running == 3)
        assert link.statistics()["in_hand"] == WAITING
        bot.gate.set()
        await until(lambda: len(results(fake)) == WAITING)
    assert bot.peak == 3


@virtual
async def test_what_nobody_waits_for_is_broken_off_unless_it_may_change_something() -> None:
    bot = Bot()
    bot.gate.clear()
    async with attached(bot, at_once=3) as (link, fake):
        fake.feed(call(1, path="/r1"), call(2, "POST", "/m1"), call(3, path="/r2", deadline_ms=500))
        fake.feed(call(4, "POST", "/m2"), call(5, "POST", "/m3", deadline_ms=500))
        await until(lambda: bot.running == 3)
        for number in (1, 2, 99):
            fake.feed({"type": "hub.cancel", "data": {"call": number}})
        await until(lambda: bot.broken_off == ["/r1"])
        await asyncio.sleep(0.6)
        assert bot.broken_off == ["/r1", "/r2"]
        assert [r.path for r in bot.asked] == ["/r1", "/m1", "/r2", "/m2"]
        bot.gate.set()
        await until(lambda: results(fake))
        await until(lambda: link.statistics()["in_hand"] == 0)
    assert set(results(fake)) == {4}
    figures = link.statistics()
    assert (figures["cancelled"], figures["overdue"], figures["unheard"]) == (2, 2, 1)


@virtual
async def test_a_call_that_waits_for_its_turn_never_begins_after_its_deadline() -> None:
    bot = Bot()
    bot.gate.clear()
    async with attached(bot, at_once=1) as (_, fake):
        fake.feed(call(1, "POST", "/first"), call(2, "POST", "/second", deadline_ms=500))
        await asyncio.sleep(1)
        bot.gate.set()
        await until(lambda: results(fake))
        await asyncio.sleep(1)
    assert [r.path for r in bot.asked] == ["/first"]


@virtual
async def test_a_key_is_done_once_for_ten_minutes() -> None:
    bot = Bot()
    bot.gate.clear()
    async with attached(bot) as (link, fake):
        fake.feed(call(1, "POST", "/buy", key="k"), call(2, "POST", "/buy", key="k"))
        await until(lambda: bot.running == 1)
        fake.feed({"type": "hub.cancel", "data": {"call": 1}}, call(3, "POST", "/sell", key="k"))
        fake.feed(call(4, "POST", "/buy", key="k", principal="user:other"))
        await until(lambda: len(bot.asked) == 3)
        bot.gate.set()
        await until(lambda: len(results(fake)) == 3)
        assert set(results(fake)) == {2, 3, 4}
        await asyncio.sleep(KEY_S - 1)
        fake.feed(call(5, "POST", "/buy", key="k"))
        await until(lambda: 5 in results(fake))
        assert len(bot.asked) == 3
        assert link.statistics()["repeated"] == 2
        await asyncio.sleep(2)
        fake.feed(call(6, "POST", "/buy", key="k"))
        await until(lambda: 6 in results(fake))
        assert len(bot.asked) == 4
        assert link.statistics()["remembered"] == 1


@virtual
async def test_a_repetition_of_what_was_broken_off_is_asked_anew() -> None:
    bot = Bot()
    bot.gate.clear()
    async with attached(bot) as (_, fake):
        fake.feed(call(1, key="k"), call(2, key="k"))
        await until(lambda: bot.running == 1)
        fake.feed({"type": "hub.cancel", "data": {"call": 1}})
        await until(lambda: len(bot.asked) == 2)
        bot.gate.set()
        await until(lambda: results(fake))
    assert set(results(fake)) == {2}


@virtual
async def test_what_is_remembered_is_bounded() -> None:
    bot = Bot()
    bot.body = "x" * 1000
    async with attached(bot, remembered_bytes=5000) as (link, fake):
        for i in range(1, 11):
            fake.feed(call(i, "POST", "/x", key=f"k{i}"))
        await until(lambda: len(results(fake)) == 10)
        figures = link.statistics()
        assert 0 < figures["remembered_bytes"] <= figures["remembered_limit_bytes"] == 5000
        assert figures["remembered"] == 3
        fake.feed(call(11, "POST", "/x", key="k10"), call(12, "POST", "/x", key="k1"))
        await until(lambda: len(results(fake)) == 12)
    assert len(bot.asked) == 11


@virtual
async def test_answers_that_cannot_be_sent() -> None:
    bot = Bot()
    logging.getLogger("consumer.attachment").setLevel(logging.CRITICAL)
    try:
        async with attached(bot) as (link, fake):
            for number, body in enumerate((ValueError("s3cret"), object(), "x" * RESULT_BYTES), 1):
                bot.body = body
                fake.feed(call(number, path="/x"))
                await until(lambda n=number: n in results(fake))  # type: ignore[misc]
            assert link.statistics()["failed"] == 3
    finally:
        logging.getLogger("consumer.attachment").setLevel(logging.NOTSET)
    assert [r["status"] for r in results(fake).values()] == [502] * 3
    assert [r["body"]["error"].partition(": ")[2] for r in results(fake).values()] == [
        "internal error",
        "internal error",
        f"the answer has over {RESULT_BYTES} bytes",
    ]


@virtual
async def test_it_comes_back_and_a_change_outlives_the_connection() -> None:
    bot = Bot()
    bot.gate.clear()
    first, second = connection(), connection()
    async with attachment(bot, first, second) as link:
        await link.ready()
        first.feed(call(1, path="/r"), call(2, "POST", "/m", key="k"))
        await until(lambda: bot.running == 2)
        first.end(1012, "retry_after_ms=3000")
        await until(lambda: bot.broken_off == ["/r"])
        assert link.statistics()["attached"] is False
        await link.ready()
        second.feed(call(1, "POST", "/m", key="k"))
        await asyncio.sleep(1)
        bot.gate.set()
        await until(lambda: results(second))
    assert [r.path for r in bot.asked] == ["/r", "/m"]
    assert results(first) == {}
    assert link.statistics()["connections"] == 2


@virtual
async def test_leaving_answers_what_is_in_hand_but_not_for_ever() -> None:
    bot, loop = Bot(), asyncio.get_running_loop()
    bot.gate.clear()
    async with attached(bot) as (_, fake):
        fake.feed(call(1, "POST", "/m", deadline_ms=60_000))
        await until(lambda: bot.running == 1)
        loop.call_later(2, bot.gate.set)
    assert set(results(fake)) == {1}
    bot.gate.clear()
    async with attached(bot) as (link, fake):
        fake.feed(call(1, "POST", "/m", deadline_ms=60_000))
        await until(lambda: bot.running == 1)
        start = loop.time()
    assert loop.time() - start == pytest.approx(10)
    assert bot.broken_off == ["/m"]
    assert link.statistics()["in_hand"] == 0


@virtual
async def test_it_leaves_once_the_hub_has_read_the_answers() -> None:
    bot, loop = Bot(), asyncio.get_running_loop()
    async with attached(bot) as (_, fake):
        fake.feed(call(1))
        await until(lambda: results(fake))
        loop.call_later(3, fake.feed, {"type": "hub.reply", "id": 2, "ok": True, "data": {}})
        start = loop.time()
    assert loop.time() - start == pytest.approx(3)


@virtual
async def test_where_it_stops_for_good() -> None:
    forbidden = {"code": "forbidden", "message": "no", "temporary": False}
    logging.getLogger("consumer.attachment").setLevel(logging.CRITICAL)
    try:
        for dialled, error, text in (
            (connection(forbidden), HubRefused, "alpha may not attach: forbidden: no"),
            (connection(features=()), HubRefused, "takes no calls"),
            (Unauthorized("403"), Unauthorized, "403"),
        ):
            again = [dialled] if isinstance(dialled, Exception) else []
            async with attachment(Bot(), dialled, *again) as link:
                with pytest.raises(error, match=text):
                    await link.ready()
    finally:
        logging.getLogger("consumer.attachment").setLevel(logging.NOTSET)


@virtual
async def test_a_newer_attachment_stops_it_with_one_line() -> None:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("consumer.attachment")
    log.addHandler(handler)
    fake = connection()
    try:
        async with attachment(Bot(), fake) as link:
            await link.ready()
            fake.end(4409, "a newer attachment of alpha took this one's place")
            await until(lambda: not link.statistics()["attached"])
            with pytest.raises(Replaced):
                await link.ready()
    finally:
        log.removeHandler(handler)
    assert lines == [
        "bot alpha is no longer attached: ws://h:8080: a newer attachment of alpha took this one's place"
    ]


@virtual
async def test_a_refusal_for_now_is_tried_again_when_the_hub_says() -> None:
    draining = {"code": "draining", "message": "later", "temporary": True, "retry_after_ms": 2000}
    dial = FakeDial(connection(draining), ConnectionFailed("refused"), connection())
    async with Attachment("ws://h", "t", "alpha", Bot().answer, dial=dial, random=lambda: 1.0) as link:
        await link.ready()
    assert [b - a for (a, _), (b, _) in itertools.pairwise(dial.attempts)] == [2.5, 1.0]
