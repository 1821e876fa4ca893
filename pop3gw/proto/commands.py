"""The command table: one row a command. State checks, argument checks, answers and redaction all read it.

Pure data, and the argument checks that its rows name. It must not know policies or sessions. To add a command, add a
row (and, if the policies shall accept it, its name to ``Pop3Proxy``).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol


class State(enum.StrEnum):
    """The states of RFC 1939 section 3, AUTHORIZATION split by what was said in it."""

    __hash__ = object.__hash__  # members are singletons, and Enum's own is Python code: looked up at each request

    AUTHORIZATION = "AUTHORIZATION"
    USER_GIVEN = "USER"
    SASL = "SASL"
    TRANSACTION = "TRANSACTION"
    UPDATE = "UPDATE"


class Shape(enum.Enum):
    """What a ``+OK`` answer looks like; an ``-ERR`` is always one line."""

    LINE = enum.auto()
    MULTILINE = enum.auto()
    MULTILINE_BARE = enum.auto()  # multiline without an argument, one line with one
    LOCAL = enum.auto()  # answered by the gateway itself, never relayed


# Looked up at each request, where the way over the class costs more than the question.
_MULTILINE: Final = Shape.MULTILINE
_MULTILINE_BARE: Final = Shape.MULTILINE_BARE


class Secret(enum.Enum):
    """How much of the argument no log may show."""

    NOTHING = enum.auto()
    ALL = enum.auto()
    BEHIND_NAME = enum.auto()
    BEHIND_MECHANISM = enum.auto()


class Way(enum.StrEnum):
    """By what a client logs in."""

    USER = "user"
    APOP = "apop"
    SASL = "sasl"


class Summed(enum.Enum):
    """What the summary of a session tells of ``+OK`` answers."""

    RETRIEVED = enum.auto()
    DELETED = enum.auto()
    RESET = enum.auto()  # nothing is deleted any more


class Limits(Protocol):
    """The limits that argument checks need; a policy has them. Octets."""

    @property
    def max_username_length(self) -> int: ...
    @property
    def max_password_length(self) -> int: ...


class BadArgumentError(ValueError):
    """An argument that the command's row does not allow; the text says why and holds nothing of the argument."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    ``argument`` gives the argument as it is relayed, or raises BadArgumentError. ``on_ok``, ``on_err``: the states
    after the answer, None where it changes nothing. ``way``: it logs in by this, an ``-ERR`` is a failed login.
    ``names_user``: the argument tells the user's name. ``unsettles``: refused before the login, it leaves the session
    in AUTHORIZATION, also where it was not legal. ``long``: its line may have ``max_authline_length``. ``listing``:
    behind its ``+OK`` are two counts (RFC 1939 section 5). ``summed``: what a summary tells of its ``+OK``.
    ``filtered``: its answer never passes as it came.
    """

    name: str
    argument: Callable[[str, Limits], str]
    states: frozenset[State]
    shape: Shape
    on_ok: State | None = None
    on_err: State | None = None
    secret: Secret = Secret.NOTHING
    way: Way | None = None
    names_user: bool = False
    unsettles: bool = False
    long: bool = False
    listing: bool = False
    summed: Summed | None = None
    filtered: bool = False

    def multiline(self, argument: str) -> bool:
        """Whether ``+OK`` to the command with this argument is multiline."""
        return self.shape is _MULTILINE or (self.shape is _MULTILINE_BARE and not argument)

    def identifies(self) -> bool:
        """Whether it says who the client is, or proves it."""
        return self.way is not None or self.names_user

    def unsettled(self, state: State) -> bool:
        """Whether it leaves the session in AUTHORIZATION where it is refused in this state, for whatever reason."""
        return self.unsettles and state in BEFORE_LOGIN

    def takes(self, argument: str, limits: Limits) -> bool:
        """Whether the argument is relayed as it is."""
        try:
            return self.argument(argument, limits) == argument
        except BadArgumentError:
            return False


def octets(text: str) -> int:
    """The length of a text on the wire."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


def _dropped(_argument: str, _limits: Limits) -> str:
    return ""


def _verbatim(argument: str, _limits: Limits) -> str:
    return argument


def _username(argument: str, limits: Limits) -> str:
    if not argument:
        raise BadArgumentError("the name is missing")
    if octets(argument) > limits.max_username_length:
        raise BadArgumentError("the name is longer than max_username_length")
    return argument


def _password(argument: str, limits: Limits) -> str:
    if not argument:
        raise BadArgumentError("the password is missing")
    if octets(argument) > limits.max_password_length:
        raise BadArgumentError("the password is longer than max_password_length")
    return argument


_APOP: Final = re.compile(r"([^ ]+) [0-9a-fA-F]{32}")


def _name_and_digest(argument: str, limits: Limits) -> str:
    match = _APOP.fullmatch(argument)
    if match is None:
        raise BadArgumentError("a name and a digest of 32 hex digits are needed")
    _username(match[1], limits)
    return argument


# At most ten digits: message numbers and line counts fit in 32 bits. [0-9], since \d takes other scripts' digits.
_NUMBER: Final = re.compile(r"(?=0*[1-9])[0-9]{1,10}")
_NUMBER_AND_COUNT: Final = re.compile(r"(?=0*[1-9])[0-9]{1,10} [0-9]{1,10}")


def _number(argument: str, _limits: Limits) -> str:
    if _NUMBER.fullmatch(argument) is None:
        raise BadArgumentError("a message number is needed")
    return argument


def _optional_number(argument: str, limits: Limits) -> str:
    return _number(argument, limits) if argument else argument


def _number_and_count(argument: str, _limits: Limits) -> str:
    if _NUMBER_AND_COUNT.fullmatch(argument) is None:
        raise BadArgumentError("a message number and a count of lines are needed")
    return argument


# RFC 4422 section 3.1 (mechanism names), RFC 5034 section 4 (initial response, "=" when it is empty).
_MECHANISM: Final = re.compile(r"[A-Za-z0-9_-]{1,20}(?: (?:=|[A-Za-z0-9+/]+={0,2}))?")


def _mechanism(argument: str, _limits: Limits) -> str:
    if argument and _MECHANISM.fullmatch(argument) is None:
        raise BadArgumentError("a SASL mechanism and, if any, an initial response in base64 are needed")
    return argument


# Of these a log may show the name: any other word in its place may be a response, or a password.
MECHANISMS: Final = frozenset(
    [
        *("ANONYMOUS", "CRAM-MD5", "DIGEST-MD5", "EXTERNAL", "GS2-KRB5", "GSS-SPNEGO", "GSSAPI", "KERBEROS_V4"),
        *("LOGIN", "NTLM", "OAUTHBEARER", "OTP", "PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256"),
        *("SCRAM-SHA-256-PLUS", "SCRAM-SHA-512", "SCRAM-SHA-512-PLUS", "SKEY", "XOAUTH", "XOAUTH2"),
    ]
)

_LANGUAGE: Final = re.compile(r"\*|[A-Za-z0-9]{1,8}(?:-[A-Za-z0-9]{1,8})*")


def _language(argument: str, _limits: Limits) -> str:
    if argument and _LANGUAGE.fullmatch(argument) is None:
        raise BadArgumentError("a language tag or * is needed")
    return argument


_INITIAL: Final = frozenset({State.AUTHORIZATION})
_NAMED: Final = frozenset({State.USER_GIVEN})
BEFORE_LOGIN: Final = frozenset({State.AUTHORIZATION, State.USER_GIVEN})
_LOGGED_IN: Final = frozenset({State.TRANSACTION})
_ANYTIME: Final = BEFORE_LOGIN | _LOGGED_IN

_AUTH: Final = State.AUTHORIZATION
_GIVEN: Final = State.USER_GIVEN
_TRANS: Final = State.TRANSACTION
_UPDATE: Final = State.UPDATE

_ROWS: Final = (
    # RFC 1939
    Command("USER", _username, _INITIAL, Shape.LINE, _GIVEN, _AUTH, names_user=True, unsettles=True),
    Command("PASS", _password, _NAMED, Shape.LINE, _TRANS, _AUTH, Secret.ALL, Way.USER, unsettles=True),
    Command(
        *("APOP", _name_and_digest, BEFORE_LOGIN, Shape.LINE, _TRANS, _AUTH, Secret.BEHIND_NAME, Way.APOP),
        names_user=True,
        unsettles=True,
    ),
    Command("STAT", _dropped, _LOGGED_IN, Shape.LINE, listing=True),
    Command("LIST", _optional_number, _LOGGED_IN, Shape.MULTILINE_BARE),
    Command("RETR", _number, _LOGGED_IN, Shape.MULTILINE, summed=Summed.RETRIEVED),
    Command("DELE", _number, _LOGGED_IN, Shape.LINE, summed=Summed.DELETED),
    Command("NOOP", _dropped, _LOGGED_IN, Shape.LINE),
    Command("RSET", _dropped, _LOGGED_IN, Shape.LINE, summed=Summed.RESET),
    Command("TOP", _number_and_count, _LOGGED_IN, Shape.MULTILINE),
    Command("UIDL", _optional_number, _LOGGED_IN, Shape.MULTILINE_BARE),
    Command("QUIT", _dropped, _ANYTIME, Shape.LINE, _UPDATE, _UPDATE),
    # RFC 1460, withdrawn, still sent by old clients
    Command("LAST", _dropped, _LOGGED_IN, Shape.LINE),
    # RFC 2449
    Command("CAPA", _dropped, _ANYTIME, Shape.MULTILINE, filtered=True),
    # RFC 5034
    Command(
        *("AUTH", _mechanism, _INITIAL, Shape.MULTILINE_BARE, _TRANS, _AUTH, Secret.BEHIND_MECHANISM, Way.SASL),
        long=True,
    ),
    # RFC 2595
    Command("STLS", _dropped, _INITIAL, Shape.LOCAL),
    # RFC 6856
    Command("UTF8", _dropped, BEFORE_LOGIN, Shape.LINE),
    Command("LANG", _language, _ANYTIME, Shape.MULTILINE_BARE),
)

COMMANDS: Final[Mapping[str, Command]] = MappingProxyType({row.name: row for row in _ROWS})

# How lines begin that may have ``max_authline_length``: which limit a line has is asked before it is whole.
LONG_LINES: Final = tuple(f"{row.name} ".encode("ascii") for row in _ROWS if row.long)


def unknown(name: str, *, multiline: bool) -> Command:
    """The row of a command that has none: legal in every state, its argument verbatim, its argument secret."""
    shape = Shape.MULTILINE if multiline else Shape.LINE
    return Command(name, _verbatim, frozenset(State), shape, secret=Secret.ALL)


def redacted(name: str, argument: str, secret: Secret) -> str:
    """A request as a log may show it, if its row takes the argument."""
    if not argument:
        return name
    if secret is Secret.NOTHING:
        return f"{name} {argument}"
    first, space, _rest = argument.partition(" ")
    if secret is Secret.ALL or (secret is Secret.BEHIND_MECHANISM and first.upper() not in MECHANISMS):
        return f"{name} [secret]"
    return f"{name} {first} [secret]" if space else f"{name} {first}"
