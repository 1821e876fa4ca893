"""Containers: whichever engine is there, and one way to run an image with it.

A docker daemon that answers is taken, else podman. Started as root the image comes from ``images``, imported into the
engine; otherwise it is built from the Containerfile, which needs a registry, and is kept by the engine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.dovecot.images import ImageError, Recipe, output, root_archive

HERE = Path(__file__).parent
# Without these the runtime tries to raise its limits beyond what it may where its own are low.
LIMITS = ("--ulimit", "nofile=1024:20000", "--ulimit", "nproc=1000:1000")


@dataclass(frozen=True, slots=True)
class Engine:
    """How an engine is called; its commands are the same in docker and podman."""

    command: tuple[str, ...]

    def run(self, name: str, image: str, program: Sequence[str], options: Sequence[str] = ()) -> list[str]:
        """The command that runs a container in the foreground and removes it at its end, on the host's network."""
        return [*self.command, "run", "--rm", f"--name={name}", "--network=host", *LIMITS, *options, image, *program]

    def remove(self, name: str) -> None:
        """End a container, if it is still there, and remove it."""
        subprocess.run([*self.command, "rm", "--force", name], check=False, capture_output=True)


def docker_answers() -> bool:
    """Whether there is a docker daemon, not only its command."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "version"], capture_output=True, timeout=30).returncode == 0


def engine(storage: Path) -> Engine:
    """The engine of this machine. What a podman of root's needs is kept in `storage`, apart from the machine's own."""
    return Engine(("docker",)) if docker_answers() else podman(storage)


def podman(storage: Path) -> Engine:
    """Podman, which alone knows what a systemd in a container needs."""
    if shutil.which("podman") is None:
        raise ImageError(
            "podman is missing; install it with: apt-get install --no-install-recommends podman runc uidmap"
        )
    if os.geteuid() != 0:
        return Engine(("podman",))
    # runc and cgroupfs work on every kind of cgroups, vfs on every file system.
    places = (f"--root={storage}/root", f"--runroot={storage}/run", f"--tmpdir={storage}/tmp")
    return Engine(("podman", "--runtime=runc", "--storage-driver=vfs", "--cgroup-manager=cgroupfs", *places))


def image(engine: Engine, recipe: Recipe) -> str:
    """The name of the image, after having made it."""
    name = f"localhost/pop3gw-test-{recipe.name}"
    if os.geteuid() == 0:
        output(*engine.command, "import", str(root_archive(recipe)), name)
    else:
        try:
            packages = f"--build-arg=PACKAGES={' '.join(recipe.packages)}"
            output(*engine.command, "build", "--tag", name, packages, "--file", str(HERE / "Containerfile"), str(HERE))
        except ImageError as error:
            raise ImageError(f"{error}\nNo registry is needed when the tests are run as root: sudo make test") from None
    return name
