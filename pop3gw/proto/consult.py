"""Asks the policy: what becomes of a request, of a status line, of a line of content.

Pure: it runs the policy's callbacks (through a guard that bounds their time) and returns decisions; the session carries
them out. What is legal is decided here and nowhere else. It must not know phases, buffers or sockets.

Whatever a callback does wrong refuses that request or answer and is logged with its traceback; nothing that it raises
gets out of here.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from pop3gw.policy import (
    ANY_KNOWN,
    GREETING,
    INVALID_COMMAND,
    POP3_REQ_ABORT,
    POP3_REQ_ACCEPT,
    POP3_REQ_ACCEPT_MLINE,
    POP3_REQ_REJECT,
    AbstractPop3Proxy,
    Entry,
    Verdict,
    entry,
    unfit,
    verdict,
)
from pop3gw.proto.commands import COMMANDS, BadArgumentError, Command, Secret, Shape, State, octets, redacted, unknown
from pop3gw.proto.content import ContentError, content_line
from pop3gw.proto.events import Journal

PROTOCOL_ERROR = "Error in protocol"

_REFUSING = (POP3_REQ_REJECT, POP3_REQ_ABORT)


class Guard(Protocol):
    """Calls a policy's code for at most so many milliseconds. Raises what that raises, and its own when time is up.

    ``calls`` is counted up by who makes many short calls within one ``call``: each then has the whole time.
    """

    calls: int

    def call(self, function: Callable[..., object], arguments: tuple[object, ...], milliseconds: int) -> object: ...


class Unguarded:
    """A guard without a clock, for where no time passes."""

    calls = 0

    def call(self, function: Callable[..., object], arguments: tuple[object, ...], _milliseconds: int) -> object:
        """The plain call."""
        return function(*arguments)


@dataclass(frozen=True, slots=True)
class Answer:
    """The gateway answers by itself, nothing reaches the server.

    ``row`` is the command whose state change follows, None where none does; ``why`` is for the log, None where the
    policy only answered in the server's place. ``attempt``: it counts as a failed login if it is ``-ERR``.
    """

    ok: bool
    text: str
    lines: bytes | None = None
    end: bool = False
    row: Command | None = None
    why: str | None = None
    attempt: bool = False

    def status(self) -> str:
        """The status line, without its line end."""
        word = "+OK" if self.ok else "-ERR"
        return f"{word} {self.text}" if self.text else word


@dataclass(frozen=True, slots=True)
class Local:
    """A command that the gateway carries out itself (STLS)."""

    row: Command


@dataclass(frozen=True, slots=True)
class Relay:
    """The request goes to the server as this; its answer is decided by ``response_callback`` where there is one."""

    name: str
    argument: str
    row: Command
    multiline: bool
    asked: str  # the command that the client sent
    response_callback: Callable[..., object] | None = None

    def line(self) -> bytes:
        """The request on the wire, without its line end."""
        text = f"{self.name} {self.argument}" if self.argument else self.name
        return text.encode("utf-8", "surrogateescape")

    def shown(self) -> str:
        """The request as a log may show it."""
        return redacted(self.name, self.argument, self.row.secret)


@dataclass(frozen=True, slots=True)
class Status:
    """What becomes of a status line.

    ``ok``: what the client gets; ``content``: lines follow from the server, ``dropped`` unless the client wants them.
    ``end``: both sides close behind it. ``refused``: the policy made it an ``-ERR``. ``fault``: the server broke the
    protocol, the text says how.
    """

    ok: bool
    line: bytes
    content: bool = False
    dropped: bool = False
    end: bool = False
    refused: bool = False
    fault: str | None = None


class CallbackError(Exception):
    """What a callback set or returned can't be used; the text says why."""


@dataclass(slots=True)
class Consultation:
    """One session's policy, asked."""

    policy: AbstractPop3Proxy
    guard: Guard
    journal: Journal
    _shown: dict[str, object] = field(init=False)  # the policy's attributes: set without the checks made for its author

    def __post_init__(self) -> None:
        self._shown = self.policy.__dict__

    # -- requests

    def configure(self) -> bool:
        """Run ``config()``; False when it failed, which is logged."""
        try:
            self.guard.call(self.policy.config, (), self.policy.callback_timeout)
        except BaseException as fault:  # noqa: BLE001 - whatever a policy raises, SystemExit too
            self._failed(self.policy.config, "config()", fault)
            return False
        return True

    def entry(self, key: str, row: Command | None) -> Entry | None:
        """The entry that decides on a command, or None. A malformed one is logged and refuses."""
        hashed = self.policy.request
        value = hashed.get(key)
        if value is None and row is not None and row.shape is not Shape.LOCAL:
            value = hashed.get(ANY_KNOWN)
        if value is None:
            return None
        try:
            return entry(key, value)
        except ValueError as fault:
            self.journal.error(f"{type(self.policy).__name__}: request[{key!r}]: {fault}; refused")
            return Entry(Verdict(POP3_REQ_REJECT))

    def permits(self, name: str) -> bool:
        """Whether the policy may let this command be used."""
        row = COMMANDS.get(name)
        found = self.entry(name, row)
        if found is None:
            return row is None and self.policy.permit_unknown_command
        return found.verdict.action not in _REFUSING

    def handles(self, name: str) -> bool:
        """Whether a request callback decides on this command."""
        found = self.entry(name, COMMANDS.get(name))
        return found is not None and found.request_callback is not None

    def judge(self, name: str, argument: str, state: State) -> Answer | Local | Relay:
        """What becomes of a request, ``name`` in upper case."""
        row = COMMANDS.get(name)
        found = self.entry(name, row)
        if row is None:
            if found is None and not self.policy.permit_unknown_command:
                return Answer(False, INVALID_COMMAND, end=True, why="the command is unknown")
            row = unknown(name, multiline=found is not None and found.verdict.action == POP3_REQ_ACCEPT_MLINE)
            found = found or Entry(Verdict(POP3_REQ_ACCEPT))
        elif row.shape is Shape.LOCAL:
            found = found or Entry(Verdict(POP3_REQ_ACCEPT))
        if state not in row.states:
            return Answer(False, INVALID_COMMAND, row=row if state in _UNSETTLED else None, why=f"not in {state.value}")
        fault = None
        try:
            argument = row.argument(argument, self.policy)
            self._note_names(row, argument)
        except BadArgumentError as bad:
            fault = str(bad)
        if found is None:
            return Answer(False, INVALID_COMMAND, row=row, why="the policy has no entry for it")
        action = found.verdict.action
        if action in _REFUSING:
            text = found.verdict.text or INVALID_COMMAND
            return Answer(False, text, end=action == POP3_REQ_ABORT, row=row, why="the policy refuses it")
        if fault is not None:
            return Answer(False, INVALID_COMMAND, row=row, why=fault)
        if found.request_callback is not None:
            return self._ask(found, row, argument, state)
        if row.shape is Shape.LOCAL:
            return Local(row)
        return Relay(name, argument, row, row.multiline(argument), name, found.response_callback)

    def _note_names(self, row: Command, argument: str) -> None:
        """Keep the name and the password as the client gave them, and the secrets out of the log."""
        if row.secret is Secret.ALL and row.login:
            self._shown["password"] = argument
            self.journal.secret(argument)
        elif row.name == "USER":
            self._shown["username"] = argument
        elif row.name == "APOP":
            self._shown["username"], _, digest = argument.partition(" ")
            self.journal.secret(digest)

    def _ask(self, found: Entry, row: Command, argument: str, state: State) -> Answer | Local | Relay:
        callback = found.request_callback
        assert callback is not None  # noqa: S101 - for mypy; the only caller looked
        self._shown.update(
            request_command=row.name,
            request_param=argument,
            response_value="-ERR",
            response_param=INVALID_COMMAND,
            response_multiline=row.multiline(argument),
            response_lines=None,
        )
        try:
            decided = self._call(callback, row.name)
            if decided.action in _REFUSING:
                return self._answered(decided, row, argument)
            return self._accepted(decided, found, row, argument, state)
        except BaseException as fault:  # noqa: BLE001 - whatever a policy raises, SystemExit too
            self._failed(callback, f"the request {row.name}", fault)
        return Answer(False, INVALID_COMMAND, row=row, why="its callback failed")

    def _answered(self, decided: Verdict, row: Command, argument: str) -> Answer:
        policy = self.policy
        end = decided.action == POP3_REQ_ABORT
        value, text = policy.response_value, policy.response_param
        if decided.text is not None:
            value, text = "-ERR", decided.text
        self._check_status(value, text)
        # AUTH without an argument only lists mechanisms: no login, no change of state.
        settled = None if row.login and not argument else row
        if value == "-ERR":
            attempt = row.login and settled is not None
            return Answer(False, text, end=end, row=settled, why="a callback refused it", attempt=attempt)
        lines = policy.response_lines
        known = row.name in COMMANDS
        if row.multiline(argument) if known else lines is not None:
            return Answer(True, text, self._content(lines), end=end, row=settled)
        if lines is not None:
            raise CallbackError(f"it set response_lines, but the answer to {row.name} is one line")
        return Answer(True, text, end=end, row=settled)

    def _content(self, lines: list[str] | None) -> bytes:
        if lines is None:
            raise CallbackError("+OK to a multiline request needs response_lines")
        for line in lines:
            if not isinstance(line, str) or "\r\n" in line:
                raise CallbackError(f"response_lines holds {line!r}; texts without CRLF are needed")
        return b"".join(map(content_line, lines))

    def _check_status(self, value: str, text: str) -> None:
        if value not in ("+OK", "-ERR"):
            raise CallbackError(f"response_value is {value!r}; '+OK' or '-ERR' is needed")
        if unfit(text):
            raise CallbackError("the status line that it set holds CR, LF or NUL")
        if octets(value) + 1 + octets(text) > self.policy.max_response_line_length:
            raise CallbackError("the status line that it set is longer than max_response_line_length")

    def _accepted(self, decided: Verdict, found: Entry, row: Command, argument: str, state: State) -> Local | Relay:
        policy = self.policy
        name, wanted, asked = policy.request_command.upper(), policy.request_param, row.name
        if (name, wanted) == (row.name, argument):
            if row.shape is Shape.LOCAL:
                return Local(row)
        else:
            row, wanted = self._rewritten(name, wanted, state)
        multiline = row.multiline(wanted)
        if name not in COMMANDS:
            multiline = multiline or policy.response_multiline or decided.action == POP3_REQ_ACCEPT_MLINE
        return Relay(name, wanted, row, multiline, asked, found.response_callback)

    def _rewritten(self, name: str, argument: str, state: State) -> tuple[Command, str]:
        """The row and argument of what a callback made of a request."""
        if unfit(name) or unfit(argument):
            raise CallbackError("the request that it set holds CR, LF or NUL")
        if not name or " " in name:
            raise CallbackError(f"request_command is {name!r}, which is no command")
        row = COMMANDS.get(name) or unknown(name, multiline=False)
        if row.shape is Shape.LOCAL:
            raise CallbackError(f"it made the request a {name}, which is never relayed")
        if state not in row.states:
            raise CallbackError(f"it made the request a {name}, which is not allowed in {state.value}")
        try:
            argument = row.argument(argument, self.policy)
        except BadArgumentError as bad:
            raise CallbackError(f"it made the request a {name}: {bad}") from None
        limit = self.policy.max_authline_length if name == "AUTH" else self.policy.max_request_line_length
        if octets(name) + (1 + octets(argument) if argument else 0) > limit:
            raise CallbackError(f"it made the request a {name} longer than its limit")
        if row.secret is not Secret.NOTHING and row.login:
            self.journal.secret(argument.rpartition(" ")[2])
        return row, argument

    # -- answers

    def greeting(self, relay: Relay, line: bytes) -> Status:
        """What becomes of the server's greeting; ``relay`` is a request for nothing."""
        found = self.entry(GREETING, None) or self.entry(ANY_KNOWN, None) or Entry(Verdict(POP3_REQ_REJECT))
        if found.verdict.action in _REFUSING:
            return Status(False, f"-ERR {found.verdict.text or INVALID_COMMAND}".encode(), refused=True)
        return self.status(replace(relay, response_callback=found.response_callback), line)

    def status(self, relay: Relay, line: bytes) -> Status:
        """What becomes of the status line (without its line end) that answers ``relay``."""
        callback = relay.response_callback
        value, _space, text = line.partition(b" ")
        server_ok = value == b"+OK"
        if callback is None:
            return self._checked(relay, value, text, line, server_ok=server_ok)
        expected = relay.multiline and value != b"-ERR"
        self._shown.update(
            request_command=relay.name,
            request_param=relay.argument,
            response_value=value.decode("utf-8", "surrogateescape"),
            response_param=text.decode("utf-8", "surrogateescape"),
            response_multiline=expected,
            response_lines=None,
        )
        seen = (self.policy.response_value, self.policy.response_param)
        refusal = f"-ERR {PROTOCOL_ERROR}".encode()
        content = relay.multiline and server_ok
        try:
            decided = self._call(callback, self.policy.response_param)
            now = (self.policy.response_value, self.policy.response_param)
            if decided.action in _REFUSING:
                said = decided.text if decided.text is not None else now[1] if now[1] != seen[1] else PROTOCOL_ERROR
                self._check_status("-ERR", said)
                refusal = f"-ERR {said}".encode("utf-8", "surrogateescape")
                end = decided.action == POP3_REQ_ABORT
                return Status(False, refusal, content, dropped=content, end=end, refused=True)
            if decided.action != POP3_REQ_ACCEPT:
                raise CallbackError(f"it returned {decided.action}, which is no action for an answer")
            if now == seen:
                return self._checked(relay, value, text, line, server_ok=server_ok)
            self._check_status(*now)
            if now[0] == "+OK" and value == b"-ERR" and relay.multiline:
                raise CallbackError("it turned -ERR into +OK, but no lines follow")
        except BaseException as fault:  # noqa: BLE001 - whatever a policy raises, SystemExit too
            self._failed(callback, f"the answer to {relay.asked}", fault)
            return Status(False, refusal, content, dropped=content, refused=True)
        # A word that was neither +OK nor -ERR means what the callback made of it.
        server_ok = server_ok or (value != b"-ERR" and now[0] == "+OK")
        repaired_value, repaired = (part.encode("utf-8", "surrogateescape") for part in now)
        whole = repaired_value + b" " + repaired if repaired else repaired_value
        return self._checked(relay, repaired_value, repaired, whole, server_ok=server_ok)

    def _checked(self, relay: Relay, value: bytes, text: bytes, line: bytes, *, server_ok: bool) -> Status:
        """The built-in check of an answer (RFC 1939 section 3)."""
        content = relay.multiline and server_ok
        if value == b"+OK":
            form = relay.row.status
            if form is not None and form.fullmatch(text) is None:
                return Status(False, b"", fault=f"the answer to {relay.name} has not the form of RFC 1939")
        elif value != b"-ERR":
            return Status(False, b"", fault="a status that is neither +OK nor -ERR")
        if b"\r" in line or b"\0" in line:
            return Status(False, b"", fault="a bare CR or NUL in a status line")
        ok = value == b"+OK"
        return Status(ok, line, content, dropped=content and not ok)

    def seen_lines(self, callback: Callable[..., object], asked: str) -> Callable[[list[str]], list[str | None]]:
        """A function that shows lines of an answer to the callback and gives what becomes of each.

        The function raises ContentError when the callback fails or aborts: a message that lost a line must never look
        whole.
        """
        shown: dict[str, Any] = self._shown
        guard = self.guard

        def show(texts: list[str], kept: list[str | None]) -> None:
            shown["response_multiline"] = True
            for text in texts:
                guard.calls += 1
                shown["response_param"] = text
                returned = callback(text)
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
                if line is not text and (not isinstance(line, str) or "\r\n" in line):
                    raise CallbackError("the content line that it set is no text or holds CRLF")
                kept.append(line)

        def guarded(texts: list[str]) -> list[str | None]:
            kept: list[str | None] = []
            try:
                guard.call(show, (texts, kept), self.policy.callback_timeout)
            except ContentError:
                raise
            except BaseException as fault:  # noqa: BLE001 - whatever a policy raises, SystemExit too
                self._failed(callback, f"a line of the answer to {asked}", fault)
                raise ContentError("a callback failed", by_policy=True) from None
            return kept

        return guarded

    # -- callbacks

    def _call(self, callback: Callable[..., object], argument: str) -> Verdict:
        returned = self.guard.call(callback, (argument,), self.policy.callback_timeout)
        try:
            return verdict(returned)
        except ValueError as fault:
            raise CallbackError(str(fault)) from None

    def _failed(self, callback: Callable[..., object], what: str, fault: BaseException) -> None:
        name = getattr(callback, "__qualname__", repr(callback))
        own = isinstance(fault, CallbackError)
        told = str(fault) if own else "".join(traceback.format_exception(fault))
        self.journal.error(f"{type(self.policy).__name__}: callback {name} failed on {what}: {told}")


# Where a refused USER, PASS or APOP leaves the session in AUTHORIZATION.
_UNSETTLED = frozenset({State.AUTHORIZATION, State.USER_GIVEN})
