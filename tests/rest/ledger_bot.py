"""A bot that keeps what REST changes, in memory: every operation of BotAPI works on it."""

from __future__ import annotations

import typing
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from hub.protocol import answers as a
from hub.protocol.botapi import (
    BotError,
    BotFault,
    LockOrder,
    MarginMode,
    NotFound,
    OrderType,
    Side,
    TradingMode,
)

__all__ = ["LedgerBot", "filled"]

T = TypeVar("T", bound=msgspec.Struct)
PAIRS = ["BTC/USDT", "ETH/USDT"]


def filled(cls: type[T], **known: Any) -> T:
    """A `cls` whose required fields are zero, empty or null where `known` does not say more."""
    required = {f.name: f.type for f in msgspec.structs.fields(cls) if f.required and f.name not in known}
    return cls(**known, **{name: _zero(kind) for name, kind in required.items()})


def _zero(kind: Any) -> Any:
    options = typing.get_args(kind)
    if type(None) in options:
        return None
    origin = typing.get_origin(kind) or kind
    return filled(origin) if issubclass(origin, msgspec.Struct) else origin()


class LedgerBot:
    """`calls` has the name and the arguments of every request, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.state = "running"
        self._trades: dict[int, a.OpenTrade] = {}
        self._locks: dict[int, a.Lock] = {}
        self._blacklist: list[str] = []
        self._numbers = 0

    def _note(self, _name: str, **arguments: Any) -> None:
        self.calls.append((_name, arguments))

    def _next(self) -> int:
        self._numbers += 1
        return self._numbers

    def _trade(self, number: int) -> a.OpenTrade:
        if number not in self._trades:
            raise NotFound("Trade not found.")
        return self._trades[number]

    # --- what it is

    async def version(self) -> a.Version:
        self._note("version")
        return a.Version(version="ledger-1")

    async def show_config(self) -> a.ShowConfig:
        self._note("show_config")
        return a.ShowConfig(version="ledger-1", api_version=2.48, state=self.state, timeframe="5m")

    async def health(self) -> a.Health:
        self._note("health")
        return a.Health()

    async def logs(self, *, limit: int | None = None) -> a.Logs:
        self._note("logs", limit=limit)
        return a.Logs(log_count=1, logs=[["2026-11-22 13:26:07", 1.5, "bot", "INFO", "hello"]])

    async def sysinfo(self) -> a.SystemInfo:
        self._note("sysinfo")
        return filled(a.SystemInfo)

    async def plot_config(self, *, strategy: str | None = None) -> dict[str, Any]:
        self._note("plot_config", strategy=strategy)
        return {"main_plot": {"ema": {}}}

    async def strategy(self, *, strategy: str) -> a.StrategySource:
        self._note("strategy", strategy=strategy)
        if strategy != "Ledger":
            raise NotFound("Strategy not found")
        return a.StrategySource(strategy=strategy, timeframe="5m", code="class Ledger: ...")

    async def markets(
        self,
        *,
        trading_mode: TradingMode | None = None,
        margin_mode: MarginMode | None = None,
        exchange: str | None = None,
        base: str | None = None,
        quote: str | None = None,
        include_inactive: bool = False,
    ) -> a.Markets:
        self._note(
            "markets",
            trading_mode=trading_mode,
            margin_mode=margin_mode,
            exchange=exchange,
            base=base,
            quote=quote,
            include_inactive=include_inactive,
        )
        return a.Markets(markets={p: filled(a.Market, symbol=p) for p in PAIRS}, exchange_id="binance")

    # --- money and statistics

    async def balance(self) -> a.Balances:
        self._note("balance")
        return filled(a.Balances)

    async def count(self) -> a.Count:
        self._note("count")
        if self.state != "running":
            raise BotError("trader is not running")
        return a.Count(current=len(self._open()), max=3, total_stake=0.0)

    async def entries(self, *, pair: str | None = None) -> list[a.EntryPerformance]:
        self._note("entries", pair=pair)
        return []

    async def exits(self, *, pair: str | None = None) -> list[a.ExitPerformance]:
        self._note("exits", pair=pair)
        return []

    async def mix_tags(self, *, pair: str | None = None) -> list[a.MixTagPerformance]:
        self._note("mix_tags", pair=pair)
        return []

    async def performance(self) -> list[a.PairPerformance]:
        self._note("performance")
        return [filled(a.PairPerformance, pair=PAIRS[0])]

    async def profit(self) -> a.Profit:
        self._note("profit")
        return filled(a.Profit)

    async def profit_all(self) -> a.ProfitAll:
        self._note("profit_all")
        return a.ProfitAll(all=filled(a.Profit))

    async def stats(self) -> a.Stats:
        self._note("stats")
        return a.Stats(exit_reasons={}, durations={"wins": None})

    async def historic_balance(self) -> a.WalletHistory:
        self._note("historic_balance")
        return a.WalletHistory(columns=["date", "__date_ts", "total_quote"], length=0, data=[])

    async def daily(self, *, timescale: int = 7) -> a.Periods:
        return self._periods("daily", timescale)

    async def weekly(self, *, timescale: int = 4) -> a.Periods:
        return self._periods("weekly", timescale)

    async def monthly(self, *, timescale: int = 3) -> a.Periods:
        return self._periods("monthly", timescale)

    def _periods(self, name: str, timescale: int) -> a.Periods:
        self._note(name, timescale=timescale)
        return a.Periods(data=[filled(a.Period)], fiat_display_currency="USD", stake_currency="USDT")

    # --- trades

    def _open(self) -> list[a.OpenTrade]:
        return [trade for trade in self._trades.values() if trade.is_open]

    async def status(self) -> list[a.OpenTrade]:
        self._note("status")
        return self._open()

    async def trades(self, *, limit: int = 500, offset: int = 0, order_by_id: bool = True) -> a.TradePage:
        self._note("trades", limit=limit, offset=offset, order_by_id=order_by_id)
        page = [filled(a.ListedTrade, trade_id=n) for n in self._trades][offset : offset + limit]
        return a.TradePage(trades=page, trades_count=len(page), offset=offset, total_trades=len(self._trades))

    async def trade(self, *, tradeid: int) -> a.OpenTrade:
        self._note("trade", tradeid=tradeid)
        return self._trade(tradeid)

    async def delete_trade(self, *, tradeid: int) -> a.DeletedTrade:
        self._note("delete_trade", tradeid=tradeid)
        del self._trades[self._trade(tradeid).trade_id]
        return a.DeletedTrade(cancel_order_count=0, result="success", result_msg="", trade_id=tradeid)

    async def cancel_open_order(self, *, tradeid: int) -> a.OpenTrade:
        self._note("cancel_open_order", tradeid=tradeid)
        if not self._trade(tradeid).has_open_orders:
            raise BotError("No open order for trade_id.")
        return self._trade(tradeid)

    async def reload_trade(self, *, tradeid: int) -> a.OpenTrade:
        self._note("reload_trade", tradeid=tradeid)
        return self._trade(tradeid)

    async def open_custom_data(
        self, *, key: str | None = None, limit: int = 100, offset: int = 0
    ) -> list[a.TradeCustomData]:
        self._note("open_custom_data", key=key, limit=limit, offset=offset)
        return [a.TradeCustomData(trade_id=t.trade_id, custom_data=[]) for t in self._open()]

    async def custom_data(self, *, trade_id: int, key: str | None = None) -> list[a.TradeCustomData]:
        self._note("custom_data", trade_id=trade_id, key=key)
        value = a.CustomData(key="k", type="int", value=3, created_at="2026-11-22T13:26:07Z")
        return [a.TradeCustomData(trade_id=self._trade(trade_id).trade_id, custom_data=[value])]

    async def force_enter(
        self,
        *,
        pair: str,
        side: Side = Side.LONG,
        price: float | None = None,
        ordertype: OrderType | None = None,
        stakeamount: float | None = None,
        entry_tag: str | None = None,
        leverage: float | None = None,
    ) -> a.EnteredTrade | a.StatusText:
        self._note(
            "force_enter",
            pair=pair,
            side=side,
            price=price,
            ordertype=ordertype,
            stakeamount=stakeamount,
            entry_tag=entry_tag,
            leverage=leverage,
        )
        if pair in self._blacklist:
            return a.StatusText(status=f"Error entering {side} trade for pair {pair}.")
        if side is Side.SHORT:
            raise BotError("Can't go short on Spot markets.")
        trade = filled(a.OpenTrade, trade_id=self._next(), pair=pair, is_open=True, enter_tag=entry_tag)
        self._trades[trade.trade_id] = trade
        return trade

    async def force_exit(
        self,
        *,
        tradeid: str | int,
        ordertype: OrderType | None = None,
        amount: float | None = None,
        price: float | None = None,
    ) -> a.ResultText:
        self._note("force_exit", tradeid=tradeid, ordertype=ordertype, amount=amount, price=price)
        if tradeid == "all":
            for trade in self._open():
                trade.is_open = False
            return a.ResultText(result="Created exit orders for all open trades.")
        if not str(tradeid).isdecimal() or int(tradeid) not in self._trades:
            raise BotError("invalid argument")
        self._trades[int(tradeid)].is_open = False
        return a.ResultText(result=f"Created exit order for trade {tradeid}.")

    # --- pairs

    def _blacklisted(self, errors: dict[str, Any] | None = None) -> a.Blacklist:
        pairs = list(self._blacklist)
        return a.Blacklist(
            blacklist=pairs, blacklist_expanded=pairs, errors=errors or {}, length=len(pairs), method=[]
        )

    async def blacklist(self) -> a.Blacklist:
        self._note("blacklist")
        return self._blacklisted()

    async def add_to_blacklist(self, *, blacklist: list[str]) -> a.Blacklist:
        self._note("add_to_blacklist", blacklist=blacklist)
        self._blacklist += [pair for pair in blacklist if pair not in self._blacklist]
        return self._blacklisted()

    async def delete_from_blacklist(self, *, pairs_to_delete: list[str] = []) -> a.Blacklist:  # noqa: B006
        self._note("delete_from_blacklist", pairs_to_delete=pairs_to_delete)
        missing = {
            p: {"error_msg": f"Pair {p} is not in the current blacklist."}
            for p in pairs_to_delete
            if p not in self._blacklist
        }
        self._blacklist = [pair for pair in self._blacklist if pair not in pairs_to_delete]
        return self._blacklisted(missing)

    async def whitelist(self) -> a.PairList:
        self._note("whitelist")
        return a.PairList(whitelist=PAIRS, length=len(PAIRS), method=["StaticPairList"])

    # --- locks

    def _locked(self) -> a.Locks:
        return a.Locks(lock_count=len(self._locks), locks=list(self._locks.values()))

    async def locks(self) -> a.Locks:
        self._note("locks")
        return self._locked()

    async def add_locks(self, *, locks: list[LockOrder]) -> a.Locks:
        self._note("add_locks", locks=locks)
        for lock in locks:
            number = self._next()
            until = lock.until.astimezone(UTC)
            self._locks[number] = filled(
                a.Lock,
                id=number,
                active=True,
                pair=lock.pair,
                side=lock.side,
                lock_end_time=f"{until:%Y-%m-%d %H:%M:%S}",
                reason=lock.reason,
            )
        return self._locked()

    async def delete_lock(self, *, lockid: int) -> a.Locks:
        self._note("delete_lock", lockid=lockid)
        self._locks.pop(lockid, None)
        return self._locked()

    async def delete_locks(self, *, pair: str | None = None, lockid: int | None = None) -> a.Locks:
        self._note("delete_locks", pair=pair, lockid=lockid)
        self._locks = {n: k for n, k in self._locks.items() if k.pair != pair and n != lockid}
        return self._locked()

    # --- control

    async def start(self) -> a.StatusText:
        return self._control("start", "running", "starting trader ...")

    async def stop(self) -> a.StatusText:
        return self._control("stop", "stopped", "stopping trader ...")

    async def pause(self) -> a.StatusText:
        return self._control("pause", "paused", "paused, no more entries will occur from now.")

    async def reload_config(self) -> a.StatusText:
        return self._control("reload_config", self.state, "Reloading config ...")

    def _control(self, name: str, state: str, said: str) -> a.StatusText:
        self._note(name)
        self.state = state
        return a.StatusText(status=said)

    # --- candles

    async def pair_candles(self, *, pair: str, timeframe: str, limit: int | None = None) -> a.PairHistory:
        self._note("pair_candles", pair=pair, timeframe=timeframe, limit=limit)
        return self._candles(pair, timeframe, ["date", "close"])

    async def chosen_pair_candles(
        self, *, pair: str, timeframe: str, limit: int | None = None, columns: list[str] | None = None
    ) -> a.PairHistory:
        self._note("chosen_pair_candles", pair=pair, timeframe=timeframe, limit=limit, columns=columns)
        return self._candles(pair, timeframe, ["date"])

    def _candles(self, pair: str, timeframe: str, columns: list[str]) -> a.PairHistory:
        if pair not in PAIRS:
            raise BotFault(f"no candles of {pair}")
        rows = [[datetime.fromtimestamp(n, UTC).isoformat(), n][: len(columns)] for n in range(250)]
        return filled(
            a.PairHistory, pair=pair, timeframe=timeframe, columns=columns, data=rows, length=len(rows)
        )
