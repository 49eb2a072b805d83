"""Loading: the file, the variables over it, the credentials nobody configured, and the rules over the whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from hub.config.credentials import CREDENTIALS, kept_credentials
from hub.config.directories import ledger_directory, state_directory, ui_directory
from hub.config.document import read, sections
from hub.config.environment import overlay
from hub.config.sections import ApiServer, Config, HubSection
from hub.config.strength import check_strength
from hub.config.structs import struct
from hub.config.uniqueness import check_names, check_tokens

__all__ = ["load"]


def load(
    source: Path | Mapping[str, Any] | None, env: Mapping[str, str], *, store_secrets: bool = True
) -> Config:
    """The configuration of `source` (a file, or what one would hold) with the variables of `env` over it.

    Without a source everything has its default. Credentials that are given nowhere come from `secrets.json` in the state
    directory, which is made on first use: a directory for the user only, a file for the user only. With `store_secrets`
    false a missing one is not made (the secrets are then good for this Config alone), so that a check changes nothing.

    Raises:
        ConfigError: one line that names the key or variable and what was expected, and no secret.
    """
    warnings: list[str] = []
    path = source if isinstance(source, Path) else None
    raw = sections(_document(source), warnings.append)
    overlay(raw, env, warnings.append)
    hub = struct(HubSection, "hub", raw["hub"], warnings.append)
    state_dir = state_directory(hub.state_dir, env)
    ledger_dir = ledger_directory(hub.ledger.path, state_dir, env)
    ui_dir = ui_directory(hub.ui_dir, env)
    generated = _complete(raw["api_server"], state_dir, store_secrets)
    api_server = struct(ApiServer, "api_server", raw["api_server"], warnings.append)
    config = Config(
        api_server=api_server,
        hub=hub,
        path=path,
        state_dir=state_dir,
        ledger_dir=ledger_dir,
        ui_dir=ui_dir,
        generated=generated,
    )
    check_names(hub)
    check_tokens(config)
    check_strength(config, warnings.append)
    return msgspec.structs.replace(config, warnings=tuple(warnings))


def _document(source: Path | Mapping[str, Any] | None) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        return source
    return read(source) if isinstance(source, Path) else {}


def _complete(api_server: dict[str, Any], state_dir: Path, store: bool) -> tuple[str, ...]:
    """Fills in the credentials that are given nowhere, and tells which ones."""
    missing = tuple(key for key in CREDENTIALS if key not in api_server)
    if missing:
        kept = kept_credentials(state_dir, store=store)
        api_server.update({key: kept[key] for key in missing})
    return missing
