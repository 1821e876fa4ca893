"""Servers and gateways that the integration tests share: each is started once, when the first test asks for it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.integration import clients, mailbox, servers
from tests.integration.clients import Account
from tests.integration.gateway import Gateway, gateway
from tests.integration.servers import Server

Folders = Callable[[], Path]

LOG_SHOWN = 4000

# curl takes APOP by itself where it sees a timestamp: behind this policy no client can, the gateway still does.
HIDDEN_TIMESTAMP = """
from pop3gw.policy import *
from pop3gw.policies.apop import UToAPop3


class Hidden(UToAPop3):
    def config(self):
        super().config()
        self.request["GREETING"] = (POP3_REQ_POLICY, None, self.greet)

    def greet(self, text):
        self.response_value = "+OK"
        self.response_param = "ready"
        return POP3_RSP_ACCEPT
"""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows the ends of the logs of what it ran."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for name, value in item.funcargs.items():
            if isinstance(value, (Gateway, Server)) and value.log.exists():
                report.sections.append((f"log of {name}", value.log.read_text(errors="replace")[-LOG_SHOWN:]))
    return report


@pytest.fixture(scope="session")
def folders() -> Iterator[Folders]:
    """Makes folders that every account may enter: servers and workers run under accounts of their own.

    pytest's own temporary folders are closed to them.
    """
    top = Path(tempfile.mkdtemp(prefix="pop3gw-test."))
    top.chmod(0o755)
    before = os.umask(0o022)

    def make() -> Path:
        folder = Path(tempfile.mkdtemp(dir=top))
        folder.chmod(0o755)
        return folder

    yield make
    os.umask(before)
    shutil.rmtree(top)


@pytest.fixture
def folder(folders: Folders) -> Path:
    """One such folder, empty."""
    return folders()


@pytest.fixture(scope="session")
def dovecot(folders: Folders) -> Iterator[Server]:
    """Dovecot with every mechanism it has; its user "reader" has the sample mailbox."""
    with servers.dovecot(folders()) as server:
        server.user("reader", mailbox.sample())
        yield server


@pytest.fixture(scope="session")
def apop_only(folders: Folders) -> Iterator[Server]:
    """Dovecot offering APOP alone; its user "reader" has the sample mailbox."""
    with servers.dovecot(folders(), "apop") as server:
        server.user("reader", mailbox.sample())
        yield server


@pytest.fixture(scope="session")
def plain_gateway(folders: Folders, dovecot: Server) -> Iterator[Gateway]:
    """Pop3Proxy in front of Dovecot."""
    with gateway(folders(), dovecot.port) as running:
        yield running


@pytest.fixture(scope="session")
def apop_gateway(folders: Folders, apop_only: Server) -> Iterator[Gateway]:
    """UToAPop3 in front of the Dovecot that offers APOP alone."""
    with gateway(folders(), apop_only.port, "pop3gw.policies.apop:UToAPop3") as running:
        yield running


@pytest.fixture(scope="session")
def hidden_gateway(folders: Folders, apop_only: Server) -> Iterator[Gateway]:
    """As apop_gateway, its greeting without a timestamp, so that every client has to say USER and PASS."""
    with gateway(folders(), apop_only.port, "hidden:Hidden", policies={"hidden": HIDDEN_TIMESTAMP}) as running:
        yield running


Expected = Callable[[str], list[bytes]]


@pytest.fixture(scope="session")
def expected(folders: Folders, dovecot: Server) -> Expected:
    """What a client, by name, delivers of the sample mailbox when it talks to Dovecot itself."""
    seen: dict[str, list[bytes]] = {}

    def fetch(name: str) -> list[bytes]:
        if name not in seen:
            seen[name] = clients.CLIENTS[name](Account(dovecot.port, "reader"), folders())
        return seen[name]

    return fetch
