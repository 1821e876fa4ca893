"""Whom a connection is for, if that is believed, and whether it may have a session."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from pop3gw.admission import Admission, Verdict, believed
from pop3gw.net import Peer
from pop3gw.poller import Poller
from pop3gw.proto.proxyheader import Endpoint, written
from pop3gw.settings import Service
from pop3gw.values import Address

HERE = (ip_network("127.0.0.0/8"), ip_network("fd00::/8"))
CLIENT, REACHED = Peer("192.0.2.7", 40123), Peer("198.51.100.9", 110)
PATIENCE = 5.0
NOW = 100.0


@pytest.mark.parametrize(
    ("address", "so"), [("127.0.0.1", True), ("fd00::1", True), ("192.0.2.1", False), ("2001:db8::1", False)]
)
def test_who_is_believed(address: str, so: bool) -> None:
    assert believed(address, HERE) is so


class Gate:
    """An admission, and what it has said."""

    def __init__(self, limit: int = 0) -> None:
        self.sender, self.client = socket.socketpair()
        self.client.setblocking(False)
        self.poller = Poller()
        self.said: list[object] = []
        service = Service(
            name="one",
            listen=(),
            server=Address("192.0.2.1", 110),
            proxy_protocol_from=HERE,
            max_sessions_per_client=limit,
        )
        self.admission = Admission(
            self.client,
            service,
            named=lambda client, reached: self.said.append((client, reached)),
            ask=lambda address: self.said.append(address),
            done=lambda verdict, reason: self.said.append((verdict, reason)),
        )

    def hears_header(self, header: bytes) -> None:
        self.admission.begin("127.0.0.1", self.poller, NOW)
        self.sender.sendall(header)
        self.poller.poll(PATIENCE)

    def close(self) -> None:
        for end in (self.sender, self.client, self.poller):
            end.close()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.close()


@pytest.fixture
def counting() -> Iterator[Gate]:
    gate = Gate(limit=1)
    yield gate
    gate.close()


NAMED = written(1, Endpoint(CLIENT.address, CLIENT.port), Endpoint(REACHED.address, REACHED.port))
OWN = b"PROXY UNKNOWN\r\n"


def test_a_header_from_elsewhere_is_not_looked_at(gate: Gate) -> None:
    gate.admission.begin("192.0.2.1", gate.poller, NOW)
    assert gate.said == [(Verdict.UNKNOWN, "it comes from outside proxy_protocol_from")]
    assert not len(gate.poller)


def test_a_header_names_the_client(gate: Gate) -> None:
    gate.hears_header(NAMED)
    assert gate.said == [(CLIENT, REACHED), (Verdict.ADMITTED, "")]


def test_a_health_check_names_nobody_and_is_not_counted(counting: Gate) -> None:
    counting.hears_header(OWN)
    assert counting.said == [(Verdict.ADMITTED, "")]


@pytest.mark.parametrize(("admitted", "verdict"), [(True, Verdict.ADMITTED), (False, Verdict.TOO_MANY)])
def test_the_master_counts_whom_a_header_has_named(counting: Gate, admitted: bool, verdict: Verdict) -> None:
    counting.hears_header(NAMED)
    assert counting.said == [(CLIENT, REACHED), CLIENT.address]
    counting.admission.decided(admitted=admitted)
    assert counting.said[2:] == [(verdict, "")]


def test_a_master_that_does_not_answer_is_not_waited_for(counting: Gate) -> None:
    counting.hears_header(NAMED)
    counting.admission.expire(counting.admission.deadline - 1)
    assert len(counting.said) == 2
    counting.admission.expire(counting.admission.deadline)
    assert counting.said[2:] == [(Verdict.UNKNOWN, "the master does not say whether this client may have a session")]


def test_a_header_that_does_not_come_is_not_waited_for(gate: Gate) -> None:
    gate.admission.begin("127.0.0.1", gate.poller, NOW)
    assert gate.admission.deadline == NOW + 10
    gate.admission.expire(NOW + 9)
    assert gate.said == []
    gate.admission.expire(NOW + 10)
    assert gate.said == [(Verdict.UNKNOWN, "no whole PROXY header within 10 s")]


def test_who_is_given_up_hears_nothing_more(gate: Gate) -> None:
    gate.admission.begin("127.0.0.1", gate.poller, NOW)
    gate.admission.cancel()
    assert not len(gate.poller)
    assert gate.said == []
