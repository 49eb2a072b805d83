"""Which bot answers a REST request, and the adapter for bots of which the hub only knows what they published."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from hub.bots.freqtrade import FreqtradeBot
from hub.frames.timeframe import timeframe_ms
from hub.protocol.answers import Health, PairList, ShowConfig, Version
from hub.protocol.botapi import BotAPI, BotError, UnknownBot
from hub.protocol.errors import BadFrame

__all__ = ["API_VERSION", "BotRegistry", "BotSource", "HubBot"]

API_VERSION = 2.21
"""The REST version told to clients. FreqUI turns features on by it (a number compare): from 2.20 on it opens the websocket, at
2.21 it takes new_candle, both of which the hub serves; everything above belongs to routes that the hub does not have yet."""

_STATES = frozenset({"running", "paused", "stopped", "reload_config"})
_ENDED = frozenset({"process died"})


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


class HubBot:
    """BotAPI from what a bot published. `overrides` are fields of show_config that its owner stated (`hub.bots`).

    Nothing is guessed: what no message tells is null, empty or off. Two fields cannot be null and so state the harmless case
    until the owner says otherwise: `dry_run` true and `runmode` "dry_run" (with another one FreqUI never refreshes).
    """

    def __init__(
        self, name: str, source: BotSource, *, version: str, overrides: Mapping[str, Any] | None = None
    ) -> None:
        self._name = name
        self._source = source
        self._version = version
        self._overrides = dict(overrides or {})

    async def version(self) -> Version:
        return Version(version=self._version)

    async def show_config(self) -> ShowConfig:
        timeframe = self._overrides.get("timeframe", self._source.timeframe(self._name))
        known = ShowConfig(
            version=self._version,
            api_version=API_VERSION,
            timeframe=timeframe,
            timeframe_ms=_nominal_ms(timeframe),
            timeframe_min=_nominal_ms(timeframe) // 60_000,
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

    def _state(self) -> str:
        said = self._source.state(self._name)
        if said in _STATES:
            return said
        # `status` also carries other texts; a bot that publishes at all is running.
        heard = self._source.last_message_ms(self._name) is not None
        return "running" if heard and said not in _ENDED else "stopped"


class BotRegistry:
    """Finds the BotAPI of a name: one that was registered, else a HubBot for a bot that the source knows.

    The default bot always answers, also before its first message, so that a client can log in and wait. A freqtrade bot to which
    requests are passed on as they are (`pass_to`) is found by `passed`.
    """

    def __init__(
        self,
        source: BotSource,
        *,
        default_bot: str,
        version: str,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._source = source
        self._version = version
        self._overrides = overrides or {}
        self._registered: dict[str, BotAPI] = {}
        self._passed: dict[str, FreqtradeBot] = {}
        self.default_bot = default_bot

    def register(self, name: str, bot: BotAPI) -> None:
        """Let `bot` answer for `name` in place of what the hub knows of it."""
        self._registered[name] = bot

    def remove(self, name: str) -> None:
        """Take back `register`; nothing happens if there is none."""
        self._registered.pop(name, None)

    def pass_to(self, bot: FreqtradeBot) -> None:
        """Let requests for its name be passed on to `bot`."""
        self._passed[bot.name] = bot

    def passed(self, name: str | None) -> FreqtradeBot | None:
        """The bot to which requests for this name, or for the default bot, are passed on; None when the hub answers itself."""
        return self._passed.get(self.default_bot if name is None else name)

    def names(self) -> list[str]:
        """All names that `bot` or `passed` answers, sorted."""
        known = {self.default_bot, *self._registered, *self._passed, *self._overrides, *self._source.bots()}
        return sorted(known)

    def knows(self, name: str) -> bool:
        """Whether it is one of `names`."""
        return (
            name == self.default_bot
            or name in self._registered
            or name in self._passed
            or name in self._overrides
            or name in self._source.bots()
        )

    def bot(self, name: str | None) -> BotAPI | HubBot:
        """The bot of this name, or the default bot for None.

        Raises:
            UnknownBot: nobody published, registered or configured this name.
        """
        name = self.default_bot if name is None else name
        registered = self._registered.get(name)
        if registered is not None:
            return registered
        if not self.knows(name):
            raise UnknownBot(f"bot {name}: unknown")
        return HubBot(name, self._source, version=self._version, overrides=self._overrides.get(name))


def _nominal_ms(timeframe: str | None) -> int:
    try:
        return timeframe_ms(timeframe) if timeframe else 0
    except BadFrame:
        return 0
