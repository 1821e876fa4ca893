"""The pid file: one gateway a file, found by its lock, named by its number.

The lock (flock) is what counts: a file that nobody holds is stale, whatever number is in it, unless that process calls
itself pop3gw; so is an empty or blank one. A file that holds anything else is somebody's, and is left alone. Children
must close the descriptor (``process.fork`` does), else they would hold the lock when the master is gone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from pop3gw import places
from pop3gw.errors import StartError

_LONGEST: Final = 32  # octets: no process id has as many
_TRIAL: Final = b" " * 8  # nobody's number: shows, while there is a terminal to say it on, whether there is room


def fault(path: str) -> str:
    """Why no start could claim this path; "" where nothing seems to be in the way. Nothing is made."""
    if found := places.homeless(path):
        return found
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return places.unwritable(path)
    except OSError as error:
        return f'"{path}": {error.strerror}'
    try:
        _number_in(descriptor)
    except ValueError as what:
        return f'"{path}", which {what}'
    finally:
        os.close(descriptor)
    return places.unwritable(path, anew=False)


def _number_in(descriptor: int) -> int:
    """The number in an open pid file; 0: none yet. ValueError, with what is wrong: it is a file of something else."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise ValueError("is no plain file")
    text = os.pread(descriptor, _LONGEST, 0).strip()
    if len(text) == _LONGEST or (text and not text.isdigit()):
        raise ValueError("holds no process id")
    return int(text or b"0")


class PidFile:
    """A claimed pid file. Claim it before the process detaches, ``write()`` once clients can connect."""

    def __init__(self, path: str) -> None:
        """Claim the file at ``path``; its folder is made where only that is missing.

        StartError: it belongs to a gateway that runs, or is no pid file, or can't be written.
        """
        self._path = Path(path)
        try:
            places.make_home(path)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self._lock()
        except BaseException:
            os.close(self._descriptor)
            raise
        try:
            self._put(_TRIAL)
            self._put(b"")  # nor the number of one that has ended
        except BaseException:
            self.remove()
            raise

    def fileno(self) -> int:
        return self._descriptor

    def write(self) -> None:
        """Put this process's number into the file. StartError: it can't be written."""
        self._put(f"{os.getpid()}\n".encode())

    def remove(self) -> None:
        """Remove the file, where it still is the one that was claimed, and give up the claim."""
        try:
            if os.path.samestat(self._path.lstat(), os.fstat(self._descriptor)):
                self._path.unlink()
        except OSError:  # it is gone, or its folder is: nothing to remove
            pass
        finally:
            os.close(self._descriptor)

    def _put(self, text: bytes) -> None:
        try:
            os.fchmod(self._descriptor, 0o644)
            os.ftruncate(self._descriptor, 0)
            if os.pwrite(self._descriptor, text, 0) < len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> StartError:
        return StartError(
            f"the pid file {self._path} can't be written: {error.strerror};"
            " set pid_file to a file in a folder that exists and that this account may write, on a disk with room"
        )

    def _lock(self) -> None:
        pid = self._number()
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(self._taken(pid)) from None
        if pid != os.getpid() and _is_gateway(pid):
            raise StartError(self._taken(pid))

    def _number(self) -> int:
        """The number in the file; 0: none yet. StartError: it is a file of something else."""
        try:
            return _number_in(self._descriptor)
        except ValueError as what:
            raise StartError(f"the pid file {self._path} {what}; set pid_file to a file of its own") from None

    def _taken(self, pid: int) -> str:
        who = f"process {pid}" if pid else "a process that is just starting"
        return (
            f"the pid file {self._path} belongs to a gateway that runs ({who}); stop that one, or set another pid_file"
        )


def _is_gateway(pid: int) -> bool:
    if not pid:
        return False
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"pop3gw: master")
    except OSError:
        return False
