"""Which compiled functions a usual session calls: `make -C bench usual` finds it out, and writes `bench/usual.txt`.

The compiler puts these side by side (setup.py), for fewer pages that a process which was asleep has to fetch. A gateway
runs in each of its modes under callgrind, twice, and what is called at least once more for each session more, by all of
its processes together, is usual. Names are those of C. A list that is out of date costs time and nothing else.
Known limit: it needs valgrind, and takes a minute.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench import workloads
from bench.peers import PEERS, Peer, Running, Site
from bench.workloads import Backend, Load

LISTED = Path(__file__).with_name("usual.txt")
_MODES = ("pop3gw-1", "pop3gw-200")
_PATIENCE = 120.0  # s until a gateway greets; in callgrind it is slow
_FEW, _MORE = 16, 64  # sessions
_NAMED = re.compile(r"^c?fn=\((\d+)\) (CPy(?:Def|Py)_\w+)", re.MULTILINE)
_CALLS = re.compile(r"^cfn=\((\d+)\).*\ncalls=(\d+)", re.MULTILINE)


def calls(profile: str) -> Counter[str]:
    """How often each compiled function was called, of what callgrind has written about one process."""
    names = dict(_NAMED.findall(profile))
    counted: Counter[str] = Counter()
    for number, times in _CALLS.findall(profile):
        if number in names:
            counted[names[number]] += int(times)
    return counted


def _observed(peer: Peer, folder: Path) -> Peer:
    """The same gateway under callgrind, which writes a file for each process into that folder."""
    callgrind = ["valgrind", "--tool=callgrind", "--trace-children=yes", f"--callgrind-out-file={folder}/%p"]

    def command(site: Site) -> Sequence[str]:
        program, *arguments = peer.command(site)
        return [*callgrind, str(Path(program).with_name("python")), program, *arguments]

    return replace(peer, command=command)


def _called(peer: Peer, sessions: int, backend: Backend, cores: Sequence[int]) -> Counter[str]:
    with tempfile.TemporaryDirectory(prefix="pop3gw-bench-") as name:
        written = Path(name, "profiles")
        written.mkdir()
        written.chmod(0o777)  # by processes without privileges, too
        running = Running(_observed(peer, written), Path(name), backend.port, set(cores), patience=_PATIENCE)
        try:
            # One at a time: a process that is forked beside others has all the calls of its parent once more.
            Load(running.port, replace(workloads.fetch(sessions), at_once=1), cores).finish()
        finally:
            running.stop()
        return sum((calls(profile.read_text()) for profile in written.iterdir()), Counter())


def usual() -> set[str]:
    """What sessions call, in any of the modes."""
    cores = sorted(os.sched_getaffinity(0))
    found: set[str] = set()
    with Backend(cores) as backend:
        for peer in (peer for peer in PEERS if peer.name in _MODES):
            grown = _called(peer, _MORE, backend, cores)
            grown.subtract(_called(peer, _FEW, backend, cores))
            found |= {function for function, times in grown.items() if times >= _MORE - _FEW}
    return found


def main() -> int:
    if shutil.which("valgrind") is None:
        print("this needs valgrind: apt-get install valgrind", file=sys.stderr)
        return 1
    found = usual()
    if not found:
        print("no compiled function was seen: is .venv/bin/pop3gw compiled?", file=sys.stderr)
        return 1
    LISTED.write_text("".join(f"{name}\n" for name in sorted(found)))
    print(f"{len(found)} functions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
