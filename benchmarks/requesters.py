"""HTTP requests over kept connections in one process, as cheap as a requester can be: bytes out, a status and a length in."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

__all__ = ["Requesters", "Run", "percentile"]


@dataclass
class Run:
    """What one run gave: seconds per request, of answers with another status how many, and the bytes of the last body."""

    latencies: list[float] = field(default_factory=list)
    failures: int = 0
    body_bytes: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / max(self.seconds, 1e-9)

    @property
    def p99_ms(self) -> float:
        """The 99th percentile in ms."""
        return percentile(self.latencies, 0.99) * 1000


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of `values` do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class Requesters:
    """`count` connections, each asking the same again as soon as it is answered."""

    def __init__(self, port: int, request: bytes, count: int) -> None:
        self._port = port
        self._request = request
        self._count = count

    async def run(self, seconds: float) -> Run:
        """Ask for `seconds`; the requests that are under way then are waited for."""
        run = Run()
        begin = time.monotonic()
        await asyncio.gather(*(self._ask(run, begin + seconds) for _ in range(self._count)))
        run.seconds = time.monotonic() - begin
        return run

    async def _ask(self, run: Run, end: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 24)
        try:
            while (sent := time.monotonic()) < end:
                writer.write(self._request)
                status, length = await self._answer(reader)
                run.latencies.append(time.monotonic() - sent)
                run.failures += status != b"200"
                run.body_bytes = length
        finally:
            writer.close()

    @staticmethod
    async def _answer(reader: asyncio.StreamReader) -> tuple[bytes, int]:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        at = head.index(b"content-length:") + len(b"content-length:")
        length = int(head[at : head.index(b"\r\n", at)])
        await reader.readexactly(length)
        return head.split(b" ", 2)[1], length
