"""Asks a policy: runs its callbacks for a bounded time, and reads its request hash.

Pure, but for what the policy's own code does. Whatever a callback does wrong is logged here with its traceback, known
secrets redacted by the journal; the callers of ``call`` decide what follows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from pop3gw.backtrace import backtrace, bare
from pop3gw.policy import (
    ANY_KNOWN,
    BARE,
    GREETING,
    POP3_REQ_ABORT,
    POP3_REQ_REJECT,
    SETTABLE,
    AbstractPop3Proxy,
    Entry,
    Verdict,
    attribute_faults,
    entry,
    innermost,
    unfit,
    verdict,
)
from pop3gw.proto.commands import COMMANDS, Command, Shape, octets
from pop3gw.proto.events import Journal

PROTOCOL_ERROR: Final = "Error in protocol"
# Compiled, what is imported is looked up each time, and a constant is not.
_ANY_KNOWN: Final = ANY_KNOWN
_BARE: Final = BARE
_LOCAL: Final = Shape.LOCAL
_SETTABLE: Final = SETTABLE
_LIMITS: Final = SETTABLE - {"request"}  # which few policies set
_OWN: Final = 2  # attributes that each instance of a policy has: ``request`` and ``session``
REFUSING: Final = (POP3_REQ_REJECT, POP3_REQ_ABORT)


class Guard(Protocol):
    """Calls a policy's code for at most so many milliseconds. Raises what that raises, and its own when time is up.

    ``calls`` is counted up by who makes many short calls within one ``call``: each then has the whole time.
    ``interrupted``: how often what is called now was; who makes many calls makes none after that.
    """

    calls: int
    interrupted: int
    journal: Journal | None  # whose callback is called: set before ``call``

    def call(self, function: Callable[..., object], arguments: tuple[object, ...], milliseconds: int) -> object: ...


class Unguarded:
    """A guard without a clock, for where no time passes."""

    calls = 0
    interrupted = 0
    journal: Journal | None = None

    def call(self, function: Callable[..., object], arguments: tuple[object, ...], _milliseconds: int) -> object:
        """The plain call."""
        return function(*arguments)


def guarded_backtrace(fault: BaseException, guard: Guard, milliseconds: int) -> str:
    """The traceback of what a policy's code raised. To show it runs such code too (``__str__``): so long at most."""
    try:
        return str(guard.call(backtrace, (fault,), milliseconds))
    except BaseException:  # noqa: BLE001 - its time is up, which ``backtrace`` may have taken for the policy's own
        return bare(fault)


def _named(callback: object) -> str:
    """The name of a callback; that of its class where it has none."""
    try:
        name = getattr(innermost(callback), "__qualname__", None)
    except BaseException:  # noqa: BLE001 - whatever the callback's own code raises
        name = None
    return name if isinstance(name, str) else type(callback).__name__


class CallbackError(Exception):
    """What a callback set or returned can't be used; the text says why."""


class Asking:
    """One session's policy, and how it is asked.

    ``shown`` is where the policy sees the request or answer being decided: its attributes, set without the checks that
    are made for the policy's author.
    """

    __slots__ = ("failures", "guard", "heard", "journal", "policy", "shown")

    def __init__(self, policy: AbstractPop3Proxy, guard: Guard, journal: Journal) -> None:
        self.policy = policy
        self.guard = guard
        self.journal = journal
        self.shown: dict[str, Any] = policy.__dict__
        self.heard = False  # the policy was asked: whoever follows that resets it
        self.failures: list[str] = []  # the names of callbacks that failed; who counts them empties it

    def configure(self) -> bool:
        """Run ``config()``; False when it failed, which is logged."""
        try:
            self.guard.call(self.policy.config, (), self.policy.callback_timeout)
            shown = self.shown
            few = len(shown) == _OWN and "session" in shown  # mostly
            usual = type(shown.get("request")) is dict and (few or _LIMITS.isdisjoint(shown))
            if not usual and (faults := attribute_faults(self.policy, sorted(_SETTABLE.intersection(shown)))):
                raise CallbackError("; ".join(faults))
        except BaseException as fault:  # noqa: BLE001 - whatever a policy raises, SystemExit too
            self.failed(self.policy.config, "config()", fault)
            return False
        return True

    def entry(self, key: str, row: Command | None) -> Entry | None:
        """The entry that decides on a command, or None. A malformed one is logged and refuses."""
        hashed = self.policy.request
        if key not in hashed:
            if row is None or row.shape is _LOCAL or _ANY_KNOWN not in hashed:
                return None
            key = _ANY_KNOWN
        value = hashed[key]
        if (row is not None or key == GREETING) and type(value) is int and (bare_entry := _BARE.get(value)) is not None:
            return bare_entry
        try:
            return entry(key, value, self.policy.max_response_line_length)
        except ValueError as fault:
            self.journal.error(f"{type(self.policy).__name__}: request[{key!r}]: {fault}; refused")
            return Entry(Verdict(POP3_REQ_REJECT))

    def entry_of(self, name: str) -> Entry | None:
        """The entry that decides on a request with this name; the keys that are no commands decide on none."""
        return None if name in (GREETING, _ANY_KNOWN) else self.entry(name, COMMANDS.get(name))

    def permits(self, name: str) -> bool:
        """Whether the policy may let this command be used."""
        found = self.entry_of(name)
        if found is None:
            return name not in COMMANDS and self.policy.permit_unknown_command
        return found.verdict.action not in REFUSING

    def handles(self, name: str) -> bool:
        """Whether a request callback decides on this command."""
        found = self.entry_of(name)
        return found is not None and found.request_callback is not None

    def check_status(self, value: str, text: str) -> None:
        """Raise CallbackError where what a callback has set can't be a status line."""
        if value not in ("+OK", "-ERR"):
            raise CallbackError(f"response_value is {value!r}; '+OK' or '-ERR' is needed")
        if unfit(text):
            raise CallbackError("the status line that it set holds CR, LF or NUL")
        if octets(value) + 1 + octets(text) > self.policy.max_response_line_length:
            raise CallbackError("the status line that it set is longer than max_response_line_length")

    def call(self, callback: Callable[..., object], argument: str) -> Verdict:
        """What a callback decides, called with this. Raises what it raises, and CallbackError for what is no action."""
        self.heard = True
        self.guard.journal = self.journal
        returned = self.guard.call(callback, (argument,), self.policy.callback_timeout)
        try:
            return verdict(returned)
        except ValueError as fault:
            raise CallbackError(str(fault)) from None

    def failed(self, callback: Callable[..., object], what: str, fault: BaseException) -> None:
        """Log that a callback has failed, with its traceback, and note its name; ``what`` it was asked about."""
        name = _named(callback)
        self.failures.append(name.rpartition(".")[2])
        own = isinstance(fault, CallbackError)
        why = str(fault) if own else guarded_backtrace(fault, self.guard, self.policy.callback_timeout)
        self.journal.error(f"{type(self.policy).__name__}: callback {name} failed on {what}: {why}")
