"""The consumer's configuration: freqtrade's `external_message_consumer` section and what tradewire adds to it.

The file is JSON with comments and trailing commas, as freqtrade's, and may be freqtrade's whole configuration: other sections
stay as they are in `ConsumerConfig.raw`. Over the file comes the environment: `TRADEWIRE__SECTION__KEY`, parts joined by two
underscores, items of a list by their number (`TRADEWIRE__EXTERNAL_MESSAGE_CONSUMER__PRODUCERS__0__WS_TOKEN`), and under it
`FREQTRADE__EXTERNAL_MESSAGE_CONSUMER__KEY`. A name that ends in `_FILE` names a file that holds the value. Values are read as
JSON where they are JSON, else as text; secrets are always text, so that a token of digits stays a token.

Source of the section's keys and defaults: freqtrade 2026.9 as observed (docs/wire-protocol.md).
"""

from __future__ import annotations

import difflib
import itertools
import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import json5
import msgspec

from consumer.errors import ConfigError
from hub.protocol.errors import BadMessage
from hub.protocol.messages import check_name

__all__ = [
    "DEFAULT_CANDLE_LIMIT",
    "DEFAULT_PATH",
    "SECTION",
    "ConsumerConfig",
    "ProducerConfig",
    "PublishConfig",
    "checked_bot_name",
    "load",
    "load_raw",
]

_LOG = logging.getLogger(__name__)

SECTION = "external_message_consumer"
DEFAULT_CANDLE_LIMIT = 1500
DEFAULT_PATH = "/api/v1/message/ws"

_MAX_FILE_BYTES = 4 * 1024 * 1024
_OURS, _FREQTRADES = "TRADEWIRE__", f"FREQTRADE__{SECTION.upper()}__"
_SECRET = re.compile(r"(^|_)(token|password|secret|secret_key|key|chat_id)$")
_KEYS_LIKE_FILES = frozenset({"ca_file"})

Names = Literal["*"] | list[Annotated[str, msgspec.Meta(min_length=1)]]
_Name = Annotated[str, msgspec.Meta(min_length=1)]
_Seconds = Annotated[float, msgspec.Meta(ge=0)]


class ProducerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One producer: a hub, or a freqtrade bot.

    freqtrade's keys are `name`, `host`, `port`, `secure` and `ws_token`. The others:

    - `protocol`: "v2" is tradewire's own wire, "freqtrade" its producer's. "auto" offers v2 first and, when it is not known or
      not allowed there, tries freqtrade's once; what worked is kept for the life of the client.
    - `path` of the endpoint, and `ca_file`: a PEM file of authorities to trust beside the system's (with `secure`).
    - `bots` of a hub to consume. freqtrade's wire carries one bot only, the one that the token stands for.
    - `topics`: what to subscribe to; "*" is every topic of freqtrade 2026.9 and `hub.candle_complete`.
    - `columns` of dataframes, `*` for any run of characters (v2 only); `encoding` of v2.
    - `compression`: offer permessage-deflate (RFC 7692), for slow links: fewer bytes for more CPU.
    """

    name: _Name
    host: _Name
    ws_token: _Name
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8080
    secure: bool = False
    protocol: Literal["auto", "v2", "freqtrade"] = "auto"
    path: Annotated[str, msgspec.Meta(pattern="^/")] = DEFAULT_PATH
    ca_file: str | None = None
    bots: Names = "*"
    topics: Names = "*"
    columns: Names = "*"
    encoding: Literal["msgpack", "json"] = "msgpack"
    compression: bool = False

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(f, "***" if f == "ws_token" else getattr(self, f)) for f in self.__struct_fields__]

    def __repr__(self) -> str:
        return f"ProducerConfig({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class PublishConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The section `publish`: the hub that a local bot publishes to, by `url` or by `host`.

    `bot` is the name to publish under; where the section has none it is `ConsumerConfig.bot_name`. `attach`: whether the hub may
    ask the bot over REST, if it is a bot that can be asked. `outbox`: the file, in the data directory where it is no absolute path,
    that keeps ledger messages until they are acknowledged; null for none.
    """

    token: _Name
    bot: _Name = "bot"
    url: _Name | None = None
    host: _Name | None = None
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8080
    secure: bool = False
    ca_file: str | None = None
    attach: bool = True
    outbox: _Name | None = "outbox.sqlite"

    def __repr__(self) -> str:
        # A URL may hold a token, too.
        return f"PublishConfig(bot={self.bot!r}, host={self.host!r}, port={self.port})"

    @property
    def where(self) -> str:
        """The URL, made up from the host where there is none."""
        if self.url is not None:
            return self.url
        host = self.host or ""
        return f"{'wss' if self.secure else 'ws'}://{f'[{host}]' if ':' in host else host}:{self.port}"


class ConsumerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The section as a whole.

    - `wait_timeout` s without a message, then a ping; `ping_timeout` s without its answer, then a new connection. Less than
      one second counts as one.
    - `sleep_time` s is the cap of the growing, random wait between connects that are refused (freqtrade: the wait itself).
    - `remove_entry_exit_signals`: on receipt, enter_* and exit_* columns become 0 and tags null.
    - `initial_candle_limit`: how many candles of each pair to ask for at first, 0..1500; 0 begins with what comes live.
      None is freqtrade's 1500 on its wire, and on v2 all that the hub keeps.
    - `message_size_limit` in MiB: a larger message of a producer is not read.
    - `raw` is the whole file, for the local bot.
    """

    enabled: bool = False
    producers: tuple[ProducerConfig, ...] = ()
    wait_timeout: _Seconds = 15
    ping_timeout: _Seconds = 10
    sleep_time: _Seconds = 10
    remove_entry_exit_signals: bool = False
    initial_candle_limit: Annotated[int, msgspec.Meta(ge=0, le=1500)] | None = None
    message_size_limit: Annotated[float, msgspec.Meta(ge=1, le=20)] = 8
    raw: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        # `raw` holds secrets of every section.
        shown = ", ".join(f"{f}={getattr(self, f)!r}" for f in self.__struct_fields__ if f != "raw")
        return f"ConsumerConfig({shown})"

    @property
    def message_size_bytes(self) -> int:
        """`message_size_limit` in bytes."""
        return int(self.message_size_limit * 1024 * 1024)

    @property
    def bot_name(self) -> str:
        """The local bot's own name, freqtrade's `bot_name`.

        Raises:
            ConfigError: it cannot be one.
        """
        return checked_bot_name("bot_name", self.raw.get("bot_name", "bot"))

    @property
    def publish(self) -> PublishConfig | None:
        """Where the local bot publishes; None without the section.

        Raises:
            ConfigError: a key of it is wrong.
        """
        section = self.raw.get("publish")
        if section is None:
            return None
        if not isinstance(section, Mapping):
            raise ConfigError("publish", "expected a map of keys in braces")
        try:
            publish = msgspec.convert({"bot": self.bot_name, **section}, PublishConfig)
        except msgspec.ValidationError as error:
            raise _config_error(str(error), "publish") from None
        _check_publish(publish)
        return publish

    @property
    def timeframe(self) -> str | None:
        """The consumer's own timeframe, freqtrade's `timeframe`; the default of get_producer_df."""
        value = self.raw.get("timeframe")
        return value if isinstance(value, str) and value else None

    @property
    def candle_type(self) -> str | None:
        """The consumer's own candle type by freqtrade's `candle_type_def` or `trading_mode`; None where neither is set."""
        given = self.raw.get("candle_type_def")
        if isinstance(given, str) and given:
            return given
        mode = self.raw.get("trading_mode")
        if not isinstance(mode, str):
            return None
        return "futures" if mode == "futures" else "spot"


def load(path: Path | str, env: Mapping[str, str] | None = None) -> ConsumerConfig:
    """The configuration of a file with the environment (default: the process's) over it.

    Unknown keys of the section and of `publish` are named in a warning.

    Raises:
        ConfigError: the file cannot be read or is not JSON, or a key is wrong; the text names it and what was expected, and
            never a secret.
    """
    raw = load_raw(path, env)
    section = raw.get(SECTION)
    if section is None:
        raise ConfigError(SECTION, f"missing; expected this section in {path}")
    if not isinstance(section, dict):
        raise ConfigError(SECTION, "expected a map of keys in braces")
    _warn_unknown(section)
    if isinstance(publish := raw.get("publish"), Mapping):
        _warn_keys(publish, set(PublishConfig.__struct_fields__), "publish")
    config = _convert({**section, "raw": raw})
    _check(config)
    return config


def load_raw(path: Path | str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """All sections of a file as they are, with the environment (default: the process's) over them.

    Raises:
        ConfigError: the file cannot be read or is not JSON.
    """
    raw = _read(Path(path))
    _overlay(raw, os.environ if env is None else env)
    return raw


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ConfigError("", f"{path}: expected a file of at most {_MAX_FILE_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError("", f"{path}: cannot be read: {reason}") from None
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raw = _read_json5(path, text)
    if not isinstance(raw, dict):
        raise ConfigError("", f"{path}: expected an object in braces at the top")
    return raw


def _read_json5(path: Path, text: str) -> Any:
    try:
        return json5.loads(text)
    except (ValueError, RecursionError) as error:
        # The parser's text may quote the line, and so a secret: only its place is told.
        place = re.search(r":(\d+) ", str(error))
        where = f"line {place[1]}" if place else "it"
        raise ConfigError(
            "", f"{path}: {where} is not JSON (comments and trailing commas are allowed)"
        ) from None


def _overlay(raw: dict[str, Any], env: Mapping[str, str]) -> None:
    for prefix, above in ((_FREQTRADES, [SECTION]), (_OURS, [])):
        for name in sorted(env):
            if name.upper().startswith(prefix) and len(name) > len(prefix):
                parts = above + name[len(prefix) :].lower().split("__")
                _set(raw, parts, *_value(name, parts, env[name]))


def _value(name: str, parts: list[str], text: str) -> tuple[str, Any]:
    """The key that a variable sets and its value."""
    key = parts[-1]
    if key.endswith("_file") and key not in _KEYS_LIKE_FILES:
        key = key.removesuffix("_file")
        try:
            text = Path(text).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ConfigError(name, f"the file it names cannot be read: {reason}") from None
    if _SECRET.search(key):
        return key, text
    try:
        return key, json.loads(text)
    except ValueError:
        return key, text


def _set(raw: dict[str, Any], parts: list[str], key: str, value: Any) -> None:
    at: Any = raw
    for part, following in itertools.pairwise([*parts[:-1], key]):
        at = _descend(at, part, [] if following.isdigit() else {}, ".".join(parts))
    if isinstance(at, list):
        _descend(at, key, value, ".".join(parts))
        at[int(key)] = value
    elif isinstance(at, dict):
        at[_same_key(at, key)] = value
    else:
        raise ConfigError(".".join(parts), "set by the environment, but what holds it is no map")


def _descend(at: Any, part: str, fresh: Any, path: str) -> Any:
    if isinstance(at, dict):
        return at.setdefault(_same_key(at, part), fresh)
    if isinstance(at, list) and part.isdigit() and int(part) <= len(at):
        if int(part) == len(at):
            at.append(fresh)
        return at[int(part)]
    raise ConfigError(path, "set by the environment; expected numbers for items of a list, counted from 0")


def _same_key(at: Mapping[str, Any], key: str) -> str:
    """The key as the file writes it: variables have no case."""
    return next((k for k in at if k.lower() == key), key)


def _convert(section: Mapping[str, Any]) -> ConsumerConfig:
    try:
        return msgspec.convert(section, ConsumerConfig)
    except msgspec.ValidationError as error:
        raise _config_error(str(error)) from None


def _config_error(text: str, section: str = SECTION) -> ConfigError:
    """msgspec's "Expected `int`, got `str` - at `$.producers[0].port`" as an error that names the key."""
    what, _, path = text.partition(" - at `$")
    key = section + path.rstrip("`")
    missing = re.search(r"missing required field `(\w+)`", what)
    if missing:
        return ConfigError(f"{key}.{missing[1]}", "missing; expected text in quotes")
    named = {
        "`str`": "text in quotes",
        "`int`": "a whole number",
        "`float`": "a number",
        "`bool`": "true or false",
    }
    for shape, name in (*named.items(), ("`array`", "a list"), ("`object`", "a map"), ("`null`", "nothing")):
        what = what.replace(shape, name)
    return ConfigError(key, what[:1].lower() + what[1:])


def _check(config: ConsumerConfig) -> None:
    if config.enabled and not config.producers:
        raise ConfigError(f"{SECTION}.producers", "expected at least one producer when enabled")
    seen: set[str] = set()
    for i, producer in enumerate(config.producers):
        key = f"{SECTION}.producers[{i}]"
        if producer.name in seen:
            raise ConfigError(f"{key}.name", f"expected each name once, {producer.name!r} is there twice")
        seen.add(producer.name)
        _check_host(f"{key}.host", producer.host)
        if producer.ca_file is not None and not producer.secure:
            raise ConfigError(f"{key}.ca_file", "expected only with secure: true")


def _check_publish(publish: PublishConfig) -> None:
    checked_bot_name("publish.bot", publish.bot)
    if (publish.url is None) == (publish.host is None):
        raise ConfigError("publish.url", "expected either a URL or publish.host")
    if publish.host is not None:
        _check_host("publish.host", publish.host)
    elif re.search(r"\s", publish.where):
        raise ConfigError("publish.url", "expected a URL without spaces")
    secure = publish.secure if publish.url is None else publish.url.startswith(("wss:", "https:"))
    if publish.ca_file is not None and not secure:
        raise ConfigError("publish.ca_file", "expected only with secure: true or wss")


def _check_host(key: str, host: str) -> None:
    if re.search(r"[/\s@?#]", host):
        raise ConfigError(key, "expected a host name or an address, without scheme, port or path")


def checked_bot_name(key: str, name: object) -> str:
    """The name of a bot as it may be. Raises ConfigError for `key`."""
    try:
        checked = check_name("bot", name)
    except BadMessage as error:
        raise ConfigError(key, str(error).partition(": ")[2]) from None
    if not checked.isprintable():
        raise ConfigError(key, "expected printable characters")
    return checked


def _warn_unknown(section: Mapping[str, Any]) -> None:
    known = set(ConsumerConfig.__struct_fields__) - {"raw"}
    _warn_keys(section, known, SECTION)
    producers = section.get("producers")
    for i, producer in enumerate(producers if isinstance(producers, list) else []):
        if isinstance(producer, dict):
            _warn_keys(producer, set(ProducerConfig.__struct_fields__), f"{SECTION}.producers[{i}]")


def _warn_keys(mapping: Mapping[str, Any], known: set[str], path: str) -> None:
    for key in sorted(set(map(str, mapping)) - known):
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        _LOG.warning("%s.%s: not a key of this section, ignored%s", path, key, hint)
