"""The end of a session's client: it gets its last answer, then its connection is closed.

Closing over unread input would reset the connection, and the reset would eat the answer. So once all is sent the client
is told that nothing more comes, and what it still says is taken and dropped, for a while. It knows one connection and
its clock, nothing of sessions; its caller waits for what ``waits_for`` says, and closes the connection once ``over``.
"""

from __future__ import annotations

from typing import Final

from pop3gw.poller import READ, WRITE
from pop3gw.stream import Stream

# After the last answer: how long, and for how many octets, the client may go on before its connection is closed.
DRAIN_SECONDS: Final = 2.0
DRAIN_OCTETS: Final = 64 * 1024 * 1024
# How long a client may take no octet of what it is still owed.
LAST_WORDS_SECONDS: Final = 30.0


class Farewell:
    """What is left to do for a client whose session is over; ``ends``: when it is to be closed in any case."""

    __slots__ = ("_client", "_drained", "ends")

    def __init__(self, client: Stream, now: float) -> None:
        self._client = client
        self._drained = 0
        self.ends = now + LAST_WORDS_SECONDS
        if client.unsent is None:
            self._end_writing(now)

    @property
    def waits_for(self) -> int:
        """The event of the poller that is wanted."""
        return READ if self._client.unsent is None else WRITE

    def go_on(self, now: float) -> bool:
        """That event has come, or another; returns whether the client has said something, so that there may be more."""
        client = self._client
        try:
            if client.unsent is None:
                said = client.read()
                if said:
                    self._drained += len(said)
                    return True
            elif client.flush():
                self._end_writing(now)
            else:
                self.ends = now + LAST_WORDS_SECONDS
        except OSError:
            client.lose()
        return False

    def over(self, now: float) -> bool:
        """Whether the connection is to be closed now."""
        client = self._client
        return (client.ended and client.unsent is None) or self._drained > DRAIN_OCTETS or now >= self.ends

    def fileno(self) -> int:
        """The connection's descriptor."""
        return self._client.socket.fileno()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _end_writing(self, now: float) -> None:
        self.ends = now + DRAIN_SECONDS
        try:
            self._client.end_writing()
        except OSError:
            self._client.lose()
