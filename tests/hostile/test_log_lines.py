"""What peers say never reaches the log raw, and secrets never at all, though it be debug and with tracebacks."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

import pytest

from tests.hostile.peers import Mailbox, ask, dial
from tests.integration.conftest import Folders
from tests.tls.gateway import Gateway, Server, gateway, line, rest
from tests.until import until

SECRET = "corr\u00e9ct\\h'orse\x7f"[:-1]  # with what repr() escapes
GREETING = b"+OK ready \x1b]0;owned\x07 \xc2\x9b31m \xe2\x80\xa8 <1@2>\r\n"
POLICY = """
from pop3gw.policy import *


class Fragile(Pop3Proxy):
    def config(self):
        Pop3Proxy.config(self)
        self.request["PASS"] = (POP3_REQ_POLICY, self.check)
        self.request["NOOP"] = (POP3_REQ_POLICY, self.tell)
        self.request["AUTH"] = POP3_REQ_ACCEPT

    def check(self, command):
        if self.username == "raises":
            raise ValueError(f"no account for {self.request_param!r} and {self.password}")
        return POP3_REQ_ACCEPT

    def tell(self, command):
        raise RuntimeError("first\\r\\nforged \\x1b[31m line with " + self.password)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    mailbox = Mailbox(greeting=GREETING)
    mailbox.answers[b"AUTH"] = b"-ERR no \x1b[2J\r\n"
    made = Server(mailbox)
    yield made
    made.close()


@pytest.fixture(scope="module")
def running(folders: Folders, server: Server) -> Iterator[Gateway]:
    services = {"fragile": {"server": f"127.0.0.1:{server.port}", "policy": '"fragile:Fragile"'}}
    with gateway(folders(), services, {"fragile": POLICY}) as made:
        yield made


def spellings(secret: str) -> set[bytes]:
    """As it is, as Python prints it, and as SASL carries it."""
    octets = secret.encode()
    plain = base64.b64encode(b"\0alice\0" + octets)
    return {octets, repr(secret)[1:-1].encode(), repr(octets)[2:-1].encode(), base64.b64encode(octets), plain}


def test_no_octet_of_a_peer_and_no_secret_reaches_the_log_raw(running: Gateway) -> None:
    port = running.port("fragile")
    password = SECRET.encode()
    with dial(port) as client:
        assert line(client) == GREETING
        for user, answer in ((b"raises", b"-ERR "), (b"ali\xc2\x9bce\xff", b"+OK\r\n")):
            assert ask(client, b"USER " + user) == b"+OK\r\n"
            assert ask(client, b"PASS " + password).startswith(answer)
        assert ask(client, b"NOOP").startswith(b"-ERR")
        assert ask(client, b"\x1b[31mSTAT\x07").startswith(b"-ERR")
        assert ask(client, b"LIST \r\r\x00").startswith(b"-ERR")
        client.sendall(b"\xe2\x80\xa8" + password + b" 2026-11-23T00:00:00 pop3gw[1] info: forged\r\n")
        assert rest(client).startswith(b"-ERR")
    with dial(port) as client:
        assert line(client) == GREETING
        ask(client, b"AUTH PLAIN " + base64.b64encode(b"\0alice\0" + password))
    until("both sessions are summed up", lambda: running.log.count("session ended") == 2)
    log = running.log_file.read_bytes()
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", log)
    assert not re.search("[\x80-\x9f\u2028\u2029]", log.decode())
    for spelling in spellings(SECRET):
        assert spelling not in log
    assert b"ValueError" in log  # the tracebacks are there
    assert b"RuntimeError" in log
    assert not re.search(rb"^(?:forged|first)", log, re.MULTILINE)
