"""The lines behind a multiline ``+OK``: relayed in whole buffers, shown to a callback line by line, or dropped.

Pure: each kind takes what the server sent and gives what the client gets. None must alter an octet that no callback
changed, and none sends a terminator that the server did not send.

Known limit: where a callback (or the CAPA filter) wants lines, a line over MAX_SEEN_LINE ends the session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from pop3gw.policy import AbstractPop3Proxy
from pop3gw.proto.wire import CRLF, ContentLines, EndingsCheck, LineMeter, Terminator, stuffed

MAX_SEEN_LINE: Final = 1 << 20


class ContentError(Exception):
    """The content can't go on to the client; the text says why.

    ``by_policy``: the server is not to blame. ``passed``: what the client still gets, before both sides close.
    """

    def __init__(self, text: str, *, by_policy: bool = False, passed: bytes = b"") -> None:
        super().__init__(text)
        self.by_policy = by_policy
        self.passed = passed


class Content(Protocol):
    """One multiline answer on its way."""

    ended: bool
    left: bytes  # what came behind the terminator

    def feed(self, data: bytes) -> bytes:
        """What the client gets for this buffer. Raises ContentError."""


class Checks:
    """The line checks that a policy asks for; nothing is looked at where it asks for none."""

    __slots__ = ("_endings", "_limit", "_meter")

    def __init__(self, policy: AbstractPop3Proxy) -> None:
        self._limit = policy.max_response_line_length
        self._meter = None if policy.permit_longline else LineMeter()
        self._endings = EndingsCheck() if policy.strict_line_endings else None

    def passed(self, data: bytes) -> bytes:
        """What may go on now. Raises ContentError, with what comes before the fault."""
        clean = True
        if self._endings is not None:
            data, clean = self._endings.passed(data)
        if self._meter is not None and (within := self._meter.passing(data, self._limit)) < len(data):
            raise ContentError("a content line is longer than max_response_line_length", passed=data[:within])
        if not clean:
            raise ContentError("a bare CR or LF in content (strict_line_endings)", passed=data)
        return data


class WholeBuffers:
    """Content that nobody wants to see in lines: each buffer passes as it came."""

    __slots__ = ("_checks", "_terminator", "ended", "left")

    def __init__(self, policy: AbstractPop3Proxy) -> None:
        self._terminator = Terminator()
        self._checks = None if policy.permit_longline and not policy.strict_line_endings else Checks(policy)
        self.ended = False
        self.left = b""

    def feed(self, data: bytes) -> bytes:
        """The same buffer, up to the terminator and with it, as far as the checks let it pass."""
        end = self._terminator.find(data)
        if end >= 0:
            self.ended = True
            if end < len(data):
                data, self.left = data[:end], data[end:]
        return data if self._checks is None else self._checks.passed(data)


class Dropped:
    """Content whose status line the client did not get."""

    __slots__ = ("_terminator", "ended", "left")

    def __init__(self) -> None:
        self._terminator = Terminator()
        self.ended = False
        self.left = b""

    def feed(self, data: bytes) -> bytes:
        """Nothing."""
        end = self._terminator.find(data)
        if end >= 0:
            self.ended, self.left = True, data[end:]
        return b""


See = Callable[[list[str], list[str | None]], None]


class SeenLines:
    """Content shown line by line, dot-unstuffed, to a function that says what becomes of it.

    ``see(lines, kept)`` takes the texts of some lines and appends, for each, the text that the client gets or None for
    a line that is dropped; lines kept as they were pass bit for bit. It may raise ContentError; what it has appended
    before still goes out. ``closing`` gives content of our own, before the terminator.
    """

    __slots__ = ("_checks", "_closing", "_lines", "_see", "ended", "left")

    def __init__(self, policy: AbstractPop3Proxy, see: See, closing: Callable[[], bytes] = bytes) -> None:
        self._lines = ContentLines()
        self._checks = Checks(policy)
        self._see = see
        self._closing = closing
        self.ended = False
        self.left = b""

    def feed(self, data: bytes) -> bytes:
        """The lines that are whole, as they may go on."""
        lines = self._lines.feed(data, MAX_SEEN_LINE)
        out = self._checked(lines) if lines else b""
        if self._lines.too_long:
            raise ContentError(f"a line of over {MAX_SEEN_LINE} octets, and a callback wants to see it", passed=out)
        if self._lines.ended:
            self.ended, self.left = True, self._lines.left()
            out += self._closing() + b".\r\n"
        return out

    def _checked(self, lines: bytes) -> bytes:
        """These lines as they may go on: shown first, so that what is wrong with one may be repaired, then checked."""
        try:
            out = self._seen(lines)
        except ContentError as fault:
            fault.passed = self._good(fault.passed)[0]
            raise
        good, why = self._good(out)
        if why is not None:
            begins, ends = len(good), out.find(CRLF, len(good)) + 2
            by_policy = CRLF + out[begins:ends] not in CRLF + lines  # it is no line of the server's
            raise ContentError(why, by_policy=by_policy, passed=good)
        return out

    def _good(self, lines: bytes) -> tuple[bytes, str | None]:
        """The whole lines before the first that may not pass, and why that one may not; all of them, and None."""
        try:
            self._checks.passed(lines)  # all of them: they are whole, so nothing is held back
        except ContentError as fault:
            return fault.passed[: fault.passed.rfind(CRLF) + 2] if CRLF in fault.passed else b"", str(fault)
        return lines, None

    def _seen(self, lines: bytes) -> bytes:
        wire = lines.decode("utf-8", "surrogateescape").split("\r\n")
        wire.pop()  # what split gives behind the last CRLF
        texts = [line[1:] if line[:1] == "." else line for line in wire] if b"." in lines else wire
        kept: list[str | None] = []
        try:
            self._see(texts, kept)
        except ContentError as fault:
            fault.passed = _on_wire(wire, texts, kept)
            raise
        return lines if kept == texts else _on_wire(wire, texts, kept)


def _on_wire(wire: list[str], texts: list[str], kept: list[str | None]) -> bytes:
    """The lines that were kept: as they came where they are what they were."""
    out = []
    for raw, old, new in zip(wire, texts, kept, strict=False):
        if new is not None:
            out.append(raw.encode("utf-8", "surrogateescape") + CRLF if new == old else content_line(new))
    return b"".join(out)


def content_line(text: str) -> bytes:
    """A line of content, given by a policy, as it goes on the wire."""
    return stuffed(str.encode(text, "utf-8", "surrogateescape")) + CRLF  # whatever a class derived from str does
