"""What a bot shows as its configuration: the fields of freqtrade's `show_config` that the user states for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from hub.config.kinds import Kind, Warn, checked_name, read_json
from hub.config.wording import did_you_mean, shape
from hub.protocol.answers import ShowConfig
from hub.protocol.errors import ConfigError

__all__ = ["SHOW_CONFIGS"]


def _accept_show_configs(name: str, value: Any, warn: Warn) -> dict[str, dict[str, Any]]:
    if not isinstance(value, Mapping):
        raise ConfigError(name, f"expected a map of bots, got {shape(value)}")
    return {
        checked_name("bot", name, bot): _show_config(f"{name}.{bot}", raw, warn) for bot, raw in value.items()
    }


def _show_config(name: str, raw: Any, warn: Warn) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise ConfigError(name, f"expected a map of show_config's fields, got {shape(raw)}")
    known = {field.name: field.type for field in msgspec.structs.fields(ShowConfig)}
    stated = {}
    for key, value in raw.items():
        if key not in known:
            warn(f"{name}.{key}: unknown key, ignored{did_you_mean(key, known)}")
            continue
        stated[key] = _converted(f"{name}.{key}", value, known[key])
    return stated


def _converted(name: str, value: Any, into: Any) -> Any:
    try:
        return msgspec.convert(value, into)
    except msgspec.ValidationError as error:
        raise ConfigError(name, f"{str(error)[:1].lower()}{str(error)[1:]}") from None


SHOW_CONFIGS = Kind(_accept_show_configs, read_json)
