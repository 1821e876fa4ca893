"""A mailbox of 40 messages, fetched by the clients that people use: bit for bit what they get without a gateway."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration import mailbox
from tests.integration.clients import CLIENTS, Account, ClientError, netcat, transcript
from tests.integration.conftest import Expected
from tests.integration.gateway import Gateway
from tests.integration.servers import Server

# Those that write a message down as it came; the others make it a file of their system.
VERBATIM = ("curl", "poplib")
# mpop looks for APOP in another place than Dovecot's greeting.
SPEAKS_APOP = ("curl", "fetchmail", "getmail", "poplib")


@pytest.mark.parametrize("client", CLIENTS)
def test_without_a_gateway(client: str, expected: Expected) -> None:
    """The measure itself: the server gives what lies in the mailbox."""
    fetched = expected(client)
    assert len(fetched) == mailbox.MESSAGES
    if client in VERBATIM:
        assert fetched == [mailbox.as_sent(message) for message in mailbox.sample()]


@pytest.mark.parametrize("client", SPEAKS_APOP)
def test_apop_without_a_gateway(client: str, folder: Path, apop_only: Server, expected: Expected) -> None:
    """The server that offers APOP alone has the same mailbox."""
    assert CLIENTS[client](Account(apop_only.port, "reader", apop=True), folder) == expected(client)


def test_password_without_a_gateway(apop_only: Server) -> None:
    """The server that offers APOP alone takes no password: what fetches it through the gateway did not send one."""
    with pytest.raises(ClientError, match="PASS was answered"):
        transcript(Account(apop_only.port, "reader"), 1)


@pytest.mark.parametrize("client", CLIENTS)
def test_pop3proxy(client: str, folder: Path, plain_gateway: Gateway, expected: Expected) -> None:
    assert CLIENTS[client](Account(plain_gateway.port, "reader"), folder) == expected(client)


@pytest.mark.parametrize("client", CLIENTS)
def test_password_to_apop(client: str, folder: Path, apop_gateway: Gateway, expected: Expected) -> None:
    assert CLIENTS[client](Account(apop_gateway.port, "reader"), folder) == expected(client)


@pytest.mark.parametrize("client", SPEAKS_APOP)
def test_apop_through(client: str, folder: Path, apop_gateway: Gateway, expected: Expected) -> None:
    """A client that can APOP may, its digest is made for the server's timestamp."""
    assert CLIENTS[client](Account(apop_gateway.port, "reader", apop=True), folder) == expected(client)


@pytest.mark.parametrize("client", CLIENTS)
def test_hidden_timestamp(client: str, folder: Path, hidden_gateway: Gateway, expected: Expected) -> None:
    assert CLIENTS[client](Account(hidden_gateway.port, "reader"), folder) == expected(client)


def test_every_octet(dovecot: Server, plain_gateway: Gateway) -> None:
    """Status lines, listings and messages are the server's own."""
    direct = transcript(Account(dovecot.port, "reader"), mailbox.MESSAGES)
    assert transcript(Account(plain_gateway.port, "reader"), mailbox.MESSAGES) == direct
    assert transcript(Account(plain_gateway.port, "reader", apop=True), mailbox.MESSAGES) == direct


def test_every_octet_behind_apop(apop_only: Server, apop_gateway: Gateway) -> None:
    direct = transcript(Account(apop_only.port, "reader", apop=True), mailbox.MESSAGES)
    assert transcript(Account(apop_gateway.port, "reader"), mailbox.MESSAGES) == direct


def test_a_session_in_one_go(folder: Path, dovecot: Server, plain_gateway: Gateway) -> None:
    """All requests sent before the first answer, then the sending side shut down: every answer comes, in order."""
    direct = netcat(Account(dovecot.port, "reader"), folder, mailbox.MESSAGES)
    assert direct.endswith(b"+OK Logging out.\r\n")
    assert netcat(Account(plain_gateway.port, "reader"), folder, mailbox.MESSAGES) == direct
