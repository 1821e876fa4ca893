"""The loop of an attendant: it answers short questions over a listening socket, and nobody can hold it up.

A question ends with a mark, must be whole within a time and a length, and is answered once, now or later; then its
connection is closed. Nothing here waits for a single connection. Who comes while the house is full takes the place of
the one that has been silent the longest; a ``Responder`` lets fewer wait for their answer than there are places. What
is asked only that one knows; of what the master says this module knows that it has to leave, the rest is handed on.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Final, Protocol

from pop3gw.errors import ChannelError
from pop3gw.fdpass import Channel
from pop3gw.messages import Message, Retire
from pop3gw.poller import READ, WRITE, Poller
from pop3gw.times import NEVER

GUESTS: Final = 32  # connections at a time
ASK_LIMIT: Final = 5.0  # s for a whole question
TAKE_LIMIT: Final = 10.0  # s in which a part of the answer must be taken
LEAVE_LIMIT: Final = 2.0  # s for the last answers, when the master is gone


class Question:
    """One connection: what it asks, and what it is told."""

    __slots__ = ("_answered", "connection", "due", "mask", "text", "unsent")

    def __init__(self, connection: socket.socket, due: float) -> None:
        self.connection = connection
        self.due = due
        self.mask = 0
        self.text = bytearray()
        self.unsent: memoryview | None = None  # None: not answered yet
        self._answered: Callable[[Question], None] | None = None  # set once it is whole

    @property
    def whole(self) -> bool:
        """Whether all of it has come."""
        return self._answered is not None

    def asked(self, answered: Callable[[Question], None]) -> None:
        """It is whole: ``answered`` is to be called when there is an answer."""
        self._answered = answered
        self.due = NEVER

    def answer(self, data: bytes) -> None:
        """Answer it, once."""
        if self.unsent is None and self._answered is not None:
            self.unsent = memoryview(data)
            self._answered(self)


class Responder(Protocol):
    """What an attendant does."""

    mark: bytes  # what a question ends with
    limit: int  # octets of a question
    too_long: bytes  # the answer to a longer one

    def refusal(self, connection: socket.socket) -> bytes | None:
        """What to say to somebody who may not ask; None: they may."""

    def ask(self, question: Question) -> None:
        """Answer this question, now or later."""

    def hear(self, message: Message) -> None:
        """The master says this."""

    def tick(self, now: float) -> float:
        """Do what is due; returns when it wants to be called again."""


class Answering:
    """Runs a responder over a listening socket until the master retires it or is gone."""

    def __init__(self, responder: Responder, listener: socket.socket, channel: Channel) -> None:
        self._responder = responder
        self._listener = listener
        self._channel = channel
        self._guests: dict[Question, None] = {}  # oldest first
        self._poller = Poller()
        self._open = True  # the listener is polled
        self._leaves_at = NEVER
        self._retired = False

    def run(self) -> None:
        """Answer until told to leave."""
        self._listener.setblocking(False)
        self._poller.watch(self._listener.fileno(), READ, self._accept)
        self._poller.watch(self._channel.fileno(), READ, self._hear)
        while not (self._retired and not self._guests) and time.monotonic() < self._leaves_at:
            now = time.monotonic()
            due = min(self._responder.tick(now), self._leaves_at, *(guest.due for guest in self._guests), NEVER)
            self._poller.poll(None if due == NEVER else max(0.0, due - now))
            now = time.monotonic()
            for guest in [guest for guest in self._guests if guest.due <= now]:
                self._drop(guest)
            self._poll(not self._retired and (len(self._guests) < GUESTS or self._silent() is not None))

    def _poll(self, wanted: bool) -> None:
        if wanted != self._open:
            self._open = wanted
            if wanted:
                self._poller.watch(self._listener.fileno(), READ, self._accept)
            else:
                self._poller.forget(self._listener.fileno())

    def _silent(self) -> Question | None:
        return next((guest for guest in self._guests if not guest.whole), None)

    def _accept(self, _mask: int) -> None:
        try:
            connection = self._listener.accept()[0]
        except OSError:  # it is gone again, or there is no descriptor for it
            return
        connection.setblocking(False)
        silent = self._silent()
        if len(self._guests) >= GUESTS and silent is not None:
            self._drop(silent)
        guest = Question(connection, time.monotonic() + ASK_LIMIT)
        self._guests[guest] = None
        self._register(guest, READ)

    def _register(self, guest: Question, mask: int) -> None:
        if mask == guest.mask:
            return
        if guest.mask:
            self._poller.forget(guest.connection.fileno())
        if mask:
            call = self._read if mask & READ else self._write
            self._poller.watch(guest.connection.fileno(), mask, lambda _mask: call(guest))
        guest.mask = mask

    def _read(self, guest: Question) -> None:
        try:
            data = guest.connection.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        guest.text += data
        responder = self._responder
        before, mark, _ = guest.text.partition(responder.mark)
        if not mark and len(guest.text) <= responder.limit:
            if not data:
                self._drop(guest)
            return
        self._register(guest, 0)
        guest.asked(self._send)
        # Not before it has asked: over octets that were not read, a close would eat the refusal.
        refusal = responder.too_long if len(before) > responder.limit else responder.refusal(guest.connection)
        if refusal is not None:
            guest.answer(refusal)
            return
        guest.text = before
        responder.ask(guest)

    def _send(self, guest: Question) -> None:
        if guest in self._guests:
            guest.due = time.monotonic() + TAKE_LIMIT
            self._write(guest)

    def _write(self, guest: Question) -> None:
        rest = guest.unsent
        if rest is None:
            return
        try:
            sent = guest.connection.send(rest, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(guest)
            return
        guest.unsent = rest[sent:]
        if not guest.unsent:
            self._drop(guest)
            return
        if sent:
            guest.due = time.monotonic() + TAKE_LIMIT
        self._register(guest, WRITE)

    def _drop(self, guest: Question) -> None:
        if self._guests.pop(guest, 0) is None:
            self._register(guest, 0)
            with contextlib.suppress(OSError):
                guest.connection.shutdown(socket.SHUT_WR)
            guest.connection.close()

    def _hear(self, _mask: int) -> None:
        try:
            received = self._channel.receive()
        except BlockingIOError:
            return
        except (ChannelError, OSError):
            received = None
        if received is None:  # the master is gone: what is answered may still be taken
            self._poller.forget(self._channel.fileno())
            self._leaves_at = time.monotonic() + LEAVE_LIMIT
        if received is None or isinstance(received[0], Retire):
            # Who has been let in may still ask: a question is on its way, or its time will soon be over.
            self._retired = True
            self._poll(False)
            for guest in [guest for guest in self._guests if received is None and guest.unsent is None]:
                self._drop(guest)
        else:
            self._responder.hear(received[0])
