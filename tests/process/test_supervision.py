"""Under a service manager: what it is told, a hung master, and sockets that it holds while the gateway is restarted."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.gateway import PATIENCE, Client, Gateway, Make, cpu_seconds


class Manager:
    """A service manager that listens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._end.bind(str(path))
        path.chmod(0o666)
        self._end.settimeout(PATIENCE)

    def hears(self, wanted: str) -> list[str]:
        """All that is told, up to and with this."""
        heard: list[str] = []
        deadline = time.monotonic() + PATIENCE
        while not any(re.search(wanted, text) for text in heard[-1:]):
            assert time.monotonic() < deadline, (wanted, heard)
            heard.append(self._end.recv(4096).decode())
        return heard

    def hears_nothing_for(self, seconds: float) -> bool:
        self._end.settimeout(seconds)
        try:
            self._end.recv(4096)
        except TimeoutError:
            return True
        finally:
            self._end.settimeout(PATIENCE)
        return False

    def drain(self) -> None:
        """Forget what was told so far."""
        self._end.setblocking(False)
        try:
            while self._end.recv(4096):
                pass
        except BlockingIOError:
            self._end.settimeout(PATIENCE)

    def close(self) -> None:
        self._end.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


@pytest.fixture
def gateway(make: Make, manager: Manager) -> Gateway:
    gateway = make()
    gateway.environment["NOTIFY_SOCKET"] = str(manager.path)
    return gateway


def test_ready_is_told_when_clients_are_served(gateway: Gateway, manager: Manager) -> None:
    gateway.launch()
    manager.hears("READY=1")
    assert gateway.workers("idle")
    gateway.connect().logged_in().quits()


def test_a_gateway_that_does_not_start_is_never_ready(gateway: Gateway, manager: Manager) -> None:
    gateway.policy("import nothing_of_that_name\n")
    gateway.launch()
    assert gateway.wait() == 78
    manager.drain()
    assert manager.hears_nothing_for(0.1)


def test_sessions_and_workers_are_counted(gateway: Gateway, manager: Manager) -> None:
    gateway.start()
    client = gateway.connect().logged_in()
    manager.hears(r"STATUS=1 sessions, \d+ workers")
    client.quits()
    manager.hears(r"STATUS=0 sessions, \d+ workers")
    manager.drain()
    before = cpu_seconds(gateway.master)
    assert manager.hears_nothing_for(1.5)  # nothing happens: nothing is told, and nothing wakes up
    assert cpu_seconds(gateway.master) - before < 0.1


def test_a_reload_is_told_whether_it_holds_or_not(gateway: Gateway, manager: Manager) -> None:
    gateway.launch()
    manager.hears("READY=1")
    gateway.reload()
    manager.hears("RELOADING=1\nMONOTONIC_USEC=[0-9]+")
    assert "READY=1" in manager.hears("READY=1")
    gateway.policy("import nothing_of_that_name\n")
    gateway.reload()
    manager.hears("RELOADING=1")
    manager.hears("READY=1")
    manager.hears("STATUS=.*the last reload failed")


def test_a_stop_is_told_with_the_time_that_it_may_take(gateway: Gateway, manager: Manager) -> None:
    gateway.settings["shutdown_timeout"] = 100
    gateway.launch()
    manager.hears("READY=1")
    client = gateway.connect().logged_in()
    gateway.signal(signal.SIGTERM)
    manager.hears("STOPPING=1\nEXTEND_TIMEOUT_USEC=115000000")
    client.quits()
    assert gateway.wait() == 0


def test_the_watchdog_is_fed_by_the_masters_loop_and_by_nobody_else(gateway: Gateway, manager: Manager) -> None:
    gateway.environment["WATCHDOG_USEC"] = "300000"
    gateway.launch()
    manager.hears("READY=1")
    for _ in range(3):
        manager.hears("WATCHDOG=1")
    os.kill(gateway.master, signal.SIGSTOP)
    manager.drain()
    assert manager.hears_nothing_for(0.5)
    os.kill(gateway.master, signal.SIGCONT)
    manager.hears("WATCHDOG=1")


def test_what_policies_start_knows_nothing_of_the_manager(gateway: Gateway, manager: Manager) -> None:
    gateway.policy(
        "import os\nfrom pop3gw.policy import *\nclass Office(Pop3Proxy):\n    def config(self):\n"
        "        super().config()\n"
        "        found = sorted(name for name in os.environ if name.startswith(('NOTIFY_', 'LISTEN_')))\n"
        "        self.request['NOOP'] = (POP3_REQ_REJECT, f'{found}')\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as held:
        gateway.passed = {gateway.name: held}
        gateway.launch()
        manager.hears("READY=1")
        assert Client(held.getsockname()[1]).logged_in().ask("NOOP") == "-ERR []"


def test_a_restart_refuses_no_connection_to_a_socket_that_is_held(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as held:
        port = held.getsockname()[1]
        first = make(listen=f"127.0.0.1:{port}")
        first.passed = {"pop3gw.socket": held}
        first.start()
        running = Client(port).logged_in()
        first.signal(signal.SIGTERM)
        first.wait_for("stopping")
        waiting = [Client(port) for _ in range(20)]
        assert waiting[0].is_waiting(0.1)
        running.quits()
        assert first.wait() == 0
        second = make(listen=f"127.0.0.1:{port}")
        second.passed = {"pop3gw.socket": held}
        second.start()
        for client in waiting:
            client.logged_in().quits()


def test_a_held_socket_of_no_service_stops_the_start(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        gateway = make()
        gateway.passed = {"pop3gw.socket": held}
        gateway.launch()
        assert gateway.wait() == 78
    assert f"no service has the socket 127.0.0.1:{held_port(gateway.log)}" in gateway.log


def held_port(log: str) -> str:
    found = re.search(r"the socket 127\.0\.0\.1:(\d+), which systemd passes as pop3gw\.socket", log)
    assert found is not None
    return found[1]
