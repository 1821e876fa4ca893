"""The clients that people fetch mail with, over TLS: a port in, the messages that they delivered out.

Each trusts the test's authority alone, and must not go on in clear.
"""

from __future__ import annotations

import poplib
import re
import ssl
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.integration import lmtp
from tests.integration.clients import delivered, delivery_program, private_file, run
from tests.integration.servers import PASSWORD, program
from tests.tls.certificates import NAME

USER = "reader"
Client = Callable[[int, Path, bool, Path], list[bytes]]


def python(port: int, authority: Path, implicit: bool, _folder: Path) -> list[bytes]:
    """poplib of the standard library."""
    context = ssl.create_default_context(cafile=str(authority))
    if implicit:
        session: poplib.POP3 = poplib.POP3_SSL(NAME, port, context=context, timeout=60)
    else:
        session = poplib.POP3(NAME, port, timeout=60)
    with closing(session):
        if not implicit:
            session.stls(context)
        session.user(USER)
        session.pass_(PASSWORD)
        count, _ = session.stat()
        messages = [b"\r\n".join(session.retr(number)[1]) + b"\r\n" for number in range(1, count + 1)]
        session.quit()
        return messages


def curl(port: int, authority: Path, implicit: bool, folder: Path) -> list[bytes]:
    """One connection for all messages."""
    scheme = "pop3s" if implicit else "pop3"
    command = [program("curl", "curl"), "--silent", "--show-error", "--ssl-reqd", "--cacert", str(authority)]
    command += ["--user", f"{USER}:{PASSWORD}", "--output", "curl.#1", f"{scheme}://{NAME}:{port}/[1-3]"]
    run(command, folder)
    return [path.read_bytes() for path in sorted(folder.glob("curl.*"))]


def fetchmail(port: int, authority: Path, implicit: bool, folder: Path) -> list[bytes]:
    """fetchmail, each message piped to a delivery program."""
    deliver = delivery_program(folder)
    how = 'ssl sslproto "TLS1.2+"' if implicit else 'sslproto "TLS1.2+"'
    config = private_file(
        folder / "fetchmailrc",
        f"set no bouncemail\nset invisible\npoll {NAME} service {port} protocol POP3 auth password timeout 60\n"
        f'  user "{USER}" password "{PASSWORD}" {how} sslcertck sslcertfile "{authority}"\n'
        f'  fetchall keep no rewrite no mimedecode mda "{deliver}"\n',
    )
    run([program("fetchmail", "fetchmail"), "--nodetach", "--fetchmailrc", str(config)], folder)
    return delivered(folder / "inbox")


def mpop(port: int, authority: Path, implicit: bool, folder: Path) -> list[bytes]:
    """mpop into a Maildir."""
    for name in ("cur", "new", "tmp"):
        (folder / "inbox" / name).mkdir(parents=True)
    config = private_file(
        folder / "mpoprc",
        f"account a\nhost {NAME}\nport {port}\nuser {USER}\npassword {PASSWORD}\nauth user\nkeep on\n"
        f"tls on\ntls_starttls {'off' if implicit else 'on'}\ntls_trust_file {authority}\n"
        f"uidls_file {folder}/uidls\nreceived_header off\ndelivery maildir {folder}/inbox\n",
    )
    run([program("mpop", "mpop"), f"--file={config}", "a"], folder)
    return delivered(folder / "inbox" / "new")


def getmail(port: int, authority: Path, implicit: bool, folder: Path) -> list[bytes]:
    """getmail, which knows POP3S alone."""
    assert implicit
    with lmtp.inbox() as inbox:
        private_file(
            folder / "getmailrc",
            f"[retriever]\ntype = SimplePOP3SSLRetriever\nserver = {NAME}\nport = {port}\nusername = {USER}\n"
            f"password = {PASSWORD}\nca_certs = {authority}\ntimeout = 60\n"
            f"[destination]\ntype = MDA_lmtp\nhost = 127.0.0.1\nport = {inbox.server_address[1]}\n"
            "override = reader@example.invalid\n"
            "[options]\nread_all = true\ndelete = false\nreceived = false\ndelivered_to = false\nverbose = 0\n",
        )
        run([program("getmail", "getmail6"), f"--getmaildir={folder}", f"--rcfile={folder}/getmailrc"], folder)
        return inbox.messages


def s_client(port: int, authority: Path, implicit: bool, folder: Path) -> list[bytes]:
    """openssl s_client, as a person types."""
    command = [program("openssl", "openssl"), "s_client", "-quiet", "-verify_return_error", "-CAfile", str(authority)]
    command += ["-connect", f"{NAME}:{port}", "-servername", NAME]
    command += [] if implicit else ["-starttls", "pop3"]
    requests = [f"user {USER}", f"pass {PASSWORD}", "retr 1", "retr 2", "retr 3", "quit"]
    # Not "RETR": a capital R, or Q, as the first letter of a line is a command to s_client itself.
    done = subprocess.run(
        command,
        cwd=folder,
        input="".join(f"{request}\r\n" for request in requests).encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    found = re.findall(rb"\+OK \d+ octets\r\n(.*?\r\n)\.\r\n", done.stdout, re.DOTALL)
    assert found, done.stderr
    return [message.replace(b"\r\n.", b"\r\n") for message in found]


CLIENTS: dict[str, Client] = {
    "poplib": python,
    "curl": curl,
    "fetchmail": fetchmail,
    "mpop": mpop,
    "getmail": getmail,
    "openssl s_client": s_client,
}
