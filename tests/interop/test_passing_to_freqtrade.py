"""A whole freqtrade bot behind the hub: REST through the hub is REST of the bot, byte for byte, and does what it does there.

Each request is asked directly, through the hub, and directly again. The answer through the hub has to be one of the two others: all
that depends on the time (a candle, a price, a loop of the bot) changes in steps. Fields that never are the same twice are listed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from bots import PASSWORD, USERNAME, FakeExchange, FreqtradeQuiet, HubProcess, wait_for

TOKEN = "interop-passing-read-token-0123456789abcdef"
UPSTREAM_TOKEN = "interop-passing-upstream-token-0123456789"
NAME = "maker"
BASES = ("/api/v1", f"/bots/{NAME}/api/v1")
BTC, ETH = "BTC/USDT", "ETH/USDT"

TIME_DEPENDENT = {
    # The machine's load and memory, measured for each answer.
    "sysinfo": {"cpu_pct", "cpu_avg", "ram_pct", "1m", "5m", "15m", "pct"},
}
TRIES = 5

READS = [
    "ping", "version", "show_config", "logs", "logs?limit=3", "plot_config", "plot_config?strategy=RigQuiet", "markets",
    "markets?base=BTC&include_inactive=true", "strategy/RigQuiet", "sysinfo", "health", "balance", "count", "entries",
    f"entries?pair={BTC}", "exits", f"exits?pair={BTC}", "mix_tags", f"mix_tags?pair={BTC}", "performance", "profit",
    "profit_all", "stats", "historic_balance", "daily", "daily?timescale=3", "weekly", "monthly?timescale=2", "status",
    "trades", "trades?limit=1&offset=1", "trades?limit=2&order_by_id=false", "trade/1", "trades/open/custom-data",
    "trades/1/custom-data", "trades/1/custom-data?key=filled", "blacklist", "whitelist", "locks",
    f"pair_candles?pair={BTC}&timeframe=1m&limit=20", "pair_candles?pair=ETH%2FUSDT&timeframe=1m",
]  # fmt: skip
WEBSERVER = [
    "strategies", "exchanges", "hyperoptloss", "freqaimodels", "available_pairs", "backtest", "backtest/abort",
    "backtest/history", "backtest/history/result?filename=a&strategy=b", "backtest/history/a/market_change",
    "backtest/history/a/b/wallet", "background", "background/x", "pair_history?pair=a&timeframe=b&timerange=c&strategy=d",
    "pairlists/available", "pairlists/evaluate/x", "lookahead_analysis/x",
]  # fmt: skip
REFUSED: list[tuple[str, str, Any, int]] = [
    ("GET", "nope", None, 404),
    ("GET", "ping/", None, 404),
    ("GET", "", None, 404),
    ("GET", "trade/4711", None, 404),
    ("GET", "strategy/Nope", None, 404),
    ("GET", "trades/1/custom-data?key=x", None, 404),
    ("GET", "strategy/..%2F..%2Fetc", None, 404),
    ("GET", "daily?timescale=0", None, 422),
    ("GET", "daily?timescale=x", None, 422),
    ("GET", "pair_candles", None, 422),
    ("GET", "forceenter", None, 404),
    ("HEAD", "version", None, 405),
    ("POST", "ping", None, 405),
    ("POST", "forceenter", {}, 422),
    ("POST", "forceenter", "{", 422),
    ("POST", "forceenter", {"pair": "NO/PAIR"}, 502),
    ("POST", "forceenter", {"pair": BTC, "side": "short"}, 502),
    ("POST", "forceexit", {"tradeid": "4711"}, 502),
    ("POST", "blacklist", {"blacklist": 1}, 422),
    ("POST", "locks", {}, 422),
    ("POST", "backtest", {}, 503),
    ("POST", "download_data", {"pairs": [], "timeframes": []}, 503),
    ("DELETE", "backtest", None, 503),
    ("DELETE", "trades/4711", None, 502),
    ("DELETE", "trades/4711/open-order", None, 502),
    ("DELETE", "locks/x", None, 422),
    ("PATCH", "backtest/history/a", {"notes": "n", "strategy": "s"}, 503),
]


class Rig:
    """A bot, the hub before it, and a client of each."""

    def __init__(
        self, bot: FreqtradeQuiet, hub: HubProcess, direct: httpx.Client, through: httpx.Client
    ) -> None:
        self.bot = bot
        self.hub = hub
        self.direct = direct
        self.through = through

    def ask(
        self, method: str, base: str, path: str, body: Any = None, *, direct: bool = False
    ) -> httpx.Response:
        client = self.direct if direct else self.through
        keys: dict[str, Any] = {}
        if body is not None:
            keys["content"] = body if isinstance(body, str) else json.dumps(body)
            keys["headers"] = {"Content-Type": "application/json"}
        return client.request(method, f"{'/api/v1' if direct else base}/{path}", **keys)

    def do(self, base: str, method: str, path: str, body: Any = None) -> Any:
        """A mutation through the hub that has to be accepted."""
        answer = self.ask(method, base, path, body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def seen(self, path: str) -> Any:
        """What the bot itself says."""
        return self.ask("GET", "", path, direct=True).raise_for_status().json()

    def until(self, what: str, found: Callable[[], Any]) -> Any:
        return wait_for(what, found, 60, of=self.bot)


@pytest.fixture(scope="module")
def rig(fake_exchange: FakeExchange, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    directory = tmp_path_factory.mktemp("passing")
    bot = FreqtradeQuiet(directory / "bot", exchange=fake_exchange, token=UPSTREAM_TOKEN)
    upstream = {
        "name": NAME, "host": "127.0.0.1", "port": bot.port, "ws_token": UPSTREAM_TOKEN, "username": USERNAME,
        "password": PASSWORD,
    }  # fmt: skip
    hub = HubProcess(
        directory / "hub",
        api_server={"ws_token": TOKEN},
        hub={"upstreams": [upstream], "state_dir": str(directory / "state")},
    )
    keys: dict[str, Any] = {"auth": (USERNAME, PASSWORD), "timeout": 30, "trust_env": False}
    with (
        bot,
        hub,
        httpx.Client(base_url=f"http://127.0.0.1:{bot.port}", **keys) as direct,
        httpx.Client(base_url=f"http://127.0.0.1:{hub.port}", **keys) as through,
    ):
        rig = Rig(bot, hub, direct, through)
        rig.until("the bot to run", lambda: runs(rig))
        rig.until("analyzed candles", lambda: rig.seen(f"pair_candles?pair={BTC}&timeframe=1m")["length"])
        yield rig


def told(path: str, answer: httpx.Response) -> tuple[int, str, Any]:
    """What has to be the same: the bytes, but for a path with time-dependent fields."""
    varying = TIME_DEPENDENT.get(path)
    body = answer.content if varying is None else without(answer.json(), varying)
    return answer.status_code, answer.headers.get("content-type", ""), body


def without(value: Any, keys: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: "*" if key in keys else without(item, keys) for key, item in value.items()}
    return [without(item, keys) for item in value] if isinstance(value, list) else value


def assert_same(rig: Rig, base: str, method: str, path: str, body: Any = None) -> httpx.Response:
    """The answer through the hub, once it is the bot's own of just before or just after."""
    for _ in range(TRIES):
        before = told(path, rig.ask(method, base, path, body, direct=True))
        answer = rig.ask(method, base, path, body)
        got = told(path, answer)
        after = told(path, rig.ask(method, base, path, body, direct=True))
        if got in (before, after):
            return answer
    raise AssertionError(f"{method} {path}: {got} is neither {before} nor {after}")


# --- in this order: the reads see the trades that the mutations made


@pytest.mark.parametrize("base", BASES)
def test_what_is_done_through_the_hub_is_seen_at_the_bot(rig: Rig, base: str) -> None:
    until = "2037-01-01 00:00:00Z"
    locks = rig.do(
        base, "POST", "locks", [{"pair": ETH, "until": until, "side": "long", "reason": "by hand"}]
    )
    assert rig.seen("locks") == locks
    assert locks["locks"][0]["reason"] == "by hand"
    rig.do(base, "DELETE", f"locks/{locks['locks'][0]['id']}")
    assert rig.seen("locks")["lock_count"] == 0
    rig.do(base, "POST", "locks", [{"pair": ETH, "until": until}])
    assert (
        rig.do(base, "POST", "locks/delete", {"pair": ETH})["lock_count"]
        == rig.seen("locks")["lock_count"]
        == 0
    )

    assert "ADA/USDT" in rig.do(base, "POST", "blacklist", {"blacklist": ["ADA/USDT"]})["blacklist"]
    assert rig.seen("blacklist")["blacklist"] == ["LTC/USDT", "ADA/USDT"]
    assert rig.do(base, "DELETE", "blacklist?pairs_to_delete=ADA%2FUSDT")["blacklist"] == ["LTC/USDT"]
    assert rig.seen("blacklist")["blacklist"] == ["LTC/USDT"]

    for action, state in (("pause", "paused"), ("stop", "stopped"), ("start", "running")):
        rig.do(base, "POST", action)
        rig.until(f"the bot to be {state}", lambda state=state: rig.seen("show_config")["state"] == state)


@pytest.mark.parametrize("base", BASES)
def test_trades_are_made_and_ended_through_the_hub(rig: Rig, base: str) -> None:
    entered = rig.do(
        base,
        "POST",
        "forceenter",
        {"pair": BTC, "side": "long", "ordertype": "market", "entry_tag": "by_hand"},
    )
    number = entered["trade_id"]
    trade = rig.until("the entry to be filled", lambda: filled(rig, number))
    assert (trade["enter_tag"], trade["pair"]) == ("by_hand", BTC)

    rig.do(
        base,
        "POST",
        "forceexit",
        {"tradeid": str(number), "ordertype": "market", "amount": trade["amount"] / 2},
    )
    rig.until("half of it to be sold", lambda: rig.seen(f"trade/{number}")["nr_of_successful_exits"] == 1)
    assert rig.do(base, "POST", f"trades/{number}/reload")["trade_id"] == number
    rig.do(base, "POST", "forceexit", {"tradeid": str(number), "ordertype": "market"})
    rig.until("the rest to be sold", lambda: not rig.seen(f"trade/{number}")["is_open"])

    low = rig.seen(f"trade/{number}")["open_rate"] * 0.5
    waiting = rig.do(
        base,
        "POST",
        "forceenter",
        {"pair": ETH, "side": "long", "ordertype": "limit", "price": round(low / 20, 2)},
    )
    assert rig.seen(f"trade/{waiting['trade_id']}")["has_open_orders"]
    # freqtrade cancels it, and then has no trade left to answer with.
    answer = rig.ask("DELETE", base, f"trades/{waiting['trade_id']}/open-order")
    said = f"Error querying /api/v1/trades/{waiting['trade_id']}/open-order: no active trade"
    assert (answer.status_code, answer.json()) == (502, {"error": said})
    rig.until("the order to be cancelled", lambda: waiting["trade_id"] not in open_trades(rig))

    doomed = rig.do(base, "POST", "forceenter", {"pair": ETH, "side": "long", "ordertype": "market"})[
        "trade_id"
    ]
    rig.until("another entry to be filled", lambda: filled(rig, doomed))
    assert rig.do(base, "DELETE", f"trades/{doomed}")["trade_id"] == doomed
    assert rig.ask("GET", "", f"trade/{doomed}", direct=True).status_code == 404


def filled(rig: Rig, number: int) -> Any:
    trade = rig.seen(f"trade/{number}")
    return trade if trade["nr_of_successful_entries"] and not trade["has_open_orders"] else None


def open_trades(rig: Rig) -> set[int]:
    return {trade["trade_id"] for trade in rig.seen("status")}


@pytest.mark.parametrize("base", BASES)
def test_every_read_is_the_bots_own(rig: Rig, base: str) -> None:
    if not open_trades(rig):
        number = rig.do(base, "POST", "forceenter", {"pair": "SOL/USDT", "ordertype": "market"})["trade_id"]
        rig.until("the entry to be filled", lambda: filled(rig, number))
    for path in READS:
        answer = assert_same(rig, base, "GET", path)
        assert answer.status_code == 200, f"{path}: {answer.text}"
    candles = {"pair": BTC, "timeframe": "1m", "columns": ["sma20"], "limit": 10}
    assert assert_same(rig, base, "POST", "pair_candles", candles).json()["length"] == 10
    assert (
        rig.ask("HEAD", base, "ping").status_code
        == rig.ask("HEAD", "", "ping", direct=True).status_code
        == 200
    )


@pytest.mark.parametrize("base", BASES)
def test_every_refusal_is_the_bots_own(rig: Rig, base: str) -> None:
    for path in WEBSERVER:
        answer = assert_same(rig, base, "GET", path)
        assert answer.status_code == 503, f"{path}: {answer.text}"
    answers = [assert_same(rig, base, method, path, body) for method, path, body, _ in REFUSED]
    told = [
        (method, path, body, answer.status_code)
        for (method, path, body, _), answer in zip(REFUSED, answers, strict=True)
    ]
    assert told == REFUSED


def test_reload_config_works_through_the_hub(rig: Rig) -> None:
    before = len(rig.bot.lines())
    rig.do(BASES[0], "POST", "reload_config")

    def reloaded() -> bool:
        lines = rig.bot.lines()[before:]
        return any("RELOAD_CONFIG" in line or "reload_config" in line.lower() for line in lines)

    rig.until("the bot to reload", reloaded)
    rig.until("the bot to run again", lambda: runs(rig))
    assert rig.ask("GET", BASES[0], "count").status_code == 200


def runs(rig: Rig) -> bool:
    """Its API server starts before it trades, and again when it reloads its configuration."""
    try:
        return bool(rig.seen("show_config")["state"] == "running")
    except httpx.HTTPError:
        return False


def test_a_killed_bot_is_out_of_reach_and_works_again_when_it_is_back(rig: Rig) -> None:
    rig.bot.kill()
    for base in BASES:
        for method, path in (("GET", "count"), ("POST", "start"), ("GET", "ping")):
            answer = rig.ask(method, base, path)
            said = {"error": f"Error querying /api/v1/{path}: bot {NAME} is out of reach"}
            assert (answer.status_code, answer.json()) == (502, said)
    # With another key none of the hub's tokens is good.
    config = rig.bot.directory / "config.json"
    settings = json.loads(config.read_text())
    settings["api_server"]["jwt_secret_key"] = "another-jwt-secret-0123456789abcdef-01"
    config.write_text(json.dumps(settings))
    rig.bot.start()
    rig.until("the bot to run again", lambda: runs(rig))
    for base, pair in zip(BASES, (BTC, ETH), strict=True):
        rig.do(base, "POST", "locks", [{"pair": pair, "until": in_an_hour()}])
    assert {lock["pair"] for lock in rig.seen("locks")["locks"]} == {BTC, ETH}
    log = rig.hub.log.read_text()
    assert PASSWORD not in log
    assert "Traceback" not in log


def in_an_hour() -> str:
    return datetime.fromtimestamp(time.time() + 3600, UTC).isoformat()
