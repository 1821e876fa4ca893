"""Clients that have said QUIT are let go in passing: none is cut off, none kept for ever, none missed at the end."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from pop3gw.farewell import DRAIN_SECONDS, Farewell
from pop3gw.leavers import MOST, Leavers
from pop3gw.poller import Poller
from pop3gw.stream import Stream
from pop3gw.times import NEVER

NOW = 100.0
Leave = Callable[[float], socket.socket]  # a client that leaves, at this time


@pytest.fixture
def leavers(poller: Poller) -> Iterator[Leavers]:
    leavers = Leavers(poller)
    yield leavers
    leavers.close()


@pytest.fixture
def leave(leavers: Leavers) -> Iterator[Leave]:
    with ExitStack() as stack:

        def one(now: float) -> socket.socket:
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            ours.setblocking(False)
            theirs.settimeout(10)
            stream = Stream(ours, 4096)
            assert stream.write(b"+OK\r\n")
            leavers.add(Farewell(stream, now), now)
            return theirs

        yield one


def closed(client: socket.socket) -> bool:
    """Whether our end is closed: what one writes to it is an error then."""
    try:
        client.send(b"x")
    except BrokenPipeError:
        return True
    return False


def rounds(poller: Poller) -> None:
    """What a worker's loop does until nothing happens any more."""
    while poller.poll(0):
        pass


def test_one_gets_its_answer_and_the_end_at_once(leave: Leave) -> None:
    client = leave(NOW)
    assert client.recv(10) == b"+OK\r\n"
    assert client.recv(10) == b""


def test_one_that_has_left_is_let_go_by_the_next_one(leavers: Leavers, leave: Leave) -> None:
    leave(NOW).close()
    assert leavers.deadline == NOW + DRAIN_SECONDS
    leave(NOW + 1)
    assert leavers.deadline == NOW + 1 + DRAIN_SECONDS


def test_nobody_is_watched(leavers: Leavers, leave: Leave, poller: Poller) -> None:
    leave(NOW).close()
    assert len(poller) == 0
    leavers.sweep(NOW)
    assert leavers.deadline == NEVER


def test_one_that_stays_is_closed_when_its_time_is_over(leavers: Leavers, leave: Leave) -> None:
    client = leave(NOW)
    leavers.sweep(NOW + DRAIN_SECONDS - 0.1)
    assert leavers.deadline == NOW + DRAIN_SECONDS
    leavers.sweep(NOW + DRAIN_SECONDS)
    assert closed(client)


def test_one_that_goes_on_speaking_is_watched_and_heard_out(leavers: Leavers, leave: Leave, poller: Poller) -> None:
    now = time.monotonic()
    client = leave(now)
    for _ in range(3):
        client.sendall(b"NOOP\r\n" * 2000)  # more than is read at once
        leavers.sweep(now + 1)
        assert leavers.deadline == now + 1 + DRAIN_SECONDS
        rounds(poller)
    assert len(poller) == 1
    assert client.recv(10) == b"+OK\r\n"
    assert client.recv(10) == b""
    leavers.sweep(now + 1 + DRAIN_SECONDS)
    assert (len(poller), leavers.deadline) == (0, NEVER)
    assert closed(client)


@pytest.mark.parametrize("speaks", [False, True])
def test_one_too_many_and_the_first_has_to_go(leave: Leave, speaks: bool) -> None:
    clients = [leave(NOW) for _ in range(MOST)]
    for client in clients:
        if speaks:
            client.sendall(b"NOOP\r\n")
    assert not any(map(closed, clients))
    leave(NOW)
    assert [closed(client) for client in clients] == [True] + [False] * (MOST - 1)


def test_where_nobody_comes_by_any_more_each_is_noticed(leavers: Leavers, leave: Leave, poller: Poller) -> None:
    now = time.monotonic()
    before, second = leave(now), leave(now)
    leavers.watch()
    leavers.watch()  # twice is once
    behind = leave(now)
    second.close()
    behind.close()
    rounds(poller)
    assert len(poller) == 1
    before.close()
    rounds(poller)
    assert (len(poller), leavers.deadline) == (0, NEVER)


def test_one_that_can_not_be_watched_is_closed(leavers: Leavers, poller: Poller) -> None:
    ours, theirs = socket.socketpair()
    farewell = Farewell(Stream(ours, 4096), NOW)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, ours.fileno())  # which epoll takes as little as one more where the system has no room
    os.close(nowhere)
    leavers.add(farewell, NOW)
    leavers.watch()
    assert ours.fileno() == -1
    assert (len(poller), leavers.deadline) == (0, NEVER)
    theirs.close()


def test_all_are_closed_where_the_end_is_at_once(leavers: Leavers, leave: Leave) -> None:
    clients = [leave(NOW) for _ in range(3)]
    leavers.close()
    assert all(map(closed, clients))
    assert leavers.deadline == NEVER
