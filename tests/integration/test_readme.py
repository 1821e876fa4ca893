"""What the README tells a reader to paste works as it stands, and its map shows what is there."""

from __future__ import annotations

import poplib
import re
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.gateway import gateway
from tests.integration.servers import PASSWORD, Server

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The one block of code in this language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return str(found)


def test_policy(folder: Path, dovecot: Server) -> None:
    """The policy, under the settings that stand with it."""
    given = dict(re.findall(r"^ *(\w+) = ([^#\n]*\S)", block("ini"), re.MULTILINE))
    settings = {key: value for key, value in given.items() if key not in ("policy_path", "listen", "server", "policy")}
    policy = given["policy"].strip('"')
    with (
        gateway(folder, dovecot.port, policy, policies={"office": block("python")}, settings=settings) as running,
        closing(poplib.POP3("127.0.0.1", running.port, timeout=30)) as client,
    ):
        assert client.getwelcome() == b"+OK ready"
        with pytest.raises(poplib.error_proto, match="No such mailbox"):
            client.user("../etc")
        client.user("reader")
        client.pass_(PASSWORD)
        with pytest.raises(poplib.error_proto, match="Mail is kept on the server"):
            client.dele(1)
        client.quit()


def test_map() -> None:
    """Every module is on it."""
    named = set(re.findall(r"`(\w+)/?`", README[README.index("## The map of the code") :]))
    package = ROOT / "pop3gw"
    modules = {path.stem for folder in (package, package / "proto") for path in folder.glob("[!_]*.py")}
    folders = {path.name for path in package.iterdir() if (path / "__init__.py").exists()}
    assert modules | folders <= named, "say in README.md what they are"
