"""The workers of a service as its pool counts them: their seats, who sits there, what they have promised, and the sums.

Pure, and knows no process, no clock and no setting: the pool says what changes, and decides what follows from the sums.
Each change of a worker goes through ``Seating``, so that no sum is forgotten: they are what is asked for with each
event, and counting all workers anew would cost as much as they are.

Known limit: sessions alone wear a worker out, not its age or its memory.
"""

from __future__ import annotations

import enum
from collections import deque
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


class Seating:
    """All workers of one service, ``workers`` by their numbers.

    ``starting`` of them have not offered themselves yet, ``serving`` take sessions and have so many ``vacant`` seats;
    for ``credit`` of these they have said that a session may come. ``older`` are of older generations, with so many
    ``older_sessions``. ``last`` is the number of the youngest.
    """

    __slots__ = ("_open", "credit", "last", "older", "older_sessions", "serving", "starting", "vacant", "workers")

    def __init__(self) -> None:
        self.workers: dict[int, Worker] = {}
        self.last = 0
        self.starting = 0
        self.serving = 0
        self.vacant = 0
        self.credit = 0
        self.older = 0
        self.older_sessions = 0
        self._open: deque[Worker] = deque()  # those with credit, the one to take next at the right

    def engage(self, seats: int, max_sessions: int, chance: float) -> Worker:
        """A new worker with so many seats. By ``chance``, from 0 to 1, it is replaced before ``max_sessions``.

        So workers that were born together aren't replaced together.
        """
        self.last += 1
        limit = max(1, max_sessions - int(chance * max_sessions * JITTER))
        worker = self.workers[self.last] = Worker(self.last, limit, free=list(range(seats)))
        self.starting += 1
        return worker

    def trust(self, worker: Worker, credit: int) -> bool:
        """The worker takes that many sessions more; False: it may not, and nothing has changed.

        Whatever a worker says: more sessions than it has free seats are never sent.
        """
        credit = min(credit, len(worker.free) - worker.credit)
        if worker.state is State.LEAVING or credit <= 0:
            return False
        fresh = worker.state is State.STARTING
        if fresh:
            self.starting -= 1
            self.serving += 1
            self.vacant += len(worker.free)
            worker.state = State.SERVING
        if not worker.credit:
            # One that has not served yet comes last: it shares its memory with its template as long as it does not.
            (self._open.appendleft if fresh else self._open.append)(worker)
        worker.credit += credit
        self.credit += credit
        return True

    def take(self, lanes: int) -> tuple[Worker, int]:
        """The worker, and its seat, of the next session; up to ``lanes`` workers take turns. IndexError: no credit."""
        worker = self._open[-1]
        worker.credit -= 1
        if not worker.credit:
            self._open.pop()
        elif (turns := min(lanes, len(self._open))) > 1:
            self._open.pop()
            self._open.insert(len(self._open) + 1 - turns, worker)
        worker.served += 1
        self.vacant -= 1
        self.credit -= 1
        return worker, worker.free.pop()

    def vacate(self, worker: Worker, seat: int) -> str | None:
        """The session at that seat is over; returns whose it was, None: nobody sat there."""
        client = worker.clients.pop(seat, None)
        if client is not None:
            worker.free.append(seat)
            if worker.state is State.SERVING:
                self.vacant += 1
            elif worker.old:
                self.older_sessions -= 1
        return client

    def leave(self, worker: Worker) -> None:
        """The worker, which was not leaving yet, takes no more sessions."""
        if worker.state is State.STARTING:
            self.starting -= 1
        else:
            self.serving -= 1
            self.vacant -= len(worker.free)
        worker.state = State.LEAVING
        if worker.credit:
            self._open.remove(worker)
            self.credit -= worker.credit
            worker.credit = 0

    def forget(self, worker: Worker) -> None:
        """The worker, which was leaving, is gone, and so are its sessions."""
        del self.workers[worker.number]
        if worker.old:
            self.older -= 1
            self.older_sessions -= len(worker.clients)

    def grow_old(self) -> None:
        """All workers, which are leaving, are of an older generation from now on."""
        for worker in self.workers.values():
            worker.old = True
        self.older = len(self.workers)
        self.older_sessions = sum(len(worker.clients) for worker in self.workers.values())

    def idle(self, most: int) -> list[Worker]:
        """Up to so many workers that have credit and no session, those first that would be taken last."""
        return [worker for worker in self._open if not worker.clients][:most]

    def taken(self, seats: int) -> int:
        """The workers that count: older ones by their sessions, so many to one.

        A few old sessions must not keep hundreds of seats from new ones.
        """
        return len(self.workers) - self.older + min(self.older, self.older_sessions // seats)
