"""Where a session's time goes: `bench/profile`, a sampling profile of a gateway under one of the workloads.

Samples the whole process tree by py-spy while the load generator keeps it busy, and prints which functions the samples
were in (self), and which had called them (all). Time within the kernel counts to the function that made the call.
What runs is the checkout, interpreted: compiled functions are no frames that the sampler knows.
Known limit: the sampler cannot tell a process that waits for events from one that is about to leave it, so samples
there are counted apart and left out of the shares. For instructions instead of samples, and for what is compiled, see
docs/performance.md.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from bench import workloads
from bench.peers import PEERS, REPOSITORY, Running
from bench.workloads import Backend, Load, Workload

_WORKLOADS: dict[str, Callable[[int], Workload]] = {
    "login": workloads.login,
    "fetch": workloads.fetch,
    "bulk": workloads.bulk,
    "paced": workloads.paced,
}
_SPY = Path(sys.executable).with_name("py-spy")
_WAITING = ("Poller.poll", "wait (pop3gw/waiting.py")  # where the gateway's loops wait


def shares(stacks: Iterable[str]) -> tuple[Counter[str], Counter[str], int]:
    """Of "outer;inner COUNT" lines: samples by function, where it was itself at work and where it was on the stack;
    and how many waited for events, which the others leave out.
    """
    waiting = 0
    alone: Counter[str] = Counter()
    with_callees: Counter[str] = Counter()
    for line in stacks:
        stack, _, count = line.rstrip().rpartition(" ")
        frames = [frame for frame in stack.split(";") if not frame.startswith("process ")]
        if not frames:
            continue
        if frames[-1].startswith(_WAITING):
            waiting += int(count)
            continue
        alone[frames[-1]] += int(count)
        for frame in set(frames):
            with_callees[frame] += int(count)
    return alone, with_callees, waiting


def _print(alone: Counter[str], with_callees: Counter[str], waiting: int, rows: int) -> None:
    total = sum(alone.values()) or 1
    print(f"{total} samples, {waiting} more that waited")
    for title, counts in (("self", alone), ("all", with_callees)):
        print(f"\n{title:>6}  function")
        for name, count in counts.most_common(rows):
            print(f"{count / total:6.1%}  {name}")


def main() -> int:
    names = [peer.name for peer in PEERS if peer.name.startswith("pop3gw")]
    parser = argparse.ArgumentParser(prog="bench/profile", description="where a session's time goes")
    parser.add_argument("workload", choices=sorted(_WORKLOADS))
    parser.add_argument("--proxy", choices=names, default="pop3gw-200")
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--rows", type=int, default=30)
    parser.add_argument("--lines", action="store_true", help="lines of the source instead of functions")
    parser.add_argument("--stacks", metavar="FILE", help="keep the collapsed stacks, as flame graph tools read them")
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = str(REPOSITORY)
    cores = sorted(os.sched_getaffinity(0))
    peer = next(peer for peer in PEERS if peer.name == arguments.proxy)
    with tempfile.TemporaryDirectory(prefix="pop3gw-bench-") as name, Backend(cores[1:2] or cores) as backend:
        folder = Path(name)
        stacks = folder / "stacks"
        running = Running(peer, folder, backend.port, set(cores[:1]))
        try:
            root = min(running.tree.pids())
            command = [str(_SPY), "record", "--subprocesses", "--rate", "400", "--format", "raw", "--nonblocking"]
            command += [] if arguments.lines else ["--function"]
            command += ["--pid", str(root), "--duration", str(arguments.seconds), "--output", str(stacks)]
            spy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            while spy.poll() is None:
                workload = _WORKLOADS[arguments.workload](100)
                Load(running.port, workload, cores[1:2] or cores, tls=peer.tls).finish()
            if spy.returncode != 0 or not stacks.exists():
                print(spy.stderr.read() if spy.stderr else "py-spy failed", file=sys.stderr)
                return 1
        finally:
            running.stop()
        lines = stacks.read_text().splitlines()
        if arguments.stacks:
            Path(arguments.stacks).write_text("\n".join(lines) + "\n")
    _print(*shares(lines), rows=arguments.rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
