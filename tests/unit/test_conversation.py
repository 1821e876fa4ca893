"""Whole sessions on their poller, with servers that are slow, silent or stuck."""

from __future__ import annotations

import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_network
from typing import Any

import pytest

from pop3gw import conversation, tls
from pop3gw.net import Peer
from pop3gw.policy import Pop3Proxy
from pop3gw.poller import Poller
from pop3gw.proto import counts
from pop3gw.relay import Relay, Terms
from pop3gw.scoreboard import Board, Seat
from pop3gw.settings import Service
from pop3gw.values import Address, Tls
from tests.unit.deaf import listens_without_answering

PATIENCE = 10.0  # s
NAME = "mail.example.com"


class Impatient(Pop3Proxy):
    """A third of a second for whoever is awaited."""

    timeout = 300


class Ponderous(Impatient):
    """Its ``config()`` takes long, on the clock of conversations."""

    fails = False
    late = 0.0

    def config(self) -> None:
        Pop3Proxy.config(self)
        Ponderous.late = 100.0
        if self.fails:
            raise RuntimeError("after all that time")


class Failing(Ponderous):
    """All for nothing."""

    fails = True


class Hall:
    """One session of a service, and its client."""

    def __init__(self, stack: ExitStack, policy: type[Pop3Proxy] = Impatient, **settings: Any) -> None:
        service = Service(name="one", listen=(), **settings)
        self.poller = Poller()
        stack.callback(self.poller.close)
        self.over: list[Seat] = []
        self.rounds = 0
        self.slot = slot = Board(1, 1).slot(0)
        needs_tls = service.server_tls is not Tls.OFF
        self.relay = Relay(
            Terms.of(service, policy, frozenset(), tls.contexts(service) if needs_tls else None),
            poller=self.poller,
            slot=slot,
            ended=self.over.append,
            ask=lambda _seat, _address: None,
        )
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.client = stack.enter_context(socket.create_connection(listener.getsockname(), PATIENCE))
        accepted, where = listener.accept()
        self.relay.adopt(accepted, Peer(*where), slot.seats[0])

    def turn(self) -> None:
        """As a worker does."""
        due = self.relay.deadline()
        for call, events in self.poller.poll(max(0.0, min(due - time.monotonic(), 0.05))):
            call(events)
        self.relay.settle()
        self.relay.expire(time.monotonic())
        self.rounds += 1

    def resets(self) -> None:
        """The client is gone: it neither sends nor takes anything any more."""
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.close()

    def ends(self) -> None:
        """Go on until the session is over; it must not spin meanwhile."""
        rounds = self.rounds
        until = time.monotonic() + PATIENCE
        while not self.over and time.monotonic() < until:
            self.turn()
        assert len(self.over) == 1
        assert self.rounds - rounds < 20

    def hears(self) -> bytes:
        """The client's next line."""
        self.client.setblocking(False)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            self.turn()
            try:
                return self.client.recv(1000)
            except BlockingIOError:
                continue
        raise AssertionError("the client hears nothing")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    before = signal.getsignal(signal.SIGALRM)
    with ExitStack() as stack:
        yield stack
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def silent(stack: ExitStack) -> Address:
    """A server that accepts and says nothing."""
    return Address("127.0.0.1", stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1])


def resolves_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    real = socket.getaddrinfo

    def found(host: str, port: int, *more: Any, **hints: Any) -> Any:
        if host != NAME:
            return real(host, port, *more, **hints)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", found)


@pytest.mark.parametrize("named", [False, True], ids=["by number", "by name"])
def test_a_silent_server_has_the_policys_timeout_not_that_of_connecting(
    monkeypatch: pytest.MonkeyPatch, stack: ExitStack, silent: Address, named: bool
) -> None:
    resolves_to(monkeypatch, "127.0.0.1")
    server = Address(NAME, silent.port) if named else silent
    began = time.monotonic()
    hall = Hall(stack, server=server, connect_timeout=60)
    assert hall.hears() == b"-ERR Error in protocol\r\n"
    assert 0.3 <= time.monotonic() - began < 5.0


def test_a_name_whose_first_address_never_answers_is_reached_by_the_second(
    monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    port = server.getsockname()[1]
    resolves_to(monkeypatch, listens_without_answering(stack, port), "127.0.0.1")
    hall = Hall(stack, server=Address(NAME, port), connect_timeout=1)
    server.settimeout(0.01)
    until = time.monotonic() + PATIENCE
    while True:
        assert time.monotonic() < until
        hall.turn()
        try:
            connection, _ = server.accept()
            break
        except TimeoutError:
            continue
    with connection:
        connection.sendall(b"+OK ready\r\n")
        assert hall.hears() == b"+OK ready\r\n"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ponderous, "late", 0.0)
    monkeypatch.setattr(conversation, "monotonic", lambda: time.monotonic() + Ponderous.late)


@pytest.mark.usefixtures("clock")
def test_the_time_that_config_takes_is_not_taken_from_connecting(stack: ExitStack, silent: Address) -> None:
    began = time.monotonic()
    hall = Hall(stack, Ponderous, server=silent, connect_timeout=60)
    assert hall.relay.deadline() > began + 100


@pytest.mark.usefixtures("clock")
def test_the_time_that_config_takes_is_the_sessions(stack: ExitStack, silent: Address) -> None:
    began = time.monotonic()
    hall = Hall(stack, Failing, server=silent)
    assert hall.client.recv(100).startswith(b"-ERR ")
    assert hall.slot.value(counts.sum_at(counts.SESSION_SECONDS)) >= 100e6
    assert hall.relay.deadline() > began + 100  # until then the client may take leave


def test_a_session_that_ends_within_a_handshake_notices_that_its_client_leaves(
    stack: ExitStack, silent: Address
) -> None:
    hall = Hall(stack, server=silent, server_tls=Tls.IMPLICIT, connect_timeout=60)
    assert hall.hears() == b"-ERR Error in protocol\r\n"
    hall.client.close()
    hall.ends()


@pytest.mark.parametrize("server_tls", [Tls.OFF, Tls.IMPLICIT])
@pytest.mark.parametrize("said", [b"", b"NOOP\r\n" * 10_000], ids=["nothing", "more than is kept"])
@pytest.mark.parametrize("half_closed", [False, True], ids=["open", "half-closed"])
def test_a_client_that_is_gone_takes_its_server_along_whatever_is_awaited(
    stack: ExitStack, silent: Address, server_tls: Tls, said: bytes, half_closed: bool
) -> None:
    hall = Hall(stack, Pop3Proxy, server=silent, server_tls=server_tls, connect_timeout=60)
    hall.client.sendall(said)
    if half_closed:
        hall.client.shutdown(socket.SHUT_WR)
    for _ in range(10):  # it hears what it wants to, and begins to shake hands
        hall.turn()
    assert not hall.over
    hall.resets()
    hall.ends()


def test_a_client_that_half_closes_before_the_greeting_still_gets_it_and_its_answers(stack: ExitStack) -> None:
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    hall = Hall(stack, Pop3Proxy, server=Address("127.0.0.1", server.getsockname()[1]))
    connection, _ = server.accept()
    hall.client.sendall(b"QUIT\r\n")
    hall.client.shutdown(socket.SHUT_WR)
    for _ in range(10):
        hall.turn()
    with connection:
        connection.sendall(b"+OK ready\r\n")
        assert hall.hears() == b"+OK ready\r\n"
        assert connection.recv(100) == b"QUIT\r\n"
        connection.sendall(b"+OK bye\r\n")
        assert hall.hears() == b"+OK bye\r\n"


def test_one_that_is_ended_before_it_is_known_who_the_client_is_just_closes(
    stack: ExitStack, silent: Address, capfd: pytest.CaptureFixture[str]
) -> None:
    hall = Hall(stack, server=silent, proxy_protocol_from=(ip_network("127.0.0.0/8"),))
    hall.turn()
    hall.relay.end_all("the test is over")
    assert len(hall.over) == 1
    assert hall.client.recv(100) == b""
    assert "fault" not in capfd.readouterr().err


def test_what_was_answered_before_an_end_in_the_same_round_is_delivered(stack: ExitStack) -> None:
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    hall = Hall(stack, server=Address("127.0.0.1", server.getsockname()[1]))
    connection, _ = server.accept()
    with connection:
        connection.sendall(b"+OK ready\r\n")
        assert hall.hears() == b"+OK ready\r\n"
        hall.client.setblocking(True)
        hall.client.sendall(b"NOOP\r\n")
        while not (events := hall.poller.poll(0.05)):
            pass
        for call, which in events:
            call(which)
        hall.relay.end_all("the test is over")
        assert hall.client.recv(100) == b"-ERR Invalid command.\r\n"
