"""One task per upstream: consumes an unmodified freqtrade bot and publishes what it sends under its name.

freqtrade replays nothing: what it sent while the link was down is gone (the relay says so in the log and in `statistics`). Its fills
come back by reconciliation with its trades only (hub.reconciler), which is told of each link. Its frames are asked for again, and
holes in them are refilled by the consumer's own rules before they are published here.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from consumer.client import Client
from consumer.config import ConsumerConfig, ProducerConfig
from consumer.errors import ConsumerError
from hub.config import Upstream
from hub.core.intake import FramePublish, Publish
from hub.frames.columns import Columns
from hub.node import Node
from hub.protocol.errors import RequestError
from hub.protocol.localbot import Advanced, Connected, Delivery, Disconnected, Lost, Repeated
from hub.protocol.messages import TOPICS, AnalyzedDf

__all__ = ["Relay"]

RESTART_S = 5.0
REFUSED_S = 60.0
logger = logging.getLogger("tradewire.relay")


class Relay:
    """Relays one upstream. `run` ends only when it is cancelled. `linked` is told when the link goes up or down."""

    def __init__(
        self, node: Node, upstream: Upstream, linked: Callable[[bool], None] = lambda _online: None
    ) -> None:
        self.node = node
        self._linked = linked
        self.name = upstream.name
        self.online = False
        self._producer = ProducerConfig(
            name=upstream.name,
            host=upstream.host,
            port=upstream.port,
            secure=upstream.secure,
            ws_token=upstream.ws_token.reveal(),
            protocol="freqtrade",
        )
        self._settings = ConsumerConfig(producers=(self._producer,))
        self._run_id = secrets.token_hex(6)
        self._count = 0
        self._counters = {"relayed": 0, "refused": 0, "links": 0, "failures": 0}
        self._client: Client | None = None
        self._problem = ""

    async def run(self) -> None:
        """Consume and publish until cancelled. Whatever goes wrong costs this link only.

        An upstream that refuses the token is asked again every minute: it may be restarted with another one.
        """
        while True:
            pause_s = RESTART_S
            try:
                await self._consume()
            except ConsumerError as error:
                self._fail(str(error))
                pause_s = REFUSED_S
            except Exception:
                logger.exception("upstream %s: the relay failed; it starts again", self.name)
                self._counters["failures"] += 1
            finally:
                self._set_online(False)
            await asyncio.sleep(pause_s)

    def _fail(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            logger.error("upstream %s: %s", self.name, problem)

    async def _consume(self) -> None:
        async with Client(self._producer, self._settings, topics=sorted(TOPICS)) as client:
            self._client = client
            async for delivery in client:
                self._take(delivery)

    def _take(self, delivery: Delivery) -> None:
        message = delivery.message
        if isinstance(message, Connected):
            self._counters["links"] += 1
            logger.info("upstream %s: connected", self.name)
            self._set_online(True)
        elif isinstance(message, Disconnected):
            if self.online:
                logger.warning(
                    "upstream %s: lost (%s); fills sent meanwhile are not replayed", self.name, message.reason
                )
            self._set_online(False)
        elif not isinstance(message, Lost | Advanced | Repeated):
            self._publish(delivery)

    def _set_online(self, online: bool) -> None:
        if online != self.online:
            self.online = online
            self.node.announce(self.name, online=online)
            self._linked(online)

    def _publish(self, delivery: Delivery) -> None:
        try:
            self.node.publish_checked(self._checked(delivery), self._done)
        except RequestError as error:
            self._done(error)

    def _checked(self, delivery: Delivery) -> Publish:
        now_ms = self.node.clock.now_ms()
        message = delivery.message
        if isinstance(message, AnalyzedDf) and isinstance(message.df, Columns):
            la_ms = int(message.la.timestamp() * 1000) if message.la is not None else now_ms
            return FramePublish(self.name, message.key, message.df, delivery.snapshot, la_ms, now_ms)
        self._count += 1
        return self.node.intake.message(
            self.name,
            delivery.topic,
            delivery.payload,
            mid=f"{self._run_id}/{self._count}",
            publisher=f"relay:{self.name}",
            ts=now_ms,
            now_ms=now_ms,
            trusted=True,
        )

    def _done(self, result: Mapping[str, Any] | RequestError) -> None:
        if isinstance(result, RequestError):
            self._counters["refused"] += 1
            logger.warning("upstream %s: a message is not relayed: %s", self.name, result)
        else:
            self._counters["relayed"] += 1

    def statistics(self) -> dict[str, Any]:
        """What was relayed and refused, how often the link came up, and the client's own figures."""
        client = dict(self._client.statistics()) if self._client is not None else {}
        return {"online": self.online, **self._counters, "client": client}
