"""Callbacks that sleep, spin and swallow their interruption, under the real timer of a real process."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from pop3gw.callguard import CallbackTimeoutError, CallGuard, notice_forks
from pop3gw.errors import Exit

LIMIT = 30  # ms
SOON = 3.0  # s; far less than what is interrupted would take


@pytest.fixture
def guard() -> Iterator[CallGuard]:
    before = signal.getsignal(signal.SIGALRM)
    guard = CallGuard(lambda _who, _why: None, lambda: None)
    yield guard
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def sleep() -> None:
    time.sleep(60)


def spin() -> None:
    while True:
        pass


def backtrack() -> None:
    import re

    re.fullmatch(r"(a+)+b", "a" * 64)


def swallow() -> str:
    with contextlib.suppress(BaseException):
        time.sleep(60)
    return "as if nothing had been"


def clean_up_slowly() -> None:
    try:
        time.sleep(60)
    finally:
        time.sleep(60)


@pytest.mark.parametrize("callback", [sleep, spin, backtrack, swallow, clean_up_slowly])
def test_what_takes_too_long_is_interrupted(guard: CallGuard, callback: Callable[[], object]) -> None:
    began = time.monotonic()
    with pytest.raises(CallbackTimeoutError, match=r"callback_timeout \(30 ms\)"):
        guard.call(callback, (), LIMIT)
    assert time.monotonic() - began < SOON


def test_what_is_done_in_time_gives_what_it_returns_and_raises_what_it_raises(guard: CallGuard) -> None:
    assert guard.call(max, (1, 2), LIMIT) == 2
    with pytest.raises(ZeroDivisionError):
        guard.call(divmod, (1, 0), LIMIT)


def test_no_interruption_comes_once_a_call_is_over(guard: CallGuard) -> None:
    for _ in range(200):  # ends of calls and ends of their time, as close together as they get
        with contextlib.suppress(CallbackTimeoutError):
            guard.call(time.sleep, (0.001,), 1)
        os.kill(os.getpid(), signal.SIGALRM)  # and one that was on its way


def test_the_timer_of_an_earlier_call_is_kept_and_gives_each_its_whole_time(guard: CallGuard) -> None:
    guard.call(max, (1, 2), 4 * LIMIT)
    earlier = signal.getitimer(signal.ITIMER_REAL)[0]
    began = time.monotonic()
    guard.call(max, (1, 2), 8 * LIMIT)
    assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= earlier
    assert guard.call(time.sleep, (5 * LIMIT / 1000,), 8 * LIMIT) is None
    with pytest.raises(CallbackTimeoutError):
        guard.call(sleep, (), LIMIT)
    assert time.monotonic() - began < SOON


def test_the_timer_of_the_last_call_goes_off_once_and_says_nothing(guard: CallGuard) -> None:
    guard.call(max, (1, 2), 8 * LIMIT)
    ends = time.monotonic() + SOON
    while signal.getitimer(signal.ITIMER_REAL)[0] and time.monotonic() < ends:
        pass
    time.sleep(1 / 1000)  # of less than a microsecond the system first says 0, then, once it is over, one microsecond
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert guard.call(max, (1, 2), 100 * LIMIT) == 2


def test_behind_a_rest_the_timer_is_set_in_any_case(guard: CallGuard) -> None:
    guard.call(max, (1, 2), 8 * LIMIT)
    signal.setitimer(signal.ITIMER_REAL, 0)  # as a policy may have done
    guard.rest()
    began = time.monotonic()
    with pytest.raises(CallbackTimeoutError):
        guard.call(sleep, (), 8 * LIMIT)
    assert time.monotonic() - began < SOON


def test_each_of_many_calls_has_the_whole_time(guard: CallGuard) -> None:
    def many() -> str:
        end = time.monotonic() + 4 * LIMIT / 1000
        while time.monotonic() < end:
            guard.calls += 1
        return "done"

    assert guard.call(many, (), LIMIT) == "done"

    def many_and_one_that_sleeps() -> None:
        guard.calls += 1
        time.sleep(60)

    with pytest.raises(CallbackTimeoutError):
        guard.call(many_and_one_that_sleeps, (), LIMIT)


def test_one_of_many_short_calls_has_little_more_than_its_time(guard: CallGuard) -> None:
    began = 0.0

    def many_and_one_that_sleeps() -> None:
        nonlocal began
        ends = time.monotonic() + 5 * LIMIT / 1000
        while time.monotonic() < ends:
            guard.calls += 1
        guard.calls += 1
        began = time.monotonic()
        time.sleep(60)

    limit = 40 * LIMIT
    with pytest.raises(CallbackTimeoutError):
        guard.call(many_and_one_that_sleeps, (), limit)
    assert time.monotonic() - began < 1.7 * limit / 1000


def test_who_makes_many_calls_sees_that_one_has_swallowed_its_interruption(guard: CallGuard) -> None:
    done = []

    def many() -> None:
        for _ in range(3):
            guard.calls += 1
            done.append(swallow())
            if guard.interrupted:
                return

    with pytest.raises(CallbackTimeoutError):
        guard.call(many, (), LIMIT)
    assert len(done) == 1


def stubborn() -> None:
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(60)


def test_one_that_swallows_every_interruption_ends_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pop3gw.callguard.STUBBORN", 2)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            CallGuard(telling(writing), lambda: None).call(stubborn, (), LIMIT)
        finally:
            os._exit(99)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        assert said.read().startswith(b"callback stubborn swallows each interruption by callback_timeout")
    assert how_it_ended(child) == Exit.FAILED


@pytest.mark.parametrize("raises", [False, True])
def test_a_process_that_a_callback_has_forked_does_not_come_back(raises: bool) -> None:
    reading, writing = os.pipe()
    children: list[int] = []

    def forks() -> int:
        if child := os.fork():
            children.append(child)
            return 1
        if raises:
            raise ValueError
        return 1

    before = signal.getsignal(signal.SIGALRM)
    notice_forks()
    try:
        guard = CallGuard(telling(writing), lambda: None)
        assert guard.call(forks, (), 60_000) == 1
        guard.call(lambda: None, (), 60_000)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if not children:
            os._exit(99)  # it did come back
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        assert said.read().startswith(b"a callback has called os.fork(), and the new process came back")
    assert [how_it_ended(child) for child in children] == [Exit.FAILED]


def test_a_process_that_one_of_many_calls_has_forked_makes_no_more_of_them() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            notice_forks()
            guard = CallGuard(telling(writing), lambda: None)

            def many() -> None:
                for _ in range(3):
                    guard.calls += 1
                    if os.fork() == 0:
                        os.write(writing, b"came back; ")
                    if guard.interrupted:
                        return

            guard.call(many, (), 60_000)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        assert said.read().count(b"came back; ") == 3
    assert how_it_ended(child) == 0


def telling(descriptor: int) -> Callable[[str, str], None]:
    def tell(who: str, why: str) -> None:
        os.write(descriptor, f"{who} {why}".encode())

    return tell


def how_it_ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
