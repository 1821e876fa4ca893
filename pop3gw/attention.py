"""Whether the master hears at once what workers say, or with the next client that comes.

To be woken up costs it as much as to hand a client over (docs/performance.md), and where clients follow one another
what a worker says mostly matters only to the next of them. Pure: ``now`` is seconds, monotonic, given by the caller.
"""

from __future__ import annotations

from typing import Final

from pop3gw.times import NEVER

BRISK: Final = 0.5  # s: clients follow one another when no more than that lies between them; so long the rest may wait


class Attention:
    """Tell it of each client that ``came()``; ``until``: when workers are to be heard again if none comes."""

    __slots__ = ("_came", "until")

    def __init__(self) -> None:
        self.until = -NEVER
        self._came = -NEVER

    def came(self, now: float) -> None:
        """A client has come, and what was said before was heard."""
        if now - self._came <= BRISK:
            self.until = now + BRISK
        self._came = now

    def at_once(self, now: float) -> bool:
        """Whether workers are to be heard when they say something."""
        return now >= self.until
