"""Clients that have said QUIT and got their answer: each is let go once it has left, or had its time.

They are not watched. Most leave within moments and say no more, and to be woken up for each costs a worker as much as
any other event of a session; so whoever ends a session looks after those before it. One that goes on speaking is
watched from then on, as all are where nobody may come by any more. It knows ``farewell``s and the poller, and nothing
of sessions.

Known limit: what such a client still says lies unread until it is looked after, up to ``farewell.DRAIN_SECONDS``.
"""

from __future__ import annotations

from typing import Final

from pop3gw.farewell import DRAIN_SECONDS, Farewell
from pop3gw.poller import READ, Poller
from pop3gw.times import NEVER

MOST: Final = 16  # that are kept: one more, and the first has to go


class Leavers:
    """Those of one worker. Call ``sweep()`` at ``deadline`` at the latest, which is NEVER where there are none."""

    __slots__ = ("_hurried", "_poller", "_unwatched", "_watched", "deadline")

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._unwatched: list[Farewell] = []  # by when their time is over
        self._watched: list[Farewell] = []
        self._hurried = False
        self.deadline = NEVER

    def add(self, farewell: Farewell, now: float) -> None:
        """One more, whose connection is nobody else's, and not watched, from now on."""
        self._see_to(now)
        if len(self._unwatched) + len(self._watched) >= MOST:
            if self._unwatched:
                self._unwatched.pop(0).close()
            else:
                self._let_go(self._watched[0])
        if self._hurried:
            self._watch(farewell)
        else:
            self._unwatched.append(farewell)
        self._reckon()

    def sweep(self, now: float) -> None:
        """Let go of who has had their time; of those that are not watched also of the first ones that have left."""
        self._see_to(now)
        self._reckon()

    def watch(self) -> None:
        """Nobody may come by any more: notice at once who leaves."""
        self._hurried = True
        while self._unwatched:
            self._watch(self._unwatched.pop(0))
        self._reckon()

    def close(self) -> None:
        """Let go of all."""
        while self._unwatched:
            self._unwatched.pop().close()
        while self._watched:
            self._let_go(self._watched[-1])
        self._reckon()

    def _see_to(self, now: float) -> None:
        while self._unwatched:
            first = self._unwatched[0]
            if first.go_on(now):
                first.ends = now + DRAIN_SECONDS
                self._watch(self._unwatched.pop(0))
            elif first.over(now):
                self._unwatched.pop(0).close()
            else:
                break
        for farewell in [one for one in self._watched if one.over(now)]:
            self._let_go(farewell)

    def _reckon(self) -> None:
        self.deadline = self._unwatched[0].ends if self._unwatched else NEVER
        for farewell in self._watched:
            self.deadline = min(self.deadline, farewell.ends)

    def _watch(self, farewell: Farewell) -> None:
        try:
            self._poller.watch(farewell.fileno(), READ, self._stirred)
            self._watched.append(farewell)
        except OSError:  # the system has no room for it
            farewell.close()

    def _stirred(self, _events: int) -> None:
        now = self._poller.now
        for farewell in self._watched:
            farewell.go_on(now)
        self.sweep(now)

    def _let_go(self, farewell: Farewell) -> None:
        self._watched.remove(farewell)
        self._poller.forget(farewell.fileno())
        farewell.close()
