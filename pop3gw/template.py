"""The template of one service: reads its TLS keys while it may, loads its policy as the unprivileged account, once.

Then it only forks workers from itself. So a policy is read once a generation, every worker of it runs exactly that
code, and shares its memory. The template does what the master asks (``messages.Fork``) and reports what became of it.
It leaves when its channel ends; it serves no session and it starts nothing by itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from pop3gw import fdpass, heap, loading, messages, privileges, process, signals, uncaught, worker
from pop3gw.backtrace import backtrace
from pop3gw.distrust import Distrust
from pop3gw.errors import ChannelError, Exit, Pop3gwError, Problem, TlsError, TlsSettingError
from pop3gw.logs import Log
from pop3gw.poller import READ, Poller
from pop3gw.privileges import Account
from pop3gw.rehearsal import rehearse
from pop3gw.relay import Relay, Terms
from pop3gw.scoreboard import Board
from pop3gw.settings import Config, Service
from pop3gw.stream import Connection
from pop3gw.values import Address, Tls

if TYPE_CHECKING:
    from pop3gw.tls import Contexts

FAREWELL: Final = 1.0  # s that a template whose master has left waits for workers that are leaving too
_NOT_FOR_WORKERS: Final = tuple(number for number in process.FOR_MASTER if number != signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a template is made from."""

    config: Config
    service: Service
    account: Account | None  # whom to become; None: nobody else
    listeners: frozenset[Address]  # of the whole gateway, as bound
    log: Log | None = None  # None: only to check the policy


def start(plan: Plan, board: Board, end: socket.socket) -> int:
    """Fork a template that talks over this end of a channel; returns its pid. OSError: it can't be forked."""
    keep = [end.fileno(), *([] if plan.log is None else plan.log.descriptors())]
    return process.fork(lambda: _main(plan, board, end), keep, process.FOR_MASTER)


def too_slow(plan: Plan) -> messages.Fault:
    """What to say of a policy that was not loaded within ``loading.LOAD_LIMIT``."""
    said = f"{plan.service.policy} did not finish loading within {loading.LOAD_LIMIT:g} s"
    return messages.Fault("policy", "", f"{said}; what does it wait for, imported or in config()?")


def ended(plan: Plan) -> messages.Fault:
    """What to say of a template that ended without a word."""
    said = f"{plan.service.policy} ended the process that loaded it"
    return messages.Fault(
        "policy", "", f"{said}; imported, it must neither crash nor leave by os._exit, nor close descriptors of others"
    )


def misspoken(plan: Plan) -> messages.Fault:
    """What to say of a template that said what none of ours says."""
    said = f"{plan.service.policy} wrote to the gateway's own channel in the process that loaded it"
    return messages.Fault("policy", "", f"{said}; imported, it must use no descriptor but its own")


def problem(plan: Plan, fault: messages.Fault | messages.Doubt) -> Problem:
    """What a template said as a fault of the configuration."""
    return plan.config.problem(plan.service.name, fault.key, fault.found, fault.expected)


def check(config: Config) -> tuple[list[Problem], list[Problem]]:
    """Read every service's keys and load its policy as a template would, each in a process.

    Returns what is wrong, and what is doubtful, of which a gateway that runs only warns. StartError: the account of the
    workers is not there, or can't be used.
    """
    account = privileges.find_account(config.user, config.group)
    problems, doubts = list[Problem](), list[Problem]()
    for service in config.services:
        plan = Plan(config, service, account, frozenset())
        for told in _check(plan):
            (problems if isinstance(told, messages.Fault) else doubts).append(problem(plan, told))
    return problems, doubts


def _check(plan: Plan) -> list[messages.Fault | messages.Doubt]:
    channel, end = fdpass.Channel.pair()
    with end:
        pid = start(plan, Board(1, 1), end)
    until = time.monotonic() + loading.LOAD_LIMIT
    told: list[messages.Fault | messages.Doubt] = []
    try:
        answer = select.poll()
        answer.register(channel, select.POLLIN)
        while answer.poll(max(0.0, until - time.monotonic()) * 1000):
            try:
                message = channel.hear(fdpass.RECORD_LIMIT)
            except ChannelError:
                return [*told, misspoken(plan)]
            if message is None:
                return [*told, ended(plan)]
            if not isinstance(message, messages.Fault | messages.Doubt):
                return told
            if sum(isinstance(one, type(message)) for one in told) < messages.FAULTS_LIMIT:
                told.append(message)
            elif isinstance(message, messages.Fault):  # of doubts there may be more
                return [*told, misspoken(plan)]
        return [*told, too_slow(plan)]
    finally:
        channel.close()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _main(plan: Plan, board: Board, end: socket.socket) -> int:
    channel = fdpass.Channel(end, waits=True)
    process.title(f"pop3gw: template [{plan.service.name}]")
    process.give_way_no_more()
    process.leave_terminal()
    if plan.log is not None:
        plan.log.separate()
    terms, opened = None, frozenset[int]()
    try:
        try:
            terms, opened = _prepare(plan, channel)
        except Pop3gwError as error:
            channel.send(messages.Fault("policy", "", str(error)))
        except BaseException as fault:  # noqa: BLE001 - whatever the code of a policy raises, the master must hear of it
            channel.send(messages.Fault("policy", "", backtrace(fault)))
        channel.send(messages.Failed() if terms is None else messages.Prepared(" ".join(terms.callbacks)))
    except OSError:  # the master was stopped meanwhile
        return 1
    if terms is None:
        return 1
    if plan.log is not None:
        duty = worker.Duty(plan.service, plan.log, partial(Relay, terms), worker.affordable(len(opened)))
        Template(board, duty, channel, opened).run()
    return 0


def _prepare(plan: Plan, channel: fdpass.Channel) -> tuple[Terms | None, frozenset[int]]:
    """All that sessions share, and the descriptors that the policy has opened while it was loaded.

    None where TLS can't be used, which was told. What else is wrong is raised.

    Keys may be readable by root alone: they are read before privileges are dropped.
    """
    tls, usable = None, True
    doubts: tuple[TlsSettingError, ...] = ()
    try:
        tls = _contexts(plan.service)
        doubts = () if tls is None else tls.doubts
    except TlsError as error:  # told at once: the policy may end this process
        usable, doubts = False, error.doubts
        for fault in error.faults[: messages.FAULTS_LIMIT - 1]:  # and one more, of the policy
            channel.send(messages.Fault(fault.key, fault.expected, fault.found))
    for doubt in doubts:
        _doubt(plan, channel, doubt.key, doubt.found, doubt.expected)
    privileges.drop_privileges(plan.account)
    process.forbid_dumps()
    os.umask(process.UMASK)
    if plan.log is not None:
        plan.log.level = plan.config.log_level
        if tls is not None and tls.client is not None:
            rehearse(plan.service, plan.listeners, tls)
    uncaught.to_log(plan.service.name)
    distrust = None if plan.account is None else Distrust.of(plan.account)
    before, this = process.descriptors(), os.getpid()
    try:
        policy = loading.load_policy(
            plan.service.policy,
            plan.config.policy_path,
            distrust=distrust,
            doubt=None
            if plan.log is not None
            else lambda found, expected: _doubt(plan, channel, "policy", found, expected),
        )
    finally:
        if os.getpid() != this:  # a child that the policy has forked would go on as a second template
            os._exit(Exit.FAILED)
    opened = process.descriptors() - before
    if policy.tls_required is True and plan.service.tls is Tls.OFF:
        found = f"{plan.service.policy} demands TLS (tls_required) where there is none"
        # No fault: config() may say otherwise of sessions that it knows by their address.
        _doubt(plan, channel, "tls", found, "another tls, or another policy: nobody can log in")
    return Terms.of(plan.service, policy, plan.listeners, tls) if usable else None, opened


def _doubt(plan: Plan, channel: fdpass.Channel, key: str, found: str, expected: str) -> None:
    doubt = messages.Doubt(key, expected, found)
    if plan.log is None:
        channel.send(doubt)
    else:
        plan.log.warning(str(problem(plan, doubt)), plan.service.name)


def _contexts(service: Service) -> Contexts | None:
    if service.tls is Tls.OFF and service.server_tls is Tls.OFF:
        return None
    from pop3gw import tls  # ``ssl`` is loaded only where a service uses it

    contexts = tls.contexts(service)
    contexts.warm_up()
    return contexts


class Template:
    """The loop of a template that has loaded its policy."""

    def __init__(
        self, board: Board, duty: worker.Duty, channel: fdpass.Channel, opened: frozenset[int] = frozenset()
    ) -> None:
        """``opened``: the policy's descriptors. Its objects have their numbers, which must be no session's."""
        self._opened = opened
        self._board = board
        self._duty = duty
        self._channel = channel
        self._workers: dict[int, int] = {}  # pid -> the master's number for it
        self._left_alone = False

    def run(self) -> None:
        """Fork workers until the master closes the channel."""
        inbox = signals.Inbox((signal.SIGCHLD,))
        heap.settle()
        with contextlib.closing(Poller()) as poller:
            poller.watch(self._channel.fileno(), READ, self._hear)
            poller.watch(inbox.fileno(), READ, lambda _events: self._reap(inbox))
            while not self._left_alone:
                poller.poll(None, handlers=False)  # signals come as bytes
            poller.forget(self._channel.fileno())
            self._see_off(poller)

    def _see_off(self, poller: Poller) -> None:
        """Reap the workers that are just leaving, so that none outlives the gateway as a zombie."""
        ends = time.monotonic() + FAREWELL
        while self._workers and (left := ends - time.monotonic()) > 0:
            poller.poll(left, handlers=False)

    # What is done from here on is done between forks: each page that it writes to is then one that the newest worker
    # does not share. So it goes the ways that workers go, too, and no others where it can.

    def _hear(self, _events: int) -> None:
        """Do what the master asks, or note that it is gone."""
        try:
            received = self._channel.receive()
        except BlockingIOError:
            return
        match received:
            case None:
                self._left_alone = True
            case messages.Fork(number, slot), descriptor:
                self._fork(number, slot, descriptor)
            case messages.LogTo(), descriptor:
                self._duty.log.adopt(descriptor)
            case message, _:
                raise ChannelError(f"{type(message).__name__} is no message to a template")

    def _fork(self, number: int, slot: int, end: int) -> None:
        try:
            pid = process.fork(
                lambda: worker.main(self._duty, Connection(fileno=end), self._board.slot(slot)),
                [end, *self._duty.log.descriptors(), *self._opened],
                _NOT_FOR_WORKERS,
            )
        except OSError as error:
            # Said before the worker's channel ends: the master then knows why it does.
            self._tell(messages.ForkFailed(number, process.shortage(error)))
            return
        finally:
            os.close(end)
        self._workers[pid] = number
        self._tell(messages.Forked(number, pid))

    def _reap(self, inbox: signals.Inbox) -> None:
        inbox.read()
        for pid, status in process.reap():
            number = self._workers.pop(pid, None)
            if number is not None:  # else it is a process that the policy's module has started
                self._tell(messages.Exited(number, pid, status))

    def _tell(self, message: messages.Message) -> None:
        try:  # noqa: SIM105 - contextlib would be one more page
            self._channel.send(message)
        except OSError:  # the master is gone; the end of the channel says so to the loop
            pass
