"""A whole freqtrade bot fills while the relay's link is cut: what was missed comes back from its trades, once.

What the bot really sent is heard at the bot itself, by a client that nobody cuts off.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from bots import PASSWORD, USERNAME, FakeExchange, FreqtradeQuiet, HubProcess, Process, wait_for
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from consumer.rest import RestClient

TOKEN = "interop-reconcile-read-token-0123456789abcd"
UPSTREAM_TOKEN = "interop-reconcile-upstream-token-0123456789"
NAME = "maker"
BTC, ETH = "BTC/USDT", "ETH/USDT"
FILLS = ["entry_fill", "exit_fill"]


class AdjustingBot(FreqtradeQuiet):
    """One that adds to its positions."""

    def _config(self, exchange: FakeExchange) -> dict[str, Any]:
        return super()._config(exchange) | {"position_adjustment_enable": True}


class Link:
    """A way to a port of 127.0.0.1 that can be cut: connections break, and new ones are refused at once."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._cut = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes the accepting thread, which close() alone does not.
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()

    def cut(self) -> None:
        with self._lock:
            self._cut = True
            sockets, self._open = self._open, []
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def mend(self) -> None:
        with self._lock:
            self._cut = False

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            with self._lock:
                if self._cut:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._target))
                self._open += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class Listener:
    """Everything that a websocket says, as it comes, from `__enter__` on: the last of `requests` is answered with an `answer` then."""

    def __init__(self, url: str, *requests: dict[str, Any], answer: str, **options: Any) -> None:
        self.heard: list[dict[str, Any]] = []
        self._requests = requests
        self._answer = answer
        self._connecting = connect(url, compression=None, max_size=None, **options)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        websocket = self._stack.enter_context(self._connecting)
        for request in self._requests:
            websocket.send(json.dumps(request))
        threading.Thread(target=self._listen, args=(websocket,), daemon=True).start()
        wait_for(self._answer, lambda: any(m["type"] == self._answer for m in list(self.heard)), 30)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _listen(self, websocket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            for text in websocket:
                self.heard.append(json.loads(text))

    def fills(self) -> list[dict[str, Any]]:
        return [message for message in list(self.heard) if message["type"] in FILLS]


def hears_the_bot(bot: FreqtradeQuiet) -> Listener:
    url = f"ws://127.0.0.1:{bot.port}/api/v1/message/ws?token={UPSTREAM_TOKEN}"
    # A subscribe is not answered, but what is asked behind it is.
    asked = {"type": "whitelist", "data": ""}
    return Listener(url, {"type": "subscribe", "data": FILLS}, asked, answer="whitelist")


def hears_the_hub(hub: HubProcess) -> Listener:
    return Listener(
        f"ws://127.0.0.1:{hub.port}/api/v1/message/ws",
        {"type": "subscribe", "id": 1, "data": {"want": [{"topics": FILLS}]}},
        answer="hub.reply",
        subprotocols=[Subprotocol("tradewire.v2.json")],
        additional_headers={"Authorization": f"Bearer {TOKEN}"},
    )


class Rig:
    """The bot with its owner's hand, the link, the hub, and who listens at both."""

    def __init__(self, bot: AdjustingBot, link: Link, hub: HubProcess, stack: contextlib.ExitStack) -> None:
        self.bot = bot
        self.link = link
        self.hub = hub
        self.bots_own = stack.enter_context(hears_the_bot(bot))
        self.at_hub = stack.enter_context(hears_the_hub(hub))
        self.client = stack.enter_context(RestClient(f"http://127.0.0.1:{hub.port}", USERNAME, PASSWORD))

    def order(self, path: str, **body: Any) -> Any:
        """At the bot itself, past the link."""
        answer = httpx.post(
            f"http://127.0.0.1:{self.bot.port}/api/v1/{path}",
            auth=(USERNAME, PASSWORD),
            json={"ordertype": "market", **body},
            timeout=30,
        )
        return answer.raise_for_status().json()

    def enter(self, pair: str) -> int:
        before = len(self.bots_own.fills())
        number = int(self.order("forceenter", pair=pair)["trade_id"])
        self.until("the bot to tell of its entry", lambda: len(self.bots_own.fills()) > before, of=self.bot)
        return number

    def leave(self, number: int, amount: float | None = None) -> None:
        before = len(self.bots_own.fills())
        part = {} if amount is None else {"amount": amount}
        self.order("forceexit", tradeid=str(number), **part)
        self.until("the bot to tell of its exit", lambda: len(self.bots_own.fills()) > before, of=self.bot)

    def linked(self) -> bool:
        """Whether the hub has the bot's answer to the request behind its subscribe."""
        bots = {bot["name"]: bot for bot in self.client.bots()}
        return bots[NAME]["last_message_ts"] is not None

    def until(self, what: str, found: Any, seconds: float = 60, of: Process | None = None) -> Any:
        return wait_for(what, found, seconds, of=of or self.hub)


@contextlib.contextmanager
def rig(directory: Path, exchange: FakeExchange, reconcile: str) -> Iterator[Rig]:
    with contextlib.ExitStack() as stack:
        bot = stack.enter_context(AdjustingBot(directory / "bot", exchange=exchange, token=UPSTREAM_TOKEN))
        link = stack.enter_context(Link(bot.port))
        upstream = {
            "name": NAME, "host": "127.0.0.1", "port": link.port, "ws_token": UPSTREAM_TOKEN, "username": USERNAME,
            "password": PASSWORD, "reconcile": reconcile,
        }  # fmt: skip
        hub = stack.enter_context(
            HubProcess(
                directory / "hub",
                api_server={"ws_token": TOKEN},
                hub={"upstreams": [upstream], "state_dir": str(directory / "state")},
            )
        )
        made = Rig(bot, link, hub, stack)
        wait_for("the bot to run", lambda: bot.api("show_config")["state"] == "running", 60, of=bot)
        wait_for("the link to be heard", made.linked, 60, of=hub)
        yield made


def identity(message: dict[str, Any]) -> tuple[Any, ...]:
    data = message.get("data", message)
    rate = data["close_rate"] if message["type"] == "exit_fill" else data["open_rate"]
    return message["type"], data["trade_id"], data["pair"], round(data["amount"], 9), round(rate, 9)


def same(made: dict[str, Any], sent: dict[str, Any]) -> None:
    """A reconciled fill has every field of the bot's own, but for what REST cannot know."""
    assert set(made) == set(sent) - {"type"} | {"source", "order_id"}
    for name, value in sent.items():
        if name in ("type", "current_rate"):
            continue
        if name in ("open_date", "close_date"):
            assert made[name][:19] == value[:19], name
        elif isinstance(value, float):
            assert made[name] == pytest.approx(value, rel=1e-6, abs=1e-7), name
        else:
            assert made[name] == value, name


def test_missed_fills_are_published_once(directory: Path, fake_exchange: FakeExchange) -> None:
    with rig(directory, fake_exchange, "publish") as world:
        first = world.enter(BTC)
        world.until("the hub to tell of it", world.at_hub.fills)

        world.link.cut()
        world.until("the relay to notice", lambda: "upstream maker: lost" in world.hub.log.read_text())
        second = world.enter(ETH)
        world.enter(BTC)
        held = world.bot.api(f"trade/{first}")["amount"]
        world.leave(first, round(held / 2, 5))
        world.leave(second)
        world.leave(first)
        assert len(world.bots_own.fills()) == 6
        assert len(world.at_hub.fills()) == 1

        world.link.mend()
        world.until("all fills at the hub", lambda: len(world.at_hub.fills()) >= 6, 90)
        alive = world.enter(ETH)
        world.until("a live fill behind them", lambda: len(world.at_hub.fills()) >= 7)

        # Exactly once, and what the bot had told its own client.
        sent = {identity(message): message for message in world.bots_own.fills()}
        assert Counter(map(identity, world.at_hub.fills())) == Counter(map(identity, sent.values()))
        reconciled = [m for m in world.at_hub.fills() if m["data"].get("source") == "reconciled"]
        assert len(reconciled) == 5
        for message in reconciled:
            same(message["data"], sent[identity(message)])
        assert [m["ts"] for m in reconciled] == sorted(m["ts"] for m in reconciled)

        for _ in range(2):
            again = world.client.reconcile(NAME, publish=True)
            assert (again.missing, again.unknown, again.published, again.fills) == ([], [], 0, 7)
        assert [f.offset for f in world.client.fills()] == [m["offset"] for m in world.at_hub.fills()]

        # A trade that the bot deletes is unknown to it, and only told.
        deleted = httpx.delete(
            f"http://127.0.0.1:{world.bot.port}/api/v1/trades/{alive}", auth=(USERNAME, PASSWORD), timeout=30
        )
        deleted.raise_for_status()
        unknown = world.client.reconcile(NAME, publish=True).unknown
        assert [fill.trade_id for fill in unknown] == [alive]


def test_missed_fills_are_reported_and_published_on_demand(
    directory: Path, fake_exchange: FakeExchange
) -> None:
    with rig(directory, fake_exchange, "report") as world:
        world.link.cut()
        world.until("the relay to notice", lambda: "upstream maker: lost" in world.hub.log.read_text())
        number = world.enter(BTC)
        world.link.mend()
        world.until(
            "a line in the hub's log",
            lambda: f"bot maker: missed: entry_fill of trade {number}" in world.hub.log.read_text(),
            90,
        )
        assert world.at_hub.fills() == []
        (missed,) = world.client.reconcile(NAME).missing
        assert (missed.trade_id, missed.offset) == (number, None)
        answer = world.client.reconcile(NAME, publish=True)
        assert answer.published == 1
        world.until("the fill at the hub", world.at_hub.fills)
        assert world.client.reconcile(NAME, publish=True).missing == []
        assert len(world.at_hub.fills()) == 1


def test_what_was_filled_while_no_hub_ran_is_published_once(
    directory: Path, fake_exchange: FakeExchange
) -> None:
    with rig(directory, fake_exchange, "publish") as world:
        first = world.enter(BTC)
        world.until("the hub to have it", lambda: in_ledger(world) == 1)
        world.hub.stop()
        world.enter(ETH)
        world.leave(first)
        world.hub.start()
        world.until("the missed fills in the ledger", lambda: in_ledger(world) == 3, 90)
        world.hub.restart()
        for _ in range(2):
            again = world.client.reconcile(NAME, publish=True)
            assert (again.missing, again.unknown, again.published) == ([], [], 0)
        fills = list(world.client.fills())
        assert [fill.data.get("source") for fill in fills] == [None, "reconciled", "reconciled"]
        told = [identity({"type": fill.topic, "data": fill.data}) for fill in fills]
        assert Counter(told) == Counter(map(identity, world.bots_own.fills()))


def in_ledger(world: Rig) -> int:
    return len(list(world.client.fills()))
