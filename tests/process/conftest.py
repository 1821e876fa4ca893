"""What every process test has: a POP3 server, and gateways that leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.process.gateway import Gateway, Make, Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server
        server.shutdown()


@pytest.fixture
def make(server: Server) -> Iterator[Make]:
    """Makes a gateway with these settings of its service; start it."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Gateway(server, **settings))
