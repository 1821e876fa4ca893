"""What a session leaves behind: counters and a seat that outlive its process, and one summary line in the log.

It must not know what is decided or how bytes move: it reads what a session and its client's connection have come to.
"""

from __future__ import annotations

from typing import Final

from pop3gw.logs import SessionLog
from pop3gw.net import Peer
from pop3gw.proto import counts
from pop3gw.proto.commands import State
from pop3gw.proto.counts import Counters
from pop3gw.proto.events import Ending, Side, Summary
from pop3gw.proto.session import Session
from pop3gw.scoreboard import CALLBACKS_AT, Seat
from pop3gw.stream import Stream
from pop3gw.values import Address

# Looked up once: compiled, what is another library's is searched for each time, and so are its fields.
_SESSIONS: Final[int] = counts.SESSIONS.at
_ENDED_AT: Final = counts.ENDED_AT
_SESSION_SECONDS: Final = counts.SESSION_SECONDS
_CONNECT_SECONDS: Final = counts.CONNECT_SECONDS


class Tally:
    """One session's. ``callbacks``: where the failures of each are counted, behind all others."""

    __slots__ = (
        "_aim",
        "_callbacks",
        "_client",
        "_counters",
        "_journal",
        "_seat",
        "_server",
        "_state",
        "_user",
    )

    def __init__(
        self,
        counters: Counters,
        callbacks: dict[str, int],
        seat: Seat,
        journal: SessionLog,
        client: Peer,
        server: Address,
    ) -> None:
        self._callbacks = callbacks
        self._counters = counters
        self._seat = seat
        self._journal = journal
        self._client = client
        self._aim = server
        self._server = ""  # that was reached
        self._state: State | None = None  # that is shown, with the user
        self._user: str | None = None
        counters[_SESSIONS] += 1

    def introduce(self, client: Peer) -> None:
        """The client is another one than the connection's peer."""
        self._client = client
        self._seat.introduce(client.address, client.port)

    def connected(self, server: Peer, seconds: float) -> None:
        """The server was reached."""
        self._server = str(server)
        self._seat.reach(self._server)
        self._count_time(_CONNECT_SECONDS, seconds)

    def connect_failed(self) -> None:
        """The server was not reached."""
        self._counters[counts.CONNECT_FAILURES.at] += 1

    def tls_started(self, side: Side, version: str) -> None:
        """A handshake is done."""
        if side is Side.CLIENT:
            self._seat.secure(client=version)
        else:
            self._seat.secure(server=version)

    def tls_failed(self, side: Side) -> None:
        """A handshake failed."""
        self._counters[counts.TLS_FAILURES.index(side)] += 1

    def show(self, session: Session) -> None:
        """Put what has changed where titles and status are read."""
        state, user = session.state, session.policy.username
        if state is not self._state or user != self._user:
            self._state, self._user = state, user
            self._seat.stand(state, user or "", lasts=state is State.TRANSACTION)

    def count_failures(self, names: list[str]) -> None:
        """Callbacks with these names have failed; empties the list."""
        for name in names:
            self._counters[CALLBACKS_AT + self._callbacks.get(name, 0)] += 1
        names.clear()

    def conclude(self, session: Session, client: Stream, seconds: float) -> None:
        """The session is over, after so many seconds: one line in the log says how."""
        ending, by = session.ending or Ending.FAULT, session.ended_by or Side.GATEWAY
        self._counters[_ENDED_AT[ending, by]] += 1
        self._count_time(_SESSION_SECONDS, seconds)
        client_tls, server_tls = session.facts.client_tls, session.facts.server_tls
        self._journal.summary(
            Summary(
                client=str(self._client),
                server=self._server or str(self._aim),
                user=session.user,
                login=session.login,
                retrieved=session.retrieved,
                deleted=session.deleted,
                from_client=client.received,
                to_client=client.sent,
                milliseconds=int(seconds * 1000 + 0.5),
                end=ending,
                by=by,
                client_tls=client_tls.version if client_tls else None,
                server_tls=server_tls.version if server_tls else None,
            )
        )

    def _count_time(self, family: counts.Family, seconds: float) -> None:
        self._counters[counts.bucket(family, seconds)] += 1
        self._counters[counts.sum_at(family)] += int(seconds * 1e6)
