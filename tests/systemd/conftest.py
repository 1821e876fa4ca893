"""Machines with systemd: one on which the package is installed and in use, and fresh ones for the package itself."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration import mailbox
from tests.integration.servers import BASE_CONFIG, Server, free_port, greets
from tests.systemd import debs
from tests.systemd.box import Box, box
from tests.systemd.service import Service
from tests.until import until

LOG_SHOWN = 6000
Boxes = Callable[[], AbstractContextManager[Box]]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows the end of the journal."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for value in item.funcargs.values():
            if isinstance(value, (Service, Box)):
                inside = value.box if isinstance(value, Service) else value
                said = inside.attempt("journalctl", "--no-pager", "--lines=60").stdout
                report.sections.append(("journal", said[-LOG_SHOWN:]))
                break
    return report


@pytest.fixture(scope="session")
def storage() -> Iterator[Path]:
    """Room for containers: too much for a /tmp that is kept in memory."""
    folder = Path(tempfile.mkdtemp(prefix="pop3gw-test.", dir="/var/tmp"))
    folder.chmod(0o755)
    before = os.umask(0o022)
    yield folder
    os.umask(before)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def boxes(storage: Path) -> Boxes:
    """Makes machines without the package, which lies in /srv/test/pop3gw.deb."""
    made: list[Path] = []

    @contextmanager
    def make() -> Iterator[Box]:
        shared = Path(tempfile.mkdtemp(dir=storage))
        shared.chmod(0o755)
        made.append(shared)
        shutil.copy(debs.deb(), shared / "pop3gw.deb")
        with box(storage / "engine", shared, f"pop3gw-systemd-{os.getpid()}-{len(made)}") as fresh:
            yield fresh

    return make


@pytest.fixture(scope="session")
def installed(boxes: Boxes) -> Iterator[Service]:
    """A machine that has the package, and a Dovecot whose user "reader" has the sample mailbox."""
    with ExitStack() as stack:
        machine = stack.enter_context(boxes())
        machine.run("dpkg", "--install", "/srv/test/pop3gw.deb")
        port = free_port()
        local = f"listen = 127.0.0.1\nservice pop3-login {{\n inet_listener pop3 {{\n port = {port}\n }}\n}}\n"
        machine.write("/etc/dovecot/dovecot.conf", BASE_CONFIG.read_text())
        machine.write("/etc/dovecot/local.conf", local + "mail_location = maildir:/srv/test/mail/%u\n")
        machine.run("systemctl", "restart", "dovecot")
        until("Dovecot answers", lambda: greets(port))
        server = Server(port, machine.shared / "mail", machine.shared / "none")
        server.user("reader", mailbox.sample())
        yield Service(machine, server)


@pytest.fixture
def service(installed: Service) -> Service:
    """That machine, its gateway as it is after installation, configured for the Dovecot, and running."""
    installed.serve()
    installed.is_pristine = False
    return installed


@pytest.fixture
def untouched(installed: Service) -> Service:
    """The same for a test that only uses it, and changes nothing."""
    if not installed.is_pristine:
        installed.serve()
    return installed
