"""Attendants: processes beside the mail that tell how things are, one for pop3gwctl and one for the metrics.

The master forks each with an ``Overview`` of the memory that it shares with the workers, and forks it anew when there
is more to see: after a reload, or when it has died. The old one leaves once it has given its last answers. An attendant
has the workers' privileges, one listening socket, and a channel on which it may ask the master to do something.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from pop3gw import privileges, process
from pop3gw.agenda import Agenda
from pop3gw.answering import Answering, Responder
from pop3gw.backoff import Backoff
from pop3gw.backtrace import backtrace
from pop3gw.errors import ChannelError, StartError
from pop3gw.fdpass import RECORD_LIMIT, Channel
from pop3gw.logs import Log
from pop3gw.messages import Message, Outcome, Retire
from pop3gw.poller import READ, Poller
from pop3gw.privileges import Account
from pop3gw.times import NEVER
from pop3gw.view import Overview

_LEAVE_LIMIT: Final = 120.0  # s: a reload that an old one's guest waits for is long over then
_CLOSE_LIMIT: Final = 3.0  # s that the master's end waits for last answers

Make = Callable[[Overview, Channel], Responder]
Hear = Callable[["Asker", Message], None]


def control(account: Account | None) -> Make:
    """What answers pop3gwctl."""
    uid, gid = os.geteuid(), os.getegid() if account is None else account.gid

    def make(overview: Overview, channel: Channel) -> Responder:
        from pop3gw.control import Control

        return Control(overview, channel, uid, gid, None if account is None else account.uid)

    return make


def metrics(overview: Overview, _channel: Channel) -> Responder:
    """What answers Prometheus."""
    from pop3gw.metrics import Metrics

    return Metrics(overview)


@dataclass(slots=True, eq=False)
class Asker:
    """One process: the master's side of it."""

    pid: int
    channel: Channel
    due: float = NEVER  # when it must be gone

    def tell(self, token: int, text: str, *, done: bool) -> None:
        """Say what became of a request."""
        with contextlib.suppress(OSError):  # it is gone, and with it who asked
            self.channel.send(Outcome(token, int(done), text))


class Attendant:
    """One kind of attendant, kept running. Call ``carry_out()`` at ``deadline`` at the latest."""

    def __init__(
        self,
        name: str,
        make: Make,
        listener: socket.socket,
        *,
        account: Account | None,
        log: Log,
        poller: Poller,
        agenda: Agenda,
        hear: Hear,
    ) -> None:
        self._renew_at = NEVER
        self._name = name
        self._make = make
        self._listener = listener
        self._account = account
        self._log = log
        self._poller = poller
        self._agenda = agenda
        self._pass_on = hear
        self._current: Asker | None = None
        self._leaving: list[Asker] = []
        self._backoff = Backoff()
        self._missed: set[int] = set()  # pids of those that have left unasked, and it is not known how

    @property
    def deadline(self) -> float:
        """When something is due, on the clock of time.monotonic()."""
        return min([self._renew_at, *(asker.due for asker in self._leaving)])

    def renew(self) -> None:
        """There is more to see: another one takes over, at the next ``carry_out()``."""
        self._renew_at = min(self._renew_at, max(time.monotonic(), self._backoff.until))
        self._agenda.want(self._renew_at)

    def carry_out(self, now: float, overview: Callable[[], Overview]) -> None:
        """Fork one where one is wanted, and end those that should be gone."""
        for asker in [one for one in self._leaving if one.due <= now]:
            self._forget(asker)
            process.kill(asker.pid)
        if now < self._renew_at:
            return
        self._renew_at = NEVER
        old, self._current = self._current, None
        try:
            self._current = self._fork(overview())
        except OSError as error:
            self._current = old
            self._backoff.failed(now)
            self._log.error(f"the {self._name} process can't be forked: {process.shortage(error)}")
            self.renew()
            return
        if old is not None:
            old.due = now + _LEAVE_LIMIT
            self._leaving.append(old)
            with contextlib.suppress(OSError):
                old.channel.send(Retire())

    def ended(self, pid: int, status: int) -> None:
        """A child of the master has ended: say so where it was one that nobody has told to leave."""
        if pid in self._missed or (self._current is not None and self._current.pid == pid):
            self._missed.discard(pid)
            how = process.describe_status(status)
            self._log.error(f"the {self._name} process (process {pid}) ended: {how}; another is started")

    def close(self) -> None:
        """End them all; their last answers may still be taken."""
        askers = [*self._leaving, *([] if self._current is None else [self._current])]
        self._current = None
        for asker in askers:
            self._forget(asker)
        until = time.monotonic() + _CLOSE_LIMIT
        for asker in askers:
            process.wait_for(asker.pid, max(0.0, until - time.monotonic()))

    def _fork(self, overview: Overview) -> Asker:
        channel, end = Channel.pair()
        keep = [end.fileno(), self._listener.fileno(), *self._log.descriptors()]
        try:
            with end:
                pid = process.fork(lambda: self._main(overview, end), keep, process.FOR_MASTER)
        except OSError:
            channel.close()
            raise
        asker = Asker(pid, channel)
        self._poller.watch(channel.fileno(), READ, partial(self._hear, asker))
        return asker

    def _main(self, overview: Overview, end: socket.socket) -> int:
        process.title(f"pop3gw: {self._name}")
        channel = Channel(end, waits=False)
        process.leave_terminal()
        try:
            privileges.drop_privileges(self._account)
            process.forbid_dumps()
            os.umask(process.UMASK)
            Answering(self._make(overview, channel), self._listener, channel).run()
        except StartError as error:
            self._log.error(f"the {self._name} process can't run: {error}")
            return 1
        except Exception as fault:  # noqa: BLE001 - the last place where it can be said
            self._log.error(f"the {self._name} process ends by a fault of the gateway: {backtrace(fault)}")
            return 1
        return 0

    def _hear(self, asker: Asker, _mask: int) -> None:
        if asker.channel.fileno() < 0:  # closed since, by an event of the same turn
            return
        try:
            message = asker.channel.hear(RECORD_LIMIT)
        except BlockingIOError:
            return
        except (ChannelError, OSError):
            message = None
        if message is not None:
            self._pass_on(asker, message)
            return
        self._forget(asker)
        if asker is self._current:
            self._current = None
            if process.is_child(asker.pid):  # not reaped yet
                self._missed.add(asker.pid)
            self._backoff.failed(time.monotonic())
            self.renew()

    def _forget(self, asker: Asker) -> None:
        if asker in self._leaving:
            self._leaving.remove(asker)
        self._poller.forget(asker.channel.fileno())
        asker.channel.close()
