"""Calls with a key: what their callers may repeat, for a bot that keeps the answer in the transaction of the effect.

An `Attachment` remembers answers in memory, which its process takes along when it dies. A bot with a database does better: it asks
IN_HAND, within an operation, which call it is at, and stores the answer with the effect. What it has stored, `answered` tells.
"""

from __future__ import annotations

import hashlib
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import msgspec

from hub.protocol.botapi import API_PREFIX
from hub.protocol.calls import BotAnswer, BotRequest

__all__ = ["IN_HAND", "KeyedCall", "Remembering"]


@dataclass(frozen=True, slots=True)
class KeyedCall:
    """What a caller may repeat. `id` is the same for each repetition, `path` the whole path, as errors word it."""

    id: str
    path: str

    @classmethod
    def of(cls, request: BotRequest) -> KeyedCall | None:
        """None when the request has no key."""
        if request.key is None:
            return None
        # Of one length, and of characters that every database keeps: a key is whatever its caller chose.
        named = [request.principal, request.method, request.path, request.key]
        return cls(hashlib.sha256(msgspec.json.encode(named)).hexdigest(), API_PREFIX + request.path)


IN_HAND: ContextVar[KeyedCall | None] = ContextVar("call in hand", default=None)
"""The call that the operation at work answers; None when it has no key. A thread that the operation starts work in sees it too."""


@runtime_checkable
class Remembering(Protocol):
    """A BotAPI that keeps answers."""

    async def answered(self, call: KeyedCall) -> BotAnswer | None:
        """The answer to an earlier call of this id, within hub.protocol.calls.KEY_S; None: it was never done."""
