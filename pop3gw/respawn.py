"""When a worker may be forked again after that failed, and what is said of it, how often.

Pure: ``now`` is seconds, monotonic, given by the caller. It knows no worker: who calls knows which of them were asked
for since the last failure, and only what these do shows whether it works again.

Known limits: all workers of a service are one, whatever they fail of; and a failure that is not reported, since the
same wait was a short time ago, is not told later either.
"""

from __future__ import annotations

import enum
from typing import Final

from pop3gw.backoff import Backoff
from pop3gw.times import NEVER

QUIET: Final = 60.0  # s between two reports whose wait has not grown, and after which a failure is the first again


class Failure(enum.Enum):
    """What fails, as it is reported."""

    FORK = "a worker can't be forked"
    UNSERVED = "workers end before they have served a session"


class Respawn:
    """The forks of one generation of workers."""

    __slots__ = ("_backoff", "_last", "_told_until", "_told_wait")

    def __init__(self) -> None:
        self._backoff = Backoff()
        self._last: Failure | None = None
        self._told_wait = 0.0
        self._told_until = -NEVER  # until then only a longer wait is reported

    @property
    def until(self) -> float:
        """When the next fork may be tried."""
        return self._backoff.until

    def failed(self, what: Failure, now: float, reason: str = "") -> str:
        """One more failure; returns what is to be reported, "" for nothing."""
        self._last = what
        if now >= self._backoff.until + QUIET:
            self._backoff.worked()
        wait = self._backoff.failed(now)
        if wait is None or (wait <= self._told_wait and now < self._told_until):
            return ""
        self._told_wait = wait
        self._told_until = now + QUIET
        why = f" ({reason})" if reason else ""
        return f"{what.value}{why}; the next try is in {format(wait, 'g')} s"

    def worked(self, *, served: bool) -> bool:
        """A worker asked for since then has offered itself or, more than that, ``served``; whether all is well again.

        That it offers itself shows that it could be forked. So did those that ended before they served.
        """
        if not served and self._last is not Failure.FORK:
            return False
        self._backoff.worked()
        return True
