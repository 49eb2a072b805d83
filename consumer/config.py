"""The consumer's configuration: freqtrade's `external_message_consumer` section and what tradewire adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

__all__ = ["ConsumerConfig", "ProducerConfig", "load"]


class ProducerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One producer: a hub, or a freqtrade bot."""

    name: str
    host: str
    ws_token: str
    port: int = 8080
    secure: bool = False
    protocol: Literal["auto", "v2", "freqtrade"] = "auto"
    path: str = "/api/v1/message/ws"
    ca_file: str | None = None
    bots: Literal["*"] | list[str] = "*"
    topics: Literal["*"] | list[str] = "*"
    columns: Literal["*"] | list[str] = "*"
    encoding: Literal["msgpack", "json"] = "msgpack"


class ConsumerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The section as a whole. `raw` is the whole file, other sections included, for the bot."""

    enabled: bool = False
    producers: tuple[ProducerConfig, ...] = ()
    wait_timeout: float = 30
    ping_timeout: float = 10
    sleep_time: float = 10
    remove_entry_exit_signals: bool = False
    initial_candle_limit: int | None = None
    message_size_limit: float = 8
    raw: Mapping[str, Any] = {}


def load(path: Path | str, env: Mapping[str, str] | None = None) -> ConsumerConfig:
    """The configuration of a file, environment variables over it."""
    raise NotImplementedError
