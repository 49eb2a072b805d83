"""hub.reconciler: what is asked of a bot, what becomes of its missed fills, and that a bot costs its own run only."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hub.bots.ports import PortAnswer
from hub.bots.registry import BotRegistry
from hub.core.entry import Entry
from hub.core.ledger import Append, Appended, Damaged, Found, Log, Query, matches
from hub.core.reconciliation import MARGIN_MS
from hub.limits import NodeLimits
from hub.log.memory import MemoryLog
from hub.log.sqlite import SqliteLog
from hub.node import Node
from hub.protocol.botapi import BotBusy, BotError, BotGone, UnknownBot
from hub.protocol.errors import NotDurable
from hub.protocol.operations import Operation
from hub.reconciler import RETRY_S, ReconcileLimits, Reconciler, UpstreamRuns

pytestmark = pytest.mark.anyio

NOW_MS = 1_795_360_000_000
SECOND, HOUR = 1000, 3_600_000
STARTED_MS = NOW_MS - HOUR


class Clock:
    def __init__(self) -> None:
        self.ms = STARTED_MS

    def monotonic(self) -> float:
        return self.ms / 1000

    def now_ms(self) -> int:
        return self.ms


def order(number: int, side: str, at_ms: int, amount: float = 1.0, price: float = 100.0) -> dict[str, Any]:
    return {
        "order_id": f"o{number}",
        "ft_order_side": side,
        "is_open": False,
        "filled": amount,
        "safe_price": price,
        "order_type": "limit",
        "order_filled_timestamp": at_ms,
    }


def trade(number: int, *orders: dict[str, Any], closed_ms: int | None = None) -> dict[str, Any]:
    return {
        "trade_id": number,
        "pair": "BTC/USDT",
        "is_open": closed_ms is None,
        "open_timestamp": orders[0]["order_filled_timestamp"],
        "close_timestamp": closed_ms,
        "exchange": "binance",
        "orders": list(orders),
    }


class Bot:
    """A bot's port: answers from lists of trades as freqtrade does, the newest closed one first; or as `answer` says."""

    def __init__(self, opened: list[Any] | None = None, closed: list[Any] | None = None) -> None:
        self.opened = opened or []
        self.closed = closed or []
        self.asked: list[tuple[str, Mapping[str, Any], str]] = []
        self.answer: Callable[[Operation, Mapping[str, Any]], Awaitable[PortAnswer]] | None = None

    async def perform(
        self, operation: Operation, arguments: Mapping[str, Any], *, principal: str
    ) -> PortAnswer:
        self.asked.append((operation.name, arguments, principal))
        if self.answer is not None:
            return await self.answer(operation, arguments)
        return self.truth(operation, arguments)

    def truth(self, operation: Operation, arguments: Mapping[str, Any]) -> PortAnswer:
        if operation.name == "status":
            return json_of(self.opened)
        newest = sorted(self.closed, key=lambda row: -row["close_timestamp"])
        first = arguments["offset"]
        page = newest[first : first + arguments["limit"]]
        return json_of(
            {"trades": page, "trades_count": len(page), "offset": first, "total_trades": len(newest)}
        )


def json_of(value: Any, status: int = 200) -> PortAnswer:
    return PortAnswer(status=status, body=json.dumps(value).encode())


class HeldLog(MemoryLog):
    """Keeps its first batch until `go`, and may refuse it then."""

    def __init__(self, *, refused: bool) -> None:
        super().__init__("e1", 1 << 20)
        self.refused = refused
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def append(self, batch: Sequence[Append]) -> list[Appended]:
        first = not self.asked.is_set()
        self.asked.set()
        await self.go.wait()
        if first and self.refused:
            return [Appended(append, refused=NotDurable("full", retry_after_ms=1)) for append in batch]
        return await super().append(batch)


class Rig:
    """A node, a bot called maker, and a reconciler whose sleeps are counted and may do something."""

    def __init__(self, node: Node, bot: Bot, clock: Clock, limits: ReconcileLimits | None = None) -> None:
        self.node = node
        self.bot = bot
        self.clock = clock
        self.slept: list[float] = []
        self._numbers = itertools.count(1)
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        self.ports: dict[str, Any] = {"maker": bot}
        registry = BotRegistry(
            node, default_bot="maker", version="v", now_ms=clock.now_ms, in_process=self.ports
        )
        self.reconciler = Reconciler(node, registry, limits, sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self.meanwhile is not None:
            await self.meanwhile()
        await asyncio.sleep(0)

    async def tell(self, topic: str, data: dict[str, Any], at_ms: int, bot: str = "maker") -> int:
        """A message of the live link."""
        intake = self.node.intake
        now_ms = self.clock.now_ms()
        publish = intake.message(
            bot,
            topic,
            data,
            mid=f"live/{next(self._numbers)}",
            publisher=f"relay:{bot}",
            ts=at_ms,
            now_ms=now_ms,
        )
        return int((await self.node.publish_checked_and_wait(publish))["offset"])

    def ledger(self) -> list[Entry]:
        return list(self.node.core.tail.since(1))

    def figures(self) -> dict[str, int]:
        return self.reconciler.statistics()["maker"]


def entry(number: int, at_ms: int, amount: float = 1.0, price: float = 100.0) -> dict[str, Any]:
    return {"trade_id": number, "pair": "BTC/USDT", "amount": amount, "open_rate": price}


@asynccontextmanager
async def rig(bot: Bot, log: Log | None = None, limits: ReconcileLimits | None = None) -> AsyncIterator[Rig]:
    clock = Clock()
    node = Node(log or MemoryLog("e1", 1 << 20), NodeLimits(), clock=clock)
    await node.start()
    clock.ms = NOW_MS
    try:
        yield Rig(node, bot, clock, limits)
    finally:
        await node.stop()


AT = NOW_MS - 600 * SECOND
LEFT = AT + 60 * SECOND


def two_fills() -> Bot:
    return Bot(closed=[trade(7, order(1, "buy", AT), order(2, "sell", LEFT, price=110.0), closed_ms=LEFT)])


# --- reporting


async def test_what_was_told_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    async with rig(two_fills()) as world:
        await world.tell("entry_fill", entry(7, AT), AT)
        await world.tell("exit_fill", entry(7, LEFT) | {"close_rate": 110.0}, LEFT)
        answer = await world.reconciler.run("maker", publish=True)
        assert (answer.missing, answer.unknown, answer.fills, answer.messages) == ([], [], 2, 2)
        assert world.slept == []
        assert not [r for r in caplog.records if r.name == "tradewire.reconciler"]


async def test_a_missing_fill_is_reported_once_in_the_log_and_each_time_in_the_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with rig(two_fills()) as world:
        await world.tell("entry_fill", entry(7, AT), AT)
        for _ in range(2):
            answer = await world.reconciler.run("maker")
            (missed,) = answer.missing
            assert (missed.topic, missed.order_id, missed.ts, missed.offset) == (
                "exit_fill",
                "o2",
                LEFT,
                None,
            )
        assert world.slept == [10.0, 10.0]
        assert caplog.text.count("missed: exit_fill of trade 7") == 1
        assert len(world.ledger()) == 1
        assert world.figures() | {"runs": 2, "missing": 1, "published": 0} == world.figures()


async def test_a_fill_that_is_on_its_way_is_not_missed() -> None:
    async with rig(Bot(opened=[trade(7, order(1, "buy", NOW_MS - 5))])) as world:

        async def arrive() -> None:
            await world.tell("entry_fill", entry(7, NOW_MS), NOW_MS)

        world.meanwhile = arrive
        answer = await world.reconciler.run("maker", publish=True)
        assert answer.missing == []
        assert len(world.ledger()) == 1


async def test_a_fill_of_a_trade_that_the_bot_deleted_is_reported_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with rig(Bot()) as world:
        offset = await world.tell("entry_fill", entry(9, AT), AT)
        for _ in range(2):
            answer = await world.reconciler.run("maker", publish=True)
            assert [fill.offset for fill in answer.unknown] == [offset]
        assert caplog.text.count("trades that the bot does not know") == 1
        assert len(world.ledger()) == 1


async def test_a_fill_that_came_while_the_bot_was_read_is_not_unknown() -> None:
    async with rig(Bot()) as world:

        async def answer(operation: Operation, arguments: Mapping[str, Any]) -> PortAnswer:
            given = world.bot.truth(operation, arguments)
            if operation.name == "trades":
                await world.tell("entry_fill", entry(9, NOW_MS), NOW_MS)
            return given

        world.bot.answer = answer
        assert (await world.reconciler.run("maker")).unknown == []


# --- publishing


async def test_missed_fills_are_published_once_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    async with rig(two_fills()) as world:
        answer = await world.reconciler.run("maker", publish=True)
        assert (answer.published, [fill.offset for fill in answer.missing]) == (2, [1, 2])
        bought, sold = world.ledger()
        assert (bought.topic, bought.ts, bought.publisher) == ("entry_fill", AT, "reconcile:maker")
        assert bought.mid == f"reconciled/7/{AT}/o1"
        assert (sold.topic, sold.ts, sold.data["source"], sold.data["is_final_exit"]) == (
            "exit_fill",
            LEFT,
            "reconciled",
            True,
        )
        assert "published at offset 1" in caplog.text
        again = await world.reconciler.run("maker", publish=True)
        assert (again.missing, again.published, again.unknown) == ([], 0, [])
        assert len(world.ledger()) == 2


async def test_a_restarted_hub_with_its_ledger_on_disk_publishes_nothing_again(tmp_path: Path) -> None:
    early = STARTED_MS - 2 * HOUR
    async with rig(two_fills(), SqliteLog(tmp_path)) as world:
        await world.tell("entry", entry(8, early), early)
        assert (await world.reconciler.run("maker", publish=True)).published == 2
    async with rig(two_fills(), SqliteLog(tmp_path)) as world:
        # Filled while no hub ran: the ledger knows the bot from before.
        world.bot.opened = [trade(8, order(3, "buy", STARTED_MS - HOUR))]
        answer = await world.reconciler.run("maker", publish=True)
        assert ([fill.order_id for fill in answer.missing], answer.unknown) == (["o3"], [])
        assert (answer.messages, world.node.head) == (2, 4)
    async with rig(two_fills(), SqliteLog(tmp_path)) as world:
        world.bot.opened = [trade(8, order(3, "buy", STARTED_MS - HOUR))]
        assert (await world.reconciler.run("maker", publish=True)).missing == []
        assert world.node.head == 4


async def test_a_message_that_comes_after_its_fill_was_published_is_a_repetition(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A bot that hung, or an outbox that was cut off: nobody acts a second time."""
    async with rig(two_fills()) as hub:
        again: list[str] = []
        hub.reconciler.again_by("maker", lambda: again.append("maker"))
        await hub.reconciler.run("maker", publish=True)
        offsets = [entry.offset for entry in hub.ledger()]
        assert await hub.tell("entry_fill", entry(7, AT), NOW_MS) == offsets[0]
        assert [entry.offset for entry in hub.ledger()] == offsets
        assert (hub.figures()["late"], again) == (1, ["maker"])
        assert "came late: entry_fill of trade 7, 'BTC/USDT', order 'o1'" in caplog.text
        # Once: the next one with these figures is of another order.
        assert await hub.tell("entry_fill", entry(7, AT), NOW_MS) == offsets[-1] + 1
        assert hub.figures()["late"] == 1


async def test_a_message_that_comes_while_its_fill_is_being_stored_is_told_what_became_of_it() -> None:
    for refused in (False, True):
        log = HeldLog(refused=refused)
        async with rig(two_fills(), log) as hub:
            run = asyncio.ensure_future(hub.reconciler.run("maker", publish=True))
            await log.asked.wait()
            telling = asyncio.ensure_future(hub.tell("entry_fill", entry(7, AT), NOW_MS))
            await asyncio.sleep(0)
            assert not telling.done()
            log.go.set()
            outcome = await run
            assert await telling == 1
            first = hub.ledger()[0]
            assert first.publisher == ("relay:maker" if refused else "reconcile:maker")
            assert outcome.published == (0 if refused else 2)


async def test_another_fill_of_the_trade_is_no_repetition() -> None:
    async with rig(two_fills()) as hub:
        await hub.reconciler.run("maker", publish=True)
        others = [
            ("entry_fill", entry(7, AT, amount=2.0)),
            ("entry_fill", entry(8, AT)),
            ("entry_fill", entry(7, AT) | {"open_date": "2020-01-01T00:00:00+00:00"}),
            ("exit_fill", {"trade_id": 7, "pair": "BTC/USDT", "amount": 1.0, "close_rate": 100.0}),
        ]
        for number, (topic, data) in enumerate(others):
            assert await hub.tell(topic, data, NOW_MS) == 3 + number
        hub.clock.ms += MARGIN_MS + SECOND
        assert await hub.tell("entry_fill", entry(7, AT), hub.clock.ms) == 7
        assert hub.figures()["late"] == 0


async def test_runs_that_race_publish_once() -> None:
    async with rig(two_fills()) as world:
        answers = await asyncio.gather(
            *(world.reconciler.run("maker", publish=True) for _ in range(world.reconciler.limits.waiting))
        )
        assert sorted(answer.published for answer in answers) == [0] * 7 + [2]
        assert len(world.ledger()) == 2


async def test_an_id_that_the_ledger_knows_for_another_body_is_told_already() -> None:
    bot = two_fills()
    async with rig(bot) as world:
        await world.reconciler.run("maker", publish=True)
        first = dict(world.ledger()[0].data)
        # As if the reading had missed them: what protects then is the log itself.
        bot.closed[0]["enter_tag"] = "changed"
        world.node.find = nothing_of(world.node.log)  # type: ignore[method-assign]
        answer = await world.reconciler.run("maker", publish=True)
        assert (answer.missing_count, answer.published, answer.refused) == (2, 0, 0)
        assert len(world.ledger()) == 2
        assert first["enter_tag"] is None


def nothing_of(log: MemoryLog) -> Callable[[Query], Awaitable[Found]]:
    async def find(_query: Query) -> Found:
        return Found([], None, 0, log.head)

    return find


class FullDisk(MemoryLog):
    """Takes so many appends, and no more for now."""

    def __init__(self, room: int) -> None:
        super().__init__("e1", 1 << 20)
        self.room = room

    async def append(self, batch: Any) -> list[Appended]:
        return [self._one(append) for append in batch]

    def _one(self, append: Append) -> Appended:
        if self.room <= 0:
            return Appended(append, refused=NotDurable("disk full"))
        self.room -= 1
        return self._append(append)


async def test_an_exit_never_goes_ahead_of_its_refused_entry() -> None:
    log = FullDisk(0)
    async with rig(two_fills(), log) as world:
        answer = await world.reconciler.run("maker", publish=True)
        assert [fill.refused for fill in answer.missing] == ["disk full", None]
        assert (answer.published, world.figures()["refused"]) == (0, 1)
        log.room = 9
        answer = await world.reconciler.run("maker", publish=True)
        assert [e.topic for e in world.ledger()] == ["entry_fill", "exit_fill"]


class Damaged1(MemoryLog):
    """Its first slot cannot be read."""

    async def find(self, query: Query) -> Found:
        found = await super().find(query)
        return Found([Damaged(1), *found.entries], found.after, found.floor, found.head)


async def test_beside_a_damaged_slot_nothing_is_published(caplog: pytest.LogCaptureFixture) -> None:
    async with rig(two_fills(), Damaged1("e1", 1 << 20)) as world:
        answer = await world.reconciler.run("maker", publish=True)
        assert (answer.missing_count, answer.published) == (2, 0)
        assert answer.damaged > 0
        assert "may be these fills" in caplog.text
        assert world.ledger() == []


async def test_readers_are_told() -> None:
    async with rig(two_fills()) as world:
        told: list[tuple[str, dict[str, Any]]] = []
        world.node.tell_readers = lambda bot, notice: told.append((bot, notice))  # type: ignore[method-assign]
        await world.reconciler.run("maker", publish=True)
        await world.reconciler.run("maker")
        data = {"bot": "maker", "missing": 2, "published": 2, "unknown": 0}
        assert told == [("maker", {"type": "hub.reconciled", "data": data})]


# --- from when on


async def test_what_was_filled_before_the_hub_began_is_left_alone() -> None:
    early = STARTED_MS - 1
    async with rig(Bot(opened=[trade(1, order(1, "buy", early), order(2, "buy", AT))])) as world:
        answer = await world.reconciler.run("maker")
        assert [fill.order_id for fill in answer.missing] == ["o2"]
        assert answer.since_ms == STARTED_MS
        answer = await world.reconciler.run("maker", since_ms=early)
        assert [fill.order_id for fill in answer.missing] == ["o1", "o2"]


async def test_the_ledgers_oldest_message_of_the_bot_is_an_earlier_begin() -> None:
    early = STARTED_MS - 2 * HOUR
    async with rig(Bot(opened=[trade(1, order(1, "buy", early + 5))])) as world:
        await world.tell("entry", entry(1, early), early)
        assert (await world.reconciler.run("maker")).missing_count == 1


async def test_no_fill_is_published_that_is_older_than_ids_are_remembered() -> None:
    day = 24 * HOUR
    async with rig(Bot(opened=[trade(1, order(1, "buy", NOW_MS - day - 1))])) as world:
        await world.tell("entry", entry(1, 0), NOW_MS - day + SECOND)
        assert (await world.reconciler.run("maker", publish=True)).missing == []
        answer = await world.reconciler.run("maker", publish=True, since_ms=0)
        (missed,) = answer.missing
        assert missed.refused is not None
        assert "remembered" in missed.refused


async def test_what_retention_may_have_removed_is_left_alone() -> None:
    async with rig(Bot(opened=[trade(1, order(1, "buy", AT))]), MemoryLog("e1", 3000)) as world:
        await world.tell("entry_fill", entry(1, AT), AT)
        for number in range(5):
            await world.tell("entry_fill", entry(number, NOW_MS), NOW_MS + number, bot="other")
        assert world.node.log.floor
        assert (await world.reconciler.run("maker", publish=True, since_ms=0)).missing == []


async def test_of_a_long_ledger_only_what_is_young_enough_is_read() -> None:
    begin = NOW_MS - 30 * HOUR
    async with rig(Bot(opened=[trade(1, order(1, "buy", AT))])) as world:
        for number in range(600):
            # The clock of the hub as it was then: nothing else may be so old.
            world.clock.ms = begin + number * 180 * SECOND
            await world.tell("entry_fill", entry(1000 + number, 0), world.clock.ms)
        world.clock.ms = NOW_MS
        queries: list[Query] = []
        find = world.node.find

        async def watched(query: Query) -> Found:
            queries.append(query)
            return await find(query)

        world.node.find = watched  # type: ignore[method-assign]
        answer = await world.reconciler.run("maker", since_ms=AT - 60 * SECOND)
        assert answer.missing_count == 1
        reading = [query for query in queries if query.topics]
        first_of_horizon = (30 * HOUR - (NOW_MS - AT) - 660 * SECOND) // (180 * SECOND)
        assert first_of_horizon - 70 < reading[0].after < first_of_horizon
        assert len(queries) < 20


class Sparse(MemoryLog):
    """Looks at one slot for each page, as a log on disk that bounds its steps."""

    async def find(self, query: Query) -> Found:
        after = max(query.after, self.floor)
        if after >= self.head:
            return Found([], None, self.floor, self.head)
        slot = next(e for e in self._entries if e.offset > after)
        entries = [slot] if matches(query, slot) else []
        return Found(entries, slot.offset if slot.offset < self.head else None, self.floor, self.head)


async def test_pages_that_are_empty_are_not_the_end() -> None:
    async with rig(two_fills(), Sparse("e1", 1 << 20)) as world:
        for number in range(5):
            await world.tell("entry_fill", entry(number, AT), AT, bot="other")
        early = STARTED_MS - HOUR
        await world.tell("entry", entry(7, early), early)
        await world.tell("entry_fill", entry(7, AT), AT)
        answer = await world.reconciler.run("maker")
        assert answer.since_ms == early
        assert [fill.order_id for fill in answer.missing] == ["o2"]


# --- reading the bot


async def test_closed_trades_are_read_page_by_page_as_far_back_as_needed() -> None:
    closed = [
        trade(
            n,
            order(2 * n, "buy", AT - n * HOUR),
            order(2 * n + 1, "sell", AT - n * HOUR + 1),
            closed_ms=AT - n * HOUR + 1,
        )
        for n in range(20)
    ]
    async with rig(Bot(closed=closed), limits=ReconcileLimits(page_trades=2)) as world:
        answer = await world.reconciler.run("maker")
        assert answer.complete
        assert [name for name, _, _ in world.bot.asked] == ["status", "trades", "trades"]
        assert world.bot.asked[1:] == [
            ("trades", {"limit": 2, "offset": 0, "order_by_id": False}, "hub:reconcile"),
            ("trades", {"limit": 2, "offset": 2, "order_by_id": False}, "hub:reconcile"),
        ]
        world.bot.asked.clear()
        await world.reconciler.run("maker", since_ms=0)
        assert len(world.bot.asked) == 11


async def test_a_bot_that_sorts_otherwise_is_read_whole() -> None:
    old = [trade(n, order(n, "buy", n + 1), closed_ms=n + 1) for n in range(4)]
    bot = Bot(closed=old)

    async def answer(operation: Operation, arguments: Mapping[str, Any]) -> PortAnswer:
        if operation.name == "status":
            return json_of([])
        rows = [*old, *two_fills().closed]
        page = rows[arguments["offset"] : arguments["offset"] + 2]
        return json_of({"trades": page, "total_trades": len(rows)})

    bot.answer = answer
    async with rig(bot, limits=ReconcileLimits(page_trades=2)) as world:
        assert (await world.reconciler.run("maker")).missing_count == 2


async def test_a_bot_with_endless_trades_is_read_so_far_and_nothing_is_unknown() -> None:
    bot = Bot()

    async def answer(operation: Operation, arguments: Mapping[str, Any]) -> PortAnswer:
        if operation.name == "status":
            return json_of([])
        return json_of({"trades": two_fills().closed, "total_trades": 10**9})

    bot.answer = answer
    async with rig(bot, limits=ReconcileLimits(pages=3)) as world:
        await world.tell("entry_fill", entry(9, AT), AT)
        result = await world.reconciler.run("maker")
        assert len(bot.asked) == 4
        assert (result.complete, result.unknown, result.trades, result.missing_count) == (False, [], 1, 2)


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (b"[]", 502, "GET /status with 502"),
        (b"{", 200, "cannot be reconciled"),
        (b'[{"trade_id": "7"}]', 200, r"trade_id"),
        (b" " * 101, 200, "over 100 bytes"),
        (b"[" * 100, 200, "cannot be reconciled"),
    ],
)
async def test_junk_is_the_bots_error(body: bytes, status: int, expected: str) -> None:
    bot = Bot()

    async def answer(_operation: Operation, _arguments: Mapping[str, Any]) -> PortAnswer:
        return PortAnswer(status=status, body=body)

    bot.answer = answer
    async with rig(bot, limits=ReconcileLimits(answer_bytes=100)) as world:
        with pytest.raises(BotError, match=expected):
            await world.reconciler.run("maker")
        assert world.figures()["failed"] == 1


async def never(_operation: Operation, _arguments: Mapping[str, Any]) -> PortAnswer:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_bot_that_does_not_answer_costs_nobody_else() -> None:
    slow = Bot()
    slow.answer = never
    async with rig(slow) as world:
        world.ports["other"] = Bot()
        waiting = asyncio.create_task(world.reconciler.run("maker"))
        await asyncio.sleep(0)
        assert (await world.reconciler.run("other")).missing == []
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert world.figures()["waiting"] == 0


async def test_a_run_ends_at_its_deadline() -> None:
    slow = Bot()
    slow.answer = never
    async with rig(slow, limits=ReconcileLimits(deadline_s=0.0, grace_s=0.0)) as world:
        with pytest.raises(BotBusy, match="did not end within 0 s"):
            await world.reconciler.run("maker")
        assert (world.figures()["failed"], world.figures()["waiting"]) == (1, 0)


async def test_so_many_runs_of_a_bot_wait_and_no_more() -> None:
    async with rig(Bot(), limits=ReconcileLimits(waiting=1)) as world:
        first = asyncio.create_task(world.reconciler.run("maker"))
        await asyncio.sleep(0)
        with pytest.raises(BotBusy):
            await world.reconciler.run("maker")
        await first


async def test_a_bot_that_nobody_knows_and_one_that_cannot_be_asked() -> None:
    async with rig(Bot()) as world:
        with pytest.raises(UnknownBot):
            await world.reconciler.run("nobody")
        assert set(world.reconciler.statistics()) == set()
        await world.tell("entry_fill", entry(1, AT), AT, bot="mute")
        with pytest.raises(BotError, match="not reachable over REST"):
            await world.reconciler.run("mute")


async def test_a_ledger_with_too_many_fills_is_said() -> None:
    async with rig(Bot(), limits=ReconcileLimits(messages=2)) as world:
        for number in range(3):
            await world.tell("entry_fill", entry(number, AT), AT)
        with pytest.raises(BotError, match="a later since"):
            await world.reconciler.run("maker")


# --- after a link


async def linked(world: Rig, *, publish: bool = False, turns: int = 60) -> UpstreamRuns:
    runs = UpstreamRuns(world.reconciler, "maker", publish=publish)
    task = asyncio.create_task(runs.run())
    runs.set_online(True)
    for _ in range(turns):
        await asyncio.sleep(0)
        await asyncio.to_thread(lambda: None)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return runs


async def test_a_link_is_given_time_to_settle_and_then_compared() -> None:
    async with rig(two_fills()) as world:
        await linked(world, publish=True)
        assert world.slept == [3.0, 20.0]
        assert world.figures()["published"] == 2


async def test_a_bot_that_does_not_answer_is_asked_again_a_few_times(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bot = Bot()

    async def answer(_operation: Operation, _arguments: Mapping[str, Any]) -> PortAnswer:
        raise BotGone("bot maker is out of reach")

    bot.answer = answer
    async with rig(bot) as world:
        await linked(world)
        assert world.slept == [3.0, *RETRY_S]
        assert world.figures()["failed"] == 4
        assert "not reconciled: bot maker is out of reach" in caplog.text


async def test_a_link_that_went_down_is_not_compared() -> None:
    async with rig(two_fills()) as world:
        runs = UpstreamRuns(world.reconciler, "maker", publish=False)

        async def down() -> None:
            runs.set_online(False)

        world.meanwhile = down
        task = asyncio.create_task(runs.run())
        runs.set_online(True)
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert world.bot.asked == []


async def test_a_fault_of_ours_does_not_end_the_task(caplog: pytest.LogCaptureFixture) -> None:
    bot = Bot()

    async def answer(_operation: Operation, _arguments: Mapping[str, Any]) -> PortAnswer:
        raise ZeroDivisionError

    bot.answer = answer
    async with rig(bot) as world:
        await linked(world)
        assert world.figures()["failed"] == 4
        assert "the reconciliation failed" in caplog.text
