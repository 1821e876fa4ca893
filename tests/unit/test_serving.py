"""Serving: what templates and workers that mean harm report, over real channels and without their processes."""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from pop3gw import fdpass, listeners, messages, process, template
from pop3gw.agenda import Agenda
from pop3gw.attention import BRISK
from pop3gw.generation import REPORT_LIMIT
from pop3gw.ledger import Ledger
from pop3gw.listeners import Listener
from pop3gw.orders import Act, Order
from pop3gw.poller import Poller
from pop3gw.pool import TALKATIVE, Pool
from pop3gw.proto import counts
from pop3gw.proto.counts import WorkerEnd
from pop3gw.respawn import QUIET
from pop3gw.serving import Serving
from pop3gw.settings import Config, Service
from pop3gw.stages import Stage
from pop3gw.times import NEVER
from pop3gw.values import Address

pytestmark = pytest.mark.interpreted

NO_PROCESS = 1 << 30  # beyond any pid
PID = 4711
SEATS = 20


class Gateway:
    """A service whose template and workers are the test."""

    def __init__(self, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        self.killed: list[int] = []
        self.now = 100.0
        self._stack = stack
        self.poller = stack.enter_context(closing(Poller()))
        self.agenda = Agenda()
        self.ledger = Ledger()
        for module in ("serving", "crew"):
            monkeypatch.setattr(f"pop3gw.{module}.monotonic", lambda: self.now)
        self.serving = Serving("inbound", self.poller, self.agenda, self.ledger)
        service = Service(
            name="inbound",
            listen=(),
            server=Address("192.0.2.1", 110),
            min_spare=1,
            max_spare=1,
            max_workers=2,
            sessions_per_worker=SEATS,
        )
        self.front = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.address = self.front.getsockname()
        where = Address(*self.address)
        monkeypatch.setattr(template, "start", self._start)
        monkeypatch.setattr(process, "kill_as", lambda _account, pid: self.killed.append(pid))
        self._plan = template.Plan(Config(source="test.conf"), service, None, frozenset())
        self.serving.templates.prepare(self._plan, self.now)
        self._closed = False
        stack.callback(self.close)
        self.template.send(messages.Prepared("other"))
        self.hear()
        self.serving.commit([Listener("inbound", where, where, self.front)])
        fork, end = self.template.receive() or (None, -1)
        assert isinstance(fork, messages.Fork)
        self.worker = fdpass.Channel(stack.enter_context(socket.socket(fileno=end)), waits=True)
        self.number, self.slot = fork

    def _start(self, _plan: template.Plan, _board: object, end: socket.socket) -> int:
        self.template = fdpass.Channel(self._stack.enter_context(end.dup()), waits=True)
        return NO_PROCESS

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.serving.close(wait=False)

    def hear(self) -> None:
        self.poller.poll(0)
        self.serving.carry_out(self.now)

    def wakes_up(self) -> bool:
        """A turn of the master, where something ends its wait at once."""
        return self.poller.poll(0) > 0

    def renew(self) -> None:
        """A reload: another template serves."""
        where = Address(*self.address)
        self.serving.templates.prepare(self._plan, self.now)
        self.template.send(messages.Prepared("other"))
        self.hear()
        self.serving.commit([Listener("inbound", where, where, self.front)])

    def offer(self) -> None:
        self.told(messages.Forked(self.number, PID))
        self.worker.send(messages.Offer(SEATS))
        self.hear()

    def connect(self) -> int:
        """A client comes; returns its seat."""
        with socket.create_connection(self.address):
            assert self.wakes_up()
        message, client = self.worker.receive() or (None, -1)
        os.close(client)
        assert isinstance(message, messages.Serve)
        return message.seat

    def told(self, message: messages.Message) -> None:
        self.template.send(message)
        self.hear()


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    with ExitStack() as stack:
        yield Gateway(stack, monkeypatch)


@pytest.mark.parametrize("pid", [-1, 0, 1, -PID, 1 << 31, 1 << 62])
def test_a_pid_that_is_no_workers_ends_its_template(
    gateway: Gateway, capfd: pytest.CaptureFixture[str], pid: int
) -> None:
    gateway.told(messages.Forked(gateway.number, pid))
    assert f"given up and killed: {pid} is no pid of a worker" in capfd.readouterr().err
    gateway.serving._crew.obey(Order(Act.KILL, gateway.number))
    assert gateway.killed == []


def test_a_worker_that_is_killed_is_not_waited_for(gateway: Gateway) -> None:
    gateway.told(messages.Forked(gateway.number, PID))
    gateway.serving._crew.obey(Order(Act.KILL, gateway.number))
    assert gateway.killed == [PID]
    assert gateway.serving.pool.workers == 0


def test_a_worker_that_can_not_be_killed_is_given_up(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(_account: object, _pid: int) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(process, "kill_as", full)
    gateway.told(messages.Forked(gateway.number, PID))
    gateway.serving._crew.obey(Order(Act.KILL, gateway.number))
    assert f"worker {PID} can't be killed (Resource temporarily unavailable)" in capfd.readouterr().err
    assert gateway.serving.pool.workers == 0


@pytest.mark.parametrize("status", [127, 65407, 100, 1 << 40, -9])
def test_an_end_that_is_none_ends_its_template(
    gateway: Gateway, capfd: pytest.CaptureFixture[str], status: int
) -> None:
    gateway.told(messages.Forked(gateway.number, PID))
    gateway.told(messages.Exited(gateway.number, PID, status))
    assert f"given up and killed: {status} is no status that a process ends with" in capfd.readouterr().err


def test_a_worker_that_runs_was_forked(gateway: Gateway, capfd: pytest.CaptureFixture[str]) -> None:
    gateway.told(messages.Forked(gateway.number, PID))
    gateway.told(messages.ForkFailed(gateway.number, "no"))
    assert "given up and killed: a worker that runs was not forked" in capfd.readouterr().err


def test_a_worker_whose_channel_can_not_be_heard_is_not_forked_and_tried_again_later(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    gateway.offer()
    gateway.serving.exited(gateway.number, PID, 0, gateway.now)
    descriptors = process.descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(Poller, "watch", full)
        gateway.now += QUIET + 1
        gateway.hear()
    assert "No space left on device" in capfd.readouterr().err
    assert process.descriptors() == descriptors
    gateway.now += QUIET + 1
    gateway.hear()
    fork, end = gateway.template.receive() or (None, -1)
    os.close(end)
    assert isinstance(fork, messages.Fork)
    assert fork.worker > gateway.number


def test_a_worker_that_makes_the_master_raise_is_given_up(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def faulty(*_: object) -> None:
        raise KeyError("whatever")

    monkeypatch.setattr(Pool, "offered", faulty)
    gateway.told(messages.Forked(gateway.number, PID))
    gateway.worker.send(messages.Offer(1))
    gateway.hear()
    said = capfd.readouterr().err
    assert f"worker {PID} is given up by a fault of the gateway: Traceback" in said
    assert "KeyError: 'whatever'" in said
    assert gateway.ledger.totals([])[0][counts.WORKERS_STARTED.at] == 1


def test_a_worker_that_never_stops_talking_ends_when_its_template_says_so(gateway: Gateway) -> None:
    gateway.told(messages.Forked(gateway.number, PID))
    ended = threading.Event()

    def talk() -> None:
        with suppress(OSError):
            while not ended.is_set():
                gateway.worker.send(messages.Offer(0))

    talking = threading.Thread(target=talk)
    talking.start()
    try:
        gateway.serving.exited(gateway.number, PID, 9, gateway.now)
        assert gateway.number not in gateway.serving._crew._workers
    finally:
        ended.set()
        talking.join()


def test_ends_that_are_told_again_and_again_do_not_pile_up(gateway: Gateway, capfd: pytest.CaptureFixture[str]) -> None:
    gateway.worker.close()
    for _ in range(250):
        gateway.template.send(messages.Exited(gateway.number, PID, 0))
    gateway.hear()
    assert "given up" not in capfd.readouterr().err


def test_sessions_that_are_lost_are_logged_in_a_line_each(gateway: Gateway, capfd: pytest.CaptureFixture[str]) -> None:
    gateway.told(messages.Forked(gateway.number, PID))
    generation = gateway.serving.templates.serving
    assert generation is not None
    seat = generation.board.slot(gateway.slot).seats[0]
    seat.open("192.0.2.7 end=quit", 110, "3f2a\nforged")
    seat.stand("a b", 'x" y')
    gateway.told(messages.Exited(gateway.number, PID, 9))
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "lost with its worker" in line]
    assert 'inbound 3f2a\\nforged: lost with its worker (process 4711): client="192.0.2.7 end=quit:110"' in line
    assert r'user="x\" y" state="a b"' in line


def test_what_a_worker_says_of_a_lonely_client_is_heard_at_once(gateway: Gateway) -> None:
    gateway.offer()
    gateway.worker.send(messages.Free(1, (gateway.connect(),)))
    assert gateway.wakes_up()
    assert gateway.serving.pool.sessions == 0


def test_while_clients_follow_one_another_workers_are_heard_when_the_next_one_comes(gateway: Gateway) -> None:
    gateway.offer()
    seats = [gateway.connect(), gateway.connect()]
    for _ in range(3):
        gateway.worker.send(messages.Free(1, (seats.pop(0),)))
        assert not gateway.wakes_up()
        assert gateway.serving.pool.sessions == 2
        seats.append(gateway.connect())
        assert gateway.serving.pool.sessions == 2


def test_workers_are_heard_when_no_client_comes_any_more(gateway: Gateway) -> None:
    gateway.offer()
    gateway.agenda.due = NEVER
    seats = [gateway.connect(), gateway.connect()]
    gateway.worker.send(messages.Free(1, (seats[0],)))
    assert gateway.serving.deadline == gateway.agenda.due == gateway.now + BRISK
    gateway.now += BRISK
    gateway.serving.carry_out(gateway.now)
    assert gateway.serving.pool.sessions == 1
    gateway.worker.send(messages.Free(1, (seats[1],)))
    assert gateway.wakes_up()
    assert gateway.serving.pool.sessions == 0


def test_who_asks_for_the_sessions_is_told_of_none_that_is_over(gateway: Gateway) -> None:
    gateway.offer()
    for seat in (gateway.connect(), gateway.connect()):
        gateway.worker.send(messages.Free(1, (seat,)))
    assert gateway.serving.pool.sessions == 2
    assert gateway.serving.sessions == 0


def test_workers_are_heard_at_once_when_clients_may_wait_for_them(gateway: Gateway) -> None:
    gateway.offer()
    seats = [gateway.connect() for _ in range(SEATS)]
    gateway.serving.carry_out(gateway.now)
    gateway.worker.send(messages.Free(1, (seats[0],)))
    assert gateway.wakes_up()
    assert gateway.serving.pool.sessions == SEATS - 1


def test_where_workers_have_said_nothing_what_is_carried_out_wants_no_other_turn(gateway: Gateway) -> None:
    gateway.offer()
    for _ in range(SEATS):
        gateway.connect()
    assert gateway.serving.pool.restless
    gateway.agenda.due = NEVER
    gateway.serving.carry_out(gateway.now)
    assert gateway.agenda.due == gateway.serving.deadline > gateway.now


def test_a_client_whom_nobody_can_take_any_more_stays_in_the_backlog(gateway: Gateway) -> None:
    gateway.offer()
    seats = [gateway.connect(), gateway.connect()]
    gateway.worker.send(messages.Leaving())
    with socket.create_connection(gateway.address):
        assert gateway.wakes_up()
        gateway.serving.carry_out(gateway.now)
        assert gateway.serving.pool.sessions == len(seats)
        assert not gateway.wakes_up()
        assert listeners.waiting(gateway.front) == 1


def test_who_is_turned_away_needs_no_worker(gateway: Gateway) -> None:
    gateway.serving.turn_away(True)
    with socket.create_connection(gateway.address) as client:
        assert gateway.wakes_up()
        client.settimeout(5.0)
        assert client.recv(100).startswith(b"-ERR [SYS/TEMP]")


@pytest.mark.parametrize("told", ["how it ended", "nothing", "the template's end"])
def test_a_service_waits_for_how_its_last_worker_ended_but_not_for_long(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    killed: list[int] = []
    monkeypatch.setattr(process, "kill", killed.append)
    serving, end = gateway.serving, WorkerEnd.SIGNAL if told == "how it ended" else WorkerEnd.RETIRED
    gateway.offer()
    gateway.connect()
    serving.stop()
    gateway.worker.close()
    gateway.hear()
    assert serving.pool.over
    assert not serving.over(gateway.now)
    if told == "how it ended":
        gateway.told(messages.Exited(gateway.number, PID, signal.SIGKILL))
    elif told == "nothing":
        gateway.now += REPORT_LIMIT
        assert serving.deadline <= gateway.now
    else:
        gateway.template.close()
        gateway.hear()
    assert serving.over(gateway.now)
    killed.clear()
    gateway.close()
    assert killed == ([NO_PROCESS] if told == "nothing" else [])
    assert gateway.ledger.totals([])[0][counts.WORKERS_ENDED.index(end)] == 1


@pytest.mark.parametrize("template_first", [False, True])
def test_how_workers_ended_is_counted_while_their_template_can_not_be_replaced(
    gateway: Gateway, template_first: bool
) -> None:
    gateway.offer()
    for one in (gateway.template, gateway.worker) if template_first else (gateway.worker, gateway.template):
        one.close()
        gateway.hear()
    gateway.now = time.monotonic()
    gateway.hear()
    assert gateway.serving.templates.serving is not None
    assert gateway.serving.templates.serving.stage is Stage.GONE
    assert gateway.ledger.totals([])[0][counts.WORKERS_ENDED.index(WorkerEnd.RETIRED)] == 1
    gateway.hear()
    gateway.close()
    assert gateway.ledger.totals([])[0][counts.WORKERS_ENDED.index(WorkerEnd.RETIRED)] == 1


def test_an_old_template_that_does_not_say_how_its_last_worker_ended_is_killed(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    monkeypatch.setattr(process, "kill", killed.append)
    gateway.offer()
    gateway.connect()
    gateway.renew()
    gateway.worker.close()
    gateway.hear()
    assert gateway.now < gateway.serving.templates.deadline <= gateway.now + REPORT_LIMIT
    assert not killed
    gateway.now += REPORT_LIMIT
    gateway.serving.carry_out(gateway.now)
    assert killed == [NO_PROCESS]
    assert gateway.ledger.totals([])[0][counts.WORKERS_ENDED.index(WorkerEnd.RETIRED)] == 1


def test_a_service_that_is_over_leaves_no_descriptor(gateway: Gateway) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    gc.collect()  # what other tests have left closes its descriptors at any time
    watched, had = len(gateway.poller), descriptors()
    other = Serving("other", gateway.poller, gateway.agenda, gateway.ledger)
    assert descriptors() > had
    other.close()
    assert (len(gateway.poller), descriptors()) == (watched, had)


def test_nothing_is_forked_for_a_worker_that_ends_while_another_has_just_become_free(gateway: Gateway) -> None:
    gateway.offer()
    seats = [gateway.connect() for _ in range(SEATS)]
    gateway.serving.carry_out(gateway.now)
    fork, end = gateway.template.receive() or (None, -1)
    assert isinstance(fork, messages.Fork)
    with closing(fdpass.Channel(socket.socket(fileno=end), waits=True)) as other:
        gateway.told(messages.Forked(fork.worker, PID + 1))
        other.send(messages.Offer(SEATS))
        gateway.hear()
        gateway.worker.send(messages.Free(1, (seats[0],)))
    gateway.told(messages.Exited(fork.worker, PID + 1, 0))
    assert gateway.serving.pool.workers == 1
    assert gateway.serving.pool.starting == 0


def test_when_no_client_comes_any_more_the_master_rests(gateway: Gateway) -> None:
    gateway.offer()
    gateway.connect()
    gateway.connect()
    gateway.now += BRISK
    gateway.agenda.due = NEVER
    gateway.serving.carry_out(gateway.now)
    assert gateway.agenda.due > gateway.now


def test_a_worker_may_say_of_each_client_that_is_counted_that_it_has_left_before_the_next_one_comes(
    gateway: Gateway,
) -> None:
    gateway.offer()
    seats = [gateway.connect(), gateway.connect()]
    for _ in range(TALKATIVE - 1):
        gateway.worker.send(messages.Offer(0))
    gateway.worker.send(messages.Free(1, (seats[0],)))
    gateway.connect()
    assert gateway.serving.pool.sessions == 2


def test_no_client_waits_for_a_worker_that_never_stops_talking(gateway: Gateway) -> None:
    gateway.offer()
    seats = [gateway.connect(), gateway.connect()]
    for _ in range(100):
        gateway.worker.send(messages.Offer(0))
    gateway.worker.send(messages.Free(1, (seats[0],)))
    gateway.connect()
    assert gateway.serving.pool.sessions == 3
    assert gateway.serving.sessions == 2
