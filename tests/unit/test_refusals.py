"""Refused clients: what they hear, and that they are let go in time."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pop3gw.proto import counts
from pop3gw.proto.counts import Reason
from pop3gw.refusals import KEPT, KEPT_FOR, TOO_MANY, Refusals
from pop3gw.times import NEVER

DRAINED = b"-ERR [SYS/TEMP] this service takes no new sessions now\r\n"


@pytest.fixture
def refusals() -> Iterator[Refusals]:
    made = Refusals()
    yield made
    made.close()


def refuse(refusals: Refusals, reason: Reason = Reason.DRAINED, now: float = 0.0, *, in_clear: bool = True) -> int:
    """Refuse a client; returns its descriptor, for ``heard`` or ``let_go``."""
    client, end = socket.socketpair()
    refusals.tell(end.detach(), reason, in_clear, now)
    return client.detach()


def heard(descriptor: int) -> bytes:
    """All that the client was told until the end."""
    with socket.socket(fileno=descriptor) as client:
        client.settimeout(10.0)
        octets = b""
        while more := client.recv(100):
            octets += more
        return octets


def let_go(descriptor: int) -> bool:
    """Whether the other end is closed, not only silent."""
    with socket.socket(fileno=descriptor) as client:
        try:
            client.send(b"QUIT\r\n")
        except BrokenPipeError:
            return True
        return False


@pytest.mark.parametrize(
    ("reason", "answer"), [(Reason.PER_CLIENT_LIMIT, f"-ERR {TOO_MANY}\r\n".encode()), (Reason.DRAINED, DRAINED)]
)
def test_a_client_is_told_why_and_that_this_is_all(refusals: Refusals, reason: Reason, answer: bytes) -> None:
    assert heard(refuse(refusals, reason)) == answer


def test_each_reason_is_counted_and_has_an_answer(refusals: Refusals) -> None:
    assert [counts.CLIENTS_REFUSED.index(reason) for reason in Reason] == [
        at for _, at in counts.CLIENTS_REFUSED.rows()
    ]
    assert all(heard(refuse(refusals, reason)).startswith(b"-ERR [SYS/TEMP] ") for reason in Reason)


def test_where_tls_comes_first_nothing_is_said_in_clear(refusals: Refusals) -> None:
    assert heard(refuse(refusals, in_clear=False)) == b""


def test_each_is_let_go_when_its_time_is_over(refusals: Refusals) -> None:
    assert refusals.deadline == NEVER
    first, second = refuse(refusals, now=100.0), refuse(refusals, now=100.5)
    assert refusals.deadline == 100.0 + KEPT_FOR
    refusals.sweep(100.0 + KEPT_FOR)
    assert refusals.deadline == 100.5 + KEPT_FOR
    assert let_go(first)
    assert not let_go(second)
    refusals.sweep(200.0)
    assert refusals.deadline == NEVER


def test_of_too_many_the_first_are_let_go_at_once(refusals: Refusals) -> None:
    clients = [refuse(refusals, now=100.0) for _ in range(KEPT)]
    assert refusals.deadline == 100.0 + KEPT_FOR
    clients += [refuse(refusals, now=100.0) for _ in range(2)]
    assert refusals.deadline < 100.0
    refusals.sweep(100.0)
    assert refusals.deadline == 100.0 + KEPT_FOR
    assert [let_go(client) for client in clients] == [True] * 2 + [False] * KEPT


def test_one_that_has_gone_or_takes_nothing_does_no_harm(refusals: Refusals) -> None:
    client, gone = socket.socketpair()
    client.close()
    refusals.tell(gone.detach(), Reason.DRAINED, True, 0.0)
    client, full = socket.socketpair()
    full.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            full.send(b"x" * 65536)
    full.setblocking(True)
    refusals.tell(full.detach(), Reason.DRAINED, True, 0.0)
    refusals.sweep(KEPT_FOR)
    assert refusals.deadline == NEVER
    client.close()


def test_at_the_end_all_are_let_go(refusals: Refusals) -> None:
    clients = [refuse(refusals) for _ in range(3)]
    refusals.close()
    assert refusals.deadline == NEVER
    assert all(let_go(client) for client in clients)
