"""The same mailbox from a server that shares nothing with Dovecot: pop3d of GNU mailutils.

Its habits are its own: a bare "+OK", CAPA lines of no standard, the login with a domain, a field added to each header.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import mailbox, servers
from tests.integration.clients import CLIENTS, Account, transcript
from tests.integration.conftest import Folders
from tests.integration.gateway import Gateway, gateway
from tests.integration.servers import Server

POLICIES = ("pop3gw.policy:Pop3Proxy", "pop3gw.policies.apop:UToAPop3")


@pytest.fixture(scope="module")
def mailutils(folders: Folders) -> Iterator[Server]:
    """The server; its user "reader" has the sample mailbox, fetched once, since it notes that on the messages."""
    with servers.mailutils(folders(), ["reader"]) as server:
        server.user("reader", mailbox.sample())
        yield server


@pytest.fixture(scope="module")
def reader(mailutils: Server) -> str:
    """The name to log in with, once the server has noted what it wants to note on the messages."""
    user = f"reader@{mailutils.domain}"
    transcript(Account(mailutils.port, user), mailbox.MESSAGES)
    return user


@pytest.fixture(scope="module", params=POLICIES)
def in_front(request: pytest.FixtureRequest, folders: Folders, mailutils: Server) -> Iterator[Gateway]:
    """The gateway before it, once for each policy."""
    with gateway(folders(), mailutils.port, request.param) as running:
        yield running


def test_without_a_gateway(folder: Path, mailutils: Server, reader: str) -> None:
    """The server has the whole mailbox, and knows APOP."""
    fetched = CLIENTS["poplib"](Account(mailutils.port, reader, apop=True), folder)
    assert len(fetched) == mailbox.MESSAGES
    for number, (text, message) in enumerate(zip(fetched, mailbox.sample(), strict=True), start=1):
        assert text.endswith(mailbox.as_sent(message.split(b"\n\n", 1)[1])), number


@pytest.mark.parametrize("client", CLIENTS)
def test_clients(client: str, folders: Folders, mailutils: Server, reader: str, in_front: Gateway) -> None:
    direct = CLIENTS[client](Account(mailutils.port, reader), folders())
    assert len(direct) == mailbox.MESSAGES
    assert CLIENTS[client](Account(in_front.port, reader), folders()) == direct


def test_every_octet(mailutils: Server, reader: str, in_front: Gateway) -> None:
    direct = transcript(Account(mailutils.port, reader), mailbox.MESSAGES)
    assert transcript(Account(in_front.port, reader), mailbox.MESSAGES) == direct
