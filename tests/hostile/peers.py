"""Who stands on both sides of the gateway here: a server that remembers, clients, and what /proc tells."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.tls.gateway import PATIENCE, Gateway, line
from tests.until import until

MIB = 1 << 20
GREETING = b"+OK ready <1896.697170952@dbc.mtview.ca.us>\r\n"
MESSAGE = b"Subject: hello\r\n\r\n..hidden\r\nlast\r\n.\r\n"
BLOCK = b"0123456789abcdefghijklmnopqrstuvwxyz 0123456789abcdefghijklm\r\n" * 4096


@dataclass(slots=True)
class Visit:
    """One connection, as the server saw it."""

    requests: list[bytes] = field(default_factory=list)
    sent: int = 0  # octets of content
    over: threading.Event = field(default_factory=threading.Event)  # the gateway has closed it


Content = Callable[[], Iterable[bytes]]


class Mailbox:
    """A script for ``tests.tls.gateway.Server``: a POP3 server where every login but that of "nobody" is right."""

    def __init__(self, content: Content = lambda: [MESSAGE], greeting: bytes = GREETING) -> None:
        self.visits: list[Visit] = []
        self.content = content
        self.answers: dict[bytes, bytes] = {b"STAT": b"+OK 1 35\r\n", b"QUIT": b"+OK bye\r\n"}
        self._greeting = greeting

    def __call__(self, connection: socket.socket) -> None:
        visit = Visit()
        self.visits.append(visit)
        try:
            connection.sendall(self._greeting)
            user = b""
            while request := line(connection):
                visit.requests.append(request)
                command, _space, argument = request.rstrip(b"\r\n").partition(b" ")
                user = argument if command == b"USER" else user
                if command == b"PASS" and user == b"nobody":
                    connection.sendall(b"-ERR [AUTH] no\r\n")
                    continue
                connection.sendall(self.answers.get(command, b"+OK\r\n"))
                if command == b"RETR":
                    for block in self.content():
                        connection.sendall(block)
                        visit.sent += len(block)
                elif command == b"QUIT":
                    return
        finally:
            visit.over.set()


def dial(port: int, host: str = "127.0.0.1", source: str | None = None, buffer: int | None = None) -> socket.socket:
    """A connection whose waits are bounded; ``buffer``: octets that it takes without being read."""
    connection = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    connection.settimeout(PATIENCE)
    if buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    if source is not None:
        connection.bind((source, 0))
    connection.connect((host, port))
    return connection


def ask(client: socket.socket, request: bytes) -> bytes:
    """A request, and the one line that answers it."""
    client.sendall(request + b"\r\n")
    return line(client)


def logged_in(client: socket.socket) -> socket.socket:
    """The same client, in the TRANSACTION state."""
    assert line(client).startswith(b"+OK")
    for request in (b"USER alice", b"PASS hunter2"):
        assert ask(client, request).startswith(b"+OK")
    return client


def is_served(port: int) -> bool:
    """Whether an ordinary session goes as it should, message and all."""
    with logged_in(dial(port)) as client:
        assert ask(client, b"STAT") == b"+OK 1 35\r\n"
        client.sendall(b"RETR 1\r\n")
        got = b""
        while not got.endswith(b"\r\n.\r\n"):
            got += line(client)
        assert got == b"+OK\r\n" + MESSAGE
        assert ask(client, b"QUIT") == b"+OK bye\r\n"
        assert client.recv(1) == b""
    return True


def reset(client: socket.socket) -> None:
    """Vanish: the other side gets a reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def processes(running: Gateway, role: str = "") -> dict[int, str]:
    """The gateway's processes, pid and title; ``role``: only those whose title goes on like this."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            group = int(path.read_text().rpartition(")")[2].split()[2])
            title = (path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if group == running.process.pid and title.startswith(f"pop3gw: {role}"):
                found[int(path.parent.name)] = title
    return found


def the_worker(running: Gateway, service: str) -> int:
    """The only worker of a service."""

    def found() -> list[int]:
        return list(processes(running, f"worker [{service}]"))

    (pid,) = until("there is a worker", found)
    return pid


def memory(pid: int, key: str) -> int:
    """Octets, from /proc/PID/status: RssAnon is what a process has for itself, VmHWM the most that it ever had."""
    found = re.search(rf"^{key}:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
