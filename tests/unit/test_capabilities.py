"""CAPA: what stays of a server's list, and the gateway's own."""

from __future__ import annotations

import tracemalloc

import pytest

from pop3gw.proto.capabilities import Capabilities


def listed(usable: str, *lines: str, added: tuple[str, ...] = ()) -> tuple[list[str | None], bytes]:
    capabilities = Capabilities(set(usable.split()).__contains__, lambda: added)
    return capabilities.filtered(list(lines)), capabilities.closing()


def test_what_is_refused_and_what_is_not_relayed_is_taken_out() -> None:
    kept, closing = listed("TOP USER PASS X-OWN", "TOP", "UIDL", "USER", "SASL PLAIN", "STLS", "X-OWN a", "X-OTHER")
    assert kept == ["TOP", None, "USER", None, None, "X-OWN a", None]
    assert closing == b""


def test_what_stands_for_no_command_stays() -> None:
    lines = ["PIPELINING", "RESP-CODES", "AUTH-RESP-CODE", "EXPIRE 60", "LOGIN-DELAY 900", "IMPLEMENTATION any"]
    assert listed("", *lines)[0] == lines


def test_user_needs_pass_as_well() -> None:
    assert listed("USER", "USER")[0] == [None]


def test_sasl_stands_for_auth() -> None:
    assert listed("AUTH", "SASL PLAIN LOGIN")[0] == ["SASL PLAIN LOGIN"]


def test_what_is_added_stands_once_behind_the_list() -> None:
    assert listed("USER PASS", "user", added=("USER", "STLS"))[1] == b"STLS\r\n"
    assert listed("USER PASS", "TOP", added=("USER", "STLS"))[1] == b"USER\r\nSTLS\r\n"


@pytest.mark.parametrize("control", ["\n", "\r", "\t", "\0", "\x1b", "\x7f"])
def test_no_capability_is_hidden_behind_a_control_character(control: str) -> None:
    hidden = (f"IMPLEMENTATION a{control}STLS", f"TOP{control}STLS", f"TOP {control}STLS", f"{control}TOP")
    assert listed("TOP", *hidden, "TOP") == ([None] * 4 + ["TOP"], b"")
    assert listed("USER PASS", f"USER {control}", added=("USER",))[1] == b"USER\r\n"


def test_a_list_without_end_takes_no_memory() -> None:
    capabilities = Capabilities(lambda _name: True, lambda: ["USER"])
    tracemalloc.start()
    for first in range(0, 100_000, 1000):
        capabilities.filtered([f"X-{first + number}" for number in range(1000)])
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 100_000


def test_a_line_that_was_dropped_already_stays_dropped() -> None:
    capabilities = Capabilities(lambda _name: True, list)
    assert capabilities.filtered([None, "TOP"]) == [None, "TOP"]


def test_the_gateways_own_answer() -> None:
    assert Capabilities({"TOP", "UIDL", "USER", "PASS"}.__contains__, list).own() == b"TOP\r\nUIDL\r\nUSER\r\n"
    assert Capabilities({"UIDL"}.__contains__, lambda: ["USER"]).own() == b"UIDL\r\nUSER\r\n"
