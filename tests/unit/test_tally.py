"""The tally: what a session leaves behind in its worker's counters, on its seat and in the log."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from pop3gw.net import Peer
from pop3gw.policy import Pop3Proxy, SessionFacts, TlsFacts
from pop3gw.proto import counts
from pop3gw.proto.events import Ending, Side, Summary
from pop3gw.proto.session import Session
from pop3gw.scoreboard import CALLBACKS_AT, Board
from pop3gw.tally import Tally
from pop3gw.values import Address
from tests.scenarios.player import RecordingJournal

pytestmark = pytest.mark.interpreted  # what stands in for the log and for a connection is none

CLIENT = Peer("192.0.2.7", 40123)


class Kept:
    """A journal that keeps the summary."""

    said: Summary

    def summary(self, summary: Summary) -> None:
        """Keep it."""
        self.said = summary


class Counted:
    """A session's tally, and where it is put."""

    def __init__(self) -> None:
        self.seat = Board(1, 1).slot(0).seats[0]
        self.seat.open(CLIENT.address)
        self.counters: Counter[int] = Counter()
        self.kept = Kept()
        journal: Any = self.kept
        callbacks = {"other": 0, "greet": 1, "known": 2}
        aim = Address("mail.example.com", 110)
        self.tally = Tally(self.counters, callbacks, self.seat, journal, CLIENT, aim)

    def said(self, session: Session, seconds: float = 0.0) -> Summary:
        """The summary of a session that has lasted so long."""
        stream: Any = SimpleNamespace(received=12, sent=345)
        self.tally.conclude(session, stream, seconds)
        return self.kept.said


def ended(facts: SessionFacts | None = None) -> Session:
    session = Session(Pop3Proxy, facts=facts or SessionFacts(), journal=RecordingJournal())
    session.start(0.0)
    session.shutdown("the test is over", Ending.KILLED)
    return session


def test_a_summary_names_the_server_that_was_reached_else_the_one_that_was_meant() -> None:
    counted = Counted()
    assert counted.said(ended()).server == "mail.example.com:110"
    counted.tally.connected(Peer("198.51.100.9", 110), 0.02)
    assert counted.said(ended()).server == "198.51.100.9:110"


def test_a_session_that_did_not_end_by_itself_ended_by_a_fault() -> None:
    session = Session(Pop3Proxy, facts=SessionFacts(), journal=RecordingJournal())
    counted = Counted()
    said = counted.said(session)
    assert (said.end, said.by) == (Ending.FAULT, Side.GATEWAY)
    assert counted.counters[counts.SESSIONS_ENDED.index("fault", "gateway")] == 1


def test_a_summary_names_the_client_that_was_introduced() -> None:
    counted = Counted()
    assert counted.said(ended()).client == "192.0.2.7:40123"
    counted.tally.introduce(Peer("2001:db8::7", 4))
    assert counted.said(ended()).client == "[2001:db8::7]:4"
    shown = counted.seat.read()
    assert shown is not None
    assert shown.client == "[2001:db8::7]:4"


def test_a_summary_has_the_octets_of_the_wire_and_the_tls_of_each_side() -> None:
    facts = SessionFacts(client_tls=TlsFacts("TLSv1.3", "A"), server_tls=TlsFacts("TLSv1.2", "B"))
    said = Counted().said(ended(facts))
    assert (said.from_client, said.to_client) == (12, 345)
    assert (said.client_tls, said.server_tls) == ("TLSv1.3", "TLSv1.2")


@pytest.mark.parametrize(
    ("seconds", "milliseconds"), [(0.0, 0), (0.0004, 0), (0.0006, 1), (1.2346, 1235), (60.0, 60000)]
)
def test_a_duration_is_rounded(seconds: float, milliseconds: int) -> None:
    assert Counted().said(ended(), seconds).milliseconds == milliseconds


def test_what_counts_of_a_session_is_counted_once() -> None:
    counted = Counted()
    tally, counters = counted.tally, counted.counters
    assert counters == {counts.SESSIONS.at: 1}
    tally.connected(Peer("198.51.100.9", 110), 0.02)
    tally.connect_failed()
    tally.tls_failed(Side.SERVER)
    failed = ["known", "nobody", "known"]
    tally.count_failures(failed)
    assert failed == []
    counted.said(ended(), 0.75)
    assert +counters == {
        counts.SESSIONS.at: 1,
        counts.SESSIONS_ENDED.index("killed", "gateway"): 1,
        counts.bucket(counts.CONNECT_SECONDS, 0.02): 1,
        counts.sum_at(counts.CONNECT_SECONDS): 20_000,
        counts.bucket(counts.SESSION_SECONDS, 0.75): 1,
        counts.sum_at(counts.SESSION_SECONDS): 750_000,
        counts.CONNECT_FAILURES.at: 1,
        counts.TLS_FAILURES.index("server"): 1,
        CALLBACKS_AT: 1,
        CALLBACKS_AT + 2: 2,
    }


@pytest.mark.parametrize("side", [Side.CLIENT, Side.SERVER])
def test_each_sides_tls_is_shown_as_its_own(side: Side) -> None:
    counted = Counted()
    counted.tally.tls_started(side, "TLSv1.3")
    shown = counted.seat.read()
    assert shown is not None
    assert [shown.client_tls, shown.server_tls] == (["TLSv1.3", ""] if side is Side.CLIENT else ["", "TLSv1.3"])


def test_a_seat_shows_the_state_and_the_user_once_for_each_change() -> None:
    counted = Counted()
    session = Session(Pop3Proxy, facts=SessionFacts(), journal=RecordingJournal())
    seen = []
    for said in (b"", b"USER alice\r\n", b"USER alice\r\n", b"QUIT\r\n"):
        if said:
            session.client_data(said, 0.0)
        else:
            session.start(0.0)
            session.connected(0.0)
            session.server_data(b"+OK ready\r\n", 0.0)
        counted.seat.changed = False
        counted.tally.show(session)
        shown = counted.seat.read()
        assert shown is not None
        seen.append((shown.state, shown.user, counted.seat.changed))
    first = ("AUTHORIZATION", "", True)
    known = ("AUTHORIZATION", "alice", True)  # before the server has answered
    assert seen == [first, known, ("AUTHORIZATION", "alice", False), ("AUTHORIZATION", "alice", False)]
