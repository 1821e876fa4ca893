"""What is said of a service whose workers are all taken, how soon, and how often.

Pure: ``now`` is seconds, monotonic, given by the caller. It knows no worker: that all are taken is for the caller to
say, each *spell* of it by a number of its own.

Known limit: a spell that is over before it may be reported is not: how often a service is full is not told.
"""

from __future__ import annotations

from typing import Final

from pop3gw.times import NEVER

QUIET: Final = 60.0  # s between two reports


class Congestion:
    """The full pools of one service. ``affordable``: sessions that a worker has descriptors for."""

    __slots__ = ("_affordable", "_quiet_until", "_seats", "_told", "_workers")

    def __init__(self, affordable: int) -> None:
        self._affordable = affordable
        self._workers = 0
        self._seats = 0
        self._quiet_until = -NEVER
        self._told = -1  # the last spell that was reported

    def begin(self, workers: int, seats: int) -> None:
        """From now on there are so many workers at most, each with so many seats: that these are taken is news."""
        self._workers = workers
        self._seats = seats
        self._quiet_until = -NEVER

    def due(self, spell: int, earliest: float) -> float:
        """When the spell is to be reported, if it lasts that long; NEVER: it was."""
        return NEVER if spell == self._told else max(self._quiet_until, earliest)

    def report(self, spell: int, now: float) -> str:
        """The report of the spell, which is made now."""
        self._told = spell
        self._quiet_until = now + QUIET
        more = f"sessions_per_worker (now {self._seats})"
        if self._seats > self._affordable:
            more = (
                "the limit of descriptors (LimitNOFILE, ulimit -n), which leaves a worker"
                f" {self._affordable} of its {self._seats} sessions"
            )
        return (
            f"all {self._workers} workers are taken and new clients wait;"
            f" where the machine has room, raise max_workers (now {self._workers}) or {more}"
        )
