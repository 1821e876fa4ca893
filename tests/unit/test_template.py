"""A template by itself; what it does within a gateway is in tests/process."""

from __future__ import annotations

import dataclasses
import os
import pwd
import sys
from pathlib import Path

import pytest

from pop3gw import config, fdpass, template
from pop3gw.errors import Exit
from pop3gw.scoreboard import Board

LOADS_WHEN_TOLD = "from pop3gw.policy import *\nopen({fifo!r}).read()\n{then}\n"


@pytest.mark.parametrize("then", ["class Office(Pop3Proxy): pass", "1/0"])
def test_a_template_that_is_ready_when_nobody_waits_any_more_just_leaves(
    tmp_path: Path, then: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)  # descriptor 2, which a child keeps
    os.mkfifo(fifo := tmp_path / "fifo")
    (tmp_path / "office.py").write_text(LOADS_WHEN_TOLD.format(fifo=str(fifo), then=then))
    loaded = config.from_command_line("127.0.0.1:0", "127.0.0.1:110", "office:Office")
    loaded = dataclasses.replace(loaded, policy_path=(str(tmp_path),))
    channel, end = fdpass.Channel.pair()
    with end:
        pid = template.start(template.Plan(loaded, loaded.services[0], None, frozenset()), Board(1, 1), end)
    channel.close()
    with fifo.open("w"):  # waits for its reader
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert capfd.readouterr().err == ""


def test_a_policy_may_have_many_callbacks_with_long_names(tmp_path: Path) -> None:
    methods = "".join(f"    def {'long_name_' * 8}{number}(self, _): return 1\n" for number in range(30))
    (tmp_path / "office.py").write_text(
        f"from pop3gw.policy import *\nclass Office(Pop3Proxy):\n{methods}    def config(self): super().config()\n"
    )
    loaded = config.from_command_line("127.0.0.1:0", "127.0.0.1:110", "office:Office")
    loaded = dataclasses.replace(loaded, policy_path=(str(tmp_path),), user=pwd.getpwuid(os.geteuid()).pw_name)
    assert template.check(loaded) == ([], [])


def test_what_can_not_be_shown_is_told_by_its_class(tmp_path: Path) -> None:
    (tmp_path / "office.py").write_text("def __getattr__(_):\n    raise SyntaxError('x', ('f', 1, 2, 3))\n")
    loaded = config.from_command_line("127.0.0.1:0", "127.0.0.1:110", "office:Office")
    loaded = dataclasses.replace(loaded, policy_path=(str(tmp_path),), user=pwd.getpwuid(os.geteuid()).pw_name)
    ((problem,), doubts) = template.check(loaded)
    assert not doubts
    assert "SyntaxError" in str(problem)
    assert "ended the process" not in str(problem)


@pytest.mark.parametrize("then", ["pass", "raise ValueError('of the parent')"])
def test_a_process_that_a_policy_forks_while_it_is_loaded_is_no_second_template(tmp_path: Path, then: str) -> None:
    forked = tmp_path / "forked"
    (tmp_path / "office.py").write_text(
        "import os\nfrom pop3gw.policy import *\n"
        "child = os.fork()\n"
        f"if child:\n    open({str(forked)!r}, 'w').write(str(os.waitpid(child, 0)[1]))\n    {then}\n"
        "else:\n    raise ValueError('of the child')\n"
        "class Office(Pop3Proxy): pass\n"
    )
    loaded = config.from_command_line("127.0.0.1:0", "127.0.0.1:110", "office:Office")
    loaded = dataclasses.replace(loaded, policy_path=(str(tmp_path),), user=pwd.getpwuid(os.geteuid()).pw_name)
    problems, _ = template.check(loaded)
    assert os.waitstatus_to_exitcode(int(forked.read_text())) == Exit.FAILED
    assert ["of the parent" in str(problem) for problem in problems] == ([True] if "raise" in then else [])
