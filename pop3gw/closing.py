"""How a service comes to its end: its sessions may finish, then they are ended, then what is left is killed.

Pure: ``now`` is seconds, monotonic, given by the caller. It knows no worker: what it says is for all that are left, and
whether any is left its caller knows.

Known limit: a service that drains has no limit of time, also where it was told to stop before.
"""

from __future__ import annotations

import enum
from typing import Final

from pop3gw.orders import Act
from pop3gw.times import NEVER

END_LIMIT: Final = 3.0  # s in which a worker that was told to end at once must be gone


class Phase(enum.Enum):
    """How far a service's end is."""

    RUNNING = "serving"
    DRAINING = "running sessions may finish"
    ENDING = "every session is ended"
    KILLING = "what is left is killed"


_PATIENT: Final = (Phase.RUNNING, Phase.DRAINING)


class Closing:
    """The end of one service. ``timeout``: seconds that ``stop()`` leaves to sessions; ``until``: of this phase."""

    __slots__ = ("_untold", "phase", "timeout", "until")

    def __init__(self) -> None:
        self.phase = Phase.RUNNING
        self.until = NEVER
        self.timeout = 0
        self._untold: list[Act] = []

    def drain(self) -> None:
        """Sessions may finish, however long they take."""
        self._enter(Phase.DRAINING, NEVER)

    def stop(self, now: float) -> None:
        """Sessions may finish within ``timeout``."""
        if self.phase in _PATIENT:
            self._enter(Phase.DRAINING, now + self.timeout)

    def end(self, now: float) -> None:
        """Every session is ended at once."""
        if self.phase in _PATIENT:
            self._enter(Phase.ENDING, now + END_LIMIT)
            self._untold.append(Act.END)

    def advance(self, now: float, sessions: int) -> tuple[list[Act], str]:
        """What is to be done now to every worker, each thing once, and what is to be reported, "" for nothing."""
        report = ""
        if self.phase is Phase.DRAINING and now >= self.until:
            if sessions:
                report = f"{sessions} sessions go on after shutdown_timeout ({self.timeout} s); they are ended"
            self.end(now)
        acts = self._untold
        self._untold = []
        if self.phase is Phase.ENDING and now >= self.until:
            self._enter(Phase.KILLING, NEVER)
            acts.append(Act.KILL)
        return acts, report

    def _enter(self, phase: Phase, until: float) -> None:
        self.phase = phase
        self.until = until
