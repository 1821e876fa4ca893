"""What the server says: its greeting, the answers to requests and their content.

Pure. The part of ``session`` above ``clientside``: it takes what the server owes, one line or the lines behind it, by
the phase; what becomes of an answer is decided in ``answers``.
"""

from __future__ import annotations

from typing import Final

from pop3gw.proto.answers import Answers
from pop3gw.proto.capabilities import Capabilities
from pop3gw.proto.clientside import UNASKED, ClientSide
from pop3gw.proto.commands import State
from pop3gw.proto.content import Content, ContentError, Dropped
from pop3gw.proto.counts import ANSWERS_REFUSED, Counters
from pop3gw.proto.events import Ending, Journal, Side
from pop3gw.proto.turns import CHALLENGE, CONTENT, OWED_BY_SERVER, REQUEST, RESPONSE, Phase
from pop3gw.proto.upgrade import SessionRules
from pop3gw.proto.wire import CRLF, LineTooLongError, timestamp
from pop3gw.values import Tls

# RFC 2449 section 8.1.1, RFC 3206 section 4: the server or the gateway is at fault, trying again may help.
NOT_AVAILABLE: Final = "[SYS/TEMP] Server not available"

_NONE: Final[Content] = Dropped()  # that of no answer: nobody feeds it


class ServerSide(ClientSide):
    """The server's half of a session."""

    __slots__ = ("_answers", "_content", "_greeting", "_rules", "_server_eof")

    _answers: Answers

    def __init__(self, journal: Journal, counters: Counters, rules: SessionRules) -> None:
        super().__init__(journal, counters)
        self._rules = rules
        self._server_eof = False
        self._greeting = b""  # kept while TLS with the server begins
        self._content = _NONE

    def server_data(self, data: bytes, now: float) -> None:
        """The server sent this."""
        if self.over:
            return
        turns = self._turns
        turns.since = now
        if turns.phase is CONTENT:
            self._relay_content(data, now)
        else:
            self._server.feed(data)
            self._hear(now)
        if turns.phase is REQUEST or turns.phase is RESPONSE:
            if self._server.left:
                self._server_fault(UNASKED)
            elif self._client.left or self._client_eof:
                self._go_on(now)

    def server_eof(self, _now: float) -> None:
        """The server closed its side."""
        self._server_eof = self.changed = True
        if self.over or self._turns.phase is Phase.HELD:
            return
        if self._turns.phase in OWED_BY_SERVER:
            self._server_fault("it closed the connection before its answer was whole")
        elif self._turns.phase is CONTENT:
            self._journal.warning(f"the server closed in the middle of the answer to {self._relay.shown()}")
            self._end(Ending.PROTOCOL, Side.SERVER)
        else:
            self._end(Ending.CLOSED, Side.SERVER)

    def server_lost(self, reason: str, now: float) -> None:
        """The server is gone, other than by closing its side."""
        if not self.over:
            self._journal.warning(f"the connection to the server broke: {reason}")
        self.server_eof(now)

    def _go_on(self, now: float) -> None:
        """The answer is whole, and the client has said more meanwhile, or has ended."""
        self.changed = True
        self._serve(now)

    def _hear(self, now: float) -> None:
        """Take what the server owes: one line, by the phase."""
        phase = self._turns.phase
        if phase not in OWED_BY_SERVER:
            return
        policy = self.policy
        challenge = phase is CHALLENGE and self._server.starts_with(b"+ ")
        try:
            line = self._server.take(policy.max_authline_length if challenge else policy.max_response_line_length)
        except LineTooLongError:
            self._server_fault("a line is longer than its limit")
            return
        if line is None:
            return
        if self._told:
            said = "[SASL challenge]" if challenge else line.decode("utf-8", "surrogateescape")
            self._journal.debug(f"server: {said}")
        if phase is Phase.GREETING:
            self._greeting_came(line, now)
        elif phase is Phase.SERVER_STLS:
            self._server_stls_answered(line, now)
        elif challenge or (phase is CHALLENGE and line == b"+"):
            self._challenge(line, now)
        else:
            self._status_came(line, now)

    def _challenge(self, line: bytes, now: float) -> None:
        exchange = self._exchange
        assert exchange is not None  # noqa: S101 - for mypy: the phase says so
        if fault := exchange.fault(line, self.policy.max_authline_count):
            self._server_fault(f"a SASL challenge that can't pass: {fault}")
            return
        self.to_client.append(line + CRLF)
        self._turns.take(RESPONSE, now)

    def _greeting_came(self, line: bytes, now: float) -> None:
        if (stamp := timestamp(line)) is not None:
            self.policy.__dict__["timestamp"] = stamp.decode("utf-8", "surrogateescape")
        self._greeting = line
        if self._rules.asks_server() and line.startswith(b"+OK"):
            if self._server.left:
                self._server_fault(UNASKED)
                return
            self.to_server.append(b"STLS\r\n")
            self._turns.take(Phase.SERVER_STLS, now)
        else:
            self._greet(now)

    def _server_stls_answered(self, line: bytes, now: float) -> None:
        status = self._answers.status(self._relay, line)
        if status.fault is not None:
            self._server_fault(f"its answer to STLS: {status.fault}")
        elif status.ok:
            if self._server.left:
                # What came in clear behind the answer would be taken for the server's word under TLS.
                self._server_fault("it sent something in clear behind its answer to STLS")
                return
            self.tls_wanted = Side.SERVER
            self.changed = True
            self._turns.take(Phase.SERVER_HANDSHAKE, now)
        elif self._rules.server_tls is Tls.REQUIRED:
            self._journal.error("the server refuses STLS, and server_tls = required")
            self._refuse_service(NOT_AVAILABLE, Ending.TLS)
        else:
            self._greet(now)

    def _greet(self, now: float) -> None:
        """Relay the server's greeting as the policy has it."""
        status = self._answers.greeting(self._relay, self._greeting)
        if status.fault is not None:
            self._server_fault(f"its greeting: {status.fault}")
            return
        if status.ok and self._rules.server_tls is Tls.REQUIRED and self.policy.session.server_tls is None:
            # A callback made a greeting of what is none; nothing else gets here without TLS.
            self._journal.error("the server's greeting is none to say STLS to, and server_tls = required")
            self._refuse_service(NOT_AVAILABLE, Ending.TLS)
            return
        self._turns.login_awaited(now)
        self.changed = True
        self.to_client.append(status.line + CRLF)
        self._turns.take(REQUEST, now)
        if status.refused:
            self._refused("the service", "the policy refuses the greeting")
            self.counters[ANSWERS_REFUSED.at] += 1
        if not status.ok or status.end:
            self._end(Ending.REFUSED, Side.GATEWAY if status.refused else Side.SERVER)

    def _status_came(self, line: bytes, now: float) -> None:
        relay = self._relay
        status = self._answers.status(relay, line)
        if relay.response_callback is not None:
            self.changed = True
        if status.fault is not None:
            self._server_fault(status.fault)
            return
        if relay.row.filtered and status.line == line and not (status.ok or status.refused or status.content):
            self._own_capabilities(now)
            return
        out = status.line + CRLF
        if status.refused:
            self._refused(f"the answer to {relay.shown()}", "the policy refuses it")
            self.counters[ANSWERS_REFUSED.at] += 1
        if self._told and status.line != line:
            self._journal.debug(f"to client: {status.line.decode('utf-8', 'surrogateescape')}")
        if status.end:
            self.to_client.append(out)
            self._end(Ending.ABORTED, Side.GATEWAY)
            return
        if status.content:
            self.to_client.append(out)
            capabilities = self._capabilities() if relay.row.filtered else None
            self._content = self._answers.content(relay, capabilities, dropped=status.dropped)
            self._turns.take(CONTENT, now)
            self._relay_content(self._server.take_all(), now)
            return
        self._conclude(relay, out, now, ok=status.ok, failed=status.failed, turned=status.turned)

    # -- content

    def _relay_content(self, data: bytes, now: float) -> None:
        # The fast path of bulk: for WholeBuffers the same object that was read is sent.
        content = self._content
        if self._relay.response_callback is not None:
            self.changed = True
        try:
            out = content.feed(data)
        except ContentError as fault:
            self._journal.error(f"the answer to {self._relay.shown()} is cut: {fault}")
            self.to_client.append(fault.passed)
            # The client sees a cut message, never a whole one: no terminator, no -ERR.
            self._end(Ending.ABORTED if fault.by_policy else Ending.PROTOCOL, Side.GATEWAY)
            return
        if out:
            self.to_client.append(out)
        if content.ended:
            # A dropped answer is one that the client got an -ERR for.
            self._content = _NONE
            self._conclude(self._relay, b"", now, ok=not isinstance(content, Dropped))
            self._server.feed(content.left)

    def _capabilities(self) -> Capabilities:
        return Capabilities(self._usable, self._added)

    def _added(self) -> list[str]:
        """What works here whether the server lists it or not."""
        added = []
        # A callback on USER may work with a server that has no USER, as APOP behind UToAPop3 does.
        if self._usable("USER") and self._usable("PASS") and self._asking.handles("USER"):
            added.append("USER")
        if self.state is State.AUTHORIZATION and self._client_tls.offered():
            added.append("STLS")
        return added

    def _usable(self, name: str) -> bool:
        return self._asking.permits(name) and not self._client_tls.demanded_before(name)

    def _own_capabilities(self, now: float) -> None:
        """The server has no CAPA: answer from what is known to work (RFC 1939's commands)."""
        own = self._capabilities().own()
        self._conclude(self._relay, b"+OK Capability list follows\r\n" + own + b".\r\n", now, ok=True)

    def _release(self, now: float) -> None:
        self.to_client.append(self._held)
        self.changed = True
        if self.logins_failed >= self.policy.max_auth_failures:
            self._journal.warning(f"{self.logins_failed} failed logins: max_auth_failures is reached")
            self._end(Ending.AUTH_FAILURES, Side.CLIENT)
        elif self._held_ends:
            self._end(Ending.ABORTED, Side.GATEWAY)
        elif self._server_eof:
            self._end(Ending.CLOSED, Side.SERVER)
        elif self._server.left:
            self._server_fault(UNASKED)
        else:
            self._turns.take(REQUEST, now)
            self._serve(now)
