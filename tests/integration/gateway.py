"""The gateway as an administrator starts it: `pop3gw --foreground --config FILE`, for one service."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

COMMAND = Path(sys.executable).parent / "pop3gw"
START_SECONDS = 30
STOP_SECONDS = 30
LISTENING = re.compile(r"listening on 127\.0\.0\.1:(\d+)")


class GatewayError(Exception):
    """The gateway did not start, or did not end as it should; the text holds its log."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that is ready."""

    port: int
    log: Path
    process: subprocess.Popen[bytes]


def configuration(policy_path: Path, server: int, policy: str, settings: Mapping[str, str]) -> str:
    """The configuration of one service on a port of the kernel's choice."""
    lines = [
        "[main]",
        f"policy_path = {policy_path}",
        "log_level = debug",
        "[services]",
        "[[tested]]",
        "listen = 127.0.0.1:0",
        f"server = 127.0.0.1:{server}",
        f'policy = "{policy}"',
        *(f"{key} = {value}" for key, value in settings.items()),
    ]
    return "\n".join(lines) + "\n"


def await_ready(process: subprocess.Popen[bytes], log: Path) -> int:
    """Wait until the gateway says that it is ready; returns the port that it listens on."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        text = log.read_text(errors="replace")
        listening = LISTENING.search(text)
        if listening and re.search(r"\bready$", text, re.MULTILINE):
            return int(listening[1])
        time.sleep(0.02)
    raise GatewayError(f"not ready (exit status {process.poll()}):\n{log.read_text(errors='replace')}")


def group_is_gone(leader: int) -> bool:
    """Whether no process of the group is left, waiting for the last ones a moment."""
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        try:
            os.killpg(leader, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


@contextlib.contextmanager
def gateway(
    folder: Path,
    server: int,
    policy: str = "pop3gw.policy:Pop3Proxy",
    *,
    policies: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Gateway]:
    """Run the gateway in front of the server on that port, until the block ends; it must then end with status 0.

    `policies` are modules by name, written into the policy folder; `settings` go into the service's section.
    """
    policy_path = folder / "policies"
    policy_path.mkdir(mode=0o755)
    for name, source in (policies or {}).items():
        (policy_path / f"{name}.py").write_text(source)
    config = folder / "pop3gw.conf"
    config.write_text(configuration(policy_path, server, policy, settings or {}))
    log = folder / "pop3gw.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [COMMAND, "--foreground", "--config", config],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Gateway(await_ready(process, log), log, process)
        process.terminate()
        if process.wait(STOP_SECONDS) != 0 or not group_is_gone(process.pid):
            raise GatewayError(f"ended with {process.returncode}:\n{log.read_text(errors='replace')[-4000:]}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
