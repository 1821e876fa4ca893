"""The master's side of one template and of its workers: processes, channels, scoreboard, and how far they are.

A generation is a service with one configuration and one loaded policy. Values and their ends only: ``succession``
listens to templates, ``crew`` to workers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pop3gw import loading, process, template
from pop3gw.fdpass import Channel
from pop3gw.messages import Fault
from pop3gw.scoreboard import Board
from pop3gw.stages import Stage
from pop3gw.times import NEVER

REPORT_LIMIT: Final = 1.0  # s in which a template says how the last of its workers ended


@dataclass(slots=True, eq=False)
class Worker:
    """The master's side of one worker."""

    number: int
    generation: Generation
    slot: int
    channel: Channel
    pid: int = 0  # 0: not yet forked; else what its template has said, where the policy's code runs

    def kill(self) -> None:
        """Kill it, or whatever else its account may kill. OSError: there is no process to do that in."""
        process.kill_as(self.generation.plan.account, self.pid)


@dataclass(slots=True, eq=False)
class Generation:
    """One template, and the board of its workers."""

    plan: template.Plan
    board: Board
    channel: Channel
    pid: int
    due: float  # when the policy must be loaded
    ready_at: float = 0.0
    stage: Stage = Stage.LOADING
    faults: list[Fault] = field(default_factory=list)  # why it can't serve
    callbacks: tuple[str, ...] = ()  # whose failures its workers count, in the order of their counters
    rows: tuple[int, ...] = ()  # the service's ledger has them there
    workers: set[Worker] = field(default_factory=set)
    unreported: set[int] = field(default_factory=set)  # workers that it has forked and not said how they ended
    heard_until: float = NEVER  # when that is no longer waited for, once no worker is left

    @classmethod
    def start(cls, plan: template.Plan, now: float) -> Generation:
        """Fork a template. OSError: no process, descriptor or memory for it."""
        board = Board(plan.service.max_workers, plan.service.sessions_per_worker)
        channel, end = Channel.pair()
        try:
            with end:
                pid = template.start(plan, board, end)
        except OSError:
            channel.close()
            raise
        return cls(plan, board, channel, pid, now + loading.LOAD_LIMIT)

    def over(self, now: float) -> bool:
        """Whether no worker is left and it was said how each ended; one that was given up is not waited for long.

        That wait, until ``heard_until``, begins when this is asked first and no worker is left.
        """
        if self.workers:
            return False
        if self.heard_until == NEVER:
            self.heard_until = now + REPORT_LIMIT
        return not self.unreported or self.stage is Stage.GONE or now >= self.heard_until

    def kill(self) -> None:
        """Kill the template; the end of its channel will say so."""
        process.kill(self.pid)

    def close(self) -> None:
        """End the template. Nothing is lost: it only forks, and its workers have channels of their own.

        One that serves leaves by itself, once it has seen its last workers off; another may be stuck in a policy, and
        so may one that has not said how they ended.
        """
        self.channel.close()
        if self.stage is not Stage.READY or (self.unreported and not self.workers):
            self.kill()
