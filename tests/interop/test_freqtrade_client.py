"""freqtrade-client, every public method, against the hub of `make run`: answers fit freqtrade's schemas, and changes show."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import jsonschema
import pytest
from bots import HERE, ROOT, interop_python, wait_for

FACTS = json.loads((ROOT / "tests" / "rest" / "freqtrade_openapi.json").read_text())
PAIR = "BTC/USD"
# Every method of the client, with the operation whose schema its answer has.
OPERATIONS = {
    "balance": "balance", "blacklist": "blacklist", "cancel_open_order": "cancel_open_order", "count": "count", "daily": "daily",
    "delete_lock": "delete_lock", "delete_trade": "delete_trade", "entries": "entries", "exits": "exits", "forcebuy": "force_enter",
    "forceenter": "force_enter", "forceexit": "force_exit", "health": "health", "list_custom_data": "custom_data",
    "list_open_trades_custom_data": "open_custom_data", "lock_add": "add_locks", "locks": "locks", "logs": "logs",
    "mix_tags": "mix_tags", "monthly": "monthly", "pair_candles": "pair_candles", "performance": "performance", "ping": "ping",
    "plot_config": "plot_config", "profit": "profit", "reload_config": "reload_config", "show_config": "show_config",
    "start": "start", "stats": "stats", "status": "status", "stop": "stop", "stopbuy": "pause", "strategy": "strategy",
    "sysinfo": "sysinfo", "trade": "trade", "trades": "trades", "version": "version", "weekly": "weekly", "whitelist": "whitelist",
}  # fmt: skip
WEBSERVER = {
    "available_pairs": [], "pair_history": [PAIR, "30m", "X", "20260101-"], "pairlists_available": [], "strategies": [],
}  # fmt: skip
# freqtrade's own answer without losses, although its schema says number.
NULL_IN_PROFIT = ("profit_factor",)


class Run:
    """`make run` as a process, and where it says that REST is."""

    def __init__(self, directory: Path) -> None:
        self.errors = (directory / "run.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "examples.run", "--speed", "4", "--port", "0", "--keep"],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "TMPDIR": str(directory)},
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        told = wait_for("make run to say how to ask it", self._told, 60)
        self.url, self.user = told[1], told[2]
        self.password = Path(told[3]).read_text()

    def _told(self) -> re.Match[str] | None:
        assert self.process.poll() is None, self.said()
        return re.search(r"ctl --url (\S+) --user (\S+) --password-file (\S+)", self.said())

    def said(self) -> str:
        """All of stderr so far."""
        self.errors.seek(0)
        return self.errors.read()

    def end(self) -> int:
        """Stop it as Ctrl-C does; its exit status."""
        self.process.terminate()
        self.process.communicate(timeout=60)
        self.errors.close()
        return self.process.returncode


class FtClient:
    """FtRestClient in its own environment."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.process = subprocess.Popen(
            [interop_python(), str(HERE / "client_probe.py"), url, user, password],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.methods = set(self._line()["methods"])
        self.used: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=20)

    def raw(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        """What a method returns."""
        assert self.process.stdin is not None
        self.used.add(method)
        self.process.stdin.write(json.dumps([method, arguments, keywords]) + "\n")
        self.process.stdin.flush()
        return self._line()["answer"]

    def __call__(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        """What a method returns, which must fit the schema of its operation."""
        answer = self.raw(method, *arguments, **keywords)
        check(OPERATIONS[method], answer)
        return answer

    def _line(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the client's process ended"
        return json.loads(line)


def check(operation: str, answer: Any) -> None:
    if operation == "ping":
        assert answer == {"status": "pong"}
        return
    told = answer
    if operation == "profit":
        told = {
            name: 0.0 if value is None and name in NULL_IN_PROFIT else value for name, value in answer.items()
        }
    schema = FACTS["answers"][operation] | {"components": FACTS["components"]}
    try:
        jsonschema.validate(told, schema)
    except jsonschema.ValidationError as error:
        raise AssertionError(f"{operation}: {error.message} in {json.dumps(answer)[:500]}") from None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    started = Run(tmp_path_factory.mktemp("run"))
    yield started
    assert started.end() == 0, started.said()


@pytest.fixture
def client(run: Run) -> Iterator[FtClient]:
    with FtClient(run.url, run.user, run.password) as connected:
        wait_for("the paper bot to trade", lambda: connected.raw("whitelist").get("length") == 3, 60)
        yield connected


def test_every_method_of_the_client(client: FtClient) -> None:
    assert client.methods == set(OPERATIONS) | set(WEBSERVER)
    reads(client)
    trades(client)
    pairs(client)
    control(client)
    for method, arguments in WEBSERVER.items():
        assert client.raw(method, *arguments) == {"detail": "Bot is not in the correct state."}
    assert client.used == client.methods


def test_a_wrong_password_is_told(run: Run) -> None:
    with FtClient(run.url, run.user, "wrong") as stranger:
        assert stranger.raw("version") == {"detail": "Unauthorized"}


def reads(client: FtClient) -> None:
    assert client("ping") == {"status": "pong"}
    config = client("show_config")
    assert (config["runmode"], config["state"], config["bot_name"]) == ("dry_run", "running", "paper")
    for method in (
        "version", "balance", "count", "daily", "weekly", "monthly", "entries", "exits", "mix_tags", "performance", "profit",
        "stats", "status", "trades", "health", "sysinfo", "logs", "plot_config", "whitelist",
    ):  # fmt: skip
        client(method)
    assert len(client("daily", 3)["data"]) == 3
    assert client("strategy", config["strategy"])["timeframe"] == "30m"
    candles = client("pair_candles", PAIR, "30m", 5)
    assert candles["length"] == len(candles["data"]) == 5
    assert "rsi" in client("pair_candles", PAIR, "30m", 5, ["rsi"])["columns"]


def trades(client: FtClient) -> None:
    """Orders by hand, from the resting order to the deleted trade; each shows in what is read afterwards."""
    client("stopbuy")
    assert client("show_config")["state"] == "paused"
    assert "trader is not running" in client.raw("forceenter", PAIR, "long")["error"]
    wait_for("no trade of the strategy", lambda: leave_all(client), 90)
    client("start")
    # Far below the market, so it rests until it is cancelled.
    resting = client(
        "forceenter", PAIR, "long", 1.0, order_type="limit", stake_amount=100.0, enter_tag="by hand"
    )
    assert (resting["has_open_orders"], resting["enter_tag"]) == (True, "by hand")
    assert resting["trade_id"] in [trade["trade_id"] for trade in client("status")]
    assert "already open" in client.raw("forcebuy", PAIR)["error"]
    client("cancel_open_order", resting["trade_id"])
    assert resting["trade_id"] not in [trade["trade_id"] for trade in client("status")]
    number = client("forcebuy", PAIR)["trade_id"]
    bought = wait_for("the entry to fill", lambda: settled(client, number), 60)
    half = round(bought["amount"] / 2, 8)
    assert client("forceexit", number, "market", half)["result"] == f"Created exit order for trade {number}."
    left = wait_for("half of it to be sold", lambda: sold(client, number), 60)
    assert left["amount"] == pytest.approx(bought["amount"] - half, abs=1e-8)
    assert client.raw("list_custom_data", number) == {
        "detail": f"No custom-data found for Trade ID: {number}."
    }
    nothing = client.raw("list_open_trades_custom_data")
    assert nothing == {"detail": "No custom-data found for any open trades."}
    assert client("delete_trade", number)["trade_id"] == number
    assert number not in [trade["trade_id"] for trade in client("status")]
    assert client.raw("trade", number) == {"detail": "Trade not found."}


def leave_all(client: FtClient) -> bool:
    """Whether nothing is open; orders to leave what is."""
    if client("status"):
        client("forceexit", "all")
    return not client("status")


def settled(client: FtClient, number: int) -> Any:
    """The trade, once its order is filled."""
    trade = client("trade", number)
    return trade if trade["open_fill_timestamp"] and not trade["has_open_orders"] else None


def sold(client: FtClient, number: int) -> Any:
    """The trade, once a part of it was sold."""
    trade = client("trade", number)
    return trade if trade["nr_of_successful_exits"] else None


def pairs(client: FtClient) -> None:
    """The blacklist and locks, and that they hold."""
    assert client("blacklist", "XRP/USD")["blacklist"] == ["XRP/USD"]
    assert client("blacklist")["blacklist_expanded"] == ["XRP/USD"]
    added = client("lock_add", PAIR, "2099-01-01 00:00:00+00:00", reason="by hand")
    (lock,) = [lock for lock in added["locks"] if lock["pair"] == PAIR]
    assert (lock["reason"], lock["active"]) == ("by hand", True)
    assert client("locks")["lock_count"] == added["lock_count"]
    assert client("delete_lock", lock["id"])["lock_count"] == added["lock_count"] - 1


def control(client: FtClient) -> None:
    """Stop, start and reload, as show_config tells."""
    assert client("stop") == {"status": "stopping trader ..."}
    assert client("stop") == {"status": "already stopped"}
    assert client("show_config")["state"] == "stopped"
    assert client("start") == {"status": "starting trader ..."}
    assert client("start") == {"status": "already running"}
    assert client("reload_config") == {"status": "Reloading config ..."}
    wait_for("the bot to come back", lambda: client.raw("show_config").get("state") == "running", 60)
