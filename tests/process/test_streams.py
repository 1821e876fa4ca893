"""A gateway that is started with closed standard streams, as some init scripts do."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.process.gateway import Client, Gateway, Make, until

ROOT = Path(__file__).parents[2]
COMMAND = f"import sys; sys.path[0] = {str(ROOT)!r}; from pop3gw.cli import main; sys.exit(main())"


def started(gateway: Gateway, redirection: str, *options: str) -> Gateway:
    """Start it as a shell does with this redirection; its log is in a file."""
    gateway.command = ["/bin/sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-c", COMMAND]
    gateway.command += [*options, "--config"]
    gateway.main["log_target"] = gateway.folder / "log"
    gateway.launch()
    gateway.log_file = gateway.folder / "log"
    until("it is ready", lambda: gateway.log_file.exists() and "info: ready" in gateway.log)
    return gateway


@pytest.mark.parametrize("closed", ["<&-", "<&- >&- 2>&-"])
def test_a_daemon(make: Make, closed: str) -> None:
    gateway = make()
    gateway.main["pid_file"] = gateway.folder / "pid"
    started(gateway, closed)
    assert gateway.wait() == 0
    pid = int((gateway.folder / "pid").read_text())
    try:
        gateway.connect().logged_in().quits()
    finally:
        os.kill(pid, signal.SIGTERM)
    until("it has stopped", lambda: not (gateway.folder / "pid").exists())


@pytest.mark.parametrize(("closed", "numbers"), [("<&-", [0]), (">&-", [1]), ("<&- >&- 2>&-", [0, 1, 2])])
def test_in_the_foreground(make: Make, closed: str, numbers: list[int]) -> None:
    gateway = started(make(), closed, "--foreground")
    running = gateway.connect().logged_in()
    port = gateway.port
    for pid in (gateway.master, *gateway.pids("template"), *gateway.workers()):
        streams = [Path(f"/proc/{pid}/fd/{number}").readlink() for number in numbers]
        assert set(streams) == {Path("/dev/null")}
    gateway.signal(signal.SIGKILL)
    gateway.wait()
    with pytest.raises(ConnectionRefusedError):  # no child has the listener
        Client(port)
    running.quits()
