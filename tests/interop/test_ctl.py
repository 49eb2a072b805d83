"""RestClient and `tradewire-consumer ctl` against a whole freqtrade bot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bots import PAIRS, PASSWORD, USERNAME, FakeExchange, FreqtradeProducer

from consumer import BotAPI, RestClient
from consumer.errors import BotRefused, NotFound
from consumer.rest import decoded
from hub.protocol.answers import EnteredTrade
from hub.protocol.botapi import OPERATIONS

COMMAND = str(Path(sys.executable).with_name("tradewire-consumer"))


class Ctl:
    """Runs ctl with the bot's own configuration, as a script does."""

    def __init__(self, bot: FreqtradeProducer) -> None:
        self.config = bot.directory / "config.json"

    def __call__(self, *words: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [COMMAND, "ctl", "--config", str(self.config), *words],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if not k.startswith("TRADEWIRE")},
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def good(self, *words: str) -> str:
        code, out, err = self(*words)
        assert (code, err) == (0, ""), err
        return out


def test_a_bot_is_asked_and_driven(directory: Path, fake_exchange: FakeExchange) -> None:
    with FreqtradeProducer(
        directory / "bot", exchange=fake_exchange, token="interop-ctl-token-0123456789"
    ) as bot:
        ctl = Ctl(bot)
        assert ctl.good("ping") == "pong\n"
        assert json.loads(ctl.good("whitelist", "--json")) == bot.api("whitelist")
        config = json.loads(ctl.good("show_config", "--json"))
        assert config == bot.api("show_config")

        # The rig's strategy neither enters nor leaves XRP.
        entered = ctl.good("forceenter", "XRP/USDT", "ordertype=market", "enter_tag=by_hand", "--json")
        assert isinstance(decoded(OPERATIONS["force_enter"], entered.encode()), EnteredTrade)
        assert "by_hand" in ctl.good("status")
        with RestClient(f"http://127.0.0.1:{bot.port}", USERNAME, PASSWORD) as client:
            the_types_fit(client)
        trade = next(t for t in bot.api("status") if t["enter_tag"] == "by_hand")
        number = str(trade["trade_id"])
        assert json.loads(ctl.good("trade", number, "--json"))["pair"] == "XRP/USDT"
        assert (
            ctl.good("forceexit", number, "ordertype=market") == f"Created exit order for trade {number}.\n"
        )

        assert "by ctl" in ctl.good("lock_add", "ETH/USDT", "2099-01-01 00:00:00", "reason=by ctl")
        assert "ADA/USDT" in ctl.good("blacklist_add", "ADA/USDT")
        assert "ADA/USDT" not in ctl.good("blacklist_delete", "ADA/USDT")
        assert ctl("forceexit", "999") == (1, "", "tradewire-consumer: the bot refuses: invalid argument\n")
        code, out, err = ctl("stop")
        assert (code, out) == (2, "")
        assert "--yes" in err
        assert ctl.good("stop", "--yes") == "stopping trader ...\n"


def the_types_fit(client: RestClient) -> None:
    """Every operation that only reads has an answer of its type."""
    assert client.ask(BotAPI.whitelist).whitelist == PAIRS
    assert client.ask(BotAPI.trades, limit=5).offset == 0
    candles = client.ask(BotAPI.pair_candles, pair=PAIRS[0], timeframe="1m", limit=3)
    assert candles.length == len(candles.data) == 3
    chosen = client.ask(BotAPI.chosen_pair_candles, pair=PAIRS[0], timeframe="1m", columns=["rsi"])
    assert "rsi" in chosen.columns
    assert client.ask(BotAPI.strategy, strategy="RigProducer").timeframe == "1m"
    for name in (
        "version", "show_config", "health", "logs", "sysinfo", "plot_config", "markets", "balance", "count", "entries", "exits",
        "mix_tags", "performance", "profit", "profit_all", "stats", "historic_balance", "daily", "weekly", "monthly", "status",
        "blacklist", "locks",
    ):  # fmt: skip
        client.ask(name)
    with pytest.raises(NotFound, match="No custom-data found for any open trades"):
        client.ask(BotAPI.open_custom_data)
    with pytest.raises(NotFound, match="Trade not found"):
        client.ask(BotAPI.trade, tradeid=999)
    with pytest.raises(BotRefused, match="invalid argument"):
        client.ask(BotAPI.force_exit, tradeid=999)
