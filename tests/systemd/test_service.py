"""The installed package at work under systemd: mail, reloads, restarts, the ends that a master can have, keys."""

from __future__ import annotations

import poplib
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration import mailbox
from tests.integration.clients import CLIENTS, Account, transcript
from tests.systemd.service import CONFIG, UNIT, Service
from tests.until import until

pytestmark = pytest.mark.timeout(1200)  # the image may have to be made first

NOOP = (
    "from pop3gw.policy import *\nclass Office(Pop3Proxy):\n    def config(self):\n        super().config()\n"
    "        self.request['NOOP'] = (POP3_REQ_REJECT, '{}')\n"
)


def login(service: Service) -> poplib.POP3:
    session = poplib.POP3("127.0.0.1", service.port, timeout=60)
    session.user("reader")
    session.pass_("demo")
    return session


def noop(service: Service) -> bytes:
    """What NOOP is answered, in a session of its own."""
    session = login(service)
    try:
        return session.noop()
    except poplib.error_proto as error:
        return bytes(error.args[0])
    finally:
        session.close()


@pytest.mark.parametrize("client", CLIENTS)
def test_mail_is_fetched_inside_the_sandbox_as_without_a_gateway(
    client: str, untouched: Service, tmp_path: Path
) -> None:
    fetched = []
    for port in (untouched.server.port, untouched.port):
        folder = tmp_path / str(port)
        folder.mkdir()
        fetched.append(CLIENTS[client](Account(port, "reader"), folder))
    assert len(fetched[0]) == mailbox.MESSAGES
    assert fetched[1] == fetched[0]


def test_every_octet_inside_the_sandbox(service: Service) -> None:
    service.configure(policy="pop3gw.policies.apop:UToAPop3")
    service.box.run("systemctl", "restart", UNIT)
    direct = transcript(Account(service.server.port, "reader"), mailbox.MESSAGES)
    assert transcript(service.account, mailbox.MESSAGES) == direct


def test_the_sandbox_is_tight(untouched: Service) -> None:
    untouched.box.run("systemd-analyze", "security", "--no-pager", "--threshold=15", UNIT)
    uid, gid = untouched.box.shell("id -u pop3gw; id -g pop3gw").split()
    group = untouched.box.show(UNIT, "ControlGroup")
    processes = untouched.box.read(f"/sys/fs/cgroup/systemd{group}/cgroup.procs").split()
    owners = untouched.box.shell(f"stat --format='%u %g' {' '.join(f'/proc/{pid}' for pid in processes)}")
    assert len(processes) >= 4
    assert set(owners.splitlines()) == {f"{uid} {gid}"}
    main = untouched.box.show(UNIT, "MainPID")
    others = " ".join(f"/proc/{pid}/status" for pid in processes if pid != main)
    assert set(untouched.box.shell(f"grep -h '^CapAmb:' {others} | cut -f 2").split()) == {"0" * 16}
    asked = f"import os; print(os.sched_getscheduler({main}) == os.SCHED_BATCH)"
    assert untouched.box.run("python3", "-c", asked).strip() == "True"  # the master may give way to the workers


def test_a_low_port_needs_no_root(service: Service) -> None:
    low = "127.0.0.42"
    service.port = next(port for port in range(110, 1024) if not _listened_on(low, port))
    service.configure(listen=f"{low}:{service.port}")
    service.box.run("systemctl", "restart", UNIT)
    assert f"listening on {low}:{service.port} service=inbound" in service.log


def _listened_on(address: str, port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(5)
        return client.connect_ex((address, port)) == 0


# Start and status.


def test_the_status_line_counts_sessions_and_workers(untouched: Service) -> None:
    session = login(untouched)
    until("one session is shown", lambda: untouched.box.show(UNIT, "StatusText").startswith("1 sessions, "))
    session.quit()
    until("no session is shown", lambda: untouched.box.show(UNIT, "StatusText").startswith("0 sessions, "))


def test_the_sysv_script_leaves_the_unit_to_systemctl(service: Service) -> None:
    def script(action: str) -> int:
        return service.box.attempt("/etc/init.d/pop3gw", action).returncode

    first = service.master
    assert script("status") == 0
    assert script("start") == 0
    assert service.master == first
    assert script("reload") == 0
    assert script("restart") == 0
    assert service.master != first
    assert transcript(service.account, 1)
    assert script("stop") == 0
    assert service.box.show(UNIT, "ActiveState") == "inactive"
    assert script("status") == 3


def test_the_unit_finds_the_command_where_pip_puts_it(service: Service) -> None:
    service.box.shell("mv /usr/bin/pop3gw /usr/bin/pop3gwctl /usr/local/bin/")
    try:
        service.box.run("systemctl", "restart", UNIT)
        service.box.run("systemctl", "reload", UNIT)
        assert transcript(service.account, 1)
    finally:
        service.box.shell("mv /usr/local/bin/pop3gw /usr/local/bin/pop3gwctl /usr/bin/")


def test_a_wrong_configuration_is_told(service: Service) -> None:
    service.configure(policy="office:Office")
    done = service.box.attempt("systemctl", "restart", UNIT)
    assert done.returncode != 0
    until("it was told", lambda: "/etc/pop3gw.conf:7: [inbound] policy: " in service.box.journal())
    until("it has ended so", lambda: "status=78" in service.box.journal())


def test_an_unwritable_pid_file_is_told(service: Service) -> None:
    service.configure(main="pid_file = /usr/pop3gw.pid")
    assert service.box.attempt("systemctl", "restart", UNIT).returncode != 0
    assert "the pid file /usr/pop3gw.pid can't be written: Read-only file system" in service.box.journal()


# Reload.


def test_a_good_reload_serves_the_new_policy_and_a_bad_one_changes_nothing(service: Service) -> None:
    service.box.write("/etc/pop3gw/policies/office.py", NOOP.format("first"))
    service.configure(policy="office:Office")
    master = service.master
    service.box.run("systemctl", "reload", UNIT)
    service.wait_for("the configuration was reloaded")
    assert noop(service) == b"-ERR first"
    service.box.write("/etc/pop3gw/policies/office.py", "import nothing_of_that_name\n")
    done = service.box.attempt("systemctl", "reload", UNIT)
    assert done.returncode != 0
    assert "nothing_of_that_name" in service.box.journal()
    assert service.box.show(UNIT, "ActiveState") == "active"
    assert noop(service) == b"-ERR first"
    assert service.master == master


def test_a_bad_reload_shows_in_the_status(service: Service) -> None:
    service.configure(policy="office:Office")
    service.box.run("systemctl", "kill", "--kill-who=main", "--signal=HUP", UNIT)
    until("the status says so", lambda: "the last reload failed" in service.box.show(UNIT, "StatusText"))
    assert service.box.show(UNIT, "ActiveState") == "active"
    assert transcript(service.account, 1)


def test_the_gateway_can_be_asked(untouched: Service) -> None:
    session = login(untouched)
    assert "reader" in untouched.box.run("pop3gwctl", "sessions")
    session.quit()


# Restart, and the ends of a master.


class Load:
    """Clients that log in and quit, one session after the other, until the block ends."""

    def __init__(self, service: Service, clients: int = 4) -> None:
        self.sessions = 0
        self.failures: list[str] = []
        self._service = service
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                session = login(self._service)
                session.stat()
                session.quit()
                self.sessions += 1
            except (OSError, poplib.error_proto) as error:
                self.failures.append(repr(error))

    def more(self, sessions: int = 20) -> None:
        """Wait until so many more sessions were served."""
        wanted = self.sessions + sessions
        until(f"{sessions} more sessions", lambda: self.sessions >= wanted or self.failures)


def test_a_restart_under_load_refuses_nobody(service: Service) -> None:
    service.hold_listeners()
    with Load(service) as load:
        for _ in range(2):
            load.more()
            before = service.master
            service.box.run("systemctl", "restart", UNIT)
            assert service.master != before
        load.more()
    assert load.failures == []


def test_a_wrong_configuration_is_tried_again_and_keeps_the_sockets(service: Service) -> None:
    service.hold_listeners()
    right = service.box.read(CONFIG)
    service.box.write(CONFIG, "[main\n")
    service.box.attempt("systemctl", "restart", UNIT)
    with ThreadPoolExecutor(1) as one:
        waits = one.submit(transcript, service.account, 1)
        until("it was tried again", lambda: int(service.box.show(UNIT, "NRestarts")) >= 2)
        assert int(service.box.show(UNIT, "NRestarts")) <= 10  # a second between two
        assert service.box.show("pop3gw.socket", "ActiveState") == "active"
        service.box.write(CONFIG, right)
        assert waits.result()


def test_a_killed_master_is_started_again_and_new_clients_only_wait(service: Service) -> None:
    service.hold_listeners()
    before = service.master
    service.box.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", UNIT)
    assert transcript(service.account, 1)  # connected while there was no master
    assert service.master not in (0, before)
    assert service.box.show(UNIT, "NRestarts") == "1"


def test_a_hung_master_is_ended_by_the_watchdog_and_started_again(service: Service) -> None:
    service.drop_in("[Service]\nWatchdogSec=2\n")
    service.box.run("systemctl", "restart", UNIT)
    before = service.master
    service.box.run("systemctl", "kill", "--kill-who=main", "--signal=STOP", UNIT)
    until("another master", lambda: service.master not in (0, before))
    until("it serves", lambda: service.box.show(UNIT, "ActiveState") == "active")
    assert "Watchdog timeout" in service.box.run("journalctl", "--no-pager", "--lines=100")
    assert transcript(service.account, 1)


def test_a_stop_lets_sessions_finish_beyond_the_units_own_limit(service: Service) -> None:
    service.drop_in("[Service]\nTimeoutStopSec=1\n")
    service.configure(main="", shutdown_timeout=60)
    service.box.run("systemctl", "restart", UNIT)
    session = login(service)
    service.box.run("systemctl", "stop", "--no-block", UNIT)
    service.wait_for("1 sessions may finish")
    end = time.monotonic() + 3
    while time.monotonic() < end:
        session.noop()
    session.quit()
    until("it has stopped", lambda: service.box.show(UNIT, "ActiveState") == "inactive")
    assert service.box.show(UNIT, "Result") == "success"


# Keys.


def test_a_key_that_only_root_may_read_is_a_credential(service: Service) -> None:
    shared = service.box.shared
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    files = ["-keyout", str(shared / "key.pem"), "-out", str(shared / "cert.pem")]
    subprocess.run([*make.split(), "-addext", "subjectAltName=DNS:localhost", *files], check=True, capture_output=True)
    service.box.shell(
        "install -d -m 700 /etc/pop3gw/tls; cp /srv/test/key.pem /etc/pop3gw/tls/key.pem;"
        " install -m 644 /srv/test/cert.pem /etc/pop3gw/cert.pem"
    )
    service.drop_in("[Service]\nLoadCredential=key.pem:/etc/pop3gw/tls/key.pem\n")
    service.configure(
        tls="implicit", tls_certificate="/etc/pop3gw/cert.pem", tls_key="/run/credentials/pop3gw.service/key.pem"
    )
    service.box.run("systemctl", "restart", UNIT)
    session = poplib.POP3_SSL(
        "localhost", service.port, timeout=30, context=ssl.create_default_context(cafile=str(shared / "cert.pem"))
    )
    session.user("reader")
    session.pass_("demo")
    assert session.stat()[0] == mailbox.MESSAGES
    session.quit()
    service.box.run("systemctl", "reload", UNIT)
    service.wait_for("the configuration was reloaded")
