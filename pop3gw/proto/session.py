"""One POP3 session, both sides of it: bytes and events in, bytes out.

Pure: it opens no socket and reads no clock; time is an argument (seconds, monotonic). The caller hands in what it reads
and takes ``to_client`` and ``to_server`` after each input; it reads from a side only while ``reads_client`` or
``reads_server`` says so, calls ``expire`` when ``deadline`` has come, starts TLS when ``tls_wanted`` says so, and
closes both sides once ``over`` is set and ``to_client`` is delivered. What is legal is decided in
``requests`` and ``answers``, where lines end in ``wire``. The client's half is ``clientside``, the server's
``serverside``; here is how a session begins, ends, and what happens to it beside octets.

Known limits: one request at a time is at the server (pipelined ones wait here, RFC 2449 section 6.6); at most
QUEUE_OCTETS of requests are kept waiting.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, cast

from pop3gw.policy import INVALID_COMMAND, AbstractPop3Proxy, SessionFacts, TlsFacts, instance
from pop3gw.proto.answers import Answers
from pop3gw.proto.asking import PROTOCOL_ERROR, Asking, Guard, Unguarded, guarded_backtrace
from pop3gw.proto.counts import Counters
from pop3gw.proto.events import Ending, Journal, Side
from pop3gw.proto.fastpath import FastPath
from pop3gw.proto.requests import Requests
from pop3gw.proto.serverside import NOT_AVAILABLE
from pop3gw.proto.turns import CLIENT_TURNS, OWED_BY_SERVER, REQUEST, Phase
from pop3gw.proto.upgrade import WITHOUT_TLS, ClientTls, SessionRules
from pop3gw.values import Tls

QUEUE_OCTETS: Final = 16_384
POLICY_FAILED: Final = "[SYS/TEMP] Service not available"  # RFC 3206 section 4, as NOT_AVAILABLE
_new: Final[Any] = tuple.__new__  # a named tuple from its fields, at half of what calling its class costs
# Compiled, a constant is found faster than what was imported.
_Facts: Final = SessionFacts
_instance: Final = instance


class Session(FastPath):
    """One session under one policy. See the module for how it is driven."""

    __slots__ = ("_guard", "_policy_class", "callback_failures", "facts", "wants_server")

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
        super().__init__(journal, Counter() if counters is None else counters, rules)
        self.wants_server = False  # the server is to be connected
        self.callback_failures: list[str] = []  # names: who counts them empties it
        self.facts = facts
        self._policy_class = policy_class
        self._guard = guard or Unguarded()

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

    @property
    def awaits_client(self) -> bool:
        """Whether it is the client's turn to speak."""
        return self._turns.phase in CLIENT_TURNS

    # -- events

    def introduce(self, client_address: str, client_port: int) -> None:
        """Before ``start``: the client is another one than the connection's peer."""
        self.facts = self.facts._replace(client_address=client_address, client_port=client_port)

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
            # The handshake is bounded by the ``auth_timeout`` of no policy, the default; the policy's begins later.
            self._turns.login_awaited(now)
        else:
            self._configure()

    def _configure(self) -> None:
        self._guard.journal = self._journal
        try:
            limit = self._policy_class.callback_timeout
            made = self._guard.call(_instance, (self._policy_class, self.facts), limit)
            self.policy = cast("AbstractPop3Proxy", made)
        except BaseException as fault:  # noqa: BLE001 - whatever a policy's __init__ raises, SystemExit too
            why = guarded_backtrace(fault, self._guard, limit)
            self._journal.error(f"{self._policy_class.__name__}: no instance could be made: {why}")
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
        if self.over:
            return
        # Not by _replace(), which takes many times as long: this is on every session's way.
        session, client, client_port, _, _, began, client_tls, server_tls, subject = self.facts
        fields = (session, client, client_port, address, port, began, client_tls, server_tls, subject)
        self._learn(_new(_Facts, fields))
        self.changed = True
        if self._rules.server_tls is Tls.IMPLICIT:
            self.tls_wanted = Side.SERVER
            self._turns.take(Phase.SERVER_HANDSHAKE, now)
        else:
            self._turns.take(Phase.GREETING, now)

    def forget(self) -> None:
        """The session is over, and nothing is asked of it any more: its policy goes with it.

        Else it would stay until the collector comes: callbacks in the request hash hold the policy, which holds them.
        """
        self.policy.__dict__["request"] = {}

    def _learn(self, facts: SessionFacts) -> None:
        """Put what is known of the session from now on where its policy sees it."""
        self.facts = self.policy.__dict__["session"] = facts

    def connect_failed(self, reason: str, _now: float) -> None:
        """The server can't be reached."""
        if self.over:
            return
        self._journal.error(f"the server can't be reached: {reason}")
        self._refuse_service(NOT_AVAILABLE, Ending.UNREACHABLE)

    def tls_started(self, side: Side, tls: TlsFacts, now: float, certificate: str | None = None) -> None:
        """The handshake that ``tls_wanted`` asked for is done."""
        if self.over:
            return
        self.tls_wanted = None
        self.changed = True
        if side is Side.CLIENT and self._rules.client_tls is Tls.IMPLICIT:
            self.facts = self.facts._replace(client_tls=tls, client_certificate=certificate)
            self._turns.take(Phase.CONNECTION, now)
            self._turns.login_not_awaited()
            self._configure()
            return
        if side is Side.CLIENT:
            self._learn(self.facts._replace(client_tls=tls, client_certificate=certificate))
            self._turns.take(REQUEST, now)
            return
        self._learn(self.facts._replace(server_tls=tls))
        if self._rules.server_tls is Tls.IMPLICIT:
            self._turns.take(Phase.GREETING, now)
        else:
            self._greet(now)
            self._serve(now)

    def tls_failed(self, side: Side, reason: str, _now: float) -> None:
        """The handshake failed. No byte that a client sent has reached a server whose TLS failed."""
        if self.over:
            return
        self.tls_wanted = None
        if side is Side.CLIENT:
            self._journal.warning(f"TLS with the client failed: {reason}")
            self._end(Ending.TLS, Side.CLIENT)
            return
        self._journal.error(f"TLS with the server failed: {reason}")
        self._refuse_service(NOT_AVAILABLE, Ending.TLS)

    def client_lost(self, reason: str, _now: float) -> None:
        """The client is gone: nothing can be sent to it any more."""
        if not self.over:
            self._journal.info(f"the connection to the client broke: {reason}")
            self.to_client.clear()
            self._end(Ending.CLOSED, Side.CLIENT)

    def blocked(self, side: Side, now: float) -> None:
        """What was sent to a side could not all be delivered, or only a part of the rest was."""
        self._turns.blocked = side
        self.changed = True
        self._turns.since = now

    def flowing(self, now: float) -> None:
        """Everything is delivered again."""
        self._turns.blocked = None
        self.changed = True
        self._turns.since = now

    def held_up(self, now: float) -> None:
        """What was said goes out only now, since callbacks took their time: nobody could answer it before."""
        if self.to_client or self.to_server:
            self._turns.put_off(now)

    def expire(self, now: float) -> None:
        """The deadline has come, and nothing that came before it is left to be heard."""
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
        elif turns.phase in CLIENT_TURNS and self._client.left and turns.blocked is None:
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
