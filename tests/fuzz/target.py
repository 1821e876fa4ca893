"""One fuzz input: both sides of a session hostile, and what must hold whatever they do.

The invariant: a reply, a close or a refusal, never an exception. In full: no exception leaves ``Session``; what is
over stays over and says how it ended; the server hears only whole lines without control characters; no secret reaches
the journal; memory is bounded; and when both sides fall silent the session ends.

An input is bytes, read as a first octet that chooses the policy and then as one operation after the other; each octet
string is a valid input. Limits: TLS is not played, and ``Chaos`` does not spin (tests/scenarios does).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator

from pop3gw.policies.apop import UToAPop3
from pop3gw.policy import (
    POP3_REQ_ABORT,
    POP3_REQ_ACCEPT,
    POP3_REQ_ACCEPT_MLINE,
    POP3_REQ_POLICY,
    POP3_REQ_REJECT,
    AbstractPop3Proxy,
    Pop3Proxy,
)
from pop3gw.proto.session import Session
from tests.scenarios.player import FACTS, RecordingJournal

SECRET = "n0tt0bes33n"
SECRETS = (SECRET, base64.b64encode(SECRET.encode()).decode().rstrip("="))
DIGEST = "0123456789abcdef0123456789abcdef"
DAY_S = 86_400.0


def encoded(text: str) -> str:
    """Base64, for SASL."""
    return base64.b64encode(text.encode()).decode()


CLIENT_LINES = [
    *("USER alice", f"PASS {SECRET}", f"APOP alice {DIGEST}", "STAT", "LIST", "LIST 1", "RETR 1", "TOP 1 0", "DELE 1"),
    *("NOOP", "RSET", "UIDL", "UIDL 1", "LAST", "CAPA", "UTF8", "LANG", "LANG en", "STLS", "QUIT", "AUTH", "XTND a"),
    *("AUTH PLAIN", f"AUTH PLAIN {encoded(chr(0) + 'alice' + chr(0) + SECRET)}", "AUTH LOGIN", "AUTH CRAM-MD5"),
    *(f"AUTH LOGIN {encoded('alice')}", encoded("alice"), encoded(SECRET), "AUTH XOAUTH2", "AUTH SCRAM-SHA-1", "*"),
    *(encoded(f"user=alice\x01auth=Bearer {SECRET}\x01\x01"), encoded("n,,n=alice,r=x"), "=", "", "RETR 0", "GREETING"),
]
SERVER_LINES = [
    *("+OK ready <1.2@h>", "+OK", "+OK 1 2", "-ERR", "-ERR [AUTH] no", "+ ", "+", "+ YQ==", ".", "..", "..x", "a", ""),
    *("+OK capabilities\r\nTOP\r\nUIDL\r\nUSER\r\nSASL PLAIN\r\nSTLS\r\nXTND\r\n.", "+OK\r\nline\r\n.", "garbage"),
    *("TOP", "SASL PLAIN LOGIN", "bare\nLF", "bare\rCR", "+OKAY", "+ok", "\r", "\0"),
]
TIMES_MS = (0, 1, 249, 250, 251, 500, 1_000, 8_000, 59_999, 60_001, 599_999, 600_001)
ONE_LINE = re.compile(rb"[^\x00-\x1f\x7f]*")


class Sasl(Pop3Proxy):
    """AUTH and unknown commands allowed, content checked."""

    def config(self) -> None:
        """As Pop3Proxy."""
        super().config()
        self.request["AUTH"] = POP3_REQ_ACCEPT
        self.request["XTND"] = POP3_REQ_ACCEPT_MLINE
        self.permit_longline = False
        self.strict_line_endings = True
        self.max_auth_failures = 100


class Chaos(Pop3Proxy):
    """Callbacks everywhere, each call does something else, most of it wrong."""

    def config(self) -> None:
        """A callback for everything, the greeting too."""
        super().config()
        self.turn = 0
        for command in [*self.request, "AUTH", "XTND", "STLS"]:
            self.request[command] = (POP3_REQ_POLICY, self.ask, self.answer)
        self.request["GREETING"] = (POP3_REQ_POLICY, None, self.answer)

    def _next(self, seen: str) -> int:
        self.turn += 1 + len(seen)
        if self.turn % 4 == 0:
            name, value = CHANGES[self.turn // 4 % len(CHANGES)]
            setattr(self, name, value)
        if self.turn % 9 == 0:
            self.request[KEYS[self.turn // 9 % len(KEYS)]] = ENTRIES[self.turn // 9 % len(ENTRIES)]
        return self.turn

    def ask(self, command: str) -> object:
        """Anything that a request callback can do."""
        turn = self._next(command + self.request_param)
        if turn % 3 == 0:
            self.request_command = REWRITES[turn % len(REWRITES)]
            self.request_param = TEXTS[turn % len(TEXTS)]
        if turn % 5 == 0:
            self.response_value = VALUES[turn % len(VALUES)]
            self.response_param = TEXTS[turn % len(TEXTS)]
            self.response_lines = [TEXTS[turn % len(TEXTS)], "."]
        return _returned(turn, self.password)

    def answer(self, response_param: str) -> object:
        """Anything that a response callback can do."""
        turn = self._next(response_param)
        if turn % 3 == 0:
            self.response_param = TEXTS[turn % len(TEXTS)]
        if turn % 7 == 0:
            self.response_value = VALUES[turn % len(VALUES)]
        return _returned(turn, self.password)


REWRITES = (
    "APOP",
    "STAT",
    "LIST",
    "QUIT",
    "AUTH",
    "USER",
    "retr",
    "",
    "X Y",
    "NOOP\r\nDELE 1",
    "CAPA",
    "GREETING",
    "*",
)
TEXTS = (
    "",
    "1",
    "0 0",
    "alice",
    f"alice {DIGEST}",
    "a\r\nb",
    "a\0",
    "\udcff",
    "x" * 600,
    ".",
    "..",
    "PLAIN",
    "PLAIN YQ==",
)
VALUES = ("+OK", "-ERR", "", "+ok", "+OK x", "-ERR\r\n")
# What a callback may set, and what it may not.
CHANGES: tuple[tuple[str, object], ...] = (
    *(("max_request_line_length", 1), ("max_response_line_length", 1), ("max_response_line_length", 512)),
    *(("permit_longline", False), ("strict_line_endings", True), ("permit_unknown_command", True), ("timeout", 1)),
    *(("max_authline_count", 0), ("max_auth_failures", 1), ("auth_timeout", 1), ("response_multiline", True)),
    *(("max_request_line_length", 255), ("max_username_length", 0), ("request", {}), ("username", "x"), ("timeout", 0)),
)
KEYS = ("GREETING", "*", "LIST", "CAPA", "QUIT", "USER", "x", "XTND")
ENTRIES: tuple[object, ...] = (
    *(POP3_REQ_ACCEPT, None, (POP3_REQ_POLICY,), (POP3_REQ_REJECT, "\udcff"), (POP3_REQ_REJECT, "\ud800"), 5),
    *(POP3_REQ_ACCEPT_MLINE, (POP3_REQ_ABORT, "x" * 600)),
)
ACCEPTED = (POP3_REQ_ACCEPT,) * 6


def _returned(turn: int, password: str | None) -> object:
    if turn % 11 == 0:
        raise SystemExit(password)
    if turn % 13 == 0:
        raise ValueError(password)
    returns: tuple[object, ...] = (
        *ACCEPTED,
        *(POP3_REQ_REJECT, POP3_REQ_ACCEPT_MLINE, (POP3_REQ_REJECT, "no"), None, True, "x", ()),
        *((POP3_REQ_REJECT, "a\nb"), POP3_REQ_ABORT),
    )
    return returns[turn % len(returns)]


POLICIES: tuple[type[AbstractPop3Proxy], ...] = (Pop3Proxy, Sasl, Chaos, UToAPop3, AbstractPop3Proxy)


class Peers:
    """The session under test, and what must hold after each operation."""

    def __init__(self, policy: type[AbstractPop3Proxy]) -> None:
        self.journal = RecordingJournal()
        self.session = Session(policy, facts=FACTS, journal=self.journal)
        self.now = 1000.0
        self.server_heard = b""

    def look(self) -> None:
        """Take the output; see that all is well."""
        session = self.session
        self.server_heard += b"".join(session.to_server)
        session.to_server.clear()
        session.to_client.clear()
        if session.over:
            assert session.ending is not None
            assert session.ended_by is not None
            assert session.deadline is None
            assert not session.reads_client
            assert not session.reads_server

    def after_the_end(self) -> None:
        """A caller's late input changes nothing."""
        session = self.session
        ended = (session.ending, session.ended_by)
        session.client_data(b"QUIT\r\n", self.now)
        session.server_data(b"+OK\r\n", self.now)
        session.client_eof(self.now)
        session.server_eof(self.now)
        session.client_lost("Connection reset by peer", self.now)
        session.expire(self.now + DAY_S)
        assert (session.ending, session.ended_by) == ended
        assert session.to_server == []
        assert session.to_client == []

    def pass_time(self, seconds: float) -> None:
        """Time passes; the session is woken whenever it asked for it."""
        until = self.now + seconds
        for _ in range(1000):
            deadline = self.session.deadline
            if self.session.over or deadline is None or deadline > until:
                break
            self.now = max(self.now, deadline)
            self.session.expire(self.now)
            self.look()
        else:
            raise AssertionError("woken a thousand times")
        self.now = until

    def judge(self) -> None:
        """What must hold at the end."""
        assert self.server_heard == b"" or self.server_heard.endswith(b"\r\n")
        for line in self.server_heard.split(b"\r\n"):
            assert ONE_LINE.fullmatch(line), line
        for secret in SECRETS:
            assert secret not in self.journal.text, self.journal.text


def _client(peers: Peers, data: bytes) -> None:
    if peers.session.reads_client:
        peers.session.client_data(data, peers.now)


def _server(peers: Peers, data: bytes) -> None:
    if peers.session.reads_server:
        peers.session.server_data(data, peers.now)


def _operate(peers: Peers, octets: Iterator[int]) -> None:
    """Read one operation and do it. Raises StopIteration where the input ends."""
    kind = next(octets) % 16
    session = peers.session
    if kind in (0, 1, 2):
        _client(peers, CLIENT_LINES[next(octets) % len(CLIENT_LINES)].encode() + b"\r\n")
    elif kind in (3, 4, 5):
        _server(peers, SERVER_LINES[next(octets) % len(SERVER_LINES)].encode() + b"\r\n")
    elif kind in (6, 7):
        says: Callable[[Peers, bytes], None] = _client if kind == 6 else _server
        says(peers, bytes(next(octets) for _ in range(next(octets) % 32)))
    elif kind in (8, 9):
        (_client if kind == 8 else _server)(peers, bytes((next(octets),)) * (next(octets) * 64))
    elif kind == 10:
        peers.pass_time(TIMES_MS[next(octets) % len(TIMES_MS)] / 1000)
    elif kind == 11 and session.reads_client:
        session.client_eof(peers.now)
    elif kind == 12 and session.reads_server:
        session.server_eof(peers.now)
    elif kind == 13:
        # A whole line, in two pieces.
        line = CLIENT_LINES[next(octets) % len(CLIENT_LINES)].encode() + b"\n"
        cut = next(octets) % len(line)
        _client(peers, line[:cut])
        _client(peers, line[cut:])
    elif kind == 14:
        line = SERVER_LINES[next(octets) % len(SERVER_LINES)].encode() + b"\r\n"
        cut = next(octets) % len(line)
        _server(peers, line[:cut])
        _server(peers, line[cut:])
    elif kind == 15 and next(octets) % 8 == 0:
        session.client_lost("Connection reset by peer", peers.now)


def run(data: bytes) -> None:
    """Play one input. Raises whatever breaks the invariant."""
    octets = iter(data)
    peers = Peers(POLICIES[next(octets, 0) % len(POLICIES)])
    session = peers.session
    session.start(peers.now)
    peers.look()
    if not session.over:
        if len(data) > 1 and data[1] == 0xFF:
            session.connect_failed("refused", peers.now)
        else:
            session.connected(peers.now, "198.51.100.9", 110)
        peers.look()
    while not session.over:
        try:
            _operate(peers, octets)
        except (StopIteration, RuntimeError) as end:
            # PEP 479: the end of the input inside a generator.
            if isinstance(end, RuntimeError) and not isinstance(end.__cause__, StopIteration):
                raise
            break
        peers.look()
    peers.pass_time(3 * DAY_S)
    assert session.over, "both sides are silent, and the session goes on"
    peers.look()
    peers.after_the_end()
    peers.judge()
