"""What the clients do: each workload as arguments of the load generator, and the figures that it gives.

Must not know the proxies. Sizes are for a core of 2026; how many sessions of each are run is `compare`'s.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

BUILD = Path(__file__).resolve().parent / "build"
MIB = 1 << 20
GIB = 1 << 30
_SMALL, _LARGE = 8192, MIB
_FETCHED, _BULK = 20, 8  # messages a session
_PATIENCE = 60.0  # seconds for one run


@dataclass(frozen=True, slots=True)
class Workload:
    """`sessions` of a kind, `at_once` together, or `rate` beginning each second; `messages` of `octets` each."""

    name: str
    sessions: int
    at_once: int = 16
    rate: float | None = None
    messages: int = 0
    octets: int = _SMALL

    def arguments(self) -> list[str]:
        pace = ["-c", str(self.at_once)] if self.rate is None else ["-r", str(self.rate)]
        return ["-n", str(self.sessions), *pace, "-m", str(self.messages), "-s", str(self.octets)]


# The user names that the load generator makes of these workloads.
MAILBOXES = (f"0x{_SMALL}", f"{_FETCHED}x{_SMALL}", f"{_BULK}x{_LARGE}")


def login(sessions: int) -> Workload:
    return Workload("login", sessions)


def paced(sessions: int) -> Workload:
    return Workload("paced", sessions, rate=50)


def fetch(sessions: int) -> Workload:
    return Workload("fetch", sessions, messages=_FETCHED)


def bulk(sessions: int) -> Workload:
    return Workload("bulk", sessions, at_once=4, messages=_BULK, octets=_LARGE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one run, as the load generator saw it; times in milliseconds."""

    sessions: int
    failed: int
    failure: str
    octets: int
    seconds: float
    p50: float
    p99: float


class LoadError(Exception):
    """Sessions that failed; the text says how many, and how the first did."""


class Backend:
    """The fake server, on any free port. Ends with its context."""

    def __init__(self, cores: Sequence[int]) -> None:
        command = [*pinned(cores), str(BUILD / "backend"), "0"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline().rpartition(":")[2])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=10)  # the end of its input ends it


class Load:
    """The load generator, started against a port. `hold`: the sessions stay logged in until `finish()`."""

    def __init__(
        self,
        port: int,
        workload: Workload,
        cores: Sequence[int],
        *,
        suffix: str = "",
        tls: bool = False,
        hold: bool = False,
    ) -> None:
        flags = [*(["-t"] if tls else []), *(["-H"] if hold else []), "-u", suffix, "-d", str(_PATIENCE)]
        command = [*pinned(cores), str(BUILD / "load"), str(port), *workload.arguments(), *flags]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def await_held(self) -> None:
        """Until all sessions are logged in. Raises LoadError where one is not."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("held "):
            raise _load_error(line)

    def finish(self) -> Outcome:
        """Let held sessions quit, wait for all. Raises LoadError where a session failed."""
        output = self._process.communicate("\n", timeout=_PATIENCE * 2)[0]
        if self._process.returncode != 0:
            raise _load_error(output)
        fields = json.loads(output)
        return Outcome(**{name: fields[name] for name in Outcome.__slots__})


def pinned(cores: Sequence[int]) -> list[str]:
    """The beginning of a command that may only run on `cores`."""
    return ["taskset", "-c", ",".join(str(core) for core in cores)]


def _load_error(output: str) -> LoadError:
    try:
        fields = json.loads(output)
    except ValueError:
        return LoadError(output.strip() or "the load generator said nothing")
    total = fields["failed"] + fields["sessions"]
    return LoadError(f"{fields['failed']} of {total} sessions failed, the first with: {fields['failure']}")
