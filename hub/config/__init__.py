"""The configuration: freqtrade's `api_server` section, the hub's own section, and the environment over them.

A value is looked up in the environment under `TRADEWIRE__SECTION__KEY`, then under `FREQTRADE__API_SERVER__KEY`, then in
the file; `..._FILE` names a file that holds the value. The file is JSON in which comments and trailing commas are allowed,
as in freqtrade, and may be a whole freqtrade configuration: sections that are not the hub's are not looked at.

Each field is annotated with its kind, which checks a value of the file, reads the text of a variable and says what was
expected; a new key is one line in a Struct. Values of secret kinds are wrapped in `Secret` as soon as they are checked, and
no text made here contains one.

Source: freqtrade 2026.9 `api_server` (names, meaning, environment variables); the rest is this hub's.
"""

from __future__ import annotations

from hub.config.kinds import (
    ApiServer,
    BotToken,
    Config,
    HubSection,
    Limits,
    Memory,
    PublisherEntry,
    Secret,
    Slow,
    Upstream,
    describe,
    is_loopback,
    load,
)

__all__ = [
    "ApiServer",
    "BotToken",
    "Config",
    "HubSection",
    "Limits",
    "Memory",
    "PublisherEntry",
    "Secret",
    "Slow",
    "Upstream",
    "describe",
    "is_loopback",
    "load",
]
