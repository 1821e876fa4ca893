"""The reports of full pools, from spells at made-up times."""

from __future__ import annotations

import pytest

from pop3gw.congestion import QUIET, Congestion
from pop3gw.times import NEVER


@pytest.fixture
def congestion() -> Congestion:
    congestion = Congestion(affordable=100)
    congestion.begin(workers=3, seats=50)
    return congestion


@pytest.mark.parametrize("earliest", [-NEVER, 7.0])
def test_the_first_spell_is_reported_as_soon_as_the_caller_would(congestion: Congestion, earliest: float) -> None:
    assert congestion.due(0, earliest) == earliest


def test_a_spell_is_reported_once(congestion: Congestion) -> None:
    congestion.report(0, 0.0)
    assert congestion.due(0, 0.0) == NEVER


@pytest.mark.parametrize(("earliest", "due"), [(1.0, QUIET), (QUIET + 1, QUIET + 1)])
def test_the_next_spell_is_reported_once_it_may(congestion: Congestion, earliest: float, due: float) -> None:
    congestion.report(0, 0.0)
    assert congestion.due(1, earliest) == due


def test_with_other_settings_the_next_spell_is_news_and_this_one_is_not(congestion: Congestion) -> None:
    congestion.report(0, 0.0)
    congestion.begin(workers=4, seats=50)
    assert congestion.due(0, 1.0) == NEVER
    assert congestion.due(1, 1.0) == 1.0


@pytest.mark.parametrize(
    ("affordable", "more"),
    [
        (50, "sessions_per_worker (now 50)"),
        (49, "the limit of descriptors (LimitNOFILE, ulimit -n), which leaves a worker 49 of its 50 sessions"),
    ],
)
def test_the_report_says_what_would_give_room(affordable: int, more: str) -> None:
    congestion = Congestion(affordable)
    congestion.begin(workers=3, seats=50)
    assert congestion.report(0, 0.0) == (
        f"all 3 workers are taken and new clients wait; where the machine has room, raise max_workers (now 3) or {more}"
    )
