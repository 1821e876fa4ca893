"""CAPA: the capabilities that will really work through this gateway (RFC 2449).

Pure. The server's list loses what the policy refuses and what the gateway does not relay; what the gateway adds comes
behind it. It must not know policies: it asks ``usable`` about each command.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

# Capabilities that stand for no command.
_NO_COMMAND: Final = frozenset(
    ["PIPELINING", "RESP-CODES", "AUTH-RESP-CODE", "EXPIRE", "LOGIN-DELAY", "IMPLEMENTATION"]  # RFC 2449, RFC 3206
)

# Capabilities that stand for another command than their own name.
_COMMANDS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({"SASL": ("AUTH",), "USER": ("USER", "PASS")})

# What the gateway knows to work with any server of RFC 1939 that the policy lets be used.
_OWN: Final = ("TOP", "UIDL", "USER")

# What may be ``added``.
_ADDABLE: Final = ("USER", "STLS")

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_LOGINS: Final = ([b"USER"], [b"SASL"])


class Capabilities:
    """The answer to one CAPA.

    ``usable(command)`` tells whether the client may use a command now; ``added()`` gives the capabilities that work
    here whether the server lists them or not.
    """

    def __init__(self, usable: Callable[[str], bool], added: Callable[[], Sequence[str]]) -> None:
        self._usable = usable
        self._added = added
        self._listed: set[str] = set()

    def _works(self, tag: str) -> bool:
        return tag in _NO_COMMAND or all(map(self._usable, _COMMANDS.get(tag, (tag,))))

    def filtered(self, lines: Sequence[str | None]) -> list[str | None]:
        """The server's lines, None for those that are taken out."""
        kept: list[str | None] = []
        for line in lines:
            # RFC 2449 allows no control character; another reader may take it for a line's end.
            tag = line.partition(" ")[0].upper() if line and not _CONTROL.search(line) else ""
            works = tag not in ("", "STLS") and self._works(tag)
            if tag == "SASL" and line is not None and "-PLUS" in line.upper():
                # Bound to the TLS of one connection (RFC 5802 section 6); here it ends between client and server.
                words = [word for word in line.split(" ") if not word.upper().endswith("-PLUS")]
                line, works = " ".join(words), works and len(words) > 1
            if works and tag in _ADDABLE:  # no others, of which a server may send any number
                self._listed.add(tag)
            kept.append(line if works else None)
        return kept

    def closing(self) -> bytes:
        """The lines that the server did not list but that work here."""
        return _lines([tag for tag in self._added() if tag not in self._listed])

    def own(self) -> bytes:
        """The whole answer where the server has none, without status line and terminator."""
        tags = [tag for tag in _OWN if self._works(tag)]
        return _lines(tags + [tag for tag in self._added() if tag not in tags])


def without_logins(lines: bytes) -> bytes:
    """A policy's own answer to CAPA, as it is shown where nobody may log in before TLS."""
    return b"".join(line for line in lines.splitlines(keepends=True) if line.upper().split()[:1] not in _LOGINS)


def _lines(tags: list[str]) -> bytes:
    return "".join(f"{tag}\r\n" for tag in tags).encode("ascii")
