"""All sessions of one worker, on the worker's poller: which are running, and which of them is due when.

It knows nothing of POP3 and moves no bytes: each session is a ``conversation``.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pop3gw.callguard import CallGuard
from pop3gw.conversation import Conversation
from pop3gw.leavers import Leavers
from pop3gw.logs import SessionLog, ask_who_speaks
from pop3gw.logs import current as log
from pop3gw.net import Peer, Route
from pop3gw.policy import AbstractPop3Proxy
from pop3gw.poller import Poller
from pop3gw.proto.counts import callback_names
from pop3gw.proto.events import Ending
from pop3gw.proto.upgrade import SessionRules
from pop3gw.scoreboard import Seat, Slot
from pop3gw.settings import Service
from pop3gw.stream import Connection
from pop3gw.times import NEVER
from pop3gw.values import Address, SendProxy, Tls

if TYPE_CHECKING:  # ``ssl`` is loaded only where a service uses it
    from pop3gw.tls import Contexts

# Compiled, a constant is found faster than what was imported.
_heappop: Final = heapq.heappop
_heappush: Final = heapq.heappush
monotonic: Final = time.monotonic
_FORGOTTEN: Final = 64  # deadlines of no use that may be kept beside as many as there are sessions


@dataclass(frozen=True, slots=True)
class Terms:
    """What all sessions of a service have in common. Made once, before workers are forked, who share it then."""

    service: Service
    policy: type[AbstractPop3Proxy]
    tls: Contexts | None  # None: the service speaks none
    route: Route
    rules: SessionRules
    callbacks: dict[str, int]  # where the failures of each are counted
    server_speaks_first: bool

    @classmethod
    def of(
        cls,
        service: Service,
        policy: type[AbstractPop3Proxy],
        listeners: frozenset[Address],
        tls: Contexts | None,
    ) -> Terms:
        """Those of a service with this policy; ``listeners`` are the whole gateway's."""
        return cls(
            service,
            policy,
            tls,
            Route(service.server, listeners),
            SessionRules(service.tls, service.server_tls),
            {name: at for at, name in enumerate(callback_names(policy))},
            service.server_tls is not Tls.IMPLICIT and service.send_proxy is SendProxy.OFF,
        )


class Relay:
    """All sessions of one worker process. See ``worker.Sessions`` for what each method promises."""

    def __init__(
        self,
        terms: Terms,
        *,
        poller: Poller,
        slot: Slot,
        ended: Callable[[Seat], None],
        ask: Callable[[Seat, str], None],
    ) -> None:
        self.terms = terms
        self.poller = poller
        self.slot = slot
        self.ended = ended
        self._ask = ask
        self.guard = CallGuard(self._give_up, self._called)
        ask_who_speaks(self._speaks)
        self._held_up = False  # by a callback, in this round
        self.leavers = Leavers(poller)
        self._running: set[Conversation] = set()
        self.unsettled: list[Conversation] = []  # who has heard something in this round
        self._asking: dict[int, Conversation] = {}  # seat -> who waits for ``decided``
        # Deadlines mostly move later: an entry is looked at again when its time comes, not moved each time. They are
        # numbers only, so that the memory of a session that is over is the next one's.
        self._deadlines: list[tuple[float, int]] = []
        self._due: dict[int, Conversation] = {}  # entry -> whose it is: the last one of each session
        self._entries = 0

    def adopt(self, client: Connection, peer: Peer, seat: Seat) -> None:
        """Begin a session."""
        conversation = Conversation(self, client, peer, seat)
        self._running.add(conversation)
        conversation.begin()

    def ask(self, conversation: Conversation, address: str) -> None:
        """Let the master decide whether the client that a proxy has named may have a session."""
        self._asking[conversation.seat.number] = conversation
        self._ask(conversation.seat, address)

    def decided(self, seat: int, *, admitted: bool) -> None:
        """What the master has decided."""
        conversation = self._asking.pop(seat, None)
        if conversation is not None:
            conversation.decided(admitted=admitted)

    def _speaks(self) -> SessionLog | None:
        journal = self.guard.speaks()
        return journal if isinstance(journal, SessionLog) else None

    def _called(self) -> None:
        """A callback has run, and may have taken its time."""
        self._held_up = True
        self.poller.now = monotonic()

    def settle(self) -> float:
        """Every session of this round has heard what there was: now let them act. Returns when ``expire`` is wanted."""
        if self.unsettled:
            now = self.poller.now
            if self._held_up:
                self._held_up = False
                for conversation in self.unsettled:
                    conversation.held_up(now)
            for conversation in self.unsettled:
                try:
                    conversation.speak(now)
                except Exception as fault:  # noqa: BLE001 - it is logged with its traceback
                    conversation.fault(fault)
            for conversation in self.unsettled:
                try:
                    conversation.follow(now)
                except Exception as fault:  # noqa: BLE001 - it is logged with its traceback
                    conversation.fault(fault)
            self.unsettled.clear()
        return self.deadline()

    def deadline(self) -> float:
        """When ``expire`` is wanted."""
        return min(self._deadlines[0][0] if self._deadlines else NEVER, self.leavers.deadline)

    def expire(self, now: float) -> None:
        """Do what is due; what had come at that time was heard."""
        self.leavers.sweep(now)
        while self._deadlines and self._deadlines[0][0] <= now:
            _when, entry = _heappop(self._deadlines)
            conversation = self._due.get(entry)
            if conversation is not None:
                self._unschedule(conversation)
                conversation.expire(now)

    def schedule(self, when: float, conversation: Conversation) -> None:
        """``conversation.expire`` is to be called at this time at the latest."""
        self._unschedule(conversation)
        if len(self._deadlines) > 2 * len(self._running) + _FORGOTTEN:
            # Most belong to sessions that are over, or were moved forward: else they would stay for whole timeouts.
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._due]
            heapq.heapify(self._deadlines)
        self._entries += 1
        conversation.scheduled, conversation.entry = when, self._entries
        self._due[self._entries] = conversation
        _heappush(self._deadlines, (when, self._entries))

    def _unschedule(self, conversation: Conversation) -> None:
        conversation.scheduled = NEVER
        self._due.pop(conversation.entry, None)

    def end_all(self, reason: str) -> None:
        """End every session at once."""
        for conversation in list(self._running):
            conversation.end(reason)
        self.leavers.close()

    def retire(self) -> None:
        """No more sessions come."""
        self.leavers.watch()

    def end(self, seat: int, session: str, reason: str) -> None:
        """End the session with this id, if it is still at this seat."""
        for conversation in list(self._running):
            if conversation.seat.number == seat and conversation.identity == session:
                conversation.end(reason, Ending.KILLED)

    def done(self, conversation: Conversation) -> None:
        """A conversation has closed its connections."""
        self._running.discard(conversation)
        self._unschedule(conversation)
        self._asking.pop(conversation.seat.number, None)
        if not self._running:
            self._deadlines.clear()
            self.guard.rest()
        self.ended(conversation.seat)

    def _give_up(self, who: str, why: str) -> None:
        service = self.terms.service
        log().error(f"{who} of {service.policy} {why}", service.name)
