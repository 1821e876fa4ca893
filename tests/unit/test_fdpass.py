"""Messages and descriptors over a real channel."""

from __future__ import annotations

import os
import resource
import socket
import struct
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pop3gw import fdpass, messages
from pop3gw.errors import ChannelError
from pop3gw.fdpass import Channel


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = Channel.pair()
    other = Channel(theirs, waits=True)
    yield ours, other
    ours.close()
    other.close()


def test_a_descriptor_travels_with_its_message_and_closes_on_exec(ends: tuple[Channel, Channel]) -> None:
    reader, writer = os.pipe()
    ends[0].send(messages.Serve(0, 1024, "192.0.2.7"), writer)
    os.close(writer)
    received = ends[1].receive()
    assert received is not None
    assert received[0] == messages.Serve(0, 1024, "192.0.2.7")
    assert not os.get_inheritable(received[1])
    os.write(received[1], b"x")
    os.close(received[1])
    assert os.read(reader, 10) == b"x"
    os.close(reader)


def test_a_connection_is_handed_over_as_by_a_message(ends: tuple[Channel, Channel]) -> None:
    ends[0].hand_over(7, 1024, "2001:db8::1", 0)
    message, descriptor = ends[1].receive() or (None, -1)
    assert message == messages.Serve(7, 1024, "2001:db8::1")
    assert os.fstat(descriptor).st_ino == os.fstat(0).st_ino
    os.close(descriptor)


def test_messages_keep_their_order_and_their_descriptors_apart(ends: tuple[Channel, Channel]) -> None:
    for seat in range(5):
        ends[0].send(messages.Serve(seat, seat, "192.0.2.7"), ends[0].fileno())
        ends[0].send(messages.Retire())
    for seat in range(5):
        message, descriptor = ends[1].receive() or (None, -1)
        assert message == messages.Serve(seat, seat, "192.0.2.7")
        os.close(descriptor)
        assert ends[1].receive() == (messages.Retire(), -1)


def test_receiving_never_waits(ends: tuple[Channel, Channel]) -> None:
    for end in ends:
        with pytest.raises(BlockingIOError):
            end.receive()


def test_the_masters_end_never_waits_for_one_that_does_not_read(ends: tuple[Channel, Channel]) -> None:
    with pytest.raises(BlockingIOError):
        for _ in range(100_000):
            ends[0].send(messages.Retire())


def test_the_other_ones_end_is_an_end_of_file_behind_what_it_sent(ends: tuple[Channel, Channel]) -> None:
    ends[1].send(messages.Free(1, (0,)))
    ends[1].close()
    assert ends[0].receive() == (messages.Free(1, (0,)), -1)
    assert ends[0].receive() is None
    with pytest.raises(BrokenPipeError):
        ends[0].send(messages.Retire())


def test_one_that_ends_with_messages_unread_is_an_end_of_file_too(ends: tuple[Channel, Channel]) -> None:
    ends[0].send(messages.Retire())
    ends[1].close()
    assert ends[0].receive() is None


def test_no_descriptor_of_several_that_come_at_once_is_kept(ends: tuple[Channel, Channel]) -> None:
    before = descriptors()
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", (0, 1)))
    ends[0].socket.sendmsg([messages.encode(messages.Retire())], [rights])
    with pytest.raises(ChannelError, match="cut"):
        ends[1].receive()
    assert descriptors() == before


@contextmanager
def in_the_way_only_of(channel: Channel) -> Iterator[None]:
    """Send a connection that whoever closes it last would wait for, longer than any test may take."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = socket.create_connection(listener.getsockname())
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                connection.send(bytes(1 << 20))
        connection.setblocking(True)
        channel.send(messages.Leaving())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 600))
        try:
            channel.send(messages.Leaving(), connection.fileno())
        except PermissionError:  # Linux 6.16: it is refused
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
        connection.close()
        yield


@pytest.fixture(params=[83, 9999], ids=["refused by the system", "refused by us"])
def ours_and_theirs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Channel, Channel]:
    """The master's end and another, on a system that knows SO_PASSRIGHTS, as far as this one does, and on an older."""
    monkeypatch.setattr(fdpass, "_PASS_RIGHTS", request.param)
    ours, theirs = Channel.pair()
    return ours, Channel(theirs, waits=True)


@pytest.mark.interpreted
def test_the_master_takes_no_descriptor(ours_and_theirs: tuple[Channel, Channel]) -> None:
    ours, theirs = ours_and_theirs
    before = descriptors()
    with in_the_way_only_of(theirs):
        assert ours.hear() == messages.Leaving()
        with pytest.raises((ChannelError, BlockingIOError)) as raised:
            ours.hear()
        assert raised.type is BlockingIOError or "descriptor" in str(raised.value)
        ours.close()
    theirs.close()
    assert descriptors() == before - 2


@pytest.mark.interpreted
@pytest.mark.parametrize("hidden", [False, True], ids=["behind a record", "behind what looks like the end"])
def test_a_descriptor_that_nobody_has_heard_of_keeps_no_close_waiting(
    ours_and_theirs: tuple[Channel, Channel], hidden: bool
) -> None:
    ours, theirs = ours_and_theirs
    before = descriptors()
    if hidden:
        theirs.socket.send(b"")
        theirs.socket.send(b"")
        assert ours.hear() is None
    with in_the_way_only_of(theirs):
        ours.close()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        theirs.send(messages.Leaving())
    theirs.close()
    assert descriptors() == before - 2


@pytest.mark.interpreted
def test_nor_does_one_of_who_died_with_messages_unread(ours_and_theirs: tuple[Channel, Channel]) -> None:
    ours, theirs = ours_and_theirs
    before = descriptors()
    ours.send(messages.Retire())
    with in_the_way_only_of(theirs):
        theirs.close()
        ours.close()
    assert descriptors() == before - 2


def test_what_a_worker_says_is_heard_whole(ends: tuple[Channel, Channel]) -> None:
    address = "2001:db8:ffff:ffff:ffff:ffff:192.168.100.100%an-interface"
    for message in (
        messages.Free(24, tuple(range(messages.SEATS_LIMIT))),
        messages.Client(999, address),
        messages.Leaving(),
    ):
        ends[1].send(message)
        assert ends[0].hear() == message
    with pytest.raises(BlockingIOError):
        ends[0].hear()
    ends[0].send(messages.Retire())
    ends[1].close()
    assert ends[0].hear() is None


def test_what_a_worker_does_not_say_is_an_error(ends: tuple[Channel, Channel]) -> None:
    ends[1].send(messages.Client(3, "x" * 1000))
    with pytest.raises(ChannelError):
        ends[0].hear()


def test_a_descriptor_of_what_is_no_message_is_closed(ends: tuple[Channel, Channel]) -> None:
    before = descriptors()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, ends[0].fileno().to_bytes(4, "little"))]
    ends[0].socket.sendmsg([b"\xff"], rights)
    with pytest.raises(ChannelError):
        ends[1].receive()
    assert descriptors() == before


def test_a_descriptor_that_was_cut_is_an_error(ends: tuple[Channel, Channel]) -> None:
    ends[0].send(messages.Serve(0, 1, "192.0.2.7"), ends[0].fileno())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(ChannelError, match="its descriptor is missing"):
            ends[1].receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
