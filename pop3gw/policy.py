"""The policy language: what a policy file imports with ``from pop3gw.policy import *``.

A policy is a class; one instance of it serves one session. This module holds its constants, its two base classes, and
the meaning of an entry of the request hash. It must not know sockets, sessions or the command table: ``proto.asking``
calls the callbacks, its callers act on what they decide.

Known limit: attributes are checked when they are set, entries of ``request`` when the policy is (``checking``) and when
a request needs them, since a callback may change them at any time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any, ClassVar, NamedTuple, Self

POP3_REQ_ACCEPT = 1
POP3_REQ_REJECT = 3
POP3_REQ_ABORT = 4
POP3_REQ_POLICY = 6
POP3_REQ_ACCEPT_MLINE = 100

POP3_RSP_ACCEPT = 1
POP3_RSP_REJECT = 3
POP3_RSP_ABORT = 4

__all__ = [
    "POP3_REQ_ABORT",
    "POP3_REQ_ACCEPT",
    "POP3_REQ_ACCEPT_MLINE",
    "POP3_REQ_POLICY",
    "POP3_REQ_REJECT",
    "POP3_RSP_ABORT",
    "POP3_RSP_ACCEPT",
    "POP3_RSP_REJECT",
    "AbstractPop3Proxy",
    "Pop3Proxy",
]

GREETING = "GREETING"
ANY_KNOWN = "*"
INVALID_COMMAND = "Invalid command."

_NAMES = {
    POP3_REQ_ACCEPT: "ACCEPT",
    POP3_REQ_ACCEPT_MLINE: "ACCEPT_MLINE",
    POP3_REQ_REJECT: "REJECT",
    POP3_REQ_ABORT: "ABORT",
    POP3_REQ_POLICY: "POLICY",
}
COMMAND_NAME = re.compile(r"[!-`{-~]+")  # printable ASCII without the lower-case letters
# What UTF-8 with surrogateescape can't put on the wire: a surrogate that stands for no octet.
_NO_OCTET = "\ud800-\udc7f\udd00-\udfff"
_UNFIT = re.compile(f"[\r\n\0{_NO_OCTET}]")
_UNFIT_CONTENT = re.compile(f"\r\n|[{_NO_OCTET}]")


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """One side's TLS as it was negotiated: protocol version (``"TLSv1.3"``) and cipher name."""

    version: str
    cipher: str


class SessionFacts(NamedTuple):
    """What a policy may know of its session (``self.session``).

    Addresses are numeric text, ``None`` where not known: in ``pop3gw --check``, and the server's before it is
    connected. ``began`` is POSIX time in seconds. ``client_certificate`` is the verified subject (RFC 4514 text).
    """

    id: str = "-"
    client_address: str | None = None
    client_port: int | None = None
    server_address: str | None = None
    server_port: int | None = None
    began: float = 0.0
    client_tls: TlsFacts | None = None
    server_tls: TlsFacts | None = None
    client_certificate: str | None = None


@dataclass(frozen=True, slots=True)
class _Whole:
    """An int attribute and its range."""

    low: int
    high: int

    def fault(self, value: object) -> Exception | None:
        if type(value) is not int:
            return TypeError(f"an int is needed, not {value!r}")
        if not self.low <= value <= self.high:
            return ValueError(f"{value} is out of range ({self.low} to {self.high})")
        return None


@dataclass(frozen=True, slots=True)
class _Typed:
    """An attribute of one type."""

    kind: type
    optional: bool = False

    def fault(self, value: object) -> Exception | None:
        if type(value) is self.kind or (self.optional and value is None):
            return None
        return TypeError(f"a {self.kind.__name__} is needed, not {value!r}")


class _ReadOnly:
    """An attribute that only the gateway sets."""

    def fault(self, _value: object) -> Exception | None:
        return AttributeError("can't be set by a policy")


_DAY_MS = 24 * 3600 * 1000
_LINE_MAX = 1 << 20

_ATTRIBUTES: dict[str, _Whole | _Typed | _ReadOnly] = {
    "request": _Typed(dict),
    "request_command": _Typed(str),
    "request_param": _Typed(str),
    "response_value": _Typed(str),
    "response_param": _Typed(str),
    "response_multiline": _Typed(bool),
    "response_lines": _Typed(list, optional=True),
    "username": _ReadOnly(),
    "password": _ReadOnly(),
    "timestamp": _ReadOnly(),
    "session_timestamp": _ReadOnly(),
    "session": _ReadOnly(),
    "timeout": _Whole(1, _DAY_MS),
    "auth_timeout": _Whole(1, _DAY_MS),
    "callback_timeout": _Whole(1, _DAY_MS),
    "max_auth_failures": _Whole(1, 1_000_000),
    "max_request_line_length": _Whole(1, _LINE_MAX),
    "max_response_line_length": _Whole(1, _LINE_MAX),
    "max_username_length": _Whole(0, _LINE_MAX),
    "max_password_length": _Whole(0, _LINE_MAX),
    "max_authline_count": _Whole(0, 1_000_000),
    "max_authline_length": _Whole(0, _LINE_MAX),
    "permit_unknown_command": _Typed(bool),
    "permit_longline": _Typed(bool),
    "strict_line_endings": _Typed(bool),
    "tls_required": _Typed(bool),
}
_READ_ONLY = frozenset(name for name, kind in _ATTRIBUTES.items() if isinstance(kind, _ReadOnly))
SETTABLE = frozenset(_ATTRIBUTES) - _READ_ONLY


class AbstractPop3Proxy:
    """The base of every policy; by itself it accepts nothing.

    ``config()`` is overridden to fill ``self.request`` and to set limits; it runs once a session, before the server
    is connected. Setting an attribute of the language to a wrong type raises ``TypeError``, out of its range
    ``ValueError``, one that only the gateway sets ``AttributeError``; any other name is the policy's own. The
    attributes are those of pop3gw-policy(7).
    """

    request: dict[str, Any]
    request_command: str = ""
    request_param: str = ""
    response_value: str = ""
    response_param: str = ""
    response_multiline: bool = False
    response_lines: list[str] | None = None
    username: str | None = None
    password: str | None = None
    timestamp: str | None = None
    session: SessionFacts = SessionFacts()
    timeout: int = 600_000
    auth_timeout: int = 60_000
    callback_timeout: int = 10_000
    max_auth_failures: int = 3
    max_request_line_length: int = 255
    max_response_line_length: int = 512
    max_username_length: int = 250
    max_password_length: int = 250
    max_authline_count: int = 4
    max_authline_length: int = 12_288
    permit_unknown_command: bool = False
    permit_longline: bool = True
    strict_line_endings: bool = False
    tls_required: bool = False

    # In __new__, so that a policy with an __init__ of its own need not call ours.
    def __new__(cls) -> Self:
        policy = super().__new__(cls)
        policy.__dict__["request"] = {}
        return policy

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        for name, kind in _ATTRIBUTES.items():
            # Its own or inherited, from a class that is no policy too.
            giver = next((base for base in cls.__mro__ if name in base.__dict__), AbstractPop3Proxy)
            if giver is AbstractPop3Proxy:
                continue
            if name == "request":  # no session would look at it
                raise TypeError(f"{giver.__name__}.request: each session has its own; fill self.request in config()")
            if fault := kind.fault(giver.__dict__[name]):
                raise type(fault)(f"{giver.__name__}.{name}: {fault}")

    def __setattr__(self, name: str, value: object) -> None:
        kind = _ATTRIBUTES.get(name)
        if kind is None:  # the policy's own, which may be a property
            if name in ("__dict__", "__class__"):  # in which the gateway shows it what is decided, and by which it asks
                raise AttributeError(f"{type(self).__name__}.{name}: can't be set by a policy")
            super().__setattr__(name, value)
            return
        if isinstance(value, str):  # of a class derived from it, an enumeration say: the text that it is
            value = str.__str__(value)
        if fault := kind.fault(value):
            raise type(fault)(f"{type(self).__name__}.{name}: {fault}")
        self.__dict__[name] = value

    def __delattr__(self, name: str) -> None:
        if name in _READ_ONLY or name == "request":
            raise AttributeError(f"{type(self).__name__}.{name}: can't be deleted by a policy")
        super().__delattr__(name)

    @property
    def session_timestamp(self) -> str | None:
        """The server's APOP timestamp, as ``timestamp``."""
        return self.timestamp

    def config(self) -> None:
        """Set up this session's policy."""


class Pop3Proxy(AbstractPop3Proxy):
    """Accepts the commands of RFC 1939 and the common extensions, refuses every other known one.

    AUTH is left out: a policy that wants SASL adds it. STLS needs no entry, the gateway itself answers it.
    """

    _USUAL: ClassVar = dict.fromkeys(
        f"{GREETING} USER PASS APOP STAT LIST RETR DELE NOOP RSET QUIT TOP UIDL LAST CAPA UTF8 LANG".split(),
        POP3_REQ_ACCEPT,
    ) | {ANY_KNOWN: POP3_REQ_REJECT}

    def config(self) -> None:
        """Fill the request hash with the usual commands."""
        self.request.update(Pop3Proxy._USUAL)


class Verdict(NamedTuple):
    """What was decided of one request or answer: an action, and the text of a refusal where one was given."""

    action: int
    text: str | None = None


class Entry(NamedTuple):
    """One value of the request hash, understood."""

    verdict: Verdict
    request_callback: Callable[..., object] | None = None
    response_callback: Callable[..., object] | None = None


# What most entries are, understood: looked up at each request.
BARE = {action: Entry(Verdict(action)) for action in _NAMES if action != POP3_REQ_POLICY}


def entry(key: object, value: object, longest: int) -> Entry:
    """The meaning of ``request[key] = value``; a status line may have ``longest`` octets.

    Raises ValueError, with the reason, for what has none.
    """
    if not isinstance(key, str) or not COMMAND_NAME.fullmatch(key):
        raise ValueError("the key must be a command in upper case")
    parts = value if isinstance(value, tuple) else (value,)
    if not parts or type(parts[0]) is not int or parts[0] not in _NAMES:
        raise ValueError(f"{value!r} is no action; one of POP3_REQ_{', POP3_REQ_'.join(_NAMES.values())} is needed")
    if parts[0] == POP3_REQ_POLICY:
        return _policy_entry(key, parts)
    if key == GREETING and parts[0] == POP3_REQ_ACCEPT_MLINE:
        raise ValueError("a greeting is one line: ACCEPT_MLINE can't be used")
    if len(parts) == 1:
        return BARE[parts[0]]
    name = _NAMES[parts[0]]
    if parts[0] not in (POP3_REQ_REJECT, POP3_REQ_ABORT):
        raise ValueError(f"{name} takes nothing more")
    if len(parts) > 2 or not isinstance(parts[1], str) or unfit(parts[1]):
        raise ValueError(f"{name} takes one text without CR, LF and NUL")
    text = str.__str__(parts[1])  # of a class derived from str, an enumeration say: the text that it is
    if len("-ERR ") + len(text.encode("utf-8", "surrogateescape")) > longest:
        raise ValueError("its text is too long for max_response_line_length")
    return Entry(Verdict(parts[0], text))


def _policy_entry(key: str, parts: tuple[Any, ...]) -> Entry:
    callbacks = parts[1:]
    if not 1 <= len(callbacks) <= 2:
        raise ValueError("POLICY takes a request callback and, if wanted, a response callback")
    if not all(callback is None or callable(callback) for callback in callbacks):
        raise ValueError("POLICY takes functions (or None)")
    request_callback = callbacks[0]
    response_callback = callbacks[1] if len(callbacks) == 2 else None
    if request_callback is None and response_callback is None:
        raise ValueError("POLICY without a callback")
    if key == GREETING and request_callback is not None:
        raise ValueError("a greeting has no request: (POP3_REQ_POLICY, None, response_callback) is needed")
    return Entry(Verdict(POP3_REQ_POLICY), request_callback, response_callback)


def verdict(returned: object) -> Verdict:
    """What a callback decided by returning this: an action, or a tuple (action, text).

    Raises ValueError, with the reason, for what is no action (``None`` and bools included).
    """
    parts = returned if isinstance(returned, tuple) else (returned,)
    if len(parts) not in (1, 2) or type(parts[0]) is not int or parts[0] not in _NAMES or parts[0] == POP3_REQ_POLICY:
        raise ValueError(f"it returned {returned!r}, which is no action")
    if len(parts) == 1:
        return Verdict(parts[0])
    if not isinstance(parts[1], str) or unfit(parts[1]):
        raise ValueError(f"it returned {returned!r}: a text without CR, LF and NUL is needed")
    return Verdict(parts[0], str.__str__(parts[1]))


def unfit(text: str) -> bool:
    """Whether the text can't be part of a request or status line: it holds CR, LF, NUL or what is no octet."""
    return _UNFIT.search(text) is not None


def unfit_content(text: str) -> bool:
    """Whether the text can't be a line of content: it holds CRLF or what is no octet."""
    return _UNFIT_CONTENT.search(text) is not None


def instance(policy_class: type[AbstractPop3Proxy], facts: SessionFacts) -> AbstractPop3Proxy:
    """A policy for one session, not configured yet. Raises what the class' own ``__init__`` raises."""
    policy: object = policy_class()
    if not isinstance(policy, AbstractPop3Proxy):  # its __new__, or its metaclass, has made something else
        raise TypeError(f"{policy_class.__name__}() gives {policy!r}, which is no policy")
    policy.__dict__["session"] = facts
    return policy


def attribute_faults(policy: AbstractPop3Proxy, names: Iterable[str]) -> list[str]:
    """What is wrong with these attributes, as ``Class.name: reason``: those that were not set the usual way."""
    faults = []
    for name in names:
        if fault := _ATTRIBUTES[name].fault(getattr(policy, name)):
            faults.append(f"{type(policy).__name__}.{name}: {fault}")
    return faults


def innermost(function: Any) -> Any:
    """What a bound method, or a partial, calls in the end."""
    while isinstance(function, MethodType | partial):
        function = function.__func__ if isinstance(function, MethodType) else function.func
    return function
