"""The pool's decisions, from lists of events at made-up times."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterator

import pytest

from pop3gw import congestion, respawn
from pop3gw import pool as pool_module
from pop3gw.closing import END_LIMIT, Phase
from pop3gw.orders import Act, Order
from pop3gw.patience import LEAVE_LIMIT, START_LIMIT
from pop3gw.pool import Pool
from pop3gw.settings import Service
from pop3gw.values import Address

A_CLIENT = "192.0.2.7"


def service(**settings: int) -> Service:
    return Service(name="inbound", listen=(), server=Address("192.0.2.1", 110), **settings)  # type: ignore[arg-type]


class Gateway:
    """A pool with workers that do at once what they are told; the test is clients, deaths and clock."""

    def __init__(self, jitter: float = 0.0, processors: int = 1, **settings: int) -> None:
        self.rules = service(**settings)
        self.now = 1000.0
        self.pool = Pool(lambda: jitter, processors)
        self.alive: list[int] = []
        self.seats: dict[tuple[int, int], str] = {}
        self.reports: list[str] = []
        self.forked = 0
        self.retired = 0
        self.told_to_end: list[int] = []
        self.killed: list[int] = []
        self.works = True  # whether a worker that is forked offers itself
        self.forks = True  # whether one can be forked
        self.leaves = True  # whether a worker does what it is told
        self.slow = False  # whether a worker that is forked takes its time: until ``come_up()``
        self.coming: list[int] = []

    def start(self) -> Gateway:
        self.pool.begin(self.rules, self.now)
        self.settle()
        return self

    def settle(self) -> None:
        while orders := self.pool.orders(self.now):
            for order in orders:
                self.obey(order)

    def obey(self, order: Order) -> None:
        match order.act:
            case Act.SPAWN:
                self.forked += 1
                if not self.forks:
                    self.pool.spawn_failed(order.worker, "Cannot allocate memory", self.now)
                elif self.works:
                    self.coming.append(order.worker)
                    if not self.slow:
                        self.come_up()
                else:
                    self.pool.ended(order.worker, self.now)
            case Act.RETIRE:
                self.retired += 1
                if self.leaves and not self.sessions_of(order.worker):
                    self.end_worker(order.worker)
            case Act.END:
                self.told_to_end.append(order.worker)
            case Act.KILL:
                self.killed.append(order.worker)
            case Act.REPORT:
                self.reports.append(order.text)

    def come_up(self) -> None:
        """The worker that was forked first is there."""
        worker = self.coming.pop(0)
        self.alive.append(worker)
        self.pool.offered(worker, min(8, self.rules.sessions_per_worker))
        if self.slow:
            self.settle()

    def sessions_of(self, worker: int) -> list[int]:
        return [seat for owner, seat in self.seats if owner == worker]

    def end_worker(self, worker: int) -> None:
        if worker in self.alive:
            self.alive.remove(worker)
        for seat in self.sessions_of(worker):
            del self.seats[worker, seat]
        self.pool.ended(worker, self.now)

    def connect(self, address: str = A_CLIENT) -> tuple[int, int] | None:
        """A client connects; None: it waits in the backlog."""
        if not self.pool.room(self.now):
            return None
        hand = self.pool.take(address, self.now)
        assert hand not in self.seats
        self.seats[hand] = address
        self.settle()
        return hand

    def hang_up(self, hand: tuple[int, int] | None) -> None:
        assert hand is not None
        worker, seat = hand
        del self.seats[hand]
        self.pool.freed(worker, (seat,), 1, self.now)
        self.settle()
        if worker in self.alive and not self.sessions_of(worker) and self.is_leaving(worker):
            self.end_worker(worker)
            self.settle()

    def is_leaving(self, worker: int) -> bool:
        return self.pool._seating.workers[worker].state.name == "LEAVING"

    def wait(self, seconds: float) -> None:
        """Time passes; what is due is done when it is due, and nothing between."""
        until = self.now + seconds
        while self.pool.deadline <= until:
            assert self.pool.deadline >= self.now, "the pool spins"
            self.now = self.pool.deadline
            self.settle()
        self.now = until


def test_it_starts_with_the_spare_workers_that_the_settings_ask_for() -> None:
    gateway = Gateway(min_spare=3).start()
    assert gateway.forked == 3
    assert gateway.pool.settled


def test_nothing_is_due_while_nothing_happens() -> None:
    gateway = Gateway().start()
    gateway.wait(3600)
    assert (gateway.forked, gateway.retired, gateway.reports) == (2, 0, [])


def test_before_a_template_is_ready_nothing_is_forked_or_accepted() -> None:
    pool = Pool(lambda: 0.0)
    assert pool.orders(0.0) == []
    assert pool.room(0.0) == 0
    assert not pool.settled


def test_a_session_takes_a_spare_and_is_replaced_by_another() -> None:
    gateway = Gateway(min_spare=2).start()
    gateway.connect()
    assert gateway.forked == 3
    assert gateway.pool.spare == 2


def test_a_worker_serves_again_when_its_session_is_over() -> None:
    gateway = Gateway(min_spare=1, max_spare=1, max_workers=1).start()
    first = gateway.connect()
    assert gateway.connect() is None
    gateway.hang_up(first)
    assert gateway.connect() == first
    assert gateway.forked == 1


def test_the_worker_that_was_freed_last_serves_next_so_that_few_stay_warm() -> None:
    gateway = Gateway(min_spare=4, max_spare=8).start()
    workers = set()
    for _ in range(20):
        hand = gateway.connect()
        assert hand is not None
        workers.add(hand[0])
        gateway.hang_up(hand)
    assert len(workers) == 1


@pytest.mark.parametrize(("processors", "shares"), [(1, [0, 2, 8]), (2, [0, 5, 5]), (3, [3, 3, 4]), (8, [3, 3, 4])])
def test_sessions_go_round_as_many_workers_as_can_run_at_once(processors: int, shares: list[int]) -> None:
    """One has credit for eight; what it has not taken yet goes to another."""
    gateway = Gateway(processors=processors, min_spare=3, max_workers=3, sessions_per_worker=50).start()
    hands = [gateway.connect() for _ in range(10)]
    assert sorted(sum(1 for hand in hands if hand and hand[0] == worker) for worker in gateway.alive) == shares


def test_a_worker_without_credit_gets_nothing_though_it_has_free_seats() -> None:
    gateway = Gateway(min_spare=1, max_spare=1, max_workers=1, sessions_per_worker=50).start()
    assert sum(1 for _ in range(20) if gateway.connect()) == 8


def test_wedged_workers_are_helped_by_others_though_seats_are_free() -> None:
    gateway = Gateway(min_spare=2, max_spare=2, max_workers=3, sessions_per_worker=50).start()
    for _ in range(16):
        assert gateway.connect() is not None
    assert gateway.connect() is None
    assert gateway.forked == 2
    gateway.wait(pool_module.STALL)
    assert gateway.forked == 3
    assert gateway.connect() is not None


def burst(gateway: Gateway, clients: int) -> None:
    """So many clients come at once, to a pool whose workers take a while to come up; each stays."""
    while clients:
        gateway.pool.waiting(clients - 1)
        if gateway.connect():
            clients -= 1
        else:
            gateway.come_up()


def test_in_a_burst_as_many_are_forked_as_clients_wait_and_the_spares() -> None:
    gateway = Gateway(min_spare=2, max_spare=8, max_workers=200).start()
    gateway.slow = True
    burst(gateway, 40)
    assert gateway.forked == 42


def test_in_a_burst_workers_are_forked_at_once_but_not_more_than_max_spare() -> None:
    gateway = Gateway(min_spare=2, max_spare=8, max_workers=200).start()
    gateway.slow = True
    steps = []
    for clients in (0, 3, 40, 40, 0):
        before = gateway.forked
        gateway.pool.waiting(clients)
        while gateway.connect():
            pass
        steps.append(gateway.forked - before)
        while gateway.coming:
            gateway.come_up()
    assert steps == [2, 5, 8, 8, 2]


def test_clients_that_wait_for_credit_alone_need_no_worker() -> None:
    gateway = Gateway(min_spare=1, max_spare=8, sessions_per_worker=50).start()
    for _ in range(8):
        assert gateway.connect() is not None
    gateway.pool.waiting(30)
    gateway.settle()
    assert gateway.forked == 1, "none for those whom 42 seats wait for"


def test_of_many_seats_a_worker_with_one_that_is_free_is_a_spare() -> None:
    gateway = Gateway(min_spare=2, max_spare=8, sessions_per_worker=4).start()
    forked = []
    for _ in range(9):
        assert gateway.connect() is not None
        forked.append(gateway.forked)
    assert forked == [2, 2, 2, 3, 3, 3, 3, 4, 4]


def test_after_a_burst_nothing_is_forked_while_sessions_come_and_go() -> None:
    gateway = Gateway(min_spare=2, max_spare=8, max_workers=200).start()
    gateway.slow = True
    burst(gateway, 16)
    before = gateway.forked
    for _ in range(100):
        gateway.hang_up(next(iter(gateway.seats)))
        assert gateway.connect() is not None
    assert gateway.forked == before


def test_while_nothing_is_to_be_decided_it_asks_for_no_attention() -> None:
    gateway = Gateway(min_spare=2, max_spare=4).start()
    hand = gateway.connect()
    gateway.settle()
    for _ in range(10):
        assert hand is not None
        gateway.pool.freed(hand[0], (hand[1],), 1, gateway.now)
        assert not gateway.pool.restless
        hand = gateway.pool.take(A_CLIENT, gateway.now)
        assert not gateway.pool.restless
    gateway.pool.take(A_CLIENT, gateway.now)
    assert gateway.pool.restless, "a spare is wanted"


def test_it_is_urgent_to_hear_workers_where_what_they_say_may_matter_at_once() -> None:
    gateway = Gateway(min_spare=1, max_spare=1, max_workers=2)
    gateway.slow = True
    assert gateway.pool.urgent, "nobody can take a client"
    gateway.start()
    gateway.come_up()
    assert not gateway.pool.urgent
    gateway.connect()
    assert gateway.pool.urgent, "a worker is starting"
    gateway.come_up()
    assert not gateway.pool.urgent
    gateway.start()
    gateway.come_up()
    assert gateway.pool.urgent, "one of an older generation may leave"


def test_it_is_urgent_to_hear_workers_of_a_service_that_closes_or_asks_for_clients_sessions() -> None:
    gateway = Gateway(sessions_per_worker=8, max_sessions_per_client=2).start()
    assert not gateway.pool.urgent
    gateway.rules = dataclasses.replace(gateway.rules, proxy_protocol_from=(ipaddress.ip_network("127.0.0.0/8"),))
    asking = Gateway()
    asking.rules = gateway.rules
    assert asking.start().pool.urgent
    assert Gateway(sessions_per_worker=1000, max_sessions_per_client=1000).start().pool.urgent
    assert not Gateway(sessions_per_worker=1000).start().pool.urgent
    gateway.pool.drain(gateway.now)
    assert gateway.pool.urgent


def test_surplus_spares_are_retired_within_a_second_but_not_at_once() -> None:
    gateway = Gateway(min_spare=2, max_spare=4).start()
    hands = [gateway.connect() for _ in range(30)]
    for hand in hands:
        gateway.hang_up(hand)
    assert gateway.retired == 0
    gateway.wait(1.0)
    assert gateway.pool.spare == gateway.pool.workers == 4


def test_spares_that_the_next_burst_wants_are_not_retired() -> None:
    gateway = Gateway(min_spare=2, max_spare=4).start()
    for _ in range(20):
        hands = [gateway.connect() for _ in range(30)]
        gateway.wait(0.1)
        for hand in hands:
            gateway.hang_up(hand)
        gateway.wait(0.2)
    assert gateway.retired == 0
    assert gateway.forked <= 40


def test_a_full_pool_makes_clients_wait_and_says_so_once() -> None:
    gateway = Gateway(min_spare=1, max_spare=2, max_workers=3).start()
    hands = [gateway.connect() for _ in range(3)]
    assert gateway.connect() is None
    gateway.wait(10)
    assert len(gateway.reports) == 1
    assert "max_workers (now 3)" in gateway.reports[0]
    gateway.hang_up(hands[0])
    assert gateway.connect() is not None
    assert len(gateway.reports) == 1, "a pool at its limit would fill the log"


def test_a_pool_whose_workers_have_no_descriptors_for_more_sessions_says_that() -> None:
    pool = Pool(lambda: 0.0, affordable=8)
    pool.begin(service(min_spare=1, max_spare=1, max_workers=1, sessions_per_worker=200), 0.0)
    (order,) = pool.orders(0.0)
    pool.offered(order.worker, 1)
    pool.take("192.0.2.7", 0.0)
    pool.orders(0.0)
    (report,) = pool.orders(pool_module.STALL)
    assert report.text.endswith(
        "raise max_workers (now 1) or the limit of descriptors (LimitNOFILE, ulimit -n), which leaves a worker 8 of its"
        " 200 sessions"
    )


def test_a_pool_that_was_full_once_says_so_again_much_later() -> None:
    gateway = Gateway(min_spare=1, max_spare=1, max_workers=1).start()
    gateway.hang_up(gateway.connect())
    gateway.wait(congestion.QUIET)
    gateway.connect()
    assert len(gateway.reports) == 2


def test_a_pool_that_became_full_again_and_stays_so_says_it_once_it_may() -> None:
    gateway = Gateway(min_spare=1, max_spare=1, max_workers=1).start()
    gateway.hang_up(gateway.connect())
    gateway.wait(1)
    gateway.connect()
    gateway.wait(congestion.QUIET - 2)
    assert len(gateway.reports) == 1
    gateway.wait(1)
    assert len(gateway.reports) == 2
    gateway.wait(3600)
    assert len(gateway.reports) == 2


def test_a_worker_is_replaced_after_max_sessions() -> None:
    gateway = Gateway(min_spare=1, max_spare=1, max_sessions=10).start()
    workers = []
    for _ in range(30):
        hand = gateway.connect()
        assert hand is not None
        workers.append(hand[0])
        gateway.hang_up(hand)
    assert max(workers.count(worker) for worker in workers) == 10


def test_workers_that_were_forked_together_are_not_replaced_together() -> None:
    limits: set[int] = set()
    for jitter in (0.0, 0.25, 0.5, 0.999):
        pool = Pool(lambda jitter=jitter: jitter)  # type: ignore[misc]
        pool.begin(service(max_sessions=1000, min_spare=1), 0.0)
        pool.orders(0.0)
        limits.update(worker.limit for worker in pool._seating.workers.values())
    assert len(limits) == 4
    assert all(900 <= limit <= 1000 for limit in limits)


def test_with_max_sessions_1_no_process_serves_twice() -> None:
    gateway = Gateway(jitter=0.9, min_spare=1, max_sessions=1).start()
    seen = []
    for _ in range(20):
        hand = gateway.connect()
        assert hand is not None
        seen.append(hand[0])
        gateway.hang_up(hand)
    assert len(set(seen)) == 20


def test_workers_that_die_before_serving_are_replaced_ever_more_slowly() -> None:
    gateway = Gateway(min_spare=2)
    gateway.works = False
    gateway.start()
    gateway.wait(60)
    assert gateway.forked <= 24
    assert gateway.pool.workers == 0
    assert "the next try is in 0.25 s" in gateway.reports[0]
    before = gateway.forked
    gateway.works = True
    gateway.wait(30)
    assert gateway.pool.settled
    assert gateway.forked == before + 2


def test_a_new_generation_has_no_back_off_of_the_one_before_it() -> None:
    gateway = Gateway(min_spare=2)
    gateway.works = False
    gateway.start()
    gateway.wait(60)
    assert wait_of(gateway) > 1
    gateway.works = True
    gateway.start()
    assert gateway.pool.settled


def test_a_worker_that_dies_in_a_session_is_replaced_at_once_however_often() -> None:
    gateway = Gateway(min_spare=2).start()
    for _ in range(50):
        hand = gateway.connect()
        assert hand is not None
        gateway.end_worker(hand[0])
        gateway.settle()
        assert gateway.pool.spare >= 2
    assert gateway.reports == []


def wait_of(gateway: Gateway) -> float:
    """How long the pool waits before it forks again."""
    return gateway.pool._respawn.until - gateway.now


@pytest.mark.parametrize("forks", [True, False])
def test_sessions_of_workers_that_were_there_before_end_no_back_off(forks: bool) -> None:
    """What fails is tried no more often, and reported no more often, where sessions come and go meanwhile."""
    gateway = Gateway(min_spare=2, max_spare=8).start()
    for _ in range(40):
        gateway.connect()
    gateway.works, gateway.forks = False, forks
    before = gateway.forked
    for _ in range(1000):
        gateway.wait(0.01)
        gateway.connect()
        gateway.hang_up(next(iter(gateway.seats)))
        gateway.connect()
    waits = [f"{wait:g} s; new clients wait" for wait in (0.5, 1, 2, 4, 8)]  # at the first failure seats were left
    assert [report.partition("try is in ")[2] for report in gateway.reports] == ["0.25 s", *waits]
    assert gateway.forked - before <= 12
    gateway.works = gateway.forks = True
    gateway.wait(10)
    assert gateway.pool.settled


def test_once_a_younger_worker_has_served_the_back_off_is_over() -> None:
    gateway = Gateway(min_spare=2).start()
    gateway.works = False
    gateway.connect()
    gateway.wait(10)
    gateway.works = True
    gateway.wait(10)
    gateway.end_worker(gateway.alive[-1])
    assert wait_of(gateway) == 16.0, "that it offered itself shows nothing: they did not before they ended"
    gateway.wait(16)
    for hand in [gateway.connect() for _ in range(2)]:
        gateway.hang_up(hand)
    gateway.end_worker(next(worker for worker in gateway.alive if not gateway.pool._seating.workers[worker].served))
    assert wait_of(gateway) == 0.25


def test_once_a_worker_could_be_forked_the_back_off_is_over_and_nothing_is_said_twice_a_minute() -> None:
    gateway = Gateway(min_spare=1, max_spare=1, max_sessions=1, max_workers=500).start()
    for _ in range(100):
        gateway.forks = False
        gateway.hang_up(gateway.connect())
        assert wait_of(gateway) == 0.25
        gateway.forks = True
        gateway.wait(0.5)
        assert gateway.pool.settled
    assert len(gateway.reports) == 1
    gateway.wait(respawn.QUIET)
    gateway.forks = False
    gateway.connect()
    assert len(gateway.reports) == 2


def test_a_failure_long_after_the_last_is_the_first_again() -> None:
    gateway = Gateway(min_spare=2).start()
    for _ in range(10):
        gateway.end_worker(gateway.alive[0])
        gateway.settle()
        assert wait_of(gateway) == 0.25
        gateway.wait(2 * respawn.QUIET)


def test_when_no_process_can_be_forked_it_waits_and_recovers() -> None:
    gateway = Gateway(min_spare=2)
    gateway.forks = False
    gateway.start()
    gateway.wait(20)
    assert gateway.forked <= 20
    assert "Cannot allocate memory" in gateway.reports[0]
    gateway.forks = True
    gateway.wait(30)
    assert gateway.pool.settled


def test_without_descriptors_accepting_pauses_and_resumes_and_is_reported_once() -> None:
    gateway = Gateway().start()
    for _ in range(5):
        gateway.pool.accept_failed("Too many open files", gateway.now)
        gateway.settle()
        assert gateway.pool.room(gateway.now) == 0
        gateway.wait(pool_module.ACCEPT_PAUSE)
        assert gateway.pool.room(gateway.now) == 2
    assert len(gateway.reports) == 1
    assert gateway.connect() is not None
    gateway.pool.accept_failed("Too many open files", gateway.now)
    gateway.settle()
    assert len(gateway.reports) == 2, "another time is another report"


def test_max_sessions_per_client_refuses_one_and_admits_another() -> None:
    gateway = Gateway(max_sessions_per_client=2).start()
    hands = [gateway.connect("192.0.2.7") for _ in range(2)]
    assert not gateway.pool.admits("192.0.2.7")
    assert gateway.pool.admits("192.0.2.8")
    gateway.hang_up(hands[0])
    assert gateway.pool.admits("192.0.2.7")


def behind_proxy(**settings: int) -> Gateway:
    gateway = Gateway(**settings)
    gateway.rules = dataclasses.replace(gateway.rules, proxy_protocol_from=(ipaddress.ip_network("127.0.0.0/8"),))
    return gateway.start()


def test_connections_of_a_proxy_are_counted_by_the_client_that_it_names() -> None:
    pool = behind_proxy(max_sessions_per_client=1, min_spare=4, max_spare=8).pool
    hands = []
    for _ in range(4):
        assert pool.admits("127.0.0.1")
        hands.append(pool.take("127.0.0.1", 1000.0))
    first, second, third, silent = hands
    assert pool.named(*first, "192.0.2.7")
    assert not pool.named(*second, "::ffff:192.0.2.7")
    assert pool.named(*third, "192.0.2.8")
    assert pool.sessions == 4
    pool.freed(first[0], (first[1],), 0, 1000.0)
    assert pool.named(*second, "192.0.2.7")
    for hand in (second, third, silent):
        pool.freed(hand[0], (hand[1],), 0, 1000.0)
    assert pool.sessions == 0


def test_whom_a_session_serves_that_is_over_is_no_matter() -> None:
    pool = behind_proxy(max_sessions_per_client=1).pool
    hand = pool.take("127.0.0.1", 1000.0)
    pool.freed(hand[0], (hand[1],), 0, 1000.0)
    assert not pool.named(*hand, "192.0.2.7")
    assert not pool.named(99, 0, "192.0.2.7")
    assert pool.sessions == 0


def test_behind_a_proxy_without_a_limit_everybody_is_let_in() -> None:
    pool = behind_proxy(min_spare=3).pool
    for _ in range(3):
        hand = pool.take("127.0.0.1", 1000.0)
        assert pool.named(*hand, "192.0.2.7")


def test_one_message_may_free_several_seats_and_nothing_is_freed_twice() -> None:
    gateway = Gateway(min_spare=1, max_workers=1, sessions_per_worker=50).start()
    hands = [gateway.connect() for _ in range(8)]
    worker = gateway.alive[0]
    seats = [seat for hand in hands if hand for seat in hand[1:]]
    gateway.pool.freed(worker, (*seats[:5], seats[0], 49), 5, gateway.now)
    gateway.pool.freed(99, tuple(seats), 8, gateway.now)
    assert gateway.pool.sessions == 3
    assert gateway.pool.vacant == 47
    assert gateway.pool.room(gateway.now) == 5


def test_a_worker_that_promises_more_than_its_free_seats_gets_no_more_than_these() -> None:
    gateway = Gateway(min_spare=1, max_workers=1, sessions_per_worker=4).start()
    (number,) = gateway.alive
    assert gateway.connect() is not None
    gateway.pool.offered(number, 1000)
    assert gateway.pool.room(gateway.now) == 3
    assert [gateway.connect() is not None for _ in range(4)] == [True, True, True, False]


def test_no_limit_by_client_unless_set() -> None:
    gateway = Gateway(max_workers=100).start()
    for _ in range(50):
        assert gateway.pool.admits(A_CLIENT)
        gateway.connect()


def test_a_killed_workers_sessions_no_longer_count_for_their_client() -> None:
    gateway = Gateway(max_sessions_per_client=1).start()
    hand = gateway.connect()
    assert hand is not None
    gateway.end_worker(hand[0])
    assert gateway.pool.admits(A_CLIENT)
    assert gateway.pool.sessions == 0


def test_sessions_of_an_old_generation_count_for_their_client() -> None:
    gateway = Gateway(max_sessions_per_client=1).start()
    gateway.connect()
    gateway.start()
    assert not gateway.pool.admits(A_CLIENT)


def test_a_new_generation_replaces_idle_workers_at_once_and_busy_ones_when_they_are_done() -> None:
    gateway = Gateway(min_spare=2).start()
    hand = gateway.connect()
    assert hand is not None
    old = list(gateway.alive)
    gateway.start()
    assert [worker for worker in gateway.alive if worker in old] == [hand[0]]
    assert gateway.pool.spare == 2
    gateway.hang_up(hand)
    assert hand[0] not in gateway.alive


def test_old_workers_count_for_max_workers() -> None:
    gateway = Gateway(min_spare=2, max_spare=2, max_workers=3).start()
    for _ in range(3):
        gateway.connect()
    gateway.start()
    assert gateway.connect() is None
    assert gateway.pool.workers == 3
    gateway.hang_up(next(iter(gateway.seats)))
    assert gateway.connect() is not None


def test_old_workers_with_many_seats_count_for_max_workers_by_their_sessions() -> None:
    gateway = Gateway(min_spare=2, max_spare=2, max_workers=2, sessions_per_worker=8, processors=2).start()
    hands = [gateway.connect(), gateway.connect()]
    assert len({worker for worker, _ in filter(None, hands)}) == 2
    gateway.start()
    assert gateway.pool.workers == 4, "two with a session each take no place"
    hands += [gateway.connect() for _ in range(6)]
    gateway.start()
    assert gateway.pool.workers == 4 + 1, "with as many sessions as one worker has, they take its place"
    gateway.hang_up(hands[2])
    assert gateway.pool.spare == 2


def test_one_worker_of_old_is_one_worker_however_many_seats_a_new_one_has() -> None:
    gateway = Gateway(min_spare=1, max_spare=1, max_workers=2, sessions_per_worker=20).start()
    for _ in range(5):
        gateway.connect()
    gateway.rules = dataclasses.replace(gateway.rules, sessions_per_worker=1)
    gateway.start()
    assert gateway.connect() is not None


def test_a_reload_without_a_session_is_no_full_pool() -> None:
    gateway = Gateway(min_spare=2, max_spare=2, max_workers=2).start()
    gateway.slow = True
    gateway.start()
    assert gateway.forked == 4
    assert gateway.reports == []


def test_old_workers_that_end_before_they_served_leave_their_place() -> None:
    gateway = Gateway(min_spare=2, max_spare=2, max_workers=2).start()
    gateway.slow = True
    gateway.start()
    gateway.start()
    for worker in gateway.coming[:2]:
        gateway.pool.spawn_failed(worker, "no answer", gateway.now)
    assert gateway.pool._seating.older == gateway.pool._seating.older_sessions == 0


def test_without_its_template_it_serves_with_the_workers_that_there_are() -> None:
    gateway = Gateway(min_spare=2).start()
    gateway.pool.suspend()
    gateway.settle()
    assert gateway.connect() is not None
    assert gateway.forked == 2
    assert not gateway.pool.settled
    gateway.start()
    assert gateway.pool.settled


def test_a_worker_that_asks_to_leave_gets_no_more_and_is_replaced_without_a_back_off() -> None:
    gateway = Gateway(min_spare=2).start()
    gateway.pool.leaving(gateway.alive[0], gateway.now)
    gateway.settle()
    assert gateway.pool.spare == 2
    assert gateway.reports == []


def test_a_worker_that_never_offers_itself_is_killed() -> None:
    gateway = Gateway(min_spare=1).start()
    gateway.works = False
    pool = Pool(lambda: 0.0)
    pool.begin(gateway.rules, 0.0)
    (spawn,) = pool.orders(0.0)
    assert list(pool.orders(START_LIMIT)) == [Order(Act.KILL, spawn.worker)]


def test_an_idle_worker_that_does_not_leave_is_killed() -> None:
    gateway = Gateway(min_spare=1).start()
    gateway.leaves = False
    old = list(gateway.alive)
    gateway.start()
    gateway.wait(LEAVE_LIMIT)
    assert gateway.killed == old


def test_stop_lets_sessions_finish() -> None:
    gateway = Gateway(min_spare=2, shutdown_timeout=30).start()
    hand = gateway.connect()
    gateway.pool.stop(gateway.now)
    gateway.settle()
    assert gateway.pool.room(gateway.now) == 0
    assert len(gateway.alive) == 1
    gateway.wait(29)
    assert not gateway.pool.over
    assert gateway.told_to_end == []
    gateway.hang_up(hand)
    assert gateway.pool.over


def test_after_shutdown_timeout_sessions_are_ended_and_then_killed() -> None:
    gateway = Gateway(shutdown_timeout=5).start()
    hand = gateway.connect()
    assert hand is not None
    gateway.pool.stop(gateway.now)
    gateway.settle()
    gateway.wait(4)
    assert gateway.told_to_end == []
    gateway.wait(1)
    assert gateway.told_to_end == [hand[0]]
    assert "1 sessions go on after shutdown_timeout (5 s)" in gateway.reports[0]
    gateway.wait(END_LIMIT)
    assert gateway.killed == [hand[0]]
    gateway.end_worker(hand[0])
    assert gateway.pool.over


def test_end_does_not_wait() -> None:
    gateway = Gateway().start()
    hand = gateway.connect()
    assert hand is not None
    gateway.pool.end(gateway.now)
    gateway.settle()
    assert hand[0] in gateway.told_to_end
    assert gateway.pool.phase is Phase.ENDING


def test_a_drained_service_waits_for_its_sessions_however_long() -> None:
    gateway = Gateway().start()
    hand = gateway.connect()
    gateway.pool.drain(gateway.now)
    gateway.settle()
    gateway.wait(100_000)
    assert not gateway.pool.over
    assert gateway.told_to_end == []
    gateway.hang_up(hand)
    assert gateway.pool.over


def test_a_stopped_pool_forks_no_more() -> None:
    gateway = Gateway().start()
    gateway.pool.stop(gateway.now)
    gateway.settle()
    gateway.wait(100)
    assert gateway.forked == 2
    assert gateway.pool.over


@pytest.fixture(params=range(20))
def a_seed(request: pytest.FixtureRequest) -> Iterator[int]:
    yield request.param


def test_whatever_happens_the_books_balance(a_seed: int) -> None:
    import random

    chance = random.Random(a_seed)
    gateway = Gateway(
        min_spare=chance.randint(1, 4),
        max_spare=chance.randint(4, 9),
        max_workers=chance.randint(4, 30),
        sessions_per_worker=chance.choice((1, 1, 3, 20)),
        max_sessions=chance.choice((1, 5, 1000)),
    ).start()
    for _ in range(600):
        match chance.randrange(7):
            case 0 | 1 | 2:
                gateway.connect(f"192.0.2.{chance.randrange(5)}")
            case 3 if gateway.seats:
                gateway.hang_up(chance.choice(sorted(gateway.seats)))
            case 4:
                gateway.wait(chance.choice((0.01, 0.3, 2.0)))
            case 5 if gateway.alive and chance.random() < 0.3:
                gateway.end_worker(chance.choice(gateway.alive))
                gateway.settle()
            case 6 if chance.random() < 0.1:
                gateway.start()
        assert gateway.pool.sessions == len(gateway.seats)
        assert gateway.pool.workers == len(gateway.alive)
        seating = gateway.pool._seating
        assert seating.taken(gateway.rules.sessions_per_worker) <= gateway.rules.max_workers
        assert seating.older == sum(worker.old for worker in seating.workers.values())
        assert seating.older_sessions == sum(len(worker.clients) for worker in seating.workers.values() if worker.old)
        assert seating.vacant >= seating.credit >= 0
        assert seating.credit == sum(worker.credit for worker in seating._open)
    for hand in sorted(gateway.seats):
        gateway.hang_up(hand)
    gateway.wait(60)
    assert gateway.pool.spare >= min(gateway.rules.min_spare, gateway.rules.max_workers)
    assert not gateway.pool._clientele._counts
