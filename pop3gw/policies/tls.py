"""TLS policies: no login in clear, said in the policy instead of the configuration.

With ``tls = starttls`` a service then behaves as with ``tls = required``, but for the sessions of which a derived class
says otherwise, by their address say: ``self.tls_required = False`` in its ``config()``.
"""

from __future__ import annotations

from pop3gw.policy import POP3_REQ_ACCEPT, Pop3Proxy


class TlsRequired(Pop3Proxy):
    """The client may log in under TLS alone; CAPA shows no login before. Under TLS, AUTH may be used too.

    The session itself asks for TLS, whatever the request hash holds: a derived class fills it as any other does.
    """

    tls_required = True

    def config(self) -> None:
        """As Pop3Proxy (or the class between), with AUTH."""
        super().config()
        self.request.setdefault("AUTH", POP3_REQ_ACCEPT)
