"""What the master does for its attendants: shows them the gateway, and does what they are asked to have done.

It keeps them running and decides on their requests with the master's own means. It never waits for them, and hears
nothing of a user of theirs but the records of ``fdpass``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Final, Protocol

from pop3gw import attendant, messages, process
from pop3gw.agenda import Agenda
from pop3gw.attendant import Asker, Attendant
from pop3gw.backtrace import backtrace
from pop3gw.doors import Doors
from pop3gw.draining import Draining
from pop3gw.ledger import Ledger
from pop3gw.listeners import Listener
from pop3gw.logs import Log
from pop3gw.messages import Message
from pop3gw.poller import Poller
from pop3gw.privileges import Account
from pop3gw.proto import counts
from pop3gw.serving import Serving
from pop3gw.settings import Config
from pop3gw.times import NEVER
from pop3gw.view import Overview, Watched

_STOPPING: Final = "the gateway is being stopped"


class Owner(Protocol):
    """The master, as far as attendants reach."""

    def configured(self) -> tuple[Config, Sequence[Listener]] | None:
        """What holds; None before anything does."""

    def servings(self) -> tuple[Sequence[Serving], Sequence[Serving]]:
        """Those configured, and those that wait for their last sessions."""

    @property
    def stopping(self) -> bool:
        """Whether the gateway is being stopped."""

    def want_reload(self) -> None:
        """Reload as soon as possible."""

    def leave(self, *, now: bool) -> None:
        """Stop the gateway, at once or when its sessions are over."""


class Attendance:
    """All attendants. Call ``carry_out()`` at ``deadline`` at the latest."""

    def __init__(
        self,
        doors: Doors,
        account: Account | None,
        log: Log,
        poller: Poller,
        agenda: Agenda,
        owner: Owner,
    ) -> None:
        self._began, self._since = time.time(), time.monotonic()
        self._gateway = Ledger()
        self._log = log
        self._owner = owner
        self._asked_reload: list[tuple[Asker, int]] = []  # answered by the next reload
        self._await_reload: list[tuple[Asker, int]] = []  # answered by the one that is under way
        self._reloaded = ""  # what to answer them, once whoever asks next sees it
        self._draining = Draining()
        kinds = (("control", attendant.control(account), doors.control), ("metrics", attendant.metrics, doors.metrics))
        self._attendants = [
            Attendant(name, make, door, account=account, log=log, poller=poller, agenda=agenda, hear=self._hear)
            for name, make, door in kinds
            if door is not None
        ]

    @property
    def deadline(self) -> float:
        """When something is due."""
        return min((one.deadline for one in self._attendants), default=NEVER)

    def carry_out(self, now: float) -> None:
        """Do what is due."""
        for one in self._attendants:
            one.carry_out(now, self._overview)
        if self._reloaded:
            self._answer_reload(self._await_reload, self._reloaded, done=True)
            self._reloaded = ""

    def renew(self) -> None:
        """There is more to see than attendants know."""
        for one in self._attendants:
            one.renew()

    def drained(self, service: str) -> bool:
        """Whether a service of this name begins drained: that holds until resume, whatever a reload brings."""
        return self._draining.holds(service)

    def ended(self, pid: int, status: int) -> None:
        """A child of the master has ended."""
        for one in self._attendants:
            one.ended(pid, status)

    def close(self) -> None:
        """End them all."""
        for one in self._attendants:
            one.close()

    # Reloads.

    def reload_begins(self) -> None:
        """Whoever has asked so far is answered by this one."""
        self._await_reload += self._asked_reload
        self._asked_reload.clear()

    def reload_ended(self, text: str, *, done: bool) -> None:
        """The configuration holds, or it does not; the text says what has changed, or why nothing has."""
        self._gateway.add(counts.RELOADS.index("ok" if done else "failed"))
        if done:
            self._reloaded = text
            self.renew()
        else:
            self._answer_reload(self._await_reload, text, done=False)

    def stopping(self) -> None:
        """There will be no more reloads."""
        self._answer_reload(self._await_reload, _STOPPING, done=False)
        self._answer_reload(self._asked_reload, _STOPPING, done=False)

    def _answer_reload(self, askers: list[tuple[Asker, int]], text: str, *, done: bool) -> None:
        for asker, token in askers:
            asker.tell(token, text, done=done)
        askers.clear()

    # Requests.

    def _hear(self, asker: Asker, message: Message) -> None:
        try:
            self._heed(asker, message)
        except Exception as fault:  # noqa: BLE001 - whatever it is, it is this process's
            self._log.error(f"process {asker.pid} is killed by a fault of the gateway: {backtrace(fault)}")
            process.kill(asker.pid)  # the end of its channel says so

    def _heed(self, asker: Asker, message: Message) -> None:
        match message:
            case messages.Kill(token, pid, seat, session):
                found = any(serving.end_session(pid, seat, session) for serving in self._all())
                asker.tell(token, "" if found else "its worker has just ended, and the session with it", done=found)
            case messages.Drain(token) | messages.Reload(token) if self._owner.stopping:
                asker.tell(token, _STOPPING, done=False)
            case messages.Drain(token, on, service):
                self._drain(asker, token, service, bool(on))
            case messages.Reload(token):
                self._owner.want_reload()
                self._asked_reload.append((asker, token))
            case messages.Stop(token, now):
                sessions = sum(serving.sessions for serving in self._all())
                what = "are ended now" if now else "may finish within shutdown_timeout"
                self._owner.leave(now=bool(now))
                asker.tell(token, f"stopping; {sessions} sessions {what}", done=True)
            case _:
                self._log.error(f"{type(message).__name__} is no message of an attendant")

    def _drain(self, asker: Asker, token: int, service: str, on: bool) -> None:
        servings = self._owner.servings()[0]
        wanted = [serving for serving in servings if service in ("", serving.name)]
        if not wanted:
            names = ", ".join(serving.name for serving in servings)
            asker.tell(token, f"there is no service {service}; the services are: {names}", done=False)
            return
        self._draining.say(service, on, [serving.name for serving in servings])
        for serving in wanted:
            serving.turn_away(on)
        said = [
            f"{serving.name}: new clients are turned away, {serving.sessions} sessions go on"
            if on
            else f"{serving.name}: new clients are let in"
            for serving in wanted
        ]
        asker.tell(token, "\n".join(said), done=True)

    # What attendants see.

    def _all(self) -> list[Serving]:
        now, gone = self._owner.servings()
        return [*now, *gone]

    def _overview(self) -> Overview:
        holds = self._owner.configured()
        now, gone = self._owner.servings()
        known = {serving.name for serving in now}
        watched = [self._watched(serving, gone, holds[1] if holds else (), configured=True) for serving in now]
        watched += [self._watched(serving, gone, (), configured=False) for serving in gone if serving.name not in known]
        source = holds[0].source if holds else ""
        return Overview(source, os.getpid(), self._began, self._since, self._gateway, tuple(filter(None, watched)))

    def _watched(
        self, serving: Serving, gone: Sequence[Serving], bound: Sequence[Listener], *, configured: bool
    ) -> Watched | None:
        if serving.templates.serving is None:  # its first template is not ready
            return None
        service = serving.templates.serving.plan.service
        generations = [
            generation
            for one in {serving, *(other for other in gone if other.name == serving.name)}
            for generation in one.templates.generations
        ]
        return Watched(
            name=service.name,
            policy=str(service.policy),
            server=str(service.server),
            listen=tuple(str(listener.bound) for listener in bound if listener.service == service.name),
            max_workers=service.max_workers,
            configured=configured,
            ledger=serving.ledger,
            boards=tuple((generation.board, generation.rows) for generation in generations),
        )
