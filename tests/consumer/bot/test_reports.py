"""Reports against the answers of a real bot (golden_answers.json: freqtrade 2026.9 over the same table of trades)."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumer.bot import balances, performance
from consumer.bot.periods import Scale, periods
from consumer.bot.profit import profit
from consumer.bot.records import TradeRecord, WalletPoint
from consumer.bot.trade_answers import Labels, listed, opened

from .trade_table import ms, trade, wallet

GOLDEN = json.loads((Path(__file__).parent / "golden_answers.json").read_text())
RATIO = Decimal("0.99")
LABELS = Labels("Quiet", "binance", 1, "USDT")
TRADES = [
    trade(number, row, fee=Decimal(0) if row[2] == row[3] else Decimal("0.001"))
    for number, row in enumerate(GOLDEN["trades_table"], 1)
]
WALLET = wallet(TRADES, created_ms=GOLDEN["profit"]["bot_start_timestamp"])


def same(found: Any, expected: Any, path: str = "") -> None:
    """Equal, floats to what eight places of a ratio can tell."""
    match expected:
        case dict():
            assert found.keys() == expected.keys(), path
            for key, value in expected.items():
                same(found[key], value, f"{path}.{key}")
        case list():
            assert len(found) == len(expected), path
            for i, value in enumerate(expected):
                same(found[i], value, f"{path}[{i}]")
        case float():
            assert isinstance(found, float), path
            assert math.isclose(found, expected, rel_tol=1e-7, abs_tol=2e-8), (path, found, expected)
        case _:
            assert (type(found), found) == (type(expected), expected), path


def plain(answer: Any) -> Any:
    return msgspec.to_builtins(answer)


def test_profit_is_freqtrades() -> None:
    found = profit(TRADES, [], WALLET, ratio=RATIO, now_ms=GOLDEN["now_ms"])
    same(plain(found), GOLDEN["profit"])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("performance", performance.by_pair(TRADES)),
        ("entries", performance.by_entry(TRADES)),
        ("exits", performance.by_exit(TRADES)),
        ("stats", performance.stats(TRADES)),
        ("balance", balances.balances(WALLET, [], RATIO)),
        (
            "historic_balance",
            balances.wallet_history(
                [
                    WalletPoint(ms("2026-11-23"), Decimal("9600.5")),
                    WalletPoint(ms("2026-11-24"), Decimal("9602.5")),
                ],
                GOLDEN["historic_balance"]["capture_start_ts"],
            ),
        ),
    ],
)
def test_answers_are_freqtrades(name: str, found: Any) -> None:
    same(plain(found), GOLDEN[name])


def test_mixed_tags_are_freqtrades_but_for_the_per_cents_of_larger_groups() -> None:
    found = plain(performance.by_mix(TRADES))
    for mine, theirs in zip(found, GOLDEN["mix_tags"], strict=True):
        assert mine["profit_pct"] == round(mine["profit_ratio"] * 100, 2)
        if theirs["count"] > 1:
            theirs = theirs | {"profit_pct": mine["profit_pct"]}
        same(mine, theirs)


@pytest.mark.parametrize(
    ("name", "scale", "count"),
    [("daily", Scale.DAY, 18), ("weekly", Scale.WEEK, 3), ("monthly", Scale.MONTH, 3)],
)
def test_periods_are_freqtrades(name: str, scale: Scale, count: int) -> None:
    tradable = balances.equity(WALLET, []) * RATIO
    found = periods(
        TRADES, scale=scale, count=count, tradable=tradable, now_ms=GOLDEN["now_ms"], currency="USDT"
    )
    same(plain(found), GOLDEN[name])


# Not of the bot but of the exchange and of freqtrade's order numbers.
_FOREIGN = {"amount_precision", "price_precision", "precision_mode_price", "order_id"}


def without(answer: dict[str, Any], names: set[str]) -> dict[str, Any]:
    orders = [{k: v for k, v in order.items() if k not in names} for order in answer["orders"]]
    return {k: v for k, v in answer.items() if k not in names} | {"orders": orders}


def test_there_is_an_end_to_the_periods_of_one_answer() -> None:
    def asked(count: int) -> Any:
        return periods(
            TRADES, scale=Scale.DAY, count=count, tradable=Decimal(9), now_ms=GOLDEN["now_ms"], currency=""
        )

    assert asked(2**70) == asked(10_000)
    assert len(asked(10_000).data) == 10_000


def test_a_closed_trade_is_freqtrades() -> None:
    found = without(plain(opened(TRADES[1], LABELS)), _FOREIGN)
    same(found, without(GOLDEN["trade"], _FOREIGN))
    found = without(plain(listed(TRADES[1], LABELS)), _FOREIGN | {"profit_fiat"})
    same(found, without(GOLDEN["listed"]["trades"][0], _FOREIGN))


SAMPLE = [
    # pair, amount, open rate, current rate, and what a dry-run bot answered of the open trade
    ("LTC/USDT", "2.477", "80.738", "79.447", 200.18801403, -3.59458524, -0.01795605, -1.8, -22.93, -28.86),
    ("BTC/USDT", "0.00331", "60354.85", "60281.37", 199.97432805, -0.64252469, -0.00321304, -0.32, -18032.97, -29.91),
    ("ADA/USDT", "444.9", "0.44953", "0.4501", 200.1958929, -0.14665239, -0.00073254, -0.07, -0.13542, -30.09),
    ("XRP/USDT", "336.1", "0.59503", "0.59474", 200.18957258, -0.4973507, -0.0024844, -0.25, -0.17821, -29.96),
]  # fmt: skip


@pytest.mark.parametrize("sample", SAMPLE, ids=[row[0] for row in SAMPLE])
def test_an_open_trade_is_worth_what_freqtrade_says(sample: Any) -> None:
    pair, amount, rate, current, value, gained, ratio, pct, distance, distance_pct = sample
    row = (pair, amount, rate, None, "2026-11-22 13:29:31", None, "tag", None)
    found = opened(trade(6, row, current=current), LABELS)
    assert found.open_trade_value == pytest.approx(value, abs=2e-8)
    assert found.profit_abs == pytest.approx(gained, abs=2e-8)
    assert (found.profit_ratio, found.profit_pct) == (pytest.approx(ratio, abs=1e-8), pct)
    assert (found.total_profit_abs, found.total_profit_ratio) == (found.profit_abs, found.profit_ratio)
    # freqtrade rounds a stop to the exchange's step of prices.
    assert found.stoploss_current_dist == pytest.approx(distance, abs=0.006)
    assert found.stoploss_current_dist_pct == pytest.approx(distance_pct, abs=0.011)
    assert found.stoploss_entry_dist_ratio == pytest.approx(-0.30139, abs=1e-5)
    assert (found.close_profit, found.close_profit_abs, found.realized_profit_ratio) == (None, None, None)


def test_a_part_that_was_left_counts_in_the_total_only() -> None:
    """A dry-run bot's answers after 0.04 of 0.101 were sold at 2969.08."""
    whole = trade(
        13, ("ETH/USDT", "0.101", "2968.59", None, "2026-11-26", None, "mine", None), current="2968.93"
    )
    held = TradeRecord(
        **{name: getattr(whole, name) for name in TradeRecord.__slots__}
        | {
            "amount": Decimal("0.061"),
            "tied": Decimal("181.26507399"),
            "stake_amount": Decimal("181.08399"),
            "realized_profit": Decimal("-0.2179068"),
        }
    )
    found = opened(held, LABELS)
    assert (found.profit_abs, found.profit_pct) == (pytest.approx(-0.34144872, abs=2e-8), -0.19)
    assert found.profit_ratio == pytest.approx(-0.0018837, abs=1e-8)
    assert found.total_profit_abs == pytest.approx(-0.55935552, abs=2e-8)
    assert found.total_profit_ratio == pytest.approx(-0.00186373, abs=1e-8)
    assert (found.close_profit, found.close_profit_pct, found.close_profit_abs) == (None, -0.07, -0.2179068)
    assert found.realized_profit_ratio == pytest.approx(-0.00072605, abs=1e-8)
    assert found.stoploss_entry_dist_ratio == pytest.approx(-0.301396, abs=5e-6)


def test_an_empty_book_gives_what_a_fresh_bot_gives() -> None:
    fresh = wallet([], created_ms=1795651888613)
    found = plain(profit([], [], fresh, ratio=RATIO, now_ms=1795651900000))
    texts = {
        "avg_duration": "0:00:00", "bot_start_date": "2026-11-26 00:11:28", "bot_start_timestamp": 1795651888613,
        "expectancy_ratio": 100.0, "profit_factor": math.inf,
    }  # fmt: skip
    assert {name: found[name] for name in texts} == texts
    rest = {name: value for name, value in found.items() if name not in texts}
    assert set(map(repr, rest.values())) == {"0", "0.0", "''"}
    assert plain(balances.balances(fresh, [], RATIO))["currencies"] == [
        {"currency": "USDT", "free": 10000.0, "balance": 10000.0, "used": 0.0, "bot_owned": 9900.0,
         "est_stake": 10000.0, "est_stake_bot": 9900.0, "stake": "USDT", "side": "long", "is_position": False,
         "position": 0.0, "is_bot_managed": True}
    ]  # fmt: skip
    assert plain(performance.stats([])) == {
        "exit_reasons": {},
        "durations": {"wins": None, "draws": None, "losses": None},
    }
    assert plain(balances.count([], 6)) == {"current": 0, "max": 6, "total_stake": 0.0}
