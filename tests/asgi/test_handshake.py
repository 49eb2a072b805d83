"""hub.asgi.handshake: the choice of a wire and refusals."""

from __future__ import annotations

from typing import Any

import pytest

from hub.asgi.handshake import authenticate, choose_wire, refuse
from hub.protocol.codec import Wire
from hub.protocol.errors import HandshakeRefused

from .doubles import FakeAuthenticator

V2_JSON, V2_MSGPACK = "tradewire.v2.json", "tradewire.v2.msgpack"


@pytest.mark.parametrize(
    ("offered", "wire"),
    [
        ([], Wire.FREQTRADE),
        ([V2_JSON], Wire.JSON),
        ([V2_JSON, V2_MSGPACK], Wire.JSON),
        ([V2_MSGPACK, V2_JSON], Wire.MSGPACK),
        (["tradewire.v3", V2_JSON], Wire.JSON),
        (["bearer.YQ", V2_MSGPACK], Wire.MSGPACK),
        (["bearer.YQ"], Wire.FREQTRADE),
    ],
)
def test_the_first_known_wire_is_chosen(offered: list[str], wire: Wire) -> None:
    assert choose_wire(offered) is wire


@pytest.mark.parametrize("offered", [["tradewire.v3"], ["bearer.c2VjcmV0", "mqtt"], ["freqtrade"], [""]])
def test_unknown_wires_are_refused_by_name_of_the_known(offered: list[str]) -> None:
    with pytest.raises(HandshakeRefused) as refused:
        choose_wire(offered)
    assert refused.value.status == 400
    assert V2_JSON in str(refused.value)
    assert V2_MSGPACK in str(refused.value)
    assert "c2VjcmV0" not in str(refused.value)


def test_the_authenticator_sees_the_handshake() -> None:
    authenticator = FakeAuthenticator()
    scope = {
        "subprotocols": ["bearer.YQ", V2_JSON],
        "headers": [(b"origin", b"http://a")],
        "query_string": b"x=1",
        "client": ["127.0.0.1", 5],
    }
    wire, principal = authenticate(scope, authenticator)  # type: ignore[arg-type]
    assert wire is Wire.JSON
    assert principal.name == "reader"
    assert authenticator.asked == [
        {
            "headers": [(b"origin", b"http://a")],
            "query": b"x=1",
            "subprotocols": ["bearer.YQ", V2_JSON],
            "v2": True,
            "client": ("127.0.0.1", 5),
        }
    ]


async def answer(refusal: HandshakeRefused, extensions: dict[str, Any] | None) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await refuse({"extensions": extensions}, send, refusal)
    return sent


@pytest.mark.anyio
async def test_403_has_an_empty_body() -> None:
    start, body = await answer(HandshakeRefused(403, "no such token"), {"websocket.http.response": {}})
    assert start["status"] == 403
    assert body["body"] == b""


@pytest.mark.anyio
async def test_503_says_when_to_come_back() -> None:
    start, body = await answer(
        HandshakeRefused(503, "the hub is full", retry_after=10), {"websocket.http.response": {}}
    )
    assert start["status"] == 503
    assert (b"retry-after", b"10") in start["headers"]
    assert (b"content-length", b"16") in start["headers"]
    assert body["body"] == b"the hub is full\n"


@pytest.mark.anyio
@pytest.mark.parametrize("extensions", [None, {}])
async def test_a_server_without_the_extension_closes(extensions: dict[str, Any] | None) -> None:
    sent = await answer(HandshakeRefused(503, "full", retry_after=1), extensions)
    assert [m["type"] for m in sent] == ["websocket.close"]
