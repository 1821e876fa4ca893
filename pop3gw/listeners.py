"""The sockets where clients connect: bound, kept across a reload, opened only when someone can serve them.

It knows addresses and sockets; who accepts, and when, is decided elsewhere. A socket is bound when a configuration is
tried and listens when that configuration holds, so that one that fails has not refused or kept a single client.

A socket that systemd passed on belongs to the service that its name (FileDescriptorName) says, else to the one that has
its address in ``listen``; what of ``listen`` was not passed is bound here. Each that was passed must have a service:
systemd lets clients connect to it in any case.

What a client's connection needs (no Nagle, keep-alive) is set on the listener: on Linux accepted sockets inherit it, so
that a session makes no system calls for it. That a socket does not block is not inherited. To one that systemd passed
clients may have connected before: what is accepted from it is to be ``tune``d.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pop3gw.consistency import clash
from pop3gw.errors import ConfigurationError, Problem
from pop3gw.settings import Config
from pop3gw.stream import tune
from pop3gw.values import Address

BACKLOG: Final = 4096  # clients that wait; the system lowers it to net.core.somaxconn
# tcpi_unacked of a struct tcp_info, which says that of a socket that listens.
_ACCEPT_QUEUE: Final = struct.Struct("I")


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound socket, for the service that has it."""

    service: str
    wanted: Address  # as configured
    bound: Address  # as it is; differs where port 0 was wanted
    socket: socket.socket
    passed: str | None = None  # the name that systemd passed it under; None: bound here


def bind(config: Config, held: Sequence[Listener]) -> list[Listener]:
    """A socket for every address that is configured, those that are ``held`` as they are.

    ConfigurationError: some can't be had; names each of them, and leaves what is held as it was.
    """
    have: defaultdict[tuple[str, Address], deque[Listener]] = defaultdict(deque)  # several may want "any free port"
    for listener in [one for one in held if one.passed is None]:
        have[_key(listener.service, listener.wanted)].append(listener)
    listeners, new, problems = [], [], []
    for listener in [one for one in held if one.passed is not None]:
        service_name = owner(config, listener)
        if service_name is None:
            problems.append(_orphan(config, listener))
        else:
            listeners.append(replace(listener, service=service_name))
    given = {(listener.service, listener.wanted) for listener in listeners}
    for service in config.services:
        for wanted in service.listen:
            if (service.name, wanted) in given:
                continue
            if same := have[_key(service.name, wanted)]:
                old = same.popleft()
                listeners.append(Listener(service.name, wanted, old.bound, old.socket))
                continue
            try:
                listener = _bind(service.name, wanted)
            except OSError as error:
                problems.append(_problem(config, service.name, wanted, error, held))
            else:
                new.append(listener)
                listeners.append(listener)
    if problems:
        close(new)
        raise ConfigurationError(problems)
    return listeners


def owner(config: Config, listener: Listener) -> str | None:
    """The service that gets a socket that was passed on; None: nobody."""
    by_name = (service.name for service in config.services if service.name == listener.passed)
    by_address = (service.name for service in config.services if listener.bound in service.listen)
    return next(by_name, next(by_address, None))


def bound(address: Address) -> socket.socket:
    """A socket that has this address, and doesn't listen yet. OSError: it can't be had."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    end = socket.socket(family, socket.SOCK_STREAM)
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # else [::] would take 0.0.0.0 as well
            end.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        end.bind((address.host, address.port))
    except BaseException:
        end.close()
        raise
    return end


def listen(config: Config, listeners: Iterable[Listener]) -> None:
    """Let clients connect. ConfigurationError: another program was faster."""
    problems = []
    for listener in [one for one in listeners if one.passed is None]:
        try:
            listener.socket.listen(BACKLOG)
        except OSError as error:
            problems.append(_problem(config, listener.service, listener.wanted, error))
    if problems:
        raise ConfigurationError(problems)


def waiting(end: socket.socket) -> int:
    """How many clients wait in the backlog of this listener."""
    (clients,) = _ACCEPT_QUEUE.unpack_from(end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32), 24)
    return int(clients)


def close(listeners: Iterable[Listener]) -> None:
    """Let go of these sockets."""
    for listener in listeners:
        listener.socket.close()


def without(held: Iterable[Listener], kept: Iterable[Listener]) -> list[Listener]:
    """Those held whose socket is in none of the kept."""
    kept_sockets = {listener.socket for listener in kept}
    return [listener for listener in held if listener.socket not in kept_sockets]


def _key(service: str, wanted: Address) -> tuple[str, Address]:
    # A fixed address may pass from one service to another; "any free port" is each service's own.
    return ("" if wanted.port else service, wanted)


def _bind(service: str, wanted: Address) -> Listener:
    end = bound(wanted)
    try:
        end.setblocking(False)
        tune(end)
        host, port = end.getsockname()[:2]
    except BaseException:
        end.close()
        raise
    return Listener(service, wanted, Address(host, port), end)


def _orphan(config: Config, listener: Listener) -> Problem:
    found = f"no service has the socket {listener.bound}, which systemd passes as {listener.passed or 'nameless'}"
    expected = "that address in listen, or a service's name as FileDescriptorName of the socket unit"
    return Problem(config.source, 0, "listen", found, expected)


def _problem(config: Config, service: str, wanted: Address, error: OSError, held: Sequence[Listener] = ()) -> Problem:
    holders = [listener.bound for listener in held if clash(listener.bound, wanted)]
    if holders and error.errno == errno.EADDRINUSE:
        found = f"{wanted} can't be used while pop3gw itself holds {holders[0]}"
        expected = "the address as it was, or a restart: a reload makes none wider or narrower"
    else:
        found = f"{wanted} can't be used: {error.strerror}"
        expected = "an address of this machine, and a port that is free and that this account may use"
    return config.problem(service, "listen", found, expected)
