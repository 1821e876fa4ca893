"""The sockets of the attendants: where pop3gwctl asks, and where the metrics are served.

Bound by the master at its start, while it may and while there is a terminal to say what is wrong on. Who is let in at
the control socket is decided by its mode and its group, and once more, by the peer's credentials, in ``control``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pop3gw import listeners, places
from pop3gw.errors import ConfigurationError, StartError
from pop3gw.privileges import Account
from pop3gw.settings import Config
from pop3gw.values import Address

_BACKLOG: Final = 64
_MODE: Final = 0o660
_ANOTHER: Final = "set another control_socket"


@dataclass(slots=True)
class Doors:
    """The bound sockets; None for what the configuration does not ask for."""

    control: socket.socket | None = None
    metrics: socket.socket | None = None
    _made: tuple[str, os.stat_result] | None = None

    @classmethod
    def open(cls, config: Config, account: Account | None) -> Self:
        """Bind what the configuration asks for. Pop3gwError: it can't be had."""
        doors = cls()
        try:
            if config.metrics_listen is not None:
                doors.metrics = _metrics(config, config.metrics_listen)
            if config.control_socket is not None:
                gid = os.getegid() if account is None else account.gid
                doors.control = _control(config.control_socket, gid)
                doors._made = (config.control_socket, Path(config.control_socket).lstat())
        except BaseException:
            doors.close()
            raise
        return doors

    def metrics_at(self) -> Address | None:
        """Where the metrics are served."""
        return None if self.metrics is None else Address(*self.metrics.getsockname()[:2])

    def descriptors(self) -> list[int]:
        """What to keep open while daemonizing."""
        return [door.fileno() for door in (self.control, self.metrics) if door is not None]

    def close(self) -> None:
        """Close them, and remove the control socket where it still is the one that was made."""
        for door in (self.control, self.metrics):
            if door is not None:
                door.close()
        if self._made is not None:
            path, made = self._made
            with contextlib.suppress(OSError):  # it is gone, or its folder is
                if os.path.samestat(os.lstat(path), made):
                    Path(path).unlink()


def fault(path: str) -> str:
    """Why no control socket could be made at this path; "" where nothing seems to be in the way. Nothing is made."""
    if found := places.homeless(path):
        return found
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return f'"{path}", which is no socket'
    except FileNotFoundError:  # it will be made
        pass
    except OSError as error:
        return f'"{path}": {error.strerror}'
    return places.unwritable(path)


def _control(path: str, gid: int) -> socket.socket:
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~_MODE)  # nobody else may connect, not even between two system calls
    try:
        places.make_home(path)
        _remove_stale(path)
        door.bind(path)
        if os.lstat(path).st_gid != gid:  # a sandbox may forbid even a change to what it is
            os.chown(path, -1, gid, follow_symlinks=False)
        door.listen(_BACKLOG)
    except StartError:
        door.close()
        raise
    except OSError as error:
        door.close()
        raise StartError(
            f"the control socket {path} can't be made: {error.strerror or error};"
            " set control_socket to a path in a folder that exists and that this account may write"
        ) from error
    finally:
        os.umask(before)
    return door


def _remove_stale(path: str) -> None:
    """Remove a socket on which nobody listens. StartError: somebody does, or it is no socket."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise StartError(f"the control socket can't be made at {path}: it is no socket; remove it, or {_ANOTHER}")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
        except BlockingIOError:  # somebody does, and has no time
            pass
    raise StartError(f"the control socket {path} belongs to a gateway that runs; stop that one, or {_ANOTHER}")


def _metrics(config: Config, wanted: Address) -> socket.socket:
    door = None
    try:
        door = listeners.bound(wanted)
        door.listen(_BACKLOG)
    except OSError as error:
        if door is not None:
            door.close()
        expected = "an address of this machine, and a port that is free"
        found = f"{wanted} can't be used: {error.strerror}"
        raise ConfigurationError([config.problem("", "metrics_listen", found, expected)]) from error
    return door
