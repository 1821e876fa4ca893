"""What a machine can do to the gateway: no descriptors in a worker, a clock that is set back, a log that is full."""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.process.gateway import PATIENCE, Client, Gateway, Make, cpu_seconds, status
from tests.until import until

ROOM = 16  # sessions of a worker that may have 80 descriptors
DESCRIPTORS = 80


@pytest.mark.own_mode
def test_a_worker_takes_no_more_sessions_than_it_has_descriptors_for(make: Make) -> None:
    gateway = make(sessions_per_worker=100, min_spare=1, max_spare=1, max_workers=1)
    gateway.descriptors = DESCRIPTORS
    gateway.start()
    clients = [gateway.connect() for _ in range(ROOM + 10)]
    served = [client.greeted() for client in clients[:ROOM]]
    (worker,) = gateway.workers()
    before = cpu_seconds(worker) + cpu_seconds(gateway.master)
    assert all(client.is_waiting(0.1) for client in clients[ROOM:])
    assert cpu_seconds(worker) + cpu_seconds(gateway.master) - before < 0.5
    gateway.wait_for(f"which leaves a worker {ROOM} of its 100 sessions")
    for client in served:
        client.quits()
    for client in clients[ROOM:]:
        client.greeted().quits()
    assert "Too many open files" not in gateway.log


@pytest.mark.own_mode
def test_the_other_workers_serve_who_would_wait_for_a_worker_without_descriptors(make: Make) -> None:
    gateway = make(sessions_per_worker=100, min_spare=1, max_spare=2, max_workers=3)
    gateway.descriptors = DESCRIPTORS
    gateway.start()
    clients = [gateway.connect() for _ in range(2 * ROOM + 4)]
    for client in clients:
        client.greeted()
    for client in clients:
        client.quits()


@pytest.mark.own_mode
def test_templates_that_there_is_no_room_for_are_a_clear_error(make: Make) -> None:
    gateway = make()
    gateway.descriptors = 32
    gateway.more = "".join(
        f"  [[{gateway.name}{number}]]\n  listen = 127.0.0.1:0\n  server = 127.0.0.1:1\n" for number in range(14)
    )
    gateway.launch()
    assert gateway.wait() == 1
    assert "can't be started (Too many open files: raise LimitNOFILE, or ulimit -n)" in gateway.log
    until("no template is left", lambda: not gateway.pids("template"))


def allow_processes(gateway: Gateway, count: int) -> None:
    """How many processes its template's account may have: with 1, every fork fails."""
    (template,) = gateway.pids("template")
    uid, gid = status(template, "Uid").split()[0], status(template, "Gid").split()[0]
    as_it = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"] if os.geteuid() == 0 else []
    subprocess.run([*as_it, "prlimit", f"--pid={template}", f"--nproc={count}:"], check=True)


@pytest.mark.own_mode
def test_where_nothing_can_be_forked_clients_wait_nothing_spins_and_it_recovers(make: Make) -> None:
    gateway = make(min_spare=2, max_spare=2).start()
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    allow_processes(gateway, 1)
    served = [gateway.connect().logged_in() for _ in range(2)]
    failed = "a worker can't be forked (Resource temporarily unavailable: raise TasksMax, or ulimit -u)"
    gateway.wait_for(f"{failed}; the next try is in 0.25 s")
    (template,) = gateway.pids("template")
    waiting = gateway.connect()
    before = cpu_seconds(template) + cpu_seconds(gateway.master)
    assert waiting.is_waiting(1.0)
    assert cpu_seconds(template) + cpu_seconds(gateway.master) - before < 0.2
    assert [client.ask("STAT") for client in served] == ["+OK 0 0"] * 2
    allow_processes(gateway, hard)
    waiting.logged_in().quits()
    for client in served:
        client.quits()


@pytest.fixture
def clock(make: Make) -> Clock:
    return Clock(make(min_spare=1, max_spare=1, max_workers=20))


class Clock:
    """A gateway whose clock of the day can be set, as ``date`` or NTP would; other clocks go on."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._file = gateway.folder / "clock"
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
        self.set("+0s")
        gateway.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, change: str) -> None:
        self._file.write_text(f"{change}\n")

    def logged(self) -> list[datetime]:
        """When the lines of the log were written, as they say."""
        return [datetime.fromisoformat(line.split()[0]) for line in self.gateway.log.splitlines()]


def told(gateway: Gateway, command: str) -> Any:
    """What the control socket answers."""
    with socket.socket(socket.AF_UNIX) as asker:
        asker.settimeout(PATIENCE)
        asker.connect(str(gateway.main["control_socket"]))
        asker.sendall(json.dumps({"command": command}).encode() + b"\n")
        return json.loads(asker.makefile().readline())["result"]


def test_a_clock_that_is_set_back_is_felt_nowhere_but_in_the_log(clock: Clock) -> None:
    gateway = clock.gateway
    gateway.policy("from pop3gw.policy import *\nclass Office(Pop3Proxy):\n    timeout = 2000\n")
    gateway.main["control_socket"] = gateway.folder / "control" / "socket"
    gateway.start()
    running, idle = gateway.connect().logged_in(), gateway.connect().logged_in()
    before = len(clock.logged())
    began = time.monotonic()
    clock.set("-1h")
    assert running.ask("STAT") == "+OK 0 0"
    ages = [told(gateway, "status")["seconds"], *(one["seconds"] for one in told(gateway, "sessions")["sessions"])]
    assert len(ages) == 3
    assert all(0 < age < 20 for age in ages)
    burst = [gateway.connect() for _ in range(8)]  # workers are forked, and retired
    for client in burst:
        client.logged_in().quits()
    running.quits()
    until("the workers that are too many leave", lambda: len(gateway.workers()) <= 2)
    assert idle.hear() == ""  # its time is over when it would have been
    assert 1.5 < time.monotonic() - began < 20
    gateway.wait_for("end=timeout")
    times = clock.logged()
    assert (times[before - 1] - times[-1]).total_seconds() > 3000
    seconds = [float(found) for found in re.findall(r" seconds=(\S+) ", gateway.log)]
    assert len(seconds) == 10
    assert all(0 <= length < 20 for length in seconds)


def test_a_log_that_takes_nothing_stops_no_session(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        gateway = make()
        gateway.main["log_target"] = "/dev/full"  # whose port would stand in the log
        gateway.passed = {gateway.name: held}
        gateway.launch()
        for _ in range(3):
            Client(held.getsockname()[1]).logged_in().quits()
        assert gateway.log == ""
