"""A connection behind a load balancer, until its PROXY header has said who the client is.

The header is looked at where it lies (MSG_PEEK) and taken off the connection once it is whole, so that the session, or
TLS, begins with the first octet behind it. It knows sockets and ``proto.proxyheader``, and nothing of sessions.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

from pop3gw.poller import READ, Poller
from pop3gw.proto.proxyheader import LONGEST, Header, ProxyHeaderError, parse
from pop3gw.stream import Connection

SECONDS: Final = 10.0  # in which the header must come


class Arrival:
    """Reads one header. ``done(header, reason)`` is called once: with the header, or with why there is none."""

    def __init__(
        self,
        client: Connection,
        *,
        poller: Poller,
        now: float,
        done: Callable[[Header | None, str], None],
    ) -> None:
        self._client = client
        self._poller = poller
        self._done = done
        self._seen = 0
        self._over = False
        self.deadline = now + SECONDS
        poller.watch(client.fileno(), READ, self._ready)

    def expire(self) -> None:
        """The deadline has come."""
        self._end(None, f"no whole PROXY header within {SECONDS:g} s")

    def cancel(self) -> None:
        """Give up; ``done`` is not called."""
        self._over = True
        self._poller.forget(self._client.fileno())

    def _ready(self, _events: int) -> None:
        if self._over:  # by an earlier event of the same round
            return
        try:
            data = self._client.recv(LONGEST, socket.MSG_PEEK)
            if len(data) == self._seen:
                self._end(None, "the connection ended within the PROXY header")
                return
            header = parse(data)
            if header is None:
                # Wake up only for more than has been seen: what was peeked at stays readable.
                self._seen = len(data)
                self._client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, self._seen + 1)
                return
            self._client.recv(header.length)
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        except BlockingIOError:
            return
        except ProxyHeaderError as error:
            self._end(None, f"no PROXY header: {error}")
        except OSError as broken:
            self._end(None, f"the connection broke: {broken.strerror}")
        else:
            self._end(header, "")

    def _end(self, header: Header | None, reason: str) -> None:
        self.cancel()
        self._done(header, reason)
