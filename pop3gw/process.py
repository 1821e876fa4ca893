"""What a process of ours is: detached, within its limits, named, and forked with discipline.

The only module that knows python-daemon and setproctitle. It must not know sessions, pools or the configuration file.

The discipline of a fork: the signals that we handle are blocked around it, so none is handled by a child that still has
its parent's handlers and wake-up descriptor; the child closes what isn't its own (else nobody would see an end of
file), and leaves by ``os._exit``, so that nothing of the parent's stack is unwound in it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib.util
import os
import resource
import select
import socket
import sys
from collections.abc import Callable, Iterable
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path
from signal import NSIG, SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGTERM, SIGUSR1, SIGUSR2, strsignal
from types import ModuleType
from typing import Final

from pop3gw import signals
from pop3gw.backtrace import bare
from pop3gw.errors import StartError
from pop3gw.privileges import Account, drop_privileges

UMASK: Final = 0o027
_DESCRIPTORS: Final = 1 << 20  # more than this helps nobody and makes some kernels slow
_PR_SET_DUMPABLE: Final = 4
_STATUS_MOST: Final = 0xFFFF
_REMEDIES: Final = {
    errno.EMFILE: "LimitNOFILE, or ulimit -n",
    errno.ENFILE: "the system's fs.file-max",
    errno.ENOSPC: "the system's fs.epoll.max_user_watches",
    errno.EAGAIN: "TasksMax, or ulimit -u",
    errno.ENOMEM: "MemoryMax, or ulimit -v",
}


def _titles() -> ModuleType:
    """setproctitle, without what its package imports beside it: ``logging``, and ``threading`` by that.

    Both have hooks that run in each child of every fork, and unshare 0.4 MiB of it.
    """
    package = importlib.util.find_spec("setproctitle")
    folders = package.submodule_search_locations if package is not None else None
    spec = PathFinder.find_spec("_setproctitle", folders) if folders else None
    if spec is None or spec.loader is None:  # a version that is made otherwise
        return importlib.import_module("setproctitle")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_setproctitle: Final[Callable[[str], None]] = _titles().setproctitle


# What a process may, and what it is called.


def open_standard_streams() -> None:
    """Put /dev/null in the place of each of stdin, stdout and stderr that is closed, before anything else is opened.

    Some init scripts start daemons so; else a listener or a log would get such a number, which every child keeps.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest number that is free
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def detach(preserve: Iterable[int]) -> None:
    """Become a daemon: own session, in ``/``, standard streams on /dev/null, every descriptor closed but these."""
    import daemon  # not in the foreground, where all processes would carry it

    context = daemon.DaemonContext(
        detach_process=True,
        files_preserve=list(preserve),
        umask=UMASK,
        working_directory="/",
        prevent_core=True,
        signal_map={},
    )
    context.open()


def limit_resources() -> None:
    """As many descriptors as the system lets us have, and no core files: they would hold passwords."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if most == resource.RLIM_INFINITY else min(most, _DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def descriptor_limit() -> int:
    """How many descriptors this process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def shortage(error: OSError) -> str:
    """What the system would not give, and where the administrator can have it given."""
    reason = error.strerror or os.strerror(error.errno or 0)
    remedy = _REMEDIES.get(error.errno or 0)
    return reason if remedy is None else f"{reason}: raise {remedy}"


def descriptors() -> frozenset[int]:
    """Those that are open in this process; none where the system does not tell."""
    found = set()
    try:
        listed = [int(path.name) for path in Path("/proc/self/fd").iterdir()]
    except OSError:
        return frozenset()
    for descriptor in listed:
        try:
            os.fstat(descriptor)
        except OSError:  # by which they were listed
            continue
        found.add(descriptor)
    return frozenset(found)


def processors() -> int:
    """How many processes of ours can run at once."""
    return len(os.sched_getaffinity(0))


_gives_way = False


def give_way() -> None:
    """From now on nobody is interrupted when this process is woken up: those that run have their turn first.

    Its children are as it is. Where the administrator has set a policy, or the system allows none, all stays as it was.
    Source: sched(7), SCHED_BATCH.
    """
    global _gives_way
    with contextlib.suppress(OSError):
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            _gives_way = True


def give_way_no_more() -> None:
    """Take back what ``give_way()`` has done, here or in whoever forked this process."""
    global _gives_way
    if _gives_way:
        _gives_way = False
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def forbid_dumps() -> None:
    """Let no process of the same account read this one's memory, nor that of its children."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise StartError(f"prctl(PR_SET_DUMPABLE) failed: {os.strerror(ctypes.get_errno())}")


def leave_terminal() -> None:
    """Give up the terminal: standard streams that lead there only write to it from now on.

    Whoever has a terminal can read what is typed there, and type by itself (TIOCSTI). For a child, before it gives up
    its privileges. A process without a terminal stays in its session and group.
    """
    writing = os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC
    try:
        terminal = os.open("/dev/tty", writing)  # may be had also behind su, where the terminal is another account's
        leaves = True
    except OSError as error:
        terminal, leaves = -1, error.errno != errno.ENXIO  # which says that it has none
    for number in filter(os.isatty, (0, 1, 2)):
        try:
            if number and terminal >= 0 and _is_of_session(number):
                anew = os.dup(terminal)
            else:
                anew = os.open(os.ttyname(number) if number else os.devnull, writing if number else os.O_RDONLY)
        except OSError:  # of another name space, or of somebody else: it is kept, since the log may go there
            continue
        os.dup2(anew, number)
        os.close(anew)
    if terminal >= 0:
        os.close(terminal)
    if leaves:
        os.setsid()


def _is_of_session(number: int) -> bool:
    """Whether this terminal is the one of the session that this process is in."""
    try:
        os.tcgetpgrp(number)
    except OSError:
        return False
    return True


def title(text: str) -> None:
    """What ``ps`` shows for this process. Control characters are replaced."""
    _setproctitle(text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text))


# Forks.


# For the master: its children, which whoever signals a whole group reaches too, ignore them.
FOR_MASTER: Final = (SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2)
# Those that a process of ours has a handler for, or ignores.
_HANDLED: Final = (*FOR_MASTER, SIGCHLD, SIGALRM, SIGPIPE)


def fork(child: Callable[[], int], keep: Iterable[int], ignore: Iterable[int]) -> int:
    """Run ``child`` in a new process, which leaves with the status that it returns; returns the child's pid.

    The child has the standard streams and the descriptors ``keep``; these signals are ignored in it, all others have
    their default. OSError: the system has no room for a process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    before = signals.block(_HANDLED)
    pid = -1
    try:
        pid = os.fork()
        if pid == 0:
            _run_child(child, keep, ignore)
    finally:
        if pid:
            signals.block_only(before)
    return pid


def _run_child(child: Callable[[], int], keep: Iterable[int], ignore: Iterable[int]) -> None:
    status = 1
    try:
        signals.forget_inbox()
        ignored = (*ignore, SIGPIPE)  # whose write says so as well
        for number in _HANDLED:
            signals.handle(number, signals.IGNORE if number in ignored else signals.DEFAULT)
        _close_others(keep)
        signals.block_only(())
        status = child()
    except BaseException as fault:  # noqa: BLE001
        sys.stderr.write(bare(fault))  # what it says may be a secret that a policy has put there
        sys.stderr.flush()
    finally:
        os._exit(status)


def _close_others(keep: Iterable[int]) -> None:
    # The parent's socket objects still exist in the child, and stay: its frames are below us on the stack.
    after = 3
    for descriptor in sorted({number for number in keep if number > 2}):
        os.closerange(after, descriptor)
        after = descriptor + 1
    os.closerange(after, _DESCRIPTORS)


def close_apart(end: socket.SocketType) -> None:
    """Close a socket in which connections may lie that nobody has taken, and whose close may wait (SO_LINGER).

    A child has it meanwhile, so that they are closed there: for a process that ends no close waits. Where there is no
    room for a child it stays open.
    """
    try:
        reading, writing = os.pipe()
    except OSError:
        end.detach()
        return
    try:
        fork(partial(_hold, reading), (end.fileno(), reading), FOR_MASTER)
        end.close()
    except OSError:
        end.detach()
    finally:
        os.close(reading)
        os.close(writing)


def _hold(reading: int) -> int:
    os.read(reading, 1)  # until the other end is closed, and the socket with it
    return 0


def is_end(status: int) -> bool:
    """Whether this is what os.waitpid() says of a process that has ended: a template may report any number."""
    if not 0 <= status <= _STATUS_MOST:
        return False
    return os.WIFEXITED(status) or (os.WIFSIGNALED(status) and os.WTERMSIG(status) < NSIG)


def describe_status(status: int) -> str:
    """How a process ended, from what os.waitpid() says: ``exit status 1``, ``signal 9 (Killed)``."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"signal {number} ({strsignal(number)})"
    return f"exit status {os.waitstatus_to_exitcode(status)}"


def kill(pid: int) -> None:
    """Kill a child that may be gone: once it was reaped, its pid may be another's."""
    if is_child(pid):
        os.kill(pid, SIGKILL)


def kill_as(account: Account | None, pid: int) -> None:
    """Kill a process that somebody has named, with this account's rights (None: it is ours) and no others.

    A child does it for root, so the system sees to it. OSError: there is no room for that child.
    """
    if account is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, SIGKILL)
    else:
        fork(partial(_kill_as, account, pid), (), FOR_MASTER)


def _kill_as(account: Account, pid: int) -> int:
    drop_privileges(account)
    forbid_dumps()
    kill_as(None, pid)
    return 0


def is_child(pid: int) -> bool:
    """Whether it is a child that has not been reaped yet."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def wait_for(pid: int, seconds: float) -> None:
    """Wait until this child, which leaves or was killed, is gone; after so many seconds it is killed."""
    if not is_child(pid):
        return
    if not _ends_within(pid, seconds):
        os.kill(pid, SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _ends_within(pid: int, seconds: float) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:  # there is none left to wait by
        return False
    try:
        end = select.poll()  # select() knows no descriptor above 1023
        end.register(descriptor, select.POLLIN)
        return bool(end.poll(seconds * 1000))
    finally:
        os.close(descriptor)


def reap() -> list[tuple[int, int]]:
    """The pids of children that have ended, with their status as os.waitpid() gives it."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, status))
