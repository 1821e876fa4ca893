"""The command as init scripts and people start it: with closed standard streams, from any folder."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.gateway import RUNNER, Client, Gateway, Make, parent, titles
from tests.until import until

ROOT = Path(__file__).parents[2]
COMMAND = f"import sys; sys.path[0] = {str(ROOT)!r}; from pop3gw.cli import main; sys.exit(main())"

FIRST = 'exec "$0" -c "import os, signal, sys; {}; os.execv(sys.argv[1], sys.argv[1:])" "$@"'  # then the command


def started(gateway: Gateway, script: str, *options: str) -> Gateway:
    """Start it by a shell's script, which finds the command and its arguments in $@; its log is in a file."""
    gateway.command = ["/bin/sh", "-c", script, sys.executable, sys.executable, "-c", COMMAND, *options, "--config"]
    gateway.main["log_target"] = gateway.folder / "log"
    gateway.launch()
    gateway.log_file = gateway.folder / "log"
    until("it is ready", lambda: gateway.log_file.exists() and "info: ready" in gateway.log)
    return gateway


@contextlib.contextmanager
def daemon(gateway: Gateway, script: str) -> Iterator[int]:
    """Its pid, once it is ready; in the end it is stopped."""
    pid_file = gateway.folder / "pid"
    gateway.main["pid_file"] = pid_file
    assert started(gateway, script).wait() == 0
    pid = int(pid_file.read_text())
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGTERM)
    until("it has stopped", lambda: not pid_file.exists())


@pytest.mark.parametrize("closed", ["<&-", "<&- >&- 2>&-"])
def test_a_daemon_with_closed_streams(make: Make, closed: str) -> None:
    gateway = make()
    with daemon(gateway, f'exec "$@" {closed}'):
        gateway.connect().logged_in().quits()


@pytest.mark.parametrize(("closed", "numbers"), [("<&-", [0]), (">&-", [1]), ("<&- >&- 2>&-", [0, 1, 2])])
def test_closed_streams_in_the_foreground(make: Make, closed: str, numbers: list[int]) -> None:
    gateway = started(make(), f'exec "$@" {closed}', "--foreground")
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


def test_a_daemon_starts_in_spite_of_doubts_and_tells_them(make: Make) -> None:
    gateway = make()
    gateway.settings["policy"] = "pop3gw.policies.tls:TlsRequired"
    with daemon(gateway, 'exec "$@"'):
        assert gateway.log.count("demands TLS (tls_required) where there is none") == 1


def test_a_daemon_finds_its_configuration_again_that_was_named_from_another_folder(make: Make) -> None:
    gateway = make()
    with daemon(gateway, f'cd {gateway.folder} && exec "$1" "$2" "$3" --config pop3gw.conf') as pid:
        os.kill(pid, signal.SIGHUP)
        until("the outcome", lambda: "the configuration was" in gateway.log)
        assert "the configuration was reloaded" in gateway.log


def test_a_daemon_started_by_one_that_ignores_the_end_of_children(make: Make) -> None:
    gateway = make(max_sessions=1)
    with daemon(gateway, FIRST.format("signal.signal(signal.SIGCHLD, signal.SIG_IGN)")):
        for _ in range(3):
            gateway.connect().logged_in().quits()


def test_started_by_one_that_lets_signals_wait(make: Make) -> None:
    waiting = "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"
    gateway = started(make(), FIRST.format(waiting), "--foreground")
    gateway.signal(signal.SIGHUP)
    gateway.wait_for("the configuration was reloaded")
    gateway.signal(signal.SIGUSR1)
    gateway.wait_for("the log was reopened")
    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 0


def terminal_of(pid: int) -> int:
    """The controlling terminal's number; 0: there is none."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[4])


@pytest.mark.parametrize(
    "become",
    [
        [],
        pytest.param(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"],
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account"),
        ),
    ],
    ids=["owned", "of another account"],
)
def test_nothing_that_a_policy_runs_in_has_the_terminal_of_who_started_it(make: Make, become: list[str]) -> None:
    """Who has it reads what is typed there, and types: by TIOCSTI, as root where root sits there."""
    gateway = make()
    gateway.folder.chmod(0o777)
    gateway.main["control_socket"] = gateway.folder / "control" / "socket"
    gateway.command = [sys.executable, "-c", "import pty, sys; pty.spawn(sys.argv[1:])", *become]
    gateway.command += [sys.executable, RUNNER]
    gateway.start()
    client = gateway.connect().logged_in()
    (template,) = gateway.pids("template")
    master = parent(template)
    try:
        assert terminal_of(master) != 0
        (control,) = [pid for pid, title in titles() if title.startswith("pop3gw: control") and parent(pid) == master]
        for pid in (template, control, *gateway.workers()):
            assert terminal_of(pid) == 0
            descriptors = Path(f"/proc/{pid}/fd")
            assert (descriptors / "0").readlink() == Path(os.devnull)
            for number in ("1", "2"):
                assert (descriptors / number).readlink() == Path("/dev/tty")
                (flags,) = re.findall(r"^flags:\s+(\d+)$", Path(f"/proc/{pid}/fdinfo/{number}").read_text(), re.M)
                assert int(flags, 8) & os.O_ACCMODE == os.O_WRONLY
        client.quits()
        gateway.wait_for("session ended")
    finally:
        os.kill(master, signal.SIGTERM)
    gateway.wait()
