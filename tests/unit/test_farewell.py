"""The last answer of a session reaches its client, and nobody holds the connection for ever."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pop3gw.farewell import DRAIN_SECONDS, LAST_WORDS_SECONDS, Farewell
from pop3gw.poller import READ, WRITE
from pop3gw.stream import Stream

NOW = 100.0


@pytest.fixture
def ends() -> Iterator[tuple[Stream, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.settimeout(10)
        yield Stream(ours), theirs


def test_what_the_client_still_says_is_taken_until_it_leaves(ends: tuple[Stream, socket.socket]) -> None:
    client, theirs = ends
    farewell = Farewell(client, NOW)
    assert theirs.recv(10) == b""  # it is told at once
    assert (farewell.waits_for, farewell.ends, farewell.over(NOW)) == (READ, NOW + DRAIN_SECONDS, False)
    theirs.sendall(b"NOOP\r\n")
    farewell.go_on(NOW)
    assert not farewell.over(NOW)
    theirs.close()
    farewell.go_on(NOW)
    assert farewell.over(NOW)


def test_one_who_stays_is_closed_when_the_time_has_come(ends: tuple[Stream, socket.socket]) -> None:
    farewell = Farewell(ends[0], NOW)
    assert not farewell.over(NOW + DRAIN_SECONDS - 0.1)
    assert farewell.over(NOW + DRAIN_SECONDS)


@pytest.mark.interpreted
def test_one_who_never_stops_talking_is_closed(
    monkeypatch: pytest.MonkeyPatch, ends: tuple[Stream, socket.socket]
) -> None:
    monkeypatch.setattr("pop3gw.farewell.DRAIN_OCTETS", 10)
    client, theirs = ends
    farewell = Farewell(client, NOW)
    theirs.sendall(b"x" * 10)
    farewell.go_on(NOW)
    assert not farewell.over(NOW)
    theirs.sendall(b"x")
    farewell.go_on(NOW)
    assert farewell.over(NOW)


def test_what_is_unsent_goes_out_first_as_long_as_some_of_it_is_taken(ends: tuple[Stream, socket.socket]) -> None:
    client, theirs = ends
    while client.write(b"x" * 65536):
        pass
    farewell = Farewell(client, NOW)
    assert (farewell.waits_for, farewell.ends) == (WRITE, NOW + LAST_WORDS_SECONDS)
    farewell.go_on(NOW + 1)
    assert farewell.ends == NOW + 1 + LAST_WORDS_SECONDS
    heard = 0
    while farewell.waits_for == WRITE:
        heard += len(theirs.recv(1 << 20))
        farewell.go_on(NOW + 2)
    while data := theirs.recv(1 << 20):
        heard += len(data)
    assert heard == client.sent
    assert farewell.ends == NOW + 2 + DRAIN_SECONDS
    assert not farewell.over(NOW + 2)


def test_one_who_is_gone_is_closed_whatever_it_was_owed(ends: tuple[Stream, socket.socket]) -> None:
    client, theirs = ends
    while client.write(b"x" * 65536):
        pass
    farewell = Farewell(client, NOW)
    theirs.close()
    farewell.go_on(NOW)
    assert farewell.over(NOW)
