"""One session at work: who its client is, its server, TLS, its clock, its end, and the order of things.

What is said is decided by ``proto.session``, how octets come and go by ``pump``. Here nothing is read from one side
while the other has not taken what it was sent, and a side that is done with is closed at once: the client by way of
``farewell``. It knows nothing of POP3.

The fast path is ``_client_ready`` or ``_server_ready``, later in the same round ``speak`` and ``follow``: one read, one
question to the session, one write. Whatever is not needed for each event stands behind ``session.changed``, in
``_follow``.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec

from pop3gw.admission import Admission, Verdict
from pop3gw.backtrace import backtrace
from pop3gw.farewell import Farewell
from pop3gw.handshake import Handshake
from pop3gw.leavers import Leavers
from pop3gw.logs import SessionLog
from pop3gw.net import Connector, Peer
from pop3gw.policy import SessionFacts
from pop3gw.poller import BROKEN, READ, WRITE
from pop3gw.proto.events import Ending, Side
from pop3gw.proto.proxyheader import Endpoint, written
from pop3gw.proto.session import Session
from pop3gw.pump import Pump, wanted
from pop3gw.refusals import TOO_MANY, TOO_MANY_LOGGED
from pop3gw.scoreboard import Seat
from pop3gw.stream import SILENCE, Connection, Stream, keep_alive, reason_of
from pop3gw.tally import Tally
from pop3gw.times import NEVER
from pop3gw.values import SendProxy

if TYPE_CHECKING:  # ``ssl`` is loaded only where a service uses it
    from pop3gw.relay import Relay

_QUIT: Final = Ending.QUIT
_new: Final[Any] = tuple.__new__
# Compiled, a constant is found faster than what was imported.
_Facts: Final = SessionFacts
_time: Final = time.time
_random_octets: Final = os.urandom
P = ParamSpec("P")


def _contained(method: Callable[Concatenate[Conversation, P], None]) -> Callable[Concatenate[Conversation, P], None]:
    """Whatever goes wrong in one conversation ends that one alone.

    What each session passes through says so itself: called by way of this it costs several times as much.
    """

    def call(conversation: Conversation, /, *arguments: P.args, **named: P.kwargs) -> None:
        # The poller may still hold an event for what another event of the same round has closed.
        if conversation.closed:
            return
        try:
            method(conversation, *arguments, **named)
        except Exception as fault:  # noqa: BLE001 - it is logged with its traceback
            conversation.fault(fault)

    return call


class Conversation(Pump):
    """One session, from its client's connection to its end."""

    __slots__ = (
        "_admission",
        "_client_parted",
        "_connector",
        "_failures",
        "_farewell",
        "_handshake",
        "_journal",
        "_peer",
        "_reach_began",
        "_reached",
        "_relay",
        "_server_kept",
        "_started",
        "_tally",
        "entry",
        "identity",
        "scheduled",
        "seat",
        "settled",
    )

    def __init__(self, relay: Relay, client: Connection, peer: Peer, seat: Seat) -> None:
        super().__init__(relay.poller, client)
        self.identity = identity = _random_octets(6).hex()
        terms = relay.terms
        service = terms.service
        self.seat = seat
        self.scheduled = NEVER
        self.entry = 0  # of the relay's deadlines, where it is scheduled
        self._relay = relay
        self._client_parted = False  # it is the leavers' to close
        self._server_kept = False  # noticed if it vanishes
        self._admission: Admission | None = None
        self._connector: Connector | None = None
        self._reach_began: float | None = None  # when the connector was started
        self._peer = peer  # the client, and below where it connected to: a PROXY header may say otherwise
        self._reached: Peer | None = None  # None: where the connection says
        self._handshake: Handshake | None = None
        self._journal = SessionLog(identity, service.name)
        counters = relay.slot.counters
        self._tally = Tally(counters, terms.callbacks, seat, self._journal, peer, service.server)
        self._farewell: Farewell | None = None  # once the session is over and summarized
        self.settled = True  # nothing was heard in this round yet: the next event may be heard without acting before
        self._failures = 0  # failed logins that were logged
        self._started = self._poller.now
        # All its fields, and no call of its class, which costs twice as much.
        facts = _new(_Facts, (identity, peer.address, peer.port, None, None, _time(), None, None, None))
        self._session = Session(
            terms.policy,
            facts=facts,
            journal=self._journal,
            counters=counters,
            guard=relay.guard,
            rules=terms.rules,
        )
        seat.open(peer.address, peer.port, identity)

    def begin(self) -> None:
        """Start the session, once it is known who the client is."""
        try:
            self._client.socket.setblocking(False)  # its other options it has of its listener
            if self._relay.terms.service.proxy_protocol_from:
                self._admit()
            else:
                self._start(self._started)
        except Exception as fault:  # noqa: BLE001 - it is logged with its traceback
            self.fault(fault)

    def _admit(self) -> None:
        client, relay = self._client.socket, self._relay
        self._admission = Admission(
            client, relay.terms.service, named=self._named, ask=partial(relay.ask, self), done=self._admitted
        )
        self._admission.begin(self._peer.address, self._poller, self._started)
        self._admission_due()

    def _admission_due(self) -> None:
        if self._admission is not None:
            self._due(self._admission.deadline)

    @_contained
    def _named(self, client: Peer, reached: Peer) -> None:
        self._peer, self._reached = client, reached
        self._session.introduce(client.address, client.port)
        self._tally.introduce(client)

    @_contained
    def _admitted(self, verdict: Verdict, reason: str) -> None:
        self._admission = None
        if verdict is Verdict.ADMITTED:
            self._start(self._poller.now)
        elif verdict is Verdict.TOO_MANY:
            self._session.refuse(TOO_MANY, TOO_MANY_LOGGED)
            self._act_soon()
        else:
            self._turn_away(reason)

    @_contained
    def decided(self, *, admitted: bool) -> None:
        """The master has counted this client's sessions."""
        if self._admission is not None:
            self._admission.decided(admitted=admitted)

    def _turn_away(self, reason: str) -> None:
        """No session: the sender can't be told in a protocol that it did not begin."""
        self._journal.warning(f"connection of {self._peer.address} closed: {reason}")
        self._session.shutdown(reason, Ending.REFUSED)
        self._close()

    def _start(self, now: float) -> None:
        self._session.start(now)
        self._act_soon()

    def _reach(self, now: float) -> None:
        """Connect to the server."""
        terms = self._relay.terms
        self._reach_began = now
        self._connector = Connector(
            terms.route,
            timeout=terms.service.connect_timeout,
            poller=self._poller,
            done=self._connected,
            due=self._due,
            speaks_first=terms.server_speaks_first,
            patience=self._session.policy.timeout / 1000,
        )
        self._connector.start(now)

    def _due(self, when: float) -> None:
        """Something is to be done at this time at the latest."""
        if when < self.scheduled:
            self._relay.schedule(when, self)

    def _connected(self, connection: Connection | None, peer: Peer | None, reason: str) -> None:
        if self.closed:
            return
        try:
            self._tried_server(connection, peer, reason)
        except Exception as fault:  # noqa: BLE001 - it is logged with its traceback
            self.fault(fault)

    def _tried_server(self, connection: Connection | None, peer: Peer | None, reason: str) -> None:
        connector, self._connector = self._connector, None
        now = self._poller.now
        if connection is None or peer is None or connector is None:
            self._tally.connect_failed()
            self._session.connect_failed(reason, now)
            self._act(now)  # an attempt may fail at once, behind what this round brings
            return
        server = self._server = Stream(connection, mask=READ)
        self._poller.hand_over(connection.fileno(), self._server_ready)
        self._due(now + SILENCE)
        self._tally.connected(peer, now - (self._reach_began or now))
        self._send_proxy_header(server)
        if self._relay.terms.server_speaks_first:  # what it said is how it is known to be connected
            self._session.connected(connector.began, peer.address, peer.port)
            self._hear_server(server, now)
        else:
            self._session.connected(now, peer.address, peer.port)
        self._act_soon()

    def _send_proxy_header(self, server: Stream) -> None:
        version = self._relay.terms.service.send_proxy
        if version is not SendProxy.OFF:
            client, reached = self._peer, self._reached or Peer(*self._client.socket.getsockname()[:2])
            server.write(
                written(
                    1 if version is SendProxy.V1 else 2,
                    Endpoint(client.address, client.port),
                    Endpoint(reached.address, reached.port),
                )
            )

    # -- TLS

    def _begin_tls(self, side: Side, now: float) -> None:
        """What was to be said in clear is said: shake hands."""
        contexts = self._relay.terms.tls
        assert contexts is not None  # noqa: S101 - made for every service whose rules ask for TLS
        if side is Side.CLIENT:
            self._unwatch(self._client)
            self._client = stream = contexts.to_client(self._client)
            ends = NEVER  # the session has a limit for the client's login
        else:
            assert self._server is not None  # noqa: S101 - for mypy: TLS is wanted of a server that is connected
            self._unwatch(self._server)
            self._server = stream = contexts.to_server(self._server)
            ends = now + self._relay.terms.service.connect_timeout
        self._handshake = Handshake(side, stream, self._session, self._tally, ends)
        self._shake(now)

    def _shake(self, now: float) -> None:
        handshake = self._handshake
        if handshake is not None and handshake.go_on(now):
            self._shaken(handshake)
            if handshake.stream.holds and not self._session.over:
                if handshake.side is Side.CLIENT:
                    self._hear_client(now)
                else:
                    self._hear_server(handshake.stream, now)
        self._session.changed = True  # what it waits for next may be something else

    def _shaken(self, handshake: Handshake) -> None:
        self._handshake = None
        self._hand_over(handshake.stream, self._client_ready if handshake.side is Side.CLIENT else self._server_ready)

    @_contained
    def _shaking(self, _events: int) -> None:
        self._shake(self._poller.now)
        self._act_soon()

    # -- events of the poller

    # What is sent to a process that sleeps is dear (it wakes it up), what follows closely is not. So a round has three
    # passes: all that are ready hear, then all speak, then whatever follows is done. Who has heard something is in
    # ``relay.unsettled``.

    def _client_ready(self, events: int) -> None:
        try:
            if events == READ and self.settled and self._handshake is None:
                self._hear_client(self._poller.now)
            else:
                self._client_stirred(events)
        except Exception as fault:  # noqa: BLE001 - it is logged with its traceback
            self.fault(fault)
        self._act_soon()

    def _server_ready(self, events: int) -> None:
        try:
            if events == READ and self.settled and self._handshake is None and self._server is not None:
                self._hear_server(self._server, self._poller.now)
                if self._server is not None and self._server.bulk:
                    # A buffer that waits for the end of the round is memory that the next one can't have: where many
                    # sessions fetch at once, each of them would be new.
                    self._act(self._poller.now)
                    return
            else:
                self._server_stirred(events)
        except Exception as fault:  # noqa: BLE001 - it is logged with its traceback
            self.fault(fault)
        self._act_soon()

    def _client_stirred(self, events: int) -> None:
        """Something else than mere input, or not the first in this round: what is waited for may have changed."""
        now = self._poller.now
        if not self.settled:
            self._act(now)
        client, handshake = self._client, self._handshake
        if self.closed or self._farewell is not None or (handshake is not None and handshake.stream is client):
            return
        if events & (WRITE | BROKEN) and client.mask & WRITE:
            try:
                self._flush(Side.CLIENT, client, now)
            except OSError as error:
                self._client_gone(error, now)
        if events & (READ | BROKEN) and client.mask & READ:
            self._hear_client(now)
        elif events & BROKEN and client.mask == BROKEN:
            code = client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._client_gone(OSError(code, os.strerror(code)), now)

    def _server_stirred(self, events: int) -> None:
        """Something else than mere input, or not the first in this round: what is waited for may have changed."""
        now = self._poller.now
        if not self.settled:
            self._act(now)
        server = self._server
        if server is None or self._handshake is not None:
            return
        if events & (WRITE | BROKEN) and server.mask & WRITE:
            try:
                self._flush(Side.SERVER, server, now)
            except OSError as error:
                self._session.server_lost(reason_of(error), now)
        if events & (READ | BROKEN) and server.mask & READ:
            self._hear_server(server, now)

    @_contained
    def expire(self, now: float) -> None:
        """A deadline may have come."""
        if self._server is not None and not self._server_kept:
            # Most sessions are over by then, and have saved four system calls.
            self._server_kept = True
            keep_alive(self._server.socket)
        if self._admission is not None:
            self._admission.expire(now)
            self._admission_due()
            return
        if self._connector is not None:
            if now >= self._connector.deadline:
                self._connector.expire(now)
        elif self._handshake is not None and now >= self._handshake.ends:
            self._handshake.fail("it was not done within connect_timeout", now)
            self._shaken(self._handshake)
        elif self._client.unsent is not None and self._client.takes():
            self._session.blocked(Side.CLIENT, now)
        elif self._client.unsent is None and self._session.awaits_client and self._client.takes_the_rest():
            self._session.flowing(now)
        else:
            self._session.expire(now)
        self._session.changed = True  # whatever has come of it: the next deadline is to be looked for
        self._act(self._poller.now)

    @_contained
    def end(self, reason: str, ending: Ending = Ending.SHUTDOWN) -> None:
        """End the session at once, without waiting for anything; what was said before goes out if it can."""
        if not self.settled:
            self._act(self._poller.now)
        self._session.shutdown(reason, ending)
        self._close()

    # -- what follows

    def held_up(self, now: float) -> None:
        """Between what was heard and ``speak`` callbacks have run, of this session or others."""
        self._session.held_up(now)

    def _act_soon(self) -> None:
        """Act at the end of this round, with all others that have heard something in it."""
        if self.settled:
            self.settled = False
            self._relay.unsettled.append(self)

    def _act(self, now: float) -> None:
        """Act at once, behind what may have called the policy. What it raises is for ``fault``."""
        self.held_up(now)
        self.speak(now)
        self.follow(now)

    def follow(self, now: float) -> None:
        """See what else has come of what was heard and said. What it raises is for ``fault``."""
        if self.closed:
            return
        self.settled = True
        session, client = self._session, self._client
        self.seat.passed(client.received, client.sent)
        if session.moved and not session.over:
            session.moved = False
            self._tally.show(session)
        if session.changed:
            self._follow(now)

    def _follow(self, now: float) -> None:
        """Wait for the right things until the right time; or end it."""
        session = self._session
        if session.callback_failures:
            self._tally.count_failures(session.callback_failures)
        if session.logins_failed != self._failures:
            self._failures = session.logins_failed
            self._journal.login_failed(self._peer.address, session.user)
        if session.over:
            self._part(now)
            return
        session.changed = False
        if session.tls_wanted is not None and self._handshake is None and self._all_sent():
            self._begin_tls(session.tls_wanted, now)
            session.changed = True
            self._act(now)
            return
        if session.wants_server and self._reach_began is None:
            self._reach(now)
            if self.closed or self._connector is None:
                return
        self._wait()
        deadline = session.deadline if self._connector is None else self._connector.deadline
        if deadline is not None:
            self._due(deadline if self._handshake is None else min(deadline, self._handshake.ends))

    def _wait(self) -> None:
        """Wait for what is wanted of each side; during a handshake for what that wants."""
        client, server, session = self._client, self._server, self._session
        if self._handshake is not None:
            shaking = self._handshake.stream
            if client is shaking:
                self._watch(client, shaking.waits_for, self._shaking)
            else:
                self._watch(client, BROKEN, self._client_ready)
            if server is not None:
                self._watch(server, shaking.waits_for if server is shaking else 0, self._shaking)
            return
        stuck = server is not None and server.unsent is not None
        of_client, of_server = wanted(
            full=client.unsent is not None,
            stuck=stuck,
            reads_client=session.reads_client,
            # What TLS would have to answer by itself (key updates) is not read until it can be answered.
            reads_server=session.reads_server and not (stuck and server is not None and server.answers),
        )
        if client.mask != of_client:  # _watch asks that too, but a bound method costs more than the question
            self._watch(client, of_client, self._client_ready)
        if server is not None and server.mask != of_server:
            self._watch(server, of_server, self._server_ready)

    # -- the end

    def _part(self, now: float) -> None:
        """The session is over: the server goes at once, the client when it has got its last answer."""
        client, farewell = self._client, self._farewell
        if farewell is None:
            if self._session.ending is Ending.TIMEOUT and client.unsent is not None:
                self._close()  # the client was waited for: it does not read
                return
            self._handshake = None
            self._close_server()
            self._tally.conclude(self._session, client, now - self._started)
            farewell = self._farewell = Farewell(client, now)
            if self._session.ending is _QUIT and not farewell.over(now) and client.unsent is None:
                self._leave_to(self._relay.leavers, farewell, now)
                return
            if self._session.moved:
                self._tally.show(self._session)
            self.seat.leave()
            self._hand_over(client, self._client_leaves)
        if farewell.over(now):
            self._close()
            return
        self._watch(client, farewell.waits_for, self._client_leaves)
        self._due(farewell.ends)

    def _leave_to(self, leavers: Leavers, farewell: Farewell, now: float) -> None:
        """The client has nothing more to say: others close its connection, and this session is done."""
        self._unwatch(self._client)
        self._client_parted = True
        leavers.add(farewell, now)
        self._close()

    @_contained
    def _client_leaves(self, _events: int) -> None:
        now = self._poller.now
        if self._farewell is not None:
            self._farewell.go_on(now)
        self._act_soon()

    def fault(self, fault: BaseException) -> None:
        """The gateway itself failed: this session ends, with nothing said that could look whole."""
        self._journal.error(f"a fault of the gateway, please report it: {backtrace(fault)}")
        self._session.fail()
        self._close()

    def _close_server(self) -> None:
        if self._admission is not None:
            self._admission.cancel()
            self._admission = None
        if self._connector is not None:
            self._connector.cancel()
            self._connector = None
        if self._server is not None:
            self._unwatch(self._server)
            self._server.close()
            self._server = None

    def _close(self) -> None:
        if self.closed:
            return
        self.seat.passed(self._client.received, self._client.sent)
        try:
            self._tally.count_failures(self._session.callback_failures)
            if self._farewell is None:
                self._tally.conclude(self._session, self._client, self._poller.now - self._started)
        except Exception as fault:  # noqa: BLE001 - a policy may have put anything into its attributes
            self._journal.error(f"this session can't be summarized: {backtrace(fault)}")
        self._close_server()
        if not self._client_parted:
            self._unwatch(self._client)
            self._client.close()
        self.closed = True
        self.settled = False  # an event of this round that still comes for it brings nothing
        self._session.forget()
        self._relay.done(self)
