"""Hub: the one composition root. Serve in this thread until told to stop, or start in a thread of its own, publish, stop.

The order of an end is fixed here: drain the node (clients get what is theirs and a 1012 that says when to come back), then
let uvicorn close what is left. uvicorn's own handling of signals is off; `hub.__main__` owns them.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import itertools
import logging
import os
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, TypeVar

import anyio.from_thread
import msgspec
import uvicorn
from fastapi import FastAPI

from hub.asgi.app import REST_PREFIX, HubApp, build_app
from hub.asgi.descriptors import Waiting, room_for
from hub.asgi.fallback_http import InPieces
from hub.asgi.mounted import MountedApp, Running
from hub.asgi.serving import BACKLOG, uvicorn_config
from hub.asgi.ui import ui_routes
from hub.asgi.unsent import Unsent
from hub.auth.authenticator import Authenticator
from hub.auth.redact import Redaction, install, secrets_of
from hub.bots.attached import AttachedBot
from hub.bots.freqtrade import FreqtradeBot
from hub.bots.ports import InProcess
from hub.bots.registry import BotRegistry
from hub.committer import Ack
from hub.config import Config, check_open, load
from hub.core.engine import CoreLimits
from hub.core.figures import SessionFigures, TopicFigures
from hub.core.intake import FramePublish, Publish, check_la_ms, check_time, frame_key
from hub.core.ledger import Log
from hub.frames.columns import Columns
from hub.frames.dataframe import from_pandas
from hub.limits import NodeLimits
from hub.log.memory import MemoryLog
from hub.log.sqlite import SqliteLog
from hub.node import VERSION, Node
from hub.protocol.botapi import BotAPI
from hub.protocol.errors import BadFrame, ConfigError, Draining, Overloaded
from hub.protocol.messages import check_name
from hub.reconciler import Reconciler, UpstreamRuns
from hub.relay import Relay
from hub.rest.app import RestSettings, build_rest
from hub.rest.asyncapi import asyncapi_routes
from hub.rest.passing import PassThrough
from hub.rest.public import documentation_routes, probe_routes

__all__ = ["Hub"]

MAX_IN_PROCESS_WAITING = 4096
IN_PROCESS = "in-process"
DAY_MS = 86_400_000
START_TIMEOUT_S = 30.0
OPEN_TIMEOUT_S = 600.0
"""A damaged ledger of some gigabytes is salvaged before the hub listens."""
STATISTICS_TIMEOUT_S = 5.0
CLOSING_S = 2.0
"""Of the time that a drain may take, what is kept for closing, where there is that much: at most half of it."""
T = TypeVar("T")
logger = logging.getLogger("tradewire.server")


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, since a bot that embeds the hub has its own, and with an end that is on time.

    Who has not answered a Close within `closing_s` is aborted.
    """

    def __init__(self, config: uvicorn.Config, closing_s: float) -> None:
        super().__init__(config)
        self._closing_s = closing_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        aborting = asyncio.get_running_loop().call_later(self._closing_s, self._abort)
        try:
            await super().shutdown(sockets)
        finally:
            aborting.cancel()

    def _abort(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Hub:
    """A hub: websocket edge, REST, relays, node.

    `config` is a Config, a mapping as in a configuration file, or None for the defaults with generated secrets.

    A synchronous bot embeds it::

        hub = Hub(config)
        hub.start()                                   # listening when it returns
        hub.publish("entry_fill", {"trade_id": 1, "pair": "BTC/USDT", ...}).result()
        hub.stop()

    Raises:
        ConfigError: the configuration cannot be used; the text names the key.
    """

    def __init__(self, config: Config | Mapping[str, Any] | None = None) -> None:
        self.config = config if isinstance(config, Config) else _loaded(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._node: Node | None = None
        self._relays: list[Relay] = []
        self._reconciler: Reconciler | None = None
        self._app: HubApp | None = None
        self._authenticator: Authenticator | None = None
        self._rest: FastAPI | None = None
        self._passing: PassThrough | None = None
        self._bots: list[FreqtradeBot] = []
        self._sockets: Waiting | None = None
        self._unsent: Unsent | None = None
        self._portal: contextlib.AbstractContextManager[anyio.from_thread.BlockingPortal] | None = None
        self._stop: asyncio.Event | None = None
        self._serving: concurrent.futures.Future[None] | None = None
        self._lock = threading.Lock()
        # Apart from `_lock`, which `stop` holds for as long as the hub drains.
        self._waiting_lock = threading.Lock()
        self._waiting: set[concurrent.futures.Future[Ack]] = set()
        self._bots_lock = threading.Lock()
        self._in_process: dict[str, InProcess] = {}
        self._run_id = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self.host = self.config.api_server.listen_ip_address
        self.port = self.config.api_server.listen_port

    @property
    def url(self) -> str:
        """Where it listens, as http://host:port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    # --- serving

    async def serve(self, listening: Any = None) -> None:
        """Listen and serve until `stop` or `request_stop`, or until cancelled; then drain.

        `listening` is called without arguments once clients are taken.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        with contextlib.ExitStack() as stack:
            stack.callback(install(Redaction(secrets_of(self.config))))
            sock = stack.enter_context(contextlib.closing(_bound(self.host, self.port)))
            self._stop = asyncio.Event()

            def started() -> None:
                # Not before: to open a damaged ledger takes minutes, and who connected would wait for them in its handshake.
                _listen(sock)
                self.port = sock.getsockname()[1]

            async with self._running(started) as (node, app):
                await self._serve_node(node, app, sock, listening)

    @contextlib.asynccontextmanager
    async def _running(self, started: Callable[[], None]) -> AsyncIterator[tuple[Node, HubApp]]:
        """The node and its application; `started` is called when the log is open. Drain before leaving."""
        self._loop = asyncio.get_running_loop()
        node = Node(_log(self.config), _limits(self.config))
        await node.start()
        try:
            started()
            self._node = node
            yield node, self._compose(node)
        finally:
            for bot in self._bots:
                await bot.aclose()
            await node.stop()
            self._refuse_waiting()
            for port in list(self._in_process.values()):
                port.close()

    def _compose(self, node: Node) -> HubApp:
        config = self.config
        authenticator = Authenticator(config, node.clock.now_ms, node.clock.monotonic)
        self._authenticator = authenticator
        node.authenticate = authenticator.renew
        registry = self._registry(node)
        reconciler = self._reconciler = Reconciler(node, registry)
        self._rest = _rest(config, node, authenticator, registry, reconciler)
        self._passing = PassThrough(self._rest, registry.passed, self._rest.state.user)
        self._unsent = Unsent()
        self._app = _application(config, node, authenticator, registry, self._rest, self._passing)
        return self._app

    async def _serve_node(self, node: Node, app: HubApp, sock: socket.socket, listening: Any) -> None:
        config = self.config
        self._sockets = Waiting(room_for(config.hub.limits.connections).waiting)
        server = _Server(
            uvicorn_config(
                app,
                self.host,
                self.port,
                heartbeat_ms=config.hub.heartbeat_ms,
                pong_timeout_ms=config.hub.pong_timeout_ms,
                message_bytes=config.hub.limits.message,
                deflate=config.hub.compression.enabled,
                verbosity=config.api_server.verbosity,
                waiting=self._sockets,
                unsent=self._unsent,
                trusted_proxies=config.hub.trusted_proxies,
            ),
            _closing_s(config) / 4,
        )
        assert self._stop is not None
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.serve(sockets=[sock]), name="tradewire-uvicorn")
            relaying = self._start_relays(node, tasks)
            try:
                await _started(server, serving)
                sock.listen(BACKLOG)
                if listening is not None:
                    listening()
                await self._stop.wait()
            finally:
                for task in relaying:
                    task.cancel()
                await asyncio.shield(self._drain(node))
                server.should_exit = True

    def _start_relays(self, node: Node, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """What consumes upstreams, and what compares them with the ledger."""
        upstreams, reconciler = self.config.hub.upstreams, self._reconciler
        assert reconciler is not None
        runs = {
            upstream.name: UpstreamRuns(reconciler, upstream.name, publish=upstream.reconciles == "publish")
            for upstream in upstreams
            if upstream.reconciles != "off"
        }
        self._relays = [
            Relay(node, upstream, runs[upstream.name].set_online)
            if upstream.name in runs
            else Relay(node, upstream)
            for upstream in upstreams
        ]
        relaying = [tasks.create_task(r.run(), name=f"tradewire-relay-{r.name}") for r in self._relays]
        return relaying + [
            tasks.create_task(run.run(), name=f"tradewire-reconcile-{name}") for name, run in runs.items()
        ]

    async def _drain(self, node: Node) -> None:
        await node.drain(self.config.hub.drain_s - _closing_s(self.config))

    # --- under another server

    def asgi(self) -> MountedApp:
        """The hub as an ASGI application for a server of others, whose lifespan starts and drains it; one process, on asyncio.

        What `api_server` says of addresses is the server's business there::

            app = Hub(config).asgi()                      # hypercorn --workers 0 module:app

        Raises:
            ConfigError: a credential is too weak for an address that is open to other machines: where that server listens is
                not known here.
        """
        check_open(self.config)
        return MountedApp(self._mounted, self.config.hub.trusted_proxies)

    @contextlib.asynccontextmanager
    async def _mounted(self) -> AsyncIterator[Running]:
        if self._node is not None:
            raise ConfigError("", "this hub runs already")
        with contextlib.ExitStack() as stack:
            stack.callback(install(Redaction(secrets_of(self.config))))
            async with self._running(lambda: None) as (node, app), asyncio.TaskGroup() as tasks:
                draining: list[asyncio.Task[None]] = []
                relaying = self._start_relays(node, tasks)

                def begin_drain() -> None:
                    if not draining:
                        for task in relaying:
                            task.cancel()
                        draining.append(tasks.create_task(self._drain(node), name="tradewire-drain"))

                assert self._unsent is not None
                try:
                    yield Running(InPieces(app, self._unsent), begin_drain)
                finally:
                    begin_drain()

    def _registry(self, node: Node) -> BotRegistry:
        """The bots of this hub, however each is reached."""
        config = self.config
        registry = BotRegistry(
            node,
            default_bot=config.default_bot,
            version=VERSION,
            now_ms=node.clock.now_ms,
            in_process=self._in_process,
            attached=node.attached,
            attach=lambda name: AttachedBot(name, node.call),
            overrides=config.hub.bots,
        )
        self._bots = _freqtrade_bots(config, node)
        for bot in self._bots:
            registry.pass_to(bot)
        return registry

    def request_stop(self) -> None:
        """Ask `serve` to drain and return; from any thread, idempotent."""
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)

    # --- in a thread of its own

    def start(self) -> None:
        """Start in a thread of its own; returns when clients are taken.

        Raises:
            ConfigError: the address cannot be listened on. RuntimeError: it is started already.
        """
        with self._lock:
            if self._portal is not None:
                raise RuntimeError("the hub is started already")
            self._portal = anyio.from_thread.start_blocking_portal(backend="asyncio")
            portal = self._portal.__enter__()
            listening = threading.Event()
            self._serving = portal.start_task_soon(self.serve, listening.set, name="tradewire-hub")
            self._serving.add_done_callback(lambda _: listening.set())
            listening.wait(START_TIMEOUT_S + OPEN_TIMEOUT_S)
            if not listening.is_set() or self._serving.done():
                self._end_thread()

    def stop(self) -> None:
        """Drain and end the thread of `start`. Idempotent."""
        with self._lock:
            if self._portal is not None:
                self.request_stop()
                self._end_thread()

    def _end_thread(self) -> None:
        portal, serving = self._portal, self._serving
        assert portal is not None
        assert serving is not None
        self._portal = self._serving = None
        try:
            serving.result(START_TIMEOUT_S + self.config.hub.drain_s)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            portal.__exit__(None, None, None)

    def __enter__(self) -> Hub:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- bots in process

    def register(self, name: str, bot: BotAPI, *, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Let `bot` answer REST for `name`, in place of any other way to it; from any thread, before `start` and after.

        Its methods are called on `loop`, or without one on a loop in a thread of its own: it may block there.

        Raises:
            BadMessage: this cannot be a name.
        """
        self._replace(check_name("bot", name), InProcess(name, bot, loop=loop))

    def unregister(self, name: str) -> None:
        """Take back `register`; nothing happens without one. What REST asked and was not answered ends with an error."""
        self._replace(name, None)

    def _replace(self, name: str, port: InProcess | None) -> None:
        with self._bots_lock:
            before = self._in_process.get(name)
            if port is not None:
                self._in_process[name] = port
            else:
                self._in_process.pop(name, None)
        if before is not None:
            before.close(for_good=True)

    # --- publishing in process

    def publish(
        self,
        topic: str,
        data: Any = None,
        *,
        bot: str | None = None,
        mid: str | None = None,
        key: tuple[str, str, str] | None = None,
        frame: Any = None,
        replace: bool = False,
        la_ms: int | None = None,
        ts: int | None = None,
    ) -> concurrent.futures.Future[Ack]:
        """Publish from any thread. Everything that can be refused for its content is refused here, in the caller's thread.

        Args:
            topic: a message type. data: its fields (not for analyzed_df).
            bot: who publishes; the default bot when left out.
            mid: the message's id, unique for this process and for ever; made up when left out.
            key, frame: of analyzed_df: [pair, timeframe, candle_type] and a pandas DataFrame or Columns with a `date`
                column. Rows are upserted by date; with `replace` they become the key's whole window. The frame may be
                changed as soon as this returns.
            la_ms: when the bot analyzed it; ts: when it happened (both ms since 1970 UTC, now when left out).

        Returns:
            A future of the ack, done once the message is committed (ledger) or applied (state, event): `{epoch, offset,
            duplicate}`, `{rev}` or `{}`. It ends in any case, with Draining when the hub stops first. In an event loop:
            `await asyncio.wrap_future(...)`. To cancel it does not take the message back.

        Raises:
            PublishRefused: what is wrong with the message. Overloaded: too many publishes wait. Draining: it does not run.
        """
        node, loop = self._node, self._loop
        if node is None or loop is None or node.draining:
            raise Draining("the hub does not run", retry_after_ms=1000)
        publish = self._checked(node, topic, data, bot, mid, key, frame, replace, la_ms, ts)
        future: concurrent.futures.Future[Ack] = concurrent.futures.Future()
        with self._waiting_lock:
            if self._node is not node:
                raise Draining("the hub does not run", retry_after_ms=1000)
            if len(self._waiting) >= MAX_IN_PROCESS_WAITING:
                raise Overloaded(f"{len(self._waiting)} publishes wait", retry_after_ms=100)
            self._waiting.add(future)
            loop.call_soon_threadsafe(self._publish_here, node, publish, future)
        return future

    def _publish_here(self, node: Node, publish: Publish, future: concurrent.futures.Future[Ack]) -> None:
        try:
            node.publish_checked(publish, functools.partial(self._settle, future))
        except Exception as error:
            logger.exception("a publish in process failed")
            self._settle(future, error)

    def _settle(self, future: concurrent.futures.Future[Ack], result: Ack | Exception) -> None:
        with self._waiting_lock:
            if future not in self._waiting:
                return
            self._waiting.discard(future)
        # The caller may have cancelled it.
        if not future.set_running_or_notify_cancel():
            return
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)

    def _refuse_waiting(self) -> None:
        """The node has stopped: what other threads still handed to the loop was never looked at."""
        with self._waiting_lock:
            self._node = None
            waiting = list(self._waiting)
        for future in waiting:
            self._settle(future, Draining("the hub stopped", retry_after_ms=1000))

    def _checked(
        self,
        node: Node,
        topic: str,
        data: Any,
        bot: str | None,
        mid: str | None,
        key: Any,
        frame: Any,
        replace: bool,
        la_ms: int | None,
        ts: int | None,
    ) -> Publish:
        now_ms = node.clock.now_ms()
        bot = check_name("bot", self.config.default_bot if bot is None else bot)
        topic = check_name("topic", topic)
        ts = check_time(ts, now_ms)
        if topic != "analyzed_df":
            return node.intake.message(
                bot,
                topic,
                data,
                mid=mid or f"{self._run_id}/{next(self._numbers)}",
                publisher=IN_PROCESS,
                ts=ts,
                now_ms=now_ms,
            )
        if key is None or frame is None:
            raise BadFrame("analyzed_df: expected key=(pair, timeframe, candle_type) and frame=")
        rows = frame if isinstance(frame, Columns) else from_pandas(frame)
        return FramePublish(
            bot,
            frame_key(key),
            rows,
            replace,
            check_la_ms(now_ms if la_ms is None else la_ms),
            ts,
        )

    def statistics(self) -> dict[str, Any]:
        """Every buffer with its bound, and what went through; empty while it does not run. From any thread."""
        return self._on_loop(self._statistics) or {}

    def topics(self) -> list[TopicFigures]:
        """Each topic that was published to since the hub started; none while it does not run. From any thread."""
        return self._on_loop(lambda: [] if self._node is None else self._node.topics()) or []

    def sessions(self) -> list[SessionFigures]:
        """Each websocket, with its lag in messages and bytes; none while it does not run. From any thread."""
        return self._on_loop(lambda: [] if self._node is None else self._node.sessions()) or []

    def _on_loop(self, look: Callable[[], T]) -> T | None:
        """What `look` returns, on the loop, which changes what is counted while it turns; None if it does not answer."""
        loop = self._loop
        if loop is None or asyncio._get_running_loop() is loop:
            return look()
        seen: concurrent.futures.Future[T] = concurrent.futures.Future()
        try:
            loop.call_soon_threadsafe(lambda: seen.set_result(look()))
            return seen.result(STATISTICS_TIMEOUT_S)
        except (RuntimeError, TimeoutError):
            return None

    def _statistics(self) -> dict[str, Any]:
        node, app, rest, passing = self._node, self._app, self._rest, self._passing
        authenticator, sockets, unsent = self._authenticator, self._sockets, self._unsent
        if node is None or app is None or rest is None or passing is None:
            return {}
        if authenticator is None or unsent is None:
            return {}
        relays = {relay.name: relay.statistics() for relay in self._relays}
        return {
            **node.statistics(),
            "edge": app.statistics(),
            "auth": authenticator.statistics(),
            # Of a server of others, only that knows its sockets.
            **({} if sockets is None else {"sockets": sockets.statistics()}),
            "answers": unsent.statistics(),
            "rest": msgspec.to_builtins(rest.state.publish_intake.statistics()),
            "rest_bodies": msgspec.to_builtins(rest.state.bodies.statistics()),
            "passing": msgspec.to_builtins(passing.statistics()),
            "bots": {bot.name: bot.statistics() for bot in self._bots},
            "bots_in_process": {name: port.statistics() for name, port in list(self._in_process.items())},
            "relays": relays,
            "reconciliation": {} if self._reconciler is None else self._reconciler.statistics(),
            "in_process_waiting": len(self._waiting),
        }


def _loaded(source: Mapping[str, Any] | None) -> Config:
    config = load(source, os.environ)
    for warning in config.warnings:
        logger.warning("%s", warning)
    return config


def _freqtrade_bots(config: Config, node: Node) -> list[FreqtradeBot]:
    """The upstreams whose REST the hub may use."""
    return [
        FreqtradeBot(
            upstream.name,
            host=upstream.host,
            port=upstream.port,
            secure=upstream.secure,
            username=upstream.username,
            password=upstream.password.reveal(),
            deadline_s=upstream.rest_timeout_s,
            now_ms=node.clock.now_ms,
            monotonic=node.clock.monotonic,
        )
        for upstream in config.hub.upstreams
        if upstream.username is not None and upstream.password is not None
    ]


def _rest(
    config: Config,
    node: Node,
    authenticator: Authenticator,
    registry: BotRegistry,
    reconciler: Reconciler,
) -> FastAPI:
    # No CORS here: it has to be around what is passed on, too.
    return build_rest(
        authenticator,
        registry,
        node.publish_and_wait,
        node,
        reconciler.run,
        RestSettings(items=config.hub.limits.items),
    )


def _application(
    config: Config,
    node: Node,
    authenticator: Authenticator,
    registry: BotRegistry,
    rest: FastAPI,
    passing: PassThrough,
) -> HubApp:
    routes = probe_routes(node)
    if config.api_server.enable_openapi:
        routes += documentation_routes(
            rest, prefix=REST_PREFIX, version=VERSION, default_bot=config.default_bot
        )
        routes += asyncapi_routes(version=VERSION)
    return build_app(
        node,
        authenticator,
        passing,
        routes,
        ui=ui_routes(config.ui_dir),
        cors_origins=config.api_server.CORS_origins,
        knows=registry.knows,
    )


def _log(config: Config) -> Log:
    """Where this hub's ledger lives.

    Raises:
        ConfigError: on disk, and nowhere is said where.
    """
    ledger = config.hub.ledger
    if ledger.kind == "memory":
        return MemoryLog(secrets.token_hex(6), config.hub.memory.ledger_bytes)
    if config.ledger_dir is None:
        raise ConfigError("hub.ledger.path", "expected a directory")
    return SqliteLog(
        config.ledger_dir,
        max_bytes=ledger.max_bytes,
        max_age_ms=round(ledger.max_age_days * DAY_MS),
        retry_after_ms=ledger.retry_ms,
        cache_bytes=max(1 << 20, config.hub.memory.ledger_bytes // 4),
        key="hub.state_dir" if ledger.path is None else "hub.ledger.path",
    )


def _limits(config: Config) -> NodeLimits:
    hub = config.hub
    return NodeLimits(
        connections=room_for(hub.limits.connections).connections,
        message=hub.limits.message,
        items=hub.limits.items,
        keys=hub.limits.keys,
        in_flight=hub.limits.in_flight,
        publish_in_flight=hub.limits.publish_in_flight,
        requests_per_s=hub.limits.requests_per_s,
        control_bytes=hub.memory.control_bytes,
        # A ledger in memory shares its entries by itself.
        replay_bytes=0 if hub.ledger.kind == "memory" else hub.memory.replay_bytes,
        heartbeat_ms=hub.heartbeat_ms,
        pong_timeout_ms=hub.pong_timeout_ms,
        core=CoreLimits(
            tail_bytes=max(1 << 20, hub.memory.ledger_bytes // 4),
            event_bytes_per_bot=hub.memory.event_bytes,
            state_bytes=hub.memory.frames_bytes,
            candles=hub.memory.candles,
            keys=hub.limits.keys,
            slow_bytes=hub.slow.limit_bytes,
            slow_grace_s=hub.slow.grace_s,
            candle_deadline_s=hub.candle_deadline_s,
            deflate_min_bytes=hub.compression.min_bytes,
            linger_s={topic: linger_ms / 1000 for topic, linger_ms in hub.linger_ms.items() if linger_ms},
        ),
    )


def _closing_s(config: Config) -> float:
    return min(CLOSING_S, config.hub.drain_s / 2)


def _bound(host: str, port: int) -> socket.socket:
    """A socket of this address, at which nobody listens yet."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named; without it a body waits for the ACK of its head, 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise _cannot_listen(host, port, error) from None
    return sock


def _listen(sock: socket.socket) -> None:
    try:
        sock.listen(BACKLOG)
    except OSError as error:
        host, port = sock.getsockname()[:2]
        raise _cannot_listen(host, port, error) from None


def _cannot_listen(host: str, port: int, error: OSError) -> ConfigError:
    reason = error.strerror or str(error)
    return ConfigError("api_server.listen_port", f"cannot listen on {host}:{port}: {reason.lower()}")


async def _started(server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
    while not server.started:
        if serving.done():
            raise ConfigError("api_server", "uvicorn did not start; its log says why")
        await asyncio.sleep(0.005)
