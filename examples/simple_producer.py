"""Publish as a bot: a whitelist, analyzed candles, a fill. TRADEWIRE_TOKEN is a publisher's, TRADEWIRE_URL the hub's."""

import asyncio
import os

import pandas as pd

from consumer import Publisher
from hub.frames.columns import Columns

KEY = ("BTC/USDT", "5m", "spot")


async def main() -> None:
    dates = pd.date_range("2026-01-01", periods=100, freq="5min", tz="UTC")
    candles = pd.DataFrame(
        {"date": dates, "open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5, "volume": 10.0}
    )
    candles["enter_long"] = 0
    url = os.environ.get("TRADEWIRE_URL", "ws://127.0.0.1:8080")
    async with Publisher(url, os.environ["TRADEWIRE_TOKEN"]) as publisher:
        await publisher.publish("alpha", "whitelist", ["BTC/USDT"])
        # The first frame is the whole window, each further one only what is new.
        await publisher.publish(
            "alpha", "analyzed_df", key=KEY, frame=Columns.from_pandas(candles), replace=True
        )
        await publisher.publish("alpha", "new_candle", list(KEY))
        fill = {"trade_id": 1, "pair": "BTC/USDT", "amount": 0.5, "open_rate": 1.5}
        ack = await publisher.publish("alpha", "entry_fill", fill, mid="alpha/1/entry_fill")
        print(f"entry_fill is durable at {ack.position}" + (", again" if ack.duplicate else ""))


asyncio.run(main())
