"""What the client says: requests decided and forwarded, SASL responses passed, STLS answered.

Pure. The middle part of ``session``: it takes the client's lines while it is the client's turn, one request at a time,
each decided only after its predecessor's answer is known (RFC 2449 section 6.6).
"""

from __future__ import annotations

from typing import Final

from pop3gw.policy import INVALID_COMMAND
from pop3gw.proto.asking import Asking
from pop3gw.proto.capabilities import without_logins
from pop3gw.proto.commands import COMMANDS, LONG_LINES, MECHANISMS, Command, State, Way, redacted, unknown
from pop3gw.proto.counts import (
    ABORTED,
    ANSWERED,
    LOGIN_FAILED,
    LOGIN_OK,
    LOGIN_REFUSED,
    OTHER_REQUEST_AT,
    REFUSED,
    RELAYED,
    REQUEST_AT,
    Counters,
)
from pop3gw.proto.events import Ending, Journal, Side
from pop3gw.proto.outcome import Outcome
from pop3gw.proto.requests import Answer, Local, Relay, Requests, nameable
from pop3gw.proto.sasl import Exchange
from pop3gw.proto.turns import BEFORE_GREETING, CHALLENGE, CLIENT_TURNS, REQUEST, RESPONSE, STATUS, Phase
from pop3gw.proto.upgrade import ClientTls
from pop3gw.proto.wire import CONTROL, CRLF, Lines, LineTooLongError, whole_request

# For the person behind the mail program, which shows it.
TLS_NEEDED: Final = "Turn on TLS (SSL) in your mail program: logging in without it is not allowed here"
UNASKED: Final = "it sent something that nobody asked for"

_UPDATE: Final = State.UPDATE
_SASL: Final = Way.SASL
_NOTHING_ASKED: Final = Relay("", "", unknown("", multiline=False), False, "GREETING")


class ClientSide(Outcome):
    """The client's half of a session."""

    __slots__ = (
        "_asking",
        "_client",
        "_client_eof",
        "_client_tls",
        "_exchange",
        "_relay",
        "_requests",
        "_server",
    )

    _asking: Asking
    _requests: Requests
    _client_tls: ClientTls

    def __init__(self, journal: Journal, counters: Counters) -> None:
        super().__init__(journal, counters)
        self._client = Lines()
        self._client_eof = False
        self._server = Lines()
        self._exchange: Exchange | None = None
        self._relay = _NOTHING_ASKED  # the request that the server is to answer

    def client_data(self, data: bytes, now: float) -> None:
        """The client sent this."""
        if self.over:
            return
        turns = self._turns
        if turns.phase is REQUEST and not self._client.left and not self.tls_wanted:
            policy = self.policy
            # The smaller limit, whatever it is for: as ``_serve`` does it, of which this is the usual case.
            length = whole_request(data, min(policy.max_request_line_length, policy.max_authline_length))
            if length >= 0:
                turns.since = now
                self._request(data[:length], now, odd=False)
                return
        self._client.feed(data)
        if turns.phase is REQUEST or turns.phase is RESPONSE:
            turns.since = now
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
        elif self._turns.phase in BEFORE_GREETING and not self._client.whole:
            # It has asked for nothing, and a greeting alone is of no use: a silent server must not keep its ghosts.
            self._end(Ending.CLOSED, Side.CLIENT)

    def _serve(self, now: float) -> None:
        """Decide on the client's whole lines, until one is at the server or none is left."""
        turns = self._turns
        while ((phase := turns.phase) is REQUEST or phase is RESPONSE) and not self.tls_wanted:
            try:
                line = self._client.take(self._line_limit())
            except LineTooLongError:
                self._refused("a line", "it is longer than its limit")
                self.counters[OTHER_REQUEST_AT + ABORTED] += 1
                self._abort()
                return
            if line is None:
                if self._client_eof:
                    self._end(Ending.CLOSED, Side.CLIENT)
                return
            if phase is REQUEST:
                self._request(line, now, odd=CONTROL.search(line) is not None)
            else:
                self._sasl_response(line, now)

    def _line_limit(self) -> int:
        policy = self.policy
        usual, long = policy.max_request_line_length, policy.max_authline_length
        if self._turns.phase is RESPONSE:
            return long
        if self._client.left > min(usual, long):  # else it does not matter
            for begin in LONG_LINES:
                if self._client.starts_with(begin):
                    return long
        return usual

    def _request(self, line: bytes, now: float, *, odd: bool) -> None:
        """Decide on a request; ``odd``: it holds a control character."""
        word, _space, rest = line.partition(b" ")
        # Upper case of ASCII only: str.upper() would make an S of U+017F.
        name, argument = word.upper().decode("utf-8", "surrogateescape"), rest.decode("utf-8", "surrogateescape")
        if self._told:
            self._journal.debug(f"client: {self._shown(name, argument)}")
        if not name or odd:
            self._refused(self._shown(name, argument), "it is empty" if not name else "it holds a control character")
            if (unsettled := self._unsettled(name)) is not None:
                self._settle(unsettled, ok=False)
            self._say(f"-ERR {INVALID_COMMAND}")
            self.counters[OTHER_REQUEST_AT + REFUSED] += 1
            return
        at = REQUEST_AT.get(name, OTHER_REQUEST_AT)
        decided: Answer | Local | Relay
        if self._client_tls.demanded_before(name):
            decided = Answer(False, TLS_NEEDED, row=self._unsettled(name), why="TLS is required first")
        else:
            decided = self._requests.judge(name, argument, self.state)
            self.moved = True  # it may have told the user's name
            if self._asking.heard:
                self.changed = True  # the policy may have set other times
                self._asking.heard = False
        if isinstance(decided, Relay):
            if decided.asked == decided.name or not self._client_tls.demanded_before(decided.name):
                self.counters[at + RELAYED] += 1
                self._forward(decided, now)
                return
            why = "a callback made it a login, and TLS is required first"
            decided = Answer(False, TLS_NEEDED, row=self._unsettled(name), why=why)
        if isinstance(decided, Local):
            self._start_client_tls(now)
            self.counters[at + (ABORTED if self.over else ANSWERED if self.tls_wanted else REFUSED)] += 1
        else:
            self.counters[at + (ABORTED if decided.end else ANSWERED if decided.ok else REFUSED)] += 1
            self._answer(decided, name, argument, now)

    def _unsettled(self, name: str) -> Command | None:
        """The row of a request that leaves the session in AUTHORIZATION if it is refused now."""
        row = COMMANDS.get(name)
        return row if row is not None and row.unsettled(self.state) else None

    def _shown(self, name: str, argument: str) -> str:
        """A request as a log may show it."""
        row = COMMANDS.get(name)
        if row is not None:
            # What its row drops or refuses was meant for something else, and may be a password.
            shown = not argument or row.takes(argument, self.policy)
            return redacted(name, argument, row.secret) if shown else f"{name} [secret]"
        if nameable(name, self.policy):
            return f"{name} [secret]" if argument else name
        return "[unknown command]"

    def _answer(self, answer: Answer, name: str, argument: str, now: float) -> None:
        """Answer a request in the server's place."""
        if answer.why is not None:
            self._refused(self._shown(name, argument), answer.why)
        row = answer.row
        if answer.attempt and row is not None:
            self._settle(row, ok=False)
            self.counters[LOGIN_REFUSED[row.name]] += 1
            self._login_failed(answer.status().encode("utf-8", "surrogateescape") + CRLF, now, end=answer.end)
            return
        self._say(answer.status())
        if answer.lines is not None:
            unfit = row is not None and row.filtered and self._client_tls.demanded_before("USER")
            self.to_client.append((without_logins(answer.lines) if unfit else answer.lines) + b".\r\n")
        if row is not None and (answer.ok or row.on_err is State.AUTHORIZATION):
            self._settle(row, ok=answer.ok)
            if answer.ok and row.way is not None:
                self.counters[LOGIN_OK[row.name]] += 1
                self._logged_in(row.name.lower())
        if answer.end:
            self._end(Ending.ABORTED, Side.GATEWAY)
        elif self.state is State.UPDATE:
            self._end(Ending.QUIT, Side.CLIENT)

    def _forward(self, relay: Relay, now: float) -> None:
        """Send a request to the server, which must owe nothing and have said nothing more."""
        if self._server.left:
            self._server_fault(UNASKED)
            return
        self._relay = relay
        self.much_awaited = relay.multiline
        if self._told:
            self._journal.debug(f"to server: {relay.shown()}")
        self.to_server.append(relay.line() + CRLF)
        if relay.row.way is _SASL and relay.argument:
            mechanism, _space, initial = relay.argument.partition(" ")
            self._exchange = Exchange(mechanism)
            self.state = State.SASL
            self.moved = True
            if initial:
                self._hear_sasl(initial)
            self._turns.take(CHALLENGE, now)
        else:
            self._turns.take(STATUS, now)

    def _conclude(
        self, relay: Relay, out: bytes, now: float, *, ok: bool, failed: bool = False, turned: bool = False
    ) -> None:
        """An answer is whole: the state moves, the answer goes out. ``failed``, ``turned``: as in ``Status``."""
        row = relay.row
        if row.way is not None:
            if not self._login_answered(relay, out, now, ok=ok, failed=failed, turned=turned):
                return
        else:
            self._settle(row, ok=ok)
        if out:
            self.to_client.append(out)
        if ok and row.summed is not None:
            self._sum(row.summed)
        if self.state is _UPDATE:
            self._end(Ending.QUIT, Side.CLIENT)
        else:
            self._turns.take(REQUEST, now)

    def _login_answered(self, relay: Relay, out: bytes, now: float, *, ok: bool, failed: bool, turned: bool) -> bool:
        """The answer to an attempt to log in; False where it is held back, since it failed."""
        row, exchange = relay.row, self._exchange
        self._exchange = None
        if not relay.argument:  # AUTH without an argument only lists mechanisms
            return True
        self._settle(row, ok=ok)
        if ok:
            self.counters[LOGIN_OK.get(relay.asked, LOGIN_OK[row.name])] += 1
            way = row.name.lower()
            if exchange is not None:  # what is no mechanism may be a password
                way = f"sasl {exchange.mechanism}" if exchange.mechanism in MECHANISMS else "sasl other"
            self._logged_in(way if relay.asked == relay.name else f"{relay.asked.lower()} as {way}")
        elif not failed and (exchange is None or not exchange.cancelled):
            counted = LOGIN_REFUSED if turned else LOGIN_FAILED
            self.counters[counted.get(relay.asked, counted[row.name])] += 1
            self._login_failed(out, now, end=False)
            return False
        return True

    # -- SASL (RFC 5034 section 4)

    def _sasl_response(self, line: bytes, now: float) -> None:
        exchange = self._exchange
        assert exchange is not None  # noqa: S101 - for mypy: the phase says so
        if fault := exchange.fault(line, self.policy.max_authline_count):
            self._refused("a SASL response", fault)
            self._abort()
            return
        if not exchange.cancelled:
            self._hear_sasl(line.decode("utf-8", "surrogateescape"))
        if self._told:
            self._journal.debug(f"client: {'*' if exchange.cancelled else '[SASL response]'}")
        self.to_server.append(line + CRLF)
        self._turns.take(CHALLENGE, now)

    def _hear_sasl(self, response: str) -> None:
        exchange = self._exchange
        assert exchange is not None  # noqa: S101 - for mypy: the phase says so
        for secret in exchange.hear(response):
            self._journal.secret(secret)
        if self.policy.username is None:  # else the client gave it before, and a callback may have made another of it
            self.policy.__dict__["username"] = exchange.username()
            self.moved = True

    # -- TLS towards the client (RFC 2595 section 4)

    def _start_client_tls(self, now: float) -> None:
        if not self._client_tls.possible():
            self._refused("STLS", "TLS is off, or has begun already")
            self._say(f"-ERR {INVALID_COMMAND}")
            return
        if self._client.left:
            # What came in clear behind STLS would be taken for the client's word under TLS (CVE-2011-0411).
            self._refused("STLS", "requests came in clear behind it")
            self._client.take_all()
            self._abort()
            return
        self._say("+OK Begin TLS now")
        # RFC 2595 section 4: nothing that was learnt in clear is kept.
        self.policy.__dict__.update(username=None, password=None)
        self.tls_wanted = Side.CLIENT
        self.changed = self.moved = True
        self._turns.take(Phase.CLIENT_HANDSHAKE, now)
