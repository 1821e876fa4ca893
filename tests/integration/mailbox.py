"""The mailbox that every client fetches: 40 messages with what has broken mail programs before.

Messages are bytes with LF line ends, as a Maildir holds them; a server sends them with CRLF.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

MESSAGES = 40


def header(number: int, subject: str) -> bytes:
    """A header that tells the messages apart and gives no client a reason to add a field of its own."""
    return (
        f"Return-Path: <sender@example.invalid>\n"
        f"From: sender@example.invalid\nTo: reader@example.invalid\nSubject: {number} {subject}\n"
        f"Date: Mon, 23 Nov 2026 12:00:{number % 60:02d} +0000\nMessage-ID: <{number}@example.invalid>\n"
    ).encode()


BODIES: tuple[tuple[str, bytes], ...] = (
    ("plain", b"Hello.\n"),
    ("empty body", b""),
    ("one empty line", b"\n"),
    ("empty lines at the end", b"text\n\n\n\n"),
    ("a dot alone", b".\n"),
    ("dots at line starts", b".\n..\n...\n.hidden\n. \nmid . dot\n"),
    ("what looks like the end", b"before\n.\nafter\n\n.\n\nlast\n"),
    ("a dot at the very end", b"text\n."),
    ("no final newline", b"the last line has no end"),
    ("only spaces", b" \n  \n\t\n"),
    ("lines that look like answers", b"+OK\n-ERR no\n+OK 1 2\n-ERR\n.\n+OK\n"),
    ("lines that look like requests", b"QUIT\nDELE 1\nPASS secret\n"),
    ("mbox separators", b"From someone Mon Nov 23 12:00:00 2026\n>From quoted\n"),
    ("8-bit bytes", bytes(range(0x80, 0x100)) + b"\n"),
    ("UTF-8", "Árvíztűrő tükörfúrógép, 日本語, 💌\n".encode()),
    ("broken UTF-8", b"\xc3\x28 \xf0\x9f \xff\xfe\n"),
    ("a NUL", b"before\x00after\n"),
    ("NULs", b"\x00\x00\x00\n.\x00\n\x00.\n"),
    ("every control character", bytes(code for code in range(0x20) if code not in b"\r\n") + b"\x7f\n"),
    ("a line of 998", b"x" * 998 + b"\n"),
    ("a line of 4096", b"y" * 4096 + b"\n"),
    # No longer ones here: fetchmail cuts what exceeds 8 KiB, and where depends on how the octets reach it.
    ("a line of 8000", b"z" * 8000 + b"\n"),
    ("a line of dots", b"." * 8000 + b"\n"),
    ("many short lines", b"a\n" * 20000),
    ("many dots", b".\n" * 20000),
    ("many empty lines", b"\n" * 20000),
)


def random_body(seed: int) -> bytes:
    """Bytes of every value in lines of every length; the same for the same seed."""
    source = random.Random(seed)
    lines = (source.randbytes(source.choice((0, 1, 2, 60, 511, 512, 513, 1500))) for _ in range(200))
    # CR is left out: what a server makes of a bare one in a Maildir is its own affair.
    return b"\n".join(line.replace(b"\r", b"\n.") for line in lines) + b"\n"


def sample() -> list[bytes]:
    """The 40 messages, in the order in which a server numbers them."""
    bodies = list(BODIES)
    bodies += [(f"random {seed}", random_body(seed)) for seed in range(len(bodies), MESSAGES)]
    return [header(number, subject) + b"\n" + body for number, (subject, body) in enumerate(bodies, start=1)]


def long_lines() -> list[bytes]:
    """Messages with lines beyond every buffer, the longest of 3 MB, one that is stuffed among them."""
    lines = (b"z" * 70_000, b"." * 70_000, b"0123456789abcdef" * (3 << 16))
    return [header(number, "long") + b"\nbefore\n" + line + b"\n.after\n" for number, line in enumerate(lines, start=1)]


def as_sent(message: bytes) -> bytes:
    """A message as a server sends it, dots not yet stuffed: CRLF line ends, the last one added if missing."""
    text = message.replace(b"\n", b"\r\n")
    return text if text.endswith(b"\r\n") else text + b"\r\n"


def write_maildir(folder: Path, messages: list[bytes]) -> None:
    """A Maildir that a server numbers in this order, open to whatever account that server runs its sessions as."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("cur", "new", "tmp"):
        (folder / name).mkdir()
    for number, message in enumerate(messages):
        (folder / "cur" / f"{1700000000 + number}.M{number}P1.example:2,").write_bytes(message)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    if os.geteuid() == 0:
        # Dovecot gives what it adds to a Maildir the owner of its folder.
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, "mail", "mail")
