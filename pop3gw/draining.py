"""Which services turn their clients away because the administrator said so (drain, resume), now and later.

Pure, and knows services by their names alone. What was said holds until the contrary is, whatever a reload brings: a
service that is removed and comes again is as it was, and where every service was drained a new one is, too.
"""

from __future__ import annotations

from collections.abc import Iterable


class Draining:
    """What was said of all services of one gateway."""

    __slots__ = ("_all", "_exceptions")

    def __init__(self) -> None:
        self._all = False
        self._exceptions: set[str] = set()  # by name: of these the contrary holds, also while they are not configured

    def holds(self, service: str) -> bool:
        """Whether a service of this name is drained, or would be if there were one."""
        return self._all is not (service in self._exceptions)

    def say(self, service: str, on: bool, present: Iterable[str]) -> None:
        """Drain this service, or resume it; "": every one. ``present``: those that are configured now."""
        if not service:
            self._all = on
            self._exceptions.clear()
        elif self.holds(service) is not on:
            self._exceptions ^= {service}
        if self._all and not any(map(self.holds, present)):  # resumed one after another: so is one that comes later
            self._all = False
            self._exceptions.clear()
