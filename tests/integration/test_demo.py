"""`pop3gw --demo`, which is what `make run` starts: it answers, tells what it does, and goes without a trace."""

from __future__ import annotations

import poplib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pop3gw.demo import announced_port
from pop3gw.errors import StartError
from tests.integration.clients import run
from tests.integration.gateway import COMMAND, group_is_gone
from tests.integration.servers import program

READY_SECONDS = 60
STOP_SECONDS = 20
IN_USE = "in use"


@pytest.fixture
def demo(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The demonstration, ready, and the file with what it says.

    Its port is fixed: while another one is shown on this machine, this one waits.
    """
    log = folder / "demo.log"
    deadline = time.monotonic() + READY_SECONDS
    while True:
        with log.open("wb") as output:
            process = subprocess.Popen([COMMAND, "--demo"], stdout=output, stderr=output, start_new_session=True)
        while process.poll() is None and "Ctrl-C" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
        if process.poll() is None or IN_USE not in log.read_text() or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    try:
        assert process.poll() is None, log.read_text()
        yield process, log
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_demo(folder: Path, demo: tuple[subprocess.Popen[bytes], Path]) -> None:
    """The line that it prints works, a password works too, and Ctrl-C ends it."""
    process, log = demo
    assert "curl -u demo:demo pop3://127.0.0.1:1110/1" in log.read_text()

    message = run([program("curl", "curl"), "-sS", "-u", "demo:demo", "pop3://127.0.0.1:1110/1"], folder)
    assert b"\r\nSubject: It works\r\n" in message

    with closing(poplib.POP3("127.0.0.1", 1110, timeout=30)) as client:
        client.user("demo")
        client.pass_("demo")
        count, octets = client.stat()
        assert octets == sum(len(b"\r\n".join(client.retr(number)[1])) + 2 for number in range(1, count + 1))
        client.quit()

    process.send_signal(signal.SIGINT)
    assert process.wait(STOP_SECONDS) == 0
    assert group_is_gone(process.pid)
    said = log.read_text()
    assert "demo server: hears APOP demo" in said
    assert "Traceback" not in said
    assert subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True).stdout == b""


@pytest.mark.usefixtures("demo")
def test_a_wrong_password() -> None:
    """The server behind it does check."""
    with closing(poplib.POP3("127.0.0.1", 1110, timeout=30)) as client:
        client.user("demo")
        with pytest.raises(poplib.error_proto, match="Authentication failed"):
            client.pass_("another")


def test_a_server_that_does_not_start_is_told() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(StartError, match="did not start; see above what it wrote to stderr"):
        announced_port(ours)
