"""TLS policies: no login in clear, said in the policy instead of the configuration.

With ``tls = starttls`` a service then behaves as with ``tls = required``, but for the sessions that a derived class
calls safe without TLS, by their address say.
"""

from __future__ import annotations

from typing import Any

from pop3gw.policy import (
    POP3_REQ_ACCEPT,
    POP3_REQ_POLICY,
    POP3_REQ_REJECT,
    Pop3Proxy,
)

_LOGINS = ("USER", "PASS", "APOP", "AUTH")
_ADVICE = "Turn on TLS (SSL) in your mail program: logging in without it is not allowed here"


class TlsRequired(Pop3Proxy):
    """The client may log in under TLS alone; CAPA shows no login before. Under TLS, AUTH may be used too."""

    def config(self) -> None:
        """As Pop3Proxy (or the class between), with logins refused until there is TLS."""
        super().config()
        self.request.setdefault("AUTH", POP3_REQ_ACCEPT)
        if not self.is_safe():
            self.logins: dict[str, Any] = {command: self.request[command] for command in _LOGINS}
            self.request.update(dict.fromkeys(_LOGINS, (POP3_REQ_REJECT, _ADVICE)))
            self.request["STLS"] = (POP3_REQ_POLICY, self.allow_logins)

    def is_safe(self) -> bool:
        """Whether a password may cross as the session begins."""
        return self.session.client_tls is not None

    def allow_logins(self, _command: str) -> int:
        """Asked where STLS would work alone: behind it there is TLS, or no session."""
        self.request.update(self.logins)
        return POP3_REQ_ACCEPT
