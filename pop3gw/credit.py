"""A worker's half of the credit: how many sessions may come, and when the master hears of it and of free seats.

Pure: no clock, no channel. ``worker`` tells what happened and sends what comes back; ``pool`` is the master's half.
Each message wakes the master up, so what it need not know at once is said together.
"""

from __future__ import annotations

from typing import Final

FREED: Final = 8  # seats of many that may be free without the master's knowing it, and how long (s)
FREED_DELAY: Final = 0.1
CREDIT: Final = 8  # sessions that may be under way to a worker: what a wedged one can collect,
CREDIT_SHARE: Final = 8  # or this part of all that it may have, where that is more


class Credit:
    """What a worker with so many seats may be sent. ``busy``: how many sessions it has.

    ``affordable``: sessions that it has descriptors for. ``prompt``: the master must know at once of each that is over.
    """

    __slots__ = ("_freed", "_granted", "_limit", "_most", "_prompt", "busy")

    def __init__(self, seats: int, affordable: int, *, prompt: bool) -> None:
        self.busy = 0
        self._most = min(seats, affordable)
        self._limit = max(CREDIT, self._most // CREDIT_SHARE)
        self._prompt = prompt
        self._granted = 0  # sessions that the master may still send
        self._freed: list[int] = []  # seats that the master still takes for taken

    def taken(self) -> None:
        """A session has come."""
        self._granted -= 1
        self.busy += 1

    def freed(self, seat: int, *, leaves: bool) -> bool:
        """The session at that seat is over; whether to ``report()`` at once, else in FREED_DELAY seconds."""
        self.busy -= 1
        self._freed.append(seat)
        # Where few more may come the master may have nobody to send a client to.
        few = self._most - self.busy < FREED + self._limit
        return few or self._prompt or leaves or len(self._freed) >= FREED

    def report(self, *, leaves: bool) -> tuple[int, tuple[int, ...]]:
        """How many sessions more than already granted may come, and which seats are free again."""
        freed = tuple(self._freed)
        self._freed.clear()
        return self._grant(0 if leaves else self._room()), freed

    def offer(self, *, leaves: bool) -> int:
        """How many sessions more may come, where that is worth a message of its own, else 0."""
        # Most credit goes back with the end of a session: alone only before it runs out.
        if leaves or self._granted > self._limit // 2:
            return 0
        return self._grant(self._room())

    def _room(self) -> int:
        # A seat that the master does not know to be free yet is none that it can send a session to.
        known = self._most - self.busy - len(self._freed)
        return min(self._limit, known) - self._granted

    def _grant(self, credit: int) -> int:
        self._granted += credit
        return credit
