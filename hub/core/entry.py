"""An entry: one slot of a log, with its frame for each wire made lazily and once."""

from __future__ import annotations

from typing import Any

from hub.protocol.codec import CODECS, Wire, decode_body, frame

__all__ = ["Entry"]

_OVERHEAD_BYTES = 700
_FRAMES_PER_BODY = 4


class Entry:
    """A message of class ledger or event as the log holds it.

    `body` is the canonical payload as JSON; the objects that it was made of are let go, since they may take twenty times as
    much memory, and `data` makes them again. Ledger entries carry `epoch`, `offset` and `prev` once they are committed. `size`
    is what it may cost in memory, in bytes, its frames included.
    """

    __slots__ = (
        "_frames",
        "body",
        "bot",
        "epoch",
        "mid",
        "offset",
        "prev",
        "publisher",
        "size",
        "topic",
        "ts",
    )

    def __init__(
        self,
        bot: str,
        topic: str,
        ts: int,
        body: bytes,
        *,
        mid: str | None = None,
        publisher: str = "",
    ) -> None:
        self.bot = bot
        self.topic = topic
        self.ts = ts
        self.body = body
        self.mid = mid
        self.publisher = publisher
        self.epoch: str | None = None
        self.offset = 0
        self.prev = 0
        self.size = _OVERHEAD_BYTES + _FRAMES_PER_BODY * len(body)
        self._frames: dict[Wire, bytes] = {}

    @property
    def data(self) -> Any:
        """The canonical payload, made anew from `body`."""
        return decode_body(self.body)

    @property
    def stream(self) -> tuple[str, str]:
        """(bot, topic)."""
        return (self.bot, self.topic)

    def frame(self, wire: Wire) -> bytes:
        """The whole websocket frame, the same bytes for every client of the wire."""
        prepared = self._frames.get(wire)
        if prepared is None:
            codec = CODECS[wire]
            # The JSON wire splices the body in and looks at nothing else.
            data = None if wire is Wire.JSON else self.data
            prepared = frame(codec.broadcast(self.topic, data, self._header(), self.body), text=codec.text)
            self._frames[wire] = prepared
        return prepared

    def _header(self) -> dict[str, Any]:
        header: dict[str, Any] = {"bot": self.bot, "ts": self.ts}
        if self.epoch is not None:
            header |= {"epoch": self.epoch, "offset": self.offset, "prev": self.prev, "mid": self.mid}
        return header
