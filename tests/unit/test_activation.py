"""Sockets that systemd passes on, taken by a process that got them as descriptors 3 and following."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from pop3gw.activation import take

# Puts the descriptors where systemd would, then says what it took, or why not.
TAKES = """
import os, sys
names, *descriptors = sys.argv[1:]
for number, descriptor in enumerate(map(int, descriptors)):
    os.dup2(os.dup(descriptor), 3 + number)
environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(descriptors)), "LISTEN_FDNAMES": names}
from pop3gw.activation import take
from pop3gw.errors import StartError
try:
    for listener in take(environment):
        print(listener.passed, listener.bound, os.get_inheritable(listener.socket.fileno()))
except StartError as error:
    print(error)
print(environment)
"""


def taken(names: str, *sockets: socket.socket) -> list[str]:
    """What a process says that was passed these sockets."""
    descriptors = [end.fileno() for end in sockets]
    done = subprocess.run(
        [sys.executable, "-c", TAKES, names, *map(str, descriptors)],
        pass_fds=descriptors,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    *said, environment = done.stdout.splitlines()
    assert environment == "{}"
    return said


def test_none_are_passed() -> None:
    assert take({}) == []


def test_those_of_another_process_are_left() -> None:
    assert take({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == []


def test_they_are_taken_with_their_names_and_for_this_process_alone() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as two,
    ):
        assert taken("inbound:pop3gw.socket", one, two) == [
            f"inbound 127.0.0.1:{one.getsockname()[1]} False",
            f"pop3gw.socket [::1]:{two.getsockname()[1]} False",
        ]


def test_what_does_not_listen_is_an_error() -> None:
    with socket.socket() as idle:
        assert taken("idle", idle) == [
            "the socket idle, passed by systemd, does not listen for TCP connections;"
            " its unit needs ListenStream=ADDRESS:PORT"
        ]


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_local_socket_is_an_error(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_UNIX, kind) as local:
        assert "does not listen for TCP connections" in taken("local", local)[0]


def test_a_socket_for_both_families_is_an_error() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as both:
        assert "BindIPv6Only=ipv6-only" in taken("both", both)[0]
