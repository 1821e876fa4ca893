"""One session at work: its two connections, its clock, and the order of things.

What is said is decided by ``proto.session``. Here nothing is read from one side while the other has not taken what it
was sent, what is answered before a close is delivered, and a side that is done with is closed at once. It knows nothing
of POP3.

The fast path is ``_client_ready`` or ``_server_ready``, later in the same round ``settle``: one read, one question to
the session, one write. Whatever is not needed for each event stands behind ``session.changed``, in ``_follow``.
"""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from pop3gw.arrival import Arrival
from pop3gw.logs import SessionLog
from pop3gw.net import Connector, Peer
from pop3gw.policy import SessionFacts
from pop3gw.poller import BROKEN, READ, WRITE
from pop3gw.pool import TOO_MANY
from pop3gw.proto.events import Ending, Side
from pop3gw.proto.proxyheader import Endpoint, Header, written
from pop3gw.proto.session import Session
from pop3gw.scoreboard import Seat
from pop3gw.stream import Stream
from pop3gw.tally import Tally
from pop3gw.values import SendProxy

if TYPE_CHECKING:  # ``ssl`` is loaded only where a service uses it
    from pop3gw.relay import Relay
    from pop3gw.tlsstream import TlsStream

# After the last answer: how long, and for how many octets, the client may go on before its connection is closed.
# Closing over unread input would reset the connection, and the reset would eat the answer.
_DRAIN_SECONDS = 2.0
_DRAIN_OCTETS = 64 * 1024 * 1024
# How long the master may take to count a client's sessions: it does so at once, or it is gone.
_DECISION_SECONDS = 10.0
# How long a client may take no octet of what it is still owed at the end.
_LAST_WORDS_SECONDS = 30.0
# Requests are short. What is read at once is decided at once: a flood of them must not delay a worker's other sessions.
_CLIENT_READ = 4096
P = ParamSpec("P")
NEVER = float("inf")


def _contained(method: Callable[Concatenate[Conversation, P], None]) -> Callable[Concatenate[Conversation, P], None]:
    """Whatever goes wrong in one conversation ends that one alone."""

    def call(conversation: Conversation, /, *arguments: P.args, **named: P.kwargs) -> None:
        # The poller may still hold an event for what another event of the same round has closed.
        if conversation.closed:
            return
        try:
            method(conversation, *arguments, **named)
        except Exception:  # noqa: BLE001 - the fault is logged with its traceback
            conversation.fault()

    return call


class Conversation:
    """One session with its two connections."""

    __slots__ = (
        "_arrival",
        "_client",
        "_close_at",
        "_connector",
        "_decision_by",
        "_drained",
        "_failures",
        "_hands",
        "_journal",
        "_peer",
        "_reach_began",
        "_reached",
        "_relay",
        "_server",
        "_session",
        "_settle_later",
        "_shake_by",
        "_started",
        "_tally",
        "_undecided",
        "closed",
        "identity",
        "scheduled",
        "seat",
        "unsettled",
    )

    def __init__(self, relay: Relay, client: socket.socket, peer: Peer, seat: Seat) -> None:
        self.identity = identity = os.urandom(6).hex()
        service = relay.service
        self.closed = False
        self.seat = seat
        self.scheduled = NEVER
        self._relay = relay
        self._client = Stream(client, _CLIENT_READ)
        self._server: Stream | None = None
        self._arrival: Arrival | None = None
        self._undecided = False  # the master was asked whether this client may have a session
        self._decision_by = NEVER  # when it must have answered
        self._connector: Connector | None = None
        self._reach_began: float | None = None  # when the connector was started
        self._peer = peer  # the client, and below where it connected to: a PROXY header may say otherwise
        self._reached: Peer | None = None  # None: where the connection says
        self._hands: TlsStream | None = None  # the stream that is shaking hands
        self._shake_by = NEVER
        self._journal = SessionLog(identity, service.name)
        self._tally = Tally(relay, seat, self._journal, peer, service.server)
        self._close_at: float | None = None  # set once the session is over and summarized
        self.unsettled = False  # an event of this round has brought something
        # The first octets that are sent wake the other side up, which is dear; those that follow closely find it awake.
        # So every session with something to hear hears it before any acts.
        self._settle_later = relay.unsettled.append
        self._drained = 0
        self._failures = 0  # failed logins that were logged
        self._started = time.monotonic()
        facts = SessionFacts(identity, peer.address, peer.port, None, None, time.time())
        self._session = Session(
            relay.policy,
            facts=facts,
            journal=self._journal,
            counters=relay.slot.counters,
            guard=relay.guard,
            rules=relay.rules,
        )
        seat.open(peer.address, peer.port, identity)

    @_contained
    def begin(self) -> None:
        """Start the session, once it is known who the client is."""
        client = self._client.socket
        client.setblocking(False)  # its other options it has of its listener
        trusted = self._relay.service.proxy_protocol_from
        if not trusted:
            self._start(self._started)
            return
        if not any(ip_address(self._peer.address) in network for network in trusted):
            self._turn_away("it comes from outside proxy_protocol_from")
            return
        self._arrival = Arrival(client, poller=self._relay.poller, now=self._started, done=self._arrived)
        self._due(self._arrival.deadline)

    @_contained
    def _arrived(self, header: Header | None, reason: str) -> None:
        self._arrival = None
        if header is None:
            self._turn_away(reason)
            return
        if header.client is not None and header.reached is not None:
            self._peer = Peer(header.client.address, header.client.port)
            self._session.introduce(self._peer.address, self._peer.port)
            self._reached = Peer(header.reached.address, header.reached.port)
            self._tally.introduce(self._peer)
            if self._relay.service.max_sessions_per_client:
                self._undecided = True
                self._decision_by = time.monotonic() + _DECISION_SECONDS
                self._relay.ask(self, self._peer.address)
                self._due(self._decision_by)
                return
        self._start(time.monotonic())

    @_contained
    def decided(self, *, admitted: bool) -> None:
        """The master has counted this client's sessions."""
        self._undecided = False
        now = time.monotonic()
        if admitted:
            self._start(now)
            return
        self._session.refuse(TOO_MANY, "too many sessions from this address (max_sessions_per_client)")
        self.settle(now)

    def _turn_away(self, reason: str) -> None:
        """No session: the sender can't be told in a protocol that it did not begin."""
        self._journal.warning(f"connection of {self._peer.address} closed: {reason}")
        self._session.shutdown(reason)
        self._close()

    def _start(self, now: float) -> None:
        self._session.start(now)
        self.settle(now)

    def _reach(self, now: float) -> None:
        """Connect to the server."""
        relay = self._relay
        self._reach_began = now
        self._connector = Connector(
            relay.route,
            timeout=relay.service.connect_timeout,
            poller=relay.poller,
            done=self._connected,
            due=self._due,
            speaks_first=relay.server_speaks_first,
            patience=self._session.policy.timeout / 1000,
        )
        self._connector.start(now)

    def _due(self, when: float) -> None:
        """Something is to be done at this time at the latest."""
        if when < self.scheduled:
            self._relay.schedule(when, self)

    @_contained
    def _connected(self, connection: socket.socket | None, peer: Peer | None, reason: str) -> None:
        connector, self._connector = self._connector, None
        now = time.monotonic()
        if connection is None or peer is None or connector is None:
            self._tally.connect_failed()
            self._session.connect_failed(reason, now)
        else:
            server = self._server = Stream(connection, mask=READ)
            self._relay.poller.hand_over(connection.fileno(), self._server_ready)
            self._tally.connected(peer, now - (self._reach_began or now))
            self._send_proxy_header(server)
            if self._relay.server_speaks_first:  # what it said is how it is known to be connected
                self._session.connected(connector.began, peer.address, peer.port)
                self._hear_server(server, now)
            else:
                self._session.connected(now, peer.address, peer.port)
        self.settle(now)

    def _send_proxy_header(self, server: Stream) -> None:
        version = self._relay.service.send_proxy
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
        contexts = self._relay.tls
        assert contexts is not None  # noqa: S101 - made for every service whose rules ask for TLS
        if side is Side.CLIENT:
            self._register(self._client, 0, self._client_ready)
            self._client = self._hands = contexts.to_client(self._client)
        elif self._server is not None:
            self._register(self._server, 0, self._server_ready)
            self._server = self._hands = contexts.to_server(self._server)
            self._shake_by = now + self._relay.service.connect_timeout
        self._shake(now)

    def _shake(self, now: float) -> None:
        hands, side = self._hands, self._session.tls_wanted
        if hands is None or side is None:
            return
        self._session.changed = True  # what it waits for next may be something else
        try:
            done = hands.shake_hands()
        except OSError as error:
            self._shake_failed(str(error), now)
            return
        if done:
            self._hands, self._shake_by = None, NEVER
            self._tally.tls_started(side, hands.facts().version)
            self._session.tls_started(side, hands.facts(), now, hands.subject() if side is Side.CLIENT else None)
            if hands.holds and side is Side.CLIENT:
                self._hear_client(now)
            elif hands.holds:
                self._hear_server(hands, now)

    def _shake_failed(self, reason: str, now: float) -> None:
        side = self._session.tls_wanted
        self._hands, self._shake_by = None, NEVER
        if side is not None:
            self._tally.tls_failed(side)
            self._session.tls_failed(side, reason, now)
        if side is Side.CLIENT:
            self._client.ended = True

    # -- events of the poller

    def _client_ready(self, events: int) -> None:
        try:
            if events == READ and self._hands is None and not self.unsettled and not self.closed:
                self._hear_client(time.monotonic())
            else:
                self._client_stirred(events)
        except Exception:  # noqa: BLE001 - the fault is logged with its traceback
            self.fault()
        self.unsettled = True
        self._settle_later(self)

    def _server_ready(self, events: int) -> None:
        try:
            if events == READ and self._hands is None and not self.unsettled and self._server is not None:
                self._hear_server(self._server, time.monotonic())
            else:
                self._server_stirred(events)
        except Exception:  # noqa: BLE001 - the fault is logged with its traceback
            self.fault()
        self.unsettled = True
        self._settle_later(self)

    def _client_stirred(self, events: int) -> None:
        """Something else than mere input, or not the first in this round: what is waited for may have changed."""
        now = time.monotonic()
        if self.unsettled:
            self.settle(now)
        if self.closed:
            return
        client = self._client
        if self._hands is not None:
            if client is self._hands:
                self._shake(now)
            return
        if events & (WRITE | BROKEN) and client.mask & WRITE:
            try:
                self._flush(Side.CLIENT, client, now)
            except OSError:
                self._client_gone(now)
        if events & (READ | BROKEN) and client.mask & READ:
            self._hear_client(now)

    def _server_stirred(self, events: int) -> None:
        """Something else than mere input, or not the first in this round: what is waited for may have changed."""
        now = time.monotonic()
        if self.unsettled:
            self.settle(now)
        server = self._server
        if server is None:
            return
        if self._hands is not None:
            if server is self._hands:
                self._shake(now)
            return
        if events & (WRITE | BROKEN) and server.mask & WRITE:
            try:
                self._flush(Side.SERVER, server, now)
            except OSError:
                self._session.server_eof(now)
        if events & (READ | BROKEN) and server.mask & READ:
            self._hear_server(server, now)

    def _hear_client(self, now: float) -> None:
        client = self._client
        try:
            data = client.read()
        except OSError:
            self._client_gone(now)
            return
        if self._close_at is not None:
            self._drained += len(data or b"")
            return
        if data:
            self._session.client_data(data, now)
        if client.ended:
            self._session.client_eof(now)

    def _hear_server(self, server: Stream, now: float) -> None:
        try:
            data = server.read()
        except OSError:
            self._session.server_eof(now)
            return
        if data:
            self._session.server_data(data, now)
        if server.ended:
            self._session.server_eof(now)

    def _client_gone(self, now: float) -> None:
        self._client.ended = True
        self._client.unsent = None
        self._session.client_lost(now)

    def _flush(self, side: Side, stream: Stream, now: float) -> None:
        if stream.flush():
            self._session.flowing(now)
            return
        self._session.blocked(side, now)
        if self._close_at is not None:
            self._close_at = now + _LAST_WORDS_SECONDS

    @_contained
    def expire(self, now: float) -> None:
        """A deadline may have come."""
        if self._arrival is not None:
            self._arrival.expire()
            return
        if self._undecided:
            if now < self._decision_by:
                self._due(self._decision_by)
            else:
                self._turn_away("the master does not say whether this client may have a session")
            return
        if self._connector is not None:
            if now >= self._connector.deadline:
                self._connector.expire(now)
        elif now >= self._shake_by:
            self._shake_failed("it was not done within connect_timeout", now)
        else:
            self._session.expire(now)
        self._session.changed = True  # whatever has come of it: the next deadline is to be looked for
        self.settle(now)

    @_contained
    def end(self, reason: str, ending: Ending = Ending.SHUTDOWN) -> None:
        """End the session at once, without waiting for anything; what was said before goes out if it can."""
        if self.unsettled:
            self.settle(time.monotonic())
        self._session.shutdown(reason, ending)
        self._close()

    # -- what follows

    def settle(self, now: float) -> None:
        """Send what the session said, and see what else has come of it. What it raises is for ``fault``."""
        self.unsettled = False
        if self.closed:
            return
        session = self._session
        if session.to_client:
            self._send(Side.CLIENT, self._client, session.to_client, now)
        if session.to_server and self._server is not None:
            self._send(Side.SERVER, self._server, session.to_server, now)
        self._tally.count(self._client)
        if session.moved:
            session.moved = False
            self._tally.show(session)
        if session.changed:
            self._follow(now)

    def _send(self, side: Side, stream: Stream, chunks: list[bytes], now: float) -> None:
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        try:
            if not stream.write(data):
                self._session.blocked(side, now)
        except OSError:
            # A server that is gone says so to the next read, behind what it may still have sent.
            if side is Side.CLIENT:
                self._client_gone(now)

    def _follow(self, now: float) -> None:
        """Wait for the right things until the right time; or end it."""
        session = self._session
        if session.callback_failures:
            self._tally.count_failures(session.callback_failures)
        if session.logins_failed != self._failures:
            self._failures = session.logins_failed
            self._journal.login_failed(self._peer.address, session.user)
        if session.over:
            self._finish(now)
            return
        session.changed = False
        if session.tls_wanted is not None and self._hands is None and self._all_sent():
            self._begin_tls(session.tls_wanted, now)
            session.changed = True
            self.settle(now)
            return
        if session.wants_server and self._reach_began is None:
            self._reach(now)
            if self.closed or self._connector is None:
                return
        self._wait()
        deadline = session.deadline if self._connector is None else self._connector.deadline
        if deadline is not None:
            self._due(min(deadline, self._shake_by))

    def _all_sent(self) -> bool:
        return self._client.unsent is None and (self._server is None or self._server.unsent is None)

    def _wait(self) -> None:
        """Read where reading is wanted and nothing is unsent, write where something is."""
        client, server, session = self._client, self._server, self._session
        hands = self._hands
        if hands is not None:
            self._register(client, hands.waits_for if client is hands else 0, self._client_ready)
            if server is not None:
                self._register(server, hands.waits_for if server is hands else 0, self._server_ready)
            return
        full = client.unsent is not None
        stuck = server is not None and server.unsent is not None
        mask = 0 if full or stuck or not session.reads_client else READ
        self._register(client, mask | WRITE if full else mask, self._client_ready)
        if server is not None:
            mask = 0 if full or not session.reads_server else READ
            self._register(server, mask | WRITE if stuck else mask, self._server_ready)

    def _register(self, stream: Stream, mask: int, call: Callable[[int], None]) -> None:
        if mask == stream.mask:
            return
        poller, descriptor = self._relay.poller, stream.socket.fileno()
        if not stream.mask:
            poller.watch(descriptor, mask, call)
        elif mask:
            poller.change(descriptor, mask)
        else:
            poller.forget(descriptor)
        stream.mask = mask

    # -- the end

    def _finish(self, now: float) -> None:
        """The session is over: the server goes at once, the client when it has got its last answer."""
        client = self._client
        if self._close_at is None:
            self._hands, self._shake_by = None, NEVER
            self._close_server()
            self._tally.conclude(self._session, client, now - self._started)
            self._close_at = now + _LAST_WORDS_SECONDS
            if client.unsent is None:
                self._end_writing(now)
        elif client.unsent is None and not client.mask & READ:
            self._end_writing(now)
        if (client.ended and client.unsent is None) or self._drained > _DRAIN_OCTETS or now >= self._close_at:
            self._close()
            return
        self._register(client, WRITE if client.unsent is not None else READ, self._client_ready)
        self._due(self._close_at)

    def _end_writing(self, now: float) -> None:
        self._close_at = now + _DRAIN_SECONDS
        try:
            self._client.end_writing()
        except OSError:
            self._client.ended = True

    def fault(self) -> None:
        """The gateway itself failed: this session ends, with nothing said that could look whole."""
        self._journal.error(f"a fault of the gateway, please report it: {traceback.format_exc()}")
        self._session.fail()
        self._close()

    def _close_server(self) -> None:
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None
        if self._connector is not None:
            self._connector.cancel()
            self._connector = None
        if self._server is not None:
            self._register(self._server, 0, self._server_ready)
            self._server.close()
            self._server = None

    def _close(self) -> None:
        if self.closed:
            return
        self._tally.count(self._client)
        self._tally.count_failures(self._session.callback_failures)
        if self._close_at is None:
            self._tally.conclude(self._session, self._client, time.monotonic() - self._started)
        self._close_server()
        self._register(self._client, 0, self._client_ready)
        self._client.close()
        self.closed = True
        self._relay.done(self)
