"""consumer.connection, as far as it needs no socket."""

from __future__ import annotations

import asyncio

import pytest
from consumer_doubles import FakeConnection, run_virtual

from consumer.connection import Closed, Endpoint, Keepalive, retry_after_in
from consumer.errors import ConfigError, ConnectionFailed

ENDPOINT = Endpoint(host="h", token="s3cret")


@pytest.mark.parametrize(
    ("url", "shown", "path"),
    [
        ("127.0.0.1:8080", "ws://127.0.0.1:8080", "/api/v1/message/ws"),
        ("hub", "ws://hub:8080", "/api/v1/message/ws"),
        ("http://hub:81/", "ws://hub:81", "/api/v1/message/ws"),
        ("https://hub", "wss://hub:443", "/api/v1/message/ws"),
        ("wss://hub:4443/bots/api/v1/message/ws", "wss://hub:4443", "/bots/api/v1/message/ws"),
        ("[::1]:9", "ws://[::1]:9", "/api/v1/message/ws"),
    ],
)
def test_urls(url: str, shown: str, path: str) -> None:
    endpoint = Endpoint.parse(url, "t")
    assert (str(endpoint), endpoint.path) == (shown, path)


@pytest.mark.parametrize(
    "url", ["", "ftp://hub", "hub:0", "hub:99999", "hub:x", "ws://", "ws://user:pw@hub", "://"]
)
def test_what_is_no_url_is_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Endpoint.parse(f"{url}?token=s3cret", None)
    assert "s3cret" not in str(caught.value)


def test_the_token_of_a_url_is_taken_and_never_shown() -> None:
    endpoint = Endpoint.parse("ws://hub:1?token=s3cret%2B&x=1")
    assert endpoint.token == "s3cret+"
    assert "s3cret" not in repr(endpoint) + str(endpoint) + endpoint.url
    assert Endpoint.parse("ws://hub:1?token=s3cret", "other").token == "other"


def test_this_machine() -> None:
    assert all(Endpoint(host=host).loopback for host in ("localhost", "127.0.0.1", "127.8.8.8", "::1"))
    assert not Endpoint(host="192.168.0.1").loopback
    assert not Endpoint(host="localhost.example").loopback


def test_retry_after_in_a_close_reason() -> None:
    assert retry_after_in("retry_after_ms=2500") == 2.5
    assert retry_after_in("draining, retry_after_ms=0") == 0
    assert retry_after_in("later") is None


def test_a_silent_peer_is_pinged_and_then_given_up() -> None:
    async def main() -> float:
        connection = FakeConnection(pongs=False)
        loop = asyncio.get_running_loop()
        start = loop.time()
        with pytest.raises(ConnectionFailed, match="no pong within 10 s"):
            await Keepalive(connection, ENDPOINT, wait_s=30, ping_s=10).receive()
        assert connection.pings == 1
        return loop.time() - start

    assert run_virtual(main()) == pytest.approx(40)


def test_a_peer_that_answers_pings_is_kept() -> None:
    async def main() -> int:
        connection = FakeConnection()
        keepalive = Keepalive(connection, ENDPOINT, wait_s=30, ping_s=10)
        assert await keepalive.receive(asyncio.get_running_loop().time() + 1000) is None
        return connection.pings

    assert run_virtual(main()) == 1000 // 30


def test_a_pong_begins_the_silence_anew_when_it_comes() -> None:
    async def main() -> float:
        connection = FakeConnection()
        loop = asyncio.get_running_loop()
        start = loop.time()
        loop.call_later(31, connection.fall_silent)
        with pytest.raises(ConnectionFailed, match="no pong within 10 s"):
            await Keepalive(connection, ENDPOINT, wait_s=30, ping_s=10).receive()
        assert connection.pings == 2
        return loop.time() - start

    # Ping and Pong at 30, Ping at 60.
    assert run_virtual(main()) == pytest.approx(70)


def test_a_message_that_takes_long_is_no_silence() -> None:
    async def main() -> None:
        connection = FakeConnection(pongs=False)
        loop = asyncio.get_running_loop()
        for second in range(0, 100, 9):
            loop.call_later(second, connection.hear)
        loop.call_later(100, connection.feed, "x")
        assert await Keepalive(connection, ENDPOINT, wait_s=15, ping_s=10).receive() == "x"
        assert connection.pings == 0

    run_virtual(main())


def test_a_message_that_stops_half_way_is_silence() -> None:
    async def main() -> float:
        connection = FakeConnection(pongs=False)
        loop = asyncio.get_running_loop()
        start = loop.time()
        loop.call_later(20, connection.hear)
        with pytest.raises(ConnectionFailed, match="no pong"):
            await Keepalive(connection, ENDPOINT, wait_s=15, ping_s=10).receive()
        return loop.time() - start

    assert run_virtual(main()) == pytest.approx(45)


def test_a_peer_that_takes_nothing_is_given_up_while_something_is_sent() -> None:
    async def main() -> float:
        connection = FakeConnection()
        connection.taking.clear()
        loop = asyncio.get_running_loop()
        start = loop.time()
        # Signs of life: a part of a message, then a buffer that shrinks.
        loop.call_later(20, connection.hear)
        connection.unsent_bytes = 5000
        loop.call_later(40, setattr, connection, "unsent_bytes", 4000)
        with pytest.raises(ConnectionFailed, match="takes nothing"):
            await Keepalive(connection, ENDPOINT, wait_s=15, ping_s=10).send(b"{}", text=True)
        return loop.time() - start

    assert 65 <= run_virtual(main()) <= 69


def test_what_a_peer_takes_late_is_sent() -> None:
    async def main() -> None:
        connection = FakeConnection()
        connection.taking.clear()
        asyncio.get_running_loop().call_later(20, connection.taking.set)
        await Keepalive(connection, ENDPOINT, wait_s=15, ping_s=10).send(b'{"type":"x"}', text=True)
        assert connection.sent == [{"type": "x"}]

    run_virtual(main())


def test_a_message_while_a_pong_is_due_is_a_sign_of_life() -> None:
    async def main() -> None:
        connection = FakeConnection(pongs=False)
        keepalive = Keepalive(connection, ENDPOINT, wait_s=30, ping_s=10)
        asyncio.get_running_loop().call_later(35, connection.feed, "x")
        assert await keepalive.receive() == "x"

    run_virtual(main())


def test_a_reader_with_other_things_to_do_notices_silence_too() -> None:
    async def main() -> float:
        connection = FakeConnection(pongs=False)
        loop = asyncio.get_running_loop()
        start = loop.time()
        keepalive = Keepalive(connection, ENDPOINT, wait_s=30, ping_s=10)

        async def busy() -> None:
            while True:
                await keepalive.receive(loop.time() + 4)
                await asyncio.sleep(1)

        with pytest.raises(ConnectionFailed, match="no pong"):
            await busy()
        assert connection.pings == 1
        return loop.time() - start

    # Silence while nobody receives does not count: ten times a second.
    assert run_virtual(main()) == pytest.approx(40 + 10)


def test_a_message_between_begins_the_silence_anew() -> None:
    async def main() -> int:
        connection = FakeConnection(pongs=False)
        loop = asyncio.get_running_loop()
        keepalive = Keepalive(connection, ENDPOINT, wait_s=30, ping_s=10)
        for _ in range(5):
            assert await keepalive.receive(loop.time() + 25) is None
            loop.call_later(3, connection.feed, "x")
            assert await keepalive.receive() == "x"
        return connection.pings

    assert run_virtual(main()) == 0


def test_a_peer_with_a_heartbeat_is_silent_sooner() -> None:
    async def main() -> float:
        connection = FakeConnection(pongs=False)
        loop = asyncio.get_running_loop()
        start = loop.time()
        with pytest.raises(ConnectionFailed):
            await Keepalive(connection, ENDPOINT, wait_s=30, ping_s=10).receive(heartbeat_s=20)
        return loop.time() - start

    assert run_virtual(main()) == pytest.approx(30)


def test_zero_timeouts_do_not_spin() -> None:
    async def main() -> int:
        connection = FakeConnection()
        keepalive = Keepalive(connection, ENDPOINT, wait_s=0, ping_s=0)
        await keepalive.receive(asyncio.get_running_loop().time() + 100)
        return connection.pings

    assert run_virtual(main()) <= 100


def test_the_end_is_told() -> None:
    async def main() -> None:
        connection = FakeConnection()
        connection.end(1012, "retry_after_ms=5")
        with pytest.raises(Closed, match="closed with 1012: retry_after_ms=5"):
            await Keepalive(connection, ENDPOINT, wait_s=1, ping_s=1).receive()

    run_virtual(main())
