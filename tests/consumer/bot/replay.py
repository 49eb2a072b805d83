"""What the tests of the PaperBot share: rows made up from a seed, deliveries of them, and a context without a hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from consumer.bot.candles import Candle
from consumer.errors import ConsumerError
from hub.frames.columns import Columns
from hub.protocol.botapi import BotError
from hub.protocol.envelope import Position
from hub.protocol.localbot import CandleComplete, Delivery
from hub.protocol.messages import AnalyzedDf, FrameKey, Whitelist

STEP_MS = 1_800_000
START_MS = 1_543_622_400_000
PAIRS = ("BTC/USD", "ETH/USD", "XRP/USD")


def at(index: int) -> int:
    """The date of the candle `index`."""
    return START_MS + index * STEP_MS


def frame(rows: Mapping[int, Candle]) -> Columns:
    """Rows by date as the columns of a producer's frame."""
    data = {
        "date": list(rows),
        "open": [row.open for row in rows.values()],
        "high": [row.high for row in rows.values()],
        "low": [row.low for row in rows.values()],
        "close": [row.close for row in rows.values()],
        "enter_long": [int(row.enter_long) for row in rows.values()],
        "exit_long": [int(row.exit_long) for row in rows.values()],
        "enter_tag": [row.enter_tag for row in rows.values()],
        "exit_tag": [row.exit_tag for row in rows.values()],
    }
    dtypes = {"date": "ts_ms", "enter_tag": "str", "exit_tag": "str"}
    return Columns.from_mapping(data, dtypes)


def delivery(topic: str, message: Any, *, bot: str = "alpha", snapshot: bool = False) -> Delivery:
    return Delivery(producer="hub", bot=bot, topic=topic, message=message, snapshot=snapshot)


def whitelist(*pairs: str, bot: str = "alpha") -> Delivery:
    return delivery("whitelist", Whitelist(data=list(pairs or PAIRS)), bot=bot)


def rows(
    pair: str,
    rows: Mapping[int, Candle],
    *,
    bot: str = "alpha",
    timeframe: str = "30m",
    snapshot: bool = False,
) -> Delivery:
    message = AnalyzedDf(key=FrameKey(pair, timeframe, "spot"), df=frame(rows))
    return delivery("analyzed_df", message, bot=bot, snapshot=snapshot)


def complete(date_ms: int, pairs: tuple[str, ...], missing: tuple[str, ...]) -> Delivery:
    message = CandleComplete(
        timeframe="30m", candle_ms=date_ms, pairs=pairs, missing=missing, deadline=bool(missing)
    )
    return delivery("hub.candle_complete", message)


class Context:
    """A BotContext that keeps what is published, or refuses it with `failure`.

    `published` has the messages of orders, `bulletins` the others. `file` is what `reload` finds; `reloads` what it took.
    """

    def __init__(self, config: Mapping[str, Any], *, name: str = "paper", data_dir: Path = Path()) -> None:
        self.config = config
        self.data_dir = data_dir
        self.name = name
        self.published: list[tuple[str, dict[str, Any], str]] = []
        self.bulletins: list[tuple[str, list[str]]] = []
        self.failure: Exception | None = None
        self.file: Mapping[str, Any] = config
        self.reloads: list[Mapping[str, Any]] = []
        self.frames: dict[tuple[str, FrameKey], AnalyzedDf] = {}

    async def publish(self, topic: str, data: Any, *, mid: str, kept: bool = False) -> Position | None:
        if self.failure is not None:
            raise self.failure
        if topic in ("whitelist", "new_candle"):
            self.bulletins.append((topic, data))
            return None
        assert kept
        self.published.append((topic, data, mid))
        return Position("e1", len(self.published))

    async def reload(self, check: Callable[[Mapping[str, Any], str], object] | None = None) -> None:
        try:
            if check is not None:
                check(self.file, self.name)
        except ConsumerError as error:
            raise BotError(str(error)) from None
        self.reloads.append(self.file)

    def get_producer_pairs(self, producer_name: str = "default") -> list[str]:
        return []

    def analyzed_df(self, key: FrameKey, producer_name: str = "default") -> AnalyzedDf | None:
        return self.frames.get((producer_name, key))
