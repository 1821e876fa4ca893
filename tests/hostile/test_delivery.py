"""What reaches whom when one side leaves, half-closes, or goes on sending."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from tests.hostile.peers import GREETING, MESSAGE, MIB, Mailbox, ask, dial, is_served, logged_in, reset
from tests.integration.conftest import Folders
from tests.tls.gateway import Gateway, Server, gateway, line, rest
from tests.until import until

SESSION = [
    b"USER alice\r\n",
    b"PASS hunter2\r\n",
    b"STAT\r\n",
    b"LIST zero\r\n",
    b"RETR 1\r\n",
    b"DELE 1\r\n",
    b"QUIT\r\n",
]
# The fourth is refused in its place.
ANSWERS = [b"+OK\r\n", b"+OK\r\n", b"+OK 1 35\r\n", b"-ERR Invalid command.\r\n", b"+OK\r\n" + MESSAGE, b"+OK\r\n"]
HEARD = [*SESSION[:3], *SESSION[4:]]
BYE = b"+OK bye\r\n"


@pytest.fixture(scope="module")
def running(folders: Folders, mailbox: tuple[Mailbox, Server]) -> Iterator[Gateway]:
    with gateway(folders(), {"plain": {"server": f"127.0.0.1:{mailbox[1].port}"}}) as made:
        yield made


@pytest.mark.parametrize("half_closed", [False, True])
def test_a_whole_session_in_one_packet(running: Gateway, mailbox: tuple[Mailbox, Server], half_closed: bool) -> None:
    with dial(running.port("plain")) as client:
        client.sendall(b"".join(SESSION))
        if half_closed:
            client.shutdown(socket.SHUT_WR)
        assert rest(client) == b"".join([GREETING, *ANSWERS, BYE])
    visit = mailbox[0].visits[-1]
    assert visit.over.wait(5)
    assert visit.requests == HEARD


def test_a_client_that_half_closes_without_quit_gets_its_answers_and_nothing_is_deleted(
    running: Gateway, mailbox: tuple[Mailbox, Server]
) -> None:
    with dial(running.port("plain")) as client:
        client.sendall(b"".join(SESSION[:-1]) + b"QUI")
        client.shutdown(socket.SHUT_WR)
        assert rest(client) == b"".join([GREETING, *ANSWERS])
    visit = mailbox[0].visits[-1]
    assert visit.over.wait(5)
    assert visit.requests == HEARD[:-1]


@pytest.mark.parametrize("leave", [reset, socket.socket.close])
def test_a_client_that_is_gone_without_quit_deletes_nothing(
    running: Gateway, mailbox: tuple[Mailbox, Server], leave: Callable[[socket.socket], None]
) -> None:
    client = logged_in(dial(running.port("plain")))
    assert ask(client, b"DELE 1") == b"+OK\r\n"
    leave(client)
    visit = mailbox[0].visits[-1]
    assert visit.over.wait(2)
    assert visit.requests == [b"USER alice\r\n", b"PASS hunter2\r\n", b"DELE 1\r\n"]


def test_requests_behind_an_abort_or_a_quit_are_heard_by_nobody(
    running: Gateway, mailbox: tuple[Mailbox, Server]
) -> None:
    for last, said in ((b"XYZZY\r\n", b"-ERR Invalid command.\r\n"), (b"QUIT\r\n", BYE)):
        with logged_in(dial(running.port("plain"))) as client:
            client.sendall(b"NOOP\r\n" + last + b"DELE 1\r\nQUIT\r\n")
            assert rest(client) == b"+OK\r\n" + said
        visit = mailbox[0].visits[-1]
        assert visit.over.wait(5)
        assert visit.requests[2:] == [b"NOOP\r\n", b"QUIT\r\n"][: 2 if last == b"QUIT\r\n" else 1]


@pytest.mark.parametrize(
    ("last", "answer", "behind"),
    [
        (b"XYZZY\r\n", b"-ERR Invalid command.\r\n", b"DELE 1\r\n" * 2048),
        (b"XYZZY\r\n", b"-ERR Invalid command.\r\n", b"x" * 65536),
        (b"QUIT\r\n", BYE, b"DELE 1\r\n" * 2048),
    ],
    ids=["requests behind an abort", "no line behind an abort", "requests behind a QUIT"],
)
def test_the_last_answer_is_delivered_though_the_client_goes_on_sending(
    running: Gateway, last: bytes, answer: bytes, behind: bytes
) -> None:
    with logged_in(dial(running.port("plain"))) as client:
        client.sendall(last)
        for _ in range(8 * MIB // len(behind)):
            client.sendall(behind)  # raises where a reset has come
        client.shutdown(socket.SHUT_WR)
        data = b""
        while chunk := client.recv(65536):  # here too
            data += chunk
        assert data == answer


def test_what_is_still_on_its_way_is_delivered_though_the_client_speaks_behind_its_quit(
    running: Gateway, mailbox: tuple[Mailbox, Server]
) -> None:
    message = b"x" * 50_000 + b"\r\n.\r\n"
    before, mailbox[0].content = mailbox[0].content, lambda: [message]
    try:
        with logged_in(dial(running.port("plain"), buffer=2048)) as client:
            client.sendall(b"RETR 1\r\nQUIT\r\n")
            assert mailbox[0].visits[-1].over.wait(5)
            client.sendall(b"NOOP\r\n")
            assert rest(client) == b"+OK\r\n" + message + BYE
    finally:
        mailbox[0].content = before


def test_a_client_that_never_stops_sending_is_closed_all_the_same(
    running: Gateway, mailbox: tuple[Mailbox, Server]
) -> None:
    with logged_in(dial(running.port("plain"))) as client:
        assert ask(client, b"XYZZY") == b"-ERR Invalid command.\r\n"
        assert client.recv(1) == b""
        assert mailbox[0].visits[-1].over.wait(1)  # the server need not wait for that

        def closed() -> bool:
            try:
                client.send(b"x")
            except OSError:
                return True
            return False

        until("the gateway closes", closed)
    assert is_served(running.port("plain"))


def test_a_server_that_speaks_unasked_or_ends_is_not_believed(
    running: Gateway, mailbox: tuple[Mailbox, Server]
) -> None:
    mailbox[0].answers[b"NOOP"] = b"+OK\r\n+OK twice\r\n"
    try:
        with logged_in(dial(running.port("plain"))) as client:
            assert ask(client, b"NOOP") == b"+OK\r\n"
            assert rest(client) == b"-ERR Error in protocol\r\n"
    finally:
        del mailbox[0].answers[b"NOOP"]
    assert mailbox[0].visits[-1].over.wait(2)


def test_half_a_status_line_reaches_nobody(folders: Folders) -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(GREETING)
        line(connection)
        connection.sendall(b"+OK half")
        connection.shutdown(socket.SHUT_RDWR)

    server = Server(script)
    with (
        gateway(folders(), {"plain": {"server": f"127.0.0.1:{server.port}"}}) as running,
        dial(running.port("plain")) as client,
    ):
        assert line(client) == GREETING
        client.sendall(b"USER alice\r\n")
        assert rest(client) == b"-ERR Error in protocol\r\n"

    server.close()
