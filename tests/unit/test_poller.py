"""What a worker waits for."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from pop3gw.poller import ALL, BROKEN, READ, WRITE, Poller


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for end in (reading, writing):
        os.close(end)


def test_who_is_ready_is_called_with_what_came_as_long_as_it_is_so(poller: Poller, pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    called: list[int] = []
    poller.watch(reading, READ, called.append)
    assert poller.poll(0) == 0
    os.write(writing, b"x")
    assert poller.poll(0) == poller.poll(0, handlers=False) == 1
    assert called == [READ, READ]
    os.read(reading, 1)
    assert poller.poll(0) == poller.poll(0, handlers=False) == 0
    assert called == [READ, READ]


def test_other_events_and_other_callers(poller: Poller, pipe: tuple[int, int]) -> None:
    _, writing = pipe
    first: list[int] = []
    second: list[int] = []
    poller.watch(writing, READ, first.append)
    assert poller.poll(0) == 0
    poller.change(writing, WRITE)
    assert poller.poll(0) == 1
    poller.hand_over(writing, second.append)
    assert poller.poll(0) == 1
    assert (first, second) == ([WRITE], [WRITE])


def test_what_is_broken_is_said_unasked(poller: Poller) -> None:
    reading, writing = os.pipe()
    called: list[int] = []
    poller.watch(writing, READ, called.append)
    os.close(reading)
    poller.poll(0)
    (events,) = called
    assert events & BROKEN
    poller.forget(writing)
    os.close(writing)
    assert len(poller) == 0


def test_what_is_forgotten_is_waited_for_no_more(poller: Poller, pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    poller.watch(reading, READ, lambda _events: None)
    os.write(writing, b"x")
    poller.forget(reading)
    assert poller.poll(0) == 0
    for descriptor in (reading, 10_000, -1):
        with pytest.raises(KeyError):
            poller.hand_over(descriptor, lambda _events: None)


def test_an_event_of_a_descriptor_that_was_closed_is_not_anothers_who_has_got_its_number(poller: Poller) -> None:
    """Both are ready; whoever is called first closes the other's, and its number is a new one's at once."""
    pairs = [os.pipe() for _ in range(2)]
    called: list[int] = []
    strangers: list[int] = []

    def call(reading: int) -> None:
        called.append(reading)
        if len(called) == 1:
            (other,) = (end for end, _ in pairs if end != reading)
            poller.forget(other)
            os.dup2(fresh, other)
            poller.watch(other, READ, strangers.append)

    fresh, writing = os.pipe()
    for reading, full in pairs:
        os.write(full, b"x")
        poller.watch(reading, READ, lambda _events, reading=reading: call(reading))  # type: ignore[misc]
    assert poller.poll(1) == 2
    assert sorted(called) == sorted(reading for reading, _ in pairs)
    assert strangers == []
    os.write(writing, b"x")
    poller.forget(called[0])
    assert poller.poll(1) == 1
    assert strangers == [READ]
    for end in (fresh, writing, *(end for pair in pairs for end in pair)):
        os.close(end)


def test_it_says_when_the_last_wait_was_over(poller: Poller, pipe: tuple[int, int]) -> None:
    poller.watch(pipe[0], READ, lambda _events: None)
    before = time.monotonic()
    poller.poll(0.01)
    assert before + 0.01 <= poller.now <= time.monotonic()


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
    assert [poller.poll(seconds) for _ in range(3)] == rounds
    assert len(called) == 100
    for pair in ends:
        for end in pair:
            os.close(end)


def test_it_wakes_up_when_the_time_is_over(poller: Poller, pipe: tuple[int, int]) -> None:
    poller.watch(pipe[0], READ, lambda _events: None)
    assert poller.poll(0.01) == 0
    os.write(pipe[1], b"x")
    assert poller.poll(None) == 1


@pytest.mark.parametrize(("most", "rounds"), [(2, [2, 2, 1]), (ALL, [5, 0, 0])])
def test_who_must_hear_all_that_are_ready_says_so(most: int, rounds: list[int]) -> None:
    ends = [os.pipe() for _ in range(5)]
    with closing(Poller(most)) as poller:
        for reading, writing in ends:
            os.write(writing, b"x")
            poller.watch(reading, READ, lambda _events, reading=reading: poller.forget(reading))  # type: ignore[misc]
        assert [poller.poll(0.01) for _ in range(3)] == rounds
    for pair in ends:
        for end in pair:
            os.close(end)


@pytest.mark.interpreted  # the wait is another's
def test_handlers_of_signals_have_their_turn_where_that_is_wanted(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    came_by: list[int] = []

    def wait(_epoll: object, _seconds: float, most: int) -> list[tuple[int, int]]:
        came_by.append(most)
        return []

    monkeypatch.setattr("pop3gw.poller._wait", wait)
    poller.poll(0, handlers=False)
    assert came_by == []
    poller.poll(0)
    assert came_by == [1]
