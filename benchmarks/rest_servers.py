"""The servers that the REST benchmark compares. Run as a program: `rest_servers.py NAME`; it says where it listens, then obeys stdin.

Each has 200 open trades and an analyzed frame of 1500 rows and 42 columns; a line on stdin publishes one fill with the time of its
publishing, and the end of stdin ends it. Kept free of our own packages at import, so that the interpreter of a freqtrade
installation can run it too.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

USERNAME = "benchmark"
PASSWORD = "benchmark-password-1"
JWT = "benchmark-jwt-0123456789abcdefghij"
TOKEN = "benchmark-token-0123456789abcdefgh"
PUBLISHER = "benchmark-publisher-0123456789abcd"
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


def in_process() -> None:
    """This hub with a PaperBot that the same program registered."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    bot = asyncio.run_coroutine_threadsafe(paper_bot(), loop).result()
    hub = hub_of({"default_bot": "bench"})
    hub.start()
    hub.register("bench", bot.api(), loop=loop)
    obey(hub.port, lambda fill: hub.publish("entry_fill", fill))
    hub.stop()


def attached() -> None:
    """This hub with a PaperBot that attached from a process of its own, as `make run` has it."""
    hub = hub_of(
        {"default_bot": "bench", "publishers": [{"name": "bench", "token": PUBLISHER, "bots": ["bench"]}]}
    )
    hub.start()
    command = [sys.executable, __file__, "bot", str(hub.port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as bot:
        assert bot.stdin is not None
        assert bot.stdout is not None
        bot.stdout.readline()
        obey(hub.port, lambda fill: hub.publish("entry_fill", fill))
        bot.stdin.close()
    hub.stop()


def bot() -> None:
    """The process of the attached bot; ends with its stdin."""
    asyncio.run(_attach(sys.argv[2]))


async def _attach(port: str) -> None:
    from consumer.answering import Answering
    from consumer.attachment import Attachment

    bot = await paper_bot()
    answer = Answering(bot.api())
    async with Attachment(f"ws://127.0.0.1:{port}", PUBLISHER, "bench", answer) as attachment:
        await attachment.ready()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
    await bot.stop()


def hub_of(section: dict[str, Any]) -> Any:
    """A hub on a free port."""
    from hub.server import Hub

    server = {
        "listen_port": 0, "username": USERNAME, "password": PASSWORD, "jwt_secret_key": JWT, "ws_token": TOKEN, "verbosity": "error",
    }  # fmt: skip
    return Hub({"api_server": server, "hub": {**section, "ledger": {"kind": "memory"}}})


async def paper_bot() -> Any:
    """A started PaperBot with its open trades: real candles in, so everything behind REST is what it is in a run."""
    from consumer.bot import PaperBot
    from hub.frames.columns import Columns
    from hub.protocol.localbot import Delivery
    from hub.protocol.messages import AnalyzedDf, FrameKey, Whitelist

    context = Context(Path(tempfile.mkdtemp(prefix="tradewire-bench-")))
    context.frame = Columns.from_pandas(frame())
    bot = PaperBot()
    await bot.start(context)
    pairs = [KEY[0], *(f"C{i}/USDT" for i in range(1, TRADES))]
    bot.handle(Delivery(producer="p", bot="b", topic="whitelist", message=Whitelist(data=pairs)))
    dates = pd.date_range("2026-11-01", periods=2, freq="5min", tz="UTC")
    rows = pd.DataFrame(
        {
            "date": dates,
            "open": 100.0,
            "high": 101.0,
            "low": 99.0,
            "close": 100.0,
            "volume": 1.0,
            "enter_long": 1,
        }
    )
    for pair in pairs:
        message = AnalyzedDf(key=FrameKey(pair, *KEY[1:]), df=Columns.from_pandas(rows))
        bot.handle(Delivery(producer="p", bot="b", topic="analyzed_df", message=message, snapshot=True))
    assert len(bot.summary().open_trades) == TRADES
    return bot


class Context:
    """What a feed gives its bot: settings, and the frame of every pair."""

    name = "bench"
    frame: Any = None

    def __init__(self, directory: Path) -> None:
        self.data_dir = directory
        self.config = {
            "stake_currency": "USDT", "stake_amount": 10, "max_open_trades": TRADES, "dry_run_wallet": 100_000,
            "paper": {"start_from": "earliest"}, "stoploss": -0.99,
        }  # fmt: skip

    async def publish(self, topic: str, data: Any, *, mid: str, kept: bool = False) -> None:
        """Nothing to publish to."""

    async def reload(self, check: Any = None) -> None:
        """Nothing to read again."""

    def get_producer_pairs(self, producer_name: str = "default") -> list[str]:
        return []

    def analyzed_df(self, key: Any, producer_name: str = "default") -> Any:
        from hub.protocol.messages import AnalyzedDf

        return AnalyzedDf(key=key, df=self.frame)


SERVERS = {"in-process": in_process, "attached": attached, "bot": bot, "freqtrade": freqtrade}

if __name__ == "__main__":
    SERVERS[sys.argv[1]]()
