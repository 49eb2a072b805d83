"""The credentials that nobody configured: made once and kept in the state directory."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from hub.config.document import MAX_FILE_BYTES
from hub.config.wording import reason
from hub.protocol.errors import ConfigError

__all__ = ["CREDENTIALS", "kept_credentials"]

CREDENTIALS = ("username", "password", "jwt_secret_key", "ws_token")
"""The keys of `api_server` that are generated when they are given nowhere."""


def kept_credentials(state_dir: Path, *, store: bool) -> dict[str, str]:
    """The credentials of `secrets.json` in `state_dir`; new ones without it, kept there when `store`.

    Raises:
        ConfigError: the file or its directory cannot be used, others may read it, or it holds something else.
    """
    path = state_dir / "secrets.json"
    try:
        kept = _read_kept(path)
        if kept is None:
            kept = _new()
            if store and not _store(path, kept):
                # Another process was faster; its secrets are the ones.
                kept = _read_kept(path) or kept
    except (OSError, UnicodeError) as error:
        raise ConfigError("", f"{_shown(path)}: cannot be used: {reason(error)}") from None
    return kept


def _shown(path: Path) -> str:
    # A lone surrogate in the name cannot be printed.
    return str(path).encode(errors="replace").decode()


def _new() -> dict[str, str]:
    made = {key: secrets.token_urlsafe(32) for key in CREDENTIALS}
    return {**made, "username": "tradewire"}


def _read_kept(path: Path) -> dict[str, str] | None:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_FILE_BYTES)
    except FileNotFoundError:
        return None
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError("", f"{path}: others may read it; expected mode 0600, got {stat.S_IMODE(mode):04o}")
    try:
        kept = json.loads(data)
    except ValueError:
        kept = None
    if not isinstance(kept, dict) or not all(isinstance(kept.get(k), str) and kept[k] for k in CREDENTIALS):
        raise ConfigError("", f"{path}: expected {', '.join(CREDENTIALS)}; remove it to have a new one made")
    return kept


def _store(path: Path, kept: Mapping[str, str]) -> bool:
    """Whether `path` was made here. It appears whole or not at all, and never in place of another."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(kept, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True
