"""The certificates of the tests: an authority made anew each time (trustme), and what it signs, as files."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import trustme

NAME = "localhost"


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate (with its chain) and its key, as PEM files."""

    certificate: Path
    key: Path

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate itself, in hex."""
        text = self.certificate.read_text()
        end = "-----END CERTIFICATE-----\n"
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text[: text.index(end) + len(end)])).hexdigest()


class Authority:
    """One that signs; ``folder`` gets the files, readable by everybody."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self._signed = 0
        self.file = folder / "authority.pem"
        self._authority.cert_pem.write_to_path(str(self.file))

    def sign(self, *names: str, common_name: str | None = None) -> Pair:
        """A certificate for these host names and addresses."""
        return self._write(self._authority.issue_cert(*names, common_name=common_name))

    def expired(self, *names: str) -> Pair:
        """One whose time is over."""
        then = datetime.now(UTC) - timedelta(days=1)
        return self._write(self._authority.issue_cert(*names, not_before=then - timedelta(days=1), not_after=then))

    def chained(self, *names: str) -> Pair:
        """One that an authority below this one signed; the chain is in the file."""
        return self._write(self._authority.create_child_ca().issue_cert(*names))

    def below(self, *names: str) -> tuple[Pair, Path]:
        """One that an authority below this one signed, and that authority's own certificate."""
        authority = self._authority.create_child_ca()
        pair = self._write(authority.issue_cert(*names))
        own = pair.certificate.with_suffix(".authority.pem")
        authority.cert_pem.write_to_path(str(own))
        return pair, own

    def unreadable(self) -> Pair:
        """One of a client, whose mail address is no text in any code that X.509 knows there (RFC 5280 4.2.1.6)."""
        pair = Pair(self._folder / "unreadable.pem", self._folder / "unreadable.key")
        request, key, extension = (self._folder / f"unreadable.{kind}" for kind in ("csr", "ca-key", "cnf"))
        key.write_bytes(self._authority.private_key_pem.bytes())
        extension.write_bytes(b"subjectAltName=email:j\xfcrgen@example.com\n")
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=juergen"]
        asked = ["openssl", "req", "-new", *curve, "-keyout", str(pair.key), "-out", str(request)]
        signed = ["openssl", "x509", "-req", "-in", str(request), "-CA", str(self.file), "-CAkey", str(key)]
        signed += ["-CAcreateserial", "-days", "2", "-extfile", str(extension), "-out", str(pair.certificate)]
        for command in (asked, signed):
            subprocess.run(command, check=True, capture_output=True)
        return pair

    def self_signed(self, name: str) -> Pair:
        """One that nobody else signed."""
        pair = Pair(self._folder / f"self-{name}.pem", self._folder / f"self-{name}.key")
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-days", "2"]
        command += ["-out", str(pair.certificate), "-keyout", str(pair.key)]
        subprocess.run(command, check=True, capture_output=True)
        return pair

    @cached_property
    def server(self) -> Pair:
        """One for this machine; fetchmail wants its name as the common name too."""
        return self.sign(NAME, "127.0.0.1", common_name=NAME)

    def trusting(self) -> ssl.SSLContext:
        """The context of a client that trusts this authority alone."""
        return ssl.create_default_context(cafile=str(self.file))

    def serving(self, pair: Pair | None = None) -> ssl.SSLContext:
        """The context of a server."""
        pair = pair or self.server
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        return context

    def _write(self, issued: trustme.LeafCert) -> Pair:
        self._signed += 1
        pair = Pair(self._folder / f"{self._signed}.pem", self._folder / f"{self._signed}.key")
        pair.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(pair.key))
        pair.key.chmod(0o644)
        return pair
