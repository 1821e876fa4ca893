"""The ledger: what ended workers have counted stays, and nothing counts twice."""

from __future__ import annotations

import json
import math
import os
import random

import pytest

from pop3gw import messages
from pop3gw.ledger import CALLBACK_ROWS, Gauge, Ledger
from pop3gw.proto import counts
from pop3gw.scoreboard import CALLBACKS_AT, Board
from pop3gw.view import Watched


def test_folding_keeps_the_counts_and_clears_the_seats() -> None:
    board, ledger = Board(2, 1), Ledger()
    login, folds = counts.LOGIN_OK["APOP"], set()
    for _ in range(5):
        number = board.take()
        slot = board.slot(number)
        slot.counters[login] += 3
        slot.seats[0].open("192.0.2.7")
        assert ledger.totals([(board, ())])[0][login] % 3 == 0
        ledger.fold(board, number, ())
        assert board.slot(number).seats[0].read() is None
        assert board.slot(number).counters[login] == 0
        folds.add(ledger._words[0])
    assert len(folds) == 5  # who reads meanwhile notices each
    assert ledger.totals([(board, ())])[0][login] == 15


def test_octets_are_shown_for_a_session_and_counted_for_all() -> None:
    board, ledger = Board(2, 2), Ledger()
    slot = board.slot(board.take())
    for received, sent in ((10, 200), (1, 20)):
        for seat in slot.seats:
            seat.open("192.0.2.7")
            seat.passed(received // 2, sent // 2)
            seat.passed(received, sent)
            shown = seat.read()
            assert shown is not None
            assert (shown.from_client, shown.to_client) == (received, sent)
    slot.seats[0].close()
    other = board.slot(board.take()).seats[0]
    other.open("192.0.2.8")
    other.passed(5, 7)
    for number in range(2):
        totals = ledger.totals([(board, ())])[0]
        assert (totals[counts.FROM_CLIENT], totals[counts.TO_CLIENT]) == (27, 447)
        ledger.fold(board, number, ())
    totals = ledger.totals([(board, ())])[0]
    assert (totals[counts.FROM_CLIENT], totals[counts.TO_CLIENT]) == (27, 447)
    again = board.slot(board.take()).seats[0]  # as a new worker finds it
    again.open("192.0.2.7")
    again.passed(1, 1)
    totals = ledger.totals([(board, ())])[0]
    assert (totals[counts.FROM_CLIENT], totals[counts.TO_CLIENT]) == (28, 448)


def test_sessions_that_end_with_their_worker_are_counted_as_lost() -> None:
    board, ledger = Board(1, 3), Ledger()
    slot = board.slot(board.take())
    slot.counters[counts.SESSIONS.at] = 3
    slot.counters[counts.SESSIONS_ENDED.index("quit", "client")] = 1
    ledger.fold(board, 0, ())
    totals, _ = ledger.totals([(board, ())])
    assert totals[counts.SESSIONS_LOST.at] == 2


def test_a_readers_sum_is_the_same_at_every_moment_of_a_fold() -> None:
    """One process folds again and again, what was counted goes back and forth between slot and ledger."""
    board, ledger = Board(8, 1), Ledger()
    at = counts.MESSAGES.at
    for number in range(8):
        board.slot(board.take()).counters[at] = 1000 + number
    pid = os.fork()
    if pid == 0:
        for _ in range(200):
            for number in range(8):
                ledger.fold(board, number, ())
            for _ in range(8):
                board.take()
        os._exit(0)
    sums = set()
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        sums.add(ledger.totals([(board, ())])[0][at])
    sums.add(ledger.totals([(board, ())])[0][at])
    assert sums == {8028}


@pytest.mark.interpreted
def test_who_reads_while_a_slot_is_folded_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    board, ledger = Board(1, 1), Ledger()
    seen: list[int] = []
    octets = board.octets

    def watched(number: int) -> tuple[int, int]:
        seen.append(ledger._words[0])
        return octets(number)

    monkeypatch.setattr(board, "octets", watched)
    for _ in range(2):
        ledger.fold(board, board.take(), ())
        seen.append(ledger._words[0])
    assert [word % 2 for word in seen] == [1, 0, 1, 0]


@pytest.mark.interpreted
def test_what_is_folded_while_it_is_read_is_read_again_and_else_once(monkeypatch: pytest.MonkeyPatch) -> None:
    board, ledger = Board(1, 1), Ledger()
    at, sums = counts.MESSAGES.at, board.sums
    reads: list[int] = []
    board.slot(board.take()).counters[at] = 3

    def summed() -> list[int]:
        reads.append(len(reads))
        if len(reads) == 2:
            ledger.fold(board, 0, ())
        return sums()

    monkeypatch.setattr(board, "sums", summed)
    assert ledger.totals([(board, ())])[0][at] == 3
    assert len(reads) == 1
    assert ledger.totals([(board, ())])[0][at] == 3
    assert len(reads) == 3


def test_callbacks_keep_their_rows_when_the_policy_changes() -> None:
    old, new, ledger = Board(1, 1), Board(1, 1), Ledger()
    before = ledger.rows("Office", ("other", "greet", "known"))
    old.slot(old.take()).counters[CALLBACKS_AT + 2] = 1  # known
    after = ledger.rows("Office", ("other", "known", "new"))
    new.slot(new.take()).counters[CALLBACKS_AT + 1] = 1  # known
    boards = [(old, before), (new, after)]
    ledger.fold(old, 0, before)
    assert ledger.totals([])[1][before[2]] == 1
    _, errors = ledger.totals(boards)
    named = {name: errors[row] for row, name in enumerate(ledger.callbacks)}
    assert named == {
        ("Office", "other"): 0,
        ("Office", "greet"): 0,
        ("Office", "known"): 2,
        ("Office", "new"): 0,
    }


def test_the_rows_of_callbacks_are_bounded() -> None:
    ledger = Ledger()
    for number in range(30):
        ledger.rows(f"Office{number}", [f"callback{one}" for one in range(counts.CALLBACKS)])
    assert len(ledger.callbacks) == CALLBACK_ROWS
    assert ledger.rows("Late", ("other",)) == [CALLBACK_ROWS - 1]
    assert ledger.callbacks[-1] == ("other", "other")


@pytest.mark.parametrize(
    "octets", [b"\xff", b"\x7f", bytes(random.Random(3).randbytes(4096))], ids=("ff", "7f", "random")
)
def test_whatever_a_policy_writes_over_the_memory_is_read_and_folded(octets: bytes) -> None:
    board, ledger, gateway = Board(3, 2), Ledger(), Ledger()
    rows = ledger.rows("Office", ("other", "greet"))
    numbers = [board.take(), board.take()]
    for memory in (board._memory, ledger._memory, gateway._memory):
        memory[:] = (octets * len(memory))[: len(memory)]
    for _ in range(2):
        ledger.add(counts.WORKERS_STARTED.at)
        gateway.add(counts.RELOADS.at, 3)
        ledger.show(Gauge.FREE_SEATS, -1)
        watched = Watched("inbound", "Office", "", (), 3, True, ledger, ((board, rows),))
        assert watched.workers().total <= 3
        assert watched.running() <= 6
        totals = watched.totals()
        assert all(0 <= totals[at] < 1 << 64 for at in range(counts.COUNTERS))
        for family in filter(lambda family: family.buckets, counts.FAMILIES):
            totals.histogram(family)
        for running in watched.sessions():
            json.dumps([running.pid, running.shown.started, running.shown.user], allow_nan=False)
            messages.encode(messages.Kill(1, running.pid, running.seat.number, running.shown.session))
        for number in numbers:
            assert all(math.isfinite(shown.started) for shown in board.slot(number).unfinished())
            ledger.fold(board, number, rows)
        numbers = [board.take(), board.take()]
    assert ledger._words[0] % 2 == 0  # readers need not wait


def test_a_policy_with_more_callbacks_than_a_slot_has_counters_for_is_counted_all_the_same() -> None:
    board, ledger = Board(1, 1), Ledger()
    rows = ledger.rows("Office", [f"callback{number}" for number in range(200)])
    assert len(rows) == counts.CALLBACKS
    ledger.totals([(board, rows)])
    ledger.fold(board, board.take(), rows)


def test_the_master_says_how_things_are() -> None:
    ledger = Ledger()
    ledger.show(Gauge.STARTING, 3)
    ledger.add(counts.WORKERS_STARTED.at)
    assert (ledger.shown(Gauge.STARTING), ledger.shown(Gauge.DRAINED)) == (3, 0)
    assert ledger.totals([])[0][counts.WORKERS_STARTED.at] == 1
    for gauge in Gauge:
        ledger.show(gauge, 1 + gauge)
    assert [ledger.shown(gauge) for gauge in Gauge] == [1, 2, 3, 4]
    assert ledger._words[0] == 0  # nobody need read again
