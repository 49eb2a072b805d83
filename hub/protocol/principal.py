"""Who a credential says a client is, and what it may do. Reading, publishing and controlling are different rights."""

from __future__ import annotations

import msgspec

__all__ = ["EVERY_BOT", "Principal"]

EVERY_BOT: frozenset[str] = frozenset({"*"})
"""All bots, now and later."""


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated client.

    `reads`, `publishes` and `controls` are names of bots, or EVERY_BOT; `controls` are those whose REST it may call, by HTTP
    and by `call` over v2. `legacy_bot` is the one bot that a client of freqtrade's wire sees with this credential, since it
    cannot name one. `expires_ms` is when the credential ends (ms since 1970 UTC).
    """

    name: str
    reads: frozenset[str] = EVERY_BOT
    publishes: frozenset[str] = frozenset()
    controls: frozenset[str] = frozenset()
    legacy_bot: str | None = None
    expires_ms: int | None = None

    def may_read(self, bot: str) -> bool:
        """Whether this principal may receive what `bot` publishes."""
        return self.reads is EVERY_BOT or "*" in self.reads or bot in self.reads

    def may_publish(self, bot: str) -> bool:
        """Whether this principal may publish in the name of `bot`."""
        return "*" in self.publishes or bot in self.publishes

    def may_control(self, bot: str) -> bool:
        """Whether this principal may call the REST of `bot`."""
        return "*" in self.controls or bot in self.controls

    @property
    def scopes(self) -> list[str]:
        """The rights as `read:BOT`, `publish:BOT` and `control:BOT`, each kind sorted, in this order."""
        rights = {"read": self.reads, "publish": self.publishes, "control": self.controls}
        return [f"{right}:{bot}" for right, bots in rights.items() for bot in sorted(bots)]
