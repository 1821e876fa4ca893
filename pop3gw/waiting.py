"""A wait before which handlers of signals have their turn, interpreted on purpose.

They run when the interpreter does, and what a loop calls is compiled: who may wait long, and is told something by a
signal, comes by here. It must never be compiled itself (setup.py).
"""

from __future__ import annotations

from select import epoll


def wait(events: epoll, seconds: float | None, most: int) -> list[tuple[int, int]]:
    """Up to so many descriptors that are ready, each with its events; none after so many seconds (None: no end)."""
    return events.poll(seconds, most)
