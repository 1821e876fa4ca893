"""One worker: takes connections from the master on credit, serves their sessions in one loop, and leaves when told.

It knows the channel, its slot of the scoreboard and ``relay``; how many sessions it takes, and when it says so, is
decided by ``credit``. It knows nothing of POP3, and waits for nothing but its poller. While no session runs nothing
wakes it up, but once for its title, to report what is free, to forget the last clients, and by the timer of its last
callback. It notices the master's death as the end of its channel: then it leaves as soon as no session runs.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from pop3gw import callguard, fdpass, leavers, messages, process, signals
from pop3gw.backtrace import backtrace
from pop3gw.credit import FREED_DELAY, Credit
from pop3gw.errors import ChannelError
from pop3gw.logs import Log
from pop3gw.logs import current as log
from pop3gw.net import Peer
from pop3gw.poller import READ, Poller
from pop3gw.scoreboard import Seat, Slot
from pop3gw.settings import Service
from pop3gw.stream import Connection
from pop3gw.times import NEVER

IDLE: Final = "idle"  # the title of a worker without sessions
TITLE_DELAY: Final = 0.1  # s by which other titles may be late: most of what they say is over by then
# Descriptors of a worker, of its policy and of who is still leaving, and those of a session (client, server, and what
# resolves the name).
_OWN_DESCRIPTORS: Final = 16 + leavers.MOST
_SESSION_DESCRIPTORS: Final = 3
_Socket: Final = Connection  # compiled, a constant is found faster than what was imported
# Plain numbers: what makes a socket turns them into such anyway.
_IPV4: Final = int(socket.AF_INET)
_IPV6: Final = int(socket.AF_INET6)
_STREAM: Final = int(socket.SOCK_STREAM)


class Sessions(Protocol):
    """All sessions of one worker (``relay.Relay``). What they watch is on the worker's poller."""

    def adopt(self, client: Connection, peer: Peer, seat: Seat) -> None:
        """Begin a session, and open its seat; never raises.

        Once it is over and its sockets are closed, ``ended(seat)`` is called.
        """

    def decided(self, seat: int, *, admitted: bool) -> None:
        """The answer to ``ask(seat, address)``: whether this client may have a session."""

    def settle(self) -> float:
        """All events of a round were told: do what they have brought. Returns the ``deadline()``."""

    def deadline(self) -> float:
        """When ``expire()`` is wanted (time.monotonic()), or NEVER."""

    def expire(self, now: float) -> None:
        """Do what is due; what had come at that time was heard."""

    def retire(self) -> None:
        """No more sessions come: once those that there are have left nothing to do, ``deadline()`` is NEVER."""

    def end(self, seat: int, session: str, reason: str) -> None:
        """End the session with this id at once, if it is still at this seat."""

    def end_all(self, reason: str) -> None:
        """End every session at once."""


class Relays(Protocol):
    """What makes the sessions of a worker: a ``relay.Relay`` for the terms of the service."""

    def __call__(
        self,
        *,
        poller: Poller,
        slot: Slot,
        ended: Callable[[Seat], None],
        ask: Callable[[Seat, str], None],
    ) -> Sessions: ...


def affordable(others: int = 0) -> int:
    """How many sessions there are descriptors for, beside so many ``others``."""
    return max(1, (process.descriptor_limit() - _OWN_DESCRIPTORS - others) // _SESSION_DESCRIPTORS)


@dataclass(frozen=True, slots=True)
class Duty:
    """What all workers of a generation have in common. Made once, before they are forked."""

    service: Service
    log: Log
    relays: Relays
    # Sessions that a worker has descriptors for: with more, it would have to refuse clients, who now wait instead.
    most: int = field(default_factory=affordable)
    title: Callable[[str], None] = process.title


class Worker:
    """The loop of one worker process."""

    def __init__(self, duty: Duty, end: Connection, slot: Slot) -> None:
        self._name = duty.service.name
        self._log = duty.log
        self._channel = fdpass.Channel(end, waits=True)
        self._slot = slot
        # Who limits sessions by client must know at once of each that is over.
        self._credit = Credit(len(slot.seats), duty.most, prompt=bool(duty.service.max_sessions_per_client))
        self._report_at = NEVER  # when seats are free that the master does not know of
        self._leaves = False
        self._title = duty.title
        self._moved = False  # a session has begun or ended in this round
        self._shown = ""  # by the title
        self._show_at = NEVER
        self._poller = Poller()
        self._poller.watch(end.fileno(), READ, self._hear)
        self._sessions = duty.relays(poller=self._poller, slot=slot, ended=self._ended, ask=self._ask)

    def run(self) -> None:
        """Serve until there is nothing to serve any more."""
        signals.handle(signal.SIGTERM, self._asked_to_leave)
        self._show(self._standing())  # before anybody is told that it serves
        self._offer()
        # Named here, once: what is looked up with each event is looked up in a process whose caches are cold.
        deadline, settle = self._sessions.deadline, self._sessions.settle
        poller = self._poller
        seats = self._slot.seats
        only = seats[0] if len(seats) == 1 else None
        credit = self._credit
        wanted = deadline()
        while credit.busy or not self._leaves or wanted != NEVER:
            due = min(min(self._show_at, self._report_at), wanted)  # compiled, min() of two is a comparison
            now = poller.now
            # A signal says that this worker is to leave: while sessions run it would only wait for them.
            poller.poll(None if due == NEVER else max(0.0, due - now), handlers=not credit.busy)
            wanted = settle()
            if now >= due:  # as it was before the poll: whoever had said something by then was heard
                self._do_what_is_due(now)
                wanted = deadline()
            if self._moved or (only is not None and only.changed):
                self._moved = False
                self._show_soon()
        self._poller.close()

    def _do_what_is_due(self, now: float) -> None:
        if now >= self._sessions.deadline():
            self._sessions.expire(now)
        if now >= self._show_at:
            self._show(self._standing())
        if now >= self._report_at:
            self._report_freed()

    def _hear(self, _events: int) -> None:
        """Take one thing that the master sent (mostly there is no more), then say how much more may come."""
        try:
            received = self._channel.receive(fdpass.BRIEF_LIMIT)
            if received is None:
                self._left_alone()
            else:
                message, descriptor = received
                self._handle(message, descriptor)
                self._offer()
        except BlockingIOError:
            pass
        except ChannelError as error:
            log().error(f"this worker can't read what the master sends: {error}", self._name)
            self._left_alone()

    def _handle(self, message: messages.Message, descriptor: int) -> None:
        if isinstance(message, messages.Serve):  # mostly
            seat, port, address = message
            self._serve(self._slot.seats[seat], Peer(address, port), _client(descriptor, address))
            return
        match message:
            case messages.Admit(seat):
                self._sessions.decided(seat, admitted=True)
            case messages.Refuse(seat):
                self._sessions.decided(seat, admitted=False)
            case messages.Retire():
                self._leaves = True
                self._sessions.retire()
                if self._report_at != NEVER:
                    self._report_freed()
            case messages.EndSession(seat, session):
                self._sessions.end(seat, session, "the administrator ended it")
            case messages.End():
                self._leaves = True
                self._sessions.end_all("the gateway is being stopped")
            case messages.LogTo():
                self._log.adopt(descriptor)
            case _:
                raise ChannelError(f"{type(message).__name__} is no message to a worker")

    def _serve(self, seat: Seat, peer: Peer, client: Connection) -> None:
        self._credit.taken()
        self._sessions.adopt(client, peer, seat)
        self._moved = True

    def _ended(self, seat: Seat) -> None:
        seat.close()
        self._moved = True
        if self._credit.freed(seat.number, leaves=self._leaves):
            self._report_freed()
        elif self._report_at == NEVER:
            self._report_at = self._poller.now + FREED_DELAY

    def _report_freed(self) -> None:
        self._report_at = NEVER
        credit, seats = self._credit.report(leaves=self._leaves)
        self._tell(messages.free(credit, seats))

    def _ask(self, seat: Seat, address: str) -> None:
        """A PROXY header has named the client: only the master knows how many sessions it has."""
        self._tell(messages.encode(messages.Client(seat.number, address)))

    def _offer(self) -> None:
        credit = self._credit.offer(leaves=self._leaves)
        if credit:
            self._tell(messages.offer(credit))

    def _tell(self, record: bytes) -> None:
        try:
            self._channel.put(record)
        except OSError:  # the master is gone; the end of file says so to the loop as well
            self._leaves = True

    def _left_alone(self) -> None:
        """Nothing more comes from the master."""
        self._leaves = True
        self._sessions.retire()
        self._poller.forget(self._channel.fileno())

    def _asked_to_leave(self, _number: int, _frame: object) -> None:
        self._tell(messages.encode(messages.Leaving()))

    def _standing(self) -> str:
        """What is served."""
        busy = self._credit.busy
        if not busy:
            return IDLE
        seats = self._slot.seats
        if len(seats) > 1:
            return f"{busy} session{'s' if busy != 1 else ''}"
        seat = seats[0]
        standing = f"{seat.client} {seat.state}" if seat.state else seat.client
        return f"{seat.user} {standing}" if seat.user else standing

    def _show_soon(self) -> None:
        """Something about the title has changed. Who is busy or was let in shows it at once; the rest can wait."""
        seats = self._slot.seats
        seats[0].changed = False
        idle = not self._credit.busy
        if idle and self._shown == IDLE:
            self._show_at = NEVER
        elif not idle and (self._shown == IDLE or (len(seats) == 1 and seats[0].lasts)):
            self._show(self._standing())
        elif self._show_at == NEVER:
            self._show_at = self._poller.now + TITLE_DELAY

    def _show(self, standing: str) -> None:
        """Put what is served into the process's title."""
        self._show_at = NEVER
        if standing != self._shown:
            self._shown = standing
            self._title(f"pop3gw: worker [{self._name}] {standing}")


def _client(descriptor: int, address: str) -> Connection:
    """The connection that came with a message; what is known of it is not asked of the system."""
    return _Socket(_IPV6 if address.find(":") >= 0 else _IPV4, _STREAM, 0, descriptor)


def main(duty: Duty, end: Connection, slot: Slot) -> int:
    """Run a worker in a process of its own; returns its exit status."""
    slot.begin(os.getpid())
    callguard.notice_forks()
    try:
        Worker(duty, end, slot).run()
    except Exception as fault:  # noqa: BLE001 - the last place where it can be said
        log().error(f"this worker ends by a fault of the gateway: {backtrace(fault)}", duty.service.name)
        return 1
    return 0
