"""One worker: takes connections from the master on credit, serves their sessions in one loop, and leaves when told.

It knows the channel, its slot of the scoreboard and ``relay``; it knows nothing of POP3, and waits for nothing but its
selector. While no session runs nothing wakes it up. It notices the master's death as the end of its channel: then it
leaves as soon as no session runs.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from pop3gw import fdpass, process
from pop3gw.errors import ChannelError
from pop3gw.logs import Log
from pop3gw.logs import current as log
from pop3gw.net import Peer
from pop3gw.policy import AbstractPop3Proxy
from pop3gw.scoreboard import Seat, Slot
from pop3gw.settings import Service
from pop3gw.values import Address

if TYPE_CHECKING:  # ``ssl`` is loaded only where a service uses it
    from pop3gw.tls import Contexts

CREDIT: Final = 8  # sessions that may be under way to a worker: what a wedged one can collect
# Descriptors that a worker and its policy need themselves, and those of a session (client, server, resolver).
_OWN_DESCRIPTORS: Final = 16
_SESSION_DESCRIPTORS: Final = 3


class Sessions(Protocol):
    """All sessions of one worker (``relay.Relay``). What they register on the selector are callables of the mask."""

    def adopt(self, client: socket.socket, peer: Peer, local: Peer, seat: Seat) -> None:
        """Begin a session; never raises. Once it is over and its sockets are closed, ``ended(seat)`` is called."""

    def decided(self, seat: int, *, admitted: bool) -> None:
        """The answer to ``ask(seat, address)``: whether this client may have a session."""

    def deadline(self) -> float | None:
        """When ``expire()`` is wanted (time.monotonic()); None: never."""

    def expire(self, now: float) -> None:
        """Do what is due."""

    def end(self, seat: int, session: str, reason: str) -> None:
        """End the session with this id at once, if it is still at this seat."""

    def end_all(self, reason: str) -> None:
        """End every session at once."""


class Relays(Protocol):
    """What makes the sessions of a worker: ``relay.Relay`` itself."""

    def __call__(
        self,
        *,
        service: Service,
        policy: type[AbstractPop3Proxy],
        selector: selectors.BaseSelector,
        slot: Slot,
        listeners: frozenset[Address],
        ended: Callable[[Seat], None],
        ask: Callable[[Seat, str], None],
        tls: Contexts | None,
    ) -> Sessions: ...


@dataclass(frozen=True, slots=True)
class Duty:
    """What all workers of a generation have in common."""

    service: Service
    policy: type[AbstractPop3Proxy]
    listeners: frozenset[Address]
    log: Log | None  # None: no worker will be forked
    relays: Relays
    tls: Contexts | None = None  # None: the service speaks none


class Worker:
    """The loop of one worker process."""

    def __init__(self, duty: Duty, end: socket.socket, slot: Slot) -> None:
        self._name = duty.service.name
        self._log = duty.log
        self._channel = fdpass.Channel(end, waits=True)
        self._slot = slot
        self._free_seats = len(slot.seats)
        # Sessions beyond the descriptors that there are would be refused: their clients rather wait, or go elsewhere.
        self._most = max(1, (process.descriptor_limit() - _OWN_DESCRIPTORS) // _SESSION_DESCRIPTORS)
        self._granted = 0  # sessions that the master may still send
        self._leaves = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(end, selectors.EVENT_READ, self._hear)
        self._sessions = duty.relays(
            service=duty.service,
            policy=duty.policy,
            selector=self._selector,
            slot=slot,
            listeners=duty.listeners,
            ended=self._ended,
            ask=self._ask,
            tls=duty.tls,
        )

    def run(self) -> None:
        """Serve until there is nothing to serve any more."""
        signal.signal(signal.SIGTERM, self._asked_to_leave)
        self._offer()
        self._show()
        sessions = self._sessions
        select = self._selector.select
        seats = self._slot.seats
        only = seats[0] if len(seats) == 1 else None
        while not (self._leaves and self._free_seats == len(seats)):
            deadline = sessions.deadline()
            for key, mask in select(None if deadline is None else max(0.0, deadline - time.monotonic())):
                key.data(mask)
            if deadline is not None and (now := time.monotonic()) >= deadline:
                sessions.expire(now)
            if only is not None and only.changed:
                self._show()

    def _hear(self, _mask: int) -> None:
        """Take what the master sent, all of it, then say how much more may come."""
        try:
            while (received := self._channel.receive()) is not None:
                self._handle(*received)
            self._left_alone()
        except BlockingIOError:
            self._offer()
        except ChannelError as error:
            log().error(f"this worker can't read what the master sends: {error}", self._name)
            self._left_alone()

    def _handle(self, message: fdpass.Message, descriptor: int) -> None:
        match message:
            case fdpass.Serve(seat, port, address):
                self._serve(self._slot.seats[seat], Peer(address, port), socket.socket(fileno=descriptor))
            case fdpass.Admit(seat):
                self._sessions.decided(seat, admitted=True)
            case fdpass.Refuse(seat):
                self._sessions.decided(seat, admitted=False)
            case fdpass.Retire():
                self._leaves = True
            case fdpass.EndSession(seat, session):
                self._sessions.end(seat, session, "the administrator ended it")
            case fdpass.End():
                self._leaves = True
                self._sessions.end_all("the gateway is being stopped")
            case fdpass.LogTo() if self._log is not None:
                self._log.adopt(descriptor)
            case _:
                raise ChannelError(f"{type(message).__name__} is no message to a worker")

    def _serve(self, seat: Seat, peer: Peer, client: socket.socket) -> None:
        self._granted -= 1
        self._free_seats -= 1
        seat.open(peer.address, peer.port)
        address, port = client.getsockname()[:2]
        self._sessions.adopt(client, peer, Peer(address, port), seat)
        if len(self._slot.seats) > 1:
            self._show()

    def _ended(self, seat: Seat) -> None:
        seat.close()
        self._free_seats += 1
        credit = self._credit()
        self._granted += credit
        self._tell(fdpass.Free(credit, (seat.number,)))
        if len(self._slot.seats) > 1:
            self._show()

    def _ask(self, seat: Seat, address: str) -> None:
        """A PROXY header has named the client: only the master knows how many sessions it has."""
        self._tell(fdpass.Client(seat.number, address))

    def _credit(self) -> int:
        """How many sessions more than already granted may come."""
        if self._leaves:
            return 0
        seats = len(self._slot.seats)
        room = min(seats, self._most) - (seats - self._free_seats)
        return min(CREDIT, room) - self._granted

    def _offer(self) -> None:
        credit = self._credit()
        # Most credit goes back with the end of a session: a message of its own only before it runs out.
        if credit > 0 and self._granted <= CREDIT // 2:
            self._granted += credit
            self._tell(fdpass.Offer(credit))

    def _tell(self, message: fdpass.Message) -> None:
        try:
            self._channel.send(message)
        except OSError:  # the master is gone; the end of file says so to the loop as well
            self._leaves = True

    def _left_alone(self) -> None:
        """Nothing more comes from the master."""
        self._leaves = True
        self._selector.unregister(self._channel.socket)

    def _asked_to_leave(self, _number: int, _frame: object) -> None:
        self._tell(fdpass.Leaving())

    def _show(self) -> None:
        """Put what is served into the process's title."""
        seats = self._slot.seats
        if len(seats) > 1:
            busy = len(seats) - self._free_seats
            what = f"{busy} session{'s' if busy != 1 else ''}" if busy else "idle"
        else:
            seat = seats[0]
            seat.changed = False
            busy = 1 - self._free_seats
            what = " ".join(filter(None, (seat.user, seat.client, seat.state))) if busy else "idle"
        process.title(f"pop3gw: worker [{self._name}] {what}")


def main(duty: Duty, end: socket.socket, slot: Slot) -> int:
    """Run a worker in a process of its own; returns its exit status."""
    slot.begin(os.getpid())
    try:
        Worker(duty, end, slot).run()
    except Exception:  # noqa: BLE001 - the last place where it can be said
        log().error(f"this worker ends by a fault of the gateway: {traceback.format_exc()}", duty.service.name)
        return 1
    return 0
