"""Reconciliation: the ledger is compared with a bot's own trades, and what it missed is reported, or published once.

An unmodified freqtrade bot replays nothing over its websocket, and tells nothing at all of what it finds filled when it starts; what
it sent while the relay or the bot was cut off is in its trades only. `hub.core.reconciliation` compares; here is who asks, when, and
what becomes of it.

Theory of operation
===================

A run reads the bot's open trades, then the closed ones from the newest back, then the ledger. A fill that seems missing may be a
message on its way: freqtrade stores a fill first, and may ask its exchange this and that before it tells. So the run waits for a
grace, reads what has come since, and compares again, the trades being those of before: no clock of the bot is needed to tell that a
fill is older than the grace. To publish it waits longer, since a fill that is told twice is worse than one that comes late.

What was filled before `since` is left alone: before the hub started if the ledger has nothing of the bot, else before the oldest of it
that the ledger has, and never more than the time for which ids are remembered, nor beyond what retention removed. The bot's times are
corrected by its clock's skew.

A missing fill is published as what freqtrade would have sent, with `source: "reconciled"`, at the time of the fill. Its mid is made of
trade and order and its publisher is `reconcile:BOT`, so it is stored once, whatever runs race or restart. The bot's own message may
come after all; it is answered as a repetition (hub.core.late_fills), unless the hub was started anew in between.

Invariants
==========

- One run at a time per bot; the others wait their turn, and then see what it published.
- Nothing is published when a slot of the ledger cannot be read: it may be the very fill.
- The first fill that is refused for now ends the publishing: an exit never goes ahead of its entry.
- A bot that is slow, gone or lies costs its own run: it ends by a deadline, and reads so many bytes and trades.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hub.bots.ports import BotPort
from hub.bots.registry import BotRegistry
from hub.core import notices
from hub.core.bot_trades import FILL_TOPICS, Fill, TradeRow, open_trades, trade_page
from hub.core.entry import Entry
from hub.core.ledger import Damaged, Query
from hub.core.reconciliation import MARGIN_MS, Comparison, Told, compare, told
from hub.node import Node
from hub.protocol.botapi import OPERATIONS, BotBusy, BotError
from hub.protocol.errors import HubError, IdConflict, RequestError
from hub.protocol.ledger_answers import MissedFill, Reconciliation, UnknownFill

__all__ = ["ReconcileLimits", "Reconciler", "UpstreamRuns"]

PRINCIPAL = "hub:reconcile"
REPORTED = 4096
RETRY_S = (30.0, 120.0, 600.0)
OLDEST = 16
BEGIN_OFFSETS = 64
Sleep = Callable[[float], Awaitable[None]]
logger = logging.getLogger("tradewire.reconciler")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileLimits:
    """How long a run waits, and how much it reads. `messages` are fills of the ledger, `told` fills of each list of an answer."""

    settle_s: float = 3.0
    grace_s: float = 10.0
    publish_grace_s: float = 20.0
    deadline_s: float = 60.0
    page_trades: int = 50
    pages: int = 200
    answer_bytes: int = 8 << 20
    read_bytes: int = 32 << 20
    messages: int = 100_000
    told: int = 1000
    runs: int = 2
    waiting: int = 8


@dataclass(slots=True)
class _Bot:
    """What is kept of a bot. `reported` are mids of fills that had their line in the log, `unknown_up_to` an offset as well."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    reported: OrderedDict[str, None] = field(default_factory=OrderedDict)
    unknown_up_to: int = 0
    figures: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("runs", "failed", "missing", "unknown", "published", "refused", "late"), 0
        )
    )


@dataclass(slots=True, kw_only=True)
class _Ledger:
    """What a run has read of the ledger: fills, up to the offset `after`."""

    after: int
    fills: list[Told] = field(default_factory=list)
    damaged: int = 0


class Reconciler:
    """Runs reconciliations of one node. `sleep` takes the place of asyncio's in tests."""

    def __init__(
        self,
        node: Node,
        registry: BotRegistry,
        limits: ReconcileLimits | None = None,
        *,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.limits = limits or ReconcileLimits()
        self.sleep = sleep
        self._node = node
        self._registry = registry
        self._bots: dict[str, _Bot] = {}
        self._slots = asyncio.Semaphore(self.limits.runs)
        self._again: dict[str, Callable[[], None]] = {}
        node.on_late_fill = self._came_late

    def statistics(self) -> dict[str, dict[str, int]]:
        """By bot. Since the start: runs, those that failed, fills published and refused, and messages that came later than those; of
        the last run: missing and unknown.

        Besides, of now: requests that run or wait, fills that are remembered as reported, and those whose own message may still come.
        """
        return {
            name: {
                **bot.figures,
                "waiting": bot.waiting,
                "waiting_limit": self.limits.waiting,
                "reported": len(bot.reported),
                "reported_limit": REPORTED,
                "remembered": self._node.late_fills.of_bot(name),
                "remembered_limit": self._node.late_fills.limit,
            }
            for name, bot in self._bots.items()
        }

    async def run(self, name: str, *, publish: bool = False, since_ms: int | None = None) -> Reconciliation:
        """Compare the ledger with the trades of a bot; with `publish` store what is missing.

        `since_ms` takes the place of the time before which fills are left alone, but for retention. Cancelled, it has published whole
        fills or none.

        Raises:
            UnknownBot, BotError, BotUnavailable: as the bot's port, also for an answer that cannot be read. BotBusy: it took too
            long, or too many runs wait.
        """
        self._registry.port(name)
        bot = self._bots.setdefault(name, _Bot())
        if bot.waiting >= self.limits.waiting:
            raise BotBusy(f"{bot.waiting} reconciliations of bot {name} wait")
        bot.waiting += 1
        try:
            async with bot.lock, self._slots:
                return await self._counted(name, bot, publish, since_ms)
        finally:
            bot.waiting -= 1

    async def _counted(self, name: str, bot: _Bot, publish: bool, since_ms: int | None) -> Reconciliation:
        bot.figures["runs"] += 1
        deadline_s = self.limits.deadline_s + self._grace_s(publish)
        try:
            async with asyncio.timeout(deadline_s):
                return await self._run(name, bot, publish, since_ms)
        except TimeoutError:
            bot.figures["failed"] += 1
            raise BotBusy(f"the reconciliation of bot {name} did not end within {deadline_s:g} s") from None
        except Exception:
            bot.figures["failed"] += 1
            raise

    async def _run(self, name: str, bot: _Bot, publish: bool, asked_ms: int | None) -> Reconciliation:
        head = self._node.head
        since_ms = await self._since(name, asked_ms)
        with _readable(name):
            trades, complete = await self._trades(name, since_ms)
            ledger = _Ledger(after=await self._begin(name, since_ms - MARGIN_MS))
            await self._read(name, ledger, since_ms)
            compared = await self._compare(name, trades, ledger, since_ms, head if complete else None)
            if compared.missing:
                await self.sleep(self._grace_s(publish))
                await self._read(name, ledger, since_ms)
                compared = await self._compare(name, trades, ledger, since_ms, head if complete else None)
        outcome = _Outcome(name, self._node.epoch, self._skew_ms(name), since_ms, compared, ledger.damaged)
        outcome.complete = complete
        if publish and not ledger.damaged:
            await self._publish(name, outcome)
        self._tell(name, bot, outcome)
        return outcome.answer(self.limits.told)

    def _grace_s(self, publish: bool) -> float:
        return self.limits.publish_grace_s if publish else self.limits.grace_s

    # --- from when on

    async def _since(self, name: str, asked_ms: int | None) -> int:
        """The time from which fills are compared, by the hub's clock."""
        node = self._node
        if asked_ms is None:
            oldest = await self._oldest(name)
            known = node.started_ms if oldest is None else oldest.ts
            remembered = node.clock.now_ms() - node.limits.dedupe_ms + MARGIN_MS
            since_ms = max(min(known, node.started_ms), remembered)
        else:
            since_ms = asked_ms
        return max(since_ms, await self._retained_ms())

    async def _retained_ms(self) -> int:
        """When all that retention removed had come. `ts` may be older than the message's coming, so the newest of some counts."""
        oldest = await self._node.find(Query(limit=OLDEST))
        if not oldest.floor:
            return 0
        return max((e.ts for e in oldest.entries if isinstance(e, Entry)), default=self._node.clock.now_ms())

    def _skew_ms(self, name: str) -> int:
        bot = self._registry.passed(name)
        return 0 if bot is None else bot.skew_ms

    # --- what the bot has

    async def _trades(self, name: str, since_ms: int) -> tuple[list[TradeRow], bool]:
        """The open trades and those closed after `since_ms` - MARGIN_MS; whether these are all."""
        limits, port = self.limits, self._registry.port(name)
        body = await self._ask(name, port, "status", {})
        trades = await asyncio.to_thread(open_trades, body)
        size, offset = len(body), 0
        for _ in range(limits.pages):
            asked = {"limit": limits.page_trades, "offset": offset, "order_by_id": False}
            body = await self._ask(name, port, "trades", asked)
            size += len(body)
            page = await asyncio.to_thread(trade_page, body)
            trades += page.trades
            offset += len(page.trades)
            if not page.trades or offset >= page.total_trades:
                return trades, True
            if _all_before(page.trades, since_ms - MARGIN_MS + self._skew_ms(name)):
                return trades, True
            if size > limits.read_bytes:
                break
        return trades, False

    async def _ask(self, name: str, port: BotPort, operation: str, arguments: Mapping[str, Any]) -> bytes:
        answer = await port.perform(OPERATIONS[operation], arguments, principal=PRINCIPAL)
        if answer.status != 200:
            raise BotError(f"bot {name} answers GET {OPERATIONS[operation].path} with {answer.status}")
        if len(answer.body) > self.limits.answer_bytes:
            raise BotError(f"bot {name} answers with over {self.limits.answer_bytes} bytes")
        return answer.body

    # --- what the ledger has

    async def _begin(self, name: str, ts: int) -> int:
        """An offset at and below which everything came before `ts`: older slots are neither looked at nor missed.

        Only what the relay published has the time at which it came, in the order of offsets; so these are halved. Without them it is
        the floor.
        """
        low, high = 0, self._node.head
        while high - low > BEGIN_OFFSETS:
            middle = (low + high) // 2
            entry = await self._relayed(name, middle)
            if entry is None or entry.offset > high or entry.ts >= ts:
                high = middle
            else:
                low = entry.offset
        return low

    async def _relayed(self, name: str, after: int) -> Entry | None:
        """The first message of the bot's relay not far above an offset."""
        publisher = f"relay:{name}"
        found = await self._node.find(Query(after=after, bots=frozenset({name}), limit=BEGIN_OFFSETS))
        slots = (slot for slot in found.entries if isinstance(slot, Entry) and slot.publisher == publisher)
        return next(slots, None)

    async def _oldest(self, name: str) -> Entry | None:
        """The bot's oldest message."""
        after: int | None = 0
        while after is not None:
            # A page may have nothing and not be the last.
            found = await self._node.find(Query(after=after, bots=frozenset({name}), limit=1))
            for slot in found.entries:
                if isinstance(slot, Entry):
                    return slot
            after = found.after
        return None

    async def _read(self, name: str, ledger: _Ledger, since_ms: int) -> None:
        """Read the bot's fills above `ledger.after`, up to the head."""
        while True:
            query = Query(
                after=ledger.after,
                bots=frozenset({name}),
                topics=FILL_TOPICS,
                since_ms=since_ms - MARGIN_MS,
            )
            found = await self._node.find(query)
            ledger.damaged += sum(isinstance(entry, Damaged) for entry in found.entries)
            ledger.fills += await asyncio.to_thread(_told, found.entries)
            if len(ledger.fills) > self.limits.messages:
                raise ValueError(f"over {self.limits.messages} fills in the ledger; a later since is needed")
            ledger.after = found.head if found.after is None else found.after
            if found.after is None:
                return

    async def _compare(
        self, name: str, trades: Sequence[TradeRow], ledger: _Ledger, since_ms: int, known_up_to: int | None
    ) -> Comparison:
        return await asyncio.to_thread(
            compare,
            trades,
            ledger.fills,
            since_ms=since_ms,
            skew_ms=self._skew_ms(name),
            known_up_to=known_up_to,
        )

    # --- what becomes of it

    async def _publish(self, name: str, outcome: _Outcome) -> None:
        for fill in outcome.compared.missing:
            try:
                offset = await self._store(name, fill, outcome.at_ms(fill))
            except IdConflict:
                # Stored by an earlier run, when the trade was at another stage.
                continue
            except RequestError as error:
                outcome.refused[fill.mid] = str(error)
                if error.temporary:
                    return
            else:
                outcome.published[fill.mid] = offset

    async def _store(self, name: str, fill: Fill, at_ms: int) -> int:
        node, now_ms = self._node, self._node.clock.now_ms()
        publish = node.intake.message(
            name,
            fill.topic,
            fill.data,
            mid=fill.mid,
            publisher=f"reconcile:{name}",
            ts=min(at_ms, now_ms),
            now_ms=now_ms,
        )
        stored = node.late_fills.storing(name, fill, now_ms)
        answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        # Also when this run was cancelled meanwhile: a message that comes late must find what the log has stored.
        def done(result: Mapping[str, Any] | RequestError) -> None:
            if isinstance(result, RequestError):
                node.late_fills.forget(stored)
                stored.settle(None)
                if not answered.done():
                    answered.set_exception(result)
            else:
                stored.settle(int(result["offset"]))
                if not answered.done():
                    answered.set_result(int(result["offset"]))

        node.publish_checked(publish, done)
        return await answered

    def again_by(self, name: str, again: Callable[[], None]) -> None:
        """Call `again` when a bot is to be compared once more."""
        self._again[name] = again

    def _came_late(self, name: str, fill: Fill, offset: int) -> None:
        self._bots.setdefault(name, _Bot()).figures["late"] += 1
        logger.warning(
            "bot %s: came late: %s of trade %d, %r, order %r: it was published at offset %d already",
            name,
            fill.topic,
            fill.trade_id,
            fill.pair,
            fill.order_id,
            offset,
        )
        again = self._again.get(name)
        if again is not None:
            # It may have been of another order with the same figures, which is missing then.
            again()

    def _tell(self, name: str, bot: _Bot, outcome: _Outcome) -> None:
        missing, unknown = outcome.compared.missing, outcome.compared.unknown
        bot.figures["missing"] = len(missing)
        bot.figures["unknown"] = len(unknown)
        bot.figures["published"] += len(outcome.published)
        bot.figures["refused"] += len(outcome.refused)
        for fill in missing:
            self._log(name, bot, fill, outcome)
        if outcome.damaged and missing:
            logger.warning(
                "bot %s: nothing is published: %d slots of the ledger cannot be read, and may be these fills",
                name,
                outcome.damaged,
            )
        new = [message.offset for message in unknown if message.offset > bot.unknown_up_to]
        if new:
            bot.unknown_up_to = new[-1]
            logger.warning(
                "bot %s: %d fills of the ledger are of trades that the bot does not know, the last at offset %d",
                name,
                len(new),
                new[-1],
            )
        if missing or unknown:
            counts = {"missing": len(missing), "unknown": len(unknown)}
            self._node.tell_readers(
                name, notices.reconciled(name, published=len(outcome.published), **counts)
            )

    def _log(self, name: str, bot: _Bot, fill: Fill, outcome: _Outcome) -> None:
        offset = outcome.published.get(fill.mid)
        if offset is None and fill.mid in bot.reported:
            return
        bot.reported[fill.mid] = None
        while len(bot.reported) > REPORTED:
            bot.reported.popitem(last=False)
        refused = outcome.refused.get(fill.mid)
        logger.warning(
            "bot %s: missed: %s of trade %d, %r, amount %r at %r, order %r: %s",
            name,
            fill.topic,
            fill.trade_id,
            fill.pair,
            fill.amounts[0],
            fill.rate,
            fill.order_id,
            f"published at offset {offset}"
            if offset is not None
            else f"refused: {refused}"
            if refused
            else "not published",
        )


class _Outcome:
    """A run's result while it is made."""

    def __init__(
        self, bot: str, epoch: str, skew_ms: int, since_ms: int, compared: Comparison, damaged: int
    ) -> None:
        self.bot = bot
        self.epoch = epoch
        self.skew_ms = skew_ms
        self.since_ms = since_ms
        self.compared = compared
        self.damaged = damaged
        self.complete = True
        self.published: dict[str, int] = {}
        self.refused: dict[str, str] = {}

    def at_ms(self, fill: Fill) -> int:
        """When it was filled, by the hub's clock."""
        return max(fill.filled_ms - self.skew_ms, 0)

    def answer(self, limit: int) -> Reconciliation:
        compared = self.compared
        return Reconciliation(
            bot=self.bot,
            epoch=self.epoch,
            since_ms=self.since_ms,
            skew_ms=self.skew_ms,
            trades=compared.trades,
            fills=compared.fills,
            messages=compared.messages,
            complete=self.complete,
            damaged=self.damaged,
            missing_count=len(compared.missing),
            unknown_count=len(compared.unknown),
            published=len(self.published),
            refused=len(self.refused),
            missing=[self._missed(fill) for fill in compared.missing[:limit]],
            unknown=[
                UnknownFill(offset=m.offset, topic=m.topic, trade_id=m.trade_id, pair=m.pair, ts=m.ts)
                for m in compared.unknown[:limit]
            ],
        )

    def _missed(self, fill: Fill) -> MissedFill:
        return MissedFill(
            topic=fill.topic,
            trade_id=fill.trade_id,
            pair=fill.pair,
            order_id=fill.order_id,
            amount=fill.amounts[0],
            rate=fill.rate,
            ts=self.at_ms(fill),
            mid=fill.mid,
            offset=self.published.get(fill.mid),
            refused=self.refused.get(fill.mid),
        )


class UpstreamRuns:
    """The one task of an upstream: a run when its link has been up for `settle_s`, and again later where that one failed."""

    def __init__(self, reconciler: Reconciler, bot: str, *, publish: bool) -> None:
        self._reconciler = reconciler
        self._bot = bot
        self._publish = publish
        self._online = False
        self._changed = asyncio.Event()
        reconciler.again_by(bot, self._changed.set)

    def set_online(self, online: bool) -> None:
        """The link went up or down."""
        self._online = online
        self._changed.set()

    async def run(self) -> None:
        """Reconcile after each link until cancelled; never raises for the bot."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for pause_s in (self._reconciler.limits.settle_s, *RETRY_S):
                await self._reconciler.sleep(pause_s)
                if self._changed.is_set() or not self._online or await self._attempt():
                    break

    async def _attempt(self) -> bool:
        try:
            await self._reconciler.run(self._bot, publish=self._publish)
        except HubError as error:
            logger.warning("bot %s: not reconciled: %s", self._bot, error)
        except Exception:
            logger.exception("bot %s: the reconciliation failed", self._bot)
        else:
            return True
        return False


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    """What cannot be read of a bot's answers is the bot's error."""
    try:
        yield
    except ValueError as error:
        raise BotError(f"bot {name} cannot be reconciled: {error}") from None


def _all_before(trades: Sequence[TradeRow], ms: int) -> bool:
    """Whether a page is sorted by its trades' ends, the newest first, and ends before `ms`: then so do all behind it."""
    ends = [trade.close_timestamp for trade in trades]
    known = [end for end in ends if end is not None]
    return len(known) == len(ends) and known == sorted(known, reverse=True) and known[-1] < ms


def _told(entries: Sequence[Entry | Damaged]) -> list[Told]:
    return [found for entry in entries if isinstance(entry, Entry) and (found := told(entry)) is not None]
