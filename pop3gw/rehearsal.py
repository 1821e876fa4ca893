"""A few sessions of real workers, played in the master, so that all that is forked later shares what they have touched.

A worker that runs code for the first times loads modules, compiles patterns, and lets the interpreter specialize its
byte code: all that writes to memory, which is then the worker's own, and costs each worker what it could have
inherited. So the whole way of a worker and its sessions is gone here once, before the memory is frozen; in the master,
so that the templates of all services, and those of a reload, have it from there, and where clients speak TLS again in
the template, which has the keys. The other side (a client, a server, and the master) is a process of its own, on the
loopback interface; when it ends, so does the rehearsal. The built-in policy is rehearsed, not the service's: its
callbacks must not run for sessions that have no client.

Nothing of it is logged, counted or shown. Known limits: TLS with the server is not rehearsed, and where the loopback
interface can't be used nothing is; workers are then dearer, and do the same.
"""

from __future__ import annotations

import signal
import socket
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from pop3gw import logs, messages, process, signals
from pop3gw.errors import ChannelError
from pop3gw.fdpass import Channel
from pop3gw.policy import Pop3Proxy
from pop3gw.relay import Relay, Terms
from pop3gw.scoreboard import Board
from pop3gw.settings import Service
from pop3gw.stream import tune
from pop3gw.values import Address, SendProxy, Tls
from pop3gw.worker import Duty, Worker

if TYPE_CHECKING:  # ``ssl`` is loaded only where a service uses it
    from pop3gw.tls import Contexts

WORKERS: Final = 12  # the interpreter specializes what has run some times, and again what it first got wrong
SESSIONS: Final = 2  # of each
LIMIT: Final = 2.0  # s; it takes some hundredths
_TAKEN: Final = (signal.SIGALRM, signal.SIGTERM)  # workers have handlers for them
_READ: Final = 4096
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


def rehearse(service: Service, listeners: frozenset[Address], tls: Contexts | None = None) -> None:
    """Play some sessions of a service, with TLS towards clients where its contexts are given.

    Signals that workers handle wait until it is over.
    """
    waited = signals.block(_TAKEN)
    handlers = [(number, signals.handler(number)) for number in _TAKEN]
    try:
        with (
            logs.to_nowhere(),
            socket.create_server(("127.0.0.1", 0)) as front,
            socket.create_server(("127.0.0.1", 0)) as behind,
        ):
            tune(front)  # as a listener of ours: what comes of it has its options
            server = Address("127.0.0.1", behind.getsockname()[1])
            played = replace(
                service,
                server=server,
                tls=service.tls if tls is not None else Tls.OFF,
                server_tls=Tls.OFF,
                proxy_protocol_from=(),
                send_proxy=SendProxy.OFF,
            )
            _play(Terms.of(played, Pop3Proxy, listeners, tls), front, behind)
    except OSError:
        pass
    finally:
        # A callback's timer may still run, or have gone off: what waits now would end this process.
        signal.setitimer(signal.ITIMER_REAL, 0)
        signals.handle(signal.SIGALRM, signals.IGNORE)
        for number, before in handlers:
            signals.handle(number, before)
        signals.block_only(waited)


def _play(terms: Terms, front: socket.socket, behind: socket.socket) -> None:
    duty = Duty(terms.service, logs.current(), partial(Relay, terms), title=_untold)
    pairs = [Channel.pair() for _ in range(WORKERS)]
    channels = [channel for channel, _ in pairs]
    kept = [front.fileno(), behind.fileno(), *(channel.fileno() for channel in channels)]
    pid = process.fork(partial(_others, terms, channels, front, behind), kept, ())
    # All that is the other side's: with its process each connection ends then, also one that nobody has accepted yet.
    for listener in (front, behind):
        listener.close()
    for channel in channels:
        channel.close()
    for _, end in pairs:
        with end:
            Worker(duty, end, Board(1, 1).slot(0)).run()
    process.wait_for(pid, LIMIT)


def _untold(_title: str) -> None:
    """The process keeps its title."""


def _others(terms: Terms, channels: list[Channel], front: socket.socket, behind: socket.socket) -> int:
    """All but the workers; returns the exit status."""
    signal.setitimer(signal.ITIMER_REAL, LIMIT)  # which ends this process, and all that waits for it
    try:
        for channel in channels:
            channel.socket.setblocking(True)
            for _ in range(SESSIONS):
                with ExitStack() as stack:
                    _session(terms, channel, front, behind, stack)
                while not isinstance(messages.decode(channel.socket.recv(_READ)), messages.Free):
                    pass
            channel.send(messages.Retire())
    except (OSError, ChannelError):
        return 1
    return 0


def _session(
    terms: Terms,
    channel: Channel,
    front: socket.socket,
    behind: socket.socket,
    stack: ExitStack,
) -> None:
    """One session of this channel's worker, from its client's connection to the end."""
    client = stack.enter_context(socket.create_connection(front.getsockname()))
    tune(client)
    connection, (address, port) = front.accept()
    with connection:
        if (address, port) != client.getsockname():
            raise ChannelError("somebody else has connected, who is not served here")
        channel.hand_over(0, port, address, connection.fileno())
    if terms.tls is not None and terms.service.tls is Tls.IMPLICIT:
        client = stack.enter_context(terms.tls.of_a_client(client))
    server, _ = behind.accept()
    with server:
        server.sendall(b"+OK ready\r\n")
        client.recv(_READ)
        if terms.tls is not None and terms.service.tls is not Tls.IMPLICIT:
            client.sendall(b"STLS\r\n")
            client.recv(_READ)
            client = stack.enter_context(terms.tls.of_a_client(client))
        for request in _REQUESTS:
            client.sendall(f"{request}\r\n".encode())
            asked = server.recv(_READ)
            server.sendall(_ANSWERS.get(asked[:4], b"+OK\r\n"))
            client.recv(_READ)
