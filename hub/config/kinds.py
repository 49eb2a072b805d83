"""The kinds of values: what each accepts from a file and how it reads a variable's text.

Kinds that need more than this module are beside what they are about: secrets in `secret`, entries in `entries`, the
configurations that bots show in `show_configs`.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub.config.wording import expected, shape
from hub.protocol.errors import BadMessage, ConfigError
from hub.protocol.messages import check_name

__all__ = [
    "ADDRESS",
    "BOTS",
    "BYTES",
    "COUNT",
    "DAYS",
    "DEADLINE_S",
    "FLAG",
    "HOST",
    "LISTEN_PORT",
    "LOG_KIND",
    "MILLISECONDS",
    "NAME",
    "OPTIONAL_NAME",
    "OPTIONAL_PATH",
    "OPTIONAL_USERNAME",
    "ORIGINS",
    "PORT",
    "PROXIES",
    "SECONDS",
    "USERNAME",
    "VERBOSITY",
    "Kind",
    "Warn",
    "checked_name",
    "optional",
    "read_json",
    "read_text",
    "whole",
]

Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """How one field is checked (`accept(name, value, warn)`) and read from a variable's text (`read(name, text)`).

    Both raise ConfigError, which names `name`. What `read` gives is still to be accepted.
    """

    accept: Callable[[str, Any, Warn], Any]
    read: Callable[[str, str], Any]


# --- the text of a variable -------------------------------------------------------------------------------------------


def read_text(_name: str, text: str) -> str:
    """The text as it is."""
    return text


def read_json(name: str, text: str) -> Any:
    """The value of the JSON in `text`, which the error does not quote."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError(name, "expected JSON") from None


def _read_list(name: str, text: str) -> Any:
    if text.lstrip().startswith("["):
        return read_json(name, text)
    return [part.strip() for part in text.split(",") if part.strip()]


# --- flags, numbers and choices ---------------------------------------------------------------------------------------

_FLAGS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def _read_flag(name: str, text: str) -> bool:
    value = _FLAGS.get(text.strip().lower())
    if value is None:
        raise expected(name, "true or false", text)
    return value


def _accept_flag(name: str, value: Any, _warn: Warn) -> bool:
    if not isinstance(value, bool):
        raise expected(name, "true or false", value)
    return value


def whole(low: int, high: int, what: str = "") -> Kind:
    """Whole numbers from `low` to `high`; `what` words them where the bounds alone do not tell."""
    what = what or f"a whole number from {low} to {high}"

    def accept(name: str, value: Any, _warn: Warn) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise expected(name, what, value)
        return value

    def read(name: str, text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", text.strip()):
            raise expected(name, what, text)
        return int(text)

    return Kind(accept, read)


def _number(low: float, high: float) -> Kind:
    what = f"a number from {low:g} to {high:g}"

    def accept(name: str, value: Any, _warn: Warn) -> float:
        # `not (low <= value <= high)` is also true of NaN.
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise expected(
                name, what, value if not isinstance(value, float) or math.isfinite(value) else str(value)
            )
        return float(value)

    def read(name: str, text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise expected(name, what, text) from None

    return Kind(accept, read)


def _choice(*choices: str) -> Kind:
    what = " or ".join(json.dumps(c) for c in choices)

    def accept(name: str, value: Any, _warn: Warn) -> str:
        if value not in choices:
            raise expected(name, what, value)
        return str(value)

    return Kind(accept, read_text)


# --- hosts, paths and origins -----------------------------------------------------------------------------------------


def _text(name: str, value: Any, what: str) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise expected(name, what, value)
    return value


def _accept_address(name: str, value: Any, _warn: Warn) -> str:
    text = _text(name, value, "an IP address or localhost")
    if text == "localhost":
        return text
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise expected(name, "an IP address or localhost", value) from None


def _accept_host(name: str, value: Any, _warn: Warn) -> str:
    text = _text(name, value, "a host name or an IP address")
    # A URL here would end up inside another URL, so say it now.
    if re.search(r"[\s/@?#]", text) or ("]" in text) != ("[" in text):
        raise expected(name, "a host name or an IP address without scheme, port or path", value)
    return text.strip("[]")


def _accept_path(name: str, value: Any, _warn: Warn) -> str:
    value = str(value) if isinstance(value, Path) else value
    if not isinstance(value, str) or not value or "\0" in value:
        raise expected(name, "a directory", value)
    return value


def _accept_origins(name: str, value: Any, warn: Warn) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise expected(name, "a list of origins", value)
    return tuple(_origin(f"{name}[{i}]", origin, warn) for i, origin in enumerate(value))


def _accept_proxies(name: str, value: Any, _warn: Warn) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise expected(name, "a list of IP addresses and networks", value)
    return tuple(_network(f"{name}[{i}]", proxy) for i, proxy in enumerate(value))


def _network(name: str, value: Any) -> str:
    text = _text(name, value, "an IP address or a network such as 10.0.0.0/8")
    try:
        return str(ipaddress.ip_network(text)) if "/" in text else str(ipaddress.ip_address(text))
    except ValueError:
        raise expected(name, "an IP address or a network such as 10.0.0.0/8", value) from None


def _origin(name: str, value: Any, warn: Warn) -> str:
    if value in ("*", "null"):
        return str(value)
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@]+/?", value):
        raise expected(name, "an origin such as https://example.org:8443", value)
    if value.endswith("/"):
        warn(f"{name}: a browser sends no slash at the end of an origin; read as {value[:-1]}")
    return value.rstrip("/").lower()


# --- names ------------------------------------------------------------------------------------------------------------


def checked_name(what: str, name: str, value: Any) -> str:
    """`value` as the name of a `what` ("bot"), for the key `name`."""
    try:
        return check_name(what, value)
    except BadMessage as error:
        raise ConfigError(name, f"expected a name of 1 to 64 bytes ({error})") from None


def _accept_name(name: str, value: Any, _warn: Warn) -> str:
    return checked_name("name", name, value)


def _accept_bots(name: str, value: Any, _warn: Warn) -> frozenset[str]:
    if value == "*":
        return frozenset({"*"})
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(name, f'expected "*" or a list of names of bots, got {shape(value)}')
    return frozenset(checked_name("bot", f"{name}[{i}]", bot) for i, bot in enumerate(value))


def _accept_username(name: str, value: Any, _warn: Warn) -> str:
    if not isinstance(value, str) or not value or ":" in value:
        raise ConfigError(name, f"expected text in quotes without a colon, got {shape(value)}")
    return value


def optional(kind: Kind) -> Kind:
    """`kind`, or null."""

    def accept(name: str, value: Any, warn: Warn) -> Any:
        return None if value is None else kind.accept(name, value, warn)

    return Kind(accept, kind.read)


FLAG = Kind(_accept_flag, _read_flag)
PORT = whole(1, 65535)
LISTEN_PORT = whole(0, 65535, "a whole number from 1 to 65535 (0: any free port)")
COUNT = whole(1, 10_000_000)
BYTES = whole(1024, 2**40)
MILLISECONDS = whole(10, 3_600_000)
SECONDS = _number(0, 3600)
DEADLINE_S = _number(0.1, 300)
DAYS = _number(0.001, 36_500)
VERBOSITY = _choice("error", "info")
LOG_KIND = _choice("sqlite", "memory")
HOST = Kind(_accept_host, read_text)
ADDRESS = Kind(_accept_address, read_text)
OPTIONAL_PATH = optional(Kind(_accept_path, read_text))
PROXIES = Kind(_accept_proxies, _read_list)
ORIGINS = Kind(_accept_origins, _read_list)
NAME = Kind(_accept_name, read_text)
OPTIONAL_NAME = optional(NAME)
BOTS = Kind(_accept_bots, _read_list)
USERNAME = Kind(_accept_username, read_text)
OPTIONAL_USERNAME = optional(USERNAME)
