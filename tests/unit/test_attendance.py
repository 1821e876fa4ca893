"""Attendance: what an attendant says that makes the master raise."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from typing import NoReturn, cast

import pytest

from pop3gw import attendance, fdpass, messages, process
from pop3gw.agenda import Agenda
from pop3gw.attendance import Attendance
from pop3gw.attendant import Asker
from pop3gw.doors import Doors
from pop3gw.logs import current as log
from pop3gw.poller import Poller


class Faulty:
    """A master in which nothing works."""

    def servings(self) -> NoReturn:
        raise ValueError("whatever")


def test_an_attendant_that_makes_the_master_raise_is_killed(capfd: pytest.CaptureFixture[str]) -> None:
    def child() -> int:
        signal.pause()
        return 0

    pid = process.fork(child, [], [])
    channel, end = fdpass.Channel.pair()
    with end, closing(channel), closing(Poller()) as poller:
        owner = cast(attendance.Owner, Faulty())
        attending = Attendance(Doors(None, None), None, log(), poller, Agenda(), owner)
        attending._hear(Asker(pid, channel), messages.Kill(1, 4711, 0, "3f2a"))
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    said = capfd.readouterr().err
    assert f"process {pid} is killed by a fault of the gateway: Traceback" in said
    assert "ValueError: whatever" in said
