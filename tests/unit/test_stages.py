"""Whether a configuration that is tried holds."""

from __future__ import annotations

import pytest

from pop3gw.stages import Stage, Trial, trial

L, R, F, G = Stage.LOADING, Stage.READY, Stage.FAILED, Stage.GONE


@pytest.mark.parametrize(
    ("coming", "serving", "pressing", "expected"),
    [
        ([R, R], [R, R], False, Trial.HOLDS),
        ([R], [G], True, Trial.HOLDS),
        ([R, L], [R, R], False, Trial.GOES_ON),
        ([R, None], [R, R], False, Trial.GOES_ON),
        ([L, L], [G, R], True, Trial.GOES_ON),
        ([R, F], [R, R], False, Trial.FAILED),
        # What else is wrong is waited for, but neither by a service without a template nor by who asks anew.
        ([F, L], [R, None], False, Trial.GOES_ON),
        ([F, L], [R, G], False, Trial.FAILED),
        ([F, L], [R, R], True, Trial.FAILED),
    ],
)
def test_a_configuration_holds_once_every_template_is_ready(
    coming: list[Stage | None], serving: list[Stage | None], pressing: bool, expected: Trial
) -> None:
    assert trial(coming, serving, pressing=pressing) is expected
