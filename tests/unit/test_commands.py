"""The command table: each row's argument check and shape, and what a log may show of a request."""

from __future__ import annotations

import pytest

from pop3gw.policy import AbstractPop3Proxy
from pop3gw.proto.commands import COMMANDS, BadArgumentError, Secret, Shape, State, octets, redacted, unknown

LIMITS = AbstractPop3Proxy()
DIGEST = "0123456789abcdefABCDEF0123456789"
NUMBERS = ["1", "0000000001", "4294967295", "9999999999"]
NO_NUMBERS = [
    "",
    "0",
    "00",
    "-1",
    "+1",
    "1 ",
    " 1",
    "1x",
    "x",
    "1.0",
    "0x1",
    "12345678901",
    "1" * 30,
    "\u0661",
    "\u00b2",
]


@pytest.mark.parametrize("name", ["STAT", "RSET", "NOOP", "LAST", "QUIT", "CAPA", "UTF8", "STLS"])
@pytest.mark.parametrize("argument", ["", "2", "any thing"])
def test_arguments_that_are_dropped(name: str, argument: str) -> None:
    assert COMMANDS[name].argument(argument, LIMITS) == ""


@pytest.mark.parametrize("name", ["RETR", "DELE", "LIST", "UIDL"])
@pytest.mark.parametrize("argument", NUMBERS)
def test_message_numbers(name: str, argument: str) -> None:
    assert COMMANDS[name].argument(argument, LIMITS) == argument


@pytest.mark.parametrize("name", ["RETR", "DELE", "LIST", "UIDL", "TOP"])
@pytest.mark.parametrize("argument", NO_NUMBERS)
def test_what_is_no_message_number(name: str, argument: str) -> None:
    if not argument and name in ("LIST", "UIDL"):
        assert COMMANDS[name].argument(argument, LIMITS) == ""
        return
    with pytest.raises(BadArgumentError):
        COMMANDS[name].argument(argument, LIMITS)


@pytest.mark.parametrize(
    ("argument", "good"),
    [
        ("1 0", True),
        ("1 10", True),
        ("9999999999 9999999999", True),
        ("0 1", False),
        ("1", False),
        ("1  1", False),
        ("1 -1", False),
        ("1 1 1", False),
        ("1 \u0661", False),
        ("1 12345678901", False),
    ],
)
def test_top_takes_a_number_and_a_count(argument: str, good: bool) -> None:
    if good:
        assert COMMANDS["TOP"].argument(argument, LIMITS) == argument
        return
    with pytest.raises(BadArgumentError):
        COMMANDS["TOP"].argument(argument, LIMITS)


@pytest.mark.parametrize(("name", "limit"), [("USER", "max_username_length"), ("PASS", "max_password_length")])
def test_names_and_passwords_have_limits_in_octets(name: str, limit: str) -> None:
    limits = AbstractPop3Proxy()
    setattr(limits, limit, 4)
    assert COMMANDS[name].argument("\u00e9\u00e9", limits) == "\u00e9\u00e9"
    for bad in ("", "12345", "\u00e9\u00e9x"):
        with pytest.raises(BadArgumentError):
            COMMANDS[name].argument(bad, limits)


@pytest.mark.parametrize(
    ("argument", "good"),
    [
        (f"alice {DIGEST}", True),
        (f"alice {DIGEST[:-1]}", False),
        (f"alice {DIGEST}0", False),
        (f"alice  {DIGEST}", False),
        (f" {DIGEST}", False),
        (DIGEST, False),
        (f"alice {DIGEST[:-1]}g", False),
        (f"{'x' * 250} {DIGEST}", True),
        (f"{'x' * 251} {DIGEST}", False),
    ],
)
def test_apop_takes_a_name_and_a_digest(argument: str, good: bool) -> None:
    if good:
        assert COMMANDS["APOP"].argument(argument, LIMITS) == argument
        return
    with pytest.raises(BadArgumentError):
        COMMANDS["APOP"].argument(argument, LIMITS)


@pytest.mark.parametrize("argument", ["", "PLAIN", "SCRAM-SHA-256", "plain dGVzdA==", "PLAIN ="])
def test_auth_takes_a_mechanism_and_an_initial_response(argument: str) -> None:
    assert COMMANDS["AUTH"].argument(argument, LIMITS) == argument


@pytest.mark.parametrize("argument", ["PLAIN dGVzdA== x", "PLAIN d*", "X" * 21, "PLAIN "])
def test_what_auth_does_not_take(argument: str) -> None:
    with pytest.raises(BadArgumentError):
        COMMANDS["AUTH"].argument(argument, LIMITS)


def test_a_refusal_says_nothing_of_the_argument() -> None:
    with pytest.raises(BadArgumentError) as refused:
        COMMANDS["PASS"].argument("hunter2" * 100, LIMITS)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "argument", "multiline"),
    [
        ("LIST", "", True),
        ("LIST", "1", False),
        ("UIDL", "", True),
        ("UIDL", "1", False),
        ("RETR", "1", True),
        ("TOP", "1 1", True),
        ("CAPA", "", True),
        ("AUTH", "", True),
        ("AUTH", "PLAIN", False),
        ("STAT", "", False),
        ("LANG", "", True),
        ("LANG", "de", False),
        ("UTF8", "", False),
        ("DELE", "1", False),
    ],
)
def test_shapes(name: str, argument: str, multiline: bool) -> None:
    assert COMMANDS[name].multiline(argument) is multiline


def test_an_unknown_command_is_legal_everywhere_and_its_argument_is_secret() -> None:
    row = unknown("XTND", multiline=True)
    assert row.states == frozenset(State)
    assert row.shape is Shape.MULTILINE
    assert row.argument(" any thing", LIMITS) == " any thing"
    assert row.secret is Secret.ALL


@pytest.mark.parametrize(
    ("name", "argument", "shown"),
    [
        ("PASS", "hunter2", "PASS [secret]"),
        ("APOP", f"alice {DIGEST}", "APOP alice [secret]"),
        ("AUTH", "PLAIN AGEAYg==", "AUTH PLAIN [secret]"),
        ("AUTH", "PLAIN", "AUTH PLAIN"),
        ("AUTH", "scram-sha-256", "AUTH scram-sha-256"),
        ("AUTH", "AGJvYgBodW50ZXIy", "AUTH [secret]"),
        ("AUTH", "AGJvYgBodW50ZXIy AGEAYg==", "AUTH [secret]"),
        ("USER", "alice", "USER alice"),
        ("STAT", "", "STAT"),
    ],
)
def test_what_a_log_shows(name: str, argument: str, shown: str) -> None:
    assert redacted(name, argument, COMMANDS[name].secret) == shown


@pytest.mark.parametrize(
    ("name", "argument", "takes"),
    [("STAT", "", True), ("STAT", "1", False), ("RETR", "1", True), ("RETR", "x", False), ("APOP", DIGEST, False)],
)
def test_what_a_command_takes(name: str, argument: str, takes: bool) -> None:
    assert COMMANDS[name].takes(argument, LIMITS) is takes


def test_octets_are_those_of_the_wire() -> None:
    assert octets("abc") == 3
    assert octets("\u00e9") == 2
    assert octets("\udcff") == 1
