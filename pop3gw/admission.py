"""Who a client behind a load balancer is, and whether it may have a session.

The connection first says whom it is for (``arrival``), if it comes from where that is believed; then, where sessions
are counted by client, the master is asked. It knows one connection and its clock, and nothing of sessions.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from time import monotonic
from typing import Final

from pop3gw.arrival import Arrival
from pop3gw.net import Peer
from pop3gw.poller import Poller
from pop3gw.proto.proxyheader import Header
from pop3gw.settings import Service
from pop3gw.stream import Connection
from pop3gw.values import IPNetwork

# How long the master may take to count a client's sessions: it does so at once, or it is gone.
_DECISION_SECONDS: Final = 10.0


class Verdict(enum.Enum):
    """What has come of an admission."""

    ADMITTED = "it may have a session"
    TOO_MANY = "it has as many as it may have"
    UNKNOWN = "nobody knows who it is, or whether it may"


def believed(address: str, networks: Sequence[IPNetwork]) -> bool:
    """Whether who connects from there may say for whom (``proxy_protocol_from``)."""
    return any(ip_address(address) in network for network in networks)


class Admission:
    """One connection's. ``named(client, reached)`` is called where a header tells who the client is and where it had
    connected to; ``ask(address)`` to have its sessions counted, which ``decided`` answers; at the end, once,
    ``done(verdict, reason)``. All of them may be called by ``begin``.
    """

    __slots__ = ("_arrival", "_ask", "_client", "_done", "_named", "_service", "deadline")

    def __init__(
        self,
        client: Connection,
        service: Service,
        *,
        named: Callable[[Peer, Peer], None],
        ask: Callable[[str], None],
        done: Callable[[Verdict, str], None],
    ) -> None:
        self._client = client
        self._service = service
        self._named = named
        self._ask = ask
        self._done = done
        self._arrival: Arrival | None = None
        self.deadline = 0.0  # when ``expire`` is wanted, on the clock of time.monotonic()

    def begin(self, address: str, poller: Poller, now: float) -> None:
        """The connection has come from this address."""
        if not believed(address, self._service.proxy_protocol_from):
            self._done(Verdict.UNKNOWN, "it comes from outside proxy_protocol_from")
            return
        self._arrival = Arrival(self._client, poller=poller, now=now, done=self._arrived)
        self.deadline = self._arrival.deadline

    def decided(self, *, admitted: bool) -> None:
        """The master has counted this client's sessions."""
        if admitted:
            self._done(Verdict.ADMITTED, "")
        else:
            self._done(Verdict.TOO_MANY, "")

    def expire(self, now: float) -> None:
        """The deadline may have come."""
        if now < self.deadline:
            return
        if self._arrival is not None:
            self._arrival.expire()
        else:
            self._done(Verdict.UNKNOWN, "the master does not say whether this client may have a session")

    def cancel(self) -> None:
        """Give up; ``done`` is not called."""
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None

    def _arrived(self, header: Header | None, reason: str) -> None:
        self._arrival = None
        if header is None:
            self._done(Verdict.UNKNOWN, reason)
            return
        if header.client is not None and header.reached is not None:
            self._named(
                Peer(header.client.address, header.client.port), Peer(header.reached.address, header.reached.port)
            )
            if self._service.max_sessions_per_client:
                self.deadline = monotonic() + _DECISION_SECONDS
                self._ask(header.client.address)
                return
        self._done(Verdict.ADMITTED, "")
