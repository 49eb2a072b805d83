"""What a bot answers over REST: one type per answer, with the fields and types of freqtrade 2026.9.

Money and rates are floats here, since JSON is the end of the line: a bot that counts exactly rounds once, when it makes these.
Dates are texts as freqtrade writes them (`2026-11-22 13:26:07`, UTC, unless said otherwise), `*_timestamp` and `*_ts` are
integers in ms since 1970 UTC, except in Health and `last_analyzed_ts`, which count seconds. A `*_ratio` of 0.01 is one per cent,
a `*_pct` of 1.0 too. Fields that a freqtrade of another version has beyond these pass through adapters that pass bytes on.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

__all__ = [
    "Balance",
    "Balances",
    "Blacklist",
    "Count",
    "CpuInfo",
    "CustomData",
    "DeletedTrade",
    "EnteredTrade",
    "EntryPerformance",
    "ExitPerformance",
    "ExitReasonCount",
    "Health",
    "ListedOrder",
    "ListedTrade",
    "Lock",
    "Locks",
    "Logs",
    "Market",
    "Markets",
    "MixTagPerformance",
    "OpenTrade",
    "OrderInfo",
    "PairHistory",
    "PairList",
    "PairPerformance",
    "Period",
    "Periods",
    "Profit",
    "ProfitAll",
    "ResultText",
    "ShowConfig",
    "Stats",
    "StatusText",
    "StrategySource",
    "SystemInfo",
    "TradeCustomData",
    "TradeInfo",
    "TradePage",
    "Version",
    "WalletHistory",
]


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """The version of the software that answers."""

    version: str


class StatusText(msgspec.Struct, frozen=True, kw_only=True):
    """What a control did, in freqtrade's words."""

    status: str


class ResultText(msgspec.Struct, frozen=True, kw_only=True):
    """What an order did, in freqtrade's words."""

    result: str


class PairList(msgspec.Struct, frozen=True, kw_only=True):
    """The bot's whitelist, its length, and the methods that made it as far as they are known."""

    whitelist: list[str]
    length: int
    method: list[str] = []


class Blacklist(msgspec.Struct, frozen=True, kw_only=True):
    """The blacklist as written, and expanded to known pairs. `errors` has a reason per entry that was refused."""

    blacklist: list[str]
    blacklist_expanded: list[str]
    errors: dict[str, dict[str, Any]]
    length: int
    method: list[str]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Signs of life: dates as RFC 3339 in UTC, `_ts` in whole seconds since 1970; null where nobody knows."""

    last_process: str | None = None
    last_process_ts: int | None = None
    bot_start: str | None = None
    bot_start_ts: int | None = None
    bot_startup: str | None = None
    bot_startup_ts: int | None = None


class ShowConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a bot says of itself. The defaults are of a bot of which nothing is known: no feature, no number, no name."""

    version: str = ""
    strategy_version: str | None = None
    api_version: float = 0.0
    dry_run: bool = True
    trading_mode: str = "spot"
    margin_mode: str = ""
    short_allowed: bool = False
    stake_currency: str = ""
    stake_amount: str = ""
    available_capital: float | None = None
    stake_currency_decimals: int = 8
    max_open_trades: float = -1.0
    minimal_roi: dict[str, Any] = {}
    stoploss: float | None = None
    stoploss_on_exchange: bool = False
    trailing_stop: bool | None = None
    trailing_stop_positive: float | None = None
    trailing_stop_positive_offset: float | None = None
    trailing_only_offset_is_reached: bool | None = None
    unfilledtimeout: dict[str, Any] | None = None
    order_types: dict[str, Any] | None = None
    use_custom_stoploss: bool | None = None
    timeframe: str | None = None
    timeframe_ms: int = 0
    timeframe_min: int = 0
    exchange: str = ""
    demo_trading: bool = False
    strategy: str | None = None
    force_entry_enable: bool = False
    exit_pricing: dict[str, Any] = {}
    entry_pricing: dict[str, Any] = {}
    bot_name: str = ""
    state: str = ""
    runmode: str = "dry_run"
    position_adjustment_enable: bool = False
    max_entry_position_adjustment: int = -1
    proxy_coin: str | UnsetType | None = UNSET


class Logs(msgspec.Struct, frozen=True, kw_only=True):
    """Log rows, oldest first: [date text, ms since 1970 as a float, logger, level, message]."""

    log_count: int
    logs: list[list[Any]]


class CpuInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The load of one core, in per cent."""

    cpu: int
    pct: float


class SystemInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The machine under the bot. `cpu_load_avg` has the keys 1m, 5m and 15m."""

    cpu_pct: list[float]
    cpu_load: list[CpuInfo]
    cpu_load_avg: dict[str, float]
    cpu_count: int
    cpu_avg: float
    ram_pct: float


class Market(msgspec.Struct, frozen=True, kw_only=True):
    """A pair of the exchange."""

    symbol: str
    base: str
    quote: str
    spot: bool
    swap: bool
    active: bool | None = None


class Markets(msgspec.Struct, frozen=True, kw_only=True):
    """The pairs of the exchange by symbol."""

    markets: dict[str, Market]
    exchange_id: str


class StrategySource(msgspec.Struct, frozen=True, kw_only=True):
    """A strategy: its parameters and its source text."""

    strategy: str
    timeframe: str | None
    code: str
    params: list[dict[str, Any]] = []


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """One currency. `est_stake` is its worth in the stake currency; `bot_owned` is what the bot may use of it."""

    currency: str
    free: float
    balance: float
    used: float
    bot_owned: float | None
    est_stake: float
    est_stake_bot: float | None
    stake: str
    side: str
    is_position: bool
    position: float
    is_bot_managed: bool


class Balances(msgspec.Struct, frozen=True, kw_only=True):
    """All currencies with their totals in the stake currency; `value` is the same in the fiat currency, 0 without one."""

    currencies: list[Balance]
    total: float
    total_bot: float
    symbol: str
    value: float
    value_bot: float
    stake: str
    note: str
    starting_capital: float
    starting_capital_ratio: float
    starting_capital_pct: float
    starting_capital_fiat: float
    starting_capital_fiat_ratio: float
    starting_capital_fiat_pct: float


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """Open trades, how many there may be (-1: any number), and what they cost."""

    current: int
    max: int
    total_stake: float


class Profit(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of the profit view. `profit_closed_*` are of closed trades, `profit_all_*` of open ones too.

    A quotient that is infinite or none is null (freqtrade's `profit_factor` until a trade is lost), whatever its OpenAPI says.
    """

    profit_closed_coin: float
    profit_closed_percent_mean: float
    profit_closed_ratio_mean: float
    profit_closed_percent_sum: float
    profit_closed_ratio_sum: float
    profit_closed_percent: float
    profit_closed_ratio: float
    profit_closed_fiat: float
    profit_all_coin: float
    profit_all_percent_mean: float
    profit_all_ratio_mean: float
    profit_all_percent_sum: float
    profit_all_ratio_sum: float
    profit_all_percent: float
    profit_all_ratio: float
    profit_all_fiat: float
    trade_count: int
    closed_trade_count: int
    first_trade_date: str
    first_trade_humanized: str
    first_trade_timestamp: int
    latest_trade_date: str
    latest_trade_humanized: str
    latest_trade_timestamp: int
    avg_duration: str
    best_pair: str
    best_rate: float
    best_pair_profit_ratio: float
    best_pair_profit_abs: float
    winning_trades: int
    losing_trades: int
    profit_factor: float | None
    winrate: float
    expectancy: float | None
    expectancy_ratio: float | None
    sharpe: float | None
    sortino: float | None
    sqn: float | None
    calmar: float | None
    cagr: float | None
    max_drawdown: float
    max_drawdown_abs: float
    max_drawdown_start: str
    max_drawdown_start_timestamp: int
    max_drawdown_end: str
    max_drawdown_end_timestamp: int
    current_drawdown: float
    current_drawdown_abs: float
    current_drawdown_high: float
    current_drawdown_start: str
    current_drawdown_start_timestamp: int
    trading_volume: float | None
    bot_start_timestamp: int
    bot_start_date: str


class ProfitAll(msgspec.Struct, frozen=True, kw_only=True):
    """The profit of all trades, and by side; both sides are null where the bot cannot go short."""

    all: Profit
    long: Profit | None = None
    short: Profit | None = None


class ExitReasonCount(msgspec.Struct, frozen=True, kw_only=True):
    """How the trades of one exit reason ended."""

    wins: int
    losses: int
    draws: int


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Trades by exit reason, and how long they lasted on average in seconds by `wins`, `draws`, `losses` (null: none)."""

    exit_reasons: dict[str, ExitReasonCount]
    durations: dict[str, float | None]


class PairPerformance(msgspec.Struct, frozen=True, kw_only=True):
    """Closed trades of a pair. `profit` repeats `profit_pct`."""

    profit_ratio: float
    profit_pct: float
    profit_abs: float
    count: int
    pair: str
    profit: float


class EntryPerformance(msgspec.Struct, frozen=True, kw_only=True):
    """Closed trades of an entry tag."""

    profit_ratio: float
    profit_pct: float
    profit_abs: float
    count: int
    enter_tag: str


class ExitPerformance(msgspec.Struct, frozen=True, kw_only=True):
    """Closed trades of an exit reason."""

    profit_ratio: float
    profit_pct: float
    profit_abs: float
    count: int
    exit_reason: str


class MixTagPerformance(msgspec.Struct, frozen=True, kw_only=True):
    """Closed trades of an entry tag and exit reason, joined with a space."""

    profit_ratio: float
    profit_pct: float
    profit_abs: float
    count: int
    mix_tag: str


class WalletHistory(msgspec.Struct, frozen=True, kw_only=True):
    """The wallet over time: rows of `columns`, which are date, __date_ts and total_quote. `capture_start_ts` in ms."""

    columns: list[str]
    length: int
    data: list[list[Any]]
    capture_start_ts: int | None = None


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """A day, week or month; `date` is its first day (YYYY-MM-DD), a month is YYYY-MM."""

    date: str
    abs_profit: float
    rel_profit: float
    starting_balance: float
    fiat_value: float
    trade_count: int


class Periods(msgspec.Struct, frozen=True, kw_only=True):
    """Periods, newest first."""

    data: list[Period]
    fiat_display_currency: str
    stake_currency: str


class OrderInfo(msgspec.Struct, kw_only=True):
    """An order as /status has it. `ft_order_side` is buy or sell, `status` open, closed, canceled or expired."""

    pair: str
    order_id: str
    status: str
    remaining: float | None
    amount: float
    safe_price: float
    cost: float
    filled: float | None
    ft_order_side: str
    order_type: str
    is_open: bool
    order_timestamp: int | None
    order_filled_timestamp: int | None
    ft_fee_base: float | None
    ft_order_tag: str | None


class ListedOrder(OrderInfo, kw_only=True):
    """An order as /trades has it."""

    ft_is_entry: bool
    average: float | None
    order_date: str | None
    order_filled_date: str | None
    price: float
    funding_fee: float | None


class TradeInfo(msgspec.Struct, kw_only=True):
    """A trade, open or closed, without its orders. `timeframe` in minutes; fees are ratios, `*_cost` money."""

    trade_id: int
    pair: str
    base_currency: str
    quote_currency: str
    is_open: bool
    is_short: bool
    exchange: str
    amount: float
    amount_requested: float
    stake_amount: float
    max_stake_amount: float | None
    strategy: str
    enter_tag: str | None
    timeframe: int
    fee_open: float | None
    fee_open_cost: float | None
    fee_open_currency: str | None
    fee_close: float | None
    fee_close_cost: float | None
    fee_close_currency: str | None
    open_date: str
    open_timestamp: int
    open_fill_date: str | None
    open_fill_timestamp: int | None
    open_rate: float
    open_rate_requested: float | None
    open_trade_value: float
    close_date: str | None
    close_timestamp: int | None
    close_rate: float | None
    close_rate_requested: float | None
    close_profit: float | None
    close_profit_pct: float | None
    close_profit_abs: float | None
    profit_ratio: float | None
    profit_pct: float | None
    profit_abs: float | None
    realized_profit: float
    realized_profit_ratio: float | None
    exit_reason: str | None
    exit_order_status: str | None
    stop_loss_abs: float | None
    stop_loss_ratio: float | None
    stop_loss_pct: float | None
    stoploss_last_update: str | None
    stoploss_last_update_timestamp: int | None
    initial_stop_loss_abs: float | None
    initial_stop_loss_ratio: float | None
    initial_stop_loss_pct: float | None
    min_rate: float | None
    max_rate: float | None
    nr_of_successful_entries: int
    nr_of_successful_exits: int
    has_open_orders: bool
    leverage: float | None
    interest_rate: float | None
    liquidation_price: float | None
    funding_fees: float | None
    trading_mode: str | None
    amount_precision: float | None
    price_precision: float | None
    precision_mode: int | None


class EnteredTrade(TradeInfo, kw_only=True):
    """A trade with its orders, as /forceenter answers."""

    orders: list[OrderInfo]
    profit_fiat: float | None


class OpenTrade(EnteredTrade, kw_only=True):
    """A trade as /status and /trade/{id} have it: with what it is worth now. `*_dist` are money, `current_rate` a rate."""

    stoploss_current_dist: float | None
    stoploss_current_dist_pct: float | None
    stoploss_current_dist_ratio: float | None
    stoploss_entry_dist: float | None
    stoploss_entry_dist_ratio: float | None
    current_rate: float
    total_profit_abs: float
    total_profit_fiat: float | None
    total_profit_ratio: float | None


class ListedTrade(TradeInfo, kw_only=True):
    """A trade as /trades has it, without `profit_fiat`. `trade_duration` in minutes; both durations are null while it is open."""

    orders: list[ListedOrder]
    trade_duration_s: int | None
    trade_duration: int | None
    precision_mode_price: int | None
    contract_size: float | None


class TradePage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of all trades: `trades_count` are in it, `total_trades` there are."""

    trades: list[ListedTrade]
    trades_count: int
    offset: int
    total_trades: int


class DeletedTrade(msgspec.Struct, frozen=True, kw_only=True):
    """A trade that was deleted, and how many open orders were cancelled for it. `result` is success."""

    cancel_order_count: int
    result: str
    result_msg: str
    trade_id: int


class CustomData(msgspec.Struct, frozen=True, kw_only=True):
    """A value that a strategy keeps with a trade. Dates in RFC 3339; `type` is Python's name of the value's type."""

    key: str
    type: str
    value: Any
    created_at: str
    updated_at: str | None = None


class TradeCustomData(msgspec.Struct, frozen=True, kw_only=True):
    """All custom data of a trade, or of one key of it."""

    trade_id: int
    custom_data: list[CustomData]


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """A pair that may not be entered until a time. `pair` may be `*`, `side` is long, short or `*`."""

    id: int
    active: bool
    lock_end_time: str
    lock_end_timestamp: int
    lock_time: str
    lock_timestamp: int
    pair: str
    side: str
    reason: str | None


class Locks(msgspec.Struct, frozen=True, kw_only=True):
    """The locks that hold now."""

    lock_count: int
    locks: list[Lock]


class PairHistory(msgspec.Struct, frozen=True, kw_only=True):
    """Analyzed candles: `data` are rows of `columns` (lists, or a msgspec.Raw of their JSON), `all_columns` is what the frame has.

    Dates in rows and `last_analyzed` in RFC 3339, `data_start` and `data_stop` with a blank and an offset; `*_ts` in ms,
    `last_analyzed_ts` in seconds.
    """

    strategy: str
    pair: str
    timeframe: str
    timeframe_ms: int
    columns: list[str]
    data: Any
    length: int
    buy_signals: int
    sell_signals: int
    enter_long_signals: int
    exit_long_signals: int
    enter_short_signals: int
    exit_short_signals: int
    last_analyzed: str
    last_analyzed_ts: int
    data_start_ts: int
    data_start: str
    data_stop: str
    data_stop_ts: int
    all_columns: list[str] = []
    annotations: list[dict[str, Any]] | None = None
