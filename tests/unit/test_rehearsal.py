"""The rehearsal: it goes the whole way of a session, and leaves nothing behind."""

from __future__ import annotations

import gc
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pop3gw import logs, rehearsal
from pop3gw.conversation import Conversation
from pop3gw.relay import Relay
from pop3gw.settings import Service
from pop3gw.tls import contexts
from pop3gw.values import Address, Certificate, Tls
from tests.tls.certificates import Authority

SERVICE = Service(name="t", listen=(), server=Address("192.0.2.1", 110))


def test_it_leaves_nothing_behind(capfd: pytest.CaptureFixture[str]) -> None:
    def descriptors() -> list[str]:
        return sorted(one.name for one in Path("/proc/self/fd").iterdir())

    gc.collect()  # of other tests

    def handlers() -> list[object]:
        return [
            signal.getsignal(signal.SIGALRM),
            signal.getsignal(signal.SIGTERM),
            signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        ]

    title = Path("/proc/self/cmdline").read_bytes()
    log, handled, before = logs.current(), handlers(), descriptors()
    began = time.monotonic()
    rehearsal.rehearse(SERVICE, frozenset({Address("127.0.0.1", 110)}))
    assert time.monotonic() - began < rehearsal.LIMIT
    assert logs.current() is log
    assert handlers() == handled
    assert Path("/proc/self/cmdline").read_bytes() == title
    assert len(descriptors()) == len(before)
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """How sessions have ended, and their client's version of TLS."""
    ends: list[tuple[str, str | None]] = []
    real = Relay.done

    def done(relay: Relay, conversation: Conversation) -> None:
        session = conversation._session
        facts = session.policy.session.client_tls
        ends.append((str(session.ending), facts.version if facts else None))
        real(relay, conversation)

    monkeypatch.setattr(Relay, "done", done)
    return ends


@pytest.mark.interpreted
def test_every_session_is_whole(ended: list[tuple[str, str | None]]) -> None:
    rehearsal.rehearse(SERVICE, frozenset())
    assert ended == [("quit", None)] * rehearsal.WORKERS * rehearsal.SESSIONS


@pytest.mark.interpreted
@pytest.mark.parametrize("mode", [Tls.STARTTLS, Tls.REQUIRED, Tls.IMPLICIT])
def test_with_tls_every_session_is_whole_too(mode: Tls, ended: list[tuple[str, str | None]], tmp_path: Path) -> None:
    pair = Authority(tmp_path).server
    certificate = Certificate("", str(pair.certificate))
    service = replace(SERVICE, tls=mode, tls_certificate=(certificate,), tls_key=(str(pair.key),))
    rehearsal.rehearse(service, frozenset(), contexts(service))
    assert ended == [("quit", "TLSv1.3")] * rehearsal.WORKERS * rehearsal.SESSIONS


def test_without_a_loopback_interface_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError

    monkeypatch.setattr("socket.create_server", refused)
    rehearsal.rehearse(SERVICE, frozenset())


def test_whoever_else_takes_the_servers_place_can_hold_it_up_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    real, made, others = socket.create_server, list[socket.socket](), list[socket.socket]()

    def raced(address: tuple[str, int]) -> socket.socket:
        listener = real(address)
        if made:  # the second one: where workers connect to
            others.append(socket.create_connection(listener.getsockname()))
        made.append(listener)
        return listener

    monkeypatch.setattr("socket.create_server", raced)
    monkeypatch.setattr(rehearsal, "LIMIT", 0.2)
    began = time.monotonic()
    rehearsal.rehearse(SERVICE, frozenset())
    assert time.monotonic() - began < SERVICE.connect_timeout
    others[0].close()


def test_a_timer_that_goes_off_meanwhile_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def played(*_: object) -> None:
        signal.raise_signal(signal.SIGALRM)  # of this thread: others of pytest's do not let it wait
        signal.setitimer(signal.ITIMER_REAL, 60.0)

    monkeypatch.setattr(rehearsal, "_play", played)
    handler = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    try:
        rehearsal.rehearse(SERVICE, frozenset())
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGALRM, handler)


def test_whoever_else_connects_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    real, others = socket.create_server, list[socket.socket]()

    def raced(address: tuple[str, int]) -> socket.socket:
        listener = real(address)
        others.append(socket.create_connection(listener.getsockname()))  # before the rehearsal's own
        return listener

    def served(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("socket.create_server", raced)
    monkeypatch.setattr(Relay, "adopt", served)
    rehearsal.rehearse(SERVICE, frozenset())
    with others[0] as other:
        assert other.recv(100) == b""
    others[1].close()
