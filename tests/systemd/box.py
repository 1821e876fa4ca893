"""A machine for the tests: a container in which systemd runs, on the host's network, with what a test puts into it.

Started as root its root file system is shared between runs, and what it writes is thrown away; otherwise it is an
image that podman builds and keeps.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.dovecot.engine import LIMITS, Engine, image, podman
from tests.dovecot.images import RECIPES, root_folder
from tests.until import until

PATIENCE = 60.0  # s


class BoxError(Exception):
    """A command in the box failed; the text holds what it said."""


@dataclass(frozen=True, slots=True)
class Box:
    """A running machine. ``shared`` is a folder of the host, seen inside as /srv/test."""

    engine: Engine
    name: str
    shared: Path

    def attempt(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside, whatever becomes of it."""
        return subprocess.run(
            [*self.engine.command, "exec", self.name, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
        )

    def run(self, *command: str) -> str:
        """Run a command inside, which must succeed; returns what it prints."""
        done = self.attempt(*command)
        if done.returncode != 0:
            raise BoxError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def shell(self, script: str) -> str:
        """Run a script inside, which must succeed."""
        return self.run("sh", "-euc", script)

    def write(self, path: str, text: str) -> None:
        """Write a file inside, open to everybody to read."""
        (self.shared / "written").write_text(text)
        self.run("install", "-D", "-m", "644", "/srv/test/written", path)

    def read(self, path: str) -> str:
        return self.run("cat", path)

    def show(self, unit: str, what: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={what}", unit).strip()

    def journal(self, unit: str = "pop3gw.service") -> str:
        return self.run("journalctl", "--no-pager", "--output=cat", "--unit", unit)


@contextlib.contextmanager
def box(storage: Path, shared: Path, name: str) -> Iterator[Box]:
    """A machine that has booted; it is gone at the end of the block."""
    runtime = podman(storage)
    root = os.geteuid() == 0
    what = ["--rootfs", f"{root_folder(RECIPES['systemd'])}:O"] if root else [image(runtime, RECIPES["systemd"])]
    options = ["--detach", "--rm", f"--name={name}", "--network=host", "--systemd=always", "--privileged", *LIMITS]
    # It has the tools that read logs, but does not watch over the host's network.
    mounts = [f"--volume={shared}:/srv/test", "--volume=/dev/null:/etc/systemd/system/fail2ban.service:ro"]
    command = [*runtime.command, "run", *options, *mounts, *what, "/sbin/init"]
    made = Box(runtime, name, shared)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE * 2)
        if done.returncode != 0:
            raise BoxError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        # Degraded: a service of the image found its port taken by one of the host, with whom it shares the network.
        booted = ("running", "degraded")
        until("systemd has booted", lambda: made.attempt("systemctl", "is-system-running").stdout.strip() in booted)
        made.run("mount", "--make-rshared", "/")  # as on a machine of its own; credentials are mounted
        yield made
    finally:
        runtime.remove(name)
