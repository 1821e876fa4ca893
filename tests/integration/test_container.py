"""The same mailbox from a Dovecot in a container, its image made by tests/dovecot."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dovecot.engine import engine, image
from tests.dovecot.images import RECIPES
from tests.integration import mailbox
from tests.integration.clients import CLIENTS, Account, transcript
from tests.integration.conftest import Expected, Folders
from tests.integration.gateway import Gateway, gateway
from tests.integration.servers import BASE_CONFIG, Server, started

# The image may have to be made first, from packages that have to be downloaded.
pytestmark = pytest.mark.timeout(1200)


def overrides(port: int) -> str:
    """What this Dovecot has of its own: APOP alone, on the host's loopback."""
    listener = f"service pop3-login {{\n inet_listener pop3 {{\n port = {port}\n }}\n}}\n"
    return f"listen = 127.0.0.1\nauth_mechanisms = apop\n{listener}"


@pytest.fixture(scope="module")
def storage() -> Iterator[Path]:
    """Room for an engine's images: too much for a /tmp that is kept in memory."""
    folder = Path(tempfile.mkdtemp(prefix="pop3gw-test.", dir="/var/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def container(folders: Folders, storage: Path) -> Iterator[Server]:
    """Dovecot in a container, offering APOP alone; its user "reader" has the sample mailbox."""
    runtime = engine(storage)
    dovecot = image(runtime, RECIPES["dovecot"])
    folder = folders()
    name = f"pop3gw-test-{os.getpid()}"
    mounts = {
        BASE_CONFIG: "/etc/dovecot/dovecot.conf:ro",
        folder / "local.conf": "/etc/dovecot/local.conf:ro",
        folder / "mail": "/srv/mail",
    }
    (folder / "mail").mkdir()

    def command(port: int) -> list[str]:
        (folder / "local.conf").write_text(overrides(port))
        options = [f"--volume={outside}:{inside}" for outside, inside in mounts.items()]
        runtime.remove(name)
        return runtime.run(name, dovecot, ["dovecot", "-F"], options)

    try:
        with started(folder / "container.log", command) as port:
            server = Server(port, folder / "mail", folder / "container.log")
            server.user("reader", mailbox.sample())
            yield server
    finally:
        runtime.remove(name)


@pytest.fixture(scope="module")
def in_front(folders: Folders, container: Server) -> Iterator[Gateway]:
    """UToAPop3 in front of it."""
    with gateway(folders(), container.port, "pop3gw.policies.apop:UToAPop3") as running:
        yield running


def test_without_a_gateway(folder: Path, container: Server, expected: Expected) -> None:
    assert CLIENTS["poplib"](Account(container.port, "reader", apop=True), folder) == expected("poplib")


@pytest.mark.parametrize("client", CLIENTS)
def test_clients(client: str, folder: Path, in_front: Gateway, expected: Expected) -> None:
    assert CLIENTS[client](Account(in_front.port, "reader"), folder) == expected(client)


def test_every_octet(container: Server, in_front: Gateway) -> None:
    direct = transcript(Account(container.port, "reader", apop=True), mailbox.MESSAGES)
    assert transcript(Account(in_front.port, "reader"), mailbox.MESSAGES) == direct
