"""The configuration: freqtrade's `api_server` section, the hub's own section, and the environment over them.

A value is looked up in the environment under `TRADEWIRE__SECTION__KEY`, then under `FREQTRADE__API_SERVER__KEY`, then in
the file; `..._FILE` names a file that holds the value. The file is JSON in which comments and trailing commas are allowed,
as in freqtrade, and may be a whole freqtrade configuration: sections that are not the hub's are not looked at.

Each field is annotated with its kind, which checks a value of the file, reads the text of a variable and says what was
expected; a new key is one line in a Struct. Values of secret kinds are wrapped in `Secret` as soon as they are checked, and
no text made here contains one.

Source: freqtrade 2026.9 `api_server` (names, meaning, environment variables); the rest is this hub's.
"""

from __future__ import annotations

import copy
import difflib
import functools
import hmac
import ipaddress
import json
import math
import os
import re
import secrets
import stat
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import json5
import msgspec

from hub.protocol.botapi import ShowConfig
from hub.protocol.errors import BadMessage, ConfigError
from hub.protocol.messages import check_name

__all__ = [
    "ApiServer",
    "BotToken",
    "Config",
    "HubSection",
    "Limits",
    "Memory",
    "PublisherEntry",
    "Secret",
    "Slow",
    "Upstream",
    "describe",
    "is_loopback",
    "load",
]

MIN_SECRET_BYTES = 32
MIN_PASSWORD_CHARACTERS = 12
MAX_FILE_BYTES = 4 * 1024 * 1024
OURS, FREQTRADES = "TRADEWIRE__", "FREQTRADE__"

# Secrets that were printed in documentation or shipped in an example, so everybody knows them. Compared casefolded.
KNOWN_DEFAULTS = frozenset(
    {
        "changeme",
        "freqtrade",
        "freqtrader",
        "hellotoken",
        "password",
        "sameone",
        "secret_ws_t0ken",
        "secret_ws_t0ken.",
        "secret_ws_token",
        "sercet_ws_t0ken",
        "somethingrandom",
        "somethingrandomsomethingrandom123",
        "super1234",
        "supersecret1!",
        "supersecretpassword",
        "supersecurepassword",
    }
)

Warn = Callable[[str], None]
S = TypeVar("S", bound=msgspec.Struct)


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


# --- kinds: what a value may be ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one field is checked (`accept(name, value, warn)`) and read from a variable's text (`read(name, text)`)."""

    accept: Callable[[str, Any, Warn], Any]
    read: Callable[[str, str], Any]
    secret: bool = False


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, Mapping):
        return "a map"
    # An object of a caller's mapping is told by its type: its text could hold anything.
    text = json.dumps(value, default=lambda other: type(other).__name__)
    return text if len(text) <= 60 else text[:57] + "..."


def _shape(value: object) -> str:
    names = {str: "text", bool: "true or false", int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value)) or _shown(value)


def _expected(name: str, what: str, value: object) -> ConfigError:
    return ConfigError(name, f"expected {what}, got {_shown(value)}")


def _read_text(_name: str, text: str) -> str:
    return text


def _read_json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError(name, "expected JSON") from None


def _read_flag(name: str, text: str) -> bool:
    known = {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }
    value = known.get(text.strip().lower())
    if value is None:
        raise _expected(name, "true or false", text)
    return value


def _accept_flag(name: str, value: Any, _warn: Warn) -> bool:
    if not isinstance(value, bool):
        raise _expected(name, "true or false", value)
    return value


def _whole(low: int, high: int, what: str = "") -> _Kind:
    what = what or f"a whole number from {low} to {high}"

    def accept(name: str, value: Any, _warn: Warn) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _expected(name, what, value)
        return value

    def read(name: str, text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", text.strip()):
            raise _expected(name, what, text)
        return int(text)

    return _Kind(accept, read)


def _number(low: float, high: float) -> _Kind:
    what = f"a number from {low:g} to {high:g}"

    def accept(name: str, value: Any, _warn: Warn) -> float:
        # `not (low <= value <= high)` is also true of NaN.
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise _expected(
                name, what, value if not isinstance(value, float) or math.isfinite(value) else str(value)
            )
        return float(value)

    def read(name: str, text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise _expected(name, what, text) from None

    return _Kind(accept, read)


def _choice(*choices: str) -> _Kind:
    what = " or ".join(json.dumps(c) for c in choices)

    def accept(name: str, value: Any, _warn: Warn) -> str:
        if value not in choices:
            raise _expected(name, what, value)
        return str(value)

    return _Kind(accept, _read_text)


def _text(name: str, value: Any, what: str) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise _expected(name, what, value)
    return value


def _accept_address(name: str, value: Any, _warn: Warn) -> str:
    text = _text(name, value, "an IP address or localhost")
    if text == "localhost":
        return text
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise _expected(name, "an IP address or localhost", value) from None


def _accept_host(name: str, value: Any, _warn: Warn) -> str:
    text = _text(name, value, "a host name or an IP address")
    # A URL here would end up inside another URL, so say it now.
    if re.search(r"[\s/@?#]", text) or ("]" in text) != ("[" in text):
        raise _expected(name, "a host name or an IP address without scheme, port or path", value)
    return text.strip("[]")


def _accept_path(name: str, value: Any, _warn: Warn) -> str:
    value = str(value) if isinstance(value, Path) else value
    if not isinstance(value, str) or not value or "\0" in value:
        raise _expected(name, "a directory", value)
    return value


def _accept_username(name: str, value: Any, _warn: Warn) -> str:
    if not isinstance(value, str) or not value or ":" in value:
        raise ConfigError(name, f"expected text in quotes without a colon, got {_shape(value)}")
    return value


def _accept_secret(name: str, value: Any, _warn: Warn) -> Secret:
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise ConfigError(name, f"expected text in quotes, got {_shape(value)}")
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
        raise ConfigError(name, f"expected text in quotes or a list of texts, got {_shape(value)}")
    return tuple(_accept_secret(f"{name}[{i}]", token, warn) for i, token in enumerate(value))


def _read_secrets(name: str, text: str) -> Any:
    # A token is never taken for a number, but a list has to be written somehow.
    return _read_json(name, text) if text.lstrip().startswith("[") else text


def _name(what: str, name: str, value: Any) -> str:
    try:
        return check_name(what, value)
    except BadMessage as error:
        raise ConfigError(name, f"expected a name of 1 to 64 bytes ({error})") from None


def _accept_name(name: str, value: Any, _warn: Warn) -> str:
    return _name("name", name, value)


def _accept_bots(name: str, value: Any, _warn: Warn) -> frozenset[str]:
    if value == "*":
        return frozenset({"*"})
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(name, f'expected "*" or a list of names of bots, got {_shape(value)}')
    return frozenset(_name("bot", f"{name}[{i}]", bot) for i, bot in enumerate(value))


def _accept_origins(name: str, value: Any, warn: Warn) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise _expected(name, "a list of origins", value)
    return tuple(_origin(f"{name}[{i}]", origin, warn) for i, origin in enumerate(value))


def _origin(name: str, value: Any, warn: Warn) -> str:
    if value in ("*", "null"):
        return str(value)
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@]+/?", value):
        raise _expected(name, "an origin such as https://example.org:8443", value)
    if value.endswith("/"):
        warn(f"{name}: a browser sends no slash at the end of an origin; read as {value[:-1]}")
    return value.rstrip("/").lower()


def _read_list(name: str, text: str) -> Any:
    if text.lstrip().startswith("["):
        return _read_json(name, text)
    return [part.strip() for part in text.split(",") if part.strip()]


def _optional(kind: _Kind) -> _Kind:
    def accept(name: str, value: Any, warn: Warn) -> Any:
        return None if value is None else kind.accept(name, value, warn)

    return _Kind(accept, kind.read, kind.secret)


def _items(cls: Callable[[], type[msgspec.Struct]]) -> _Kind:
    def accept(name: str, value: Any, warn: Warn) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise ConfigError(name, f"expected a list, got {_shape(value)}")
        return tuple(_struct(cls(), f"{name}[{i}]", item, warn) for i, item in enumerate(value))

    return _Kind(accept, _read_json)


def _accept_tokens(name: str, value: Any, warn: Warn) -> tuple[BotToken, ...]:
    if isinstance(value, Mapping) and not {"token", "bot"} <= set(value):
        # A key of this map is a token, so an entry is named by its place.
        entries = [{"token": token, "bot": bot} for token, bot in value.items()]
        for i, entry in enumerate(entries):
            _refuse_reversed(f"{name}[{i}]", entry["token"], entry["bot"])
    elif isinstance(value, list | tuple):
        entries = list(value)
    else:
        raise ConfigError(name, "expected a map of ws_token to bot, or a list of {name, token, bot}")
    tokens = []
    for i, entry in enumerate(entries):
        if isinstance(entry, Mapping):
            _refuse_stray_token(f"{name}[{i}]", entry)
            entry = {"name": f"token-{i + 1}", **entry}
        tokens.append(_struct(BotToken, f"{name}[{i}]", entry, warn))
    return tuple(tokens)


def _refuse_reversed(name: str, token: Any, bot: Any) -> None:
    if isinstance(token, str) and isinstance(bot, str) and len(token) < MIN_SECRET_BYTES <= len(bot):
        raise ConfigError(name, "expected ws_token: bot; this looks like bot: ws_token")


def _refuse_stray_token(name: str, entry: Mapping[str, Any]) -> None:
    # An unknown key is usually named in a warning; here it may be a token.
    if any(key not in ("name", "token", "bot") for key in entry):
        raise ConfigError(name, "expected the keys name, token and bot only")


def _accept_show_configs(name: str, value: Any, warn: Warn) -> dict[str, dict[str, Any]]:
    if not isinstance(value, Mapping):
        raise ConfigError(name, f"expected a map of bots, got {_shape(value)}")
    return {_name("bot", name, bot): _show_config(f"{name}.{bot}", raw, warn) for bot, raw in value.items()}


def _show_config(name: str, raw: Any, warn: Warn) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise ConfigError(name, f"expected a map of show_config's fields, got {_shape(raw)}")
    known = {field.name: field.type for field in msgspec.structs.fields(ShowConfig)}
    stated = {}
    for key, value in raw.items():
        if key not in known:
            warn(f"{name}.{key}: unknown key, ignored{_did_you_mean(key, known)}")
            continue
        try:
            stated[key] = msgspec.convert(value, known[key])
        except msgspec.ValidationError as error:
            raise ConfigError(f"{name}.{key}", f"{str(error)[:1].lower()}{str(error)[1:]}") from None
    return stated


FLAG = _Kind(_accept_flag, _read_flag)
PORT = _whole(1, 65535)
LISTEN_PORT = _whole(0, 65535, "a whole number from 1 to 65535 (0: any free port)")
NAME = _Kind(_accept_name, _read_text)
OPTIONAL_NAME = _optional(NAME)
HOST = _Kind(_accept_host, _read_text)
ADDRESS = _Kind(_accept_address, _read_text)
OPTIONAL_PATH = _optional(_Kind(_accept_path, _read_text))
USERNAME = _Kind(_accept_username, _read_text)
SECRET = _Kind(_accept_secret, _read_text, secret=True)
FULL_SECRET = _Kind(_accept_full_secret, _read_text, secret=True)
SECRETS = _Kind(_accept_secrets, _read_secrets, secret=True)
ORIGINS = _Kind(_accept_origins, _read_list)
BOTS = _Kind(_accept_bots, _read_list)
TOKENS = _Kind(_accept_tokens, _read_json, secret=True)
SHOW_CONFIGS = _Kind(_accept_show_configs, _read_json)
COUNT = _whole(1, 10_000_000)
BYTES = _whole(1024, 2**40)
MILLISECONDS = _whole(10, 3_600_000)
SECONDS = _number(0, 3600)
VERBOSITY = _choice("error", "info")
PUBLISHERS = _items(lambda: PublisherEntry)
UPSTREAMS = _items(lambda: Upstream)


# --- the sections -----------------------------------------------------------------------------------------------------


class ApiServer(msgspec.Struct, frozen=True, kw_only=True):
    """freqtrade's `api_server`. What a file leaves out of the four credentials is generated once and kept."""

    username: Annotated[str, USERNAME]
    password: Annotated[Secret, SECRET]
    jwt_secret_key: Annotated[Secret, FULL_SECRET]
    ws_token: Annotated[tuple[Secret, ...], SECRETS]
    enabled: Annotated[bool, FLAG] = True
    listen_ip_address: Annotated[str, ADDRESS] = "127.0.0.1"
    listen_port: Annotated[int, LISTEN_PORT] = 8080
    verbosity: Annotated[str, VERBOSITY] = "error"
    enable_openapi: Annotated[bool, FLAG] = False
    CORS_origins: Annotated[tuple[str, ...], ORIGINS] = ()


class BotToken(msgspec.Struct, frozen=True, kw_only=True):
    """A ws_token that sees one bot only."""

    token: Annotated[Secret, FULL_SECRET]
    bot: Annotated[str, NAME]
    name: Annotated[str, NAME]


class PublisherEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A credential that may publish as `bots` ({"*"}: as any). `name` identifies the publisher for ever (its mids)."""

    name: Annotated[str, NAME]
    token: Annotated[Secret, FULL_SECRET]
    bots: Annotated[frozenset[str], BOTS]


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """An unmodified freqtrade producer that the relay consumes; `name` becomes its bot's name here."""

    name: Annotated[str, NAME]
    host: Annotated[str, HOST]
    ws_token: Annotated[Secret, FULL_SECRET]
    port: Annotated[int, PORT] = 8080
    secure: Annotated[bool, FLAG] = False


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one client may do; told in hub.welcome. `connections` is of the whole hub, `message` in bytes."""

    connections: Annotated[int, COUNT] = 10_000
    message: Annotated[int, _whole(1024, 64 * 1024 * 1024)] = 1_048_576
    items: Annotated[int, COUNT] = 256
    keys: Annotated[int, COUNT] = 10_000
    in_flight: Annotated[int, COUNT] = 64
    publish_in_flight: Annotated[int, COUNT] = 256
    requests_per_s: Annotated[int, COUNT] = 50


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of what the hub keeps. `event_bytes` is per bot, `control_bytes` per session, `candles` per key."""

    ledger_bytes: Annotated[int, BYTES] = 67_108_864
    event_bytes: Annotated[int, BYTES] = 1_048_576
    control_bytes: Annotated[int, BYTES] = 1_048_576
    candles: Annotated[int, _whole(1, 1_000_000)] = 1500
    frames_bytes: Annotated[int, BYTES] = 536_870_912


class Slow(msgspec.Struct, frozen=True, kw_only=True):
    """When a client counts as slow: over `limit_bytes` behind on the ledger and no progress for `grace_s` seconds."""

    limit_bytes: Annotated[int, BYTES] = 8_388_608
    grace_s: Annotated[float, SECONDS] = 30.0


class HubSection(msgspec.Struct, frozen=True, kw_only=True):
    """The hub's own section. `default_bot` as configured; `Config.default_bot` is what it comes to."""

    default_bot: Annotated[str | None, OPTIONAL_NAME] = None
    tokens: Annotated[tuple[BotToken, ...], TOKENS] = ()
    publishers: Annotated[tuple[PublisherEntry, ...], PUBLISHERS] = ()
    upstreams: Annotated[tuple[Upstream, ...], UPSTREAMS] = ()
    allowed_origins: Annotated[tuple[str, ...], ORIGINS] = ()
    allow_query_token: Annotated[bool, FLAG] = False
    limits: Limits = Limits()
    memory: Memory = Memory()
    slow: Slow = Slow()
    heartbeat_ms: Annotated[int, MILLISECONDS] = 20_000
    pong_timeout_ms: Annotated[int, MILLISECONDS] = 10_000
    drain_s: Annotated[float, SECONDS] = 10.0
    candle_deadline_s: Annotated[float, SECONDS] = 10.0
    state_dir: Annotated[str | None, OPTIONAL_PATH] = None
    bots: Annotated[Mapping[str, Mapping[str, Any]], SHOW_CONFIGS] = {}


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A checked configuration.

    `warnings` are lines for the user. `path` is the file, None without one. `state_dir` is where the hub keeps what must
    outlive it. `generated` names the credentials that were not configured and come from `state_dir`/secrets.json.
    """

    api_server: ApiServer
    hub: HubSection = HubSection()
    warnings: tuple[str, ...] = ()
    path: Path | None = None
    state_dir: Path | None = None
    generated: tuple[str, ...] = ()

    @property
    def default_bot(self) -> str:
        """The bot of everyone who cannot name one: as configured, else the only upstream, else "default"."""
        if self.hub.default_bot is not None:
            return self.hub.default_bot
        return self.hub.upstreams[0].name if len(self.hub.upstreams) == 1 else "default"


_SECTIONS: dict[str, type[msgspec.Struct]] = {"api_server": ApiServer, "hub": HubSection}
_CREDENTIALS = ("username", "password", "jwt_secret_key", "ws_token")


@functools.cache
def _fields(cls: type[msgspec.Struct]) -> dict[str, _Kind | type[msgspec.Struct]]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {
        name: hint if isinstance(hint, type) else next(m for m in hint.__metadata__ if isinstance(m, _Kind))
        for name, hint in hints.items()
    }


def _struct(cls: type[S], name: str, raw: Any, warn: Warn) -> S:
    if not isinstance(raw, Mapping):
        raise ConfigError(name, f"expected a map, got {_shape(raw)}")
    known = _fields(cls)
    values = {}
    for key, value in raw.items():
        kind = known.get(key)
        if kind is None:
            warn(f"{name}.{key}: unknown key, ignored{_did_you_mean(key, known)}")
        elif isinstance(kind, _Kind):
            values[key] = kind.accept(f"{name}.{key}", value, warn)
        else:
            values[key] = _struct(kind, f"{name}.{key}", value, warn)
    for field in msgspec.structs.fields(cls):
        if field.required and field.name not in values:
            raise ConfigError(f"{name}.{field.name}", "expected a value, got none")
    return cls(**values)


def _did_you_mean(key: str, known: typing.Iterable[str]) -> str:
    folded = {k.lower(): k for k in known}
    close = difflib.get_close_matches(str(key).lower(), folded, n=1, cutoff=0.6)
    return f"; did you mean {folded[close[0]]}?" if close else ""


# --- loading ----------------------------------------------------------------------------------------------------------


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
    document = dict(source) if isinstance(source, Mapping) else _read(path)
    raw = _sections(document, warnings.append)
    _overlay(raw, env, warnings.append)
    hub = _struct(HubSection, "hub", raw["hub"], warnings.append)
    state_dir = _state_dir(hub.state_dir, env)
    generated = tuple(key for key in _CREDENTIALS if key not in raw["api_server"])
    if generated:
        kept = _kept_secrets(state_dir, store_secrets)
        raw["api_server"].update({key: kept[key] for key in generated})
    api_server = _struct(ApiServer, "api_server", raw["api_server"], warnings.append)
    _check_names(hub)
    config = Config(api_server=api_server, hub=hub, path=path, state_dir=state_dir, generated=generated)
    _check_tokens(config)
    _check_strength(config, warnings.append)
    return msgspec.structs.replace(config, warnings=tuple(warnings))


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError("", f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise ConfigError("", f"{path}: cannot be read: {_why(error)}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError("", f"{path}: expected at most {MAX_FILE_BYTES} bytes, got {len(data)}")
    try:
        value = _decode(data.decode("utf-8-sig"), path)
    except UnicodeDecodeError as error:
        raise ConfigError("", f"{path}: expected UTF-8, got another byte at position {error.start}") from None
    if not isinstance(value, dict):
        raise ConfigError("", f"{path}: expected a map of sections, got {_shape(value)}")
    return value


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


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
        # The parser's own text quotes the file, which holds secrets: only its position is used.
        at = re.match(r"[^:]*:(\d+) .* at column (\d+)", str(error), re.DOTALL)
        where = f"{path}:{at[1]}:{at[2]}" if at else f"{path}:1:1"
        what = (
            "the file ends too early"
            if at is None or "end of input" in str(error)
            else "unexpected character"
        )
        raise ConfigError("", f"{where}: not valid JSON: {what}") from None


def _sections(document: Mapping[str, Any], warn: Warn) -> dict[str, dict[str, Any]]:
    for key in document:
        close = difflib.get_close_matches(str(key).lower(), _SECTIONS, n=1, cutoff=0.75)
        if key not in _SECTIONS and close:
            warn(f"{key}: unknown section, ignored; did you mean {close[0]}?")
    if "add_config_files" in document and "api_server" not in document:
        warn("add_config_files: not followed; give the file that holds api_server")
    sections = {}
    for name in _SECTIONS:
        section = document.get(name, {})
        if not isinstance(section, Mapping):
            raise ConfigError(name, f"expected a map, got {_shape(section)}")
        sections[name] = copy.deepcopy(dict(section))
    return sections


def _overlay(raw: dict[str, dict[str, Any]], env: Mapping[str, str], warn: Warn) -> None:
    for prefix in (FREQTRADES, OURS):
        for variable in sorted(env):
            if variable.startswith(prefix):
                _apply(raw, prefix, variable, env, warn)


def _apply(
    raw: dict[str, dict[str, Any]], prefix: str, variable: str, env: Mapping[str, str], warn: Warn
) -> None:
    names = variable.removeprefix(prefix).lower().split("__")
    if names[0] != "api_server" and (prefix == FREQTRADES or names[0] != "hub"):
        close = difflib.get_close_matches(names[0], _SECTIONS, n=1, cutoff=0.75)
        if close and prefix == OURS:
            warn(f"{variable}: unknown section, ignored; did you mean {prefix}{close[0].upper()}?")
        return
    from_file = False
    found = _locate(names)
    if found is None and names[-1].endswith("_file"):
        from_file = True
        found = _locate([*names[:-1], names[-1].removesuffix("_file")])
    if found is None:
        warn(f"{variable}: unknown variable, ignored")
        return
    path, kind = found
    if from_file and variable.removesuffix("_FILE") in env:
        raise ConfigError(variable, f"expected this or {variable.removesuffix('_FILE')}, got both")
    value = kind.read(variable, _file_text(variable, env[variable]) if from_file else env[variable])
    # Checked here too, so that the error names the variable; its warnings come with the whole.
    kind.accept(variable, value, lambda _line: None)
    _put(raw, path, value)


def _locate(names: list[str]) -> tuple[list[str], _Kind] | None:
    cls = _SECTIONS[names[0]]
    path = [names[0]]
    for i, name in enumerate(names[1:], start=2):
        field = next((f for f in _fields(cls) if f.lower() == name), None)
        if field is None:
            return None
        path.append(field)
        kind = _fields(cls)[field]
        if isinstance(kind, _Kind):
            return (path, kind) if i == len(names) else None
        cls = kind
    return None


def _put(raw: dict[str, Any], path: list[str], value: Any) -> None:
    for i, name in enumerate(path[:-1]):
        raw = raw.setdefault(name, {})
        if not isinstance(raw, dict):
            raise ConfigError(".".join(path[: i + 1]), f"expected a map, got {_shape(raw)}")
    raw[path[-1]] = value


def _file_text(variable: str, path: str) -> str:
    try:
        data = Path(path).read_bytes()
        text = data.decode()
    except UnicodeDecodeError:
        raise ConfigError(variable, f"expected a file of UTF-8 text, got {path}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(variable, f"cannot read {path}: {_why(error)}") from None
    return text.removesuffix("\n").removesuffix("\r")


# --- secrets that nobody configured -----------------------------------------------------------------------------------


def _state_dir(configured: str | None, env: Mapping[str, str]) -> Path:
    home = Path(env["HOME"]) if env.get("HOME") else None
    if configured is not None:
        if configured == "~" or configured.startswith("~/"):
            return (home or Path.home()) / configured[2:]
        return Path(configured)
    state_home = env.get("XDG_STATE_HOME", "")
    # The XDG base directory specification: a relative path is to be ignored.
    base = Path(state_home) if state_home.startswith("/") else (home or Path.home()) / ".local" / "state"
    return base / "tradewire"


def _kept_secrets(state_dir: Path, store: bool) -> dict[str, str]:
    path = state_dir / "secrets.json"
    try:
        kept = _read_kept(path)
        if kept is None:
            kept = _new_secrets()
            if store and not _store(path, kept):
                # Another process was faster; its secrets are the ones.
                kept = _read_kept(path) or kept
    except OSError as error:
        raise ConfigError("", f"{path}: cannot be used: {_why(error)}") from None
    return kept


def _new_secrets() -> dict[str, str]:
    made = {key: secrets.token_urlsafe(32) for key in _CREDENTIALS}
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
    if not isinstance(kept, dict) or not all(isinstance(kept.get(k), str) and kept[k] for k in _CREDENTIALS):
        raise ConfigError("", f"{path}: expected {', '.join(_CREDENTIALS)}; remove it to have a new one made")
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


# --- rules over several keys ------------------------------------------------------------------------------------------


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches `address`: 127.0.0.0/8, ::1 (also mapped) and localhost."""
    if address == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_loopback


def _check_names(hub: HubSection) -> None:
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


def _client_tokens(config: Config) -> Iterator[tuple[str, Secret]]:
    """Every token that a client may show here, with its key. Upstreams' tokens are shown by us, to others."""
    many = len(config.api_server.ws_token) > 1
    for i, token in enumerate(config.api_server.ws_token):
        yield f"api_server.ws_token[{i}]" if many else "api_server.ws_token", token
    for i, entry in enumerate(config.hub.tokens):
        yield f"hub.tokens[{i}].token", entry.token
    for i, publisher in enumerate(config.hub.publishers):
        yield f"hub.publishers[{i}].token", publisher.token


def _check_tokens(config: Config) -> None:
    seen: dict[Secret, str] = {}
    for key, token in _client_tokens(config):
        other = seen.setdefault(token, key)
        if other != key and not (
            len(token) == 0 or (key.startswith("api_server.") and other.startswith("api_server."))
        ):
            raise ConfigError(key, f"expected a token of its own, got that of {other}")


def _weak(config: Config) -> Iterator[tuple[str, str]]:
    """Every credential that would not do for other machines, with what is expected of it."""
    strong = f"a secret of at least {MIN_SECRET_BYTES} bytes that is no known default"
    for key, token in [
        ("api_server.jwt_secret_key", config.api_server.jwt_secret_key),
        *_client_tokens(config),
    ]:
        # An empty ws_token is none: it lets nobody in.
        if len(token) and (len(token) < MIN_SECRET_BYTES or token.reveal().casefold() in KNOWN_DEFAULTS):
            yield key, strong
    password = config.api_server.password.reveal()
    if len(password) < MIN_PASSWORD_CHARACTERS or password.casefold() in KNOWN_DEFAULTS:
        yield (
            "api_server.password",
            f"at least {MIN_PASSWORD_CHARACTERS} characters that are no known default",
        )


def _check_strength(config: Config, warn: Warn) -> None:
    weak = list(_weak(config))
    if not weak:
        return
    address = config.api_server.listen_ip_address
    if not is_loopback(address):
        key, expected = weak[0]
        raise ConfigError(key, f"expected {expected}, since {address} is open to other machines")
    keys = ", ".join(key for key, _ in weak)
    warn(f"{keys}: too short or publicly known; good enough for {address}, refused on any other address")


# --- what check-config prints -----------------------------------------------------------------------------------------


def describe(config: Config) -> str:
    """The effective settings, one `key = value` a line; of a secret only that it is set and its length."""
    lines = [f"file = {config.path or 'none'}", f"state directory = {config.state_dir or 'none'}"]
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
