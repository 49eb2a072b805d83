"""A freqtrade bot without an exchange or a loop, whose own code builds every message and whose own server sends it.

Runs inside a freqtrade environment only. Everything that goes on the wire is made by freqtrade: trades and orders are its
persistence classes, messages are built by its `_notify_*` and `handle_protections`, requests are answered by its `RPC`.
What is made up is the world around it: quotes, a pairlist and the analyzed frames.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import pandas as pd
from freqtrade.data.dataprovider import DataProvider
from freqtrade.enums import CandleType, MarginMode, RunMode, State, TradingMode
from freqtrade.exceptions import OperationalException
from freqtrade.freqtradebot import FreqtradeBot
from freqtrade.persistence import Order, PairLocks, Trade, init_db
from freqtrade.plugins.protectionmanager import ProtectionManager
from freqtrade.rpc import RPCManager
from freqtrade.util import PeriodicCache, dt_now, dt_ts
from freqtrade.worker import Worker

USERNAME = "freqtrader"
PASSWORD = "SuperSecret1!"

logger = logging.getLogger(__name__)


def config_for(token: str | list[str], *, timeframe: str, port: int = 0) -> dict[str, Any]:
    """A configuration with an API server on 127.0.0.1; port 0 takes a free one."""
    return {
        "runmode": RunMode.DRY_RUN,
        "dry_run": True,
        "dry_run_wallet": 10000,
        "trading_mode": TradingMode.FUTURES,
        "margin_mode": MarginMode.ISOLATED,
        "candle_type_def": CandleType.SPOT,
        "timeframe": timeframe,
        "stake_currency": "USDT",
        "stake_amount": 200,
        "max_open_trades": 6,
        "minimal_roi": {"0": 10},
        "stoploss": -0.3,
        "trailing_stop": False,
        "position_adjustment_enable": False,
        "strategy": "BareBot",
        "exchange": {"name": "binance"},
        "entry_pricing": {},
        "exit_pricing": {},
        # The gate for strategy_msg asks for a section by the handler's class name, not for api_server.
        "apiserver": {"allow_custom_messages": True},
        "api_server": {
            "enabled": True,
            "listen_ip_address": "127.0.0.1",
            "listen_port": port,
            "verbosity": "error",
            "jwt_secret_key": "interop-jwt-secret-0123456789abcdef",
            "username": USERNAME,
            "password": PASSWORD,
            "ws_token": token,
        },
    }


class Quotes:
    """The exchange as far as a message needs it."""

    name = "Binance"

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}

    def get_rate(self, pair: str, side: str, is_short: bool, refresh: bool) -> float:
        return self.rates.get(pair, 100.0)

    def get_pair_base_currency(self, pair: str) -> str:
        return pair.partition("/")[0]

    def get_pair_quote_currency(self, pair: str) -> str:
        return pair.partition("/")[2].partition(":")[0]

    def close(self) -> None:
        """Nothing is held."""


class Pairlist:
    """A pairlist that changes when told to."""

    def __init__(self) -> None:
        self.whitelist: list[str] = []
        self.next: list[str] = []

    def refresh_pairlist(self) -> None:
        self.whitelist = list(self.next)

    def short_desc(self) -> list[dict[str, str]]:
        return [{"StaticPairList": "StaticPairList"}]


class Wallets:
    """Only what the protections ask for."""

    def get_starting_balance(self) -> float:
        return 10000.0


class Locks:
    """The strategy as far as closing a trade needs it."""

    def lock_pair(self, pair: str, until: Any, reason: str | None = None, side: str = "*") -> None:
        PairLocks.lock_pair(pair, until, reason, side=side)


class BareBot(FreqtradeBot):
    """A started API server and freqtrade's own message builders. One a process: the API server is a singleton."""

    def __init__(self, config: dict[str, Any]) -> None:
        init_db("sqlite://")
        self.config = config
        self.state = State.RUNNING
        self.trading_mode = TradingMode.FUTURES
        self.margin_mode = MarginMode.ISOLATED
        self.exchange = Quotes()
        self.wallets = Wallets()
        self.strategy = Locks()
        PairLocks.timeframe = config["timeframe"]
        self.pairlists = Pairlist()
        self.active_pair_whitelist = []
        self.protections = ProtectionManager(config, PROTECTIONS)
        self._exit_reason_cache = PeriodicCache(100, ttl=60)
        self._liq_warn_cache = {}
        self._orders = 0
        self.rpc = RPCManager(self)
        self.dataprovider = DataProvider(config, None, pairlists=self.pairlists, rpc=self.rpc)

    @property
    def port(self) -> int:
        server = self.rpc.registered_modules[0]._server
        return int(server.servers[0].sockets[0].getsockname()[1])

    def stop(self) -> None:
        self.rpc.cleanup()

    def analyzed(self, pair: str, frame: pd.DataFrame, *, candles: int = 1) -> None:
        """What the bot does after it analysed `pair`: keep `frame`, then broadcast its last row and that it is new.

        `candles` 0 keeps the frame without a word, as after a restart before the first new candle.
        """
        key = (pair, self.config["timeframe"], CandleType.SPOT)
        self.dataprovider._set_cached_df(*key[:2], frame, key[2])
        if candles:
            self.dataprovider._emit_df(key, frame, new_candle=True)

    def set_whitelist(self, pairs: Iterable[str]) -> None:
        """Another active whitelist, broadcast when it differs."""
        self.pairlists.next = list(pairs)
        self.active_pair_whitelist = self._refresh_active_whitelist()

    def say(self, text: str) -> None:
        """A strategy's own message."""
        self.dataprovider.send_msg(text, always_send=True)
        self.rpc.process_msg_queue(self.dataprovider._msg_queue)

    def start_messages(self) -> None:
        """warning, startup (three of them), status"""
        self.rpc.startup_messages(self.config, self.pairlists, self.protections)
        self.notify_status("running")

    def fail(self) -> None:
        """exception, the broadcast shape"""
        worker = Worker.__new__(Worker)
        worker.freqtrade = self
        worker._process_running()
        self.state = State.RUNNING

    def process(self) -> None:
        raise OperationalException("Strategy caused the following exception: division by zero")

    def entry(self, pair: str, price: float) -> Trade:
        """entry"""
        self.exchange.rates[pair] = price
        trade = Trade(
            pair=pair, base_currency=pair.partition("/")[0], stake_currency="USDT", stake_amount=200.0, amount=200.0 / price,
            amount_requested=200.0 / price, open_rate=price, open_rate_requested=price, open_date=dt_now(), is_open=True,
            is_short=False, leverage=5.0, fee_open=0.001, fee_close=0.001, exchange="binance", strategy="BareBot",
            enter_tag="rig_m0", timeframe=1, liquidation_price=price * 0.82, interest_rate=0.0,
        )  # fmt: skip
        order = self._order(trade, trade.entry_side, price)
        trade.orders.append(order)
        Trade.session.add(trade)
        Trade.commit()
        self._notify_enter(trade, order, "limit")
        return trade

    def entry_fill(self, trade: Trade) -> None:
        """entry_fill"""
        order = self._filled(trade.orders[-1])
        trade.update_trade(order)
        self.order_close_notify(trade, order, stoploss_order=False, send_msg=True)

    def entry_cancel(self, trade: Trade) -> None:
        """entry_cancel"""
        order = trade.orders[-1]
        order.status, order.ft_is_open = "canceled", False
        self._notify_enter_cancel(trade, "limit", reason="cancelled due to timeout, fully cancelled")
        trade.delete()

    def near_liquidation(self, trade: Trade) -> None:
        """liquidation_warning"""
        self.exchange.rates[trade.pair] = trade.liquidation_price * 1.02
        self.check_liquidation_warnings()

    def exit(self, trade: Trade, price: float, reason: str) -> None:
        """exit"""
        self.exchange.rates[trade.pair] = price
        order = self._order(trade, trade.exit_side, price)
        trade.orders.append(order)
        trade.close_rate_requested = price
        trade.exit_reason = reason
        self._notify_exit(trade, "limit", order=order)
        Trade.commit()

    def exit_cancel(self, trade: Trade) -> None:
        """exit_cancel"""
        order = trade.orders[-1]
        order.status, order.ft_is_open = "canceled", False
        self._notify_exit_cancel(trade, "limit", reason="cancelled due to timeout", order_id=order.order_id)
        trade.close_rate_requested = None
        Trade.commit()

    def exit_fill(self, trade: Trade) -> None:
        """exit_fill, then protection_trigger and, after a stop loss, protection_trigger_global"""
        order = self._filled(trade.orders[-1])
        trade.update_trade(order)
        self.order_close_notify(trade, order, stoploss_order=False, send_msg=True)

    def trade_story(self, first: str, second: str) -> None:
        """All types that come from trading, in the order of a bot's life."""
        self.entry_cancel(self.entry(first, 147.391))
        trade = self.entry(second, 59530.92)
        self.entry_fill(trade)
        self.near_liquidation(trade)
        self.exit(trade, 59000.5, "stop_loss")
        self.exit_cancel(trade)
        self.exit(trade, 58892.58, "stop_loss")
        self.exit_fill(trade)

    def _order(self, trade: Trade, side: str, price: float) -> Order:
        self._orders += 1
        placed = {
            "id": f"dry_run_{side}_{self._orders}", "status": "open", "symbol": trade.pair, "type": "limit", "side": side,
            "price": price, "amount": trade.amount, "filled": 0.0, "remaining": trade.amount, "cost": 0.0, "timestamp": dt_ts(),
        }  # fmt: skip
        return Order.parse_from_ccxt_object(placed, trade.pair, side, trade.amount, price)

    def _filled(self, order: Order) -> Order:
        order.update_from_ccxt_object(
            {"id": order.order_id, "status": "closed", "filled": order.amount, "remaining": 0.0, "average": order.price,
             "cost": order.amount * order.price, "lastTradeTimestamp": dt_ts()}
        )  # fmt: skip
        return order


PROTECTIONS = [
    {"method": "CooldownPeriod", "stop_duration_candles": 2},
    {"method": "StoplossGuard", "lookback_period_candles": 60, "trade_limit": 1, "stop_duration_candles": 60},
]
