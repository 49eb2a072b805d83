"""What a consumer has of a hub's ledger: where it resumes, and what it drops as a repetition."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from hub.protocol.codec import encode_loose
from hub.protocol.envelope import Position
from hub.protocol.errors import BadMessage

__all__ = ["Fingerprint", "Known", "Stream"]

Stream = tuple[str, str]
"""A bot and a topic of class ledger."""

_LIMIT = 2**53
_DIGEST_BYTES = 12
_KEPT_BYTES = 1024
"""A longer content is hashed at once: whoever remembers many messages is not to hold theirs."""


class Fingerprint(msgspec.Struct, gc=False):
    """What a ledger message is known by in another epoch: its bot and topic, and what its writer calls it and says in it.

    Most are never asked for their digest, so it is made then; what it is made of is fixed here.
    """

    _text: bytes
    _digest: str = ""

    @classmethod
    def of(cls, bot: str, topic: str, mid: str, data: Any) -> Fingerprint | None:
        """None of a content that no hub can have stored."""
        try:
            text = encode_loose([bot, topic, mid, data])
        except BadMessage:
            return None
        return cls(text) if len(text) <= _KEPT_BYTES else cls(b"", _hashed(text))

    @property
    def digest(self) -> str:
        """24 hexadecimal digits."""
        # In this order: a bot's thread may ask at the same time.
        text = self._text
        if not self._digest:
            self._digest = _hashed(text)
            self._text = b""
        return self._digest


def _hashed(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).hexdigest()


@dataclass(frozen=True, slots=True)
class Known:
    """Of `epoch`, everything wanted up to `base` was acted on or declared lost, and of each stream in `last` up to its offset.

    A consumer resumes from (epoch, base) and drops what is not above `of` its stream: both must be stored with the effects.
    `recent` are the messages that were acted on last, oldest first, by `Delivery.digest`, each with the epoch in which it came: one
    of them that comes in another epoch is dropped, too. A store that does not keep them is without that after a restart.

    Raises:
        ValueError: an offset is no integer in 0..2^53-1, or a name, a digest or an epoch is no text.
    """

    epoch: str
    base: int
    last: Mapping[Stream, int] = field(default_factory=dict)
    recent: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.epoch, str) or not self.epoch:
            raise ValueError("epoch: expected a text")
        for offset in (self.base, *self.last.values()):
            if type(offset) is not int or not 0 <= offset < _LIMIT:
                raise ValueError(f"offset: expected an integer from 0 to 2^53-1, got {offset!r:.40}")
        for stream in self.last:
            if len(stream) != 2 or not all(isinstance(name, str) and name for name in stream):
                raise ValueError(f"stream: expected a bot and a topic, got {stream!r:.80}")
        for pair in self.recent.items():
            if not all(isinstance(text, str) and text for text in pair):
                raise ValueError(f"recent: expected a digest and an epoch, got {pair!r:.80}")

    @classmethod
    def at(cls, position: Position) -> Known:
        """Everything up to `position`: what a bot knows that keeps one number."""
        return cls(position.epoch, position.offset)

    @property
    def position(self) -> Position:
        """Where to resume."""
        return Position(self.epoch, self.base)

    def moved(self, epoch: str, base: int, same: int) -> Known:
        """What is known in `epoch`, of which the offsets up to `same` are the same messages, when `base` is known there.

        Of a stream that was known beyond `same`, all up to there was acted on.
        """
        last = {stream: min(offset, same) for stream, offset in self.last.items()}
        last = {stream: offset for stream, offset in last.items() if offset > base}
        return Known(epoch, base, last, self.recent)

    def of(self, stream: Stream) -> int:
        """Up to where `stream` was acted on or declared lost."""
        return max(self.base, self.last.get(stream, 0))
