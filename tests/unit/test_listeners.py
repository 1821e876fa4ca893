"""Listeners: bound, kept, moved, let go."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from pop3gw import listeners
from pop3gw.errors import ConfigurationError
from pop3gw.listeners import Listener
from pop3gw.settings import Config, Service
from pop3gw.values import Address


def config(**services: tuple[str, ...]) -> Config:
    return Config(
        source="test.conf",
        services=tuple(
            Service(name=name, listen=tuple(map(Address.parse, listen)), server=Address("192.0.2.1", 110))
            for name, listen in services.items()
        ),
    )


@pytest.fixture
def bind() -> Iterator[Bind]:
    with ExitStack() as stack:
        yield Bind(stack)


class Bind:
    """Binds, and closes at the end of the test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(self, wanted: Config, held: list[Listener] | None = None) -> list[Listener]:
        bound = listeners.bind(wanted, held or [])
        self._stack.callback(listeners.close, bound)
        return bound


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_port_0_is_any_free_port_and_the_real_one_is_told(bind: Bind) -> None:
    (listener,) = bind(config(one=("127.0.0.1:0",)))
    assert listener.wanted.port == 0
    assert listener.bound.port == listener.socket.getsockname()[1] > 0


def test_both_families_may_have_the_same_port(bind: Bind) -> None:
    port = free_port()
    bound = bind(config(one=(f"0.0.0.0:{port}", f"[::]:{port}")))
    listeners.listen(config(), bound)
    assert [listener.bound.port for listener in bound] == [port, port]


def test_nobody_can_connect_before_it_listens(bind: Bind) -> None:
    bound = bind(config(one=("127.0.0.1:0",)))
    address = ("127.0.0.1", bound[0].bound.port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    listeners.listen(config(), bound)
    socket.create_connection(address).close()


def test_every_address_that_can_not_be_had_is_named_and_none_is_kept(bind: Bind) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        other = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigurationError) as error:
            bind(config(one=(f"127.0.0.1:{port}", other), two=("192.0.2.1:110",)))
    texts = [str(problem) for problem in error.value.problems]
    assert len(texts) == 2
    assert "[one] listen" in texts[0]
    assert f"{other} can't be used: Address already in use" in texts[0]
    assert "192.0.2.1:110 can't be used: Cannot assign requested address" in texts[1]
    socket.create_server(("127.0.0.1", port)).close()


def test_what_stays_is_the_same_socket_and_what_goes_is_told(bind: Bind) -> None:
    port = free_port()
    old = bind(config(one=("127.0.0.1:0", f"127.0.0.1:{port}")))
    new = bind(config(one=("127.0.0.1:0",)), old)
    assert new[0].socket is old[0].socket
    assert listeners.without(old, new) == [old[1]]
    assert listeners.without(new, old) == []


def test_a_fixed_address_may_go_to_another_service_but_any_free_port_is_not_shared(bind: Bind) -> None:
    port = free_port()
    old = bind(config(one=(f"127.0.0.1:{port}", "127.0.0.1:0")))
    new = bind(config(two=(f"127.0.0.1:{port}", "127.0.0.1:0")), old)
    assert new[0].socket is old[0].socket
    assert new[0].service == "two"
    assert new[1].socket is not old[1].socket


def test_any_free_port_wanted_twice_is_two_sockets_which_stay(bind: Bind) -> None:
    old = bind(config(one=("127.0.0.1:0", "127.0.0.1:0")))
    new = bind(config(one=("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0")), old)
    assert [listener.socket for listener in new[:2]] == [listener.socket for listener in old]
    assert len({listener.socket for listener in new}) == 3
    fewer = bind(config(one=("127.0.0.1:0",)), new)
    assert listeners.without(new, fewer) == new[1:]


def test_what_is_held_stays_where_something_new_fails(bind: Bind) -> None:
    old = bind(config(one=("127.0.0.1:0",)))
    with pytest.raises(ConfigurationError):
        bind(config(one=("127.0.0.1:0", "192.0.2.1:110")), old)
    assert old[0].socket.fileno() >= 0


@pytest.mark.parametrize("before, after", [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("[::]", "[::1]")])
def test_an_address_that_overlaps_one_that_is_held_is_told_from_one_that_others_have(
    bind: Bind, before: str, after: str
) -> None:
    port = free_port()
    old = bind(config(one=(f"{before}:{port}",)))
    listeners.listen(config(), old)
    with pytest.raises(ConfigurationError) as error:
        bind(config(one=(f"{after}:{port}",)), old)
    (problem,) = error.value.problems
    assert problem.found == f"{after}:{port} can't be used while pop3gw itself holds {before}:{port}"
    assert problem.expected == "the address as it was, or a restart: a reload makes none wider or narrower"
    assert old[0].socket.fileno() >= 0


def test_what_is_accepted_is_fit_for_an_interactive_protocol(bind: Bind) -> None:
    (listener,) = bind(config(one=("127.0.0.1:0",)))
    listeners.listen(config(), [listener])
    with socket.create_connection(("127.0.0.1", listener.bound.port)):
        end, _ = listener.socket.accept()
        with end:
            assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            keepalive = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            assert [end.getsockopt(socket.IPPROTO_TCP, option) for option in keepalive] == [60, 20, 4]


# Sockets that systemd has passed on.


def passed(stack: ExitStack, name: str) -> Listener:
    end = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    address = Address(*end.getsockname())
    return Listener("", address, address, end, passed=name)


def test_a_passed_socket_is_its_services_by_address_or_by_name(bind: Bind) -> None:
    with ExitStack() as stack:
        first, second = passed(stack, "pop3gw.socket"), passed(stack, "two")
        wanted = config(one=(str(first.bound),), two=("127.0.0.1:0",))
        bound = bind(wanted, [first, second])
        assert [(one.service, one.passed) for one in bound] == [("one", "pop3gw.socket"), ("two", "two"), ("two", None)]
        assert bound[0].socket is first.socket
        assert bound[1].socket is second.socket


def test_a_name_counts_more_than_an_address() -> None:
    with ExitStack() as stack:
        one = passed(stack, "two")
        assert listeners.owner(config(one=(str(one.bound),), two=()), one) == "two"


def test_a_passed_socket_without_a_service_is_an_error_also_when_it_had_one(bind: Bind) -> None:
    with ExitStack() as stack:
        one = passed(stack, "pop3gw.socket")
        held = bind(config(one=(str(one.bound),)), [one])
        with pytest.raises(ConfigurationError, match=rf"no service has the socket {one.bound}"):
            listeners.bind(config(one=("127.0.0.1:0",)), held)


def test_a_passed_socket_may_go_to_another_service_and_listens_as_systemd_made_it(bind: Bind) -> None:
    with ExitStack() as stack:
        one = passed(stack, "pop3gw.socket")
        held = bind(config(one=(str(one.bound),)), [one])
        (moved,) = bind(config(two=(str(one.bound),)), held)
        assert (moved.service, moved.socket) == ("two", one.socket)
        assert listeners.without(held, [moved]) == []
