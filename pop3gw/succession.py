"""Which template of a service serves, which one is coming, and which ones only wait for their last sessions.

It starts templates, listens to them, and replaces one that has ended when ``replacement`` says; what their workers do
is ``crew``'s. A template that is started anew loads the policy anew: it is a generation like one that a reload makes.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Protocol

from pop3gw import fdpass, messages, process, template
from pop3gw.agenda import Agenda
from pop3gw.backtrace import backtrace
from pop3gw.errors import ChannelError
from pop3gw.generation import Generation
from pop3gw.logs import current as log
from pop3gw.poller import READ, Poller
from pop3gw.replacement import Replacement
from pop3gw.stages import Stage
from pop3gw.times import NEVER


class Owner(Protocol):
    """Who is told what templates report."""

    def began(self, generation: Generation, now: float) -> None:
        """This generation serves from now on."""

    def orphaned(self) -> None:
        """The template that served is gone; nothing can be forked until another one ``began``."""

    def forked(self, worker: int, pid: int) -> None:
        """The worker runs. ChannelError, here as below: no template of ours says so."""

    def fork_failed(self, worker: int, reason: str, now: float) -> None:
        """The worker does not run, and won't."""

    def exited(self, worker: int, pid: int, status: int, now: float) -> None:
        """The worker is gone."""

    def untold(self, workers: int) -> None:
        """So many workers are gone, and their template has not said how they ended, and will not."""


class Succession:
    """The templates of one service. Call ``tidy()`` at ``deadline`` at the latest."""

    def __init__(self, service: str, poller: Poller, agenda: Agenda, owner: Owner) -> None:
        self.serving: Generation | None = None
        self.coming: Generation | None = None
        self.deadline = NEVER
        self._service = service
        self._poller = poller
        self._agenda = agenda
        self._owner = owner
        self._older: list[Generation] = []
        self._replacement = Replacement()
        self._catching_up = False
        self._missed: set[int] = set()  # templates that have left, and it is not known how

    def prepare(self, plan: template.Plan, now: float) -> None:
        """Start a template that may become the one that serves. OSError: it can't be started."""
        self._drop_coming()
        self.coming = Generation.start(plan, now)
        self._poller.watch(self.coming.channel.fileno(), READ, partial(self._hear, self.coming))
        self.deadline = min(self.deadline, self.coming.due)
        self._agenda.want(self.deadline)

    def give_up(self, now: float) -> None:
        """Forget the coming generation; the one that serves goes on."""
        self._drop_coming()
        if self.serving is not None and self.serving.stage is Stage.GONE:
            self._replacement.wanted(now)
            self.deadline = now
            self._agenda.hurry()

    def leave(self) -> None:
        """Workers may finish, and none comes after them: a template that ends has no successor."""
        self._drop_coming()
        self._replacement.leave()

    def commit(self, now: float) -> None:
        """The coming generation serves from now on. It must be ready."""
        generation = self.coming
        if generation is None or generation.stage is not Stage.READY:
            raise RuntimeError("no generation is ready")
        if self.serving is not None:
            self._older.append(self.serving)
            self.deadline = now
        self.serving, self.coming = generation, None
        self._replacement.settled()
        self._owner.began(generation, now)

    def tidy(self, now: float) -> None:
        """Do what is due, and see when something will be."""
        for generation in [old for old in self._older if old.over(now)]:
            self._older.remove(generation)
            self._close(generation)
            self._count_untold(generation)
        if self.serving is not None and self.serving.stage is Stage.GONE and self.serving.over(now):
            self._count_untold(self.serving)
        coming = self.coming
        if coming is not None and coming.stage is Stage.LOADING and now >= coming.due:
            coming.faults.append(template.too_slow(coming.plan))
            self._failed(coming, now)
        if now >= self._replacement.at and self.serving is not None:
            self._replace(self.serving.plan, now)
        loading = self.coming is not None and self.coming.stage is Stage.LOADING
        self.deadline = min(self._replacement.at, self.coming.due if self.coming is not None and loading else NEVER)
        for generation in self._older:
            self.deadline = min(self.deadline, generation.heard_until)

    def lost_worker(self, generation: Generation, now: float) -> None:
        """A worker of this generation is gone: where it was the last of one that forks no more, that one is over."""
        forks_no_more = generation is not self.serving or generation.stage is Stage.GONE
        if forks_no_more and not generation.workers:
            self.deadline = now
            self._agenda.want(now)

    def log_reopened(self, descriptor: int) -> None:
        """Pass the log's new descriptor on."""
        for generation in self._all():
            try:
                generation.channel.send(messages.LogTo(), descriptor)
            except OSError:
                log().warning(f"template {generation.pid} could not be told that the log was reopened", self._service)

    def catch_up(self, generation: Generation) -> None:
        """Take all that this template has said so far."""
        if self._catching_up:  # what it has said led here: the call before goes on
            return
        self._catching_up = True
        left = fdpass.QUEUED  # one that never stops is heard with all the others again
        while left and self._hear(generation, 0):
            left -= 1
        self._catching_up = False

    def ended(self, pid: int, status: int) -> None:
        """A child of the master has ended: say so where it was a template that is missed.

        The end of its channel may come first, even its successor; or never: a child of the policy's module may hold it.
        """
        serving = self.serving
        if serving is not None and serving.pid == pid and serving.stage is Stage.READY:
            self.catch_up(serving)
            if serving.stage is Stage.READY:
                self._gone(serving, time.monotonic())
        if pid in self._missed:
            self._missed.remove(pid)
            how = process.describe_status(status)
            rest = "sessions go on" if self._replacement.needless else "sessions go on, another is started"
            log().error(f"the template (process {pid}) ended: {how}; {rest}", self._service)

    def close(self, *, wait: bool = True) -> None:
        """End every template; ``wait``: until they are gone, while nobody else is served."""
        for generation in self._all():
            self._close(generation)
            if wait:
                process.wait_for(generation.pid, template.FAREWELL + 1.0)
        for generation in self.generations:
            self._count_untold(generation)
        self.serving = self.coming = None
        self._older.clear()
        self._replacement.leave()
        self.deadline = NEVER

    def _count_untold(self, generation: Generation) -> None:
        """Its template will not say any more how these workers ended."""
        self._owner.untold(len(generation.unreported))
        generation.unreported.clear()

    def over(self, now: float) -> bool:
        """Whether it was said of every worker how it ended, or that is no longer waited for; else see ``deadline``."""
        generations = self.generations
        over = [one.over(now) for one in generations]
        self.deadline = min([self.deadline, *(one.heard_until for one in generations)])
        return all(over)

    @property
    def generations(self) -> list[Generation]:
        """Those that may have workers."""
        return [*self._older, *([] if self.serving is None else [self.serving])]

    def _all(self) -> list[Generation]:
        candidates = (self.serving, self.coming, *self._older)
        return [one for one in candidates if one is not None and one.stage in (Stage.LOADING, Stage.READY)]

    def _hear(self, generation: Generation, _mask: int) -> bool:
        """Take one message; False where there was none. Whatever it says, the master looks at it in this turn."""
        self._agenda.hurry()
        if generation.channel.fileno() < 0:  # closed since, by an event of the same turn
            return False
        now = time.monotonic()
        try:
            message = generation.channel.hear(fdpass.RECORD_LIMIT)
        except BlockingIOError:
            return False
        except (ChannelError, OSError) as error:
            self._renounce(generation, str(error), now)
            return True
        if message is None:
            self._lost(generation, template.ended(generation.plan), now)
            return True
        try:
            self._heed(generation, message, now)
        except ChannelError as wrong:
            self._renounce(generation, str(wrong), now)
        except Exception as fault:  # noqa: BLE001 - whatever it is, it is this template's
            self._renounce(generation, f"a fault of the gateway: {backtrace(fault)}", now)
        return True

    def _heed(self, generation: Generation, message: messages.Message, now: float) -> None:
        """Do what follows from the message. ChannelError: no template says so, or not now."""
        loading = generation.stage is Stage.LOADING
        match message:
            case messages.Prepared(callbacks) if loading:
                generation.callbacks = tuple(callbacks.split())
                generation.stage = Stage.READY
                generation.ready_at = now
                if self._replacement.comes:
                    self.commit(now)
            case messages.Fault() if loading and len(generation.faults) < messages.FAULTS_LIMIT:
                generation.faults.append(message)
            case messages.Failed() if loading and generation.faults:
                self._failed(generation, now)
            case messages.Forked(worker, pid) if generation is not self.coming:
                self._owner.forked(worker, pid)
            case messages.ForkFailed(worker, reason) if generation is not self.coming:
                self._owner.fork_failed(worker, reason, now)
            case messages.Exited(worker, pid, status) if generation is not self.coming:
                self._owner.exited(worker, pid, status, now)
                generation.unreported.discard(worker)
                if self._older:
                    self.deadline = now
            case _:
                raise ChannelError(f"{type(message).__name__} is no message of a template now")

    def _renounce(self, generation: Generation, reason: str, now: float) -> None:
        """Go on without a template that has said what none of ours says; only what its policy does can be why."""
        log().error(f"template {generation.pid} is given up and killed: {reason}", self._service)
        generation.kill()
        if generation.channel.fileno() >= 0:
            self._lost(generation, template.misspoken(generation.plan), now)

    def _lost(self, generation: Generation, fault: messages.Fault, now: float) -> None:
        if generation is self.coming:
            generation.faults.append(fault)
            self._failed(generation, now)
        else:
            self._gone(generation, now)

    def _failed(self, generation: Generation, now: float) -> None:
        """It can't serve, for its faults."""
        self._close(generation)
        generation.stage = Stage.FAILED
        if self._replacement.comes:
            self._drop_coming()
            self._try_later("\n".join(fault.found for fault in generation.faults), now)

    def _gone(self, generation: Generation, now: float) -> None:
        self._close(generation)
        generation.stage = Stage.GONE
        if generation is self.serving:
            self._missed.add(generation.pid)
            self.deadline = now
            self._owner.orphaned()
            self._replacement.gone(now - generation.ready_at, now, awaited=self.coming is not None)

    def _replace(self, plan: template.Plan, now: float) -> None:
        try:
            self.prepare(plan, now)
            self._replacement.started()
        except OSError as error:
            self._try_later(f"it can't be forked: {process.shortage(error)}", now)

    def _try_later(self, reason: str, now: float) -> None:
        wait = self._replacement.failed(now)
        self.deadline = min(self.deadline, self._replacement.at)
        log().error(f"there is no new template, the next try is in {wait:.1f} s: {reason}", self._service)

    def _drop_coming(self) -> None:
        if self.coming is not None:
            self._close(self.coming)
        self.coming = None
        self._replacement.comes = False

    def _close(self, generation: Generation) -> None:
        if generation.channel.fileno() >= 0:
            self._poller.forget(generation.channel.fileno())
            generation.close()
