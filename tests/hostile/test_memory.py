"""Whatever is sent, and however much of it: no more memory than the limits say."""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from tests.hostile.peers import (
    BLOCK,
    GREETING,
    MESSAGE,
    MIB,
    Mailbox,
    ask,
    dial,
    is_served,
    logged_in,
    memory,
    processes,
    reset,
    the_worker,
)
from tests.integration.conftest import Folders
from tests.tls.gateway import Gateway, Server, gateway, line, rest
from tests.until import until

ENDLESS = 32 * MIB  # far more than any limit
BULK = 400 * MIB
GROWTH = 3 * MIB  # of a process
SEES_LINES = """
from pop3gw.policy import *


class SeesLines(Pop3Proxy):
    def config(self):
        Pop3Proxy.config(self)
        self.request["RETR"] = (POP3_REQ_POLICY, None, self.look)

    def look(self, text):
        return POP3_RSP_ACCEPT


class ShortLines(Pop3Proxy):
    def config(self):
        Pop3Proxy.config(self)
        self.permit_longline = False
"""
ONE_WORKER: dict[str, object] = {"min_spare": 1, "max_spare": 1, "max_workers": 1}


@pytest.fixture(scope="module")
def running(folders: Folders, mailbox: tuple[Mailbox, Server]) -> Iterator[Gateway]:
    base = {"server": f"127.0.0.1:{mailbox[1].port}", **ONE_WORKER}
    services = {
        "plain": base,
        "sees_lines": {**base, "policy": '"lines:SeesLines"'},
        "short_lines": {**base, "policy": '"lines:ShortLines"'},
    }
    with gateway(folders(), services, {"lines": SEES_LINES}) as made:
        for service in services:
            assert is_served(made.port(service))
        yield made


@pytest.fixture
def content(mailbox: tuple[Mailbox, Server]) -> Iterator[Mailbox]:
    """The server; what it was made to say is over with the test."""
    made, _ = mailbox
    answers = dict(made.answers)
    yield made
    made.content = lambda: [MESSAGE]
    made.answers = answers


def endless(block: bytes) -> Iterable[bytes]:
    return itertools.repeat(block, ENDLESS // len(block))


def pour(connection: socket.socket, block: bytes) -> None:
    """Send it until ENDLESS, or until nobody wants more."""
    with contextlib.suppress(OSError):
        for part in endless(block):
            connection.sendall(part)


def test_an_endless_request_costs_no_more_than_its_limit(running: Gateway, content: Mailbox) -> None:
    pid = the_worker(running, "plain")
    before = memory(pid, "VmHWM")
    with dial(running.port("plain")) as client:
        line(client)
        pour(client, b"x" * 65536)
        with contextlib.suppress(ConnectionResetError):
            assert rest(client) in (b"-ERR Invalid command.\r\n", b"")
    assert content.visits[-1].over.wait(10)
    assert content.visits[-1].requests == []
    assert memory(pid, "VmHWM") - before < GROWTH
    assert is_served(running.port("plain"))


def test_a_flood_of_empty_requests_costs_nothing_while_nobody_reads_their_answers(running: Gateway) -> None:
    pid = the_worker(running, "plain")
    before = memory(pid, "VmHWM")
    with dial(running.port("plain"), buffer=4096) as client:
        line(client)
        client.setblocking(False)
        sent = 0
        # Until nothing more is taken for a while: back-pressure has reached the client.
        while sent < ENDLESS and select.select([], [client], [], 0.5)[1]:
            with contextlib.suppress(BlockingIOError):
                sent += client.send(b"\n" * 65536)
        assert sent < ENDLESS
        assert memory(pid, "VmHWM") - before < GROWTH
        reset(client)
    assert is_served(running.port("plain"))


def test_an_endless_status_line_costs_no_more_than_its_limit(running: Gateway, content: Mailbox) -> None:
    pid = the_worker(running, "plain")
    before = memory(pid, "VmHWM")
    content.answers[b"NOOP"] = b"+OK " + b"x" * ENDLESS
    with logged_in(dial(running.port("plain"))) as client:
        assert ask(client, b"NOOP") == b"-ERR Error in protocol\r\n"
        assert rest(client) == b""
    assert content.visits[-1].over.wait(10)
    assert memory(pid, "VmHWM") - before < GROWTH
    assert is_served(running.port("plain"))


@pytest.mark.parametrize(
    ("service", "most", "growth"), [("short_lines", 512, GROWTH), ("sees_lines", 0, 3 * MIB + GROWTH)]
)
def test_an_endless_content_line_costs_no_more_than_its_limit(
    running: Gateway, content: Mailbox, service: str, most: int, growth: int
) -> None:
    pid = the_worker(running, service)
    before = memory(pid, "VmHWM")
    content.content = lambda: endless(b"x" * 65536)
    with logged_in(dial(running.port(service))) as client:
        assert ask(client, b"RETR 1") == b"+OK\r\n"
        got = rest(client)
        assert got == b"x" * len(got)  # no terminator, nothing inserted
        assert len(got) <= most
    assert content.visits[-1].over.wait(10)
    assert memory(pid, "VmHWM") - before < growth
    content.content = lambda: [MESSAGE]
    assert is_served(running.port(service))


def test_a_client_that_stops_reading_holds_the_server_back_and_costs_no_memory(
    running: Gateway, content: Mailbox
) -> None:
    pid = the_worker(running, "plain")
    before = memory(pid, "VmHWM")
    content.content = lambda: itertools.chain(itertools.repeat(BLOCK, BULK // len(BLOCK)), [b".\r\n"])
    with logged_in(dial(running.port("plain"), buffer=64 * 1024)) as client:
        visit = content.visits[-1]
        assert ask(client, b"RETR 1") == b"+OK\r\n"
        seen = [-1, -1, -1, -1]

        def stands_still() -> bool:
            seen.append(visit.sent)
            select.select([], [], [], 0.1)
            return len(set(seen[-4:])) == 1

        until("the server can send no more", stands_still)
        assert visit.sent < 32 * MIB  # what lies in the kernel's buffers
        assert memory(pid, "VmHWM") - before < GROWTH
        left = BULK // len(BLOCK) * len(BLOCK) + 3
        buffer = bytearray(MIB)
        while left:
            count = client.recv_into(buffer, min(left, MIB))
            assert count
            left -= count
        assert buffer[:count].endswith(b"\r\n.\r\n")
        assert memory(pid, "VmHWM") - before < GROWTH
        assert ask(client, b"QUIT") == b"+OK bye\r\n"


@pytest.mark.parametrize("leave", [reset, socket.socket.close])
def test_a_client_that_leaves_in_mid_message_frees_the_server_at_once(
    running: Gateway, content: Mailbox, leave: Callable[[socket.socket], None]
) -> None:
    content.content = lambda: itertools.repeat(BLOCK)
    client = logged_in(dial(running.port("plain"), buffer=64 * 1024))
    visit = content.visits[-1]
    assert ask(client, b"RETR 1") == b"+OK\r\n"
    until("the message is on its way", lambda: visit.sent > MIB)
    leave(client)
    assert visit.over.wait(2)
    content.content = lambda: [MESSAGE]
    assert is_served(running.port("plain"))


# Noise.

WORDS = [b"USER ", b"PASS ", b"RETR ", b"+OK", b"-ERR", b"\r\n", b"\n", b"\r", b"\0", b".", b"\r\n.\r\n", b"AUTH PLAIN"]
WORDS += [
    b"\x1b[2J",
    b"\xff\xfe",
    b"STLS\r\n",
    b"CAPA\r\n",
    b"1 ",
    b"alice\r\n",
    b" " * 300,
    GREETING,
    b"GET / HTTP/1.0",
]
SESSIONS = 300
WORKERS = 6


def noise(random: Random) -> bytes:
    words = [
        random.choice(WORDS) if random.random() < 0.7 else random.randbytes(random.randrange(60)) for _ in "x" * 12
    ]
    return b"".join(words)


class NoisyServer(Mailbox):
    """A server that makes noise, from its greeting on or later, until it is told to behave."""

    def __init__(self) -> None:
        super().__init__()
        self.noisy = True
        self._random = Random(4)

    def __call__(self, connection: socket.socket) -> None:
        if not self.noisy:
            super().__call__(connection)
            return
        connection.settimeout(0.05)  # rather than wait for a client that waits for it
        random = Random(self._random.random())
        if random.random() < 0.5:
            connection.sendall(GREETING)
        for _ in range(random.randrange(4)):
            connection.sendall(noise(random) if random.random() < 0.5 else b"+OK\r\n")
            if not line(connection):
                return
        if random.random() < 0.5:
            reset(connection)


def noisy_session(port: int, seed: int) -> None:
    random = Random(seed)
    client = dial(port)
    with client, contextlib.suppress(OSError):
        for _ in range(random.randrange(1, 5)):
            client.sendall(b"USER alice\r\nPASS x\r\n" if random.random() < 0.3 else noise(random))
        if random.random() < 0.3:
            reset(client)
            return
        client.shutdown(socket.SHUT_WR)
        rest(client)


@pytest.mark.parametrize("sessions_per_worker", [1, 50])
def test_after_three_hundred_sessions_of_noise_all_is_as_before(folders: Folders, sessions_per_worker: int) -> None:
    server = NoisyServer()
    ends = Server(server)
    settings: dict[str, object] = {"server": f"127.0.0.1:{ends.port}", "max_workers": WORKERS}
    settings |= {"min_spare": WORKERS, "max_spare": WORKERS, "sessions_per_worker": sessions_per_worker}
    with contextlib.closing(ends), gateway(folders(), {"noisy": settings}) as running:
        port = running.port("noisy")

        def at_rest() -> dict[int, str]:
            found = processes(running)
            return found if sum(title.endswith("idle") for title in found.values()) == WORKERS else {}

        def used() -> int:
            return sum(memory(pid, "RssAnon") for pid in until("every worker is idle", at_rest))

        with ThreadPoolExecutor(8) as clients:
            list(clients.map(lambda seed: noisy_session(port, seed), range(60)))  # what is made once is made
            before, pids = used(), set(processes(running))
            list(clients.map(lambda seed: noisy_session(port, seed), range(60, 60 + SESSIONS)))
        assert used() - before < WORKERS * MIB
        assert set(processes(running)) == pids
        server.noisy = False
        for _ in range(WORKERS):
            assert is_served(port)
        assert "a fault of the gateway" not in running.log
        assert running.log.count("session ended") == 60 + SESSIONS + WORKERS
