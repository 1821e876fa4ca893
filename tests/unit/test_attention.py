"""Whether workers are heard at once."""

from __future__ import annotations

import pytest

from pop3gw.attention import BRISK, Attention


@pytest.mark.parametrize(
    ("came", "until"),
    [
        ([], 0.0),
        ([100.0], 0.0),
        ([100.0, 100.0 + BRISK], 100.0 + 2 * BRISK),
        ([100.0, 100.1, 100.2], 100.2 + BRISK),
        ([100.0, 100.0 + 1.5 * BRISK], 0.0),
        ([100.0, 100.1, 101.0], 100.1 + BRISK),
    ],
)
def test_workers_may_wait_only_while_clients_follow_one_another(came: list[float], until: float) -> None:
    attention = Attention()
    for now in came:
        attention.came(now)
    assert attention.at_once(until)
    assert attention.at_once(until - 0.01) is (until == 0.0)
