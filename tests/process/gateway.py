"""A gateway that runs for real, a server behind it, and clients; every wait has an end and a condition."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.until import until

PATIENCE = 20.0  # s
RUNNER = Path(__file__).with_name("run_gateway.py")
ACCEPTS_ALL = "from pop3gw.policy import *\nclass Office(Pop3Proxy):\n    pass\n"


def noop_says(text: str) -> str:
    """A policy that answers NOOP with this text: so a session shows which policy it runs under."""
    return (
        f"{ACCEPTS_ALL}    def config(self):\n        Pop3Proxy.config(self)\n"
        f'        self.request["NOOP"] = (POP3_REQ_REJECT, "{text}")\n'
    )


_ANSWERS = {b"STAT": b"+OK 0 0\r\n", b"RETR": b"+OK\r\na line\r\n.\r\n", b"QUIT": b"+OK bye\r\n"}


class _Mailbox(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"+OK ready\r\n")
        for line in self.rfile:
            command = line.split()[0].upper() if line.split() else b""
            self.wfile.write(_ANSWERS.get(command, b"+OK\r\n"))
            if command == b"QUIT":
                return


class Server(socketserver.ThreadingTCPServer):
    """A POP3 server with an empty mailbox for everybody."""

    daemon_threads = True
    request_queue_size = 512
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Mailbox)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that was reset is no news."""


class Client:
    """A POP3 client that says one line and hears one line."""

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0))
        self._file = self.socket.makefile("rb")

    def hear(self) -> str:
        """The next line; "" at the end."""
        try:
            return self._file.readline().decode().rstrip("\r\n")
        except ConnectionResetError:
            return ""

    def ask(self, line: str) -> str:
        self.socket.sendall(line.encode() + b"\r\n")
        return self.hear()

    def greeted(self) -> Self:
        assert self.hear() == "+OK ready"
        return self

    def logged_in(self, user: str = "alice") -> Self:
        self.greeted()
        assert self.ask(f"USER {user}").startswith("+OK")
        assert self.ask("PASS secret").startswith("+OK")
        return self

    def quits(self) -> None:
        assert self.ask("QUIT").startswith("+OK")
        assert self.hear() == ""
        self.close()

    def is_waiting(self, seconds: float) -> bool:
        """Whether nothing is heard for that long."""
        self.socket.settimeout(seconds)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(PATIENCE)
        return False

    def close(self) -> None:
        self._file.close()
        self.socket.close()


class Gateway:
    """One gateway with its folder, as the administrator sees it: configuration, log, processes, signals."""

    def __init__(self, server: Server, **settings: object) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pop3gw-"))
        self.folder.chmod(0o755)
        self.name = f"t{uuid.uuid4().hex[:10]}"  # in the titles of its processes, so that they can be found
        self.config_file = self.folder / "pop3gw.conf"
        self.policies = self.folder / "policies"
        self.policies.mkdir(mode=0o755)
        self.log_file = self.folder / "stderr"
        self.main: dict[str, object] = {"policy_path": self.policies, "log_level": "info"}
        self.settings: dict[str, object] = {
            "listen": "127.0.0.1:0",
            "server": f"127.0.0.1:{server.server_address[1]}",
            "policy": '"office:Office"',
            **settings,
        }
        self.more = ""
        self.command: list[object] = [sys.executable, RUNNER]
        self.arguments: list[str] = []
        self.environment: dict[str, str] = {}  # besides that of the tests
        self.passed: dict[str, socket.socket] = {}  # listening sockets that it gets as if from systemd, by name
        self.descriptors = 0  # limit; 0: none
        self.account: str | None = None  # who starts it, where not the one that runs the tests
        self.process: subprocess.Popen[bytes] | None = None
        self.policy(ACCEPTS_ALL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(self.log)
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
        for role in ("worker", "template"):
            for pid in self.pids(role):
                with contextlib.suppress(ProcessLookupError):  # it was just leaving
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder)

    def policy(self, text: str, module: str = "office") -> None:
        (self.policies / f"{module}.py").write_text(text)

    def write_config(self) -> None:
        lines = ["[main]", *(f"{key} = {value}" for key, value in self.main.items())]
        lines += ["[services]", f"  [[{self.name}]]", *(f"  {key} = {value}" for key, value in self.settings.items())]
        self.config_file.write_text("\n".join([*lines, self.more, ""]))

    def launch(self) -> Self:
        """Start it, without waiting for anything."""
        self.write_config()
        passed = [f"--passed={end.fileno()}:{name}" for name, end in self.passed.items()]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*map(str, self.command), self.config_file, *self.arguments, *passed],
                env={**os.environ, **self.environment},
                pass_fds=[end.fileno() for end in self.passed.values()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self.account,
                group=None if self.account is None else "nogroup",
                extra_groups=None if self.account is None else [],
                start_new_session=True,
                preexec_fn=self._limit if self.descriptors else None,
            )
        return self

    def _limit(self) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.descriptors, self.descriptors))

    def start(self) -> Self:
        """Start it and wait until it is ready."""
        self.launch()
        self.wait_for("info: ready")
        return self

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def count(self, text: str) -> int:
        return self.log.count(text)

    def wait_for(self, text: str, times: int = 1) -> None:
        assert self.process is not None

        def there() -> bool:
            return self.count(text) >= times or ("--daemon" not in self.arguments and self.process.poll() is not None)  # type: ignore[union-attr]

        until(f"log says {text!r}", there)
        assert self.count(text) >= times, self.log

    @property
    def port(self) -> int:
        return self.port_of(self.name)

    def port_of(self, service: str) -> int:
        found = re.findall(rf"listening on 127\.0\.0\.1:(\d+) service={service}$", self.log, re.M)
        return int(found[-1])

    def connect(self, source: str = "127.0.0.1") -> Client:
        return Client(self.port, source)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def reload(self) -> None:
        """Write the configuration as it now is, and tell the gateway."""
        self.write_config()
        self.signal(signal.SIGHUP)

    def wait(self) -> int:
        """Wait for the gateway's end; returns its exit status."""
        assert self.process is not None
        return self.process.wait(PATIENCE)

    @property
    def master(self) -> int:
        assert self.process is not None
        return self.process.pid

    def pids(self, role: str, words: str = "") -> list[int]:
        """Its workers or templates, those whose title goes on like this."""
        wanted = f"pop3gw: {role} [{self.name}] {words}".rstrip()
        found = {pid for pid, title in titles() if title.startswith(wanted)}
        # A worker has its template's title until it has given itself another.
        return sorted(pid for pid in found if parent(pid) not in found)

    def workers(self, words: str = "") -> list[int]:
        return self.pids("worker", words)

    def served_by(self) -> list[int]:
        """The workers that have logged the end of a session, in order."""
        return [int(pid) for pid in re.findall(r"pop3gw\[(\d+)\] info \S+ \S+: session ended", self.log)]


def titles() -> Iterator[tuple[int, str]]:
    """Pid and title of every process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), (entry / "cmdline").read_bytes().rstrip(b"\0").decode("utf-8", "replace")
            except OSError:
                continue


def status(pid: int, key: str) -> str:
    """A line of /proc/PID/status."""
    found = re.search(rf"^{key}:\s*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return found[1]


def parent(pid: int) -> int:
    """The parent of a process; 0 where it has just ended."""
    try:
        return int(status(pid, "PPid"))
    except (OSError, ProcessLookupError):
        return 0


def cpu_seconds(pid: int) -> float:
    """The CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


Make = Callable[..., Gateway]
