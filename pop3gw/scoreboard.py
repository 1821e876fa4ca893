"""What the workers of a service are doing and have done: shared memory, written in place, read by anyone.

Each worker has a slot of counters (``proto.counts``) and, for each session that it can serve at once, a seat; the slots
of one generation are a board. Nothing is sent and nothing waits: what is counted is stored word by word, so no reader
ever sees less than before. Octets are counted by the seats, for all their sessions, and added up by who reads. What
ended workers have counted is the ``ledger``'s.

Boards are made by the master before it forks who uses them, so they are inherited and have no name outside. Untouched
parts take no memory. The code of a policy can write anything anywhere in it: a reader raises at none of it, and leaves
out what can't be. Known limits: a text that is read while it is written may be torn; texts are cut to their field; a
worker whose counters another one's policy has filled to the brim fails when it counts.
"""

from __future__ import annotations

import codecs
import mmap
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pop3gw.proto.commands import State
from pop3gw.proto.counts import CALLBACKS, COUNTERS, FROM_CLIENT, TO_CLIENT
from pop3gw.redaction import escaped
from pop3gw.values import host_and_port

_monotonic: Final = time.monotonic  # compiled, a constant is found faster than what was imported
WORD: Final = 8
WORD_MOST: Final = (1 << 64) - 1
CALLBACKS_AT: Final = COUNTERS
_PID: Final = COUNTERS + CALLBACKS
_SLOT: Final = _PID + 1  # words

# A seat: started; octets from and to the clients of all its sessions, and of those before this one; the client's port;
# id, state, user, client, server, TLS of the client, of the server.
_SESSION: Final = struct.Struct("=QQQ16s16s64s48s64s8s8s")  # all but when it started and the octets of all sessions
_SEAT: Final = struct.Struct(f"=dQQ{_SESSION.format[1:]}")
_STARTED: Final = struct.Struct("=d")
_PORT: Final = struct.Struct("=Q")
_STANDING: Final = struct.Struct("=16s64s")  # state and user
_OCTETS_AT: Final = 8
_SESSION_AT: Final = 24
_PORT_AT: Final = 40
_STANDING_AT: Final = 64
_STATE: Final = (_STANDING_AT, 16)
_CLIENT: Final = (144, 48)
_SERVER: Final = (192, 64)
_CLIENT_TLS: Final = (256, 8)
_SERVER_TLS: Final = (264, 8)
_SEAT_SIZE: Final = _SEAT.size
_SEAT_WORDS: Final = _SEAT_SIZE // WORD
_OCTETS_WORD: Final = _OCTETS_AT // WORD
_STATES: Final[dict[str, bytes]] = {state: state.encode() for state in State}
_LEAVING: Final = "LEAVING"  # in place of a state
PID_MOST: Final = 1 << 22  # of the system
_OCTETS_MOST: Final = (1 << 62) - 1
_STARTED_MOST: Final = 1e11  # s; no machine runs for 3000 years


@dataclass(frozen=True, slots=True)
class Shown:
    """What a seat shows: a session since ``started`` (time.monotonic()). TLS: the version, "" in clear."""

    started: float
    from_client: int
    to_client: int
    state: str
    session: str
    user: str
    client: str
    server: str
    client_tls: str
    server_tls: str


def _field(text: str, size: int) -> bytes:
    # struct cuts and pads; a character cut in half is dropped by the reader.
    return text.encode("utf-8", "surrogateescape")[:size]


def _text(field: bytes) -> str:
    octets = field.rstrip(b"\0")
    # What is no UTF-8 reads as in the log.
    return escaped(codecs.utf_8_decode(octets, "backslashreplace", len(octets) < len(field))[0])


class Seat:
    """Where one session of a worker shows itself.

    ``changed`` is True after each write until someone resets it; ``lasts``: what it shows now is likely to last.
    """

    __slots__ = (
        "_at",
        "_memory",
        "_named",
        "_octets_at",
        "_passed",
        "_passed_back",
        "_received",
        "_sent",
        "_words",
        "changed",
        "client",
        "lasts",
        "number",
        "state",
        "user",
    )

    def __init__(self, memory: mmap.mmap, words: memoryview, at: int, number: int) -> None:
        """``words``: the whole memory by words. The seat begins at octet ``at``."""
        self._memory = memory
        self._words = words
        self._at = at
        self.number = number
        self._octets_at = (at + _OCTETS_AT) // WORD
        self._received = self._sent = 0  # octets of the sessions before
        self._passed = self._passed_back = 0  # of this one
        self.changed = False
        self.lasts = False
        self.state = ""
        self.user = ""
        self._named = b""  # the user, as written
        self.client = ""

    def open(self, client: str, port: int = 0, session: str = "") -> None:
        """A session with this client begins, under this id."""
        self.state, self.user, self._named, self.client, self.lasts = "", "", b"", client, False
        memory, at, named = self._memory, self._at, session.encode()
        words, counted = self._words, self._octets_at
        # A sum with what passes yet is a word, whatever stands there.
        received: int = words[counted] & _OCTETS_MOST
        sent: int = words[counted + 1] & _OCTETS_MOST
        self._received, self._sent = received, sent
        self._passed = self._passed_back = 0
        _SESSION.pack_into(
            memory, at + _SESSION_AT, received, sent, port, named, b"", b"", client.encode(), b"", b"", b""
        )
        _STARTED.pack_into(memory, at, _monotonic())
        self.changed = True

    def passed(self, received: int, sent: int) -> None:
        """So many octets of this session have passed until now, from the client and to it."""
        words, at = self._words, self._octets_at
        # Not pack_into(), which clears all that it is about to write: a reader would see a count of nothing.
        if received != self._passed:
            self._passed = received
            words[at] = self._received + received
        if sent != self._passed_back:
            self._passed_back = sent
            words[at + 1] = self._sent + sent

    def stand(self, state: str, user: str, *, lasts: bool = False) -> None:
        """The session is in this state, of this user (``""``: not known yet). Never a secret."""
        if user != self.user:
            self.user, self._named = user, _field(user, 64)
        self.state, self.lasts = state, lasts
        _STANDING.pack_into(self._memory, self._at + _STANDING_AT, _STATES.get(state) or state.encode(), self._named)
        self.changed = True

    def reach(self, server: str) -> None:
        """The session has reached this server."""
        self._write(_SERVER, server)

    def secure(self, *, client: str | None = None, server: str | None = None) -> None:
        """One side speaks this version of TLS from now on."""
        if client is not None:
            self._write(_CLIENT_TLS, client)
        if server is not None:
            self._write(_SERVER_TLS, server)

    def introduce(self, client: str, port: int) -> None:
        """The client is another one than the connection's peer."""
        self.client = client
        self._write(_CLIENT, client)
        _PORT.pack_into(self._memory, self._at + _PORT_AT, port)
        self.changed = True

    def leave(self) -> None:
        """The session has ended and is summarized; its client has not left yet."""
        self._write(_STATE, _LEAVING)

    def close(self) -> None:
        """The session is over."""
        self.state, self.user, self._named, self.client, self.lasts = "", "", b"", "", False
        _STARTED.pack_into(self._memory, self._at, 0.0)
        self.changed = True

    @property
    def taken(self) -> bool:
        """Whether a session is here."""
        started: float = _STARTED.unpack_from(self._memory, self._at)[0]
        return 0.0 < started < _STARTED_MOST

    def read(self) -> Shown | None:
        """What is shown now; None where no session is."""
        started, received, sent, before, sent_before, port, *fields = _SEAT.unpack_from(self._memory, self._at)
        if not 0.0 < started < _STARTED_MOST:
            return None
        from_client, to_client = max(received - before, 0), max(sent - sent_before, 0)
        session, state, user, client, server, client_tls, server_tls = map(_text, fields)
        where = host_and_port(client, port) if port else client
        return Shown(started, from_client, to_client, state, session, user, where, server, client_tls, server_tls)

    def _write(self, field: tuple[int, int], text: str) -> None:
        offset, size = field
        at = self._at + offset
        self._memory[at : at + size] = _field(text, size).ljust(size, b"\0")


class Slot:
    """One worker's place: its counters, by index, and its seats."""

    __slots__ = ("counters", "seats")

    def __init__(self, counters: memoryview, seats: tuple[Seat, ...]) -> None:
        self.counters = counters
        self.seats = seats

    def begin(self, pid: int) -> None:
        """The worker runs under this pid."""
        self.counters[_PID] = pid

    @property
    def pid(self) -> int:
        """The worker's pid, as it says; 0: none has begun here, or it says what is none."""
        pid: int = self.counters[_PID]
        return pid if pid <= PID_MOST else 0

    def unfinished(self) -> list[Shown]:
        """The sessions here that have not ended."""
        shown = (seat.read() for seat in self.seats if seat.taken)
        return [one for one in shown if one is not None and one.state != _LEAVING]


class Board:
    """The slots of one generation of a service."""

    def __init__(self, workers: int, sessions_per_worker: int) -> None:
        self._workers = workers
        self._seats_per_slot = sessions_per_worker
        self._seats_at = (1 + workers * _SLOT) * WORD
        self._memory = mmap.mmap(-1, self._seats_at + workers * sessions_per_worker * _SEAT_SIZE)
        self._all_words = memoryview(self._memory).cast("Q")
        self._words = self._all_words[: self._seats_at // WORD]  # the first: slots that were ever taken
        self._seat_words = self._all_words[self._seats_at // WORD :]
        self._free = list(range(workers - 1, -1, -1))

    def take(self) -> int:
        """The number of a free slot. IndexError: there is none."""
        number = self._free.pop()
        self._words[0] = max(self._used, number + 1)
        return number

    def release(self, number: int) -> None:
        """Clear the slot's seats and free it; its counters and octets must have been folded."""
        slot = self.slot(number)
        slot.begin(0)
        for seat in slot.seats:
            if seat.taken:
                seat.close()
        self._free.append(number)

    def slot(self, number: int) -> Slot:
        """The slot of that number, to write or to read."""
        first = self._seats_at + number * self._seats_per_slot * _SEAT_SIZE
        seats = tuple(
            Seat(self._memory, self._all_words, first + seat * _SEAT_SIZE, seat) for seat in range(self._seats_per_slot)
        )
        return Slot(self._words[1 + number * _SLOT : 1 + (number + 1) * _SLOT], seats)

    def slots(self) -> Iterator[Slot]:
        """The slots of all workers, in whichever process this is."""
        return (slot for slot in map(self.slot, range(self._used)) if slot.pid)

    def sums(self) -> list[int]:
        """The counters of all its workers together."""
        used, words = self._used, self._words
        sums = [sum(words[1 + at : 1 + used * _SLOT : _SLOT]) if used else 0 for at in range(_PID)]
        sums[FROM_CLIENT], sums[TO_CLIENT] = self.octets(0, used)
        return sums

    def octets(self, first: int, slots: int = 1) -> tuple[int, int]:
        """How many octets so many workers have taken from their clients, and sent to them."""
        words = self._words_of_seats(first, slots)
        return sum(words[_OCTETS_WORD::_SEAT_WORDS]), sum(words[_OCTETS_WORD + 1 :: _SEAT_WORDS])

    def forget_octets(self, number: int) -> None:
        """The octets of that slot are counted elsewhere from now on."""
        words = self._words_of_seats(number, 1)
        for at in (_OCTETS_WORD, _OCTETS_WORD + 1):
            words[at::_SEAT_WORDS] = memoryview(bytes(self._seats_per_slot * WORD)).cast("Q")

    @property
    def _used(self) -> int:
        """How many slots were ever taken."""
        used: int = self._words[0]
        return min(used, self._workers)

    def _words_of_seats(self, first: int, slots: int) -> memoryview:
        words = self._seats_per_slot * _SEAT_WORDS
        return self._seat_words[first * words : (first + slots) * words]
