"""Policies that mean harm to the master: forged records on its channel, and anything at all in the shared memory."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest

from tests.process.gateway import ACCEPTS_ALL, PATIENCE, Client, Gateway, Make, Server
from tests.until import until

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="policies have an account of their own only where root starts it")
# Each time its file appears, the template says what stands there for each of the first workers.
FORGER = """
import ast, os, socket, struct, threading, time
from pop3gw import messages

ORDER = {order!r}

def channels():
    for name in os.listdir("/proc/self/fd"):
        try:
            end = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        if end.family == socket.AF_UNIX and end.type == socket.SOCK_SEQPACKET:
            yield end

def forge():
    while True:
        time.sleep(0.02)
        try:
            kind, *fields = open(ORDER).read().split()
            os.unlink(ORDER)
        except (OSError, ValueError):
            continue
        for end in channels():
            for worker in range(16):
                try:
                    end.send(messages.encode(getattr(messages, kind)(worker, *map(int, fields))), socket.MSG_DONTWAIT)
                except OSError:
                    pass

threading.Thread(target=forge, daemon=True).start()
"""
SCRIBBLER = f"""{ACCEPTS_ALL}
    def config(self):
        super().config()
        self.request["NOOP"] = (POP3_REQ_POLICY, self.scribble)

    def scribble(self, command):
        import ctypes, os
        for line in open("/proc/self/maps"):
            place, rights, *_ = line.split()
            if rights == "rw-s":
                first, last = (int(end, 16) for end in place.split("-"))
                if self.request_param == "ff":
                    ctypes.memset(first, 0xff, last - first)
                else:
                    ctypes.memmove(first, os.urandom(last - first), last - first)
        return POP3_REQ_ACCEPT
"""


class Pair:
    """A gateway with a hostile service and, behind it, one that means no harm."""

    def __init__(self, gateway: Gateway, server: Server) -> None:
        self.gateway = gateway
        self.other = f"{gateway.name}other"
        self.orders = gateway.folder / "orders"
        self.orders.mkdir()
        self.orders.chmod(0o777)
        gateway.policy(ACCEPTS_ALL, "good")
        gateway.settings.update(min_spare=1, max_spare=1)
        gateway.main["control_socket"] = gateway.folder / "pop3gw.sock"
        with socket.create_server(("127.0.0.1", 0)) as free:
            gateway.main["metrics_listen"] = f"127.0.0.1:{free.getsockname()[1]}"
        gateway.more = (
            f"  [[{self.other}]]\n  listen = 127.0.0.1:0\n  server = 127.0.0.1:{server.server_address[1]}\n"
            '  policy = "good:Office"\n  min_spare = 1\n  max_spare = 1\n'
        )

    def start(self, *, forges: bool) -> None:
        order = str(self.orders / "order")
        self.gateway.policy(ACCEPTS_ALL + FORGER.format(order=order) if forges else SCRIBBLER)
        self.gateway.start()

    def forge(self, order: str) -> None:
        """Have the template say this, and wait until it has."""
        (self.orders / "new").write_text(order)
        (self.orders / "new").rename(self.orders / "order")
        until("it is said", lambda: not (self.orders / "order").exists())

    def goes_on(self) -> None:
        """The master lives, and everything beside the hostile service does what it should."""
        assert self.gateway.process is not None
        Client(self.gateway.port_of(self.other)).logged_in().quits()
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(PATIENCE)
            control.connect(str(self.gateway.main["control_socket"]))
            control.sendall(b'{"command": "status"}\n')
            assert json.loads(control.makefile().read())["ok"]
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(PATIENCE)
            control.connect(str(self.gateway.main["control_socket"]))
            control.sendall(b'{"command": "sessions"}\n')
            assert json.loads(control.makefile().read())["ok"]
        with urllib.request.urlopen(f"http://{self.gateway.main['metrics_listen']}/metrics", timeout=PATIENCE) as page:
            assert b"pop3gw_sessions_running" in page.read()
        assert self.gateway.process.poll() is None
        assert "the control process" not in self.gateway.log
        assert "the master ends" not in self.gateway.log


@pytest.fixture
def pair(make: Make, server: Server) -> Pair:
    return Pair(make(), server)


@pytest.fixture
def foreign() -> Iterator[subprocess.Popen[bytes]]:
    """A process of root's that is none of the gateway's business."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


@ROOT
def test_a_process_that_a_template_calls_its_worker_is_not_killed(pair: Pair, foreign: subprocess.Popen[bytes]) -> None:
    gateway = pair.gateway
    pair.start(forges=True)
    (worker,) = gateway.workers()
    os.kill(worker, signal.SIGSTOP)
    pair.forge(f"Forked {foreign.pid}")
    pair.goes_on()
    gateway.signal(signal.SIGINT)
    assert gateway.wait() == 0
    assert f"worker {foreign.pid} does not do what it is told and is killed" in gateway.log
    assert foreign.poll() is None


@ROOT
def test_a_pid_that_means_every_process_ends_the_template_that_says_it(
    pair: Pair, foreign: subprocess.Popen[bytes]
) -> None:
    pair.start(forges=True)
    pair.forge("Forked -1")
    pair.gateway.wait_for("given up and killed: -1 is no pid of a worker")
    pair.goes_on()
    pair.gateway.wait_for("sessions go on, another is started")
    pair.gateway.connect().logged_in().quits()
    assert foreign.poll() is None


@pytest.mark.parametrize("what", ["ff", "random"])
def test_whatever_stands_in_the_shared_memory_the_master_goes_on(pair: Pair, what: str) -> None:
    gateway = pair.gateway
    pair.start(forges=False)
    for times in range(1, 3):
        client = gateway.connect().logged_in()
        client.socket.sendall(f"NOOP {what}\r\nQUIT\r\n".encode())
        while client.hear():
            pass
        pair.goes_on()
        until("another worker", lambda: gateway.workers("idle"))
        for worker in gateway.workers():
            os.kill(worker, signal.SIGKILL)
        gateway.wait_for("ended: signal 9", times)
    pair.goes_on()
    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 0


@pytest.mark.parametrize("told", [127, 65407, 1 << 40])
def test_an_end_that_no_process_has_ends_the_template_that_says_it(pair: Pair, told: int) -> None:
    gateway = pair.gateway
    pair.start(forges=True)
    (template,) = gateway.pids("template")
    pair.forge(f"Exited 1 {told}")
    gateway.wait_for(f"template {template} is given up and killed: {told} is no status that a process ends with")
    pair.goes_on()
    gateway.wait_for(f"the template (process {template}) ended: signal 9")
    gateway.connect().logged_in().quits()
    assert gateway.pids("template") != [template]
