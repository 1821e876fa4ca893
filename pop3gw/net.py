"""Connections to servers: names resolved, each address tried in order, all within one deadline.

Nothing here blocks: a name is resolved in a thread that can be given up, a connection is made in the caller's selector.
Known limit: ``getaddrinfo`` can't be cancelled; a thread that was given up lives until the resolver's own time is over.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pop3gw.loops import leads_to
from pop3gw.values import Address

# Noticing a peer that vanished: the first probe after a minute of silence, given up after four more.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 20), (socket.TCP_KEEPCNT, 4))


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection: a numeric address and a port."""

    address: str
    port: int


def tune(connection: socket.socket) -> None:
    """Make a TCP connection fit for an interactive protocol: non-blocking, no Nagle, keep-alive."""
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


class Connector:
    """One attempt to reach a server. ``done(socket, peer, reason)`` is called once: with a connection, or why not."""

    def __init__(
        self,
        server: Address,
        *,
        timeout: float,
        listeners: frozenset[Address],
        selector: selectors.BaseSelector,
        done: Callable[[socket.socket | None, Peer | None, str], None],
    ) -> None:
        self._server = server
        self._listeners = listeners
        self._selector = selector
        self._done = done
        self._timeout = timeout
        self._found: list[Any] = []  # what getaddrinfo gives, written by the resolving thread
        self._addresses: list[tuple[socket.AddressFamily, Peer]] = []
        self._reasons: list[str] = []
        self._trying: socket.socket | None = None
        self._resolved = -1  # the descriptor that the resolving thread writes to
        self._ends = 0.0
        self.deadline = 0.0  # when ``expire`` is wanted

    def start(self, now: float) -> None:
        """Begin; may call ``done`` at once."""
        self._ends = self.deadline = now + self._timeout
        host = self._server.host
        try:
            ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            try:
                self._resolve(host)
            except OSError as error:  # no descriptors are left
                self._done(None, None, f"{self._server}: {error.strerror}")
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._addresses = [(family, Peer(host, self._server.port))]
            self._try_next(now)

    def expire(self, now: float) -> None:
        """The deadline has come: the next address, or the end."""
        if self._trying is not None:
            self._gave_up("timed out")
            self._try_next(now)
        else:
            self.cancel()
            self._done(None, None, f"{self._server}: its name was not resolved within {self._timeout:g} s")

    def cancel(self) -> None:
        """Give up; ``done`` is not called."""
        if self._trying is not None:
            self._gave_up("")
        if self._resolved >= 0:
            self._selector.unregister(self._resolved)
            os.close(self._resolved)
            self._resolved = -1

    # -- resolving

    def _resolve(self, host: str) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._resolved = reading
        self._selector.register(reading, selectors.EVENT_READ, self._resolver_done)

        def resolve() -> None:
            try:
                self._found = socket.getaddrinfo(host, self._server.port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                self._reasons = [f"{host}: {error}"]
            finally:
                os.close(writing)  # its end of file wakes the selector

        try:
            threading.Thread(target=resolve, name="resolve", daemon=True).start()
        except RuntimeError as error:  # the limit of processes, threads included, is reached
            self._reasons = [f"{host}: {error}"]
            os.close(writing)

    def _resolver_done(self, _mask: int) -> None:
        self._selector.unregister(self._resolved)
        os.close(self._resolved)
        self._resolved = -1
        self._addresses = [(family, Peer(str(where[0]), int(where[1]))) for family, _, _, _, where in self._found]
        self._try_next(time.monotonic())

    # -- connecting

    def _try_next(self, now: float) -> None:
        while self._addresses and now < self._ends:
            family, peer = self._addresses.pop(0)
            where = Address(peer.address.partition("%")[0], peer.port)
            if any(leads_to(where, listener) for listener in self._listeners):
                self._reasons.append(f"{peer.address} is a listener of this gateway: a loop")
                continue
            try:
                trying = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:
                self._reasons.append(f"{peer.address}: {error.strerror}")
                continue
            self._trying, self._peer = trying, peer
            tune(trying)
            try:
                trying.connect((peer.address, peer.port))
            except BlockingIOError:
                # Each address gets its share of the time, so that one that never answers does not use it all up.
                self.deadline = now + (self._ends - now) / (len(self._addresses) + 1)
                self._selector.register(trying, selectors.EVENT_WRITE, self._answered)
                return
            except OSError as error:
                trying.close()
                self._trying = None
                self._reasons.append(f"{peer.address}: {error.strerror}")
                continue
            self._connected(trying)
            return
        reason = "; ".join(self._reasons) or "its name has no address"
        self._done(None, None, f"{self._server}: {reason}")

    def _answered(self, _mask: int) -> None:
        trying = self._trying
        if trying is None:
            return
        error = trying.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._gave_up(os.strerror(error))
            self._try_next(time.monotonic())
            return
        self._selector.unregister(trying)
        self._connected(trying)

    def _connected(self, trying: socket.socket) -> None:
        self._trying = None
        self._done(trying, self._peer, "")

    def _gave_up(self, reason: str) -> None:
        trying, self._trying = self._trying, None
        if trying is not None:
            with contextlib.suppress(KeyError):
                self._selector.unregister(trying)
            trying.close()
            self._reasons.append(f"{self._peer.address}: {reason}")
