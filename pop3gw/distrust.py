"""What the workers' account may change, where root starts the gateway: root must not be led by it.

It looks at owners and modes; it opens nothing, and knows neither policies nor logs.

Known limits: access control lists are not looked at, and of accounts only that of the workers is distrusted.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pop3gw.privileges import Account

_LINKS: Final = 40  # that a path may have, as for the kernel


@dataclass(frozen=True, slots=True)
class Distrust:
    """The account of the workers where root starts the gateway: what it may write is nothing of the administrator's.

    ``groups`` holds its group and its supplementary groups.
    """

    account: str
    uid: int
    groups: frozenset[int]

    @classmethod
    def of(cls, account: Account) -> Self:
        return cls(account.name, account.uid, frozenset((account.gid, *account.groups)))

    def fault(self, status: os.stat_result) -> str:
        """Why a file or folder with this status can't be trusted; "" where it can."""
        mode = status.st_mode
        if mode & stat.S_IWOTH:
            return "everyone may write it"
        if self.uid != 0 and status.st_uid == self.uid:
            return f"it belongs to the workers' account {self.account}"
        if self.uid != 0 and mode & stat.S_IWGRP and status.st_gid in self.groups:
            return f"the workers' account {self.account} may write it"
        return ""

    def may_redirect(self, path: Path) -> bool:
        """Whether it may change where this path leads, by a folder or a link on the way.

        OSError: there is no such way.
        """
        at, ahead, links = Path(path.anchor), list(path.parts[1:]), 0
        while ahead:
            entry = at / ahead.pop(0)
            if self._may_replace(entry, at.stat()):
                return True
            if entry.is_symlink():
                links += 1
                if links > _LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = entry.readlink()
                ahead[:0] = target.parts[1:] if target.is_absolute() else target.parts
                at = Path(target.anchor) if target.is_absolute() else at
            else:
                at = at.parent if entry.name == ".." else entry
        return False

    def _may_replace(self, entry: Path, folder: os.stat_result) -> bool:
        """Whether it may put something else there; in a sticky folder (/tmp) not in the place of what is others'."""
        if not self.fault(folder):
            return False
        if not folder.st_mode & stat.S_ISVTX or folder.st_uid == self.uid:
            return True
        try:
            return entry.lstat().st_uid == self.uid
        except FileNotFoundError:
            return True
