"""The bot of `make run`: PaperBot, saying on stdout in JSON lines how it stands."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from typing import Any

from consumer.bot import PaperBot
from consumer.bot.database import DatabaseFailed
from hub.protocol.envelope import Position
from hub.protocol.localbot import BotContext, Delivery
from hub.protocol.messages import Message

__all__ = ["ReportingBot"]

_REPORT_EVERY_S = 0.25


class ReportingBot(PaperBot):
    """A PaperBot that tells four times a second what was delivered and how it stands."""

    def __init__(self) -> None:
        super().__init__()
        self._delivered = 0
        self._reporting: asyncio.Task[None] | None = None

    async def start(self, context: BotContext) -> Position | None:
        """Start, and tell so at once."""
        position = await super().start(context)
        self._reporting = asyncio.create_task(self._report())
        return position

    def handle(self, delivery: Delivery) -> None:
        """Count what the producing bot published, and act."""
        self._delivered += isinstance(delivery.message, Message)
        super().handle(delivery)

    async def stop(self) -> None:
        """Tell a last time and stop."""
        if self._reporting is not None:
            self._reporting.cancel()
            await asyncio.gather(self._reporting, return_exceptions=True)
        await super().stop()

    async def _report(self) -> None:
        before: dict[str, Any] = {}
        figures = before
        while True:
            with contextlib.suppress(DatabaseFailed):
                figures = await asyncio.to_thread(self._figures)
            if figures != before:
                sys.stdout.write(json.dumps({**figures, "at": time.time()}) + "\n")
                sys.stdout.flush()
                before = figures
            await asyncio.sleep(_REPORT_EVERY_S)

    def _figures(self) -> dict[str, Any]:
        summary, clock = self.summary(), self.statistics()["clock"]
        return {
            "delivered": self._delivered,
            "acted_ms": summary.acted_ms,
            "newest_ms": clock.newest_ms,
            "late_rows": clock.late_rows,
            "closed_profit": float(summary.closed_profit),
            "closed_trades": summary.closed_trades,
            "currency": summary.currency,
            "free": float(summary.free),
            "outbox": summary.outbox,
            "refused": summary.refused,
            "open": [
                [trade.pair, trade.open_ms, float(trade.open_rate), float(trade.amount)]
                for trade in summary.open_trades
            ],
        }
