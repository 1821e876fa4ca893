"""Who is overdue, at made-up times."""

from __future__ import annotations

from pop3gw.patience import Patience
from pop3gw.times import NEVER


def test_where_nothing_is_expected_nobody_is_overdue() -> None:
    patience = Patience()
    patience.expect(1, NEVER)
    assert patience.until == NEVER
    assert patience.overdue(1e9) == []


def test_each_is_overdue_at_its_own_time() -> None:
    patience = Patience()
    for worker, at in ((1, 30.0), (2, 10.0), (3, NEVER), (4, 10.0)):
        patience.expect(worker, at)
    assert patience.until == 10.0
    assert patience.overdue(9.0) == []
    assert patience.overdue(10.0) == [2, 4]
    assert patience.until == 30.0
    assert patience.overdue(30.0) == [1]


def test_one_that_is_still_there_is_overdue_again_much_later() -> None:
    patience = Patience()
    patience.expect(1, 10.0)
    assert patience.overdue(10.0) == [1]
    assert patience.overdue(11.0) == []
    assert patience.until == 40.0
    assert patience.overdue(40.0) == [1]


def test_who_has_moved_on_or_is_gone_is_not_overdue() -> None:
    patience = Patience()
    for worker in (1, 2, 3):
        patience.expect(worker, 10.0)
    patience.expect(1, NEVER)
    patience.expect(2, 20.0)
    patience.forget(3)
    assert patience.overdue(10.0) == []
    assert patience.until == 20.0
