"""The sections and the whole: what every key is called, its kind and its default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from hub.config.entries import PUBLISHERS, TOKENS, UPSTREAMS, BotToken, PublisherEntry, Upstream
from hub.config.kinds import (
    ADDRESS,
    BYTES,
    COUNT,
    DAYS,
    FLAG,
    LISTEN_PORT,
    LOG_KIND,
    MILLISECONDS,
    OPTIONAL_NAME,
    OPTIONAL_PATH,
    ORIGINS,
    PROXIES,
    SECONDS,
    USERNAME,
    VERBOSITY,
    whole,
)
from hub.config.linger import LINGERS
from hub.config.secret import FULL_SECRET, SECRET, SECRETS, Secret
from hub.config.show_configs import SHOW_CONFIGS

__all__ = [
    "SECTIONS",
    "ApiServer",
    "Compression",
    "Config",
    "HubSection",
    "Ledger",
    "Limits",
    "Memory",
    "Slow",
    "Throttle",
    "client_tokens",
]


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


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one client may do; told in hub.welcome. `connections` is of the whole hub, `message` in bytes."""

    connections: Annotated[int, COUNT] = 10_000
    message: Annotated[int, whole(1024, 64 * 1024 * 1024)] = 1_048_576
    items: Annotated[int, COUNT] = 256
    keys: Annotated[int, COUNT] = 10_000
    in_flight: Annotated[int, COUNT] = 64
    publish_in_flight: Annotated[int, COUNT] = 256
    requests_per_s: Annotated[int, COUNT] = 50


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of what the hub keeps. `event_bytes` is per bot, `control_bytes` per session, `candles` per key."""

    ledger_bytes: Annotated[int, BYTES] = 67_108_864
    replay_bytes: Annotated[int, whole(0, 2**40)] = 33_554_432
    event_bytes: Annotated[int, BYTES] = 1_048_576
    control_bytes: Annotated[int, BYTES] = 1_048_576
    candles: Annotated[int, whole(1, 1_000_000)] = 1500
    frames_bytes: Annotated[int, BYTES] = 536_870_912


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """Where acknowledged messages live and how long. `path` as configured; `Config.ledger_dir` is what it comes to."""

    kind: Annotated[str, LOG_KIND] = "sqlite"
    path: Annotated[str | None, OPTIONAL_PATH] = None
    max_bytes: Annotated[int, BYTES] = 1_073_741_824
    max_age_days: Annotated[float, DAYS] = 30.0
    retry_ms: Annotated[int, MILLISECONDS] = 1000


class Slow(msgspec.Struct, frozen=True, kw_only=True):
    """When a client counts as slow: over `limit_bytes` behind on the ledger and no progress for `grace_s` seconds."""

    limit_bytes: Annotated[int, BYTES] = 8_388_608
    grace_s: Annotated[float, SECONDS] = 30.0


class Compression(msgspec.Struct, frozen=True, kw_only=True):
    """permessage-deflate with clients that offer it, of frames from `min_bytes` on."""

    enabled: Annotated[bool, FLAG] = False
    min_bytes: Annotated[int, whole(64, 1 << 20)] = 1024


class Throttle(msgspec.Struct, frozen=True, kw_only=True):
    """Wrong credentials that one address may show: `burst` at once, `per_minute` more a minute; then 429."""

    per_minute: Annotated[int, COUNT] = 20
    burst: Annotated[int, COUNT] = 20


class HubSection(msgspec.Struct, frozen=True, kw_only=True):
    """The hub's own section. `default_bot` as configured; `Config.default_bot` is what it comes to."""

    default_bot: Annotated[str | None, OPTIONAL_NAME] = None
    tokens: Annotated[tuple[BotToken, ...], TOKENS] = ()
    publishers: Annotated[tuple[PublisherEntry, ...], PUBLISHERS] = ()
    upstreams: Annotated[tuple[Upstream, ...], UPSTREAMS] = ()
    allowed_origins: Annotated[tuple[str, ...], ORIGINS] = ()
    allow_query_token: Annotated[bool, FLAG] = False
    trusted_proxies: Annotated[tuple[str, ...], PROXIES] = ()
    throttle: Throttle = Throttle()
    limits: Limits = Limits()
    memory: Memory = Memory()
    ledger: Ledger = Ledger()
    slow: Slow = Slow()
    compression: Compression = Compression()
    heartbeat_ms: Annotated[int, MILLISECONDS] = 15_000
    pong_timeout_ms: Annotated[int, MILLISECONDS] = 10_000
    drain_s: Annotated[float, SECONDS] = 10.0
    candle_deadline_s: Annotated[float, SECONDS] = 10.0
    linger_ms: Annotated[Mapping[str, float], LINGERS] = {}
    state_dir: Annotated[str | None, OPTIONAL_PATH] = None
    ui_dir: Annotated[str | None, OPTIONAL_PATH] = None
    bots: Annotated[Mapping[str, Mapping[str, Any]], SHOW_CONFIGS] = {}


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A checked configuration.

    `warnings` are lines for the user. `path` is the file, None without one. `state_dir` is where the hub keeps what must
    outlive it, `ledger_dir` where its ledger is on disk, `ui_dir` the build of a UI that it serves. `generated` names the
    credentials that were not configured and come from `state_dir`/secrets.json.
    """

    api_server: ApiServer
    hub: HubSection = HubSection()
    warnings: tuple[str, ...] = ()
    path: Path | None = None
    state_dir: Path | None = None
    ledger_dir: Path | None = None
    ui_dir: Path | None = None
    generated: tuple[str, ...] = ()

    @property
    def default_bot(self) -> str:
        """The bot of everyone who cannot name one: as configured, else the only upstream, else "default"."""
        if self.hub.default_bot is not None:
            return self.hub.default_bot
        return self.hub.upstreams[0].name if len(self.hub.upstreams) == 1 else "default"


SECTIONS: dict[str, type[msgspec.Struct]] = {"api_server": ApiServer, "hub": HubSection}
"""The section of each name that is looked at in a file and in the environment."""


def client_tokens(config: Config) -> Iterator[tuple[str, Secret]]:
    """Every token that a client may show here, with its key. Upstreams' tokens are shown by us, to others."""
    many = len(config.api_server.ws_token) > 1
    for i, token in enumerate(config.api_server.ws_token):
        yield f"api_server.ws_token[{i}]" if many else "api_server.ws_token", token
    for i, entry in enumerate(config.hub.tokens):
        yield f"hub.tokens[{i}].token", entry.token
    for i, publisher in enumerate(config.hub.publishers):
        yield f"hub.publishers[{i}].token", publisher.token
