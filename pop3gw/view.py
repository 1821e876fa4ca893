"""What attendants see of the gateway: its services, their counters and their sessions, read from shared memory.

Reading only, and values only: an attendant is forked with an ``Overview`` of boards and ledgers that it shares with the
workers. How it is served is ``control`` and ``metrics``.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pop3gw.ledger import Gauge, Ledger
from pop3gw.proto import counts
from pop3gw.proto.counts import Family
from pop3gw.scoreboard import Board, Seat, Shown


class ServiceState(enum.StrEnum):
    """What a service does with clients, as pop3gwctl(8) names it."""

    SERVING = "serving"
    DRAINED = "drained"  # by the administrator: they are turned away
    STOPPING = "stopping"
    REMOVED = "removed"  # from the configuration: it waits for its last sessions


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers of a service now."""

    total: int
    starting: int
    busy: int
    most: int  # max_workers

    @property
    def idle(self) -> int:
        """Those that serve nobody and could."""
        return max(0, self.total - self.starting - self.busy)


@dataclass(frozen=True, slots=True)
class Running:
    """A session that is running: what it shows, and where it is."""

    service: str
    pid: int  # of its worker
    seat: Seat
    shown: Shown


class Totals:
    """The counters of a service at one moment."""

    __slots__ = ("_counters", "callback_errors")

    def __init__(self, counters: Sequence[int], callback_errors: dict[tuple[str, str], int]) -> None:
        self._counters = counters
        self.callback_errors = callback_errors  # by class and callback

    def __getitem__(self, index: int) -> int:
        return self._counters[index]

    def of(self, family: Family, **labels: str) -> int:
        """The sum of a family's counters that have these labels."""
        names = [name for name, _ in family.labels]
        wanted = [(names.index(name), value) for name, value in labels.items()]
        return sum(
            self._counters[at] for values, at in family.rows() if all(values[place] == value for place, value in wanted)
        )

    def histogram(self, family: Family) -> tuple[list[tuple[float, int]], float]:
        """Upper bounds with the number at or below each, and the sum in seconds."""
        below, rows = 0, []
        for place, bound in enumerate(family.buckets):
            below += self._counters[family.at + place]
            rows.append((bound, below))
        assert math.isinf(rows[-1][0])  # noqa: S101 - the table ends so
        return rows, self._counters[counts.sum_at(family)] / 1e6


@dataclass(frozen=True, slots=True)
class Watched:
    """One service. ``configured``: False for one that only waits for its last sessions."""

    name: str
    policy: str
    server: str
    listen: tuple[str, ...]
    max_workers: int
    configured: bool
    ledger: Ledger
    boards: tuple[tuple[Board, Sequence[int]], ...]  # each with the rows of its callbacks

    @property
    def state(self) -> ServiceState:
        """What it does with clients."""
        if not self.configured:
            return ServiceState.REMOVED
        if self.ledger.shown(Gauge.STOPPING):
            return ServiceState.STOPPING
        return ServiceState.DRAINED if self.ledger.shown(Gauge.DRAINED) else ServiceState.SERVING

    def workers(self) -> Workers:
        """Its workers."""
        busy = total = 0
        for board, _ in self.boards:
            for slot in board.slots():
                total += 1
                busy += any(seat.taken for seat in slot.seats)
        starting = self.ledger.shown(Gauge.STARTING)
        return Workers(total, min(starting, total), busy, self.max_workers)

    def sessions(self) -> Iterator[Running]:
        """The sessions that run."""
        for board, _ in self.boards:
            for slot in board.slots():
                for seat in slot.seats:
                    shown = seat.read() if seat.taken else None
                    if shown is not None:
                        yield Running(self.name, slot.pid, seat, shown)

    def running(self) -> int:
        """How many sessions run."""
        return sum(seat.taken for board, _ in self.boards for slot in board.slots() for seat in slot.seats)

    def totals(self) -> Totals:
        """Its counters."""
        counters, errors = self.ledger.totals(self.boards)
        return Totals(counters, {key: errors[row] for row, key in enumerate(self.ledger.callbacks)})


@dataclass(frozen=True, slots=True)
class Overview:
    """The whole gateway. ``gateway`` counts what is no service's (``counts.RELOADS``)."""

    source: str  # of the configuration
    pid: int  # of the master
    began: float  # seconds since the epoch
    since: float  # the same by time.monotonic(), which nobody sets
    gateway: Ledger
    services: tuple[Watched, ...]
