"""Framing: each rule with the data whole, octet by octet, and split anywhere."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pop3gw.proto.wire import (
    ContentLines,
    EndingsCheck,
    LineMeter,
    Lines,
    LineTooLongError,
    Terminator,
    begins_with_counts,
    good_status,
    stuffed,
    terminator_in,
    timestamp,
    whole_request,
)

# Octets that framing looks at, and one that it does not.
FRAMING = st.lists(st.sampled_from([b"\r", b"\n", b".", b"a"]), max_size=40).map(b"".join)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def all_lines(parts: list[bytes], limit: int = 1000) -> list[bytes]:
    lines = Lines()
    found = []
    for part in parts:
        lines.feed(part)
        while (line := lines.take(limit)) is not None:
            found.append(line)
    return found


@given(data=FRAMING, cuts=st.lists(st.integers(0, 100), max_size=5))
def test_lines_end_at_lf_with_or_without_cr_however_they_come(data: bytes, cuts: list[int]) -> None:
    expected = [line.removesuffix(b"\r") for line in data.split(b"\n")[:-1]]
    assert all_lines(pieces(data, cuts)) == expected


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("octet_by_octet", [False, True])
def test_a_line_of_exactly_the_limit_passes_and_one_more_does_not(end: bytes, octet_by_octet: bool) -> None:
    for size, passes in ((9, True), (10, True), (11, False)):
        data = b"x" * size + end
        parts = [bytes([octet]) for octet in data] if octet_by_octet else [data]
        if passes:
            assert all_lines(parts, 10) == [b"x" * size]
        else:
            with pytest.raises(LineTooLongError):
                all_lines(parts, 10)


def test_a_line_is_too_long_before_its_end_has_come() -> None:
    lines = Lines()
    lines.feed(b"x" * 10 + b"\r")
    assert lines.take(10) is None
    lines.feed(b"x")
    with pytest.raises(LineTooLongError):
        lines.take(10)


def test_what_follows_a_line_stays() -> None:
    lines = Lines()
    lines.feed(b"AUTH x\r\nrest")
    assert lines.starts_with(b"AUTH ")
    assert lines.take(100) == b"AUTH x"
    assert lines.left == 4
    lines.feed(b"more")
    assert lines.take_all() == b"restmore"
    assert lines.left == 0


def end_of(parts: list[bytes]) -> int:
    """Where the terminator ends in all of it, -1 without one."""
    terminator = Terminator()
    before = 0
    for part in parts:
        found = terminator.find(part)
        if found >= 0:
            return before + found
        before += len(part)
    return -1


@given(data=FRAMING, cuts=st.lists(st.integers(0, 100), max_size=5))
def test_a_response_ends_at_crlf_dot_crlf_and_nowhere_else(data: bytes, cuts: list[int]) -> None:
    at = (b"\r\n" + data).find(b"\r\n.\r\n")  # the status line's own line end comes first
    assert end_of(pieces(data, cuts)) == (at + 3 if at >= 0 else -1)


def passing(parts: list[bytes], limit: int) -> int:
    meter, total = LineMeter(), 0
    for part in parts:
        good = meter.passing(part, limit)
        total += good
        if good < len(part):
            break
    return total


@given(data=FRAMING, cuts=st.lists(st.integers(0, 100), max_size=5), limit=st.integers(1, 6))
def test_line_lengths_are_judged_alike_however_they_come(data: bytes, cuts: list[int], limit: int) -> None:
    whole = passing([data], limit)
    assert passing(pieces(data, cuts), limit) == whole
    lines = data.split(b"\r\n")
    # The last piece has no line end yet; one CR more may become one.
    fits = all(len(line) <= limit for line in lines[:-1]) and len(lines[-1].removesuffix(b"\r")) <= limit
    assert (whole == len(data)) == fits


@given(data=FRAMING, cuts=st.lists(st.integers(0, 100), max_size=5))
def test_what_passes_ends_before_the_first_bare_line_end_however_it_comes(data: bytes, cuts: list[int]) -> None:
    check, passed = EndingsCheck(), b""
    for part in pieces(data, cuts):
        good, clean = check.passed(part)
        passed += good
        if not clean:
            break
    bare = re.search(rb"\r(?!\n)|(?<!\r)\n", data)
    assert passed == (data[: bare.start()] if bare else data)
    assert clean == (bare is None or data[bare.start() :] == b"\r")  # which may still become one that is not bare


@given(data=FRAMING, cuts=st.lists(st.integers(0, 100), max_size=5))
def test_lines_for_a_callback_are_all_of_the_content(data: bytes, cuts: list[int]) -> None:
    lines, seen = ContentLines(), b""
    for part in pieces(data, cuts):
        if lines.ended:
            break
        seen += lines.feed(part, 1000)
    end = end_of([data])
    assert lines.ended == (end >= 0)
    content = data[: end - 3] if lines.ended else data[: data.rfind(b"\r\n") + 2] if b"\r\n" in data else b""
    assert seen == content


def test_behind_the_terminator_is_what_is_left() -> None:
    lines = ContentLines()
    assert lines.feed(b"a\r\n.\r\n+OK", 10) == b"a\r\n"
    assert lines.ended
    assert lines.left() == b"+OK"


@pytest.mark.parametrize(("size", "too_long"), [(10, False), (11, True)])
@pytest.mark.parametrize("before", [b"", b"short\r\n"])
def test_a_line_for_a_callback_has_a_limit(size: int, too_long: bool, before: bytes) -> None:
    for data in (before + b"x" * size + b"\r\nz\r\n", before + b"x" * size):
        lines = ContentLines()
        given = lines.feed(data, 10)
        assert lines.too_long is too_long
        assert given.startswith(before)


@pytest.mark.parametrize(
    ("line", "wire"), [(b"", b""), (b".", b".."), (b"..", b"..."), (b".a", b"..a"), (b"a.", b"a.")]
)
def test_dot_stuffing(line: bytes, wire: bytes) -> None:
    assert stuffed(line) == wire


@given(
    st.integers(0, 3000),
    st.lists(st.tuples(st.integers(0, 3000), st.sampled_from([b".", b"..", b".\r\n", b"\r\n.\r"]))),
)
def test_a_terminator_is_found_however_far_the_dots_before_it_are(before: int, dots: list[tuple[int, bytes]]) -> None:
    data = b"aaaa" + b"a" * before + b"".join(dot + b"a" * gap for gap, dot in dots)
    for whole in (data, data + b"\r\n.\r\n" + data):
        at = whole.find(b"\r\n.\r\n")
        assert Terminator().find(whole) == (at + 5 if at >= 0 else -1)
        assert terminator_in(whole, before) == whole.find(b"\r\n.\r\n", before)


@given(
    st.lists(st.sampled_from([b"+OK", b" ", b"\r", b"\n", b"\0", b"a", b"\r\n", b"-ERR"]), max_size=8).map(b"".join),
    st.integers(1, 12),
)
@example(b"+OK\r\n", 2)
@example(b"+OK\r\n", 3)
def test_a_good_status_is_whole_and_within_its_limit(data: bytes, limit: int) -> None:
    good = re.match(rb"\+OK(?: [^\r\n\0]*)?(?=\r\n)", data)
    assert good_status(data, limit) == (good.end() if good is not None and good.end() <= limit else -1)


@given(
    st.lists(st.sampled_from([b"STAT", b" ", b"\r", b"\n", b"\r\n", b"\0", b"\x1f", b"\x7f", b"\xff"]), max_size=6),
    st.integers(0, 9),
)
def test_a_request_is_whole_if_it_is_one_line_within_its_limit_without_controls(parts: list[bytes], limit: int) -> None:
    data = b"".join(parts)
    one = re.fullmatch(rb"([^\x00-\x1f\x7f]*)\r?\n", data)
    assert whole_request(data, limit) == (len(one[1]) if one is not None and len(one[1]) <= limit else -1)


@given(
    st.lists(st.sampled_from([b"0", b"9", b"42", b" ", b"/", b":", b"\n", b"a"]), max_size=8).map(b"".join),
    st.integers(0, 3),
    st.integers(0, 9),
)
def test_a_drop_listing_begins_with_two_counts(data: bytes, begin: int, end: int) -> None:
    end = min(end, len(data))
    form = re.compile(rb"[0-9]+ [0-9]+(?: .*)?", re.DOTALL)
    assert begins_with_counts(data, begin, end) == (form.fullmatch(data, begin, end) is not None)


@given(
    st.lists(st.sampled_from([b"<", b">", b"@", b" ", b"\t", b"\r", b"\x0b", b"\0", b"a", b"1.2"]), max_size=14).map(
        b"".join
    )
)
def test_the_timestamp_is_the_first_message_id_in_angle_brackets(line: bytes) -> None:
    form = re.compile(rb"<[^<>\s][^<>\s@]*@[^<>\s]+>")
    found = form.search(line)
    assert timestamp(line) == (None if found is None else found[0])
