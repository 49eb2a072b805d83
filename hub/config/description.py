"""The settings in force as text, with the length of a secret in its place: what `check-config` prints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from hub.config.secret import Secret
from hub.config.sections import Config

__all__ = ["describe"]


def describe(config: Config) -> str:
    """The effective settings, one `key = value` a line; of a secret only that it is set and its length."""
    lines = [f"file = {config.path or 'none'}", f"state directory = {config.state_dir or 'none'}"]
    if config.hub.ledger.kind == "sqlite":
        lines.append(f"ledger directory = {config.ledger_dir or 'none'}")
    lines += _described("api_server", config.api_server, config.generated)
    lines += _described("hub", config.hub, ())
    lines.append(f"bot of clients that name none = {config.default_bot}")
    return "\n".join(lines)


def _described(name: str, value: Any, generated: tuple[str, ...]) -> Iterator[str]:
    if isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            note = " (generated)" if field in generated else ""
            for line in _described(f"{name}.{field}", getattr(value, field), ()):
                yield line + note
    elif isinstance(value, tuple) and value and not isinstance(value[0], str):
        for i, item in enumerate(value):
            yield from _described(f"{name}[{i}]", item, ())
    elif isinstance(value, Secret):
        yield f"{name} = {f'set ({len(value)} bytes)' if len(value) else 'empty'}"
    else:
        plain = sorted(value) if isinstance(value, frozenset) else value
        yield f"{name} = {json.dumps(plain, default=str)}"
