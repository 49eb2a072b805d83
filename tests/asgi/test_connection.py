"""hub.asgi.connection and hub.asgi.app: a websocket's life, on a test's own ASGI server and on the prepared class."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from anyio import wait_all_tasks_blocked
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from hub.asgi.app import HubApp, build_app
from hub.asgi.connection import BURST_S, MESSAGE_PATH, REST_FACTOR, MessageEndpoint, RequestBudget
from hub.protocol.codec import close_frame, frame
from hub.protocol.errors import HandshakeRefused
from hub.protocol.principal import Principal

from .doubles import CLOSE, AsgiSocket, FakeAuthenticator, FakeNode, Lines, Peer, client_frame, text

JSON = "tradewire.v2.json"


class Edge:
    def __init__(self, **settings: Any) -> None:
        self.node = FakeNode()
        self.authenticator = FakeAuthenticator()
        self.now = 0.0
        self.endpoint = MessageEndpoint(
            self.node,  # type: ignore[arg-type]
            self.authenticator,  # type: ignore[arg-type]
            clock=lambda: self.now,
            **settings,
        )

    async def connect(self, wire: str | None = JSON) -> Peer:
        peer = Peer(self.endpoint)
        await peer.connect(extra=f"Sec-WebSocket-Protocol: {wire}\r\n" if wire else "")
        return peer

    async def opened(self, wire: str | None = JSON) -> Peer:
        peer = await self.connect(wire)
        assert peer.taken().startswith(b"HTTP/1.1 101 ")
        return peer


@pytest.fixture
def lines() -> Iterator[list[str]]:
    handler = Lines()
    hub = logging.getLogger("tradewire")
    level = hub.level
    hub.setLevel(logging.DEBUG)
    hub.addHandler(handler)
    yield handler.lines
    hub.removeHandler(handler)
    hub.setLevel(level)


@pytest.mark.anyio
async def test_v2_is_welcomed_and_answered() -> None:
    edge = Edge()
    peer = await edge.connect()
    head, _, rest = peer.taken().partition(b"\r\n\r\n")
    assert b"Sec-WebSocket-Protocol: tradewire.v2.json" in head
    assert rest == frame(b'{"type":"hub.welcome","data":{"protocol":2}}', text=True)
    await peer.send(text('{"type":"ping","id":7}'))
    assert peer.taken() == frame(b'{"type":"hub.reply","id":7,"ok":true}', text=True)
    await peer.lose()
    assert edge.node.calls == ["admit", "connect", "disconnect"]
    assert (edge.node.clients, edge.node.addresses) == (["127.0.0.1:50000"], ["127.0.0.1"])


@pytest.mark.anyio
async def test_legacy_hears_nothing_first_and_no_subprotocol() -> None:
    edge = Edge()
    peer = await edge.connect(None)
    head, _, rest = peer.taken().partition(b"\r\n\r\n")
    assert b"sec-websocket-protocol" not in head.lower()
    assert rest == b""
    await peer.lose()


@pytest.mark.anyio
@pytest.mark.parametrize(("status", "retry"), [(403, None), (400, None), (429, 3), (503, 10)])
async def test_a_refusal_of_the_authenticator(status: int, retry: int | None) -> None:
    edge = Edge()
    edge.authenticator.refusal = HandshakeRefused(status, "why", retry_after=retry)
    peer = await edge.connect()
    written = peer.taken()
    assert written.startswith(b"HTTP/1.1 %d " % status)
    assert written.endswith(b"\r\n\r\n" if status == 403 else b"\r\n\r\nwhy\n")
    assert (b"retry-after: %d" % (retry or 0) in written.lower()) == (retry is not None)
    assert edge.node.calls == []
    assert edge.endpoint.statistics()["refused"] == {str(status): 1}
    await peer.lose()


@pytest.mark.anyio
async def test_a_full_hub_refuses_before_the_upgrade() -> None:
    edge = Edge()
    edge.node.refusal = HandshakeRefused(503, "the hub is full", retry_after=10)
    peer = await edge.connect(None)
    assert peer.taken().startswith(b"HTTP/1.1 503 ")
    assert edge.node.calls == ["admit"]
    await peer.lose()


@pytest.mark.anyio
async def test_an_unknown_wire_gets_400() -> None:
    edge = Edge()
    peer = await edge.connect("tradewire.v9")
    written = peer.taken()
    assert written.startswith(b"HTTP/1.1 400 ")
    assert b"tradewire.v2.msgpack" in written
    assert edge.authenticator.asked == []
    await peer.lose()


@pytest.mark.anyio
async def test_a_bug_in_the_handshake_is_500_and_one_line(lines: list[str]) -> None:
    edge = Edge()
    edge.authenticator.refusal = ValueError("canary-7f31")  # type: ignore[assignment]
    peer = await edge.connect()
    assert peer.taken().startswith(b"HTTP/1.1 500 ")
    errors = [line for line in lines if line.startswith("ERROR")]
    assert len(errors) == 1
    assert "ValueError" in errors[0]
    assert not [line for line in lines if "canary" in line]
    await peer.lose()


@pytest.mark.anyio
@pytest.mark.parametrize("wire", [JSON, None])
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (text("{"), 1007),
        (text("[]"), 4400),
        (text("5"), 4400),
        (client_frame(2, b"{}"), 1003),
    ],
)
async def test_malformed_messages_have_their_codes(
    wire: str | None, data: bytes, code: int, lines: list[str]
) -> None:
    edge = Edge()
    peer = await edge.opened(wire)
    peer.taken()
    await peer.send(data)
    written = peer.taken()
    assert int.from_bytes(written[2:4], "big") == code
    assert len(written) > 4
    assert edge.node.received == []
    assert edge.node.calls[-1] == "disconnect"
    assert edge.endpoint.statistics()["faults"] == {str(code): 1}
    assert not [line for line in lines if line.startswith(("ERROR", "WARNING"))]
    await peer.lose()
    assert edge.node.calls.count("disconnect") == 1


@pytest.mark.anyio
@pytest.mark.parametrize("payload", ["{}", ' {"type": 5}', '{"data":[]}'])
async def test_an_object_without_a_type_is_kept_as_freqtrade_keeps_it(payload: str) -> None:
    edge = Edge()
    peer = await edge.opened(None)
    await peer.send(text(payload))
    assert edge.node.received == [{"type": "None"}]
    assert peer.taken() == b""
    await peer.lose()


@pytest.mark.anyio
async def test_an_object_without_a_type_is_a_fault_on_v2() -> None:
    edge = Edge()
    peer = await edge.opened()
    await peer.send(text("{}"))
    assert peer.taken() == close_frame(4400, "expected a string `type`")
    await peer.lose()


@pytest.mark.anyio
async def test_a_message_over_the_limit_is_1009() -> None:
    edge = Edge()
    edge.node.limits.message = 100
    peer = await edge.opened()
    await peer.send(text("x" * 101))
    assert int.from_bytes(peer.taken()[2:4], "big") == 1009
    await peer.lose()


@pytest.mark.anyio
@pytest.mark.parametrize(("publishes", "rested"), [(set(), [4.5, 5.0, 5.0]), ({"a"}, [4.5, 5.0, 0])])
async def test_a_client_whose_requests_cost_much_waits(publishes: set[str], rested: list[float]) -> None:
    rests: list[float] = []

    async def sleep(seconds: float) -> None:
        rests.append(seconds)

    edge = Edge()
    edge.endpoint._sleep = sleep
    edge.authenticator.principal = Principal(name="p", publishes=frozenset(publishes))
    costs = iter([0.5, 2.0, 0.001, 9.0])

    def spend(_session: Any, _message: dict[str, Any]) -> None:
        edge.now += next(costs)

    edge.node.on_receive = spend
    peer = await edge.opened(JSON)
    for name in ("x", "x", "x", "publish"):
        await peer.send(text(f'{{"type":"{name}"}}'))
    assert rests == rested
    assert edge.endpoint.statistics()["slow_requests"] == len([rest for rest in rests if rest])
    await peer.lose()


@pytest.mark.anyio
async def test_too_many_requests_close_4529() -> None:
    edge = Edge()
    edge.node.limits.requests_per_s = 5
    peer = await edge.opened()
    for _ in range(10):
        await peer.send(text('{"type":"x"}'))
    edge.now += 0.2
    await peer.send(text('{"type":"x"}'))
    assert len(edge.node.received) == 11
    await peer.send(text('{"type":"x"}'))
    assert peer.taken() == close_frame(4529, "expected at most 5 requests a second")
    assert len(edge.node.received) == 11
    await peer.lose()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("wire", "publishes", "passes"), [(JSON, {"a"}, 100), (JSON, set(), 10), (None, {"a"}, 10)]
)
async def test_only_publishes_of_a_publisher_are_exempt(
    wire: str | None, publishes: set[str], passes: int
) -> None:
    edge = Edge()
    edge.authenticator.principal = Principal(name="p", publishes=frozenset(publishes))
    edge.node.limits.requests_per_s = 5
    peer = await edge.opened(wire)
    for _ in range(100):
        if peer.transport.closing:
            break
        await peer.send(text('{"type":"publish"}'))
    assert len(edge.node.received) == passes
    await peer.lose()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("publishes", "attached", "kind", "code"),
    [
        ({"a"}, True, "result", None),
        ({"a"}, True, "publish", 1009),
        ({"a"}, False, "result", 1009),
        (set(), True, "result", 1009),
    ],
)
async def test_results_of_an_attached_bot_may_be_large_and_many(
    publishes: set[str], attached: bool, kind: str, code: int | None
) -> None:
    edge = Edge()
    edge.authenticator.principal = Principal(name="p", publishes=frozenset(publishes))
    edge.node.limits.requests_per_s = 1
    edge.node.on_receive = lambda session, _: setattr(session, "attached", attached)
    peer = await edge.opened()
    await peer.send(text('{"type":"attach","id":1}'))
    body = "x" * (edge.node.limits.message + 1)
    for _ in range(4):
        message = f'{{"type":"{kind}","id":2,"data":{{"call":7,"status":200,"body":"{body}"}}}}'
        await peer.send(text(message))
    if code is None:
        results = [message["data"] for message in edge.node.received[1:]]
        assert [(r.call, r.result.body) for r in results] == [(7, f'"{body}"'.encode())] * 4
        assert results[0].size == len(message)
    else:
        assert int.from_bytes(peer.taken()[2:4], "big") == code
        assert len(edge.node.received) == 1
    await peer.lose()


@pytest.mark.anyio
async def test_results_that_nobody_waits_for_cost_the_bot_its_time_only() -> None:
    rests: list[float] = []

    async def sleep(seconds: float) -> None:
        rests.append(seconds)

    def receive(session: Any, _message: Any) -> None:
        session.attached = True
        edge.now += 0.5

    edge = Edge(sleep=sleep)
    edge.authenticator.principal = Principal(name="p", publishes=frozenset({"a"}))
    edge.node.limits.requests_per_s = 1
    edge.node.on_receive = receive
    peer = await edge.opened()
    await peer.send(text('{"type":"attach","id":1}'))
    for awaited in (True, False, False, False, False):
        edge.node.awaited = awaited
        await peer.send(text('{"type":"result","data":{"call":7,"status":200,"body":[]}}'))
    assert [message["data"].result is None for message in edge.node.received[1:]] == [
        False,
        *[True] * 4,
    ]
    assert rests[1:] == [0, *[0.5 * REST_FACTOR] * 4]
    await peer.lose()


def test_the_budget_saves_two_seconds_at_most() -> None:
    budget = RequestBudget(50, 0.0)
    assert sum(budget.take(1000.0) for _ in range(1000)) == 50 * BURST_S
    assert sum(budget.take(1000.5) for _ in range(1000)) == 25


@pytest.mark.anyio
async def test_reading_waits_for_the_node() -> None:
    edge = Edge()
    edge.node.gate = asyncio.Event()
    peer = await edge.opened()
    await peer.send(text('{"type":"a"}'))
    await peer.send(text('{"type":"b"}'))
    await peer.send(text('{"type":"c"}'))
    assert len(edge.node.received) == 1
    assert not peer.transport.reading
    edge.node.gate.set()
    await peer.loop.settle()
    assert [m["type"] for m in edge.node.received] == ["a", "b", "c"]
    assert peer.transport.reading
    await peer.lose()


@pytest.mark.anyio
async def test_a_bug_in_the_node_is_1011_logged_once_without_payload(lines: list[str]) -> None:
    edge = Edge()

    def fails(session: Any, message: Any) -> None:
        raise KeyError(message["secret"])

    edge.node.on_receive = fails
    peer = await edge.opened()
    await peer.send(text('{"type":"x","secret":"canary-7f31"}'))
    assert peer.taken() == close_frame(1011, "internal error")
    errors = [line for line in lines if line.startswith("ERROR")]
    assert len(errors) == 1
    assert "KeyError" in errors[0]
    assert "canary" not in "".join(lines)
    await peer.lose()
    assert edge.node.calls.count("disconnect") == 1


@pytest.mark.anyio
async def test_a_close_of_the_node_ends_the_connection() -> None:
    edge = Edge()
    edge.node.on_receive = lambda session, message: session.outlet.close(4401, "expired")
    peer = await edge.opened()
    await peer.send(text('{"type":"x"}') + text('{"type":"y"}'))
    assert peer.taken() == close_frame(4401, "expired")
    assert len(edge.node.received) == 1
    assert edge.node.calls[-1] == "disconnect"
    await peer.lose()


@pytest.mark.anyio
async def test_the_client_closes() -> None:
    edge = Edge()
    peer = await edge.opened()
    await peer.send(client_frame(CLOSE, b"\x03\xe8"))
    assert edge.node.calls[-1] == "disconnect"
    assert peer.taken() == close_frame(1000)
    await peer.lose()
    assert edge.node.calls.count("disconnect") == 1


@pytest.mark.anyio
async def test_cancellation_disconnects_and_closes_1012() -> None:
    edge = Edge()
    peer = await edge.opened()
    for task in list(peer.state.tasks):
        task.cancel()
    await peer.loop.settle()
    assert peer.taken() == close_frame(1012, "retry_after_ms=1000")
    assert edge.node.calls.count("disconnect") == 1
    await peer.lose()


@pytest.mark.anyio
async def test_a_peer_that_leaves_before_its_answer_costs_nothing(lines: list[str]) -> None:
    edge = Edge()

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        raise OSError

    await edge.endpoint({"type": "websocket", "subprotocols": [JSON], "extensions": {}}, receive, send)
    assert edge.node.calls == ["admit"]
    assert not [line for line in lines if line.startswith("ERROR")]


@pytest.mark.anyio
async def test_statistics_count() -> None:
    edge = Edge()
    peer = await edge.opened()
    await peer.send(text('{"type":"x"}'))
    peer.transport.stuck = True
    edge.node.outlets[0].write(b"x" * 500)
    assert edge.endpoint.statistics() == {
        "connections": 1,
        "accepted": 1,
        "messages": 1,
        "slow_requests": 0,
        "refused": {},
        "faults": {},
        "unsent_bytes": 500,
        "unread_bytes": 0,
    }
    await peer.lose()
    assert edge.endpoint.statistics()["connections"] == 0


# On a server without the outlet.


def built(edge: Edge, **settings: Any) -> HubApp:
    return build_app(edge.node, edge.authenticator, **settings)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_the_fallback_serves_json() -> None:
    edge = Edge()
    async with AsgiSocket(built(edge), MESSAGE_PATH, [JSON]) as socket:
        assert await socket.take() == {"type": "websocket.accept", "subprotocol": JSON}
        assert await socket.take() == {
            "type": "websocket.send",
            "text": '{"type":"hub.welcome","data":{"protocol":2}}',
        }
        socket.send(text='{"type":"ping","id":3}')
        assert await socket.take() == {
            "type": "websocket.send",
            "text": '{"type":"hub.reply","id":3,"ok":true}',
        }
    assert edge.node.calls == ["admit", "connect", "disconnect"]
    assert edge.node.listener.calls == ["lost"]


@pytest.mark.anyio
async def test_the_fallback_serves_msgpack() -> None:
    edge = Edge()
    async with AsgiSocket(built(edge), MESSAGE_PATH, ["tradewire.v2.msgpack"]) as socket:
        await socket.take()
        assert b"hub.welcome" in (await socket.take())["bytes"]


@pytest.mark.anyio
@pytest.mark.parametrize(("payload", "code"), [("{", 1007), ("x" * 101, 1009)])
async def test_the_fallback_closes_with_a_code(payload: str, code: int) -> None:
    edge = Edge()
    edge.node.limits.message = 100
    async with AsgiSocket(built(edge), MESSAGE_PATH) as socket:
        await socket.take()
        socket.send(text=payload)
        assert (await socket.take())["code"] == code
        await socket.ended()
    assert edge.node.calls.count("disconnect") == 1


@pytest.mark.anyio
async def test_another_websocket_path_is_refused() -> None:
    async with AsgiSocket(built(Edge()), "/elsewhere") as socket:
        assert (await socket.take())["type"] == "websocket.close"


# A bot's own path.


@pytest.mark.anyio
@pytest.mark.parametrize("bot", ["alpha", "my bot", "ä", "a/b", "/api/v1"])
async def test_on_a_bots_path_a_legacy_client_sees_that_bot(bot: str) -> None:
    edge = Edge()
    edge.authenticator.principal = Principal(name="reader", legacy_bot="main")
    seen: list[Principal] = []
    edge.node.on_receive = lambda session, _message: seen.append(session.principal)
    app = built(edge, knows=lambda name: name == bot)
    async with AsgiSocket(app, f"/bots/{bot}{MESSAGE_PATH}") as socket:
        assert await socket.take() == {"type": "websocket.accept"}
        socket.send(text='{"type":"subscribe","data":["whitelist"]}')
        await wait_all_tasks_blocked()
    assert seen == [Principal(name="reader", legacy_bot=bot)]


@pytest.mark.anyio
@pytest.mark.parametrize("bot", ["beta", "gamma", "alpha/", "Alpha"])
async def test_an_unknown_or_forbidden_bot_is_refused_before_the_upgrade(bot: str) -> None:
    edge = Edge()
    edge.authenticator.principal = Principal(
        name="reader", reads=frozenset({"alpha", "gamma"}), legacy_bot="alpha"
    )
    app = built(edge, knows=lambda name: name in ("alpha", "beta"))
    async with AsgiSocket(app, f"/bots/{bot}{MESSAGE_PATH}") as socket:
        assert (await socket.take())["status"] == 403
        assert await socket.take() == {"type": "websocket.http.response.body", "body": b""}
    assert edge.node.calls == []
    assert app.statistics()["refused"] == {"403": 1}


@pytest.mark.anyio
async def test_a_v2_client_is_on_a_bots_path_as_on_the_plain_one() -> None:
    edge = Edge()
    edge.authenticator.principal = Principal(name="reader", legacy_bot="main")
    app = built(edge, knows=lambda _name: False)
    async with AsgiSocket(app, f"/bots/beta{MESSAGE_PATH}", [JSON]) as socket:
        assert await socket.take() == {"type": "websocket.accept", "subprotocol": JSON}


@pytest.mark.anyio
@pytest.mark.parametrize(
    "path",
    [
        "/bots/alpha/message/ws",
        "/bots/alpha/api/v1/message/ws/",
        "/bots/api/v1/message/ws",
        "/bots//api/v1/message/ws",
    ],
)
async def test_what_only_looks_like_a_bots_path_is_refused(path: str) -> None:
    edge = Edge()
    async with AsgiSocket(built(edge), path) as socket:
        assert (await socket.take())["type"] == "websocket.close"
    assert edge.node.calls == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "bot"),
    [
        ("/bots/alpha/api/v1/trades/3", "alpha"),
        ("/bots/my%20bot/api/v1/trades/3", "my bot"),
        ("/bots/%C3%A4/api/v1/trades/3", "ä"),
        ("/bots/a%2Fb/api/v1/trades/3", "a/b"),
        ("/api/v1/trades/3", None),
    ],
)
async def test_the_mount_is_the_same_for_each_bot(path: str, bot: str | None) -> None:
    async def rest(scope: Any, receive: Any, send: Any) -> None:
        below = scope["path"].removeprefix(scope["root_path"])
        answer = JSONResponse([scope["path_params"].get("bot"), below])
        await answer(scope, receive, send)

    app = built(Edge(), rest_app=rest)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://hub") as browser:
        assert (await browser.get(path)).json() == [bot, "/trades/3"]
        for other in ("/bots/alpha", "/bots/alpha/", "/bots/alpha/api/v1", "/bots", "/bots//api/v1"):
            assert (await browser.get(other)).status_code == 404


@pytest.mark.anyio
async def test_public_routes_and_the_rest_mount_are_reached() -> None:
    async def live(request: Any) -> PlainTextResponse:
        return PlainTextResponse("ok")

    async def rest(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse(scope["root_path"])(scope, receive, send)

    app = built(Edge(), public_routes=[Route("/livez", live)], rest_app=rest, cors_origins=["http://ui"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://hub") as browser:
        assert (await browser.get("/livez")).text == "ok"
        assert (await browser.get("/api/v1/ping")).text == "/api/v1"
        assert (await browser.get(MESSAGE_PATH)).text == "/api/v1"
        assert (await browser.get("/nothing")).status_code == 404
        for origin, allowed in [("http://ui", True), ("http://x", False)]:
            headers = (await browser.get("/livez", headers={"origin": origin})).headers
            assert ("access-control-allow-origin" in headers) is allowed
