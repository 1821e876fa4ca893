"""Calls a policy's code for a bounded time: an interval timer interrupts what sleeps or spins.

A callback may fork: a child that comes back from it ends here, else it would serve the same session once more.

The timer's signal raises CallbackTimeoutError inside the callback. One that swallows it is interrupted again and again;
after STUBBORN times the process ends, since nothing else can be done to such code, and both its connections close.

It is never compiled (setup.py): a signal that came with a callback's last step is handled when the interpreter goes on,
which must be here.

Known limits: only the main thread can be interrupted, and only where Python or the called C code looks for signals.
Long-running C code that never does is not; it ends with its process.
"""

from __future__ import annotations

import _thread
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pop3gw import signals
from pop3gw.errors import Exit
from pop3gw.proto.events import Journal

STUBBORN = 20
_STUBBORN = (
    "swallows each interruption by callback_timeout: this worker ends, with its sessions;"
    " let the callback pass BaseException on"
)
_FORKED = (
    "has called os.fork(), and the new process came back into the gateway: that one ends, its session goes on here;"
    " let it end by os._exit(), or use subprocess"
)
# The timer goes off so often within a callback's time. Of many calls within one ``call`` only that shows which of them
# runs, so each has its time and up to one of these parts more.
_PARTS = 8
_OURS = Path(__file__).parent
_READY_MADE = _OURS / "policies"
_AGAIN = 0.25  # seconds until a callback that swallowed its interruption is interrupted again


class CallbackTimeoutError(BaseException):
    """The callback ran longer than ``callback_timeout``. No Exception, so that ``except Exception`` lets it through."""


class CallGuard:
    """The guard of a process' main thread; made once a process, takes SIGALRM."""

    def __init__(self, give_up: Callable[[str, str], None], called: Callable[[], None]) -> None:
        """``give_up`` is told who makes a process end that can't be helped, and why, ``called`` behind each call."""
        global _guard
        self.calls = 0
        self._running = False
        self._seen = 0
        self._period = 0.0
        self._ends = 0.0  # when the call that runs must be over (time.monotonic())
        self._rings = 0.0  # when the timer goes off; 0: it is not set
        self.interrupted = 0
        self.journal: Journal | None = None
        self._process = os.getpid()
        self._thread = _thread.get_ident()
        self._give_up = give_up
        self._called = called
        signals.handle(signal.SIGALRM, self._alarm)
        _guard = self

    def call(self, function: Callable[..., object], arguments: tuple[object, ...], milliseconds: int) -> object:
        """``function(*arguments)``; what it raises, or CallbackTimeoutError.

        A timer that is set already and goes off early enough is left as it is: it is set anew when it goes off, which
        is seldom, instead of twice a call.
        """
        self._seen = self.calls
        self.interrupted = 0
        self._period = milliseconds / 1000
        now = time.monotonic()
        self._ends = now + self._period
        try:
            try:
                self._running = True
                if not now < self._rings <= self._ends:
                    self._set(self._period / _PARTS, now)
                result = function(*arguments)
            finally:
                self._running = False  # a signal that is still on its way interrupts nothing else
        finally:
            # Once more: the timer may go off right before the line above, which is then skipped.
            self._running = False
            if self.interrupted and os.getpid() != self._process:  # it would serve the same session once more
                self._end("a callback", _FORKED)
            self._called()
        if self.interrupted:
            raise CallbackTimeoutError(self._text())
        return result

    def speaks(self) -> Journal | None:
        """The journal of the session whose code runs now, where this is asked by it."""
        return self.journal if self._running and _thread.get_ident() == self._thread else None

    def rest(self) -> None:
        """Nothing is called for a while: the timer goes off once more, and the next call sets it in any case."""
        self._rings = 0.0

    def _set(self, seconds: float, now: float) -> None:
        self._rings = now + seconds
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def _alarm(self, _number: int, frame: FrameType | None) -> None:
        self._rings = 0.0
        if not self._running:
            return
        now = time.monotonic()
        if self.calls != self._seen:
            # Another of many calls than the one that was running when the time began.
            self._seen = self.calls
            self._ends = now + self._period
        if now < self._ends:
            self._set(min(self._ends - now, self._period / _PARTS), now)
            return
        self.interrupted += 1
        if self.interrupted > STUBBORN:
            self._end(_called_in(frame), _STUBBORN)
        self._set(_AGAIN, now)
        raise CallbackTimeoutError(self._text())

    def _end(self, who: str, why: str) -> NoReturn:
        self._give_up(who, why)
        os._exit(Exit.FAILED)

    def _text(self) -> str:
        return f"it ran longer than callback_timeout ({self._period * 1000:.0f} ms)"


_guard: CallGuard | None = None  # that of this process


def notice_forks() -> None:
    """From now on a process that a callback forks counts as interrupted: it makes no other call, ``call`` ends it."""
    os.register_at_fork(after_in_child=_forked)


def _forked() -> None:
    if _guard is not None:
        _guard.interrupted += 1


def _called_in(frame: FrameType | None) -> str:
    """The callback that runs in this frame: what was called first, of all that is not the gateway's."""
    name = ""
    while frame is not None and frame.f_code is not CallGuard.call.__code__:
        folders = Path(frame.f_code.co_filename).parents
        if _OURS not in folders or _READY_MADE in folders:
            name = frame.f_code.co_qualname
        frame = frame.f_back
    return f"callback {name}" if name else "a callback"
