"""What a tree of processes has used: CPU, dead children included, and memory, shared pages divided.

Where cgroups can be made (root), a proxy runs in one of its own: the kernel then counts every process that was ever
in it, to the microsecond. Elsewhere `/proc` is added up, which misses children whose parents ignore their deaths, and
is as coarse as the clock tick; reports name the meter that was used. Must not know what it measures.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_CGROUP_V1 = Path("/sys/fs/cgroup/cpuacct")
_CGROUP_V2 = Path("/sys/fs/cgroup")
_TICK = os.sysconf("SC_CLK_TCK")
_STOP_TIMEOUT = 10.0  # seconds from SIGTERM to SIGKILL


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a whole tree, in KiB: proportional share of all pages, the private part of it, and how many processes."""

    pss: int
    private: int
    processes: int


class Tree:
    """A program started apart, on given cores, with everything that it forks.

    Raises OSError where the program cannot be started. Call `stop()`; no process outlives it.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cores: set[int],
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._group = _make_group(f"pop3gw-bench-{os.getpid()}-{time.monotonic_ns()}")

        def enter() -> None:
            os.sched_setaffinity(0, cores)
            if self._group is not None:
                (self._group / "cgroup.procs").write_text(str(os.getpid()))

        with log.open("ab") as output:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(environment) if environment is not None else None,
                preexec_fn=enter,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def pids(self) -> list[int]:
        """The processes that are alive now."""
        if self._group is not None:
            return [int(line) for line in (self._group / "cgroup.procs").read_text().split()]
        return list(_session_members(self._process.pid))

    def cpu(self) -> float:
        """Seconds of CPU, user and system, since the start."""
        if self._group is None:
            return sum(_cpu_with_dead_children(pid) for pid in self.pids())
        usage = self._group / "cpuacct.usage"
        if usage.exists():
            return int(usage.read_text()) / 1e9
        fields = dict(line.split() for line in (self._group / "cpu.stat").read_text().splitlines())
        return int(fields["usage_usec"]) / 1e6

    def settled_cpu(self, *, patience: float = 2.0) -> float:
        """`cpu()` once what the last sessions left to do (reaping, refilling a pool) is done, or after `patience` s."""
        deadline = time.monotonic() + patience
        used = self.cpu()
        while time.monotonic() < deadline:
            time.sleep(0.05)
            before, used = used, self.cpu()
            if used - before < 0.0005:
                break
        return used

    def memory(self) -> Memory:
        """From `smaps_rollup` of each process; one that ends meanwhile counts nothing."""
        pss = private = processes = 0
        for pid in self.pids():
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            fields = {line.split(":")[0]: line.split(":")[1] for line in lines if line.endswith(" kB")}
            pss += int(fields["Pss"].split()[0])
            private += sum(int(fields[name].split()[0]) for name in ("Private_Clean", "Private_Dirty"))
            processes += 1
        return Memory(pss, private, processes)

    def stop(self) -> None:
        """End all of it: SIGTERM to the root, after a while SIGKILL to whatever of the tree is left."""
        if self.alive:
            self._process.send_signal(signal.SIGTERM)
        _wait_until(lambda: not self.alive, _STOP_TIMEOUT)
        deadline = time.monotonic() + _STOP_TIMEOUT
        while (left := self.pids()) and time.monotonic() < deadline:
            for pid in left:
                _kill(pid)
            self._process.poll()
            time.sleep(0.05)
        self._process.wait(timeout=_STOP_TIMEOUT)
        if self._group is not None:
            group = self._group
            _wait_until(lambda: _removed(group), _STOP_TIMEOUT)


def meter() -> str:
    """How CPU is counted here, for the report."""
    group = _make_group(f"pop3gw-bench-try-{os.getpid()}")
    if group is None:
        return "/proc (children that nobody waits for are missed)"
    _removed(group)
    return "cgroup"


def _make_group(name: str) -> Path | None:
    for parent, proof in ((_CGROUP_V1, "cpuacct.usage"), (_CGROUP_V2, "cpu.stat")):
        if not (parent / proof).exists():
            continue
        try:
            (parent / name).mkdir()
        except OSError:
            continue
        return parent / name
    return None


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return not group.exists()
    return True


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _session_members(session: int) -> Iterator[int]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            yield int(stat.parent.name)


def _cpu_with_dead_children(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) / _TICK  # utime, stime, cutime, cstime
