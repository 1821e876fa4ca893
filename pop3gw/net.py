"""Connections to servers: names resolved, each address tried in order, all within one deadline.

Nothing here blocks: a name is resolved in a thread that can be given up, a connection is made in the caller's poller.
A server that speaks first is known to be connected by what it says, which is one thing less to wake up for; one that
keeps silent is looked at when its time is over.

Known limits: ``getaddrinfo`` can't be cancelled; a thread that was given up lives until the resolver's own time is
over. Whether an address is one of the gateway's own listeners is found out once a process, or before it is forked.
"""

from __future__ import annotations

import _thread
import errno
import ipaddress
import os
import socket
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from pop3gw.loops import leads_to
from pop3gw.poller import BROKEN, READ, WRITE, Poller
from pop3gw.stream import Connection, hasten
from pop3gw.times import NEVER
from pop3gw.values import Address, host_and_port

_UNDER_WAY: Final = (0, int(errno.EINPROGRESS))
_Socket: Final = Connection  # compiled, a constant is found faster than what was imported
_STREAM: Final = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
_LOOPS_KEPT: Final = 64  # addresses of which it is known whether they loop: a name may have many, one after another


# No named tuple: that is made by interpreted code, this one by compiled (docs/performance.md).
class Peer:
    """The other end of a connection: a numeric address and a port."""

    __slots__ = ("_text", "address", "port")

    def __init__(self, address: str, port: int) -> None:
        self.address: Final = address
        self.port: Final = port
        self._text = ""  # made when it is asked for: a server is the same for all sessions

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Peer) and self.address == other.address and self.port == other.port

    def __hash__(self) -> int:
        return hash(self.address)

    def __str__(self) -> str:
        if not self._text:
            self._text = host_and_port(self.address, self.port)
        return self._text

    def __repr__(self) -> str:
        return f"Peer({self})"


_Target: TypeAlias = tuple[socket.AddressFamily, Peer]


class Route:
    """The way to one server: what all attempts of a process to reach it have in common."""

    __slots__ = ("_listeners", "_loops", "numeric", "server")

    def __init__(self, server: Address, listeners: frozenset[Address]) -> None:
        self.server = server
        self._listeners = [listener for listener in listeners if listener.port == server.port]
        self._loops: dict[Peer, bool] = {}
        self.numeric: _Target | None = None  # None: a name
        try:
            ipaddress.ip_address(server.host.partition("%")[0])
        except ValueError:
            return
        family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
        peer = Peer(server.host, server.port)
        self.numeric = (family, peer)
        str(peer)  # made here, so that workers have it in common
        # Whether an address is one of this machine may change. Where that does not matter, all processes know by now.
        if not any(listener.ip is not None and listener.ip.is_unspecified for listener in self._listeners):
            self.loops(peer)

    def loops(self, peer: Peer) -> bool:
        """Whether a connection to this address would arrive at a listener of this gateway."""
        found = self._loops.get(peer)
        if found is None:
            if len(self._loops) >= _LOOPS_KEPT:
                self._loops.clear()
            address = peer.address.partition("%")[0]
            found = any(leads_to(Address(address, peer.port), listener) for listener in self._listeners)
            self._loops[peer] = found
        return found


class Connector:
    """One attempt to reach a server. ``done(socket, peer, reason)`` is called once: with a connection, or why not.

    A connection is still watched, for READ: the caller takes it over or forgets it. ``began`` tells since when it was
    tried, ``due(when)`` when ``expire`` is wanted, at the latest. ``speaks_first``: the server does, so that nobody has
    to know earlier that it is connected; ``patience``: seconds after which one that has not spoken is looked at.
    """

    __slots__ = (
        "_addresses",
        "_done",
        "_due",
        "_ends",
        "_found",
        "_patience",
        "_peer",
        "_poller",
        "_reasons",
        "_resolved",
        "_route",
        "_share_ends",
        "_speaks_first",
        "_timeout",
        "_trying",
        "began",
        "deadline",
    )

    def __init__(
        self,
        route: Route,
        *,
        timeout: float,
        poller: Poller,
        done: Callable[[Connection | None, Peer | None, str], None],
        due: Callable[[float], None],
        speaks_first: bool = False,
        patience: float = NEVER,
    ) -> None:
        self._route = route
        self._poller = poller
        self._done = done
        self._due = due
        self._timeout = timeout
        self._speaks_first = speaks_first
        self._patience = patience
        self._found: list[Any] | None = None  # what getaddrinfo gives, written by the resolving thread
        self._addresses: list[_Target] = []
        self._reasons: list[str] = []
        self._trying: Connection | None = None
        self._peer: Peer | None = None
        self._resolved = -1  # the descriptor that the resolving thread writes to
        self._ends = self._share_ends = 0.0
        self.began = 0.0
        self.deadline = 0.0  # when ``expire`` is wanted

    def start(self, now: float) -> None:
        """Begin; may call ``done`` at once."""
        self._ends = self.deadline = now + self._timeout
        if self._route.numeric is not None:
            self._addresses.append(self._route.numeric)
            self._try_next(now)
            return
        try:
            self._resolve(self._route.server.host)
        except OSError as error:  # no descriptors are left
            self._done(None, None, f"{self._route.server}: {error.strerror}")

    def expire(self, now: float) -> None:
        """The deadline has come: the next address, or the end."""
        trying = self._trying
        if trying is None:
            self.cancel()
            self._done(None, None, f"{self._route.server}: its name was not resolved within {self._timeout:g} s")
        elif self._speaks_first and _is_connected(trying):
            self._connected(trying)
        elif now < self._share_ends:
            self.deadline = self._share_ends
        else:
            self._gave_up("timed out")
            self._try_next(now)

    def cancel(self) -> None:
        """Give up; ``done`` is not called."""
        if self._trying is not None:
            self._gave_up("")
        if self._resolved >= 0:
            self._forget_resolver()

    # -- resolving

    def _resolve(self, host: str) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._poller.watch(reading, READ, self._resolver_done)
        except OSError:
            os.close(reading)
            os.close(writing)
            raise
        self._resolved = reading
        try:
            # Not by ``threading``, which would do work of its own in each child of every fork.
            _thread.start_new_thread(self._look_up, (host, writing))
        except RuntimeError as error:  # the limit of processes, threads included, is reached
            self._reasons = [f"{host}: {error}"]
            os.close(writing)

    def _look_up(self, host: str, writing: int) -> None:
        """In a thread of its own: the end of the pipe wakes the poller."""
        try:
            self._found = socket.getaddrinfo(host, self._route.server.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            self._reasons = [f"{host}: {error}"]
        finally:
            os.close(writing)

    def _resolver_done(self, _events: int) -> None:
        if self._resolved < 0:  # given up by an earlier event of the same round
            return
        self._forget_resolver()
        self._addresses = [(family, Peer(str(where[0]), int(where[1]))) for family, _, _, _, where in self._found or ()]
        self._try_next(self._poller.now)

    def _forget_resolver(self) -> None:
        self._poller.forget(self._resolved)
        os.close(self._resolved)
        self._resolved = -1

    # -- connecting

    def _try_next(self, now: float) -> None:
        while self._addresses and now < self._ends:
            family, peer = self._addresses.pop(0)
            if self._route.loops(peer):
                self._reasons.append(f"{peer.address} is a listener of this gateway: a loop")
                continue
            try:
                self._trying = self._begin(family, peer)
            except OSError as error:
                self._reasons.append(f"{peer.address}: {error.strerror or os.strerror(error.errno or 0)}")
                continue
            self._peer = peer
            self.began = now
            # Each address gets its share of the time, so that one that never answers does not use it all up.
            self._share_ends = now + (self._ends - now) / (len(self._addresses) + 1)
            self.deadline = min(self._share_ends, now + self._patience)
            self._due(self.deadline)
            return
        reason = "; ".join(self._reasons) or "its name has no address"
        self._done(None, None, f"{self._route.server}: {reason}")

    def _begin(self, family: socket.AddressFamily, peer: Peer) -> Connection:
        trying = _Socket(family, _STREAM)
        try:
            hasten(trying)
            error = trying.connect_ex((peer.address, peer.port))
            if error not in _UNDER_WAY:
                raise OSError(error, "")
            self._poller.watch(trying.fileno(), READ if self._speaks_first else WRITE, self._answered)
        except OSError:
            trying.close()
            raise
        return trying

    def _answered(self, events: int) -> None:
        trying = self._trying
        if trying is None:  # given up by an earlier event of the same round
            return
        if events & BROKEN and (error := trying.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
            self._gave_up(os.strerror(error))
            self._try_next(self._poller.now)
            return
        self._connected(trying)

    def _connected(self, trying: Connection) -> None:
        self._trying = None
        if not self._speaks_first:
            self._poller.change(trying.fileno(), READ)
        self._done(trying, self._peer, "")

    def _gave_up(self, reason: str) -> None:
        trying, self._trying = self._trying, None
        if trying is not None and self._peer is not None:
            self._poller.forget(trying.fileno())
            trying.close()
            self._reasons.append(f"{self._peer.address}: {reason}")


def _is_connected(trying: Connection) -> bool:
    try:
        trying.getpeername()
    except OSError:
        return False
    return True
