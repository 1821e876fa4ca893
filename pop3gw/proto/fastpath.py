"""The usual requests and answers, decided in one go. The fast path of a session; everything else goes the long way.

Pure. Most of what passes is a request of the TRANSACTION state that came as one whole line, holds no secret, and is
accepted by an entry without a callback; and the ``+OK`` to a request, whole in one buffer. For both a session needs
few of the steps that ``clientside``, ``requests``, ``answers`` and ``content`` take, and those cost as much as all
system calls together.

It decides nothing in another way: whatever it is not sure of, it leaves to the long way, which it stands in front of. A
test plays the same conversations with and without it. What a line asks for is the same in each session, so it is
found out once and kept (``_KEPT``); what the policy says to it is asked each time.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from pop3gw.policy import POP3_REQ_ACCEPT
from pop3gw.proto.commands import COMMANDS, BadArgumentError, Limits, Secret, Shape, State
from pop3gw.proto.counts import RELAYED, REQUEST_AT
from pop3gw.proto.requests import Relay
from pop3gw.proto.serverside import ServerSide
from pop3gw.proto.turns import REQUEST, STATUS
from pop3gw.proto.wire import CONTROL, CRLF, TERMINATOR, begins_with_counts, good_status, terminator_in

_MOST_KEPT: Final = 512  # lines: message numbers make many of them
_NUMBERS: Final = re.compile(r"[0-9 ]{,24}")  # an argument that may be kept
_TRANSACTION: Final = State.TRANSACTION
_ACCEPT: Final[object] = POP3_REQ_ACCEPT


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
    if row.filtered or data[-1:] != b"\n" or CONTROL.search(line):
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
        _KEPT[usual.wire] = usual
    return usual


class FastPath(ServerSide):
    """Both sides of a session, the usual on the fast path."""

    __slots__ = ()

    def client_data(self, data: bytes, now: float) -> None:
        """The client sent this."""
        turns, policy = self._turns, self.policy
        if (
            self.state is _TRANSACTION
            and turns.phase is REQUEST
            and not self._client.left
            and not self._server.left
            and (usual := _KEPT.get(data) or _understood(data, policy)) is not None
        ):
            relay, wire, length, counter = usual
            # The same object, or the long way: what only equals 1 is not good enough.
            if policy.request.get(relay.name) is _ACCEPT and length <= policy.max_request_line_length:
                if self._told:
                    asked = data[:length].decode("utf-8", "surrogateescape")
                    self._journal.debug(f"client: {self._shown(relay.name, asked.partition(' ')[2])}")
                    self._journal.debug(f"to server: {relay.shown()}")
                self._relay = relay
                self.much_awaited = relay.multiline
                self.to_server.append(wire)
                self.counters[counter] += 1
                turns.take(STATUS, now)
                return
        super().client_data(data, now)

    def server_data(self, data: bytes, now: float) -> None:
        """The server sent this."""
        turns, policy, relay = self._turns, self.policy, self._relay
        if (
            turns.phase is STATUS
            and not self._server.left
            and (status := good_status(data, policy.max_response_line_length)) >= 0
            and relay.response_callback is None
            and not (row := relay.row).filtered
        ):
            end = status + len(CRLF)
            if not row.listing or begins_with_counts(data, 4, status):
                if relay.multiline:
                    unchecked = policy.permit_longline and not policy.strict_line_endings
                    end = terminator_in(data, status) + len(TERMINATOR) if unchecked else -1
                if end == len(data):
                    if self._told:
                        self._journal.debug(f"server: {data[:status].decode('utf-8', 'surrogateescape')}")
                    self._conclude(relay, data, now, ok=True)
                    if turns.phase is REQUEST and (self._client.left or self._client_eof):
                        self._go_on(now)
                    return
        super().server_data(data, now)
