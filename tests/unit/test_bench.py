"""The benchmark's arithmetic, and that its two C programs speak POP3 with each other. No test asserts a time."""

from __future__ import annotations

import json
import os
import poplib
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name

import pytest

from bench import profiling, report, usual, workloads
from bench.goals import GOALS, Figure, Goal, Metric, Verdict, judge
from bench.measure import Tree
from bench.peers import PEERS
from bench.workloads import Backend, Load, LoadError

BENCH = Path(workloads.__file__).parent
CORES = sorted(os.sched_getaffinity(0))


def test_a_figure_is_its_median_and_half_the_range_of_its_quartiles() -> None:
    figure = Figure((4.0, 1.0, 2.0, 3.0, 5.0))
    assert figure.median == 3.0
    assert figure.spread == pytest.approx(1 / 3)
    assert Figure((7.0,)).spread == 0.0
    assert Figure((0.0, 0.0)).spread == 0.0


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (1.0, Verdict.PASS),
        (1.9, Verdict.CLOSE_PASS),
        (2.0, Verdict.CLOSE_PASS),
        (2.1, Verdict.CLOSE_FAIL),
        (2.4, Verdict.FAIL),
    ],
)
def test_a_ratio_is_judged_against_the_reference_of_the_same_run(value: float, verdict: Verdict) -> None:
    goal = Goal("login", "pop3gw-200", Metric.LOGIN_CPU, 2.0, "haproxy")
    figures = {
        ("pop3gw-200", Metric.LOGIN_CPU): Figure((value,)),
        ("haproxy", Metric.LOGIN_CPU): Figure((1.0,)),
    }
    (judged,) = judge(figures, [goal])
    assert judged.verdict is verdict
    assert judged.limit == 2.0
    assert judged.ratio == pytest.approx(value)


def test_an_absolute_goal_needs_no_reference_and_a_missing_figure_is_no_pass() -> None:
    goal = Goal("lines", "pop3gw-lines-1", Metric.BULK_CPU, 16.0)
    figures = {("pop3gw-lines-1", Metric.BULK_CPU): Figure((8.0,))}
    assert judge(figures, [goal])[0].verdict is Verdict.PASS
    assert judge(figures, [goal])[0].ratio == 0.5
    assert judge({}, [goal])[0].verdict is Verdict.UNMEASURED


def test_every_goal_names_proxies_that_exist() -> None:
    names = {peer.name for peer in PEERS}
    assert {goal.proxy for goal in GOALS} <= names
    assert {goal.reference for goal in GOALS} - {None} <= names


def test_the_report_holds_every_figure_and_verdict() -> None:
    figures = {
        ("haproxy", Metric.LOGIN_CPU): Figure((0.2, 0.2, 0.2)),
        ("pop3gw-200", Metric.LOGIN_CPU): Figure((0.3, 0.3, 0.3)),
    }
    judged = judge(figures, GOALS)
    setting = report.setting(3, 1.0, [0], [1])
    text = report.text(figures, judged, setting, ["perdition: not installed"])
    assert "0.30 ±0% x1.50" in text
    assert "perdition: not installed" in text
    document = json.loads(report.as_json(figures, judged, setting, []))
    assert document["figures"]["pop3gw-200"]["login_cpu"]["samples"] == [0.3, 0.3, 0.3]
    assert len(document["goals"]) == len(GOALS)


def test_samples_are_shared_out_to_functions() -> None:
    stacks = [
        "process 1:x;run;read 3",
        "process 1:x;run;run 2",
        "run 1",
        "run;Poller.poll (pop3gw/poller.py:81) 4",
        "run;Poller.poll (pop3gw/poller.py:81);wait (pop3gw/waiting.py:12) 3",
    ]
    alone, with_callees, waiting = profiling.shares(stacks)
    assert alone == {"read": 3, "run": 3}
    assert with_callees == {"read": 3, "run": 6}
    assert waiting == 7


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    subprocess.run(["make", "--silent", "-C", str(BENCH)], check=True, timeout=100)
    with Backend(CORES) as running:
        yield running


def test_the_backend_speaks_pop3(backend: Backend) -> None:
    client = poplib.POP3("127.0.0.1", backend.port, timeout=10)
    client.user("3x1000")
    client.pass_("secret")
    assert client.stat() == (3, 3000)
    _, lines, octets = client.retr(2)
    assert octets + sum(line.startswith(b".") for line in lines) == 1000  # poplib has taken the stuffed dots out
    assert any(line.startswith(b".") for line in lines)
    assert len(client.list()[1]) == len(client.uidl()[1]) == 3
    with pytest.raises(poplib.error_proto):
        client.retr(4)
    client.quit()


@pytest.mark.parametrize("workload", [workloads.login(5), workloads.fetch(5), workloads.bulk(5)], ids=lambda w: w.name)
def test_the_load_generator_gets_what_the_backend_sends(backend: Backend, workload: workloads.Workload) -> None:
    outcome = Load(backend.port, workload, CORES).finish()
    assert outcome.sessions == 5
    assert outcome.octets == 5 * workload.messages * workload.octets


def test_held_sessions_stay_until_they_are_told(backend: Backend) -> None:
    load = Load(backend.port, workloads.login(20), CORES, hold=True)
    load.await_held()
    assert Load(backend.port, workloads.login(5), CORES).finish().sessions == 5
    assert load.finish().sessions == 20


def test_a_failed_session_is_an_error(backend: Backend) -> None:
    elsewhere = workloads.Workload("fetch", sessions=2, messages=1, octets=1)
    with pytest.raises(LoadError):
        Load(backend.port, elsewhere, CORES).finish()


def test_the_cpu_of_dead_children_counts_and_none_outlives_the_tree(tmp_path: Path) -> None:
    child = "for n in 1 2 3; do (i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done); done; sleep 60 & : >done; wait"
    tree = Tree(["/bin/sh", "-c", f"cd {tmp_path}; {child}"], cores=set(CORES), log=tmp_path / "log")
    try:
        deadline = time.monotonic() + 30
        # A process that is just becoming another program has no memory to tell of.
        while not (tmp_path / "done").exists() or tree.memory().processes < 2:
            assert tree.alive
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert tree.cpu() > 0
        assert tree.memory().processes == 2
        pids = tree.pids()
    finally:
        tree.stop()
    assert [pid for pid in pids if _runs(pid)] == []


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_calls_are_counted_by_function_wherever_it_was_named_first() -> None:
    profile = """
fn=(1) _PyEval_EvalFrameDefault
3 20
cfn=(2) CPyDef_pop3gw___pool___Pool___take
calls=3 40
3 100
fn=(2)
40 90
cfn=(3) PyDict_New
calls=9 0
41 7
fn=(4) CPyDef_pop3gw___relay___Relay___settle
cfn=(2)
calls=4 40
12 90
"""
    assert usual.calls(profile) == {"CPyDef_pop3gw___pool___Pool___take": 7}


def test_what_is_said_to_be_usual_is_there() -> None:
    """Where this fails after something was renamed: make -C bench usual."""
    for name in usual.LISTED.read_text().split():
        place = name.partition("_pop3gw___")[2].replace("___", ".")
        # What mypyc adds to a class is not of the source.
        resolve_name("pop3gw." + re.sub(r"(?:__mypyc__)?(\w+)_(?:setup|clear)$", r"\1", place))
