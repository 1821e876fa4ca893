"""What every test with TLS has: an authority, and a Dovecot that speaks it in every way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.integration import servers
from tests.integration.conftest import Folders, folder, folders
from tests.integration.servers import Server, free_port
from tests.tls.certificates import Authority

__all__ = ["folder", "folders"]

MESSAGES = [
    b"Subject: first\n\nHello.\n",
    b"Subject: dots\n\n.\n..\n.hidden\nlast\n",
    b"Subject: long\n\n" + b"0123456789abcdef\n" * 20_000,
]


@dataclass(frozen=True, slots=True)
class Dovecot:
    """Its ports: in clear with STLS, implicit TLS, and in clear behind a PROXY header."""

    server: Server
    clear: int
    implicit: int
    behind_proxy: int


@pytest.fixture(scope="session")
def authority(folders: Folders) -> Authority:
    return Authority(folders())


@pytest.fixture(scope="session")
def dovecot(folders: Folders, authority: Authority) -> Iterator[Dovecot]:
    """Dovecot with STLS and POP3S; its user "reader" has MESSAGES."""
    implicit, behind_proxy = free_port(), free_port()
    pair = authority.server
    more = f"""
ssl = yes
ssl_cert = <{pair.certificate}
ssl_key = <{pair.key}
haproxy_trusted_networks = 127.0.0.0/8
service pop3-login {{
  inet_listener pop3s {{
    port = {implicit}
    ssl = yes
  }}
  inet_listener pop3_haproxy {{
    port = {behind_proxy}
    haproxy = yes
  }}
}}
"""
    with servers.dovecot(folders(), more=more) as server:
        server.user("reader", MESSAGES)
        yield Dovecot(server, server.port, implicit, behind_proxy)
