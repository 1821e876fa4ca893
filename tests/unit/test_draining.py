"""Which services are drained after what was said of them, in which order."""

from __future__ import annotations

import pytest

from pop3gw.draining import Draining

PRESENT = ("inbound", "outbound")


@pytest.mark.parametrize(
    ("said", "drained"),
    [
        ([], ""),
        ([("inbound", True)], "inbound"),
        ([("inbound", True), ("inbound", True)], "inbound"),
        ([("inbound", True), ("inbound", False)], ""),
        ([("inbound", False)], ""),
        ([("", True)], "inbound outbound later"),
        ([("", True), ("inbound", False)], "outbound later"),
        ([("", True), ("inbound", False), ("inbound", True)], "inbound outbound later"),
        ([("", True), ("inbound", False), ("", True)], "inbound outbound later"),
        ([("", True), ("", False)], ""),
        ([("inbound", True), ("", False)], ""),
        # Resumed one after another, as if all had been at once.
        ([("", True), ("inbound", False), ("outbound", False)], ""),
        ([("", True), ("inbound", False), ("outbound", False), ("inbound", True)], "inbound"),
    ],
)
def test_what_was_said_last_holds(said: list[tuple[str, bool]], drained: str) -> None:
    draining = Draining()
    for service, on in said:
        draining.say(service, on, PRESENT)
    assert [name for name in (*PRESENT, "later") if draining.holds(name)] == drained.split()


def test_a_service_that_goes_and_comes_again_is_as_it_was() -> None:
    draining = Draining()
    draining.say("inbound", True, PRESENT)
    draining.say("outbound", True, ("outbound",))
    draining.say("outbound", False, ("outbound",))
    assert draining.holds("inbound")
