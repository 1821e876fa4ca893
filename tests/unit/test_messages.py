"""The messages and their records."""

from __future__ import annotations

import pytest

from pop3gw import messages
from pop3gw.errors import ChannelError

MESSAGES = [
    messages.Fork(7, 3),
    messages.Prepared("other config"),
    messages.EndSession(3, "3f2a"),
    messages.Outcome(7, 1, "done\nand more"),
    messages.Kill(7, 4711, 3, "3f2a"),
    messages.Drain(7, 1, "inbound"),
    messages.Reload(7),
    messages.Stop(7, 0),
    messages.Fault("policy", "", "office.py:3: SyntaxError: invalid syntax\nüß\0"),
    messages.Fault("", "", ""),
    messages.Doubt("tls_certificate", "one whose time is now", "cert.pem: certificate has expired"),
    messages.Failed(),
    messages.Client(3, "2001:db8::1"),
    messages.Admit(3),
    messages.Refuse(4),
    messages.Forked(7, 4_194_304),
    messages.ForkFailed(7, "Cannot allocate memory"),
    messages.Exited(7, 4711, -9),
    messages.Serve(999, 65535, "2001:db8::1"),
    messages.Retire(),
    messages.End(),
    messages.Offer(8),
    messages.Free(1, (0,)),
    messages.Free(0, ()),
    messages.Free(24, tuple(range(1000, 1024))),
    messages.Leaving(),
    messages.LogTo(),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_message_is_what_its_record_says(message: messages.Message) -> None:
    assert messages.decode(messages.encode(message)) == message


def test_every_kind_of_message_is_tried_here() -> None:
    assert {type(message) for message in MESSAGES} == set(messages._KINDS)


@pytest.mark.parametrize("seats", [(), (0,), (7, 8), tuple(range(976, 1000))], ids=len)
def test_what_a_worker_says_of_each_session_is_a_message(seats: tuple[int, ...]) -> None:
    assert messages.free(3, seats) == messages.encode(messages.Free(3, seats))
    assert messages.offer(len(seats)) == messages.encode(messages.Offer(len(seats)))


def test_what_the_master_says_of_each_session_is_a_message() -> None:
    assert messages.serve(7, 1024, "2001:db8::1") == messages.encode(messages.Serve(7, 1024, "2001:db8::1"))


@pytest.mark.parametrize(
    "record",
    [
        b"\xff",
        b"\x00",
        messages.encode(messages.Retire()) + b"more",
        messages.encode(messages.Free(1, (0,)))[:-1],
        messages.encode(messages.End()) + b"x",
        messages.encode(messages.Free(1, (7, 8)))[:-7],
        messages.encode(messages.Serve(7, 1024, ""))[:-1],
        messages.encode(messages.Fault("policy", "", ""))[:-1],
    ],
)
def test_what_is_no_message_is_an_error(record: bytes) -> None:
    with pytest.raises(ChannelError):
        messages.decode(record)


def test_more_seats_than_a_message_holds_are_not_sent_in_part() -> None:
    with pytest.raises(IndexError):
        messages.encode(messages.Free(0, tuple(range(messages.SEATS_LIMIT + 1))))


def test_a_long_reason_is_cut() -> None:
    record = messages.encode(messages.Fault("", "", "x" * 100_000))
    assert messages.decode(record) == messages.Fault("", "", "x" * (messages.TEXT_LIMIT - 2))
