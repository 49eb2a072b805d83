"""The rule that a name is given once in its list and that a token stands for one role."""

from __future__ import annotations

from collections.abc import Sequence

from hub.config.entries import BotToken, PublisherEntry, Upstream
from hub.config.secret import Secret
from hub.config.sections import Config, HubSection, client_tokens
from hub.protocol.errors import ConfigError

__all__ = ["check_names", "check_tokens"]


def check_names(hub: HubSection) -> None:
    """Raises ConfigError for the first name that its list gives again."""
    named: dict[str, Sequence[BotToken | PublisherEntry | Upstream]] = {
        "tokens": hub.tokens,
        "publishers": hub.publishers,
        "upstreams": hub.upstreams,
    }
    for key, entries in named.items():
        seen: set[str] = set()
        for i, entry in enumerate(entries):
            if entry.name in seen:
                raise ConfigError(
                    f"hub.{key}[{i}].name", f'expected each name once, got "{entry.name}" again'
                )
            seen.add(entry.name)


def check_tokens(config: Config) -> None:
    """Raises ConfigError for the first token that has another role already. An empty one has none."""
    seen: dict[Secret, str] = {}
    for key, token in client_tokens(config):
        other = seen.setdefault(token, key)
        if other != key and not (
            len(token) == 0 or (key.startswith("api_server.") and other.startswith("api_server."))
        ):
            raise ConfigError(key, f"expected a token of its own, got that of {other}")
