"""Clients that empty the mailbox: what they delivered is gone from the server, and nothing else is."""

from __future__ import annotations

import poplib
import time

from tests.integration import mailbox
from tests.integration.clients import Account, fetchmail
from tests.integration.conftest import Expected, Folders
from tests.integration.gateway import Gateway
from tests.integration.servers import PASSWORD, Server

RESTORED_SECONDS = 20


def left(server: Server, name: str) -> int:
    """How many messages lie in a mailbox."""
    return len(list((server.mail / name / "cur").iterdir())) + len(list((server.mail / name / "new").iterdir()))


def test_fetchmail(folders: Folders, apop_only: Server, apop_gateway: Gateway, expected: Expected) -> None:
    """All are delivered, then deleted; what comes later is delivered too, and nothing twice."""
    account = Account(apop_gateway.port, apop_only.user("emptied", mailbox.sample()))
    assert fetchmail(account, folders(), keep=False) == expected("fetchmail")
    assert left(apop_only, "emptied") == 0

    later = mailbox.header(41, "later") + b"\nlater\n"
    (apop_only.mail / "emptied" / "new" / "1800000000.M1P1.example").write_bytes(later)
    delivered = fetchmail(account, folders(), keep=False)
    assert len(delivered) == 1
    assert b"41 later" in delivered[0]
    assert left(apop_only, "emptied") == 0


def test_a_client_that_vanishes(apop_only: Server, apop_gateway: Gateway) -> None:
    """Without QUIT no DELE takes effect (RFC 1939, section 6), however the connection ends."""
    user = apop_only.user("vanished", mailbox.sample())

    def session() -> poplib.POP3:
        client = poplib.POP3("127.0.0.1", apop_gateway.port, timeout=30)
        client.user(user)
        client.pass_(PASSWORD)
        return client

    client = session()
    for number in range(1, mailbox.MESSAGES + 1):
        client.dele(number)
    client.close()

    # Dovecot lets a user in again when it has noticed that the first session is over.
    deadline = time.monotonic() + RESTORED_SECONDS
    again = session()
    while again.stat()[0] != mailbox.MESSAGES and time.monotonic() < deadline:
        again.quit()
        again = session()
    assert again.stat()[0] == mailbox.MESSAGES
    again.quit()
    assert left(apop_only, "vanished") == mailbox.MESSAGES
