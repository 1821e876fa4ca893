"""Clients that get no session: what they are told, and when they are let go.

It knows their sockets and the time that it is told, no pool and no log: whom to refuse is decided by others. It waits
for nobody: who can't take the answer at once goes without.

Known limit: where TLS comes first the client can't be told, since the master speaks none.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from typing import Final

from pop3gw.proto.counts import Reason
from pop3gw.times import NEVER

KEPT: Final = 64  # clients that may still be reading what they were told, and how long (s)
KEPT_FOR: Final = 1.0
TOO_MANY: Final = "[SYS/TEMP] too many sessions from your address"
TOO_MANY_LOGGED: Final = "too many sessions from this address (max_sessions_per_client)"
_ANSWERS: Final = {
    Reason.PER_CLIENT_LIMIT: TOO_MANY,
    Reason.DRAINED: "[SYS/TEMP] this service takes no new sessions now",
}


class Refusals:
    """The refused clients of one service. Call ``sweep()`` at ``deadline`` at the latest."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: deque[tuple[float, socket.socket]] = deque()  # until when

    def tell(self, descriptor: int, reason: Reason, in_clear: bool, now: float) -> None:
        """Say why, and close a little later: over octets that were not read, a close would eat the answer."""
        client = socket.socket(fileno=descriptor)
        with contextlib.suppress(OSError):
            if in_clear:
                answer = f"-ERR {_ANSWERS[reason]}\r\n"
                client.send(answer.encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            client.shutdown(socket.SHUT_WR)
        self._kept.append((now + KEPT_FOR, client))

    @property
    def deadline(self) -> float:
        """When someone is to be let go, or NEVER."""
        if len(self._kept) > KEPT:
            return -NEVER
        return self._kept[0][0] if self._kept else NEVER

    def sweep(self, now: float) -> None:
        """Let go of those that had their time, and of the first where there are too many."""
        while self.deadline <= now:
            self._kept.popleft()[1].close()

    def close(self) -> None:
        """Let go of all."""
        for _, client in self._kept:
            client.close()
        self._kept.clear()
