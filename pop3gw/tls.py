"""TLS: contexts made from a service's settings, and the stream that speaks it (OpenSSL, through ``ssl``).

Contexts are made by the template while it may still read the keys; workers inherit them, so that session tickets work
across all of them. Imported only where a service uses TLS: ``ssl`` costs a process two megabytes.

Known limits: no TLS 1.3 early data, no renegotiation, no certificate revocation lists.
"""

from __future__ import annotations

import hashlib
import selectors
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pop3gw.policy import TlsFacts
from pop3gw.settings import Service
from pop3gw.stream import LARGEST, Stream
from pop3gw.values import Tls, TlsVersion

_VERSIONS = {TlsVersion.V1_2: ssl.TLSVersion.TLSv1_2, TlsVersion.V1_3: ssl.TLSVersion.TLSv1_3}
_WRITTEN_AT_ONCE = 64 * 1024


class TlsSettingError(Exception):
    """A TLS setting can't be used: ``key`` is its name, the text what was found."""

    def __init__(self, key: str, found: str, expected: str) -> None:
        super().__init__(found)
        self.key = key
        self.found = found
        self.expected = expected


@dataclass(frozen=True, slots=True)
class Contexts:
    """What a service's sessions shake hands with; None where that side speaks no TLS."""

    client: ssl.SSLContext | None = None
    server: ssl.SSLContext | None = None
    server_name: str = ""
    fingerprints: frozenset[str] = frozenset()

    def to_client(self, stream: Stream) -> TlsStream:
        """TLS over the connection of a client."""
        assert self.client is not None  # noqa: S101 - the session asks for TLS only where the service has it
        return TlsStream(stream, lambda plain: _wrapped(self.client, plain, server_side=True))

    def to_server(self, stream: Stream) -> TlsStream:
        """TLS over the connection to the server."""
        return TlsStream(stream, lambda plain: _wrapped(self.server, plain, name=self.server_name), self.fingerprints)


def _wrapped(
    context: ssl.SSLContext | None, plain: socket.socket, *, server_side: bool = False, name: str | None = None
) -> ssl.SSLSocket:
    assert context is not None  # noqa: S101 - as above
    return context.wrap_socket(
        plain,
        server_side=server_side,
        server_hostname=name,
        do_handshake_on_connect=False,
        # An end without close_notify is a cut, never a whole message (RFC 8446 section 6.1).
        suppress_ragged_eofs=False,
    )


def contexts(service: Service) -> Contexts:
    """Read certificates and keys and make a service's contexts. Raises TlsSettingError."""
    client = _client_context(service) if service.tls is not Tls.OFF else None
    server = _server_context(service) if service.server_tls is not Tls.OFF else None
    return Contexts(client, server, service.server_name or service.server.host, frozenset(service.server_fingerprint))


def _client_context(service: Service) -> ssl.SSLContext:
    named: dict[str, ssl.SSLContext] = {}
    made: list[ssl.SSLContext] = []
    if not service.tls_certificate:
        raise TlsSettingError("tls_certificate", "no certificate", f"the file of one, since tls = {service.tls}")
    if service.tls_key and len(service.tls_key) != len(service.tls_certificate):
        raise TlsSettingError(
            "tls_key", f"{len(service.tls_key)} keys for {len(service.tls_certificate)} certificates", "one for each"
        )
    for number, certificate in enumerate(service.tls_certificate):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _common(context, service)
        key = service.tls_key[number] if service.tls_key else certificate.file
        _load(context, certificate.file, key, service.tls_key_passphrase, ("tls_certificate", "tls_key"))
        if service.tls_client_ca is not None:
            _trust(context, service.tls_client_ca, "tls_client_ca")
            context.verify_mode = ssl.CERT_OPTIONAL
        made.append(context)
        if certificate.name:
            named[certificate.name] = context
    first = made[0]
    if named:
        first.sni_callback = _by_name(named)
    return first


def _by_name(named: dict[str, ssl.SSLContext]) -> Callable[[ssl.SSLObject, str, ssl.SSLContext], None]:
    """Chooses the certificate for the name that a client asks for; the first one for a name that is not known."""

    def choose(connection: ssl.SSLObject, name: str | None, _first: ssl.SSLContext) -> None:
        if name:
            name = name.lower()
            context = named.get(name) or named.get("*." + name.partition(".")[2])
            if context is not None:
                connection.context = context

    return choose


def _server_context(service: Service) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _common(context, service)
    if service.server_ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _trust(context, service.server_ca, "server_ca")
    if service.server_certificate is not None:
        key = service.server_key or service.server_certificate
        _load(context, service.server_certificate, key, None, ("server_certificate", "server_key"))
    return context


def _common(context: ssl.SSLContext, service: Service) -> None:
    context.minimum_version = _VERSIONS[service.tls_min_version]
    context.options |= ssl.OP_NO_RENEGOTIATION
    if service.tls_ciphers is not None:
        try:
            context.set_ciphers(service.tls_ciphers)
        except ssl.SSLError:
            raise TlsSettingError("tls_ciphers", "no cipher that OpenSSL knows", "an OpenSSL cipher list") from None


def _trust(context: ssl.SSLContext, path: str, key: str) -> None:
    try:
        if Path(path).is_dir():
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise TlsSettingError(key, f"{path}: {_reason(error)}", "a readable PEM file or folder") from None


def _load(context: ssl.SSLContext, certificate: str, key: str, passphrase: str | None, keys: tuple[str, str]) -> None:
    for name, path in zip(keys, (certificate, key), strict=True):
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise TlsSettingError(name, f"{path}: {error.strerror}", "a readable PEM file") from None
    try:
        context.load_cert_chain(certificate, key, password=lambda: _passphrase(passphrase))
    except (OSError, ValueError, ssl.SSLError) as error:
        found = f"{certificate} with {key}: {_reason(error)}"
        raise TlsSettingError(keys[0], found, "a certificate chain and its key, both PEM") from None


def _passphrase(path: str | None) -> bytes:
    # Without a file an empty one is tried: OpenSSL would else ask on the terminal.
    return b"" if path is None else Path(path).read_bytes().rstrip(b"\r\n")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)


class TlsStream(Stream):
    """A connection that speaks TLS, once ``shake_hands`` has said so."""

    __slots__ = ("_fingerprints", "_tls", "waits_for")

    def __init__(
        self,
        plain: Stream,
        wrap: Callable[[socket.socket], ssl.SSLSocket],
        fingerprints: frozenset[str] = frozenset(),
    ) -> None:
        self._tls = wrap(plain.socket)
        super().__init__(self._tls)
        self.received, self.sent = plain.received, plain.sent
        self.waits_for = selectors.EVENT_READ  # what the handshake needs next
        self._fingerprints = fingerprints

    def shake_hands(self) -> bool:
        """Go on with the handshake; False while more must come. OSError: it failed, ``str()`` says why."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self.waits_for = selectors.EVENT_READ
            return False
        except ssl.SSLWantWriteError:
            self.waits_for = selectors.EVENT_WRITE
            return False
        except ssl.SSLCertVerificationError as error:
            raise OSError(f"the certificate fails: {error.verify_message}") from None
        except ssl.SSLError as error:
            raise OSError(_reason(error)) from None
        if self._fingerprints:
            certificate = self._tls.getpeercert(binary_form=True) or b""
            found = hashlib.sha256(certificate).hexdigest()
            if found not in self._fingerprints:
                raise OSError(f"the certificate's SHA-256 fingerprint is {found}, which is not in server_fingerprint")
        return True

    def facts(self) -> TlsFacts:
        """What was negotiated."""
        cipher = self._tls.cipher()
        return TlsFacts(self._tls.version() or "", cipher[0] if cipher else "")

    def subject(self) -> str | None:
        """The subject of the peer's verified certificate (RFC 4514), None where it showed none."""
        certificate = self._tls.getpeercert()
        return _subject(certificate["subject"]) if certificate else None  # type: ignore[arg-type]  # tuples of pairs

    def read(self) -> bytes | None:
        """As Stream.read; takes all that OpenSSL holds, since the selector can't see that."""
        chunks: list[bytes] = []
        length = 0
        while length < LARGEST or self._tls.pending():
            try:
                data = self._tls.recv(LARGEST)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except ssl.SSLError:
                # What came whole before the cut is passed on; the cut is met again at the next read.
                if chunks:
                    break
                raise
            if not data:
                if not chunks:
                    self.ended = True
                    return b""
                break
            chunks.append(data)
            length += len(data)
        self.received += length
        return b"".join(chunks) if chunks else None

    def write(self, data: bytes) -> bool:
        """As Stream.write."""
        if self.unsent is not None:
            self.unsent = memoryview(bytes(self.unsent) + data)
            return False
        self.unsent = memoryview(data)
        return self.flush()

    def flush(self) -> bool:
        """As Stream.flush. What OpenSSL did not take is offered to it again as it was, as it demands."""
        rest = self.unsent
        while rest is not None and len(rest):
            try:
                count = self._tls.send(rest[:_WRITTEN_AT_ONCE])
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self.unsent = rest
                return False
            self.sent += count
            rest = rest[count:]
        self.unsent = None
        return True

    def end_writing(self) -> None:
        """Say close_notify, then end the connection's writing side."""
        self._tls.setblocking(False)
        try:
            self._tls.unwrap()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLSyscallError):
            pass
        except (OSError, ValueError):
            return
        super().end_writing()


def _subject(name: Sequence[Sequence[tuple[str, str]]]) -> str:
    """RFC 4514 section 2: the last relative name first."""
    return ",".join(
        "+".join(f"{_SHORT.get(kind, kind)}={_escaped(value)}" for kind, value in part) for part in reversed(name)
    )


_SHORT = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "countryName": "C",
    "domainComponent": "DC",
    "userId": "UID",
}


def _escaped(value: str) -> str:
    escaped = "".join(f"\\{sign}" if sign in ',+"\\<>;=' else sign for sign in value)
    if escaped[:1] in ("#", " "):
        escaped = "\\" + escaped
    return escaped[:-1] + "\\ " if escaped.endswith(" ") and len(escaped) > 1 else escaped
