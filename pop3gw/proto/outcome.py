"""What the gateway says by itself in a session, how a login goes, and how the session ends.

Pure. The lower part of ``session``: it must not know who said what before, only what follows from it.
"""

from __future__ import annotations

from typing import Final

from pop3gw.policy import INVALID_COMMAND, AbstractPop3Proxy
from pop3gw.proto.asking import PROTOCOL_ERROR
from pop3gw.proto.commands import Command, State, Summed
from pop3gw.proto.counts import MESSAGES, Counters
from pop3gw.proto.events import Ending, Journal, Side
from pop3gw.proto.turns import Phase, Turns
from pop3gw.proto.wire import CRLF

_NOT_STARTED: Final = AbstractPop3Proxy()
_MESSAGES: Final = MESSAGES.at
_RETRIEVED: Final = Summed.RETRIEVED
_DELETED: Final = Summed.DELETED


class Outcome:
    """What a session has come to. The public attributes are its caller's to read."""

    __slots__ = (
        "_held",
        "_held_ends",
        "_journal",
        "_told",
        "_turns",
        "changed",
        "counters",
        "deleted",
        "ended_by",
        "ending",
        "login",
        "logins_failed",
        "moved",
        "much_awaited",
        "over",
        "policy",
        "retrieved",
        "state",
        "tls_wanted",
        "to_client",
        "to_server",
    )

    def __init__(self, journal: Journal, counters: Counters) -> None:
        self.to_client: list[bytes] = []
        self.to_server: list[bytes] = []
        # Set here, reset by the caller once it has looked:
        self.changed = True  # it may be over, or other sides are read, until another time, or something else is wanted
        self.moved = True  # another state, or user
        self.tls_wanted: Side | None = None  # with whom, once what was said to that side is delivered
        self.much_awaited = False  # the server was asked for more than a line
        self.over = False
        self.ending: Ending | None = None
        self.ended_by: Side | None = None
        self.state = State.AUTHORIZATION
        self.login: str | None = None  # how the client logged in
        self.logins_failed = 0
        self.retrieved = 0
        self.deleted = 0
        self.counters = counters  # of ``counts``
        self.policy: AbstractPop3Proxy = _NOT_STARTED
        self._journal = journal
        self._told = journal.conversation  # whether the journal is told each line
        self._turns = Turns()
        self._held = b""  # the answer to a failed login
        self._held_ends = False  # the session ends behind it

    # -- what the gateway says

    def _say(self, status: str) -> None:
        """A status line of the gateway's own."""
        if self._told:
            self._journal.debug(f"to client: {status}")
        self.to_client.append(status.encode("utf-8", "surrogateescape") + CRLF)

    def _refused(self, what: str, why: str) -> None:
        self._journal.info(f"refused {what}: {why}")

    def _refuse_service(self, text: str, ending: Ending) -> None:
        self._say(f"-ERR {text}")
        self._end(ending, Side.SERVER if ending is Ending.UNREACHABLE else Side.GATEWAY)

    def _abort(self) -> None:
        """The client did what ends a session."""
        self._say(f"-ERR {INVALID_COMMAND}")
        self._end(Ending.ABORTED, Side.CLIENT)

    def _server_fault(self, what: str) -> None:
        """The server broke the protocol. One -ERR, but never into a multiline answer."""
        self._journal.error(f"error in the server's protocol: {what}")
        if self._turns.phase is not Phase.CONTENT:
            self._say(f"-ERR {PROTOCOL_ERROR}")
        self._end(Ending.PROTOCOL, Side.SERVER)

    # -- states and logins

    def _logged_in(self, way: str) -> None:
        self.login = way
        self._turns.login_not_awaited()

    def _sum(self, summed: Summed) -> None:
        """What a summary tells of the answers."""
        if summed is _RETRIEVED:
            self.retrieved += 1
            self.counters[_MESSAGES] += 1
        elif summed is _DELETED:
            self.deleted += 1
        else:
            self.deleted = 0

    def _settle(self, row: Command, *, ok: bool) -> None:
        state = row.on_ok if ok else row.on_err
        if state is not None:
            self.state = state
            self.moved = True

    def _login_failed(self, out: bytes, now: float, *, end: bool) -> None:
        """Hold the answer back for a while that grows with each failure."""
        self.logins_failed += 1
        self._held = out
        self._held_ends = end
        self._turns.hold(self.logins_failed, now)
        self.changed = True

    def _end(self, ending: Ending, by: Side) -> None:
        self.over = self.changed = True
        self.ending, self.ended_by = ending, by
        self._turns.phase = Phase.OVER
        self.to_server.clear()
