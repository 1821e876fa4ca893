"""How many spares are wanted, from numbers of free seats at made-up times."""

from __future__ import annotations

import pytest

from pop3gw.spares import LINGER, NO_BOUND, Spares
from pop3gw.times import NEVER


@pytest.mark.parametrize(("seats", "workers"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2)])
def test_a_worker_with_one_free_seat_is_a_spare(seats: int, workers: int) -> None:
    assert Spares(2, 8, 4).workers(seats) == workers


@pytest.mark.parametrize(
    ("free", "starting", "waiting", "short"),
    [
        (0, 0, 0, 2),
        (1, 0, 0, 1),
        (0, 1, 0, 1),
        (2, 0, 0, 0),
        (3, 1, 0, -2),
        (0, 0, 3, 5),
        (0, 2, 3, 3),
        (0, 0, 40, 8),
        (1, 0, 4, 4),
        (4, 0, 4, -2),
    ],
)
def test_each_client_that_waits_gets_one_beside_the_spares_within_the_most(
    free: int, starting: int, waiting: int, short: int
) -> None:
    assert Spares(2, 8, 1).short(free, starting, waiting) == short


@pytest.mark.parametrize(("waiting", "short"), [(0, 1), (1, 2), (50, 2), (51, 3), (1000, 4)])
def test_of_many_seats_clients_that_wait_share_a_worker(waiting: int, short: int) -> None:
    assert Spares(1, 4, 50).short(0, 0, waiting) == short


@pytest.mark.parametrize("seats", [1, 4, 50])
@pytest.mark.parametrize("starting", [0, 1, 2])
def test_with_one_seat_fewer_than_enough_one_more_is_wanted(seats: int, starting: int) -> None:
    spares = Spares(3, 8, seats)
    enough = spares.enough(starting)
    assert spares.short(enough, starting, 0) == 0
    assert spares.short(enough - 1, starting, 0) == 1


def test_without_a_surplus_all_is_calm_up_to_the_most() -> None:
    spares = Spares(2, 4, 10)
    assert spares.surplus(40, 0.0) == 0
    assert spares.until == NEVER
    assert spares.calm == (0, 40)


def test_what_was_too_many_all_the_time_leaves_and_not_before() -> None:
    spares = Spares(2, 4, 1)
    assert spares.surplus(10, 0.0) == 0
    assert spares.until == LINGER
    assert spares.surplus(7, 0.25) == 0
    assert spares.surplus(9, LINGER) == 3


def test_a_surplus_that_was_over_between_begins_anew() -> None:
    spares = Spares(2, 4, 1)
    spares.surplus(10, 0.0)
    spares.surplus(4, 0.25)
    assert spares.until == NEVER
    assert spares.surplus(10, LINGER) == 0
    assert spares.until == 2 * LINGER


def test_the_rest_of_a_surplus_stays_as_long_again() -> None:
    spares = Spares(2, 4, 1)
    for free, now in ((10, 0.0), (7, 0.25), (9, LINGER)):
        spares.surplus(free, now)
    spares.leave(3, LINGER)
    assert spares.until == 2 * LINGER
    assert spares.surplus(6, 2 * LINGER) == 2


@pytest.mark.parametrize(("free", "idle"), [(7, 3), (7, 1), (9, 0)])
def test_once_all_or_none_could_leave_no_time_runs(free: int, idle: int) -> None:
    """None are idle: then the end of a session says when to look again."""
    spares = Spares(2, 4, 1)
    spares.surplus(7, 0.0)
    spares.surplus(free, LINGER)
    spares.leave(idle, LINGER)
    assert spares.until == NEVER
    assert spares.calm == (0, 4)


@pytest.mark.parametrize("seats", [1, 4, 50])
def test_while_a_surplus_lasts_all_is_calm_as_long_as_it_is_not_smaller(seats: int) -> None:
    spares = Spares(2, 4, seats)
    spares.surplus(10 * seats, 0.0)
    lowest, highest = spares.calm
    assert highest == NO_BOUND
    spares.surplus(lowest, 0.25)
    assert spares.calm == (lowest, highest)
    spares.surplus(lowest - 1, 0.25)
    assert spares.calm < (lowest, highest)
