"""Follow every bot of a hub (or one freqtrade bot): typed messages, and dataframes as freqtrade's strategies ask for them."""

import asyncio
import os

from consumer import Client, ConsumerConfig, ProducerConfig
from hub.protocol.messages import EntryFill, ExitFill, NewCandle

HUB = ProducerConfig(
    name="hub",
    host=os.environ.get("TRADEWIRE_HOST", "127.0.0.1"),
    port=int(os.environ.get("TRADEWIRE_PORT", "8080")),
    ws_token=os.environ["TRADEWIRE_TOKEN"],
)


async def main() -> None:
    async with Client(HUB, ConsumerConfig()) as client:
        async for delivery in client:
            match delivery.message:
                case EntryFill() | ExitFill() as fill:
                    print(f"{delivery.bot} {fill.type}: {fill.amount} {fill.pair}", flush=True)
                case NewCandle(data=key):
                    frame, analyzed = client.data.get_producer_df(
                        key.pair, key.timeframe, key.candle_type, producer_name=f"hub/{delivery.bot}"
                    )
                    print(f"{delivery.bot} {key.pair}: {len(frame)} candles, analyzed {analyzed}", flush=True)


asyncio.run(main())
