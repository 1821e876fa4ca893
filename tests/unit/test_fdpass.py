"""Messages and descriptors over a real channel."""

from __future__ import annotations

import os
import resource
import socket
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3gw import fdpass
from pop3gw.errors import ChannelError
from pop3gw.fdpass import Channel

MESSAGES = [
    fdpass.Fork(7, 3),
    fdpass.Prepared("other config"),
    fdpass.EndSession(3, "3f2a"),
    fdpass.Outcome(7, 1, "done\nand more"),
    fdpass.Kill(7, 4711, 3, "3f2a"),
    fdpass.Drain(7, 1, "inbound"),
    fdpass.Reload(7),
    fdpass.Stop(7, 0),
    fdpass.Failed("policy", "", "office.py:3: SyntaxError: invalid syntax\nüß\0"),
    fdpass.Failed("", "", ""),
    fdpass.Client(3, "2001:db8::1"),
    fdpass.Admit(3),
    fdpass.Refuse(4),
    fdpass.Forked(7, 4_194_304),
    fdpass.ForkFailed(7, "Cannot allocate memory"),
    fdpass.Exited(7, 4711, -9),
    fdpass.Serve(999, 65535, "2001:db8::1"),
    fdpass.Retire(),
    fdpass.End(),
    fdpass.Offer(8),
    fdpass.Free(1, (0,)),
    fdpass.Free(0, ()),
    fdpass.Free(24, tuple(range(1000, 1024))),
    fdpass.Leaving(),
    fdpass.LogTo(),
]


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = Channel.pair()
    other = Channel(theirs, waits=True)
    yield ours, other
    ours.close()
    other.close()


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_message_arrives_as_it_was_sent(ends: tuple[Channel, Channel], message: fdpass.Message) -> None:
    ends[0].send(message)
    assert ends[1].receive() == (message, -1)


def test_every_kind_of_message_is_tried_here() -> None:
    assert {type(message) for message in MESSAGES} == set(fdpass._KINDS)


def test_a_descriptor_travels_with_its_message_and_closes_on_exec(ends: tuple[Channel, Channel]) -> None:
    reader, writer = os.pipe()
    ends[0].send(fdpass.Serve(0, 1024, "192.0.2.7"), writer)
    os.close(writer)
    received = ends[1].receive()
    assert received is not None
    assert received[0] == fdpass.Serve(0, 1024, "192.0.2.7")
    assert not os.get_inheritable(received[1])
    os.write(received[1], b"x")
    os.close(received[1])
    assert os.read(reader, 10) == b"x"
    os.close(reader)


def test_a_connection_is_handed_over_as_by_a_message(ends: tuple[Channel, Channel]) -> None:
    ends[0].hand_over(7, 1024, "2001:db8::1", 0)
    message, descriptor = ends[1].receive() or (None, -1)
    assert message == fdpass.Serve(7, 1024, "2001:db8::1")
    assert os.fstat(descriptor).st_ino == os.fstat(0).st_ino
    os.close(descriptor)


@pytest.mark.parametrize("seats", [(), (0,), (7, 8), tuple(range(976, 1000))], ids=len)
def test_what_a_worker_says_of_each_session_is_a_message(seats: tuple[int, ...]) -> None:
    assert fdpass.free(3, seats) == fdpass.encode(fdpass.Free(3, seats))
    assert fdpass.offer(len(seats)) == fdpass.encode(fdpass.Offer(len(seats)))


def test_messages_keep_their_order_and_their_descriptors_apart(ends: tuple[Channel, Channel]) -> None:
    for seat in range(5):
        ends[0].send(fdpass.Serve(seat, seat, "192.0.2.7"), ends[0].fileno())
        ends[0].send(fdpass.Retire())
    for seat in range(5):
        message, descriptor = ends[1].receive() or (None, -1)
        assert message == fdpass.Serve(seat, seat, "192.0.2.7")
        os.close(descriptor)
        assert ends[1].receive() == (fdpass.Retire(), -1)


def test_receiving_never_waits(ends: tuple[Channel, Channel]) -> None:
    for end in ends:
        with pytest.raises(BlockingIOError):
            end.receive()


def test_the_masters_end_never_waits_for_one_that_does_not_read(ends: tuple[Channel, Channel]) -> None:
    with pytest.raises(BlockingIOError):
        for _ in range(100_000):
            ends[0].send(fdpass.Retire())


def test_the_other_ones_end_is_an_end_of_file_behind_what_it_sent(ends: tuple[Channel, Channel]) -> None:
    ends[1].send(fdpass.Free(1, (0,)))
    ends[1].close()
    assert ends[0].receive() == (fdpass.Free(1, (0,)), -1)
    assert ends[0].receive() is None
    with pytest.raises(BrokenPipeError):
        ends[0].send(fdpass.Retire())


def test_one_that_ends_with_messages_unread_is_an_end_of_file_too(ends: tuple[Channel, Channel]) -> None:
    ends[0].send(fdpass.Retire())
    ends[1].close()
    assert ends[0].receive() is None


@pytest.mark.parametrize(
    "record",
    [
        b"\xff",
        b"\x00",
        fdpass.encode(fdpass.Retire()) + b"more",
        fdpass.encode(fdpass.Free(1, (0,)))[:-1],
        fdpass.encode(fdpass.End()) + b"x",
        fdpass.encode(fdpass.Free(1, (7, 8)))[:-7],
        fdpass.encode(fdpass.Serve(7, 1024, ""))[:-1],
        fdpass.encode(fdpass.Failed("policy", "", ""))[:-1],
    ],
)
def test_what_is_no_message_is_an_error(ends: tuple[Channel, Channel], record: bytes) -> None:
    ends[0].socket.send(record)
    with pytest.raises(ChannelError):
        ends[1].receive()


def test_no_descriptor_of_several_that_come_at_once_is_kept(ends: tuple[Channel, Channel]) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", (0, 1)))
    ends[1].socket.sendmsg([fdpass.encode(fdpass.Retire())], [rights])
    with pytest.raises(ChannelError, match="cut"):
        ends[0].receive()
    ends[1].socket.sendmsg([fdpass.encode(fdpass.Failed("", "", "x" * 1000))], [rights])
    assert isinstance(ends[0].hear(fdpass.RECORD_LIMIT), fdpass.Failed)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_a_worker_says_is_heard_whole(ends: tuple[Channel, Channel]) -> None:
    address = "2001:db8:ffff:ffff:ffff:ffff:192.168.100.100%an-interface"
    for message in (fdpass.Free(24, tuple(range(fdpass.SEATS_LIMIT))), fdpass.Client(999, address), fdpass.Leaving()):
        ends[1].send(message)
        assert ends[0].hear() == message
    with pytest.raises(BlockingIOError):
        ends[0].hear()
    ends[0].send(fdpass.Retire())
    ends[1].close()
    assert ends[0].hear() is None


def test_what_a_worker_does_not_say_is_an_error(ends: tuple[Channel, Channel]) -> None:
    ends[1].send(fdpass.Client(3, "x" * 1000))
    with pytest.raises(ChannelError):
        ends[0].hear()


def test_a_descriptor_that_a_worker_sends_is_closed(ends: tuple[Channel, Channel]) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    ends[1].send(fdpass.Leaving(), ends[1].fileno())
    assert ends[0].hear() == fdpass.Leaving()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_more_seats_than_a_message_holds_are_not_sent_in_part() -> None:
    with pytest.raises(ValueError, match="25 numbers"):
        fdpass.encode(fdpass.Free(0, tuple(range(fdpass.SEATS_LIMIT + 1))))


def test_a_descriptor_of_what_is_no_message_is_closed(ends: tuple[Channel, Channel]) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, ends[0].fileno().to_bytes(4, "little"))]
    ends[0].socket.sendmsg([b"\xff"], rights)
    with pytest.raises(ChannelError):
        ends[1].receive()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_descriptor_that_was_cut_is_an_error(ends: tuple[Channel, Channel]) -> None:
    ends[0].send(fdpass.Serve(0, 1, "192.0.2.7"), ends[0].fileno())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(ChannelError, match="its descriptor is missing"):
            ends[1].receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_long_reason_is_cut(ends: tuple[Channel, Channel]) -> None:
    ends[1].send(fdpass.Failed("", "", "x" * 100_000))
    assert ends[0].receive() == (fdpass.Failed("", "", "x" * (fdpass.TEXT_LIMIT - 2)), -1)
