"""A TLS handshake within a session, from the moment when what was to be said in clear is said.

It steps through ``tlsstream`` and tells the session and its tally what has come of it. It must not know how the
connection is watched, nor what is decided about TLS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pop3gw.proto.events import Side
from pop3gw.proto.session import Session
from pop3gw.stream import reason_of
from pop3gw.tally import Tally

if TYPE_CHECKING:  # ``ssl`` is loaded only where a service uses it
    from pop3gw.tlsstream import TlsStream


class Handshake:
    """With one side, over its stream; it must be done at ``ends`` (monotonic, in seconds)."""

    __slots__ = ("_session", "_tally", "ends", "side", "stream")

    def __init__(self, side: Side, stream: TlsStream, session: Session, tally: Tally, ends: float) -> None:
        self.side = side
        self.stream = stream
        self.ends = ends
        self._session = session
        self._tally = tally

    def go_on(self, now: float) -> bool:
        """Go as far as it goes now; True once it is over, whether or not there is TLS then."""
        stream, side = self.stream, self.side
        try:
            if not stream.shake_hands():
                return False
            subject = stream.subject() if side is Side.CLIENT else None
        except OSError as error:
            if side is Side.CLIENT and stream.silent:  # who looks whether somebody listens is no failure of TLS
                stream.ended = True
                self._session.client_lost("it has left before TLS began", now)
            else:
                self.fail(reason_of(error), now)
            return True
        facts = stream.facts()
        self._tally.tls_started(side, facts.version)
        self._session.tls_started(side, facts, now, subject)
        return True

    def fail(self, reason: str, now: float) -> None:
        """There will be no TLS with this side, and so no session."""
        self._tally.tls_failed(self.side)
        self._session.tls_failed(self.side, reason, now)
        if self.side is Side.CLIENT:
            self.stream.ended = True
