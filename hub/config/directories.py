"""The directories that a configuration names: where state and the ledger are kept, and the build of a UI."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from hub.config.wording import expected, reason
from hub.protocol.errors import ConfigError

__all__ = ["ledger_directory", "state_directory", "ui_directory"]


def state_directory(configured: str | None, env: Mapping[str, str]) -> Path:
    """Where the hub keeps what must outlive it: as configured, else by the XDG base directory specification."""
    if configured is not None:
        return _expanded(configured, env)
    state_home = env.get("XDG_STATE_HOME", "")
    # The XDG base directory specification: a relative path is to be ignored.
    base = Path(state_home) if state_home.startswith("/") else _home(env) / ".local" / "state"
    return base / "tradewire"


def ledger_directory(configured: str | None, state_dir: Path, env: Mapping[str, str]) -> Path:
    """Where the ledger is on disk: as configured, else `ledger` in the state directory."""
    return state_dir / "ledger" if configured is None else _expanded(configured, env)


def ui_directory(configured: str | None, env: Mapping[str, str]) -> Path | None:
    """The directory of `hub.ui_dir`, None when none is configured.

    Raises:
        ConfigError: it is no directory with an index.html that can be read.
    """
    if configured is None:
        return None
    directory = _expanded(configured, env)
    index = directory / "index.html"
    try:
        # The hub follows no link out of the directory.
        inside = index.resolve().is_relative_to(directory.resolve())
        readable = inside and index.is_file() and os.access(index, os.R_OK)
    except (OSError, ValueError) as error:
        raise ConfigError("hub.ui_dir", f"cannot be used: {reason(error)}") from None
    if not readable:
        raise expected("hub.ui_dir", "a directory that holds a readable index.html", configured)
    return directory


def _expanded(configured: str, env: Mapping[str, str]) -> Path:
    if configured == "~" or configured.startswith("~/"):
        return _home(env) / configured[2:]
    return Path(configured)


def _home(env: Mapping[str, str]) -> Path:
    return Path(env["HOME"]) if env.get("HOME") else Path.home()
