"""A connection's buffers: how much a read takes, and what is left to send."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from pop3gw import stream as stream_module
from pop3gw.stream import LARGEST, Stream

PATIENCE = 5.0


@pytest.fixture
def ends() -> Iterator[tuple[Stream, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(PATIENCE)
    ours.setblocking(False)
    with ours, theirs:
        yield Stream(ours), theirs


def reads(stream: Stream, theirs: socket.socket, octets: int) -> list[int]:
    """The lengths of the reads that take what the peer sends at once."""
    theirs.sendall(bytes(octets))
    lengths = []
    while data := stream.read():
        lengths.append(len(data))
    return lengths


def test_a_line_takes_a_small_read_and_more_grows_it(ends: tuple[Stream, socket.socket]) -> None:
    stream, theirs = ends
    assert reads(stream, theirs, 100) == [100]
    assert reads(stream, theirs, 2000) == [479, 1521]
    assert reads(stream, theirs, 479) == [479]


def test_content_that_is_expected_is_read_at_once(ends: tuple[Stream, socket.socket]) -> None:
    stream, theirs = ends
    stream.expect(much=True)
    assert reads(stream, theirs, 8192) == [8192]
    assert reads(stream, theirs, 1448) == [1448]  # a segment: the next one is no line either
    assert reads(stream, theirs, 1448) == [1448]
    assert reads(stream, theirs, 100_000) == [16_384, 100_000 - 16_384]
    stream.expect(much=False)
    assert reads(stream, theirs, 2000) == [479, 1521]


def test_no_read_takes_more_than_the_most() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        stream = Stream(ours, 4096)
        sent = theirs.send(bytes(2 * LARGEST))
        lengths = []
        while data := stream.read():
            lengths.append(len(data))
        assert sum(lengths) == sent == stream.received
        assert max(lengths) == 4096


def test_content_that_is_expected_takes_no_more_than_the_most() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        stream = Stream(ours, 100)
        assert reads(stream, theirs, 150) == [100, 50]
        stream.expect(much=True)
        assert reads(stream, theirs, 150) == [100, 50]


def test_the_end_is_no_data(ends: tuple[Stream, socket.socket]) -> None:
    stream, theirs = ends
    assert stream.read() is None
    assert not stream.ended
    theirs.shutdown(socket.SHUT_WR)
    assert stream.read() == b""
    assert stream.ended


def test_what_cannot_be_sent_is_kept_in_order(ends: tuple[Stream, socket.socket]) -> None:
    stream, theirs = ends
    much = bytes(range(256)) * 16_384
    assert not stream.write(much)
    assert not stream.write(b"behind it")
    heard = bytearray()
    while not stream.flush():
        heard += theirs.recv(1 << 20)
    while len(heard) < len(much) + 9:
        heard += theirs.recv(1 << 20)
    assert heard == much + b"behind it"
    assert stream.sent == len(heard)


def fill(stream: Stream) -> None:
    while stream.write(bytes(65536)):
        pass


def test_a_peer_takes_what_it_reads(ends: tuple[Stream, socket.socket]) -> None:
    stream, theirs = ends
    fill(stream)
    assert not stream.takes()
    assert theirs.recv(65536)
    assert stream.takes()
    assert not stream.takes()


def test_who_takes_the_rest_is_owed_something_still(ends: tuple[Stream, socket.socket]) -> None:
    stream, theirs = ends
    assert not stream.takes_the_rest()  # there is none
    for _ in range(3):
        assert stream.write(bytes(1000))
    assert stream.takes_the_rest()  # as far as is known
    assert not stream.takes_the_rest()
    for _ in range(2):
        assert theirs.recv(1000)
        assert stream.takes_the_rest()
        assert not stream.takes_the_rest()
    assert theirs.recv(1000)
    assert not stream.takes_the_rest()  # it has all


@pytest.mark.interpreted
def test_where_the_system_does_not_tell_what_the_peer_takes_nobody_takes_anything(
    ends: tuple[Stream, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> bytes:
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))

    monkeypatch.setattr(stream_module, "ioctl", unknown)
    stream, theirs = ends
    fill(stream)
    assert theirs.recv(65536)
    assert not stream.takes()
