"""Channels between the master and its templates, workers and attendants: a message is one record, and with it at most
one descriptor.

A channel is one end of a SOCK_SEQPACKET pair: records arrive whole and in order, and the death of the other process is
an end of file. What is said is in ``messages``; this module knows how that travels, not what it causes.

Where policies run somebody may send the master a descriptor, and the last close of a connection may wait as long as its
owner likes (SO_LINGER). So the master's ends take none: the kernel refuses them (SO_PASSRIGHTS, Linux 6.16), or else
each message is looked at before it is taken.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final, Self

from pop3gw import process
from pop3gw.errors import ChannelError
from pop3gw.messages import TEXT_LIMIT, Message, decode, encode, serve

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
_LOOK: Final = int(socket.MSG_DONTWAIT | socket.MSG_PEEK)
_PASS_RIGHTS: Final = 83  # SO_PASSRIGHTS of asm-generic/socket.h, which Python does not name
_TOO_LONG: Final = int(socket.MSG_TRUNC)
_NOT_ALL: Final = int(socket.MSG_CTRUNC)
# Room for the sender's credentials (three numbers) and for nothing behind them.
_CREDENTIALS: Final = socket.CMSG_LEN(12)
_END, _RECORD, _DESCRIPTOR_COMES = range(3)
_CUT: Final = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)
_DESCRIPTOR_SIZE: Final = _DESCRIPTOR.size
_ANCILLARY_SPACE: Final = socket.CMSG_LEN(_DESCRIPTOR_SIZE)  # with the padding of CMSG_SPACE it holds two


class Channel:
    """One end of a channel. ``receive()`` and ``hear()`` never wait; what sends does only where ``waits`` was said."""

    __slots__ = ("_flags", "_looks", "socket")

    def __init__(self, end: socket.SocketType, *, waits: bool) -> None:
        self.socket = end
        self._looks = False  # whether a descriptor may come that nobody wants
        self._flags = _NO_SIGNAL | (0 if waits else _WAIT_NEVER)

    @classmethod
    def pair(cls) -> tuple[Self, socket.socket]:
        """The master's end, which never waits, and the other process's. OSError: no descriptors left."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel = cls(ours, waits=False)
        channel.take_no_descriptors()
        return channel, theirs

    def take_no_descriptors(self) -> None:
        """From now on none comes through ``hear()``; not even one that would be closed at once."""
        try:
            self.socket.setsockopt(_SOCKET_LEVEL, _PASS_RIGHTS, 0)
        except OSError:
            self._looks = True
            self.socket.setsockopt(_SOCKET_LEVEL, socket.SO_PASSCRED, 1)  # see ``_comes``

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
        rights = (_SOCKET_LEVEL, _RIGHTS, _DESCRIPTOR.pack(connection))
        self.socket.sendmsg((serve(seat, port, address),), (rights,), self._flags)

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

        Raises as ``receive()``; a descriptor that comes all the same makes it no message of ours.
        """
        try:
            if self._looks and self._comes() == _DESCRIPTOR_COMES:
                raise ChannelError("a message came with a descriptor, which nobody asked for")
            record = self.socket.recv(limit, _WAIT_NEVER)
        except ConnectionResetError:  # it died with messages of ours unread
            return None
        if not record:
            return None
        if len(record) == limit:
            raise ChannelError(f"a record of {limit} octets or more is no message")
        return decode(record)

    def _comes(self) -> int:
        """What comes next; nothing is taken. A record has credentials, also one that is empty, and the end has none.

        BlockingIOError: nothing now; another OSError, once, is how the other process has ended.
        """
        _, ancillary, flags, _ = self.socket.recvmsg(1, _CREDENTIALS, _LOOK)
        if flags & _NOT_ALL:
            return _DESCRIPTOR_COMES
        return _RECORD if ancillary else _END

    def close(self) -> None:
        """Close this end, and all that nobody has heard."""
        if self._looks and not self._emptied():
            process.close_apart(self.socket)
        else:
            self.socket.close()

    def _emptied(self) -> bool:
        """Let nothing more come or go, and drop what has come; False where a descriptor may be left in it."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        for _ in range(QUEUED):
            with contextlib.suppress(OSError):
                what = self._comes()
                if what != _RECORD:
                    return what == _END
                self.socket.recv(1, _WAIT_NEVER)
        return False
