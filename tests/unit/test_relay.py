"""Which session is due when."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from pop3gw.conversation import Conversation
from pop3gw.policy import Pop3Proxy
from pop3gw.poller import Poller
from pop3gw.relay import Relay, Terms
from pop3gw.scoreboard import Board
from pop3gw.settings import Service
from pop3gw.times import NEVER
from pop3gw.values import Address


class Quick(Conversation):
    """A session that only has deadlines."""

    def __init__(self, relay: Relay, number: int) -> None:
        self.closed = False
        self.scheduled = NEVER
        self.entry = 0
        self.seat = relay.slot.seats[number]
        self.expired: list[float] = []

    def expire(self, now: float) -> None:
        self.expired.append(now)


@pytest.fixture
def relay() -> Iterator[Relay]:
    before = signal.getsignal(signal.SIGALRM)
    poller = Poller()
    service = Service(name="one", listen=(), server=Address("192.0.2.1", 110))
    yield Relay(
        Terms.of(service, Pop3Proxy, frozenset(), None),
        poller=poller,
        slot=Board(1, 4).slot(0),
        ended=lambda _seat: None,
        ask=lambda _seat, _address: None,
    )
    poller.close()
    signal.signal(signal.SIGALRM, before)


def begun(relay: Relay, number: int = 0) -> Quick:
    session = Quick(relay, number)
    relay._running.add(session)
    return session


@pytest.mark.interpreted
def test_each_is_told_when_its_time_has_come(relay: Relay) -> None:
    first, second = begun(relay), begun(relay, 1)
    assert relay.deadline() == NEVER
    relay.schedule(20.0, first)
    relay.schedule(10.0, second)
    assert relay.deadline() == 10.0
    relay.expire(15.0)
    assert (first.expired, second.expired) == ([], [15.0])
    assert relay.deadline() == 20.0


@pytest.mark.interpreted
def test_a_deadline_that_was_moved_forward_holds_and_the_old_one_is_no_harm(relay: Relay) -> None:
    session = begun(relay)
    relay.schedule(600.0, session)
    relay.schedule(5.0, session)
    relay.expire(5.0)
    relay.schedule(600.0, session)
    relay.expire(600.0)
    assert session.expired[0] == 5.0
    assert session.expired[-1] == 600.0


@pytest.mark.interpreted
def test_sessions_that_are_over_do_not_stay_until_their_deadlines(relay: Relay) -> None:
    """Beside one that stays, so that there is always a session."""
    lasting = begun(relay)
    relay.schedule(600.0, lasting)
    for _ in range(1000):
        session = begun(relay, 1)
        relay.schedule(60.0, session)
        relay.schedule(2.0, session)
        relay.done(session)
    assert len(relay._deadlines) < 100
    relay.done(lasting)
    assert relay.deadline() == NEVER
