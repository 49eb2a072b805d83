"""Answer REST without a port: a bot that attaches to a hub. TRADEWIRE_TOKEN is a publisher's, TRADEWIRE_URL the hub's.

Then: tradewire-consumer ctl --config hub.json --bot alpha count
"""

import asyncio
import os

from consumer import Attachment, BotAPI
from consumer.answering import Answering
from hub.protocol.answers import Count, PairList, StatusText, Version
from hub.protocol.botapi import BotError


class Bot(BotAPI):
    """The methods are BotAPI's; those that are left out are answered with 502, a BotError with its text."""

    def __init__(self) -> None:
        self.paused = False

    async def version(self) -> Version:
        return Version(version="mine 1.0")

    async def count(self) -> Count:
        return Count(current=1, max=3, total_stake=60.5)

    async def whitelist(self) -> PairList:
        return PairList(whitelist=["BTC/USDT"], length=1)

    async def pause(self) -> StatusText:
        if self.paused:
            raise BotError("already paused")
        self.paused = True
        return StatusText(status="paused")


async def main() -> None:
    url, token = os.environ.get("TRADEWIRE_URL", "ws://127.0.0.1:8080"), os.environ["TRADEWIRE_TOKEN"]
    bot = Bot()  # type: ignore[abstract]  # not all methods are there
    async with Attachment(url, token, "alpha", Answering(bot)) as attachment:
        await attachment.ready()
        print("attached as alpha", flush=True)
        # It reconnects by itself; without this line the block would end, and the bot be detached.
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
