"""The ledger messages that were acted on last: by them one that comes again in another epoch is known.

Within an epoch offsets decide what is a repetition. Where a hub has lost the end of its ledger, a new epoch begins, and a publisher
that was not answered publishes the same message again, under a number that says nothing. Its `mid` and its content do.

How many: what can come again was delivered and its answer did not arrive, so of one publisher at most what it has in flight (256 on a
connection). REMEMBERED is four publishers with full windows: 100 KB of memory, and a row with each effect, however many there are.

Two publishers of one bot that say the same under the same `mid` say one thing, as far as this can tell: who publishes is not sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from hub.protocol.codec import encode_body
from hub.protocol.errors import BadMessage

__all__ = ["REMEMBERED", "Recent", "fingerprint"]

REMEMBERED = 1024
_DIGEST_BYTES = 12


def fingerprint(bot: str, topic: str, mid: str, data: Any) -> str | None:
    """What a message is known by in another epoch; None of a content that no hub can have stored."""
    try:
        body = encode_body([bot, topic, mid, data])
    except BadMessage:
        return None
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).hexdigest()


class Recent:
    """The newest REMEMBERED messages, each with the epoch in which it came last. `start` is what an earlier run had, oldest first."""

    def __init__(self, start: Mapping[str, str] | None = None) -> None:
        self._epochs: dict[str, str] = {}
        for digest, epoch in (start or {}).items():
            self.add(digest, epoch)

    def __len__(self) -> int:
        return len(self._epochs)

    def add(self, digest: str, epoch: str) -> None:
        """A message came; the oldest is forgotten for it."""
        epochs = self._epochs
        if digest in epochs:
            del epochs[digest]
        elif len(epochs) >= REMEMBERED:
            del epochs[next(iter(epochs))]
        epochs[digest] = epoch

    def repeats(self, digest: str, epoch: str) -> bool:
        """Whether a message of `epoch` came before in another one."""
        return self._epochs.get(digest, epoch) != epoch

    def has(self, digest: str, epoch: str) -> bool:
        """Whether a message came last in `epoch`."""
        return self._epochs.get(digest) == epoch

    def known(self) -> dict[str, str]:
        """All of them, oldest first: digests and epochs."""
        return dict(self._epochs)
