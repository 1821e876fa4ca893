"""Whose turn it is in a session, and how long it may take.

Pure; times are arguments (seconds, monotonic). It must not know what is said: only who is awaited, since when, and
which of the policy's timeouts is running.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pop3gw.policy import AbstractPop3Proxy
from pop3gw.proto.events import Side


class Phase(enum.Enum):
    """What the session waits for."""

    __hash__ = object.__hash__  # members are singletons, and Enum's own is Python code: looked up at each event

    CONNECTION = enum.auto()
    SERVER_HANDSHAKE = enum.auto()
    GREETING = enum.auto()
    SERVER_STLS = enum.auto()  # the server's answer to our STLS
    CLIENT_HANDSHAKE = enum.auto()
    REQUEST = enum.auto()
    STATUS = enum.auto()
    CONTENT = enum.auto()
    CHALLENGE = enum.auto()  # the server's turn in a SASL exchange
    RESPONSE = enum.auto()  # the client's turn in it
    HELD = enum.auto()  # an answer is held back for a while after a failed login
    OVER = enum.auto()


# Where the server owes a line, so that its silence or end is answered with an -ERR.
OWED_BY_SERVER: Final = frozenset(
    {Phase.SERVER_HANDSHAKE, Phase.GREETING, Phase.SERVER_STLS, Phase.STATUS, Phase.CHALLENGE}
)
# Where the client has not heard the greeting.
BEFORE_GREETING: Final = frozenset({Phase.CONNECTION, Phase.SERVER_HANDSHAKE, Phase.GREETING, Phase.SERVER_STLS})
# Where the client's lines are taken.
CLIENT_TURNS: Final = frozenset({Phase.REQUEST, Phase.RESPONSE})

# As plain names: looked at with each event.
REQUEST: Final[Phase] = Phase.REQUEST
RESPONSE: Final[Phase] = Phase.RESPONSE
STATUS: Final[Phase] = Phase.STATUS
CONTENT: Final[Phase] = Phase.CONTENT
CHALLENGE: Final[Phase] = Phase.CHALLENGE

_AWAITED: Final[Mapping[Phase, Side]] = MappingProxyType(
    dict.fromkeys(OWED_BY_SERVER | {Phase.CONTENT}, Side.SERVER)
    | dict.fromkeys(CLIENT_TURNS | {Phase.CLIENT_HANDSHAKE}, Side.CLIENT)
)
_UNTIMED: Final = frozenset({Phase.CONNECTION, Phase.OVER})  # the caller bounds the connection

# Seconds that the answer to the first failed login is held back; doubled for each further one.
_FIRST_DELAY: Final = 0.25
_LONGEST_DELAY: Final = 8.0


class Turns:
    """The phase of a session and its clocks; ``since``: when the awaited side was last heard of, or its turn began."""

    __slots__ = ("_auth_since", "_held_until", "blocked", "phase", "since")

    def __init__(self) -> None:
        self.phase = Phase.CONNECTION
        self.blocked: Side | None = None  # who does not take what it was sent
        self.since = 0.0
        self._auth_since: float | None = None
        self._held_until = 0.0

    def take(self, phase: Phase, now: float) -> None:
        """A new turn begins."""
        self.phase = phase
        self.since = now

    def login_awaited(self, now: float) -> None:
        """``auth_timeout`` runs from now on, until ``login_not_awaited``."""
        self._auth_since = now

    def login_not_awaited(self) -> None:
        """``auth_timeout`` runs no more: the client has logged in, or can't yet."""
        self._auth_since = None

    def hold(self, failures: int, now: float) -> None:
        """Hold the answer to a failed login back, the longer the more of them there were."""
        self.phase = Phase.HELD
        self._held_until = now + min(_FIRST_DELAY * 2.0 ** min(failures - 1, 16), _LONGEST_DELAY)

    def put_off(self, now: float) -> None:
        """The turn's time begins only now, and so does ``auth_timeout`` where it began with this turn."""
        if self._auth_since is not None and self._auth_since == self.since:
            self._auth_since = now
        self.since = now

    def deadline(self, policy: AbstractPop3Proxy) -> float | None:
        """When the turn is over, None for never."""
        if self.phase in _UNTIMED:
            return None
        if self.phase is Phase.HELD:
            return self._held_until
        idle = self.since + policy.timeout / 1000
        auth = self._auth_deadline(policy)
        return idle if auth is None or idle < auth else auth

    def late(self) -> Side:
        """Who is awaited."""
        return self.blocked or _AWAITED[self.phase]

    def limit(self, policy: AbstractPop3Proxy, now: float) -> str:
        """The name of the timeout that has passed."""
        auth = self._auth_deadline(policy)
        return "auth_timeout" if auth is not None and now >= auth else "timeout"

    def _auth_deadline(self, policy: AbstractPop3Proxy) -> float | None:
        return None if self._auth_since is None else self._auth_since + policy.auth_timeout / 1000
