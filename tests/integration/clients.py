"""The clients that people fetch mail with, each as one function: an account in, the messages that it delivered out.

Every client is told to leave the messages as they came. What a client alters all the same (a mail program writes the
line ends of its system, say) it alters through the gateway as without it, which is what the tests compare.
"""

from __future__ import annotations

import hashlib
import poplib
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration import lmtp
from tests.integration.servers import PASSWORD, program

CLIENT_SECONDS = 100
MULTILINE = re.compile(r"LIST|UIDL|RETR .*|TOP .*")


class ClientError(Exception):
    """A client failed; the text holds what it said."""


@dataclass(frozen=True, slots=True)
class Account:
    """Where and as whom a client logs in; with `apop` it must use APOP, without it USER and PASS."""

    port: int
    user: str
    apop: bool = False
    password: str = PASSWORD
    host: str = "127.0.0.1"


Client = Callable[[Account, Path], list[bytes]]


def run(command: list[str], folder: Path, *, allowed: tuple[int, ...] = (0,)) -> bytes:
    """Run a client with `folder` as its home; returns its standard output."""
    environment = {
        "HOME": str(folder),
        "FETCHMAILHOME": str(folder),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LC_ALL": "C",
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=CLIENT_SECONDS
    )
    if done.returncode not in allowed:
        said = (done.stdout + done.stderr)[-4000:].decode(errors="backslashreplace")
        raise ClientError(f"{command[0]} ended with {done.returncode}:\n{said}")
    return done.stdout


def private_file(path: Path, text: str) -> Path:
    """A file that only its owner may read: clients refuse others, a password is in it."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def delivery_program(folder: Path) -> Path:
    """A program that puts what it reads into a file of its own in `folder`/inbox."""
    (folder / "inbox").mkdir()
    script = folder / "deliver"
    script.write_text(f"#!/bin/sh\nexec cat > \"$(mktemp '{folder}/inbox/message.XXXXXXXX')\"\n")
    script.chmod(0o755)
    return script


def delivered(inbox: Path) -> list[bytes]:
    """The messages that lie in a folder, one a file, in an order that does not depend on their names."""
    return sorted(path.read_bytes() for path in inbox.iterdir() if path.is_file())


def curl(account: Account, folder: Path) -> list[bytes]:
    """One message a connection. Which login it takes is curl's own choice: APOP where the greeting has a timestamp."""
    base = f"pop3://{account.host}:{account.port}/"
    command = [program("curl", "curl"), "--silent", "--show-error", "--user", f"{account.user}:{account.password}"]
    numbers = [line.split()[0].decode() for line in run([*command, base], folder).splitlines()]
    for number in numbers:
        run([*command, "--output", f"curl.{number}", base + number], folder)
    return [(folder / f"curl.{number}").read_bytes() for number in numbers]


def fetchmail(account: Account, folder: Path, *, keep: bool = True) -> list[bytes]:
    """fetchmail, each message piped to a delivery program."""
    deliver = delivery_program(folder)
    protocol = "protocol APOP" if account.apop else "protocol POP3 auth password"
    config = private_file(
        folder / "fetchmailrc",
        f"set no bouncemail\nset invisible\npoll {account.host} service {account.port} {protocol} timeout 60\n"
        f'  user "{account.user}" password "{account.password}" sslproto ""\n'
        f'  fetchall {"keep" if keep else "nokeep"} no rewrite no mimedecode mda "{deliver}"\n',
    )
    run([program("fetchmail", "fetchmail"), "--nodetach", "--fetchmailrc", str(config)], folder)
    return delivered(folder / "inbox")


def mpop(account: Account, folder: Path, *, keep: bool = True) -> list[bytes]:
    """mpop, pipelining when the server offers it, into a Maildir."""
    for name in ("cur", "new", "tmp"):
        (folder / "inbox" / name).mkdir(parents=True)
    config = private_file(
        folder / "mpoprc",
        f"account test\nhost {account.host}\nport {account.port}\ntls off\ntimeout 60\n"
        f"auth {'apop' if account.apop else 'user'}\nuser {account.user}\npassword {account.password}\n"
        f"uidls_file {folder}/uidls\nkeep {'on' if keep else 'off'}\nreceived_header off\n"
        f"delivery maildir {folder}/inbox\n",
    )
    run([program("mpop", "mpop"), f"--file={config}", "--quiet", "test"], folder)
    return delivered(folder / "inbox" / "new")


def getmail(account: Account, folder: Path, *, keep: bool = True) -> list[bytes]:
    """getmail, delivering by LMTP.

    Every other destination of getmail's is a child process for each message, whose end it misses (for 60 s, then it
    gives up) when the child is quicker than its own next step.
    """
    with lmtp.inbox() as inbox:
        private_file(
            folder / "getmailrc",
            f"[retriever]\ntype = SimplePOP3Retriever\nserver = {account.host}\nport = {account.port}\n"
            f"username = {account.user}\npassword = {account.password}\nuse_apop = {account.apop}\ntimeout = 60\n"
            f"[destination]\ntype = MDA_lmtp\nhost = 127.0.0.1\nport = {inbox.server_address[1]}\n"
            f"override = reader@example.invalid\n"
            f"[options]\nread_all = true\ndelete = {not keep}\nreceived = false\ndelivered_to = false\nverbose = 0\n",
        )
        run([program("getmail", "getmail6"), f"--getmaildir={folder}", f"--rcfile={folder}/getmailrc"], folder)
        return inbox.messages


@contextmanager
def long_lines(limit: int) -> Iterator[None]:
    """Let poplib take lines up to this many octets; its own limit is 2048."""
    before = poplib._MAXLINE  # type: ignore[attr-defined]
    poplib._MAXLINE = limit  # type: ignore[attr-defined]
    try:
        yield
    finally:
        poplib._MAXLINE = before  # type: ignore[attr-defined]


def python(account: Account, _folder: Path) -> list[bytes]:
    """poplib of the standard library."""
    with long_lines(8 << 20), closing(poplib.POP3(account.host, account.port, timeout=60)) as session:
        if account.apop:
            session.apop(account.user, account.password)
        else:
            session.user(account.user)
            session.pass_(account.password)
        count, _ = session.stat()
        messages = [b"\r\n".join(session.retr(number)[1]) + b"\r\n" for number in range(1, count + 1)]
        session.quit()
        return messages


def netcat(account: Account, folder: Path, messages: int) -> bytes:
    """A whole session as a shell script would hold it: every request is sent before the first answer is read.

    Returns what came back, the greeting, which is another one each time, left out.
    """
    requests = [f"USER {account.user}", f"PASS {account.password}", "STAT", "LIST", "UIDL"]
    requests += [f"RETR {number}" for number in range(1, messages + 1)]
    requests += ["TOP 7 3", "NOOP", "RETR 999", "QUIT"]
    script = folder / "requests"
    script.write_text("".join(f"{request}\r\n" for request in requests))
    # -N: the sending side is shut down behind the last request; the answers come all the same.
    command = f"exec {program('nc.openbsd', 'netcat-openbsd')} -N {account.host} {account.port} < {script}"
    return run(["/bin/sh", "-c", command], folder).split(b"\r\n", 1)[1]


def transcript(account: Account, messages: int) -> bytes:
    """What a server answers after the login, octet for octet, to every request that fetches something.

    It is the measure for the others: it does no more than send lines and read what comes. Raises ClientError when
    the login is refused.
    """
    requests = ["STAT", "LIST", "UIDL", "LIST 2", "UIDL 2", "NOOP", "RETR 999"]
    for number in range(1, messages + 1):
        requests += [f"RETR {number}", f"TOP {number} 5"]
    with socket.create_connection((account.host, account.port), timeout=60) as connection:
        reader = connection.makefile("rb")
        greeting = reader.readline()
        if account.apop:
            timestamp = greeting[greeting.index(b"<") : greeting.index(b">") + 1]
            digest = hashlib.md5(timestamp + account.password.encode()).hexdigest()
            login = [f"APOP {account.user} {digest}"]
        else:
            login = [f"USER {account.user}", f"PASS {account.password}"]

        def ask(request: str) -> bytes:
            connection.sendall(f"{request}\r\n".encode())
            answer = reader.readline()
            if answer.startswith(b"+OK") and MULTILINE.fullmatch(request):
                answer += b"".join(iter(reader.readline, b".\r\n")) + b".\r\n"
            return answer

        for request in login:
            answer = ask(request)
            if not answer.startswith(b"+OK"):
                raise ClientError(f"{request.split()[0]} was answered {answer!r}")
        return b"".join(ask(request) for request in [*requests, "QUIT"]) + reader.read()


# By the names under which people know them.
CLIENTS: dict[str, Client] = {
    "curl": curl,
    "fetchmail": fetchmail,
    "mpop": mpop,
    "getmail": getmail,
    "poplib": python,
}
