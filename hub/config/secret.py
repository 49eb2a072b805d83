"""Secrets: texts that no output shows, and the kinds of values that become one."""

from __future__ import annotations

import hmac
from typing import Any, NoReturn

from hub.config.kinds import Kind, Warn, optional, read_json, read_text
from hub.config.wording import shape
from hub.protocol.errors import ConfigError

__all__ = ["FULL_SECRET", "MIN_SECRET_BYTES", "OPTIONAL_SECRET", "SECRET", "SECRETS", "Secret"]

MIN_SECRET_BYTES = 32
"""From this length on a secret is taken for one that nobody guesses."""


class Secret:
    """A text that no repr, format or error shows. Compared in constant time; `reveal` is the only way out."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself."""
        return self._value

    def bytes(self) -> bytes:
        """The text as UTF-8; never fails, since a lone surrogate of an odd variable must not be a crash."""
        return self._value.encode("utf-8", "surrogatepass")

    def __len__(self) -> int:
        """The length in bytes."""
        return len(self.bytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self.bytes(), other.bytes())

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, _memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not serialized")


def _accept_secret(name: str, value: Any, _warn: Warn) -> Secret:
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise ConfigError(name, f"expected text in quotes, got {shape(value)}")
    return Secret(value)


def _accept_full_secret(name: str, value: Any, warn: Warn) -> Secret:
    secret = _accept_secret(name, value, warn)
    if not len(secret):
        raise ConfigError(name, "expected a secret, got an empty text")
    return secret


def _accept_secrets(name: str, value: Any, warn: Warn) -> tuple[Secret, ...]:
    if isinstance(value, str | Secret):
        return (_accept_secret(name, value, warn),)
    if not isinstance(value, list | tuple):
        raise ConfigError(name, f"expected text in quotes or a list of texts, got {shape(value)}")
    return tuple(_accept_secret(f"{name}[{i}]", token, warn) for i, token in enumerate(value))


def _read_secrets(name: str, text: str) -> Any:
    # A token is never taken for a number, but a list has to be written somehow.
    return read_json(name, text) if text.lstrip().startswith("[") else text


SECRET = Kind(_accept_secret, read_text)
FULL_SECRET = Kind(_accept_full_secret, read_text)
OPTIONAL_SECRET = optional(FULL_SECRET)
SECRETS = Kind(_accept_secrets, _read_secrets)
