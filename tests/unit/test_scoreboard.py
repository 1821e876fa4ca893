"""The scoreboard, also as another process writes it."""

from __future__ import annotations

import math
import os
import signal
import struct
import time

import pytest

from pop3gw.proto import counts
from pop3gw.redaction import escaped
from pop3gw.scoreboard import Board


def test_what_another_process_counts_and_shows_is_seen_and_outlives_it() -> None:
    board = Board(4, 2)
    number = board.take()
    pid = os.fork()
    if pid == 0:
        slot = board.slot(number)
        slot.begin(os.getpid())
        slot.counters[counts.SESSIONS.at] = 1
        seat = slot.seats[1]
        seat.open("192.0.2.7", 40312, "3f2a")
        seat.stand("TRANSACTION", "alice")
        seat.reach("192.0.2.1:110")
        seat.secure(client="TLSv1.3")
        seat.passed(12, 1 << 40)
        os._exit(0)
    os.waitpid(pid, 0)
    sums = board.sums()
    assert sums[counts.SESSIONS.at] == 1
    assert (sums[counts.FROM_CLIENT], sums[counts.TO_CLIENT]) == (12, 1 << 40)
    assert [slot.pid for slot in board.slots()] == [pid]
    shown = board.slot(number).seats[1].read()
    assert shown is not None
    assert (shown.state, shown.user, shown.session) == ("TRANSACTION", "alice", "3f2a")
    assert (shown.client, shown.server) == ("192.0.2.7:40312", "192.0.2.1:110")
    assert (shown.client_tls, shown.server_tls) == ("TLSv1.3", "")
    assert (shown.from_client, shown.to_client) == (12, 1 << 40)
    assert abs(shown.started - time.monotonic()) < 60
    assert board.slot(number).seats[0].read() is None


def test_a_session_that_has_ended_is_not_among_the_unfinished_though_its_client_stays() -> None:
    slot = Board(1, 3).slot(0)
    for seat in slot.seats:
        seat.open(f"192.0.2.{seat.number}")
        seat.stand("TRANSACTION", "alice")
    slot.seats[0].leave()
    slot.seats[1].close()
    assert [shown.client for shown in slot.unfinished()] == ["192.0.2.2"]


def test_a_reader_never_sees_fewer_octets_than_before() -> None:
    board = Board(1, 1)
    seat = board.slot(board.take()).seats[0]
    seat.open("192.0.2.7")
    pid = os.fork()
    if pid == 0:
        octets = 0
        while os.getppid() != 1:
            octets += 1
            seat.passed(octets, 1000 * octets)
        os._exit(0)
    try:
        before = (0, 0)
        for _ in range(50_000):
            seen = board.octets(0)
            assert seen[0] >= before[0]
            assert seen[1] >= before[1]
            before = seen
        assert before[0]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_slot_is_one_workers_at_a_time() -> None:
    board = Board(2, 1)
    assert {board.take(), board.take()} == {0, 1}
    with pytest.raises(IndexError):
        board.take()
    board.release(1)
    assert board.take() == 1


def test_slots_do_not_touch_each_other() -> None:
    board = Board(3, 3)
    for number in range(3):
        board.take()
        for seat in board.slot(number).seats:
            seat.open(f"192.0.2.{number * 3 + seat.number}", 110, "i" * 200)
            seat.stand("s" * 200, "u" * 200)
            seat.reach("r" * 200)
            seat.secure(client="c" * 200, server="t" * 200)
        board.slot(number).counters[counts.SESSIONS.at] = number
    for number in range(3):
        assert board.slot(number).counters[counts.SESSIONS.at] == number
        for seat in board.slot(number).seats:
            shown = seat.read()
            assert shown is not None
            assert shown.client == f"192.0.2.{number * 3 + seat.number}:110"
            assert shown.user == "u" * 64


def test_texts_are_cut_without_half_characters() -> None:
    seat = Board(1, 1).slot(0).seats[0]
    seat.open("192.0.2.7")
    seat.stand("", "x" + "ü" * 60)
    shown = seat.read()
    assert shown is not None
    assert shown.user == "x" + "ü" * 31


def test_the_user_may_change() -> None:
    seat = Board(1, 1).slot(0).seats[0]
    seat.open("192.0.2.7")
    for user in ("alice", "alice", "bob", "", "alice"):
        seat.stand("USER", user)
        shown = seat.read()
        assert shown is not None
        assert (shown.state, shown.user) == ("USER", user)
    seat.open("192.0.2.8")
    shown = seat.read()
    assert shown is not None
    assert shown.user == ""
    seat.stand("AUTHORIZATION", "")
    shown = seat.read()
    assert shown is not None
    assert (shown.state, shown.user) == ("AUTHORIZATION", "")


@pytest.mark.parametrize(
    ("octets", "shown"), [(b"\xff\xfe", r"\xff\xfe"), (b"al\xc3", r"al\xc3"), ("é".encode() + b"\x80", r"é\x80")]
)
def test_octets_of_the_wire_are_shown_as_in_the_log(octets: bytes, shown: str) -> None:
    seat = Board(1, 1).slot(0).seats[0]
    seat.open("192.0.2.7")
    name = octets.decode("utf-8", "surrogateescape")
    seat.stand("", name)
    running = seat.read()
    assert running is not None
    assert running.user == shown == escaped(name)


@pytest.mark.parametrize("started", [math.nan, math.inf, -math.inf, -1.0, 1e300])
def test_a_seat_that_began_at_no_time_is_left_out(started: float) -> None:
    board = Board(1, 1)
    slot = board.slot(board.take())
    slot.seats[0].open("192.0.2.7")
    struct.pack_into("=d", board._memory, slot.seats[0]._at, started)
    assert (slot.seats[0].taken, slot.seats[0].read(), slot.unfinished()) == (False, None, [])


def test_no_more_slots_are_read_than_there_are_nor_any_whose_pid_is_none() -> None:
    board = Board(2, 1)
    board.take()
    board._words[0] = (1 << 32) - 1
    board.slot(0).begin(1 << 40)
    board.slot(1).begin(4711)
    assert [slot.pid for slot in board.slots()] == [4711]
    assert sum(board.sums()) == 0
    board.take()
    assert board._words[0] == 2


def test_octets_that_were_made_up_are_no_hindrance_to_the_next_session() -> None:
    board = Board(1, 1)
    seat = board.slot(board.take()).seats[0]
    board._memory[:] = b"\xff" * len(board._memory)
    seat.open("192.0.2.7")
    seat.passed(10, 20)
    shown = seat.read()
    assert shown is not None
    assert (shown.from_client, shown.to_client) == (10, 20)


def test_what_would_tear_a_line_is_shown_escaped() -> None:
    seat = Board(1, 1).slot(0).seats[0]
    seat.open("192.0.2.7\n", 0, "3f2a\n2026 x: y")
    shown = seat.read()
    assert shown is not None
    assert (shown.session, shown.client) == ("3f2a\\n2026 x: y", "192.0.2.7\\n")


def test_a_seat_that_closes_shows_nothing_and_the_next_one_nothing_of_it() -> None:
    seat = Board(1, 1).slot(0).seats[0]
    seat.open("192.0.2.7")
    seat.stand("TRANSACTION", "alice")
    seat.close()
    assert seat.read() is None
    seat.open("192.0.2.8")
    shown = seat.read()
    assert shown is not None
    assert (shown.user, shown.state, shown.client) == ("", "", "192.0.2.8")


def test_a_seat_says_that_it_was_written() -> None:
    seat = Board(1, 1).slot(0).seats[0]
    assert not seat.changed
    seat.open("192.0.2.7")
    assert seat.changed
    seat.changed = False
    seat.stand("AUTHORIZATION", "")
    assert seat.changed
