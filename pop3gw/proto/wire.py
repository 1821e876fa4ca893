"""Framing: where a line ends, where a multiline response ends, and dot-stuffing (RFC 1939 section 3).

Pure: bytes in, bytes out. It must not know commands, states or policies. One rule for each kind of text:

- A request or status line ends at LF; one CR before it belongs to the line end.
- A multiline response ends at CRLF "." CRLF and nowhere else; its lines end at CRLF.

Known limit: a line is kept until it is whole, so memory is bounded by the limit that the caller gives.
"""

from __future__ import annotations

TERMINATOR = b"\r\n.\r\n"
CRLF = b"\r\n"


class LineTooLongError(Exception):
    """A line is longer than its limit, whether or not its end has come."""


class Lines:
    """Requests or status lines of one side, collected until they are whole."""

    __slots__ = ("_data", "_searched")

    def __init__(self) -> None:
        self._data = bytearray()
        self._searched = 0

    def __len__(self) -> int:
        return len(self._data)

    def feed(self, data: bytes) -> None:
        """Add what came from the wire."""
        self._data += data

    def starts_with(self, word: bytes) -> bool:
        """Whether the line that comes next starts with this word, in any case."""
        return self._data[: len(word)].upper() == word

    def take(self, limit: int) -> bytes | None:
        """The next line without its line end, or None until it is whole.

        Raises LineTooLongError when it has more than ``limit`` octets, its line end not counted.
        """
        end = self._data.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._data)
            # One octet more may still turn out to be the CR of the line end.
            if self._searched > limit + self._data.endswith(b"\r"):
                raise LineTooLongError
            return None
        length = end - 1 if end and self._data[end - 1] == 0x0D else end
        if length > limit:
            raise LineTooLongError
        line = bytes(self._data[:length])
        del self._data[: end + 1]
        self._searched = 0
        return line

    def take_all(self) -> bytes:
        """Everything that has come, whatever it is; nothing is left."""
        data = bytes(self._data)
        self._data.clear()
        self._searched = 0
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
        found = data.find(TERMINATOR)
        if found >= 0:
            return found + 5
        self._tail = data[-4:] if len(data) >= 4 else (tail + data)[-4:]
        return -1


class LineMeter:
    """Checks the lengths of content lines, by stepping from line end to line end."""

    __slots__ = ("_carried", "_cr")

    def __init__(self) -> None:
        self._carried = 0  # octets since the last line end
        self._cr = False  # the last of them was a CR

    def exceeds(self, data: bytes, limit: int) -> bool:
        """Whether a line, its CRLF not counted, has more than ``limit`` octets up to the end of this buffer."""
        size = len(data)
        if not size:
            return False
        start = -self._carried
        if self._cr and data[0] == 0x0A:
            if self._carried - 1 > limit:
                return True
            start = 1
        while True:
            # The last line end within reach: all lines before it are short enough.
            reach = data.rfind(CRLF, max(start, 0), max(start + limit + 2, 0))
            if reach < 0:
                break
            start = reach + 2
        self._carried = size - start
        self._cr = data[-1] == 0x0D
        return self._carried - self._cr > limit


class EndingsCheck:
    """Finds a CR or LF that is not part of a CRLF, in whole buffers."""

    __slots__ = ("_cr",)

    def __init__(self) -> None:
        self._cr = False  # a CR ended the last buffer

    def broken(self, data: bytes) -> bool:
        """Whether this buffer shows a bare CR or LF; a CR at its end is judged with the next."""
        if not data:
            return False
        if self._cr:
            data = b"\r" + data
        self._cr = data[-1] == 0x0D
        pairs = data.count(CRLF)
        return data.count(b"\n") != pairs or data.count(b"\r") - self._cr != pairs


class ContentLines:
    """Splits a multiline response into its lines, for callbacks that want to see them."""

    __slots__ = ("_rest", "ended")

    def __init__(self) -> None:
        self._rest = bytearray()
        self.ended = False  # the terminator has come

    def feed(self, data: bytes, limit: int) -> bytes:
        """The whole lines that this buffer completes: as on the wire, each with its CRLF, without the terminator.

        Sets ``ended`` when the terminator came; ``left`` then gives what lies behind it. Raises LineTooLongError when a
        line has more than ``limit`` octets.
        """
        rest = self._rest
        rest += data
        # What came before is known to hold no line end, so that a trickle is not searched again and again.
        end = rest.rfind(CRLF, max(0, len(rest) - len(data) - 1)) + 2
        lines = bytes(rest[:end]) if end >= 2 else b""
        if lines.find(CRLF) > limit or len(rest) - len(lines) > limit + 1:
            raise LineTooLongError
        stop = 0 if lines.startswith(b".\r\n") else lines.find(TERMINATOR) + 2
        self.ended = stop != 1  # 1: not found
        if self.ended:
            lines = lines[:stop]
            del rest[: stop + 3]
        else:
            del rest[: len(lines)]
        return lines

    def left(self) -> bytes:
        """What came behind the terminator."""
        return bytes(self._rest)


def stuffed(line: bytes) -> bytes:
    """A content line as it goes on the wire, without its CRLF (RFC 1939 section 3)."""
    return b"." + line if line.startswith(b".") else line


def unstuffed(line: bytes) -> bytes:
    """A content line as it was meant, without its CRLF."""
    return line[1:] if line.startswith(b".") else line
