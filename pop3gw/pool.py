"""Every decision about the processes of one service: when to fork, retire, hand over, refuse, pause and back off.

Pure: no clock (``now`` is seconds, monotonic), no process, no descriptor. ``serving`` and ``crew`` tell what happened
and carry out the orders that come back. The unit is a *seat*: a worker has ``sessions_per_worker`` of them, and its
*credit* says how many sessions it takes now, which may be fewer than its free seats: one that is wedged collects no
clients. Workers of an older generation take no more sessions: against ``max_workers`` they count as the workers that
their remaining sessions would fill. The workers and the sums over them are in ``seating``; what is decided by less than
these is in ``spares``, ``respawn``, ``patience``, ``congestion`` and ``closing``.

In the steady state ``orders()`` has nothing to say: each event compares the free seats with bounds that the last
``orders()`` has set, and makes the pool ``restless`` only beyond them.

Known limits: which worker gets a session is decided by order alone (the one freed last where a worker has one seat, so
that few processes stay warm; where it has many in turn, among as many workers as can run at once, since more would
only wake each other up), not by load.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from pop3gw.clientele import Clientele
from pop3gw.closing import Closing, Phase
from pop3gw.congestion import Congestion
from pop3gw.orders import Act, Order
from pop3gw.patience import LEAVE_LIMIT, START_LIMIT, Patience
from pop3gw.respawn import Failure, Respawn
from pop3gw.seating import Seating, State, Worker
from pop3gw.settings import Service
from pop3gw.spares import NO_BOUND, Spares
from pop3gw.times import NEVER

STALL: Final = 1.0  # s without credit, after which free seats count as lost to whatever holds their workers
TALKATIVE: Final = 32  # seats that may be said to be free one by one while nobody listens
ACCEPT_PAUSE: Final = 1.0  # s without accepting, after the system refused a descriptor


class Pool:
    """The workers of one service, of every generation that still runs.

    Report what happened, then carry out ``orders()``, again at ``deadline`` at the latest. Before ``take()``, ask
    ``room()``. ``jitter`` gives floats in [0, 1), so that workers born together aren't replaced together;
    ``processors``: how many workers can run at once; ``affordable``: sessions that a worker has descriptors for.
    """

    # More attributes than an instance may have without slots before each access is a search in a dictionary.
    __slots__ = (
        "_calm_from",
        "_calm_to",
        "_clientele",
        "_closing",
        "_congestion",
        "_dry_since",
        "_dry_spell",
        "_failed_at",
        "_forks",
        "_jitter",
        "_patience",
        "_pause_reported",
        "_paused_until",
        "_processors",
        "_reports",
        "_respawn",
        "_retired",
        "_rules",
        "_seating",
        "_spares",
        "_talk",
        "_waiting",
        "deadline",
        "restless",
    )

    def __init__(self, jitter: Callable[[], float], processors: int = 1, affordable: int = NO_BOUND) -> None:
        self.deadline = NEVER
        self.restless = True  # whether ``orders()`` may have something to say before its deadline
        self._jitter = jitter
        self._processors = processors
        self._rules: Service | None = None  # None until the first template is ready
        self._forks = False  # whether there is a template to fork from
        self._seating = Seating()
        self._clientele = Clientele()
        self._closing = Closing()
        self._congestion = Congestion(affordable)
        self._dry_since = NEVER  # since when there is no credit
        self._dry_spell = 0  # how often that was over
        self._talk = False  # whether workers are to be heard at once, whatever they may say
        self._waiting = 0  # clients that are known to wait while there is none
        self._spares = Spares(0, 0, 1)
        # While free seats are between these there is nothing to fork or to retire.
        self._calm_from = 0
        self._calm_to = -1
        self._respawn = Respawn()
        self._failed_at = NO_BOUND  # the last worker asked for when one failed: younger ones may show that it works
        self._paused_until = -NEVER
        self._pause_reported = False
        self._patience = Patience()
        self._retired: list[int] = []  # those that don't know yet that they shall leave
        self._reports: list[str] = []

    # What the pool is asked.

    def accepts(self, now: float) -> bool:
        """Whether connections may be accepted now, be it to turn them away."""
        return self.phase is Phase.RUNNING and now >= self._paused_until

    def room(self, now: float) -> int:
        """How many sessions may be handed over now; 0: only clients that are turned away are to be accepted."""
        return self._seating.credit if now >= self._paused_until else 0  # a pool that closes has no credit

    @property
    def phase(self) -> Phase:
        """How far the pool's end is."""
        return self._closing.phase

    @property
    def dry(self) -> bool:
        """Whether clients have to wait since no worker can take one: then ``waiting()`` wants to know how many do."""
        return not self._seating.credit and self.phase is Phase.RUNNING

    @property
    def urgent(self) -> bool:
        """Whether what a worker says may matter at once, and not only to the next client."""
        seating = self._seating
        return (
            not seating.credit
            or seating.starting > 0
            or seating.older > 0
            or self.phase is not Phase.RUNNING
            or self._talk
        )

    @property
    def settled(self) -> bool:
        """Whether a template serves and the spare workers that the settings ask for are there."""
        rules = self._rules
        if rules is None or not self._forks:
            return False
        return self._seating.serving >= rules.max_workers or self.spare >= rules.min_spare

    @property
    def sessions(self) -> int:
        """Sessions that were handed over and aren't over."""
        return self._clientele.sessions

    @property
    def workers(self) -> int:
        """Workers of every state, not yet seen to end."""
        return len(self._seating.workers)

    @property
    def starting(self) -> int:
        """Workers that have not offered themselves yet."""
        return self._seating.starting

    @property
    def vacant(self) -> int:
        """Free seats of the workers that take sessions."""
        return self._seating.vacant

    @property
    def spare(self) -> int:
        """Workers that have room: as many as the free seats need, since sessions fill one worker after another."""
        return self._spares.workers(self.vacant)

    # What happened.

    def waiting(self, clients: int) -> None:
        """So many clients wait in the backlog now."""
        self._waiting = clients

    def begin(self, rules: Service, now: float) -> None:
        """A template is ready: from now on workers come from it, and those of its predecessor leave."""
        for worker in self._seating.workers.values():
            self._leave(worker, now)
        self._seating.grow_old()
        self._rules = rules
        self._spares = Spares(rules.min_spare, rules.max_spare, rules.sessions_per_worker)
        self._forks = True
        self._closing.timeout = rules.shutdown_timeout
        # Where clients are counted, workers ask for them, and say at once of each that it is over: one whose channel is
        # full of that would stand still until it is heard.
        many = rules.sessions_per_worker > TALKATIVE
        self._talk = bool(rules.max_sessions_per_client) and (many or bool(rules.proxy_protocol_from))
        self._respawn = Respawn()
        self._failed_at = NO_BOUND
        self._clientele.begin(rules.max_sessions_per_client, behind_proxy=bool(rules.proxy_protocol_from))
        self._congestion.begin(rules.max_workers, rules.sessions_per_worker)
        self.restless = True

    def suspend(self) -> None:
        """The template is gone: the workers that there are serve on, no more can be forked."""
        self._forks = False
        self.restless = True

    def offered(self, number: int, credit: int) -> None:
        """The worker takes that many sessions more than it said before."""
        worker = self._seating.workers.get(number)
        if worker is not None and credit > 0:
            self._trust(worker, credit)

    def freed(self, number: int, seats: tuple[int, ...], credit: int, now: float) -> None:
        """The sessions at these seats of the worker are over, and it takes that many more than it said before."""
        worker = self._seating.workers.get(number)
        if worker is None:
            return
        seating = self._seating
        for seat in seats:
            if (client := seating.vacate(worker, seat)) is not None:
                self._clientele.leave(client)
                if worker.old:
                    self.restless = True  # there may be room for one of the new generation
        if worker.state is State.LEAVING:
            if not worker.clients:
                self._patience.expect(worker.number, now + LEAVE_LIMIT)
                self.restless = True
        elif seating.vacant > self._calm_to or not seating.credit:
            self.restless = True
        if number > self._failed_at:
            self._worked(served=True)
        if credit > 0:
            self._trust(worker, credit)

    def _trust(self, worker: Worker, credit: int) -> None:
        fresh, dry = worker.state is State.STARTING, not self._seating.credit
        if not self._seating.trust(worker, credit):
            return
        if fresh:
            self._patience.expect(worker.number, NEVER)
            self.restless = True
            if worker.number > self._failed_at:
                self._worked(served=False)
        if dry:  # clients may be waiting
            self._dry_since = NEVER
            self._dry_spell += 1
            self.restless = True

    def leaving(self, number: int, now: float) -> None:
        """The worker wants no more sessions."""
        worker = self._seating.workers.get(number)
        if worker is not None:
            self._leave(worker, now)

    def ended(self, number: int, now: float) -> None:
        """The worker is gone, whatever the reason; so are its sessions."""
        worker = self._seating.workers.get(number)
        if worker is None:
            return
        if worker.state is not State.LEAVING and not worker.served:
            self._failed(Failure.UNSERVED, now)
        self._leave(worker, now)
        for client in worker.clients.values():
            self._clientele.leave(client)
        self._forget(worker)

    def spawn_failed(self, number: int, reason: str, now: float) -> None:
        """The worker could not be forked."""
        worker = self._seating.workers.get(number)
        if worker is None:
            return
        self._failed(Failure.FORK, now, reason)
        self._leave(worker, now)
        self._forget(worker)

    def accept_failed(self, reason: str, now: float) -> None:
        """The system has no descriptor or memory for another connection: leave clients in the backlog for a while."""
        self._paused_until = now + ACCEPT_PAUSE
        if not self._pause_reported:
            self._pause_reported = True
            self._reports.append(
                f"connections can't be accepted ({reason}); clients wait, the next try is in {ACCEPT_PAUSE:g} s"
            )
        self.restless = True

    # Hand-over.

    def admits(self, address: str) -> bool:
        """Whether who connects from there may have another session (``max_sessions_per_client``).

        Behind a proxy that is not known yet: its worker will ask (``named``).
        """
        return self._clientele.admits(address)

    def named(self, number: int, seat: int, address: str) -> bool:
        """The client at that seat of the worker is this one: whether it may have another session, counted if so."""
        worker = self._seating.workers.get(number)
        if worker is None or seat not in worker.clients:
            return False
        client = self._clientele.named(worker.clients[seat], address)
        if client is None:
            return False
        worker.clients[seat] = client
        return True

    def take(self, address: str, now: float) -> tuple[int, int]:
        """Choose the worker and its seat for the connection from that address.

        Only where ``room()`` is left, else LookupError.
        """
        seating = self._seating
        worker, seat = seating.take(self._processors)
        worker.clients[seat] = self._clientele.come(address)
        if not seating.credit:
            self._dry_since = now
            self.restless = True
        elif seating.vacant < self._calm_from:
            self.restless = True
        self._pause_reported = False
        if worker.served >= worker.limit:
            self._leave(worker, now)
        return worker.number, seat

    # The end.

    def drain(self, now: float) -> None:
        """The service is no longer configured: its sessions may finish, however long they take."""
        self._closing.drain()
        self._dismiss(now)

    def stop(self, now: float) -> None:
        """Let sessions finish within ``shutdown_timeout``."""
        self._closing.stop(now)
        self._dismiss(now)

    def end(self, now: float) -> None:
        """End every session at once."""
        self._closing.end(now)
        self._dismiss(now)

    @property
    def over(self) -> bool:
        """Whether the pool was told to stop and no worker is left."""
        return self.phase is not Phase.RUNNING and not self._seating.workers

    # Orders.

    def orders(self, now: float) -> Sequence[Order]:
        """What is to be done now, each thing once."""
        if not self.restless and now < self.deadline:
            return ()
        self.deadline = NEVER
        orders: list[Order] = []
        if self.phase is not Phase.RUNNING:
            self._advance_end(now, orders)
        elif self._rules is not None:
            rules = self._rules
            self._retire_surplus(now)
            if self._forks:
                self._spawn(rules, now, orders)
            self._report_full(rules, now)
        orders += [Order(Act.KILL, number) for number in self._patience.overdue(now)]
        self._wake(self._patience.until)
        if self._retired:
            orders += [Order(Act.RETIRE, number) for number in self._retired if number in self._seating.workers]
            self._retired.clear()
        if self._reports:
            orders += [Order(Act.REPORT, text=text) for text in self._reports]
            self._reports.clear()
        if now < self._paused_until:
            self._wake(self._paused_until)
        self.restless = False
        return orders

    def _advance_end(self, now: float, orders: list[Order]) -> None:
        acts, report = self._closing.advance(now, self.sessions)
        orders += [Order(act, number) for act in acts for number in self._seating.workers]
        if report:
            self._reports.append(report)
        self._wake(self._closing.until)

    def _retire_surplus(self, now: float) -> None:
        spares = self._spares
        if surplus := spares.surplus(self.vacant, now):
            idle = self._seating.idle(surplus)
            for worker in idle:
                self._leave(worker, now)
            spares.leave(len(idle), now)
        self._calm_from, self._calm_to = spares.calm
        self._wake(spares.until)

    def _spawn(self, rules: Service, now: float, orders: list[Order]) -> None:
        free = self.vacant
        waiting = self._waiting if self.dry else 0
        if free and self.dry:
            if now < self._dry_since + STALL:
                self._wake(self._dry_since + STALL)
            else:
                free = 0
        room = rules.max_workers - self._seating.taken(rules.sessions_per_worker)
        short = min(self._spares.short(free, self.starting, waiting), room)
        if short > 0 and now < self._respawn.until:
            self._wake(self._respawn.until)
            return
        if room > 0:
            self._calm_from = max(self._calm_from, self._spares.enough(self.starting + max(short, 0)))
        for _ in range(short):
            orders.append(Order(Act.SPAWN, self._engage(rules, now)))

    def _engage(self, rules: Service, now: float) -> int:
        worker = self._seating.engage(rules.sessions_per_worker, rules.max_sessions, self._jitter())
        self._patience.expect(worker.number, now + START_LIMIT)
        return worker.number

    def _report_full(self, rules: Service, now: float) -> None:
        seating = self._seating
        if seating.credit or seating.starting or seating.taken(rules.sessions_per_worker) < rules.max_workers:
            return
        # Workers with free seats may have credit in a moment.
        due = self._congestion.due(self._dry_spell, self._dry_since + STALL if seating.vacant else -NEVER)
        if now < due:
            self._wake(due)
        else:
            self._reports.append(self._congestion.report(self._dry_spell, now))

    # Bookkeeping.

    def _leave(self, worker: Worker, now: float) -> None:
        self.restless = True
        if worker.state is State.LEAVING:
            return
        had = self._seating.credit
        self._seating.leave(worker)
        if had and not self._seating.credit:
            self._dry_since = now
        self._retired.append(worker.number)
        self._patience.expect(worker.number, NEVER if worker.clients else now + LEAVE_LIMIT)

    def _forget(self, worker: Worker) -> None:
        self._seating.forget(worker)
        self._patience.forget(worker.number)

    def _dismiss(self, now: float) -> None:
        for worker in self._seating.workers.values():
            self._leave(worker, now)
        self.restless = True

    def _failed(self, what: Failure, now: float, reason: str = "") -> None:
        self._failed_at = self._seating.last
        if report := self._respawn.failed(what, now, reason):
            self._reports.append(f"{report}; new clients wait" if self.dry else report)

    def _worked(self, *, served: bool) -> None:
        if self._respawn.worked(served=served):
            self._failed_at = NO_BOUND

    def _wake(self, at: float) -> None:
        if at < self.deadline:
            self.deadline = at
