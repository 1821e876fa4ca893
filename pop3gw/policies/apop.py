"""APOP policies: only APOP, and USER/PASS from the client turned into APOP for the server.

They answer Examples 4.15 and 4.16 of the Zorp manual, and close what those leave open: a server without a timestamp,
and a password that is no UTF-8.
"""

from __future__ import annotations

import hashlib

from pop3gw.policy import (
    POP3_REQ_ACCEPT,
    POP3_REQ_POLICY,
    POP3_REQ_REJECT,
    Pop3Proxy,
)


class APop3(Pop3Proxy):
    """The client may log in with APOP alone (RFC 1939 section 7)."""

    def config(self) -> None:
        """As Pop3Proxy, without USER."""
        super().config()
        self.request["USER"] = (POP3_REQ_REJECT, "Only APOP is allowed here")
        self.request["APOP"] = POP3_REQ_ACCEPT


class UToAPop3(Pop3Proxy):
    """The client says USER and PASS, the server hears APOP: the password never crosses to the server."""

    def config(self) -> None:
        """As Pop3Proxy, with USER answered here and PASS rewritten."""
        super().config()
        self.request["USER"] = (POP3_REQ_POLICY, self.keep_username)
        self.request["PASS"] = (POP3_REQ_POLICY, self.password_to_apop)

    def keep_username(self, _command: str) -> int | tuple[int, str]:
        """Answer USER in the server's place; the name is in ``self.username`` from now on."""
        if self.timestamp is None:
            return POP3_REQ_REJECT, "The server does not support APOP"
        self.response_value = "+OK"
        self.response_param = "User ok Send Password"
        return POP3_REQ_REJECT

    def password_to_apop(self, _command: str) -> int | tuple[int, str]:
        """Turn PASS into APOP, its digest made of the server's timestamp and the password."""
        if self.timestamp is None:
            return POP3_REQ_REJECT, "The server does not support APOP"
        shared = (self.timestamp + self.request_param).encode("utf-8", "surrogateescape")
        digest = hashlib.md5(shared, usedforsecurity=False).hexdigest()
        self.request_command = "APOP"
        self.request_param = f"{self.username} {digest}"
        return POP3_REQ_ACCEPT
