"""How long to wait before what failed is tried again.

Pure: ``now`` is seconds, monotonic, given by the caller.
"""

from __future__ import annotations

from pop3gw.times import NEVER


class Backoff:
    """Waits that double while something keeps failing, and are over once it has worked."""

    def __init__(self, first: float = 0.25, most: float = 30.0) -> None:
        self._first = first
        self._most = most
        self._failures = 0
        self.until = -NEVER

    def failed(self, now: float) -> float | None:
        """One more failure; returns the seconds to wait from now on, None where a wait is already under way."""
        if now < self.until:
            return None
        wait: float = min(self._first * 2**self._failures, self._most)
        self._failures = min(self._failures + 1, 30)
        self.until = now + wait
        return wait

    def worked(self) -> None:
        """It works: the next failure waits as little as the first."""
        if self._failures:
            self._failures = 0
            self.until = -NEVER
