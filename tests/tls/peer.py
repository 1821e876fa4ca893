"""The other end of a TLS connection, step by step: what a whole client of ``ssl`` does not let a test do."""

from __future__ import annotations

import socket
import ssl

from pop3gw.tlsstream import TlsStream
from tests.tls.certificates import NAME


class Peer:
    """The other end, as OpenSSL in memory; what it says and hears passes through a real socket."""

    def __init__(self, context: ssl.SSLContext, end: socket.socket, *, server_side: bool = False) -> None:
        self.come, self.go = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server_side else NAME
        self.tls = context.wrap_bio(self.come, self.go, server_side=server_side, server_hostname=name)
        self.socket = end

    def exchange(self) -> None:
        """Send what is to be sent, take what has come."""
        if self.go.pending:
            self.socket.sendall(self.go.read())
        try:
            while data := self.socket.recv(1 << 20):
                self.come.write(data)
            self.come.write_eof()
        except BlockingIOError:
            pass

    def shake(self, stream: TlsStream) -> None:
        """Both shake hands."""
        done = [False, False]
        while not all(done):
            done[0] = done[0] or stream.shake_hands()
            self.exchange()
            try:
                self.tls.do_handshake()
                done[1] = True
            except ssl.SSLWantReadError:
                pass
            self.exchange()

    def shake_over_a_network(self) -> None:
        """Shake hands with somebody else's process; the socket may block."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.socket.sendall(self.go.read())
                self.come.write(self.socket.recv(1 << 16))
            else:
                self.socket.sendall(self.go.read())
                return

    def say(self, data: bytes) -> None:
        self.tls.write(data)
        self.exchange()

    def hears(self) -> bytes:
        """All that has come."""
        self.exchange()
        return self.hears_rest()

    def hears_rest(self) -> bytes:
        """What can be opened of what was given to ``come``."""
        heard = b""
        while True:
            try:
                data = self.tls.read(1 << 20)
            except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                return heard
            if not data:
                return heard
            heard += data
