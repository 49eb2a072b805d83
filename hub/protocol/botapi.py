"""BotAPI: what REST asks of a bot, with its answers and errors.

Routes, fields and types are those of freqtrade 2026.9's REST API in trading mode, so that its client and FreqUI read them. The
errors::

    HubError
    ├── BotError             the bot's: it cannot do this now; 502 {"error": "Error querying PATH: TEXT"}
    │   ├── BotFault         502 {"detail": TEXT}, where freqtrade answers so (plot_config, pair_candles, strategy)
    │   └── BotGone          the bot is out of reach; 502 as BotError
    ├── BotUnavailable       nobody's: 503 {"detail": TEXT}, with Retry-After where waiting helps
    │   ├── WrongState       the bot runs in another mode
    │   └── BotBusy          it did not answer in time, or has too many requests already
    └── NotFound             the caller's: no such thing; 404 {"detail": TEXT}
        └── UnknownBot       no bot of this name
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta

from hub.protocol.answers import (
    Balances,
    Blacklist,
    Count,
    DeletedTrade,
    EnteredTrade,
    EntryPerformance,
    ExitPerformance,
    Health,
    Locks,
    Logs,
    Markets,
    MixTagPerformance,
    OpenTrade,
    PairHistory,
    PairList,
    PairPerformance,
    Periods,
    Profit,
    ProfitAll,
    ResultText,
    ShowConfig,
    Stats,
    StatusText,
    StrategySource,
    SystemInfo,
    TradeCustomData,
    TradePage,
    Version,
    WalletHistory,
)
from hub.protocol.errors import HubError
from hub.protocol.operations import Operation, Table, delete, get, post

__all__ = [
    "API_PREFIX",
    "API_VERSION",
    "OPERATIONS",
    "BotAPI",
    "BotBusy",
    "BotError",
    "BotFault",
    "BotGone",
    "BotUnavailable",
    "LockOrder",
    "MarginMode",
    "NotFound",
    "OrderType",
    "Refusal",
    "Side",
    "TradingMode",
    "UnknownBot",
    "WrongState",
    "perform",
    "refusal",
]

API_PREFIX = "/api/v1"
API_VERSION = 2.48
"""The REST version told to clients, the highest whose endpoints all work: FreqUI turns features on by it (a number compare).
2.48 is historic_balance; 2.49 (analysis jobs) and 2.50 (timeranges) belong to the webserver mode, which no bot is in."""


class BotError(HubError):
    """The bot answered that it cannot do this now."""


class BotFault(BotError):
    """As BotError, of the operations where freqtrade tells it as `detail`."""


class BotGone(BotError):
    """The bot is out of reach."""


class BotUnavailable(HubError):
    """The bot does not answer this now. `retry_after_s` is when to ask again, where that helps."""

    retry_after_s: int | None = None


class WrongState(BotUnavailable):
    """The operation is of another run mode."""

    def __init__(self) -> None:
        super().__init__("Bot is not in the correct state.")


class BotBusy(BotUnavailable):
    """The bot did not answer in time, or has too many requests already."""

    retry_after_s = 1


class NotFound(HubError):
    """There is no such thing."""


class UnknownBot(NotFound):
    """No bot of this name."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """An error as REST answers it."""

    status: int
    body: dict[str, Any]
    retry_after_s: int | None = None


def refusal(error: HubError, path: str) -> Refusal:
    """The answer to a request whose operation raised `error`; `path` is the request's whole path, as freqtrade's text has it."""
    match error:
        case UnknownBot():
            return Refusal(status=404, body={"detail": "Not Found"})
        case NotFound():
            return Refusal(status=404, body={"detail": str(error)})
        case BotUnavailable():
            return Refusal(status=503, body={"detail": str(error)}, retry_after_s=error.retry_after_s)
        case BotFault():
            return Refusal(status=502, body={"detail": str(error)})
        case _:
            return Refusal(status=502, body={"error": f"Error querying {path}: {error}"})


class Side(StrEnum):
    """The direction of a trade."""

    LONG = "long"
    SHORT = "short"


class OrderType(StrEnum):
    """How an order is priced."""

    LIMIT = "limit"
    MARKET = "market"


class TradingMode(StrEnum):
    """What is traded."""

    SPOT = "spot"
    MARGIN = "margin"
    FUTURES = "futures"


class MarginMode(StrEnum):
    """How margin is held; empty in spot."""

    CROSS = "cross"
    ISOLATED = "isolated"
    NONE = ""


class LockOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A lock to be made: `pair` may be `*`; `until` without an offset is UTC."""

    pair: str
    side: str = "*"
    until: datetime
    reason: str | None = None


AtLeastOne = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]
_INFO, _TRADES, _CONTROL, _PAIRS, _LOCKS, _CANDLES = (
    "Info",
    "Trades",
    "Bot-control",
    "Pairlist",
    "Locks",
    "Candle data",
)


class BotAPI(Protocol):
    """One bot, wherever it runs. Each call may wait for the bot; cancelling it does not take back what the bot does by then.

    Each raises the errors of this module and no other on purpose. A bot may leave methods out: they are answered with 502.
    """

    # --- what it is

    @get("/version", tag=_INFO)
    async def version(self) -> Version:
        """The version of the software that answers."""

    @get("/show_config", tag=_INFO)
    async def show_config(self) -> ShowConfig:
        """Its settings and state."""

    @get("/health", tag=_INFO)
    async def health(self) -> Health:
        """When it last did something."""

    @get("/logs", tag=_INFO)
    async def logs(self, *, limit: int | None = None) -> Logs:
        """Its newest log rows."""

    @get("/sysinfo", tag=_INFO)
    async def sysinfo(self) -> SystemInfo:
        """The load of its machine."""

    @get("/plot_config", tag=_CANDLES)
    async def plot_config(self, *, strategy: str | None = None) -> dict[str, Any]:
        """How its strategy wants its charts drawn; an empty map when it does not say."""

    @get("/strategy/{strategy}", tag="Strategy")
    async def strategy(self, *, strategy: str) -> StrategySource:
        """The source of its strategy; NotFound for another name."""

    @get("/markets", tag=_CANDLES)
    async def markets(
        self,
        *,
        trading_mode: TradingMode | None = None,
        margin_mode: MarginMode | None = None,
        exchange: str | None = None,
        base: str | None = None,
        quote: str | None = None,
        include_inactive: bool = False,
    ) -> Markets:
        """The pairs of its exchange; the filters choose."""

    # --- money and statistics

    @get("/balance", tag=_INFO)
    async def balance(self) -> Balances:
        """Its wallet."""

    @get("/count", tag=_INFO)
    async def count(self) -> Count:
        """How many trades are open."""

    @get("/entries", tag=_INFO)
    async def entries(self, *, pair: str | None = None) -> list[EntryPerformance]:
        """Closed trades by entry tag, best first."""

    @get("/exits", tag=_INFO)
    async def exits(self, *, pair: str | None = None) -> list[ExitPerformance]:
        """Closed trades by exit reason, best first."""

    @get("/mix_tags", tag=_INFO)
    async def mix_tags(self, *, pair: str | None = None) -> list[MixTagPerformance]:
        """Closed trades by entry tag and exit reason, best first."""

    @get("/performance", tag=_INFO)
    async def performance(self) -> list[PairPerformance]:
        """Closed trades by pair, best first."""

    @get("/profit", tag=_INFO)
    async def profit(self) -> Profit:
        """The profit so far."""

    @get("/profit_all", tag=_INFO)
    async def profit_all(self) -> ProfitAll:
        """The profit so far, in all and by side."""

    @get("/stats", tag=_INFO)
    async def stats(self) -> Stats:
        """Closed trades by exit reason, and how long they lasted."""

    @get("/historic_balance", tag=_INFO)
    async def historic_balance(self) -> WalletHistory:
        """The wallet over time."""

    @get("/daily", tag=_INFO)
    async def daily(self, *, timescale: AtLeastOne = 7) -> Periods:
        """The profit of the last days."""

    @get("/weekly", tag=_INFO)
    async def weekly(self, *, timescale: AtLeastOne = 4) -> Periods:
        """The profit of the last weeks, which begin on Monday."""

    @get("/monthly", tag=_INFO)
    async def monthly(self, *, timescale: AtLeastOne = 3) -> Periods:
        """The profit of the last months."""

    # --- trades

    @get("/status", tag=_INFO)
    async def status(self) -> list[OpenTrade]:
        """The open trades, oldest first; none is an empty list."""

    @get("/trades", tag=_TRADES)
    async def trades(
        self, *, limit: AtLeastOne = 500, offset: NotNegative = 0, order_by_id: bool = True
    ) -> TradePage:
        """A page of all trades, by number or by the date of their end."""

    @get("/trade/{tradeid}", tag=_TRADES)
    async def trade(self, *, tradeid: int) -> OpenTrade:
        """One trade, open or closed; NotFound without it."""

    @delete("/trades/{tradeid}", tag=_TRADES)
    async def delete_trade(self, *, tradeid: int) -> DeletedTrade:
        """Cancel a trade's open orders and forget it. Nothing is sold."""

    @delete("/trades/{tradeid}/open-order", tag=_TRADES)
    async def cancel_open_order(self, *, tradeid: int) -> OpenTrade:
        """Cancel a trade's open order."""

    @post("/trades/{tradeid}/reload", tag=_TRADES)
    async def reload_trade(self, *, tradeid: int) -> OpenTrade:
        """Read a trade's orders again from where they are kept."""

    @get("/trades/open/custom-data", tag=_TRADES)
    async def open_custom_data(
        self, *, key: str | None = None, limit: AtLeastOne = 100, offset: NotNegative = 0
    ) -> list[TradeCustomData]:
        """The custom data of the open trades."""

    @get("/trades/{trade_id}/custom-data", tag=_TRADES)
    async def custom_data(self, *, trade_id: int, key: str | None = None) -> list[TradeCustomData]:
        """The custom data of one trade."""

    @post("/forceenter", "/forcebuy", tag=_TRADES)
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
    ) -> EnteredTrade | StatusText:
        """Enter a pair now; the trade, or a text that none was made."""

    @post("/forceexit", "/forcesell", tag=_TRADES)
    async def force_exit(
        self,
        *,
        tradeid: str | int,
        ordertype: OrderType | None = None,
        amount: float | None = None,
        price: float | None = None,
    ) -> ResultText:
        """Leave a trade, a part of it (`amount`, in base currency), or "all"."""

    # --- pairs

    @get("/blacklist", tag=_PAIRS)
    async def blacklist(self) -> Blacklist:
        """The pairs that it never enters."""

    @post("/blacklist", tag=_PAIRS)
    async def add_to_blacklist(self, *, blacklist: list[str]) -> Blacklist:
        """Add pairs."""

    @delete("/blacklist", tag=_PAIRS)
    async def delete_from_blacklist(self, *, pairs_to_delete: list[str] = []) -> Blacklist:  # noqa: B006
        """Take pairs off."""

    @get("/whitelist", tag=_PAIRS)
    async def whitelist(self) -> PairList:
        """The pairs that it trades now."""

    # --- locks

    @get("/locks", tag=_LOCKS)
    async def locks(self) -> Locks:
        """The locks that hold now."""

    @post("/locks", tag=_LOCKS, whole_body=True)
    async def add_locks(self, *, locks: list[LockOrder]) -> Locks:
        """Lock pairs."""

    @delete("/locks/{lockid}", tag=_LOCKS)
    async def delete_lock(self, *, lockid: int) -> Locks:
        """Take one lock off."""

    @post("/locks/delete", tag=_LOCKS)
    async def delete_locks(self, *, pair: str | None = None, lockid: int | None = None) -> Locks:
        """Take the locks of a pair off, or one by its number."""

    # --- control

    @post("/start", tag=_CONTROL)
    async def start(self) -> StatusText:
        """Run."""

    @post("/stop", tag=_CONTROL)
    async def stop(self) -> StatusText:
        """Act on nothing any more."""

    @post("/pause", "/stopentry", "/stopbuy", tag=_CONTROL)
    async def pause(self) -> StatusText:
        """Enter nothing any more; leave what is open by the rules."""

    @post("/reload_config", tag=_CONTROL)
    async def reload_config(self) -> StatusText:
        """Read the configuration again."""

    # --- candles

    @get("/pair_candles", tag=_CANDLES)
    async def pair_candles(self, *, pair: str, timeframe: str, limit: int | None = None) -> PairHistory:
        """The newest analyzed candles of a pair, with all columns."""

    @post("/pair_candles", tag=_CANDLES)
    async def chosen_pair_candles(
        self, *, pair: str, timeframe: str, limit: int | None = None, columns: list[str] | None = None
    ) -> PairHistory:
        """The newest analyzed candles of a pair, with the columns that are named and those that charts need."""


OPERATIONS = Table(BotAPI)
"""All of them by the name of their method."""


async def perform(bot: BotAPI, operation: Operation, arguments: dict[str, Any]) -> Any:
    """Ask `bot` for an operation of OPERATIONS; the answer is of `operation.answer`.

    Raises what the bot raises, and BotError for an operation that its class leaves out.
    """
    method = getattr(bot, operation.name, None)
    # What a subclass inherits from the protocol itself does nothing and would pass for done.
    if method is None or getattr(method, "__func__", None) is getattr(BotAPI, operation.name):
        raise BotError(f"this bot does not answer {operation.name}")
    return await method(**arguments)
