"""The errors that pop3gw raises and reports, and the exit codes that follow from them.

Each error says what was wrong, where, and what to do. They are for the administrator and the log: what a client
sees is one clean ``-ERR``, written by the session. This module imports nothing of pop3gw.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass


class Exit(enum.IntEnum):
    """What the process tells its caller (sysexits.h where that has a word for it); wrong options are argparse's 2."""

    OK = 0
    FAILED = 1
    CONFIG = 78


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in the configuration or in what it names.

    ``file``, ``line`` (1-based, 0 where none) and ``key`` say where; ``found`` and ``expected`` what, and what to do.
    """

    file: str
    line: int
    key: str
    found: str
    expected: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        key = f" {self.key}:" if self.key else ""
        expected = f"; expected {self.expected}" if self.expected else ""
        return f"{where}:{key} {self.found}{expected}"


class Pop3gwError(Exception):
    """The root of the tree; its text is fit for the administrator as it stands."""

    exit = Exit.FAILED


class ConfigurationError(Pop3gwError):
    """The configuration can't be used; carries every problem that was found, not only the first."""

    exit = Exit.CONFIG

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class PolicyError(Pop3gwError):
    """A policy class can't be loaded; the text names file, class, reason and, where there is one, the line."""


class TlsSettingError(Pop3gwError):
    """A TLS setting can't be used: ``key`` is its name, ``found`` and ``expected`` are as those of a Problem."""

    def __init__(self, key: str, found: str, expected: str) -> None:
        super().__init__(found)
        self.key = key
        self.found = found
        self.expected = expected


class TlsError(Pop3gwError):
    """There can be no TLS; carries each setting that can't be used, not only the first, and what is doubtful."""

    def __init__(self, faults: Sequence[TlsSettingError], doubts: Sequence[TlsSettingError] = ()) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = tuple(faults)
        self.doubts = tuple(doubts)


class StartError(Pop3gwError):
    """The gateway can't start or go on: a log that can't be opened, a live pid file, an account that is not there."""


class ChannelError(Pop3gwError):
    """A message between the master and a template, worker or attendant was cut, or no record of ours."""


class RefusedError(Exception):
    """The gateway did not do what pop3gwctl asked, or could not be asked; the text says why."""
