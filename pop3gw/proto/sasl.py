"""Whose name a SASL exchange shows, and which of its octets are secret (RFC 5034 section 4).

Pure. It must not decide anything: exchanges pass verbatim, whatever is understood here. Known limit: only the first two
client responses are looked at, which is where the mechanisms below give the name.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from pop3gw.proto.wire import CONTROL

_XOAUTH2_USER: Final = re.compile(r"(?:^|\x01)user=([^\x01]*)")
_GS2_AUTHZID: Final = re.compile(r"[nyp][^,]*,a=([^,]*),")
_SCRAM_NAME: Final = re.compile(r"^[nyp][^,]*,[^,]*,n=([^,]*),")


def _plain(responses: list[str]) -> str | None:
    parts = responses[0].split("\0")
    return parts[1] if len(parts) == 3 else None


def _login(responses: list[str]) -> str | None:
    return responses[0] or None


def _cram_md5(responses: list[str]) -> str | None:
    name, space, _digest = responses[0].rpartition(" ")
    return name if space else None


def _xoauth2(responses: list[str]) -> str | None:
    match = _XOAUTH2_USER.search(responses[0])
    return match[1] if match else None


def _oauthbearer(responses: list[str]) -> str | None:
    match = _GS2_AUTHZID.match(responses[0])
    return match[1].replace("=2C", ",").replace("=3D", "=") if match else None


def _scram(responses: list[str]) -> str | None:
    match = _SCRAM_NAME.match(responses[0])
    return match[1].replace("=2C", ",").replace("=3D", "=") if match else None


_NAME_SHOWN_BY: Final[Mapping[str, Callable[[list[str]], str | None]]] = MappingProxyType(
    {
        "PLAIN": _plain,
        "LOGIN": _login,
        "CRAM-MD5": _cram_md5,
        "XOAUTH2": _xoauth2,
        "OAUTHBEARER": _oauthbearer,
        "SCRAM-SHA-1": _scram,
        "SCRAM-SHA-1-PLUS": _scram,
        "SCRAM-SHA-256": _scram,
        "SCRAM-SHA-256-PLUS": _scram,
        "SCRAM-SHA-512": _scram,
        "SCRAM-SHA-512-PLUS": _scram,
    }
)


_BEARER: Final = re.compile(r"\x01auth=[^\s\x01]+ ([^\x01]+)")
_WHOLE: Final = re.compile(r"^(.+)$", re.DOTALL)
# The part of a response that is secret by itself, also where it is said without the rest.
_SECRET_WITHIN: Final[Mapping[str, re.Pattern[str]]] = MappingProxyType(
    {
        "PLAIN": re.compile(r"\0([^\0]+)$"),
        "CRAM-MD5": re.compile(r" ([^ ]+)$"),
        "XOAUTH2": _BEARER,
        "OAUTHBEARER": _BEARER,
    }
)


def decoded(response: str) -> str | None:
    """What a response in base64 says, or None when it is none. ``=`` is the empty response."""
    if response == "=":
        return ""
    try:
        return base64.b64decode(response, validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return None


class Exchange:
    """One SASL exchange: what passes in it, and whose name it shows."""

    __slots__ = ("_heard", "_lines", "cancelled", "mechanism")

    def __init__(self, mechanism: str) -> None:
        self.mechanism = mechanism.upper()
        self.cancelled = False
        self._lines = 0  # challenges and answers so far
        self._heard: list[str] = []

    def fault(self, line: bytes, most: int) -> str:
        """Why one more challenge or answer may not pass, of at most so many; "" where it may."""
        if line == b"*":
            self.cancelled = True
            return ""
        self._lines += 1
        if self.cancelled:
            return "it comes behind a cancellation"
        if self._lines > most:
            return f"it is one more than max_authline_count, which is {most} (SCRAM and GSSAPI want 6)"
        return "it holds a control character" if CONTROL.search(line) is not None else ""

    def hear(self, response: str) -> list[str]:
        """Take one response of the client; gives the texts in it that no log may show."""
        text = decoded(response)
        secrets = [response]
        # What can't be read counts too: behind it, the password would be taken for the name.
        self._heard.append(text or "")
        if text is None:
            return secrets
        # LOGIN asks for the name first: that alone is no secret.
        if self.mechanism == "LOGIN" and len(self._heard) == 1:
            return []
        secrets.append(text)
        within = _SECRET_WITHIN.get(self.mechanism, _WHOLE).search(text)
        if within is not None:
            secrets.append(within[1])
        return secrets

    def username(self) -> str | None:
        """The name, once a response has shown it."""
        shown = _NAME_SHOWN_BY.get(self.mechanism)
        return shown(self._heard) if shown and self._heard else None
