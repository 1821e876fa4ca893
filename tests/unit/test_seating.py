"""What a worker begins with, and that the sums are those of the workers, whatever happens."""

from __future__ import annotations

import random

import pytest

from pop3gw.seating import Seating, State


def test_all_seats_of_a_new_worker_are_free_but_it_takes_no_session_yet() -> None:
    seating = Seating()
    seating.engage(3, 1000, 0.0)
    worker = seating.engage(3, 1000, 0.0)
    assert worker.number == seating.last == 2
    assert sorted(worker.free) == [0, 1, 2]
    assert worker.state is State.STARTING
    assert (worker.credit, worker.served, worker.clients, worker.old) == (0, 0, {}, False)
    assert (seating.starting, seating.serving, seating.vacant, seating.credit) == (2, 0, 0, 0)


@pytest.mark.parametrize(
    ("max_sessions", "chance", "limit"),
    [(1000, 0.0, 1000), (1000, 0.5, 950), (1000, 0.999, 901), (10, 0.5, 10), (1, 0.999, 1)],
)
def test_it_is_replaced_up_to_a_tenth_early_and_never_before_it_has_served(
    max_sessions: int, chance: float, limit: int
) -> None:
    assert Seating().engage(1, max_sessions, chance).limit == limit


def test_without_credit_nobody_is_taken() -> None:
    seating = Seating()
    worker = seating.engage(1, 1000, 0.0)
    with pytest.raises(LookupError):
        seating.take(1)
    assert seating.trust(worker, 5)
    assert not seating.trust(worker, 1)
    assert seating.take(1) == (worker, 0)
    with pytest.raises(LookupError):
        seating.take(1)


@pytest.mark.parametrize("seed", range(20))
def test_the_sums_are_those_of_the_workers(seed: int) -> None:
    chance = random.Random(seed)
    seating = Seating()
    for _ in range(500):
        workers = list(seating.workers.values())
        some = chance.choice(workers) if workers else seating.engage(chance.choice((1, 4)), 1000, 0.0)
        match chance.randrange(8):
            case 0:
                seating.engage(chance.choice((1, 4)), 1000, 0.0)
            case 1 | 2:
                seating.trust(some, chance.randrange(-1, 6))
            case 3 | 4 if seating.credit:
                worker, seat = seating.take(chance.choice((1, 2)))
                worker.clients[seat] = "192.0.2.1"
            case 5:
                seating.vacate(some, chance.randrange(4))
            case 6 if some.state is not State.LEAVING and chance.random() < 0.3:
                seating.leave(some)
            case 7 if chance.random() < 0.1:
                for worker in workers:
                    if worker.state is not State.LEAVING:
                        seating.leave(worker)
                seating.grow_old()
            case 7 if some.state is State.LEAVING:
                seating.forget(some)
        now = seating.workers.values()
        serving = [worker for worker in now if worker.state is State.SERVING]
        assert seating.starting == sum(worker.state is State.STARTING for worker in now)
        assert seating.serving == len(serving)
        assert seating.vacant == sum(len(worker.free) for worker in serving)
        assert seating.credit == sum(worker.credit for worker in now) <= seating.vacant
        assert set(seating._open) == {worker for worker in now if worker.credit}
        assert seating.older == sum(worker.old for worker in now)
        assert seating.older_sessions == sum(len(worker.clients) for worker in now if worker.old)
