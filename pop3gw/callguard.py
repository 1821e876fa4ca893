"""Calls a policy's code for a bounded time: an interval timer interrupts what sleeps or spins.

The timer's signal raises CallbackTimeoutError inside the callback. One that swallows it is interrupted again and again;
after STUBBORN times the process ends, since nothing else can be done to such code, and both its connections close.

It is never compiled (setup.py): a signal that came with a callback's last step is handled when the interpreter goes on,
which must be here.

Known limits: only the main thread can be interrupted, and only where Python or the called C code looks for signals.
Long-running C code that never does is not; it ends with its process.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import FrameType

from pop3gw import signals
from pop3gw.errors import Exit

STUBBORN = 20
_AGAIN = 0.25  # seconds until a callback that swallowed its interruption is interrupted again


class CallbackTimeoutError(BaseException):
    """The callback ran longer than ``callback_timeout``. No Exception, so that ``except Exception`` lets it through."""


class CallGuard:
    """The guard of a process' main thread; made once a process, takes SIGALRM."""

    def __init__(self, give_up: Callable[[], None], called: Callable[[], None]) -> None:
        """``give_up`` is called before a process that can't be helped ends, ``called`` behind each call."""
        self.calls = 0
        self._running = False
        self._seen = 0
        self._period = 0.0
        self._ends = 0.0  # when the call that runs must be over (time.monotonic())
        self._rings = 0.0  # when the timer goes off; 0: it is not set
        self._interrupted = 0
        self._give_up = give_up
        self._called = called
        signals.handle(signal.SIGALRM, self._alarm)

    def call(self, function: Callable[..., object], arguments: tuple[object, ...], milliseconds: int) -> object:
        """``function(*arguments)``; what it raises, or CallbackTimeoutError.

        A timer that is set already and goes off early enough is left as it is: it is set anew when it goes off, which
        is seldom, instead of twice a call.
        """
        self._seen = self.calls
        self._interrupted = 0
        self._period = milliseconds / 1000
        now = time.monotonic()
        self._ends = now + self._period
        try:
            try:
                self._running = True
                if not now < self._rings <= self._ends:
                    self._set(self._period, now)
                result = function(*arguments)
            finally:
                self._running = False  # a signal that is still on its way interrupts nothing else
        finally:
            # Once more: the timer may go off right before the line above, which is then skipped.
            self._running = False
            self._called()
        if self._interrupted:
            raise CallbackTimeoutError(self._text())
        return result

    def rest(self) -> None:
        """Nothing is called for a while: the timer goes off once more, and the next call sets it in any case."""
        self._rings = 0.0

    def _set(self, seconds: float, now: float) -> None:
        self._rings = now + seconds
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def _alarm(self, _number: int, _frame: FrameType | None) -> None:
        self._rings = 0.0
        if not self._running:
            return
        now = time.monotonic()
        if self.calls != self._seen:
            # Another of many calls than the one that was running when the time began.
            self._seen = self.calls
            self._ends = now + self._period
        if now < self._ends:  # it was set for an earlier call
            self._set(self._ends - now, now)
            return
        self._interrupted += 1
        if self._interrupted > STUBBORN:
            self._give_up()
            os._exit(Exit.FAILED)
        self._set(_AGAIN, now)
        raise CallbackTimeoutError(self._text())

    def _text(self) -> str:
        return f"it ran longer than callback_timeout ({self._period * 1000:.0f} ms)"
