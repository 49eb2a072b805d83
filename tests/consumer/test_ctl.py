"""consumer.ctl: words into calls, answers into tables, and the command line over a real HTTP server of one thread."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rest_doubles import SAMPLES, sample_operation
from rich.console import Console

from consumer.__main__ import main
from consumer.ctl.commands import COMMANDS, LISTED, Call, find
from consumer.ctl.tables import rendered, show
from consumer.errors import BadRequest
from hub.protocol.botapi import OPERATIONS, LockOrder

NOW_MS = 1795355640000

# --- words


def call(line: str) -> Call:
    name, *words = line.split()
    return find(name).read(words)


FREQTRADE_CLIENT = """
start stop stopbuy reload_config balance count entries exits mix_tags locks delete_lock lock_add daily weekly monthly profit stats
performance status version show_config ping logs trades list_open_trades_custom_data list_custom_data trade delete_trade
cancel_open_order whitelist blacklist forcebuy forceenter forceexit strategy plot_config pair_candles sysinfo health
"""


def test_every_operation_and_every_command_of_freqtrade_client_is_there() -> None:
    assert set(FREQTRADE_CLIENT.split()) <= set(COMMANDS)
    assert {c.operation for c in LISTED} == set(OPERATIONS) - {"chosen_pair_candles"} | {
        "ping",
        "bots",
        "fills",
        "reconcile",
    }
    assert all(c.summary for c in LISTED)


@pytest.mark.parametrize(
    ("line", "operation", "arguments"),
    [
        ("trade 3", "trade", {"tradeid": 3}),
        ("trade trade_id=3", "trade", {"tradeid": 3}),
        ("trades limit=5 order_by_id=false", "trades", {"limit": 5, "order_by_id": False}),
        ("trades 5 order_by_id=False 10", "trades", {"limit": 5, "order_by_id": False, "offset": 10}),
        ("daily days=2", "daily", {"timescale": 2}),
        ("forceexit 3 amount=0.5", "force_exit", {"tradeid": "3", "amount": 0.5}),
        ("forcesell 3 market", "force_exit", {"tradeid": "3", "ordertype": "market"}),
        ("forceenter BTC/USDT:USDT short price=1 enter_tag=a=b", "force_enter",
         {"pair": "BTC/USDT:USDT", "side": "short", "price": 1.0, "entry_tag": "a=b"}),
        ("forcebuy BTC/USDT 2", "force_enter", {"pair": "BTC/USDT", "price": 2.0}),
        ("fills since=2026-11-22T14:00:00Z topic=entry,exit limit=5", "fills",
         {"since": "2026-11-22T14:00:00Z", "topic": ["entry", "exit"], "limit": 5}),
        ("reconcile maker publish=true", "reconcile", {"bot": "maker", "publish": True}),
        ("stopbuy", "pause", {}),
        ("blacklist", "blacklist", {}),
        ("blacklist A/B C/D", "add_to_blacklist", {"blacklist": ["A/B", "C/D"]}),
        ("blacklist_add add=A/B,C/D", "add_to_blacklist", {"blacklist": ["A/B", "C/D"]}),
        ("blacklist_delete A/B", "delete_from_blacklist", {"pairs_to_delete": ["A/B"]}),
        ("list_custom_data 3 null", "custom_data", {"trade_id": 3, "key": "null"}),
        ("markets trading_mode=spot include_inactive=true", "markets",
         {"trading_mode": "spot", "include_inactive": True}),
        ("pair_candles A/B 5m 10", "pair_candles", {"pair": "A/B", "timeframe": "5m", "limit": 10}),
        ("pair_candles A/B 5m columns=a,b", "chosen_pair_candles",
         {"pair": "A/B", "timeframe": "5m", "columns": ["a", "b"]}),
        ("lock_add A/B 2026-11-22T14:00:00 reason=x", "add_locks",
         {"locks": [LockOrder(pair="A/B", until=datetime(2026, 11, 22, 14, tzinfo=UTC), reason="x")]}),
    ],
)  # fmt: skip
def test_words_become_a_call(line: str, operation: str, arguments: dict[str, Any]) -> None:
    made = call(line)
    assert (made.operation, made.arguments, made.loses) == (operation, arguments, "")
    if operation in OPERATIONS:
        OPERATIONS[operation].request(made.arguments)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("statsu", "statsu: no such command; did you mean stats?"),
        ("zzz\x1b[2J", "zzz�[2J: no such command; ctl --show lists them"),
        ("available_pairs", "available_pairs: belongs to freqtrade's webserver mode, in which no bot trades"),
        ("trade", "trade: tradeid: missing; expected a whole number"),
        ("trade x", "trade: tradeid: expected a whole number, got 'x'"),
        ("trade 3 4", "trade: '4': too many values; expected: trade TRADEID"),
        ("trade 3 tradeid=4", "trade: '3': too many values; expected: trade TRADEID"),
        ("trade tradeid=4 trade_id=4", "trade: tradeid: given twice"),
        ("trades limt=3", "trades: no parameter limt; did you mean limit?"),
        ("trade zzz=3", "trade: no parameter zzz; expected tradeid"),
        ("status x=3", "status: no parameter x; it takes none"),
        ("trades order_by_id=maybe", "trades: order_by_id: expected true or false, got 'maybe'"),
        ("daily 0", "daily: timescale: expected a whole number from 1, got '0'"),
        ("forceexit 3 amount=nan", "forceexit: amount: expected a number, got 'nan'"),
        ("forceexit 3 amount=null", "forceexit: amount: expected a number, got 'null'"),
        ("forceexit 3 sometimes", "forceexit: ordertype: expected limit or market, got 'sometimes'"),
        ("lock_add A/B soon", "lock_add: until: expected a date such as 2026-11-22 13:26:07Z, got 'soon'"),
    ],
)
def test_wrong_words_are_one_line(line: str, text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        call(line)
    assert str(caught.value) == text


def test_what_loses_something_says_so() -> None:
    assert {line for line in ("stop", "delete_trade 3", "forceexit all", "forceexit 3", "pause") if call(line).loses} == {
        "stop", "delete_trade 3", "forceexit all",
    }  # fmt: skip


# --- tables


def shown(operation: str, data: Any, *, width: int = 140, colour: bool = False) -> str:
    console = Console(
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
        force_terminal=colour,
        color_system="standard" if colour else None,
    )
    with console.capture() as capture:
        show(console, operation, data, now_ms=NOW_MS)
    return capture.get()


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_open_trades() -> None:
    text = lines(shown("status", SAMPLES["status"]))
    assert text == [
        "ID Pair Amount Open rate Rate Profit USDT Age Tag Open order",
        "6 LTC/USDT 2.477 80.738 79.447 -1.80 % -3.59 24 min force_entry -",
        "45 BTC/USDT 0.00331 60354.85 60281.37 -0.32 % -0.6425 56 s rig_m0 -",
        "47 ADA/USDT 444.9 0.44953 0.4501 -0.07 % -0.1467 16 s force_entry -",
        "48 XRP/USDT 336.1 0.59503 0.59474 -0.25 % -0.4974 0 s rig_m1 -",
    ]
    assert lines(shown("status", [])) == ["no open trade"]


def test_a_short_trade_with_leverage_and_an_open_order() -> None:
    trade = SAMPLES["status"][0] | {
        "is_short": True,
        "leverage": 3.0,
        "profit_pct": 1.5,
        "profit_abs": 0.00012,
    }
    order = {"is_open": True, "ft_order_side": "buy", "order_type": "limit", "safe_price": 4.2e-11}
    text = shown("status", [trade | {"orders": [*trade["orders"], order], "open_rate": 1e-5}], colour=True)
    assert "short" in text
    assert " 3x" in text
    assert "0.00001 " in text
    assert "buy limit 0.000000000042" in text
    assert "\x1b[32m+1.50" in text
    assert "+0.00012" in text
    assert "\x1b[31m" in shown("status", SAMPLES["status"], colour=True)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("trades?limit=2", ["1 XRP/USDT 2026-11-22 13:26:07 2026-11-22 13:28:03 336.8 0.59372 0.58966 -0.88 % -1.77 rig_m1 rig_x3",
                            "2 of 38 trades"]),
        ("daily?timescale=2", ["2026-11-22 -16.45 -0.17 % 38 9900.1645"]),
        ("performance", ["ETH/USDT 7 -0.03 % -0.4738"]),
        ("mix_tags", ["rig_m2 rig_x0 7 +0.51 % -0.4738"]),
        ("balance", ["LTC 2.477 0 2.477 196.28986 196.28986", "Since the start -0.20 %", "Note Simulated balances"]),
        ("locks", ["73 ETH/USDT * 2026-11-22 13:55:00 1 min Cooldown period for for 1 candle."]),
        ("profit", ["closed trades with open ones", "Profit -16.45 -21.33", "won 8 (21 %)"]),
        ("profit_all", ["Profit -16.45 -21.33"]),
        ("stats", ["rig_x3 1 0 3", "Mean duration, won 2 min", "Mean duration, even -"]),
        ("count", ["4 open of 6, 799.74806 staked"]),
        ("whitelist", ["BTC/USDT", "6 pairs by StaticPairList"]),
        ("blacklist", ["LTC/USDT", "1 pairs by StaticPairList"]),
        ("logs?limit=3", ["2026-11-22 13:54:06 INFO freqtrade.wallets: Wallets synced."]),
        ("show_config", ["bot_name rig_producer_18080", "short_allowed no", "minimal_roi {\"0\": 10}"]),
        ("version", ["2026.9"]),
        ("health", ["last_process_ts 1795355651"]),
        ("sysinfo", ["CPU 28.2 % of 2 cores", "Memory 5.8 %"]),
        ("markets", ["BTC/USDT BTC USDT yes no yes", "6 markets of binance"]),
        ("historic_balance", ["0 rows"]),
        ("strategy/RigProducer", ["class RigProducer(IStrategy):"]),
        ("pair_candles?pair=BTC/USDT&timeframe=1m&limit=2",
         ["2026-11-22 13:53 60356.85 60405.49 60283.74 60283.74 0.559707 60508.289 60119.784 42.160082 - 60283.74 no",
          "not shown, for want of room: enter_tag, enter_long, exit_tag, exit_long", "2 rows"]),
    ],
)  # fmt: skip
def test_tables(path: str, expected: list[str]) -> None:
    operation = sample_operation(path)
    assert operation is not None
    text = lines(shown(operation.name, SAMPLES[path]))
    assert [line for line in expected if line not in text] == [], text


def test_a_trade_has_its_orders_and_the_long_form_its_fields() -> None:
    trade = SAMPLES["status"][0]
    text = shown("trade", trade)
    assert "stoploss_current_dist" in text
    assert trade["orders"][0]["order_id"][:20] in text
    assert "stoploss_current_dist" not in shown("reload_trade", trade)
    assert shown("force_enter", {"status": "Error entering."}) == "Error entering.\n"


def test_an_answer_of_another_version_is_shown_as_it_is() -> None:
    assert lines(shown("count", {"current": 4})) == ["current 4"]
    assert lines(shown("status", [{"pair": "A/B"}]))[1].startswith("- A/B")
    assert lines(shown("bots", [{"name": "a", "lag": 1.5}, {"name": "b"}])) == ["name lag", "a 1.5", "b -"]
    assert lines(shown("nothing_known", [])) == ["none"]


HOSTILE = "\x1b]0;x\x07\x9b31m[bold]\u202e"


def poisoned(data: Any) -> Any:
    """The answer with every text made hostile."""
    if isinstance(data, dict):
        return {key: poisoned(value) for key, value in data.items()}
    if isinstance(data, list):
        return [poisoned(value) for value in data]
    return HOSTILE if isinstance(data, str) else data


@pytest.mark.parametrize(("operation", "path"), [("status", "status"), ("trades", "trades?limit=2")])
def test_trades_are_told_in_whole_words_on_a_narrow_terminal(operation: str, path: str) -> None:
    wide, narrow = (shown(operation, SAMPLES[path], width=width).split() for width in (1000, 80))
    assert set(narrow[: narrow.index("not")]) < set(wide)
    assert "for want of room" in " ".join(narrow)


def test_an_empty_map_is_told() -> None:
    assert shown("plot_config", {}).strip() == "none"


@pytest.mark.parametrize("path", [p for p in SAMPLES if p != "ping"])
@pytest.mark.parametrize("width", [30, 200])
def test_no_text_of_a_peer_drives_the_terminal(path: str, width: int) -> None:
    operation = sample_operation(path)
    assert operation is not None
    text = shown(operation.name, poisoned(SAMPLES[path]), width=width)
    assert not set(text) & set("\x1b\x07\x9b\u202e")
    assert all(len(line) <= width for line in text.splitlines())


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_no_answer_at_all_ends_in_a_traceback(name: str) -> None:
    for odd in (
        None,
        3,
        "x",
        [],
        {},
        [None],
        [[1]],
        {"trades": 3},
        {"columns": ["a"], "data": [[1, 2]]},
        [{"orders": 3}],
    ):
        rendered(name, odd, now_ms=NOW_MS)
        shown(name, odd)


# --- the command line

PASSWORD = "a-password-with-ü"


class Bot(BaseHTTPRequestHandler):
    """A bot that knows four routes."""

    posted: list[tuple[str, Any]] = []

    def do_GET(self) -> None:
        data = {"/api/v1/ping": {"status": "pong"}, "/api/v1/version": {"version": "a\x9b\u00e4", "f": 1e-7}}
        self._answer(data.get(self.path) or SAMPLES[self.path.removeprefix("/api/v1/")])

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/v1/token/login":
            self._answer({"access_token": "a", "refresh_token": "r"})
        elif self.path == "/api/v1/forceexit":
            self.posted.append((self.path, json.loads(body)))
            self._answer({"result": "Created exit orders for all open trades."})
        else:
            self._answer({"error": f"Error querying {self.path}: trader is not running"}, 502)

    def _answer(self, data: Any, status: int = 200) -> None:
        body = json.dumps(data, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Bot)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `tradewire-consumer ctl` in `tmp_path` without a terminal; gives its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", StringIO())
    for name in [name for name in os.environ if name.startswith("TRADEWIRE")] + ["COLUMNS"]:
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tradewire-consumer", "ctl", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return run


def test_the_command_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Bot.posted.clear()
    with serving() as port:
        (tmp_path / "bot.json").write_text(
            f'{{"api_server": {{"listen_ip_address": "0.0.0.0", /* any */ "listen_port": {port},}}}}'
        )
        (tmp_path / "password").write_text(PASSWORD + "\n")
        login = ("-c", "bot.json", "--user", "me", "--password-file", "password")

        assert run("-c", "bot.json", "ping") == (0, "pong\n", "")
        code, out, err = run("version", "--json", *login)
        assert (code, err) == (0, "")
        assert out == '{"version":"a\\u009bä","f":1e-07}\n'

        monkeypatch.setenv("TRADEWIRE_USER", "me")
        monkeypatch.setenv("TRADEWIRE_PASSWORD", PASSWORD)
        url = ("--url", f"127.0.0.1:{port}")
        code, out, _ = run(*url, "status")
        assert code == 0
        assert lines(out)[1].startswith("6 LTC/USDT 2.477")

        code, out, err = run(*url, "forceexit", "all")
        assert (code, out, Bot.posted) == (2, "", [])
        assert "a script says so with --yes" in err
        code, out, err = run(*url, "forceexit", "all", "-y")
        assert (code, out, err) == (0, "Created exit orders for all open trades.\n", "")
        assert Bot.posted == [("/api/v1/forceexit", {"tradeid": "all"})]

        code, out, err = run(*url, "start", "--json")
        assert (code, out, err) == (1, "", "tradewire-consumer: the bot refuses: trader is not running\n")


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Bot.posted.clear()
    with serving() as port:
        login = ("--url", f"127.0.0.1:{port}")
        monkeypatch.setattr("getpass.getpass", lambda *_, **__: PASSWORD)
        monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
        code, out, err = run(*login, "forceexit", "all")
        assert (code, out, Bot.posted) == (1, "", [])
        assert "this leaves every open trade now. Go on? [y/N]" in err
        monkeypatch.setattr(sys, "stdin", Terminal("y\nme\n"))
        assert run(*login, "forceexit", "all")[0] == 0
        assert len(Bot.posted) == 1


def test_the_end_of_the_input_answers_no_question(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getpass", lambda *_, **__: pytest.fail("asked for the password"))
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    assert run("status") == (1, "", "User: \n")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["statsu"], 2, "did you mean stats?"),
        (["trades", "limt=3"], 2, "did you mean limit?"),
        (["--nope", "status"], 2, "No such option: --nope"),
        (["--timeout", "x", "status"], 2, "Invalid value for '--timeout'"),
        (["status"], 1, "--user: missing; expected a name here, in TRADEWIRE_USER or in --config"),
        (["status", "--user", "me"], 1, "--password-file: missing"),
        (["status", "--user", "me", "--password-file", "none"], 1, "none: cannot be read: No such file"),
        (["forceenter", "\udcff", "--user", "me", "--password-file", "it"], 2, "expected valid Unicode"),
        (["status", "-c", "empty.json"], 1, "api_server: missing; expected this section in empty.json"),
        (["ping", "--url", "http://127.0.0.1:1"], 1, "cannot connect: connection refused"),
        (["ping", "--url", "http://u:s3cret@x"], 1, "URL: expected no user or password"),
    ],
)
def test_what_is_wrong_is_one_line(
    run: Run, tmp_path: Path, arguments: list[str], code: int, text: str
) -> None:
    (tmp_path / "empty.json").write_text("{}")
    (tmp_path / "it").write_text(PASSWORD)
    status, out, err = run(*arguments)
    assert (status, out) == (code, "")
    assert err.startswith("tradewire-consumer: ")
    assert text in err
    assert err.count("\n") == 1
    assert "s3cret" not in err


def test_the_list_of_commands(run: Run) -> None:
    code, out, err = run()
    assert (code, err) == (0, "")
    assert {line.split()[0] for line in out.splitlines()} == {c.name for c in LISTED}
    assert run("--show", "forceexit")[1].splitlines()[1:] == [
        "  tradeid: text",
        "  ordertype: limit or market",
        "  amount: a number",
        "  price: a number",
    ]


# --- a hub's ledger


def test_a_page_of_the_ledger_is_a_table() -> None:
    fill = {"offset": 3, "prev": 0, "bot": "maker", "topic": "exit_fill", "ts": NOW_MS, "mid": "m"}
    data = {
        "trade_id": 7,
        "pair": "A/B",
        "amount": 4.2e-11,
        "open_rate": 1.0,
        "close_rate": 2.5,
        "source": "reconciled",
    }
    page = {
        "epoch": "e1",
        "floor": 2,
        "head": 9,
        "fills": [fill | {"data": data}],
        "damaged": [4],
        "after": 3,
    }
    table = shown("fills", page, width=160)
    assert "2026-11-22 13:54:00" in table
    for text in (
        "exit_fill",
        "0.000000000042",
        "2.5",
        "reconciled",
        "offsets 3 to 9",
        "[4]",
        "after=3 epoch=e1",
    ):
        assert text in table


def test_a_reconciliation_is_two_tables_and_a_line() -> None:
    missed = {
        "topic": "entry_fill", "trade_id": 7, "pair": "A/B", "order_id": "o\x1b[1m", "amount": 0.1, "rate": 2.0, "ts": NOW_MS,
        "mid": "m", "offset": None, "refused": None,
    }  # fmt: skip
    answer = {
        "bot": "maker", "epoch": "e1", "since_ms": 0, "skew_ms": 0, "trades": 2, "fills": 3, "messages": 1, "complete": False,
        "damaged": 1, "missing_count": 3, "unknown_count": 1, "published": 1, "refused": 1,
        "missing": [missed, missed | {"offset": 12}, missed | {"refused": "disk full"}],
        "unknown": [{"offset": 5, "topic": "exit_fill", "trade_id": 9, "pair": "C/D", "ts": NOW_MS}],
    }  # fmt: skip
    table = shown("reconcile", answer, width=160)
    for text in (
        "not published",
        "at offset 12",
        "disk full",
        "C/D",
        "3 missed of 3 fills in 2 trades, 1 published",
    ):
        assert text in table
    assert "not all trades" in table
    assert "\x1b" not in table


def test_publish_is_an_option_of_reconcile(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEWIRE_USER", "me")
    monkeypatch.setenv("TRADEWIRE_PASSWORD", PASSWORD)
    code, out, err = run("status", "--publish")
    assert (code, out) == (2, "")
    assert "status: no parameter publish" in err
