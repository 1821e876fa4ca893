"""The worker's loop with a real channel, and sessions that the test ends when it likes."""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from pop3gw import logs, messages, worker
from pop3gw.credit import CREDIT
from pop3gw.fdpass import Channel
from pop3gw.messages import Message
from pop3gw.net import Peer
from pop3gw.poller import READ, Poller
from pop3gw.scoreboard import Board, Seat
from pop3gw.settings import Service
from pop3gw.stream import Connection
from pop3gw.times import NEVER
from pop3gw.values import Address
from pop3gw.worker import Duty, Relays, Worker

PATIENCE = 10.0

pytestmark = pytest.mark.interpreted


class Echo:
    """Sessions that end when their client does."""

    def __init__(
        self,
        *,
        poller: Poller,
        ended: Callable[[Seat], None],
        **_: object,
    ) -> None:
        self._poller = poller
        self._ended = ended
        self._sessions: dict[int, tuple[Connection, Seat]] = {}

    def adopt(self, client: Connection, peer: Peer, seat: Seat) -> None:
        seat.open(peer.address, peer.port, "3f2a")
        seat.stand("TRANSACTION", "alice")
        self._sessions[seat.number] = (client, seat)
        self._poller.watch(client.fileno(), READ, lambda _events: self._hear(client, seat))

    def _hear(self, client: Connection, seat: Seat) -> None:
        if data := client.recv(100):
            client.send(data)
        else:
            self._end(client, seat)

    def _end(self, client: Connection, seat: Seat) -> None:
        self._poller.forget(client.fileno())
        client.close()
        del self._sessions[seat.number]
        self._ended(seat)

    def decided(self, seat: int, *, admitted: bool) -> None:
        raise AssertionError(f"nothing was asked about {seat}: {admitted}")

    def settle(self) -> float:
        return self.deadline()

    def deadline(self) -> float:
        return NEVER

    def expire(self, now: float) -> None:
        raise AssertionError(f"nothing is due at {now}")

    def retire(self) -> None: ...

    def end(self, seat: int, session: str, reason: str) -> None:
        assert (session, reason) == ("3f2a", "the administrator ended it")
        for client, one in list(self._sessions.values()):
            if one.number == seat:
                self._end(client, one)

    def end_all(self, reason: str) -> None:
        assert reason
        for client, seat in list(self._sessions.values()):
            self._end(client, seat)


class Late(Echo):
    """Something is due in a moment, which is over while the client that said so is heard."""

    due = NEVER

    def __init__(self, **known: Any) -> None:
        super().__init__(**known)
        self._done: list[bytes] = []

    def _hear(self, client: Connection, seat: Seat) -> None:
        data = client.recv(5)
        if data == b"hello":
            client.send(data)
        elif data == b"begin":
            self.due, self._sleeper = time.monotonic() + 0.1, client
        elif data == b"sleep":
            client.send(b"z")
            client.recv(1, socket.MSG_WAITALL)  # "wakes"
            time.sleep(max(0.0, self.due - time.monotonic()))
            self._poller.now = time.monotonic()
        elif data:
            self._done.append(data)
        else:
            self._end(client, seat)

    def deadline(self) -> float:
        return self.due

    def expire(self, now: float) -> None:
        assert now >= self.due
        self.due = NEVER
        self._sleeper.send(b"".join(self._done) + b".")


class Bench:
    """A worker in a thread, and the master's end of its channel."""

    def __init__(self, seats: int, monkeypatch: pytest.MonkeyPatch, relays: Relays = Echo) -> None:
        monkeypatch.setattr("pop3gw.signals.handle", lambda *_: None)  # threads can't set handlers
        self.slot = Board(1, seats).slot(0)
        self.channel, end = Channel.pair()
        service = Service(name="one", listen=(), server=Address("192.0.2.1", 110))
        duty = Duty(service, logs.current(), relays, title=lambda _: None)  # the process is pytest's
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._run, args=(duty, end), daemon=True)
        self.thread.start()

    def _run(self, duty: Duty, end: socket.socket) -> None:
        with end:
            Worker(duty, end, self.slot).run()

    def hears(self) -> Message | None:
        """The worker's next message; None: the end of its channel."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                received = self.channel.receive()
            except BlockingIOError:
                time.sleep(0.001)
                continue
            return None if received is None else received[0]
        raise AssertionError("the worker says nothing")

    def serve(self, seat: int) -> socket.socket:
        client = socket.create_connection(self._listener.getsockname(), PATIENCE)
        accepted, (address, port) = self._listener.accept()
        with accepted:
            self.channel.send(messages.Serve(seat, port, address), accepted.fileno())
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        return client

    def left(self) -> bool:
        self.thread.join(PATIENCE)
        return not self.thread.is_alive()

    def close(self) -> None:
        self.channel.close()
        self._listener.close()
        assert self.left()


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def bench(seats: int, relays: Relays = Echo) -> Bench:
        made.append(Bench(seats, monkeypatch, relays))
        return made[-1]

    yield bench
    for each in made:
        each.close()


def test_one_seat_is_one_credit_and_a_session_that_ends_gives_it_back(make: Callable[[int], Bench]) -> None:
    bench = make(1)
    assert bench.hears() == messages.Offer(1)
    for _ in range(3):
        client = bench.serve(0)
        shown = bench.slot.seats[0].read()
        assert shown is not None
        assert shown.client.startswith("127.0.0.1:")
        client.close()
        assert bench.hears() == messages.Free(1, (0,))
        assert bench.slot.seats[0].read() is None


def test_with_many_seats_credit_is_renewed_as_it_is_used(make: Callable[[int], Bench]) -> None:
    bench = make(8 * CREDIT)
    assert bench.hears() == messages.Offer(CREDIT)
    clients = []
    for seat in range(20):
        clients.append(bench.serve(seat))
        if seat % (CREDIT // 2) == CREDIT // 2 - 1:
            assert bench.hears() == messages.Offer(CREDIT // 2)
    for client in clients:
        client.close()
    freed: list[int] = []
    told = 0
    while len(freed) < len(clients):
        message = bench.hears()
        assert isinstance(message, messages.Free)
        freed += message.seats
        told += 1
    assert sorted(freed) == list(range(20))
    assert told < 20  # mostly several at once


def test_no_more_is_promised_than_the_master_knows_to_be_free(
    make: Callable[[int], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven seats of 32 are free again and not reported; then as many clients come as are let in, and none leaves."""
    monkeypatch.setattr("pop3gw.worker.FREED_DELAY", 60.0)
    bench = make(32)
    free, credit = list(range(32)), 0
    clients: dict[int, socket.socket] = {}

    def one_more() -> None:
        nonlocal credit
        credit += _heard(bench, free, wanted=credit == 0)
        assert credit <= len(free)
        seat = free.pop()
        clients[seat] = bench.serve(seat)
        credit -= 1

    for _ in range(16):
        one_more()
    gone = list(clients)[:7]
    for seat in gone:
        clients.pop(seat).close()
    until = time.monotonic() + PATIENCE
    while any(bench.slot.seats[seat].read() for seat in gone):
        assert time.monotonic() < until
    while free:
        one_more()
    credit += _heard(bench, free, wanted=False)
    assert credit <= len(free)
    for client in clients.values():
        client.close()


def _heard(bench: Bench, free: list[int], *, wanted: bool) -> int:
    """The credit that has come, and the seats that are free again; where it is wanted, some."""
    credit = 0
    while True:
        try:
            received = bench.channel.receive()
        except BlockingIOError:
            if credit or not wanted:
                return credit
            time.sleep(0.001)
            continue
        assert received is not None
        message = received[0]
        assert isinstance(message, messages.Free | messages.Offer)
        credit += message.credit
        if isinstance(message, messages.Free):
            free += message.seats


def test_the_last_one_that_is_free_is_reported_without_another(make: Callable[[int], Bench]) -> None:
    bench = make(8 * CREDIT)
    assert bench.hears() == messages.Offer(CREDIT)
    bench.serve(3).close()
    assert bench.hears() == messages.Free(1, (3,))


def test_the_last_seats_are_not_promised_twice(make: Callable[[int], Bench]) -> None:
    bench = make(2)
    assert bench.hears() == messages.Offer(2)
    first, second = bench.serve(0), bench.serve(1)
    first.close()
    assert bench.hears() == messages.Free(1, (0,))
    second.close()
    assert bench.hears() == messages.Free(1, (1,))


def test_retired_it_leaves_once_its_sessions_are_over(make: Callable[[int], Bench]) -> None:
    bench = make(1)
    client = bench.serve(0)
    bench.channel.send(messages.Retire())
    client.sendall(b"still")
    assert client.recv(100) == b"still"
    client.close()
    assert [bench.hears(), bench.hears(), bench.hears()] == [messages.Offer(1), messages.Free(0, (0,)), None]
    assert bench.left()


def test_idle_and_retired_it_leaves_at_once(make: Callable[[int], Bench]) -> None:
    bench = make(5)
    bench.channel.send(messages.Retire())
    assert bench.left()


def test_without_a_master_it_serves_to_the_end_and_leaves(make: Callable[[int], Bench]) -> None:
    bench = make(1)
    client = bench.serve(0)
    bench.channel.close()
    client.sendall(b"still")
    assert client.recv(100) == b"still"
    client.close()
    assert bench.left()


def test_told_to_end_it_ends_its_sessions(make: Callable[[int], Bench]) -> None:
    bench = make(3)
    clients = [bench.serve(seat) for seat in range(3)]
    bench.channel.send(messages.End())
    assert bench.left()
    for client in clients:
        assert client.recv(100) == b""
        client.close()


def test_what_it_does_not_understand_makes_it_leave(make: Callable[[int], Bench]) -> None:
    bench = make(1)
    bench.channel.send(messages.Forked(1, 1))
    assert bench.left()


def test_a_fault_that_can_not_be_shown_is_named_and_ends_it_with_a_status(capfd: pytest.CaptureFixture[str]) -> None:
    def relays(**_: object) -> Echo:
        odd: Any = ("f", 1, 2, 3)
        raise SyntaxError("x", odd)

    service = Service(name="one", listen=(), server=Address("192.0.2.1", 110))
    channel, end = Channel.pair()
    with contextlib.closing(channel), end:
        assert worker.main(Duty(service, logs.current(), relays, title=lambda _: None), end, Board(1, 1).slot(0)) == 1
    said = capfd.readouterr().err
    assert "this worker ends by a fault of the gateway" in said
    assert "SyntaxError" in said


def test_whoever_said_something_before_the_time_was_over_is_heard_first(
    make: Callable[..., Bench],
) -> None:
    """More of them than are heard in one round."""
    bench = make(101, Late)
    sleeper = bench.serve(100)
    others = [bench.serve(seat) for seat in range(100)]
    sleeper.sendall(b"begin")
    sleeper.sendall(b"sleep")
    assert sleeper.recv(1) == b"z"
    for other in others:
        other.sendall(b"x")
    sleeper.sendall(b"w")
    assert sleeper.recv(200) == b"x" * 100 + b"."
    for client in (sleeper, *others):
        client.close()


class Noted(Echo):
    """What happens, in order; a wait where handlers of signals have their turn is noted by who takes its place."""

    events: ClassVar[list[str]] = []

    def adopt(self, client: Connection, peer: Peer, seat: Seat) -> None:
        self.events.append("begin")
        super().adopt(client, peer, seat)

    def _end(self, client: Connection, seat: Seat) -> None:
        self.events.append("end")
        super()._end(client, seat)

    @classmethod
    def wait(cls, events: select.epoll, seconds: float | None, most: int) -> list[tuple[int, int]]:
        cls.events.append("wait")
        return events.poll(seconds, most)


@pytest.mark.interpreted  # the poller's wait is another's
def test_a_worker_without_sessions_waits_where_handlers_of_signals_have_their_turn(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that comes then must be heard at once: nothing else may come for days."""
    monkeypatch.setattr(Noted, "events", [])
    monkeypatch.setattr("pop3gw.poller._wait", Noted.wait)
    bench = make(2, Noted)
    client = bench.serve(0)
    client.sendall(b"more")
    assert client.recv(100) == b"more"
    client.close()
    until = time.monotonic() + PATIENCE
    while Noted.events[-2:] != ["end", "wait"] and time.monotonic() < until:
        time.sleep(0.001)
    assert [event for event, _ in itertools.groupby(Noted.events)] == ["wait", "begin", "end", "wait"]
