"""When a template that has ended gets a successor: at once where it had lived for a while, else ever later.

Pure: ``now`` is seconds, monotonic, given by the caller, which is ``succession``.
"""

from __future__ import annotations

from typing import Final

from pop3gw.backoff import Backoff
from pop3gw.times import NEVER

LIVED: Final = 60.0  # s after which a template's end is no consequence of its start


class Replacement:
    """Of the template that serves one service."""

    __slots__ = ("_backoff", "at", "comes", "needless")

    def __init__(self) -> None:
        self.at = NEVER  # when a successor is to be started
        self.comes = False  # one was: it serves as soon as it is ready
        self.needless = False  # nothing is forked any more
        self._backoff = Backoff(first=1.0)

    def gone(self, lived: float, now: float, *, awaited: bool) -> None:
        """The one that served has ended, ``lived`` seconds after it was ready; ``awaited``: another comes anyway."""
        if lived > LIVED:
            self._backoff.worked()
        if not (awaited or self.needless):
            self.at = max(now, self._backoff.until)
            self._backoff.failed(self.at)

    def started(self) -> None:
        """The successor loads its policy."""
        self.at = NEVER
        self.comes = True

    def failed(self, now: float) -> float:
        """It could not be started, or can't serve; returns the seconds until the next try."""
        self.comes = False
        self._backoff.failed(now)
        self.at = max(now, self._backoff.until)
        return self.at - now

    def wanted(self, now: float) -> None:
        """Nobody serves, and who was to does not come."""
        self.at = now

    def settled(self) -> None:
        """Somebody serves."""
        self.at = NEVER
        self.comes = False

    def leave(self) -> None:
        """From now on none is needed."""
        self.at = NEVER
        self.needless = True
