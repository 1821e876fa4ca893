"""The workers of one service, seen from the master: their channels, what they say, and what they are told.

The effects are here, the decisions in ``pool``, which hears all of it. Nothing that a worker does may raise out of it;
what a template reports of one may (ChannelError), where no template of ours would say so.

Known limit: a connection that was handed to a worker which is killed before it looked is lost with that worker.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from pop3gw import fdpass, messages, process
from pop3gw.agenda import Agenda
from pop3gw.attention import Attention
from pop3gw.backtrace import backtrace
from pop3gw.errors import ChannelError
from pop3gw.generation import Worker
from pop3gw.ledger import Ledger
from pop3gw.logline import quoted
from pop3gw.logs import SessionLog
from pop3gw.logs import current as log
from pop3gw.orders import Act, Order
from pop3gw.poller import READ, Poller
from pop3gw.pool import TALKATIVE, Pool
from pop3gw.proto import counts
from pop3gw.proto.counts import WorkerEnd
from pop3gw.scoreboard import PID_MOST
from pop3gw.succession import Succession
from pop3gw.times import NEVER

monotonic: Final = time.monotonic  # compiled, a constant is found faster than what was imported

# Messages of a worker that are heard before a client is let in: all that one may say of clients that are counted
# (pool.TALKATIVE), and few enough that one that never stops talking delays nobody.
_HEARD: Final = 2 * TALKATIVE


class Crew:
    """Every worker of the service, of all generations. ``noted()`` is called when some have been heard.

    OSError: the system has no descriptor for another service.
    """

    def __init__(
        self,
        name: str,
        pool: Pool,
        templates: Succession,
        ledger: Ledger,
        poller: Poller,
        agenda: Agenda,
        noted: Callable[[], None],
    ) -> None:
        self._name = name
        self._pool = pool
        self._templates = templates
        self._ledger = ledger
        self._poller = poller
        self._agenda = agenda
        self._noted = noted
        self._do: dict[Act, Callable[[int], None]] = {
            Act.SPAWN: self._spawn,
            Act.RETIRE: partial(self._tell, messages.Retire()),
            Act.END: partial(self._tell, messages.End()),
            Act.KILL: self._kill,
        }
        self._workers: dict[int, Worker] = {}
        self._attention = Attention()
        self._attends = True  # what workers say ends the master's wait
        self._channels = Poller()
        poller.watch(self._channels.fileno(), READ, self._said)

    @property
    def deadline(self) -> float:
        """When ``attend()`` is wanted, on the clock of time.monotonic()."""
        return NEVER if self._attends else self._attention.until

    def client_comes(self) -> float:
        """A client is to be let in: hear what workers have said before, a seat just freed spares a fork.

        Returns the time. ``noted()`` is not called: whoever lets the client in has more to note.
        """
        self._hear_all(_HEARD)
        now = monotonic()
        self._attention.came(now)
        if self._attends:
            self.attend(now)
        return now

    def catch_up(self) -> None:
        """What is decided now must not be without what workers have said."""
        if not self._attends and self._hear_all(fdpass.QUEUED):
            self._noted()

    def _hear_all(self, most: int) -> bool:
        """Hear what workers have said, up to so many messages of each; False: nothing."""
        left = most
        while left and self._channels.poll(0, handlers=False):  # one message of each that has said something
            left -= 1
        return left < most

    def attend(self, now: float) -> None:
        """Let what workers say end the master's wait, or not, as it is wanted now."""
        attends = self._pool.urgent or self._attention.at_once(now)
        if attends is not self._attends:
            self._attends = attends
            self._agenda.want(self.deadline)
            self._poller.change(self._channels.fileno(), READ if attends else 0)

    def close(self) -> None:
        """Hear nobody any more."""
        self._poller.forget(self._channels.fileno())
        self._channels.close()

    # What they are told.

    def hand_over(self, worker: int, seat: int, port: int, address: str, client: int) -> bool:
        """Give the worker a client's connection; False: it is gone."""
        known = self._workers[worker]
        try:
            known.channel.hand_over(seat, port, address, client)
        except OSError:  # it has just ended, or takes nothing any more: then the end of its channel ends it
            self._lose(known, monotonic())
            return False
        return True

    def obey(self, order: Order) -> None:
        """Do with one worker what the pool has decided."""
        self._do[order.act](order.worker)

    def end_session(self, pid: int, seat: int, session: str) -> bool:
        """Have the worker with this pid end the session with this id; False: there is no such worker."""
        for worker in self._workers.values():
            if worker.pid == pid:
                self._tell(messages.EndSession(seat, session), worker.number)
                return True
        return False

    def log_reopened(self, descriptor: int) -> None:
        """Pass the log's new descriptor on."""
        for worker in self._workers.values():
            with contextlib.suppress(OSError):  # it is gone; the end of its channel says so
                worker.channel.send(messages.LogTo(), descriptor)

    def _tell(self, message: messages.Message, number: int) -> None:
        worker = self._workers.get(number)
        if worker is not None:
            with contextlib.suppress(OSError):  # as above
                worker.channel.send(message)

    def _spawn(self, number: int) -> None:
        now = monotonic()
        generation = self._templates.serving
        if generation is None:
            raise RuntimeError("the pool forks without a template")
        try:
            channel, end = self._new_channel(number)
        except OSError as error:
            self._pool.spawn_failed(number, process.shortage(error), now)
            return
        worker = Worker(number, generation, generation.board.take(), channel)
        self._workers[number] = worker
        generation.workers.add(worker)
        try:
            with end:
                generation.channel.send(messages.Fork(worker.number, worker.slot), end.fileno())
        except OSError as error:
            self._pool.spawn_failed(number, process.shortage(error), now)
            self._lose(worker, now)

    def _new_channel(self, number: int) -> tuple[fdpass.Channel, socket.socket]:
        """Our end, which is heard, and that of the worker with this number. OSError: the system has no room for it."""
        channel, end = fdpass.Channel.pair()
        try:
            self._channels.watch(channel.fileno(), READ, partial(self._hear, number))
        except OSError:
            channel.close()
            end.close()
            raise
        return channel, end

    def _kill(self, number: int) -> None:
        worker = self._workers.get(number)
        if worker is None:
            return
        now = monotonic()
        if worker.pid:
            log().warning(f"worker {worker.pid} does not do what it is told and is killed", self._name)
            try:
                worker.kill()
            except OSError as error:
                log().error(f"worker {worker.pid} can't be killed ({error.strerror}) and is given up", self._name)
        else:
            log().error("the template does not fork what it is told and is killed", self._name)
            worker.generation.kill()
            self._pool.spawn_failed(worker.number, "no answer from the template", now)
        self._lose(worker, now)  # its end is not waited for: its pid may be another's

    # What templates say of them.

    def forked(self, worker: int, pid: int) -> None:
        """The worker runs. ChannelError: not under such a pid, which is none or means several processes."""
        if not 1 < pid <= PID_MOST:
            raise ChannelError(f"{pid} is no pid of a worker")
        self._ledger.add(counts.WORKERS_STARTED.at)
        if worker in self._workers:
            self._workers[worker].pid = pid
            self._workers[worker].generation.unreported.add(worker)

    def fork_failed(self, worker: int, reason: str, now: float) -> None:
        """The worker does not run, and won't. ChannelError: it does."""
        if worker in self._workers and self._workers[worker].pid:
            raise ChannelError("a worker that runs was not forked")
        self._pool.spawn_failed(worker, reason, now)
        if worker in self._workers:
            self._lose(self._workers[worker], now)

    def exited(self, worker: int, pid: int, status: int, now: float) -> None:
        """The worker is gone. ChannelError: nothing ends so."""
        if not process.is_end(status):
            raise ChannelError(f"{status} is no status that a process ends with")
        end = WorkerEnd.SIGNAL if os.WIFSIGNALED(status) else WorkerEnd.EXIT if status else WorkerEnd.RETIRED
        self._ledger.add(counts.WORKERS_ENDED.index(end))
        if status:
            log().error(f"worker {pid} ended: {process.describe_status(status)}", self._name)
        # What it had sent before is still to be read. Its channel may outlive it, in a process that its policy started.
        known = self._workers.get(worker)
        if known is not None:
            left = fdpass.QUEUED
            while left and self._hear(worker, 0):
                left -= 1
            self._lose(known, now)

    def untold(self, workers: int) -> None:
        """So many are gone, and their template too, which has not said how they ended."""
        self._ledger.add(counts.WORKERS_ENDED.index(WorkerEnd.RETIRED), workers)

    # What they say.

    def _said(self, _mask: int) -> None:
        self._channels.poll(0, handlers=False)
        self._noted()

    def _hear(self, number: int, _mask: int) -> bool:
        """Take one message; False where there was none."""
        worker = self._workers.get(number)
        if worker is None:  # since an event of the same turn
            return False
        now = monotonic()
        try:
            message = worker.channel.hear()
        except BlockingIOError:
            return False
        except (ChannelError, OSError) as error:
            log().error(f"worker {worker.pid} is given up: {error}", self._name)
            message = None
        try:
            heeded = message is not None and self._heed(worker, message, now)
        except Exception as fault:  # noqa: BLE001 - whatever it is, it is this worker's
            log().error(f"worker {worker.pid} is given up by a fault of the gateway: {backtrace(fault)}", self._name)
            heeded = False
        if not heeded:
            if not worker.pid:  # it was never there, or not for long: its template may have said why
                self._templates.catch_up(worker.generation)
            self._lose(worker, now)
        return True

    def _heed(self, worker: Worker, message: messages.Message, now: float) -> bool:
        """Do what follows from the message; False: no worker says so."""
        if isinstance(message, messages.Free):  # mostly
            self._pool.freed(worker.number, message.seats, message.credit, now)
            return True
        match message:
            case messages.Offer(credit):
                self._pool.offered(worker.number, credit)
            case messages.Client(seat, address):
                self._admit(worker, seat, address, now)
            case messages.Leaving():
                self._pool.leaving(worker.number, now)
            case _:
                return False
        return True

    def _admit(self, worker: Worker, seat: int, address: str, now: float) -> None:
        """A proxy has named this client: let its worker know whether it may have a session."""
        admitted = self._pool.named(worker.number, seat, address)
        try:
            worker.channel.send(messages.Admit(seat) if admitted else messages.Refuse(seat))
        except OSError:
            self._lose(worker, now)

    def _lose(self, worker: Worker, now: float) -> None:
        """The worker is gone, or given up: then it leaves when it sees the end of its channel."""
        if self._workers.pop(worker.number, None) is None:
            return
        self._channels.forget(worker.channel.fileno())
        worker.channel.close()
        worker.generation.workers.discard(worker)
        for lost in worker.generation.board.slot(worker.slot).unfinished():
            SessionLog(lost.session, self._name).error(
                f"lost with its worker (process {worker.pid}): client={quoted(lost.client or None)}"
                f" server={quoted(lost.server or None)} user={quoted(lost.user or None)}"
                f" state={quoted(lost.state or None)} from_client={lost.from_client} to_client={lost.to_client}"
                f" seconds={max(0.0, monotonic() - lost.started):.3f}"
            )
        self._ledger.fold(worker.generation.board, worker.slot, worker.generation.rows)
        self._pool.ended(worker.number, now)
        self._templates.lost_worker(worker.generation, now)
