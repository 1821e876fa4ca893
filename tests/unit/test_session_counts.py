"""What a session counts: each request once, by what became of it; logins by way and outcome; failures of callbacks."""

from __future__ import annotations

import pytest

from pop3gw.policy import POP3_REQ_ABORT, POP3_REQ_ACCEPT, POP3_REQ_POLICY, POP3_REQ_REJECT, Pop3Proxy, SessionFacts
from pop3gw.proto import counts
from pop3gw.proto.session import Session
from tests.scenarios.player import RecordingJournal

NAMES = {
    at: " ".join((family.name, *values))
    for family in counts.FAMILIES
    if not family.buckets
    for values, at in family.rows()
}
LOGIN = [("c", "USER bob"), ("s", "+OK"), ("c", "PASS x"), ("s", "+OK")]
LOGGED_IN = {"requests USER relayed": 1, "requests PASS relayed": 1, "logins user ok": 1}


class Nameless:
    """A callback whose name is no text."""

    __name__ = None

    def __call__(self, _command: str) -> int:
        return 1 // 0


class Office(Pop3Proxy):
    """One of each."""

    def config(self) -> None:
        super().config()
        self.request.update(
            DELE=POP3_REQ_REJECT,
            RSET=POP3_REQ_ABORT,
            APOP=(POP3_REQ_POLICY, self.admit),
            AUTH=(POP3_REQ_POLICY, None, self.sober),
            NOOP=(POP3_REQ_POLICY, self.divide),
            LAST=(POP3_REQ_POLICY, self.answer),
            TOP=(POP3_REQ_POLICY, None, self.reject),
            LIST=(POP3_REQ_POLICY, None, self.sober),
            UIDL=(POP3_REQ_POLICY, abs),
            LANG=(POP3_REQ_POLICY, Nameless()),
            XONE=POP3_REQ_ACCEPT,
        )

    def admit(self, command: str) -> int:
        return self.answer(command) if self.username == "alice" else POP3_REQ_REJECT

    def reject(self, _text: str) -> int:
        return POP3_REQ_REJECT

    def sober(self, text: str) -> int:
        if text == "welcome, drunkard":
            self.response_value, self.response_param = "-ERR", "no"
        return POP3_REQ_REJECT if text == "be gone" else POP3_REQ_ACCEPT

    def divide(self, _command: str) -> int:
        return 1 // 0

    def answer(self, _command: str) -> int:
        self.response_value, self.response_param = "+OK", "0"
        return POP3_REQ_REJECT


class Silent:
    """A journal for nobody."""

    conversation = False

    def secret(self, text: str) -> None: ...
    def debug(self, text: str) -> None: ...
    def info(self, text: str) -> None: ...
    def warning(self, text: str) -> None: ...
    def error(self, text: str) -> None: ...


def played(*lines: tuple[str, str]) -> Session:
    """A session after the client (c) and the server (s) have said these lines."""
    session = Session(Office, facts=SessionFacts(), journal=Silent())
    session.start(0.0)
    session.connected(0.0)
    session.server_data(b"+OK ready\r\n", 0.0)
    now = 0.0
    for who, line in lines:
        now += 0.001
        hear = session.client_data if who == "c" else session.server_data
        hear(line.encode() + b"\r\n", now)
        if session.deadline is not None and session.deadline < now + 1:  # an answer that is held back
            now = session.deadline
            session.expire(now)
    return session


def counted(session: Session) -> dict[str, int]:
    return {NAMES[at]: session.counters[at] for at in range(counts.COUNTERS) if session.counters[at]}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (LOGIN, LOGGED_IN),
        ([("c", "USER bob"), ("s", "-ERR")], {"requests USER relayed": 1}),
        (
            [("c", "USER bob"), ("s", "+OK"), ("c", "PASS x"), ("s", "-ERR no")],
            {"requests USER relayed": 1, "requests PASS relayed": 1, "logins user failed": 1},
        ),
        ([("c", f"APOP bob {'0' * 32}")], {"requests APOP refused": 1, "logins apop refused": 1}),
        ([("c", f"APOP alice {'0' * 32}")], {"requests APOP answered": 1, "logins apop ok": 1}),
        ([("c", "AUTH PLAIN AGJvYgB4"), ("s", "+OK")], {"requests AUTH relayed": 1, "logins sasl ok": 1}),
        ([("c", "AUTH PLAIN AGJvYgB4"), ("s", "-ERR")], {"requests AUTH relayed": 1, "logins sasl failed": 1}),
        # Of a password that the server takes nobody guesses, whatever the policy thinks of who comes with it.
        (
            [("c", "AUTH PLAIN AGJvYgB4"), ("s", "+OK be gone")],
            {"requests AUTH relayed": 1, "logins sasl refused": 1, "answers_refused": 1},
        ),
        (
            [("c", "AUTH PLAIN AGJvYgB4"), ("s", "+OK welcome, drunkard")],
            {"requests AUTH relayed": 1, "logins sasl refused": 1, "answers_refused": 1},
        ),
        (
            [("c", "AUTH PLAIN AGJvYgB4"), ("s", "-ERR be gone")],
            {"requests AUTH relayed": 1, "logins sasl failed": 1, "answers_refused": 1},
        ),
        ([("c", "AUTH CRAM-MD5"), ("s", "+ PDE+"), ("c", "*"), ("s", "-ERR")], {"requests AUTH relayed": 1}),
        (
            [("c", "AUTH CRAM-MD5"), ("s", "+ PDE+"), ("c", "*"), ("s", "-ERR"), *LOGIN[:3], ("s", "-ERR no")],
            {
                "requests AUTH relayed": 1,
                "requests USER relayed": 1,
                "requests PASS relayed": 1,
                "logins user failed": 1,
            },
        ),
        ([("c", "STAT")], {"requests STAT refused": 1}),
        ([("c", "PASS x")], {"requests PASS refused": 1}),
        ([("c", "")], {"requests other refused": 1}),
        ([("c", "STLS")], {"requests STLS refused": 1}),
        ([("c", "OBEY me")], {"requests other aborted": 1}),
        ([("c", "x" * 5000)], {"requests other aborted": 1}),
        ([("c", "XONE"), ("s", "+OK")], {"requests other relayed": 1}),
        ([*LOGIN, ("c", "DELE 1")], {**LOGGED_IN, "requests DELE refused": 1}),
        ([*LOGIN, ("c", "RSET")], {**LOGGED_IN, "requests RSET aborted": 1}),
        ([*LOGIN, ("c", "NOOP")], {**LOGGED_IN, "requests NOOP refused": 1}),
        ([*LOGIN, ("c", "LAST")], {**LOGGED_IN, "requests LAST answered": 1}),
        ([*LOGIN, ("c", "RETR 1"), ("s", "+OK"), ("s", ".")], {**LOGGED_IN, "requests RETR relayed": 1, "messages": 1}),
        ([*LOGIN, ("c", "RETR 1"), ("s", "-ERR")], {**LOGGED_IN, "requests RETR relayed": 1}),
        (
            [*LOGIN, ("c", "TOP 1 0"), ("s", "+OK"), ("s", ".")],
            {**LOGGED_IN, "requests TOP relayed": 1, "answers_refused": 1},
        ),
        (
            [*LOGIN, ("c", "LIST"), ("s", "+OK welcome, drunkard"), ("s", ".")],
            {**LOGGED_IN, "requests LIST relayed": 1, "answers_refused": 1},
        ),
        ([*LOGIN, ("c", "QUIT"), ("s", "+OK")], {**LOGGED_IN, "requests QUIT relayed": 1}),
    ],
    ids=lambda value: "; ".join(line[:16] for _, line in value) if isinstance(value, list) else "",
)
def test_each_request_is_counted_once(lines: list[tuple[str, str]], expected: dict[str, int]) -> None:
    session = played(*lines)
    assert counted(session) == expected
    requests = sum(number for name, number in expected.items() if name.startswith("requests "))
    asked = sum(who == "c" and line != "*" for who, line in lines)
    assert requests == asked or session.over


@pytest.mark.parametrize(
    ("lines", "way"),
    [
        (LOGIN, "pass"),
        ([("c", f"APOP bob {'0' * 32}"), ("c", f"APOP alice {'0' * 32}")], "apop"),
        ([("c", "AUTH plain"), ("s", "+"), ("c", "AGJvYgB4"), ("s", "+OK")], "sasl PLAIN"),
        ([("c", "AUTH PLAIN AGJvYgB4"), ("s", "-ERR"), *LOGIN], "pass"),
        ([("c", "AUTH PLAIN AGJvYgB4"), ("s", "-ERR"), *LOGIN[:3], ("s", "-ERR")], None),
    ],
    ids=("PASS", "APOP", "AUTH", "PASS behind AUTH", "none"),
)
def test_by_what_the_client_logged_in(lines: list[tuple[str, str]], way: str | None) -> None:
    assert played(*lines).login == way


def test_the_state_that_is_shown_follows_what_is_said() -> None:
    said = [
        ("c", "USER bob"),
        ("s", "-ERR"),
        ("c", "AUTH CRAM-MD5"),
        ("s", "+ PDE+"),
        ("c", "*"),
        ("s", "-ERR"),
        *LOGIN,
        ("c", "QUIT"),
        ("s", "+OK"),
    ]
    states = [played(*said[:length]).state for length in range(len(said) + 1)]
    unknown, sasl, named = ["AUTHORIZATION"], ["SASL"], ["USER"]
    assert states == [*unknown * 3, *sasl * 3, *unknown * 2, *named * 2, *["TRANSACTION"] * 2, "UPDATE"]


def test_callbacks_that_fail_are_named() -> None:
    failing = [("c", command) for command in ("NOOP", "NOOP", "UIDL", "LANG")]
    assert played(*LOGIN, *failing).callback_failures == ["divide", "divide", "abs", "Nameless"]


def test_a_config_that_fails_is_named_and_logged_with_its_cause() -> None:
    class Broken(Pop3Proxy):
        def config(self) -> None:
            raise LookupError("no table")

    class Unmade(Pop3Proxy):
        def __init__(self) -> None:
            raise LookupError("no table")

    for policy, name in ((Broken, "config"), (Unmade, "__init__")):
        journal = RecordingJournal()
        session = Session(policy, facts=SessionFacts(), journal=journal)
        session.start(0.0)
        assert session.callback_failures == [name]
        level, text = journal.lines[0]
        assert level == "error"
        assert text.startswith(f"{policy.__name__}: ")
        assert f"in {name}\n" in text
        assert text.endswith("LookupError: no table\n")
        assert name in counts.callback_names(policy)
