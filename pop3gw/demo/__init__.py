"""The demonstration of ``pop3gw --demo``: the gateway, in the foreground, before an APOP-only server of its own.

The server (``server``) is a child process with an interpreter of its own: the master forks, and must not have
imported a network framework. It ends at the end of its standard input, which the kernel brings about whatever becomes
of this process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pop3gw import config, privileges, startup
from pop3gw.errors import Exit, StartError
from pop3gw.settings import Config
from pop3gw.values import LogLevel

LISTEN = "127.0.0.1:1110"
POLICY = "pop3gw.policies.apop:UToAPop3"
SERVER = Path(__file__).with_name("server.py")
START_SECONDS = 30
STOP_SECONDS = 10

WELCOME = f"""
The gateway listens on {LISTEN}. Behind it is a server that speaks only APOP; the policy {POLICY}
turns the client's USER and PASS into APOP. Try, from another terminal:

    curl -u demo:demo pop3://{LISTEN}/1

curl can APOP by itself. To see the policy at work, log in with a password:

    python3 -c 'import poplib; c = poplib.POP3("127.0.0.1", 1110); print(c.user("demo"), c.pass_("demo"), c.stat())'

What they say to each other appears below. Ctrl-C ends it.
"""


def run_demo() -> int:
    """Run until a signal says otherwise; returns the exit status. Raises StartError, ConfigurationError."""
    if importlib.util.find_spec("twisted") is None:
        raise StartError("the demonstration needs Twisted; install it with: pip install 'pop3gw[demo]'")
    try:
        with server() as port:
            settings = configuration(port)
            return startup.run(settings, foreground=True, reload=lambda: settings, ready=welcome)
    except KeyboardInterrupt:  # before the master takes signals, or after
        return Exit.OK


def configuration(server_port: int) -> Config:
    """One service, which shows the conversation of its sessions."""
    first_try = config.from_command_line(LISTEN, f"127.0.0.1:{server_port}", POLICY)
    services = tuple(dataclasses.replace(service, name="demo") for service in first_try.services)
    return dataclasses.replace(first_try, services=services, policy_path=(), log_level=LogLevel.DEBUG)


def welcome() -> None:
    """Say what to try, in one write, so that no line of the log falls into it."""
    os.write(sys.stderr.fileno(), WELCOME.encode())


@contextlib.contextmanager
def server() -> Iterator[int]:
    """The POP3 server, until the block ends; yields its port. Raises StartError."""
    account = privileges.find_account(None, None)
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            # A session of its own: Ctrl-C is for the gateway, whose sessions end first.
            child = subprocess.Popen(  # noqa: S603 - this interpreter, a file of this package
                [sys.executable, "-P", str(SERVER)],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                start_new_session=True,
                user=None if account is None else account.uid,
                group=None if account is None else account.gid,
                extra_groups=None if account is None else (),
            )
        try:
            yield announced_port(ours)
        finally:
            ours.shutdown(socket.SHUT_WR)
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def announced_port(said: socket.socket) -> int:
    """The port that the server says it listens on. Raises StartError."""
    said.settimeout(START_SECONDS)
    try:
        return int(said.makefile("r").readline())
    except (OSError, ValueError) as error:
        raise StartError("the demonstration's server did not start; see above what it wrote to stderr") from error
