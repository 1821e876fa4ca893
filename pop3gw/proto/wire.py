"""Framing: where a line ends, where a multiline response ends, and dot-stuffing (RFC 1939 section 3).

Pure: bytes in, bytes out. It must not know commands, states or policies. One rule for each kind of text:

- A request or status line ends at LF; one CR before it belongs to the line end.
- A multiline response ends at CRLF "." CRLF and nowhere else; its lines end at CRLF.

Known limit: a line is kept until it is whole, so memory is bounded by the limit that the caller gives.
"""

from __future__ import annotations

import re
from typing import Final

TERMINATOR: Final = b"\r\n.\r\n"
CRLF: Final = b"\r\n"
_TAB: Final = 0x09
_CR: Final = 0x0D
_LF: Final = 0x0A
_SPACE: Final = 0x20
_DELETE: Final = 0x7F
_PLUS: Final = 0x2B
_O: Final = 0x4F
_K: Final = 0x4B
_ZERO: Final = 0x30
_NINE: Final = 0x39
_LESS: Final = 0x3C
_GREATER: Final = 0x3E
_AT: Final = 0x40
_FAR: Final = 512  # octets from dot to dot: fewer are not worth a search of their own
# What no request and no line of a SASL exchange may hold.
CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")


def good_status(data: bytes, limit: int) -> int:
    """Octets of the ``+OK`` line that ``data`` begins with, its CRLF not counted; -1: none, or not whole, or too long.

    An octet at a time: compiled, that takes a fifth of what a regular expression takes for so short a line.
    """
    size = len(data)
    if size < 5 or limit < 3 or data[0] != _PLUS or data[1] != _O or data[2] != _K:
        return -1
    at, end = 3, min(size - 1, limit)
    while at < end and (octet := data[at]) != _CR and octet != _LF and octet:
        at += 1
    if at + 1 >= size or data[at] != _CR or data[at + 1] != _LF or (at > 3 and data[3] != _SPACE):
        return -1
    return at


def begins_with_counts(data: bytes, begin: int, end: int) -> bool:
    """Whether that part of it is two numbers, and a blank before what else there is: the drop listing of RFC 1939
    section 5. An octet at a time, as above.
    """
    first = _behind_digits(data, begin, end)
    if first == begin or first >= end or data[first] != _SPACE:
        return False
    second = _behind_digits(data, first + 1, end)
    return second > first + 1 and (second == end or data[second] == _SPACE)


def _behind_digits(data: bytes, at: int, end: int) -> int:
    while at < end and _ZERO <= data[at] <= _NINE:
        at += 1
    return at


def timestamp(line: bytes) -> bytes | None:
    """The first msg-id in that line, with its angle brackets (RFC 1939 section 7); None where there is none.

    An octet at a time, as above.
    """
    begin = mark = -1  # its "<", and its "@", which is not the first octet behind that
    for at in range(len(line)):
        octet = line[at]
        if octet == _LESS:
            begin, mark = at, -1
        elif begin < 0:
            continue
        elif octet == _GREATER and begin < mark < at - 1:
            return line[begin : at + 1]
        elif octet in (_GREATER, _SPACE) or _TAB <= octet <= _CR:
            begin = -1
        elif octet == _AT and mark < 0 and at > begin + 1:
            mark = at
    return None


def whole_request(data: bytes, limit: int) -> int:
    """Octets of the request that ``data`` is, its line end not counted; -1: it is more or less than one, too long, or
    holds what ``CONTROL`` finds. An octet at a time, as above.
    """
    size = len(data)
    if not size or data[size - 1] != _LF:
        return -1
    end = size - 2 if size > 1 and data[size - 2] == _CR else size - 1
    at = 0
    while at < end <= limit and (octet := data[at]) >= _SPACE and octet != _DELETE:
        at += 1
    return end if at == end else -1


class LineTooLongError(Exception):
    """A line is longer than its limit, whether or not its end has come."""


class Lines:
    """Requests or status lines of one side, collected until they are whole; ``left``: octets that are not taken yet."""

    __slots__ = ("_data", "_searched", "_start", "left")

    def __init__(self) -> None:
        self._data: bytes | bytearray = b""
        self._start = 0  # where the next line begins
        self._searched = 0
        self.left = 0

    def feed(self, data: bytes) -> None:
        """Add what came from the wire."""
        if not self.left:
            # Mostly one whole line comes at a time: it is taken from the buffer that was read.
            self._data = data
            self._start = self._searched = 0
            self.left = len(data)
            return
        if isinstance(self._data, bytes):
            self._data = bytearray(self._data)
        if self._start:
            del self._data[: self._start]
            self._searched -= self._start
            self._start = 0
        self._data += data
        self.left = len(self._data)

    @property
    def whole(self) -> bool:
        """Whether a line is there with its end."""
        return self._data.find(b"\n", self._searched) >= 0

    def starts_with(self, word: bytes) -> bool:
        """Whether the line that comes next starts with this word, in any case."""
        return self._data[self._start : self._start + len(word)].upper() == word

    def take(self, limit: int) -> bytes | None:
        """The next line without its line end, or None until it is whole.

        Raises LineTooLongError when it has more than ``limit`` octets, its line end not counted.
        """
        if not self.left:
            return None
        data, start = self._data, self._start
        end = data.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(data)
            # One octet more may still turn out to be the CR of the line end.
            if len(data) - start > limit + data.endswith(b"\r"):
                raise LineTooLongError
            return None
        stop = end - 1 if end > start and data[end - 1] == _CR else end
        if stop - start > limit:
            raise LineTooLongError
        line = data[start:stop] if isinstance(data, bytes) else bytes(data[start:stop])
        self._start = self._searched = end + 1
        self.left = len(data) - self._start
        if not self.left:
            # The buffer that was read is not kept: it may hold a password, and lies where a larger one had been.
            self._data = b""
            self._start = self._searched = 0
        return line

    def take_all(self) -> bytes:
        """Everything that has come, whatever it is; nothing is left."""
        data = bytes(self._data[self._start :])
        self._data = b""
        self._start = self._searched = self.left = 0
        return data


class Terminator:
    """Finds the end of one multiline response in whole buffers, also where it lies across several."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        # The status line's own line end: an empty response is CRLF "." CRLF as well.
        self._tail = CRLF

    def find(self, data: bytes) -> int:
        """The offset behind the terminator, or -1 where this buffer does not hold its end."""
        tail = self._tail
        across = (tail + data[:4]).find(TERMINATOR)
        if across >= 0:
            return across + 5 - len(tail)
        found = terminator_in(data)
        if found >= 0:
            return found + 5
        self._tail = data[-4:] if len(data) >= 4 else (tail + data)[-4:]
        return -1


def terminator_in(data: bytes, begin: int = 0) -> int:
    """The offset where the first terminator at or behind ``begin`` begins, or -1.

    Attachments are base64, which has no dots: looking for these first takes a tenth of the time. Where they are as
    frequent as in text, the rest is searched for the whole terminator.
    """
    start = begin
    while (dot := data.find(b".", start)) >= start + _FAR:
        if data.startswith(TERMINATOR, dot - 2):
            return dot - 2
        start = dot + 1
    return -1 if dot < 0 else data.find(TERMINATOR, max(dot - 2, begin))


class LineMeter:
    """Checks the lengths of content lines, by stepping from line end to line end."""

    __slots__ = ("_carried", "_cr")

    def __init__(self) -> None:
        self._carried = 0  # octets since the last line end
        self._cr = False  # the last of them was a CR

    def passing(self, data: bytes, limit: int) -> int:
        """How many octets of this buffer come before a line, its CRLF not counted, has more than ``limit``."""
        size = len(data)
        start = 1 if self._cr and data[:1] == b"\n" else -self._carried
        # The last line end within reach: all lines before it are short enough.
        while (reach := data.rfind(CRLF, max(start, 0), max(start + limit + 2, 0))) >= 0:
            start = reach + 2
        self._carried = size - start
        self._cr = data[-1:] == b"\r" if data else self._cr
        end = start + limit
        if size <= end or (size == end + 1 and self._cr):
            return size
        # A CR right behind the limit might have been a line end.
        return end + data.startswith(b"\r", end) if end >= 0 else 0


_BARE: Final = re.compile(rb"\r(?=[^\n])|(?<!\r)\n")


class EndingsCheck:
    """Lets pass what comes before a CR or LF that is not part of a CRLF, in whole buffers.

    A CR at the end of a buffer is held back until it is known what follows.
    """

    __slots__ = ("_cr",)

    def __init__(self) -> None:
        self._cr = False  # a CR is held back

    def passed(self, data: bytes) -> tuple[bytes, bool]:
        """What passes of this buffer, behind what was held back; False beside it where a bare CR or LF follows."""
        seen = b"\r" + data if self._cr else data
        self._cr = seen.endswith(b"\r")
        pairs = seen.count(CRLF)
        if seen.count(b"\n") == pairs and seen.count(b"\r") == pairs + self._cr:
            return (seen[:-1] if self._cr else seen), True
        bare = _BARE.search(seen)
        assert bare is not None  # noqa: S101 - for mypy: the counts say so
        return seen[: bare.start()], False


class ContentLines:
    """Splits a multiline response into its lines, for callbacks that want to see them."""

    __slots__ = ("_rest", "ended", "too_long")

    def __init__(self) -> None:
        self._rest = bytearray()
        self.ended = False  # the terminator has come
        self.too_long = False  # a line has more octets than the limit

    def feed(self, data: bytes, limit: int) -> bytes:
        """The whole lines that this buffer completes: as on the wire, each with its CRLF, without the terminator.

        Sets ``ended`` when the terminator came; ``left`` then gives what lies behind it. Sets ``too_long`` when a line
        has more than ``limit`` octets; the lines before it are given.
        """
        rest = self._rest
        rest += data
        # What came before is known to hold no line end, so that a trickle is not searched again and again.
        end = rest.rfind(CRLF, max(0, len(rest) - len(data) - 1)) + 2
        lines = bytes(rest[:end]) if end >= 2 else b""
        stop = 0 if lines.startswith(b".\r\n") else terminator_in(lines) + 2
        self.ended = stop != 1  # 1: not found
        if self.ended:
            lines = lines[:stop]
            del rest[: stop + 3]
        else:
            del rest[: len(lines)]
            self.too_long = len(rest) > limit + rest.endswith(b"\r")
        good = LineMeter().passing(lines, limit)
        if good < len(lines):
            self.too_long = True
            lines = lines[: lines.rfind(CRLF, 0, good) + 2] if CRLF in lines[:good] else b""
        return lines

    def left(self) -> bytes:
        """What came behind the terminator."""
        return bytes(self._rest)


def stuffed(line: bytes) -> bytes:
    """A content line as it goes on the wire, without its CRLF (RFC 1939 section 3)."""
    return b"." + line if line.startswith(b".") else line
