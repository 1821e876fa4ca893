"""Channels between master, template and worker: one record, and with it at most one descriptor, a message.

A channel is one end of a SOCK_SEQPACKET pair: records arrive whole and in order, and the death of the other process is
an end of file. The messages are the tables of tuples below; this module knows how they travel, not what they cause.

Known limits: texts are a message's last fields, NUL between them; together they are cut to ``TEXT_LIMIT`` octets.
"""

from __future__ import annotations

import socket
import struct
from typing import Final, NamedTuple, Self, TypeAlias, get_type_hints

from pop3gw.errors import ChannelError

TEXT_LIMIT: Final = 16384
_RECORD_LIMIT: Final = TEXT_LIMIT + 64
_DESCRIPTOR: Final = struct.Struct("i")
# As plain numbers: combining these enumerations costs more than the system call.
_WAIT_NEVER: Final = int(socket.MSG_DONTWAIT)
_NO_SIGNAL: Final = int(socket.MSG_NOSIGNAL)
_RECEIVE: Final = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_CUT: Final = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)
_ANCILLARY_SPACE: Final = socket.CMSG_SPACE(_DESCRIPTOR.size)


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
    """The session at this seat is over, and ``credit`` sessions more may be handed over."""

    seat: int
    credit: int


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


class _Row(NamedTuple):
    code: int
    record: struct.Struct  # the code and the numbers
    texts: int


def _row(code: int, kind: type[Message]) -> _Row:
    types = list(get_type_hints(kind).values())
    return _Row(code, struct.Struct("=B" + "q" * types.count(int)), types.count(str))


_ROWS: Final = {kind: _row(code, kind) for code, kind in enumerate(_KINDS)}
_KIND_OF: Final = tuple((kind, _ROWS[kind]) for kind in _KINDS)


def encode(message: Message) -> bytes:
    """The record that carries a message."""
    row = _ROWS[type(message)]
    if not row.texts:
        return row.record.pack(row.code, *message)
    fields: tuple[object, ...] = message
    text = "\0".join(map(str, fields[-row.texts :])).encode("utf-8", "backslashreplace")
    return row.record.pack(row.code, *fields[: -row.texts]) + text[:TEXT_LIMIT]


def decode(record: bytes) -> Message:
    """The message in a record. ChannelError: it is none of ours."""
    try:
        kind, row = _KIND_OF[record[0]]
        _, *fields = row.record.unpack_from(record)
    except (IndexError, struct.error) as error:
        raise ChannelError(f"a record of {len(record)} octets is no message") from error
    if row.texts:
        texts = record[row.record.size :].decode("utf-8", "replace").split("\0", row.texts - 1)
        if len(texts) != row.texts:
            raise ChannelError(f"a message {kind.__name__} has {len(texts)} texts instead of {row.texts}")
        fields += texts
    elif len(record) != row.record.size:
        raise ChannelError(f"a message {kind.__name__} has {len(record)} octets instead of {row.record.size}")
    return kind(*fields)


class Channel:
    """One end of a channel. ``receive()`` never waits, in any process; ``send()`` only where ``waits`` was said."""

    __slots__ = ("_flags", "socket")

    def __init__(self, end: socket.socket, *, waits: bool) -> None:
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
            self.socket.send(record, self._flags)
            return
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, _DESCRIPTOR.pack(descriptor))
        self.socket.sendmsg((record,), (rights,), self._flags)

    def receive(self) -> tuple[Message, int] | None:
        """The next message with its descriptor (-1: none), which is the caller's to close; None at the end of file.

        BlockingIOError: there is none now. ChannelError: what came is no message of ours.
        """
        try:
            record, ancillary, flags, _ = self.socket.recvmsg(_RECORD_LIMIT, _ANCILLARY_SPACE, _RECEIVE)
        except ConnectionResetError:  # it died with messages of ours unread
            return None
        if not record:
            return None
        descriptor = -1
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and len(data) == _DESCRIPTOR.size:
                (descriptor,) = _DESCRIPTOR.unpack(data)
        try:
            if flags & _CUT:
                raise ChannelError("a message or its descriptor was cut; is this process out of descriptors?")
            return decode(record), descriptor
        except ChannelError:
            if descriptor >= 0:
                socket.close(descriptor)
            raise

    def close(self) -> None:
        self.socket.close()
