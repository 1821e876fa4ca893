"""Clients and callbacks that take their time, and passwords that are wrong: whom it delays, and for how long."""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Iterator

import pytest

from tests.hostile.peers import GREETING, Mailbox, ask, dial, is_served, logged_in, processes
from tests.integration.conftest import Folders
from tests.tls.gateway import Gateway, Server, gateway, line, rest
from tests.until import until

POLICIES = """
import time
from pop3gw.policy import *


LARGE = (1 << 6_000_000) - 1  # its square takes longer than callback_timeout, and no signal interrupts that


class Hasty(Pop3Proxy):
    def config(self):
        Pop3Proxy.config(self)
        self.auth_timeout = 500


class Slow(Pop3Proxy):
    def config(self):
        Pop3Proxy.config(self)
        self.callback_timeout = 300
        self.request["NOOP"] = (POP3_REQ_POLICY, self.sleep)
        self.request["RSET"] = (POP3_REQ_POLICY, self.spin)
        self.request["STAT"] = (POP3_REQ_POLICY, None, self.swallow)
        self.request["RETR"] = (POP3_REQ_POLICY, None, self.stall)
        self.request["LAST"] = (POP3_REQ_POLICY, self.insist)
        self.request["UIDL"] = (POP3_REQ_POLICY, self.compute)

    def compute(self, command):
        return POP3_REQ_ACCEPT if LARGE * LARGE else POP3_REQ_ABORT

    def sleep(self, command):
        time.sleep(60)
        return POP3_REQ_ACCEPT

    def spin(self, command):
        while True:
            pass

    def swallow(self, text):
        try:
            time.sleep(60)
        except BaseException:
            pass
        return POP3_RSP_ACCEPT

    def stall(self, text):
        if text == "last":
            time.sleep(60)
        return POP3_RSP_ACCEPT

    def insist(self, command):
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass


class Busy(Slow):
    def config(self):
        Slow.config(self)
        self.callback_timeout = 3000


class Lazy(Pop3Proxy):
    callback_timeout = 300

    def config(self):
        if self.session.client_address is not None:
            time.sleep(60)


class Unborn(Pop3Proxy):
    callback_timeout = 300
    made = 0

    def __init__(self):
        Unborn.made += 1
        if Unborn.made > 1:  # not where it is checked
            time.sleep(60)


class Patient(Pop3Proxy):
    def config(self):
        Pop3Proxy.config(self)
        self.max_auth_failures = 10
"""
CLASSES = ("Hasty", "Slow", "Busy", "Lazy", "Unborn")


@pytest.fixture(scope="module")
def running(folders: Folders, mailbox: tuple[Mailbox, Server]) -> Iterator[Gateway]:
    base: dict[str, object] = {"server": f"127.0.0.1:{mailbox[1].port}"}
    services = {name.lower(): {**base, "policy": f'"times:{name}"'} for name in CLASSES}
    services["plain"] = base
    services["shared"] = {**base, "policy": '"times:Patient"', "sessions_per_worker": 8, "max_workers": 1}
    services["shared"]["max_spare"] = 1
    with gateway(folders(), services, {"times": POLICIES}) as made:
        yield made


@pytest.mark.parametrize("said", [b"USER alice", b"STAT\r\n"], ids=["half a request", "requests that are refused"])
def test_a_client_that_trickles_does_not_escape_auth_timeout(running: Gateway, said: bytes) -> None:
    with dial(running.port("hasty")) as client:
        assert line(client) == GREETING
        began = time.monotonic()
        octets = iter(said * 1000 if said.endswith(b"\n") else said + b"x" * 1000)
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 10:
                client.send(bytes([next(octets)]))
                if select.select([client], [], [], 0.02)[0] and client.recv(4096) == b"":
                    break
        assert time.monotonic() - began < 5
    running.wait_for(r" hasty .*auth_timeout has passed, waiting for the client")


def test_half_a_request_at_auth_timeout_is_answered_silence_is_not(running: Gateway) -> None:
    for said, answer in ((b"USER al", b"-ERR Invalid command.\r\n"), (b"", b"")):
        with dial(running.port("hasty")) as client:
            assert line(client) == GREETING
            client.sendall(said)
            assert rest(client) == answer


@pytest.mark.parametrize(
    ("request_", "callback"),
    [(b"NOOP", "sleep"), (b"RSET", "spin"), (b"STAT", "swallow"), (b"UIDL", "compute")],
    ids=["sleep", "spin", "swallow", "compute"],
)
def test_a_callback_that_takes_too_long_fails_closed(running: Gateway, request_: bytes, callback: str) -> None:
    with logged_in(dial(running.port("slow"))) as client:
        began = time.monotonic()
        assert ask(client, request_).startswith(b"-ERR ")
        assert time.monotonic() - began < 3
        assert ask(client, b"DELE 1") == b"+OK\r\n"  # the session goes on
    running.wait_for(rf" slow .*Slow: callback Slow\.{callback} failed on .*callback_timeout \(300 ms\)")


def test_a_message_whose_line_callback_takes_too_long_never_looks_whole(running: Gateway) -> None:
    with logged_in(dial(running.port("slow"))) as client:
        assert ask(client, b"RETR 1") == b"+OK\r\n"
        got = rest(client)
        assert not got.endswith(b".\r\n")
        assert b"-ERR" not in got
    running.wait_for(r" slow .*Slow\.stall failed on .*callback_timeout")


@pytest.mark.parametrize(
    ("service", "said"),
    [
        ("lazy", r"Lazy: callback Lazy\.config failed on config\(\).*callback_timeout"),
        ("unborn", r"Unborn: no instance .*callback_timeout \(300 ms\)"),
    ],
)
def test_a_policy_that_takes_too_long_to_begin_refuses_the_session(
    running: Gateway, mailbox: tuple[Mailbox, Server], service: str, said: str
) -> None:
    visits = len(mailbox[0].visits)
    with dial(running.port(service)) as client:
        assert rest(client) == b"-ERR [SYS/TEMP] Service not available\r\n"
    running.wait_for(f" {service} .*{said}")
    assert len(mailbox[0].visits) == visits


def test_a_callback_that_swallows_every_interruption_ends_its_worker_and_no_other(running: Gateway) -> None:
    port = running.port("slow")
    with logged_in(dial(port)) as stubborn, logged_in(dial(port)) as other:
        stubborn.sendall(b"LAST\r\n")
        assert ask(other, b"DELE 1") == b"+OK\r\n"
        assert rest(stubborn) == b""
        assert ask(other, b"DELE 2") == b"+OK\r\n"
    running.wait_for(r" error slow: callback Slow[.]\w+ of times:Slow swallows each interruption by callback_timeout")
    with logged_in(dial(port)) as client:
        assert ask(client, b"QUIT") == b"+OK bye\r\n"


def test_a_callback_that_spins_in_one_session_delays_no_other(running: Gateway) -> None:
    port = running.port("busy")
    with logged_in(dial(port)) as spins:
        spins.sendall(b"RSET\r\n")
        until(
            "it spins", lambda: running.log.count("client: RSET") > 0 and len(processes(running, "worker [busy]")) > 1
        )
        with logged_in(dial(port)) as client:
            assert ask(client, b"QUIT") == b"+OK bye\r\n"
        assert not select.select([spins], [], [], 0)[0]
        assert line(spins).startswith(b"-ERR ")


def test_too_many_failed_logins_end_the_session(running: Gateway, mailbox: tuple[Mailbox, Server]) -> None:
    with dial(running.port("plain")) as client:
        assert line(client) == GREETING
        client.sendall(b"USER nobody\r\nPASS guess\r\n" * 4 + b"QUIT\r\n")
        assert rest(client) == b"+OK\r\n-ERR [AUTH] no\r\n" * 3
    visit = mailbox[0].visits[-1]
    assert visit.over.wait(5)
    assert visit.requests == [b"USER nobody\r\n", b"PASS guess\r\n"] * 3


def test_the_delay_after_failed_logins_grows_and_holds_nobody_else_up(running: Gateway) -> None:
    port = running.port("shared")
    with dial(port) as guesses:
        assert line(guesses) == GREETING
        began = time.monotonic()
        guesses.sendall(b"USER nobody\r\nPASS guess\r\n" * 4)
        for _ in range(3):
            assert line(guesses) == b"+OK\r\n"
            assert line(guesses) == b"-ERR [AUTH] no\r\n"
        assert time.monotonic() - began > 1.5  # 0.25 + 0.5 + 1
        assert line(guesses) == b"+OK\r\n"
        assert is_served(port)  # by the same process
        assert not select.select([guesses], [], [], 0)[0]
        assert line(guesses) == b"-ERR [AUTH] no\r\n"
    assert len(processes(running, "worker [shared]")) == 1
