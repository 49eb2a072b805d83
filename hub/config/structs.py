"""A map made into a Struct: each field is annotated with its kind, or is a Struct itself."""

from __future__ import annotations

import functools
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from hub.config.kinds import Kind, Warn, read_json
from hub.config.wording import did_you_mean, shape
from hub.protocol.errors import ConfigError

__all__ = ["fields", "items", "struct"]

S = TypeVar("S", bound=msgspec.Struct)


@functools.cache
def fields(cls: type[msgspec.Struct]) -> dict[str, Kind | type[msgspec.Struct]]:
    """The kind, or the Struct, of each field of `cls`."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {
        name: hint if isinstance(hint, type) else next(m for m in hint.__metadata__ if isinstance(m, Kind))
        for name, hint in hints.items()
    }


def struct(cls: type[S], name: str, raw: Any, warn: Warn) -> S:
    """The `cls` that the map `raw` of the key `name` describes. An unknown key is a warning, a missing one an error.

    Raises:
        ConfigError: names the key and what was expected.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(name, f"expected a map, got {shape(raw)}")
    values = _accepted(fields(cls), name, raw, warn)
    for field in msgspec.structs.fields(cls):
        if field.required and field.name not in values:
            raise ConfigError(f"{name}.{field.name}", "expected a value, got none")
    return cls(**values)


def _accepted(
    known: Mapping[str, Kind | type[msgspec.Struct]], name: str, raw: Mapping[str, Any], warn: Warn
) -> dict[str, Any]:
    values = {}
    for key, value in raw.items():
        kind = known.get(key)
        if kind is None:
            warn(f"{name}.{key}: unknown key, ignored{did_you_mean(key, known)}")
        elif isinstance(kind, Kind):
            values[key] = kind.accept(f"{name}.{key}", value, warn)
        else:
            values[key] = struct(kind, f"{name}.{key}", value, warn)
    return values


def items(cls: type[msgspec.Struct]) -> Kind:
    """Lists of maps, each of which makes a `cls`."""

    def accept(name: str, value: Any, warn: Warn) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise ConfigError(name, f"expected a list, got {shape(value)}")
        return tuple(struct(cls, f"{name}[{i}]", item, warn) for i, item in enumerate(value))

    return Kind(accept, read_json)
