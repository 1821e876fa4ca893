"""One connection of a session: whole buffers in, whole buffers out, and what could not be sent yet.

It knows sockets and nothing of POP3. It never blocks and never keeps more than the one buffer that was being sent.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from fcntl import ioctl
from typing import ClassVar, Final, TypeAlias

# A socket without what the module adds to it in Python, which makes each one and closes it at three times the cost.
Connection: TypeAlias = socket.SocketType

SILENCE: Final = 60  # s without a word until a peer is asked whether it is still there
# Plain numbers: the enumerations of ``socket`` cost more than the call.
_TCP: Final = int(socket.IPPROTO_TCP)
_WRITING: Final = int(socket.SHUT_WR)
_NO_DELAY: Final = int(socket.TCP_NODELAY)
_QUICK_ACK: Final = int(socket.TCP_QUICKACK)
_KEEP_ALIVE: Final = tuple(
    (int(level), int(option), value)
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        # A peer that vanished is given up after four more probes.
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENCE),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 20),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    )
)
_UNSENT_AND_UNACKNOWLEDGED: Final = 0x5411  # SIOCOUTQ of tcp(7); ``termios``, which names it, is one more library
# For lines: with its header such a buffer fits the interpreter's own pools (512 octets). A larger one comes of the
# system's allocator, touches new memory with each read, and most of it is given back.
_LINE: Final = 479
_CONTENT: Final = 16 * 1024
_LITTLE: Final = 4 * 1024  # what shows that there is no bulk
# Bulk: fewer, larger reads cost less than half the CPU of 16 KiB ones. Beyond this the allocator takes each buffer from
# the system and gives it back, which costs more than a read.
LARGEST: Final = 128 * 1024


def hasten(end: Connection) -> None:
    """Make a TCP connection fit for dialogue: no Nagle."""
    end.setsockopt(_TCP, _NO_DELAY, 1)


def keep_alive(end: Connection) -> None:
    """Notice a peer that vanishes while nothing is said."""
    for level, option, value in _KEEP_ALIVE:
        end.setsockopt(level, option, value)


def tune(end: Connection) -> None:
    """Both, for a connection or all that come of a listener."""
    hasten(end)
    keep_alive(end)


def _owed(end: Connection) -> int:
    """Octets that the system has taken for the peer, and that have not reached it; 0 where it does not tell."""
    try:
        return int.from_bytes(ioctl(end.fileno(), _UNSENT_AND_UNACKNOWLEDGED, bytes(4)), sys.byteorder)
    except OSError:  # the number is another one on POWER, MIPS and SPARC
        return 0


def reason_of(error: OSError) -> str:
    """Why a connection broke: what the system says, or TLS."""
    return error.strerror or str(error)


class Stream:
    """A non-blocking TCP connection; ``most``: octets that one read takes from it, ``mask``: what it is watched for,
    ``much``: whether more than a line is expected.
    """

    __slots__ = (
        "_least",
        "_owed",
        "_size",
        "ended",
        "failure",
        "mask",
        "most",
        "much",
        "received",
        "sent",
        "socket",
        "unsent",
    )

    answers: ClassVar[bool] = False  # whether ``read`` may make it say something by itself

    def __init__(self, connection: Connection, most: int = LARGEST, mask: int = 0) -> None:
        self.socket = connection
        self.most = most
        self.unsent: memoryview | None = None
        self.mask = mask
        self.ended = False  # the peer sends no more
        self.failure: OSError | None = None  # that it broke off, behind what ``read`` gave last
        self.received = 0  # octets
        self.sent = 0
        self.much = False
        self._least = self._size = min(most, _LINE)
        self._owed = 0  # when something was left unsent last

    def read(self) -> bytes | None:
        """What has come; ``b""`` at the end of it, None when there is nothing now. OSError: the peer is gone."""
        try:
            data = self.socket.recv(self._size)
        except BlockingIOError:
            return None
        length = len(data)
        self.received += length
        # Reads grow with what comes, and shrink again, so that a session without bulk never touches so much memory.
        if length == self._size:
            self._size = self.most
        elif length < _LITTLE:
            self._size = self._least
            if not length:
                self.ended = True
        return data

    @property
    def bulk(self) -> bool:
        """Whether more came at once than one read of a usual size takes."""
        return self._size == LARGEST

    def acknowledge(self) -> None:
        """Let the peer know at once that what it sent has come: with Nagle's algorithm it sends the rest only then."""
        with contextlib.suppress(OSError):  # it is gone, which the next read tells
            self.socket.setsockopt(_TCP, _QUICK_ACK, 1)

    def expect(self, *, much: bool) -> None:
        """What comes next is a line, or much more."""
        self.much = much
        self._least = self._size = min(self.most, _CONTENT if much else _LINE)

    def write(self, data: bytes) -> bool:
        """Send, behind what is ``unsent``; False when a rest is. OSError: the peer is gone."""
        if self.unsent is not None:
            self.unsent = memoryview(bytes(self.unsent) + data)
            return False
        try:
            count = self.socket.send(data)
        except BlockingIOError:
            count = 0
        self.sent += count
        if count == len(data):
            return True
        self.unsent = memoryview(data)[count:]
        self._owed = _owed(self.socket)
        return False

    def flush(self) -> bool:
        """Send what was left; False when something still is. OSError: the peer is gone."""
        rest = self.unsent
        if rest is None:
            return True
        try:
            count = self.socket.send(rest)
        except BlockingIOError:
            return False
        self.sent += count
        self.unsent = rest[count:] if count < len(rest) else None
        if self.unsent is None:
            self._owed = 0
            return True
        self._owed = _owed(self.socket)
        return False

    def takes(self) -> bool:
        """Whether the peer has taken octets since something was left ``unsent``, or this was asked.

        The system says that there is room when a third of its buffer, of megabytes, is free: not to who takes little.
        """
        before, self._owed = self._owed, _owed(self.socket)
        return self._owed < before

    def takes_the_rest(self) -> bool:
        """As ``takes``, where nothing is left ``unsent``, and only the system still owes the peer something."""
        first = not self._owed  # nothing was left unsent: it may have taken any of it
        return (self.takes() or first) and self._owed > 0

    def lose(self) -> None:
        """The peer is gone, whatever it was still owed."""
        self.ended = True
        self.unsent = None

    def end_writing(self) -> None:
        """Tell the peer that nothing more comes."""
        self.socket.shutdown(_WRITING)

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()
