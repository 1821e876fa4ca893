"""Moves bytes for the sessions of one worker, on the worker's selector.

Each session's decisions are made by ``proto.session``; here are its two connections, its clock, and the order of
things: nothing is read from one side while the other has not taken what it was sent, what is answered before a close is
delivered, and a side that is done with is closed at once. It knows nothing of POP3.
"""

from __future__ import annotations

import heapq
import logging
import secrets
import selectors
import socket
import time
import traceback
from collections.abc import Callable
from typing import Concatenate, ParamSpec

from pop3gw.callguard import CallGuard
from pop3gw.logs import SessionLog
from pop3gw.net import Connector, Peer, tune
from pop3gw.policy import AbstractPop3Proxy, SessionFacts
from pop3gw.proto.commands import State
from pop3gw.proto.events import Ending, Side, Summary
from pop3gw.proto.session import Session
from pop3gw.scoreboard import Count, Seat, Slot
from pop3gw.settings import Service
from pop3gw.stream import Stream
from pop3gw.values import Address

# After the last answer: how long, and for how many octets, the client may go on before its connection is closed.
# Closing over unread input would reset the connection, and the reset would eat the answer.
_DRAIN_SECONDS = 2.0
_DRAIN_OCTETS = 256 * 1024
# How long a client may take no octet of what it is still owed at the end.
_LAST_WORDS_SECONDS = 30.0
_COUNTS = (
    Count.LOGINS,
    Count.LOGIN_FAILURES,
    Count.REFUSALS,
    Count.MESSAGES,
    Count.FROM_CLIENT,
    Count.TO_CLIENT,
)
P = ParamSpec("P")
_NEVER = float("inf")
_LOG = logging.getLogger(__name__)

_READ = selectors.EVENT_READ
_WRITE = selectors.EVENT_WRITE


class Relay:
    """All sessions of one worker process. See ``worker.Sessions`` for what each method promises."""

    def __init__(
        self,
        *,
        service: Service,
        policy: type[AbstractPop3Proxy],
        selector: selectors.BaseSelector,
        slot: Slot,
        listeners: frozenset[Address],
        ended: Callable[[Seat], None],
    ) -> None:
        self.service = service
        self.policy = policy
        self.selector = selector
        self.slot = slot
        self.listeners = listeners
        self.ended = ended
        self.guard = CallGuard(self._give_up)
        self._running: set[Conversation] = set()
        # Deadlines mostly move later: an entry is looked at again when its time comes, not moved each time.
        self._deadlines: list[tuple[float, int, Conversation]] = []
        self._entries = 0

    def adopt(self, client: socket.socket, peer: Peer, _local: Peer, seat: Seat) -> None:
        """Begin a session."""
        conversation = Conversation(self, client, peer, seat)
        self._running.add(conversation)
        conversation.begin()

    def deadline(self) -> float | None:
        """When ``expire`` is wanted."""
        return self._deadlines[0][0] if self._deadlines else None

    def expire(self, now: float) -> None:
        """Do what is due."""
        while self._deadlines and self._deadlines[0][0] <= now:
            _when, _entry, conversation = heapq.heappop(self._deadlines)
            conversation.scheduled = _NEVER
            if conversation in self._running:
                conversation.expire(now)

    def schedule(self, when: float, conversation: Conversation) -> None:
        """``conversation.expire`` is to be called at this time at the latest."""
        conversation.scheduled = when
        self._entries += 1
        heapq.heappush(self._deadlines, (when, self._entries, conversation))

    def end_all(self, reason: str) -> None:
        """End every session at once."""
        for conversation in list(self._running):
            conversation.end(reason)

    def done(self, conversation: Conversation) -> None:
        """A conversation has closed its connections."""
        self._running.discard(conversation)
        if not self._running:
            self._deadlines.clear()
        self.ended(conversation.seat)

    def _give_up(self) -> None:
        _LOG.error(
            "service %s: a callback of %s swallows each interruption by callback_timeout: this worker ends, with its"
            " sessions; let the callback pass BaseException on",
            self.service.name,
            self.service.policy,
        )


def _contained(method: Callable[Concatenate[Conversation, P], None]) -> Callable[Concatenate[Conversation, P], None]:
    """Whatever goes wrong in one conversation ends that one alone."""

    def call(conversation: Conversation, /, *arguments: P.args, **named: P.kwargs) -> None:
        # The selector may still hold an event for what another event of the same round has closed.
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
        "_client",
        "_close_at",
        "_connector",
        "_counted",
        "_drained",
        "_journal",
        "_relay",
        "_server",
        "_server_shown",
        "_session",
        "_shown",
        "_started",
        "closed",
        "scheduled",
        "seat",
    )

    def __init__(self, relay: Relay, client: socket.socket, peer: Peer, seat: Seat) -> None:
        identity = secrets.token_hex(6)
        self.closed = False
        self.seat = seat
        self.scheduled = _NEVER
        self._relay = relay
        self._client = Stream(client)
        self._server: Stream | None = None
        self._server_shown = str(relay.service.server)
        self._connector: Connector | None = None
        self._journal = SessionLog(identity, relay.service.name)
        self._shown: tuple[State, str | None] | None = None
        self._counted = (0,) * len(_COUNTS)
        self._close_at: float | None = None  # set once the session is over and summarized
        self._drained = 0
        self._started = time.monotonic()
        facts = SessionFacts(identity, peer.address, peer.port, began=time.time())
        self._session = Session(relay.policy, facts=facts, journal=self._journal, guard=relay.guard)
        relay.slot.add(Count.SESSIONS)
        seat.show(session=identity)

    @_contained
    def begin(self) -> None:
        """Start the session and reach for the server."""
        now = self._started
        try:
            tune(self._client.socket)
            self._session.start(now)
            if self._session.wants_server:
                service = self._relay.service
                self._connector = Connector(
                    service.server,
                    timeout=service.connect_timeout,
                    listeners=self._relay.listeners,
                    selector=self._relay.selector,
                    done=self._connected,
                )
                self._connector.start(now)
        except OSError:
            self._session.client_lost(now)
        self._proceed(now)

    @_contained
    def _connected(self, connection: socket.socket | None, peer: Peer | None, reason: str) -> None:
        self._connector = None
        now = time.monotonic()
        if connection is None or peer is None:
            self._relay.slot.add(Count.CONNECT_FAILURES)
            self._session.connect_failed(reason, now)
        else:
            self._server = Stream(connection)
            self._server_shown = str(Address(peer.address, peer.port))
            self._session.connected(now, peer.address, peer.port)
        self._proceed(now)

    # -- events of the selector

    @_contained
    def _client_ready(self, mask: int) -> None:
        client, now = self._client, time.monotonic()
        try:
            if mask & _WRITE:
                self._flush(Side.CLIENT, client, now)
            if mask & client.mask & _READ:
                data = client.read()
                if self._close_at is not None:
                    self._drained += len(data or b"")
                elif data:
                    self._session.client_data(data, now)
                elif data is not None:
                    self._session.client_eof(now)
        except OSError:
            self._client_gone(now)
        self._proceed(now)

    @_contained
    def _server_ready(self, mask: int) -> None:
        server, now = self._server, time.monotonic()
        if server is None:
            return
        try:
            if mask & _WRITE:
                self._flush(Side.SERVER, server, now)
            if mask & server.mask & _READ:
                data = server.read()
                if data:
                    self._session.server_data(data, now)
                elif data is not None:
                    self._session.server_eof(now)
        except OSError:
            server.ended = True
            self._session.server_eof(now)
        self._proceed(now)

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
        if self._connector is None:
            self._session.expire(now)
        elif now >= self._connector.deadline:
            self._connector.expire(now)
        self._proceed(now)

    def end(self, reason: str) -> None:
        """End the session at once, without waiting for anything."""
        self._session.shutdown(reason)
        self._close()

    # -- what follows

    def _proceed(self, now: float) -> None:
        """Send what the session said, show where it stands, and wait for the right things."""
        session = self._session
        if self.closed:
            return
        if session.to_client:
            chunks, session.to_client = session.to_client, []
            self._send(Side.CLIENT, self._client, chunks, now)
        if session.to_server and self._server is not None:
            chunks, session.to_server = session.to_server, []
            self._send(Side.SERVER, self._server, chunks, now)
        self._count()
        if session.over:
            self._finish(now)
            return
        self._show()
        self._wait()
        deadline = session.deadline if self._connector is None else self._connector.deadline
        if deadline is not None and deadline < self.scheduled:
            self._relay.schedule(deadline, self)

    def _send(self, side: Side, stream: Stream, chunks: list[bytes], now: float) -> None:
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        try:
            if not stream.write(data):
                self._session.blocked(side, now)
        except OSError:
            # A server that is gone says so to the next read, behind what it may still have sent.
            if side is Side.CLIENT:
                self._client_gone(now)

    def _wait(self) -> None:
        """Read where reading is wanted and nothing is unsent, write where something is."""
        client, server, session = self._client, self._server, self._session
        full = client.unsent is not None
        stuck = server is not None and server.unsent is not None
        mask = 0 if full or stuck or not session.reads_client else _READ
        self._register(client, mask | _WRITE if full else mask, self._client_ready)
        if server is not None:
            mask = 0 if full or not session.reads_server else _READ
            self._register(server, mask | _WRITE if stuck else mask, self._server_ready)

    def _register(self, stream: Stream, mask: int, call: Callable[[int], None]) -> None:
        if mask == stream.mask:
            return
        selector = self._relay.selector
        if not stream.mask:
            selector.register(stream.socket, mask, call)
        elif mask:
            selector.modify(stream.socket, mask, call)
        else:
            selector.unregister(stream.socket)
        stream.mask = mask

    def _show(self) -> None:
        """Put what has changed where titles and status are read."""
        session = self._session
        shown = (session.state, session.user)
        if shown != self._shown:
            self._shown = shown
            self.seat.show(state=session.state.value, user=session.user or "")

    def _count(self) -> None:
        """Put what has grown where it outlives this process."""
        session, client = self._session, self._client
        login = session.login is not None
        counted = (login, session.logins_failed, session.refused, session.retrieved, client.received, client.sent)
        if counted != self._counted:
            for count, new, old in zip(_COUNTS, counted, self._counted, strict=True):
                if new != old:
                    self._relay.slot.add(count, new - old)
            self._counted = counted

    # -- the end

    def _finish(self, now: float) -> None:
        """The session is over: the server goes at once, the client when it has got its last answer."""
        client = self._client
        if self._close_at is None:
            self._close_server()
            self._summarize(now)
            self._close_at = now + _LAST_WORDS_SECONDS
            if client.unsent is None:
                self._end_writing(now)
        elif client.unsent is None and not client.mask & _READ:
            self._end_writing(now)
        if client.ended or self._drained > _DRAIN_OCTETS or now >= self._close_at:
            self._close()
            return
        self._register(client, _WRITE if client.unsent is not None else _READ, self._client_ready)
        if self._close_at < self.scheduled:
            self._relay.schedule(self._close_at, self)

    def _end_writing(self, now: float) -> None:
        self._close_at = now + _DRAIN_SECONDS
        try:
            self._client.end_writing()
        except OSError:
            self._client.ended = True

    def _summarize(self, now: float) -> None:
        session, client = self._session, self._client
        facts = session.policy.session
        self._journal.summary(
            Summary(
                client=str(Address(facts.client_address or "-", facts.client_port or 0)),
                server=self._server_shown,
                user=session.user,
                login=session.login,
                retrieved=session.retrieved,
                deleted=session.deleted,
                from_client=client.received,
                to_client=client.sent,
                seconds=now - self._started,
                end=session.ending or Ending.FAULT,
                by=session.ended_by or Side.GATEWAY,
            )
        )

    def fault(self) -> None:
        """The gateway itself failed: this session ends, with nothing said that could look whole."""
        self._journal.error(f"a fault of the gateway, please report it: {traceback.format_exc()}")
        self._session.fail()
        self._close()

    def _close_server(self) -> None:
        if self._connector is not None:
            self._connector.cancel()
            self._connector = None
        if self._server is not None:
            self._register(self._server, 0, self._server_ready)
            self._server.close()
            self._server = None

    def _close(self) -> None:
        if self._close_at is None:
            self._summarize(time.monotonic())
        self._close_server()
        self._register(self._client, 0, self._client_ready)
        self._client.close()
        self.closed = True
        self._relay.done(self)
