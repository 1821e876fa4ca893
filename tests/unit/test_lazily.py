"""``lazily``: what is loaded at its first use, as somebody who never uses it and somebody who does would see it."""

from __future__ import annotations

import subprocess
import sys

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
