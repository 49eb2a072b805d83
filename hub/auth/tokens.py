"""Every static token of the hub and the principal that it stands for."""

from __future__ import annotations

import hmac

from hub.config import BotToken, Config, PublisherEntry, Secret, is_guessable
from hub.protocol.errors import ConfigError
from hub.protocol.principal import EVERY_BOT, Principal

__all__ = ["TokenTable"]


class TokenTable:
    """Finds the principal of a token.

    A plain `ws_token` reads all bots and cannot publish. A token of `hub.tokens` reads its one bot. A publisher's token
    publishes and reads the publisher's bots. On freqtrade's wire they see: the default bot, that one bot, and for a publisher
    the default bot if it may read it, else its only bot.

    Raises:
        ConfigError: at construction, when one token has two roles.
    """

    def __init__(self, config: Config) -> None:
        self._rows: list[tuple[bytes, Principal]] = []
        self._guessable: set[str] = set()
        for i, plain in enumerate(config.api_server.ws_token):
            if plain not in config.api_server.ws_token[:i]:
                self._add(plain, Principal(name=f"ws_token[{i}]", legacy_bot=config.default_bot))
        for mapped in config.hub.tokens:
            self._add(mapped.token, _of_bot(mapped))
        for publisher in config.hub.publishers:
            self._add(publisher.token, _of_publisher(publisher, config.default_bot))

    def find(self, token: bytes) -> Principal | None:
        """The principal of `token`, or None.

        Every token is compared, each in constant time: how long it takes tells neither which one matched nor how far.
        """
        found = None
        for known, principal in self._rows:
            if hmac.compare_digest(known, token):
                found = principal
        return found if token else None

    def guessable(self, name: str) -> bool:
        """Whether a token of the principal of this name is short or publicly known."""
        return name in self._guessable

    def _add(self, secret: Secret, principal: Principal) -> None:
        token = secret.bytes()
        if not token:
            return
        for known, other in self._rows:
            if hmac.compare_digest(known, token):
                raise ConfigError(
                    "hub", f"expected a token of its own for {principal.name}, got that of {other.name}"
                )
        self._rows.append((token, principal))
        if is_guessable(secret):
            self._guessable.add(principal.name)


def _of_bot(entry: BotToken) -> Principal:
    return Principal(name=f"token:{entry.name}", reads=frozenset({entry.bot}), legacy_bot=entry.bot)


def _of_publisher(entry: PublisherEntry, default_bot: str) -> Principal:
    bots = EVERY_BOT if "*" in entry.bots else entry.bots
    only = next(iter(bots)) if len(bots) == 1 else None
    principal = Principal(name=entry.name, reads=bots, publishes=bots)
    legacy = default_bot if principal.may_read(default_bot) else only
    return Principal(name=entry.name, reads=bots, publishes=bots, legacy_bot=legacy)
