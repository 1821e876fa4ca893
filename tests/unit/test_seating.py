"""What a worker begins with."""

from __future__ import annotations

import pytest

from pop3gw.seating import State, engaged


def test_all_seats_of_a_new_worker_are_free_but_it_takes_no_session_yet() -> None:
    worker = engaged(7, 3, 1000, 0.0)
    assert worker.number == 7
    assert sorted(worker.free) == [0, 1, 2]
    assert worker.state is State.STARTING
    assert (worker.credit, worker.served, worker.clients, worker.old) == (0, 0, {}, False)


@pytest.mark.parametrize(
    ("max_sessions", "chance", "limit"),
    [(1000, 0.0, 1000), (1000, 0.5, 950), (1000, 0.999, 901), (10, 0.5, 10), (1, 0.999, 1)],
)
def test_it_is_replaced_up_to_a_tenth_early_and_never_before_it_has_served(
    max_sessions: int, chance: float, limit: int
) -> None:
    assert engaged(1, 1, max_sessions, chance).limit == limit
