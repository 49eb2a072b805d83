"""The ledger messages that were acted on last: by them one that comes again in another epoch is known.

Within an epoch offsets decide what is a repetition. Where a hub has lost the end of its ledger, a new epoch begins, and a publisher
that was not answered publishes the same message again, under a number that says nothing. Its `mid` and its content do.

How many: what can come again was delivered and its answer did not arrive, so of one publisher at most what it has in flight (256 on a
connection). REMEMBERED is four publishers with full windows: 100 KB of memory, 1 MiB at most, and a row with each effect, however
many there are.

While all that is remembered is of the epoch that is now, nothing can be a repetition, and what comes is only put behind the others
(`_fresh`): its digest is made once another epoch begins, or when somebody asks for what is known.

Two publishers of one bot that say the same under the same `mid` say one thing, as far as this can tell: who publishes is not sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from hub.protocol.known import Fingerprint

__all__ = ["REMEMBERED", "Recent"]

REMEMBERED = 1024


class Recent:
    """The newest REMEMBERED messages, each with the epoch in which it came last. `start` is what an earlier run had, oldest first."""

    def __init__(self, start: Mapping[str, str] | None = None) -> None:
        self._epochs: dict[str, str] = {}
        self._fresh: deque[Fingerprint] = deque(maxlen=REMEMBERED)
        """Of `_epoch`, behind `_epochs`, which has nothing of another then."""
        self._epoch = ""
        for digest, epoch in (start or {}).items():
            self.add(digest, epoch)

    def __len__(self) -> int:
        return min(len(self._epochs) + len(self._fresh), REMEMBERED)

    def came(self, fingerprint: Fingerprint, epoch: str) -> bool:
        """A message came; whether it came before in another epoch. It is of this one then, and the oldest is forgotten for it."""
        if epoch == self._epoch:
            self._fresh.append(fingerprint)
            return False
        self._settle()
        repeated = self._epochs.get(fingerprint.digest, epoch) != epoch
        self._put(fingerprint.digest, epoch)
        if all(of == epoch for of in self._epochs.values()):
            self._epoch = epoch
        return repeated

    def add(self, digest: str, epoch: str) -> None:
        """A message came that is known by its digest."""
        self._settle()
        self._put(digest, epoch)

    def has(self, digest: str, epoch: str) -> bool:
        """Whether a message came last in `epoch`."""
        self._settle()
        return self._epochs.get(digest) == epoch

    def known(self) -> dict[str, str]:
        """All of them, oldest first: digests and epochs."""
        self._settle()
        return dict(self._epochs)

    def _settle(self) -> None:
        for fingerprint in self._fresh:
            self._put(fingerprint.digest, self._epoch)
        self._fresh.clear()
        self._epoch = ""

    def _put(self, digest: str, epoch: str) -> None:
        epochs = self._epochs
        if digest in epochs:
            del epochs[digest]
        elif len(epochs) >= REMEMBERED:
            del epochs[next(iter(epochs))]
        epochs[digest] = epoch
