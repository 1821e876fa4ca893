"""What a worker waits for."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pop3gw.poller import BROKEN, READ, WRITE, Poller


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for end in (reading, writing):
        os.close(end)


def heard(poller: Poller, seconds: float = 0.0) -> list[int]:
    """The events of this round, each called."""
    round_ = poller.poll(seconds)
    for call, events in round_:
        call(events)
    return [events for _, events in round_]


def test_who_is_ready_is_called_with_what_came_as_long_as_it_is_so(poller: Poller, pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    called: list[int] = []
    poller.watch(reading, READ, called.append)
    assert heard(poller) == []
    os.write(writing, b"x")
    assert heard(poller) == heard(poller) == [READ]
    assert called == [READ, READ]
    os.read(reading, 1)
    assert heard(poller) == []


def test_other_events_and_other_callers(poller: Poller, pipe: tuple[int, int]) -> None:
    _, writing = pipe
    first: list[int] = []
    second: list[int] = []
    poller.watch(writing, READ, first.append)
    assert heard(poller) == []
    poller.change(writing, WRITE)
    assert heard(poller) == [WRITE]
    poller.hand_over(writing, second.append)
    assert heard(poller) == [WRITE]
    assert (first, second) == ([WRITE], [WRITE])


def test_what_is_broken_is_said_unasked(poller: Poller) -> None:
    reading, writing = os.pipe()
    poller.watch(writing, READ, lambda _events: None)
    os.close(reading)
    (events,) = heard(poller)
    assert events & BROKEN
    poller.forget(writing)
    os.close(writing)
    assert len(poller) == 0


def test_what_is_forgotten_is_waited_for_no_more(poller: Poller, pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    poller.watch(reading, READ, lambda _events: None)
    os.write(writing, b"x")
    poller.forget(reading)
    assert heard(poller) == []
    with pytest.raises(KeyError):
        poller.hand_over(reading, lambda _events: None)


@pytest.mark.parametrize(("seconds", "rounds"), [(0.01, [42, 42, 16]), (0.0, [100, 0, 0])])
def test_in_one_round_some_are_looked_at_and_the_others_in_the_next_or_all_where_something_is_due(
    poller: Poller, seconds: float, rounds: list[int]
) -> None:
    ends = [os.pipe() for _ in range(100)]
    called: set[int] = set()
    for reading, writing in ends:
        os.write(writing, b"x")

        def call(_events: int, reading: int = reading) -> None:
            called.add(reading)
            poller.forget(reading)

        poller.watch(reading, READ, call)
    assert [len(heard(poller, seconds)) for _ in range(3)] == rounds
    assert len(called) == 100
    for pair in ends:
        for end in pair:
            os.close(end)


def test_it_wakes_up_when_the_time_is_over(poller: Poller, pipe: tuple[int, int]) -> None:
    poller.watch(pipe[0], READ, lambda _events: None)
    assert poller.poll(0.01) == []
    os.write(pipe[1], b"x")
    assert len(poller.poll(None)) == 1
