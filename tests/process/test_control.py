"""pop3gwctl against a live gateway: each command, who may use the socket, and who only tries to."""

from __future__ import annotations

import json
import os
import pwd
import re
import shlex
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme

from pop3gw import ctl
from pop3gw.control import WAITING
from tests.process.gateway import ACCEPTS_ALL, PATIENCE, Client, Gateway, Make, Server, cpu_seconds, titles
from tests.until import until

COMMAND = (sys.executable, "-c", "import sys; from pop3gw.ctl import main; sys.exit(main())")
ROOT = os.geteuid() == 0
SESSIONS = 50
STUBBORN = (
    ACCEPTS_ALL
    + """\
    def config(self):
        Pop3Proxy.config(self)
        self.request["NOOP"] = (POP3_REQ_POLICY, self.wait)

    def wait(self, command):
        import time
        time.sleep(60)
"""
)


class Ctl:
    """pop3gwctl for one gateway, run in this process."""

    def __init__(self, gateway: Gateway, capture: pytest.CaptureFixture[str]) -> None:
        self.path = str(gateway.main["control_socket"])
        self._capture = capture

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """Exit status, and what was printed."""
        self._capture.readouterr()
        status = ctl.main(["--socket", self.path, *arguments])
        said = self._capture.readouterr()
        return status, said.out + said.err

    def json(self, *arguments: str) -> Any:
        status, said = self("--json", *arguments)
        told = json.loads(said)
        assert (status == 0) is told["ok"], told
        return told.get("result", told.get("error"))

    def service(self) -> Any:
        (service,) = self.json("status")["services"]
        return service


def start(gateway: Gateway) -> Gateway:
    gateway.main["control_socket"] = gateway.folder / "pop3gw.sock"
    return gateway.start()


@pytest.fixture(scope="module")
def full(server: Server) -> Iterator[tuple[Gateway, list[Client]]]:
    """A gateway with 50 sessions, alice0 to alice49."""
    with Gateway(server, min_spare=8, max_spare=16, max_workers=60) as gateway:
        start(gateway)
        clients = [gateway.connect().logged_in(f"alice{number}") for number in range(SESSIONS)]
        yield gateway, clients


@pytest.fixture
def control(full: tuple[Gateway, list[Client]], capsys: pytest.CaptureFixture[str]) -> Ctl:
    return Ctl(full[0], capsys)


@pytest.fixture
def one(make: Make, capsys: pytest.CaptureFixture[str]) -> tuple[Gateway, Ctl]:
    gateway = start(make())
    return gateway, Ctl(gateway, capsys)


# Looking.


def test_status(full: tuple[Gateway, list[Client]], control: Ctl) -> None:
    service = control.service()
    assert (service["name"], service["state"], service["sessions"]) == (full[0].name, "serving", SESSIONS)
    assert service["policy"] == "office:Office"
    assert service["listen"] == [f"127.0.0.1:{full[0].port}"]
    assert service["workers"]["busy"] == SESSIONS
    assert service["workers"]["max"] == 60
    assert service["total"]["sessions"] >= SESSIONS
    assert service["total"]["logins"] >= SESSIONS
    assert not any(service["errors"].values())
    status, said = control("status")
    assert status == 0
    assert f"{SESSIONS} sessions;" in said
    assert "errors    none" in said


def test_sessions(full: tuple[Gateway, list[Client]], control: Ctl) -> None:
    gateway, clients = full
    sessions = {session["user"]: session for session in control.json("sessions")["sessions"]}
    assert set(sessions) == {f"alice{number}" for number in range(SESSIONS)}
    session = sessions["alice7"]
    address, port = clients[7].socket.getsockname()
    assert session["client"] == f"{address}:{port}"
    assert session["server"] == gateway.settings["server"]
    assert session["state"] == "TRANSACTION"
    assert session["from_client"] == len("USER alice7\r\nPASS secret\r\n")
    assert session["to_client"] == len("+OK ready\r\n+OK\r\n+OK\r\n")
    assert 0 <= session["seconds"] < 120
    assert session["client_tls"] is None
    assert session["pid"] in gateway.workers("alice7 ")
    _, said = control("sessions")
    assert len(said.splitlines()) == SESSIONS + 1
    assert said.startswith("SESSION ")


def test_a_session_is_found_by_its_user_or_client(full: tuple[Gateway, list[Client]], control: Ctl) -> None:
    _, said = control("sessions", "ALICE13")
    assert [line.split()[2] for line in said.splitlines()[1:]] == ["alice13"]
    port = full[1][3].socket.getsockname()[1]
    (session,) = control.json("sessions", f"127.0.0.1:{port}", "trans")["sessions"]
    assert session["user"] == "alice3"
    assert control("sessions", "nobody-of-that-name") == (0, "no session\n")


def test_octets_and_states_are_those_of_now(full: tuple[Gateway, list[Client]], control: Ctl) -> None:
    def shown() -> Any:
        return control.json("sessions", "alice49")["sessions"][0]

    before = shown()
    full[1][49].ask("STAT")
    until("counted", lambda: shown()["to_client"] > before["to_client"])
    after = shown()
    assert after["from_client"] - before["from_client"] == len("STAT\r\n")
    assert after["to_client"] - before["to_client"] == len("+OK 0 0\r\n")


class Terminal:
    """A terminal in which a command runs."""

    def __init__(self, *command: str) -> None:
        self._name = f"pop3gw-{uuid.uuid4().hex[:10]}"
        without = ("env", "-u", "COLUMNS", "-u", "LINES")
        self("new-session", "-d", "-x", "180", "-y", "70", shlex.join([*without, *command]))

    def __call__(self, *arguments: str) -> str:
        """What tmux says to this."""
        command = ["tmux", "-L", self._name, "-f", "/dev/null", *arguments]
        return subprocess.run(command, capture_output=True, text=True).stdout

    @property
    def picture(self) -> str:
        return self("capture-pane", "-p")

    def shows(self, text: str) -> bool:
        return text in self.picture

    def close(self) -> None:
        self("kill-server")


def test_top_in_a_terminal(full: tuple[Gateway, list[Client]], control: Ctl) -> None:
    command = shlex.join([*COMMAND, "--socket", control.path, "top", "--interval", "0.2"])
    with closing(Terminal("sh", "-c", f"trap : INT; {command}; echo status $?; cat")) as terminal:
        until("top draws", lambda: "alice49" in terminal.picture)
        picture = terminal.picture
        assert re.search(rf"^{full[0].name} +serving +{SESSIONS} ", picture, re.M)
        assert all(f"alice{number} " in picture for number in range(SESSIONS))
        line = next(line for line in picture.splitlines() if " alice20 " in line)
        for _ in range(3):  # it is drawn again: octets grow before one's eyes, and the busy come first
            full[1][20].ask("STAT")
        until("it is drawn again", lambda: line not in terminal.picture)
        terminal("send-keys", "C-c")
        until("it ends", lambda: "status 0" in terminal.picture)


def test_a_name_that_the_terminal_does_not_know_is_shown_with_question_marks(one: tuple[Gateway, Ctl]) -> None:
    """Columns stay as wide as they are, and it can be killed by its id."""
    gateway, control = one
    client = gateway.connect().logged_in("Жанна")
    latin = ("env", "PYTHONIOENCODING=latin-1", *COMMAND, "--socket", control.path)
    with closing(Terminal(*latin, "top")) as terminal:
        until("top draws", lambda: " ????? " in terminal.picture)
    (session,) = control.json("sessions", "жанна")["sessions"]
    for arguments in (["sessions"], ["kill", session["session"]]):
        done = subprocess.run([*latin, *arguments], capture_output=True, text=True, timeout=PATIENCE)
        assert (done.returncode, done.stderr) == (0, "")
        assert " ????? " in done.stdout
    assert client.hear() == ""


def test_tls_is_shown(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    authority = trustme.CA()
    pair = authority.issue_cert("pop.example")
    gateway = make(tls="implicit")
    gateway.settings["tls_certificate"] = gateway.folder / "cert.pem"
    pair.private_key_and_cert_chain_pem.write_to_path(str(gateway.folder / "cert.pem"))
    start(gateway)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    plain = socket.create_connection(("127.0.0.1", gateway.port), PATIENCE)
    with context.wrap_socket(plain, server_hostname="pop.example") as client:
        assert client.recv(100).startswith(b"+OK")
        (session,) = Ctl(gateway, capsys).json("sessions")["sessions"]
        assert (session["client_tls"], session["server_tls"]) == (client.version(), None)


# Doing.


def test_kill_ends_this_session_and_no_other(full: tuple[Gateway, list[Client]], control: Ctl) -> None:
    gateway, clients = full
    (session,) = control.json("sessions", "alice0 ".strip(), f":{clients[0].socket.getsockname()[1]}")["sessions"]
    status, said = control("kill", session["session"][:8])
    assert status == 0
    assert said.startswith(f"ended: {session['session']} ")
    assert clients[0].hear() == ""
    gateway.wait_for(f"{session['session']}: ended by the gateway: the administrator ended it")
    assert re.search(rf"{session['session']}: session ended .* end=killed by=gateway", gateway.log)
    assert "kill " in gateway.log
    assert clients[1].ask("NOOP") == "+OK"
    until("the worker serves on", lambda: control.service()["sessions"] == SESSIONS - 1)
    assert control("kill", session["session"])[0] == 1
    clients[0] = gateway.connect().logged_in("alice0")


@pytest.mark.parametrize(("wanted", "said"), [("0123456789ab", "there is no session"), ("0", "the id of a session")])
def test_what_is_no_session_is_not_killed(control: Ctl, wanted: str, said: str) -> None:
    status, text = control("kill", wanted)
    assert status == 1
    assert said in text
    assert said in control.json("kill", wanted)


def test_one_of_many_sessions_of_a_worker_is_killed(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    gateway = start(make(sessions_per_worker=10, min_spare=1, max_spare=1, max_workers=1))
    control = Ctl(gateway, capsys)
    clients = [gateway.connect().logged_in(f"bob{number}") for number in range(4)]
    (session,) = control.json("sessions", "bob2")["sessions"]
    control.json("kill", session["session"])
    assert clients[2].hear() == ""
    for number in (0, 1, 3):
        clients[number].quits()
    assert gateway.count("end=killed") == 1


def test_a_session_that_can_not_be_ended_is_told_with_its_process(one: tuple[Gateway, Ctl]) -> None:
    gateway, control = one
    gateway.policy(STUBBORN)
    control.json("reload")
    client = gateway.connect().logged_in("carol")
    client.socket.sendall(b"NOOP\r\n")
    (session,) = control.json("sessions", "carol")["sessions"]
    pid = session["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        status, said = control("kill", session["session"])
    finally:
        os.kill(pid, signal.SIGCONT)
    assert status == 1
    assert f"kill -9 {pid}" in said
    os.kill(pid, signal.SIGKILL)
    assert client.hear() == ""
    until("it is counted as lost", lambda: control.service()["errors"]["sessions_lost"] == 1)


def test_drain_turns_clients_away_until_resume_also_over_a_reload(one: tuple[Gateway, Ctl]) -> None:
    gateway, control = one
    running = gateway.connect().logged_in()
    assert control("drain", gateway.name) == (
        0,
        f"{gateway.name}: new clients are turned away, 1 sessions go on\n",
    )
    for _ in range(2):
        assert gateway.connect().hear() == "-ERR [SYS/TEMP] this service takes no new sessions now"
        assert control.service()["state"] == "drained"
        assert control("reload")[0] == 0
    assert running.ask("NOOP") == "+OK"
    assert control.service()["total"]["clients_refused"] == 2
    assert control("resume")[0] == 0
    gateway.connect().logged_in().quits()
    assert control.service()["state"] == "serving"
    status, said = control("drain", "outbound")
    assert (status, said) == (1, f"pop3gwctl: there is no service outbound; the services are: {gateway.name}\n")
    for command, named in (("drain", gateway.name), ("resume", "every service"), ("drain", "outbound")):
        assert f"pop3gwctl: {command} {named}, asked for by uid {os.geteuid()}\n" in gateway.log


def test_a_service_that_comes_while_all_are_drained_is_too(one: tuple[Gateway, Ctl]) -> None:
    gateway, control = one
    first, second, third = gateway.name, f"b{gateway.name}", f"c{gateway.name}"

    def reload(*more: str) -> dict[str, str]:
        """How the services stand that are configured beside the first one."""
        server = gateway.settings["server"]
        gateway.more = "".join(f"  [[{name}]]\n  listen = 127.0.0.1:0\n  server = {server}\n" for name in more)
        gateway.write_config()
        assert control("reload")[0] == 0
        until("no other is left", lambda: len(states()) == 1 + len(more))
        return states()

    def states() -> dict[str, str]:
        return {service["name"]: service["state"] for service in control.json("status")["services"]}

    control("drain")
    assert set(reload(second).values()) == {"drained"}
    assert Client(gateway.port_of(second)).hear() == "-ERR [SYS/TEMP] this service takes no new sessions now"
    control("resume", second)
    reload()
    assert reload(second, third) == {first: "drained", second: "serving", third: "drained"}
    control("resume")
    control("drain", second)
    assert set(reload(third).values()) == {"serving"}
    assert reload(second, third) == {first: "serving", second: "drained", third: "serving"}
    for command in ("drain", f"resume {first}", f"resume {second}", f"resume {third}"):
        control(*command.split())
    reload()
    assert set(reload(second).values()) == {"serving"}, "all were resumed, if by name"


@pytest.mark.parametrize("command", ["drain", "resume"])
def test_an_empty_name_is_no_service(control: Ctl, command: str) -> None:
    """A variable of a shell script that was not set: that must not be every service."""
    said = f"{command} takes the name of a service; without one it is meant for every service"
    assert control(command, "") == (1, f"pop3gwctl: {said}\n")
    assert control.service()["state"] == "serving"


def test_drain_turns_away_who_waits_for_a_full_service(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    gateway = start(make(min_spare=1, max_spare=1, max_workers=1))
    control = Ctl(gateway, capsys)
    running = gateway.connect().logged_in()
    waits = gateway.connect()
    gateway.wait_for("new clients wait")
    assert control("drain")[0] == 0
    for client in (waits, gateway.connect()):
        assert client.hear() == "-ERR [SYS/TEMP] this service takes no new sessions now"
    assert control("resume")[0] == 0
    waits = gateway.connect()
    assert running.ask("NOOP") == "+OK"
    assert control.service()["total"]["clients_refused"] == 2
    running.quits()
    waits.logged_in().quits()


def test_reload_waits_and_says_what_has_changed(one: tuple[Gateway, Ctl]) -> None:
    gateway, control = one
    running = gateway.connect().logged_in()
    assert control("reload") == (0, "no setting has changed; the policies were loaded anew\n")
    gateway.settings["max_workers"] = 20
    gateway.main["log_level"] = "warning"
    gateway.write_config()
    assert control("reload") == (
        0,
        f"[main] log_level: info -> warning\n[{gateway.name}] max_workers: 256 -> 20\n",
    )
    assert control.service()["workers"]["max"] == 20
    assert control.json("reload")["said"] == ["no setting has changed; the policies were loaded anew"]
    assert control.json("status")["reloads"] == {"ok": 3, "failed": 0}
    assert control.service()["sessions"] == 1  # of an older generation
    running.quits()


def test_a_reload_says_what_differs_from_what_runs_until_a_restart(one: tuple[Gateway, Ctl]) -> None:
    gateway, control = one
    differs = "[main] log_format: text -> json (when pop3gw is restarted)\n"
    same = "no setting has changed; the policies were loaded anew\n"
    for log_format, said in (("json", differs), ("json", differs), ("text", same)):
        gateway.main["log_format"] = log_format
        gateway.write_config()
        assert control("reload") == (0, said)


def test_a_reload_that_fails_says_why(one: tuple[Gateway, Ctl]) -> None:
    gateway, control = one
    gateway.policy("class Office(:\n")
    status, said = control("reload")
    assert status == 1
    assert "SyntaxError" in said
    gateway.settings["max_workers"] = "many"
    gateway.write_config()
    status, said = control("reload")
    assert status == 1
    assert 'max_workers: "many"' in said
    assert control.json("status")["reloads"] == {"ok": 0, "failed": 2}
    gateway.connect().logged_in().quits()


def test_a_full_service_is_drained_resumed_reloaded_and_stopped_and_no_session_notices(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = start(make(min_spare=8, max_spare=16, max_workers=60))
    control = Ctl(gateway, capsys)
    clients = [gateway.connect().logged_in(f"bob{number}") for number in range(SESSIONS)]

    def all_there() -> bool:
        return all(client.ask("NOOP") == "+OK" for client in clients)

    assert control.json("drain")["said"] == [f"{gateway.name}: new clients are turned away, {SESSIONS} sessions go on"]
    assert gateway.connect().hear().startswith("-ERR [SYS/TEMP]")
    assert all_there()
    assert control.json("resume")["said"] == [f"{gateway.name}: new clients are let in"]
    assert control.json("reload")["said"] == ["no setting has changed; the policies were loaded anew"]
    assert all_there()
    assert control.service()["sessions"] == SESSIONS
    gateway.connect().logged_in().quits()
    until("the master knows that it is over", lambda: f" {SESSIONS} sessions go on" in control("drain")[1])
    assert control.json("stop")["said"] == [f"stopping; {SESSIONS} sessions may finish within shutdown_timeout"]
    assert all_there()
    for client in clients:
        client.quits()
    assert gateway.wait() == 0
    assert gateway.count("end=quit by=client") == SESSIONS + 1


def test_stop_lets_sessions_finish(one: tuple[Gateway, Ctl]) -> None:
    gateway, control = one
    running = gateway.connect().logged_in()
    assert control("stop") == (0, "stopping; 1 sessions may finish within shutdown_timeout\n")
    assert control.service()["state"] == "stopping"
    for command in ("reload", "drain", "resume"):
        assert control(command) == (1, "pop3gwctl: the gateway is being stopped\n")
    running.quits()
    assert gateway.wait() == 0
    assert not Path(control.path).exists()
    status, said = control("status")
    assert status == 1
    assert "is the gateway running" in said


def test_stop_now_ends_them(one: tuple[Gateway, Ctl]) -> None:
    gateway, control = one
    running = gateway.connect().logged_in()
    assert control("stop", "--now") == (0, "stopping; 1 sessions are ended now\n")
    assert running.hear() == ""
    assert gateway.wait() == 0


def test_counts_outlive_a_service_that_goes_and_comes_again(one: tuple[Gateway, Ctl]) -> None:
    gateway, control = one
    second = f"  [[b{gateway.name}]]\n  listen = 127.0.0.1:0\n  server = {gateway.settings['server']}\n"
    gateway.more = second
    gateway.write_config()
    assert control("reload") == (0, f"[b{gateway.name}] is new\n")
    running = Client(gateway.port_of(f"b{gateway.name}")).logged_in()
    gateway.more = ""
    gateway.write_config()
    assert control("reload") == (0, f"[b{gateway.name}] is removed; its sessions may finish\n")
    states = {service["name"]: service["state"] for service in control.json("status")["services"]}
    assert states == {gateway.name: "serving", f"b{gateway.name}": "removed"}
    running.quits()
    until("it is over", lambda: len(control.json("status")["services"]) == 1)
    gateway.more = second
    gateway.write_config()
    control("reload")
    services = {service["name"]: service for service in control.json("status")["services"]}
    assert services[f"b{gateway.name}"]["total"]["sessions"] == 1


# Who may.


def attempt(path: str, user: int, group: int, more: list[int]) -> str:
    """What somebody with this uid and these groups is told."""
    program = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
    program += 's.sendall(b\'{"command": "status"}\\n\'); print(s.makefile().read())'
    done = subprocess.run(
        ["/usr/bin/python3", "-c", program, path],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        user=user if ROOT else None,
        group=group if ROOT else None,
        extra_groups=more if ROOT else None,
    )
    return done.stdout + done.stderr


def test_only_root_and_the_group_of_the_account_may_use_the_socket(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = make()
    if ROOT:
        gateway.main.update(user="daemon", group="mail")
    start(gateway)
    control = Ctl(gateway, capsys)
    mail = 8 if ROOT else os.getegid()
    made = Path(control.path).stat()
    assert stat.S_IMODE(made.st_mode) == 0o660
    assert (made.st_uid, made.st_gid) == (os.geteuid(), mail)
    assert control.service()["state"] == "serving"
    assert '"ok": true' in attempt(control.path, 65534, mail, [])
    assert '"ok": true' in attempt(control.path, 65534, 65534, [4, mail])
    if ROOT:
        # Policies run as the workers' account: one of them must not stop the services of others.
        assert "only root and the group" in attempt(control.path, pwd.getpwnam("daemon").pw_uid, mail, [])
        assert "PermissionError" in attempt(control.path, 65534, 65534, [])
        Path(control.path).chmod(0o666)  # an administrator's mistake: the credentials still count
        assert "only root and the group" in attempt(control.path, 65534, 65534, [4])
        assert "only root and the group" in attempt(control.path, 1, 1, [])
        gateway.wait_for("uid 65534 may not use the control socket")


def test_a_socket_of_a_gateway_that_runs_is_not_taken_and_one_left_behind_is(
    one: tuple[Gateway, Ctl], make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway, control = one
    second = make()
    second.main["control_socket"] = control.path
    second.launch()
    assert second.wait() == 1
    assert f"the control socket {control.path} belongs to a gateway that runs" in second.log
    gateway.signal(signal.SIGKILL)
    gateway.wait()
    until(
        "all of it is gone",
        lambda: not [pid for pid, title in titles() if title == "pop3gw: control" and _has(pid, control.path)],
    )
    third = make()
    third.main["control_socket"] = control.path
    third.start()
    assert Ctl(third, capsys).service()["name"] == third.name


def _has(pid: int, path: str) -> bool:
    """Whether this process holds the socket of that path."""
    listed = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    inodes = {f"socket:[{fields[6]}]" for fields in listed if fields[-1] == path}
    try:
        return any(str(entry.readlink()) in inodes for entry in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


# Who only tries to.


def raw(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE)
    connection.connect(path)
    return connection


def asking(path: str, request: bytes) -> socket.socket:
    connection = raw(path)
    connection.sendall(request)
    return connection


def told(connection: socket.socket) -> Any:
    with closing(connection), connection.makefile("rb") as file:
        return json.loads(file.readline())


@pytest.mark.parametrize(
    "request_",
    [
        b"\n",
        b"status\n",
        b"[]\n",
        b"[" * 4000 + b"\n",
        b'{"command": 7}\n',
        b'{"command": "obey"}\n',
        b'{"command": "status", "more": 1}\n',
        b'{"command": "stop", "now": "yes"}\n',
        b'{"command": "kill", "session": ["a"]}\n',
        b"\xff\xfe\0\x80\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"x" * 100_000,
    ],
    ids=lambda text: text[:12].decode("latin-1").strip() or "empty",
)
def test_garbage_is_answered_with_an_error(control: Ctl, request_: bytes) -> None:
    connection = raw(control.path)
    with suppress(BrokenPipeError, ConnectionResetError):  # answered before all of it was sent
        connection.sendall(request_)
    answer = told(connection)
    assert answer["ok"] is False
    assert answer["error"]


def test_hostile_users_of_the_socket_delay_nobody(full: tuple[Gateway, list[Client]], control: Ctl) -> None:
    """Silent ones, a flood, a megabyte without an end, and one that asks and never takes its answer."""
    gateway, clients = full
    before = cpu_seconds(gateway.master)
    held: list[socket.socket] = []
    try:
        for _ in range(40):
            held.append(raw(control.path))
            held[-1].setblocking(False)
        flood = raw(control.path)
        held.append(flood)
        flood.setblocking(False)
        with pytest.raises((BlockingIOError, BrokenPipeError, ConnectionResetError)):
            for _ in range(64):
                flood.send(b"x" * 16384)
        deaf = raw(control.path)
        held.append(deaf)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        deaf.sendall(b'{"command": "sessions"}\n')
        began = time.monotonic()
        assert control.service()["sessions"] == SESSIONS
        assert clients[5].ask("NOOP") == "+OK"
        gateway.connect().logged_in("dave").quits()
        assert time.monotonic() - began < 5
    finally:
        for connection in held:
            connection.close()
    assert cpu_seconds(gateway.master) - before < 1
    assert control.service()["sessions"] == SESSIONS


def test_many_who_wait_for_a_reload_delay_nobody(one: tuple[Gateway, Ctl]) -> None:
    gateway, control = one
    fifo = gateway.folder / "fifo"
    os.mkfifo(fifo, 0o644)
    fifo.chmod(0o644)
    gateway.policy(f"open({str(fifo)!r}).read()\n{ACCEPTS_ALL}")
    waiting = [asking(control.path, b'{"command": "reload"}\n') for _ in range(WAITING)]
    gateway.wait_for("pop3gwctl: reload", WAITING)
    with fifo.open("w"):  # until the block ends the policy is being loaded
        for _ in range(3 * WAITING):
            assert told(asking(control.path, b'{"command": "reload"}\n'))["error"].startswith("too many wait already")
        assert "there is no session" in control("kill", "0123456789ab")[1]
        assert control("drain")[0] == 0
        assert control("resume")[0] == 0
        assert control.service()["state"] == "serving"
        gateway.policy(ACCEPTS_ALL)  # the reloads behind it find this one
    assert all(told(connection)["ok"] for connection in waiting)
    assert control("reload")[0] == 0


def test_the_process_behind_the_socket_can_be_killed(one: tuple[Gateway, Ctl]) -> None:
    gateway, control = one
    running = gateway.connect().logged_in()
    (pid,) = [pid for pid, title in titles() if title == "pop3gw: control" and _has(pid, control.path)]
    os.kill(pid, signal.SIGKILL)
    gateway.wait_for(f"the control process (process {pid}) ended: signal 9 (Killed); another is started")
    assert until("asked again", lambda: answered(control))["sessions"] == 1
    assert running.ask("NOOP") == "+OK"


def answered(control: Ctl) -> Any:
    status, said = control("--json", "status")
    return json.loads(said)["result"]["services"][0] if status == 0 else None


def test_it_has_the_privileges_of_a_worker(one: tuple[Gateway, Ctl]) -> None:
    _, control = one
    control.service()
    (pid,) = [pid for pid, title in titles() if title == "pop3gw: control" and _has(pid, control.path)]
    status = Path(f"/proc/{pid}/status").read_text()
    uids = re.findall(r"^Uid:\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)$", status, re.M)[0]
    assert ("0" in uids) is not ROOT if ROOT else True
    assert "CapEff:\t0000000000000000" in status


BASH = f"""
    pop3gwctl() {{ {shlex.join(COMMAND)} "$@"; }}
    source {shlex.quote(str(Path(__file__).parents[2] / "completion" / "pop3gwctl"))}
"""


def test_bash_completes_commands_services_and_sessions(full: tuple[Gateway, list[Client]], control: Ctl) -> None:

    def completed(*words: str) -> list[str]:
        line = " ".join(["pop3gwctl", "--socket", control.path, *words])
        script = f"""{BASH}
            COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)}
            _pop3gwctl pop3gwctl {shlex.quote(words[-1])}; printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=PATIENCE)
        assert done.stderr == ""
        return done.stdout.split()

    assert completed("re") == ["resume", "reload"]
    assert completed("drain", "") == [full[0].name]
    assert set(completed("sessions", "alice4")) == {"alice4", *(f"alice4{number}" for number in range(10))}
    (session,) = control.json("sessions", "alice33")["sessions"]
    assert completed("kill", session["session"][:6]) == [session["session"]]


def test_bash_completes_where_its_own_words_end_earlier(one: tuple[Gateway, Ctl]) -> None:
    """Readline's words end at each ``=`` and ``@``: it wants what comes behind the last of them."""
    gateway, control = one
    running = [gateway.connect().logged_in(f"{name}@mail.example") for name in ("erika", "max")]
    rc = gateway.folder / "bashrc"
    rc.write_text(f"PS1='$ '\n{BASH}")
    with closing(Terminal("bash", "--noprofile", "--rcfile", str(rc), "-i")) as terminal:
        until("it asks", lambda: terminal.picture.startswith("$"))
        for typed, completed in (
            (f"pop3gwctl --socket={control.path} sessions er", "erika@mail.example "),
            (f"pop3gwctl --socket={control.path} sessions max@m", "max@mail.example "),
            (f"pop3gwctl --socket={control.path} sessions max@", "max@mail.example "),
            (f"pop3gwctl --socket {control.path[:-2]}", f"{control.path} "),
            (f"pop3gwctl --socket={control.path[:-2]}", f"{control.path} "),
        ):
            terminal("send-keys", "-l", f"{typed}\t#")
            until(f"{typed!r} is completed", partial(terminal.shows, f"{completed}#"))
            terminal("send-keys", "C-u", "C-l")
            until("the line is empty", lambda: not terminal.shows("#"))
    for client in running:
        client.quits()
