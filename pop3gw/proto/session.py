"""One POP3 session, both sides of it: bytes and events in, bytes out.

Pure: it opens no socket and reads no clock; time is an argument (seconds, monotonic). The caller hands in what it reads
and takes ``to_client`` and ``to_server`` after each input; it reads from a side only while ``reads_client`` or
``reads_server`` says so, calls ``expire`` when ``deadline`` has come, starts TLS when ``tls_wanted`` says so, and
closes both sides once ``over`` is set and ``to_client`` is delivered. What is legal is decided in
``requests`` and ``answers``, where lines end in ``wire``. The client's half is ``clientside``; here are the events and
the server's half.

Known limits: one request at a time is at the server (pipelined ones wait here, RFC 2449 section 6.6); at most
QUEUE_OCTETS of requests are kept waiting.
"""

from __future__ import annotations

import re
from collections import Counter

from pop3gw.policy import INVALID_COMMAND, AbstractPop3Proxy, SessionFacts, TlsFacts, instance
from pop3gw.proto.answers import Answers
from pop3gw.proto.asking import PROTOCOL_ERROR, Asking, Guard, Unguarded
from pop3gw.proto.capabilities import Capabilities
from pop3gw.proto.clientside import UNASKED
from pop3gw.proto.commands import State
from pop3gw.proto.content import Content, ContentError, Dropped
from pop3gw.proto.counts import ANSWERS_REFUSED, Counters
from pop3gw.proto.events import Ending, Journal, Side
from pop3gw.proto.fastpath import FastPath
from pop3gw.proto.requests import Requests
from pop3gw.proto.turns import (
    CHALLENGE,
    CLIENT_TURNS,
    CONTENT,
    OWED_BY_SERVER,
    REQUEST,
    RESPONSE,
    STATUS,
    Phase,
)
from pop3gw.proto.upgrade import WITHOUT_TLS, ClientTls, SessionRules
from pop3gw.proto.wire import CRLF, LineTooLongError
from pop3gw.values import Tls

QUEUE_OCTETS = 16_384

# RFC 2449 section 8.1.1, RFC 3206 section 4: the server or the gateway is at fault, trying again may help.
NOT_AVAILABLE = "[SYS/TEMP] Server not available"
POLICY_FAILED = "[SYS/TEMP] Service not available"

# RFC 1939 section 7: the timestamp is a msg-id, in angle brackets.
_TIMESTAMP = re.compile(rb"<[^<>\s]+@[^<>\s]+>")


class Session(FastPath):
    """One session under one policy. See the module for how it is driven."""

    __slots__ = (
        "_answers",
        "_content",
        "_facts",
        "_greeting",
        "_guard",
        "_policy_class",
        "_rules",
        "_server_eof",
        "callback_failures",
        "wants_server",
    )

    def __init__(
        self,
        policy_class: type[AbstractPop3Proxy],
        *,
        facts: SessionFacts,
        journal: Journal,
        counters: Counters | None = None,
        guard: Guard | None = None,
        rules: SessionRules = WITHOUT_TLS,
    ) -> None:
        super().__init__(journal, Counter() if counters is None else counters)
        self.wants_server = False  # the server is to be connected
        self.callback_failures: list[str] = []  # names: who counts them empties it
        self._facts = facts
        self._policy_class = policy_class
        self._guard = guard or Unguarded()
        self._rules = rules
        self._server_eof = False
        self._greeting = b""  # kept while TLS with the server begins
        self._content: Content = Dropped()

    # -- what the caller looks at

    @property
    def user(self) -> str | None:
        """The name that the client gave, None until then."""
        return self.policy.username

    @property
    def reads_client(self) -> bool:
        """Whether input from the client is wanted."""
        if self._client_eof or self.over or self.tls_wanted:
            return False
        return self._turns.phase in CLIENT_TURNS or self._client.left < QUEUE_OCTETS

    @property
    def reads_server(self) -> bool:
        """Whether input from the server is wanted."""
        return not (self._server_eof or self.over or self.tls_wanted or self._turns.phase is Phase.HELD)

    @property
    def deadline(self) -> float | None:
        """When ``expire`` is to be called, or None."""
        return self._turns.deadline(self.policy)

    # -- events

    def introduce(self, client_address: str, client_port: int) -> None:
        """Before ``start``: the client is another one than the connection's peer."""
        self._facts = self._facts._replace(client_address=client_address, client_port=client_port)

    def refuse(self, text: str, why: str) -> None:
        """Instead of ``start``: there is no session. Where TLS would come first the client can't be told."""
        self._journal.info(f"refused: {why}")
        if self._rules.client_tls is Tls.IMPLICIT:
            self._end(Ending.REFUSED, Side.GATEWAY)
        else:
            self._refuse_service(text, Ending.REFUSED)

    def start(self, now: float) -> None:
        """Begin: with TLS where that comes first, else with the policy's ``config()``; then the server is wanted."""
        if self._rules.client_tls is Tls.IMPLICIT:
            self.tls_wanted = Side.CLIENT
            self.changed = True
            self._turns.take(Phase.CLIENT_HANDSHAKE, now)
            self._turns.login_awaited(now)
        else:
            self._configure()

    def _configure(self) -> None:
        try:
            limit = self._policy_class.callback_timeout
            made = self._guard.call(instance, (self._policy_class, self._facts), limit)
            assert isinstance(made, AbstractPop3Proxy)  # noqa: S101 - for mypy
            self.policy = made
        except BaseException:  # noqa: BLE001 - whatever a policy's __init__ raises, SystemExit too
            self._journal.error(f"{self._policy_class.__name__}: no instance could be made; run pop3gw --check")
            self.callback_failures.append("__init__")
            self._refuse_service(POLICY_FAILED, Ending.FAULT)
            return
        self._asking = asking = Asking(self.policy, self._guard, self._journal)
        self.callback_failures = asking.failures
        self._answers = Answers(asking)
        self._client_tls = ClientTls(self._rules, asking)
        self._requests = Requests(asking, self._client_tls)
        if not asking.configure():
            self._refuse_service(POLICY_FAILED, Ending.FAULT)
        else:
            self.wants_server = self.changed = True

    def connected(self, now: float, address: str | None = None, port: int | None = None) -> None:
        """The server is connected; its greeting is awaited (after TLS, where that comes first)."""
        self._learn(self.policy.session._replace(server_address=address, server_port=port))
        self.changed = True
        if self._rules.server_tls is Tls.IMPLICIT:
            self.tls_wanted = Side.SERVER
            self._turns.take(Phase.SERVER_HANDSHAKE, now)
        else:
            self._turns.take(Phase.GREETING, now)

    def connect_failed(self, reason: str, _now: float) -> None:
        """The server can't be reached."""
        self._journal.error(f"the server can't be reached: {reason}")
        self._refuse_service(NOT_AVAILABLE, Ending.UNREACHABLE)

    def tls_started(self, side: Side, tls: TlsFacts, now: float, certificate: str | None = None) -> None:
        """The handshake that ``tls_wanted`` asked for is done."""
        self.tls_wanted = None
        self.changed = True
        if side is Side.CLIENT and self._rules.client_tls is Tls.IMPLICIT:
            self._facts = self._facts._replace(client_tls=tls, client_certificate=certificate)
            self._turns.take(Phase.CONNECTION, now)
            self._configure()
            return
        if side is Side.CLIENT:
            self._learn(self.policy.session._replace(client_tls=tls, client_certificate=certificate))
            self._turns.take(REQUEST, now)
            return
        self._learn(self.policy.session._replace(server_tls=tls))
        if self._rules.server_tls is Tls.IMPLICIT:
            self._turns.take(Phase.GREETING, now)
        else:
            self._greet(now)
            self._serve(now)

    def tls_failed(self, side: Side, reason: str, _now: float) -> None:
        """The handshake failed. No byte that a client sent has reached a server whose TLS failed."""
        self.tls_wanted = None
        if side is Side.CLIENT:
            self._journal.warning(f"TLS with the client failed: {reason}")
            self._end(Ending.TLS, Side.CLIENT)
            return
        self._journal.error(f"TLS with the server failed: {reason}")
        self._refuse_service(NOT_AVAILABLE, Ending.TLS)

    def client_data(self, data: bytes, now: float) -> None:
        """The client sent this."""
        if self.over:
            return
        turns = self._turns
        if turns.phase is REQUEST and not self._client.left and self._usual_request(data, now):
            return
        self._client.feed(data)
        if turns.phase is REQUEST or turns.phase is RESPONSE:
            turns.heard(now)
            self._serve(now)
        if self._client.left:
            self.changed = True  # it may have said so much that no more is wanted

    def client_eof(self, now: float) -> None:
        """The client sends no more; it still gets the answers to its whole requests."""
        if self.over:
            return
        self._client_eof = self.changed = True
        if self._turns.phase in CLIENT_TURNS:
            self._serve(now)

    def client_lost(self, _now: float) -> None:
        """The client is gone: nothing can be sent to it any more."""
        if not self.over:
            self.to_client.clear()
            self._end(Ending.CLOSED, Side.CLIENT)

    def server_data(self, data: bytes, now: float) -> None:
        """The server sent this."""
        if self.over:
            return
        turns = self._turns
        turns.heard(now)
        if turns.phase is CONTENT:
            self._relay_content(data, now)
        elif turns.phase is not STATUS or self._server.left or not self._usual_answer(data, now):
            self._server.feed(data)
            self._hear(now)
        if turns.phase is REQUEST or turns.phase is RESPONSE:
            if self._server.left:
                self._server_fault(UNASKED)
            elif self._client.left or self._client_eof:
                self.changed = True
                self._serve(now)

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
        elif not self.over:
            self._end(Ending.CLOSED, Side.SERVER)

    def blocked(self, side: Side, now: float) -> None:
        """What was sent to a side could not all be delivered, or only a part of the rest was."""
        self._turns.blocked = side
        self.changed = True
        self._turns.heard(now)

    def flowing(self, now: float) -> None:
        """Everything is delivered again."""
        self._turns.blocked = None
        self.changed = True
        self._turns.heard(now)

    def expire(self, now: float) -> None:
        """The deadline has come."""
        deadline = self.deadline
        if deadline is None or now < deadline:
            return
        if self._turns.phase is Phase.HELD:
            self._release(now)
            return
        turns = self._turns
        late = turns.late()
        self._journal.warning(f"{turns.limit(self.policy, now)} has passed, waiting for the {late}")
        if late is Side.SERVER and turns.phase in OWED_BY_SERVER:
            self._say(f"-ERR {PROTOCOL_ERROR}")
        elif turns.phase is REQUEST and self._client.left and turns.blocked is None:
            self._say(f"-ERR {INVALID_COMMAND}")
        self._end(Ending.TIMEOUT, late)

    def shutdown(self, reason: str, ending: Ending = Ending.SHUTDOWN) -> None:
        """The gateway ends the session."""
        if not self.over:
            self._journal.info(f"ended by the gateway: {reason}")
            self._end(ending, Side.GATEWAY)

    def fail(self) -> None:
        """The gateway itself failed."""
        if not self.over:
            self._end(Ending.FAULT, Side.GATEWAY)

    # -- the server's answers

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
        if self._journal.conversation:
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
        if not exchange.passes(line, self.policy.max_authline_count):
            self._server_fault("a SASL challenge beyond max_authline_count, behind a cancellation, or none at all")
            return
        self.to_client.append(line + CRLF)
        self._turns.take(RESPONSE, now)

    def _greeting_came(self, line: bytes, now: float) -> None:
        stamp = _TIMESTAMP.search(line)
        if stamp is not None:
            self.policy.__dict__["timestamp"] = stamp[0].decode("utf-8", "surrogateescape")
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
        if line == b"+OK" or line.startswith(b"+OK "):
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
        if relay.row.name == "CAPA" and not status.ok and not status.refused:
            self._own_capabilities(now)
            return
        out = status.line + CRLF
        if status.refused:
            self._refused(f"the answer to {relay.shown()}", "the policy refuses it")
            self.counters[ANSWERS_REFUSED.at] += 1
        if self._journal.conversation and status.line != line:
            self._journal.debug(f"to client: {status.line.decode('utf-8', 'surrogateescape')}")
        if status.end:
            self.to_client.append(out)
            self._end(Ending.ABORTED, Side.GATEWAY)
            return
        if status.content:
            self.to_client.append(out)
            capabilities = self._capabilities() if relay.row.name == "CAPA" else None
            self._content = self._answers.content(relay, capabilities, dropped=status.dropped)
            self._turns.take(CONTENT, now)
            self._relay_content(self._server.take_all(), now)
            return
        self._conclude(relay, out, now, ok=status.ok)

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
            self._conclude(self._relay, b"", now, ok=not isinstance(content, Dropped))
            self._server.feed(content.left)

    def _capabilities(self) -> Capabilities:
        def usable(name: str) -> bool:
            return self._asking.permits(name) and not self._client_tls.demanded_before(name)

        added = []
        # A callback on USER may work with a server that has no USER, as APOP behind UToAPop3 does.
        if usable("USER") and usable("PASS") and self._asking.handles("USER"):
            added.append("USER")
        if self.state is State.AUTHORIZATION and self._client_tls.offered():
            added.append("STLS")
        return Capabilities(usable, tuple(added))

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

    def _learn(self, facts: SessionFacts) -> None:
        self.policy.__dict__["session"] = facts
