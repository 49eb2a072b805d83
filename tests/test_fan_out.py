"""The same bytes to many outlets: by descriptor where nothing is unsent, and in order whatever a socket takes."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from hub.core.session import Session
from hub.fan_out import FanOut, OutletListener
from hub.protocol.codec import Wire
from hub.protocol.principal import Principal

CHUNK = bytes(range(256)) * 256


class Peer:
    """An outlet on one end of a real socket pair, and the other end. What is written by `write` is in `through`."""

    def __init__(self, number: int, *, plain: bool = True) -> None:
        self.session = Session(f"s{number}", Principal(name="reader"), Wire.FREQTRADE, "test", 0.0)
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.theirs.setblocking(False)
        self.plain = plain
        self.accepts = True
        self.through = b""
        self.fan_out: FanOut | None = None

    def write(self, data: bytes) -> bool:
        self.through += data
        return self.accepts

    @property
    def writable(self) -> bool:
        return self.accepts

    unsent_bytes = 0

    def close(self, code: int, reason: str) -> None:
        raise AssertionError("nobody closes here")

    def set_listener(self, listener: OutletListener) -> None:
        raise AssertionError("nobody listens here")

    def set_fan_out(self, fan_out: FanOut | None) -> None:
        if fan_out is None and self.fan_out is not None and self.plain:
            self.fan_out.indirect(self.ours.fileno())
        self.fan_out = fan_out
        if fan_out is not None and self.plain:
            fan_out.direct(self, self.ours.fileno())

    def received(self) -> bytes:
        data = b""
        while True:
            try:
                more = self.theirs.recv(1 << 20)
            except BlockingIOError:
                return data
            if not more:
                return data
            data += more


@pytest.fixture
def peers() -> Iterator[list[Peer]]:
    made = [Peer(0), Peer(1), Peer(2, plain=False)]
    yield made
    for peer in made:
        peer.ours.close()
        peer.theirs.close()


def joined(peers: list[Peer]) -> FanOut:
    fan_out = FanOut()
    for peer in peers:
        fan_out.add(peer.session, peer)
    return fan_out


def test_all_get_the_bytes_and_a_plain_socket_without_its_outlet(peers: list[Peer]) -> None:
    fan_out = joined(peers)
    assert fan_out.write(b"one") == []
    assert [(peer.received(), peer.through) for peer in peers] == [
        (b"one", b""),
        (b"one", b""),
        (b"", b"one"),
    ]


def test_what_a_socket_does_not_take_goes_to_its_outlet(peers: list[Peer]) -> None:
    fan_out = joined(peers)
    slow, quick, _ = peers
    slow.accepts = False
    while not slow.through:
        full = fan_out.write(CHUNK)
        quick.received()
    assert full == [slow.session]
    assert len(slow.received() + slow.through) % len(CHUNK) == 0
    before = slow.through
    fan_out.write(CHUNK)
    assert slow.received() + slow.through[len(before) :] == CHUNK


def test_a_full_socket_costs_no_byte_and_no_order(peers: list[Peer]) -> None:
    fan_out = joined(peers)
    slow = peers[0]
    written = 0
    while not slow.through:
        fan_out.write(CHUNK)
        peers[1].received()
        written += 1
    assert slow.received() + slow.through == CHUNK * written


def test_who_is_indirect_gets_nothing_by_its_descriptor(peers: list[Peer]) -> None:
    fan_out = joined(peers)
    fan_out.indirect(peers[0].ours.fileno())
    fan_out.write(b"two")
    assert [(peer.received(), peer.through) for peer in peers] == [
        (b"", b"two"),
        (b"two", b""),
        (b"", b"two"),
    ]
    fan_out.direct(peers[0], peers[0].ours.fileno())
    fan_out.write(b"three")
    assert [peer.received() for peer in peers] == [b"three", b"three", b""]


def test_a_broken_socket_is_its_outlets_business(peers: list[Peer]) -> None:
    fan_out = joined(peers)
    peers[0].theirs.close()
    peers[0].accepts = False
    assert fan_out.write(b"four") == [peers[0].session]
    assert peers[0].through == b"four"
    assert peers[1].received() == b"four"


def test_who_left_gets_nothing(peers: list[Peer]) -> None:
    fan_out = joined(peers)
    for peer in (peers[0], peers[2]):
        fan_out.remove(peer)
    assert len(fan_out) == 1
    fan_out.write(b"five")
    assert [(peer.received(), peer.through) for peer in peers] == [(b"", b""), (b"five", b""), (b"", b"")]
