"""init/pop3gw, the SysV script: the gateway as a daemon, told what to do through its pid file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from tests.integration.clients import CLIENTS, Account
from tests.integration.conftest import Expected
from tests.integration.gateway import COMMAND, LISTENING, configuration
from tests.integration.servers import Server
from tests.until import until

SCRIPT = Path(__file__).parent.parent.parent / "init" / "pop3gw"
SECONDS = 60


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that init has not yet taken notice of does not."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except FileNotFoundError:
        return False


class Service:
    """The script, set to a folder of its own."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder = folder
        self.config = folder / "pop3gw.conf"
        self.log = folder / "pop3gw.log"
        self.pid_file = folder / "run" / "pop3gw" / "pop3gw.pid"  # its folders are made by the script
        self.script = folder / "script"
        (folder / "policies").mkdir()
        main = f"[main]\npid_file = {self.pid_file}\nlog_target = {self.log}"
        text = configuration(folder / "policies", server.port, "pop3gw.policies.apop:UToAPop3", {})
        self.config.write_text(text.replace("[main]", main, 1))
        settings = {"DAEMON": COMMAND, "CONFIG": self.config, "PIDFILE": self.pid_file}
        lines = SCRIPT.read_text()
        for name, value in settings.items():
            lines, count = re.subn(rf"^{name}=.*$", f"{name}={value}", lines, flags=re.MULTILINE)
            assert count == 1, name
        self.script.write_text(lines)

    def __call__(self, action: str) -> int:
        """Run an action; returns its exit status, as the LSB defines it."""
        done = subprocess.run(
            ["/bin/sh", str(self.script), action],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
        )
        return done.returncode

    def pid(self) -> int:
        return int(self.pid_file.read_text())

    def port(self) -> int:
        """The port of the last start."""
        return int(LISTENING.findall(self.log.read_text())[-1])


@pytest.fixture
def service(folder: Path, apop_only: Server) -> Iterator[Service]:
    service = Service(folder, apop_only)
    yield service
    service("stop")


def test_a_stop_waits_for_a_start(service: Service, folder: Path) -> None:
    go = folder / "go"
    waits = f"import os, time\nwhile not os.path.exists({str(go)!r}):\n    time.sleep(0.05)\n"
    (folder / "policies" / "slow.py").write_text(f"{waits}from pop3gw.policies.apop import UToAPop3\n")
    service.config.write_text(service.config.read_text().replace("pop3gw.policies.apop:", "slow:"))
    with ThreadPoolExecutor(2) as both:
        start = both.submit(service, "start")
        until("the configuration is checked", lambda: _runs(f"--check --config {service.config}"))
        stop = both.submit(service, "stop")
        assert wait([stop], timeout=1).not_done
        go.touch()
        assert (start.result(), stop.result()) == (0, 0)
    assert service("status") == 3


def _runs(command: str) -> bool:
    def line(of: Path) -> bytes:
        try:
            return of.read_bytes().replace(b"\0", b" ")
        except OSError:
            return b""

    return any(command.encode() in line(of) for of in Path("/proc").glob("[0-9]*/cmdline"))


def test_its_life(service: Service, folder: Path, expected: Expected) -> None:
    """Started, used at once, reloaded, restarted, stopped; each action twice does no harm."""
    assert service("status") == 3
    assert service("stop") == 0
    assert service("reload") == 7

    assert service("start") == 0
    first = service.pid()
    assert service("start") == 0
    assert service("status") == 0
    assert service.pid() == first
    assert CLIENTS["poplib"](Account(service.port(), "reader"), folder) == expected("poplib")

    assert service("reload") == 0
    assert service("restart") == 0
    assert service.pid() != first
    assert not is_alive(first)

    assert service("stop") == 0
    assert service("status") == 3
    assert not service.pid_file.exists()


def test_what_is_wrong_is_not_started(service: Service) -> None:
    """A configuration that is wrong starts nothing, reloads nothing and, above all, stops nothing."""
    good = service.config.read_text()
    bad = good.replace("UToAPop3", "NoSuchPolicy")
    service.config.write_text(bad)
    assert service("start") == 6
    assert service("status") == 3

    service.config.write_text(good)
    assert service("start") == 0
    running = service.pid()
    service.config.write_text(bad)
    assert service("reload") == 6
    assert service("restart") == 6
    assert service("status") == 0
    assert service.pid() == running


def test_a_pid_file_left_behind(service: Service) -> None:
    """The number of a process that is gone, or is another program's by now, is no gateway."""
    service.pid_file.parent.mkdir(parents=True)
    service.pid_file.write_text(f"{os.getpid()}\n")
    assert service("status") == 1
    assert service("start") == 0
    assert service("status") == 0
    assert service.pid() != os.getpid()


def test_its_header(service: Service) -> None:
    """LSB tools find what they look for, and the shell of the system reads it."""
    text = SCRIPT.read_text()
    header = text[text.index("### BEGIN INIT INFO") : text.index("### END INIT INFO")]
    for field in ("Provides", "Required-Start", "Required-Stop", "Default-Start", "Default-Stop", "Short-Description"):
        assert re.search(rf"^# {field}: +\S", header, re.MULTILINE), field
    shell = shutil.which("dash") or "/bin/sh"
    assert subprocess.run([shell, "-n", str(SCRIPT)]).returncode == 0
    assert service("no-such-action") == 2
