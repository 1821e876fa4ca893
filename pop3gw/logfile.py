"""Opens a log file. Root's rights must not serve the workers' account, to which the log's folder often belongs.

Where that account may change where the path leads (it could put a link there), only a plain file is opened, with its
rights, and one that is made belongs to it; in every other place the log is opened with those of root. Not started as
root there are no others.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from pop3gw.distrust import Distrust
from pop3gw.privileges import Account, acting_as

# O_NONBLOCK: a named pipe without a reader is an error at once, not a start that hangs.
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_MODE: Final = 0o640


def fault(path: str, account: Account | None) -> str:
    """Why ``open_log`` would fail, where that is a matter of rights; "" where it is not. Nothing is made."""
    if account is None or not Distrust.of(account).may_redirect(Path(path)):
        return "" if _may_write(path) else f'"{path}", which this account (uid {os.geteuid()}) may not write'
    with acting_as(account):
        plain = not os.path.lexists(path) or stat.S_ISREG(os.lstat(path).st_mode)
        if plain and _may_write(path):
            return ""
    return f'"{path}", which must be a plain file of {account.name}, the account that may change what lies there'


def _may_write(path: str) -> bool:
    place = Path(os.path.realpath(path))  # a link may lead to what is to be made; of a loop open() will tell
    if place.exists():
        return os.access(place, os.W_OK, effective_ids=True)
    return os.access(place.parent, os.W_OK | os.X_OK, effective_ids=True)


def open_log(path: str, account: Account | None) -> int:
    """Open a file to append to; ``account``: the workers' where root has started the gateway, else None.

    OSError: it can't be opened; the text says why.
    """
    if account is None or not Distrust.of(account).may_redirect(Path(path)):
        return os.open(path, _FLAGS, _MODE)
    try:
        with acting_as(account):
            descriptor = os.open(path, _FLAGS | os.O_NOFOLLOW, _MODE)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        said = "it is no plain file"
    except OSError as error:
        said = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror or ""
    raise PermissionError(errno.EACCES, f"{said}; it must belong to {account.name}, which may change what lies there")
