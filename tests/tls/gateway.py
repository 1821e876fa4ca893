"""A gateway of several services, with certificates; and what stands before and behind it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.integration.gateway import COMMAND, GatewayError
from tests.until import until

PATIENCE = 30.0  # s
Settings = Mapping[str, object]


class Gateway:
    """`pop3gw --foreground` with these services; the port of each is taken from the log."""

    def __init__(self, folder: Path, services: Mapping[str, Settings], policies: Mapping[str, str]) -> None:
        self.folder = folder
        self.services = services
        self.file = folder / "pop3gw.conf"
        self.log_file = folder / "pop3gw.log"
        (folder / "policies").mkdir(mode=0o755)
        for name, source in policies.items():
            (folder / "policies" / f"{name}.py").write_text(source)
        self.write()

    def write(self) -> None:
        """Write the configuration as it now is."""
        lines = ["[main]", f"policy_path = {self.folder}/policies", "log_level = debug", "[services]"]
        for name, settings in self.services.items():
            defaults: dict[str, object] = {"listen": "127.0.0.1:0", "min_spare": 1, "max_spare": 2, "max_workers": 16}
            lines.append(f"[[{name}]]")
            lines += [f"{key} = {value}" for key, value in (defaults | dict(settings)).items()]
        self.file.write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        """Start it and wait until it is ready."""
        with self.log_file.open("wb") as output:
            self.process = subprocess.Popen(
                [COMMAND, "--foreground", "--config", self.file],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.wait_for(r"\bready$")

    def stop(self) -> None:
        """Stop it at once."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(PATIENCE)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def wait_for(self, pattern: str, times: int = 1) -> None:
        """Wait until the log has lines with this in them, so often."""

        def there() -> bool:
            if self.process.poll() is not None:
                raise GatewayError(self.log)
            return len(re.findall(pattern, self.log, re.MULTILINE)) >= times

        until(f"the log has {pattern}", there)

    def reload(self) -> None:
        """Let it read its configuration anew, and wait until it says what it made of that."""
        said = r"the configuration was (?:not )?reloaded"
        before = len(re.findall(said, self.log))
        self.write()
        self.process.send_signal(signal.SIGHUP)
        self.wait_for(said, before + 1)

    def port(self, service: str) -> int:
        found = re.findall(rf"listening on 127\.0\.0\.1:(\d+) service={service}$", self.log, re.MULTILINE)
        return int(found[-1])

    def connect(self, service: str) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port(service)), PATIENCE)


@contextlib.contextmanager
def gateway(
    folder: Path, services: Mapping[str, Settings], policies: Mapping[str, str] | None = None
) -> Iterator[Gateway]:
    """A gateway that is ready, until the block ends."""
    made = Gateway(folder, services, policies or {})
    made.start()
    try:
        yield made
    finally:
        made.stop()


def line(connection: socket.socket) -> bytes:
    """One line, not an octet more; less at the end."""
    data = b""
    while not data.endswith(b"\n") and (octet := connection.recv(1)):
        data += octet
    return data


def rest(connection: socket.socket) -> bytes:
    """All that comes until the connection ends, in whichever way."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(1 << 16):
            data += chunk
    return data


Script = Callable[[socket.socket], None]


class Server:
    """A server that does as its script says, once for each connection; what it hears in clear is kept."""

    def __init__(self, script: Script) -> None:
        self.heard = b""
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        with connection, contextlib.suppress(OSError):
            self._script(connection)
            self.heard += rest(connection)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE)


def secured(connection: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    """TLS as a server over a connection; its close is the caller's."""
    return context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False)
