"""The configuration: freqtrade's `api_server` section, the hub's own section, and the environment over them.

A value is looked up in the environment under `TRADEWIRE__SECTION__KEY`, then under `FREQTRADE__API_SERVER__KEY`, then in
the file; `..._FILE` names a file that holds the value. The file is JSON in which comments and trailing commas are allowed,
as in freqtrade, and may be a whole freqtrade configuration: sections that are not the hub's are not looked at.

Each field is annotated with its kind, which checks a value of the file, reads the text of a variable and says what was
expected; a new key is one line in a Struct. Values of secret kinds are wrapped in `Secret` as soon as they are checked, and
no text made here contains one.

The modules, each importing only those before it: `wording`, `kinds`, `secret`, `structs`, `entries`, `show_configs`,
`sections`, `document`, `environment`, `credentials`, `directories`, `uniqueness`, `strength`, `loading`, `description`.

Source: freqtrade 2026.9 `api_server` (names, meaning, environment variables); the rest is this hub's.
"""

from __future__ import annotations

from hub.config.description import describe
from hub.config.entries import BotToken, PublisherEntry, Upstream
from hub.config.loading import load
from hub.config.secret import Secret
from hub.config.sections import (
    ApiServer,
    Compression,
    Config,
    HubSection,
    Ledger,
    Limits,
    Memory,
    Slow,
    Throttle,
)
from hub.config.strength import check_open, is_guessable, is_loopback

__all__ = [
    "ApiServer",
    "Compression",
    "BotToken",
    "Config",
    "HubSection",
    "Ledger",
    "Limits",
    "Memory",
    "PublisherEntry",
    "Secret",
    "Slow",
    "Throttle",
    "Upstream",
    "check_open",
    "describe",
    "is_guessable",
    "is_loopback",
    "load",
]
