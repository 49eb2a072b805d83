"""Which bot answers a REST request: the ports by name, and the list of all bots."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from hub.bots.freqtrade import FreqtradeBot
from hub.bots.hub_bot import BotSource, HubBot, Turns, nominal_ms
from hub.bots.ports import BotPort, InProcess, Requested, Requester
from hub.protocol.botapi import UnknownBot

__all__ = ["BotKind", "BotListing", "BotRegistry"]

_STALE_CANDLES = 2
_STALE_MARGIN_MS = 60_000


class BotKind(StrEnum):
    """How the hub asks a bot."""

    IN_PROCESS = "in_process"
    ATTACHED = "attached"
    FREQTRADE = "freqtrade"
    MESSAGES = "messages"


class BotListing(msgspec.Struct, frozen=True, kw_only=True):
    """A bot as `GET /api/v1/bots` lists it.

    `kind`: how it answers REST: `in_process`, `attached` (over its own websocket), `freqtrade` (over its own REST), or `messages`: not
    at all, the hub answers what it published. `default` is the bot of `/api/v1` itself. `online`: whether the hub reaches it, null
    where nobody can know. `state` is what the bot last said (running, paused, stopped, reload_config), null before. `timeframe` is of
    its frames, null before the first. `last_message_ts`: when its last message came, ms since 1970 UTC, null before the first.
    `stale`: whether that is longer ago than two of its candles and a minute; null without a message or a timeframe.
    """

    name: str
    kind: BotKind
    default: bool
    online: bool | None
    state: str | None
    timeframe: str | None
    last_message_ts: int | None
    stale: bool | None


class BotRegistry:
    """Finds the port of a name, in this order: registered in process, attached now, a freqtrade bot with REST, known by its messages.

    The default bot always answers, also before its first message, so that a client can log in and wait. A freqtrade bot to which
    requests are passed on as they are (`pass_to`) is found by `passed` too.

    Args:
        now_ms: ms since 1970 UTC.
        in_process: the bots that the embedding program registered; looked at anew for each request, other threads may change it.
        attached: the names of the bots that are attached now; attach: one of them.
        overrides: fields of show_config by bot, for bots known by their messages.
    """

    def __init__(
        self,
        source: BotSource,
        *,
        default_bot: str,
        version: str,
        now_ms: Callable[[], int],
        in_process: Mapping[str, InProcess] | None = None,
        attached: Callable[[], Collection[str]] = tuple,
        attach: Callable[[str], Requester] | None = None,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._source = source
        self._version = version
        self._now_ms = now_ms
        self._in_process = in_process if in_process is not None else {}
        self._attached = attached
        self._attach = attach
        self._freqtrade: dict[str, FreqtradeBot] = {}
        self._overrides = overrides or {}
        self._hub_bots: dict[str, HubBot] = {}
        self._turns = Turns()
        self.default_bot = default_bot

    def pass_to(self, bot: FreqtradeBot) -> None:
        """Let requests for its name be passed on to `bot`, a freqtrade bot with REST."""
        self._freqtrade[bot.name] = bot

    def passed(self, name: str | None) -> FreqtradeBot | None:
        """The bot to which requests for this name, or for the default bot, are passed on; None when another port answers."""
        name = self.default_bot if name is None else name
        if name in self._in_process or name in self._attached():
            return None
        return self._freqtrade.get(name)

    def names(self) -> list[str]:
        """All names that `port` answers, sorted."""
        # A copy in one step: other threads register bots.
        in_process = list(self._in_process)
        elsewhere = {*self._attached(), *self._freqtrade, *self._overrides, *self._source.bots()}
        return sorted({self.default_bot, *in_process, *elsewhere})

    def knows(self, name: str) -> bool:
        """Whether it is one of `names`."""
        return (
            name == self.default_bot
            or name in self._in_process
            or name in self._freqtrade
            or name in self._overrides
            or name in self._source.bots()
            or name in self._attached()
        )

    def port(self, name: str | None) -> BotPort:
        """The port of this name, or of the default bot for None.

        Raises:
            UnknownBot: nobody published, attached, registered or configured this name.
        """
        return self._resolve(self.default_bot if name is None else name)[1]

    def list(self) -> list[BotListing]:
        """Every bot, sorted by name."""
        listings = []
        for name in self.names():
            # Another thread may take a bot away meanwhile.
            with contextlib.suppress(UnknownBot):
                listings.append(self._listing(name))
        return listings

    def _resolve(self, name: str) -> tuple[BotKind, BotPort]:
        if (in_process := self._in_process.get(name)) is not None:
            return BotKind.IN_PROCESS, in_process
        if self._attach is not None and name in self._attached():
            return BotKind.ATTACHED, Requested(self._attach(name))
        if (freqtrade := self._freqtrade.get(name)) is not None:
            return BotKind.FREQTRADE, Requested(freqtrade)
        if name not in self._hub_bots:
            self._hub_bots[name] = self._hub_bot(name)
        return BotKind.MESSAGES, self._hub_bots[name]

    def _hub_bot(self, name: str) -> HubBot:
        if not self.knows(name):
            raise UnknownBot(f"bot {name}: unknown")
        return HubBot(
            name,
            self._source,
            version=self._version,
            overrides=self._overrides.get(name),
            turns=self._turns,
        )

    def _listing(self, name: str) -> BotListing:
        source, (kind, _port) = self._source, self._resolve(name)
        here = kind in (BotKind.IN_PROCESS, BotKind.ATTACHED)
        return BotListing(
            name=name,
            kind=kind,
            default=name == self.default_bot,
            online=True
            if here
            else self._freqtrade_online(name)
            if kind is BotKind.FREQTRADE
            else source.online(name),
            state=source.state(name),
            timeframe=source.timeframe(name),
            last_message_ts=source.last_message_ms(name),
            stale=self._stale(name),
        )

    def _freqtrade_online(self, name: str) -> bool | None:
        """Whether its REST answered the last time; before the first request, whether its websocket is up."""
        answered = self._freqtrade[name].state().online
        return self._source.online(name) if answered is None else answered

    def _stale(self, name: str) -> bool | None:
        last, candle_ms = self._source.last_message_ms(name), nominal_ms(self._source.timeframe(name))
        if last is None or not candle_ms:
            return None
        return self._now_ms() - last > _STALE_CANDLES * candle_ms + _STALE_MARGIN_MS
