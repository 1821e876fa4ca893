"""``lazily``: what is loaded at its first use, as somebody who never uses it and somebody who does would see it."""

from __future__ import annotations

import dataclasses  # noqa: F401 - for what is asked of it below
import inspect  # noqa: F401
import subprocess
import sys
from pathlib import Path

import pytest

from pop3gw import lazily

_LOG = (
    "import sys; from pop3gw import master; from pop3gw.logs import Log; from pop3gw.values import LogLevel\n"
    "log = Log.open('stderr', LogLevel.INFO)\n"
)


def run(code: str) -> str:
    """What it writes to stderr."""
    done = subprocess.run([sys.executable, "-c", _LOG + code], capture_output=True, text=True, check=True)
    return done.stderr


def test_no_process_of_ours_has_what_works_in_each_child() -> None:
    code = "for name in ('threading', 'random', '_hashlib'): assert name not in sys.modules, name"
    assert run(code) == ""


@pytest.mark.parametrize(
    "code",
    [
        "import logging; logging.getLogger('office').warning('careful')",
        "from logging import getLogger; getLogger('office').warning('careful')",
        "import logging.handlers; logging.getLogger('office').warning('careful')",
    ],
)
def test_what_is_logged_by_whoever_loads_logging_is_joined_in(code: str) -> None:
    assert run(code).endswith(" warning office: careful\n")


def test_levels_are_those_of_the_log_then_and_later() -> None:
    code = (
        "import logging; logging.debug('no'); log.level = LogLevel.DEBUG; logging.debug('yes')\n"
        "log.level = LogLevel.ERROR; logging.warning('no')"
    )
    assert run(code).count("\n") == 1


def test_of_a_module_that_is_loaded_it_is_known_at_once() -> None:
    called: list[str] = []
    lazily.when_loaded("sys", lambda: called.append("sys"))
    lazily.when_loaded("no_such_module", lambda: called.append("none"))
    assert called == ["sys"]


def test_whoever_waits_for_a_module_is_told_once_it_is_loaded_and_does_not_load_it() -> None:
    code = (
        "from pop3gw import lazily; told = []\n"
        "for number in (1, 2): lazily.when_loaded('threading', lambda number=number: told.append(number))\n"
        "lazily.when_loaded('no_such_module', lambda: told.append(0))\n"
        "import importlib.util; importlib.util.find_spec('threading')\n"
        "assert told == [] and 'threading' not in sys.modules\n"
        "import threading; assert told == [1, 2] and threading.Thread\n"
        "import importlib; importlib.reload(threading); assert told == [1, 2]"
    )
    assert run(code) == ""


def test_who_is_told_and_fails_is_told_again_at_the_next_try() -> None:
    code = (
        "from pop3gw import lazily; told = []\n"
        "lazily.when_loaded('threading', lambda: told.append(1) or told[1])\n"
        "for _ in range(2):\n"
        "    try: import threading\n"
        "    except IndexError: assert 'threading' not in sys.modules\n"
        "assert told == [1, 1] and sys.modules['threading'].Thread"
    )
    assert run(code) == ""


def test_no_process_of_ours_has_what_dataclasses_loads() -> None:
    code = (
        "from pop3gw import cli, demo, startup, template\n"
        "for name in ('inspect', 'ast', 'dis'): assert name not in sys.modules, name"
    )
    assert run(code) == ""


def test_a_configuration_that_is_right_loads_nothing_that_explains_wrong_ones(tmp_path: Path) -> None:
    file = tmp_path / "test.conf"
    file.write_text("[services]\n[[one]]\nlisten = 127.0.0.1:0\nserver = 127.0.0.1:1\n")
    code = (
        f"from pop3gw import config; config.load({str(file)!r}, foreground=True); assert 'difflib' not in sys.modules"
    )
    assert run(code) == ""


def test_a_class_without_a_docstring_finds_what_was_left_out() -> None:
    code = (
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Point:\n"
        "    x: int\n"
        "assert Point.__doc__ == 'Point(x: int)', Point.__doc__\n"
        "import inspect; assert inspect.isclass(Point)"
    )
    assert run(code) == ""


def test_what_is_loaded_stays_as_it_is() -> None:
    before = {name: sys.modules[name] for name in ("inspect", "dataclasses")}
    lazily.load_without("inspect", "no_such_module")
    lazily.load_without("no_such_module", "dataclasses")
    assert {name: sys.modules[name] for name in before} == before
    assert "no_such_module" not in sys.modules


def test_a_module_that_can_not_be_loaded_leaves_nothing_behind() -> None:
    with pytest.raises(ModuleNotFoundError):
        lazily.load_without("left_out", "no_such_module")
    assert "left_out" not in sys.modules
