"""The operations of BotAPI against freqtrade's own list, and their way through a request."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hub.protocol.botapi import (
    OPERATIONS,
    BotBusy,
    BotError,
    BotFault,
    BotGone,
    LockOrder,
    NotFound,
    OrderType,
    Side,
    UnknownBot,
    WrongState,
    refusal,
)
from hub.protocol.operations import BadArguments, Place

TRADING = {
    "GET": "version show_config health logs sysinfo plot_config strategy/{strategy} markets balance count entries exits mix_tags "
    "performance profit profit_all stats historic_balance daily weekly monthly status trades trade/{tradeid} "
    "trades/open/custom-data trades/{trade_id}/custom-data blacklist whitelist locks pair_candles",
    "POST": "forceenter forcebuy forceexit forcesell blacklist locks locks/delete start stop pause stopentry stopbuy "
    "reload_config pair_candles trades/{tradeid}/reload",
    "DELETE": "trades/{tradeid} trades/{tradeid}/open-order blacklist locks/{lockid}",
}


def test_every_operation_of_the_trading_mode_is_there_and_no_other() -> None:
    expected = {(method, f"/{path}") for method, paths in TRADING.items() for path in paths.split()}
    assert {(op.method, path) for op in OPERATIONS.values() for path in op.paths} == expected


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("trades", {"limit": 3, "offset": 1, "order_by_id": False}),
        ("trade", {"tradeid": 7}),
        ("delete_from_blacklist", {"pairs_to_delete": ["BTC/USDT", "Ä B/USDT"]}),
        ("entries", {"pair": "BTC/USDT:USDT"}),
        ("strategy", {"strategy": "a b/ü"}),
        ("force_exit", {"tradeid": "all", "ordertype": OrderType.LIMIT, "amount": None, "price": 1.5}),
        ("delete_locks", {"pair": None, "lockid": 4}),
        (
            "add_locks",
            {"locks": [LockOrder(pair="*", until=datetime(2026, 1, 1, tzinfo=UTC), side="long", reason="x")]},
        ),
        ("chosen_pair_candles", {"pair": "A/B", "timeframe": "5m", "limit": 2, "columns": ["rsi"]}),
    ],
)
def test_arguments_survive_a_request(name: str, arguments: dict[str, object]) -> None:
    operation = OPERATIONS[name]
    path, query, body = operation.request(arguments)
    found = OPERATIONS.find(operation.method, path)
    assert found is not None
    assert found[0] is operation
    assert operation.arguments(found[1], query, body) == arguments


def test_what_is_left_out_has_its_default() -> None:
    assert OPERATIONS["trades"].arguments({}, "", None) == {"limit": 500, "offset": 0, "order_by_id": True}
    entered = OPERATIONS["force_enter"].arguments({}, "", {"pair": "A/B"})
    assert entered["side"] is Side.LONG
    assert entered["price"] is None


@pytest.mark.parametrize(
    ("name", "path", "query", "body", "text"),
    [
        ("trades", {}, "limit=0", None, "limit: Expected `int` >= 1"),
        ("trades", {}, "limit=x", None, "limit: "),
        ("trade", {"tradeid": "x"}, "", None, "tradeid: "),
        ("force_enter", {}, "", None, "pair: missing"),
        ("force_enter", {}, "", [], "body: expected a map"),
        ("force_enter", {}, "", {"pair": 1}, "pair: "),
        ("force_enter", {}, "", {"pair": "A/B", "side": "up"}, "side: "),
        ("add_locks", {}, "", {"pair": "A/B"}, "locks: "),
    ],
)
def test_a_wrong_argument_is_named(
    name: str, path: dict[str, str], query: str, body: object, text: str
) -> None:
    with pytest.raises(BadArguments, match=f"^{text}"):
        OPERATIONS[name].arguments(path, query, body)


def test_a_fixed_path_goes_before_one_with_a_parameter() -> None:
    found = OPERATIONS.find("GET", "/trades/open/custom-data")
    assert found is not None
    assert found[0].name == "open_custom_data"
    assert OPERATIONS.find("GET", "/trades/1/2/custom-data") is None
    assert OPERATIONS.find("PUT", "/trades") is None


def test_places_follow_from_the_method() -> None:
    assert {p.place for p in OPERATIONS["force_exit"].parameters} == {Place.BODY}
    assert {p.place for p in OPERATIONS["daily"].parameters} == {Place.QUERY}
    assert {p.place for p in OPERATIONS["delete_lock"].parameters} == {Place.PATH}


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (
            BotError("trader is not running"),
            502,
            {"error": "Error querying /api/v1/count: trader is not running"},
        ),
        (
            BotGone("bot a is out of reach"),
            502,
            {"error": "Error querying /api/v1/count: bot a is out of reach"},
        ),
        (BotFault("no such pair"), 502, {"detail": "no such pair"}),
        (WrongState(), 503, {"detail": "Bot is not in the correct state."}),
        (BotBusy("bot a did not answer within 10 s"), 503, {"detail": "bot a did not answer within 10 s"}),
        (NotFound("Trade not found."), 404, {"detail": "Trade not found."}),
        (UnknownBot("bot a: unknown"), 404, {"detail": "Not Found"}),
    ],
)
def test_errors_are_answered_as_freqtrade_answers(
    error: Exception, status: int, body: dict[str, str]
) -> None:
    found = refusal(error, "/api/v1/count")  # type: ignore[arg-type]
    assert (found.status, found.body) == (status, body)
    assert (found.retry_after_s is not None) == isinstance(error, BotBusy)
