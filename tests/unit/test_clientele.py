"""Who has how many sessions."""

from __future__ import annotations

import pytest

from pop3gw.clientele import Clientele, client_key

ONE, OTHER, PROXY = "192.0.2.7", "192.0.2.8", "192.0.2.1"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("::ffff:192.0.2.7", "192.0.2.7", True),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("not:an:address", "not:an:address", True),
        ("not:an:address", "not:another", False),
    ],
)
def test_whom_addresses_are_counted_as(one: str, other: str, same: bool) -> None:
    assert (client_key(one) == client_key(other)) is same


def test_each_has_its_own_limit() -> None:
    clients = Clientele()
    clients.begin(2, behind_proxy=False)
    counted = [clients.come(ONE), clients.come(ONE)]
    assert not clients.admits(ONE)
    assert not clients.admits("::ffff:192.0.2.7")
    assert clients.admits(OTHER)
    clients.leave(counted[0])
    assert clients.admits(ONE)
    assert clients.sessions == 1


def test_without_a_limit_everybody_is_admitted_and_counted() -> None:
    clients = Clientele()
    for _ in range(100):
        assert clients.admits(ONE)
        clients.come(ONE)
    assert clients.sessions == 100


def test_behind_a_proxy_a_client_counts_once_it_is_named() -> None:
    clients = Clientele()
    clients.begin(1, behind_proxy=True)
    counted = [clients.come(PROXY) for _ in range(3)]
    assert clients.admits(PROXY)
    first = clients.named(counted[0], ONE)
    assert first is not None
    assert clients.named(counted[1], ONE) is None
    assert clients.named(counted[1], OTHER) is not None
    assert clients.sessions == 3
    clients.leave(first)
    assert clients.named(counted[2], ONE) is not None


def test_a_lower_limit_counts_those_that_are_there() -> None:
    clients = Clientele()
    for _ in range(3):
        clients.come(ONE)
    clients.begin(2, behind_proxy=False)
    assert not clients.admits(ONE)
