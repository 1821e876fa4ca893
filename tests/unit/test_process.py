"""Forks and signals; what needs a whole gateway is in tests/process."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pop3gw import privileges, process


def wait(pid: int) -> int:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError("the child does not end")


def test_who_gives_way_interrupts_nobody_and_can_take_it_back() -> None:
    def child() -> int:
        policies = [os.sched_getscheduler(0)]
        for change in (process.give_way, process.give_way, process.give_way_no_more, process.give_way_no_more):
            change()
            policies.append(os.sched_getscheduler(0))
        return 0 if policies == [os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_BATCH, os.SCHED_OTHER, os.SCHED_OTHER] else 1

    assert wait(process.fork(child, [], [])) == 0


def test_what_the_administrator_has_set_stays() -> None:
    def child() -> int:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        process.give_way()
        before = os.sched_getscheduler(0)
        process.give_way_no_more()
        return 0 if before == os.sched_getscheduler(0) == os.SCHED_IDLE else 1

    assert wait(process.fork(child, [], [])) == 0


def test_a_child_keeps_what_it_is_given_and_nothing_else() -> None:
    kept, reader = os.pipe()[0], os.pipe()[0]

    def child() -> int:
        there = {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}
        return 0 if kept in there and reader not in there else 1

    assert wait(process.fork(child, [kept], [])) == 0
    os.close(kept)
    os.close(reader)


def test_a_child_leaves_without_unwinding_its_parent() -> None:
    marks: list[str] = []
    reader, writer = os.pipe()
    try:
        pid = process.fork(lambda: 7, [writer], [])
    finally:
        marks.append("unwound")
        os.write(writer, b"x")  # the child would write another
    assert os.waitstatus_to_exitcode(wait(pid)) == 7
    assert os.read(reader, 10) == b"x"
    os.close(reader)
    os.close(writer)


def test_a_child_that_raises_ends_with_a_status() -> None:
    def child() -> int:
        raise SystemExit(0)

    assert os.waitstatus_to_exitcode(wait(process.fork(child, [], []))) == 1


def test_a_child_that_raises_says_where_and_which_class_and_no_more(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def child() -> int:
        try:
            raise ValueError("pw " + "hunter" + "22")
        finally:
            raise SystemExit("hunter" + "22")

    monkeypatch.setattr(sys, "stderr", sys.__stderr__)  # descriptor 2, which a child keeps
    wait(process.fork(child, [], []))
    said = capfd.readouterr().err
    assert "in child" in said
    assert said.endswith("SystemExit\n")
    assert "hunter22" not in said


SIGNALS = """
import os, signal, time
from pop3gw import process, signals
inbox = signals.Inbox([signal.SIGHUP, signal.SIGTERM])
def child():
    handlers = [signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)]
    right = handlers == [signal.SIG_IGN, signal.SIG_DFL] and not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)
    return 5 if right else 6
pid = process.fork(child, [], [signal.SIGHUP])
_, status = os.waitpid(pid, 0)
print(inbox.read(), process.describe_status(status))
os.kill(os.getpid(), signal.SIGHUP)
print(inbox.read(), signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""


def test_signals_to_a_child_are_its_own_and_the_parent_reads_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", SIGNALS], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.splitlines() == ["[] signal 15 (Terminated)", f"[{int(signal.SIGHUP)}] set()"]


def test_one_that_is_gone_can_be_killed_too() -> None:
    def child() -> int:
        signal.pause()
        return 0

    pid = process.fork(child, [], [])
    process.kill(pid)
    assert os.WTERMSIG(wait(pid)) == signal.SIGKILL
    process.kill(pid)


def sleeper(user: str | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"], user=user)


def test_only_a_child_is_killed_or_waited_for() -> None:
    """A pid that has been reaped may be another's by now."""
    script = (
        "import sys; from pop3gw import process; process.kill(int(sys.argv[1])); process.wait_for(int(sys.argv[1]), 0)"
    )
    with sleeper() as other:
        subprocess.run([sys.executable, "-c", script, str(other.pid)], check=True, timeout=20)
        assert other.poll() is None
        other.kill()


def test_a_child_that_there_is_no_descriptor_to_wait_by_for_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_pid: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", full)

    def child() -> int:
        signal.pause()
        return 0

    pid = process.fork(child, [], [])
    process.wait_for(pid, 60)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
def test_who_is_named_by_others_is_killed_with_their_rights_only() -> None:
    account = privileges.find_account("nobody", None)
    with sleeper() as ours, sleeper("nobody") as theirs:
        process.kill_as(account, ours.pid)
        process.kill_as(account, theirs.pid)
        assert theirs.wait(20) == -signal.SIGKILL
        assert ours.poll() is None
        ours.kill()
    while process.reap():
        pass


def test_what_nobody_may_kill_is_left_alone() -> None:
    process.kill_as(None, 1 << 22)


@pytest.mark.parametrize("status", [0, 3 << 8, 9, 0x80 | 11, 64])
def test_what_waitpid_says_is_an_end(status: int) -> None:
    assert process.is_end(status)
    assert process.describe_status(status)


@pytest.mark.parametrize("status", [-1, -9, 127, 65407, 0xFFFF, 100, 0x10000, 1 << 40, (1 << 63) - 1])
def test_what_waitpid_never_says_is_none(status: int) -> None:
    assert not process.is_end(status)


def test_how_a_process_ended_is_told_in_words() -> None:
    assert process.describe_status(0) == "exit status 0"
    assert process.describe_status(3 << 8) == "exit status 3"
    assert process.describe_status(9) == "signal 9 (Killed)"
