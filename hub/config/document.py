"""The file: JSON with comments and trailing commas, and the sections in it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import json5

from hub.config.kinds import Warn
from hub.config.sections import SECTIONS
from hub.config.wording import nearest, reason, shape
from hub.protocol.errors import ConfigError

__all__ = ["MAX_FILE_BYTES", "read", "sections"]

MAX_FILE_BYTES = 4 * 1024 * 1024


def read(path: Path) -> dict[str, Any]:
    """What the file holds, by section.

    Raises:
        ConfigError: names the file, and the line and column of bad JSON, but quotes nothing of it: it holds secrets.
    """
    data = _data(path)
    try:
        value = _decode(data.decode("utf-8-sig"), path)
    except UnicodeDecodeError as error:
        raise ConfigError("", f"{path}: expected UTF-8, got another byte at position {error.start}") from None
    if not isinstance(value, dict):
        raise ConfigError("", f"{path}: expected a map of sections, got {shape(value)}")
    return value


def _data(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError("", f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise ConfigError("", f"{path}: cannot be read: {reason(error)}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError("", f"{path}: expected at most {MAX_FILE_BYTES} bytes, got {len(data)}")
    return data


def _decode(text: str, path: Path) -> Any:
    try:
        # json5 takes 10 ms a kilobyte; most files are plain JSON.
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return json5.loads(text)
    except RecursionError:
        raise ConfigError("", f"{path}: nested too deeply") from None
    except ValueError as error:
        raise _bad_json(path, str(error)) from None


def _bad_json(path: Path, said: str) -> ConfigError:
    # The parser's own text quotes the file, which holds secrets: only its position is used.
    at = re.match(r"[^:]*:(\d+) .* at column (\d+)", said, re.DOTALL)
    where = f"{path}:{at[1]}:{at[2]}" if at else f"{path}:1:1"
    early = at is None or "end of input" in said
    what = "the file ends too early" if early else "unexpected character"
    return ConfigError("", f"{where}: not valid JSON: {what}")


def sections(document: Mapping[str, Any], warn: Warn) -> dict[str, dict[str, Any]]:
    """A copy of the hub's own sections of `document`, each a map, empty where it is not there.

    Raises:
        ConfigError: a section that is no map.
    """
    for key in document:
        close = nearest(key, SECTIONS, cutoff=0.75)
        if key not in SECTIONS and close:
            warn(f"{key}: unknown section, ignored; did you mean {close}?")
    if "add_config_files" in document and "api_server" not in document:
        warn("add_config_files: not followed; give the file that holds api_server")
    return {name: _section(name, document.get(name, {})) for name in SECTIONS}


def _section(name: str, section: Any) -> dict[str, Any]:
    if not isinstance(section, Mapping):
        raise ConfigError(name, f"expected a map, got {shape(section)}")
    return copy.deepcopy(dict(section))
