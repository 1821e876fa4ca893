"""Connections to servers: names resolved, each address tried in order, all within one deadline.

Nothing here blocks: a name is resolved in a thread that can be given up, a connection is made in the caller's poller.
A server that speaks first is known to be connected by what it says, which is one thing less to wake up for; one that
keeps silent is looked at when its time is over.

Known limits: ``getaddrinfo`` can't be cancelled; a look-up that nobody waits for any more lives until the resolver's
own time is over. Whether an address is one of the gateway's own listeners is found out once a process, or before it is
forked.
"""

from __future__ import annotations

import _thread
import errno
import ipaddress
import os
import socket
from collections.abc import Callable
from typing import Final, TypeAlias

from pop3gw.loops import leads_to
from pop3gw.poller import BROKEN, READ, WRITE, Poller
from pop3gw.stream import Connection, hasten
from pop3gw.times import NEVER
from pop3gw.values import Address, host_and_port

_UNDER_WAY: Final = (0, int(errno.EINPROGRESS))
_Socket: Final = Connection  # compiled, a constant is found faster than what was imported
_STREAM: Final = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
# s: who comes later has a look-up of its own, since what the one before has asked may be lost.
_NEW: Final = 5.0
_LOOK_UPS: Final = 8  # at once in a process: whoever comes then waits for the newest
_HANGS: Final = 60.0  # s: but not for one that is older
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


class LookUp:
    """One resolution of a name, in a thread of its own; ``waiting`` are told once it is over."""

    __slots__ = ("addresses", "began", "reason", "waiting")

    def __init__(self, began: float) -> None:
        self.began = began
        self.waiting: list[Connector] = []
        self.addresses: list[_Target] = []
        self.reason = ""  # why there are none

    def start(self, server: Address, poller: Poller, done: Callable[[LookUp], None]) -> None:
        """Call ``done`` from the poller, once. OSError: no descriptors are left."""
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

        def over(_events: int) -> None:
            poller.forget(reading)
            os.close(reading)
            done(self)

        try:
            poller.watch(reading, READ, over)
        except OSError:
            os.close(reading)
            os.close(writing)
            raise
        try:
            # Not by ``threading``, which would do work of its own in each child of every fork.
            _thread.start_new_thread(self._run, (server, writing))
        except RuntimeError as error:  # the limit of processes, threads included, is reached
            self.reason = f"{server.host}: {error}"
            os.close(writing)

    def _run(self, server: Address, writing: int) -> None:
        """In the thread: the end of the pipe wakes the poller."""
        try:
            found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
            self.addresses = [(family, Peer(str(where[0]), int(where[1]))) for family, _, _, _, where in found]
        except (OSError, UnicodeError) as error:
            self.reason = f"{server.host}: {error}"
        finally:
            os.close(writing)


class Route:
    """The way to one server: what all attempts of a process to reach it have in common."""

    __slots__ = ("_listeners", "_look_ups", "_loops", "numeric", "server")

    def __init__(self, server: Address, listeners: frozenset[Address]) -> None:
        self.server = server
        self._listeners = [listener for listener in listeners if listener.port == server.port]
        self._loops: dict[Peer, bool] = {}
        self._look_ups: list[LookUp] = []  # under way, oldest first
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

    def look_up(self, poller: Poller, now: float) -> LookUp:
        """The resolution of the server's name to wait for. OSError: none can be started."""
        under_way = self._look_ups
        if under_way and now - under_way[-1].began < (_NEW if len(under_way) < _LOOK_UPS else _HANGS):
            return under_way[-1]
        fresh = LookUp(now)
        fresh.start(self.server, poller, self._looked_up)
        under_way.append(fresh)
        return fresh

    def _looked_up(self, over: LookUp) -> None:
        self._look_ups.remove(over)
        for connector in over.waiting.copy():
            connector.resolved(over)

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
        "_look_up",
        "_patience",
        "_peer",
        "_poller",
        "_reasons",
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
        self._look_up: LookUp | None = None  # that this waits for
        self._addresses: list[_Target] = []
        self._reasons: list[str] = []
        self._trying: Connection | None = None
        self._peer: Peer | None = None
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
            self._look_up = self._route.look_up(self._poller, now)
        except OSError as error:  # no descriptors are left
            self._done(None, None, f"{self._route.server}: {error.strerror}")
            return
        self._look_up.waiting.append(self)

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
        if self._look_up is not None:
            self._look_up.waiting.remove(self)
            self._look_up = None

    def resolved(self, over: LookUp) -> None:
        """The look-up that this waits for is over."""
        self._look_up = None
        self._addresses = over.addresses.copy()
        if over.reason:
            self._reasons.append(over.reason)
        self._try_next(self._poller.now)

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
