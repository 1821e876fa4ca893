"""One service at work in the master: accepts, hands over, forks and reaps, as its pool decides.

The effects of a service are here, the decisions in ``pool``, the templates in ``succession``, who gets no session in
``refusals``. It never touches a client's octets, and nothing that a worker or a client does may raise out of it; what a
template reports may, where no template of ours would say so: then ``succession`` gives it up.

Known limit: a connection that was handed to a worker which is killed before it looked is lost with that worker.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from pop3gw import fdpass, listeners, messages, process
from pop3gw.agenda import Agenda
from pop3gw.attention import Attention
from pop3gw.backtrace import backtrace
from pop3gw.closing import Phase
from pop3gw.errors import ChannelError
from pop3gw.generation import Generation, Stage, Worker
from pop3gw.ledger import Gauge, Ledger
from pop3gw.listeners import Listener
from pop3gw.logline import quoted
from pop3gw.logs import SessionLog
from pop3gw.logs import current as log
from pop3gw.orders import Act, Order
from pop3gw.poller import ALL, READ, Poller
from pop3gw.pool import Pool
from pop3gw.proto import counts
from pop3gw.proto.counts import Reason, WorkerEnd
from pop3gw.refusals import TOO_MANY_LOGGED, Refusals
from pop3gw.scoreboard import PID_MOST
from pop3gw.stream import tune
from pop3gw.succession import Succession
from pop3gw.times import NEVER
from pop3gw.values import Tls
from pop3gw.worker import affordable

monotonic: Final = time.monotonic  # compiled, a constant is found faster than what was imported
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
        self._poller = poller
        self._agenda = agenda
        self._listeners: list[Listener] = []
        self._polled = False
        self._workers: dict[int, Worker] = {}
        self._channels = Poller(ALL)  # the workers'
        self._attention = Attention()
        self._attends = True  # what workers say ends the wait
        poller.watch(self._channels.fileno(), READ, self._hear_workers)
        self._unreported: dict[int, Generation] = {}  # workers whose template has not said how they ended
        self._held: deque[tuple[int, str, int]] = deque()  # accepted, and nobody there to serve them
        self._refusals = Refusals()
        self._do: dict[Act, Callable[[Order], None]] = {
            Act.SPAWN: self._spawn,
            Act.RETIRE: partial(self._tell, messages.Retire()),
            Act.END: partial(self._tell, messages.End()),
            Act.KILL: self._kill,
            Act.REPORT: lambda order: log().warning(order.text, name),
        }

    @property
    def deadline(self) -> float:
        """When something is due, on the clock of time.monotonic(); also said to the agenda."""
        if self.pool.restless:
            return -NEVER
        heard = NEVER if self._attends else self._attention.until
        return min(self.pool.deadline, self.templates.deadline, self._refusals.deadline, heard)

    @property
    def sessions(self) -> int:
        """Sessions that were handed over and of which no worker has said that they are over."""
        self._catch_up()
        return self.pool.sessions

    def carry_out(self, now: float) -> None:
        """Hear what there is, and do what is due."""
        self._catch_up()
        self._act(now)

    def _act(self, now: float) -> None:
        """Do what the pool decided, and what else is due."""
        pool = self.pool
        if pool.dry:
            pool.waiting(sum(listeners.waiting(listener.socket) for listener in self._listeners))
        while orders := pool.orders(now):
            for order in orders:
                self._do[order.act](order)
        while self._held and pool.room(now):
            self._hand_over(*self._held.popleft(), now)
        self._poll(pool.accepts(now) if self.drained else pool.room(now) > 0)
        if now >= self.templates.deadline:
            self.templates.tidy(now)
            self._count_unreported()
        self._refusals.sweep(now)
        self._attend(now)
        self._publish()
        self._agenda.want(self.deadline)

    def _count_unreported(self) -> None:
        """Count the workers that are gone, and whose template is gone too: an old one does not outlive its last."""
        left = [one for one in self.templates.generations if one.stage is not Stage.GONE]
        for number, generation in list(self._unreported.items()):
            if number not in self._workers and generation not in left:
                del self._unreported[number]
                self.ledger.add(counts.WORKERS_ENDED.index(WorkerEnd.RETIRED))

    def _publish(self) -> None:
        """Put where attendants see it how the pool stands."""
        if self._removed:
            return
        self.ledger.show(Gauge.STARTING, self.pool.starting)
        self.ledger.show(Gauge.FREE_SEATS, self.pool.vacant)
        self.ledger.show(Gauge.DRAINED, self.drained)
        self.ledger.show(Gauge.STOPPING, self.pool.phase is not Phase.RUNNING)

    def turn_away(self, drained: bool) -> None:
        """Let no more clients in, or let them in again; sessions and workers stay."""
        self.drained = drained
        self._act(monotonic())

    def end_session(self, pid: int, seat: int, session: str) -> bool:
        """Have the worker with this pid end the session with this id; False: there is no such worker."""
        for worker in self._workers.values():
            if worker.pid == pid:
                with contextlib.suppress(OSError):  # it is gone, and the session with it
                    worker.channel.send(messages.EndSession(seat, session))
                return True
        return False

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

    def close(self) -> None:
        """End the templates: the service is over."""
        self.templates.close()
        self._refusals.close()
        self._poller.forget(self._channels.fileno())
        self._channels.close()

    def log_reopened(self, descriptor: int) -> None:
        """Pass the log's new descriptor on to templates and workers."""
        self.templates.log_reopened(descriptor)
        for worker in self._workers.values():
            with contextlib.suppress(OSError):  # it is gone; the end of its channel says so
                worker.channel.send(messages.LogTo(), descriptor)

    def _leave(self, end: Callable[[float], None]) -> None:
        now = monotonic()
        self.templates.give_up(now)
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
        """The worker runs. ChannelError: not under such a pid, which is none or means several processes."""
        if not 1 < pid <= PID_MOST:
            raise ChannelError(f"{pid} is no pid of a worker")
        self.ledger.add(counts.WORKERS_STARTED.at)
        if worker in self._workers:
            self._workers[worker].pid = pid
            self._unreported[worker] = self._workers[worker].generation

    def fork_failed(self, worker: int, reason: str, now: float) -> None:
        """The worker does not run, and won't. ChannelError: it does."""
        if worker in self._workers and self._workers[worker].pid:
            raise ChannelError("a worker that runs was not forked")
        self.pool.spawn_failed(worker, reason, now)
        if worker in self._workers:
            self._lose(self._workers[worker], now)
        self._act(now)

    def exited(self, worker: int, pid: int, status: int, now: float) -> None:
        """The worker is gone. ChannelError: nothing ends so."""
        if not process.is_end(status):
            raise ChannelError(f"{status} is no status that a process ends with")
        end = WorkerEnd.SIGNAL if os.WIFSIGNALED(status) else WorkerEnd.EXIT if status else WorkerEnd.RETIRED
        self.ledger.add(counts.WORKERS_ENDED.index(end))
        self._unreported.pop(worker, None)
        if status:
            log().error(f"worker {pid} ended: {process.describe_status(status)}", self.name)
        # What it had sent before is still to be read. Its channel may outlive it, in a process that its policy started.
        known = self._workers.get(worker)
        if known is not None:
            left = fdpass.QUEUED
            while left and self._hear(known, 0):
                left -= 1
            self._lose(known, now)
        self._act(now)

    # Clients.

    def _poll(self, polled: bool) -> None:
        """Look at the listeners, or leave clients in the backlog."""
        if polled == self._polled:
            return
        self._polled = polled
        for listener in self._listeners:
            if polled:
                accept = partial(self._accept, listener)
                # Workers that are ready are heard before: a seat that has just been freed spares a fork.
                knocked = partial(self._knocked, accept)
                self._poller.watch(listener.socket.fileno(), READ, knocked)
            else:
                self._poller.forget(listener.socket.fileno())

    def _knocked(self, accept: Callable[[], None], _mask: int) -> None:
        self._agenda.last.append(accept)

    def _accept(self, listener: Listener) -> None:
        """Take one client: while others wait, the next turn says so again."""
        if not self._polled or (self._held and not self.drained):  # since an event of the same turn
            return
        self._catch_up()
        now = monotonic()
        self._attention.came(now)
        if self._attends:
            self._attend(now)
        try:
            # Not accept(): of a socket that is only passed on no object is needed, which costs as much as the call.
            client, where = listener.socket._accept()  # type: ignore[attr-defined]
        except OSError as error:
            if error.errno in _NO_RESOURCES:
                self.ledger.add(counts.ACCEPT_FAILURES.at)
                limit = process.descriptor_limit()
                self.pool.accept_failed(f"{error.strerror}; this process may have {limit} descriptors", now)
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
            number, seat = pool.take(address, now)
            worker = self._workers[number]
            try:
                worker.channel.hand_over(seat, port, address, client)
            except OSError:  # it has just ended, or takes nothing any more: then the end of its channel ends it
                self._lose(worker, now)
                continue
            os.close(client)
            break
        else:
            self._held.append((client, address, port))
        self._took_note()

    def _took_note(self) -> None:
        """What the pool was told may have consequences, once all that this turn brings has been heard."""
        if self.pool.restless:
            self._agenda.hurry()
        elif not self._removed:
            self.ledger.show(Gauge.FREE_SEATS, self.pool.vacant)

    def _admit(self, worker: Worker, seat: int, address: str, now: float) -> None:
        """A proxy has named this client: let its worker know whether it may have a session."""
        admitted = self.pool.named(worker.number, seat, address)
        try:
            worker.channel.send(messages.Admit(seat) if admitted else messages.Refuse(seat))
        except OSError:
            self._lose(worker, now)

    def _refuse(self, client: int, reason: Reason, now: float) -> None:
        self.ledger.add(counts.CLIENTS_REFUSED.index(reason))
        self._refusals.tell(client, reason, self._in_clear, now)
        self._agenda.want(self._refusals.deadline)

    # Workers.

    def _catch_up(self) -> None:
        """What is decided now must not be without what workers have said, however much that is."""
        if self._attends:
            return
        left = fdpass.QUEUED
        while left and self._channels.poll(0, handlers=False):  # one message of each that has said something
            left -= 1

    def _attend(self, now: float) -> None:
        """Be woken up by what workers say, or hear it when the next client comes."""
        attends = self.pool.urgent or self._attention.at_once(now)
        if attends is not self._attends:
            self._attends = attends
            self._agenda.want(self._attention.until)
            self._poller.change(self._channels.fileno(), READ if attends else 0)

    def _hear_workers(self, _mask: int) -> None:
        self._channels.poll(0, handlers=False)

    def _hear(self, worker: Worker, _mask: int) -> bool:
        """Take one message; False where there was none."""
        if worker.number not in self._workers:  # since an event of the same turn
            return False
        now = monotonic()
        try:
            message = worker.channel.hear()
        except BlockingIOError:
            return False
        except (ChannelError, OSError) as error:
            log().error(f"worker {worker.pid} is given up: {error}", self.name)
            message = None
        try:
            heeded = message is not None and self._heed(worker, message, now)
        except Exception as fault:  # noqa: BLE001 - whatever it is, it is this worker's
            log().error(f"worker {worker.pid} is given up by a fault of the gateway: {backtrace(fault)}", self.name)
            heeded = False
        if not heeded:
            if not worker.pid:  # it was never there, or not for long: its template may have said why
                self.templates.catch_up(worker.generation)
            self._lose(worker, now)
        self._took_note()
        return True

    def _heed(self, worker: Worker, message: messages.Message, now: float) -> bool:
        """Do what follows from the message; False: no worker says so."""
        match message:
            case messages.Free(credit, seats):
                self.pool.freed(worker.number, seats, credit, now)
            case messages.Offer(credit):
                self.pool.offered(worker.number, credit)
            case messages.Client(seat, address):
                self._admit(worker, seat, address, now)
            case messages.Leaving():
                self.pool.leaving(worker.number, now)
            case _:
                return False
        return True

    def _lose(self, worker: Worker, now: float) -> None:
        """The worker is gone, or given up: then it leaves when it sees the end of its channel."""
        if self._workers.pop(worker.number, None) is None:
            return
        self._channels.forget(worker.channel.fileno())
        worker.channel.close()
        worker.generation.workers.discard(worker)
        for lost in worker.generation.board.slot(worker.slot).unfinished():
            SessionLog(lost.session, self.name).error(
                f"lost with its worker (process {worker.pid}): client={quoted(lost.client or None)}"
                f" server={quoted(lost.server or None)} user={quoted(lost.user or None)}"
                f" state={quoted(lost.state or None)} from_client={lost.from_client} to_client={lost.to_client}"
                f" seconds={max(0.0, time.time() - lost.started):.3f}"
            )
        self.ledger.fold(worker.generation.board, worker.slot, worker.generation.rows)
        self.pool.ended(worker.number, now)
        if worker.generation is not self.templates.serving and not worker.generation.workers:
            self.templates.deadline = now
            self._agenda.want(now)

    def _spawn(self, order: Order) -> None:
        now = monotonic()
        generation = self.templates.serving
        if generation is None:
            raise RuntimeError("the pool forks without a template")
        try:
            channel, end = fdpass.Channel.pair()
        except OSError as error:
            self.pool.spawn_failed(order.worker, os.strerror(error.errno or 0), now)
            return
        worker = Worker(order.worker, generation, generation.board.take(), channel)
        self._workers[worker.number] = worker
        generation.workers.add(worker)
        self._channels.watch(channel.fileno(), READ, partial(self._hear, worker))
        try:
            with end:
                generation.channel.send(messages.Fork(worker.number, worker.slot), end.fileno())
        except OSError as error:
            self.pool.spawn_failed(order.worker, os.strerror(error.errno or 0), now)
            self._lose(worker, now)

    def _tell(self, message: messages.Message, order: Order) -> None:
        worker = self._workers.get(order.worker)
        if worker is not None:
            with contextlib.suppress(OSError):  # it is gone; the end of its channel says so
                worker.channel.send(message)

    def _kill(self, order: Order) -> None:
        worker = self._workers.get(order.worker)
        if worker is None:
            return
        now = monotonic()
        if worker.pid:
            log().warning(f"worker {worker.pid} does not do what it is told and is killed", self.name)
            try:
                worker.kill()
            except OSError as error:
                log().error(f"worker {worker.pid} can't be killed ({error.strerror}) and is given up", self.name)
        else:
            log().error("the template does not fork what it is told and is killed", self.name)
            worker.generation.kill()
            self.pool.spawn_failed(worker.number, "no answer from the template", now)
        self._lose(worker, now)  # its end is not waited for: its pid may be another's
