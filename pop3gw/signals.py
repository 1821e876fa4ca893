"""Signals: their handlers, which of them wait, and those that came, as bytes to be read in a loop.

What ``signal`` does, by the functions that it wraps: the wrapper makes enumerations of all numbers, by Python code that
each process of ours would run right after its fork, only to have copies of its pages (docs/performance.md). It knows
nothing of processes.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # of CPython itself; the stubs know only ``signal``
import signal
import socket
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Final, TypeAlias

Handler: TypeAlias = Callable[[int, FrameType | None], None]

DEFAULT: Final = int(signal.SIG_DFL)
IGNORE: Final = int(signal.SIG_IGN)
_BLOCK: Final = int(signal.SIG_BLOCK)
_SETMASK: Final = int(signal.SIG_SETMASK)


def handle(number: int, handler: Handler | int) -> None:
    """What is done when this signal comes: a call, DEFAULT or IGNORE. ValueError: this is not the main thread."""
    _signal.signal(number, handler)


def handler(number: int) -> Handler | int:
    """What is done now when it comes, for ``handle``."""
    current: Handler | int = _signal.getsignal(number)
    return current


def block(numbers: Iterable[int]) -> Iterable[int]:
    """Let these wait as well; returns those that did before, for ``block_only``."""
    before: Iterable[int] = _signal.pthread_sigmask(_BLOCK, numbers)
    return before


def block_only(numbers: Iterable[int]) -> None:
    """Let these wait and no others."""
    _signal.pthread_sigmask(_SETMASK, numbers)


def disinherit() -> None:
    """Whoever has started us may have let signals wait, or ignored the end of children: here it is as usual."""
    block_only(())
    handle(signal.SIGCHLD, DEFAULT)


def forget_inbox() -> None:
    """After a fork: signals are no longer written to the parent's inbox."""
    signal.set_wakeup_fd(-1)


class Inbox:
    """Signals as bytes: the handlers do nothing, the interpreter writes the number to a socket."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in numbers:
            handle(number, _nothing)

    def fileno(self) -> int:
        """The descriptor that is ready (READ) once a signal has come."""
        return self._reader.fileno()

    def read(self) -> list[int]:
        """The numbers of the signals that came, oldest first."""
        try:
            return list(self._reader.recv(4096))
        except BlockingIOError:
            return []


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler must exist for the interpreter to write the number."""
