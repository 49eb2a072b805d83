"""Who a credential says a client is, and what it may do. Reading and publishing are different rights."""

from __future__ import annotations

import msgspec

__all__ = ["EVERY_BOT", "Principal"]

EVERY_BOT: frozenset[str] = frozenset({"*"})
"""All bots, now and later."""


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated client.

    `reads` and `publishes` are names of bots, or EVERY_BOT. `legacy_bot` is the one bot that a client of freqtrade's wire
    sees with this credential, since it cannot name one. `expires_ms` is when the credential ends (ms since 1970 UTC).
    """

    name: str
    reads: frozenset[str] = EVERY_BOT
    publishes: frozenset[str] = frozenset()
    legacy_bot: str | None = None
    expires_ms: int | None = None

    def may_read(self, bot: str) -> bool:
        """Whether this principal may receive what `bot` publishes."""
        return self.reads is EVERY_BOT or "*" in self.reads or bot in self.reads

    def may_publish(self, bot: str) -> bool:
        """Whether this principal may publish in the name of `bot`."""
        return "*" in self.publishes or bot in self.publishes

    @property
    def scopes(self) -> list[str]:
        """The rights as `read:BOT` and `publish:BOT`, sorted."""
        return [f"read:{b}" for b in sorted(self.reads)] + [f"publish:{b}" for b in sorted(self.publishes)]
