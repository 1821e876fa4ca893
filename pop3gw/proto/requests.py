"""What becomes of a request: refused, answered here, or relayed as what the policy made of it.

Pure. What is legal, in which state and with which argument, is decided here, by the command table, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from pop3gw.policy import (
    COMMAND_NAME,
    INVALID_COMMAND,
    POP3_REQ_ABORT,
    POP3_REQ_ACCEPT,
    POP3_REQ_ACCEPT_MLINE,
    AbstractPop3Proxy,
    Entry,
    Verdict,
    unfit,
    unfit_content,
)
from pop3gw.proto.asking import REFUSING, Asking, CallbackError
from pop3gw.proto.commands import (
    COMMANDS,
    MECHANISMS,
    BadArgumentError,
    Command,
    Secret,
    Shape,
    State,
    octets,
    redacted,
    unknown,
)
from pop3gw.proto.content import Checks, ContentError, content_line
from pop3gw.proto.sasl import Exchange
from pop3gw.proto.upgrade import ClientTls

# A word that is no more than a keyword can be: anything else may be a secret that was sent at the wrong time.
_KEYWORD: Final = re.compile(r"[A-Z]{1,4}")

_TEXTS: Final = ("request_command", "request_param", "response_value", "response_param")


def check_texts(shown: dict[str, Any]) -> None:
    """Raise where a callback has set what is no text past the checks: its own code would run later, unguarded."""
    for name in _TEXTS:
        if type(shown.get(name, "")) is not str:
            raise CallbackError(f"the {name} that it set is no text")


def nameable(name: str, policy: AbstractPop3Proxy) -> bool:
    """Whether a log may show this command, ``name`` in upper case."""
    return name in COMMANDS or name in policy.request or _KEYWORD.fullmatch(name) is not None


def _upper(name: str) -> str:
    """A command in upper case. Of ASCII only: str.upper() would make an S of U+017F."""
    return name.upper() if name.isascii() else name


def _secrets(row: Command, argument: str) -> list[str]:
    """The texts in the argument that no log may show, each as it may be said without the rest."""
    if row.secret is Secret.NOTHING:
        return []
    if row.secret is Secret.ALL:
        return [argument, *argument.split()]
    first, _space, rest = argument.partition(" ")
    if row.secret is Secret.BEHIND_NAME:
        return [rest]
    secrets = Exchange(first).hear(rest) if rest else []
    return secrets if first.upper() in MECHANISMS else [first, *secrets]


class Answer(NamedTuple):
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


class Local:
    """A command that the gateway carries out itself (STLS)."""

    __slots__ = ()


# No named tuple: that is made by interpreted code, this one by compiled (docs/performance.md).
class Relay:
    """The request goes to the server as this; its answer is decided by ``response_callback`` where there is one.

    ``asked`` is the command that the client sent.
    """

    __slots__ = ("argument", "asked", "multiline", "name", "response_callback", "row")

    def __init__(
        self,
        name: str,
        argument: str,
        row: Command,
        multiline: bool,
        asked: str,
        response_callback: Callable[..., object] | None = None,
    ) -> None:
        self.name: Final = name
        self.argument: Final = argument
        self.row: Final = row
        self.multiline: Final = multiline
        self.asked: Final = asked
        self.response_callback: Final = response_callback

    def line(self) -> bytes:
        """The request on the wire, without its line end."""
        text = f"{self.name} {self.argument}" if self.argument else self.name
        return text.encode("utf-8", "surrogateescape")

    def shown(self) -> str:
        """The request as a log may show it."""
        return redacted(self.name, self.argument, self.row.secret)


class Requests:
    """Decides on the requests of one session."""

    __slots__ = ("_asking", "_client_tls")

    def __init__(self, asking: Asking, client_tls: ClientTls) -> None:
        self._asking = asking
        self._client_tls = client_tls

    def judge(self, name: str, argument: str, state: State) -> Answer | Local | Relay:
        """What becomes of a request, ``name`` in upper case."""
        asking = self._asking
        row = COMMANDS.get(name)
        if row is None:
            found = asking.entry_of(name)
            if found is None and not asking.policy.permit_unknown_command:
                return Answer(False, INVALID_COMMAND, end=True, why="the command is unknown")
            row = unknown(name, multiline=found is not None and found.verdict.action == POP3_REQ_ACCEPT_MLINE)
            found = found or Entry(Verdict(POP3_REQ_ACCEPT))
            if found.request_callback is not None or found.response_callback is not None or asking.journal.conversation:
                self._hide(row, argument)
        else:
            found = asking.entry(name, row)
        local = row.shape is Shape.LOCAL
        if local:
            found = found or Entry(Verdict(POP3_REQ_ACCEPT))
        if state not in row.states:
            settled = row if row.unsettled(state) else None
            return Answer(False, INVALID_COMMAND, row=settled, why=f"it is not allowed in {state}")
        fault = None
        try:
            argument = row.argument(argument, asking.policy)
            if row.identifies():
                self._note_names(row, argument)
        except BadArgumentError as bad:
            fault = str(bad)
        if found is None:
            return Answer(False, INVALID_COMMAND, row=row, why="the policy has no entry for it")
        (action, text), request_callback, response_callback = found
        if action in REFUSING:
            text = text or INVALID_COMMAND
            return Answer(False, text, end=action == POP3_REQ_ABORT, row=row, why="the policy refuses it")
        if fault is not None:
            return Answer(False, INVALID_COMMAND, row=row, why=fault)
        if local and not self._client_tls.possible():
            return Local()  # no callback is asked: one that accepts STLS may count on TLS, or on the session's end
        if request_callback is not None:
            return self._ask(found, row, argument, state)
        if local:
            return Local()
        return Relay(name, argument, row, row.multiline(argument), name, response_callback)

    def _note_names(self, row: Command, argument: str) -> None:
        """Keep the name and the password as the client gave them for this login, and the secrets out of the log."""
        self._hide(row, argument)
        shown = self._asking.shown
        if row.secret is Secret.ALL:
            shown["password"] = argument
            if (stamp := shown.get("timestamp")) is not None:
                self._asking.journal.secret(f"{stamp}{argument}")  # whose MD5 an APOP sends
            return
        if not argument:  # AUTH, which only lists mechanisms
            return
        shown["password"] = None
        first, _space, rest = argument.partition(" ")
        if row.names_user:
            shown["username"] = argument if row.secret is Secret.NOTHING else first
        else:
            exchange = Exchange(first)
            if rest:
                heard = exchange.hear(rest)
                if heard and (stamp := shown.get("timestamp")) is not None:
                    self._asking.journal.secret(f"{stamp}{heard[-1]}")  # as above
            shown["username"] = exchange.username()

    def _hide(self, row: Command, argument: str) -> None:
        """Keep the secrets of a request out of the log, whoever says them."""
        journal = self._asking.journal
        for text in _secrets(row, argument):
            journal.secret(text)
        if not nameable(row.name, self._asking.policy):
            journal.secret(row.name)

    def _hide_unused(self, asked: Command, argument: str) -> None:
        """Keep out of the log what a callback that failed or refused had made of the request, wherever it put it."""
        policy, journal = self._asking.policy, self._asking.journal
        command, wanted = self._made("request_command"), self._made("request_param")
        if (command, wanted) == (asked.name, argument):
            return
        name, *behind = command.split() or [""]
        row = COMMANDS.get(_upper(name)) or unknown(_upper(name), multiline=False)
        if asked.secret is row.secret is Secret.NOTHING:
            return
        if not nameable(row.name, policy):
            journal.secret(name)
            journal.secret(row.name)
        for text in (" ".join(behind), wanted):
            for part in (text, *text.split(), *_secrets(asked, text), *_secrets(row, text)):
                journal.secret(part)

    def _made(self, name: str) -> str:
        """What a callback put there, whatever it is: it may be what made the callback fail."""
        asking = self._asking
        made = asking.shown.get(name, "")
        if type(made) is str:
            return made
        try:
            text = asking.guard.call(str, (made,), asking.policy.callback_timeout)
            return str.__str__(text) if isinstance(text, str) else ""
        except BaseException:  # noqa: BLE001 - whatever the code of what stands there raises
            return ""

    def _ask(self, found: Entry, row: Command, argument: str, state: State) -> Answer | Local | Relay:
        callback = found.request_callback
        assert callback is not None  # noqa: S101 - for mypy; the only caller looked
        self._asking.shown.update(
            request_command=row.name,
            request_param=argument,
            response_value="-ERR",
            response_param=INVALID_COMMAND,
            response_multiline=row.multiline(argument),
            response_lines=None,
        )
        try:
            decided = self._asking.call(callback, row.name)
            check_texts(self._asking.shown)
            if decided.action in REFUSING:
                self._hide_unused(row, argument)
                return self._answered(decided, row, argument)
            return self._accepted(decided, found, row, argument, state)
        except BaseException as fault:  # noqa: BLE001 - whatever a policy raises, SystemExit too
            self._hide_unused(row, argument)
            self._asking.failed(callback, f"the request {row.name}", fault)
        return Answer(False, INVALID_COMMAND, row=row, why="its callback failed")

    def _answered(self, decided: Verdict, row: Command, argument: str) -> Answer:
        policy = self._asking.policy
        end = decided.action == POP3_REQ_ABORT
        value, text = policy.response_value, policy.response_param
        if decided.text is not None:
            value, text = "-ERR", decided.text or INVALID_COMMAND
        elif end:
            value = "-ERR"  # as where a response callback aborts
        self._asking.check_status(value, text)
        # AUTH without an argument only lists mechanisms: no login, no change of state.
        settled = None if row.way is not None and not argument else row
        if value == "-ERR":
            attempt = row.way is not None and settled is not None
            return Answer(False, text, end=end, row=settled, why="a callback refused it", attempt=attempt)
        if row.shape is Shape.LOCAL:
            raise CallbackError(f"it answered +OK to {row.name}, which the gateway alone answers")
        lines = policy.response_lines
        known = row.name in COMMANDS
        if row.multiline(argument) if known else lines is not None or policy.response_multiline:
            return Answer(True, text, self._content(lines), row=settled)
        if lines is not None:
            raise CallbackError(f"it set response_lines, but the answer to {row.name} is one line")
        return Answer(True, text, row=settled)

    def _content(self, lines: list[Any] | None) -> bytes:
        if lines is None:
            raise CallbackError("+OK to a multiline request needs response_lines")
        for line in lines:
            if not isinstance(line, str) or unfit_content(line):
                raise CallbackError(f"response_lines holds {line!r}; texts without CRLF are needed")
        content = b"".join(map(content_line, lines))
        try:
            Checks(self._asking.policy).passed(content)
        except ContentError as fault:
            raise CallbackError(f"response_lines: {fault}") from None
        return content

    def _accepted(self, decided: Verdict, found: Entry, row: Command, argument: str, state: State) -> Local | Relay:
        policy = self._asking.policy
        name, wanted, asked = _upper(policy.request_command), policy.request_param, row.name
        told = policy.response_multiline and not row.multiline(argument)  # by the callback, which saw it False
        if (name, wanted) == (row.name, argument):
            if row.shape is Shape.LOCAL:
                return Local()
        else:
            if row.shape is Shape.LOCAL:
                raise CallbackError(f"it made another request of {row.name}, which the gateway alone answers")
            made, wanted = self._rewritten(name, wanted, state)
            if made.identifies() and not row.identifies():
                self._asking.shown.update(username=None, password=None)  # those of an earlier login are not this one's
            row = made
        multiline = row.multiline(wanted)
        if name not in COMMANDS:
            multiline = told or decided.action == POP3_REQ_ACCEPT_MLINE
        return Relay(name, wanted, row, multiline, asked, found.response_callback)

    def _rewritten(self, name: str, argument: str, state: State) -> tuple[Command, str]:
        """The row and argument of what a callback made of a request."""
        if unfit(argument):
            raise CallbackError("the request that it set holds CR, LF or NUL")
        if not COMMAND_NAME.fullmatch(name):
            raise CallbackError("the request_command that it set is no command")
        row = COMMANDS.get(name) or unknown(name, multiline=False)
        if row.shape is Shape.LOCAL:
            raise CallbackError(f"it made the request a {name}, which is never relayed")
        if state not in row.states:
            raise CallbackError(f"it made the request a {name}, which is not allowed in {state}")
        policy = self._asking.policy
        try:
            argument = row.argument(argument, policy)
        except BadArgumentError as bad:
            raise CallbackError(f"it made the request a {name}: {bad}") from None
        limit = policy.max_authline_length if row.long else policy.max_request_line_length
        if octets(name) + (1 + octets(argument) if argument else 0) > limit:
            raise CallbackError(f"it made the request a {name} longer than its limit")
        self._hide(row, argument)
        return row, argument
