"""The two connections of a session: what comes goes into the session, what the session says goes out.

It reads and writes whole buffers, and watches each side for what is wanted of it. It must not know when that is done,
nor how a session begins and ends: a ``conversation`` does, which is made of this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pop3gw.poller import BROKEN, READ, WRITE, Poller
from pop3gw.proto.events import Side
from pop3gw.proto.session import Session
from pop3gw.stream import Connection, Stream, reason_of

# Requests are short. What is read at once is decided at once: a flood of them must not delay a worker's other sessions.
_CLIENT_READ: Final = 4096
# How ends what is whole. Of a peer that has not turned off Nagle's algorithm the rest comes once this has been
# acknowledged, which the system puts off for 40 ms where nothing is said meanwhile (RFC 9293 section 3.8.6.3).
_LINE_FEED: Final = 10
_LINE_ENDS: Final = b"\n"
_CONTENT_ENDS: Final = b"\r\n.\r\n"


def _taken(chunks: list[bytes]) -> bytes:
    """What was to be sent, in one piece (of one chunk: that chunk itself); nothing is left."""
    data = b"".join(chunks)
    chunks.clear()  # not pop(): a list that is resized to nothing comes of the system's allocator from then on
    return data


def wanted(*, full: bool, stuck: bool, reads_client: bool, reads_server: bool) -> tuple[int, int]:
    """The events to wait for, of the client and of the server: input where it is read, room where something is unsent.

    ``full`` is a client, ``stuck`` a server that has not taken all it was sent: then nothing is read for it. That the
    client is gone is noticed in any case, by a reset: one that only sends no more still gets its answers.
    """
    of_client = READ if reads_client and not full and not stuck else BROKEN
    of_server = READ if reads_server and not full else 0
    return of_client | WRITE if full else of_client, of_server | WRITE if stuck else of_server


class Pump:
    """One session with its client and, once it is connected, its server; ``closed``: nothing goes through any more."""

    __slots__ = ("_client", "_poller", "_server", "_session", "closed")

    _session: Session

    def __init__(self, poller: Poller, client: Connection) -> None:
        self.closed = False
        self._poller = poller
        self._client = Stream(client, _CLIENT_READ)
        self._server: Stream | None = None

    # -- what is heard

    def _hear_client(self, now: float) -> None:
        client = self._client
        try:
            data = client.read()
        except OSError as error:
            self._client_gone(error, now)
            return
        if data:
            self._session.client_data(data, now)
            if data[-1] != _LINE_FEED:
                client.acknowledge()
        if client.unsent is not None:  # TLS had to answer what it read by itself: no more is read until that is taken
            self._session.blocked(Side.CLIENT, now)
        if client.ended:
            if client.failure is None:
                self._session.client_eof(now)
            else:
                self._client_gone(client.failure, now)

    def _hear_server(self, server: Stream, now: float) -> None:
        try:
            data = server.read()
        except OSError as error:
            self._session.server_lost(reason_of(error), now)
            return
        if data:
            self._session.server_data(data, now)
            if not data.endswith(_CONTENT_ENDS if server.much else _LINE_ENDS):
                server.acknowledge()
        if server.unsent is not None and server.answers:  # as with clients
            self._session.blocked(Side.SERVER, now)
        if server.ended:
            if server.failure is None:
                self._session.server_eof(now)
            else:
                self._session.server_lost(reason_of(server.failure), now)

    def _client_gone(self, error: OSError, now: float) -> None:
        self._client.lose()
        self._session.client_lost(reason_of(error), now)

    # -- what is said

    def speak(self, now: float) -> None:
        """Send what the session said. What it raises is for ``fault``."""
        session = self._session
        if self.closed:
            return
        if session.to_client:
            try:
                if not self._client.write(_taken(session.to_client)):
                    session.blocked(Side.CLIENT, now)
            except OSError as error:
                self._client_gone(error, now)
        if session.to_server and (server := self._server) is not None:
            if session.much_awaited is not server.much:
                server.expect(much=session.much_awaited)
            try:
                if not server.write(_taken(session.to_server)):
                    session.blocked(Side.SERVER, now)
            except OSError:
                pass  # a server that is gone says so to the next read, behind what it may still have sent

    def _flush(self, side: Side, stream: Stream, now: float) -> None:
        if stream.flush():
            self._session.flowing(now)
        else:
            self._session.blocked(side, now)

    def _all_sent(self) -> bool:
        return self._client.unsent is None and (self._server is None or self._server.unsent is None)

    # -- what is waited for

    def _watch(self, stream: Stream, mask: int, call: Callable[[int], None]) -> None:
        """Call this for these events of the stream's connection, for no others."""
        if mask == stream.mask:
            return
        if not mask:
            self._unwatch(stream)
        elif stream.mask:
            self._poller.change(stream.socket.fileno(), mask)
            stream.mask = mask
        else:
            self._poller.watch(stream.socket.fileno(), mask, call)
            stream.mask = mask

    def _unwatch(self, stream: Stream) -> None:
        if stream.mask:
            self._poller.forget(stream.socket.fileno())
            stream.mask = 0

    def _hand_over(self, stream: Stream, call: Callable[[int], None]) -> None:
        """Another is called for what this stream is watched for."""
        if stream.mask:
            self._poller.hand_over(stream.socket.fileno(), call)
