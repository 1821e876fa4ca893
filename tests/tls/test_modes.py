"""Each mode towards clients with each mode towards a server, and the clients that people use with each of them."""

from __future__ import annotations

import itertools
import poplib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pop3gw.values import Tls
from tests.integration.conftest import Folders
from tests.integration.mailbox import as_sent
from tests.integration.servers import PASSWORD
from tests.tls.certificates import NAME, Authority
from tests.tls.clients import CLIENTS, USER
from tests.tls.conftest import MESSAGES, Dovecot
from tests.tls.gateway import Gateway, gateway

SENT = [as_sent(message) for message in MESSAGES]


@pytest.fixture(scope="module")
def modes(folders: Folders, authority: Authority, dovecot: Dovecot) -> Iterator[Gateway]:
    """A service for each pair of modes."""
    services = {}
    for client, server in itertools.product(Tls, Tls):
        settings: dict[str, object] = {
            "server": f"{NAME}:{dovecot.implicit if server is Tls.IMPLICIT else dovecot.clear}",
            "tls": client,
            "server_tls": server,
            "max_spare": 1,
        }
        if client is not Tls.OFF:
            settings |= {"tls_certificate": authority.server.certificate, "tls_key": authority.server.key}
        if server is not Tls.OFF:
            settings["server_ca"] = authority.file
        services[f"{client}-{server}"] = settings
    with gateway(folders(), services) as running:
        yield running


@pytest.mark.parametrize("server", Tls)
@pytest.mark.parametrize("client", Tls)
def test_a_session_in_every_mode(modes: Gateway, authority: Authority, client: Tls, server: Tls) -> None:
    name = f"{client}-{server}"
    context = authority.trusting()
    implicit = client is Tls.IMPLICIT
    port = modes.port(name)
    session = poplib.POP3_SSL(NAME, port, context=context) if implicit else poplib.POP3(NAME, port)
    with closing(session):
        capabilities = session.capa()
        assert ("STLS" in capabilities) is (client in (Tls.STARTTLS, Tls.REQUIRED))
        assert ("USER" in capabilities) is (client is not Tls.REQUIRED)
        if client is Tls.REQUIRED:
            for login in (f"USER {USER}", f"PASS {PASSWORD}", "AUTH PLAIN", f"APOP {USER} {'0' * 32}"):
                with pytest.raises(poplib.error_proto, match="Turn on TLS"):
                    session._shortcmd(login)  # type: ignore[attr-defined]
        if client in (Tls.STARTTLS, Tls.REQUIRED):
            session.stls(context)
            assert "STLS" not in session.capa()
            assert "USER" in session.capa()
        session.apop(USER, PASSWORD)
        got = [b"\r\n".join(session.retr(number)[1]) + b"\r\n" for number in (1, 2, 3)]
        session.quit()
    assert got == [message.replace(b"\r\n..", b"\r\n.") for message in SENT] or got == SENT
    modes.wait_for(rf" {name} \S+: session ended")
    (ended,) = [one for one in modes.log.splitlines() if f" {name} " in one and "session ended" in one]
    assert ("client_tls=TLSv1.3" in ended) is (client is not Tls.OFF)
    assert ("server_tls=TLSv1.3" in ended) is (server is not Tls.OFF)


@pytest.mark.parametrize("mode", [Tls.REQUIRED, Tls.IMPLICIT])
@pytest.mark.parametrize("client", CLIENTS)
def test_the_clients_that_people_use(
    modes: Gateway, authority: Authority, folder: Path, client: str, mode: Tls
) -> None:
    if client == "getmail" and mode is Tls.REQUIRED:
        return  # it knows no STLS
    got = CLIENTS[client](modes.port(f"{mode}-required"), authority.file, mode is Tls.IMPLICIT, folder)

    def stripped(messages: list[bytes]) -> list[bytes]:
        """Without line ends, which clients turn into those of their system."""
        return sorted(message.replace(b"\r\n", b"\n").rstrip(b"\n") for message in messages)

    assert stripped(got) == stripped(SENT)


def test_a_policy_that_demands_tls_where_there_is_none_is_told(folders: Folders, authority: Authority) -> None:
    pair = {"tls_certificate": authority.server.certificate, "tls_key": authority.server.key}
    service: dict[str, object] = {"server": f"{NAME}:9", "policy": "pop3gw.policies.tls:TlsRequired"}
    with gateway(folders(), {"without": service, "with": {**service, **pair, "tls": Tls.STARTTLS}}) as running:
        said = "pop3gw.policies.tls:TlsRequired demands TLS (tls_required) where there is none"
        assert f"[without] tls: {said}; expected another tls" in running.log
        assert "warning with:" not in running.log
