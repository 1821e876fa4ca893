"""What master, templates, workers and attendants say to each other, and the records that carry it.

Pure: how a record travels, and a descriptor with it, is for ``fdpass``; what a message causes, for who hears it.

Known limits: texts are a message's last fields, NUL between them; together they are cut to ``TEXT_LIMIT`` octets.
``Free`` has at most ``SEATS_LIMIT`` seats.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple, TypeAlias, get_args, get_type_hints

from pop3gw.errors import ChannelError

TEXT_LIMIT: Final = 16384
SEATS_LIMIT: Final = 24
FAULTS_LIMIT: Final = 64  # that a template tells: who has more knows enough


# Master to template.


class Fork(NamedTuple):
    """Fork this worker; with it comes the worker's end of its channel to the master."""

    worker: int
    slot: int  # of the scoreboard


# Template to master.


class Prepared(NamedTuple):
    """The policy is loaded, workers can be forked. ``callbacks``: the names that its failures are counted by."""

    callbacks: str  # blanks between them


class Fault(NamedTuple):
    """The policy can't be loaded, a key not read, or the privileges not dropped; others may be told behind it."""

    key: str  # of the setting that is to blame
    expected: str
    found: str  # last: of too long a record the end is cut


class Doubt(NamedTuple):
    """Of a template that only checks: something can't be meant so, and does not keep the gateway from serving."""

    key: str
    expected: str
    found: str


class Failed(NamedTuple):
    """All that is wrong was told; the template leaves."""


class Forked(NamedTuple):
    """The worker runs."""

    worker: int
    pid: int


class ForkFailed(NamedTuple):
    """The worker could not be forked."""

    worker: int
    reason: str


class Exited(NamedTuple):
    """The worker is gone; ``status`` as os.waitpid() gives it."""

    worker: int
    pid: int
    status: int


# Master to worker.


class Serve(NamedTuple):
    """Serve the client whose connection comes with this message."""

    seat: int
    port: int  # the client's
    address: str  # the client's


class Admit(NamedTuple):
    """The client at this seat may have its session."""

    seat: int


class Refuse(NamedTuple):
    """The client at this seat has too many sessions."""

    seat: int


class Retire(NamedTuple):
    """No more sessions come: leave once those that run are over."""


class End(NamedTuple):
    """End every session now and leave."""


class EndSession(NamedTuple):
    """End the session with this id, if it still is at this seat."""

    seat: int
    session: str


# Worker to master.


class Offer(NamedTuple):
    """``credit`` sessions more may be handed over."""

    credit: int


# No named tuple: the master makes one for each session, and that is made by interpreted code (docs/performance.md).
class Free:
    """The sessions at these seats are over, and ``credit`` sessions more may be handed over."""

    __slots__ = ("credit", "seats")

    def __init__(self, credit: int, seats: tuple[int, ...]) -> None:
        self.credit: Final = credit
        self.seats: Final = seats  # not more than SEATS_LIMIT

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Free) and (self.credit, self.seats) == (other.credit, other.seats)

    def __hash__(self) -> int:
        return hash((self.credit, self.seats))

    def __repr__(self) -> str:
        return f"Free({self.credit}, {self.seats})"


class Client(NamedTuple):
    """A PROXY header has told who the client at this seat is: may it have a session?"""

    seat: int
    address: str


class Leaving(NamedTuple):
    """The worker wants to leave: send no more sessions, but ``Retire``."""


# Master to attendant, which also takes Retire.


class Outcome(NamedTuple):
    """What became of the request with this token: whether it was ``done``, and what there is to say."""

    token: int
    done: int
    text: str


# Attendant to master. Each is answered with an Outcome for its token.


class Kill(NamedTuple):
    """End the session with this id at this seat of the worker with this pid."""

    token: int
    pid: int
    seat: int
    session: str


class Drain(NamedTuple):
    """Let no more clients into this service ("": into any); ``on`` 0: let them in again."""

    token: int
    on: int
    service: str


class Reload(NamedTuple):
    """Read the configuration anew."""

    token: int


class Stop(NamedTuple):
    """Stop the gateway; ``now``: without waiting for sessions."""

    token: int
    now: int


# Master to template and worker.


class LogTo(NamedTuple):
    """The log was reopened; with it comes the new descriptor."""


Message: TypeAlias = (
    Fork
    | Prepared
    | Fault
    | Doubt
    | Failed
    | Forked
    | ForkFailed
    | Exited
    | Serve
    | Admit
    | Refuse
    | Retire
    | End
    | Offer
    | Free
    | Client
    | Leaving
    | EndSession
    | Outcome
    | Kill
    | Drain
    | Reload
    | Stop
    | LogTo
)

_KINDS: Final[tuple[type[Message], ...]] = get_args(Message)  # a record begins with a kind's place here


class _Row(NamedTuple):
    kind: type[Message]
    code: int
    written: struct.Struct  # the code and the numbers
    read: struct.Struct  # the numbers behind the code
    texts: int  # that follow the numbers


def _row(code: int, kind: type[Message]) -> _Row:
    types = list(get_type_hints(kind).values())
    numbers, texts = types.count(int), types.count(str)
    return _Row(kind, code, struct.Struct("=B" + "q" * numbers), struct.Struct("=x" + "q" * numbers), texts)


_ROWS: Final = {kind: _row(code, kind) for code, kind in enumerate(_KINDS)}
_SERVE: Final = _ROWS[Serve]
_SERVE_CODE: Final[int] = _SERVE.code
_SERVE_READ: Final = _SERVE.read
_SERVE_SIZE: Final = _SERVE_READ.size
_OFFER: Final = _ROWS[Offer]
_FREE_CODE: Final = _KINDS.index(Free)  # its row is not used: how many numbers it has is told by the record's length
_FREE_WRITTEN: Final = tuple(struct.Struct("=Bq" + "q" * seats) for seats in range(SEATS_LIMIT + 1))
_FREE_READ: Final = tuple(struct.Struct("=xq" + "q" * seats) for seats in range(SEATS_LIMIT + 1))
_FREE_SIZE: Final = _FREE_WRITTEN[0].size  # with no seat
_NUMBER: Final = struct.calcsize("=q")
_BY_CODE: Final = tuple(_ROWS.values())
_new: Final[Any] = tuple.__new__  # a named tuple from its fields, at half of what calling its class costs


def encode(message: Message) -> bytes:
    """The record that carries a message."""
    if isinstance(message, Free):
        return free(message.credit, message.seats)
    _, code, written, _, texts = _ROWS[type(message)]
    if not texts:
        return written.pack(code, *message)
    fields: tuple[Any, ...] = message
    octets = "\0".join(fields[-texts:]).encode("utf-8", "backslashreplace")
    return written.pack(code, *fields[:-texts]) + octets[:TEXT_LIMIT]


# What is said of each session, without what all messages have in common.


def offer(credit: int) -> bytes:
    """``encode(Offer(credit))``."""
    return _OFFER.written.pack(_OFFER.code, credit)


def free(credit: int, seats: tuple[int, ...]) -> bytes:
    """``encode(Free(credit, seats))``. IndexError: of more than SEATS_LIMIT seats."""
    return _FREE_WRITTEN[len(seats)].pack(_FREE_CODE, credit, *seats)


def serve(seat: int, port: int, address: str) -> bytes:
    """``encode(Serve(seat, port, address))``, of an address."""
    return _SERVE.written.pack(_SERVE.code, seat, port) + address.encode()


def decode(record: bytes) -> Message:
    """The message in a record. ChannelError: it is none of ours."""
    try:
        code = record[0]
        if code == _SERVE_CODE:  # one of each session: without what all messages have in common
            seat, port = _SERVE_READ.unpack_from(record)
            return _new(Serve, (seat, port, record[_SERVE_SIZE:].decode()))  # type: ignore[no-any-return]
        if code == _FREE_CODE:  # as above
            numbers: tuple[int, ...] = _FREE_READ[(len(record) - _FREE_SIZE) // _NUMBER].unpack(record)
            return Free(numbers[0], numbers[1:])
        kind, _, _, read, texts = _BY_CODE[code]
        if not texts:
            return _new(kind, read.unpack(record))  # type: ignore[no-any-return]
        fields = read.unpack_from(record)
        rest = record[read.size :]
    except (IndexError, ValueError, struct.error) as error:
        raise ChannelError(f"a record of {len(record)} octets is no message") from error
    several = rest.decode("utf-8", "replace").split("\0", texts - 1)
    if len(several) != texts:
        raise ChannelError(f"a message {kind.__name__} has {len(several)} texts instead of {texts}")
    return _new(kind, (*fields, *several))  # type: ignore[no-any-return]
