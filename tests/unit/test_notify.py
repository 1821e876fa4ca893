"""What systemd is told, and when."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from pop3gw.notify import Tidings, manager
from pop3gw.times import NEVER


class Told:
    """A service manager that remembers, and a master whose status can be set."""

    def __init__(self, beat: float = NEVER) -> None:
        self.messages: list[str] = []
        self.status = "none"
        self.tidings = Tidings(self.messages.append, beat)

    def turn(self, now: float) -> list[str]:
        """What a turn at this time tells."""
        before = len(self.messages)
        self.tidings.turn(now, lambda: self.status)
        return self.messages[before:]


def test_a_changed_status_is_told_once_a_second_at_most_and_the_last_one_always() -> None:
    told = Told()
    assert told.turn(10.0) == ["STATUS=none"]
    assert told.tidings.deadline == NEVER
    told.status = "one"
    assert told.turn(10.5) == []
    assert told.tidings.deadline == 11.0
    told.status = "two"
    assert told.turn(11.0) == ["STATUS=two"]
    assert told.tidings.deadline == NEVER


def test_an_unchanged_status_wakes_nobody_up_twice() -> None:
    told = Told()
    told.turn(10.0)
    told.turn(10.1)
    assert told.tidings.deadline == 11.0
    assert told.turn(11.0) == []
    assert told.tidings.deadline == NEVER


def test_a_sign_of_life_with_each_period_and_not_with_each_turn() -> None:
    told = Told(beat=5.0)
    assert "WATCHDOG=1" in told.turn(0.0)
    assert told.turn(4.9) == []
    assert told.tidings.deadline <= 5.0
    assert told.turn(5.0) == ["WATCHDOG=1"]
    assert told.tidings.deadline == 10.0


def test_a_reload_is_told_from_its_begin_to_its_end_but_not_before_the_gateway_is_ready() -> None:
    told = Told()
    told.tidings.reloading(1.0)
    told.tidings.reloaded()
    assert told.messages == []
    told.tidings.ready()
    told.tidings.reloading(2.5)
    told.tidings.reloaded()
    assert told.messages == ["READY=1", "RELOADING=1\nMONOTONIC_USEC=2500000", "READY=1"]


def test_a_stop_asks_for_the_time_that_sessions_have() -> None:
    told = Told()
    told.tidings.stopping(300)
    assert told.messages == ["STOPPING=1\nEXTEND_TIMEOUT_USEC=315000000"]


def test_without_a_manager_nothing_is_due() -> None:
    environment = {"WATCHDOG_USEC": "1000000", "KEPT": "yes"}
    tidings = manager(environment)
    assert tidings.deadline == NEVER
    tidings.turn(1.0, lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    tidings.ready()
    assert tidings.deadline == NEVER
    assert environment == {"KEPT": "yes"}


def test_a_manager_is_written_to_and_its_variables_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(path))
        end.settimeout(10)
        environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}
        tidings = manager(environment)
        assert environment == {}
        tidings.turn(100.0, lambda: "fine")
        assert [end.recv(1024), end.recv(1024)] == [b"WATCHDOG=1", b"STATUS=fine"]
        assert tidings.deadline == 101.0


def test_the_abstract_namespace() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(f"\0pop3gw-test-{os.getpid()}")
        end.settimeout(10)
        manager({"NOTIFY_SOCKET": f"@pop3gw-test-{os.getpid()}"}).ready()
        assert end.recv(1024) == b"READY=1"


def test_the_watchdog_of_another_process_is_not_fed(tmp_path: Path) -> None:
    tidings = manager({"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"})
    tidings.turn(100.0, lambda: "fine")
    assert tidings.deadline == NEVER


def test_a_manager_that_does_not_read_stops_nobody(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        tidings = manager({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        for _ in range(2000):
            tidings.ready()
