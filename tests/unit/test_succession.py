"""Succession: what the end of a template brings, whichever sign of it comes first."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from pop3gw import fdpass, messages, template
from pop3gw.agenda import Agenda
from pop3gw.errors import ChannelError
from pop3gw.generation import Generation
from pop3gw.loading import LOAD_LIMIT
from pop3gw.poller import Poller
from pop3gw.settings import Config, Service
from pop3gw.stages import Stage
from pop3gw.succession import Succession
from pop3gw.times import NEVER
from pop3gw.values import Address

pytestmark = pytest.mark.interpreted

NO_PROCESS = 1 << 30  # beyond any pid
ENDED = ": signal 9 (Killed); sessions go on, another is started"


class Templates:
    """The templates of one service, without their processes: the test holds their ends of the channels."""

    def __init__(self, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ends: dict[int, fdpass.Channel] = {}
        self.told: list[str] = []
        self.fault: Exception | None = None  # what the owner raises
        self._stack = stack
        self._poller = stack.enter_context(closing(Poller()))
        self.succession = Succession("inbound", self._poller, Agenda(), self)
        self._plan = template.Plan(
            Config(source="test.conf"),
            Service(name="inbound", listen=(), server=Address("192.0.2.1", 110)),
            None,
            frozenset(),
        )
        monkeypatch.setattr(template, "start", self._start)

    def _start(self, _plan: template.Plan, _board: object, end: socket.socket) -> int:
        pid = NO_PROCESS + len(self.ends)
        self.ends[pid] = fdpass.Channel(self._stack.enter_context(end.dup()), waits=True)
        return pid

    def start(self, now: float) -> Generation:
        """A generation that nobody listens to."""
        return Generation.start(self._plan, now)

    def prepare(self) -> fdpass.Channel:
        """Another template loads its policy; returns its end."""
        self.succession.prepare(self._plan, time.monotonic())
        return self.ends[max(self.ends)]

    def serve(self) -> int:
        """Another template serves from now on; returns its pid."""
        self.prepare().send(messages.Prepared(""))
        pid = max(self.ends)
        self.hear()
        self.succession.commit(time.monotonic())
        return pid

    def hear(self) -> None:
        """What all templates have said."""
        self._poller.poll(0)

    def close_channel(self, pid: int) -> None:
        self.ends[pid].socket.close()

    def kill(self, pid: int) -> None:
        self.succession.ended(pid, signal.SIGKILL)

    # succession.Owner

    def began(self, generation: Generation, _now: float) -> None:
        self.told.append(f"{generation.pid - NO_PROCESS} began")

    def orphaned(self) -> None:
        self.told.append("orphaned")

    def forked(self, worker: int, _pid: int) -> None:
        if self.fault is not None:
            raise self.fault
        self.told.append(f"{worker} forked")

    def fork_failed(self, worker: int, _reason: str, _now: float) -> None:
        self.told.append(f"{worker} not forked")

    def exited(self, worker: int, _pid: int, _status: int, _now: float) -> None:
        self.told.append(f"{worker} exited")

    def untold(self, workers: int) -> None:
        if workers:
            self.told.append(f"{workers} untold")


@pytest.fixture
def templates(monkeypatch: pytest.MonkeyPatch) -> Iterator[Templates]:
    with ExitStack() as stack:
        yield Templates(stack, monkeypatch)


def test_an_end_that_is_known_after_the_successor_serves_is_logged(
    templates: Templates, capfd: pytest.CaptureFixture[str]
) -> None:
    first = templates.serve()
    templates.close_channel(first)
    templates.hear()
    templates.serve()
    templates.kill(first)
    assert capfd.readouterr().err.count(f"(process {first}) ended{ENDED}") == 1
    assert templates.told == ["0 began", "orphaned", "1 began"]


def test_an_end_that_is_known_before_the_channels_is_logged_once(
    templates: Templates, capfd: pytest.CaptureFixture[str]
) -> None:
    first = templates.serve()
    templates.ends[first].send(messages.Exited(5, 4711, 0))
    templates.close_channel(first)
    templates.kill(first)
    assert templates.told == ["0 began", "5 exited", "orphaned"]
    templates.hear()
    templates.kill(first)  # another process has its number by now
    assert capfd.readouterr().err.count(ENDED) == 1
    assert templates.told == ["0 began", "5 exited", "orphaned"]


def test_a_template_whose_channel_is_held_by_a_process_of_its_policy_is_replaced(
    templates: Templates, capfd: pytest.CaptureFixture[str]
) -> None:
    first = templates.serve()
    templates.kill(first)
    assert capfd.readouterr().err.count(ENDED) == 1
    assert templates.told == ["0 began", "orphaned"]
    assert templates.succession.deadline <= time.monotonic()


def test_one_that_was_replaced_is_not_missed(templates: Templates, capfd: pytest.CaptureFixture[str]) -> None:
    first = templates.serve()
    templates.serve()
    templates.close_channel(first)
    templates.hear()
    templates.kill(first)
    assert capfd.readouterr().err == ""
    assert templates.told == ["0 began", "1 began"]


@pytest.mark.parametrize("before", [True, False])
def test_where_nothing_is_forked_any_more_none_is_replaced(
    templates: Templates, capfd: pytest.CaptureFixture[str], before: bool
) -> None:
    first = templates.serve()
    if before:
        templates.succession.leave()
    templates.kill(first)
    templates.succession.leave()
    templates.succession.tidy(time.monotonic())
    assert list(templates.ends) == [first]
    assert templates.succession.deadline == NEVER
    assert capfd.readouterr().err.endswith("sessions go on\n") is before


@pytest.mark.parametrize("fault", [ChannelError("no pid"), ValueError("whatever"), BlockingIOError()])
def test_a_template_that_makes_its_owner_raise_is_given_up(
    templates: Templates, capfd: pytest.CaptureFixture[str], fault: Exception
) -> None:
    first = templates.serve()
    templates.fault = fault
    templates.ends[first].send(messages.Forked(1, 1))
    templates.hear()
    assert f"template {first} is given up and killed: " in capfd.readouterr().err
    assert templates.told == ["0 began", "orphaned"]
    templates.fault = None
    templates.serve()
    assert templates.told[2:] == ["1 began"]


@pytest.mark.parametrize("message", [messages.Prepared("other"), messages.Failed(), messages.Offer(1)])
def test_a_template_that_says_at_the_wrong_time_what_it_may_say_once_is_given_up(
    templates: Templates, capfd: pytest.CaptureFixture[str], message: messages.Message
) -> None:
    first = templates.serve()
    templates.ends[first].send(message)
    templates.hear()
    said = capfd.readouterr().err
    assert f"given up and killed: {type(message).__name__} is no message of a template now" in said
    assert templates.told == ["0 began", "orphaned"]


def test_a_template_tells_all_its_faults_and_one_that_tells_none_or_no_end_of_them_is_given_up(
    templates: Templates, capfd: pytest.CaptureFixture[str]
) -> None:
    fault = messages.Fault("tls_key", "a key", "none")
    for count in (2, 0, messages.FAULTS_LIMIT + 1):
        end = templates.prepare()
        for _ in range(count):
            end.send(fault)
        end.send(messages.Failed())
        coming = templates.succession.coming
        assert coming is not None
        for _ in range(count + 1):
            templates.hear()
        assert coming.stage is Stage.FAILED
        assert coming.faults.count(fault) == min(count, messages.FAULTS_LIMIT)
        assert capfd.readouterr().err.count("given up and killed") == (count != 2)


def test_a_template_that_reports_workers_before_it_serves_fails(templates: Templates) -> None:
    templates.prepare().send(messages.Forked(1, 1))
    templates.hear()
    coming = templates.succession.coming
    assert coming is not None
    assert "wrote to the gateway's own channel" in coming.faults[-1].found
    assert templates.told == []


def test_a_template_that_never_stops_talking_holds_nobody_up(templates: Templates) -> None:
    first = templates.serve()
    end = templates.ends[first]
    ended = threading.Event()

    def talk() -> None:
        while not ended.is_set():
            with suppress(OSError):
                end.send(messages.Exited(1, 1, 0))

    talking = threading.Thread(target=talk)
    talking.start()
    try:
        serving = templates.succession.serving
        assert serving is not None
        templates.succession.catch_up(serving)
    finally:
        ended.set()
        templates.succession.close()
        talking.join()


def test_a_template_has_its_time_to_load(templates: Templates) -> None:
    generation = templates.start(100.0)
    assert (generation.due, generation.stage) == (100.0 + LOAD_LIMIT, Stage.LOADING)
    generation.channel.close()


def test_a_template_that_cannot_be_forked_leaves_no_descriptor(
    templates: Templates, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object) -> int:
        raise BlockingIOError

    monkeypatch.setattr(template, "start", start)
    made: list[fdpass.Channel] = []
    pair = fdpass.Channel.pair

    def watched() -> tuple[fdpass.Channel, socket.socket]:
        channel, end = pair()
        made.append(channel)
        return channel, end

    monkeypatch.setattr(fdpass.Channel, "pair", watched)
    with pytest.raises(BlockingIOError):
        templates.start(100.0)
    assert [channel.socket.fileno() for channel in made] == [-1]
