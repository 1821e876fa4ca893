"""What must hold between the figures, as a table, and the verdict on each row. Pure.

The goals are ratios within one run: of two proxies, or of pop3gw to itself; a figure alone says little on another
machine. A verdict is about the medians; one that is within `NOISE` of its limit is marked: a second run may turn it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

NOISE = 0.15  # two runs of the same thing differ by as much


class Metric(Enum):
    """A figure of one proxy: value in the samples, unit, and how it is told."""

    LOGIN_CPU = ("login CPU", "ms/session")
    PACED_CPU = ("paced login CPU", "ms/session")
    PACED_P99 = ("paced login p99", "ms")
    FETCH_CPU = ("fetch CPU", "ms/session")
    FETCH_P50 = ("fetch p50", "ms")
    BULK_CPU = ("bulk CPU", "s/GiB")
    IDLE_MEMORY = ("memory per idle session, 500 held", "KiB")
    TREE_MEMORY = ("whole tree, 500 held", "MiB")
    IDLE_MEMORY_2000 = ("memory per idle session, 2,000 held", "KiB")
    LOGIN_BESIDE_0 = ("login CPU, nobody else there", "ms/session")
    LOGIN_BESIDE_2000 = ("login CPU beside 2,000 idle sessions", "ms/session")

    def __init__(self, title: str, unit: str) -> None:
        self.title = title
        self.unit = unit


@dataclass(frozen=True, slots=True)
class Figure:
    """The samples of one metric of one proxy."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """Half of the range between the quartiles, as a share of the median; 0 for a single sample."""
        if len(self.samples) < 2 or not self.median:
            return 0.0
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return (high - low) / 2 / self.median


Figures = Mapping[tuple[str, Metric], Figure]  # by name of the proxy


class Verdict(Enum):
    PASS = "pass"
    CLOSE_PASS = "pass, within noise"
    CLOSE_FAIL = "FAIL, within noise"
    FAIL = "FAIL"
    UNMEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Goal:
    """`metric` of `proxy` is at most `factor` times `reference_metric` of `reference`, or at most `factor` itself."""

    row: str
    proxy: str
    metric: Metric
    factor: float
    reference: str | None = None
    reference_metric: Metric | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A goal with what was found: None where a figure is missing."""

    goal: Goal
    value: float | None
    limit: float | None

    @property
    def ratio(self) -> float | None:
        """The value as a share of what it is compared with (of the limit itself, for an absolute goal)."""
        if self.value is None or not self.limit:
            return None
        share = self.value / self.limit
        return share * self.goal.factor if self.goal.reference else share

    @property
    def verdict(self) -> Verdict:
        if self.value is None or not self.limit:
            return Verdict.UNMEASURED
        share = self.value / self.limit
        if share <= 1:
            return Verdict.PASS if share <= 1 / (1 + NOISE) else Verdict.CLOSE_PASS
        return Verdict.CLOSE_FAIL if share <= 1 + NOISE else Verdict.FAIL


def judge(figures: Figures, goals: Sequence[Goal]) -> list[Judged]:
    """Each goal in its turn."""
    return [_judge(figures, goal) for goal in goals]


def _judge(figures: Figures, goal: Goal) -> Judged:
    figure = figures.get((goal.proxy, goal.metric))
    value = figure.median if figure else None
    if goal.reference is None:
        return Judged(goal, value, goal.factor)
    reference = figures.get((goal.reference, goal.reference_metric or goal.metric))
    return Judged(goal, value, goal.factor * reference.median if reference else None)


# Row; metric; for one session a worker, and for 200: (at most so many times, this proxy) pairs.
_COMPARED: tuple[tuple[str, Metric, tuple[tuple[float, str], ...], tuple[tuple[float, str], ...]], ...] = (
    (
        "login",
        Metric.LOGIN_CPU,
        ((4, "haproxy"), (1 / 8, "perdition"), (1 / 15, "dovecot-single")),
        ((2, "haproxy"), (0.85, "dovecot-shared")),
    ),
    ("paced login", Metric.PACED_CPU, ((2, "haproxy"),), ((1.75, "haproxy"),)),
    ("paced login, p99", Metric.PACED_P99, ((1.5, "haproxy"),), ((1.5, "haproxy"),)),
    ("fetch", Metric.FETCH_CPU, ((1.5, "dovecot-shared"),), ((0.9, "dovecot-shared"),)),
    ("fetch, p50", Metric.FETCH_P50, ((1.75, "haproxy"),), ((1.75, "haproxy"),)),
    ("bulk", Metric.BULK_CPU, ((0.9, "haproxy"),), ((0.75, "haproxy"),)),
    ("idle session", Metric.IDLE_MEMORY, ((2, "dovecot-single"),), ((0.3, "dovecot-shared"),)),
    ("whole tree, 500 held", Metric.TREE_MEMORY, (), ((1, "dovecot-shared"),)),
)
_LINES_MIB_PER_SECOND = 60  # through a callback on every line of RETR


def _goals() -> Iterator[Goal]:
    for row, metric, single, dense in _COMPARED:
        for mode, limits in (("1", single), ("200", dense)):
            for factor, reference in limits:
                yield Goal(row, f"pop3gw-{mode}", metric, factor, reference)
    for mode in ("1", "200"):
        proxy = f"pop3gw-{mode}"
        linear = 1 + NOISE
        yield Goal("2,000 held", proxy, Metric.IDLE_MEMORY_2000, linear, proxy, Metric.IDLE_MEMORY)
        yield Goal("beside 2,000", proxy, Metric.LOGIN_BESIDE_2000, linear, proxy, Metric.LOGIN_BESIDE_0)
        yield Goal("callbacks on USER, PASS", f"pop3gw-login-{mode}", Metric.LOGIN_CPU, 1.3, proxy)
        yield Goal("callback on each line", f"pop3gw-lines-{mode}", Metric.BULK_CPU, 1024 / _LINES_MIB_PER_SECOND)
        yield Goal("TLS 1.3, bulk", f"pop3gw-tls-{mode}", Metric.BULK_CPU, 1.3, "dovecot-tls")
        yield Goal("TLS 1.3, login", f"pop3gw-tls-{mode}", Metric.LOGIN_CPU, 1.5, "dovecot-tls")


GOALS: tuple[Goal, ...] = tuple(_goals())
