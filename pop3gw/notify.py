"""What the service manager is told of the master (sd_notify(3)): ready, reloading, stopping, its counts, that it lives.

``Tidings`` decides what to tell when, from times that it is given; ``manager()`` is the way to systemd. It knows
nothing of the gateway. The protocol is spoken here and not through python3-sdnotify: that library waits for a manager
that does not read, and nothing may stop the master.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, MutableMapping
from typing import Final

from pop3gw.times import NEVER

_STATUS_PERIOD: Final = 1.0  # s between two status lines
_STOP_MARGIN: Final = 15.0  # s that a stop may take beyond what the sessions have

Tell = Callable[[str], None]


class Tidings:
    """What to tell, and when. Call ``turn()`` at ``deadline`` at the latest; times are those of time.monotonic()."""

    def __init__(self, tell: Tell | None, beat: float = NEVER) -> None:
        """``tell`` sends one message; None: nobody listens. ``beat``: seconds between two signs of life."""
        self.heard = tell is not None
        self.deadline = -NEVER if tell is not None else NEVER
        self._tell: Tell = tell if tell is not None else _nobody
        self._beat = beat
        self._beat_at = -NEVER if beat != NEVER else NEVER
        self._status = ""  # as it was told
        self._status_at = -NEVER if tell is not None else NEVER  # when the next one may be told
        self._is_ready = False

    def ready(self) -> None:
        """Everything serves, for the first time or again after ``reloading()``."""
        self._is_ready = True
        self._tell("READY=1")

    def reloaded(self) -> None:
        """A reload is over, whether it has changed anything or not."""
        if self._is_ready:
            self._tell("READY=1")

    def reloading(self, now: float) -> None:
        """A reload begins. Before the gateway is ready that is nobody's business."""
        if self._is_ready:
            self._tell(f"RELOADING=1\nMONOTONIC_USEC={int(now * 1_000_000)}")

    def stopping(self, seconds: float) -> None:
        """The gateway stops, and its sessions may take so many seconds."""
        self._tell(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int((seconds + _STOP_MARGIN) * 1_000_000)}")

    def turn(self, now: float, status: Callable[[], str]) -> None:
        """A turn of the master's loop is over. ``status`` is asked for one line, once a second at most."""
        if now >= self._beat_at:
            self._tell("WATCHDOG=1")
            self._beat_at = now + self._beat
        look_again = NEVER
        if now < self._status_at:
            look_again = self._status_at
        elif (text := status()) != self._status:
            self._tell(f"STATUS={text}")
            self._status = text
            self._status_at = now + _STATUS_PERIOD
        self.deadline = min(self._beat_at, look_again)


def _nobody(_text: str) -> None:
    """Nobody listens."""


def manager(environment: MutableMapping[str, str]) -> Tidings:
    """Tidings for the service manager that the environment names, or for nobody.

    Its variables are removed: they aren't for what policies start.
    """
    address = environment.pop("NOTIFY_SOCKET", "")
    period = environment.pop("WATCHDOG_USEC", "")
    watched = environment.pop("WATCHDOG_PID", str(os.getpid()))
    if not address:
        return Tidings(None)
    end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    end.setblocking(False)
    path = f"\0{address[1:]}" if address.startswith("@") else address

    def tell(text: str) -> None:
        with contextlib.suppress(OSError):  # it is busy or gone: the master goes on
            end.sendto(text.encode(), path)

    is_watched = period.isdecimal() and watched == str(os.getpid())
    return Tidings(tell, int(period) / 1_000_000 / 3 if is_watched else NEVER)
