"""Every setting, declared once: a field of ``Config`` ([main]) or ``Service`` ([workers] and [services]).

A field carries its kind, default, when a change takes effect, and the sentence that sample and manual print. The
configspec, the sample, the manual's list and ``--dump-config`` are made from these rows: a new setting is one more.
Nothing here reads a file (``config`` does) or writes a document (``reference`` does).
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any, Final, TypeVar

from pop3gw import values
from pop3gw.errors import Problem
from pop3gw.values import (
    Address,
    Certificate,
    IPNetwork,
    Kind,
    LogFormat,
    LogLevel,
    PolicyName,
    SendProxy,
    Tls,
    TlsVersion,
)

T = TypeVar("T")
REQUIRED: Final[Any] = MISSING  # in the place of a default: there is none


class Section(enum.Enum):
    """Where a setting is written. What stands in ``[workers]`` may also stand in a service, and wins there."""

    MAIN = "main"
    WORKERS = "workers"
    SERVICE = "services"


class Applies(enum.Enum):
    """When an edited value takes effect."""

    RELOAD = "reload"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class Row:
    """What is declared of a setting besides its name."""

    section: Section
    kind: Kind
    about: str
    applies: Applies
    default_text: str  # where the default is no value that could be written
    example: str  # what the sample shows where there is no default


@dataclass(frozen=True, slots=True)
class Setting:
    """A declared setting: its key, its default (or REQUIRED) and its row."""

    key: str
    default: Any
    row: Row

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is REQUIRED

    @property
    def default_shown(self) -> str:
        """The default as a document says it."""
        return self.row.default_text or values.show(self.default)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an effective value comes from: a line of a file, the command line, or the default."""

    file: str = ""
    line: int = 0
    note: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return " ".join(part for part in (self.note, place) if part) or "default"


def setting(
    default: T,
    section: Section,
    kind: Kind,
    about: str,
    *,
    applies: Applies = Applies.RELOAD,
    default_text: str = "",
    example: str = "",
) -> T:
    """The dataclass field that declares a setting; as ``Row``. REQUIRED: it has no default, and must be given."""
    return field(default=default, metadata={"setting": Row(section, kind, about, applies, default_text, example)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service: listeners, a server, a policy, and workers of its own."""

    name: str
    listen: tuple[Address, ...] = setting(
        REQUIRED,
        Section.SERVICE,
        values.LISTENERS,
        "The addresses where clients connect. An IPv6 address is written in brackets and in quotes. Port 0 takes"
        " any free port; the log says which.",
        example='0.0.0.0:110, "[::]:110"',
    )
    server: Address = setting(
        REQUIRED,
        Section.SERVICE,
        values.SERVER,
        "The POP3 server. A name is resolved anew for each session, and all its addresses are tried in order.",
        example="mail.example.com:110",
    )
    policy: PolicyName = setting(
        PolicyName("pop3gw.policy", "Pop3Proxy"),
        Section.SERVICE,
        values.POLICY,
        "The class that decides: MODULE.py in a folder of policy_path, else a module that Python can import.",
    )
    connect_timeout: int = setting(
        30,
        Section.SERVICE,
        values.whole_number(1, 3600),
        "Seconds that a session may take to reach the server, the resolution of its name included.",
    )
    max_sessions_per_client: int = setting(
        0,
        Section.SERVICE,
        values.whole_number(0, 1_000_000),
        "Sessions that one client address (IPv6: one /64) may have at once; 0 sets no limit. One more is answered"
        " -ERR [SYS/TEMP]; with tls = implicit, where nothing can be said in clear, it is just closed.",
    )
    tls: Tls = setting(
        Tls.OFF,
        Section.SERVICE,
        values.choice(Tls),
        "TLS towards clients. off: none, and no tls_certificate and the like may be set. starttls: clients may say"
        " STLS. required: they must, before they log in. implicit: TLS from the first octet (POP3S, port 995)."
        " Choose implicit, or required for clients that only know STLS; with starttls a password may cross in"
        " clear.",
    )
    tls_certificate: tuple[Certificate, ...] = setting(
        (),
        Section.SERVICE,
        values.CERTIFICATES,
        "The certificate that clients are shown, its chain behind it in the same file. More, as NAME=FILE, for"
        " clients that ask for that name; *.NAME stands for one label. The first is shown for any other name.",
        default_text="none",
        example="/etc/pop3gw/tls/cert.pem",
    )
    tls_key: tuple[str, ...] = setting(
        (),
        Section.SERVICE,
        values.FILES,
        "The keys of tls_certificate, in the same order. Root may be the only one who can read them, where the"
        " gateway is started as root.",
        default_text="in the certificates' files",
        example="/etc/pop3gw/tls/key.pem",
    )
    tls_key_passphrase: str | None = setting(
        None,
        Section.SERVICE,
        values.PATH,
        "The file that holds the passphrase of encrypted keys, also of server_key.",
        default_text="none",
        example="/etc/pop3gw/tls/passphrase",
    )
    tls_client_ca: str | None = setting(
        None,
        Section.SERVICE,
        values.PATH,
        "Clients may show a certificate that one of these authorities (a PEM file, or a folder of them) signed;"
        " policies see its subject.",
        default_text="none is asked for",
        example="/etc/pop3gw/tls/clients.pem",
    )
    tls_min_version: TlsVersion = setting(
        TlsVersion.V1_2,
        Section.SERVICE,
        values.choice(TlsVersion),
        "The oldest version of TLS, on both sides.",
    )
    tls_ciphers: str | None = setting(
        None,
        Section.SERVICE,
        values.TEXT,
        "The ciphers of TLS 1.2, on both sides, as an OpenSSL cipher list.",
        default_text="towards clients ECDHE with AES-GCM or ChaCha20, towards servers those of Python",
        example="ECDHE+AESGCM:ECDHE+AES256",
    )
    server_tls: Tls = setting(
        Tls.OFF,
        Section.SERVICE,
        values.choice(Tls),
        "TLS towards the server. off: none, and no server_name, server_ca and the like may be set. starttls: where"
        " the server takes STLS. required: a server that does not take STLS is not used. implicit: TLS from the"
        " first octet (port 995). Choose implicit or required: with starttls a password may cross in clear."
        " Whenever there is TLS, the certificate and its name are checked.",
    )
    server_name: str | None = setting(
        None,
        Section.SERVICE,
        values.HOST_NAME,
        "The name that the server's certificate must be for.",
        default_text="the host of server",
        example="mail.example.com",
    )
    server_ca: str | None = setting(
        None,
        Section.SERVICE,
        values.PATH,
        "The authorities (a PEM file, or a folder of them, whatever their names) that the server's certificate is"
        " checked against.",
        default_text="those of the system",
        example="/etc/pop3gw/tls/server-ca.pem",
    )
    server_fingerprint: tuple[str, ...] = setting(
        (),
        Section.SERVICE,
        values.FINGERPRINTS,
        "The server's certificate must, besides, be one with such a SHA-256 fingerprint.",
        default_text="any",
        example="0123456789abcdef" * 4,
    )
    server_certificate: str | None = setting(
        None,
        Section.SERVICE,
        values.PATH,
        "The certificate, and its chain, that the gateway shows to the server, whoever the client is: where the"
        " server takes it for a login, no policy should let AUTH EXTERNAL pass.",
        default_text="none",
        example="/etc/pop3gw/tls/gateway.pem",
    )
    server_key: str | None = setting(
        None,
        Section.SERVICE,
        values.PATH,
        "The key of server_certificate.",
        default_text="in the certificate's file",
        example="/etc/pop3gw/tls/gateway-key.pem",
    )
    proxy_protocol_from: tuple[IPNetwork, ...] = setting(
        (),
        Section.SERVICE,
        values.NETWORKS,
        "Every connection must begin with a PROXY header (version 1 or 2) and come from these networks; the client"
        " is the one that the header names.",
        default_text="no PROXY header is expected",
        example="192.0.2.0/28",
    )
    send_proxy: SendProxy = setting(
        SendProxy.OFF,
        Section.SERVICE,
        values.choice(SendProxy),
        "The PROXY header that tells the server who the client is (Dovecot: haproxy_trusted_networks).",
    )
    min_spare: int = setting(
        2,
        Section.WORKERS,
        values.whole_number(1, 10_000),
        "Workers that have room for a client: with fewer of them, more are forked.",
    )
    max_spare: int = setting(
        8,
        Section.WORKERS,
        values.whole_number(1, 10_000),
        "Workers with room that may stay: of more than these the idle ones are retired.",
    )
    max_workers: int = setting(
        256,
        Section.WORKERS,
        values.whole_number(1, 10_000),
        "Workers in all. When each of them is taken, new clients wait. Those that a reload has left their last"
        " sessions count by these, sessions_per_worker to one; until they end there may be more processes.",
    )
    sessions_per_worker: int = setting(
        1,
        Section.WORKERS,
        values.whole_number(1, 1000),
        "Sessions that one worker serves at the same time. With 1, whatever happens in a session is felt in that"
        " session alone; more need less memory and less CPU, but a slow policy then delays its neighbours.",
    )
    max_sessions: int = setting(
        1000,
        Section.WORKERS,
        values.whole_number(1, 1_000_000_000),
        "Sessions after which a worker is replaced. With 1, no process ever serves a second session.",
    )
    shutdown_timeout: int = setting(
        30,
        Section.WORKERS,
        values.whole_number(0, 86_400),
        "Seconds that running sessions have to finish when the gateway is stopped.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole configuration, checked. ``source`` is the file's path, or ``command line``."""

    source: str
    user: str | None = setting(
        None,
        Section.MAIN,
        values.ACCOUNT,
        "The account of the workers. Only root can name another account than its own.",
        applies=Applies.RESTART,
        default_text="pop3gw, or nobody where there is no such account; not started as root: who started it",
        example="pop3gw",
    )
    group: str | None = setting(
        None,
        Section.MAIN,
        values.ACCOUNT,
        "The group of the workers.",
        applies=Applies.RESTART,
        default_text="the main group of user",
        example="pop3gw",
    )
    pid_file: str | None = setting(
        "/run/pop3gw/pop3gw.pid",
        Section.MAIN,
        values.PATH,
        "Where the master writes its process id, once clients can connect.",
        applies=Applies.RESTART,
        default_text="/run/pop3gw/pop3gw.pid; none in the foreground",
        example="/run/pop3gw/pop3gw.pid",
    )
    control_socket: str | None = setting(
        "/run/pop3gw/pop3gw.sock",
        Section.MAIN,
        values.PATH,
        "The Unix socket where pop3gwctl asks. Only root and the members of the workers' group may use it, but not"
        " the workers' account itself.",
        applies=Applies.RESTART,
        default_text="pid_file's path, ending in .sock; in the foreground none, but as a service of systemd"
        " pop3gw.sock in its RuntimeDirectory",
        example="/run/pop3gw/pop3gw.sock",
    )
    metrics_listen: Address | None = setting(
        None,
        Section.MAIN,
        values.LISTENER,
        "The address where Prometheus finds the metrics, at /metrics. Let only the monitoring reach it. [::]"
        " leaves IPv4 alone, as in listen. Port 0 takes any free port; the log says which. It needs"
        " prometheus_client (Debian: python3-prometheus-client).",
        applies=Applies.RESTART,
        default_text="none are served",
        example="127.0.0.1:9110",
    )
    policy_path: tuple[str, ...] = setting(
        ("/etc/pop3gw/policies",),
        Section.MAIN,
        values.FOLDERS,
        "Folders where policies are looked for first. Started as root, the gateway refuses those that others or the"
        " workers' account may write.",
    )
    log_target: str = setting(
        "syslog",
        Section.MAIN,
        values.LOG_TARGET,
        "Where the log goes: syslog, stderr, or a file, which USR1 opens anew. In a folder that the workers'"
        " account may write, a gateway that root has started opens it as that account and follows no link.",
        applies=Applies.RESTART,
        default_text="syslog; stderr in the foreground",
        example="syslog",
    )
    log_format: LogFormat = setting(
        LogFormat.TEXT,
        Section.MAIN,
        values.choice(LogFormat),
        "text, or json: one JSON object a line. The journal of systemd gets text and fields in either case.",
        applies=Applies.RESTART,
    )
    log_level: LogLevel = setting(
        LogLevel.INFO,
        Section.MAIN,
        values.choice(LogLevel),
        "What is logged: this and what is worse. debug shows each conversation, secrets redacted.",
    )
    services: tuple[Service, ...] = ()
    origins: Mapping[tuple[str, str], Origin] = field(default_factory=dict, compare=False, repr=False)

    def origin(self, service: str, key: str) -> Origin:
        """Where a value comes from; ``service`` is "" for [main]."""
        return self.origins.get((service, key), Origin())

    def problem(self, service: str, key: str, found: str, expected: str) -> Problem:
        """Say that a value, well-formed in itself, can't be used: file and line are those of the setting.

        What [workers] says is said by no service, so that it is the same problem for all.
        """
        origin = self.origin(service, key)
        name = f"[{service}] {key}" if service and not origin.note else key
        return Problem(origin.file or self.source, origin.line, name, found, expected)


def _declared(of: type[Config] | type[Service]) -> tuple[Setting, ...]:
    return tuple(
        Setting(item.name, item.default, item.metadata["setting"])
        for item in dataclasses.fields(of)
        if "setting" in item.metadata
    )


SETTINGS: tuple[Setting, ...] = _declared(Config) + _declared(Service)


def of_section(*sections: Section) -> tuple[Setting, ...]:
    """The settings that are declared for these sections, in the order of their declaration."""
    return tuple(item for item in SETTINGS if item.row.section in sections)
