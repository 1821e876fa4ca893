"""The rules of pop3gw-policy(7) that are tables: states x commands x arguments, entries, limits, what callbacks return.

Written from the man page, not from the command table. What can be told as a conversation is in tests/scenarios.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import pytest

import pop3gw.policy
from pop3gw import checking
from pop3gw.policies.apop import UToAPop3
from pop3gw.policy import (
    POP3_REQ_ABORT,
    POP3_REQ_ACCEPT,
    POP3_REQ_ACCEPT_MLINE,
    POP3_REQ_POLICY,
    POP3_REQ_REJECT,
    POP3_RSP_ABORT,
    POP3_RSP_ACCEPT,
    POP3_RSP_REJECT,
    AbstractPop3Proxy,
    Pop3Proxy,
)
from pop3gw.proto import events
from pop3gw.proto.asking import Asking, Unguarded
from pop3gw.proto.commands import COMMANDS
from pop3gw.proto.session import QUEUE_OCTETS
from tests.scenarios.player import RecordingJournal, Stage
from tests.scenarios.transcript import Side

INVALID = b"-ERR Invalid command.\r\n"
PROTOCOL = b"-ERR Error in protocol\r\n"
DIGEST = "0123456789abcdef0123456789abcdef"

STATES = ("AUTHORIZATION", "USER given", "TRANSACTION")
LEGAL = {
    "AUTHORIZATION": {"USER", "APOP", "AUTH", "UTF8", "LANG", "CAPA", "QUIT"},
    "USER given": {"PASS", "APOP", "UTF8", "LANG", "CAPA", "QUIT"},
    "TRANSACTION": {
        *("STAT", "LIST", "RETR", "DELE", "NOOP", "RSET", "TOP", "UIDL", "LAST"),
        *("LANG", "CAPA", "QUIT"),
    },
}
# A request of each command that nothing is wrong with.
GOOD = {
    "USER": "USER bob",
    "PASS": "PASS secret",
    "APOP": f"APOP bob {DIGEST}",
    "AUTH": "AUTH CRAM-MD5",
    "UTF8": "UTF8",
    "LANG": "LANG en",
    "CAPA": "CAPA",
    "QUIT": "QUIT",
    "STAT": "STAT",
    "LIST": "LIST 1",
    "RETR": "RETR 1",
    "DELE": "DELE 1",
    "NOOP": "NOOP",
    "RSET": "RSET",
    "TOP": "TOP 1 1",
    "UIDL": "UIDL 1",
    "LAST": "LAST",
}
MULTILINE = {"RETR", "TOP", "CAPA", "LIST", "UIDL", "LANG", "AUTH"}

ARGUMENTS = {
    "": False,
    "1": True,
    "10": True,
    "007": True,
    "9999999999": True,
    "10000000000": False,
    "1" * 30: False,
    "0": False,
    "0000000000": False,
    "-1": False,
    "+1": False,
    "1 1": False,
    "1,2": False,
    "1x": False,
    "x": False,
    "1.": False,
    "0x1": False,
    "1e1": False,
    "1_0": False,
    "*": False,
    "\u0661": False,  # ARABIC-INDIC DIGIT ONE
    "\uff11": False,  # FULLWIDTH DIGIT ONE
    "\u00b2": False,  # SUPERSCRIPT TWO
    "\udcff": False,
}
COUNTS = {**ARGUMENTS, "0": True, "0000000000": True}


class Everything(Pop3Proxy):
    """Pop3Proxy with AUTH."""

    def config(self) -> None:
        """As Pop3Proxy."""
        super().config()
        self.request["AUTH"] = POP3_REQ_ACCEPT


def wire(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape") + b"\r\n"


def in_state(state: str, policy: type[AbstractPop3Proxy] = Everything) -> Stage:
    """A stage whose session has come to this state, with nothing left to be heard."""
    stage = Stage(policy)
    stage.open()
    stage.says(Side.SERVER, b"+OK ready\r\n")
    if state != "AUTHORIZATION":
        stage.says(Side.CLIENT, b"USER alice\r\n")
        stage.says(Side.SERVER, b"+OK\r\n")
    if state == "TRANSACTION":
        stage.says(Side.CLIENT, b"PASS secret\r\n")
        stage.says(Side.SERVER, b"+OK\r\n")
    for side in Side:
        stage.take(side)
    assert not stage.session.over
    return stage


def asked(stage: Stage, request: str) -> tuple[bytes, bytes]:
    """What server and client hear of a request."""
    stage.says(Side.CLIENT, wire(request))
    return stage.take(Side.SERVER), stage.take(Side.CLIENT)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("command", sorted(GOOD))
def test_a_command_is_legal_where_the_table_says_so(state: str, command: str) -> None:
    stage = in_state(state)
    request = GOOD[command]
    heard = asked(stage, request)
    assert heard == ((wire(request), b"") if command in LEGAL[state] else (b"", INVALID))
    assert not stage.session.over


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("command", sorted(GOOD))
def test_after_a_command_that_is_not_legal_the_session_goes_on(state: str, command: str) -> None:
    if command in LEGAL[state]:
        return
    stage = in_state(state)
    asked(stage, GOOD[command])
    following = {"AUTHORIZATION": "USER bob", "USER given": "PASS secret", "TRANSACTION": "NOOP"}[state]
    if command in ("USER", "APOP", "PASS") and state == "USER given":
        following = f"APOP alice {DIGEST}"
    assert asked(stage, following) == (wire(following), b"")


@pytest.mark.parametrize("control", "\r\0\t\x01\x7f")
@pytest.mark.parametrize("request_line", ["USER b{}b", "PASS se{}cret", f"APOP b{{}}b {DIGEST}", "pass {}secret"])
def test_a_control_character_in_a_login_asks_for_a_new_user(request_line: str, control: str) -> None:
    stage = in_state("USER given")
    assert asked(stage, request_line.format(control)) == (b"", INVALID)
    assert asked(stage, "PASS secret") == (b"", INVALID)
    assert asked(stage, "USER bob") == (b"USER bob\r\n", b"")


@pytest.mark.parametrize("request_line", ["NOOP \t", "CAPA\0", "AUTH \x7f", "XTND \x01", "PASSWORD \x01", "\t"])
def test_a_control_character_elsewhere_leaves_the_user_given(request_line: str) -> None:
    stage = in_state("USER given")
    assert asked(stage, request_line) == (b"", INVALID)
    assert asked(stage, "PASS secret") == (b"PASS secret\r\n", b"")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("entry", [POP3_REQ_ACCEPT, (POP3_REQ_REJECT, "no"), (POP3_REQ_ABORT, "no")])
@pytest.mark.parametrize("command", sorted(GOOD))
def test_the_state_comes_before_the_entry(state: str, command: str, entry: object) -> None:
    if command in LEGAL[state]:
        return
    stage = in_state(state)
    stage.session.policy.request[command] = entry
    assert asked(stage, GOOD[command]) == (b"", INVALID)
    assert not stage.session.over


@pytest.mark.parametrize(("argument", "good"), [pytest.param(a, g, id=ascii(a)[:20]) for a, g in ARGUMENTS.items()])
@pytest.mark.parametrize("command", ["RETR", "DELE", "LIST", "UIDL"])
def test_message_numbers(command: str, argument: str, good: bool) -> None:
    stage = in_state("TRANSACTION")
    request = f"{command} {argument}" if argument else command
    passes = good or (not argument and command in ("LIST", "UIDL"))
    assert asked(stage, request) == ((wire(request), b"") if passes else (b"", INVALID))
    assert not stage.session.over


@pytest.mark.parametrize(("argument", "good"), [pytest.param(a, g, id=ascii(a)[:20]) for a, g in ARGUMENTS.items()])
def test_first_number_of_top(argument: str, good: bool) -> None:
    stage = in_state("TRANSACTION")
    request = f"TOP {argument} 5"
    assert asked(stage, request) == ((wire(request), b"") if good else (b"", INVALID))


@pytest.mark.parametrize(("argument", "good"), [pytest.param(a, g, id=ascii(a)[:20]) for a, g in COUNTS.items()])
def test_second_number_of_top(argument: str, good: bool) -> None:
    stage = in_state("TRANSACTION")
    request = f"TOP 1 {argument}" if argument else "TOP 1"
    assert asked(stage, request) == ((wire(request), b"") if good else (b"", INVALID))


@pytest.mark.parametrize("argument", ["1", "x y z", "\udcff", "a" * 200])
@pytest.mark.parametrize(
    ("command", "state"),
    [
        *((command, "TRANSACTION") for command in ("STAT", "RSET", "NOOP", "LAST", "QUIT", "CAPA")),
        *((command, "AUTHORIZATION") for command in ("UTF8", "QUIT", "CAPA")),
    ],
)
def test_dropped_arguments(command: str, state: str, argument: str) -> None:
    stage = in_state(state)
    assert asked(stage, f"{command} {argument}") == (wire(command), b"")


@pytest.mark.parametrize("octet", [*range(0x20), 0x7F])
def test_control_characters_are_refused(octet: int) -> None:
    if octet == 0x0A:
        return
    stage = in_state("TRANSACTION")
    for request in (b"DELE%c1", b"DELE 1%c", b"%cDELE 1", b"X%cY"):
        stage.says(Side.CLIENT, request % octet + b"\r\n")
        assert (stage.take(Side.SERVER), stage.take(Side.CLIENT)) == (b"", INVALID)
    assert asked(stage, "NOOP") == (b"NOOP\r\n", b"")


@pytest.mark.parametrize("octet", range(0x80, 0x100))
def test_octets_that_are_no_control_characters_pass(octet: int) -> None:
    stage = in_state("AUTHORIZATION")
    name = bytes((0x61, octet, 0x62)).decode("utf-8", "surrogateescape")
    assert asked(stage, f"USER {name}") == (wire(f"USER {name}"), b"")


def shape(command: str, argument: str) -> str:
    """ "many" or "one"."""
    if command in ("LIST", "UIDL", "LANG", "AUTH"):
        return "one" if argument else "many"
    return "many" if command in MULTILINE else "one"


@pytest.mark.parametrize(
    ("state", "request_line"),
    [(state, GOOD[command]) for state in STATES for command in sorted(LEGAL[state] - {"CAPA", "QUIT", "AUTH"})]
    + [("TRANSACTION", line) for line in ("LIST", "UIDL", "LANG")]
    + [("AUTHORIZATION", line) for line in ("LANG", "AUTH")],
)
def test_shape_of_the_answer(state: str, request_line: str) -> None:
    stage = in_state(state)
    command, _, argument = request_line.partition(" ")
    asked(stage, request_line)
    status = b"+OK 1 2\r\n" if command == "STAT" else b"+OK some text\r\n"
    stage.says(Side.SERVER, status)
    assert stage.take(Side.CLIENT) == status
    if shape(command, argument) == "many":
        stage.says(Side.SERVER, b"one\r\n..two\r\n.\r\n")
        assert stage.take(Side.CLIENT) == b"one\r\n..two\r\n.\r\n"
    follow = {"USER": "PASS x"}.get(command, "CAPA")
    assert asked(stage, follow) == (wire(follow), b"")


@pytest.mark.parametrize("state", STATES)
def test_a_refusal_of_the_server_is_one_line(state: str) -> None:
    for command in sorted(LEGAL[state] - {"CAPA", "QUIT"}):
        stage = in_state(state)
        asked(stage, GOOD[command])
        stage.says(Side.SERVER, b"-ERR no\r\n")
        stage.passes(250)
        assert stage.take(Side.CLIENT) == b"-ERR no\r\n"
        assert asked(stage, "CAPA") == (b"CAPA\r\n", b"")


STATUSES = {
    b"+OK": True,
    b"-ERR": True,
    b"+OK ": True,
    b"+OK text": True,
    b"-ERR text": True,
    b"+OK\x00": False,
    b"+OK\t": False,
    b"+OKx": False,
    b"+ok": False,
    b"+Ok": False,
    b"-err": False,
    b"-ERRx": False,
    b"ERR": False,
    b"OK": False,
    b"": False,
    b" ": False,
    b" +OK": False,
    b"+ OK": False,
    b"+": False,
    b"-": False,
    b"+ ": False,
    b"*": False,
    b".": False,
    b"250 OK": False,
    b"* OK": False,
    b"\xff": False,
}


@pytest.mark.parametrize(("status", "good"), STATUSES.items())
@pytest.mark.parametrize("request_line", ["NOOP", "DELE 1", "RETR 1", "LIST", "QUIT"])
def test_status_words(request_line: str, status: bytes, good: bool) -> None:
    stage = in_state("TRANSACTION")
    asked(stage, request_line)
    stage.says(Side.SERVER, status + b"\r\n")
    assert stage.take(Side.CLIENT) == (status + b"\r\n" if good else PROTOCOL)
    if not good:
        assert stage.session.over
    assert stage.take(Side.SERVER) == b""


@pytest.mark.parametrize(
    ("text", "good"),
    {
        "0 0": True,
        "1 2": True,
        "1 2 ": True,
        "1 2 octets": True,
        "4294967296 18446744073709551616": True,
        "": False,
        "1": False,
        "1 ": False,
        "1  2": False,
        " 1 2": False,
        "1 x": False,
        "x 2": False,
        "-1 2": False,
        "1 -2": False,
        "+1 2": False,
        "1 2x": False,
        "1\t2": False,
        "\u0661 \u0662": False,
    }.items(),
)
def test_stat_answers(text: str, good: bool) -> None:
    stage = in_state("TRANSACTION")
    asked(stage, "STAT")
    answer = wire(f"+OK {text}" if text else "+OK")
    stage.says(Side.SERVER, answer)
    assert stage.take(Side.CLIENT) == (answer if good else PROTOCOL)
    assert stage.session.over is not good


# -- limits at their value and one over


@pytest.mark.parametrize("limit", [40, 255, 1000])
@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
def test_request_line_limit(limit: int, line_end: bytes) -> None:
    class Policy(Everything):
        def config(self) -> None:
            super().config()
            self.max_request_line_length = limit
            self.request["XLONG"] = POP3_REQ_ACCEPT

    stage = in_state("AUTHORIZATION", Policy)
    line = b"XLONG ".ljust(limit, b"x")
    stage.says(Side.CLIENT, line + line_end)
    assert stage.take(Side.SERVER) == line + b"\r\n"
    stage.says(Side.SERVER, b"+OK\r\n")
    assert stage.take(Side.CLIENT) == b"+OK\r\n"
    stage.says(Side.CLIENT, line + b"x" + line_end)
    assert (stage.take(Side.SERVER), stage.take(Side.CLIENT)) == (b"", INVALID)
    assert stage.session.over


@pytest.mark.parametrize("limit", [20, 512, 4000])
@pytest.mark.parametrize("over", [0, 1])
def test_status_line_limit(limit: int, over: int) -> None:
    class Policy(Everything):
        def config(self) -> None:
            super().config()
            self.max_response_line_length = limit

    stage = in_state("TRANSACTION", Policy)
    asked(stage, "NOOP")
    line = b"+OK ".ljust(limit + over, b"x") + b"\r\n"
    stage.says(Side.SERVER, line)
    assert stage.take(Side.CLIENT) == (PROTOCOL if over else line)
    assert stage.session.over is bool(over)


@pytest.mark.parametrize("limit", [1, 8, 100])
@pytest.mark.parametrize("over", [0, 1])
def test_name_and_password_limits(limit: int, over: int) -> None:
    class Policy(Everything):
        def config(self) -> None:
            super().config()
            self.max_username_length = limit
            self.max_password_length = limit

    text = "n" * (limit + over)
    requests = [("AUTHORIZATION", f"USER {text}"), ("AUTHORIZATION", f"APOP {text} {DIGEST}")]
    if limit >= len("alice"):
        requests.append(("USER given", f"PASS {text}"))
    for state, request in requests:
        stage = in_state(state, Policy)
        assert asked(stage, request) == ((b"", INVALID) if over else (wire(request), b""))
        assert not stage.session.over


@pytest.mark.parametrize("count", range(6))
@pytest.mark.parametrize("limit", range(5))
def test_sasl_line_count(limit: int, count: int) -> None:
    class Policy(Everything):
        def config(self) -> None:
            super().config()
            self.max_authline_count = limit

    stage = in_state("AUTHORIZATION", Policy)
    asked(stage, "AUTH X")
    for number in range(1, count + 1):
        odd = bool(number % 2)
        line = b"+ YQ==\r\n" if odd else b"YQ==\r\n"
        stage.says(Side.SERVER if odd else Side.CLIENT, line)
        to_server, to_client = stage.take(Side.SERVER), stage.take(Side.CLIENT)
        if number > limit:
            assert stage.session.over
            assert (to_server, to_client) == (b"", PROTOCOL if odd else INVALID)
            return
        assert (to_server, to_client) == ((b"", line) if odd else (line, b""))
    if count % 2 == 0:
        stage.says(Side.SERVER, b"+OK\r\n")
        assert stage.take(Side.CLIENT) == b"+OK\r\n"
        assert asked(stage, "NOOP") == (b"NOOP\r\n", b"")


def test_an_endless_line_costs_no_more_than_its_limit() -> None:
    client = in_state("TRANSACTION")
    client.says(Side.CLIENT, b"x" * 256)
    assert client.session.over
    assert client.take(Side.CLIENT) == INVALID
    server = in_state("TRANSACTION")
    asked(server, "NOOP")
    server.says(Side.SERVER, b"x" * 513)
    assert server.session.over
    assert server.take(Side.CLIENT) == PROTOCOL


def test_the_queue_of_requests_is_bounded() -> None:
    stage = in_state("TRANSACTION")
    session = stage.session
    taken = 0
    while session.reads_client and taken < 1 << 20:
        session.client_data(b"NOOP\r\n" * 100, stage.now)
        stage.look()
        taken += 600
    assert taken <= QUEUE_OCTETS + 1200
    assert not session.over
    for _ in range(taken // 6 - 1):
        stage.says(Side.SERVER, b"+OK\r\n")
    assert stage.take(Side.SERVER) == b"NOOP\r\n" * (taken // 6)
    assert session.reads_client


def test_what_the_server_has_not_been_sent_it_is_not_sent_once_the_client_is_gone() -> None:
    session = in_state("TRANSACTION").session
    session.client_data(b"QUIT\r\n", 2000.0)
    assert session.to_server == [b"QUIT\r\n"]
    session.client_lost("Connection reset by peer", 2000.0)
    assert session.to_server == []


@pytest.mark.parametrize("lost", [False, True])
def test_an_answer_that_is_held_is_heard_though_the_server_closes_meanwhile(lost: bool) -> None:
    stage = in_state("AUTHORIZATION")
    asked(stage, f"APOP alice {DIGEST}")
    stage.says(Side.SERVER, b"-ERR no\r\n")
    if lost:
        stage.session.server_lost("Connection reset by peer", stage.now)
    else:
        stage.session.server_eof(stage.now)
    assert not stage.session.over
    stage.passes(250)
    assert stage.take(Side.CLIENT) == b"-ERR no\r\n"
    assert (stage.session.ending, stage.session.ended_by) == (events.Ending.CLOSED, events.Side.SERVER)


def test_a_server_that_talks_while_an_answer_is_held_is_bounded() -> None:
    stage = in_state("AUTHORIZATION")
    asked(stage, f"APOP alice {DIGEST}")
    stage.says(Side.SERVER, b"-ERR no\r\n")
    session = stage.session
    taken = 0
    while session.reads_server and not session.over and taken < 1 << 20:
        session.server_data(b"x" * 4096, stage.now)
        taken += 4096
    assert taken <= 1 << 16


# -- pop3gw --check


def configured(key: object, value: object) -> type[AbstractPop3Proxy]:
    class Policy(Pop3Proxy):
        def config(self) -> None:
            super().config()
            self.request[key] = value  # type: ignore[index]

    return Policy


def callback(*_arguments: object) -> int:
    return POP3_REQ_ACCEPT


MALFORMED: list[tuple[object, object]] = [
    ("RETR", None),
    ("RETR", True),
    ("RETR", False),
    ("RETR", 0),
    ("RETR", 2),
    ("RETR", 5),
    ("RETR", -1),
    ("RETR", 1.0),
    ("RETR", "ACCEPT"),
    ("RETR", ()),
    ("RETR", [POP3_REQ_ACCEPT]),
    ("RETR", (None,)),
    ("RETR", (True,)),
    ("RETR", POP3_REQ_POLICY),
    ("RETR", (POP3_REQ_POLICY,)),
    ("RETR", (POP3_REQ_POLICY, 5)),
    ("RETR", (POP3_REQ_POLICY, "retr")),
    ("RETR", (POP3_REQ_POLICY, callback, 5)),
    ("RETR", (POP3_REQ_POLICY, callback, callback, callback)),
    ("RETR", (POP3_REQ_REJECT, 5)),
    ("RETR", (POP3_REQ_REJECT, b"no")),
    ("RETR", (POP3_REQ_REJECT, "no\r\n+OK")),
    ("RETR", (POP3_REQ_REJECT, "no\n")),
    ("RETR", (POP3_REQ_REJECT, "no", "more")),
    ("RETR", (POP3_REQ_ABORT, "no\0")),
    ("RETR", callback),
    ("RETR", (POP3_REQ_ACCEPT, "text")),
    ("RETR", (POP3_REQ_POLICY, None)),
    ("RETR", (POP3_REQ_POLICY, None, None)),
    ("GREETING", POP3_REQ_ACCEPT_MLINE),
    ("GREETING", (POP3_REQ_POLICY, callback, callback)),
    ("retr", POP3_REQ_ACCEPT),
    (5, POP3_REQ_ACCEPT),
    (None, POP3_REQ_ACCEPT),
]


@pytest.mark.parametrize(("key", "value"), MALFORMED)
def test_a_malformed_entry_is_found(key: object, value: object) -> None:
    faults = checking.faults(configured(key, value)())
    assert len(faults) == 1
    assert str(key) in faults[0]


@pytest.mark.parametrize(
    "value",
    [
        POP3_REQ_ACCEPT,
        POP3_REQ_REJECT,
        POP3_REQ_ABORT,
        POP3_REQ_ACCEPT_MLINE,
        POP3_RSP_REJECT,
        (POP3_REQ_ACCEPT,),
        (POP3_REQ_REJECT, "text"),
        (POP3_REQ_REJECT, ""),
        (POP3_REQ_ABORT, "text"),
        (POP3_REQ_POLICY, callback),
        (POP3_REQ_POLICY, callback, None),
        (POP3_REQ_POLICY, callback, callback),
        (POP3_REQ_POLICY, None, callback),
    ],
)
@pytest.mark.parametrize("key", ["RETR", "*", "XTND", "X-Y_Z.1"])
def test_a_sound_entry_is_no_fault(key: str, value: object) -> None:
    assert checking.faults(configured(key.upper(), value)()) == []


def test_what_the_import_gives() -> None:
    names = set(pop3gw.policy.__all__)
    assert {"AbstractPop3Proxy", "Pop3Proxy"} <= names
    assert {name for name in names if not re.fullmatch("POP3_(REQ|RSP)_[A-Z_]+", name)} == {
        "AbstractPop3Proxy",
        "Pop3Proxy",
    }
    assert (POP3_REQ_ACCEPT, POP3_REQ_REJECT, POP3_REQ_ABORT) == (1, 3, 4)
    assert (POP3_RSP_ACCEPT, POP3_RSP_REJECT, POP3_RSP_ABORT) == (1, 3, 4)
    assert (POP3_REQ_POLICY, POP3_REQ_ACCEPT_MLINE) == (6, 100)


# -- attributes

WRONG: list[tuple[str, object, type[Exception]]] = [
    *((name, "1", TypeError) for name in ("timeout", "auth_timeout", "callback_timeout", "max_auth_failures")),
    *((name, True, TypeError) for name in ("timeout", "max_request_line_length", "max_authline_count")),
    *((name, 1.5, TypeError) for name in ("timeout", "max_response_line_length")),
    *((name, -1, ValueError) for name in ("timeout", "max_username_length", "max_password_length")),
    *((name, 0, ValueError) for name in ("timeout", "auth_timeout", "callback_timeout", "max_auth_failures")),
    *((name, 1, TypeError) for name in ("permit_unknown_command", "permit_longline")),
    *((name, 1, TypeError) for name in ("strict_line_endings", "tls_required")),
    *((name, None, TypeError) for name in ("permit_longline", "timeout", "response_param", "request")),
    *((name, b"x", TypeError) for name in ("request_command", "request_param", "response_value")),
    *((name, "x", AttributeError) for name in ("username", "password", "timestamp", "session_timestamp", "session")),
]


@pytest.mark.parametrize(("name", "value", "error"), WRONG)
def test_a_wrong_attribute_is_an_error_at_once(name: str, value: object, error: type[Exception]) -> None:
    class Policy(Pop3Proxy):
        def config(self) -> None:
            super().config()
            setattr(self, name, value)

    with pytest.raises(error, match=name):
        checking.faults(Policy())


def test_the_defaults() -> None:
    policy = Pop3Proxy()
    assert {name: getattr(policy, name) for name in DEFAULTS} == DEFAULTS


DEFAULTS = {
    "timeout": 600000,
    "auth_timeout": 60000,
    "callback_timeout": 10000,
    "max_auth_failures": 3,
    "max_request_line_length": 255,
    "max_response_line_length": 512,
    "max_username_length": 250,
    "max_password_length": 250,
    "max_authline_count": 4,
    "max_authline_length": 12288,
    "permit_unknown_command": False,
    "permit_longline": True,
    "strict_line_endings": False,
    "tls_required": False,
    "username": None,
    "password": None,
    "timestamp": None,
    "session_timestamp": None,
}


# -- what callbacks return

NO_ACTIONS: list[object] = [
    *(None, True, False, 0, 2, 5, -1, 1.0, "1", b"1", object()),
    *((), (None,), (True, "x"), (3, None), (3, 5), (3, b"x"), (3, "x", "y"), [3, "x"], POP3_REQ_POLICY),
    *((3, "a\rb"), (3, "a\nb"), (3, "a\0b")),
]


def returning(what: Callable[[], object], command: str, *, response: bool) -> type[AbstractPop3Proxy]:
    class Policy(Pop3Proxy):
        def config(self) -> None:
            super().config()
            entry = (POP3_REQ_POLICY, None, self.act) if response else (POP3_REQ_POLICY, self.act)
            self.request[command] = entry

        def act(self, _seen: str) -> object:
            return what()

    return Policy


@pytest.mark.parametrize("value", NO_ACTIONS, ids=repr)
def test_a_request_callback_that_returns_no_action(value: object) -> None:
    stage = in_state("TRANSACTION", returning(lambda: value, "DELE", response=False))
    assert asked(stage, "DELE 1") == (b"", INVALID)
    assert asked(stage, "NOOP") == (b"NOOP\r\n", b"")
    assert "Policy" in stage.journal.text
    assert "act" in stage.journal.text


@pytest.mark.parametrize("value", NO_ACTIONS, ids=repr)
def test_a_response_callback_that_returns_no_action(value: object) -> None:
    stage = in_state("TRANSACTION", returning(lambda: value, "RETR", response=True))
    asked(stage, "RETR 1")
    stage.says(Side.SERVER, b"+OK\r\nabc\r\n.\r\n")
    assert stage.take(Side.CLIENT) == PROTOCOL
    assert asked(stage, "NOOP") == (b"NOOP\r\n", b"")


class OwnError(BaseException):
    """An exception that is no Exception."""


ERRORS: list[type[BaseException]] = [
    *(ValueError, KeyError, RecursionError, MemoryError, AssertionError, TimeoutError, StopIteration),
    *(SystemExit, KeyboardInterrupt, GeneratorExit, OwnError),
]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("response", [False, True])
def test_a_callback_that_raises(error: type[BaseException], response: bool) -> None:
    def fail() -> object:
        raise error("hunter2 went wrong")

    stage = in_state("TRANSACTION", returning(fail, "DELE", response=response))
    asked_for, said = asked(stage, "DELE 1")
    if response:
        assert (asked_for, said) == (b"DELE 1\r\n", b"")
        stage.says(Side.SERVER, b"+OK\r\n")
        assert stage.take(Side.CLIENT) == PROTOCOL
    else:
        assert (asked_for, said) == (b"", INVALID)
    assert error.__name__ in stage.journal.text
    assert stage.journal.text.count("Traceback") == 1
    assert asked(stage, "NOOP") == (b"NOOP\r\n", b"")


@pytest.mark.parametrize("error", ERRORS)
def test_a_callback_that_raises_on_a_later_line(error: type[BaseException]) -> None:
    calls: list[str] = []

    class Policy(Pop3Proxy):
        def config(self) -> None:
            super().config()
            self.request["RETR"] = (POP3_REQ_POLICY, None, self.act)

        def act(self, seen: str) -> int:
            calls.append(seen)
            if seen == "two":
                raise error
            return POP3_RSP_ACCEPT

    stage = in_state("TRANSACTION", Policy)
    asked(stage, "RETR 1")
    stage.says(Side.SERVER, b"+OK go\r\none\r\n")
    stage.says(Side.SERVER, b"two\r\nthree\r\n.\r\n")
    assert stage.take(Side.CLIENT) == b"+OK go\r\none\r\n"
    assert stage.session.over
    assert stage.take(Side.SERVER) == b""
    assert calls == ["go", "one", "two"]


def test_config_that_raises_in_a_session_refuses_the_service() -> None:
    class Policy(Pop3Proxy):
        def config(self) -> None:
            super().config()
            if self.session.client_address is not None:
                raise RuntimeError("not for you")

    assert checking.faults(Policy()) == []
    stage = Stage(Policy)
    stage.open()
    assert re.fullmatch(rb"-ERR [^\r\n]*\r\n", stage.take(Side.CLIENT))
    assert stage.session.over
    assert "not for you" in stage.journal.text


def test_a_malformed_entry_that_a_callback_makes_fails_closed() -> None:
    class Policy(Pop3Proxy):
        def config(self) -> None:
            super().config()
            self.request["NOOP"] = (POP3_REQ_POLICY, self.spoil)

        def spoil(self, _command: str) -> int:
            self.request["DELE"] = "ACCEPT"
            return POP3_REQ_ACCEPT

    stage = in_state("TRANSACTION", Policy)
    assert asked(stage, "NOOP") == (b"NOOP\r\n", b"")
    stage.says(Side.SERVER, b"+OK\r\n")
    assert stage.take(Side.CLIENT) == b"+OK\r\n"
    assert asked(stage, "DELE 1") == (b"", INVALID)
    assert not stage.session.over


@pytest.mark.parametrize("command", ["RETR 1", "TOP 1 1", "LIST", "UIDL"])
@pytest.mark.parametrize("lines", [5, "text", [b"bytes"], [None], ["a", 1], ("a",), ["a\r\nb"]])
def test_response_lines_that_are_none(command: str, lines: object) -> None:
    class Policy(Pop3Proxy):
        def config(self) -> None:
            super().config()
            self.request[command.split()[0]] = (POP3_REQ_POLICY, self.answer)

        def answer(self, _command: str) -> int:
            self.response_value = "+OK"
            self.response_lines = lines  # type: ignore[assignment]
            return POP3_REQ_REJECT

    stage = in_state("TRANSACTION", Policy)
    assert asked(stage, command) == (b"", INVALID)
    assert not stage.session.over


@pytest.mark.parametrize("name", ["GREETING", "*", "greeting", "", "Greeting"])
@pytest.mark.parametrize("permit", [False, True])
def test_keys_that_are_no_commands_admit_none(name: str, permit: bool) -> None:
    class Policy(AbstractPop3Proxy):
        def config(self) -> None:
            self.request["GREETING"] = POP3_REQ_ACCEPT
            self.request["*"] = POP3_REQ_ACCEPT
            self.permit_unknown_command = permit

    stage = in_state("AUTHORIZATION", Policy)
    to_server, to_client = asked(stage, name)
    if not permit or not name:
        assert (to_server, to_client) == (b"", INVALID)
        assert stage.session.over is bool(name)


@pytest.mark.parametrize("password", ["hunter2", "two words", "\u00fc\udcff", "'\"\\", "100%"])
def test_apop_digest_of_any_password(password: str) -> None:
    stage = Stage(UToAPop3)
    stage.open()
    stage.says(Side.SERVER, b"+OK ready <1.2@h>\r\n")
    stage.says(Side.CLIENT, b"USER alice\r\n")
    stage.says(Side.CLIENT, wire(f"PASS {password}"))
    digest = hashlib.md5(b"<1.2@h>" + wire(password)[:-2], usedforsecurity=False).hexdigest()
    assert stage.take(Side.SERVER) == wire(f"APOP alice {digest}")
    assert password not in stage.journal.text


# No octet of the wire decodes to this, so nothing can be sent for it.
UNSENDABLE = "\ud800"


@pytest.mark.parametrize("key", ["GREETING", "DELE", "*"])
@pytest.mark.parametrize("action", [POP3_REQ_REJECT, POP3_REQ_ABORT])
@pytest.mark.parametrize("text", ["\udcff", "\u00fc", UNSENDABLE])
def test_any_text_of_an_entry_is_sent_or_found_by_check(key: str, action: int, text: str) -> None:
    policy = configured(key, (action, text))
    if checking.faults(policy()):
        assert text == UNSENDABLE
        return
    stage = Stage(policy)
    stage.open()
    stage.says(Side.SERVER, b"+OK ready\r\n")
    if key != "GREETING":
        assert stage.take(Side.CLIENT) == b"+OK ready\r\n"
        stage.says(Side.CLIENT, b"AUTH PLAIN\r\n" if key == "*" else f"APOP alice {DIGEST}\r\n".encode())
    if key == "DELE":
        stage.says(Side.SERVER, b"+OK\r\n")
        stage.take(Side.CLIENT)
        stage.says(Side.CLIENT, b"DELE 1\r\n")
    assert stage.take(Side.CLIENT) == wire(f"-ERR {text}")


@pytest.mark.parametrize("attribute", ["request_command", "request_param", "response_param", "response_lines"])
def test_what_cannot_be_sent_is_the_request_callbacks_error(attribute: str) -> None:
    class Policy(Pop3Proxy):
        def config(self) -> None:
            super().config()
            self.request["UIDL"] = (POP3_REQ_POLICY, self.spoil)

        def spoil(self, _command: str) -> int:
            if attribute.startswith("response"):
                self.response_value = "+OK"
                self.response_lines = [UNSENDABLE]
                self.response_param = ""
            if attribute != "response_lines":
                setattr(self, attribute, UNSENDABLE)
            return POP3_REQ_ACCEPT if attribute.startswith("request") else POP3_REQ_REJECT

    stage = in_state("TRANSACTION", Policy)
    assert asked(stage, "UIDL") == (b"", INVALID)
    assert not stage.session.over


def test_what_cannot_be_sent_is_the_response_callbacks_error() -> None:
    class Policy(Pop3Proxy):
        def config(self) -> None:
            super().config()
            self.request["RETR"] = (POP3_REQ_POLICY, None, self.spoil)
            self.request["NOOP"] = (POP3_REQ_POLICY, None, self.spoil)
            self.request["RSET"] = (POP3_REQ_POLICY, None, self.reject)

        def spoil(self, seen: str) -> int:
            if seen == "now":
                self.response_param = UNSENDABLE
            return POP3_RSP_ACCEPT

        def reject(self, _seen: str) -> object:
            return POP3_RSP_REJECT, UNSENDABLE

    stage = in_state("TRANSACTION", Policy)
    asked(stage, "NOOP")
    stage.says(Side.SERVER, b"+OK now\r\n")
    assert stage.take(Side.CLIENT) == PROTOCOL
    asked(stage, "RSET")
    stage.says(Side.SERVER, b"+OK\r\n")
    assert stage.take(Side.CLIENT) == PROTOCOL
    asked(stage, "RETR 1")
    stage.says(Side.SERVER, b"+OK\r\nfine\r\nnow\r\n.\r\n")
    assert stage.take(Side.CLIENT) == b"+OK\r\nfine\r\n"
    assert stage.session.over


# -- what the caller tells the session, besides bytes


@pytest.mark.parametrize("message", [b"", b"half a mess"])
def test_a_client_that_does_not_read_is_closed_without_a_word(message: bytes) -> None:
    stage = in_state("TRANSACTION")
    asked(stage, "RETR 1")
    stage.says(Side.SERVER, b"+OK\r\n" + message)
    stage.take(Side.CLIENT)
    stage.session.blocked(events.Side.CLIENT, stage.now)
    stage.passes(599_000)
    assert not stage.session.over
    stage.passes(2_000)
    assert stage.session.over
    assert stage.session.ended_by is events.Side.CLIENT
    assert (stage.take(Side.CLIENT), stage.take(Side.SERVER)) == (b"", b"")


def test_a_client_that_reads_again_has_its_whole_time() -> None:
    stage = in_state("TRANSACTION")
    stage.session.blocked(events.Side.CLIENT, stage.now)
    stage.passes(599_000)
    stage.session.flowing(stage.now)
    stage.passes(599_000)
    assert not stage.session.over


def test_a_turn_begins_when_what_was_said_before_it_goes_out() -> None:
    session = in_state("TRANSACTION").session
    began = session.deadline
    assert began is not None
    session.client_data(b"NO", began - 500)
    session.held_up(began - 400)  # it has said nothing
    assert session.deadline == began + 100
    session.client_data(b"OP\r\n", began - 400)
    session.held_up(began - 300)
    assert session.deadline == began + 300


def test_auth_timeout_begins_when_the_greeting_goes_out_and_with_no_later_turn() -> None:
    class Policy(Pop3Proxy):
        auth_timeout = 60_000

    session = Stage(Policy).session
    session.start(0)
    session.connected(0)
    session.server_data(b"+OK ready\r\n", 10)
    session.held_up(15)
    assert session.deadline == 75
    session.client_data(b"CAPA\r\n", 20)
    session.held_up(25)
    assert session.deadline == 75


def test_a_client_whose_requests_are_refused_here_is_not_silent() -> None:
    stage = in_state("TRANSACTION")
    session = stage.session
    began = session.deadline
    assert began is not None
    session.client_data(b"USER alice\r\n", stage.now + 100)
    assert session.to_client == [INVALID]
    assert session.deadline == began + 100


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize(("octets", "passes"), [(40, True), (41, False)])
def test_the_smaller_limit_of_an_auth_line_holds_however_it_comes(pieces: int, octets: int, passes: bool) -> None:
    class Narrow(Everything):
        max_authline_length = 40

    stage = in_state("AUTHORIZATION", Narrow)
    line = b"AUTH PLAIN ".ljust(octets, b"A")
    sent = line + b"\r\n"
    for at in range(pieces):
        stage.says(Side.CLIENT, sent[at * 20 : (at + 1) * 20] if at < pieces - 1 else sent[at * 20 :])
    assert stage.take(Side.SERVER) == (sent if passes else b"")
    assert stage.take(Side.CLIENT) == (b"" if passes else INVALID)
    assert stage.session.over is not passes


@pytest.mark.parametrize(("name", "value"), [("timeout", "soon"), ("request", None)])
def test_what_config_sets_past_the_checks_refuses_the_session(name: str, value: object) -> None:
    class Policy(Pop3Proxy):
        def config(self) -> None:
            super().config()
            self.__dict__[name] = value

    stage = Stage(Policy)
    stage.open()
    assert stage.take(Side.CLIENT) == b"-ERR [SYS/TEMP] Service not available\r\n"
    assert stage.session.over


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("waiting", ["", "CAPA"])
def test_the_gateway_ends_a_session(state: str, waiting: str) -> None:
    for end in ("shutdown", "fail"):
        stage = in_state(state)
        if waiting:
            asked(stage, waiting)
        if end == "shutdown":
            stage.session.shutdown("the second TERM")
        else:
            stage.session.fail()
        assert stage.session.over
        assert stage.session.ended_by is events.Side.GATEWAY
        assert stage.session.to_server == []


def test_the_delay_of_failed_logins_is_bounded_however_many_there_are() -> None:
    class Policy(Pop3Proxy):
        def config(self) -> None:
            super().config()
            self.max_auth_failures = 1_000_000
            self.auth_timeout = 24 * 3600 * 1000

    stage = in_state("AUTHORIZATION", Policy)
    for _ in range(1100):
        assert asked(stage, f"APOP alice {DIGEST}") == (f"APOP alice {DIGEST}\r\n".encode(), b"")
        stage.says(Side.SERVER, b"-ERR no\r\n")
        stage.passes(8_000)
        assert stage.take(Side.CLIENT) == b"-ERR no\r\n"


def test_a_policy_that_cannot_be_made_refuses_the_service() -> None:
    class Policy(Pop3Proxy):
        def __init__(self) -> None:
            raise SystemExit("not today")

    stage = Stage(Policy)
    stage.open()
    assert re.fullmatch(rb"-ERR [^\r\n]*\r\n", stage.take(Side.CLIENT))
    assert stage.session.over


def test_a_wrong_attribute_of_the_class_is_an_error_at_once() -> None:
    with pytest.raises(TypeError, match="timeout"):
        type("Policy", (Pop3Proxy,), {"timeout": "60"})
    with pytest.raises(ValueError, match="max_auth_failures"):
        type("Policy", (Pop3Proxy,), {"max_auth_failures": 0})


def test_what_is_only_to_be_read_cannot_be_deleted() -> None:
    policy = Pop3Proxy()
    for name in ("username", "session", "request"):
        with pytest.raises(AttributeError, match=name):
            delattr(policy, name)


def test_what_the_summary_counts() -> None:
    stage = in_state("TRANSACTION")
    for request, answer in (
        ("RETR 1", b"+OK\r\na\r\n.\r\n"),
        ("RETR 2", b"-ERR no\r\n"),
        ("DELE 1", b"+OK\r\n"),
        ("RSET", b"+OK\r\n"),
        ("DELE 1", b"+OK\r\n"),
        ("DELE 2", b"-ERR no\r\n"),
        ("RETR x", b""),
    ):
        asked(stage, request)
        if answer:
            stage.says(Side.SERVER, answer)
    session = stage.session
    assert (session.user, session.login) == ("alice", "pass")
    assert (session.retrieved, session.deleted) == (1, 1)


@pytest.mark.parametrize("key", ["DELE", "XFOO", "STLS", "*", "GREETING"])
@pytest.mark.parametrize("value", [None, True, (), "ACCEPT"])
def test_a_malformed_entry_refuses_whatever_stands_beside_it(key: str, value: object) -> None:
    class Policy(AbstractPop3Proxy):
        def config(self) -> None:
            self.permit_unknown_command = True
            self.request["*"] = POP3_REQ_ACCEPT
            self.request[key] = value

    asking = Asking(Policy(), Unguarded(), RecordingJournal())
    asking.configure()
    found = asking.entry(key if key != "*" else "NOOP", COMMANDS.get(key if key != "*" else "NOOP"))
    assert found is not None
    assert found.verdict.action == POP3_REQ_REJECT
