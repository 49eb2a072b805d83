"""Configurations and credentials for the tests of hub.auth and hub.rest."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import msgspec

from hub.auth.authenticator import Authenticator
from hub.config import ApiServer, BotToken, Config, HubSection, PublisherEntry, Secret

NOW_MS = 1_795_000_000_500
"""The clock of these tests, ms since 1970 UTC."""

READER = "reader-token-0123456789abcdefghijklmn"
SECOND_READER = "second-token-0123456789abcdefghijklmn"
ALPHA = "alpha-token-0123456789abcdefghijklmno"
PUBLISHER = "publisher-token-0123456789abcdefghijk"
ANY_PUBLISHER = "any-publisher-token-0123456789abcdefg"
JWT_KEY = "jwt-key-0123456789abcdefghijklmnopqrs"
USER, PASSWORD = "Freqtrader", "pässword-of-tests"


def config(*, default_bot: str = "main", server: dict[str, Any] | None = None, **hub: Any) -> Config:
    """A configuration with two ws_tokens, a mapped token and two publishers."""
    api_server = ApiServer(
        username=USER,
        password=Secret(PASSWORD),
        jwt_secret_key=Secret(JWT_KEY),
        ws_token=(Secret(READER), Secret(SECOND_READER)),
    )
    section = HubSection(
        default_bot=default_bot,
        tokens=(BotToken(name="a", token=Secret(ALPHA), bot="alpha"),),
        publishers=(
            PublisherEntry(name="pub", token=Secret(PUBLISHER), bots=frozenset({"alpha"})),
            PublisherEntry(name="anypub", token=Secret(ANY_PUBLISHER), bots=frozenset({"*"})),
        ),
    )
    return Config(
        api_server=msgspec.structs.replace(api_server, **(server or {})),
        hub=msgspec.structs.replace(section, **hub),
    )


def authenticator(*, monotonic: Callable[[], float] = lambda: 0.0, **keys: Any) -> Authenticator:
    """An authenticator whose clocks stand, at NOW_MS and 0 s."""
    return Authenticator(config(**keys), lambda: NOW_MS, monotonic)


def basic(user: str = USER, password: str = PASSWORD, charset: str = "utf-8") -> str:
    """The value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode(charset)).decode()
