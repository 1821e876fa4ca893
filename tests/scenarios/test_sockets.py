"""The transcripts once more, over real sockets: `pop3gw --foreground`, its master and workers, a client and a server.

One gateway serves all of them, a service for each policy; then another one, with many sessions a worker. Limits: time
passes by itself here, so conversations in which more than two seconds pass are left to ``test_scenarios``; of the log
only what it must lack is looked at.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.gateway import COMMAND, START_SECONDS, STOP_SECONDS, GatewayError, group_is_gone
from tests.scenarios.transcript import (
    Closes,
    ConnectFails,
    Conversation,
    Ends,
    Hears,
    Logged,
    Passes,
    Says,
    Side,
    Stage,
    Step,
    Summed,
    Transcript,
    Vanishes,
    all_transcripts,
)

PATIENCE = 20.0
LONGEST_MS = 2_000
LISTENING = re.compile(r"listening on 127\.0\.0\.1:(\d+) service=(\S+)")
ENDS_OPEN = (rb"(?s:.*)", rb"[^\r\n]*")


def _playable(transcript: Transcript, conversation: Conversation) -> bool:
    if transcript.only is Stage.SESSION:
        return False
    return sum(step.ms for step in conversation.steps if isinstance(step, Passes)) <= LONGEST_MS


def _unreachable(conversation: Conversation) -> bool:
    return any(isinstance(step, ConnectFails) for step in conversation.steps)


PLAYED = [
    (transcript, conversation)
    for transcript in all_transcripts()
    for conversation in transcript.conversations
    if _playable(transcript, conversation)
]

# A service is a policy, and whether its server can be reached.
Behind = tuple[str, bool]


@dataclass(frozen=True, slots=True)
class Service:
    """One service of the gateway: where clients connect, and the server behind it."""

    port: int
    server: socket.socket


@dataclass(frozen=True, slots=True)
class Running:
    """The gateway, ready."""

    services: dict[Behind, Service]
    log: Path


def _write_policy(folder: Path, transcript: Transcript, name: str) -> str:
    if not transcript.inline:
        return transcript.policy
    # `hashlib` is there unasked; that an import of it is harmless too is shown by the examples of the man page.
    (folder / f"{name}.py").write_text(transcript.policy)
    return f"{name}:Policy"


def _write_configuration(
    folder: Path, servers: dict[Behind, socket.socket], *, sessions_per_worker: int
) -> dict[str, Behind]:
    """Write the configuration, and the policies; returns the services by name."""
    policies = folder / "policies"
    policies.mkdir()
    lines = ["[main]", f"policy_path = {policies}", "log_level = debug"]
    lines += ["[workers]", f"sessions_per_worker = {sessions_per_worker}"]
    lines += ["min_spare = 1", "max_spare = 1", "[services]"]
    names: dict[str, Behind] = {}
    for transcript, conversation in PLAYED:
        behind = (transcript.policy, _unreachable(conversation))
        if behind in servers:
            continue
        name = f"s{len(names)}"
        names[name] = behind
        servers[behind] = server = socket.socket()
        server.bind(("127.0.0.1", 0))
        if not behind[1]:
            server.listen()
        policy = _write_policy(policies, transcript, f"policy_{name}")
        lines += [f"[[{name}]]", "listen = 127.0.0.1:0", f"server = 127.0.0.1:{server.getsockname()[1]}"]
        lines += [f'policy = "{policy}"']
    (folder / "pop3gw.conf").write_text("\n".join(lines) + "\n")
    return names


def _await_ready(process: subprocess.Popen[bytes], log: Path) -> dict[str, int]:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        text = log.read_text(errors="replace")
        if re.search(r"\bready$", text, re.MULTILINE):
            return {name: int(port) for port, name in LISTENING.findall(text)}
        time.sleep(0.02)
    raise GatewayError(f"not ready (exit status {process.poll()}):\n{log.read_text(errors='replace')[-4000:]}")


@contextlib.contextmanager
def _started(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    log = folder / "pop3gw.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [COMMAND, "--foreground", "--config", folder / "pop3gw.conf"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process, log
        process.terminate()
        if process.wait(STOP_SECONDS) != 0 or not group_is_gone(process.pid):
            raise GatewayError(f"ended with {process.returncode}:\n{log.read_text(errors='replace')[-4000:]}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="module", params=[1, 200], ids=lambda many: f"{many}-a-worker")
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    """The gateway with all services, each with so many sessions a worker."""
    # pytest's own temporary folders are closed to the workers' account.
    folder = Path(tempfile.mkdtemp(prefix="pop3gw-scenarios."))
    folder.chmod(0o755)
    umask = os.umask(0o022)
    servers: dict[Behind, socket.socket] = {}
    try:
        names = _write_configuration(folder, servers, sessions_per_worker=request.param)
        with _started(folder) as (process, log):
            ports = _await_ready(process, log)
            yield Running({names[name]: Service(port, servers[names[name]]) for name, port in ports.items()}, log)
    finally:
        os.umask(umask)
        for server in servers.values():
            server.close()
        shutil.rmtree(folder)


class Peers:
    """The client and the server of one conversation."""

    def __init__(self, service: Service, *, server: bool) -> None:
        self._sockets = {Side.CLIENT: socket.create_connection(("127.0.0.1", service.port), PATIENCE)}
        if server:
            service.server.settimeout(PATIENCE)
            self._sockets[Side.SERVER], _address = service.server.accept()
        for each in self._sockets.values():
            each.settimeout(PATIENCE)

    def close(self) -> None:
        """Close what is open."""
        for each in self._sockets.values():
            each.close()

    def says(self, side: Side, data: bytes) -> None:
        """Send; who has closed in the meantime is found out by what is heard."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._sockets[side].sendall(data)

    def closes(self, side: Side) -> None:
        """Send no more."""
        self._sockets[side].shutdown(socket.SHUT_WR)

    def vanishes(self) -> None:
        """Reset the client's connection."""
        client = self._sockets.pop(Side.CLIENT)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()

    def hears(self, step: Hears) -> None:
        """Receive what the step says."""
        heard = b""
        to_the_end = step.literal is None and step.pattern.endswith(ENDS_OPEN)
        while not (to_the_end or re.fullmatch(step.pattern, heard)):
            # What has a wildcard in it is read octet by octet: what follows belongs to the next step.
            missing = 1 if step.literal is None else len(step.literal) - len(heard)
            data = self._sockets[step.side].recv(missing)
            heard += data
            if not data or (step.literal is not None and not step.literal.startswith(heard)):
                break
        if to_the_end:
            heard = self._to_the_end(step.side)
        assert re.fullmatch(step.pattern, heard), f"{step.side.name.lower()} heard {heard!r}, not {step.pattern!r}"

    def ended(self) -> None:
        """Both connections are closed, and nothing more was said."""
        for side in self._sockets:
            assert self._to_the_end(side) == b""

    def _to_the_end(self, side: Side) -> bytes:
        heard = b""
        try:
            while data := self._sockets[side].recv(1 << 16):
                heard += data
        except ConnectionResetError:
            # The server's connection may be reset: what it said into the close is of no use to anybody.
            assert side is Side.SERVER, f"the client's connection was reset behind {heard!r}"
        return heard


def _play(peers: Peers, step: Step) -> None:
    match step:
        case Says():
            peers.says(step.side, step.data)
        case Hears():
            peers.hears(step)
        case Closes():
            peers.closes(step.side)
        case Vanishes():
            peers.vanishes()
        case Ends():
            peers.ended()
        case ConnectFails() | Passes() | Logged() | Summed():
            pass


@pytest.mark.parametrize(
    ("transcript", "conversation"),
    [pytest.param(t, c, id=f"{t.path.stem}: {c.title}") for t, c in PLAYED],
)
def test_goes_as_told_over_sockets(running: Running, transcript: Transcript, conversation: Conversation) -> None:
    reachable = not _unreachable(conversation)
    peers = Peers(running.services[transcript.policy, not reachable], server=reachable)
    try:
        for step in conversation.steps:
            _play(peers, step)
    finally:
        peers.close()


def test_no_secret_is_in_the_log(running: Running) -> None:
    log = running.log.read_text(errors="replace")
    for _transcript, conversation in PLAYED:
        for step in conversation.steps:
            if isinstance(step, Logged) and not step.present:
                assert step.text not in log
