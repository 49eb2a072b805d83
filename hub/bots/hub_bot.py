"""HubBot: the port of a bot of which the hub only knows what it published."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import msgspec

from hub.bots.ports import Bound, PortAnswer, encoded
from hub.frames.columns import Columns
from hub.frames.history import History
from hub.frames.timeframe import timeframe_ms
from hub.protocol.answers import Health, PairHistory, PairList, ShowConfig, Version
from hub.protocol.botapi import BotError, BotFault
from hub.protocol.errors import BadFrame
from hub.protocol.operations import Operation

__all__ = ["HUB_API_VERSION", "BotSource", "Candles", "HubBot", "Turns", "nominal_ms"]

HUB_API_VERSION = 2.35
"""The REST version of such a bot. FreqUI turns features on by it (a number compare): from 2.2 on it opens the websocket, at 2.21
it takes new_candle, at 2.35 it asks for the columns of a chart alone. What the versions above add, no HubBot can answer."""

_STATES = frozenset({"running", "paused", "stopped", "reload_config"})
_ENDED = frozenset({"process died"})


class Candles(NamedTuple):
    """A bot's analyzed candles of a pair; `la_ms` is when it analyzed them (ms since 1970 UTC)."""

    rows: Columns
    la_ms: int


class BotSource(Protocol):
    """What the node knows of bots from their messages. Every answer is immediate."""

    def bots(self) -> Collection[str]:
        """The names of all bots that are configured or have published."""

    def whitelist(self, bot: str) -> Sequence[str] | None:
        """The last whitelist; None before the first. An empty one is an answer."""

    def last_message_ms(self, bot: str) -> int | None:
        """When the bot's last message came, in ms since 1970 UTC."""

    def state(self, bot: str) -> str | None:
        """The text of the bot's last `status` message, None without one."""

    def timeframe(self, bot: str) -> str | None:
        """The timeframe of the bot's frames (of several, the one that came first); None before the first."""

    def online(self, bot: str) -> bool | None:
        """Whether the bot's connection is up, None where it has none that the hub would know of."""

    def candles(self, bot: str, pair: str, timeframe: str) -> Candles | None:
        """What the bot last published of a pair, None for nothing."""


class Turns:
    """A slice of long work a turn of the loop, whoever it is for.

    With a turn for each request, 32 charts at once put 32 slices between a fill and its receivers (measured: a p50 of 330 ms).
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def next(self) -> None:
        """Wait for the loop to turn, and behind all who wait already."""
        async with self._lock:
            await asyncio.sleep(0)


class HubBot:
    """A bot that is asked for nothing. `overrides` are fields of show_config that its owner stated (`hub.bots`).

    Nothing is guessed: what no message tells is null, empty or off. Two fields cannot be null and so state the harmless case
    until the owner says otherwise: `dry_run` true and `runmode` "dry_run" (with another one FreqUI never refreshes). What only the
    bot itself could answer or do is a BotError. `turns` are those of all bots of the loop.
    """

    def __init__(
        self,
        name: str,
        source: BotSource,
        *,
        version: str,
        overrides: Mapping[str, Any] | None = None,
        turns: Turns | None = None,
    ) -> None:
        self._name = name
        self._source = source
        self._version = version
        self._overrides = dict(overrides or {})
        self._bound = Bound(name)
        self._turns = turns or Turns()
        self._known = {
            "version": self.version,
            "show_config": self.show_config,
            "whitelist": self.whitelist,
            "health": self.health,
            "plot_config": self.plot_config,
            "pair_candles": self.pair_candles,
            "chosen_pair_candles": self.pair_candles,
        }

    async def perform(
        self, operation: Operation, arguments: Mapping[str, Any], *, principal: str
    ) -> PortAnswer:
        """As BotPort; BotError for an operation that is not among the methods below."""
        method: Any = self._known.get(operation.name)
        if method is None:
            raise BotError(
                f"bot {self._name} is not reachable over REST: it is neither attached nor has it a REST upstream"
            )
        with self._bound.one():
            return PortAnswer(status=200, body=await encoded(await method(**arguments)))

    async def version(self) -> Version:
        return Version(version=self._version)

    async def show_config(self) -> ShowConfig:
        timeframe = self._overrides.get("timeframe", self._source.timeframe(self._name))
        known = ShowConfig(
            version=self._version,
            api_version=HUB_API_VERSION,
            timeframe=timeframe,
            timeframe_ms=nominal_ms(timeframe),
            timeframe_min=nominal_ms(timeframe) // 60_000,
            bot_name=self._name,
            state=self._state(),
        )
        return msgspec.structs.replace(known, **self._overrides)

    async def whitelist(self) -> PairList:
        pairs = self._source.whitelist(self._name)
        if pairs is None:
            raise BotError(f"bot {self._name} has not published a whitelist yet")
        return PairList(whitelist=list(pairs), length=len(pairs))

    async def health(self) -> Health:
        last = self._source.last_message_ms(self._name)
        if last is None:
            return Health()
        at = datetime.fromtimestamp(last / 1000, UTC).isoformat().replace("+00:00", "Z")
        return Health(last_process=at, last_process_ts=last // 1000)

    async def plot_config(self, *, strategy: str | None = None) -> dict[str, Any]:
        return {}

    async def pair_candles(
        self, *, pair: str, timeframe: str, limit: int | None = None, columns: list[str] | None = None
    ) -> PairHistory:
        """From the frames that the bot published; without one the empty answer of freqtrade.

        The rows are made in slices of about a millisecond with a turn of the loop between (Turns), so that no fill waits.
        """
        candles = self._source.candles(self._name, pair, timeframe)
        try:
            history = History(
                None if candles is None else candles.rows,
                strategy=self._overrides.get("strategy") or "",
                pair=pair,
                timeframe=timeframe,
                analyzed_ms=None if candles is None else candles.la_ms,
                limit=limit,
                columns=columns,
            )
        except BadFrame as error:
            raise BotFault(str(error)) from None
        pieces: list[bytes] = []
        making = history.pieces()
        await self._turns.next()
        while (piece := next(making, None)) is not None:
            pieces.append(piece)
            await self._turns.next()
        return history.answer(b"".join(pieces))

    def _state(self) -> str:
        said = self._source.state(self._name)
        if said in _STATES:
            return said
        # `status` also carries other texts; a bot that publishes at all is running.
        heard = self._source.last_message_ms(self._name) is not None
        return "running" if heard and said not in _ENDED else "stopped"


def nominal_ms(timeframe: str | None) -> int:
    """How long a candle lasts by its name, 0 where that says nothing."""
    try:
        return timeframe_ms(timeframe) if timeframe else 0
    except BadFrame:
        return 0
