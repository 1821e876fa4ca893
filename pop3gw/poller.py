"""What a worker waits for: descriptors, and who is called when one of them is ready.

epoll and a dictionary. ``selectors`` does the same behind keys, masks and file objects of its own, which cost a session
as much as its policy does (docs/performance.md). It knows nothing of sockets, sessions or messages.

Known limit: Linux, as the rest of the gateway.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Final, TypeAlias

from pop3gw.waiting import wait

READ: Final[int] = select.EPOLLIN
WRITE: Final[int] = select.EPOLLOUT
BROKEN: Final[int] = select.EPOLLERR | select.EPOLLHUP  # said without being asked for; alone: nothing but that

# Descriptors that are mostly looked at in one round: the others have their turn in the next. So many as the interpreter
# has memory of its own for (512 octets); for more it asks the system's allocator, each time.
_BATCH: Final = 42
_wait: Final = wait

Call: TypeAlias = Callable[[int], None]  # with the events that came: READ, WRITE, BROKEN


class Poller:
    """Descriptors that are watched. One that is closed must be forgotten before."""

    __slots__ = ("_calls", "_epoll")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Call] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def watch(self, descriptor: int, events: int, call: Call) -> None:
        """Call this when one of the events comes, as often as it is so. OSError: the system has no room for it."""
        self._epoll.register(descriptor, events)
        self._calls[descriptor] = call

    def change(self, descriptor: int, events: int) -> None:
        """Wait for other events."""
        self._epoll.modify(descriptor, events)

    def hand_over(self, descriptor: int, call: Call) -> None:
        """The same events are another's from now on. KeyError: it is not watched."""
        if descriptor not in self._calls:
            raise KeyError(descriptor)
        self._calls[descriptor] = call

    def forget(self, descriptor: int) -> None:
        """Wait for it no more."""
        self._epoll.unregister(descriptor)
        del self._calls[descriptor]

    def poll(self, seconds: float | None) -> list[tuple[Call, int]]:
        """What is to be called now, each with its events; after so many seconds nothing. None: however long it takes.

        With no time to wait (0) it is all that there is, since what is due will be judged by it. A call that was
        forgotten by an earlier one of the same list is still in it.
        """
        calls = self._calls
        most = len(calls) or 1
        if most > _BATCH and (seconds is None or seconds > 0):
            most = _BATCH
        return [(calls[descriptor], events) for descriptor, events in _wait(self._epoll, seconds, most)]

    def close(self) -> None:
        """Let go of everything."""
        self._epoll.close()
        self._calls.clear()
