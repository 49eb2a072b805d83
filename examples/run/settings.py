"""The configuration files of `make run`, with secrets made for this one run in a directory that only the user can read."""

from __future__ import annotations

import json
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PAPER", "PRODUCER", "USERNAME", "Settings", "write_consumer", "write_hub"]

PRODUCER, PAPER = "alpha", "paper"
USERNAME = "demo"
PREFERRED_PORT = 8080
# Three pairs by 5029 candles: a consumer that joins late or lags still gets every row.
CANDLES_PER_KEY = 6000
CANDLE_DEADLINE_S = 60


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the files are and the run's secrets. `reader` may only read; the publishers may only publish as one bot.

    `freqtrade` is the token of freqtrade bots: their wire cannot name a bot, so it stands for the producer. `password` is of the
    user that REST and FreqUI ask for; both see the paper bot.
    """

    directory: Path
    reader: str
    producer: str
    paper: str
    freqtrade: str
    password: str

    @classmethod
    def fresh(cls, directory: Path) -> Settings:
        """New secrets; the reader's is also in the file `token`, for a `tail` or a dashboard, the password in `password`."""
        settings = cls(directory, *(secrets.token_urlsafe(32) for _ in range(5)))
        _write(settings.token_file, settings.reader)
        _write(settings.freqtrade_file, settings.freqtrade)
        _write(settings.password_file, settings.password)
        return settings

    def __repr__(self) -> str:
        return f"Settings({self.directory})"

    @property
    def token_file(self) -> Path:
        """The file with the reader's token and nothing else."""
        return self.directory / "token"

    @property
    def freqtrade_file(self) -> Path:
        """The file with the token for freqtrade bots and nothing else."""
        return self.directory / "freqtrade-token"

    @property
    def password_file(self) -> Path:
        """The file with the password of the user and nothing else."""
        return self.directory / "password"

    @property
    def hub_file(self) -> Path:
        """The hub's configuration."""
        return self.directory / "hub.json"

    @property
    def consumer_file(self) -> Path:
        """The consumer's configuration."""
        return self.directory / "consumer.json"

    @property
    def bot_directory(self) -> Path:
        """Where the bot keeps its trades."""
        return self.directory / "bot"


def write_hub(settings: Settings, port: int | None, ui: Path | None = None) -> None:
    """The hub's file. Without a port 8080 is taken if it is free, else any. `ui` is a folder to be served at /."""
    chosen = port if port is not None else PREFERRED_PORT if _is_free(PREFERRED_PORT) else 0
    config = {
        "api_server": {
            "enabled": True,
            "listen_ip_address": "127.0.0.1",
            "listen_port": chosen,
            "verbosity": "error",
            "enable_openapi": True,
            "username": USERNAME,
            "password": settings.password,
            "jwt_secret_key": secrets.token_urlsafe(32),
            "ws_token": settings.reader,
        },
        "hub": {
            # Whom REST and FreqUI see at the hub's own address.
            "default_bot": PAPER,
            # What a freqtrade bot sees here, since its wire cannot name a bot.
            "tokens": [{"name": "freqtrade", "token": settings.freqtrade, "bot": PRODUCER}],
            "publishers": [
                {"name": PRODUCER, "token": settings.producer, "bots": [PRODUCER]},
                {"name": PAPER, "token": settings.paper, "bots": [PAPER]},
            ],
            # A page opened from a file has the origin "null".
            "allowed_origins": ["null"],
            "memory": {"candles": CANDLES_PER_KEY},
            "candle_deadline_s": CANDLE_DEADLINE_S,
            "drain_s": 3,
            "state_dir": str(settings.directory / "hub"),
            "ui_dir": None if ui is None else str(ui.absolute()),
        },
    }
    _write(settings.hub_file, json.dumps(config, indent=2))


def write_consumer(settings: Settings, port: int, currency: str) -> None:
    """The consumer's file: freqtrade's keys, and where the bot publishes its fills."""
    config: dict[str, Any] = {
        "bot_name": PAPER,
        "external_message_consumer": {
            "enabled": True,
            "producers": [
                {
                    "name": "hub",
                    "host": "127.0.0.1",
                    "port": port,
                    "ws_token": settings.reader,
                    "protocol": "v2",
                    "bots": [PRODUCER],
                }
            ],
        },
        "publish": {"host": "127.0.0.1", "port": port, "token": settings.paper, "bot": PAPER},
        "paper": {"start_from": "earliest"},
        "dry_run_wallet": 10_000,
        "stake_currency": currency,
        "stake_amount": "unlimited",
        "max_open_trades": 3,
        "fee": 0.002,
        "stoploss": -0.05,
        "minimal_roi": {"0": 0.06, "720": 0.03, "2880": 0.01},
        "force_entry_enable": True,
    }
    _write(settings.consumer_file, json.dumps(config, indent=2))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the hub does, so that a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
