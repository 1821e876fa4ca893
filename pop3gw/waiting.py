"""The wait of every loop, interpreted on purpose.

Handlers of signals run when the interpreter does, and what a loop calls is compiled: here each of its rounds comes by.
It must never be compiled itself (setup.py).
"""

from __future__ import annotations

from select import epoll


def wait(events: epoll, seconds: float | None, most: int) -> list[tuple[int, int]]:
    """Up to so many descriptors that are ready, each with its events; none after so many seconds (None: no end)."""
    return events.poll(seconds, most)
