"""The end of a service, step by step at made-up times."""

from __future__ import annotations

import pytest

from pop3gw.closing import END_LIMIT, Closing, Phase
from pop3gw.orders import Act
from pop3gw.times import NEVER

NOTHING: tuple[list[Act], str] = ([], "")


@pytest.fixture
def closing() -> Closing:
    closing = Closing()
    closing.timeout = 5
    return closing


def test_while_it_serves_nothing_is_due(closing: Closing) -> None:
    assert closing.phase is Phase.RUNNING
    assert closing.until == NEVER
    assert closing.advance(1e9, 3) == NOTHING


def test_who_is_stopped_lets_sessions_finish_then_ends_them_then_kills(closing: Closing) -> None:
    closing.stop(0.0)
    assert (closing.phase, closing.until) == (Phase.DRAINING, 5.0)
    assert closing.advance(4.0, 3) == NOTHING
    assert closing.advance(5.0, 3) == (
        [Act.END],
        "3 sessions go on after shutdown_timeout (5 s); they are ended",
    )
    assert (closing.phase, closing.until) == (Phase.ENDING, 5.0 + END_LIMIT)
    assert closing.advance(5.0, 3) == NOTHING
    assert closing.advance(5.0 + END_LIMIT, 3) == ([Act.KILL], "")
    assert (closing.phase, closing.until) == (Phase.KILLING, NEVER)
    assert closing.advance(1e9, 3) == NOTHING


def test_without_sessions_there_is_nothing_to_report(closing: Closing) -> None:
    closing.stop(0.0)
    assert closing.advance(5.0, 0) == ([Act.END], "")


def test_who_drains_waits_however_long(closing: Closing) -> None:
    closing.drain()
    assert (closing.phase, closing.until) == (Phase.DRAINING, NEVER)
    assert closing.advance(1e9, 3) == NOTHING


def test_one_that_drains_can_be_stopped(closing: Closing) -> None:
    closing.drain()
    closing.stop(10.0)
    assert closing.until == 15.0


def test_who_is_asked_late_says_what_was_due_in_its_order(closing: Closing) -> None:
    closing.end(0.0)
    assert closing.advance(END_LIMIT, 3) == ([Act.END, Act.KILL], "")


@pytest.mark.parametrize("after", [0.0, END_LIMIT])
def test_what_ends_or_is_killed_is_not_stopped_or_ended_again(closing: Closing, after: float) -> None:
    closing.end(0.0)
    closing.advance(after, 1)
    before = (closing.phase, closing.until)
    closing.stop(after)
    closing.end(after)
    assert (closing.phase, closing.until) == before
    assert closing.advance(after, 1) == NOTHING
