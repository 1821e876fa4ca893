"""The master: start, reload, end; signals, pid file, accounts."""

from __future__ import annotations

import grp
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.gateway import ACCEPTS_ALL, Client, Gateway, Make, noop_says, status
from tests.until import until

NOBODY = "nobody"
ROOT = os.geteuid() == 0


def noop(client: Client) -> str:
    return client.ask("NOOP")


# Start.


def test_started_as_root_or_not_no_worker_is_root(make: Make) -> None:
    gateway = make().start()
    for pid in (*gateway.pids("template"), *gateway.workers()):
        assert "0" not in status(pid, "Uid").split()
        assert "0" not in status(pid, "Gid").split()
        assert "0" not in status(pid, "Groups").split()
        assert int(status(pid, "CapEff"), 16) == 0
    assert ("workers run as the account" in gateway.log) is ROOT


def test_user_and_group_are_those_of_the_settings(make: Make) -> None:
    gateway = make()
    own = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
    user, group = ("daemon", "mail") if ROOT else own
    gateway.main.update(user=user, group=group)
    gateway.start()
    (template,) = gateway.pids("template")
    assert status(template, "Uid").split() == [str(pwd.getpwnam(user).pw_uid)] * 4
    assert status(template, "Gid").split() == [str(grp.getgrnam(group).gr_gid)] * 4


def test_what_takes_a_restart_is_said_as_long_as_it_differs_from_what_runs(make: Make) -> None:
    gateway = make().start()
    said = "warning: log_format was changed: that takes effect when pop3gw is restarted"
    for times, (log_format, warnings) in enumerate((("json", 1), ("json", 2), ("text", 2), ("json", 3)), 1):
        gateway.main["log_format"] = log_format
        gateway.reload()
        gateway.wait_for("the configuration was reloaded", times)
        assert gateway.count(said) == warnings


@pytest.mark.skipif(not ROOT, reason="only root can name another account")
def test_another_user_is_for_the_next_start(make: Make) -> None:
    gateway = make()
    gateway.main.update(user=NOBODY, control_socket=gateway.folder / "pop3gw.sock")
    gateway.start()
    gateway.main.update(user="daemon", group="mail")
    gateway.reload()
    gateway.wait_for("the configuration was reloaded")
    for key in ("user", "group"):
        assert f"{key} was changed: that takes effect when pop3gw is restarted" in gateway.log
    gateway.connect().logged_in().quits()
    until("the old template leaves", lambda: len(gateway.pids("template")) == 1)  # what leaves may be gone when asked
    uids = {status(pid, "Uid") for pid in (*gateway.pids("template"), *gateway.workers())}
    assert uids == {"\t".join([str(pwd.getpwnam(NOBODY).pw_uid)] * 4)}


def test_not_started_as_root_everything_runs_as_who_started_it(make: Make) -> None:
    gateway = make()
    gateway.account = NOBODY if ROOT else None
    gateway.start()
    uids = {status(pid, "Uid") for pid in (gateway.master, *gateway.pids("template"), *gateway.workers())}
    assert len(uids) == 1
    # The system gives to root what a process of the same account must not read, nor write.
    owners = {Path(f"/proc/{pid}/mem").stat().st_uid for pid in (gateway.master, *gateway.pids("template"))}
    owners |= {Path(f"/proc/{pid}/mem").stat().st_uid for pid in gateway.workers()}
    assert owners == {0}
    gateway.connect().logged_in().quits()


def test_workers_leave_no_core_and_have_the_descriptors_that_the_system_allows(make: Make) -> None:
    gateway = make().start()
    limits = Path(f"/proc/{gateway.workers()[0]}/limits").read_text().splitlines()
    rows = {line[:25].strip(): line[25:].split() for line in limits}
    assert rows["Max core file size"][:2] == ["0", "0"]
    assert rows["Max open files"][0] == rows["Max open files"][1]


def test_a_port_in_use_is_named_and_nothing_runs(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gateway = make(listen=f"127.0.0.1:{taken.getsockname()[1]}").launch()
        assert gateway.wait() == 78
    assert "[" + gateway.name + "] listen" in gateway.log
    assert "Address already in use" in gateway.log
    assert "Traceback" not in gateway.log


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("import nothing_of_that_name\n", "nothing_of_that_name"),
        ("import sys\nsys.exit(0)\n", "SystemExit"),
        ("import os\nos._exit(0)\n", "must neither crash nor leave by os._exit"),
        ("import os\nos.closerange(3, 200)\n", "nor close descriptors of others"),
        ("import time\ntime.sleep(60)\n", "did not finish loading within"),
    ],
    ids=["import", "sys.exit", "os._exit", "closerange", "sleep"],
)
def test_a_policy_that_does_not_load_is_a_configuration_error(make: Make, policy: str, said: str) -> None:
    gateway = make()
    gateway.policy(policy)
    gateway.arguments = ["--load-limit", "1"]
    gateway.launch()
    assert gateway.wait() == 78
    assert said in gateway.log
    assert f"[{gateway.name}] policy" in gateway.log
    assert not gateway.pids("template")


# Reload.


@pytest.mark.own_mode
def test_a_reload_serves_new_sessions_under_the_new_policy_and_running_ones_under_theirs(make: Make) -> None:
    gateway = make()
    gateway.policy(noop_says("old"))
    gateway.start()
    running = gateway.connect().logged_in()
    idle = gateway.workers("idle")
    gateway.policy(noop_says("new"))
    gateway.reload()
    gateway.wait_for("the configuration was reloaded")
    assert noop(gateway.connect().logged_in()) == "-ERR new"
    assert noop(running) == "-ERR old"
    until("idle workers of the old policy leave", lambda: not set(idle) & set(gateway.workers()))
    running.quits()
    until("the old template leaves", lambda: len(gateway.pids("template")) == 1)


@pytest.mark.own_mode
def test_after_a_reload_few_sessions_of_before_keep_no_client_waiting(make: Make) -> None:
    gateway = make(sessions_per_worker=20, min_spare=2, max_spare=2, max_workers=2).start()
    before = [gateway.connect().logged_in() for _ in range(3)]
    for times in (1, 2):
        gateway.reload()
        gateway.wait_for("the configuration was reloaded", times)
        before.append(gateway.connect().logged_in())
    assert gateway.count("new clients wait") == 0
    for client in before:
        client.quits()


@pytest.mark.parametrize("load_limit", ["1"])
@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("class Office(:\n", "SyntaxError"),
        ("import time\ntime.sleep(60)\n", "did not finish loading within 1 s"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", "ended the process that loaded it"),
    ],
    ids=["syntax", "sleep", "kill"],
)
def test_a_reload_with_a_broken_policy_keeps_everything_and_says_why(
    make: Make, policy: str, said: str, load_limit: str
) -> None:
    gateway = make()
    gateway.policy(noop_says("old"))
    gateway.arguments = ["--load-limit", load_limit]
    gateway.start()
    running = gateway.connect().logged_in()
    workers = gateway.workers()
    gateway.policy(policy)
    gateway.reload()
    gateway.wait_for("the configuration was not reloaded, the old one stays")
    assert said in gateway.log
    assert noop(running) == "-ERR old"
    assert noop(gateway.connect().logged_in()) == "-ERR old"
    assert set(workers) <= set(gateway.workers())
    gateway.policy(noop_says("new"))
    gateway.reload()
    gateway.wait_for("the configuration was reloaded")
    assert noop(gateway.connect().logged_in()) == "-ERR new"


def test_a_reload_brings_no_log_that_the_next_start_could_not_open(make: Make) -> None:
    gateway = make()
    gateway.command = [sys.executable, "-P", "-c", "import sys; from pop3gw.cli import main; sys.exit(main())"]
    gateway.command += ["--foreground", "--config"]
    gateway.start()
    gateway.main |= {"log_target": "/no/folder/log", "pid_file": "/no/folder/pid"}
    gateway.write_config()
    gateway.reload()
    gateway.wait_for("the configuration was not reloaded, the old one stays")
    assert "log_target: there is no folder /no/folder" in gateway.log
    assert "pid_file: there is no folder /no/folder" in gateway.log
    del gateway.main["log_target"], gateway.main["pid_file"]
    gateway.write_config()
    gateway.reload()
    gateway.wait_for("the configuration was reloaded")


def test_a_reload_names_all_that_is_wrong_with_keys_and_policy(make: Make) -> None:
    gateway = make()
    gateway.policy(noop_says("old"))
    gateway.start()
    gateway.policy("class Office(:\n")
    gateway.settings |= {"tls": "starttls", "server_tls": "required", "server_ca": "/no/ca"}
    gateway.write_config()
    gateway.reload()
    gateway.wait_for("the configuration was not reloaded, the old one stays")
    (line,) = [line for line in gateway.log.splitlines() if "was not reloaded" in line]
    told = ("tls: starttls, but there is no tls_certificate", "server_ca: /no/ca: No such file", "policy: ")
    assert [text for text in told if f"[{gateway.name}] {text}" not in line] == []
    assert "SyntaxError" in line
    assert noop(gateway.connect().logged_in()) == "-ERR old"


def failed_while_another_loads(make: Make) -> tuple[Gateway, int, Path]:
    """A reload of two services: the template of one is killed, that of the other reads what is returned last.

    Returns also the template that serves.
    """
    gateway = make()
    gateway.policy(noop_says("old"))
    gateway.policy(noop_says("other"), "slow")
    server = gateway.settings["server"]
    gateway.more = f"  [[{gateway.name}b]]\n  listen = 127.0.0.1:0\n  server = {server}\n  policy = slow:Office\n"
    gateway.start()
    (old,) = gateway.pids("template")
    fifo = gateway.folder / "fifo"
    os.mkfifo(fifo, 0o644)
    fifo.chmod(0o644)
    gateway.policy(f"open({str(fifo)!r}).read()\nraise ValueError('and this')\n", "slow")
    gateway.reload()
    (new,) = until("the new template", lambda: [pid for pid in gateway.pids("template") if pid != old])
    os.kill(new, signal.SIGKILL)
    # Without a title a process may still have its end of the channel; once it is reaped it has nothing.
    until("it is gone", lambda: not Path(f"/proc/{new}").exists())
    return gateway, old, fifo


def test_a_template_that_is_killed_while_another_loads_fails_the_reload_and_both_are_told(make: Make) -> None:
    gateway, old, fifo = failed_while_another_loads(make)
    with fifo.open("w"):  # until the block ends the other is being loaded
        assert "the old one stays" not in gateway.log
    gateway.wait_for("the configuration was not reloaded, the old one stays")
    assert "ended the process that loaded it" in gateway.log
    assert "and this" in gateway.log
    assert gateway.pids("template") == [old]
    assert noop(gateway.connect().logged_in()) == "-ERR old"


def test_a_reload_that_has_failed_waits_for_no_other_template_once_another_reload_is_wanted(make: Make) -> None:
    gateway, _old, _fifo = failed_while_another_loads(make)
    gateway.policy(noop_says("new"))
    gateway.policy(noop_says("other"), "slow")
    gateway.reload()
    gateway.wait_for("the configuration was reloaded")
    assert gateway.log.count("the configuration was not reloaded, the old one stays") == 1
    assert noop(gateway.connect().logged_in()) == "-ERR new"


def test_a_reload_with_a_broken_configuration_keeps_everything_and_says_why(make: Make) -> None:
    gateway = make().start()
    running = gateway.connect().logged_in()
    gateway.settings["min_spar"] = 3
    gateway.reload()
    gateway.wait_for("the configuration was not reloaded, the old one stays")
    assert "min_spar" in gateway.log
    assert running.ask("STAT") == "+OK 0 0"
    gateway.connect().logged_in().quits()


def test_a_reload_does_not_wait_for_a_configuration_that_has_become_a_fifo(make: Make) -> None:
    gateway = make().start()
    gateway.config_file.unlink()
    os.mkfifo(gateway.config_file)
    gateway.signal(signal.SIGHUP)
    gateway.wait_for(f"the configuration was not reloaded, the old one stays: {gateway.config_file}: is no plain file")
    gateway.connect().logged_in().quits()


def test_a_reload_with_a_port_in_use_keeps_everything(make: Make) -> None:
    gateway = make().start()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gateway.settings["listen"] = f"127.0.0.1:0, 127.0.0.1:{taken.getsockname()[1]}"
        gateway.reload()
        gateway.wait_for("Address already in use")
    gateway.connect().logged_in().quits()


def test_a_reload_adds_and_removes_services_and_keeps_listeners_that_stay(make: Make) -> None:
    gateway = make().start()
    port = gateway.port
    running = gateway.connect().logged_in()
    server = gateway.settings["server"]
    gateway.more = f"  [[{gateway.name}b]]\n  listen = 127.0.0.1:0\n  server = {server}\n"
    gateway.reload()
    gateway.wait_for("the configuration was reloaded")
    second = gateway.port_of(f"{gateway.name}b")
    Client(second).logged_in().quits()
    assert gateway.port == port
    assert gateway.count("listening on") == 2
    gateway.more = ""
    gateway.reload()
    gateway.wait_for("the configuration was reloaded", 2)
    with pytest.raises(ConnectionRefusedError):
        Client(second)
    assert gateway.count(f"closed the listener on 127.0.0.1:{second} service={gateway.name}b\n") == 1
    assert gateway.count("closed the listener") == 1
    Client(port).logged_in().quits()
    running.quits()


def test_a_reload_keeps_each_of_several_listeners_on_any_free_port(make: Make) -> None:
    gateway = make(listen="127.0.0.1:0").start()
    gateway.settings["listen"] = "127.0.0.1:0, 127.0.0.1:0"
    for times in (1, 2):
        gateway.reload()
        gateway.wait_for("the configuration was reloaded", times)
    ports = re.findall(r"listening on 127\.0\.0\.1:(\d+)", gateway.log)
    assert len(ports) == 2
    for port in ports:
        Client(int(port)).logged_in().quits()


def test_a_session_of_a_removed_service_may_finish(make: Make) -> None:
    gateway = make().start()
    server = gateway.settings["server"]
    other = f"  [[{gateway.name}b]]\n  listen = 127.0.0.1:0\n  server = {server}\n"
    gateway.more = other
    gateway.reload()
    gateway.wait_for("the configuration was reloaded")
    running = Client(gateway.port_of(f"{gateway.name}b")).logged_in()
    gateway.more = ""
    gateway.reload()
    gateway.wait_for("the configuration was reloaded", 2)
    assert running.ask("STAT") == "+OK 0 0"
    running.quits()


def test_clients_that_come_during_reloads_are_all_served(make: Make) -> None:
    gateway = make().start()
    for number in range(5):
        gateway.reload()
        for _ in range(5):
            gateway.connect().logged_in().quits()
        gateway.wait_for("the configuration was reloaded", number + 1)
    until("one template", lambda: len(gateway.pids("template")) == 1)


# The end.


def test_term_lets_sessions_finish_and_exits_0(make: Make) -> None:
    gateway = make().start()
    running = gateway.connect().logged_in()
    port = gateway.port
    gateway.signal(signal.SIGTERM)
    gateway.wait_for("stopping")
    with pytest.raises(ConnectionRefusedError):
        Client(port)
    until("idle workers leave", lambda: len(gateway.workers()) == 1)
    assert running.ask("STAT") == "+OK 0 0"
    running.quits()
    assert gateway.wait() == 0
    assert not gateway.workers()
    assert not gateway.pids("template")


def test_term_to_the_whole_process_group_lets_sessions_finish_too(make: Make) -> None:
    gateway = make().start()
    running = gateway.connect().logged_in()
    os.killpg(gateway.master, signal.SIGTERM)
    gateway.wait_for("stopping")
    assert running.ask("STAT") == "+OK 0 0"
    running.quits()
    assert gateway.wait() == 0


@pytest.mark.parametrize("signals", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT,)], ids=["second TERM", "INT"])
def test_ending_now(make: Make, signals: tuple[signal.Signals, ...]) -> None:
    gateway = make(shutdown_timeout=600).start()
    running = gateway.connect().logged_in()
    for number, each in enumerate(signals):
        gateway.signal(each)
        gateway.wait_for("stopping", number + 1)
    assert gateway.wait() == 0
    assert running.hear() == ""
    assert not gateway.workers()


def test_sessions_that_go_on_after_shutdown_timeout_are_ended(make: Make) -> None:
    gateway = make(shutdown_timeout=1).start()
    running = gateway.connect().logged_in()
    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 0
    assert "1 sessions go on after shutdown_timeout (1 s)" in gateway.log
    assert running.hear() == ""


@pytest.mark.own_mode
def test_a_worker_that_does_not_end_is_killed(make: Make) -> None:
    gateway = make().start()
    running = gateway.connect().logged_in()
    (worker,) = until("its title", lambda: gateway.workers("alice"))
    os.kill(worker, signal.SIGSTOP)
    gateway.signal(signal.SIGINT)
    assert gateway.wait() == 0
    assert running.hear() == ""
    assert not gateway.workers()


def test_a_killed_master_leaves_no_process_behind_once_its_sessions_are_over(make: Make) -> None:
    gateway = make().start()
    running = gateway.connect().logged_in()
    gateway.signal(signal.SIGKILL)
    gateway.wait()
    until("idle processes leave", lambda: len(gateway.workers()) == 1 and not gateway.pids("template"))
    assert running.ask("STAT") == "+OK 0 0"
    running.quits()
    until("the last worker leaves", lambda: not gateway.workers())


def test_stopped_while_a_policy_loads_it_just_stops(make: Make) -> None:
    gateway = make()
    gateway.policy("import time\ntime.sleep(60)\n")
    gateway.launch()
    until("the template", lambda: gateway.pids("template"))
    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 0
    assert not gateway.pids("template")


def test_usr2_means_nothing(make: Make) -> None:
    gateway = make().start()
    gateway.signal(signal.SIGUSR2)
    gateway.reload()
    gateway.wait_for("the configuration was reloaded")
    gateway.connect().logged_in().quits()


# Logs.


def test_usr1_reopens_the_log_for_workers_that_run(make: Make) -> None:
    gateway = make()
    log = gateway.folder / "log"
    gateway.main["log_target"] = log
    gateway.launch()
    until("ready", lambda: log.exists() and "info: ready" in log.read_text())
    port = int(log.read_text().partition("listening on 127.0.0.1:")[2].split()[0])
    running = Client(port).logged_in()
    log.rename(gateway.folder / "log.1")
    gateway.signal(signal.SIGUSR1)
    until("a new file", lambda: log.exists() and "reopened" in log.read_text())
    running.quits()
    until("the running worker's line", lambda: "session ended" in log.read_text())
    Client(port).logged_in().quits()
    until("a later line", lambda: log.read_text().count("session ended") == 2)
    assert "session ended" not in (gateway.folder / "log.1").read_text()


def test_usr1_says_once_what_came_of_it(make: Make) -> None:
    gateway = make()
    log = gateway.folder / "log"
    gateway.main["log_target"] = log
    gateway.launch()
    until("ready", lambda: log.exists() and "info: ready" in log.read_text())
    moved = log.rename(gateway.folder / "log.1")
    log.mkdir()
    gateway.signal(signal.SIGUSR1)
    said = f"log_target = {log}: the log can't be reopened (Is a directory); it goes on where it was"
    until("why not", lambda: said in moved.read_text())
    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 0
    assert "the log was reopened" not in moved.read_text()


def test_usr1_does_nothing_where_the_log_is_stderr_and_says_so(make: Make) -> None:
    gateway = make().start()
    gateway.signal(signal.SIGUSR1)
    gateway.wait_for("the log is stderr, which can't be reopened; it goes on where it was")
    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 0
    assert "the log was reopened" not in gateway.log


# The pid file, and the daemon.


def daemon(gateway: Gateway) -> Gateway:
    """Set it up to detach, with its files in its folder."""
    gateway.arguments = ["--daemon"]
    gateway.main.update(log_target=gateway.folder / "log", pid_file=gateway.folder / "run" / "pop3gw.pid")
    return gateway


def test_it_detaches_says_its_pid_and_is_stopped_by_it(make: Make) -> None:
    gateway = daemon(make()).launch()
    assert gateway.wait() == 0
    pid_file, log = gateway.folder / "run" / "pop3gw.pid", gateway.folder / "log"
    until("ready", lambda: log.exists() and "info: ready" in log.read_text())
    pid = int(pid_file.read_text())
    assert status(pid, "PPid") != str(os.getpid())
    assert os.getsid(pid) != os.getsid(0)
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    assert Path(f"/proc/{pid}/fd/2").readlink() == Path("/dev/null")
    port = int(log.read_text().partition("listening on 127.0.0.1:")[2].split()[0])
    Client(port).logged_in().quits()
    os.kill(pid, signal.SIGTERM)
    until("it has stopped", lambda: "stopped" in log.read_text() and not pid_file.exists())
    until("no process is left", lambda: not gateway.workers() and not gateway.pids("template"))


def test_a_daemon_that_can_not_start_says_so_before_it_detaches(make: Make) -> None:
    gateway = daemon(make())
    gateway.policy("class Office(:\n")
    gateway.launch()
    assert gateway.wait() == 78
    assert "SyntaxError" in gateway.log
    assert not (gateway.folder / "run" / "pop3gw.pid").exists()


def test_a_second_gateway_is_refused_with_the_pid_of_the_first(make: Make) -> None:
    first, second = make(), make()
    pid_file = first.folder / "pop3gw.pid"
    first.main["pid_file"] = second.main["pid_file"] = pid_file
    first.start()
    assert int(pid_file.read_text()) == first.master
    assert second.launch().wait() == 1
    assert str(pid_file) in second.log
    assert f"process {first.master}" in second.log
    assert int(pid_file.read_text()) == first.master
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    assert not pid_file.exists()


def test_the_pid_stands_in_its_file_once_clients_can_connect(make: Make) -> None:
    first, second = make(), make()
    pid_file, gate = first.folder / "pop3gw.pid", first.folder / "gate"
    pid_file.write_text("999999999\n")
    first.main["pid_file"] = second.main["pid_file"] = pid_file
    os.mkfifo(gate)
    gate.chmod(0o644)
    first.policy(f"open({str(gate)!r}).read()\n{ACCEPTS_ALL}")
    first.launch()
    with gate.open("w"):  # opens when the policy is being loaded, which waits for the close
        assert pid_file.read_text() == ""
        assert second.launch().wait() == 1
        assert "a process that is just starting" in second.log
    until("the pid", pid_file.read_text)
    assert int(pid_file.read_text()) == first.master
    first.connect().logged_in().quits()


@pytest.mark.parametrize("content", ["", "999999999\n", "{other}\n"])
def test_a_stale_pid_file_is_replaced(make: Make, content: str) -> None:
    gateway = make()
    pid_file = gateway.folder / "pop3gw.pid"
    with subprocess.Popen(["/bin/sleep", "60"]) as other:
        pid_file.write_text(content.format(other=other.pid))
        gateway.main["pid_file"] = pid_file
        gateway.start()
        assert int(pid_file.read_text()) == gateway.master
        other.kill()


def test_after_a_killed_master_the_next_one_starts_though_sessions_run(make: Make) -> None:
    first, second = make(), make()
    pid_file = first.folder / "pop3gw.pid"
    first.main["pid_file"] = second.main["pid_file"] = pid_file
    first.start()
    running = first.connect().logged_in()
    first.signal(signal.SIGKILL)
    first.wait()
    second.start()
    assert int(pid_file.read_text()) == second.master
    running.quits()


def test_a_pid_file_that_can_not_be_written_is_a_clear_error(make: Make) -> None:
    gateway = make()
    gateway.main["pid_file"] = gateway.folder / "missing" / "too" / "pop3gw.pid"
    assert gateway.launch().wait() == 1
    assert "No such file or directory; set pid_file" in gateway.log
