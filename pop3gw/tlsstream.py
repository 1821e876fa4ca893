"""A connection that speaks TLS: a ``Stream`` with OpenSSL between its octets and the session's.

OpenSSL works in memory here (``ssl.MemoryBIO``): on a socket it makes two system calls for each record that it reads
and one for each that it writes, here one call moves many records. It knows certificates only as text for a log.

An end without close_notify is an error, never an end of file: the message before it may be cut (RFC 8446 section 6.1).
"""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from pop3gw.policy import TlsFacts
from pop3gw.poller import READ, WRITE
from pop3gw.stream import Stream

# What passes through OpenSSL at once; its memory stays as large as the largest piece, for as long as the connection.
_PIECE: Final = 64 * 1024
_RECORD: Final = 16 * 1024  # the most that one read gives (RFC 8446 section 5.1)

_Wrap = Callable[[ssl.MemoryBIO, ssl.MemoryBIO], ssl.SSLObject]


class TlsStream(Stream):
    """The connection of ``plain``, once ``shake_hands`` has said so. ``unsent`` is sealed already."""

    __slots__ = ("_before", "_began", "_fingerprints", "_incoming", "_outgoing", "_said_bye", "_tls", "_waiting")

    answers: ClassVar[bool] = True  # key updates (RFC 8446 section 4.6.3)

    def __init__(self, plain: Stream, wrap: _Wrap, fingerprints: frozenset[str] = frozenset()) -> None:
        super().__init__(plain.socket, plain.most)
        super().expect(much=True)  # records are longer than lines
        self.received, self.sent = plain.received, plain.sent
        self._before = plain.received
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = wrap(self._incoming, self._outgoing)
        self._fingerprints = fingerprints
        self._began = False  # the first flight of a client is out
        self._waiting: deque[memoryview] = deque()  # behind ``unsent``, not sealed yet
        self._said_bye = False

    @property
    def waits_for(self) -> int:
        """What the handshake needs next, as events of the poller."""
        return READ if self.unsent is None else WRITE

    @property
    def silent(self) -> bool:
        """Whether the peer has said nothing since TLS was to begin."""
        return self.received == self._before

    def shake_hands(self) -> bool:
        """Go on with the handshake; False while more must come. OSError: it failed, ``reason_of`` says why."""
        if self.unsent is not None and not super().flush():
            return False
        if not self._take() and (self._began or self._tls.server_side):
            return False
        self._began = True
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            if not self._outgoing.pending:
                self.acknowledge()  # a part of what the peer has to say
            self._send_sealed()
            return False
        except ssl.SSLError as error:
            with contextlib.suppress(OSError):  # the alert, if the peer is there to hear it
                self._send_sealed()
            raise OSError(_reason(error)) from None
        self._send_sealed()
        self._check_fingerprint()
        return True

    @property
    def holds(self) -> bool:
        """Whether something has come that no poller can see: words that came together with the handshake."""
        return self._incoming.pending > 0

    def facts(self) -> TlsFacts:
        """What was negotiated."""
        cipher = self._tls.cipher()
        return TlsFacts(self._tls.version() or "", cipher[0] if cipher else "")

    def subject(self) -> str | None:
        """The subject of the peer's verified certificate (RFC 4514), None where it showed none. OSError: unreadable."""
        try:
            certificate = self._tls.getpeercert()
        except (ValueError, ssl.SSLError):  # a name or address in its extensions that is no text, say
            raise OSError("its certificate holds text that can't be decoded") from None
        return subject_text(certificate["subject"]) if certificate else None  # type: ignore[arg-type]  # pairs

    def read(self) -> bytes | None:
        """As Stream.read. Where the peer's last words came together with its end, ``ended`` is set beside them,
        and ``failure`` where that end is none.
        """
        data = super().read()
        if self._said_bye or (data is None and not self._incoming.pending):
            return data
        opened: list[bytes] = []
        if data:
            for piece in _pieces(data):
                self._incoming.write(piece)
                self._open(opened)
                if self.ended:
                    break
        else:
            if data is not None:
                self._incoming.write_eof()
            self._open(opened)
        if self._outgoing.pending:
            with contextlib.suppress(OSError):  # a peer that is gone says so to the next read
                self._send_sealed()
        if opened:
            return opened[0] if len(opened) == 1 else b"".join(opened)
        if data and not self.ended:
            self.acknowledge()  # a part of a record, or what TLS keeps to itself (tickets): more may wait behind it
        return b"" if self.ended else None

    def expect(self, *, much: bool) -> None:
        """As Stream.expect; records are always expected to be long."""
        self.much = much

    def write(self, data: bytes) -> bool:
        """As Stream.write."""
        self._waiting.extend(_pieces(data))
        return self.unsent is None and self.flush()

    def flush(self) -> bool:
        """As Stream.flush."""
        if self.unsent is not None and not super().flush():
            return False
        while self._waiting:
            self._tls.write(self._waiting.popleft())
            if not self._send_sealed():
                return False
        return True

    def end_writing(self) -> None:
        """Say close_notify, then end the connection's writing side. What still comes is then read as it is."""
        self._say_bye()
        if self.unsent is None:
            super().end_writing()

    def close(self) -> None:
        """Close the connection; close_notify goes out if it can go at once."""
        with contextlib.suppress(OSError):
            self._say_bye()
        super().close()

    def _say_bye(self) -> None:
        if self._said_bye:
            return
        self._said_bye = True
        with contextlib.suppress(ssl.SSLError, ValueError):  # the peer's is not awaited; no handshake, no farewell
            self._tls.unwrap()
        self._send_sealed()

    def _open(self, opened: list[bytes]) -> None:
        """Take what OpenSSL can open of what has come. OSError: it was tampered with, or cut."""
        read = self._tls.read
        try:
            while chunk := read(_RECORD):
                opened.append(chunk)
                if not self._incoming.pending:  # one more read would say so too, by an exception that costs as much
                    return
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            self.failure = OSError(_reason(error))
            if not opened:
                raise self.failure from None
        self.ended = True

    def _take(self) -> bool:
        """Give OpenSSL what has come; False where nothing has."""
        data = super().read()
        if data:
            self._incoming.write(data)
        elif data is not None:
            self._incoming.write_eof()
        return data is not None

    def _send_sealed(self) -> bool:
        """Send what OpenSSL has to say; False where a rest is left."""
        sealed = self._outgoing.read()
        return super().write(sealed) if sealed else self.unsent is None

    def _check_fingerprint(self) -> None:
        if not self._fingerprints:
            return
        certificate = self._tls.getpeercert(binary_form=True) or b""
        found = hashlib.sha256(certificate).hexdigest()
        if found not in self._fingerprints:
            raise OSError(f"the certificate's SHA-256 fingerprint is {found}, which is not in server_fingerprint")


def _pieces(data: bytes) -> Sequence[memoryview]:
    view = memoryview(data)
    return [view] if len(view) <= _PIECE else [view[at : at + _PIECE] for at in range(0, len(view), _PIECE)]


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate fails: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError) or error.reason == "UNEXPECTED_EOF_WHILE_READING":
        return "the connection ended without close_notify"
    if error.reason == "CALLBACK_FAILED":  # see ``tls``
        return "the name that it asked for is not ASCII"
    return (error.reason or str(error)).replace("_", " ").lower()


def subject_text(name: Sequence[Sequence[tuple[str, str]]]) -> str:
    """A name as ``ssl`` gives it, written as RFC 4514 section 2 wants it: the last relative name first."""
    return ",".join(
        "+".join(f"{_SHORT.get(kind, kind)}={_escaped(value)}" for kind, value in part) for part in reversed(name)
    )


_SHORT: Final = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "countryName": "C",
    "domainComponent": "DC",
    "userId": "UID",
}


def _in_hex(sign: str) -> str:
    return "".join(f"\\{octet:02X}" for octet in sign.encode("utf-8", "surrogatepass"))


def _escaped(value: str) -> str:
    escaped = "".join(
        f"\\{sign}" if sign in ',+"\\<>;=' else sign if sign.isprintable() else _in_hex(sign) for sign in value
    )
    if escaped[:1] in ("#", " "):
        escaped = "\\" + escaped
    return escaped[:-1] + "\\ " if value.endswith(" ") and len(value) > 1 else escaped
