"""Measures pop3gw beside its peers: `python -m bench.compare` (docs/performance.md says how, and what came of it).

Two phases. Speed: all proxies are up, on one core; round by round each workload is run through each of them in turn,
from the other core, so that what disturbs the machine disturbs all alike. Memory: one proxy at a time is up. Prints
the tables; a proxy that is not installed, or fails, is a line in the report and no end of the run.
Exit status: 0 measured, 1 when a goal was missed and --strict was given, 2 for wrong arguments or no C tools.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import report, workloads
from bench.goals import GOALS, Figure, Metric, Verdict, judge
from bench.peers import PEERS, Peer, PeerError, Running
from bench.workloads import BUILD, GIB, Backend, Load, LoadError, Outcome, Workload

_MAIN = ("haproxy", "nginx", "dovecot-shared", "dovecot-single", "emailproxy", "perdition", "pop3gw-1", "pop3gw-200")
_FLOOR = ("floor-1", "floor-200")  # timed alone: they have no memory to speak of
_QUICK = ("haproxy", "dovecot-shared", "pop3gw-1", "pop3gw-200")
_LOGIN_ALSO = ("pop3gw-login-1", "pop3gw-login-200", "dovecot-tls", "pop3gw-tls-1", "pop3gw-tls-200")
_BULK_ALSO = (
    "haproxy-splice",
    "pop3gw-lines-1",
    "pop3gw-lines-200",
    "dovecot-tls",
    "pop3gw-tls-1",
    "pop3gw-tls-200",
)
_HOLD_MANY = ("haproxy", "dovecot-shared", "pop3gw-1", "pop3gw-200")
_HELD, _HELD_MANY = 500, 2000
_WARM_UP = 32  # sessions
_SETTLE = 1.5  # seconds until a pool has its size again


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of it: `seconds` a run (but for paced logins), rounds, and when to stop beginning rounds."""

    peers: tuple[str, ...]
    rounds: int
    seconds: float
    paced_sessions: int
    hold_many: bool
    warm: bool  # whether a few sessions go ahead of each run
    budget: float  # seconds of rounds, after which no further one begins


@dataclass(slots=True)
class Bench:
    """The figures so far, and what could not be measured."""

    plan: Plan
    proxy_cores: list[int]
    load_cores: list[int]
    backend: int
    samples: dict[tuple[str, Metric], list[float]] = field(default_factory=lambda: defaultdict(list))
    remarks: list[str] = field(default_factory=list)
    rounds: int = 0

    def figures(self) -> dict[tuple[str, Metric], Figure]:
        return {key: Figure(tuple(samples)) for key, samples in self.samples.items()}

    def add(self, peer: Peer, metric: Metric, value: float) -> None:
        self.samples[peer.name, metric].append(value)

    def remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)
            _say(f"  {text}")

    def run(self, running: Running, workload: Workload, *, warm: bool = False) -> tuple[Outcome, float]:
        """One run, and the CPU that the proxy's tree took for it, in seconds. Raises LoadError.

        `warm`: a few sessions go ahead unmeasured, so that pools have the size that the load needs.
        """
        peer = running.peer
        if warm:
            ahead = replace(workload, sessions=workload.at_once)
            Load(running.port, ahead, self.load_cores, suffix=peer.suffix, tls=peer.tls).finish()
        before = running.tree.settled_cpu()
        outcome = Load(running.port, workload, self.load_cores, suffix=peer.suffix, tls=peer.tls).finish()
        return outcome, running.tree.settled_cpu() - before


def _record(bench: Bench, peer: Peer, workload: Workload, outcome: Outcome, cpu: float) -> None:
    match workload.name:
        case "login":
            bench.add(peer, Metric.LOGIN_CPU, 1000 * cpu / outcome.sessions)
        case "paced":
            bench.add(peer, Metric.PACED_CPU, 1000 * cpu / outcome.sessions)
            bench.add(peer, Metric.PACED_P99, outcome.p99)
        case "fetch":
            bench.add(peer, Metric.FETCH_CPU, 1000 * cpu / outcome.sessions)
            bench.add(peer, Metric.FETCH_P50, outcome.p50)
        case "bulk":
            bench.add(peer, Metric.BULK_CPU, cpu / (outcome.octets / GIB))


# A workload by the number of its sessions, the names of the proxies that it is run through, the least that is a run.
_TIMED: tuple[tuple[Callable[[int], Workload], tuple[str, ...], int], ...] = (
    (workloads.login, _MAIN + _LOGIN_ALSO + _FLOOR, 64),
    (workloads.fetch, _MAIN + _FLOOR, 32),
    (workloads.bulk, _MAIN + _BULK_ALSO + _FLOOR, 4),
)


def _fit(bench: Bench, running: Running, make: Callable[[int], Workload], least: int) -> Workload:
    """Warm the proxy up, and find how many sessions take the seconds that a run should take."""
    trial = make(min(_WARM_UP, least))
    bench.run(running, trial)
    outcome, _ = bench.run(running, trial)
    return make(max(least, int(trial.sessions * bench.plan.seconds / outcome.seconds)))


def measure_speed(bench: Bench, started: dict[str, Running]) -> None:
    """The rounds. A proxy that fails a workload is left out of it from then on."""
    runs: list[tuple[Running, Workload]] = []
    for make, names, least in _TIMED:
        for name in names:
            if name in started:
                with _remarked(bench, started[name].peer, make(1).name):
                    runs.append((started[name], _fit(bench, started[name], make, least)))
    runs += [(started[name], workloads.paced(bench.plan.paced_sessions)) for name in _MAIN + _FLOOR if name in started]
    began = time.monotonic()
    for number in range(bench.plan.rounds):
        if number and time.monotonic() - began > bench.plan.budget:
            break
        _say(f"round {number + 1} of {bench.plan.rounds}, {time.monotonic() - began:.0f} s")
        for running, workload in list(runs):
            try:
                outcome, cpu = bench.run(running, workload, warm=bench.plan.warm and workload.rate is None)
            except LoadError as error:
                bench.remark(f"{running.peer.name}, {workload.name}: {error}")
                runs.remove((running, workload))
            else:
                _record(bench, running.peer, workload, outcome, cpu)
        bench.rounds += 1


@contextmanager
def _remarked(bench: Bench, peer: Peer, task: str) -> Iterator[None]:
    """A proxy that fails in here becomes a remark."""
    try:
        yield
    except (LoadError, PeerError) as error:
        bench.remark(f"{peer.name}, {task}: {error}")


def _some_logins(bench: Bench, running: Running) -> float:
    """CPU of a login, ms, of a pool at rest whose spare processes have served before. Raises LoadError."""
    several, cpu = workloads.login(_WARM_UP * 8), 0.0
    for _ in range(2):
        time.sleep(_SETTLE)  # what sessions before had needed is gone then
        cpu = bench.run(running, several)[1]
    return 1000 * cpu / several.sessions


def measure_memory(bench: Bench, running: Running) -> None:
    """What a session costs that only stays. Raises LoadError."""
    peer = running.peer
    bench.run(running, workloads.login(_WARM_UP * 4))
    time.sleep(_SETTLE)
    empty = running.tree.memory()
    for number, metric in ((_HELD, Metric.IDLE_MEMORY), (_HELD_MANY, Metric.IDLE_MEMORY_2000)):
        if number == _HELD_MANY and not (bench.plan.hold_many and peer.name in _HOLD_MANY):
            continue
        alone = _some_logins(bench, running) if number == _HELD_MANY else 0.0
        load = Load(
            running.port, workloads.login(number), bench.load_cores, suffix=peer.suffix, tls=peer.tls, hold=True
        )
        try:
            load.await_held()
            time.sleep(_SETTLE)
            full = running.tree.memory()
            bench.add(peer, metric, (full.pss - empty.pss) / number)
            if number == _HELD:
                bench.add(peer, Metric.TREE_MEMORY, full.pss / 1024)
            else:
                bench.add(peer, Metric.LOGIN_BESIDE_0, alone)
                bench.add(peer, Metric.LOGIN_BESIDE_2000, _some_logins(bench, running))
        finally:
            load.finish()


def _chosen(bench: Bench, names: Sequence[str]) -> Iterator[Peer]:
    for peer in PEERS:
        if peer.name in names:
            if reason := peer.missing():
                bench.remark(f"{peer.name}: {reason}")
            else:
                yield peer


def measure(bench: Bench, folder: Path, *, speed: bool, memory: bool) -> None:
    """Both phases, each proxy in a folder of its own."""
    peers = list(_chosen(bench, bench.plan.peers))
    if speed:
        with ExitStack() as stack:
            started: dict[str, Running] = {}
            for peer in peers:
                with _remarked(bench, peer, "start"):
                    started[peer.name] = _start(bench, peer, folder)
                    stack.callback(started[peer.name].stop)
            measure_speed(bench, started)
    if memory:
        for peer in (peer for peer in peers if peer.name in _MAIN):
            _say(f"memory: {peer.name}")
            with _remarked(bench, peer, "memory"), ExitStack() as stack:
                running = _start(bench, peer, folder)
                stack.callback(running.stop)
                measure_memory(bench, running)


def _start(bench: Bench, peer: Peer, folder: Path) -> Running:
    return Running(peer, Path(tempfile.mkdtemp(dir=folder)), bench.backend, set(bench.proxy_cores))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.compare", description="pop3gw beside its peers")
    parser.add_argument("--quick", action="store_true", help="a minute: four proxies, three rounds, no 2,000 held")
    parser.add_argument("--rounds", type=int, help="at most so many rounds (7; --quick: 3)")
    parser.add_argument("--budget", type=float, help="begin no round after so many seconds (300; --quick: 20)")
    parser.add_argument("--only", metavar="NAME", nargs="+", help="these proxies: " + " ".join(p.name for p in PEERS))
    parser.add_argument("--cold", action="store_true", help="runs begin with pools at rest: what they fork then counts")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory phase out")
    parser.add_argument("--no-speed", action="store_true", help="leave the rounds out")
    parser.add_argument("--json", metavar="FILE", default=str(BUILD / "bench.json"), help="default: %(default)s")
    parser.add_argument("--picture", metavar="FILE", help="draw it, as SVG (needs matplotlib)")
    parser.add_argument("--strict", action="store_true", help="exit status 1 when a goal was missed by more than noise")
    return parser.parse_args()


def _plan(arguments: argparse.Namespace) -> Plan:
    every = tuple(peer.name for peer in PEERS)
    quick = bool(arguments.quick)
    return Plan(
        peers=tuple(arguments.only or (_QUICK if quick else every)),
        rounds=arguments.rounds or (3 if quick else 7),
        seconds=0.3 if quick else 0.6,
        paced_sessions=75 if quick else 150,
        hold_many=not quick,
        warm=not arguments.cold,
        budget=arguments.budget or (20 if quick else 300),
    )


def main() -> int:
    arguments = _arguments()
    if not (BUILD / "load").exists() or not (BUILD / "backend").exists():
        print("bench: the C tools are missing: make -C bench", file=sys.stderr)
        return 2
    cores = sorted(os.sched_getaffinity(0))
    proxy_cores, load_cores = cores[:1], cores[1:2] or cores[:1]
    os.sched_setaffinity(0, load_cores)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pop3gw-bench-") as name, Backend(load_cores) as backend:
        folder = Path(name)
        folder.chmod(0o755)  # the proxies' unprivileged workers pass through
        bench = Bench(_plan(arguments), proxy_cores, load_cores, backend.port)
        measure(bench, folder, speed=not arguments.no_speed, memory=not arguments.no_memory)
    figures = bench.figures()
    judged = judge(figures, GOALS)
    setting = report.setting(bench.rounds, time.monotonic() - began, proxy_cores, load_cores)
    print(report.text(figures, judged, setting, bench.remarks))
    Path(arguments.json).write_text(report.as_json(figures, judged, setting, bench.remarks))
    if arguments.picture:
        report.draw(figures, Path(arguments.picture), setting)
    missed = [row for row in judged if row.verdict is Verdict.FAIL]
    return 1 if arguments.strict and missed else 0


if __name__ == "__main__":
    sys.exit(main())
