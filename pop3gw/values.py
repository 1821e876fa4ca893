"""What a setting's value can be: its type, how it is read from text, how it is written again.

Each kind turns what ConfigObj found (a text, or a list of texts where commas split it) into a value or raises
ValueError with a phrase for the administrator, of a list one for each bad item. Nothing here knows a setting, opens a
file or resolves a name.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Raw = str | list[str]
T = TypeVar("T")
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST_NAME = re.compile(r"(?=.{1,253}$)(?!.*\.$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.|$))+", re.I)
_IDENTIFIERS = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?")


class LogLevel(enum.StrEnum):
    """What is written: this level and the ones behind it."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(enum.StrEnum):
    """How a line of the log is written."""

    TEXT = "text"
    JSON = "json"


class Tls(enum.StrEnum):
    """How one side of a service uses TLS."""

    OFF = "off"
    STARTTLS = "starttls"
    REQUIRED = "required"
    IMPLICIT = "implicit"


class TlsVersion(enum.StrEnum):
    """A version of TLS that may be the oldest one allowed."""

    V1_2 = "1.2"
    V1_3 = "1.3"


class SendProxy(enum.StrEnum):
    """The version of the PROXY header that a server is sent."""

    OFF = "off"
    V1 = "v1"
    V2 = "v2"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A PEM file with a certificate and its chain, and the server name that it is for (``""``: any)."""

    name: str
    file: str

    def __str__(self) -> str:
        return f"{self.name}={self.file}" if self.name else self.file


def host_and_port(host: str, port: int) -> str:
    """``192.0.2.1:110``, ``[2001:db8::1]:110``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a TCP port. A numeric host is kept in its shortest form, so equal addresses compare equal."""

    host: str
    port: int

    def __str__(self) -> str:
        return host_and_port(self.host, self.port)

    @property
    def ip(self) -> IPAddress | None:
        """The host as a number; None for a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``192.0.2.1:110``, ``[2001:db8::1]:110`` or ``mail.example.com:110``; ValueError says why not."""
        host, colon, port = text.rpartition(":")
        if not colon or "]" in port:
            raise ValueError(f'"{text}" has no port')
        if not (port.isascii() and port.isdigit() and int(port) <= 65535):
            raise ValueError(f'"{text}": "{port}" is no port')
        bracketed = host.startswith("[") and host.endswith("]")
        if host.startswith("[") and not bracketed:
            raise ValueError(f'"{text}": the bracket is not closed')
        bare = host[1:-1] if bracketed else host
        if ":" in bare and not bracketed:
            if re.match(r"[0-9A-Fa-f:.]+(?:%|$)", bare):
                raise ValueError(f'"{text}": an IPv6 address is written in brackets, [{bare}]:{port}')
            raise ValueError(f'"{text}": "{bare}" is neither an address nor a host name')
        try:
            return cls(str(ipaddress.ip_address(bare)), int(port))
        except ValueError:
            pass
        if bracketed:
            raise ValueError(f'"{text}": "{bare}" is no IPv6 address')
        # A last label of digits alone is a misspelt number ("127.1"), which a resolver might still take for one.
        if not _HOST_NAME.fullmatch(bare) or bare.rpartition(".")[2].isdigit():
            raise ValueError(f'"{text}": "{bare}" is neither an address nor a host name')
        return cls(bare.lower(), int(port))


@dataclass(frozen=True, slots=True)
class PolicyName:
    """Where a policy class is: ``module:Class``."""

    module: str
    class_name: str

    def __str__(self) -> str:
        return f"{self.module}:{self.class_name}"

    @classmethod
    def parse(cls, text: str) -> PolicyName:
        """Read ``office:UToAPop3``; ValueError says why not."""
        module, colon, class_name = text.partition(":")
        if not colon:
            raise ValueError(f'"{text}" names no class')
        if module.endswith(".py") or "/" in module:
            raise ValueError(f'"{text}": a module is named without its folder and without ".py"')
        if not _IDENTIFIERS.fullmatch(module) or not class_name.isidentifier():
            raise ValueError(f'"{text}" is not module:Class')
        return cls(module, class_name)


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of value. ``check`` names it in the configspec, ``expected`` in messages and manuals.

    ``names_files``: a relative path in it starts at the configuration file's folder.
    """

    check: str
    expected: str
    parse: Callable[[Raw], Any]
    names_files: bool = False


def show(value: object) -> str:
    """A value as it stands in a configuration file, quoted where ConfigObj would take it apart."""
    if isinstance(value, tuple):
        return ", ".join(show(item) for item in value) if value else ","
    text = str(value)
    return f'"{text}"' if re.search(r"""[\s,#"'\[]|^$""", text) else text


def _one(raw: Raw) -> str:
    if isinstance(raw, list):
        raise ValueError(f"a list ({', '.join(raw)}); a value that holds a comma is written in quotes")
    text = raw.strip()
    if not text:
        raise ValueError("nothing")
    if not text.isprintable():
        raise ValueError(f"{text!r}, which holds a character that can't be printed")
    return text


def _many(raw: Raw, parse: Callable[[str], T]) -> tuple[T, ...]:
    items: list[T] = []
    faults: list[str] = []
    for text in [raw] if isinstance(raw, str) else raw:
        try:
            items.append(parse(_one(text)))
        except ValueError as fault:
            faults.append(str(fault))
    if faults:
        raise ValueError(*dict.fromkeys(faults))
    if not items:
        raise ValueError("an empty list")
    return tuple(items)


def whole_number(low: int, high: int) -> Kind:
    """A decimal number from ``low`` to ``high``, both included."""

    def parse(raw: Raw) -> int:
        text = _one(raw)
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text, re.ASCII):
            raise ValueError(f'"{text}", which is no whole number')
        number = int(text)
        if not low <= number <= high:
            raise ValueError(f"{number}, which is out of range")
        return number

    return Kind(f"whole_number({low}, {high})", f"a whole number from {low} to {high}", parse)


def choice(words: type[enum.StrEnum]) -> Kind:
    """One word of an enum."""
    listed = ", ".join(words)

    def parse(raw: Raw) -> enum.StrEnum:
        text = _one(raw)
        try:
            return words(text.lower())
        except ValueError:
            raise ValueError(f'"{text}"') from None

    return Kind(f"choice({listed})", f"one of {listed}", parse)


def _parse_listener(text: str) -> Address:
    address = Address.parse(text)
    if address.ip is None:
        raise ValueError(f'"{address.host}", which is a name; the gateway resolves none for itself')
    if isinstance(address.ip, ipaddress.IPv6Address) and (mapped := address.ip.ipv4_mapped) is not None:
        raise ValueError(f'"{address}", an IPv4 address written as IPv6: it is {mapped}:{address.port}')
    return address


def _parse_server(raw: Raw) -> Address:
    address = Address.parse(_one(raw))
    if address.port == 0:
        raise ValueError(f'"{address}", whose port is no server\'s')
    return address


def _parse_account(raw: Raw) -> str:
    text = _one(raw)
    if not _ACCOUNT.fullmatch(text):
        raise ValueError(f'"{text}", which is no account\'s name')
    return text


def _parse_log_target(raw: Raw) -> str:
    text = _one(raw)
    if text in ("syslog", "stderr") or "/" in text:
        return text
    raise ValueError(f'"{text}", which is no path: a file beside the configuration is ./{text}')


LISTENERS = Kind(
    "listeners",
    "numeric addresses of this machine with their ports, as 127.0.0.1:110, [::1]:110 or 0.0.0.0:110",
    lambda raw: _many(raw, _parse_listener),
)
LISTENER = Kind(
    "listener",
    "a numeric address of this machine with a port, as 127.0.0.1:9110",
    lambda raw: _parse_listener(_one(raw)),
)
SERVER = Kind("server", "a host and a port, as mail.example.com:110 or [2001:db8::1]:110", _parse_server)
POLICY = Kind("policy", "module:Class, as office:UToAPop3", lambda raw: PolicyName.parse(_one(raw)))
ACCOUNT = Kind("account", "the name of an account or group of this machine", _parse_account)
PATH = Kind("path", "the path of a file", _one, names_files=True)
FOLDERS = Kind("folders", "the paths of folders", lambda raw: _many(raw, str), names_files=True)
LOG_TARGET = Kind("log_target", "syslog, stderr, or the path of a file", _parse_log_target, names_files=True)


def _parse_certificate(text: str) -> Certificate:
    name, equals, file = text.rpartition("=")
    if equals and not _HOST_NAME.fullmatch(name.removeprefix("*.")):
        raise ValueError(f'"{text}": "{name}" is no host name')
    if not file:
        raise ValueError(f'"{text}" names no file')
    return Certificate(name.lower(), file)


def _parse_host(raw: Raw) -> str:
    text = _one(raw)
    if not _HOST_NAME.fullmatch(text):
        raise ValueError(f'"{text}", which is no host name')
    return text.lower()


def _parse_fingerprint(text: str) -> str:
    digest = text.replace(":", "").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError(f'"{digest}", which is no SHA-256 digest')
    return digest


FILES = Kind("files", "the paths of files", lambda raw: _many(raw, str), names_files=True)
CERTIFICATES = Kind(
    "certificates",
    "PEM files, each as FILE or NAME=FILE",
    lambda raw: _many(raw, _parse_certificate),
    names_files=True,
)
NETWORKS = Kind(
    "networks",
    "addresses and networks, as 192.0.2.7 or 2001:db8::/32",
    lambda raw: _many(raw, ipaddress.ip_network),
)
HOST_NAME = Kind("host_name", "a host name", _parse_host)
FINGERPRINTS = Kind(
    "fingerprints",
    "SHA-256 digests of certificates, in hex",
    lambda raw: _many(raw, _parse_fingerprint),
)
TEXT = Kind("text", "a text", _one)
