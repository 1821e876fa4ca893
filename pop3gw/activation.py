"""Listeners that systemd passes on (sd_listen_fds(3)): taken from the environment, checked, not yet given to a service.

Which service gets which is decided in ``listeners``. What can't be used is an error at the start, since systemd would
let clients connect to it and nobody would ever answer them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Final

from pop3gw.errors import StartError
from pop3gw.listeners import Listener
from pop3gw.values import Address, host_and_port

_FIRST: Final = 3


def take(environment: MutableMapping[str, str]) -> list[Listener]:
    """The listeners that were passed to this process; none where none were. Their variables are removed.

    StartError: one is no listening TCP socket, or takes both IPv4 and IPv6.
    """
    meant = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "0")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if meant != str(os.getpid()) or not count.isdecimal():
        return []
    names += [""] * int(count)
    return [_listener(_FIRST + number, names[number]) for number in range(int(count))]


def _listener(descriptor: int, name: str) -> Listener:
    try:
        os.set_inheritable(descriptor, False)
        end = socket.socket(fileno=descriptor)
    except OSError as error:
        raise StartError(f"descriptor {descriptor}, passed by systemd, is no socket: {error.strerror}") from None
    said = f"the socket {name or descriptor}, passed by systemd,"
    if (
        end.family not in (socket.AF_INET, socket.AF_INET6)
        or end.type != socket.SOCK_STREAM
        or not end.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        raise StartError(f"{said} does not listen for TCP connections; its unit needs ListenStream=ADDRESS:PORT")
    host, port = end.getsockname()[:2]
    address = Address.parse(host_and_port(host, port))
    if end.family == socket.AF_INET6 and not end.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        raise StartError(f"{said} takes IPv4 too; its unit needs BindIPv6Only=ipv6-only and an address for each")
    end.setblocking(False)
    return Listener("", address, address, end, passed=name)
