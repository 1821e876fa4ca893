"""What becomes of an answer: its status line, checked by RFC 1939 and shown to the policy, and the lines behind it.

Pure. A response callback runs before the built-in check, so that it may repair what the server said wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pop3gw.policy import (
    ANY_KNOWN,
    GREETING,
    INVALID_COMMAND,
    POP3_REQ_ABORT,
    POP3_REQ_ACCEPT,
    POP3_REQ_ACCEPT_MLINE,
    POP3_REQ_REJECT,
    Entry,
    Verdict,
    unfit_content,
    verdict,
)
from pop3gw.proto.asking import PROTOCOL_ERROR, REFUSING, Asking, CallbackError
from pop3gw.proto.capabilities import Capabilities
from pop3gw.proto.content import Content, ContentError, Dropped, SeenLines, WholeBuffers
from pop3gw.proto.requests import Relay, check_texts
from pop3gw.proto.wire import begins_with_counts


# No named tuple: that is made by interpreted code, this one by compiled (docs/performance.md).
class Status:
    """What becomes of a status line.

    ``ok``: what the client gets; ``content``: lines follow from the server, ``dropped`` unless the client wants them.
    ``end``: both sides close behind it. ``refused``: the policy made it an ``-ERR``. ``fault``: the server broke the
    protocol, the text says how. The server had said ``+OK``: ``failed`` by a callback, ``turned`` by what one wanted.
    """

    __slots__ = ("content", "dropped", "end", "failed", "fault", "line", "ok", "refused", "turned")

    def __init__(
        self,
        ok: bool,
        line: bytes,
        content: bool = False,
        dropped: bool = False,
        end: bool = False,
        refused: bool = False,
        fault: str | None = None,
        failed: bool = False,
        turned: bool = False,
    ) -> None:
        self.ok: Final = ok
        self.line: Final = line
        self.content: Final = content
        self.dropped: Final = dropped
        self.end: Final = end
        self.refused: Final = refused
        self.fault: Final = fault
        self.failed: Final = failed
        self.turned: Final = turned


class Answers:
    """Decides on the server's answers in one session."""

    __slots__ = ("_asking",)

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    def greeting(self, relay: Relay, line: bytes) -> Status:
        """What becomes of the server's greeting; ``relay`` is a request for nothing."""
        found = (
            self._asking.entry(GREETING, None) or self._asking.entry(ANY_KNOWN, None) or Entry(Verdict(POP3_REQ_REJECT))
        )
        if found.verdict.action in REFUSING:
            return Status(
                False, f"-ERR {found.verdict.text or INVALID_COMMAND}".encode("utf-8", "surrogateescape"), refused=True
            )
        if found.response_callback is not None:
            relay = Relay(relay.name, relay.argument, relay.row, relay.multiline, relay.asked, found.response_callback)
        return self.status(relay, line)

    def status(self, relay: Relay, line: bytes) -> Status:
        """What becomes of the status line (without its line end) that answers ``relay``."""
        callback = relay.response_callback
        value, _space, text = line.partition(b" ")
        server_ok = value == b"+OK"
        if callback is None:
            return self._checked(relay, value, text, line, server_ok=server_ok)
        asking, policy = self._asking, self._asking.policy
        server_word, server_text = value.decode("utf-8", "surrogateescape"), text.decode("utf-8", "surrogateescape")
        asking.shown.update(
            request_command=relay.name,
            request_param=relay.argument,
            response_value=server_word,
            response_param=server_text,
            response_multiline=relay.multiline and value != b"-ERR",
            response_lines=None,
        )
        refusal = f"-ERR {PROTOCOL_ERROR}".encode()
        content = relay.multiline and server_ok
        # Behind a word that is neither +OK nor -ERR lines may follow: the callback says so, by the word that it sets.
        unsaid = relay.multiline and value not in (b"+OK", b"-ERR")
        try:
            decided = asking.call(callback, server_text)
            check_texts(asking.shown)
            word, said = policy.response_value, policy.response_param
            if decided.action in REFUSING:
                why = said if decided.text is None and said != server_text else decided.text or PROTOCOL_ERROR
                asking.check_status("-ERR", why)
                refusal = (f"-ERR {why}" if why else "-ERR").encode("utf-8", "surrogateescape")
                content = content or (unsaid and word == "+OK")
                end = decided.action == POP3_REQ_ABORT or (unsaid and word not in ("+OK", "-ERR"))
                return Status(False, refusal, content, dropped=content, end=end, refused=True, turned=server_ok)
            if decided.action != POP3_REQ_ACCEPT:
                raise CallbackError(f"it returned {decided.action}, which is no action for an answer")
            if word == server_word and said == server_text:
                return self._checked(relay, value, text, line, server_ok=server_ok)
            asking.check_status(word, said)
            if word == "+OK" and value == b"-ERR" and relay.multiline:
                raise CallbackError("it turned -ERR into +OK, but no lines follow")
        except BaseException as fault:  # noqa: BLE001 - whatever a policy raises, SystemExit too
            asking.failed(callback, f"the answer to {relay.asked}", fault)
            return Status(False, refusal, content, dropped=content, end=unsaid, refused=True, failed=server_ok)
        # A word that was neither +OK nor -ERR means what the callback made of it.
        server_ok = server_ok or (value != b"-ERR" and word == "+OK")
        value, text = word.encode("utf-8", "surrogateescape"), said.encode("utf-8", "surrogateescape")
        made = self._checked(relay, value, text, value + b" " + text if text else value, server_ok=server_ok)
        if made.ok or made.fault is not None or server_word != "+OK":
            return made
        return Status(False, made.line, made.content, made.dropped, refused=True, turned=True)

    def _checked(self, relay: Relay, value: bytes, text: bytes, line: bytes, *, server_ok: bool) -> Status:
        """The built-in check of an answer (RFC 1939 section 3)."""
        ok = value == b"+OK"
        if ok:
            if relay.row.listing and not begins_with_counts(text, 0, len(text)):
                return Status(False, b"", fault=f"the answer to {relay.name} has not the form of RFC 1939")
        elif value != b"-ERR":
            return Status(False, b"", fault="a status that is neither +OK nor -ERR")
        if line.find(b"\r") >= 0 or line.find(b"\0") >= 0:  # ``in`` first takes them for numbers, which is dear
            return Status(False, b"", fault="a bare CR or NUL in a status line")
        if relay.multiline and server_ok:
            return Status(ok, line, True, not ok)
        return Status(ok, line)

    def content(self, relay: Relay, capabilities: Capabilities | None, *, dropped: bool) -> Content:
        """How the lines behind the status line go on; ``capabilities`` where they answer a CAPA."""
        policy = self._asking.policy
        if dropped:
            return Dropped()
        callback = relay.response_callback
        see = None if callback is None else _Showing(self._asking, callback, relay.asked)
        if capabilities is not None:
            return SeenLines(policy, _Listing(capabilities, see), capabilities.closing)
        return WholeBuffers(policy) if see is None else SeenLines(policy, see)


# Classes, not functions within functions: compiled, these hold on to each other and to the session, for the collector.


class _Showing:
    """Shows the lines of an answer to a response callback and keeps what becomes of each.

    It raises ContentError when the callback fails or aborts: a message that lost a line must never look whole.
    """

    __slots__ = ("_asked", "_asking", "_callback")

    def __init__(self, asking: Asking, callback: Callable[..., object], asked: str) -> None:
        """``asked``: the request, for the log."""
        self._asking = asking
        self._callback = callback
        self._asked = asked

    def __call__(self, texts: list[str], kept: list[str | None]) -> None:
        """Append what becomes of these lines, None for one that is dropped."""
        asking = self._asking
        asking.guard.journal = asking.journal
        try:
            asking.guard.call(self._show, (texts, kept), asking.policy.callback_timeout)
        except ContentError:
            raise
        except BaseException as fault:  # noqa: BLE001 - whatever a policy raises, SystemExit too
            asking.failed(self._callback, f"a line of the answer to {self._asked}", fault)
            raise ContentError("a callback failed", by_policy=True) from None

    def _show(self, texts: list[str], kept: list[str | None]) -> None:
        shown, guard, callback = self._asking.shown, self._asking.guard, self._callback
        shown["response_multiline"] = True
        for text in texts:
            guard.calls += 1
            shown["response_param"] = text
            returned = callback(text)
            if guard.interrupted:  # it has swallowed that; the guard says so
                return
            # The usual case first: this loop runs once a line of mail.
            if type(returned) is not int or returned != POP3_REQ_ACCEPT:
                action = verdict(returned).action
                if action == POP3_REQ_ABORT:
                    raise ContentError("a callback aborted it", by_policy=True)
                if action == POP3_REQ_ACCEPT_MLINE:
                    raise CallbackError("it returned POP3_REQ_ACCEPT_MLINE, which is no action for a line")
                if action == POP3_REQ_REJECT:
                    kept.append(None)
                    continue
            line = shown["response_param"]
            if line is not text and (type(line) is not str or unfit_content(line)):
                raise CallbackError("the content line that it set is no text or holds CRLF")
            kept.append(line)


class _Listing:
    """The server's list of capabilities: what a callback has left of it, and of that what works here."""

    __slots__ = ("_capabilities", "_see")

    def __init__(self, capabilities: Capabilities, see: _Showing | None) -> None:
        self._capabilities = capabilities
        self._see = see

    def __call__(self, lines: list[str], kept: list[str | None]) -> None:
        if self._see is None:
            kept += self._capabilities.filtered(lines)
            return
        # One by one: what a callback learns from a line counts for those behind it, however the octets were cut.
        for line in lines:
            shown: list[str | None] = []
            try:
                self._see([line], shown)
            finally:
                kept += self._capabilities.filtered(shown)
