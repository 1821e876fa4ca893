"""Messages with lines of up to 3 MB. fetchmail and getmail break on them by themselves, so they are not asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration import mailbox
from tests.integration.clients import CLIENTS, Account
from tests.integration.gateway import Gateway
from tests.integration.servers import Server

MESSAGES = mailbox.long_lines()
SENT = [mailbox.as_sent(message) for message in MESSAGES]
WHOLE = {"curl": SENT, "mpop": MESSAGES, "poplib": SENT}


@pytest.mark.parametrize("client", WHOLE)
def test_without_a_gateway(client: str, folder: Path, dovecot: Server) -> None:
    user = dovecot.user(f"long-{client}", MESSAGES)
    assert CLIENTS[client](Account(dovecot.port, user), folder) == WHOLE[client]


@pytest.mark.parametrize("client", WHOLE)
def test_through_the_gateway(client: str, folder: Path, apop_only: Server, apop_gateway: Gateway) -> None:
    user = apop_only.user(f"long-{client}", MESSAGES)
    assert CLIENTS[client](Account(apop_gateway.port, user), folder) == WHOLE[client]
