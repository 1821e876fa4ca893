"""What the hostile tests share: folders that the workers' account may enter, and a server that remembers its visits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.peers import Mailbox
from tests.integration.conftest import folder, folders
from tests.tls.gateway import Server

__all__ = ["folder", "folders"]


@pytest.fixture(scope="module")
def mailbox() -> Iterator[tuple[Mailbox, Server]]:
    """A server, and what it does."""
    made = Mailbox()
    server = Server(made)
    yield made, server
    server.close()
