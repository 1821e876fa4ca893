"""One service at work in the master: it accepts clients and has them served, as its pool decides.

The decisions are in ``pool``, its workers in ``crew``, the templates in ``succession``, who gets no session in
``refusals``. It never touches a client's octets, and nothing that a worker or a client does may raise out of it; what a
template reports may, where no template of ours would say so: then ``succession`` gives it up.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from pop3gw import listeners, process
from pop3gw.agenda import Agenda
from pop3gw.closing import Phase
from pop3gw.crew import Crew
from pop3gw.generation import Generation
from pop3gw.ledger import Gauge, Ledger
from pop3gw.listeners import Listener
from pop3gw.logs import current as log
from pop3gw.orders import Act
from pop3gw.poller import READ, Poller
from pop3gw.pool import Pool
from pop3gw.proto import counts
from pop3gw.proto.counts import Reason
from pop3gw.refusals import TOO_MANY_LOGGED, Refusals
from pop3gw.stream import tune
from pop3gw.succession import Succession
from pop3gw.times import NEVER
from pop3gw.values import Tls
from pop3gw.worker import affordable

monotonic: Final = time.monotonic  # compiled, a constant is found faster than what was imported
_close: Final = os.close
_NO_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def _chance() -> float:
    """A number from 0 to 1, without ``random``, which seeds itself in each child of every fork."""
    return int.from_bytes(os.urandom(4)) / (1 << 32)


class Serving:
    """A service: its listeners and its workers. Call ``carry_out()`` at ``deadline`` at the latest.

    OSError: the system has no descriptor for another.
    """

    def __init__(self, name: str, poller: Poller, agenda: Agenda, ledger: Ledger) -> None:
        self.name = name
        self.pool = Pool(_chance, process.processors(), affordable())
        self.templates = Succession(name, poller, agenda, self)
        self.ledger = ledger
        self.drained = False  # by the administrator: clients are turned away
        self.renewed = False  # a generation has begun that attendants don't know
        self._in_clear = True  # a client hears what is said in clear: TLS does not come first
        self._removed = False  # another one may have the ledger's gauges
        self._vacant = 0  # as it was shown
        self._poller = poller
        self._agenda = agenda
        self._listeners: list[Listener] = []
        self._polled = False
        self._held: deque[tuple[int, str, int]] = deque()  # accepted, and nobody there to serve them
        self._refusals = Refusals()
        self._crew = Crew(name, self.pool, self.templates, ledger, poller, agenda, self._took_note)

    @property
    def deadline(self) -> float:
        """When something is due, on the clock of time.monotonic(); also said to the agenda."""
        if self.pool.restless:
            return -NEVER
        return min(self.pool.deadline, self.templates.deadline, self._refusals.deadline, self._crew.deadline)

    @property
    def sessions(self) -> int:
        """Sessions that were handed over and of which no worker has said that they are over."""
        self._crew.catch_up()
        return self.pool.sessions

    def over(self, now: float) -> bool:
        """Whether it was told to stop, no worker is left, and it is known how each has ended."""
        return self.pool.over and self.templates.over(now)

    def carry_out(self, now: float) -> None:
        """Hear what workers have said, and do what is due."""
        self._crew.catch_up()
        self._act(now)

    def _act(self, now: float) -> None:
        """Do what the pool decided, and what else is due."""
        pool = self.pool
        if pool.dry:
            pool.waiting(sum(listeners.waiting(listener.socket) for listener in self._listeners))
        while orders := pool.orders(now):
            for order in orders:
                if order.act is Act.REPORT:
                    log().warning(order.text, self.name)
                else:
                    self._crew.obey(order)
        while self._held and pool.room(now):
            self._hand_over(*self._held.popleft(), now)
        self._poll(pool.accepts(now) if self.drained else pool.room(now) > 0)
        if now >= self.templates.deadline:
            self.templates.tidy(now)
        self._refusals.sweep(now)
        self._crew.attend(now)
        self._publish()
        self._agenda.want(self.deadline)

    def _publish(self) -> None:
        """Put where attendants see it how the pool stands."""
        if self._removed:
            return
        self.ledger.show(Gauge.STARTING, self.pool.starting)
        self._show_free_seats()
        self.ledger.show(Gauge.DRAINED, self.drained)
        self.ledger.show(Gauge.STOPPING, self.pool.phase is not Phase.RUNNING)

    def _show_free_seats(self) -> None:
        self._vacant = self.pool.vacant
        self.ledger.show(Gauge.FREE_SEATS, self._vacant)

    def turn_away(self, drained: bool) -> None:
        """Let no more clients in, or let them in again; sessions and workers stay."""
        self.drained = drained
        self._act(monotonic())

    def end_session(self, pid: int, seat: int, session: str) -> bool:
        """Have the worker with this pid end the session with this id; False: there is no such worker."""
        return self._crew.end_session(pid, seat, session)

    # A configuration comes, or goes.

    def close_doors(self) -> None:
        """Let go of the listeners."""
        self._poll(False)
        self._listeners = []

    def commit(self, bound: Sequence[Listener]) -> None:
        """The generation that was prepared serves from now on, on these listeners."""
        self._listeners = list(bound)
        self.templates.commit(monotonic())

    def drain(self) -> None:
        """The service is no longer configured: its sessions may finish."""
        self._leave(self.pool.drain)
        self._removed = True

    def stop(self) -> None:
        """Stop accepting, let sessions finish within ``shutdown_timeout``."""
        self._leave(self.pool.stop)

    def end(self) -> None:
        """Stop accepting, end every session now."""
        self._leave(self.pool.end)

    def close(self, *, wait: bool = True) -> None:
        """End the templates: the service is over."""
        self.templates.close(wait=wait)
        self._refusals.close()
        self._crew.close()

    def log_reopened(self, descriptor: int) -> None:
        """Pass the log's new descriptor on to templates and workers."""
        self.templates.log_reopened(descriptor)
        self._crew.log_reopened(descriptor)

    def _leave(self, end: Callable[[float], None]) -> None:
        now = monotonic()
        self.templates.leave()
        self.close_doors()
        for client, *_ in self._held:
            os.close(client)
        self._held.clear()
        end(now)
        self._act(now)
        self._publish()

    # What templates report (succession.Owner).

    def began(self, generation: Generation, now: float) -> None:
        """This generation serves from now on."""
        self.renewed = True
        self._in_clear = generation.plan.service.tls is not Tls.IMPLICIT
        self._agenda.hurry()
        generation.rows = tuple(self.ledger.rows(generation.plan.service.policy.class_name, generation.callbacks))
        self.pool.begin(generation.plan.service, now)
        self._act(now)

    def orphaned(self) -> None:
        """The template is gone."""
        self.ledger.add(counts.TEMPLATES_LOST.at)
        self.pool.suspend()

    def forked(self, worker: int, pid: int) -> None:
        """As Crew.forked."""
        self._crew.forked(worker, pid)

    def fork_failed(self, worker: int, reason: str, now: float) -> None:
        """As Crew.fork_failed."""
        self._crew.fork_failed(worker, reason, now)

    def exited(self, worker: int, pid: int, status: int, now: float) -> None:
        """As Crew.exited."""
        self._crew.exited(worker, pid, status, now)

    def untold(self, workers: int) -> None:
        """As Crew.untold."""
        self._crew.untold(workers)

    # Clients.

    def _poll(self, polled: bool) -> None:
        """Look at the listeners, or leave clients in the backlog."""
        if polled == self._polled:
            return
        self._polled = polled
        for listener in self._listeners:
            if polled:
                self._poller.watch(listener.socket.fileno(), READ, partial(self._accept, listener))
            else:
                self._poller.forget(listener.socket.fileno())

    def _accept(self, listener: Listener, _mask: int) -> None:
        """Take one client: while others wait, the next turn says so again."""
        if not self._polled or (self._held and not self.drained):  # since an event of the same turn
            return
        now = self._crew.client_comes()
        if self.drained or self.pool.room(now):  # as has just been heard: who can't be served waits outside
            self._let_in(listener, now)
        self._took_note()

    def _let_in(self, listener: Listener, now: float) -> None:
        try:
            # Not accept(): of a socket that is only passed on no object is needed, which costs as much as the call.
            client, where = listener.socket._accept()  # type: ignore[attr-defined]
        except OSError as error:
            if error.errno in _NO_RESOURCES:
                self.ledger.add(counts.ACCEPT_FAILURES.at)
                self.pool.accept_failed(process.shortage(error), now)
                self._agenda.hurry()
            return  # or that client is gone
        address, port = where[0], where[1]
        if listener.passed is not None:
            self._tune(client)
        if self.drained:
            self._refuse(client, Reason.DRAINED, now)
        elif self.pool.admits(address):
            self._hand_over(client, address, port, now)
        else:
            log().info(f"client={address} refused: {TOO_MANY_LOGGED}", self.name)
            self._refuse(client, Reason.PER_CLIENT_LIMIT, now)

    def _tune(self, client: int) -> None:
        """It may have connected to what systemd listened on, before there was a gateway."""
        end = socket.socket(fileno=client)
        try:
            tune(end)
        finally:
            end.detach()

    def _hand_over(self, client: int, address: str, port: int, now: float) -> None:
        pool = self.pool
        while pool.room(now):
            worker, seat = pool.take(address, now)
            if self._crew.hand_over(worker, seat, port, address, client):
                _close(client)
                break
        else:
            self._held.append((client, address, port))

    def _took_note(self) -> None:
        """What the pool was told may have consequences, once all that this turn brings has been heard."""
        if self.pool.restless:
            self._agenda.hurry()
        elif self.pool.vacant != self._vacant and not self._removed:  # seldom, where clients follow one another
            self._show_free_seats()

    def _refuse(self, client: int, reason: Reason, now: float) -> None:
        self.ledger.add(counts.CLIENTS_REFUSED.index(reason))
        self._refusals.tell(client, reason, self._in_clear, now)
        self._agenda.want(self._refusals.deadline)
