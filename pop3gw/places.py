"""Whether a start could make a file at a path that is set for it, and the folder for it: pid file and control socket.

It asks the system and, but for ``make_home``, makes nothing. It must not know what is to lie there. Logs are another
matter: which account opens them depends on where they lie (``logfile``).
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

_NOTHING: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def is_folder(path: Path) -> bool:
    """Whether this is a folder. OSError: it can't be told; ``Path.is_dir()`` says no then, from Python 3.14 on."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        if error.errno not in _NOTHING:
            raise
    except ValueError:  # no path can hold that
        pass
    return False


def homeless(path: str) -> str:
    """Why there is no folder for a file at this path, and none would be made; "" where there is."""
    folder = Path(path).parent
    try:
        if is_folder(folder):
            return ""
        if is_folder(folder.parent) and not os.path.lexists(folder):
            return unwritable(str(folder))
    except OSError as error:
        return f'"{path}": {error.strerror}'
    return f"there is no folder {folder}"


def make_home(path: str) -> None:
    """Make the folder of this path where only that is missing: one that all may enter, whatever the umask."""
    folder = Path(path).parent
    if not folder.is_dir():
        before = os.umask(0o022)  # no chmod: who may change what lies there could have put a link in its place
        try:
            folder.mkdir(exist_ok=True)
        finally:
            os.umask(before)


def unwritable(path: str, *, anew: bool = True) -> str:
    """Why this account can't make a file at this path, or write the one there unless it is made anew; "" where it may.

    So it is where the folder is still to be made: of that ``homeless`` tells.
    """
    place = Path(path) if not anew and os.path.lexists(path) else Path(path).parent
    if not place.exists() or os.access(place, os.W_OK | (os.X_OK if place.is_dir() else 0), effective_ids=True):
        return ""
    return f'"{path}", where this account (uid {os.geteuid()}) may not write {place}'
