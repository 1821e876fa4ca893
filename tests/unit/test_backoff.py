"""Waits that grow."""

from __future__ import annotations

from pop3gw.backoff import Backoff


def test_each_failure_doubles_the_wait_up_to_the_most() -> None:
    backoff = Backoff(first=1.0, most=5.0)
    waits = []
    now = 0.0
    for _ in range(5):
        waits.append(backoff.failed(now))
        now = backoff.until
    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_failures_during_a_wait_are_one() -> None:
    backoff = Backoff(first=1.0)
    assert backoff.failed(0.0) == 1.0
    assert backoff.failed(0.5) is None
    assert backoff.until == 1.0


def test_success_forgets_failures() -> None:
    backoff = Backoff(first=1.0)
    backoff.failed(0.0)
    backoff.worked()
    assert backoff.until < 0.0
    assert backoff.failed(0.0) == 1.0


def test_it_never_overflows() -> None:
    backoff = Backoff(first=1.0, most=30.0)
    now = 0.0
    for _ in range(2000):
        backoff.failed(now)
        now = backoff.until
    assert backoff.failed(now) == 30.0
