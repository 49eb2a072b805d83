"""The servers that the REST benchmark compares. Run as a program: `rest_servers.py NAME`; it says where it listens, then obeys stdin.

Each has 200 open trades and an analyzed frame of 1500 rows and 42 columns; a line on stdin publishes one fill with the time of its
publishing, and the end of stdin ends it. Kept free of our own packages at import, so that the interpreter of a freqtrade
installation can run it too.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

USERNAME = "benchmark"
PASSWORD = "benchmark-password-1"
JWT = "benchmark-jwt-0123456789abcdefghij"
TOKEN = "benchmark-token-0123456789abcdefgh"
TRADES = 200
ROWS = 1500
INDICATORS = 32
KEY = ("BTC/USDT", "5m", "spot")


def frame() -> pd.DataFrame:
    """Candles and indicators, 42 columns in all, as freqtrade's strategies make them."""
    draw = np.random.default_rng(7)
    close = 60_000 * np.exp(np.cumsum(draw.normal(0, 0.001, ROWS)))
    rates = {
        "open": close * 1.0001, "high": close * 1.001, "low": close * 0.999, "close": close, "volume": draw.uniform(1, 9, ROWS),
    }  # fmt: skip
    dates = pd.date_range("2026-11-01", periods=ROWS, freq="5min", tz="UTC")
    indicators = {f"indicator_{i}": draw.normal(50, 20, ROWS) for i in range(INDICATORS)}
    signals = {
        "enter_long": draw.integers(0, 2, ROWS).astype(float),
        "enter_tag": "rig",
        "exit_long": 0.0,
        "exit_tag": "",
    }
    return pd.DataFrame({"date": dates, **rates, **indicators, **signals})


def obey(port: int, publish: Callable[[dict[str, Any]], object], *, prefix: str = "") -> None:
    """Say where it listens and publish a fill for each line."""
    said = {"port": port, "prefix": prefix, "username": USERNAME, "password": PASSWORD}
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        publish({"trade_id": 1, "pair": "BTC/USDT", "amount": 1.0, "sent_at": time.monotonic()})


def freqtrade() -> None:
    """freqtrade's own API server over a bot without an exchange: rates are made up, all else is freqtrade's."""
    logging.disable(logging.CRITICAL)
    from bare_bot import BareBot, Locks, config_for
    from freqtrade.enums import CandleType
    from freqtrade.rpc.api_server.webserver import ApiServer

    class Strategy(Locks):  # type: ignore[misc]
        def __getattr__(self, name: str) -> Any:
            return lambda *_, **__: []

    config = config_for(TOKEN, timeframe=KEY[1])
    config["api_server"] |= {"username": USERNAME, "password": PASSWORD, "jwt_secret_key": JWT}
    config["max_open_trades"] = TRADES
    bot = BareBot(config)
    bot.strategy = Strategy()
    for i in range(TRADES):
        bot.entry_fill(bot.entry(f"C{i}/USDT", 100.0))
    bot.dataprovider._set_cached_df(KEY[0], KEY[1], frame(), CandleType.SPOT)
    server = next(m for m in bot.rpc.registered_modules if isinstance(m, ApiServer))
    obey(bot.port, lambda fill: server.send_msg({"type": "entry_fill", **fill}))
    bot.stop()


if __name__ == "__main__":
    {"freqtrade": freqtrade}[sys.argv[1]]()
