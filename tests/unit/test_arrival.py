"""How a PROXY header is taken off a connection: nothing behind it, in whatever pieces it comes."""

from __future__ import annotations

import selectors
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from pop3gw.arrival import SECONDS, Arrival
from pop3gw.poller import Poller
from pop3gw.proto.proxyheader import Endpoint, Header, written

PATIENCE = 5.0
HEADERS = [
    written(version, *pair)
    for version in (1, 2)
    for pair in (
        (Endpoint("192.0.2.7", 40123), Endpoint("198.51.100.9", 110)),
        (Endpoint("2001:db8::7", 40123), Endpoint("2001:db8::9", 110)),
    )
]


class Hall:
    """An arrival with its sender, and what came of it."""

    def __init__(self, listener: socket.socket) -> None:
        self.sender = socket.create_connection(listener.getsockname(), PATIENCE)
        self.sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client, _ = listener.accept()
        self.client.setblocking(False)
        self.outcome: list[tuple[Header | None, str]] = []
        self.poller = Poller()
        self.arrival = Arrival(self.client, poller=self.poller, now=100.0, done=self._done)
        self.woken = 0

    def _done(self, header: Header | None, reason: str) -> None:
        self.outcome.append((header, reason))

    def turn(self, seconds: float = PATIENCE) -> None:
        """Wait for the next event."""
        self.woken += self.poller.poll(seconds)

    def end(self) -> tuple[Header | None, str]:
        while not self.outcome:
            self.turn()
        (outcome,) = self.outcome
        assert not len(self.poller)
        return outcome

    def close(self) -> None:
        self.sender.close()
        self.client.close()
        self.poller.close()


@pytest.fixture
def enter() -> Iterator[Callable[[], Hall]]:
    halls: list[Hall] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def make() -> Hall:
            halls.append(Hall(listener))
            return halls[-1]

        yield make
    for hall in halls:
        hall.close()


@pytest.mark.parametrize("header", HEADERS)
def test_what_is_behind_a_header_is_left_where_it_is(enter: Callable[[], Hall], header: bytes) -> None:
    hall = enter()
    hall.sender.sendall(header + b"\x16\x03\x01")
    came, reason = hall.end()
    assert (came is not None, reason) == (True, "")
    assert hall.client.recv(100) == b"\x16\x03\x01"


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_in_pieces_wakes_nobody_for_what_was_seen(enter: Callable[[], Hall], header: bytes) -> None:
    hall = enter()
    for at in range(len(header)):
        hall.sender.sendall(header[at : at + 1])
        hall.turn()
        hall.turn(0)
    assert hall.end()[0] is not None
    assert hall.woken <= len(header)
    hall.sender.sendall(b"x")
    assert selectors_ready(hall.client)
    assert hall.client.recv(100) == b"x"


def selectors_ready(connection: socket.socket) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        return bool(selector.select(PATIENCE))


def test_the_longest_header(enter: Callable[[], Hall]) -> None:
    hall = enter()
    header = HEADERS[2][:14] + b"\xff\xff" + HEADERS[2][16:] + bytes(65_535 - 12)
    hall.sender.setblocking(False)
    sent = 0
    while not hall.outcome:
        if sent < len(header):
            sent += hall.sender.send(header[sent : sent + 8192])
        hall.turn(0.01 if sent < len(header) else PATIENCE)
    assert hall.end()[0] == Header(len(header), Endpoint("192.0.2.7", 40123), Endpoint("198.51.100.9", 110))


@pytest.mark.parametrize("seen", [b"", b"PROXY TCP4 "])
def test_an_end_within_the_header(enter: Callable[[], Hall], seen: bytes) -> None:
    hall = enter()
    hall.sender.sendall(seen)
    hall.sender.shutdown(socket.SHUT_WR)
    assert hall.end() == (None, "the connection ended within the PROXY header")


def test_a_reset_before_the_header(enter: Callable[[], Hall]) -> None:
    """As some health checks end."""
    hall = enter()
    hall.sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    hall.sender.close()
    assert hall.end() == (None, "the connection broke: Connection reset by peer")


def test_what_is_no_header(enter: Callable[[], Hall]) -> None:
    hall = enter()
    hall.sender.sendall(b"USER alice\r\n")
    header, reason = hall.end()
    assert header is None
    assert reason.startswith("no PROXY header: ")


def test_a_header_that_does_not_come(enter: Callable[[], Hall]) -> None:
    hall = enter()
    assert hall.arrival.deadline == 100.0 + SECONDS
    hall.arrival.expire()
    assert hall.end() == (None, "no whole PROXY header within 10 s")


def test_giving_up_says_nothing(enter: Callable[[], Hall]) -> None:
    hall = enter()
    hall.arrival.cancel()
    assert not len(hall.poller)
    assert not hall.outcome
