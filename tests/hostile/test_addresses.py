"""Where clients come from and where servers are: limits by client, several listeners, IPv6, servers away, loops."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator

import pytest

from tests.hostile.peers import GREETING, Mailbox, ask, dial, is_served
from tests.integration.conftest import Folders
from tests.integration.servers import free_port
from tests.tls.gateway import Gateway, Server, gateway, line, rest
from tests.until import until

NOT_AVAILABLE = b"-ERR [SYS/TEMP] Server not available\r\n"
TOO_MANY = b"-ERR [SYS/TEMP] too many sessions from your address\r\n"
TIMEOUT = 1  # s


@pytest.fixture(scope="module")
def silent() -> Iterator[int]:
    """A port that never answers: its backlog is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        waiting: list[socket.socket] = []

        def full() -> bool:
            one = stack.enter_context(socket.socket())
            one.settimeout(0.3)
            waiting.append(one)
            try:
                one.connect(address)
            except TimeoutError:
                return True
            return False

        until("the backlog is full", full)
        yield int(address[1])


@pytest.fixture(scope="module")
def running(folders: Folders, mailbox: tuple[Mailbox, Server], silent: int) -> Iterator[Gateway]:
    server = f"127.0.0.1:{mailbox[1].port}"
    itself, wild, wild6, other = free_port(), free_port(), free_port(), free_port()
    services: dict[str, dict[str, object]] = {
        "many": {"server": server, "listen": '127.0.0.1:0, 127.0.0.2:0, "[::1]:0"'},
        "limited": {"server": server, "listen": '127.0.0.1:0, "[::1]:0"', "max_sessions_per_client": 2},
        "away": {"server": f"127.0.0.1:{free_port()}"},
        "mute": {"server": f"127.0.0.1:{silent}", "connect_timeout": TIMEOUT},
        "itself": {"server": f"localhost:{itself}", "listen": f"127.0.0.1:{itself}"},
        "wild": {"server": f"localhost:{wild}", "listen": f"127.0.0.1:0, 0.0.0.0:{wild}"},
        "wild6": {"server": f"localhost:{wild6}", "listen": f'127.0.0.1:0, 0.0.0.0:{wild6}, "[::]:{wild6}"'},
        "other": {"server": server, "listen": f"127.0.0.1:{other}"},
        "to_other": {"server": f"localhost:{other}"},
    }
    with gateway(folders(), services) as made:
        yield made


def ports(running: Gateway, service: str) -> list[tuple[str, int]]:
    found = re.findall(rf"listening on \[?([0-9a-f.:]+?)\]?:(\d+) service={service}$", running.log, re.MULTILINE)
    return [(host, int(port)) for host, port in found]


def test_every_listener_serves(running: Gateway) -> None:
    listeners = ports(running, "many")
    assert [host for host, _ in listeners] == ["127.0.0.1", "127.0.0.2", "::1"]
    for host, port in listeners:
        with dial(port, host) as client:
            assert line(client) == GREETING
            assert ask(client, b"QUIT") == b"+OK bye\r\n"
    running.wait_for(r" many .*session ended client=\[::1\]:\d+ ")


def test_one_client_has_so_many_sessions_and_others_have_theirs(running: Gateway) -> None:
    (_, port), (_, port6) = ports(running, "limited")
    with contextlib.ExitStack() as stack:
        for host, at, source in (
            ("127.0.0.1", port, "127.0.0.1"),
            ("127.0.0.1", port, "127.0.0.9"),
            ("::1", port6, "::1"),
        ):
            held = [stack.enter_context(dial(at, host, source)) for _ in range(2)]
            assert [line(client) for client in held] == [GREETING] * 2
            with dial(at, host, source) as client:
                client.sendall(b"USER alice\r\nPASS hunter2\r\n")  # one that does not wait
                assert rest(client) == TOO_MANY
            assert ask(held[0], b"QUIT") == b"+OK bye\r\n"
            held[0].close()

            def admitted(at: int = at, host: str = host, source: str = source) -> bool:
                with dial(at, host, source) as client:
                    return line(client) == GREETING

            until("there is room again", admitted)


@pytest.mark.parametrize("service", ["away", "mute"])
def test_a_server_that_is_not_there_gives_one_error_and_the_end(running: Gateway, service: str) -> None:
    began = time.monotonic()
    with dial(running.port(service)) as client:
        client.sendall(b"USER alice\r\nQUIT\r\n")
        assert rest(client) == NOT_AVAILABLE
    if service == "mute":
        assert TIMEOUT <= time.monotonic() - began < TIMEOUT + 5
        running.wait_for(r" mute .*the server can't be reached: 127\.0\.0\.1:\d+: 127\.0\.0\.1: timed out")
    else:
        running.wait_for(r" away .*the server can't be reached: 127\.0\.0\.1:\d+: 127\.0\.0\.1: Connection refused")


@pytest.mark.parametrize("service", ["itself", "wild", "wild6", "to_other"])
def test_a_server_that_turns_out_to_be_this_gateway_is_refused(running: Gateway, service: str) -> None:
    for host, port in ports(running, service):
        with dial(port, {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)) as client:
            assert rest(client) == NOT_AVAILABLE
    sessions = len(ports(running, service))
    running.wait_for(rf" {service} .*is a listener of this gateway: a loop", sessions)
    running.wait_for(rf" {service} .*session ended", sessions)
    assert len(re.findall(rf" {service} .*session ended", running.log)) == sessions  # none came back as a client
    assert is_served(running.port("other"))
