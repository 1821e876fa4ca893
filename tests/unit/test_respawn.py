"""When workers may be forked again, from lists of failures at made-up times."""

from __future__ import annotations

import pytest

from pop3gw.respawn import QUIET, Failure, Respawn


def fail(respawn: Respawn, times: int, what: Failure = Failure.UNSERVED, now: float = 0.0) -> list[str]:
    """It fails so often, each time as soon as it may be tried; returns what is reported."""
    reports = []
    for _ in range(times):
        reports.append(respawn.failed(what, now))
        now = respawn.until
    return [report for report in reports if report]


def test_before_anything_fails_there_is_nothing_to_wait_for() -> None:
    assert Respawn().until < 0.0


def test_waits_double_and_each_longer_one_is_reported() -> None:
    assert [report.partition("try is in ")[2] for report in fail(Respawn(), 9)] == [
        *("0.25 s", "0.5 s", "1 s", "2 s", "4 s", "8 s", "16 s", "30 s"),
    ]


def test_the_longest_wait_is_reported_again_once_a_minute() -> None:
    assert len(fail(Respawn(), 8 + 10)) == 8 + 5


@pytest.mark.parametrize(
    ("what", "reason", "report"),
    [
        (Failure.UNSERVED, "", "workers end before they have served a session; the next try is in 0.25 s"),
        (Failure.FORK, "no memory", "a worker can't be forked (no memory); the next try is in 0.25 s"),
    ],
)
def test_a_report_says_what_failed_and_why(what: Failure, reason: str, report: str) -> None:
    assert Respawn().failed(what, 0.0, reason) == report


def test_failures_during_a_wait_are_one() -> None:
    respawn = Respawn()
    respawn.failed(Failure.FORK, 0.0)
    assert respawn.failed(Failure.UNSERVED, 0.125) == ""
    assert respawn.until == 0.25


@pytest.mark.parametrize(
    ("what", "served", "works"),
    [
        (Failure.FORK, False, True),
        (Failure.FORK, True, True),
        (Failure.UNSERVED, False, False),
        (Failure.UNSERVED, True, True),
    ],
)
def test_what_shows_that_it_works_again(what: Failure, served: bool, works: bool) -> None:
    respawn = Respawn()
    fail(respawn, 4, what)
    assert respawn.worked(served=served) is works
    assert (respawn.until < 0.0) is works


def test_the_last_failure_says_what_has_to_be_shown() -> None:
    respawn = Respawn()
    respawn.failed(Failure.FORK, 0.0)
    respawn.failed(Failure.UNSERVED, 0.125)
    assert not respawn.worked(served=False)


def test_what_fails_and_works_in_turn_waits_little_and_is_reported_once_a_minute() -> None:
    respawn = Respawn()
    reports = []
    for now in (0.0, 1.0, QUIET - 1, QUIET, QUIET + 1):
        reports.append(respawn.failed(Failure.FORK, now))
        assert respawn.until == now + 0.25
        respawn.worked(served=False)
    assert [bool(report) for report in reports] == [True, False, False, True, False]


@pytest.mark.parametrize(("after", "wait"), [(QUIET - 1, 1.0), (QUIET, 0.25)])
def test_a_failure_long_after_the_last_is_the_first_again(after: float, wait: float) -> None:
    respawn = Respawn()
    fail(respawn, 2)
    now = respawn.until + after
    respawn.failed(Failure.UNSERVED, now)
    assert respawn.until == now + wait
