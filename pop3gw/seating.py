"""One worker as its pool counts it: its seats, who sits there, what it has promised, and how long it serves.

Pure, and knows no process: the pool says what changes, and keeps the sums over all workers.

Known limit: sessions alone wear a worker out, not its age or its memory.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

JITTER: Final = 0.1  # the part of max_sessions by which a worker may be replaced early


class State(enum.Enum):
    """How far a worker is."""

    STARTING = "forked, has not offered itself yet"
    SERVING = "takes sessions"
    LEAVING = "takes no more"


@dataclass(slots=True, eq=False)
class Worker:
    """A worker that was asked for."""

    number: int
    limit: int  # sessions, after which it is replaced
    state: State = State.STARTING
    old: bool = False  # of an older generation than the one that serves
    credit: int = 0  # sessions that it takes now
    served: int = 0
    free: list[int] = field(default_factory=list)  # seats
    clients: dict[int, str] = field(default_factory=dict)  # seat -> whom it serves, as the clientele counts


def engaged(number: int, seats: int, max_sessions: int, chance: float) -> Worker:
    """A worker with so many seats. By ``chance``, from 0 to 1, it is replaced before it has had ``max_sessions``.

    So workers that were born together aren't replaced together.
    """
    limit = max(1, max_sessions - int(chance * max_sessions * JITTER))
    return Worker(number, limit, free=list(range(seats)))
