"""The usual requests and answers, decided in one go. The fast path of a session; everything else goes the long way.

Pure. Most of what passes is a request of the TRANSACTION state that came as one whole line, holds no secret, and is
accepted by an entry without a callback; and the ``+OK`` to a request, whole in one buffer. For both a session needs
few of the steps that ``clientside``, ``requests``, ``answers`` and ``content`` take, and those cost as much as all
system calls together.

It decides nothing in another way: whatever it is not sure of, it leaves alone (False) for the long way to look at. A
test plays the same conversations with and without it. What a line asks for is the same in each session, so it is
found out once and kept (``_KEPT``); what the policy says to it is asked each time.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from pop3gw.policy import POP3_REQ_ACCEPT
from pop3gw.proto.clientside import ClientSide
from pop3gw.proto.commands import COMMANDS, BadArgumentError, Limits, Secret, Shape, State
from pop3gw.proto.counts import RELAYED, REQUEST_AT
from pop3gw.proto.requests import Relay
from pop3gw.proto.turns import STATUS
from pop3gw.proto.wire import CONTROL, CRLF, TERMINATOR, terminator_in

_MOST_KEPT: Final = 512  # lines: message numbers make many of them
_NUMBERS: Final = re.compile(r"[0-9 ]{,24}")  # an argument that may be kept
_TRANSACTION: Final = State.TRANSACTION
_GOOD: Final = re.compile(rb"\+OK(?: [^\r\n\0]*)?\r\n")  # a whole status line that is no error
_FILTERED: Final = "CAPA"  # its answer never passes as it came


class _Usual(NamedTuple):
    """What one line asks for."""

    relay: Relay
    wire: bytes  # as it is relayed
    length: int  # octets of the line, without its end
    counter: int


_KEPT: Final[dict[bytes, _Usual]] = {}


def _understood(data: bytes, limits: Limits) -> _Usual | None:
    """What a whole line asks for; None where it holds a name or a secret, or anything is odd about it."""
    line = data[:-2] if data[-2:] == CRLF else data[:-1]
    word, _space, rest = line.partition(b" ")
    row = COMMANDS.get(word.upper().decode("latin-1"))
    if row is None or _TRANSACTION not in row.states or row.secret is not Secret.NOTHING or row.shape is Shape.LOCAL:
        return None
    if row.name == _FILTERED or data[-1:] != b"\n" or CONTROL.search(line):
        return None
    try:
        argument = row.argument(rest.decode("utf-8", "surrogateescape"), limits)
    except BadArgumentError:
        return None
    relay = Relay(row.name, argument, row, row.multiline(argument), row.name)
    usual = _Usual(relay, relay.line() + CRLF, len(line), REQUEST_AT[row.name] + RELAYED)
    # Nothing of a client's own words is kept: what a command drops may be a password that was sent at the wrong time.
    if data == usual.wire and _NUMBERS.fullmatch(argument):
        if len(_KEPT) >= _MOST_KEPT:
            _KEPT.clear()
        _KEPT[data] = usual
    return usual


class FastPath(ClientSide):
    """The fast path of a session."""

    __slots__ = ()

    def _usual_request(self, data: bytes, now: float) -> bool:
        """Relay what the client sent while nothing else of it was waiting; False: that is not for the fast path."""
        if self.state is not _TRANSACTION:
            return False
        policy = self.policy
        usual = _KEPT.get(data) or _understood(data, policy)
        if usual is None:
            return False
        relay, wire, length, counter = usual
        entry = policy.request.get(relay.name)
        if type(entry) is not int or entry != POP3_REQ_ACCEPT or length > policy.max_request_line_length:
            return False
        if self._server.left:
            return False
        if self._journal.conversation:
            asked = data[:length].decode("utf-8", "surrogateescape")
            self._journal.debug(f"client: {self._shown(relay.name, asked.partition(' ')[2])}")
            self._journal.debug(f"to server: {relay.shown()}")
        self._relay = relay
        self.to_server.append(wire)
        self.counters[counter] += 1
        self._turns.take(STATUS, now)
        return True

    def _usual_answer(self, data: bytes, now: float) -> bool:
        """Relay what the server sent, an answer being awaited; False: that is not for the fast path."""
        relay, policy = self._relay, self.policy
        good = _GOOD.match(data)
        if good is None or relay.response_callback is not None or relay.name == _FILTERED:
            return False
        end = good.end()
        status = end - 2
        if status > policy.max_response_line_length:
            return False
        if (form := relay.row.status) is not None and form.fullmatch(data, 4, status) is None:
            return False
        if relay.multiline:
            if not policy.permit_longline or policy.strict_line_endings:
                return False
            end = terminator_in(data, status) + len(TERMINATOR)
        if end != len(data):
            return False
        if self._journal.conversation:
            self._journal.debug(f"server: {data[:status].decode('utf-8', 'surrogateescape')}")
        self._conclude(relay, data, now, ok=True)
        return True
