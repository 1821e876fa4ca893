"""Until when each worker of a service must have moved on, and who has not: those are to be killed.

Pure: ``now`` is seconds, monotonic, given by the caller. It knows workers by their numbers alone, and not what is
expected of them.

Known limit: a time that was moved to later, or is no longer waited for, may still be what ``until`` says: then nobody
is overdue, which costs a look.
"""

from __future__ import annotations

from typing import Final

from pop3gw.times import NEVER

START_LIMIT: Final = 30.0  # s in which a forked worker must offer itself
LEAVE_LIMIT: Final = 30.0  # s in which a worker without sessions must be gone
_AGAIN: Final = 30.0  # s after which one that is still there is overdue again


class Patience:
    """What is waited for in one service; ``until``: nobody is overdue before."""

    __slots__ = ("_due", "until")

    def __init__(self) -> None:
        self.until = NEVER
        self._due: dict[int, float] = {}

    def expect(self, worker: int, at: float) -> None:
        """By then the worker must have moved on; NEVER: it takes the time that it takes."""
        self._due[worker] = at
        if at < self.until:
            self.until = at

    def forget(self, worker: int) -> None:
        """The worker is gone."""
        del self._due[worker]

    def overdue(self, now: float) -> list[int]:
        """The workers whose time is over, each once."""
        if now < self.until:
            return []
        late = [worker for worker, at in self._due.items() if now >= at]
        for worker in late:
            self._due[worker] = now + _AGAIN
        self.until = min(self._due.values(), default=NEVER)
        return late
