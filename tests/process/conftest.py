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


IN_BOTH_MODES = ("test_faults", "test_master", "test_sessions", "test_supervision")  # the process model
MANY = 20


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of the process model run with one session a worker and with many, unless they say what they are about."""
    if "make" in metafunc.fixturenames:
        both = metafunc.module.__name__.rpartition(".")[2] in IN_BOTH_MODES
        own = metafunc.definition.get_closest_marker("own_mode") is not None
        metafunc.parametrize("mode", [1, MANY] if both and not own else [1], ids=lambda mode: f"{mode} a worker")


@pytest.fixture
def make(server: Server, mode: int) -> Iterator[Make]:
    """Makes a gateway with these settings of its service; start it."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Gateway(server, **{"sessions_per_worker": mode, **settings}))
