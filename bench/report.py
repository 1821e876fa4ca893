"""The figures as text, as JSON and as a picture. Measures nothing."""

from __future__ import annotations

import datetime
import importlib
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.goals import Figures, Judged, Metric
from bench.measure import meter
from bench.peers import GATEWAY, PEERS

_TITLES = {peer.name: peer.title for peer in PEERS}
_TABLES: tuple[tuple[str, tuple[Metric, ...]], ...] = (
    ("CPU", (Metric.LOGIN_CPU, Metric.PACED_CPU, Metric.FETCH_CPU, Metric.BULK_CPU)),
    ("time and memory", (Metric.PACED_P99, Metric.FETCH_P50, Metric.IDLE_MEMORY, Metric.TREE_MEMORY)),
    ("2,000 held", (Metric.IDLE_MEMORY_2000, Metric.LOGIN_BESIDE_0, Metric.LOGIN_BESIDE_2000)),
)
_BASE = "haproxy"  # what the ratios in the tables are to


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how it was measured."""

    when: str
    machine: str
    python: str
    meter: str
    proxy_cores: tuple[int, ...]
    load_cores: tuple[int, ...]
    rounds: int
    seconds: float
    load_average: float


def setting(rounds: int, seconds: float, proxy_cores: Sequence[int], load_cores: Sequence[int]) -> Setting:
    """Of this machine, now."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = models[0].partition(":")[2].strip() if models else platform.machine()
    return Setting(
        when=datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        machine=f"{model}, {os.cpu_count()} cores, Linux {platform.release()}",
        python=_gateway_python(),
        meter=meter(),
        proxy_cores=tuple(proxy_cores),
        load_cores=tuple(load_cores),
        rounds=rounds,
        seconds=round(seconds, 1),
        load_average=os.getloadavg()[1],
    )


def _gateway_python() -> str:
    """Which interpreter runs pop3gw: builds of the same version differ by a third."""
    python = GATEWAY.parent / "python"
    if not python.exists():
        return "none"
    found = subprocess.run([str(python), "-VV"], capture_output=True, text=True, check=False, timeout=30)
    compiled = any(GATEWAY.parents[1].glob("lib/python*/site-packages/pop3gw_worker__mypyc.*.so"))
    return f"{found.stdout.strip()} at {python.resolve()}, pop3gw {'compiled' if compiled else 'interpreted'}"


def text(figures: Figures, judged: Sequence[Judged], where: Setting, remarks: Sequence[str]) -> str:
    """All of it, for a terminal."""
    lines = [f"{where.when}  {where.machine}", where.python]
    lines.append(
        f"proxy on core {_cores(where.proxy_cores)}, load and backend on {_cores(where.load_cores)}; "
        f"{where.rounds} rounds, {where.seconds:.0f} s; CPU by {where.meter}; load average {where.load_average:.1f}"
    )
    for title, metrics in _TABLES:
        lines += ["", *_table(title, figures, metrics)]
    lines += ["", *_goal_table(judged)]
    if remarks:
        lines += ["", "Not measured:", *(f"  {remark}" for remark in remarks)]
    return "\n".join(lines)


def _cores(cores: Sequence[int]) -> str:
    return ",".join(str(core) for core in cores)


def _table(title: str, figures: Figures, metrics: Sequence[Metric]) -> list[str]:
    """Median, spread, and the ratio to haproxy, a proxy a line; nothing where nothing was measured."""
    names = [name for name in _TITLES if any((name, metric) in figures for metric in metrics)]
    if not names:
        return [f"{title}: nothing was measured"]
    head = [f"{title} (median ±spread, x {_BASE})", *(f"{metric.title}, {metric.unit}" for metric in metrics)]
    rows = [[_TITLES[name], *(_cell(figures, name, metric) for metric in metrics)] for name in names]
    return _aligned([head, *rows])


def _cell(figures: Figures, name: str, metric: Metric) -> str:
    figure = figures.get((name, metric))
    if figure is None:
        return "-"
    base = figures.get((_BASE, metric))
    spread = f" ±{figure.spread:.0%}" if len(figure.samples) > 1 else ""
    ratio = f" x{figure.median / base.median:.2f}" if base and base.median > 0 else ""
    return f"{_number(figure.median)}{spread}{ratio}"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _goal_table(judged: Sequence[Judged]) -> list[str]:
    rows = [["goal", "proxy", "value", "limit", "that is at most", "ratio found", "verdict"]]
    for row in judged:
        goal = row.goal
        of = "itself" if goal.reference == goal.proxy else goal.reference
        rows.append(
            [
                goal.row,
                goal.proxy,
                "-" if row.value is None else f"{_number(row.value)} {goal.metric.unit}",
                "-" if row.limit is None else _number(row.limit),
                f"{goal.factor:.3g} x {of}" if of else f"{goal.factor:.3g} {goal.metric.unit}",
                "-" if row.ratio is None else f"{row.ratio:.2f}",
                row.verdict.value,
            ]
        )
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def as_json(figures: Figures, judged: Sequence[Judged], where: Setting, remarks: Sequence[str]) -> str:
    """All of it, for a program: every sample too."""
    found: dict[str, dict[str, object]] = {}
    for (name, metric), figure in figures.items():
        found.setdefault(name, {})[metric.name.lower()] = {
            "unit": metric.unit,
            "median": figure.median,
            "spread": figure.spread,
            "samples": figure.samples,
        }
    goals = [
        {
            "goal": row.goal.row,
            "proxy": row.goal.proxy,
            "metric": row.goal.metric.name.lower(),
            "factor": row.goal.factor,
            "reference": row.goal.reference,
            "value": row.value,
            "limit": row.limit,
            "ratio": row.ratio,
            "verdict": row.verdict.value,
        }
        for row in judged
    ]
    setting_fields = {name: getattr(where, name) for name in Setting.__slots__}
    return json.dumps({"setting": setting_fields, "figures": found, "goals": goals, "remarks": list(remarks)}, indent=1)


_DRAWN = (
    Metric.LOGIN_CPU,
    Metric.PACED_CPU,
    Metric.FETCH_CPU,
    Metric.FETCH_P50,
    Metric.BULK_CPU,
    Metric.IDLE_MEMORY,
)
_SHORT = {
    "haproxy": "haproxy (TCP)",
    "nginx": "nginx mail",
    "dovecot-shared": "Dovecot, shared",
    "dovecot-single": "Dovecot, process each",
    "emailproxy": "email-oauth2-proxy",
    "perdition": "perdition",
    "pop3gw-1": "pop3gw, process each",
    "pop3gw-200": "pop3gw, 200 a worker",
}


def draw(figures: Figures, file: Path, where: Setting) -> None:
    """A panel a metric, a bar a proxy, on a logarithmic scale. Raises ImportError without matplotlib."""
    importlib.import_module("matplotlib").use("svg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    pyplot.rcParams.update({"svg.hashsalt": "pop3gw", "svg.fonttype": "none", "font.size": 8})
    picture, axes = pyplot.subplots(2, 3, figsize=(11, 5.6), layout="constrained")
    for axis, metric in zip(axes.flat, _DRAWN, strict=True):
        names = [name for name in reversed(_SHORT) if (name, metric) in figures]
        medians = [max(figures[name, metric].median, 0.001) for name in names]
        colours = ["#c0392b" if name.startswith("pop3gw") else "#7f8c8d" for name in names]
        bars = axis.barh([_SHORT[name] for name in names], medians, color=colours)
        axis.bar_label(bars, [_number(median) for median in medians], padding=2)
        if medians:
            axis.set_xscale("log")
            axis.set_xlim(min(medians) / 2, max(medians) * 4)
        axis.set_title(f"{metric.title}\n{metric.unit}", fontsize=9)
        axis.tick_params(axis="x", which="both", labelsize=6)
        axis.spines[["top", "right"]].set_visible(False)
    picture.suptitle(f"pop3gw and its peers: less is better, logarithmic ({where.when[:10]}, {where.rounds} rounds)")
    picture.savefig(file, metadata={"Date": None})
    pyplot.close(picture)
