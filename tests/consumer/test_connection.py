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
        # Signs of life: a part of a message, then a part that is taken.
        loop.call_later(20, connection.hear)
        connection.owe(5000)
        loop.call_later(40, connection.take, 1000)
        # More that waits is none.
        loop.call_later(50, connection.owe, 1000)
        with pytest.raises(ConnectionFailed, match="takes nothing"):
            await Keepalive(connection, ENDPOINT, wait_s=15, ping_s=10).send(b"{}", text=True)
        return loop.time() - start

    assert 65 <= run_virtual(main()) <= 69


class Uplink:
    """A connection whose peer takes `rate` bytes a second of what is owed, and says nothing."""

    def __init__(self, rate: int, *, seconds: int = 1000) -> None:
        self.connection = FakeConnection(pongs=False)
        self.loop = asyncio.get_running_loop()
        self.start = self.loop.time()
        for second in range(seconds):
            self.loop.call_later(second + 0.5, self.connection.take, rate)

    async def gone_after(self) -> float:
        with pytest.raises(ConnectionFailed, match="no pong"):
            await Keepalive(self.connection, ENDPOINT, wait_s=15, ping_s=10).receive()
        return self.loop.time() - self.start


@pytest.mark.parametrize("flying", [False, True])
def test_a_ping_behind_an_uplink_that_moves_is_waited_for(flying: bool) -> None:
    async def main() -> None:
        uplink = Uplink(8000)
        uplink.connection.owe(800_000, flying=flying)
        # The Ping is out after 100 s, and answered.
        uplink.loop.call_later(105, uplink.connection.hear)
        uplink.loop.call_later(110, uplink.connection.feed, "x")
        keepalive = Keepalive(uplink.connection, ENDPOINT, wait_s=15, ping_s=10)
        assert await keepalive.receive() == "x"
        assert uplink.connection.pings == 1

    run_virtual(main())


def test_a_backlog_that_is_larger_than_it_looks_is_waited_for() -> None:
    async def main() -> None:
        uplink = Uplink(8000)
        uplink.connection.owe(50_000)
        # As under TLS, which hides the most of a large message.
        for second in range(100):
            uplink.loop.call_later(second + 0.5, uplink.connection.owe, 8000)
        assert 100 <= await uplink.gone_after() <= 120

    run_virtual(main())


def test_a_peer_that_has_taken_the_ping_and_does_not_answer_is_gone() -> None:
    async def main() -> None:
        uplink = Uplink(8000)
        uplink.connection.owe(800_000)
        # The last of it is taken after 100 s, seen 2 s later at most, and has 10 s to be answered.
        assert 109 <= await uplink.gone_after() <= 113

    run_virtual(main())


@pytest.mark.parametrize("flying", [False, True])
def test_an_uplink_that_stops_is_a_peer_that_is_gone(flying: bool) -> None:
    async def main() -> None:
        uplink = Uplink(8000, seconds=20)
        uplink.connection.owe(800_000, flying=flying)
        assert await uplink.gone_after() <= 20 + 2 + 10

    run_virtual(main())


def test_a_half_open_peer_with_an_uplink_full_is_gone_as_soon() -> None:
    async def main() -> None:
        uplink = Uplink(0)
        uplink.connection.owe(800_000)
        assert await uplink.gone_after() == pytest.approx(25)

    run_virtual(main())


def test_to_acknowledge_the_ping_is_no_answer() -> None:
    async def main() -> None:
        uplink = Uplink(8000)
        uplink.loop.call_later(15.1, lambda: uplink.connection.owe(6, flying=True))
        assert await uplink.gone_after() == pytest.approx(25)

    run_virtual(main())


def test_acknowledgements_of_what_is_sent_after_the_ping_do_not_hide_a_missing_pong() -> None:
    async def main() -> None:
        uplink = Uplink(1 << 20)
        for second in range(1000):
            uplink.loop.call_later(second, lambda: uplink.connection.owe(400, flying=True))
        assert await uplink.gone_after() <= 15 + 2 + 10

    run_virtual(main())


def test_a_message_that_takes_long_does_not_silence_this_side() -> None:
    async def main() -> None:
        connection = FakeConnection()
        loop = asyncio.get_running_loop()
        signs: list[float] = []
        start = loop.time()

        async def noted() -> None:
            signs.append(loop.time() - start)

        connection.pong = noted  # type: ignore[method-assign]
        for second in range(100):
            loop.call_later(second, connection.hear)
        loop.call_later(100, connection.feed, "x")
        assert await Keepalive(connection, ENDPOINT, wait_s=15, ping_s=10).receive() == "x"
        assert signs == pytest.approx([10, 20, 30, 40, 50, 60, 70, 80, 90, 100][: len(signs)])
        assert len(signs) >= 9

    run_virtual(main())


@pytest.mark.parametrize("at_once", [False, True])
def test_messages_that_go_on_coming_do_not_silence_this_side(at_once: bool) -> None:
    async def main() -> int:
        connection = FakeConnection()
        keepalive = Keepalive(connection, ENDPOINT, wait_s=15, ping_s=10)
        loop = asyncio.get_running_loop()
        for second in range(100):
            loop.call_later(0 if at_once else second, connection.feed, "x")
        for _ in range(100):
            await keepalive.receive()
            # With all there at once, receiving never waits.
            await asyncio.sleep(1 if at_once else 0)
        assert connection.pings == 0
        return connection.unasked_pongs

    assert run_virtual(main()) == 9


def test_what_came_before_the_end_is_received_though_no_sign_can_be_given() -> None:
    async def main() -> None:
        connection = FakeConnection()

        async def closed() -> None:
            raise Closed(1006, "lost", local=False)

        connection.pong = closed  # type: ignore[method-assign]
        keepalive = Keepalive(connection, ENDPOINT, wait_s=15, ping_s=10)
        connection.feed("x")
        connection.end(1006, "lost")
        await asyncio.sleep(20)
        assert await keepalive.receive() == "x"
        with pytest.raises(Closed):
            await keepalive.receive()

    run_virtual(main())


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
