"""What a loop waits for: descriptors, and who is called when one of them is ready.

epoll and a list. ``selectors`` does the same behind keys, masks and file objects of its own, which cost a session as
much as its policy does (docs/performance.md). It knows nothing of sockets, sessions or messages.

Known limit: Linux, as the rest of the gateway.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from pop3gw.waiting import wait

READ: Final[int] = select.EPOLLIN
WRITE: Final[int] = select.EPOLLOUT
BROKEN: Final[int] = select.EPOLLERR | select.EPOLLHUP  # said without being asked for; alone: nothing but that

# Descriptors that are mostly looked at in one round: the others have their turn in the next. So many as the interpreter
# has memory of its own for (512 octets); for more it asks the system's allocator, each time.
_BATCH: Final = 42
ALL: Final = 1 << 30  # in one round: for who judges others by their silence
_wait: Final = wait
monotonic: Final = time.monotonic

Call: TypeAlias = Callable[[int], object]  # with the events that came: READ, WRITE, BROKEN


class Poller:
    """Descriptors that are watched. One that is closed must be forgotten before.

    ``now``: when the last wait was over, on the clock of time.monotonic(); whoever takes long sets it anew. ``most``:
    descriptors that one round looks at, where it may wait.
    """

    __slots__ = ("_calls", "_epoll", "_look", "_most", "_watched", "now")

    def __init__(self, most: int = _BATCH) -> None:
        self._most = most
        self._epoll = select.epoll()
        self._look = self._epoll.poll  # named here, once: what a process does that was asleep, it does with cold caches
        self._calls: list[Call | None] = []  # by descriptor
        self._watched = 0
        self.now = monotonic()

    def __len__(self) -> int:
        return self._watched

    def fileno(self) -> int:
        """A descriptor that is ready (READ) as long as one of those that are watched is."""
        return self._epoll.fileno()

    def watch(self, descriptor: int, events: int, call: Call) -> None:
        """Call this when one of the events comes, as often as it is so. OSError: the system has no room for it."""
        self._epoll.register(descriptor, events)
        calls = self._calls
        while len(calls) <= descriptor:
            calls.append(None)
        calls[descriptor] = call
        self._watched += 1

    def change(self, descriptor: int, events: int) -> None:
        """Wait for other events."""
        self._epoll.modify(descriptor, events)

    def hand_over(self, descriptor: int, call: Call) -> None:
        """The same events are another's from now on. KeyError: it is not watched."""
        if not 0 <= descriptor < len(self._calls) or self._calls[descriptor] is None:
            raise KeyError(descriptor)
        self._calls[descriptor] = call

    def forget(self, descriptor: int) -> None:
        """Wait for it no more."""
        self._epoll.unregister(descriptor)
        self._calls[descriptor] = None
        self._watched -= 1

    def poll(self, seconds: float | None, *, handlers: bool = True) -> int:
        """Wait up to so many seconds (None: without end), call all that are ready with their events, return how many.

        With 0 seconds ``most`` does not count: who then asks what is overdue has heard everybody. A descriptor that an
        earlier call of the round has forgotten is called all the same. Without ``handlers`` signals are handled only
        when one of them ends the wait, or interpreted code is called: for a caller that comes by the interpreter soon.
        """
        calls = self._calls
        most = self._watched or 1
        if most > self._most and (seconds is None or seconds > 0):
            most = self._most
        ready = _wait(self._epoll, seconds, most) if handlers else self._look(seconds, most)
        self.now = monotonic()
        if len(ready) == 1:  # mostly; then nobody else can take its place
            descriptor, events = ready[0]
            if (call := calls[descriptor]) is not None:
                call(events)
        else:
            # A descriptor that is forgotten may be another's before its turn comes: all are looked up before.
            for call, events in [(calls[descriptor], events) for descriptor, events in ready]:
                if call is not None:
                    call(events)
        return len(ready)

    def close(self) -> None:
        """Let go of everything."""
        self._epoll.close()
        self._calls.clear()
