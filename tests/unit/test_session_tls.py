"""When a session speaks TLS, with whom, and what may be said before: every mode, without a socket.

The question behind it: is there a peer or a policy with which a password crosses in clear, though the service says
``required``?
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3gw.policies.tls import TlsRequired
from pop3gw.policy import (
    POP3_REQ_ACCEPT,
    POP3_REQ_ACCEPT_MLINE,
    POP3_REQ_POLICY,
    POP3_REQ_REJECT,
    POP3_RSP_ACCEPT,
    AbstractPop3Proxy,
    Pop3Proxy,
    TlsFacts,
)
from pop3gw.proto.events import Ending, Side
from pop3gw.proto.session import Session
from pop3gw.proto.upgrade import SessionRules
from pop3gw.values import Tls
from tests.scenarios.player import FACTS, Onlooker, RecordingJournal

FACTS_13 = TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384")
NOW = 1000.0
GREETING = b"+OK ready <1.2@server>\r\n"
ADVICE = b"-ERR Turn on TLS (SSL) in your mail program: logging in without it is not allowed here\r\n"
NOT_AVAILABLE = b"-ERR [SYS/TEMP] Server not available\r\n"
SERVER_CAPABILITIES = b"+OK\r\nTOP\r\nUSER\r\nSASL PLAIN\r\nSTLS\r\nUIDL\r\n.\r\n"
LOGINS = ("USER alice", "PASS hunter2", "APOP alice 0123456789abcdef0123456789abcdef", "AUTH PLAIN AGEAYg==", "AUTH")


class Everything(Pop3Proxy):
    """Pop3Proxy with AUTH."""

    def config(self) -> None:
        """As Pop3Proxy."""
        super().config()
        self.request["AUTH"] = POP3_REQ_ACCEPT


class Table:
    """A session between two peers; TLS begins where the session wants it, unless it is told to fail."""

    def __init__(
        self, client: Tls = Tls.OFF, server: Tls = Tls.OFF, policy: type[AbstractPop3Proxy] = Everything
    ) -> None:
        self.journal = RecordingJournal()
        self.session = Session(policy, facts=FACTS, journal=self.journal, rules=SessionRules(client, server))
        self._relay = Onlooker()
        self.session.start(NOW)
        self._relay.look(self.session)

    def connect(self) -> None:
        assert self.session.wants_server
        self.session.connected(NOW, "198.51.100.9", 110)
        self._relay.look(self.session)

    def shake(self, side: Side, certificate: str | None = None) -> None:
        assert self.session.tls_wanted is side
        self.session.tls_started(side, FACTS_13, NOW, certificate)
        self._relay.look(self.session)

    def client(self, line: str) -> tuple[bytes, bytes]:
        """What client and server hear when the client says this."""
        self.session.client_data(f"{line}\r\n".encode(), NOW)
        return self.take()

    def server(self, data: bytes) -> tuple[bytes, bytes]:
        """What client and server hear when the server says this."""
        self.session.server_data(data, NOW)
        return self.take()

    def take(self) -> tuple[bytes, bytes]:
        heard = b"".join(self.session.to_client), b"".join(self.session.to_server)
        self.session.to_client.clear()
        self.session.to_server.clear()
        self._relay.look(self.session)
        return heard

    def greeted(self) -> Table:
        self.connect()
        assert self.server(GREETING) == (GREETING, b"")
        return self

    def secured(self) -> Table:
        assert self.client("STLS") == (b"+OK Begin TLS now\r\n", b"")
        self.shake(Side.CLIENT)
        return self

    def capabilities(self) -> list[str]:
        assert self.client("CAPA") == (b"", b"CAPA\r\n")
        heard, _ = self.server(SERVER_CAPABILITIES)
        return heard.decode().splitlines()[1:-1]


# Towards the client.


@pytest.mark.parametrize(("entry", "offered"), [(POP3_REQ_ACCEPT, True), (POP3_REQ_REJECT, False)])
def test_stls_is_offered_unless_the_policy_refuses_it(entry: int, offered: bool) -> None:
    class Says(Everything):
        def config(self) -> None:
            super().config()
            self.request["STLS"] = entry

    table = Table(Tls.STARTTLS, policy=Says).greeted()
    assert ("STLS" in table.capabilities()) is offered
    assert table.client("STLS")[0].startswith(b"+OK" if offered else b"-ERR")


def test_off_knows_no_stls() -> None:
    table = Table().greeted()
    assert "STLS" not in table.capabilities()
    heard, passed = table.client("STLS")
    assert heard.startswith(b"-ERR")
    assert not passed
    assert table.session.tls_wanted is None


def test_starttls_offers_and_takes_it_once() -> None:
    table = Table(Tls.STARTTLS).greeted()
    assert set(table.capabilities()) == {"TOP", "USER", "SASL PLAIN", "UIDL", "STLS"}
    table.secured()
    assert set(table.capabilities()) == {"TOP", "USER", "SASL PLAIN", "UIDL"}
    assert table.session.policy.session.client_tls == FACTS_13
    assert table.client("STLS")[0].startswith(b"-ERR")


def test_starttls_lets_a_login_through_in_clear() -> None:
    assert Table(Tls.STARTTLS).greeted().client("USER alice") == (b"", b"USER alice\r\n")


def test_required_shows_and_takes_no_login_before_it() -> None:
    table = Table(Tls.REQUIRED).greeted()
    assert set(table.capabilities()) == {"TOP", "UIDL", "STLS"}
    for login in LOGINS:
        assert table.client(login) == (ADVICE, b"")
    table.secured()
    assert set(table.capabilities()) == {"TOP", "USER", "SASL PLAIN", "UIDL"}
    assert table.client("USER alice") == (b"", b"USER alice\r\n")


def test_required_takes_a_login_in_pieces_and_in_lower_case_for_one() -> None:
    table = Table(Tls.REQUIRED).greeted()
    for piece in (b"pAsS", b" hun", b"ter2\r", b"\n"):
        table.session.client_data(piece, NOW)
    assert table.take() == (ADVICE, b"")


def test_required_by_a_server_without_capa() -> None:
    table = Table(Tls.REQUIRED).greeted()
    table.client("CAPA")
    heard, _ = table.server(b"-ERR what?\r\n")
    assert heard.splitlines()[1:-1] == [b"TOP", b"UIDL", b"STLS"]


def test_implicit_begins_with_it_and_configures_the_policy_behind() -> None:
    class Looks(Everything):
        def config(self) -> None:
            super().config()
            self.seen = self.session.client_tls, self.session.client_certificate

    table = Table(Tls.IMPLICIT, policy=Looks)
    assert not table.session.wants_server
    table.shake(Side.CLIENT, "CN=alice")
    assert table.session.policy.seen == (FACTS_13, "CN=alice")  # type: ignore[attr-defined]  # the policy's own
    table.greeted()
    assert "STLS" not in table.capabilities()
    assert table.client("STLS")[0].startswith(b"-ERR")


def test_implicit_that_fails_reaches_no_server() -> None:
    table = Table(Tls.IMPLICIT)
    table.session.tls_failed(Side.CLIENT, "wrong version number", NOW)
    assert table.take() == (b"", b"")
    assert (table.session.over, table.session.ending) == (True, Ending.TLS)
    assert not table.session.wants_server


def test_implicit_is_awaited_for_auth_timeout() -> None:
    table = Table(Tls.IMPLICIT)
    table.session.expire(NOW + 60)
    assert table.session.ending is Ending.TIMEOUT
    assert table.take() == (b"", b"")


def test_implicit_leaves_auth_timeout_to_run_from_the_greeting() -> None:
    class Quick(Everything):
        auth_timeout = 3_000

    table = Table(Tls.IMPLICIT, policy=Quick)
    table.session.tls_started(Side.CLIENT, FACTS_13, NOW + 4)
    table.session.connected(NOW + 4, "198.51.100.9", 110)
    for silence in range(5, 10):  # of a server that takes its time
        table.session.expire(NOW + silence)
    assert not table.session.over
    table.session.server_data(GREETING, NOW + 10)
    assert table.take() == (GREETING, b"")
    assert table.session.deadline == NOW + 13
    table.session.expire(NOW + 13)
    assert table.session.ending is Ending.TIMEOUT
    assert table.session.ended_by is Side.CLIENT


def test_stls_that_fails_ends_the_session_in_silence() -> None:
    table = Table(Tls.REQUIRED).greeted()
    table.client("STLS")
    table.session.tls_failed(Side.CLIENT, "no shared cipher", NOW)
    assert table.take() == (b"", b"")
    assert table.session.ending is Ending.TLS


@pytest.mark.parametrize("behind", [b"USER alice\r\n", b"CAPA", b"\x16\x03\x01"], ids=["line", "half", "ClientHello"])
def test_what_comes_in_clear_behind_stls_ends_the_session(behind: bytes) -> None:
    table = Table(Tls.STARTTLS).greeted()
    table.session.client_data(b"STLS\r\n" + behind, NOW)
    heard, passed = table.take()
    assert heard.startswith(b"-ERR")
    assert b"+OK" not in heard
    assert not passed
    assert table.session.over


def test_nothing_is_read_in_clear_while_tls_begins() -> None:
    table = Table(Tls.STARTTLS).greeted()
    table.client("STLS")
    assert not table.session.reads_client
    assert not table.session.reads_server


def test_what_was_said_in_clear_is_forgotten() -> None:
    table = Table(Tls.STARTTLS).greeted()
    table.client("USER alice")
    table.server(b"+OK\r\n")
    table.client("PASS hunter2")
    table.server(b"-ERR no\r\n")
    table.session.expire(NOW + 5)
    assert table.take()[0] == b"-ERR no\r\n"
    table.secured()
    assert table.session.user is None
    assert table.session.policy.password is None
    assert table.client("PASS hunter2")[0].startswith(b"-ERR")
    assert table.session.policy.timestamp == "<1.2@server>"


def test_stls_is_for_authorization_alone() -> None:
    table = Table(Tls.STARTTLS).greeted()
    table.client("USER alice")
    table.server(b"+OK\r\n")
    assert table.client("STLS")[0].startswith(b"-ERR")
    assert table.session.tls_wanted is None


def test_pipelined_requests_before_stls_are_answered_first() -> None:
    table = Table(Tls.REQUIRED).greeted()
    table.session.client_data(b"CAPA\r\nSTLS\r\n", NOW)
    heard, passed = table.take()
    assert (heard, passed) == (b"", b"CAPA\r\n")
    heard, _ = table.server(SERVER_CAPABILITIES)
    assert heard.endswith(b".\r\n+OK Begin TLS now\r\n")
    assert table.session.tls_wanted is Side.CLIENT


# Towards the client: what policies can do about it.


class Rewrites(Everything):
    """Logs everybody in who asks for CAPA, tells of logins by itself, and has commands of its own."""

    def config(self) -> None:
        """As Everything."""
        super().config()
        self.permit_unknown_command = True
        self.request["LANG"] = (POP3_REQ_POLICY, self.log_in)
        self.request["UTF8"] = (POP3_REQ_POLICY, self.name_user)
        self.request["XCAPA"] = (POP3_REQ_POLICY, self.ask_capa)
        self.request["XLIST"] = POP3_REQ_ACCEPT_MLINE
        self.request["PASS"] = (POP3_REQ_POLICY, self.welcome)

    def log_in(self, _command: str) -> int:
        """A login of the policy's own."""
        self.request_command, self.request_param = "APOP", "alice 0123456789abcdef0123456789abcdef"
        return POP3_REQ_ACCEPT

    def name_user(self, _command: str) -> int:
        """A name of the policy's own."""
        self.request_command, self.request_param = "USER", "alice"
        return POP3_REQ_ACCEPT

    def ask_capa(self, _command: str) -> int:
        """CAPA by another name."""
        self.request_command, self.request_param = "CAPA", ""
        return POP3_REQ_ACCEPT

    def welcome(self, _command: str) -> int:
        """Everybody is let in."""
        self.response_value, self.response_param = "+OK", "welcome"
        return POP3_REQ_REJECT


@pytest.mark.parametrize(
    "line", ["LANG en", "UTF8", "XCAPA", "XLIST", "XLOGIN alice hunter2", "xlogin alice hunter2", "PASS hunter2"]
)
def test_no_policy_makes_a_login_before_required_tls(line: str) -> None:
    table = Table(Tls.REQUIRED, policy=Rewrites).greeted()
    assert table.client(line) == (ADVICE, b"")
    assert table.session.login is None


def test_a_policys_own_capa_shows_no_login_before_required_tls() -> None:
    class Own(Everything):
        def config(self) -> None:
            super().config()
            self.request["CAPA"] = (POP3_REQ_POLICY, self.tell)

        def tell(self, _command: str) -> int:
            self.response_value, self.response_param = "+OK", "mine"
            self.response_lines = ["TOP", "USER", "sasl PLAIN", "SASL", "STLS", ".X"]
            return POP3_REQ_REJECT

    table = Table(Tls.REQUIRED, policy=Own).greeted()
    assert table.client("CAPA")[0] == b"+OK mine\r\nTOP\r\nSTLS\r\n..X\r\n.\r\n"
    table.secured()
    assert b"USER\r\n" in table.client("CAPA")[0]


def test_what_a_callback_adds_to_capa_shows_no_login_before_required_tls() -> None:
    class Adds(Everything):
        def config(self) -> None:
            super().config()
            self.request["CAPA"] = (POP3_REQ_POLICY, None, self.see)

        def see(self, line: str) -> int:
            if line == "TOP":
                self.response_param = "SASL PLAIN"
            return POP3_RSP_ACCEPT

    assert set(Table(Tls.REQUIRED, policy=Adds).greeted().capabilities()) == {"UIDL", "STLS"}


def test_an_entry_can_refuse_stls() -> None:
    class Refuses(Everything):
        def config(self) -> None:
            super().config()
            self.request["STLS"] = (POP3_REQ_REJECT, "Not you")

    table = Table(Tls.REQUIRED, policy=Refuses).greeted()
    assert "STLS" not in table.capabilities()
    assert table.client("STLS") == (b"-ERR Not you\r\n", b"")
    assert table.client("USER alice") == (ADVICE, b"")


STLS_SAID: dict[str, tuple[dict[str, str], object]] = {
    "+OK": ({"response_value": "+OK"}, POP3_REQ_REJECT),
    "a command": ({"request_command": "UTF8"}, POP3_REQ_ACCEPT),
    "an unknown command": ({"request_command": "XTND"}, POP3_REQ_ACCEPT_MLINE),
    "an argument": ({"request_param": "now"}, POP3_REQ_ACCEPT),
}


@pytest.mark.parametrize("said", STLS_SAID)
def test_a_callback_neither_answers_stls_nor_makes_another_request_of_it(said: str) -> None:
    attributes, returned = STLS_SAID[said]

    class Answers(Everything):
        def config(self) -> None:
            super().config()
            self.request["STLS"] = (POP3_REQ_POLICY, self.answer)

        def answer(self, _command: str) -> object:
            for name, value in attributes.items():
                setattr(self, name, value)
            return returned

    table = Table(Tls.STARTTLS, policy=Answers).greeted()
    assert table.client("STLS") == (b"-ERR Invalid command.\r\n", b"")
    assert "answer failed on the request STLS: it " in table.journal.text
    assert table.session.tls_wanted is None
    assert table.client("USER alice") == (b"", b"USER alice\r\n")


@pytest.mark.parametrize(("text", "heard"), [("Later", b"-ERR Later\r\n"), (None, b"+OK Begin TLS now\r\n")])
def test_a_callback_refuses_or_accepts_stls(text: str | None, heard: bytes) -> None:
    class Decides(Everything):
        def config(self) -> None:
            super().config()
            self.request["STLS"] = (POP3_REQ_POLICY, self.decide)

        def decide(self, _command: str) -> object:
            self.request_command = "stls"
            return POP3_REQ_ACCEPT if text is None else (POP3_REQ_REJECT, text)

    table = Table(Tls.STARTTLS, policy=Decides).greeted()
    assert table.client("STLS") == (heard, b"")
    assert table.session.tls_wanted is (Side.CLIENT if text is None else None)


def test_tls_required_of_the_policy() -> None:
    table = Table(Tls.STARTTLS, policy=TlsRequired).greeted()
    assert set(table.capabilities()) == {"TOP", "UIDL", "STLS"}
    for login in LOGINS:
        assert table.client(login) == (ADVICE, b"")
    table.secured()
    assert set(table.capabilities()) == {"TOP", "UIDL", "USER", "SASL PLAIN"}
    assert table.client("USER alice") == (b"", b"USER alice\r\n")


class Entries(TlsRequired):
    """Fills the request hash behind TlsRequired: PASS is looked at, APOP and AUTH are refused."""

    def config(self) -> None:
        """As TlsRequired, and then its own."""
        super().config()
        self.fill()

    def fill(self) -> None:
        """Entries of its own."""
        self.request["USER"] = (POP3_REQ_POLICY, self.accept)
        self.request["PASS"] = (POP3_REQ_POLICY, self.look)
        self.request["APOP"] = (POP3_REQ_REJECT, "No APOP here")
        self.request["AUTH"] = (POP3_REQ_REJECT, "No SASL here")
        self.request["XLOGIN"] = POP3_REQ_ACCEPT

    def accept(self, _command: str) -> int:
        """Any name."""
        return POP3_REQ_ACCEPT

    def look(self, _command: str) -> tuple[int, str]:
        """No password is good enough."""
        return POP3_REQ_REJECT, "Not you"


class Apart(Entries):
    """Passes TlsRequired over."""

    def config(self) -> None:
        """As Pop3Proxy, and then its own."""
        Pop3Proxy.config(self)
        self.fill()


class Without(Pop3Proxy):
    """Has no entry for APOP."""

    def config(self) -> None:
        """As Pop3Proxy."""
        super().config()
        del self.request["APOP"]


class Mixed(Entries, Without):
    """TlsRequired before another base."""

    def fill(self) -> None:
        """What is left out stays out."""
        super().fill()
        del self.request["APOP"], self.request["AUTH"]


HEIRS: dict[type[TlsRequired], tuple[bytes, bytes]] = {
    Entries: (b"-ERR No APOP here\r\n", b"-ERR No SASL here\r\n"),
    Apart: (b"-ERR No APOP here\r\n", b"-ERR No SASL here\r\n"),
    Mixed: (b"-ERR Invalid command.\r\n", b"-ERR Invalid command.\r\n"),
}


@pytest.mark.parametrize("heir", HEIRS)
def test_tls_required_of_the_policy_holds_for_its_heirs(heir: type[TlsRequired]) -> None:
    table = Table(Tls.STARTTLS, policy=heir).greeted()
    assert set(table.capabilities()) == {"TOP", "UIDL", "STLS"}
    for login in (*LOGINS, "XLOGIN alice hunter2"):
        assert table.client(login) == (ADVICE, b"")


@pytest.mark.parametrize("heir", HEIRS)
@pytest.mark.parametrize("mode", [Tls.STARTTLS, Tls.IMPLICIT])
def test_tls_required_of_the_policy_leaves_its_heirs_what_they_say(mode: Tls, heir: type[TlsRequired]) -> None:
    table = Table(mode, policy=heir)
    if mode is Tls.IMPLICIT:
        table.shake(Side.CLIENT)
    table.greeted()
    if mode is Tls.STARTTLS:
        table.secured()
    apop, auth = HEIRS[heir]
    assert set(table.capabilities()) == {"TOP", "UIDL", "USER"}
    assert table.client(LOGINS[2]) == (apop, b"")
    assert table.client(LOGINS[3]) == (auth, b"")
    assert table.client("USER alice") == (b"", b"USER alice\r\n")
    table.server(b"+OK\r\n")
    assert table.client("PASS hunter2") == (b"", b"")
    table.session.expire(NOW + 1)
    assert table.take() == (b"-ERR Not you\r\n", b"")


def test_an_heir_says_which_sessions_need_no_tls() -> None:
    class Near(TlsRequired):
        def config(self) -> None:
            super().config()
            self.tls_required = self.session.client_address != FACTS.client_address

    table = Table(Tls.STARTTLS, policy=Near).greeted()
    assert "USER" in table.capabilities()
    assert table.client("USER alice") == (b"", b"USER alice\r\n")


def test_a_login_that_tls_is_required_for_asks_for_a_new_user() -> None:
    class Late(Everything):
        def config(self) -> None:
            super().config()
            self.request["USER"] = (POP3_REQ_POLICY, self.demand)

        def demand(self, _command: str) -> int:
            self.tls_required = True
            return POP3_REQ_ACCEPT

    table = Table(Tls.STARTTLS, policy=Late).greeted()
    assert table.client("USER alice") == (b"", b"USER alice\r\n")
    table.server(b"+OK\r\n")
    assert table.client("PASS hunter2") == (ADVICE, b"")
    table.secured()
    assert table.client("PASS hunter2") == (b"-ERR Invalid command.\r\n", b"")


def test_tls_required_of_the_policy_where_it_comes_first() -> None:
    table = Table(Tls.IMPLICIT, policy=TlsRequired)
    table.shake(Side.CLIENT)
    assert "USER" in table.greeted().capabilities()


def test_tls_required_of_the_policy_where_the_service_has_none() -> None:
    table = Table(Tls.OFF, policy=TlsRequired).greeted()
    assert set(table.capabilities()) == {"TOP", "UIDL"}
    assert table.client("STLS")[0].startswith(b"-ERR")
    assert table.client("USER alice") == (ADVICE, b"")


# Towards the server.


def test_required_says_stls_first_and_greets_behind_it() -> None:
    table = Table(server=Tls.REQUIRED)
    table.connect()
    assert table.server(GREETING) == (b"", b"STLS\r\n")
    table.session.client_data(b"USER alice\r\n", NOW)  # a client that does not wait for the greeting
    assert table.server(b"+OK go\r\n") == (b"", b"")
    table.shake(Side.SERVER)
    assert table.take() == (GREETING, b"USER alice\r\n")
    assert table.session.policy.session.server_tls == FACTS_13
    assert table.session.policy.timestamp == "<1.2@server>"


@pytest.mark.parametrize("answer", [b"-ERR no\r\n", b"-ERR\r\n"])
def test_required_uses_no_server_that_does_not_take_it(answer: bytes) -> None:
    table = Table(server=Tls.REQUIRED)
    table.connect()
    table.server(GREETING)
    assert table.server(answer) == (NOT_AVAILABLE, b"")
    assert table.session.ending is Ending.TLS
    assert "server_tls = required" in str(table.journal.lines)


@pytest.mark.parametrize("answer", [b"-ERR no\r\n", b"-ERR\r\n"])
def test_starttls_goes_on_in_clear_where_the_server_does_not_take_it(answer: bytes) -> None:
    table = Table(server=Tls.STARTTLS)
    table.connect()
    table.server(GREETING)
    assert table.server(answer) == (GREETING, b"")
    assert table.client("USER alice") == (b"", b"USER alice\r\n")


@pytest.mark.parametrize(
    "answer", [b"WHAT", b"+OKAY", b"* OK", b"", b"+ ", b"-ERROR", b"+OK\tgo", b"+OK go\0", b"-ERR no\rnever"]
)
@pytest.mark.parametrize("mode", [Tls.STARTTLS, Tls.REQUIRED])
def test_an_answer_to_stls_that_is_none_ends_the_session(mode: Tls, answer: bytes) -> None:
    table = Table(server=mode)
    table.connect()
    table.server(GREETING)
    assert table.server(answer + b"\r\n") == (b"-ERR Error in protocol\r\n", b"")
    assert (table.session.ending, table.session.ended_by) == (Ending.PROTOCOL, Side.SERVER)
    assert table.session.tls_wanted is None
    assert "its answer to STLS: " in str(table.journal.lines)


@pytest.mark.parametrize("mode", [Tls.STARTTLS, Tls.REQUIRED, Tls.IMPLICIT])
def test_tls_that_fails_ends_the_session_with_one_err(mode: Tls) -> None:
    table = Table(server=mode)
    table.connect()
    if mode is not Tls.IMPLICIT:
        table.server(GREETING)
        table.server(b"+OK go\r\n")
    table.session.client_data(b"USER alice\r\nPASS hunter2\r\n", NOW)
    assert table.session.tls_wanted is Side.SERVER
    table.session.tls_failed(Side.SERVER, "the certificate fails: certificate has expired", NOW)
    assert table.take() == (NOT_AVAILABLE, b"")
    assert "certificate has expired" in str(table.journal.lines)


@pytest.mark.parametrize("mode", [Tls.STARTTLS, Tls.REQUIRED])
def test_what_the_server_says_in_clear_behind_its_answer_ends_the_session(mode: Tls) -> None:
    table = Table(server=mode)
    table.connect()
    table.server(GREETING)
    heard, passed = table.server(b"+OK go\r\n+OK injected\r\n")
    assert heard.startswith(b"-ERR")
    assert not passed
    assert table.session.tls_wanted is None
    assert table.session.over


@pytest.mark.parametrize("mode", [Tls.STARTTLS, Tls.REQUIRED])
def test_what_the_server_says_behind_its_greeting_ends_the_session(mode: Tls) -> None:
    table = Table(server=mode)
    table.connect()
    heard, passed = table.server(GREETING + b"+OK injected\r\n")
    assert heard.startswith(b"-ERR")
    assert not passed


class Repairs(Everything):
    """Makes a greeting of anything."""

    def config(self) -> None:
        """As Everything."""
        super().config()
        self.request["GREETING"] = (POP3_REQ_POLICY, None, self.greet)

    def greet(self, _text: str) -> int:
        """All is well."""
        self.response_value, self.response_param = "+OK", "ready"
        return POP3_RSP_ACCEPT


@pytest.mark.parametrize("greeting", [b"-ERR busy\r\n", b"hello\r\n", b"+ok ready\r\n", b"-ERR\r\n"])
def test_no_policy_makes_a_server_usable_without_required_tls(greeting: bytes) -> None:
    table = Table(server=Tls.REQUIRED, policy=Repairs)
    table.connect()
    assert table.server(greeting) == (NOT_AVAILABLE, b"")
    assert table.session.over


def test_implicit_hears_nothing_before_it() -> None:
    table = Table(server=Tls.IMPLICIT)
    table.connect()
    assert not table.session.reads_server
    table.shake(Side.SERVER)
    assert table.server(GREETING) == (GREETING, b"")


def test_stls_of_the_server_is_awaited_for_timeout() -> None:
    table = Table(server=Tls.REQUIRED)
    table.connect()
    table.server(GREETING)
    table.session.expire(NOW + 600)
    assert table.session.ending is Ending.TIMEOUT
    assert table.take() == (b"-ERR Error in protocol\r\n", b"")


# TLS that ends.


def test_why_a_connection_broke_is_told() -> None:
    for lost, said in (("server", "broke: bad record mac"), ("client", "broke: bad record mac")):
        table = Table(Tls.IMPLICIT, Tls.IMPLICIT)
        table.shake(Side.CLIENT)
        table.connect()
        table.shake(Side.SERVER)
        table.server(GREETING)
        getattr(table.session, f"{lost}_lost")("bad record mac", NOW)
        assert (table.session.ending, str(table.session.ended_by)) == (Ending.CLOSED, lost)
        assert f"the connection to the {lost} {said}" in str(table.journal.lines)


# Behind a proxy.


def test_a_refused_client_is_told_where_it_can_be() -> None:
    for mode, told in ((Tls.OFF, b"-ERR [SYS/TEMP] no\r\n"), (Tls.IMPLICIT, b"")):
        session = Session(Everything, facts=FACTS, journal=RecordingJournal(), rules=SessionRules(client_tls=mode))
        session.refuse("[SYS/TEMP] no", "too many")
        assert (b"".join(session.to_client), session.ending) == (told, Ending.REFUSED)


# All of it at once.

SECRET = b"hunter2"
SAID = st.sampled_from(
    [
        *(
            b"CAPA",
            b"STLS",
            b"USER alice",
            b"PASS hunter2",
            b"AUTH PLAIN",
            b"AUTH PLAIN hunter2",
            b"hunter2",
            b"*",
            b"",
        ),
        *(
            b"APOP alice 0123456789abcdef0123456789abcdef",
            b"LANG en",
            b"UTF8",
            b"XCAPA",
            b"XLOGIN alice hunter2",
            b"QUIT",
        ),
    ]
).map(lambda line: line + b"\r\n")
ANSWERED = st.sampled_from([b"+OK", b"-ERR no", b"+ ", b"+OK a\r\n.", b".", b"hello", b"USER", GREETING.strip()]).map(
    lambda line: line + b"\r\n"
)
STEP = st.one_of(
    st.tuples(st.just(Side.CLIENT), SAID),
    st.tuples(st.just(Side.SERVER), ANSWERED),
    st.tuples(st.none(), st.booleans()),
)
POLICIES = st.sampled_from([Everything, Rewrites, Repairs, TlsRequired, Entries, Mixed])


@given(modes=st.sampled_from(list(itertools.product(Tls, Tls))), policy=POLICIES, steps=st.lists(STEP, max_size=14))
def test_required_means_required(
    modes: tuple[Tls, Tls], policy: type[AbstractPop3Proxy], steps: list[tuple[Side | None, bytes | bool]]
) -> None:
    """Whatever both peers say and however TLS ends: nobody logs in, and no secret reaches the server, without it."""
    table = Table(*modes, policy=policy)
    session = table.session
    safe: set[Side] = {side for side, mode in zip((Side.CLIENT, Side.SERVER), modes, strict=True) if mode is Tls.OFF}
    strict = {
        side
        for side, mode in zip((Side.CLIENT, Side.SERVER), modes, strict=True)
        if mode in (Tls.REQUIRED, Tls.IMPLICIT) or (side is Side.CLIENT and policy.tls_required)
    }
    safe -= strict
    for side, what in steps:
        if session.over:
            break
        if session.wants_server and session.policy.session.server_address is None:
            table.connect()
        if side is None and session.tls_wanted is not None:
            wanted = session.tls_wanted
            if what:
                safe.add(wanted)
                session.tls_started(wanted, FACTS_13, NOW)
            else:
                session.tls_failed(wanted, "no", NOW)
        elif side is Side.CLIENT and session.reads_client and isinstance(what, bytes):
            session.client_data(what, NOW)
        elif side is Side.SERVER and session.reads_server and session.wants_server and isinstance(what, bytes):
            session.server_data(what, NOW)
        heard, passed = table.take()
        if strict - safe:
            assert SECRET not in passed
            assert b"USER alice" not in passed
            assert b"AUTH" not in passed
            assert b"APOP" not in passed
            assert session.login is None
        if Side.CLIENT in strict - safe:
            assert b"USER\r\n" not in heard
            assert b"SASL" not in heard
