"""The embedded default bot: PaperBot, a dry-run bot with wallet, trades and SQLite."""

from __future__ import annotations

from consumer.bot.book import Position, Summary
from consumer.bot.paper import PaperBot

__all__ = ["PaperBot", "Position", "Summary"]
