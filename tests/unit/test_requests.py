"""Requests: what of them no log shows, also where the conversation itself is not logged; and what one shows of that."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from functools import partial

import pytest

from pop3gw.policy import POP3_REQ_ABORT, POP3_REQ_ACCEPT, POP3_REQ_POLICY, POP3_REQ_REJECT, Pop3Proxy
from pop3gw.proto.requests import nameable
from pop3gw.proto.session import Session
from tests.scenarios.player import FACTS, RecordingJournal

NOW = 1000.0


class Fails(Pop3Proxy):
    """Every callback shows all that it knows of the request."""

    def config(self) -> None:
        """Commands of the table, and others."""
        super().config()
        self.request["AUTH"] = self.request["XASK"] = (POP3_REQ_POLICY, self.ask)
        self.request["XHEAR"] = (POP3_REQ_POLICY, None, self.hear)
        self.request["XSTORE"] = (POP3_REQ_POLICY, self.keep)

    def ask(self, _command: str) -> int:
        """Fail on a request."""
        raise ValueError(self.request_param)

    def hear(self, _text: str) -> int:
        """Fail on an answer."""
        raise ValueError(self.request_param)

    def keep(self, _command: str) -> int:
        """Spoil what the gateway looks at behind the callback."""
        self.__dict__.update(request_command=None, request_param=7)
        return POP3_REQ_ACCEPT


def session(policy: type[Pop3Proxy] = Fails, greeting: bytes = b"+OK ready") -> tuple[Session, RecordingJournal]:
    journal = RecordingJournal(conversation=False)
    made = Session(policy, facts=FACTS, journal=journal)
    made.start(NOW)
    made.connected(NOW)
    made.server_data(greeting + b"\r\n", NOW)
    return made, journal


class Odd(Pop3Proxy):
    """What it keeps beside its attributes is its own affair."""

    def config(self) -> None:
        """Keys that are no names."""
        super().config()
        self.__dict__.update({("cache", 1): 5})


def test_a_policy_may_keep_anything_under_any_key() -> None:
    made, journal = session(Odd)
    assert made.to_client == [b"+OK ready\r\n"]
    assert journal.text == ""


@pytest.mark.parametrize("request_line", [b"AUTH X-OTHER aHVudGVyMg==", b"XASK alice hunter2", b"XHEAR alice hunter2"])
def test_a_callback_that_fails_shows_no_secret(request_line: bytes) -> None:
    made, journal = session()
    made.client_data(request_line + b"\r\n", NOW)
    if made.to_server:
        made.server_data(b"+OK\r\n", NOW)
    assert "ValueError" in journal.text
    assert "hunter2" not in journal.text
    assert "aHVudGVyMg==" not in journal.text


class ShowsDigest(Pop3Proxy):
    """Its callback shows the digest that an APOP of this login would send."""

    def config(self) -> None:
        """It is for AUTH."""
        super().config()
        self.request["AUTH"] = (POP3_REQ_POLICY, self.ask)

    def ask(self, _command: str) -> int:
        """Fail with it."""
        password = base64.b64decode(self.request_param.partition(" ")[2]).decode().rpartition("\0")[2]
        raise ValueError(hashlib.md5(f"{self.timestamp}{password}".encode(), usedforsecurity=False).hexdigest())


def test_the_digest_of_a_password_that_auth_brought_is_a_secret_too() -> None:
    made, journal = session(ShowsDigest, b"+OK <1896.697170952@dbc.mtview.ca.us> ready")
    made.client_data(b"AUTH PLAIN " + base64.b64encode(b"\0alice\0tanstaaf") + b"\r\n", NOW)
    assert "ValueError: ***" in journal.text
    assert "c4c9334bac560ecc979e58001b3e22fb" not in journal.text  # of RFC 1939 section 7


class Parts(Pop3Proxy):
    """Its callback is a part of a method."""

    def config(self) -> None:
        """One of two arguments is given."""
        super().config()
        self.request["XASK"] = (POP3_REQ_POLICY, partial(partial(self.ask), "x"))

    def ask(self, _given: str, _command: str) -> None:
        """Decide nothing."""


def test_a_callback_that_is_a_part_of_another_has_that_ones_name() -> None:
    made, journal = session(Parts)
    made.client_data(b"XASK\r\n", NOW)
    assert "callback Parts.ask failed on the request XASK" in journal.text


def test_a_callback_that_spoils_the_request_is_refused() -> None:
    made, journal = session()
    made.client_data(b"XSTORE hunter2\r\n", NOW)
    assert made.to_client[-1] == b"-ERR Invalid command.\r\n"
    assert not made.over
    assert "hunter2" not in journal.text


class Tells(Pop3Proxy):
    """Refuses, rewrites, answers."""

    def config(self) -> None:
        """One of each."""
        super().config()
        self.request["AUTH"] = POP3_REQ_ACCEPT
        self.request["DELE"] = (POP3_REQ_REJECT, "kept")
        self.request["STAT"] = (POP3_REQ_POLICY, self.ask, self.hear)
        self.request["UIDL"] = (POP3_REQ_POLICY, None, self.refuse)

    def ask(self, _command: str) -> int:
        """Of another command."""
        self.request_command = "LAST"
        return POP3_REQ_ACCEPT

    def hear(self, _text: str) -> int:
        """Something else."""
        self.response_param = "4"
        return POP3_REQ_ACCEPT

    def refuse(self, _text: str) -> int:
        """Whatever it is."""
        return POP3_REQ_REJECT


TOLD = [  # who says what; what the log then says, at debug or else
    ("c", "auth CRAM-MD5", ["client: AUTH CRAM-MD5", "to server: AUTH CRAM-MD5"]),
    ("s", "+ PDE+", ["server: [SASL challenge]"]),
    ("c", "YWxpY2UgMDAwMA==", ["client: [SASL response]"]),
    ("s", "+ PDI+", ["server: [SASL challenge]"]),
    ("c", "*", ["client: *"]),
    ("s", "-ERR cancelled", ["server: -ERR cancelled"]),
    ("c", "USER alice", ["client: USER alice", "to server: USER alice"]),
    ("s", "+OK go on", ["server: +OK go on"]),
    ("c", "PASS hunter2", ["client: PASS [secret]", "to server: PASS [secret]"]),
    ("s", "+OK", ["server: +OK"]),
    ("c", "noop hunter2", ["client: NOOP [secret]", "to server: NOOP"]),
    ("s", "+OK", ["server: +OK"]),
    (
        *("c", "retr"),
        ["client: RETR", "refused RETR: a message number is needed", "to client: -ERR Invalid command."],
    ),
    ("c", "DELE 1", ["client: DELE 1", "refused DELE 1: the policy refuses it", "to client: -ERR kept"]),
    ("c", "STAT", ["client: STAT", "to server: LAST"]),
    ("s", "+OK 3", ["server: +OK 3", "to client: +OK 4"]),
    ("c", "UIDL 1", ["client: UIDL 1", "to server: UIDL 1"]),
    (
        *("s", "+OK 1 abc"),
        [
            "server: +OK 1 abc",
            "refused the answer to UIDL 1: the policy refuses it",
            "to client: -ERR Error in protocol",
        ],
    ),
    ("c", "RETR 1", ["client: RETR 1", "to server: RETR 1"]),
    ("s", "+OK here", ["server: +OK here"]),
    ("s", "a line of mail", []),
    ("s", "", ["the server closed in the middle of the answer to RETR 1"]),
]


def test_a_log_at_debug_shows_the_conversation_once_and_no_secret() -> None:
    journal = RecordingJournal()
    made = Session(Tells, facts=FACTS, journal=journal)
    made.start(NOW)
    made.connected(NOW)
    made.server_data(b"+OK ready\r\n", NOW)
    assert [text for _, text in journal.lines] == ["server: +OK ready"]
    for who, said, told in TOLD:
        journal.lines.clear()
        if not said:
            made.server_eof(NOW)
        else:
            (made.client_data if who == "c" else made.server_data)(said.encode() + b"\r\n", NOW)
        assert [text for _, text in journal.lines] == told


class Evil:
    """What fails whatever is done with it."""

    def fail(self, *_arguments: object) -> str:
        """Do it."""
        raise LookupError

    __str__ = __repr__ = __format__ = __eq__ = __bool__ = __len__ = fail  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


class EvilText(str):
    """A text that fails whatever is done with it."""

    __slots__ = ()
    __str__ = __repr__ = __format__ = __eq__ = Evil.fail  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]
    upper = encode = split = Evil.fail  # type: ignore[assignment]


class Secretive:
    """What tells a secret as a text that fails."""

    def __str__(self) -> str:
        """The secret."""
        return EvilText("PASS sesame")


SPOILT: dict[str, Callable[[], object]] = {
    "fails": Evil,
    "text": lambda: EvilText("sesame"),
    "octets": lambda: b"sesame",
    "list": lambda: ["PASS", "sesame"],
    "tells": Secretive,
}


@pytest.mark.parametrize("returned", [POP3_REQ_ACCEPT, POP3_REQ_REJECT, (POP3_REQ_REJECT, "no"), POP3_REQ_ABORT, None])
@pytest.mark.parametrize("spoilt", SPOILT)
@pytest.mark.parametrize("name", ["request_command", "request_param", "response_value", "response_param"])
def test_what_is_no_text_is_the_callbacks_error(name: str, spoilt: str, returned: object) -> None:
    class Spoils(Pop3Proxy):
        def config(self) -> None:
            super().config()
            self.request["CAPA"] = (POP3_REQ_POLICY, self.spoil)
            self.request["UTF8"] = (POP3_REQ_POLICY, None, self.spoil)

        def spoil(self, _seen: str) -> object:
            self.__dict__[name] = SPOILT[spoilt]()
            return returned

    made, journal = session(Spoils)
    made.client_data(b"CAPA\r\n", NOW)
    assert made.to_client[-1] == b"-ERR Invalid command.\r\n"
    made.client_data(b"UTF8\r\n", NOW)
    assert made.to_server == [b"UTF8\r\n"]
    made.server_data(b"+OK\r\n", NOW)
    assert made.to_client[-1] == b"-ERR Error in protocol\r\n"
    assert not made.over
    assert made.callback_failures == ["spoil", "spoil"]
    assert "Spoils.spoil failed on the request CAPA" in journal.text
    assert "sesame" not in journal.text


@pytest.mark.parametrize("spoilt", SPOILT)
def test_what_is_no_text_and_fails_a_callback_shows_no_secret(spoilt: str) -> None:
    class Spoils(Pop3Proxy):
        def config(self) -> None:
            super().config()
            self.request["XASK"] = (POP3_REQ_POLICY, self.spoil)

        def spoil(self, _command: str) -> int:
            self.__dict__["request_param"] = SPOILT[spoilt]()
            raise ValueError(self.request_param)

    made, journal = session(Spoils)
    made.client_data(b"XASK\r\n", NOW)
    assert made.to_client[-1] == b"-ERR Invalid command.\r\n"
    assert not made.over
    assert "ValueError" in journal.text
    assert "sesame" not in journal.text


def test_a_line_that_is_no_text_ends_the_answer() -> None:
    class Spoils(Pop3Proxy):
        def config(self) -> None:
            super().config()
            self.request["LANG"] = (POP3_REQ_POLICY, None, self.spoil)

        def spoil(self, _seen: str) -> int:
            if self.response_param == "en":
                self.__dict__["response_param"] = EvilText("en")
            return POP3_REQ_ACCEPT

    made, journal = session(Spoils)
    made.client_data(b"LANG\r\n", NOW)
    made.server_data(b"+OK\r\nen\r\n.\r\n", NOW)
    assert b"".join(made.to_client).endswith(b"ready\r\n+OK\r\n")
    assert made.over
    assert "Spoils.spoil failed on a line of the answer to LANG" in journal.text


@pytest.mark.parametrize(
    ("name", "shown"),
    [("PASS", True), ("XASK", True), ("XHEAR", True), ("HELO", True), ("HUNTER2", False), ("HUNTERS", False)],
)
def test_which_commands_a_log_may_name(name: str, shown: bool) -> None:
    made, _journal = session()
    assert nameable(name, made.policy) is shown
