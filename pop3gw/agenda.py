"""When the master has something to do that no descriptor tells it.

Whoever sets a time of his own says so here; whoever moves his to later need not, since a turn too many costs little.
So a turn of the loop asks nobody what is due. Pure: the clock is the caller's.
"""

from __future__ import annotations

from pop3gw.times import NEVER


class Agenda:
    """``due``: the earliest time that is wanted, on the clock of time.monotonic()."""

    __slots__ = ("due",)

    def __init__(self) -> None:
        self.due = -NEVER

    def want(self, at: float) -> None:
        """Something is to be done then."""
        if at < self.due:
            self.due = at

    def hurry(self) -> None:
        """Something is to be done before the loop waits again."""
        self.due = -NEVER
