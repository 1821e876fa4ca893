"""A place that mail is delivered to by LMTP (RFC 2033): it takes every message and keeps it, bit for bit."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Iterator

ANSWERS = {b"LHLO": b"250-test.invalid\r\n250 8BITMIME", b"DATA": b"354 go on", b"QUIT": b"221 bye"}


class Inbox(socketserver.ThreadingTCPServer):
    """Listens on a loopback port; `messages` is what has come."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Delivery)
        self.messages: list[bytes] = []


class Delivery(socketserver.StreamRequestHandler):
    """One connection."""

    server: Inbox

    def handle(self) -> None:
        self.wfile.write(b"220 test.invalid LMTP\r\n")
        for line in self.rfile:
            verb = line.split(maxsplit=1)[0].upper()
            self.wfile.write(ANSWERS.get(verb, b"250 ok") + b"\r\n")
            if verb == b"DATA":
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.messages.append(b"".join(line.removeprefix(b".") for line in lines))
                self.wfile.write(b"250 kept\r\n")
            elif verb == b"QUIT":
                break


@contextlib.contextmanager
def inbox() -> Iterator[Inbox]:
    """An inbox that takes mail until the block ends."""
    with Inbox() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
