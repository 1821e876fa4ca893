"""What the master says of a service, what it counts, and what the service's ended workers have counted.

Shared memory as that of the ``scoreboard``, inherited and without a name outside; the master alone writes it, as far as
policies mean no harm: their code can, so a sum that is no word any more begins anew. When a worker ends, however it
ended, its slot is folded into the ledger, which outlives generations. Readers add to it what the slots of running
workers hold; whoever reads while a slot is folded reads again, so nothing counts twice or not at all.

Known limit: a worker that the master gave up while it serves goes on with its octets, which then count twice.
"""

from __future__ import annotations

import enum
import mmap
import time
from collections.abc import Iterable, Sequence
from typing import Final

from pop3gw.proto.counts import CALLBACKS, COUNTERS, FROM_CLIENT, SESSIONS, SESSIONS_ENDED, SESSIONS_LOST, TO_CLIENT
from pop3gw.scoreboard import CALLBACKS_AT, WORD, WORD_MOST, Board


class Gauge(enum.IntEnum):
    """What the master says of a service now."""

    STARTING = 0
    FREE_SEATS = enum.auto()
    DRAINED = enum.auto()  # 1: by the administrator
    STOPPING = enum.auto()  # 1


CALLBACK_ROWS: Final = 256
_GAUGES_AT: Final = 1
_COUNTERS_AT: Final = _GAUGES_AT + len(Gauge)
_ROWS_AT: Final = _COUNTERS_AT + COUNTERS
_PATIENCE: Final = 1.0  # s that a reader waits for a fold to be done; the master can't be that slow and live


class Ledger:
    """What a service's ended workers have counted, and what its master counts and says.

    ``callbacks`` names the rows of callback errors, as (class, callback); the master alone adds to them.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, (_ROWS_AT + CALLBACK_ROWS) * WORD)
        self._words = memoryview(self._memory).cast("Q")  # the first is odd while a slot is folded
        self.callbacks: list[tuple[str, str]] = []

    def rows(self, policy: str, names: Iterable[str]) -> list[int]:
        """The rows for these callbacks of a class, in their order; more than there is room for share the last.

        Those beyond the counters that a slot has for them get none.
        """
        rows = []
        for name in list(names)[:CALLBACKS]:
            key = (policy, name) if len(self.callbacks) < CALLBACK_ROWS - 1 else ("other", "other")
            if (policy, name) in self.callbacks:
                key = (policy, name)
            elif key not in self.callbacks:
                self.callbacks.append(key)
            rows.append(self.callbacks.index(key))
        return rows

    def add(self, index: int, amount: int = 1) -> None:
        """Count something that the master sees."""
        self._add(_COUNTERS_AT + index, amount)

    def show(self, gauge: Gauge, value: int) -> None:
        """Say what is so now."""
        self._words[_GAUGES_AT + gauge] = max(0, value)

    def shown(self, gauge: Gauge) -> int:
        """What was said last."""
        value: int = self._words[_GAUGES_AT + gauge]
        return value

    def fold(self, board: Board, number: int, rows: Sequence[int]) -> None:
        """The worker of that slot is gone: keep what it counted, count the sessions that went with it, free the slot.

        ``rows`` are those of its class' callbacks.
        """
        words, counters = self._words, board.slot(number).counters
        words[0] |= 1
        lost = counters[SESSIONS.at] - sum(counters[SESSIONS_ENDED.at : SESSIONS_ENDED.at + SESSIONS_ENDED.size])
        for index, count in enumerate(counters[:COUNTERS]):
            if count:
                self._add(_COUNTERS_AT + index, count)
                counters[index] = 0
        self._add(_COUNTERS_AT + SESSIONS_LOST.at, max(0, lost))
        for index, octets in zip((FROM_CLIENT, TO_CLIENT), board.octets(number), strict=True):
            self._add(_COUNTERS_AT + index, octets)
        board.forget_octets(number)
        for at, row in enumerate(rows):
            if counters[CALLBACKS_AT + at]:
                self._add(_ROWS_AT + row, counters[CALLBACKS_AT + at])
                counters[CALLBACKS_AT + at] = 0
        words[0] = ((words[0] | 1) + 1) & WORD_MOST
        board.release(number)

    def _add(self, at: int, amount: int) -> None:
        self._words[at] = (self._words[at] + amount) & WORD_MOST

    def totals(self, boards: Iterable[tuple[Board, Sequence[int]]]) -> tuple[list[int], list[int]]:
        """All counters, and the rows of callback errors: of ended and of running workers, each counted once.

        ``boards`` are those that may hold a running worker, with the rows of their callbacks.
        """
        boards = list(boards)
        words = self._words
        until = time.monotonic() + _PATIENCE
        while True:
            before = words[0]
            counters = words[_COUNTERS_AT:_ROWS_AT].tolist()
            errors = words[_ROWS_AT:].tolist()
            for board, rows in boards:
                sums = board.sums()
                counters = [(one + more) & WORD_MOST for one, more in zip(counters, sums, strict=False)]
                for at, row in enumerate(rows):
                    errors[row] = (errors[row] + sums[CALLBACKS_AT + at]) & WORD_MOST
            if (before == words[0] and not before % 2) or time.monotonic() > until:
                return counters, errors
            time.sleep(0.001)
