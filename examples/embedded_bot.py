"""A synchronous bot that embeds the hub, as freqtrade embeds its API server: start it in a thread, publish, stop.

The configuration is freqtrade's `api_server` section; without one the hub listens on 127.0.0.1:8080 with secrets of its own.
"""

import json
import sys
import time
from pathlib import Path

from hub.server import Hub

CONFIG = json.loads(Path(sys.argv[1]).read_text()) if len(sys.argv) > 1 else None


class Bot:
    """Anything with a loop of its own."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    def trade(self, number: int) -> None:
        fill = {"trade_id": number, "pair": "BTC/USDT", "amount": 0.1, "open_rate": 97_000.0 + number}
        # publish() never blocks; result() waits until the fill is durable.
        position = self.hub.publish("entry_fill", fill, bot="embedded").result(timeout=10)
        print(f"trade {number} is durable at {position}", flush=True)


def main() -> None:
    hub = Hub(CONFIG)
    hub.start()
    print(f"the hub listens on {hub.url}", flush=True)
    try:
        bot = Bot(hub)
        for number in range(1, 4):
            bot.trade(number)
            time.sleep(0.1)
    finally:
        hub.stop()


if __name__ == "__main__":
    main()
