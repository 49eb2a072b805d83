"""The entries of the hub's lists: a token of one bot, a publisher, an upstream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from hub.config.kinds import (
    BOTS,
    DEADLINE_S,
    FLAG,
    HOST,
    NAME,
    OPTIONAL_RECONCILE,
    OPTIONAL_USERNAME,
    PORT,
    Kind,
    Warn,
    read_json,
)
from hub.config.secret import FULL_SECRET, MIN_SECRET_BYTES, OPTIONAL_SECRET, Secret
from hub.config.structs import items, struct
from hub.protocol.errors import ConfigError

__all__ = ["PUBLISHERS", "TOKENS", "UPSTREAMS", "BotToken", "PublisherEntry", "Upstream"]


class BotToken(msgspec.Struct, frozen=True, kw_only=True):
    """A ws_token that sees one bot only."""

    token: Annotated[Secret, FULL_SECRET]
    bot: Annotated[str, NAME]
    name: Annotated[str, NAME]


class PublisherEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A credential that may publish as `bots` ({"*"}: as any). `name` identifies the publisher for ever (its mids)."""

    name: Annotated[str, NAME]
    token: Annotated[Secret, FULL_SECRET]
    bots: Annotated[frozenset[str], BOTS]


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """An unmodified freqtrade producer that the relay consumes; `name` becomes its bot's name here.

    With `username` and `password`, those of its REST, requests for the bot are passed on to it; it has `rest_timeout_s` seconds to
    answer each. `reconcile` is what becomes of fills that its own trades have and the ledger misses: "off", "report", "publish"; None
    as `reconciles` tells.
    """

    name: Annotated[str, NAME]
    host: Annotated[str, HOST]
    ws_token: Annotated[Secret, FULL_SECRET]
    port: Annotated[int, PORT] = 8080
    secure: Annotated[bool, FLAG] = False
    username: Annotated[str | None, OPTIONAL_USERNAME] = None
    password: Annotated[Secret | None, OPTIONAL_SECRET] = None
    rest_timeout_s: Annotated[float, DEADLINE_S] = 10.0
    reconcile: Annotated[str | None, OPTIONAL_RECONCILE] = None

    @property
    def reconciles(self) -> str:
        """`reconcile` as it comes out: without a word "report" where its REST may be used, else "off"."""
        if self.reconcile is not None:
            return self.reconcile
        return "off" if self.username is None else "report"


def _accept_tokens(name: str, value: Any, warn: Warn) -> tuple[BotToken, ...]:
    return tuple(
        _bot_token(f"{name}[{i}]", i, entry, warn) for i, entry in enumerate(_token_entries(name, value))
    )


def _token_entries(name: str, value: Any) -> list[Any]:
    if isinstance(value, Mapping) and not {"token", "bot"} <= set(value):
        # A key of this map is a token, so an entry is named by its place.
        for i, (token, bot) in enumerate(value.items()):
            _refuse_reversed(f"{name}[{i}]", token, bot)
        return [{"token": token, "bot": bot} for token, bot in value.items()]
    if isinstance(value, list | tuple):
        return list(value)
    raise ConfigError(name, "expected a map of ws_token to bot, or a list of {name, token, bot}")


def _bot_token(name: str, place: int, entry: Any, warn: Warn) -> BotToken:
    if isinstance(entry, Mapping):
        _refuse_stray_token(name, entry)
        entry = {"name": f"token-{place + 1}", **entry}
    return struct(BotToken, name, entry, warn)


def _refuse_reversed(name: str, token: Any, bot: Any) -> None:
    if isinstance(token, str) and isinstance(bot, str) and len(token) < MIN_SECRET_BYTES <= len(bot):
        raise ConfigError(name, "expected ws_token: bot; this looks like bot: ws_token")


def _refuse_stray_token(name: str, entry: Mapping[str, Any]) -> None:
    # An unknown key is usually named in a warning; here it may be a token.
    if any(key not in ("name", "token", "bot") for key in entry):
        raise ConfigError(name, "expected the keys name, token and bot only")


def _accept_upstreams(name: str, value: Any, warn: Warn) -> tuple[Upstream, ...]:
    upstreams: tuple[Upstream, ...] = _UPSTREAMS.accept(name, value, warn)
    for i, upstream in enumerate(upstreams):
        if upstream.username is None and upstream.password is not None:
            raise ConfigError(f"{name}[{i}].username", "expected a value beside password, got none")
        if upstream.username is not None and upstream.password is None:
            raise ConfigError(f"{name}[{i}].password", "expected a value beside username, got none")
        if upstream.username is None and upstream.reconciles != "off":
            raise ConfigError(
                f"{name}[{i}].reconcile", "expected username and password beside it: it asks the bot's REST"
            )
    return upstreams


TOKENS = Kind(_accept_tokens, read_json)
PUBLISHERS = items(PublisherEntry)
_UPSTREAMS = items(Upstream)
UPSTREAMS = Kind(_accept_upstreams, _UPSTREAMS.read)
