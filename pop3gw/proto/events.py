"""What a session tells the world besides bytes: its journal, its end, and its summary.

Pure: values and protocols only. The journal's implementation (files, syslog, redaction) is ``logs``.
"""

from __future__ import annotations

import enum
from typing import Final, Protocol


class Side(enum.StrEnum):
    """Who did it, or whose turn it is."""

    __hash__ = object.__hash__  # members are singletons, and Enum's own is Python code

    CLIENT = "client"
    SERVER = "server"
    GATEWAY = "gateway"


class Ending(enum.StrEnum):
    """How a session ended, as the summary line names it."""

    __hash__ = object.__hash__  # as above

    QUIT = "quit"
    CLOSED = "closed"  # a side closed without QUIT
    TIMEOUT = "timeout"
    REFUSED = "refused"  # an -ERR greeting, the policy refused the service, or no PROXY header said who it is
    ABORTED = "aborted"  # a request that ends the session, or a policy's ABORT
    AUTH_FAILURES = "auth-failures"
    PROTOCOL = "protocol-error"  # what the server said is not POP3
    UNREACHABLE = "unreachable"
    TLS = "tls-failed"
    SHUTDOWN = "shutdown"
    KILLED = "killed"  # by the administrator, with pop3gwctl
    FAULT = "fault"  # an error of the gateway itself


# No named tuple: that is made by interpreted code, this one by compiled (docs/performance.md).
class Summary:
    """One session in one line of the log. Octets are those of the wire.

    ``login``: "pass", "apop", "sasl PLAIN", ...; None: never logged in. TLS: the version, None in clear.
    """

    __slots__ = (
        "by",
        "client",
        "client_tls",
        "deleted",
        "end",
        "from_client",
        "login",
        "milliseconds",
        "retrieved",
        "server",
        "server_tls",
        "to_client",
        "user",
    )

    def __init__(
        self,
        client: str,
        server: str,
        user: str | None,
        login: str | None,
        retrieved: int,
        deleted: int,
        from_client: int,
        to_client: int,
        milliseconds: int,
        end: Ending,
        by: Side,
        client_tls: str | None = None,
        server_tls: str | None = None,
    ) -> None:
        self.client: Final = client
        self.server: Final = server
        self.user: Final = user
        self.login: Final = login
        self.retrieved: Final = retrieved
        self.deleted: Final = deleted
        self.from_client: Final = from_client
        self.to_client: Final = to_client
        self.milliseconds: Final = milliseconds
        self.end: Final = end
        self.by: Final = by
        self.client_tls: Final = client_tls
        self.server_tls: Final = server_tls


class Journal(Protocol):
    """Where a session reports. Every text may hold bytes from the wire; the journal escapes and redacts it."""

    conversation: bool

    def secret(self, text: str) -> None:
        """Redact this text from now on, in each of its spellings."""

    def debug(self, text: str) -> None: ...
    def info(self, text: str) -> None: ...
    def warning(self, text: str) -> None: ...
    def error(self, text: str) -> None: ...
