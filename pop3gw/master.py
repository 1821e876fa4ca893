"""The master: signals, reloads and the end of the gateway. It owns the listeners and every service's ``Serving``.

It reads no client's octet, resolves no name, does no TLS and loads no policy: no client and no policy can hang or crash
it. Before all that it plays sessions whose client and server are a child of its own (``rehearsal``). What is due for a
service is done by ``serving`` as ``pool`` decides; here stands only what concerns all of them.
"""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable
from typing import Final

from pop3gw import heap, listeners, notify, process, signals, template
from pop3gw.agenda import Agenda
from pop3gw.attendance import Attendance
from pop3gw.backtrace import backtrace
from pop3gw.changes import changes
from pop3gw.doors import Doors
from pop3gw.errors import ConfigurationError, Exit, Pop3gwError, StartError
from pop3gw.ledger import Ledger
from pop3gw.listeners import Listener
from pop3gw.logs import Log
from pop3gw.pidfile import PidFile
from pop3gw.poller import ALL, READ, Poller
from pop3gw.privileges import Account
from pop3gw.rehearsal import rehearse
from pop3gw.serving import Serving
from pop3gw.settings import Applies, Config, Section, of_section
from pop3gw.stages import Stage, Trial, trial
from pop3gw.times import NEVER

monotonic: Final = time.monotonic
_SIGNALS: Final = (*process.FOR_MASTER, signal.SIGCHLD)
_ONLY_AT_START: Final = [item.key for item in of_section(Section.MAIN) if item.row.applies is Applies.RESTART]


class Master:
    """The loop of the master process."""

    def __init__(
        self,
        log: Log,
        reload: Callable[[], Config],
        ready: Callable[[], None] | None,
        tidings: notify.Tidings,
        doors: Doors,
        account: Account | None,
        pid_file: PidFile | None,
    ) -> None:
        self._log = log
        self._account = account  # the log and the control socket are its too: it stays the one of the start
        self._reload = reload
        self._ready = ready
        self._tidings = tidings
        self._pid_file = pid_file
        self._poller = Poller(ALL)
        self._agenda = Agenda()
        self._inbox = signals.Inbox(_SIGNALS)
        self._attendance = Attendance(doors, account, log, self._poller, self._agenda, self)
        self._ledgers: dict[str, Ledger] = {}  # what was counted outlives a service that goes and comes again
        self._services: dict[str, Serving] = {}
        self._drained: list[Serving] = []  # no longer configured
        self._config: Config | None = None  # what holds
        self._bound: list[Listener] = []
        self._change: tuple[Config, list[Listener]] | None = None  # what is being tried
        self._reload_wanted = False
        self._reload_failed = False  # the last one
        self._stopping = False
        self._announced = False
        self._on_signal: dict[int, Callable[[], None]] = {
            signal.SIGHUP: self._hang_up,
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._end,
            signal.SIGUSR1: self._reopen_log,
            signal.SIGCHLD: self._reap,
        }

    def run(self, config: Config, bound: list[Listener]) -> int:
        """Serve this configuration on these listeners until a signal ends it; returns the exit status.

        Raises ConfigurationError where a service can't start.
        """
        self._poller.watch(self._inbox.fileno(), READ, self._take_signals)
        # What workers will run has run here before they are forked: its pages are shared, its byte code specialized.
        rehearse(config.services[0], frozenset(listener.bound for listener in bound))
        heap.settle()
        heap.close_gaps()
        try:
            self._try(config, bound)
            while not (self._stopping and not self._all()):
                self._turn()
        finally:
            for serving in self._all():
                serving.close()
            self._attendance.close()
        self._log.info("stopped")
        return Exit.OK

    def _turn(self) -> None:
        """Wait, hear all that has happened, then decide what follows: in most turns nothing does."""
        due = self._agenda.due
        # Signals come as bytes: their handlers have nothing to do.
        self._poller.poll(None if due == NEVER else max(0.0, due - monotonic()), handlers=False)
        now = monotonic()
        if now >= self._agenda.due:
            self._carry_out(now)
        elif self._tidings.heard:
            self._tidings.turn(now, self._status)
            self._agenda.want(self._tidings.deadline)

    def _carry_out(self, now: float) -> None:
        """Do what is due."""
        self._agenda.due = NEVER
        for serving in self._all():
            if now >= serving.deadline:
                serving.carry_out(now)
        self._see_change()
        self._see_ends(now)
        if not self._announced and not self._stopping and self._config is not None:
            self._announce()
        self._tidings.turn(now, self._status)
        self._attend(now)
        for deadline in (self._tidings.deadline, self._attendance.deadline, *(one.deadline for one in self._all())):
            self._agenda.want(deadline)

    def _attend(self, now: float) -> None:
        renewed = [serving for serving in self._all() if serving.renewed]
        for serving in renewed:
            serving.renewed = False
        if renewed:
            self._attendance.renew()
        if now >= self._attendance.deadline:
            self._attendance.carry_out(now)

    # What attendants ask (attendance.Owner).

    def configured(self) -> tuple[Config, list[Listener]] | None:
        """What holds; None before anything does."""
        return None if self._config is None else (self._config, self._bound)

    def servings(self) -> tuple[list[Serving], list[Serving]]:
        """Those configured, and those that wait for their last sessions."""
        return list(self._services.values()), self._drained

    @property
    def stopping(self) -> bool:
        """Whether the gateway is being stopped."""
        return self._stopping

    def want_reload(self) -> None:
        """Reload as soon as possible."""
        self._reload_wanted = not self._stopping
        self._agenda.hurry()

    def leave(self, *, now: bool) -> None:
        """Stop the gateway, at once or when its sessions are over."""
        if now or not self._stopping:
            (self._end if now else self._stop)()

    def _status(self) -> str:
        what = f"{self._sessions()} sessions, {sum(serving.pool.workers for serving in self._all())} workers"
        if self._stopping:
            return f"stopping: {what}"
        return f"{what}; the last reload failed, the log says why" if self._reload_failed else what

    def _sessions(self) -> int:
        return sum(serving.sessions for serving in self._all())

    def _all(self) -> list[Serving]:
        return [*self._services.values(), *self._drained]

    # Signals.

    def _take_signals(self, _mask: int) -> None:
        for number in self._inbox.read():
            self._on_signal.get(number, _nothing)()

    def _reap(self) -> None:
        for pid, status in process.reap():
            for serving in self._all():
                serving.templates.ended(pid, status)
            self._attendance.ended(pid, status)

    def _hang_up(self) -> None:
        self.want_reload()

    def _reopen_log(self) -> None:
        descriptor = self._log.reopen()
        if descriptor is not None:
            for serving in self._all():
                serving.log_reopened(descriptor)
            self._attendance.renew()
            self._log.info("the log was reopened")

    def _stop(self) -> None:
        if self._stopping:
            self._end()
            return
        sessions = self._sessions()
        self._leave(Serving.stop)
        self._log.info(f"stopping: no new clients; {sessions} sessions may finish within shutdown_timeout")

    def _end(self) -> None:
        sessions = self._sessions()
        self._leave(Serving.end)
        self._log.info(f"stopping now: {sessions} sessions are ended")

    def _leave(self, how: Callable[[Serving], None]) -> None:
        if not self._stopping and self._config is not None:
            self._tidings.stopping(max(service.shutdown_timeout for service in self._config.services))
        self._stopping = True
        self._reload_wanted = False
        self._agenda.hurry()
        self._attendance.stopping()
        for serving in self._all():
            how(serving)
        held = self._bound if self._change is None else [*self._bound, *self._change[1]]
        listeners.close(held)
        self._change = None
        self._bound = []

    # A configuration is tried: listeners are bound and templates load their policies before anything else changes.

    def _try(self, config: Config, bound: list[Listener]) -> None:
        """Start what this configuration needs beside what serves. Pop3gwError: it can't hold."""
        now = monotonic()
        addresses = frozenset(listener.bound for listener in bound)
        self._change = (config, bound)
        for service in config.services:
            plan = template.Plan(config, service, self._account, addresses, self._log)
            try:
                self._serving(service.name).templates.prepare(plan, now)
            except OSError as error:
                raise StartError(
                    f"a template for {service.name} can't be started ({process.shortage(error)})"
                ) from error

    def _serving(self, service: str) -> Serving:
        """The service of that name, made where there is none. OSError: no descriptors left."""
        serving = self._services.get(service)
        if serving is None:
            ledger = self._ledgers.setdefault(service, Ledger())
            serving = self._services[service] = Serving(service, self._poller, self._agenda, ledger)
            serving.drained = self._attendance.drained(service)
        return serving

    def _start_reload(self) -> None:
        self._reload_wanted = False
        self._attendance.reload_begins()
        self._tidings.reloading(monotonic())
        try:
            config = self._reload()
            self._try(config, listeners.bind(config, self._bound))
        except Pop3gwError as error:
            self._abandon(str(error))
        except Exception as fault:  # noqa: BLE001 - a fault of ours in reading a file must not end every session
            self._abandon(f"a fault of the gateway: {backtrace(fault)}")

    def _abandon(self, reason: str) -> None:
        """Keep what holds."""
        now = monotonic()
        if self._change is not None:
            listeners.close(listeners.without(self._change[1], self._bound))
        self._change = None
        for serving in list(self._services.values()):
            serving.templates.give_up(now)
            if serving.templates.serving is None:
                del self._services[serving.name]
                serving.close()
        self._log.error(f"the configuration was not reloaded, the old one stays: {reason}")
        self._reload_failed = True
        self._tidings.reloaded()
        self._attendance.reload_ended(reason, done=False)

    def _see_change(self) -> None:
        if self._change is not None:
            self._see_outcome(*self._change)
        if self._change is None and self._reload_wanted:
            self._start_reload()

    def _see_outcome(self, config: Config, bound: list[Listener]) -> None:
        """Take the configuration that is tried once every template is ready; none of it where one has failed."""
        coming = [self._services[service.name].templates.coming for service in config.services]
        serving = [one.templates.serving for one in self._services.values()]
        outcome = trial(
            [None if one is None else one.stage for one in coming],
            [None if one is None else one.stage for one in serving],
            pressing=self._reload_wanted,
        )
        try:
            if outcome is Trial.FAILED:
                failed = [one for one in coming if one is not None and one.stage is Stage.FAILED]
                raise ConfigurationError([template.problem(one.plan, fault) for one in failed for fault in one.faults])
            if outcome is Trial.HOLDS:
                listeners.listen(config, listeners.without(bound, self._bound))
                self._commit(config, bound)
        except ConfigurationError as error:
            if self._config is None:
                raise
            self._abandon(str(error))

    def _commit(self, config: Config, bound: list[Listener]) -> None:
        """From now on this configuration holds."""
        old, self._change = self._config, None
        stays = {} if old is None else {key: getattr(old, key) for key in _ONLY_AT_START}
        self._config = dataclasses.replace(config, **stays)
        gone = listeners.without(self._bound, bound)
        fresh = listeners.without(bound, self._bound)
        self._bound = bound
        kept = {service.name for service in config.services}
        for name in [name for name in self._services if name not in kept]:
            serving = self._services.pop(name)
            serving.drain()
            self._drained.append(serving)
        for serving in self._services.values():
            serving.close_doors()  # a listener may go from one service to another
        for name, serving in self._services.items():
            serving.commit([listener for listener in bound if listener.service == name])
        listeners.close(gone)
        self._log.level = config.log_level
        for listener in gone:
            self._log.info(f"closed the listener on {listener.bound} service={listener.service}")
        for listener in fresh:
            self._log.info(f"listening on {listener.bound} service={listener.service}")
        if old is not None:
            process.title(f"pop3gw: master {config.source}")
            for key in _ONLY_AT_START:
                if getattr(old, key) != getattr(config, key):
                    self._log.warning(f"{key} was changed: that takes effect when pop3gw is restarted")
            self._log.info("the configuration was reloaded")
            self._reload_failed = False
            self._tidings.reloaded()
            self._attendance.reload_ended("\n".join(changes(old, config)), done=True)
        elif self._pid_file is not None:  # whoever waits for it may connect, or send a signal
            self._pid_file.write()

    def _announce(self) -> None:
        if all(serving.pool.settled for serving in self._services.values()):
            self._announced = True
            self._log.info("ready")
            self._tidings.ready()
            if self._ready is not None:
                self._ready()

    def _see_ends(self, now: float) -> None:
        """Let go of services whose last worker has left."""
        for serving in [one for one in self._drained if one.over(now)]:
            self._drained.remove(serving)
            serving.close(wait=self._stopping)  # else the other services would wait, too
            self._attendance.renew()
        if self._stopping:
            for serving in [one for one in self._services.values() if one.over(now)]:
                del self._services[serving.name]
                serving.close()


def _nothing() -> None:
    """A signal that means nothing here."""
