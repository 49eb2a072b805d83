"""The answers of the hub's own routes about the ledger: `GET /fills` and `POST /reconcile`."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["FillsPage", "LedgerFill", "MissedFill", "OtherLedger", "Reconciliation", "UnknownFill"]


class LedgerFill(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the ledger. `ts`: when it happened, ms since 1970 UTC. `data` is as it was published (or a msgspec.Raw of it)."""

    offset: int
    prev: int
    bot: str
    topic: str
    ts: int
    mid: str | None
    data: Any


class FillsPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the ledger, oldest first. The ledger's offsets are in (`floor`, `head`], within `epoch`.

    `damaged` are offsets that were passed and cannot be read, whatever they held. `after` is what to ask the next page with; null at
    the head.
    """

    epoch: str
    floor: int
    head: int
    fills: list[LedgerFill]
    damaged: list[int]
    after: int | None


class OtherLedger(msgspec.Struct, frozen=True, kw_only=True):
    """The answer in place of a page when the cursor's epoch is not the ledger's: what the ledger is now."""

    detail: str
    epoch: str
    floor: int
    head: int


class MissedFill(msgspec.Struct, frozen=True, kw_only=True):
    """A filled order of the bot that no message of the ledger tells of. `ts` by the hub's clock, ms since 1970 UTC.

    `offset`: where it is published now, null where it is not; `refused` says why the ledger does not take it.
    """

    topic: str
    trade_id: int
    pair: str
    order_id: str
    amount: float
    rate: float
    ts: int
    mid: str
    offset: int | None
    refused: str | None


class UnknownFill(msgspec.Struct, frozen=True, kw_only=True):
    """A fill of the ledger that is of no order of the bot: of a deleted trade, or of another database."""

    offset: int
    topic: str
    trade_id: int
    pair: str
    ts: int


class Reconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """A bot's own trades against the ledger, from `since_ms` on (the hub's clock, of which the bot's is `skew_ms` ahead).

    Compared were `fills` of `trades` with `messages` of the ledger, all of ten minutes before that and later. `complete` is false
    where the bot has more trades than are read; `unknown` is empty then. With `damaged` slots of the ledger nothing is published.
    `missing_count` and `unknown_count` count all, the lists have the first thousand. `published` and `refused` are of the missing.
    """

    bot: str
    epoch: str
    since_ms: int
    skew_ms: int
    trades: int
    fills: int
    messages: int
    complete: bool
    damaged: int
    missing_count: int
    unknown_count: int
    published: int
    refused: int
    missing: list[MissedFill]
    unknown: list[UnknownFill]
