"""How many spare workers a service wants: how many are too few, which of too many leave when, and when to ask again.

Pure: ``now`` is seconds, monotonic, given by the caller. It counts workers and free seats, and knows neither: whether
more may be forked, and who is idle and can leave, is the pool's to know.

Known limit: a surplus is known from the times it was asked about. That it was smaller between two of them is noticed
where the caller asks again as soon as its free seats are beyond ``calm``.
"""

from __future__ import annotations

from typing import Final

from pop3gw.times import NEVER

NO_BOUND: Final = 1 << 62
LINGER: Final = 0.5  # s: surplus spares stay that long, since the next burst may want them


class Spares:
    """From ``least`` to ``most`` workers that have room, each with so many seats.

    ``until``: when a surplus has lasted so long that some leave; NEVER where there is none.
    """

    __slots__ = ("_fewest", "_least", "_most", "_seats", "_surplus", "until")

    def __init__(self, least: int, most: int, seats: int) -> None:
        self.until = NEVER
        self._least = least
        self._most = most
        self._seats = seats
        self._surplus = 0
        self._fewest = 0  # the least surplus of this LINGER: these were not wanted for so long

    def workers(self, seats: int) -> int:
        """How many workers have so many seats, since sessions fill one worker after another."""
        return -(-seats // self._seats)

    def short(self, free: int, starting: int, waiting: int) -> int:
        """How many more are wanted where so many seats are free, workers are starting, and clients wait for a seat.

        Who waits gets a worker, of those that wait at once as many as ``most``, beside the spares.
        """
        wanted = self._least
        if waiting > free:
            wanted = max(wanted, min(wanted + self.workers(waiting - free), self._most))
        return wanted - self.workers(free) - starting

    def enough(self, starting: int) -> int:
        """How many free seats are enough while so many workers are starting: with one fewer another is wanted."""
        return self._seats_of(self._least - starting)

    def surplus(self, free: int, now: float) -> int:
        """So many seats are free now; returns how many spares have to ``leave()`` at once."""
        self._surplus = self.workers(free) - self._most
        if self._surplus <= 0:
            self.until = NEVER
            return 0
        if self.until == NEVER:
            self.until = now + LINGER
            self._fewest = self._surplus
        self._fewest = min(self._fewest, self._surplus)
        return self._fewest if now >= self.until else 0

    def leave(self, idle: int, now: float) -> None:
        """Of those that have to, so many can: what is left of the surplus stays as long again."""
        if idle and self._fewest < self._surplus:
            self._fewest = self._surplus - idle
            self.until = now + LINGER
        else:
            self.until = NEVER

    @property
    def calm(self) -> tuple[int, int]:
        """Between which numbers of free seats there is nothing new to say of a surplus."""
        if self.until == NEVER:
            return 0, self._most * self._seats
        return self._seats_of(self._most + self._fewest), NO_BOUND

    def _seats_of(self, workers: int) -> int:
        """The fewest free seats that so many workers have."""
        return (workers - 1) * self._seats + 1
