"""A POP3 server to try the gateway against: one account, a sample mailbox, and no way to log in but APOP.

Run as a program it listens on a loopback port of the kernel's choice, says the port on its standard output, tells on
standard error what it is asked, and ends when its standard input does: so it can't outlive the demonstration that
started it. The protocol is Twisted's; of pop3gw it knows nothing.

Known limits: the messages are the same in every session, a deletion lasts until the session's end.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import os
import secrets
import sys
import threading
from collections.abc import Callable
from email.message import EmailMessage
from typing import IO, Any

from twisted.cred.error import UnauthorizedLogin
from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.mail.interfaces import IMailboxPOP3
from twisted.mail.pop3 import POP3, Mailbox, POP3Error
from typing_extensions import override  # Twisted brings it; its names are not in our style

USER = b"demo"
PASSWORD = b"demo"


def letter(subject: str, text: str) -> bytes:
    """One message of the sample mailbox, with LF line ends: the protocol turns them into CRLF."""
    message = EmailMessage()
    message["From"] = "pop3gw <pop3gw@demo.invalid>"
    message["To"] = "demo@demo.invalid"
    message["Subject"] = subject
    message["Date"] = "Mon, 23 Nov 2026 12:00:00 +0000"
    message.set_content(text, cte="8bit")
    return message.as_bytes()


SAMPLE = (
    letter(
        "It works",
        "The server behind the gateway knows no password, only APOP. If your client said USER and PASS,\n"
        "the policy pop3gw.policies.apop:UToAPop3 answered USER itself and made an APOP of your PASS:\n"
        "your password never went to the server.\n",
    ),
    letter("Lines that begin with a dot", ".hidden\n.\n..\nThey arrive as they were sent.\n"),
    letter("Any octet passes", "Árvíztűrő tükörfúrógép, žluťoučký kůň, 💌\n"),
)


def say(text: str) -> None:
    """Tell the person who watches, in one write, so that no line of the gateway's falls into it."""
    os.write(sys.stderr.fileno(), f"demo server: {text}\n".encode())


class SampleMailbox(Mailbox):
    """The sample as one session sees it; numbers count from 0 here."""

    def __init__(self) -> None:
        self.deleted: set[int] = set()

    def size(self, index: int) -> int:
        """Octets on the wire, 0 for a deleted message; ValueError when there is no such message."""
        if not 0 <= index < len(SAMPLE):
            raise ValueError(index)
        return 0 if index in self.deleted else len(SAMPLE[index]) + SAMPLE[index].count(b"\n")

    @override
    def listMessages(self, i: int | None = None) -> Any:
        """One size, or all of them."""
        if i is not None:
            return self.size(i)
        return [self.size(index) for index in range(len(SAMPLE))]

    @override
    def getMessage(self, i: int) -> IO[Any]:
        """The message as a file."""
        return io.BytesIO(SAMPLE[i])

    @override
    def getUidl(self, i: int) -> bytes:
        """An id that is the same in every session."""
        if not self.size(i):
            raise ValueError(i)
        return hashlib.sha256(SAMPLE[i]).hexdigest()[:16].encode()

    @override
    def deleteMessage(self, i: int) -> None:
        """Hide a message until the session ends or is reset."""
        self.size(i)
        self.deleted.add(i)

    @override
    def undeleteMessages(self) -> None:
        """RSET."""
        self.deleted.clear()


class ApopOnly(POP3):
    """One session, in which USER, PASS and AUTH are no commands."""

    @override
    def generateMagic(self) -> bytes:
        """The timestamp of the greeting, new for every session (RFC 1939 section 7)."""
        return b"<%s@demo.invalid>" % secrets.token_hex(12).encode()

    @override
    def listCapabilities(self) -> list[bytes]:
        """What CAPA answers: no USER and no SASL."""
        return [b"TOP", b"UIDL", b"PIPELINING", b"EXPIRE NEVER", b"IMPLEMENTATION pop3gw-demo"]

    @override
    def processCommand(self, command: bytes, *args: bytes) -> Any:
        """Refuse the ways to log in that show a password; tell what else is asked."""
        inherited: Any = super()  # not typed by Twisted
        name = command.upper()
        if name in (b"USER", b"PASS", b"AUTH"):
            say(f"refuses {name.decode()}, speaks only APOP")
            inherited.sendLine(b"-ERR Only APOP is spoken here")
            return None
        say("hears " + ascii(b" ".join((name, *args)).decode("latin-1"))[1:-1])
        try:
            return inherited.processCommand(command, *args)
        except (POP3Error, TypeError, ValueError):
            # Left to itself Twisted answers as well, and prints a traceback for what the client did wrong.
            inherited.sendLine(b"-ERR Not understood, or not now")
            return None

    @override
    def authenticateUserAPOP(self, user: bytes, digest: bytes) -> tuple[Any, SampleMailbox, Callable[[], None]]:
        """Check the digest of timestamp and password."""
        right = hashlib.md5((self.magic or b"") + PASSWORD, usedforsecurity=False).hexdigest().encode()
        if user != USER or not hmac.compare_digest(digest.lower(), right):
            raise UnauthorizedLogin("wrong name or password")
        return IMailboxPOP3, SampleMailbox(), lambda: None


def stop_at_end_of_input(stop: Callable[[], None]) -> None:
    """Wait, in a thread of its own, until whoever started this process is done with it, or gone."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    stop()


def main() -> None:
    """Serve until standard input ends."""
    loop: Any = reactor  # a module that Twisted fills in at import
    session: Any = ApopOnly
    sessions = Factory.forProtocol(session)
    sessions.noisy = False
    port = loop.listenTCP(0, sessions, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    threading.Thread(target=stop_at_end_of_input, args=(lambda: loop.callFromThread(loop.stop),), daemon=True).start()
    loop.run(installSignalHandlers=False)


if __name__ == "__main__":
    main()
