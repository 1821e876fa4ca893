"""Requests: what of them no log shows, also where the conversation itself is not logged."""

from __future__ import annotations

import pytest

from pop3gw.policy import POP3_REQ_ACCEPT, POP3_REQ_POLICY, Pop3Proxy
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


def session() -> tuple[Session, RecordingJournal]:
    journal = RecordingJournal(conversation=False)
    made = Session(Fails, facts=FACTS, journal=journal)
    made.start(NOW)
    made.connected(NOW)
    made.server_data(b"+OK ready\r\n", NOW)
    return made, journal


@pytest.mark.parametrize("request_line", [b"AUTH X-OTHER aHVudGVyMg==", b"XASK alice hunter2", b"XHEAR alice hunter2"])
def test_a_callback_that_fails_shows_no_secret(request_line: bytes) -> None:
    made, journal = session()
    made.client_data(request_line + b"\r\n", NOW)
    if made.to_server:
        made.server_data(b"+OK\r\n", NOW)
    assert "ValueError" in journal.text
    assert "hunter2" not in journal.text
    assert "aHVudGVyMg==" not in journal.text


def test_a_callback_that_spoils_the_request_is_refused() -> None:
    made, journal = session()
    made.client_data(b"XSTORE hunter2\r\n", NOW)
    assert made.to_client[-1] == b"-ERR Invalid command.\r\n"
    assert not made.over
    assert "hunter2" not in journal.text


@pytest.mark.parametrize(
    ("name", "shown"),
    [("PASS", True), ("XASK", True), ("XHEAR", True), ("HELO", True), ("HUNTER2", False), ("HUNTERS", False)],
)
def test_which_commands_a_log_may_name(name: str, shown: bool) -> None:
    made, _journal = session()
    assert nameable(name, made.policy) is shown
