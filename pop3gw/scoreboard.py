"""What every worker of one generation is doing: shared memory, written in place by the workers, read by anyone.

Each worker has a slot of counters and, for each session that it can serve at once, a seat. Nothing is sent and nothing
waits: a write is a store. When a worker ends, however it ended, the master folds its slot into the board's totals.

The board is made by the master before it forks the template, so it is inherited and has no name outside. Untouched
parts take no memory. Known limits: a text that is read while it is written may be torn; texts are cut to their field.
"""

from __future__ import annotations

import enum
import mmap
import struct
import time
from dataclasses import dataclass
from typing import Final


class Count(enum.IntEnum):
    """What is counted for each worker, from its start. A new one is one more row."""

    SESSIONS = 0
    LOGINS = enum.auto()
    LOGIN_FAILURES = enum.auto()
    REFUSALS = enum.auto()  # requests that never reached the server
    CONNECT_FAILURES = enum.auto()
    TLS_FAILURES = enum.auto()
    MESSAGES = enum.auto()  # retrieved
    FROM_CLIENT = enum.auto()  # octets
    TO_CLIENT = enum.auto()  # octets


_WORD: Final = 8
_SLOT: Final = len(Count) * _WORD
_STATE: Final = 16
_ID: Final = 16
_USER: Final = 64
_CLIENT: Final = 48
_SEAT: Final = struct.Struct(f"=d{_STATE}s{_ID}s{_USER}s{_CLIENT}s")
_STARTED: Final = struct.Struct("=d")
_STATE_AT: Final = _STARTED.size
_ID_AT: Final = _STATE_AT + _STATE
_USER_AT: Final = _ID_AT + _ID
_CLIENT_AT: Final = _USER_AT + _USER


@dataclass(frozen=True, slots=True)
class Shown:
    """What a seat shows: a session since ``started`` (seconds since the epoch)."""

    started: float
    state: str
    session: str
    user: str
    client: str


def _field(text: str, size: int) -> bytes:
    # struct cuts and pads; a character cut in half is dropped by the reader.
    return text.encode("utf-8", "backslashreplace")[:size]


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode("utf-8", "ignore")


class Seat:
    """Where one session of a worker shows itself. ``changed`` is True after each write until someone resets it."""

    __slots__ = ("_at", "_memory", "changed", "client", "number", "state", "user")

    def __init__(self, memory: mmap.mmap, at: int, number: int) -> None:
        self._memory = memory
        self._at = at
        self.number = number
        self.changed = False
        self.state = ""
        self.user = ""
        self.client = ""

    def open(self, client: str) -> None:
        """A session with this client address begins."""
        self.state, self.user, self.client = "", "", client
        _SEAT.pack_into(self._memory, self._at, time.time(), b"", b"", b"", _field(client, _CLIENT))
        self.changed = True

    def show(
        self,
        *,
        state: str | None = None,
        user: str | None = None,
        session: str | None = None,
        client: str | None = None,
    ) -> None:
        """Say what has changed: the session's state, its user, its id, or its client's address. Never a secret."""
        if state is not None:
            self.state = state
            self._write(self._at + _STATE_AT, state, _STATE)
        if user is not None:
            self.user = user
            self._write(self._at + _USER_AT, user, _USER)
        if session is not None:
            self._write(self._at + _ID_AT, session, _ID)
        if client is not None:
            self.client = client
            self._write(self._at + _CLIENT_AT, client, _CLIENT)
        self.changed = True

    def close(self) -> None:
        """The session is over."""
        self.state, self.user, self.client = "", "", ""
        _STARTED.pack_into(self._memory, self._at, 0.0)
        self.changed = True

    def read(self) -> Shown | None:
        """What is shown now; None where no session is."""
        started, state, session, user, client = _SEAT.unpack_from(self._memory, self._at)
        if not started:
            return None
        return Shown(started, _text(state), _text(session), _text(user), _text(client))

    def _write(self, at: int, text: str, size: int) -> None:
        self._memory[at : at + size] = _field(text, size).ljust(size, b"\0")


class Slot:
    """One worker's place: its counters and its seats."""

    __slots__ = ("_counts", "seats")

    def __init__(self, counts: memoryview, seats: tuple[Seat, ...]) -> None:
        self._counts = counts
        self.seats = seats

    def add(self, count: Count, amount: int = 1) -> None:
        """Count something."""
        self._counts[count] += amount

    def value(self, count: Count) -> int:
        """How often it was counted by this worker so far."""
        value: int = self._counts[count]
        return value


class Board:
    """The slots of one generation of a service, and the totals of its workers that have ended."""

    def __init__(self, workers: int, sessions_per_worker: int) -> None:
        self._seats_per_slot = sessions_per_worker
        self._seats_at = (workers + 1) * _SLOT
        self._memory = mmap.mmap(-1, self._seats_at + workers * sessions_per_worker * _SEAT.size)
        self._words = memoryview(self._memory)[: self._seats_at].cast("Q")
        self._folded = self._counts(workers)
        self._free = list(range(workers - 1, -1, -1))
        self._taken: set[int] = set()

    def take(self) -> int:
        """The number of a free slot. IndexError: there is none."""
        number = self._free.pop()
        self._taken.add(number)
        return number

    def fold(self, number: int) -> None:
        """The worker of this slot is gone: keep what it counted, clear its seats, and free the slot."""
        counts = self._counts(number)
        for count in Count:
            self._folded[count] += counts[count]
            counts[count] = 0
        for seat in self.slot(number).seats:
            if seat.read() is not None:
                seat.close()
        self._taken.discard(number)
        self._free.append(number)

    def slot(self, number: int) -> Slot:
        """The slot of that number, to write or to read."""
        first = self._seats_at + number * self._seats_per_slot * _SEAT.size
        seats = tuple(Seat(self._memory, first + seat * _SEAT.size, seat) for seat in range(self._seats_per_slot))
        return Slot(self._counts(number), seats)

    def absorb(self, other: Board) -> None:
        """Add what an earlier generation, none of whose workers is left, has counted."""
        for count in Count:
            self._folded[count] += other.total(count)

    def total(self, count: Count) -> int:
        """How often it was counted by all workers, ended or not."""
        total: int = self._folded[count]
        return total + sum(self._counts(number)[count] for number in self._taken)

    def _counts(self, number: int) -> memoryview:
        return self._words[number * len(Count) : (number + 1) * len(Count)]
