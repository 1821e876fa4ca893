"""Channels between master, template and worker: one record, and with it at most one descriptor, a message.

A channel is one end of a SOCK_SEQPACKET pair: records arrive whole and in order, and the death of the other process is
an end of file. The messages are the tables of tuples below; this module knows how they travel, not what they cause.

Known limits: texts are a message's last fields, NUL between them; together they are cut to ``TEXT_LIMIT`` octets. So is
a list of numbers, of which there are at most ``SEATS_LIMIT``.
"""

from __future__ import annotations

import enum
import socket
import struct
from array import array
from typing import Any, Final, NamedTuple, Self, TypeAlias, get_type_hints

from pop3gw.errors import ChannelError

TEXT_LIMIT: Final = 16384
SEATS_LIMIT: Final = 24
RECORD_LIMIT: Final = TEXT_LIMIT + 64
BRIEF_LIMIT: Final = 256  # octets of a record where no long text comes; a small buffer costs the half of a large one
QUEUED: Final = 1024  # more records than a channel holds
_DESCRIPTOR: Final = struct.Struct("i")
# As plain numbers: combining these enumerations costs more than the system call.
_WAIT_NEVER: Final = int(socket.MSG_DONTWAIT)
_NO_SIGNAL: Final = int(socket.MSG_NOSIGNAL)
_RECEIVE: Final = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_SOCKET_LEVEL: Final = int(socket.SOL_SOCKET)
_RIGHTS: Final = int(socket.SCM_RIGHTS)
_TOO_LONG: Final = int(socket.MSG_TRUNC)
_CUT: Final = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)
_DESCRIPTOR_SIZE: Final = _DESCRIPTOR.size
_ANCILLARY_SPACE: Final = socket.CMSG_LEN(_DESCRIPTOR_SIZE)  # with the padding of CMSG_SPACE it holds two


# Master to template.


class Fork(NamedTuple):
    """Fork this worker; with it comes the worker's end of its channel to the master."""

    worker: int
    slot: int  # of the scoreboard


# Template to master.


class Prepared(NamedTuple):
    """The policy is loaded, workers can be forked. ``callbacks``: the names that its failures are counted by."""

    callbacks: str  # blanks between them


class Failed(NamedTuple):
    """The policy can't be loaded, the keys not read, or the privileges not dropped; the template leaves."""

    key: str  # of the setting that is to blame
    expected: str
    found: str


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


class Free(NamedTuple):
    """The sessions at these seats are over, and ``credit`` sessions more may be handed over."""

    credit: int
    seats: tuple[int, ...]  # not more than SEATS_LIMIT


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

_KINDS: Final[tuple[type[Message], ...]] = (
    Fork,
    Prepared,
    Failed,
    Forked,
    ForkFailed,
    Exited,
    Serve,
    Admit,
    Refuse,
    Retire,
    End,
    Offer,
    Free,
    Client,
    Leaving,
    EndSession,
    Outcome,
    Kill,
    Drain,
    Reload,
    Stop,
    LogTo,
)


class _Tail(enum.Enum):
    """What follows the numbers of a record."""

    NOTHING = enum.auto()
    TEXT = enum.auto()
    TEXTS = enum.auto()
    NUMBERS = enum.auto()


class _Row(NamedTuple):
    kind: type[Message]
    code: int
    written: struct.Struct  # the code and the numbers
    read: struct.Struct  # the numbers behind the code
    tail: _Tail
    texts: int


def _row(code: int, kind: type[Message]) -> _Row:
    types = list(get_type_hints(kind).values())
    numbers, texts = types.count(int), types.count(str)
    tail = _Tail.NOTHING
    if texts:
        tail = _Tail.TEXT if texts == 1 else _Tail.TEXTS
    elif len(types) > numbers:
        tail = _Tail.NUMBERS
    return _Row(kind, code, struct.Struct("=B" + "q" * numbers), struct.Struct("=x" + "q" * numbers), tail, texts)


_ROWS: Final = {kind: _row(code, kind) for code, kind in enumerate(_KINDS)}
_SERVE: Final = _ROWS[Serve]
_SERVE_CODE: Final[int] = _SERVE.code
_SERVE_READ: Final = _SERVE.read
_SERVE_SIZE: Final = _SERVE_READ.size
_OFFER: Final = _ROWS[Offer]
_FREE: Final = _ROWS[Free]
_FREE_WRITTEN: Final = tuple(struct.Struct("=Bq" + "q" * seats) for seats in range(SEATS_LIMIT + 1))
_BY_CODE: Final = tuple(_ROWS.values())
_new: Final[Any] = tuple.__new__  # a named tuple from its fields, at half of what calling its class costs


def encode(message: Message) -> bytes:
    """The record that carries a message."""
    _, code, written, _, tail, texts = _ROWS[type(message)]
    if tail is _Tail.NOTHING:
        return written.pack(code, *message)
    fields: tuple[Any, ...] = message
    octets: bytes
    if tail is _Tail.TEXT:
        octets = fields[-1].encode("utf-8", "backslashreplace")
    elif tail is _Tail.TEXTS:
        octets = "\0".join(fields[-texts:]).encode("utf-8", "backslashreplace")
    else:
        if len(fields[-1]) > SEATS_LIMIT:
            raise ValueError(f"a message {type(message).__name__} with {len(fields[-1])} numbers")
        return written.pack(code, *fields[:-1]) + array("q", fields[-1]).tobytes()
    return written.pack(code, *fields[:-texts]) + octets[:TEXT_LIMIT]


# What a worker says of each session, without what all messages have in common.


def offer(credit: int) -> bytes:
    """``encode(Offer(credit))``."""
    return _OFFER.written.pack(_OFFER.code, credit)


def free(credit: int, seats: tuple[int, ...]) -> bytes:
    """``encode(Free(credit, seats))``, of not more than SEATS_LIMIT seats."""
    return _FREE_WRITTEN[len(seats)].pack(_FREE.code, credit, *seats)


def decode(record: bytes) -> Message:
    """The message in a record. ChannelError: it is none of ours."""
    try:
        code = record[0]
        if code == _SERVE_CODE:  # one of each session: without what all messages have in common
            seat, port = _SERVE_READ.unpack_from(record)
            return _new(Serve, (seat, port, record[_SERVE_SIZE:].decode("utf-8", "replace")))  # type: ignore[no-any-return]
        kind, _, _, read, tail, texts = _BY_CODE[code]
        if tail is _Tail.NOTHING:
            return _new(kind, read.unpack(record))  # type: ignore[no-any-return]
        fields = read.unpack_from(record)
        rest = record[read.size :]
        if tail is _Tail.NUMBERS:
            return _new(kind, (*fields, tuple(array("q", rest))))  # type: ignore[no-any-return]
    except (IndexError, ValueError, struct.error) as error:
        raise ChannelError(f"a record of {len(record)} octets is no message") from error
    text = rest.decode("utf-8", "replace")
    if tail is _Tail.TEXT:
        return _new(kind, (*fields, text))  # type: ignore[no-any-return]
    several = text.split("\0", texts - 1)
    if len(several) != texts:
        raise ChannelError(f"a message {kind.__name__} has {len(several)} texts instead of {texts}")
    return _new(kind, (*fields, *several))  # type: ignore[no-any-return]


class Channel:
    """One end of a channel. ``receive()`` and ``hear()`` never wait; what sends does only where ``waits`` was said."""

    __slots__ = ("_flags", "socket")

    def __init__(self, end: socket.SocketType, *, waits: bool) -> None:
        self.socket = end
        self._flags = _NO_SIGNAL | (0 if waits else _WAIT_NEVER)

    @classmethod
    def pair(cls) -> tuple[Self, socket.socket]:
        """The master's end, which never waits, and the other process's. OSError: no descriptors left."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours, waits=False), theirs

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, message: Message, descriptor: int | None = None) -> None:
        """Send a message. OSError: the other process is gone, or takes no messages."""
        record = encode(message)
        if descriptor is None:
            self.put(record)
            return
        rights = (_SOCKET_LEVEL, _RIGHTS, _DESCRIPTOR.pack(descriptor))
        self.socket.sendmsg((record,), (rights,), self._flags)

    def put(self, record: bytes) -> None:
        """Send a record. OSError: the other process is gone, or takes no messages."""
        self.socket.send(record, self._flags)

    def hand_over(self, seat: int, port: int, address: str, connection: int) -> None:
        """``send(Serve(seat, port, address), connection)``, without what all messages have in common."""
        record = _SERVE.written.pack(_SERVE.code, seat, port) + address.encode()
        rights = (_SOCKET_LEVEL, _RIGHTS, _DESCRIPTOR.pack(connection))
        self.socket.sendmsg((record,), (rights,), self._flags)

    def receive(self, limit: int = RECORD_LIMIT) -> tuple[Message, int] | None:
        """The next message of up to ``limit`` octets with its descriptor (-1: none), which is the caller's to close.

        None at the end of file. BlockingIOError: there is none now. ChannelError: what came is no message of ours.
        """
        try:
            record, ancillary, flags, _ = self.socket.recvmsg(limit, _ANCILLARY_SPACE, _RECEIVE)
        except ConnectionResetError:  # it died with messages of ours unread
            return None
        if not record:
            return None
        descriptor = -1
        for level, kind, data in ancillary:
            if level == _SOCKET_LEVEL and kind == _RIGHTS and len(data) == _DESCRIPTOR_SIZE:
                (descriptor,) = _DESCRIPTOR.unpack(data)
        try:
            if flags & _CUT:
                why = (
                    "it is too long" if flags & _TOO_LONG else "its descriptor is missing: is this process out of them?"
                )
                raise ChannelError(f"a message was cut: {why}")
            return decode(record), descriptor
        except ChannelError:
            if descriptor >= 0:
                socket.close(descriptor)
            raise

    def hear(self, limit: int = BRIEF_LIMIT) -> Message | None:
        """The next message of who sends no descriptor, of less than ``limit`` octets; None at the end of file.

        A descriptor that comes all the same is closed by the system: nobody asked to have it. Raises as ``receive()``.
        """
        try:
            record = self.socket.recv(limit, _WAIT_NEVER)
        except ConnectionResetError:  # it died with messages of ours unread
            return None
        if not record:
            return None
        if len(record) == limit:
            raise ChannelError(f"a record of {limit} octets or more is no message")
        return decode(record)

    def close(self) -> None:
        self.socket.close()
