"""Clients that do what they should not, many at once, and what the service may know of them."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.integration.conftest import Folders
from tests.integration.servers import PASSWORD, program
from tests.tls.certificates import NAME, Authority, Pair
from tests.tls.conftest import Dovecot
from tests.tls.gateway import PATIENCE, Gateway, gateway, line, rest
from tests.tls.peer import Peer

CROWD = 200

TELLS = """
from pop3gw.policy import *


class Tells(Pop3Proxy):
    def config(self):
        Pop3Proxy.config(self)
        if self.session.client_certificate is None:
            self.request["USER"] = (POP3_REQ_REJECT, "Show your certificate")
        else:
            self.request["NOOP"] = self.request["USER"] = (POP3_REQ_POLICY, self.tell)

    def tell(self, command):
        self.response_value = "+OK"
        self.response_param = f"{self.session.client_certificate} {self.session.client_tls.version}"
        return POP3_REQ_REJECT
"""


@pytest.fixture(scope="module")
def second(authority: Authority) -> Pair:
    return authority.sign("second.example")


@pytest.fixture(scope="module")
def running(folders: Folders, authority: Authority, dovecot: Dovecot, second: Pair) -> Iterator[Gateway]:
    pair = authority.server
    base = {"server": f"{NAME}:{dovecot.clear}", "tls_certificate": pair.certificate, "tls_key": pair.key}
    services = {
        "implicit": {**base, "tls": "implicit"},
        "starttls": {**base, "tls": "starttls"},
        "required": {**base, "tls": "required"},
        "dense": {**base, "tls": "implicit", "sessions_per_worker": 50, "max_workers": 5},
        "once": {**base, "tls": "implicit", "max_sessions": 1, "min_spare": 2},
        "names": {
            **base,
            "tls": "implicit",
            "tls_certificate": f"{pair.certificate}, second.example={second.certificate}",
            "tls_key": f"{pair.key}, {second.key}",
        },
        "alone": {**base, "tls": "implicit", "max_sessions_per_client": 1},
        "certified": {**base, "tls": "implicit", "tls_client_ca": authority.file, "policy": '"tells:Tells"'},
    }
    with gateway(folders(), services, {"tells": TELLS}) as made:
        yield made


def secure(running: Gateway, service: str, context: ssl.SSLContext, **settings: object) -> ssl.SSLSocket:
    """A client whose hands are shaken."""
    return context.wrap_socket(
        running.connect(service),
        server_hostname=NAME,
        suppress_ragged_eofs=False,
        **settings,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    "said", [b"USER alice\r\n", b"GET / HTTP/1.0\r\n\r\n", b"\x80\x2e\x01\x00\x02" + bytes(43), b"\0" * 100]
)
def test_what_is_no_tls_gets_nothing_from_a_pop3s_port(running: Gateway, said: bytes) -> None:
    with running.connect("implicit") as client:
        client.sendall(said)
        heard = rest(client)
    assert b"+OK" not in heard
    assert len(heard) <= 7  # an alert at most


def test_a_client_whose_tls_breaks_is_gone_and_the_log_says_how(running: Gateway, authority: Authority) -> None:
    with secure(running, "implicit", authority.trusting()) as client:
        assert line(client).startswith(b"+OK")
        with socket.socket(fileno=client.detach()) as plain:
            plain.settimeout(PATIENCE)
            plain.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            rest(plain)
    running.wait_for("the connection to the client broke: decryption failed or bad record mac")


def test_a_certificate_that_can_not_be_read_fails_the_handshake(running: Gateway, authority: Authority) -> None:
    pair, context = authority.unreadable(), authority.trusting()
    context.load_cert_chain(pair.certificate, pair.key)
    with contextlib.suppress(OSError), secure(running, "certified", context) as client:
        assert rest(client) == b""
    running.wait_for("TLS with the client failed: its certificate holds text that can't be decoded")
    assert "a fault of the gateway" not in running.log


@pytest.mark.parametrize("octet", [b"\xff", b"\x80"])
def test_a_name_that_is_not_ascii_is_said_in_one_line(running: Gateway, authority: Authority, octet: bytes) -> None:
    said = " names .*TLS with the client failed: the name that it asked for is not ASCII"
    before = len(re.findall(said, running.log))
    with running.connect("names") as client:
        peer = Peer(authority.trusting(), client)
        peer.tls = authority.trusting().wrap_bio(peer.come, peer.go, server_hostname="second.example")
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        hello = peer.go.read()
        assert b"second.example" in hello
        client.sendall(hello.replace(b"second.example", octet + b"econd.example"))
        assert len(rest(client)) <= 7  # an alert at most
    running.wait_for(said, before + 1)
    assert "Exception ignored" not in running.log
    assert "Traceback" not in running.log


def test_a_client_that_resets_within_the_handshake(running: Gateway) -> None:
    with running.connect("implicit") as client:
        client.sendall(b"\x16\x03\x01")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    running.wait_for("TLS with the client failed: Connection reset by peer")


def test_one_session_too_many_hears_nothing_in_clear_where_tls_comes_first(
    running: Gateway, authority: Authority
) -> None:
    with secure(running, "alone", authority.trusting()) as client:
        assert line(client).startswith(b"+OK")
        with running.connect("alone") as another:
            assert rest(another) == b""
        running.wait_for(r"client=127\.0\.0\.1 refused: too many sessions from this address")
        client.sendall(b"QUIT\r\n")
        assert line(client).startswith(b"+OK")


@pytest.mark.parametrize("service", ["starttls", "required"])
def test_what_is_injected_behind_stls_is_heard_by_nobody(running: Gateway, service: str) -> None:
    with running.connect(service) as client:
        assert line(client).startswith(b"+OK")
        client.sendall(b"STLS\r\nUSER mallory\r\nPASS hunter2\r\n")
        assert rest(client) == b"-ERR Invalid command.\r\n"
    running.wait_for(f" {service} .*session ended.* end=aborted by=client")
    assert "to server: USER mallory" not in running.log


def test_what_is_injected_behind_the_answer_to_stls_ends_the_session(running: Gateway) -> None:
    with running.connect("starttls") as client:
        assert line(client).startswith(b"+OK")
        client.sendall(b"STLS\r\n")
        assert line(client).startswith(b"+OK")
        client.sendall(b"USER mallory\r\n")
        assert b"+OK" not in rest(client)
    running.wait_for(" starttls .*session ended.* end=tls-failed by=client")
    assert "to server: USER mallory" not in running.log


def test_who_only_looks_whether_somebody_listens_is_no_failure_of_tls(running: Gateway) -> None:
    left = running.log.count(" it has left before TLS began")
    failed = running.log.count(" warning implicit ")
    running.connect("implicit").close()
    with running.connect("starttls") as client:
        assert line(client).startswith(b"+OK")
        client.sendall(b"STLS\r\n")
        assert line(client).startswith(b"+OK")
    running.wait_for(" info (?:implicit|starttls) .* it has left before TLS began", left + 2)
    running.wait_for(" end=closed by=client", left + 2)
    assert running.log.count(" warning implicit ") == failed


def test_one_that_hangs_up_in_the_handshake_harms_nobody(running: Gateway) -> None:
    with running.connect("implicit") as client:
        client.sendall(b"\x16\x03\x01")
    with secure(running, "implicit", ssl._create_unverified_context()) as client:
        assert line(client).startswith(b"+OK")


def test_a_session_that_ends_without_close_notify_is_noticed(running: Gateway, authority: Authority) -> None:
    client = secure(running, "implicit", authority.trusting())
    assert line(client).startswith(b"+OK")
    before = len(re.findall(r" implicit .*end=closed by=client", running.log))
    socket.close(client.detach())
    running.wait_for(" implicit .*end=closed by=client", before + 1)


def test_close_notify_comes_at_the_end(running: Gateway, authority: Authority) -> None:
    with secure(running, "implicit", authority.trusting()) as client:
        assert line(client).startswith(b"+OK")
        client.sendall(b"QUIT\r\n")
        assert line(client).startswith(b"+OK")
        assert client.recv(1) == b""  # without close_notify it would be SSLEOFError


def test_a_client_that_half_closes_gets_its_answers(running: Gateway, authority: Authority) -> None:
    with running.connect("implicit") as client:
        peer = Peer(authority.trusting(), client)
        peer.shake_over_a_network()
        peer.tls.write(b"CAPA\r\nQUIT\r\n")
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.unwrap()  # close_notify goes out with the requests; the connection stays
        client.sendall(peer.go.read())
        peer.come.write(rest(client))
        heard = peer.hears_rest()
    assert heard.startswith(b"+OK")
    assert b"\r\n.\r\n+OK" in heard


def test_renegotiation_is_refused(running: Gateway, authority: Authority) -> None:
    command = [program("openssl", "openssl"), "s_client", "-tls1_2", "-CAfile", str(authority.file)]
    command += ["-connect", f"127.0.0.1:{running.port('implicit')}", "-servername", NAME]
    done = subprocess.run(command, input=b"R\n", capture_output=True, timeout=PATIENCE, check=False)
    assert b"RENEGOTIATING" in done.stdout + done.stderr
    assert b"no renegotiation" in done.stderr


@pytest.mark.parametrize(
    ("asked", "shown"), [("second.example", "second.example"), (NAME, NAME), ("unknown.example", NAME)]
)
def test_the_certificate_is_that_of_the_name_that_is_asked_for(
    running: Gateway, authority: Authority, asked: str, shown: str
) -> None:
    context = authority.trusting()
    context.check_hostname = False
    with context.wrap_socket(running.connect("names"), server_hostname=asked) as client:
        certificate = client.getpeercert()
        assert certificate is not None
        assert ("DNS", shown) in certificate["subjectAltName"]
        assert line(client).startswith(b"+OK")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed_by_another_worker(
    running: Gateway, authority: Authority, version: ssl.TLSVersion
) -> None:
    """Each worker of this service serves one session, so the second one never saw the first."""
    context = authority.trusting()
    context.minimum_version = context.maximum_version = version
    with secure(running, "once", context) as client:
        assert line(client).startswith(b"+OK")
        ticket = client.session
        assert not client.session_reused
    with secure(running, "once", context, session=ticket) as client:
        assert line(client).startswith(b"+OK")
        assert client.session_reused


def test_versions_before_1_2_are_refused(running: Gateway) -> None:
    command = [program("openssl", "openssl"), "s_client", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]
    command += ["-connect", f"127.0.0.1:{running.port('implicit')}"]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=PATIENCE, check=False)
    assert b"+OK" not in done.stdout
    assert b"alert protocol version" in done.stderr


def test_the_policy_sees_whom_a_certificate_names(running: Gateway, authority: Authority) -> None:
    pair = authority.sign("alice@example.com", common_name="alice")
    context = authority.trusting()
    context.load_cert_chain(pair.certificate, pair.key)
    with secure(running, "certified", context) as client:
        assert line(client).startswith(b"+OK")
        client.sendall(b"USER alice\r\n")
        assert re.match(rb"\+OK CN=alice,.* TLSv1\.3\r\n", line(client))
    with secure(running, "certified", authority.trusting()) as client:
        assert line(client).startswith(b"+OK")
        client.sendall(b"USER alice\r\n")
        assert line(client) == b"-ERR Show your certificate\r\n"


@pytest.mark.parametrize("service", ["implicit", "dense"])
def test_many_handshakes_at_once_while_one_stalls(running: Gateway, authority: Authority, service: str) -> None:
    context = authority.trusting()
    greeted: list[bytes] = []

    def one() -> None:
        with secure(running, service, context) as client:
            greeting = line(client)
            client.sendall(b"QUIT\r\n")
            if line(client).startswith(b"+OK"):
                greeted.append(greeting)

    with running.connect(service) as stalls, running.connect(service) as silent:
        stalls.sendall(b"\x16\x03\x01\x02\x00\x01")
        crowd = [threading.Thread(target=one) for _ in range(CROWD)]
        for member in crowd:
            member.start()
        for member in crowd:
            member.join(PATIENCE)
        assert len(greeted) == CROWD
        assert silent.fileno() >= 0


def test_a_login_works_in_the_end(running: Gateway, authority: Authority) -> None:
    with contextlib.closing(secure(running, "dense", authority.trusting())) as client:
        for request in (b"", b"USER reader\r\n", f"PASS {PASSWORD}\r\n".encode(), b"QUIT\r\n"):
            client.sendall(request)
            assert line(client).startswith(b"+OK")
