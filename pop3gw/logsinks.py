"""Where entries of the log go: a descriptor (a file, stderr) or the socket of a daemon (syslog, journald).

Writing never raises, and waits for a stuck reader at most once: lines that could not be written are counted for all
processes of the gateway together, since the one that lost a line may end before it works again; then whoever writes
next tells how many. What a line looks like is the ``logline.Form`` that a sink is made with.

journald is written to here and not through python3-systemd: its library waits for a journal that is stuck.
Known limits: syslog means a datagram socket; two processes that fill a pipe at the same moment may wait for each
other's reader, and two that lose a line at the same moment may count one.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import stat
import time
from typing import Final, Protocol

from pop3gw.logfile import open_log
from pop3gw.logline import Entry, Form, file_line
from pop3gw.privileges import Account
from pop3gw.scoreboard import WORD_MOST
from pop3gw.values import LogLevel

_write: Final = os.write  # compiled, a constant is found faster than what was imported
_PATIENCE = 100  # ms that the first line to find its reader stuck may wait


class Sink(Protocol):
    """What takes entries."""

    def write(self, entry: Entry) -> None:
        """Write it. Raises nothing: what can't be written is counted."""

    def fileno_or_none(self) -> int | None:
        """The descriptor that a child is to keep open; None: stderr, which it has in any case, and nobody reopens."""

    def reopen(self) -> None:
        """Open the target anew, under the same descriptor. OSError: it can't be opened; all stays as it was."""

    def adopt(self, fd: int) -> None:
        """Put this descriptor, of the target opened anew, under the number of the old one; ``fd`` itself is closed."""

    def separate(self) -> None:
        """Have a way of this process's own, and its children's: what they do to it is not felt by others."""


class Losses:
    """What could not be written, by whichever process that was forked since."""

    __slots__ = ("_words",)

    def __init__(self) -> None:
        self._words = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")

    @property
    def lines(self) -> int:
        """How many lines were lost since the last time that it was told."""
        lines: int = self._words[0]
        return lines

    @property
    def torn(self) -> bool:
        """Whether the last line was cut: the next one begins with a line end."""
        return bool(self._words[1])

    def add(self, *, torn: bool = False) -> None:
        """One line more."""
        self._words[0] = (self._words[0] + 1) & WORD_MOST  # a policy may have put anything there
        if torn:
            self._words[1] = 1

    def told(self, lines: int) -> None:
        """So many were told of."""
        self._words[0] = max(0, self._words[0] - lines)
        self._words[1] = 0


class FileSink:
    """A descriptor: a file's, or stderr's (then without a path)."""

    def __init__(self, fd: int, path: str = "", form: Form = file_line, account: Account | None = None) -> None:
        self._fd = fd
        self._path = path
        self._account = account
        self._form = form
        self._losses = Losses()
        self._gate = self._gate_of(fd)

    @classmethod
    def open(cls, path: str, form: Form = file_line, account: Account | None = None) -> FileSink:
        """As ``logfile.open_log``, whose OSError it raises."""
        return cls(open_log(path, account), path, form, account)

    @staticmethod
    def _gate_of(fd: int) -> select.poll | None:
        """What tells whether a write would block; None for a plain file, which never does."""
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return None
        except OSError:
            return None  # closed: each write will fail and be counted
        gate = select.poll()
        gate.register(fd, select.POLLOUT)
        return gate

    def write(self, entry: Entry) -> None:
        data = self._form(entry)
        lost = self._losses.lines
        if lost:
            data = (b"\n" if self._losses.torn else b"") + self._form(_lost(lost)) + data
        try:
            left = self._send(data)
        except OSError:
            left = len(data)
        if left:
            self._losses.add(torn=left < len(data))
        elif lost:
            self._losses.told(lost)

    def _send(self, data: bytes) -> int:
        """Write; returns how many octets could not be."""
        if self._gate is None:
            return len(data) - _write(self._fd, data)
        view = memoryview(data)
        while view:
            if not self._gate.poll(0 if self._losses.lines else _PATIENCE):
                break
            written = _write(self._fd, view[: select.PIPE_BUF])
            view = view[written:]
        return len(view)

    def fileno_or_none(self) -> int | None:
        return self._fd if self._path else None

    def reopen(self) -> None:
        if self._path:
            self.adopt(open_log(self._path, self._account))

    def adopt(self, fd: int) -> None:
        os.dup2(fd, self._fd, inheritable=False)
        os.close(fd)
        self._gate = self._gate_of(self._fd)

    def separate(self) -> None:
        """A file that is open can't be opened anew by who may not write it (pop3gw.conf(5), log_target)."""


class DatagramSink:
    """A log daemon's datagram socket. One that went away is looked for again once a second at most."""

    def __init__(self, path: str, form: Form) -> None:
        self._path = path
        self._form = form
        self._socket = self._connect()
        self._losses = Losses()
        self._retry = 0.0  # time.monotonic() before which a broken socket is left alone

    def _connect(self) -> socket.socket:
        fresh = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            fresh.setblocking(False)
            fresh.connect(self._path)
        except OSError:
            fresh.close()
            raise
        return fresh

    def write(self, entry: Entry) -> None:
        data = self._form(entry)
        try:
            if lost := self._losses.lines:
                self._socket.send(self._form(_lost(lost)))
                self._losses.told(lost)
            self._socket.send(data)
        except BlockingIOError:
            self._wait_and_send(data)
        except OSError:
            self._reconnect_and_send(data)

    def _wait_and_send(self, data: bytes) -> None:
        try:
            if not self._losses.lines:
                gate = select.poll()
                gate.register(self._socket, select.POLLOUT)
                gate.poll(_PATIENCE)
            self._socket.send(data)
        except OSError:
            self._losses.add()

    def _reconnect_and_send(self, data: bytes) -> None:
        now = time.monotonic()
        try:
            if now < self._retry:
                raise BlockingIOError
            self._retry = now + 1
            self.reopen()
            self._socket.send(data)
        except OSError:
            self._losses.add()

    def fileno_or_none(self) -> int | None:
        return self._socket.fileno()

    def reopen(self) -> None:
        self._put(self._connect())

    def adopt(self, fd: int) -> None:
        given = socket.socket(fileno=fd)
        if self._separated():  # else it is shared, by all who could lead it elsewhere for all
            given.close()
        else:
            self._put(given)

    def separate(self) -> None:
        self._separated()

    def _separated(self) -> bool:
        """Whether this process may have a connection of its own. Where the daemon is away the next line looks again."""
        try:
            fresh = self._connect()
        except PermissionError:
            return False
        except OSError:
            fresh = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._put(fresh)
        return True

    def _put(self, fresh: socket.socket) -> None:
        os.dup2(fresh.fileno(), self._socket.fileno(), inheritable=False)
        fresh.close()


def is_journal(fd: int, stream: str) -> bool:
    """Whether this descriptor leads to journald, as ``$JOURNAL_STREAM`` ("DEVICE:INODE", systemd.exec(5)) tells."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


def _lost(lines: int) -> Entry:
    return Entry(LogLevel.ERROR, f"{lines} lines of the log were lost")
