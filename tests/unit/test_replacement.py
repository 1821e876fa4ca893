"""When a template that has ended gets a successor."""

from __future__ import annotations

from pop3gw.replacement import LIVED, Replacement
from pop3gw.times import NEVER


def test_one_that_had_lived_is_replaced_at_once_and_one_that_had_not_ever_later() -> None:
    replacement = Replacement()
    begins, now = [], 100.0
    for _ in range(3):
        replacement.gone(0.0, now, awaited=False)
        begins.append(replacement.at - now)
        now = replacement.at
        replacement.started()
        replacement.settled()
    assert begins == [0.0, 1.0, 2.0]
    replacement.gone(LIVED + 1, now, awaited=False)
    assert replacement.at == now


def test_successors_that_fail_are_tried_ever_later_and_serve_unasked() -> None:
    replacement = Replacement()
    replacement.gone(LIVED + 1, 100.0, awaited=False)
    waits, now = [], 100.0
    for _ in range(3):
        replacement.started()
        assert (replacement.comes, replacement.at) == (True, NEVER)
        waits.append(replacement.failed(now))
        assert (replacement.comes, replacement.at) == (False, now + waits[-1])
        now = replacement.at
    assert waits == [1.0, 2.0, 4.0]


def test_nobody_is_replaced_who_has_a_successor_already_or_needs_none() -> None:
    awaited, needless = Replacement(), Replacement()
    awaited.gone(0.0, 100.0, awaited=True)
    assert awaited.at == NEVER
    awaited.wanted(101.0)  # it does not come after all
    assert awaited.at == 101.0
    needless.leave()
    needless.gone(0.0, 100.0, awaited=False)
    assert needless.at == NEVER
