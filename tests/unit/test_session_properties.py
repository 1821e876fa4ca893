"""Properties that hold for every session, whatever is said and however it is cut up.

Limits: time passes only between what the peers say, never within it; TLS is not played.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pop3gw.policy import POP3_REQ_ACCEPT, POP3_REQ_POLICY, POP3_RSP_ACCEPT, AbstractPop3Proxy, Pop3Proxy
from pop3gw.proto import fastpath
from pop3gw.proto.clientside import UNASKED
from pop3gw.proto.requests import Relay
from pop3gw.proto.serverside import ServerSide
from pop3gw.proto.session import Session
from tests.scenarios.player import Split, Stage, byte_by_byte, whole
from tests.scenarios.transcript import Side

DIGEST = "0123456789abcdef0123456789abcdef"
PROTOCOL_ERROR = b"-ERR Error in protocol\r\n"


class Sasl(Pop3Proxy):
    """Pop3Proxy with AUTH."""

    def config(self) -> None:
        """As Pop3Proxy."""
        super().config()
        self.request["AUTH"] = POP3_REQ_ACCEPT


class Seeing(Sasl):
    """Every content line passes a callback that leaves it as it is."""

    def config(self) -> None:
        """As Sasl."""
        super().config()
        for command in ("RETR", "TOP", "LIST", "UIDL", "CAPA", "STAT"):
            self.request[command] = (POP3_REQ_POLICY, None, self.same)

    def same(self, response_param: str) -> int:
        """Leave it."""
        self.response_param = response_param + ""
        return POP3_RSP_ACCEPT


class Strict(Sasl):
    """Every check of content."""

    def config(self) -> None:
        """As Sasl."""
        super().config()
        self.permit_longline = False
        self.strict_line_endings = True
        self.max_response_line_length = 60


class StrictSeeing(Seeing):
    """Every check of content, and a callback that sees it."""

    def config(self) -> None:
        """As Seeing."""
        super().config()
        self.permit_longline = False
        self.strict_line_endings = True
        self.max_response_line_length = 60


POLICIES: list[type[AbstractPop3Proxy]] = [Pop3Proxy, Sasl, Seeing, Strict, StrictSeeing]

REQUESTS = [
    *("USER alice", "PASS hunter2", f"APOP alice {DIGEST}", "STAT", "LIST", "LIST 1", "RETR 1", "TOP 1 0"),
    *("DELE 1", "NOOP", "RSET", "UIDL", "UIDL 2", "LAST", "CAPA", "UTF8", "LANG", "LANG en", "STLS"),
    *("AUTH PLAIN", "AUTH PLAIN AGEAYg==", "AUTH LOGIN", "AUTH", "*", "AGEAYg==", "QUIT", "", "RETR x", "NO\rOP"),
    *("RETR 0", "STAT 2", "XTND", "stat", "A" * 260),
]
ANSWERS = [
    *("+OK", "+OK 1 2", "-ERR no", "+ ", "+ YQ==", ".", "..", "..dotted", "text", "", "+OKAY", "bare\nLF", "bare\rCR"),
    *("+OK ready <1.2@h>", "x" * 61, "x" * 520, "+OK\r\na\r\n.", "+OK\r\n."),
]


@dataclass(frozen=True, slots=True)
class Part:
    """What a side says before the other has its turn."""

    side: Side
    data: bytes


def said(lines: list[str]) -> st.SearchStrategy[bytes]:
    """Lines of these, whole or not, and noise."""
    line = st.sampled_from(lines).map(lambda text: text.encode() + b"\r\n")
    end = st.sampled_from([b"\n", b"\r", b".\r\n", b"\r\n.\r\n"])
    noise = st.binary(max_size=20)
    return st.lists(st.one_of(line, line, line, end, noise), min_size=1, max_size=6).map(b"".join)


CLIENT_PART = said(REQUESTS).map(lambda data: Part(Side.CLIENT, data))
SERVER_PART = said(ANSWERS).map(lambda data: Part(Side.SERVER, data))
OPENINGS: list[list[Part]] = [
    [],
    [Part(Side.SERVER, b"+OK ready\r\n")],
    [
        Part(Side.SERVER, b"+OK ready\r\n"),
        Part(Side.CLIENT, f"APOP alice {DIGEST}\r\n".encode()),
        Part(Side.SERVER, b"+OK\r\n"),
    ],
    [
        Part(Side.SERVER, b"+OK ready\r\n"),
        Part(Side.CLIENT, f"APOP alice {DIGEST}\r\nRETR 1\r\n".encode()),
        Part(Side.SERVER, b"+OK\r\n"),
        Part(Side.SERVER, b"+OK\r\n"),
    ],
]
PARTS = st.tuples(st.sampled_from(OPENINGS), st.lists(st.one_of(CLIENT_PART, SERVER_PART), max_size=8)).map(
    lambda both: [*both[0], *both[1]]
)


def cut_at(points: list[int]) -> Split:
    """Cut what is said into pieces of these sizes, over and over."""

    def split(data: bytes) -> Iterator[bytes]:
        at, number = 0, 0
        while at < len(data):
            size = points[number % len(points)] if points else len(data)
            yield data[at : at + size]
            at, number = at + size, number + 1

    return split


@dataclass(frozen=True, slots=True)
class Outcome:
    """What client and server hear of each part, how it ends, and whether the server answered too early."""

    heard: list[tuple[bytes, bytes]]
    end: tuple[bool, object, object]
    unasked: bool
    counted: object = field(compare=False)
    log: str = field(compare=False)


def outcome(
    policy: type[AbstractPop3Proxy], parts: list[Part], split: Split, session_class: type[Session] = Session
) -> Outcome:
    """Play the parts, cut up like this."""
    stage = Stage(policy, split, session_class)
    stage.open()
    heard: list[tuple[bytes, bytes]] = []
    for part in parts:
        if stage.session.over:
            break
        stage.says(part.side, part.data)
        stage.passes(10_000)
        heard.append((stage.take(Side.CLIENT), stage.take(Side.SERVER)))
    session = stage.session
    end = (session.over, session.ending, session.ended_by)
    counted = (dict(session.counters), session.retrieved, session.deleted)  # type: ignore[call-overload]  # a Counter
    return Outcome(heard, end, UNASKED in stage.journal.text, counted, stage.journal.text)


def agree(together: Outcome, apart: Outcome) -> None:
    """The outcome is the same.

    With one exception: an answer in the same buffer as its predecessor came before its request was sent, and is an
    error. Cut off from it, it can't be told from one that came in time. Up to there all is the same.
    """
    if not together.unasked:
        assert apart == together
        return
    *before, (to_client, to_server) = together.heard
    assert apart.heard[: len(before)] == before
    last_to_client, last_to_server = apart.heard[len(before)]
    assert to_client.endswith(PROTOCOL_ERROR)
    assert last_to_client.startswith(to_client.removesuffix(PROTOCOL_ERROR))
    assert last_to_server.startswith(to_server)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    policy=st.sampled_from(POLICIES),
    parts=PARTS,
    points=st.lists(st.integers(1, 9), max_size=6),
)
def test_however_it_is_split_the_outputs_are_the_same(
    policy: type[AbstractPop3Proxy], parts: list[Part], points: list[int]
) -> None:
    together = outcome(policy, parts, whole)
    agree(together, outcome(policy, parts, cut_at(points)))
    agree(together, outcome(policy, parts, byte_by_byte))


class LongWay(Session):
    """A session without its fast path."""

    client_data = ServerSide.client_data
    server_data = ServerSide.server_data


# What the fast path is made for, and what is all but that.
USUAL_REQUESTS = [
    *("STAT", "stat", "RETR 1", "RETR 01", "LIST", "LIST 1", "NOOP x", "DELE 1", "QUIT", "CAPA", "LANG"),
    *REQUESTS,
]
USUAL_ANSWERS = [
    *(b"+OK\r\n", b"+OK 1 2\r\n", b"+OK \r\n", b"+OK\n", b"+OKAY\r\n", b"-ERR no\r\n", b"+OK a\rb\r\n", b"+OK \0\r\n"),
    *(b"+OK\r\n.\r\n", b"+OK\r\na\r\n.\r\n", b"+OK\r\na\r\n.\r\nb", b"+OK\r\n..\r\n.\r\n", b"+OK\r\na\n.\r\n"),
    *(b"+OK " + b"x" * 508 + b"\r\n", b"+OK " + b"x" * 509 + b"\r\n", b"+OK\r\n" + b"x" * 61 + b"\r\n.\r\n"),
]
USUAL = st.lists(
    st.sampled_from(USUAL_REQUESTS).map(lambda text: Part(Side.CLIENT, text.encode() + b"\r\n"))
    | st.sampled_from(USUAL_ANSWERS).map(lambda data: Part(Side.SERVER, data)),
    max_size=12,
)


@pytest.mark.interpreted
@settings(max_examples=600, deadline=None, derandomize=True)
@given(policy=st.sampled_from(POLICIES), parts=st.one_of(PARTS, USUAL.map(lambda parts: [*OPENINGS[2], *parts])))
def test_the_fast_path_decides_as_the_long_way_does(policy: type[AbstractPop3Proxy], parts: list[Part]) -> None:
    """And it says the same to the log, and counts the same."""
    fast, long = outcome(policy, parts, whole), outcome(policy, parts, whole, LongWay)
    assert (fast, fast.counted, fast.log) == (long, long.counted, long.log)


@pytest.mark.interpreted
def test_what_is_kept_of_requests_is_little_and_nobodys_words(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[bytes, object] = {}
    monkeypatch.setattr(fastpath, "_KEPT", kept)
    stage = logged_in(Pop3Proxy)
    requests = [
        *(b"STAT", b"stat", b"NOOP hunter2", b"RETR 1", b"RETR 01", b"RETR 1 ", b"LANG hunter2", b"TOP 1 2"),
        *(b"LANG x" + b"-hunter2" * 20, b"STAT " + b"x" * 200, b"hunter2", *(b"RETR %d" % n for n in range(1, 2000))),
    ]
    for request in requests:
        stage.says(Side.CLIENT, request + b"\r\n")
        if stage.take(Side.SERVER):
            stage.says(Side.SERVER, b"-ERR\r\n")
        if stage.session.over:
            stage = logged_in(Pop3Proxy)
    assert all(re.fullmatch(rb"(STAT|RETR \d+|TOP 1 2)\r\n", line) for line in kept)
    assert b"RETR 1999\r\n" in kept
    assert len(kept) <= 512


@pytest.mark.interpreted
def test_the_fast_path_is_taken() -> None:
    taken: list[str] = []

    class Watched(Session):
        def _forward(self, relay: Relay, now: float) -> None:
            taken.append(relay.name)
            super()._forward(relay, now)

    stage = Stage(Pop3Proxy, whole, Watched)
    stage.open()
    answers = {b"RETR 1": b"+OK\r\nx\r\n.\r\n", b"STAT": b"+OK 1 2\r\n"}
    stage.says(Side.SERVER, b"+OK\r\n")
    for request in (b"USER alice", b"PASS x", b"STAT", b"RETR 1", b"DELE 1", b"QUIT"):
        stage.says(Side.CLIENT, request + b"\r\n")
        stage.says(Side.SERVER, answers.get(request, b"+OK\r\n"))
    assert stage.session.over
    assert taken == ["USER", "PASS"]


def logged_in(policy: type[AbstractPop3Proxy], split: Split = whole) -> Stage:
    """A stage in TRANSACTION."""
    stage = Stage(policy, split)
    stage.open()
    stage.says(Side.SERVER, b"+OK\r\n")
    stage.says(Side.CLIENT, f"APOP alice {DIGEST}\r\n".encode())
    stage.says(Side.SERVER, b"+OK\r\n")
    for side in Side:
        stage.take(side)
    return stage


# Octets that make trouble come often.
CONTENT = st.lists(
    st.one_of(
        st.sampled_from([b"\r\n", b".", b"\r", b"\n", b"..", b"\r\n.", b"\0", b"\xff", b"x"]), st.binary(max_size=8)
    ),
    max_size=40,
).map(b"".join)


def as_message(content: bytes) -> bytes:
    """Dot-stuffed and ended, as RFC 1939 section 3 has it."""
    lines = content.split(b"\r\n")
    return b"".join((b"." + line if line.startswith(b".") else line) + b"\r\n" for line in lines) + b".\r\n"


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    policy=st.sampled_from([Pop3Proxy, Seeing]),
    content=CONTENT,
    points=st.lists(st.integers(1, 9), max_size=6),
    command=st.sampled_from([b"RETR 1", b"TOP 1 1", b"LIST", b"UIDL"]),
)
def test_content_comes_out_as_it_went_in(
    policy: type[AbstractPop3Proxy], content: bytes, points: list[int], command: bytes
) -> None:
    stage = logged_in(policy, cut_at(points))
    stage.says(Side.CLIENT, command + b"\r\n")
    answer = b"+OK here\r\n" + as_message(content)
    stage.says(Side.SERVER, answer)
    assert stage.take(Side.CLIENT) == answer
    assert not stage.session.over
    stage.says(Side.CLIENT, b"NOOP\r\n")
    assert stage.take(Side.SERVER) == command + b"\r\nNOOP\r\n"


@settings(max_examples=300, deadline=None, derandomize=True)
@given(content=CONTENT, points=st.lists(st.integers(1, 9), max_size=6))
def test_a_callback_sees_each_line_once(content: bytes, points: list[int]) -> None:
    seen: list[str] = []

    class Watching(Pop3Proxy):
        def config(self) -> None:
            super().config()
            self.request["RETR"] = (POP3_REQ_POLICY, None, self.watch)

        def watch(self, response_param: str) -> int:
            seen.append(response_param)
            return POP3_RSP_ACCEPT

    stage = logged_in(Watching, cut_at(points))
    stage.says(Side.CLIENT, b"RETR 1\r\n")
    stage.says(Side.SERVER, b"+OK here\r\n" + as_message(content))
    lines = [line.decode("utf-8", "surrogateescape") for line in content.split(b"\r\n")]
    assert seen == ["here", *lines]


# What a server may hear under Pop3Proxy, from the man page.
_NUMBER = rb"(?=0*[1-9])[0-9]{1,10}"
HEARD = re.compile(
    rb"USER [^\x00-\x1f\x7f]+|PASS [^\x00-\x1f\x7f]+|APOP [^\x00-\x1f\x7f]+ [0-9A-Fa-f]{32}"
    rb"|STAT|LIST|LIST " + _NUMBER + rb"|RETR " + _NUMBER + rb"|DELE " + _NUMBER + rb"|NOOP|RSET|QUIT|LAST|CAPA|UTF8"
    rb"|UIDL|UIDL " + _NUMBER + rb"|TOP " + _NUMBER + rb" [0-9]{1,10}|LANG( [^\x00-\x1f\x7f]+)?"
)
WORDS = st.sampled_from(
    [
        *(b"USER", b"PASS", b"APOP", b"STAT", b"LIST", b"RETR", b"DELE", b"NOOP", b"RSET", b"QUIT", b"TOP", b"UIDL"),
        *(b"LAST", b"CAPA", b"UTF8", b"LANG", b"AUTH", b"STLS", b"XTND", b"GREETING", b"*", b"stat", b"uidl", b""),
    ]
)
ARGUMENTS = st.one_of(
    st.sampled_from(
        [b"", b" ", b" 1", b" 0", b" 1 2", b" -1", b" 1 0", b" alice", b" alice " + DIGEST.encode(), b"  1", b" 1 "]
    ),
    st.binary(max_size=12).map(lambda tail: b" " + tail),
)
HOSTILE = st.lists(
    st.one_of(
        st.tuples(WORDS, ARGUMENTS, st.sampled_from([b"\r\n", b"\n", b"\r", b""])).map(b"".join), st.binary(max_size=30)
    ),
    max_size=12,
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(requests=HOSTILE, authorized=st.booleans())
def test_the_server_hears_nothing_that_no_row_produced(requests: list[bytes], authorized: bool) -> None:
    if authorized:
        stage = logged_in(Pop3Proxy)
    else:
        stage = Stage(Pop3Proxy)
        stage.open()
        stage.says(Side.SERVER, b"+OK\r\n")
    for request in requests:
        if stage.session.over:
            break
        stage.says(Side.CLIENT, request)
        for _ in range(20):
            heard = stage.take(Side.SERVER)
            if not heard or stage.session.over:
                break
            assert heard.endswith(b"\r\n")
            (line,) = heard.split(b"\r\n")[:-1]
            assert HEARD.fullmatch(line), line
            stage.says(Side.SERVER, b"+OK 1 2\r\n" if line == b"STAT" else b"-ERR no\r\n")
            stage.passes(10_000)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, what the server says to it (None: it never hears of it), what the client gets."""

    request: bytes
    answer: bytes | None
    heard: bytes


def exchange(number: int, kind: str) -> Exchange:
    """A request of this kind, its answer marked with the number."""
    mark = str(number).encode()
    if kind == "one":
        return Exchange(b"DELE 1\r\n", b"+OK " + mark + b"\r\n", b"+OK " + mark + b"\r\n")
    if kind == "many":
        answer = b"+OK " + mark + b"\r\nline " + mark + b"\r\n..\r\n.\r\n"
        return Exchange(b"RETR 1\r\n", answer, answer)
    if kind == "err":
        return Exchange(b"RETR 2\r\n", b"-ERR " + mark + b"\r\n", b"-ERR " + mark + b"\r\n")
    return Exchange(b"RETR none\r\n", None, b"-ERR Invalid command.\r\n")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    kinds=st.lists(st.sampled_from(["one", "many", "err", "refused"]), min_size=1, max_size=30),
    points=st.lists(st.integers(1, 30), max_size=6),
)
def test_responses_pair_with_requests_in_order(kinds: list[str], points: list[int]) -> None:
    exchanges = [exchange(number, kind) for number, kind in enumerate(kinds)]
    stage = logged_in(Pop3Proxy, cut_at(points))
    stage.says(Side.CLIENT, b"".join(each.request for each in exchanges))
    asked = b""
    for each in exchanges:
        if each.answer is not None:
            asked += stage.take(Side.SERVER)
            stage.says(Side.SERVER, each.answer)
    asked += stage.take(Side.SERVER)
    assert asked == b"".join(each.request for each in exchanges if each.answer is not None)
    assert stage.take(Side.CLIENT) == b"".join(each.heard for each in exchanges)
    assert not stage.session.over
