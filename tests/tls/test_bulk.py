"""Much at once: content bit for bit, back-pressure, and memory that does not grow with what passes."""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
import select
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import Folders
from tests.tls.certificates import NAME, Authority
from tests.tls.gateway import PATIENCE, Gateway, Server, gateway, line, secured
from tests.until import until

MIB = 1 << 20
SIZE = 128 * MIB
BLOCK = b"".join(b"%07d 0123456789abcdefghijklmnopqrstuvwxyz.\r\n" % number for number in range(16_384))
GROWTH = 8 * MIB  # of a worker, beyond what a small session takes


class Source:
    """A POP3S server with one message of SIZE octets and more; it knows how much of it it could send."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.sent = 0
        self._stuck_since = math.inf
        self.digest = hashlib.sha256()
        self._context = context

    def __call__(self, connection: socket.socket) -> None:
        with secured(connection, self._context) as tls:
            tls.sendall(b"+OK ready\r\n")
            for answer in (b"+OK\r\n", b"+OK\r\n"):
                line(tls)
                tls.sendall(answer)
            while line(tls) == b"RETR 1\r\n":
                self._message(tls)
            tls.sendall(b"+OK bye\r\n")
            with contextlib.suppress(OSError):
                tls.unwrap()

    def _message(self, tls: ssl.SSLSocket) -> None:
        self.sent = 0
        self.digest = hashlib.sha256()
        self._stuck_since = math.inf
        tls.sendall(b"+OK\r\n")
        tls.setblocking(False)
        while self.sent < SIZE:
            self._block(tls)
            self.digest.update(BLOCK)
        tls.settimeout(PATIENCE)
        tls.sendall(b".\r\n")

    def _block(self, tls: ssl.SSLSocket) -> None:
        unsent = memoryview(BLOCK)
        writable = select.poll()
        writable.register(tls, select.POLLOUT)
        while unsent:
            try:
                count = tls.send(unsent)
            except ssl.SSLWantWriteError:
                self._stuck_since = time.monotonic()
                if not writable.poll(PATIENCE * 1000):
                    raise TimeoutError from None
                self._stuck_since = math.inf
            else:
                unsent = unsent[count:]
                self.sent += count

    def is_stuck(self) -> bool:
        """Its send would block, and has for longer than who takes what it sends ever pauses."""
        return time.monotonic() - self._stuck_since > 0.5


@pytest.fixture(scope="module")
def source(authority: Authority) -> Iterator[tuple[Source, Server]]:
    made = Source(authority.serving())
    server = Server(made)
    yield made, server
    server.close()


@pytest.fixture(scope="module")
def running(folders: Folders, authority: Authority, source: tuple[Source, Server]) -> Iterator[Gateway]:
    pair = authority.server
    base: dict[str, object] = {
        "server": f"{NAME}:{source[1].port}",
        "server_tls": "implicit",
        "server_ca": authority.file,
    }
    secure = {"tls": "implicit", "tls_certificate": pair.certificate, "tls_key": pair.key}
    with gateway(folders(), {"secure": {**base, **secure}, "clear": base}) as made:
        yield made


def session(running: Gateway, service: str, authority: Authority) -> socket.socket:
    client: socket.socket = running.connect(service)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    if service == "secure":
        client = authority.trusting().wrap_socket(client, server_hostname=NAME)
    for request in (b"", b"USER alice\r\n", b"PASS hunter2\r\n"):
        client.sendall(request)
        assert line(client).startswith(b"+OK")
    return client


def serving(running: Gateway, service: str) -> int:
    """The worker that serves alice there."""

    def found() -> int:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                title = path.read_bytes()
                group = (path.parent / "stat").read_text().rpartition(")")[2].split()[3]
                if f"worker [{service}] alice".encode() in title and int(group) == running.process.pid:
                    return int(path.parent.name)
        return 0

    return until("a worker serves alice", found)


def memory(pid: int, key: str = "VmRSS") -> int:
    found = re.search(rf"^{key}:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def receive(client: socket.socket, size: int) -> hashlib._Hash:
    """The digest of that much."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(MIB))
    while size:
        count = client.recv_into(buffer[: min(size, MIB)])
        assert count
        digest.update(buffer[:count])
        size -= count
    return digest


@pytest.mark.parametrize("service", ["secure", "clear"])
def test_a_reader_that_stops_stops_the_server_and_memory_stays_bounded(
    running: Gateway, authority: Authority, source: tuple[Source, Server], service: str
) -> None:
    origin, _ = source
    with session(running, service, authority) as client:
        pid = serving(running, service)
        before = memory(pid)
        client.sendall(b"RETR 1\r\n")
        assert line(client) == b"+OK\r\n"
        until("the server can't send any more", origin.is_stuck)
        assert origin.sent < 32 * MIB  # what lies in the kernel's buffers; nothing of it in the worker
        assert memory(pid) - before < GROWTH
        total = (SIZE + len(BLOCK) - 1) // len(BLOCK) * len(BLOCK)
        digest = receive(client, total)
        assert line(client) == b".\r\n"
        assert digest.digest() == origin.digest.digest()
        assert memory(pid, "VmHWM") - before < GROWTH
        client.sendall(b"QUIT\r\n")
        client.settimeout(PATIENCE)
        assert line(client).startswith(b"+OK")
