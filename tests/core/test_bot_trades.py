"""hub.core.bot_trades: the fills of a real bot's trades are the messages that it sends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hub.core.bot_trades import Fill, TradeRow, fills_of, open_trades, trade_page
from hub.protocol.messages import REGISTRY, view

SAMPLES: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "consumer" / "rest_samples.json").read_text()
)
OPENED = 1_795_356_061_951


def order(number: int, side: str, filled: float, price: float, at_ms: int, **more: Any) -> dict[str, Any]:
    return {
        "order_id": f"o{number}",
        "ft_order_side": side,
        "is_open": False,
        "status": "closed",
        "filled": filled,
        "safe_price": price,
        "order_type": "limit",
        "order_timestamp": at_ms - 10,
        "order_filled_timestamp": at_ms,
        **more,
    }


def trade(*orders: dict[str, Any], **more: Any) -> TradeRow:
    plain = {
        "trade_id": 1,
        "pair": "BTC/USDT",
        "is_open": True,
        "open_timestamp": OPENED,
        "exchange": "binance",
        "base_currency": "BTC",
        "quote_currency": "USDT",
        "leverage": 1.0,
        "fee_open": 0.001,
        "fee_close": 0.001,
        "enter_tag": "rig_m0",
        "orders": list(orders),
    }
    return msgspec.convert(plain | more, TradeRow)


def closed_sample() -> TradeRow:
    """The trade whose messages are in the wire's samples: entry_fill and exit_fill of a real bot."""
    return trade(
        order(1, "buy", 0.00335, 59530.92, OPENED + 3, ft_order_tag="rig_m0"),
        order(2, "sell", 0.00335, 59892.58, 1_795_356_182_443, ft_order_tag="rig_x2"),
        is_open=False,
        close_timestamp=1_795_356_182_443,
        amount=0.00335,
        stake_amount=199.428582,
        open_rate=59530.92,
        exit_reason="rig_x2",
        realized_profit=0.81149228,
        close_profit=0.004065022126074177,
        close_profit_abs=0.81149228,
    )


SENT_ENTRY = {
    "trade_id": 1, "buy_tag": "rig_m0", "enter_tag": "rig_m0", "exchange": "Binance", "pair": "BTC/USDT", "leverage": 1.0,
    "direction": "Long", "limit": 59530.92, "order_rate": 59530.92, "open_rate": 59530.92, "order_type": "limit",
    "stake_amount": 199.428582, "stake_currency": "USDT", "base_currency": "BTC", "quote_currency": "USDT",
    "fiat_currency": None, "amount": 0.00335, "open_date": "2026-11-22T14:01:01.951382+00:00", "current_rate": 59530.92,
    "sub_trade": False,
}  # fmt: skip
SENT_EXIT = {
    "trade_id": 1, "exchange": "Binance", "pair": "BTC/USDT", "leverage": 1.0, "direction": "Long", "gain": "profit",
    "limit": 59892.58, "order_rate": 59892.58, "order_type": "limit", "amount": 0.00335, "open_rate": 59530.92,
    "close_rate": 59892.58, "current_rate": None, "profit_amount": 0.81149228, "profit_ratio": 0.00406502,
    "buy_tag": "rig_m0", "enter_tag": "rig_m0", "exit_reason": "rig_x2", "open_date": "2026-11-22T14:01:01.951382+00:00",
    "close_date": "2026-11-22T14:03:02.443000+00:00", "stake_amount": 199.428582, "stake_currency": "USDT",
    "base_currency": "BTC", "quote_currency": "USDT", "fiat_currency": None, "sub_trade": False,
    "cumulative_profit": 0.81149228, "final_profit_ratio": 0.004065022126074177, "is_final_exit": True,
}  # fmt: skip


def test_a_real_bots_fills_are_made_anew_field_by_field() -> None:
    entry, exit_ = (dict(fill.data) for fill in fills_of(closed_sample()))
    for made, sent, unknown in ((entry, SENT_ENTRY, "current_rate"), (exit_, SENT_EXIT, "")):
        assert (made.pop("source"), made.pop("order_id")[0]) == ("reconciled", "o")
        # REST has its dates to the millisecond, and no rate of that moment.
        expected = sent | {"open_date": "2026-11-22T14:01:01.951000+00:00"}
        if unknown:
            expected[unknown] = None
        assert made == expected


def test_every_field_of_freqtrades_is_there_and_the_message_is_valid() -> None:
    for fill in fills_of(closed_sample()):
        message = view(fill.topic, dict(fill.data))
        assert set(message.extra) == {"source", "order_id"}
        fields = {f.encode_name for f in msgspec.structs.fields(REGISTRY[fill.topic])} - {"(extra)"}
        assert fields <= set(fill.data)


def test_the_recorded_answers_of_a_real_bot_are_read() -> None:
    page = trade_page(json.dumps(SAMPLES["trades?limit=2"]).encode())
    assert page.total_trades > len(page.trades) == 2
    for row in page.trades:
        entry, exit_ = fills_of(row)
        assert (entry.topic, exit_.topic) == ("entry_fill", "exit_fill")
        assert exit_.data["is_final_exit"] is True
        assert exit_.data["profit_amount"] == row.close_profit_abs
        assert entry.data["stake_amount"] == row.stake_amount
    for row in open_trades(json.dumps(SAMPLES["status"]).encode()):
        assert [fill.topic for fill in fills_of(row)] == ["entry_fill"] * len(
            [o for o in row.orders if o.filled and not o.is_open]
        )


def test_a_position_that_is_adjusted_and_left_in_parts() -> None:
    row = trade(
        order(1, "buy", 2.0, 100.0, OPENED),
        order(2, "buy", 2.0, 110.0, OPENED + 1000),
        order(3, "sell", 1.0, 120.0, OPENED + 2000, ft_order_tag="part"),
        order(4, "sell", 3.0, 90.0, OPENED + 3000),
        is_open=False,
        close_timestamp=OPENED + 3000,
        amount=3.0,
        stake_amount=315.0,
        open_rate=105.0,
        exit_reason="stop",
        realized_profit=-30.0,
        close_profit=-0.07,
        close_profit_abs=-45.0,
    )
    first, second, part, final = (fill.data for fill in fills_of(row))
    assert [d["sub_trade"] for d in (first, second, part, final)] == [False, True, True, False]
    assert (first["stake_amount"], second["stake_amount"], part["stake_amount"]) == (200.0, 420.0, 315.0)
    assert part["open_rate"] == 105.0
    assert part["profit_amount"] == pytest.approx(120 * 0.999 - 105 * 1.001)
    assert part["profit_ratio"] == pytest.approx(120 * 0.999 / (105 * 1.001) - 1, abs=1e-8)
    assert part["cumulative_profit"] == part["profit_amount"]
    assert (part["is_final_exit"], part["final_profit_ratio"], part["exit_reason"]) == (False, None, "part")
    assert final["profit_amount"] == pytest.approx(3 * (90 * 0.999 - 105 * 1.001))
    assert (final["cumulative_profit"], final["final_profit_ratio"]) == (-30.0, -0.07)
    assert (final["exit_reason"], final["gain"], final["amount"]) == ("stop", "loss", 3.0)


def test_a_short_with_leverage() -> None:
    row = trade(
        order(1, "sell", 1.0, 100.0, OPENED),
        order(2, "buy", 1.0, 90.0, OPENED + 1000),
        is_short=True,
        leverage=5.0,
        fee_open=0.0,
        fee_close=0.0,
    )
    entry, exit_ = (fill.data for fill in fills_of(row))
    assert entry["direction"] == "Short"
    assert entry["stake_amount"] == 20.0
    assert (exit_["profit_amount"], exit_["profit_ratio"]) == (10.0, pytest.approx(0.5))


def test_an_order_is_a_fill_once_it_is_closed_with_something_filled() -> None:
    orders = (
        order(1, "buy", 1.0, 100.0, OPENED),
        order(2, "buy", 0.5, 99.0, OPENED + 1, status="canceled"),
        order(3, "buy", 0.2, 99.0, OPENED + 2, is_open=True),
        order(4, "buy", 0.0, 99.0, OPENED + 3, status="canceled"),
        order(5, "stoploss", 1.5, 90.0, OPENED + 4),
        order(6, "sell", 0.0, 99.0, OPENED + 5) | {"filled": None},
    )
    assert [(fill.order_id, fill.topic) for fill in fills_of(trade(*orders))] == [
        ("o1", "entry_fill"),
        ("o2", "entry_fill"),
        ("o5", "exit_fill"),
    ]


def test_a_fee_in_the_base_currency_is_not_part_of_the_position() -> None:
    (fill,) = fills_of(trade(order(1, "buy", 1.0, 100.0, OPENED, ft_fee_base=0.001)))
    assert fill.data["amount"] == pytest.approx(0.999)
    assert fill.amounts == (pytest.approx(0.999), 1.0)


def test_no_exit_is_before_its_entry_however_the_bots_dates_lie() -> None:
    row = trade(order(1, "buy", 1.0, 100.0, OPENED + 500), order(2, "sell", 1.0, 100.0, OPENED))
    entry, exit_ = fills_of(row)
    assert exit_.filled_ms == entry.filled_ms == OPENED + 500


def mid_of(order_id: str) -> str:
    (fill,) = fills_of(trade(order(1, "buy", 1.0, 100.0, OPENED) | {"order_id": order_id}))
    return fill.mid


def test_a_mid_is_readable_where_it_fits_and_never_too_long() -> None:
    assert mid_of("4711") == f"reconciled/1/{OPENED}/4711"
    long = mid_of("dry_run_buy_LTC/USDT_31c29c6f-cb59-4c0d-9b50-7a7fe72bbe30")
    assert len(long.encode()) <= 64
    assert long == mid_of("dry_run_buy_LTC/USDT_31c29c6f-cb59-4c0d-9b50-7a7fe72bbe30")
    assert long != mid_of("dry_run_buy_LTC/USDT_31c29c6f-cb59-4c0d-9b50-7a7fe72bbe31")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"{}",
        b"[1]",
        b'[{"trade_id":"x"}]',
        b'[{"trade_id":-1,"pair":"A/B","is_open":true,"open_timestamp":1,"orders":[]}]',
        b'[{"trade_id":1,"pair":"A/B","is_open":true,"open_timestamp":' + b"9" * 40 + b',"orders":[]}]',
        b'[{"trade_id":1,"pair":"A/B","is_open":true,"open_timestamp":1,"orders":[{"order_id":1}]}]',
        b"[" * 100_000,
        b'"\xff"',
    ],
)
def test_junk_is_refused_in_one_line(body: bytes) -> None:
    with pytest.raises(ValueError) as refused:
        open_trades(body)
    assert "\n" not in str(refused.value)


def test_a_fill_of_a_bot_with_absurd_figures_is_still_one() -> None:
    (fill,) = fills_of(trade(order(1, "buy", 1e308, 1e308, OPENED)))
    assert isinstance(fill, Fill)


@pytest.mark.parametrize("fee", [1.0, 2.0, -5.0, 1e308])
def test_a_fee_that_eats_everything_breaks_nothing(fee: float) -> None:
    orders = [
        order(n, side, 1.0, 100.0, OPENED + n, ft_fee_base=fee)
        for n, side in enumerate(("buy", "buy", "sell"))
    ]
    assert [fill.topic for fill in fills_of(trade(*orders))] == ["entry_fill", "entry_fill", "exit_fill"]


def test_the_rate_is_the_bots_rounded_one_until_the_next_entry() -> None:
    row = trade(
        order(1, "buy", 1.0, 100.0, OPENED),
        order(2, "buy", 2.0, 100.01, OPENED + 1),
        order(3, "sell", 1.0, 110.0, OPENED + 2),
        order(4, "buy", 1.0, 100.0, OPENED + 3),
        order(5, "sell", 1.0, 110.0, OPENED + 4),
        open_rate=100.0,
        fee_open=0.0,
        fee_close=0.0,
    )
    before, after = (fill.data for fill in fills_of(row) if fill.topic == "exit_fill")
    assert before["open_rate"] == pytest.approx(100.0066666667)
    assert (after["open_rate"], after["profit_amount"]) == (100.0, 10.0)
    assert after["cumulative_profit"] == pytest.approx(2 * 110 - 100.00666667 - 100.00444444)
