"""A few sessions played in the master, so that all that is forked later shares what serving one has touched.

A worker that runs code for the first times loads modules, compiles patterns, and lets the interpreter specialize its
byte code: all that writes to memory, which is then the worker's own, and costs each worker what it could have
inherited. So the whole way of a session is gone here once, between two ends on the loopback interface, before the
memory is frozen; in the master, so that the templates of all services, and those of a reload, have it from there. The
built-in policy is rehearsed, not the service's: the master loads none, and callbacks are not for nobody's sessions.

Nothing of it is logged, counted or shown. Known limits: without TLS, and where the loopback interface can't be used
there is no rehearsal; workers are then dearer, and do the same.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from pop3gw import logs
from pop3gw.net import Peer
from pop3gw.policy import Pop3Proxy
from pop3gw.poller import READ, Poller
from pop3gw.relay import Relay, Terms
from pop3gw.scoreboard import Board, Seat
from pop3gw.settings import Service
from pop3gw.values import Address, SendProxy, Tls

SESSIONS: Final = 24  # the interpreter specializes what has run some times, and again what it first got wrong
LIMIT: Final = 2.0  # s; it takes some hundredths
_REQUESTS: Final = ("CAPA", "USER u", "PASS p", "STAT", "LIST", "UIDL", "RETR 1", "TOP 1 0", "DELE 1", "NOOP", "QUIT")
_CONTENT: Final = b"+OK\r\nline\r\n.\r\n"
_ANSWERS: Final = {
    b"STAT": b"+OK 1 6\r\n",
    b"LIST": b"+OK\r\n1 6\r\n.\r\n",
    b"UIDL": b"+OK\r\n1 a\r\n.\r\n",
    b"RETR": _CONTENT,
    b"TOP ": _CONTENT,
    b"CAPA": b"+OK\r\nUSER\r\nTOP\r\n.\r\n",
}


def rehearse(service: Service, listeners: frozenset[Address]) -> None:
    """Play some sessions of a service. Takes the SIGALRM handler while it lasts."""
    before = signal.getsignal(signal.SIGALRM)
    try:
        with (
            logs.to_nowhere(),
            contextlib.closing(Poller()) as poller,
            socket.create_server(("127.0.0.1", 0)) as front,
            socket.create_server(("127.0.0.1", 0)) as behind,
        ):
            _play(service, listeners, poller, front, behind)
    except OSError:
        pass
    finally:
        signal.signal(signal.SIGALRM, before)


def _play(
    service: Service,
    listeners: frozenset[Address],
    poller: Poller,
    front: socket.socket,
    behind: socket.socket,
) -> None:
    server = Address("127.0.0.1", behind.getsockname()[1])
    plain = replace(
        service, server=server, tls=Tls.OFF, server_tls=Tls.OFF, proxy_protocol_from=(), send_proxy=SendProxy.OFF
    )
    slot = Board(1, 1).slot(0)
    seat = slot.seats[0]
    over: list[Seat] = []
    relay = Relay(
        Terms.of(plain, Pop3Proxy, listeners, None),
        poller=poller,
        slot=slot,
        ended=over.append,
        ask=lambda _seat, _address: None,
    )
    until = time.monotonic() + LIMIT
    for _ in range(SESSIONS):
        over.clear()
        with socket.create_connection(front.getsockname(), LIMIT) as client, _Server(behind, poller):
            poller.watch(client.fileno(), READ, _Client(client, poller).hear)
            connection, (address, port) = front.accept()
            if (address, port) != client.getsockname():  # somebody else's: the master serves nobody
                connection.close()
                return
            relay.adopt(connection, Peer(address, port), seat)
            while not over:
                now = time.monotonic()
                if now > until:
                    relay.end_all("it took too long")
                    return
                for call, events in poller.poll(until - now):
                    call(events)
                relay.settle()
            seat.close()


class _Client:
    """Says the next request whenever it hears something, and leaves when the other side does."""

    def __init__(self, end: socket.socket, poller: Poller) -> None:
        self._end = end
        self._poller = poller
        self._requests: Iterator[str] = iter(_REQUESTS)

    def hear(self, _events: int) -> None:
        if not self._end.recv(4096):
            self._poller.forget(self._end.fileno())
            self._end.close()
        elif request := next(self._requests, None):
            self._end.send(f"{request}\r\n".encode())


class _Server:
    """Greets who connects, and answers one request at a time."""

    def __init__(self, listener: socket.socket, poller: Poller) -> None:
        self._listener = listener
        self._poller = poller
        self._end: socket.socket | None = None

    def __enter__(self) -> None:
        self._poller.watch(self._listener.fileno(), READ, self._greet)

    def __exit__(self, *_: object) -> None:
        self._poller.forget(self._listener.fileno())
        self._leave()

    def _greet(self, _events: int) -> None:
        self._end, _ = self._listener.accept()
        self._poller.watch(self._end.fileno(), READ, self._answer)
        self._end.send(b"+OK ready\r\n")

    def _answer(self, _events: int) -> None:
        request = self._end.recv(4096) if self._end is not None else b""
        if self._end is not None and request:
            self._end.send(_ANSWERS.get(request[:4], b"+OK\r\n"))
        else:
            self._leave()

    def _leave(self) -> None:
        if self._end is not None:
            self._poller.forget(self._end.fileno())
            self._end.close()
            self._end = None
