"""Whether a connection to an address arrives at a listener of this machine: a gateway that is its own server forks
itself to exhaustion.

Asked twice: of the configuration, as far as numbers tell, and of each address that a server's name turns out to have.
Known limit: a detour over another host (address translation, a second gateway) is not seen.
"""

from __future__ import annotations

import socket

from pop3gw.values import Address, IPAddress


def leads_to(server: Address, listener: Address) -> bool:
    """Whether a connection to ``server`` arrives at ``listener``; a name leads nowhere yet."""
    if server.ip is None or listener.ip is None or server.port != listener.port:
        return False
    to, at = _unmapped(server.ip), _unmapped(listener.ip)
    if to.is_unspecified:  # connecting to 0.0.0.0 means this machine
        return at.is_unspecified or at.is_loopback
    return to == at or (at.is_unspecified and at.version == to.version and _is_local(to))


def _unmapped(ip: IPAddress) -> IPAddress:
    """::ffff:192.0.2.1 is 192.0.2.1."""
    return getattr(ip, "ipv4_mapped", None) or ip


def _is_local(ip: IPAddress) -> bool:
    """Whether the address is one of this machine: those alone can be bound."""
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(ip), 0))
    except OSError:
        return False
    return True
