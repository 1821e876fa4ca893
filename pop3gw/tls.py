"""TLS contexts, made from a service's settings (OpenSSL, through ``ssl``).

They are made by the template while it may still read the keys; workers inherit them, so that session tickets work
across all of them. Imported only where a service uses TLS: ``ssl`` costs a process two megabytes.

Known limits: no TLS 1.3 early data, no renegotiation, no certificate revocation lists; with named certificates, a
client that asks for a name that is not ASCII (which no host name is, RFC 6066 section 3) is not served.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pop3gw.errors import TlsError, TlsSettingError
from pop3gw.settings import Service
from pop3gw.stream import Stream
from pop3gw.tlsstream import TlsStream
from pop3gw.values import Tls, TlsVersion

_VERSIONS = {TlsVersion.V1_2: ssl.TLSVersion.TLSv1_2, TlsVersion.V1_3: ssl.TLSVersion.TLSv1_3}
# Towards clients, of TLS 1.2: forward secrecy and AEAD (https://wiki.mozilla.org/Security/Server_Side_TLS).
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_NOT_NOW = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED: x509_vfy.h of OpenSSL


@dataclass(frozen=True, slots=True)
class Contexts:
    """What a service's sessions shake hands with; None where that side speaks no TLS.

    ``doubts``: what is as it can't be meant, and can be used nevertheless.
    """

    client: ssl.SSLContext | None = None
    server: ssl.SSLContext | None = None
    server_name: str = ""
    fingerprints: frozenset[str] = frozenset()
    doubts: tuple[TlsSettingError, ...] = ()

    def to_client(self, stream: Stream) -> TlsStream:
        """TLS over the connection of a client."""
        context = self.client
        assert context is not None  # noqa: S101 - the session asks for TLS only where the service has it
        return TlsStream(stream, lambda come, go: context.wrap_bio(come, go, server_side=True))

    def to_server(self, stream: Stream) -> TlsStream:
        """TLS over the connection to the server."""
        context = self.server
        assert context is not None  # noqa: S101 - as above
        name = self.server_name
        return TlsStream(stream, lambda come, go: context.wrap_bio(come, go, server_hostname=name), self.fingerprints)

    @staticmethod
    def of_a_client(connection: socket.socket) -> socket.socket:
        """TLS over a connection to us, as a client that trusts whoever answers: for a rehearsal. OSError: it failed."""
        anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        return anybody.wrap_socket(connection)

    def warm_up(self) -> None:
        """Let OpenSSL load what handshakes with the server need, here and once: workers then share it."""
        if self.server is not None:
            hello = self.server.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=self.server_name)
            with contextlib.suppress(ssl.SSLError):
                hello.do_handshake()


class _Faults(dict[tuple[str, str], TlsSettingError]):
    """What is wrong, each once: both sides and several certificates share settings; and ``doubts``."""

    def __init__(self) -> None:
        super().__init__()
        self.doubts: list[TlsSettingError] = []

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Go on behind this block, whatever is wrong in it."""
        try:
            yield
        except TlsSettingError as fault:
            self.setdefault((fault.key, fault.found), fault)

    def contents(self, key: str, path: str) -> bytes | None:
        """What is in the file that a setting names; None where it can't be read, which is kept."""
        with self.kept():
            try:
                return Path(path).read_bytes()
            except OSError as error:
                raise TlsSettingError(key, f"{path}: {error.strerror}", "a file that can be read") from None
        return None


def contexts(service: Service) -> Contexts:
    """Read certificates and keys and make a service's contexts. Raises TlsError."""
    faults = _Faults()
    client = _client_context(service, faults) if service.tls is not Tls.OFF else None
    server = _server_context(service, faults) if service.server_tls is not Tls.OFF else None
    if faults:
        raise TlsError(list(faults.values()), faults.doubts)
    name, pins = service.server_name or service.server.host, frozenset(service.server_fingerprint)
    return Contexts(client, server, name, pins, tuple(faults.doubts))


def _client_context(service: Service, faults: _Faults) -> ssl.SSLContext | None:
    keys = service.tls_key
    with faults.kept():
        if not service.tls_certificate:
            found = f"{service.tls}, but there is no tls_certificate"
            raise TlsSettingError("tls", found, "a certificate to show clients")
        if keys and len(keys) != len(service.tls_certificate):
            found = f"{len(keys)} keys for {len(service.tls_certificate)} certificates"
            raise TlsSettingError("tls_key", found, "one for each")
    if faults:  # nobody knows whose key is whose
        with faults.kept():
            _common(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), service)
        return None
    named: dict[str, ssl.SSLContext] = {}
    made: list[ssl.SSLContext] = []
    for number, certificate in enumerate(service.tls_certificate):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers(_CIPHERS)
        with faults.kept():
            _common(context, service)
        with faults.kept():
            key = keys[number] if keys else certificate.file
            names = ("tls_certificate", "tls_key")
            loaded = _load(context, certificate.file, key, service.tls_key_passphrase, names, faults)
            if loaded and (why := _not_now(context, certificate.file)):
                expected = "one whose time is now: clients refuse it"
                faults.doubts.append(TlsSettingError("tls_certificate", f"{certificate.file}: {why}", expected))
        if service.tls_client_ca is not None:
            with faults.kept():
                _trust(context, service.tls_client_ca, "tls_client_ca")
            context.verify_mode = ssl.CERT_OPTIONAL
        # Each ticket costs a tenth of the handshake, and mail programs open one connection after the other.
        context.num_tickets = 1
        made.append(context)
        if certificate.name:
            named[certificate.name] = context
    first = made[0]
    if named:
        first.sni_callback = _by_name(named)
    return first


def _not_now(context: ssl.SSLContext, certificate: str) -> str:
    """Why the certificate of this server is not valid now, as a client that trusts it is told; "" where it is."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        client.load_verify_locations(cafile=certificate)
    except OSError:  # it was read before: what is in it besides is nothing that clients are shown
        return ""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    asks, shows = client.wrap_bio(to_client, to_server), context.wrap_bio(to_server, to_client, server_side=True)
    for side in (asks, shows, asks):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            return str(error.verify_message) if error.verify_code in _NOT_NOW else ""
        except ssl.SSLError:  # this client may be too new for it, others are not
            return ""
    return ""


def _by_name(named: dict[str, ssl.SSLContext]) -> Callable[[ssl.SSLObject, str, ssl.SSLContext], None]:
    """Chooses the certificate for the name that a client asks for; the first one for a name that is not known."""

    def choose(connection: ssl.SSLObject, name: str | None, _first: ssl.SSLContext) -> None:
        if name:
            name = name.lower()
            context = named.get(name) or named.get("*." + name.partition(".")[2])
            if context is not None:
                connection.context = context

    return choose


def _server_context(service: Service, faults: _Faults) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with faults.kept():
        _common(context, service)
    with faults.kept():
        if service.server_ca is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            _trust(context, service.server_ca, "server_ca")
    own = service.server_certificate
    if own is not None:
        with faults.kept():
            keys = ("server_certificate", "server_key")
            _load(context, own, service.server_key or own, service.tls_key_passphrase, keys, faults)
    return context


def _common(context: ssl.SSLContext, service: Service) -> None:
    context.minimum_version = _VERSIONS[service.tls_min_version]
    context.options |= ssl.OP_NO_RENEGOTIATION
    # Python lets an end without close_notify pass for a whole message; here it is a cut (RFC 8446 section 6.1).
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    if service.tls_ciphers is not None:
        try:
            context.set_ciphers(service.tls_ciphers)
        except ssl.SSLError:
            found = f'"{service.tls_ciphers}", of which OpenSSL knows no cipher'
            raise TlsSettingError("tls_ciphers", found, "an OpenSSL cipher list") from None


def _trust(context: ssl.SSLContext, path: str, key: str) -> None:
    """Trust what is in a file, or in the files of a folder, all read here and now.

    OpenSSL by itself would look into a folder with each handshake, as the workers' account, for names that are hashes.
    """
    # What is named is trusted by itself: an authority below another one, or the very certificate, need not have the
    # root that signed it beside it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    where = Path(path)
    try:
        folder = where.is_dir()
        for file in sorted({one.resolve() for one in where.iterdir() if one.is_file()} if folder else {where}):
            where = file
            try:
                context.load_verify_locations(cafile=file)
            except ssl.SSLError as error:
                if not folder or error.reason != "NO_CERTIFICATE_OR_CRL_FOUND":  # it may hold other things too
                    raise
    except OSError as error:  # ssl.SSLError among them
        raise TlsSettingError(key, f"{where}: {_reason(error)}", "a readable PEM file or folder") from None
    if not context.cert_store_stats()["x509"]:
        raise TlsSettingError(key, f"{path}: no certificate is in it", "a PEM file, or a folder of them")


def _load(
    context: ssl.SSLContext,
    certificate: str,
    key: str,
    passphrase: str | None,
    keys: tuple[str, str],
    faults: _Faults,
) -> bool:
    """Whether it could be read; of files that can't each is kept as a fault, what else is wrong is raised."""
    files = {certificate: keys[0]}
    files.setdefault(key, keys[1])  # often it is with its certificate
    read = [faults.contents(name, path) for path, name in files.items()]
    # Where there is none an empty one is tried: OpenSSL would else ask on the terminal.
    secret = b"" if passphrase is None else faults.contents("tls_key_passphrase", passphrase)
    if secret is None or None in read:
        return False
    secret = secret.rstrip(b"\r\n")
    asked = False

    def answer() -> bytes:
        nonlocal asked
        asked = True
        return secret

    try:
        context.load_cert_chain(certificate, key, password=answer)
    except (OSError, ValueError) as error:  # ssl.SSLError among them
        if asked:
            why = "it is encrypted, and there is no passphrase" if passphrase is None else "the passphrase is another"
            raise TlsSettingError(keys[1], f"{key}: {why}", "a key, and its passphrase in tls_key_passphrase") from None
        if isinstance(error, ssl.SSLError) and error.reason is None:  # one of the two is no PEM, or is cut
            if not _holds_certificates(certificate):
                found = f"{certificate}: no certificate can be read from it"
                raise TlsSettingError(keys[0], found, "a certificate, its chain behind it, in PEM") from None
            named = keys[0] if key == certificate else keys[1]
            raise TlsSettingError(named, f"{key}: no key can be read from it", "a key in PEM") from None
        found = f"{certificate} with {key}: {_reason(error)}"
        raise TlsSettingError(keys[0], found, "a certificate, its chain behind it, and its key, in PEM") from None
    return True


def _holds_certificates(file: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    except ssl.SSLError:
        return False
    return True


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason.replace("_", " ").lower() if error.reason else "no PEM, or cut off"
    return getattr(error, "strerror", None) or str(error)
