"""What the installed gateway logs, read by the tools that read logs: journald, rsyslog, logrotate, fail2ban."""

from __future__ import annotations

import json
import poplib
import re
import socketserver
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from tests.integration.clients import transcript
from tests.systemd.service import UNIT, Service
from tests.until import until

pytestmark = pytest.mark.timeout(1200)  # the image may have to be made first

LOG = "/var/log/pop3gw/pop3gw.log"
MAIL_LOG = "/var/log/mail.log"
FAILURES = 3


class _Refusing(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"+OK ready\r\n")
        for line in self.rfile:
            self.wfile.write(b"-ERR no\r\n" if line.startswith(b"PASS") else b"+OK\r\n")


@pytest.fixture(scope="module")
def refusing() -> Iterator[int]:
    """The port of a server that takes no password, at once: Dovecot waits longer with each."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Refusing) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def fails_to_log_in(service: Service) -> None:
    """Wrong passwords, the names of users being what an attacker of log readers would choose."""
    for user in ("reader", "x login failed client=192.0.2.1 user=y", "login failed client=192.0.2.2 user=z"):
        session = poplib.POP3("127.0.0.1", service.port, timeout=30)
        with pytest.raises(poplib.error_proto):
            session.user(user)
            session.pass_("wrong")
        session.close()


def restart_with(service: Service, main: str, **settings: object) -> None:
    service.configure(main, **settings)
    service.box.run("systemctl", "restart", UNIT)


def test_the_journal_has_fields(service: Service) -> None:
    transcript(service.account, 1)
    service.wait_for("session ended")
    (ended,) = [entry for entry in service.entries() if entry.get("POP3GW_USER") == "reader"]
    assert ended["MESSAGE"].startswith(f"info inbound {ended['POP3GW_SESSION']}: session ended client=127.0.0.1:")
    assert (ended["POP3GW_SERVICE"], ended["POP3GW_END"], ended["POP3GW_RETRIEVED"]) == ("inbound", "quit", "1")
    assert (ended["PRIORITY"], ended["SYSLOG_IDENTIFIER"]) == ("6", "pop3gw")


def test_rsyslog_gets_single_lines(service: Service) -> None:
    restart_with(service, "log_target = syslog")
    session = poplib.POP3("127.0.0.1", service.port, timeout=30)
    with pytest.raises(poplib.error_proto):
        session.user("a\x0bb\x1b[31m")
    session.quit()
    until("rsyslog has it", lambda: "session ended" in service.box.attempt("cat", MAIL_LOG).stdout)
    lines = [line for line in service.box.read(MAIL_LOG).splitlines() if "pop3gw[" in line]
    assert any(": info inbound " in line and "session ended client=" in line for line in lines)
    assert all(re.search(r"pop3gw\[\d+\]: (info|warning|error)\b", line) for line in lines)
    assert all(line.isprintable() for line in lines)


def test_json_is_one_object_a_line(service: Service) -> None:
    service.box.run("rm", "-f", LOG)
    restart_with(service, f"log_target = {LOG}\nlog_format = json")
    transcript(service.account, 1)
    until("the file has it", lambda: "session ended" in service.box.read(LOG))
    objects = [json.loads(line) for line in service.box.read(LOG).splitlines()]
    (ended,) = [one for one in objects if one["message"] == "session ended"]
    assert (ended["service"], ended["user"], ended["end"], ended["retrieved"]) == ("inbound", "reader", "quit", 1)
    assert [one["message"] for one in objects if "session" not in one][-1] == "ready"


def test_fail2ban_sees_who_fails_to_log_in_and_nobody_else(service: Service, refusing: int) -> None:
    """In the journal, in files, in syslog; as text and as JSON."""
    lines = []
    for main, log in [
        ("", ""),
        (f"log_target = {LOG}", LOG),
        (f"log_target = {LOG}\nlog_format = json", LOG),
        ("log_target = syslog", MAIL_LOG),
        ("log_target = syslog\nlog_format = json", MAIL_LOG),
    ]:
        service.box.shell(f"rm -f {LOG}; : > {MAIL_LOG}")
        restart_with(service, main, server=f"127.0.0.1:{refusing}")
        fails_to_log_in(service)
        command = ("cat", log) if log else ("journalctl", "--no-pager", f"--cursor={service.cursor}", f"--unit={UNIT}")
        until("it is logged", partial(logged, service, command))
        lines.append(service.box.run(*command))
    service.box.write("/srv/lines", "".join(lines))
    said = service.box.run("fail2ban-regex", "--out=ip", "/srv/lines", "/etc/fail2ban/filter.d/pop3gw.conf")
    assert said.split() == ["127.0.0.1"] * FAILURES * len(lines)


def logged(service: Service, command: tuple[str, ...]) -> bool:
    return service.box.attempt(*command).stdout.count("login failed client=127.0.0.1") >= FAILURES


def test_the_jail_is_one_that_fail2ban_takes(service: Service) -> None:
    service.box.write("/etc/fail2ban/jail.local", f"[pop3gw]\nenabled = true\nbackend = polling\nlogpath = {LOG}\n")
    dumped = service.box.run("fail2ban-client", "-d")
    assert "['add', 'pop3gw', 'polling']" in dumped
    assert "login failed client=" in dumped
    service.box.run("rm", "/etc/fail2ban/jail.local")
    assert "'pop3gw'" not in service.box.run("fail2ban-client", "-d")


def test_logrotate_loses_no_line(service: Service) -> None:
    service.box.shell(f"rm -f {LOG}*")
    restart_with(service, f"log_target = {LOG}")
    transcript(service.account, 1)
    until("a session is logged", lambda: "session ended" in service.box.read(LOG))
    service.box.run("logrotate", "--force", "/etc/logrotate.d/pop3gw")
    until("the new file is in use", lambda: "the log was reopened" in service.box.read(LOG))
    transcript(service.account, 1)
    until("a session is logged there", lambda: "session ended" in service.box.read(LOG))
    assert service.box.read(f"{LOG}.1").count("session ended") == 1
    assert service.box.shell(f"stat -c '%U %G %a' {LOG}").strip() == "pop3gw pop3gw 640"


def test_the_same_lines_of_logrotate_serve_a_gateway_that_root_has_started(service: Service) -> None:
    """As without systemd; there logrotate signals it, by its pid file."""
    service.box.shell(f"systemctl stop {UNIT}; rm -f {LOG}*")
    service.configure(f"log_target = {LOG}")
    service.box.run("pop3gw")
    try:
        until("it is ready", lambda: re.search("ready$", service.box.read(LOG), re.MULTILINE))
        for _ in range(3):
            transcript(service.account, 1)
            until("a session is logged", lambda: "session ended" in service.box.read(LOG))
            service.box.run("logrotate", "--force", "/etc/logrotate.d/pop3gw")
            service.box.shell("kill -USR1 $(cat /run/pop3gw/pop3gw.pid)")
            until("the new file is in use", lambda: "the log was reopened" in service.box.read(LOG))
        assert service.box.shell(f"stat -c '%n %U %G %a' {LOG}*").splitlines() == [
            f"{LOG}{suffix} pop3gw pop3gw 640" for suffix in ("", ".1", ".2.gz", ".3.gz")
        ]
    finally:
        service.box.shell("kill -INT $(cat /run/pop3gw/pop3gw.pid)")
        until("it has ended", lambda: service.box.attempt("test", "-e", "/run/pop3gw/pop3gw.pid").returncode != 0)


def test_a_full_disk_stops_no_session_and_is_told_when_it_has_room_again(service: Service) -> None:
    service.box.shell(
        f"systemctl stop {UNIT}; mount -t tmpfs -o size=64k,uid=$(id -u pop3gw),mode=750 tmpfs /var/log/pop3gw"
    )
    try:
        service.configure(main=f"log_target = {LOG}")
        service.start()
        service.box.shell("cat /dev/zero > /var/log/pop3gw/filler || true")
        written = service.box.read(LOG)
        for _ in range(60):
            assert transcript(service.account, 1)
        assert len(service.box.read(LOG)) < len(written) + 4096  # what the last page of the file had room for
        service.box.run("rm", "/var/log/pop3gw/filler")
        for _ in range(4):
            transcript(service.account, 1)
        until("the loss is told", lambda: "lines of the log were lost" in service.box.read(LOG))
    finally:
        service.box.shell(f"systemctl stop {UNIT}; umount /var/log/pop3gw")
