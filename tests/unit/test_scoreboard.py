"""The scoreboard, also as another process writes it."""

from __future__ import annotations

import os
import time

import pytest

from pop3gw.scoreboard import Board, Count


def test_what_another_process_counts_and_shows_is_seen_and_outlives_it() -> None:
    board = Board(4, 2)
    number = board.take()
    pid = os.fork()
    if pid == 0:
        slot = board.slot(number)
        slot.add(Count.SESSIONS)
        slot.add(Count.TO_CLIENT, 1 << 40)
        slot.seats[1].open("192.0.2.7")
        slot.seats[1].show(state="TRANSACTION", user="alice", session="3f2a")
        os._exit(0)
    os.waitpid(pid, 0)
    assert board.total(Count.SESSIONS) == 1
    assert board.total(Count.TO_CLIENT) == 1 << 40
    shown = board.slot(number).seats[1].read()
    assert shown is not None
    assert (shown.state, shown.user, shown.client, shown.session) == ("TRANSACTION", "alice", "192.0.2.7", "3f2a")
    assert abs(shown.started - time.time()) < 60
    assert board.slot(number).seats[0].read() is None


def test_folding_keeps_the_counts_and_clears_the_seats() -> None:
    board = Board(2, 1)
    for _ in range(5):
        number = board.take()
        slot = board.slot(number)
        slot.add(Count.LOGINS, 3)
        slot.seats[0].open("192.0.2.7")
        board.fold(number)
        assert board.slot(number).seats[0].read() is None
        assert board.slot(number).value(Count.LOGINS) == 0
    assert board.total(Count.LOGINS) == 15


def test_a_slot_is_one_workers_at_a_time() -> None:
    board = Board(2, 1)
    assert {board.take(), board.take()} == {0, 1}
    with pytest.raises(IndexError):
        board.take()
    board.fold(1)
    assert board.take() == 1


def test_slots_do_not_touch_each_other() -> None:
    board = Board(3, 3)
    for number in range(3):
        board.take()
        for seat in board.slot(number).seats:
            seat.open(f"192.0.2.{number * 3 + seat.number}")
            seat.show(user="u" * 200, state="s" * 200, session="i" * 200)
        board.slot(number).add(Count.REFUSALS, number)
    for number in range(3):
        assert board.slot(number).value(Count.REFUSALS) == number
        for seat in board.slot(number).seats:
            shown = seat.read()
            assert shown is not None
            assert shown.client == f"192.0.2.{number * 3 + seat.number}"
            assert shown.user == "u" * 64


def test_texts_are_cut_without_half_characters() -> None:
    seat = Board(1, 1).slot(0).seats[0]
    seat.open("192.0.2.7")
    seat.show(user="x" + "ü" * 60)
    shown = seat.read()
    assert shown is not None
    assert shown.user == "x" + "ü" * 31


def test_octets_of_the_wire_do_not_break_it() -> None:
    seat = Board(1, 1).slot(0).seats[0]
    seat.open("192.0.2.7")
    seat.show(user=b"\xff\xfe".decode("utf-8", "surrogateescape"))
    assert seat.read() is not None


def test_a_seat_that_closes_shows_nothing_and_the_next_one_nothing_of_it() -> None:
    seat = Board(1, 1).slot(0).seats[0]
    seat.open("192.0.2.7")
    seat.show(user="alice", state="TRANSACTION")
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
    seat.show(state="AUTHORIZATION")
    assert seat.changed


def test_an_older_generations_counts_can_be_taken_over() -> None:
    old, new = Board(1, 1), Board(1, 1)
    old.slot(old.take()).add(Count.SESSIONS, 7)
    new.slot(new.take()).add(Count.SESSIONS, 2)
    new.absorb(old)
    assert new.total(Count.SESSIONS) == 9
