"""Sessions through the real processes: who serves them, and what others notice of it."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Set
from functools import partial
from pathlib import Path

import pytest

from pop3gw.farewell import DRAIN_SECONDS
from tests.process.gateway import ACCEPTS_ALL, Client, Make, cpu_seconds, parent, status, titles
from tests.until import until

MODES = pytest.mark.parametrize("sessions_per_worker", [1, 20])


@pytest.mark.own_mode
@MODES
def test_fifty_sessions_at_once(make: Make, sessions_per_worker: int) -> None:
    gateway = make(sessions_per_worker=sessions_per_worker).start()
    clients = [gateway.connect() for _ in range(50)]
    for client in clients:
        client.logged_in()
    for client in clients:
        assert client.ask("STAT") == "+OK 0 0"
    for client in clients:
        client.quits()
    gateway.wait_for("session ended", 50)


@pytest.mark.own_mode
def test_a_session_has_a_process_of_its_own_and_titles_say_whose(make: Make) -> None:
    gateway = make().start()
    alice = gateway.connect().logged_in("alice")
    bob = gateway.connect().logged_in("bob")
    until("titles", lambda: gateway.workers("alice 127.0.0.1 ") and gateway.workers("bob 127.0.0.1 "))
    assert gateway.workers("alice 127.0.0.1 TRANSACTION") != gateway.workers("bob 127.0.0.1 TRANSACTION")
    alice.quits()
    until("alice's worker is idle", lambda: not gateway.workers("alice"))
    bob.quits()


@pytest.mark.own_mode
def test_the_master_gives_way_to_its_workers(make: Make) -> None:
    gateway = make().start()
    assert os.sched_getscheduler(gateway.master) == os.SCHED_BATCH
    for pid in (*gateway.pids("template"), *gateway.workers()):
        assert os.sched_getscheduler(pid) == os.SCHED_OTHER


@pytest.mark.own_mode
def test_with_many_sessions_a_worker_its_title_counts(make: Make) -> None:
    gateway = make(sessions_per_worker=20, min_spare=1, max_spare=1, max_workers=1).start()
    clients = [gateway.connect().logged_in() for _ in range(3)]
    until("the count in the title", lambda: gateway.workers("3 sessions"))
    for client in clients:
        client.quits()
    until("idle", lambda: gateway.workers("idle"))


@pytest.mark.own_mode
@MODES
def test_a_killed_worker_ends_its_own_sessions_only_and_is_replaced(make: Make, sessions_per_worker: int) -> None:
    gateway = make(sessions_per_worker=sessions_per_worker, min_spare=2, max_spare=2).start()
    clients = [gateway.connect().logged_in(f"user{number}") for number in range(4)]
    busy = gateway.workers("user0" if sessions_per_worker == 1 else "")[0]
    os.kill(busy, signal.SIGKILL)
    gateway.wait_for(f"worker {busy} ended: signal 9 (Killed)")
    if sessions_per_worker == 1:
        assert clients[0].hear() == ""
        clients.pop(0)
        for client in clients:
            assert client.ask("NOOP").startswith("+OK")
    spares = "idle" if sessions_per_worker == 1 else ""
    until("the pool refills", lambda: len(set(gateway.workers(spares)) - {busy}) >= 2)
    gateway.connect().logged_in().quits()


@pytest.mark.own_mode
@MODES
def test_a_session_that_is_lost_with_its_worker_is_named_and_one_that_has_ended_is_not(
    make: Make, sessions_per_worker: int
) -> None:
    gateway = make(sessions_per_worker=sessions_per_worker, min_spare=1, max_spare=1).start()
    lost, ended = gateway.connect().logged_in("alice"), gateway.connect().logged_in("bob")
    assert ended.ask("QUIT").startswith("+OK")  # and does not leave, so that its seat is taken
    gateway.wait_for("session ended")
    lost_port, ended_port = lost.socket.getsockname()[1], ended.socket.getsockname()[1]
    workers = gateway.workers()
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    gateway.wait_for("ended: signal 9 (Killed)", len(workers))
    gateway.wait_for("lost with its worker")  # which is said behind it
    (line,) = re.findall(r"error \S+ \w{12}: lost with its worker \(process \d+\): .*", gateway.log)
    server = gateway.settings["server"]
    assert f": client=127.0.0.1:{lost_port} server={server} user=alice state=TRANSACTION from_client=25 " in line
    (line,) = re.findall(r"session ended .*", gateway.log)
    assert f"client=127.0.0.1:{ended_port} " in line


def test_a_policy_that_ends_its_process_does_not_do_so_silently(make: Make) -> None:
    gateway = make(min_spare=1)
    gateway.policy(
        "import os\nfrom pop3gw.policy import *\nclass Office(Pop3Proxy):\n"
        "    def config(self):\n        if self.session.client_address is not None:\n            os._exit(0)\n"
    )
    gateway.start()
    client = gateway.connect()
    assert client.hear() == ""
    gateway.wait_for(f"client=127.0.0.1:{client.socket.getsockname()[1]} server=- user=- state=- from_client=0 ")
    assert gateway.count("lost with its worker (process ") == 1


@pytest.mark.own_mode
def test_surplus_spares_leave(make: Make) -> None:
    gateway = make(min_spare=2, max_spare=3).start()
    clients = [gateway.connect().greeted() for _ in range(12)]
    for client in clients:
        client.quits()
    until("the surplus has left", lambda: len(gateway.workers()) == 3, 5)


def test_a_worker_is_replaced_after_max_sessions(make: Make) -> None:
    gateway = make(max_sessions=1).start()
    for number in range(10):
        gateway.connect().greeted().quits()
        gateway.wait_for("session ended", number + 1)
    assert len(set(gateway.served_by())) == 10


@pytest.mark.own_mode
def test_a_full_pool_makes_clients_wait_and_says_which_setting_helps(make: Make) -> None:
    gateway = make(min_spare=1, max_spare=2, max_workers=2).start()
    first, second = (gateway.connect().greeted() for _ in range(2))
    third = gateway.connect()
    gateway.wait_for("max_workers (now 2)")
    assert third.is_waiting(0.3)
    first.quits()
    third.greeted().quits()
    second.quits()
    assert gateway.count("max_workers (now 2)") == 1


def test_max_sessions_per_client_refuses_with_words_and_others_are_served(make: Make) -> None:
    gateway = make(max_sessions_per_client=2).start()
    first, second = (gateway.connect().greeted() for _ in range(2))
    third = gateway.connect()
    third.socket.sendall(b"USER alice\r\nPASS secret\r\n")
    assert third.hear() == "-ERR [SYS/TEMP] too many sessions from your address"
    assert third.hear() == ""
    gateway.connect("127.0.0.2").greeted().quits()
    first.quits()
    until("one session", lambda: len(gateway.workers()) - len(gateway.workers("idle")) == 1)
    gateway.connect().greeted().quits()
    second.quits()


def test_workers_that_die_before_serving_are_not_forked_without_end(make: Make) -> None:
    gateway = make(min_spare=1)
    gateway.policy(
        "import os\nfrom pop3gw.policy import *\nos.register_at_fork(after_in_child=lambda: os._exit(3))\n"
        "class Office(Pop3Proxy):\n    pass\n"
    )
    gateway.launch()
    gateway.wait_for("the next try is in 1 s")
    assert gateway.count("ended: exit status 3") <= 8
    assert cpu_seconds(gateway.master) < 2
    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 0


def test_sessions_that_crash_their_worker_do_not_slow_the_service(make: Make) -> None:
    gateway = make(min_spare=1)
    gateway.policy(
        "import os\nfrom pop3gw.policy import *\nclass Office(Pop3Proxy):\n"
        "    def config(self):\n        Pop3Proxy.config(self)\n"
        '        self.request["NOOP"] = (POP3_REQ_POLICY, self.crash)\n'
        "    def crash(self, command):\n        os.abort()\n"
    )
    gateway.start()
    began = time.monotonic()
    for _ in range(10):
        client = gateway.connect().logged_in()
        assert client.ask("NOOP") == ""
        client.close()
    assert time.monotonic() - began < 5
    assert gateway.count("the next try") == 0


UNSHOWABLE = """\
from pop3gw.policy import *
class Office(Pop3Proxy):
    def config(self):
        Pop3Proxy.config(self)
        self.request["NOOP"] = (POP3_REQ_POLICY, self.fails)
        self.request["PASS"] = (POP3_REQ_POLICY, self.tells)
    def fails(self, command):
        raise SyntaxError("x", ("f", 1, 2, 3))
    def tells(self, command):
        try:
            raise ValueError("pw " + self.password)
        except ValueError:
            if self.password != "secret":
                raise SyntaxError("x", ("f", 1, 2, 3))
        return POP3_REQ_ACCEPT
"""


def test_a_callback_whose_exception_can_not_be_shown_fails_like_any_other(make: Make) -> None:
    gateway = make(min_spare=1, max_spare=1, max_workers=1)
    gateway.main["log_level"] = "debug"
    gateway.policy(UNSHOWABLE)
    gateway.start()
    workers = gateway.workers()
    client = gateway.connect().greeted()
    assert client.ask("USER alice").startswith("+OK")
    assert client.ask("PASS hunter22").startswith("-ERR")
    assert client.ask("USER alice").startswith("+OK")
    assert client.ask("PASS secret").startswith("+OK")
    assert client.ask("NOOP").startswith("-ERR")
    assert client.ask("STAT") == "+OK 0 0"
    client.quits()
    gateway.wait_for("session ended")
    assert gateway.workers() == workers
    assert re.search(r"Office: callback Office\.fails failed on the request NOOP: .*SyntaxError", gateway.log)
    assert re.search(r"Office: callback Office\.tells failed on the request PASS: .*SyntaxError", gateway.log)
    assert "hunter22" not in gateway.log  # which is its stderr


def test_what_nobody_can_catch_is_logged_without_its_text(make: Make) -> None:
    gateway = make()
    gateway.policy(
        f"import threading\n{ACCEPTS_ALL}    def config(self):\n        super().config()\n"
        '        self.request["NOOP"] = (POP3_REQ_POLICY, self.drop)\n'
        "    def drop(self, command):\n        Sloppy().text = self.request_param\n"
        "        worker = threading.Thread(target=sloppy, args=[self.request_param])\n"
        "        worker.start()\n        worker.join()\n        return POP3_REQ_ACCEPT\n"
        "class Sloppy:\n    def __del__(self):\n        raise ValueError(self.text)\n"
        "def sloppy(text):\n    raise LookupError(text)\n"
    )
    client = gateway.start().connect().logged_in()
    assert client.ask("NOOP s3cret") == "+OK"
    for raised in ("raise ValueError(self.text)\\nValueError", "raise LookupError(text)\\nLookupError"):
        gateway.wait_for(raised)
    assert gateway.count(f"error {gateway.name}: an exception that nobody could catch") == 2
    assert "s3cret" not in gateway.log
    assert "ignored" not in gateway.log
    client.quits()


def test_a_template_that_dies_is_replaced_while_sessions_go_on(make: Make) -> None:
    gateway = make().start()
    client = gateway.connect().logged_in()
    (old,) = gateway.pids("template")
    os.kill(old, signal.SIGKILL)
    gateway.wait_for("ended: signal 9 (Killed); sessions go on")
    until("a new template", lambda: gateway.pids("template") and gateway.pids("template") != [old])
    until("its workers", lambda: len(gateway.workers("idle")) == 2)
    assert client.ask("STAT") == "+OK 0 0"
    client.quits()
    for _ in range(5):
        gateway.connect().logged_in().quits()


@pytest.mark.own_mode
def test_without_descriptors_clients_wait_nothing_spins_and_it_recovers(make: Make) -> None:
    gateway = make(max_workers=200)
    gateway.descriptors = 32
    gateway.start()
    clients = [gateway.connect() for _ in range(60)]
    gateway.wait_for("(Too many open files: raise LimitNOFILE, or ulimit -n)")
    gateway.wait_for("new clients wait")
    before = cpu_seconds(gateway.master)
    assert clients[-1].is_waiting(1.0)
    assert cpu_seconds(gateway.master) - before < 0.2
    for client in clients:
        client.greeted().quits()
    gateway.connect().greeted().quits()


LOGS = """
import logging, threading
from pop3gw.policy import *

class Office(Pop3Proxy):
    def __init__(self):
        logging.warning("made")

    def config(self):
        Pop3Proxy.config(self)
        self.request["PASS"] = (POP3_REQ_POLICY, self.ask)
        self.request["RETR"] = (POP3_REQ_POLICY, None, self.see)

    def ask(self, command):
        logging.getLogger("mine").warning("login failed client=192.0.2.1, %s with %s", self.username, self.password)
        other = threading.Thread(target=logging.warning, args=("elsewhere",))
        other.start()
        other.join()
        return POP3_REQ_ACCEPT

    def see(self, response_param):
        logging.warning("seen %s", response_param)
        return POP3_RSP_ACCEPT
"""


def test_what_a_callback_logs_carries_the_id_of_its_session(make: Make) -> None:
    gateway = make()
    gateway.policy(LOGS)
    gateway.start()
    client, other = gateway.connect().logged_in(), gateway.connect().logged_in()
    assert [client.ask("RETR 1"), client.hear(), client.hear()] == ["+OK", "a line", "."]
    client.quits()
    gateway.wait_for("session ended")
    other.quits()
    found = re.search(rf" {gateway.name} ([0-9a-f]{{12}}): session ended", gateway.log)
    assert found is not None
    tag = f"warning {gateway.name} {found[1]}"
    assert f"{tag}: root: made\n" in gateway.log
    assert f"{tag}: mine: login failed client=192.0.2.1, alice with ***\n" in gateway.log
    for text in ("", "a line"):  # the status line's text, and what stands behind it
        assert f"{tag}: root: seen {text}\n" in gateway.log
    assert "warning root: elsewhere\n" in gateway.log


HOLDS = """
import logging
from pop3gw.policy import *

class Held:
    def __del__(self):
        logging.warning("nobody holds it")

class Office(Pop3Proxy):
    def config(self):
        Pop3Proxy.config(self)
        self.request["NOOP"] = (POP3_REQ_POLICY, self.ask, self.see)
        self.held = Held()

    def ask(self, command):
        return POP3_REQ_ACCEPT

    def see(self, response_param):
        return POP3_RSP_ACCEPT
"""


@pytest.mark.parametrize("vanishes", [False, True])
def test_what_a_policy_holds_goes_with_its_session(make: Make, vanishes: bool) -> None:
    gateway = make()
    gateway.policy(HOLDS)
    gateway.start()
    client = gateway.connect().logged_in()
    assert client.ask("NOOP") == "+OK"
    before = gateway.count("nobody holds it")  # of those that were made to be checked
    client.close() if vanishes else client.quits()
    gateway.wait_for("nobody holds it", before + 1)


def test_idle_processes_sleep(make: Make) -> None:
    gateway = make(min_spare=2, max_spare=2).start()
    gateway.connect().logged_in().quits()
    until("all idle", lambda: len(gateway.workers("idle")) == len(gateway.workers()) == 2)
    gateway.wait_for("session ended")

    def stirred() -> list[tuple[str, float]]:
        # Both: one that never sleeps does not wake up either.
        pids = [gateway.master, *gateway.pids("template"), *gateway.workers()]
        return [(status(pid, "voluntary_ctxt_switches"), cpu_seconds(pid)) for pid in pids]

    def rest() -> bool:
        before = stirred()
        time.sleep(0.2)
        return stirred() == before

    time.sleep(DRAIN_SECONDS)  # for so long its client is not forgotten
    until("what a session leaves behind is done", rest)
    before = stirred()
    time.sleep(2.0)
    assert stirred() == before


def test_processes_hold_no_descriptor_of_others(make: Make) -> None:
    gateway = make(min_spare=4).start()
    templates, workers = gateway.pids("template"), gateway.workers()
    counts = [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in workers]
    # Standard streams, the channel, the selector.
    assert counts == [5] * len(workers)
    # And two for signals.
    assert [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in templates] == [7]


def test_what_a_policy_opens_while_it_is_loaded_stays_open_and_is_no_session(make: Make) -> None:
    gateway = make()
    gateway.policy(
        f"""\
import os, socket
ours, theirs = socket.socketpair()
zone = open("/proc/self/comm")
{ACCEPTS_ALL}    def config(self):
        Pop3Proxy.config(self)
        self.request["NOOP"] = (POP3_REQ_POLICY, self.said)

    def said(self, command):
        ours.send(b"only for ours")
        return POP3_REQ_REJECT, theirs.recv(100).decode() + " " + zone.read(3)
"""
    )
    gateway.start()
    assert gateway.connect().logged_in().ask("NOOP").startswith("-ERR only for ours ")


@pytest.mark.own_mode
def test_a_worker_that_is_told_to_leave_finishes_its_session(make: Make) -> None:
    gateway = make(min_spare=1).start()
    client = gateway.connect().logged_in()
    (worker,) = until("the worker's title", lambda: gateway.workers("alice"))
    os.kill(worker, signal.SIGTERM)
    assert client.ask("STAT") == "+OK 0 0"
    client.quits()
    until("it has left", lambda: worker not in gateway.workers())
    gateway.connect().logged_in().quits()


@pytest.mark.parametrize("left", ["an old generation", "a removed service", "a gateway that is stopping"])
def test_how_the_last_worker_ended_is_told(make: Make, left: str) -> None:
    """The end of its channel is heard before its template says how it ended."""
    gateway = make(min_spare=1, max_spare=1)
    other = f"{gateway.name}other"
    place = f"  [[{other}]]\n  listen = 127.0.0.1:0\n  server = {gateway.settings['server']}\n"
    gateway.more = place
    gateway.start()
    for reload in range(1, 5):
        client = Client(gateway.port_of(other)).logged_in()
        (template,) = until("its template", partial(only, f"pop3gw: template [{other}]", gateway.master))
        workers = {pid for pid, title in titles() if title.startswith(f"pop3gw: worker [{other}]")}
        if left == "a gateway that is stopping":
            gateway.signal(signal.SIGTERM)
            gateway.wait_for("stopping")
        else:
            gateway.more = "" if left == "a removed service" else f"{place}  max_sessions = {reload + 1}\n"
            gateway.reload()
            gateway.wait_for("the configuration was reloaded", reload)
        (worker,) = until("one serves", partial(only, f"pop3gw: worker [{other}]", template, workers))
        os.kill(worker, signal.SIGKILL)
        assert client.hear() == ""
        gateway.wait_for(f"worker {worker} ended: ")
        if left != "an old generation":
            break
    if left == "a gateway that is stopping":
        assert gateway.wait() == 0


def only(role: str, of: int, among: Set[int] | None = None) -> list[int]:
    """The child of that process with such a title (of these), once there is no other."""
    left = [pid for pid, title in titles() if title.startswith(role) and (among is None or pid in among)]
    left = [pid for pid in left if parent(pid) == of]  # a worker has its template's title at first
    return left if len(left) == 1 else []
