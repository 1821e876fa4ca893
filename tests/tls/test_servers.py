"""Servers that are not what they should be: the client gets one -ERR, and nobody hears a password."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.integration.conftest import Folders
from tests.tls.certificates import NAME, Authority
from tests.tls.gateway import Gateway, Script, Server, gateway, line, rest, secured
from tests.tls.peer import Peer

GREETING = b"+OK ready\r\n"
SECRET = b"hunter2"
EAGER = b"USER alice\r\nPASS hunter2\r\n"  # a client that waits for nothing


def in_clear(answer: bytes) -> Script:
    """Greets, and answers STLS with this."""

    def script(connection: socket.socket) -> None:
        connection.sendall(GREETING)
        line(connection)
        connection.sendall(answer)

    return script


def by_stls(context: ssl.SSLContext) -> Script:
    """Greets, takes STLS, shakes hands, and serves."""

    def script(connection: socket.socket) -> None:
        in_clear(b"+OK go\r\n")(connection)
        with secured(connection, context) as tls:
            heard = rest(tls)
            raise AssertionError(f"TLS began, and it heard {heard!r}")

    return script


def at_once(context: ssl.SSLContext) -> Script:
    """POP3S."""

    def script(connection: socket.socket) -> None:
        with secured(connection, context) as tls:
            tls.sendall(GREETING)
            rest(tls)

    return script


@dataclass(frozen=True, slots=True)
class Case:
    """A server, by what it does, and what the log says of it."""

    name: str
    mode: str
    script: Callable[[Authority, Authority], Script]
    said: str


def _with(pair: str) -> Callable[[Authority, Authority], ssl.SSLContext]:
    def context(authority: Authority, stranger: Authority) -> ssl.SSLContext:
        match pair:
            case "expired":
                return authority.serving(authority.expired(NAME))
            case "elsewhere":
                return authority.serving(authority.sign("elsewhere.example"))
            case "self-signed":
                return authority.serving(stranger.self_signed(NAME))
            case "unknown":
                return authority.serving(stranger.server)
            case _:
                old = authority.serving()
                with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
                old.set_ciphers("ALL:@SECLEVEL=0")
                return old

    return context


FAILURES = {
    "expired": "the certificate fails: certificate has expired",
    "elsewhere": "the certificate fails: Hostname mismatch",
    "unknown": "the certificate fails: unable to get local issuer certificate",
    "self-signed": "the certificate fails: self-signed certificate",
    "TLS 1.1": "alert protocol version",
}
CASES = [
    *(
        Case(f"{pair}-{mode}", mode, lambda *both, way=way, pair=pair: way(_with(pair)(*both)), said)
        for pair, said in FAILURES.items()
        for mode, way in (("required", by_stls), ("starttls", by_stls), ("implicit", at_once))
    ),
    Case("no STLS", "required", lambda *_: in_clear(b"-ERR unknown command\r\n"), "refuses STLS"),
    Case("odd answer", "required", lambda *_: in_clear(b"* BYE\r\n"), "its answer to STLS: a status that"),
    Case(
        "clear text", "required", lambda *_: in_clear(b"+OK go\r\n+OK who are you?\r\n"), "in clear behind its answer"
    ),
    Case("clear text in implicit", "implicit", lambda *_: in_clear(b"+OK\r\n"), "wrong version number"),
    Case("stalls in the handshake", "required", lambda *_: in_clear(b"+OK go\r\n"), "not done within connect_timeout"),
    Case("stalls in implicit", "implicit", lambda *_: rest_of, "not done within connect_timeout"),
    Case("hangs up", "required", lambda *_: hang_up, "without close_notify"),
]


def rest_of(_connection: socket.socket) -> None:
    """Only listens."""


def hang_up(connection: socket.socket) -> None:
    """Takes STLS and leaves."""
    in_clear(b"+OK go\r\n")(connection)
    connection.recv(1 << 14)
    connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def bad(folders: Folders, authority: Authority) -> Iterator[tuple[Gateway, dict[str, Server]]]:
    """All of these servers behind one gateway."""
    stranger = Authority(folders())
    servers = {case.name: Server(case.script(authority, stranger)) for case in CASES}
    services = {
        case.name.replace(" ", "_"): {
            "server": f"{NAME}:{servers[case.name].port}",
            "server_tls": case.mode,
            "server_ca": authority.file,
            "connect_timeout": 1,
            "max_spare": 1,
        }
        for case in CASES
    }
    with gateway(folders(), services) as running:
        yield running, servers
    for server in servers.values():
        server.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_password_reaches_a_server_that_is_not_what_it_should_be(
    bad: tuple[Gateway, dict[str, Server]], case: Case
) -> None:
    running, servers = bad
    service = case.name.replace(" ", "_")
    with running.connect(service) as client:
        client.sendall(EAGER)
        heard = rest(client)
    assert heard.startswith((b"-ERR [SYS/TEMP] ", b"-ERR Error in protocol"))
    assert heard.count(b"\r\n") == 1
    running.wait_for(f" {service} .*session ended")
    assert case.said in running.log
    assert SECRET not in servers[case.name].heard
    assert b"alice" not in servers[case.name].heard


def test_a_server_by_its_fingerprint_alone_or_never(folders: Folders, authority: Authority) -> None:
    server = Server(at_once(authority.serving()))
    base = {"server": f"{NAME}:{server.port}", "server_tls": "implicit", "server_ca": authority.file}
    services = {
        "right": {**base, "server_fingerprint": authority.server.fingerprint},
        "wrong": {**base, "server_fingerprint": "0" * 64},
    }
    with contextlib.closing(server), gateway(folders(), services) as running:
        with running.connect("right") as client:
            assert line(client) == GREETING
        with running.connect("wrong") as client:
            assert rest(client).startswith(b"-ERR [SYS/TEMP]")
        running.wait_for(f"fingerprint is {authority.server.fingerprint}")


def test_a_self_signed_certificate_is_trusted_by_itself(folders: Folders, authority: Authority) -> None:
    pair = authority.self_signed(NAME)
    server = Server(at_once(authority.serving(pair)))
    settings = {"server": f"{NAME}:{server.port}", "server_tls": "implicit", "server_ca": pair.certificate}
    with contextlib.closing(server), gateway(folders(), {"one": settings}) as running, running.connect("one") as client:
        assert line(client) == GREETING


def test_authorities_in_a_folder_that_only_who_starts_the_gateway_can_enter(
    folders: Folders, authority: Authority
) -> None:
    folder = folders()
    shutil.copy(authority.file, folder)
    folder.chmod(0o700)
    server = Server(at_once(authority.serving()))
    settings = {"server": f"{NAME}:{server.port}", "server_tls": "implicit", "server_ca": folder}
    with contextlib.closing(server), gateway(folders(), {"one": settings}) as running, running.connect("one") as client:
        assert line(client) == GREETING


def test_a_message_without_its_close_notify_is_cut(folders: Folders, authority: Authority) -> None:
    """The client must not see an end that the server has not said, wherever the cut is."""
    message = b"+OK 5 octets\r\nhello\r\n"

    def script(connection: socket.socket) -> None:
        tls = secured(connection, authority.serving())
        tls.sendall(GREETING)
        for answer in (b"+OK\r\n", b"+OK\r\n", message):
            line(tls)
            tls.sendall(answer)
        socket.close(tls.detach())  # without close_notify

    server = Server(script)
    settings = {"server": f"{NAME}:{server.port}", "server_tls": "implicit", "server_ca": authority.file}
    pair = authority.server
    secure = {**settings, "tls": "implicit", "tls_certificate": pair.certificate, "tls_key": pair.key}
    with contextlib.closing(server), gateway(folders(), {"clear": settings, "secure": secure}) as running:
        for service in ("clear", "secure"):
            client: socket.socket = running.connect(service)
            if service == "secure":
                client = authority.trusting().wrap_socket(client, server_hostname=NAME)
            with client:
                for request in (b"", b"USER alice\r\n", b"PASS hunter2\r\n"):
                    client.sendall(request)
                    assert line(client).startswith(b"+OK")
                client.sendall(b"RETR 1\r\n")
                assert rest(client) == message
        running.wait_for("the server closed in the middle of the answer to RETR 1", 2)


def by_hand(authority: Authority, answers: dict[bytes, bytes]) -> Script:
    """POP3S that answers these commands and sends a broken record in the same segment, and +OK to any other."""

    def script(connection: socket.socket) -> None:
        peer = Peer(authority.serving(), connection, server_side=True)
        peer.shake_over_a_network()
        peer.tls.write(GREETING)
        while True:
            connection.sendall(peer.go.read())
            heard = b""
            while not heard.endswith(b"\n"):
                if not (said := connection.recv(1 << 16)):
                    return
                peer.come.write(said)
                heard += peer.hears_rest()
            answer = answers.get(heard)
            peer.tls.write(answer or b"+OK\r\n")
            if answer is not None:
                connection.sendall(peer.go.read() + b"\x17\x03\x03\x00\x20" + bytes(32))
                rest(connection)
                return

    return script


def test_what_a_server_said_whole_before_tls_broke_is_delivered_and_the_log_says_how_it_broke(
    folders: Folders, authority: Authority
) -> None:
    answers = {
        b"QUIT\r\n": b"+OK bye\r\n",
        b"LIST\r\n": b"+OK\r\n1 100\r\n.\r\n",
        b"RETR 1\r\n": b"+OK\r\nhalf of",
    }
    server = Server(by_hand(authority, answers))
    settings = {"server": f"{NAME}:{server.port}", "server_tls": "implicit", "server_ca": authority.file}
    broke = "the connection to the server broke: decryption failed or bad record mac"
    with contextlib.closing(server), gateway(folders(), {"one": settings}) as running:
        for request, answer in answers.items():
            with running.connect("one") as client:
                for login in (b"", b"USER alice\r\n", b"PASS hunter2\r\n"):
                    client.sendall(login)
                    assert line(client).startswith(b"+OK")
                client.sendall(request)
                assert rest(client) == answer
        running.wait_for("session ended", len(answers))
        assert running.log.count(broke) == 2  # behind the answer to QUIT it is no news
        assert "the server closed in the middle of the answer to RETR 1" in running.log


def test_the_gateway_shows_its_own_certificate_and_a_server_may_want_it(folders: Folders, authority: Authority) -> None:
    context = authority.serving()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.file)
    server = Server(at_once(context))
    own = authority.sign("gateway.example")
    base = {"server": f"{NAME}:{server.port}", "server_tls": "implicit", "server_ca": authority.file}
    late = Server(by_stls(context))  # of TLS 1.3: the handshake is done before it is refused
    services = {
        "with": {**base, "server_certificate": own.certificate, "server_key": own.key},
        "without": base,
        "late": {**base, "server": f"{NAME}:{late.port}", "server_tls": "required"},
    }
    with contextlib.closing(server), contextlib.closing(late), gateway(folders(), services) as running:
        with running.connect("with") as client:
            assert line(client) == GREETING
        with running.connect("without") as client:
            assert line(client).startswith(b"-ERR")
        running.wait_for("the connection to the server broke: tlsv13 alert certificate required")
        with running.connect("late") as client:
            assert rest(client) == GREETING
        running.wait_for("the connection to the server broke: tlsv13 alert certificate required", 2)
