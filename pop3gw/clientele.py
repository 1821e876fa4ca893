"""Who has how many sessions of a service, and whether one more is allowed (``max_sessions_per_client``).

Pure, and knows no workers: it is told whose sessions begin and end. A client is an IPv4 address, or an IPv6 one with
all of its /64. Behind a proxy it is nobody until the PROXY header has named it.
"""

from __future__ import annotations

import functools
import ipaddress
from typing import Final

_NOBODY: Final = ""  # the client behind a proxy, until it is named


def client_key(address: str) -> str:
    """Whom an address is counted as: an IPv4 address as itself (also when mapped), an IPv6 one by its /64.

    What is none, which a worker may say, is counted as it is.
    """
    return _network(address) if ":" in address else address


@functools.lru_cache(maxsize=1024)
def _network(address: str) -> str:
    try:
        number = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if number.ipv4_mapped is not None:
        return str(number.ipv4_mapped)
    return f"{int(number) >> 64:x}/64"


class Clientele:
    """The clients of one service; ``sessions``: how many they have in all."""

    __slots__ = ("_behind_proxy", "_counts", "_limit", "sessions")

    def __init__(self) -> None:
        self.sessions = 0
        self._counts: dict[str, int] = {}
        self._behind_proxy = False
        self._limit = 0

    def begin(self, limit: int, *, behind_proxy: bool) -> None:
        """From now on a client may have so many sessions (0: any number), and connections don't tell it, or do."""
        self._limit = limit
        self._behind_proxy = behind_proxy

    def admits(self, address: str) -> bool:
        """Whether who connects from there may have another session; behind a proxy that is asked by ``named``."""
        return not self._limit or self._behind_proxy or self._below_limit(client_key(address))

    def come(self, address: str) -> str:
        """A session begins for who connects from there; returns whom it is counted as, for ``leave``."""
        client = _NOBODY if self._behind_proxy else client_key(address)
        self._enter(client)
        return client

    def named(self, counted: str, address: str) -> str | None:
        """A session that was counted as one client is this one's; returns whom it is counted as now.

        None: this client has too many already, and nothing has changed.
        """
        client = client_key(address)
        if not self._below_limit(client):
            return None
        self.leave(counted)
        self._enter(client)
        return client

    def leave(self, client: str) -> None:
        """A session that is counted as this client's is over."""
        left = self._counts[client] - 1
        if left:
            self._counts[client] = left
        else:
            del self._counts[client]
        self.sessions -= 1

    def _enter(self, client: str) -> None:
        self._counts[client] = self._counts.get(client, 0) + 1
        self.sessions += 1

    def _below_limit(self, client: str) -> bool:
        return not self._limit or self._counts.get(client, 0) < self._limit
