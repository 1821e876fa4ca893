"""What is counted: where each counter stands, and that its labels are few and known."""

from __future__ import annotations

from pop3gw.policy import Pop3Proxy
from pop3gw.proto import counts
from pop3gw.proto.commands import COMMANDS
from pop3gw.proto.events import Ending, Side


def test_families_stand_one_behind_the_other() -> None:
    end = 0
    for family in counts.FAMILIES:
        assert family.at == end
        end += family.size
    assert end == counts.COUNTERS
    assert len({family.name for family in counts.FAMILIES}) == len(counts.FAMILIES)


def test_each_combination_of_labels_has_a_place_of_its_own() -> None:
    for family in counts.FAMILIES:
        if not family.buckets:
            places = [at for _, at in family.rows()]
            assert places == list(range(family.at, family.at + family.size))
            assert all(family.index(*values) == at for values, at in family.rows())


def test_what_sessions_count_by_is_what_the_labels_say() -> None:
    assert counts.REQUEST_AT["RETR"] + counts.ABORTED == counts.REQUESTS.index("RETR", "aborted")
    assert set(counts.REQUEST_AT) == {*COMMANDS, "other"}
    assert counts.LOGIN_OK["PASS"] == counts.LOGINS.index("user", "ok")
    assert {name for name, row in COMMANDS.items() if row.way is not None} == set(counts.LOGIN_FAILED)
    assert counts.ENDED_AT[Ending.KILLED, Side.GATEWAY] == counts.SESSIONS_ENDED.index("killed", "gateway")


def test_a_bucket_holds_what_is_at_most_its_bound() -> None:
    family = counts.SESSION_SECONDS
    assert counts.bucket(family, 0.05) == family.at
    assert counts.bucket(family, 0.0500001) == family.at + 1
    assert counts.bucket(family, 1e9) == counts.sum_at(family) - 1


def test_callbacks_are_the_methods_of_the_class_and_what_it_derives_from() -> None:
    class Office(Pop3Proxy):
        limit = 3

        def greet(self, text: str) -> None: ...

        def __repr__(self) -> str:
            return ""

    class Branch(Office):
        def __init__(self) -> None: ...

    assert counts.callback_names(Branch) == ("other", "__init__", "config", "greet")


def test_callbacks_are_bounded() -> None:
    many = type("Many", (Pop3Proxy,), {f"call{number:03}": lambda _self: None for number in range(100)})
    assert len(counts.callback_names(many)) == counts.CALLBACKS


def test_a_callback_named_other_has_the_place_of_the_others() -> None:
    class Odd(Pop3Proxy):
        def other(self, text: str) -> None: ...

    assert counts.callback_names(Odd) == ("other", "config")
