"""Reaching a server: names, several addresses, one deadline; over the real loopback, with a resolver of the test's."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pop3gw.net import Connector, Peer, Route
from pop3gw.poller import Poller
from pop3gw.stream import Connection
from pop3gw.values import Address
from tests.unit.deaf import listens_without_answering

PATIENCE = 10.0  # s
NAME = "mail.example.com"
Found = list[tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]]


@dataclass
class Attempt:
    """A connector at work, and what it came to."""

    timeout: float = PATIENCE
    listeners: frozenset[Address] = frozenset()
    due: list[float] = field(default_factory=list)
    speaks_first: bool = False
    patience: float = PATIENCE
    poller: Poller = field(default_factory=Poller)
    outcome: list[tuple[Connection | None, Peer | None, str]] = field(default_factory=list)

    def begin(self, server: Address) -> Connector:
        connector = Connector(
            Route(server, self.listeners),
            timeout=self.timeout,
            poller=self.poller,
            speaks_first=self.speaks_first,
            patience=self.patience,
            due=self.due.append,
            done=lambda connection, peer, reason: self.outcome.append((connection, peer, reason)),
        )
        connector.start(time.monotonic())
        return connector

    def run(self, server: Address) -> tuple[Peer | None, str]:
        """Let it end; the connection is closed."""
        connector = self.begin(server)
        ends = time.monotonic() + PATIENCE
        while not self.outcome and time.monotonic() < ends:
            self.poller.poll(max(0.0, connector.deadline - time.monotonic()))
            if not self.outcome and time.monotonic() >= connector.deadline:
                connector.expire(time.monotonic())
        ((connection, peer, reason),) = self.outcome
        if connection is not None and peer is not None:
            assert connection.getpeername()[:2] == (peer.address, peer.port)
            self.poller.forget(connection.fileno())
            connection.close()
        return peer, reason

    def rest(self) -> None:
        """Wait until nothing is under way any more."""
        ends = time.monotonic() + PATIENCE
        while len(self.poller) and time.monotonic() < ends:
            self.poller.poll(0.1)
        assert not len(self.poller)


def thread_count() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def resolves_to(monkeypatch: pytest.MonkeyPatch, *addresses: str, hangs: threading.Event | None = None) -> None:
    """Every name has these addresses from now on; where it ``hangs``, not before that event."""

    def found(_host: str, port: int, **_hints: object) -> Found:
        if hangs is not None:
            hangs.wait(PATIENCE)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
        return [
            (family, socket.SOCK_STREAM, 6, "", (address, port) if family == socket.AF_INET else (address, port, 0, 0))
            for family, address in zip(families, addresses, strict=True)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", found)


@pytest.fixture
def server() -> Iterator[int]:
    """A port where something listens on 127.0.0.1, and nothing on ::1 or 127.0.0.9."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def silent(server: int) -> Iterator[str]:
    """An address that never answers on the server's port: its backlog is full."""
    with contextlib.ExitStack() as stack:
        yield listens_without_answering(stack, server)


def test_an_address(server: int) -> None:
    attempt = Attempt()
    assert attempt.run(Address("127.0.0.1", server)) == (Peer("127.0.0.1", server), "")
    assert not len(attempt.poller)


def test_a_closed_port(server: int) -> None:
    peer, reason = Attempt().run(Address("127.0.0.9", server))
    assert peer is None
    assert reason == f"127.0.0.9:{server}: 127.0.0.9: Connection refused"


def test_the_addresses_of_a_name_are_tried_in_order(monkeypatch: pytest.MonkeyPatch, server: int) -> None:
    resolves_to(monkeypatch, "127.0.0.9", "::1", "127.0.0.1", "127.0.0.7")
    assert Attempt().run(Address(NAME, server)) == (Peer("127.0.0.1", server), "")


def test_an_address_that_never_answers_has_its_share_of_the_time(
    monkeypatch: pytest.MonkeyPatch, server: int, silent: str
) -> None:
    resolves_to(monkeypatch, silent, "127.0.0.1")
    began = time.monotonic()
    attempt = Attempt(timeout=1.0)
    assert attempt.run(Address(NAME, server)) == (Peer("127.0.0.1", server), "")
    assert 0.4 < time.monotonic() - began < 1.0
    assert attempt.due[0] < began + 0.9  # its share was said, before it was over


def test_all_addresses_together_have_the_timeout(monkeypatch: pytest.MonkeyPatch, server: int, silent: str) -> None:
    resolves_to(monkeypatch, silent, "127.0.0.9", silent)
    began = time.monotonic()
    peer, reason = Attempt(timeout=0.5).run(Address(NAME, server))
    assert time.monotonic() - began < 3
    assert peer is None
    assert reason.startswith(
        f"{NAME}:{server}: {silent}: timed out; 127.0.0.9: Connection refused; {silent}: timed out"
    )


def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    resolves_to(monkeypatch)
    peer, reason = Attempt().run(Address(NAME, 110))
    assert peer is None
    assert "Name or service not known" in reason


def test_a_name_that_does_not_resolve_in_time(monkeypatch: pytest.MonkeyPatch, server: int) -> None:
    answers = threading.Event()
    resolves_to(monkeypatch, "127.0.0.1", hangs=answers)
    threads = thread_count()
    began = time.monotonic()
    attempt = Attempt(timeout=0.2)
    peer, reason = attempt.run(Address(NAME, server))
    assert time.monotonic() - began < 3
    assert peer is None
    assert reason == f"{NAME}:{server}: its name was not resolved within 0.2 s"
    answers.set()  # the answer that comes too late disturbs nothing
    attempt.rest()
    ends = time.monotonic() + PATIENCE
    while thread_count() > threads and time.monotonic() < ends:
        time.sleep(0.01)
    assert thread_count() <= threads


def test_without_threads_or_descriptors_the_server_is_unreachable_and_nothing_breaks(
    monkeypatch: pytest.MonkeyPatch, server: int
) -> None:
    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    def no_pipe(_flags: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("_thread.start_new_thread", no_thread)
    peer, reason = Attempt().run(Address(NAME, server))
    assert (peer, reason) == (None, f"{NAME}:{server}: {NAME}: can't start new thread")
    monkeypatch.setattr(os, "pipe2", no_pipe)
    peer, reason = Attempt().run(Address(NAME, server))
    assert (peer, reason) == (None, f"{NAME}:{server}: Too many open files")


def cancel_while_resolving(monkeypatch: pytest.MonkeyPatch, _silent: str) -> Callable[[], None]:
    answers = threading.Event()
    resolves_to(monkeypatch, "127.0.0.1", hangs=answers)
    return answers.set


def cancel_while_connecting(monkeypatch: pytest.MonkeyPatch, silent: str) -> Callable[[], None]:
    resolves_to(monkeypatch, silent)
    return lambda: None


@pytest.mark.parametrize("when", [cancel_while_resolving, cancel_while_connecting])
def test_one_that_is_given_up_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
    server: int,
    silent: str,
    when: Callable[[pytest.MonkeyPatch, str], Callable[[], None]],
) -> None:
    finish = when(monkeypatch, silent)
    attempt = Attempt()
    connector = attempt.begin(Address(NAME, server))
    if when is cancel_while_connecting:
        attempt.poller.poll(PATIENCE)
    connector.cancel()
    finish()
    attempt.rest()
    assert attempt.outcome == []


def test_sessions_that_wait_for_the_same_name_share_few_look_ups(monkeypatch: pytest.MonkeyPatch, server: int) -> None:
    answers, asked = threading.Event(), list[str]()
    resolves_to(monkeypatch, "127.0.0.1", hangs=answers)
    hanging = socket.getaddrinfo

    def counted(host: str, *arguments: object, **hints: object) -> object:
        asked.append(host)
        return hanging(host, *arguments, **hints)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", counted)
    route, poller, reached = Route(Address(NAME, server), frozenset()), Poller(), list[Peer | None]()

    def done(connection: Connection | None, peer: Peer | None, _reason: str) -> None:
        reached.append(peer)
        if connection is not None:
            poller.forget(connection.fileno())
            connection.close()

    connectors = []
    # What was asked more than five seconds ago may be lost; eight hang, and one more after a minute.
    for now in (0.0, 1.0, 4.9, *(6.0 * number for number in range(1, 20))):
        connectors.append(Connector(route, timeout=1e9, poller=poller, due=lambda _when: None, done=done))
        connectors[-1].start(now)
    connectors[0].cancel()
    assert len(poller) == 9
    answers.set()
    ends = time.monotonic() + PATIENCE
    while len(poller) and time.monotonic() < ends:
        poller.poll(0.1)
    assert reached == [Peer("127.0.0.1", server)] * 21
    assert len(asked) == 9


def greeting(port: int) -> tuple[Peer | None, str, float]:
    """What comes of a server that speaks first, and how long before now it was tried."""
    attempt = Attempt(speaks_first=True, patience=0.2, timeout=1.0)
    began = time.monotonic()
    peer, reason = attempt.run(Address("127.0.0.1", port))
    return peer, reason, time.monotonic() - began


def test_a_server_that_speaks_first_is_connected_when_it_speaks() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])

        def greet() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(ConnectionResetError):  # nobody reads what it says
                connection.sendall(b"+OK\r\n")
                connection.recv(1)

        thread = threading.Thread(target=greet)
        thread.start()
        peer, reason, seconds = greeting(port)
        thread.join(PATIENCE)
    assert (peer, reason) == (Peer("127.0.0.1", port), "")
    assert seconds < 0.2


def test_one_that_is_connected_and_keeps_silent_is_looked_at_when_its_time_is_over(server: int) -> None:
    peer, reason, seconds = greeting(server)
    assert (peer, reason) == (Peer("127.0.0.1", server), "")
    assert 0.2 <= seconds < 1.0


def test_one_that_should_speak_first_and_refuses_or_never_answers_is_none(server: int, silent: str) -> None:
    for address, why in (("127.0.0.9", "Connection refused"), (silent, "timed out")):
        attempt = Attempt(speaks_first=True, patience=0.1, timeout=0.3)
        peer, reason = attempt.run(Address(address, server))
        assert (peer, reason) == (None, f"{address}:{server}: {address}: {why}")


@pytest.mark.parametrize(
    ("listener", "address", "loops"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("::", "::1", True),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("127.0.0.9", "127.0.0.1", False),
        ("::", "127.0.0.1", False),  # an IPv6 listener of the gateway takes no IPv4
    ],
)
def test_what_a_name_turns_out_to_be_is_no_listener_of_the_gateway(
    monkeypatch: pytest.MonkeyPatch, server: int, listener: str, address: str, loops: bool
) -> None:
    resolves_to(monkeypatch, address)
    peer, reason = Attempt(listeners=frozenset({Address(listener, server)})).run(Address(NAME, server))
    assert (peer is None) == loops
    assert ("a loop" in reason) == loops


def test_where_one_address_loops_the_next_is_taken(monkeypatch: pytest.MonkeyPatch, server: int) -> None:
    resolves_to(monkeypatch, "127.0.0.9", "127.0.0.1")
    listeners = frozenset({Address("127.0.0.9", server)})
    assert Attempt(listeners=listeners).run(Address(NAME, server)) == (Peer("127.0.0.1", server), "")
