"""consumer.rest: logins, errors, what is repeated, and answers as types."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest
from rest_doubles import PASSWORD, SAMPLES, Peer, always, sample_operation

from consumer.errors import (
    BadAnswer,
    BadRequest,
    BotRefused,
    ConfigError,
    ConnectionFailed,
    ConsumerError,
    LedgerReplaced,
    NotFound,
    OutcomeUnknown,
    Unauthorized,
    Unavailable,
)
from consumer.rest import BotAPI, RestClient, decoded
from hub.protocol.answers import EnteredTrade, OpenTrade, ResultText, StatusText
from hub.protocol.botapi import OPERATIONS, LockOrder

STATUS = SAMPLES["status"]


@pytest.mark.parametrize("path", [p for p in SAMPLES if p != "ping"])
def test_every_answer_of_a_real_bot_is_its_type_without_loss(path: str) -> None:
    operation = sample_operation(path)
    assert operation is not None
    sample = SAMPLES[path]
    again = msgspec.to_builtins(decoded(operation, json.dumps(sample).encode()))
    # As texts: 1 and 1.0 are different types of JSON.
    assert json.dumps(again, sort_keys=True) == json.dumps(sample, sort_keys=True)


def test_the_profit_of_a_bot_that_has_lost_no_trade() -> None:
    fresh = SAMPLES["profit"] | {"profit_factor": None}
    assert decoded(OPERATIONS["profit"], json.dumps(fresh).encode()).profit_factor is None


# --- asking


def test_an_operation_is_asked_by_its_method_and_by_its_name() -> None:
    peer = Peer(always([{**trade, "of_a_later_version": 1} for trade in STATUS]))
    with peer.client() as client:
        trades = client.ask(BotAPI.status)
        assert [type(t) for t in trades] == [OpenTrade] * 4
        assert trades[0].pair == "LTC/USDT"
        assert client.ask("status") == trades
        assert client.ask("status", raw=True)[0]["of_a_later_version"] == 1
    assert peer.lines() == [
        "POST /api/v1/token/login Basic",
        "GET /api/v1/status Bearer",
        "GET /api/v1/status Bearer",
        "GET /api/v1/status Bearer",
    ]


def test_arguments_are_where_the_operation_has_them() -> None:
    peer = Peer(always({"result": "Created exit order for trade 3."}))
    with peer.client(bot="a b/ü") as client:
        assert client.ask(BotAPI.force_exit, tradeid=3, amount=0.5) == ResultText(
            result="Created exit order for trade 3."
        )
        client.ask("trades", raw=True, limit=5, order_by_id=False, offset=None)
        client.ask("delete_from_blacklist", raw=True, pairs_to_delete=["A/B", "C/D"])
        until = datetime(2026, 11, 22, 14, tzinfo=UTC)
        client.ask("add_locks", raw=True, locks=[LockOrder(pair="*", until=until)])
    prefix = "/bots/a%20b%2F%C3%BC/api/v1"
    assert peer.lines()[1:] == [
        f"POST {prefix}/forceexit Bearer",
        f"GET {prefix}/trades?limit=5&order_by_id=false Bearer",
        f"DELETE {prefix}/blacklist?pairs_to_delete=A%2FB&pairs_to_delete=C%2FD Bearer",
        f"POST {prefix}/locks Bearer",
    ]
    assert json.loads(peer.seen[1].content) == {"tradeid": 3, "amount": 0.5}
    assert peer.seen[2].content == b""
    assert json.loads(peer.seen[4].content) == [
        {"pair": "*", "until": "2026-11-22T14:00:00Z", "side": "*", "reason": None}
    ]


def test_an_entry_answers_a_trade_or_a_text() -> None:
    trade = {k: v for k, v in STATUS[0].items() if k in EnteredTrade.__struct_fields__}
    for answer, kind in ((trade, EnteredTrade), ({"status": "Error entering."}, StatusText)):
        with Peer(always(answer)).client() as client:
            assert type(client.ask(BotAPI.force_enter, pair="LTC/USDT")) is kind


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("statsu", {}, "statsu: no such operation; did you mean stats?"),
        ("trades", {"limt": 5}, "trades: no parameter limt; did you mean limit?"),
        ("trade", {}, "trade: tradeid: missing"),
        ("trade", {"tradeid": None}, "trade: tradeid: missing"),
        ("trades", {"limit": 0}, "trades: limit: Expected `int` >= 1"),
        ("trades", {"limit": "5"}, "trades: limit: Expected `int`, got `str`"),
        ("force_exit", {"tradeid": 3, "amount": float("nan")}, "amount: expected a finite number"),
        ("strategy", {"strategy": ".."}, "strategy: strategy: expected a name"),
    ],
)
def test_a_wrong_argument_is_told_before_anything_is_sent(
    name: str, arguments: dict[str, Any], text: str
) -> None:
    peer = Peer(always({}))
    with peer.client() as client, pytest.raises(BadRequest) as caught:
        client.ask(name, **arguments)
    assert text in str(caught.value)
    assert caught.value.status is None
    assert peer.seen == []


def test_ping_sends_no_credentials() -> None:
    peer = Peer(always({"status": "pong"}))
    with peer.client() as client:
        client.ping()
    assert peer.lines() == ["GET /api/v1/ping -"]


def test_the_bots_are_of_the_hub_whichever_bot_is_asked() -> None:
    peer = Peer(always([{"name": "alpha"}]))
    with peer.client(bot="alpha") as client:
        assert client.bots() == [{"name": "alpha"}]
    assert peer.lines()[1:] == ["GET /api/v1/bots Bearer"]


# --- logins


def test_an_access_token_that_ended_is_refreshed_and_the_request_sent_again() -> None:
    peer = Peer(always({"status": "starting trader ..."}))
    with peer.client() as client:
        client.ask(BotAPI.start)
        peer.access += 1
        assert client.ask(BotAPI.start).status == "starting trader ..."
        peer.access += 1
        peer.refreshes = False
        client.ask(BotAPI.start)
    assert peer.lines() == [
        "POST /api/v1/token/login Basic",
        "POST /api/v1/start Bearer",
        "POST /api/v1/start Bearer",
        "POST /api/v1/token/refresh Bearer",
        "POST /api/v1/start Bearer",
        "POST /api/v1/start Bearer",
        "POST /api/v1/token/refresh Bearer",
        "POST /api/v1/token/login Basic",
        "POST /api/v1/start Bearer",
    ]


def test_a_peer_without_token_routes_gets_basic() -> None:
    peer = Peer(always({"version": "1"}), tokens=False)
    with peer.client() as client:
        client.ask(BotAPI.version)
        client.ask(BotAPI.version)
    assert peer.lines() == [
        "POST /api/v1/token/login Basic",
        "GET /api/v1/version Basic",
        "GET /api/v1/version Basic",
    ]


def test_a_wrong_password_is_asked_about_once() -> None:
    peer = Peer(always({}))
    with peer.client(password="wrong") as client, pytest.raises(Unauthorized) as caught:
        client.ask(BotAPI.version)
    assert str(caught.value) == "http://hub:1: the user name or password is not accepted (HTTP 401)"
    assert len(peer.seen) == 1


def test_a_peer_that_takes_no_token_at_all_is_left() -> None:
    peer = Peer(lambda _: httpx.Response(401, json={"detail": "Could not validate credentials"}))
    with peer.client() as client, pytest.raises(Unauthorized):
        client.ask(BotAPI.version)
    assert len(peer.seen) == 4


# --- what the peer says


@pytest.mark.parametrize(
    ("status", "body", "kind", "text"),
    [
        (502, {"error": "Error querying /api/v1/forceexit: invalid argument"}, BotRefused,
         "the bot refuses: invalid argument"),
        (502, {"detail": "no\x1b[31m\nplot"}, BotRefused, "the bot refuses: no�[31m plot"),
        (502, "<html>", Unavailable, "http://hub:1: not available now (HTTP 502)"),
        (503, {"detail": "Bot is not in the correct state."}, Unavailable,
         "http://hub:1: not available now (HTTP 503): Bot is not in the correct state.; try again in 7 s"),
        (404, {"detail": "Trade not found."}, NotFound, "not found: Trade not found."),
        (404, {"detail": "Not Found"}, NotFound, "http://hub:1: no such operation there (HTTP 404)"),
        (422, {"detail": [{"loc": ["query", "limit"], "msg": "too small", "input": "x"}, {}]}, BadRequest,
         "limit: too small (and 1 more)"),
        (422, {"detail": [3]}, BadRequest, "request: not accepted"),
        (307, {}, BadAnswer,
         "http://hub:1: a redirect (HTTP 307); expected the address of the hub or bot itself"),
        (500, {"detail": f"secret {PASSWORD} access-1"}, BadAnswer,
         "http://hub:1: failed (HTTP 500): secret *** ***"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_of_its_kind(
    status: int, body: Any, kind: type[ConsumerError], text: str
) -> None:
    headers = {"Retry-After": "7"} if status == 503 else {"Location": "http://evil/"}
    with Peer(always(body, status, headers=headers)).client() as client, pytest.raises(kind) as caught:
        client.ask(BotAPI.version)
    assert str(caught.value) == text
    assert type(caught.value) is kind
    if isinstance(caught.value, Unavailable):
        assert caught.value.retry_after_s == (7.0 if status == 503 else None)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"<!DOCTYPE html>", "the answer to version is none"),
        (b"{}", "the answer to version is none: Object missing required field `version`"),
        (b"[" * 4000, "the answer to version is none"),
        (b'{"version": "' + b"x" * 5000 + b'"}', "http://hub:1: the answer is over 4096 bytes"),
    ],
)
def test_an_answer_that_is_none_is_one_line(content: bytes, text: str) -> None:
    peer = Peer(lambda _: httpx.Response(200, content=content))
    with peer.client(max_answer_bytes=4096) as client, pytest.raises(BadAnswer) as caught:
        client.ask(BotAPI.version)
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


class Trickle(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield b" "


def test_an_answer_without_an_end_ends() -> None:
    peer = Peer(lambda _: httpx.Response(200, stream=Trickle()))
    with (
        peer.client(timeout_s=0.01) as client,
        pytest.raises(ConnectionFailed, match=r"no answer within 0\.01 s"),
    ):
        client.ask(BotAPI.version)


# --- broken connections


def breaking(error: Callable[[], httpx.TransportError], times: int) -> Peer:
    def respond(_: httpx.Request) -> httpx.Response:
        nonlocal times
        times -= 1
        if times >= 0:
            raise error()
        return httpx.Response(200, json={"status": "x", "version": "1"})

    return Peer(respond)


def test_a_read_is_repeated_once_when_its_connection_breaks() -> None:
    peer = breaking(lambda: httpx.RemoteProtocolError("gone"), 1)
    with peer.client() as client:
        assert client.ask(BotAPI.version).version == "1"
    peer = breaking(lambda: httpx.ReadError("gone"), 2)
    with peer.client() as client, pytest.raises(ConnectionFailed) as caught:
        client.ask(BotAPI.version)
    assert not isinstance(caught.value, OutcomeUnknown)
    assert str(caught.value) == "http://hub:1: the connection broke before the answer came"
    assert len(peer.seen) == 3


@pytest.mark.parametrize("error", [httpx.ReadError, httpx.ReadTimeout, httpx.WriteError])
def test_what_changes_something_is_never_repeated(error: type[httpx.TransportError]) -> None:
    peer = breaking(lambda: error("gone"), 1)
    with peer.client() as client, pytest.raises(OutcomeUnknown, match="may have done it or not"):
        client.ask(BotAPI.stop)
    assert len(peer.seen) == 2


def test_a_refused_connection_is_no_unknown_outcome() -> None:
    peer = breaking(lambda: httpx.ConnectError("refused"), 1)
    with peer.client() as client, pytest.raises(ConnectionFailed) as caught:
        client.ask(BotAPI.stop)
    assert type(caught.value) is ConnectionFailed


def test_nobody_there() -> None:
    with (
        RestClient("127.0.0.1:1", "a", "b") as client,
        pytest.raises(ConnectionFailed, match=r"http://127\.0\.0\.1:1: cannot connect: connection refused"),
    ):
        client.ask(BotAPI.version)


# --- where


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("host", "http://host:8080"),
        ("https://host/", "https://host:443"),
        ("http://[::1]:9/proxy/api/v1/", "http://[::1]:9/proxy"),
    ],
)
def test_urls(url: str, base: str) -> None:
    with RestClient(url, "a", "b", bot="maker") as client:
        assert client.url == base
        assert repr(client) == f"RestClient({base!r}, bot='maker')"


@pytest.mark.parametrize(
    "url",
    ["ftp://x", "http://", "http://u:s3cret@x", "http://x:0", "http://x:99999", "http://[", "http://x?a=s3cret",
     "http://a b", "http://xn--\u2028"],
)  # fmt: skip
def test_a_wrong_url_is_named_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^URL: expected") as caught:
        RestClient(url, "a", "b")
    assert "s3cret" not in str(caught.value)


def test_what_else_cannot_be_used_is_named() -> None:
    for key, more in (("bot", {"bot": ".."}), ("bot", {"bot": ""}), ("username", {"username": "a:b"})):
        with pytest.raises(ConfigError) as caught:
            RestClient("http://x", **{"username": "a", "password": "b"} | more)
        assert caught.value.key == key
    with pytest.raises(ConfigError, match="ca_file: /nowhere: expected a PEM file"):
        RestClient("https://x", "a", "b", ca_file="/nowhere")


def test_every_operation_can_be_named_by_its_method() -> None:
    for name in OPERATIONS:
        assert getattr(BotAPI, name).__name__ == name


# --- a hub's ledger


def fills_page(*offsets: int, after: int | None = None, epoch: str = "e1") -> dict[str, Any]:
    fills = [
        {
            "offset": n,
            "prev": 0,
            "bot": "a",
            "topic": "entry_fill",
            "ts": n,
            "mid": f"m{n}",
            "data": {"trade_id": n, "x": 4.2e-11},
        }
        for n in offsets
    ]
    return {"epoch": epoch, "floor": 0, "head": 9, "fills": fills, "damaged": [], "after": after}


def paging(*pages: dict[str, Any]) -> Callable[[httpx.Request], httpx.Response]:
    waiting = iter(pages)
    return lambda _: httpx.Response(200, json=next(waiting))


def test_fills_are_read_page_by_page_within_an_epoch() -> None:
    peer = Peer(paging(fills_page(1, 2, after=2), fills_page(after=6), fills_page(7)))
    since = datetime(2026, 11, 22, 14, tzinfo=UTC)
    with peer.client(bot="a b") as client:
        fills = list(client.fills(since=since, until=5, topics=["entry", "exit_fill"]))
    assert [(fill.offset, fill.data) for fill in fills] == [
        (n, {"trade_id": n, "x": 4.2e-11}) for n in (1, 2, 7)
    ]
    chosen = "since=2026-11-22T14%3A00%3A00%2B00%3A00&until=5&topic=entry&topic=exit_fill"
    path = "GET /bots/a%20b/api/v1/fills"
    assert peer.lines()[1:] == [
        f"{path}?after=0&limit=500&{chosen} Bearer",
        f"{path}?after=2&limit=500&{chosen}&epoch=e1 Bearer",
        f"{path}?after=6&limit=500&{chosen}&epoch=e1 Bearer",
    ]


def test_a_cursor_that_does_not_move_on_is_a_bad_answer() -> None:
    with Peer(always(fills_page(3, after=3))).client() as client, pytest.raises(BadAnswer, match="move on"):
        list(client.fills())


def test_another_ledger_is_an_error_of_its_own() -> None:
    said = {"detail": "the ledger's epoch is e2, not 'e1'", "epoch": "e2", "floor": 0, "head": 1}
    with Peer(always(said, 409)).client() as client, pytest.raises(LedgerReplaced, match="e2") as caught:
        list(client.fills(after=5, epoch="e1"))
    assert caught.value.status == 409


def test_a_moment_needs_an_offset() -> None:
    peer = Peer(always({}))
    with (
        peer.client() as client,
        pytest.raises(BadRequest, match="since: expected a datetime with an offset"),
    ):
        list(client.fills(since=datetime(2026, 11, 22)))
    assert peer.seen == []


RECONCILED = {
    "bot": "maker", "epoch": "e1", "since_ms": 0, "skew_ms": 0, "trades": 1, "fills": 2, "messages": 1, "complete": True,
    "damaged": 0, "missing_count": 1, "unknown_count": 0, "published": 1, "refused": 0, "unknown": [],
    "missing": [{"topic": "exit_fill", "trade_id": 7, "pair": "A/B", "order_id": "o", "amount": 0.1, "rate": 2.0, "ts": 5,
                 "mid": "m", "offset": 3, "refused": None}],
}  # fmt: skip


def test_a_reconciliation_is_asked_for_with_patience() -> None:
    peer = Peer(always(RECONCILED))
    with peer.client(bot="other") as client:
        answer = client.reconcile("maker", publish=True, since=5)
        client.reconcile()
    assert (answer.published, answer.missing[0].offset) == (1, 3)
    assert peer.lines()[1:] == [
        "POST /api/v1/reconcile Bearer",
        "POST /bots/other/api/v1/reconcile Bearer",
    ]
    assert json.loads(peer.seen[1].content) == {"bot": "maker", "publish": True, "since": 5}
    assert json.loads(peer.seen[2].content) == {"publish": False}
    assert [r.extensions["timeout"]["read"] for r in peer.seen] == [10.0, 120.0, 120.0]


def test_a_reconciliation_of_a_bot_that_is_not_there_names_it() -> None:
    with Peer(always({"detail": "Not Found"}, 404)).client() as client, pytest.raises(NotFound) as caught:
        client.reconcile("maker")
    assert str(caught.value) == "http://hub:1: no such operation there, or no bot 'maker' (HTTP 404)"
