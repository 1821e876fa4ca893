"""The PROXY protocol: HAProxy in front, Dovecot behind, and who counts as the client."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3gw.proto.proxyheader import Endpoint, written
from tests.integration.conftest import Folders
from tests.integration.servers import PASSWORD, free_port, program, stop
from tests.tls.certificates import NAME, Authority
from tests.tls.conftest import Dovecot
from tests.tls.gateway import PATIENCE, Gateway, gateway, line, rest
from tests.until import until

REACHED = Endpoint("198.51.100.9", 110)
ALICE, BOB = Endpoint("192.0.2.7", 40_001), Endpoint("2001:db8::7", 40_002)
SENDERS = ("send-proxy", "send-proxy-v2")
LIMIT = 2

TELLS = """
from pop3gw.policy import *


class Tells(Pop3Proxy):
    def config(self):
        Pop3Proxy.config(self)
        self.request["USER"] = (POP3_REQ_POLICY, self.tell)

    def tell(self, command):
        return POP3_REQ_REJECT, f"{self.session.client_address} {self.session.client_port}"
"""


@pytest.fixture(scope="module")
def running(folders: Folders, authority: Authority, dovecot: Dovecot) -> Iterator[Gateway]:
    base: dict[str, object] = {"server": f"127.0.0.1:{dovecot.clear}"}
    proxied = {**base, "proxy_protocol_from": "127.0.0.0/8"}
    pair = authority.server
    services: dict[str, dict[str, object]] = {
        "told": {**proxied, "policy": '"tells:Tells"'},
        "passed": {**proxied, "server": f"127.0.0.1:{dovecot.behind_proxy}", "send_proxy": "v2"},
        "v1": {**base, "server": f"127.0.0.1:{dovecot.behind_proxy}", "send_proxy": "v1"},
        "v2": {**base, "server": f"127.0.0.1:{dovecot.behind_proxy}", "send_proxy": "v2"},
        "secure": {
            **proxied,
            "tls": "implicit",
            "tls_certificate": pair.certificate,
            "tls_key": pair.key,
            "server": f"{NAME}:{dovecot.behind_proxy}",
            "send_proxy": "v2",
            "server_tls": "required",
            "server_ca": authority.file,
        },
        "elsewhere": {**base, "proxy_protocol_from": "192.0.2.0/24, 2001:db8::/32"},
        "limited": {**proxied, "max_sessions_per_client": LIMIT},
        "dense": {**proxied, "max_sessions_per_client": LIMIT, "sessions_per_worker": 20, "max_workers": 2},
    }
    with gateway(folders(), services, {"tells": TELLS}) as made:
        yield made


@contextlib.contextmanager
def haproxy(folder: Path, backends: dict[int, str]) -> Iterator[None]:
    """HAProxy, listening on each port for one server line."""
    config = folder / "haproxy.cfg"
    lines = ["defaults", "  mode tcp", "  timeout connect 5s", "  timeout client 60s", "  timeout server 60s"]
    for port, server in backends.items():
        lines += [f"listen l{port}", f"  bind 127.0.0.1:{port}", f"  server s {server}"]
    config.write_text("\n".join(lines) + "\n")
    process = subprocess.Popen([program("haproxy", "haproxy"), "-db", "-f", config], stderr=subprocess.DEVNULL)

    def listens() -> bool:
        assert process.poll() is None
        with contextlib.suppress(OSError):
            for port in backends:
                socket.create_connection(("127.0.0.1", port), 5).close()
            return True
        return False

    try:
        until("HAProxy listens", listens)
        yield
    finally:
        stop(process)


def dial(running: Gateway, service: str, header: bytes) -> socket.socket:
    client = running.connect(service)
    client.sendall(header)
    return client


def who(client: socket.socket) -> bytes:
    """Whom the policy takes the client for."""
    assert line(client).startswith(b"+OK")
    client.sendall(b"USER alice\r\n")
    return line(client).strip()


def test_haproxy_in_front(running: Gateway, folder: Path) -> None:
    ports = {free_port(): sender for sender in SENDERS}
    target = f"127.0.0.1:{running.port('told')}"
    with haproxy(folder, {port: f"{target} {sender}" for port, sender in ports.items()}):
        for port in ports:
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                here = client.getsockname()[1]
                assert who(client) == f"-ERR 127.0.0.1 {here}".encode()
            running.wait_for(rf" told .*session ended client=127\.0\.0\.1:{here} ")


def test_health_checks_of_haproxy_are_no_clients_of_others(running: Gateway) -> None:
    local = b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x20, 0, 0)
    with dial(running, "told", local) as client:
        assert who(client) == f"-ERR 127.0.0.1 {client.getsockname()[1]}".encode()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("client", [ALICE, BOB], ids=["IPv4", "IPv6"])
def test_policies_logs_and_summaries_see_the_client(running: Gateway, version: int, client: Endpoint) -> None:
    reached = REACHED if "." in client.address else Endpoint("2001:db8::9", 110)
    with dial(running, "told", written(version, client, reached)) as connection:
        assert who(connection) == f"-ERR {client.address} {client.port}".encode()
    shown = f"[{client.address}]" if ":" in client.address else client.address
    running.wait_for(rf" told .*session ended client={re.escape(shown)}:{client.port} ")


def test_a_header_octet_by_octet_with_the_first_request_behind_it(running: Gateway) -> None:
    with running.connect("told") as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in written(1, ALICE, REACHED)[:-1]:
            client.sendall(bytes([octet]))
        client.sendall(b"\nUSER alice\r\n")
        assert line(client).startswith(b"+OK")
        assert line(client) == b"-ERR 192.0.2.7 40001\r\n"


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_dovecot_behind_is_told_who_the_client_is(running: Gateway, dovecot: Dovecot, version: str) -> None:
    with running.connect(version) as client:
        for request in (b"", b"USER reader\r\n", f"PASS {PASSWORD}\r\n".encode(), b"QUIT\r\n"):
            client.sendall(request)
            assert line(client).startswith(b"+OK"), dovecot.server.log.read_text()


def test_the_client_is_passed_through_from_front_to_back(running: Gateway, dovecot: Dovecot) -> None:
    with dial(running, "passed", written(1, ALICE, REACHED)) as client:
        for request in (b"", b"USER reader\r\n", f"PASS {PASSWORD}\r\n".encode(), b"QUIT\r\n"):
            client.sendall(request)
            assert line(client).startswith(b"+OK")
    until("Dovecot says so", lambda: "rip=192.0.2.7" in dovecot.server.log.read_text())
    assert "lip=198.51.100.9" in dovecot.server.log.read_text()


def test_headers_go_before_tls_on_both_sides(running: Gateway, authority: Authority, dovecot: Dovecot) -> None:
    plain = dial(running, "secure", written(2, Endpoint("192.0.2.99", 1), REACHED))
    with authority.trusting().wrap_socket(plain, server_hostname=NAME) as client:
        for request in (b"", b"USER reader\r\n", f"PASS {PASSWORD}\r\n".encode(), b"QUIT\r\n"):
            client.sendall(request)
            assert line(client).startswith(b"+OK")
    until("Dovecot says so", lambda: "rip=192.0.2.99" in dovecot.server.log.read_text())


@pytest.mark.parametrize(
    "said",
    [b"USER alice\r\n", b"PROXY TCP4 192.0.2.7\r\n", b"PROXY " + b"x" * 200, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x01x"],
    ids=["none", "v1 malformed", "v1 without end", "v2 malformed"],
)
def test_what_is_no_header_ends_the_connection_without_a_word(running: Gateway, said: bytes) -> None:
    before = running.log.count("no PROXY header: ")
    with dial(running, "told", said) as client:
        assert rest(client) == b""
    running.wait_for("no PROXY header: ", before + 1)


def test_a_connection_that_ends_within_the_header(running: Gateway) -> None:
    before = running.log.count("end=refused by=gateway")
    with dial(running, "told", b"PROXY TCP4 ") as client:
        client.shutdown(socket.SHUT_WR)
        assert rest(client) == b""
    running.wait_for("ended within the PROXY header")
    running.wait_for("end=refused by=gateway", before + 1)


def test_only_the_named_networks_may_send_one(running: Gateway) -> None:
    with dial(running, "elsewhere", written(1, ALICE, REACHED)) as client:
        assert rest(client) == b""
    running.wait_for("it comes from outside proxy_protocol_from")


@pytest.mark.parametrize("service", ["limited", "dense"])
def test_sessions_are_counted_by_the_real_client(running: Gateway, service: str) -> None:
    with contextlib.ExitStack() as stack:

        def greeted(client: Endpoint) -> bytes:
            reached = REACHED if "." in client.address else Endpoint("2001:db8::9", 110)
            connection = stack.enter_context(dial(running, service, written(2, client, reached)))
            greeting = line(connection)
            if greeting.startswith(b"-ERR"):
                assert rest(connection) == b""
            return greeting

        for address in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):  # more sessions than one client may have
            for _ in range(LIMIT):
                assert greeted(Endpoint(address, 1)).startswith(b"+OK")
            assert greeted(Endpoint(address, 1)) == b"-ERR [SYS/TEMP] too many sessions from your address\r\n"
        for port in range(LIMIT):
            assert greeted(Endpoint(f"2001:db8::{port + 1}", 1)).startswith(b"+OK")
        assert greeted(Endpoint("2001:db8::ffff", 1)).startswith(b"-ERR")  # of the same /64
    running.wait_for(f" {service} .*too many sessions from this address")

    def admitted() -> bool:
        """Whether the client may come again, now that its sessions are over."""
        with dial(running, service, written(1, Endpoint("192.0.2.1", 1), REACHED)) as connection:
            return line(connection).startswith(b"+OK")

    until("the client may come again", admitted)
