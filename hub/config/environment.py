"""The environment over the file: which key a variable is, and the value that it gives it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hub.config.kinds import Kind, Warn
from hub.config.sections import SECTIONS
from hub.config.structs import fields
from hub.config.wording import nearest, reason, shape
from hub.protocol.errors import ConfigError

__all__ = ["overlay"]

_OURS, _FREQTRADES = "TRADEWIRE__", "FREQTRADE__"


class _Place(NamedTuple):
    """Where the value of a variable goes: the names from the section to the field, and the field's kind."""

    path: list[str]
    kind: Kind


def overlay(raw: dict[str, dict[str, Any]], env: Mapping[str, str], warn: Warn) -> None:
    """Puts the variables of `env` into the sections `raw`, ours over freqtrade's.

    Raises:
        ConfigError: names the variable and what was expected.
    """
    for prefix in (_FREQTRADES, _OURS):
        for variable in sorted(env):
            if variable.startswith(prefix):
                _apply(raw, prefix, variable, env, warn)


def _apply(
    raw: dict[str, dict[str, Any]], prefix: str, variable: str, env: Mapping[str, str], warn: Warn
) -> None:
    names = variable.removeprefix(prefix).lower().split("__")
    if names[0] != "api_server" and (prefix == _FREQTRADES or names[0] != "hub"):
        close = nearest(names[0], SECTIONS, cutoff=0.75)
        if close and prefix == _OURS:
            warn(f"{variable}: unknown section, ignored; did you mean {prefix}{close.upper()}?")
        return
    place = _place(names)
    of_file = _place([*names[:-1], names[-1].removesuffix("_file")]) if names[-1].endswith("_file") else None
    if place is not None:
        _put(raw, place, variable, env[variable])
    elif of_file is not None:
        _put(raw, of_file, variable, _text_of_file(variable, env))
    else:
        warn(f"{variable}: unknown variable, ignored")


def _place(names: list[str]) -> _Place | None:
    cls = SECTIONS[names[0]]
    path = [names[0]]
    for i, name in enumerate(names[1:], start=2):
        field = next((f for f in fields(cls) if f.lower() == name), None)
        if field is None:
            return None
        path.append(field)
        kind = fields(cls)[field]
        if isinstance(kind, Kind):
            return _Place(path, kind) if i == len(names) else None
        cls = kind
    return None


def _text_of_file(variable: str, env: Mapping[str, str]) -> str:
    plain = variable[: -len("_FILE")]
    if plain in env:
        raise ConfigError(variable, f"expected this or {plain}, got both")
    path = env[variable]
    try:
        text = Path(path).read_bytes().decode()
    except UnicodeDecodeError:
        raise ConfigError(variable, f"expected a file of UTF-8 text, got {path}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(variable, f"cannot read {path}: {reason(error)}") from None
    return text.removesuffix("\n").removesuffix("\r")


def _put(raw: dict[str, Any], place: _Place, variable: str, text: str) -> None:
    value = place.kind.read(variable, text)
    # Checked here too, so that the error names the variable; its warnings come with the whole.
    place.kind.accept(variable, value, lambda _line: None)
    *sections, field = place.path
    for i, name in enumerate(sections, start=1):
        raw = raw.setdefault(name, {})
        if not isinstance(raw, dict):
            raise ConfigError(".".join(sections[:i]), f"expected a map, got {shape(raw)}")
    raw[field] = value
