"""The worker's half of the credit: what may come, and when it is said."""

from __future__ import annotations

import random
from contextlib import closing

import pytest

from pop3gw import fdpass, messages, pool
from pop3gw.credit import CREDIT, CREDIT_SHARE, FREED, Credit

MANY = 1000  # descriptors for more sessions than any worker here has seats


def stays(seats: int, affordable: int = MANY, *, prompt: bool = False) -> Credit:
    return Credit(seats, affordable, prompt=prompt)


def take(credit: Credit, sessions: int) -> None:
    for _ in range(sessions):
        credit.taken()


def test_one_seat_is_one_credit_and_is_reported_at_once() -> None:
    credit = stays(1)
    assert credit.offer(leaves=False) == 1
    for _ in range(3):
        credit.taken()
        assert credit.busy == 1
        assert credit.offer(leaves=False) == 0
        assert credit.freed(0, leaves=False)
        assert credit.report(leaves=False) == (1, (0,))
        assert credit.busy == 0
        assert credit.offer(leaves=False) == 0


def test_many_seats_are_offered_a_part_at_a_time_and_again_when_half_is_used() -> None:
    seats = 2 * CREDIT * CREDIT_SHARE
    part = seats // CREDIT_SHARE
    credit = stays(seats)
    assert credit.offer(leaves=False) == part
    take(credit, part // 2 - 1)
    assert credit.offer(leaves=False) == 0
    credit.taken()
    assert credit.offer(leaves=False) == part // 2


def test_of_many_seats_several_that_are_free_are_reported_together() -> None:
    credit = stays(200)
    credit.offer(leaves=False)
    take(credit, 20)
    said = [credit.freed(seat, leaves=False) for seat in range(FREED)]
    assert said == [False] * (FREED - 1) + [True]
    assert credit.report(leaves=False) == (20, tuple(range(FREED)))
    assert not credit.freed(FREED, leaves=False)


def test_where_clients_are_limited_each_is_reported_at_once() -> None:
    credit = stays(200, prompt=True)
    credit.offer(leaves=False)
    credit.taken()
    assert credit.freed(0, leaves=False)


def test_where_few_seats_are_free_each_is_reported_at_once() -> None:
    credit = stays(200)
    for _ in range(200):
        credit.offer(leaves=False)
        credit.taken()
    assert credit.offer(leaves=False) == 0
    assert credit.freed(17, leaves=False)
    assert credit.report(leaves=False) == (1, (17,))


def test_no_more_come_than_there_are_descriptors_for() -> None:
    credit = stays(200, 5)
    assert credit.offer(leaves=False) == 5
    take(credit, 5)
    assert credit.offer(leaves=False) == 0
    assert credit.freed(3, leaves=False)  # clients may be waiting, though seats are free
    assert credit.report(leaves=False) == (1, (3,))


def test_a_worker_that_leaves_reports_at_once_and_grants_nothing() -> None:
    credit = stays(200)
    credit.offer(leaves=False)
    take(credit, 20)
    assert not credit.freed(1, leaves=False)
    assert credit.freed(2, leaves=True)
    assert credit.report(leaves=True) == (0, (1, 2))
    assert credit.offer(leaves=True) == 0


@pytest.mark.parametrize(("seats", "most"), [(1, 1), (5, 5), (32, CREDIT), (800, 100)])
def test_one_that_is_wedged_collects_no_more_than_the_limit(seats: int, most: int) -> None:
    """Whatever was granted before: once it hears nothing any more, no more than that is under way."""
    credit = stays(seats)
    granted = 0
    for _ in range(10 * seats):
        granted += credit.offer(leaves=False)
        assert granted <= most
        if granted:
            credit.taken()
            granted -= 1


@pytest.mark.parametrize(("seats", "affordable"), [(1, 1), (2, 1), (32, MANY), (200, MANY), (200, 9)])
def test_no_more_is_granted_than_the_master_knows_to_be_free(seats: int, affordable: int) -> None:
    """Sessions come and go by chance; reports are late by chance."""
    chance = random.Random(seats * affordable)
    credit = stays(seats, affordable)
    free, busy = list(range(seats)), list[int]()  # as the master knows, and as it is
    granted = credit.offer(leaves=False)
    untold = 0
    for _ in range(3000):
        report = False
        if granted and chance.random() < 0.55:
            granted -= 1
            credit.taken()
            busy.append(free.pop())
            granted += credit.offer(leaves=False)
        elif busy:
            report = credit.freed(busy.pop(chance.randrange(len(busy))), leaves=False)
            untold += 1
        if report or (untold and chance.random() < 0.1):
            more, seats_freed = credit.report(leaves=False)
            assert len(seats_freed) == untold
            granted, untold = granted + more, 0
            free += seats_freed
        assert 0 <= granted <= len(free)
        assert granted + credit.busy <= affordable
        assert granted or untold or len(busy) == min(seats, affordable)  # nobody waits for ever
        assert credit.busy == len(busy)


@pytest.mark.parametrize(("seats", "prompt"), [(pool.TALKATIVE, True), (1000, False)])
def test_a_worker_all_of_whose_sessions_end_need_not_wait_until_it_is_heard(seats: int, prompt: bool) -> None:
    credit = stays(seats, prompt=prompt)
    take(credit, seats)
    ours, end = fdpass.Channel.pair()
    with closing(ours), closing(fdpass.Channel(end, waits=False)) as channel:
        for seat in range(seats):
            if credit.freed(seat, leaves=False):
                channel.send(messages.Free(*credit.report(leaves=False)))
