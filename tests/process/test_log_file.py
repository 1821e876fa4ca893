"""The log file of a gateway that root has started, in a folder that belongs to its workers' account."""

from __future__ import annotations

import os
import pwd
import signal
from pathlib import Path

import pytest

from tests.process.gateway import Gateway, Make
from tests.until import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has other rights than its workers")


@pytest.fixture
def gateway(make: Make) -> Gateway:
    gateway: Gateway = make()
    (folder := gateway.folder / "log").mkdir()
    os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
    gateway.main |= {"user": "nobody", "log_target": folder / "pop3gw.log"}
    gateway.launch()
    gateway.log_file = folder / "pop3gw.log"
    until("there is a log", gateway.log_file.exists)
    gateway.wait_for("info: ready")
    return gateway


def rotated(file: Path) -> Path:
    return file.rename(file.with_suffix(f".{len(list(file.parent.iterdir()))}"))


def test_it_is_that_accounts_before_and_after_a_rotation(gateway: Gateway) -> None:
    old = rotated(gateway.log_file)
    gateway.signal(signal.SIGUSR1)
    until("there is a new log", gateway.log_file.exists)
    gateway.wait_for("the log was reopened")
    assert {file.owner() for file in (old, gateway.log_file)} == {"nobody"}


def test_a_link_in_its_place_is_not_followed(gateway: Gateway) -> None:
    old, victim = rotated(gateway.log_file), gateway.folder / "victim"
    gateway.log_file.symlink_to(victim)
    gateway.signal(signal.SIGUSR1)
    until("it is told where the log was", lambda: "it goes on where it was" in old.read_text())
    gateway.signal(signal.SIGTERM)
    gateway.wait()
    assert "it is a symbolic link" in old.read_text()
    assert "the log was reopened" not in old.read_text()
    assert not victim.exists()
