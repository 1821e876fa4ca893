"""When TLS is offered, when it is demanded, and on which side (RFC 2595).

Pure: it decides, the session says STLS or answers it, ``handshake`` shakes hands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pop3gw.proto.asking import Asking
from pop3gw.proto.commands import COMMANDS
from pop3gw.values import Tls

_BY_STLS: Final = (Tls.STARTTLS, Tls.REQUIRED)
_REQUIRED: Final = Tls.REQUIRED


@dataclass(frozen=True, slots=True)
class SessionRules:
    """What the service, not the policy, says of its sessions."""

    client_tls: Tls = Tls.OFF
    server_tls: Tls = Tls.OFF

    def asks_server(self) -> bool:
        """Whether the gateway says STLS to the server before anything else."""
        return self.server_tls in _BY_STLS


WITHOUT_TLS: Final = SessionRules()


class ClientTls:
    """What one session's client may and must do about TLS."""

    __slots__ = ("_asking", "_mode")

    def __init__(self, rules: SessionRules, asking: Asking) -> None:
        self._mode = rules.client_tls
        self._asking = asking

    def possible(self) -> bool:
        """Whether STLS would begin TLS now, if the policy lets it."""
        return self._mode in _BY_STLS and self._asking.policy.session.client_tls is None

    def offered(self) -> bool:
        """Whether STLS is to be named among the capabilities."""
        if not self.possible():
            return False
        return self._asking.entry("STLS", COMMANDS["STLS"]) is None or self._asking.permits("STLS")

    def demanded_before(self, name: str) -> bool:
        """Whether this command must not be heard in clear."""
        policy = self._asking.policy
        if self._mode is not _REQUIRED and not policy.tls_required:
            return False
        if policy.session.client_tls is not None:
            return False
        row = COMMANDS.get(name)
        # A command of the policy's own may carry a password as well.
        return self._asking.permits(name) if row is None else row.identifies()
