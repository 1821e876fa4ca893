"""Real POP3 servers, each started for one test module on a loopback port, with folders and accounts of its own.

Nothing of the machine's mail is read or written. Started as root the servers run their sessions as unprivileged
accounts, as they do in the world; started otherwise they keep the account of whoever runs the tests.

Known limit: neither server takes port 0, so a free port is looked for, and another one when somebody was faster.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.integration.mailbox import write_maildir

BASE_CONFIG = Path(__file__).parent.parent / "dovecot" / "dovecot.conf"
PASSWORD = "demo"
START_SECONDS = 30
STOP_SECONDS = 10
ATTEMPTS = 5
MAILUTILS_DOMAIN = "test.invalid"


class ServerError(Exception):
    """A server did not come up; the text holds what it said."""


@dataclass(frozen=True, slots=True)
class Server:
    """A POP3 server that answers."""

    port: int
    mail: Path
    log: Path
    domain: str = ""
    folder: str = ""
    host: str = "127.0.0.1"

    def user(self, name: str, messages: list[bytes]) -> str:
        """Make a mailbox; returns the name to log in with."""
        write_maildir(self.mail / name / self.folder, messages)
        return f"{name}@{self.domain}" if self.domain else name


def program(name: str, package: str) -> str:
    """The path of a program, or a failure that says how to get it."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")
    if path is None:
        raise ServerError(f"{name} is missing; install it with: apt-get install --no-install-recommends {package}")
    return path


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def greets(port: int) -> bool:
    """Whether a POP3 server answers there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            return connection.recv(512).startswith(b"+OK")
    except OSError:
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server, gently if it lets us."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def started(log: Path, command: Callable[[int], list[str]]) -> Iterator[int]:
    """Run the server that `command` names for a port, until the block ends; yields the port that it answers on."""
    for _ in range(ATTEMPTS):
        port = free_port()
        with log.open("ab") as output:
            process = subprocess.Popen(command(port), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + START_SECONDS
            while process.poll() is None and time.monotonic() < deadline:
                # The process is looked at again: what greets may be whoever took the port before it.
                if greets(port) and process.poll() is None:
                    yield port
                    return
                time.sleep(0.05)
        finally:
            stop(process)
    raise ServerError(f"no server came up in {ATTEMPTS} attempts:\n{log.read_text(errors='replace')}")


def dovecot_overrides(folder: Path, port: int, mechanisms: str) -> str:
    """What this Dovecot has of its own, to stand below the configuration that all share."""
    lines = [
        f"base_dir = {folder}/run",
        f"state_dir = {folder}/state",
        f"log_path = {folder}/dovecot.log",
        "listen = 127.0.0.1",
        f"auth_mechanisms = {mechanisms}",
        f"mail_location = maildir:{folder}/mail/%u",
        f"service pop3-login {{\n inet_listener pop3 {{\n port = {port}\n }}\n}}",
    ]
    if os.geteuid() != 0:
        account = pwd.getpwuid(os.geteuid()).pw_name
        group = grp.getgrgid(os.getegid()).gr_name
        lines += [
            f"default_internal_user = {account}",
            f"default_internal_group = {group}",
            f"default_login_user = {account}",
            f"mail_uid = {account}",
            f"mail_gid = {group}",
            "service anvil {\n chroot =\n}",
            "service pop3-login {\n chroot =\n}",
        ]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def dovecot(folder: Path, mechanisms: str = "plain apop cram-md5", more: str = "") -> Iterator[Server]:
    """Dovecot as a process; any user name, PASSWORD for all. Its mail and sockets are below `folder`.

    `more` is configuration of the caller's, which wins.
    """
    binary = program("dovecot", "dovecot-pop3d")
    config = folder / "dovecot.conf"
    for name in ("run", "state", "mail"):
        (folder / name).mkdir(mode=0o755)

    def command(port: int) -> list[str]:
        config.write_text(f"!include {BASE_CONFIG}\n" + dovecot_overrides(folder, port, mechanisms) + more)
        return [binary, "-F", "-c", str(config)]

    with started(folder / "dovecot.log", command) as port:
        yield Server(port, folder / "mail", folder / "dovecot.log")


def mailutils_config(folder: Path, port: int) -> str:
    """GNU mailutils keeps its users in a virtual domain and its APOP secrets in a database of its own."""
    return f"""
mode daemon;
foreground yes;
logging {{ syslog no; }};
tcp-wrappers {{ enable no; }};
mandatory-locking {{ enable no; }};
pidfile "{folder}/pop3d.pid";
auth {{
  authentication clear; authentication generic;
  authorization clear; authorization virtdomain;
}};
virtdomain {{ passwd-dir "{folder}/domains"; }};
apop-database-file "{folder}/apop.db";
mailbox {{ mailbox-type maildir; }};
server 127.0.0.1:{port} {{ transcript no; }};
"""


@contextlib.contextmanager
def mailutils(folder: Path, users: list[str]) -> Iterator[Server]:
    """The POP3 server of GNU mailutils, for these users, PASSWORD for all."""
    binary = program("pop3d", "mailutils-pop3d")
    popauth = program("popauth", "mailutils-pop3d")
    config = folder / "pop3d.conf"
    (folder / "mail").mkdir(mode=0o755)
    (folder / "domains").mkdir(mode=0o755)
    crypted = subprocess.run(
        [program("openssl", "openssl"), "passwd", "-5", PASSWORD], check=True, capture_output=True, text=True
    ).stdout.strip()
    mail = pwd.getpwnam("mail") if os.geteuid() == 0 else pwd.struct_passwd(("root", "x", 0, 0, "", "", ""))
    (folder / "domains" / MAILUTILS_DOMAIN).write_text(
        "".join(
            f"{name}:{crypted}:{mail.pw_uid}:{mail.pw_gid}:{name}:{folder}/mail/{name}:/bin/false\n" for name in users
        )
    )
    for name in users:
        add = [popauth, "--add", f"--file={folder}/apop.db"]
        subprocess.run([*add, f"--user={name}@{MAILUTILS_DOMAIN}", f"--password={PASSWORD}"], check=True)

    def command(port: int) -> list[str]:
        config.write_text(mailutils_config(folder, port))
        as_root = [] if os.geteuid() == 0 else [program("unshare", "util-linux"), "--map-root-user", "--map-auto"]
        return [*as_root, binary, "--no-site-config", f"--config-file={config}"]

    with started(folder / "pop3d.log", command) as port:
        yield Server(port, folder / "mail", folder / "pop3d.log", domain=MAILUTILS_DOMAIN, folder="INBOX")
