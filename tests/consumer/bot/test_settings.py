"""consumer.bot.settings."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from consumer.bot.settings import PaperSettings
from consumer.errors import ConfigError


def read(**config: Any) -> PaperSettings:
    return PaperSettings.from_config(config, name="paper", data_dir=Path("data"))


def test_defaults() -> None:
    settings = read()
    assert settings.wallet == 1000
    assert settings.stake_amount is None
    assert settings.max_open_trades == 3
    assert settings.start_from == "live"
    assert settings.order_types["emergency_exit"] == "market"
    assert settings.unfilled_timeout.after_ms("entry") == 600_000
    assert (settings.force_entry, settings.initial_state) == (False, "running")
    assert settings.db_url.database == str(Path("data") / "paper.sqlite")


def test_freqtrades_keys_as_they_stand_in_its_files() -> None:
    settings = read(
        dry_run_wallet={"USDT": 500, "BTC": 1},
        stake_currency="USDT",
        stake_amount=50,
        max_open_trades=-1,
        minimal_roi={"60": 0.01, "0": 0.05, 120: 0},
        stoploss=-0.05,
        fee=0.00075,
        exchange={"name": "kraken", "pair_blacklist": ["BNB/.*", "BNB/.*"]},
        order_types={"entry": "limit", "exit": "market", "stoploss_on_exchange": False},
        unfilledtimeout={"entry": 30, "exit": 5, "unit": "seconds", "exit_timeout_count": 3},
    )
    assert settings.pair_blacklist == ("BNB/.*",)
    assert settings.order_types["force_entry"] == "limit"
    assert settings.unfilled_timeout.after_ms("exit") == 5000
    assert settings.wallet == 500
    assert settings.max_open_trades is None
    assert settings.minimal_roi == ((0, Decimal("0.05")), (60, Decimal("0.01")), (120, Decimal(0)))
    assert settings.fee == Decimal("0.00075")
    assert settings.exchange == "Kraken"


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"fee": True}, "fee"),
        ({"fee": 0.6}, "fee"),
        ({"fee": float("nan")}, "fee"),
        ({"stoploss": 0.1}, "stoploss"),
        ({"stoploss": "-0.1"}, "stoploss"),
        ({"dry_run_wallet": 0}, "dry_run_wallet"),
        ({"dry_run_wallet": {"BTC": 1}}, "dry_run_wallet"),
        ({"stake_amount": "all"}, "stake_amount"),
        ({"stake_amount": -1}, "stake_amount"),
        ({"max_open_trades": 1.5}, "max_open_trades"),
        ({"max_open_trades": -1}, "stake_amount"),
        ({"minimal_roi": [0.1]}, "minimal_roi"),
        ({"minimal_roi": {"soon": 0.1}}, "minimal_roi"),
        ({"minimal_roi": {"0": "x"}}, "minimal_roi.0"),
        ({"tradable_balance_ratio": 2}, "tradable_balance_ratio"),
        ({"stake_currency": ""}, "stake_currency"),
        ({"paper": {"start_from": "now"}}, "paper.start_from"),
        ({"paper": {"wait_candles": 0}}, "paper.wait_candles"),
        ({"paper": {"bot": 1}}, "paper.bot"),
        ({"paper": []}, "paper"),
        ({"exchange": {"name": 3}}, "exchange.name"),
        ({"stoploss": 0}, "stoploss"),
        ({"dry_run_wallet": 1e30}, "dry_run_wallet"),
        ({"dry_run_wallet": 1e-30}, "dry_run_wallet"),
        ({"stake_amount": 1e300}, "stake_amount"),
        ({"stake_amount": 1e-9}, "stake_amount"),
        ({"minimal_roi": {"0": 1e300}}, "minimal_roi.0"),
        ({"minimal_roi": {"9" * 5000: 1}}, "minimal_roi"),
        ({"minimal_roi": {"0": 1, "00": 2}}, "minimal_roi"),
        ({"timeframe": "5x"}, "timeframe"),
        ({"db_url": "no url"}, "db_url"),
        ({"order_types": {"entry": "stop"}}, "order_types.entry"),
        ({"order_types": {"force_exit": []}}, "order_types.force_exit"),
        ({"order_types": "market"}, "order_types"),
        ({"unfilledtimeout": {"entry": 0}}, "unfilledtimeout.entry"),
        ({"unfilledtimeout": {"exit": 1.5}}, "unfilledtimeout.exit"),
        ({"unfilledtimeout": {"unit": "hours"}}, "unfilledtimeout.unit"),
        ({"unfilledtimeout": {"unit": []}}, "unfilledtimeout.unit"),
        ({"unfilledtimeout": {"exit_timeout_count": -1}}, "unfilledtimeout.exit_timeout_count"),
        ({"force_entry_enable": 1}, "force_entry_enable"),
        ({"exchange": {"pair_blacklist": "BTC/.*"}}, "exchange.pair_blacklist"),
        ({"exchange": {"pair_blacklist": ["("]}}, "exchange.pair_blacklist"),
        ({"initial_state": "asleep"}, "initial_state"),
        ({"initial_state": []}, "initial_state"),
    ],
)
def test_an_error_names_the_key_and_what_was_expected(config: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**config)
    assert caught.value.key == key
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_of_a_section_that_does_not_exist_is_told(caplog: pytest.LogCaptureFixture) -> None:
    read(
        paper={"start_form": "earliest"},
        order_types={"stoploss_on_exchange": False, "force_exits": "limit"},
        unfilledtimeout={"units": "seconds"},
    )
    assert [record.getMessage() for record in caplog.records] == [
        "paper.start_form: not a key of this section, ignored; did you mean start_from?",
        "order_types.force_exits: not a key of this section, ignored; did you mean force_exit?",
        "unfilledtimeout.units: not a key of this section, ignored; did you mean unit?",
    ]
