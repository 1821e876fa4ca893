"""Whole sessions on their poller, with servers that are slow, silent or stuck."""

from __future__ import annotations

import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from ipaddress import ip_network
from typing import Any

import pytest

from pop3gw import logs, poller, relay, tls
from pop3gw.net import Peer
from pop3gw.policy import (
    POP3_REQ_ABORT,
    POP3_REQ_ACCEPT,
    POP3_REQ_POLICY,
    POP3_REQ_REJECT,
    POP3_RSP_ACCEPT,
    POP3_RSP_REJECT,
    Pop3Proxy,
    SessionFacts,
)
from pop3gw.poller import BROKEN, READ, WRITE, Poller
from pop3gw.proto import counts
from pop3gw.pump import wanted
from pop3gw.relay import Relay, Terms
from pop3gw.scoreboard import Board, Seat
from pop3gw.settings import Service
from pop3gw.stream import Stream
from pop3gw.tlsstream import TlsStream
from pop3gw.values import Address, LogLevel, Tls
from tests.unit.deaf import listens_without_answering

PATIENCE = 10.0  # s
NAME = "mail.example.com"


class Impatient(Pop3Proxy):
    """A third of a second for whoever is awaited."""

    timeout = 300


class Ponderous(Impatient):
    """Its ``config()`` takes long, on the clock of conversations."""

    fails = False

    def config(self) -> None:
        Pop3Proxy.config(self)
        CLOCK.skew += 100
        if self.fails:
            raise RuntimeError("after all that time")


class Failing(Ponderous):
    """All for nothing."""

    fails = True


class Clock:
    """Time as it passes, and as a callback lets it pass at once."""

    skew = 0.0
    _real = staticmethod(time.monotonic)

    def __call__(self) -> float:
        return self._real() + self.skew


CLOCK = Clock()


class Slow(Pop3Proxy):
    """Callbacks that take longer than whoever is awaited may."""

    callback_timeout = 3_600_000

    def config(self) -> None:
        """A callback for each way to begin a turn."""
        super().config()
        self.request["NOOP"] = (POP3_REQ_POLICY, self.relay)
        self.request["RSET"] = (POP3_REQ_POLICY, self.refuse)
        self.request["LAST"] = (POP3_REQ_POLICY, None, self.answer)
        self.request["RETR"] = (POP3_REQ_POLICY, None, self.answer)
        self.request["TOP"] = (POP3_REQ_POLICY, None, self.drop)

    def relay(self, _command: str) -> int:
        CLOCK.skew += 1000
        return POP3_REQ_ACCEPT

    def refuse(self, _command: str) -> int:
        CLOCK.skew += 1000
        return POP3_REQ_REJECT

    def answer(self, _text: str) -> int:
        CLOCK.skew += 1000
        return POP3_RSP_ACCEPT

    def drop(self, text: str) -> int:
        CLOCK.skew += 1000
        return POP3_RSP_REJECT if text == "a" else POP3_RSP_ACCEPT


class SlowToBegin(Slow):
    """Callbacks that take longer than connecting, greeting and logging in may."""

    def config(self) -> None:
        """Takes its time."""
        super().config()
        self.request["GREETING"] = (POP3_REQ_POLICY, None, self.answer)
        CLOCK.skew += 1000


class Aborts(Pop3Proxy):
    """Ends each session that names its user."""

    def config(self) -> None:
        """The usual but for that."""
        super().config()
        self.request["USER"] = POP3_REQ_ABORT


class Hall:
    """The sessions of a service, and their clients; one is there from the beginning."""

    def __init__(self, stack: ExitStack, policy: type[Pop3Proxy] = Impatient, **settings: Any) -> None:
        service = Service(name="one", listen=(), **settings)
        self.poller = Poller()
        stack.callback(self.poller.close)
        self.over: list[Seat] = []
        self.rounds = 0
        self.slot = slot = Board(1, 3).slot(0)
        self._seats = iter(slot.seats)
        needs_tls = service.server_tls is not Tls.OFF
        self.relay = Relay(
            Terms.of(service, policy, frozenset(), tls.contexts(service) if needs_tls else None),
            poller=self.poller,
            slot=slot,
            ended=self.over.append,
            ask=lambda _seat, _address: None,
        )
        self._stack = stack
        self._listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.client = self.enter()

    def enter(self) -> socket.socket:
        """The client of another session."""
        client = self._stack.enter_context(socket.create_connection(self._listener.getsockname(), PATIENCE))
        accepted, where = self._listener.accept()
        self.relay.adopt(accepted, Peer(*where), next(self._seats))
        self.relay.settle()
        return client

    def turn(self) -> None:
        """As a worker does."""
        due, now = self.relay.deadline(), time.monotonic()
        self.poller.poll(max(0.0, min(due - now, 0.05)))
        self.relay.settle()
        if now >= due:
            self.relay.expire(now)
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

    def listens(self) -> None:
        """Half a turn: what there is is heard, none acts."""
        assert self.poller.poll(PATIENCE)

    def hears(self, peer: socket.socket | None = None) -> bytes:
        """What the client, or another peer, hears next."""
        peer = peer or self.client
        peer.setblocking(False)
        until = time.perf_counter() + PATIENCE
        while time.perf_counter() < until:
            self.turn()
            try:
                return peer.recv(1000)
            except BlockingIOError:
                continue
        raise AssertionError("nothing is heard")


class Served(Hall):
    """Sessions with slow callbacks, in the TRANSACTION state, and their server."""

    def __init__(self, stack: ExitStack, policy: type[Pop3Proxy] = Slow, connect_timeout: float = 60) -> None:
        self._servers = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        server = Address("127.0.0.1", self._servers.getsockname()[1])
        super().__init__(stack, policy, server=server, connect_timeout=connect_timeout)

    def enter(self) -> socket.socket:
        client = super().enter()
        self.server = self._stack.enter_context(self._servers.accept()[0])
        self.server.sendall(b"+OK ready\r\n")
        assert self.hears(client) == b"+OK ready\r\n"
        for request in (b"USER alice\r\n", b"PASS hunter2\r\n"):
            self.asks(client, self.server, request, b"+OK\r\n")
        return client

    def asks(self, client: socket.socket, server: socket.socket, request: bytes, answer: bytes) -> None:
        """A request goes there and its answer back, neither at once."""
        client.sendall(request)
        assert self.hears(server) == request
        self.idle()
        server.sendall(answer)
        assert self.hears(client) == answer
        self.idle()

    def idle(self) -> None:
        """What is due is done."""
        for _ in range(2):
            self.turn()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    before = signal.getsignal(signal.SIGALRM)
    with ExitStack() as stack:
        yield stack
    signal.setitimer(signal.ITIMER_REAL, 0)
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


def test_a_client_that_does_not_read_is_let_go_when_its_time_is_over(stack: ExitStack) -> None:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    hall = Hall(stack, server=Address(*listener.getsockname()))
    server = stack.enter_context(listener.accept()[0])
    server.setblocking(False)
    server.sendall(b"+OK hello\r\n")
    for request in (b"USER alice\r\n", b"PASS secret\r\n", b"RETR 1\r\n"):
        assert hall.hears().startswith(b"+OK")
        hall.client.sendall(request)
        said = b""
        while said != request:
            hall.turn()
            with suppress(BlockingIOError):
                said += server.recv(100)
        server.sendall(b"+OK\r\n")
    block = b"a" * 1022 + b"\r\n"
    with suppress(ConnectionError):
        while not hall.over:
            hall.turn()
            with suppress(BlockingIOError):
                server.send(64 * block)
    hall.ends()


@pytest.mark.interpreted
@pytest.mark.parametrize("side", ["client", "server"])
def test_who_has_not_taken_what_tls_answered_by_itself_is_not_read(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    """As one may have it answer, with key updates (RFC 8446 section 4.6.3), without end."""
    hall = Served(stack, Pop3Proxy)
    speaker, hearer, said = hall.client, hall.server, b"NOOP\r\n"
    if side == "server":
        hall.client.sendall(said)
        assert hall.hears(hall.server) == said
        speaker, hearer, said = hall.server, hall.client, b"+OK\r\n"
    read, flush = Stream.read, Stream.flush

    def answers(stream: Stream) -> bytes | None:
        data = read(stream)
        if data == said[:2]:
            stream.unsent = memoryview(b"key update")
        return data

    monkeypatch.setattr(Stream, "answers", TlsStream.answers)
    monkeypatch.setattr(Stream, "read", answers)
    monkeypatch.setattr(Stream, "flush", lambda _stream: False)
    speaker.sendall(said[:2])
    hall.turn()
    speaker.sendall(said[2:])
    hearer.setblocking(False)
    for _ in range(3):
        hall.turn()
        with pytest.raises(BlockingIOError):
            hearer.recv(100)
    monkeypatch.setattr(Stream, "flush", flush)
    assert hall.hears(speaker) == b"key update"
    assert hall.hears(hearer) == said


@pytest.mark.parametrize(
    ("full", "stuck", "reads_client", "reads_server", "of_client", "of_server"),
    [
        (False, False, True, True, READ, READ),
        (False, False, True, False, READ, 0),
        (False, False, False, True, BROKEN, READ),
        (True, False, True, True, BROKEN | WRITE, 0),
        (False, True, True, True, BROKEN, READ | WRITE),
        (True, True, True, True, BROKEN | WRITE, WRITE),
        (False, False, False, False, BROKEN, 0),
    ],
)
def test_nothing_is_read_for_who_has_not_taken_what_there_was(
    full: bool, stuck: bool, reads_client: bool, reads_server: bool, of_client: int, of_server: int
) -> None:
    masks = wanted(full=full, stuck=stuck, reads_client=reads_client, reads_server=reads_server)
    assert masks == (of_client, of_server)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CLOCK, "skew", 0.0)
    monkeypatch.setattr(time, "monotonic", CLOCK)
    for module in (poller, relay):
        monkeypatch.setattr(module, "monotonic", CLOCK)


@pytest.mark.interpreted  # its clock stands in the place of the modules' own
@pytest.mark.usefixtures("clock")
def test_a_client_that_reads_slowly_is_not_taken_for_one_that_does_not(stack: ExitStack) -> None:
    hall = Served(stack, Pop3Proxy)
    hall.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    hall.client.sendall(b"RETR 1\r\n")
    assert hall.hears(hall.server) == b"RETR 1\r\n"
    hall.server.sendall(b"+OK\r\n")
    hall.server.setblocking(False)
    block = 64 * (b"a" * 1022 + b"\r\n")
    stuck = 0
    while stuck < 5:  # until all buffers are full
        stuck += 1
        with suppress(BlockingIOError):
            while hall.server.send(block):
                stuck = 0
        hall.turn()
    for _ in range(5):
        CLOCK.skew += 400
        hall.client.setblocking(True)
        assert hall.client.recv(1 << 17, socket.MSG_WAITALL)
        hall.idle()
        CLOCK.skew += 201
        hall.idle()
        assert not hall.over
    for _ in range(2):
        CLOCK.skew += 601
        hall.idle()
    assert len(hall.over) == 1


@pytest.mark.interpreted  # its clock stands in the place of the modules' own
@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("reads", [True, False])
def test_a_client_to_whom_the_rest_of_an_answer_is_still_on_its_way_is_not_idle(stack: ExitStack, reads: bool) -> None:
    hall = Served(stack, Pop3Proxy)
    hall.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
    hall.client.sendall(b"RETR 1\r\n")
    assert hall.hears(hall.server) == b"RETR 1\r\n"
    answer = b"+OK\r\n" + 512 * (b"a" * 1022 + b"\r\n") + b".\r\n"
    hall.server.sendall(answer)
    (conversation,) = hall.relay._running
    while conversation._client.sent < len(answer):  # the system takes all of it, the client little
        hall.turn()
    assert conversation._client.unsent is None
    heard = 0
    for _ in range(5):
        CLOCK.skew += 400
        if reads:
            heard += len(hall.client.recv(1 << 16, socket.MSG_WAITALL))
        hall.idle()
        CLOCK.skew += 201
        hall.idle()
    assert (not hall.over) is reads
    if reads:
        assert hall.client.recv(len(answer) - heard, socket.MSG_WAITALL)
        hall.client.sendall(b"NOOP\r\n")
        assert hall.hears(hall.server) == b"NOOP\r\n"


@pytest.mark.interpreted  # its clock stands in the place of the modules' own
@pytest.mark.usefixtures("clock")
def test_the_time_that_config_takes_is_not_taken_from_connecting(stack: ExitStack, silent: Address) -> None:
    began = time.monotonic()
    hall = Hall(stack, Ponderous, server=silent, connect_timeout=60)
    assert hall.relay.deadline() > began + 100


@pytest.mark.interpreted  # its clock stands in the place of the modules' own
@pytest.mark.usefixtures("clock")
def test_the_time_that_config_takes_is_the_sessions(stack: ExitStack, silent: Address) -> None:
    began = time.monotonic()
    hall = Hall(stack, Failing, server=silent)
    assert hall.client.recv(100).startswith(b"-ERR ")
    assert hall.slot.counters[counts.sum_at(counts.SESSION_SECONDS)] >= 100e6
    assert hall.relay.deadline() > began + 100  # until then the client may take leave


class Spoilt(Pop3Proxy):
    """It has put something else in the place of what the gateway looks at."""

    def config(self) -> None:
        super().config()
        vars(self)["username"] = 7


def test_a_session_that_can_not_be_summarized_ends_all_the_same(
    stack: ExitStack, silent: Address, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs.current(), "level", LogLevel.INFO)
    hall = Hall(stack, Spoilt, server=silent, server_tls=Tls.IMPLICIT, connect_timeout=60)
    hall.ends()
    assert "this session can't be summarized: Traceback" in capfd.readouterr().err


def test_a_session_that_ends_within_a_handshake_notices_that_its_client_leaves(
    stack: ExitStack, silent: Address
) -> None:
    hall = Hall(stack, server=silent, server_tls=Tls.IMPLICIT, connect_timeout=60)
    assert hall.hears() == b"-ERR Error in protocol\r\n"
    hall.client.close()
    hall.ends()


@pytest.mark.parametrize("server_tls", [Tls.OFF, Tls.IMPLICIT])
@pytest.mark.parametrize(
    ("said", "half_closed"),
    [(b"", False), (b"NOOP\r\n" * 10_000, False), (b"NOOP\r\n" * 10_000, True)],
    ids=["nothing", "more than is kept", "half-closed"],
)
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


@pytest.mark.parametrize("said", [b"", b"QUI"], ids=["nothing", "half a request"])
def test_a_client_that_closes_before_the_greeting_without_a_request_is_let_go(
    stack: ExitStack, silent: Address, said: bytes
) -> None:
    hall = Hall(stack, Pop3Proxy, server=silent, connect_timeout=60)
    hall.client.sendall(said)
    hall.client.close()
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


def test_who_lingers_is_shown_as_it_was_at_the_end(stack: ExitStack) -> None:
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    hall = Hall(stack, Aborts, server=Address("127.0.0.1", server.getsockname()[1]))
    connection, _ = server.accept()
    with connection:
        connection.sendall(b"+OK ready\r\n")
        assert hall.hears() == b"+OK ready\r\n"
        hall.client.sendall(b"USER alice\r\n")
        assert hall.hears() == b"-ERR Invalid command.\r\n"
    shown = hall.slot.seats[0].read()
    assert shown is not None
    assert (shown.user, shown.state) == ("alice", "LEAVING")


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
        hall.listens()
        hall.relay.end_all("the test is over")
        assert hall.client.recv(100) == b"-ERR Invalid command.\r\n"


@pytest.mark.interpreted  # its clock stands in the place of the modules' own
@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"NOOP\r\n", b"+OK\r\n"),
        (b"LAST\r\n", b"+OK 3\r\n"),
        (b"RETR 1\r\n", b"+OK\r\na\r\nb\r\n.\r\n"),
    ],
    ids=["before the request", "behind the answer", "within the answer"],
)
def test_what_a_callback_takes_is_nobodys_silence(stack: ExitStack, request_: bytes, answer: bytes) -> None:
    hall = Served(stack)
    for _ in range(2):
        hall.asks(hall.client, hall.server, request_, answer)
    hall.asks(hall.client, hall.server, b"DELE 1\r\n", b"+OK\r\n")


@pytest.mark.interpreted  # its clock stands in the place of the modules' own
@pytest.mark.usefixtures("clock")
def test_what_config_and_the_greetings_callback_take_is_nobodys_silence(stack: ExitStack) -> None:
    hall = Served(stack, SlowToBegin)
    hall.asks(hall.client, hall.server, b"DELE 1\r\n", b"+OK\r\n")


@pytest.mark.interpreted  # its clock stands in the place of the modules' own
@pytest.mark.usefixtures("clock")
def test_what_a_callback_takes_to_refuse_is_not_the_clients_silence(stack: ExitStack) -> None:
    hall = Served(stack)
    hall.client.sendall(b"RSET\r\n" * 2)
    assert hall.hears() == b"-ERR Invalid command.\r\n" * 2
    hall.idle()
    hall.asks(hall.client, hall.server, b"DELE 1\r\n", b"+OK\r\n")


@pytest.mark.interpreted  # its clock stands in the place of the modules' own
@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("command", [b"RETR", b"TOP"], ids=["relayed", "dropped"])
def test_a_message_that_comes_in_parts_is_not_cut_by_its_callback(stack: ExitStack, command: bytes) -> None:
    hall = Served(stack)
    request = command + b" 1" + (b" 1" if command == b"TOP" else b"") + b"\r\n"
    hall.asks(hall.client, hall.server, request, b"+OK\r\n")
    for _ in range(3):
        hall.server.sendall(b"a\r\n")
        hall.listens()
        hall.server.sendall(b"a\r\n")  # came while the callback ran
        hall.relay.settle()
    hall.server.sendall(b"b\r\n.\r\n")
    heard = b""
    while not heard.endswith(b"b\r\n.\r\n"):
        heard += (more := hall.hears())
        assert more
    assert heard == (b"a\r\n" * 6 if command == b"RETR" else b"") + b"b\r\n.\r\n"


@pytest.mark.interpreted  # its clock stands in the place of the modules' own
@pytest.mark.usefixtures("clock")
def test_an_answer_that_came_behind_a_neighbours_callback_has_come_in_time(stack: ExitStack) -> None:
    hall = Served(stack)
    server, neighbour = hall.server, hall.enter()
    hall.client.sendall(b"DELE 1\r\n")
    assert hall.hears(server) == b"DELE 1\r\n"
    neighbour.sendall(b"NOOP\r\n")
    hall.listens()
    server.sendall(b"+OK\r\n")  # in time, but for the callback
    hall.relay.settle()
    assert hall.hears() == b"+OK\r\n"


@pytest.mark.interpreted  # its clock stands in the place of the modules' own
@pytest.mark.usefixtures("clock")
def test_a_request_that_waited_for_a_neighbours_callback_has_its_whole_time(stack: ExitStack) -> None:
    hall = Served(stack)
    server, neighbour = hall.server, hall.enter()
    hall.client.sendall(b"DELE 1\r\n")
    hall.listens()
    neighbour.sendall(b"NOOP\r\n")
    hall.listens()
    hall.relay.settle()
    hall.idle()
    assert hall.hears(server) == b"DELE 1\r\n"
    server.sendall(b"+OK\r\n")
    assert hall.hears() == b"+OK\r\n"


@pytest.mark.interpreted  # its clock stands in the place of the modules' own
@pytest.mark.usefixtures("clock")
def test_whoever_really_is_silent_is_late_whatever_the_neighbours_do(stack: ExitStack) -> None:
    hall = Served(stack)
    server, neighbour = hall.server, hall.enter()
    hall.client.sendall(b"DELE 1\r\nNOOP\r\n")
    assert hall.hears(server) == b"DELE 1\r\n"
    neighbour.sendall(b"NOOP\r\n")
    assert hall.hears() == b"-ERR Error in protocol\r\n"


def test_a_server_that_vanishes_is_noticed_from_a_minute_on_at_the_latest(stack: ExitStack) -> None:
    class Patient(Pop3Proxy):
        auth_timeout = timeout = 3_600_000

    hall = Served(stack, Patient, connect_timeout=3600)
    (conversation,) = hall.relay._running
    assert len(conversation._session.facts) == len(SessionFacts._fields)
    assert conversation._server is not None
    end = conversation._server.socket
    assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert not end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    first = hall.relay.deadline()
    assert first <= time.monotonic() + 60
    hall.relay.expire(first)
    assert not hall.over
    assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    kept = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    assert [end.getsockopt(socket.IPPROTO_TCP, option) for option in kept] == [60, 20, 4]
    assert hall.relay.deadline() > first


def test_once_no_session_runs_the_guard_rests(stack: ExitStack) -> None:
    hall = Served(stack, Pop3Proxy)
    assert hall.relay.guard._rings
    hall.client.close()
    hall.server.close()
    hall.ends()
    assert not hall.relay.guard._rings


def test_what_is_much_goes_out_at_once_and_what_is_little_when_all_have_heard(stack: ExitStack) -> None:
    hall = Served(stack, Pop3Proxy)
    for content, at_once in ((b"x\r\n" * 10, False), (b"x\r\n" * 20_000, True)):
        hall.client.setblocking(True)
        hall.client.sendall(b"RETR 1\r\n")
        assert hall.hears(hall.server) == b"RETR 1\r\n"
        hall.idle()
        hall.server.setblocking(True)
        hall.server.sendall(answer := b"+OK\r\n" + content + b".\r\n")
        hall.listens()
        heard = b""
        with suppress(BlockingIOError):
            hall.client.setblocking(False)
            heard = hall.client.recv(1000)
        assert bool(heard) is at_once
        while len(heard) < len(answer):
            heard += hall.hears()
        assert heard == answer


@pytest.mark.interpreted  # that it is asked for is seen, not what comes of it
def test_who_has_sent_but_a_part_need_not_wait_for_its_acknowledgement(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    acknowledged: list[Stream] = []
    monkeypatch.setattr(Stream, "acknowledge", lambda stream: acknowledged.append(stream))
    hall = Served(stack, Pop3Proxy)
    assert acknowledged == []
    hall.client.setblocking(True)
    hall.server.setblocking(True)
    for peer, octets, more in (
        (hall.client, b"RET", 1),
        (hall.client, b"R 1\r\n", 0),
        (hall.server, b"+O", 1),
        (hall.server, b"K 3 octets follow.\r\n", 1),
        (hall.server, b"a\r\n", 1),
        (hall.server, b"b\r\n.\r\n", 0),
        (hall.client, b"STAT\r\nNO", 1),
        (hall.client, b"OP\r\n", 0),
        (hall.server, b"+OK 1", 1),
        (hall.server, b" 2\r\n", 0),
        (hall.server, b"+OK\r\n", 0),
    ):
        before = len(acknowledged)
        peer.sendall(octets)
        for _ in range(3):
            hall.turn()
        assert len(acknowledged) - before == more, octets
