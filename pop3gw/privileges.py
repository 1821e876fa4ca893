"""Whom templates and workers run as, and how a process becomes that account: for good, or for a moment.

It knows the system's accounts, and neither the configuration file nor what else a process is (``process``).
"""

from __future__ import annotations

import contextlib
import ctypes
import grp
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pop3gw.errors import StartError

_DEFAULT_USERS: Final = ("pop3gw", "nobody")
_CAPABILITY_VERSION: Final = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: three sets of 64 bits, in two parts each
_PR_CAP_AMBIENT: Final = 47
_CLEAR_ALL: Final = 4


@dataclass(frozen=True, slots=True)
class Account:
    """Whom templates and workers run as. ``name`` is the one that they call themselves by."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]  # supplementary
    assumed: bool = False  # nobody named it


def find_account(user: str | None, group: str | None) -> Account | None:
    """The account that serves; None: the one that we are (not started as root, and no other is asked for).

    StartError: it doesn't exist, or only root could become it.
    """
    entry = _user(user) if user is not None else None
    gid = _group(group) if group is not None else None
    if os.geteuid() != 0:
        if (entry is not None and entry.pw_uid != os.geteuid()) or (gid is not None and gid != os.getegid()):
            wanted = f"user = {user}" if entry is not None and entry.pw_uid != os.geteuid() else f"group = {group}"
            raise StartError(
                f"{wanted}: only root can become another account, and this is {_me()};"
                " start pop3gw as root, or remove user and group"
            )
        return None
    if entry is None:
        entry = next(filter(None, map(_find_user, _DEFAULT_USERS)), None)
        if entry is None:
            raise StartError("started as root, and there is no account pop3gw or nobody; set user to one that serves")
    gid = entry.pw_gid if gid is None else gid
    groups = os.getgrouplist(entry.pw_name, gid)
    return Account(entry.pw_name, entry.pw_uid, gid, tuple(sorted(set(groups))), assumed=user is None)


def drop_privileges(account: Account | None) -> None:
    """Become this account for good: groups, group, user; checked afterwards. StartError: it did not work.

    None: it is the one that we are; then capabilities that a unit has given to it are given up, as far as that lets it.
    """
    if account is None:
        _drop_capabilities()
        return
    unable = f"can't become the account {account.name}"
    remedy = "start pop3gw as root with CAP_SETUID and CAP_SETGID, or as that account"
    try:
        os.setgroups(account.groups)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    except OSError as error:
        raise StartError(f"{unable}: {error.strerror}; {remedy}") from error
    if (
        os.getresuid() != (account.uid,) * 3
        or os.getresgid() != (account.gid,) * 3
        or set(os.getgroups()) != set(account.groups)
    ):
        raise StartError(f"{unable}: the system kept privileges of the old one; {remedy}")
    if account.uid != 0:
        try:
            os.setuid(0)
        except PermissionError:
            return
        raise StartError(
            f"the account {account.name} can become root again; start pop3gw without what keeps capabilities"
            " (SecureBits= of its unit, capsh), or as that account"
        )


def _drop_capabilities() -> None:
    """Those that AmbientCapabilities of a unit has given to us, and to whatever is executed from now on.

    Whether this process loses them as well is for the unit's filter to say: that of ours lets no capset() pass, which
    ``systemd-analyze security`` takes for worse. Source: capabilities(7), capset(2).
    """
    system = ctypes.CDLL(None)
    system.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    system.capset((ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)())


@contextlib.contextmanager
def acting_as(account: Account) -> Iterator[None]:
    """Within, root has this account's rights to files and no others. OSError: it can't become the account."""
    uid, gid, groups = os.geteuid(), os.getegid(), os.getgroups()
    try:
        os.setgroups(account.groups)
        os.setegid(account.gid)
        os.seteuid(account.uid)
        yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)
        os.setgroups(groups)


def _find_user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _user(name: str) -> pwd.struct_passwd:
    entry = _find_user(name)
    if entry is None:
        raise StartError(f"user = {name}: there is no such account; create it, or name another")
    return entry


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise StartError(f"group = {name}: there is no such group; create it, or name another") from None


def _me() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"
