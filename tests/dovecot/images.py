"""Container images made from Debian's packages, for machines that reach a Debian mirror but no image registry.

``root_archive(RECIPES["dovecot"])`` is the path of a root file system as a tar archive, which every engine can import;
``root_folder`` that of the same unpacked, which podman takes as it is, putting what a container writes elsewhere.
It is made once (debootstrap, a minute) and kept below the user's cache folder, under a name that tells its recipe: a
changed recipe is another file. An archive appears there whole or not at all, and is made by one process at a time,
so runs may be interrupted and may overlap. ``python -m tests.dovecot.images [NAME]`` makes it ahead of the tests.

Known limits: needs root, and a Debian (or its like) whose apt sources hold the suite that it runs.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Its own mounts and processes, which end when whoever started it does, however that ends: debootstrap mounts /proc in
# what it makes, and whoever comes next removes what is left of it.
CONFINED = ("setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


class ImageError(Exception):
    """An image can't be made here; the text says what is missing or what failed."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A root file system: the smallest Debian, and these packages."""

    name: str
    packages: tuple[str, ...]


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("dovecot", ("dovecot-pop3d",)),
        # What a mail host of Debian has: systemd, a syslog daemon, what reads logs, and what the .deb depends on.
        Recipe(
            "systemd",
            (
                *("dovecot-pop3d", "systemd", "systemd-sysv", "dbus", "rsyslog", "logrotate", "fail2ban"),
                *("python3-configobj", "python3-daemon", "python3-setproctitle"),
            ),
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where Debian's packages come from on this machine."""

    suite: str
    mirror: str
    proxy: str


def output(*command: str) -> str:
    """What a command prints; ImageError when it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise ImageError(f"{shlex.join(command)} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout.strip()


def suite() -> str:
    """The release that this machine runs, by its code name."""
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


def origin() -> Origin:
    """The machine's own mirror, as its apt sources name it, and the proxy that apt is told to use."""
    wanted = suite()
    targets = output(
        "apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"
    )
    for line in targets.splitlines():
        codename, component, mirror = line.split(maxsplit=2)
        if (codename, component) == (wanted, "main"):
            proxy = output("apt-config", "shell", "proxy", "Acquire::http::Proxy")
            return Origin(wanted, mirror, "".join(shlex.split(proxy.removeprefix("proxy="))))
    raise ImageError(f"the apt sources of this machine have no {wanted}/main; run apt-get update")


def cache_folder() -> Path:
    """Where archives are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pop3gw" / "images"


def archive_name(recipe: Recipe) -> str:
    """A file name that differs for whatever makes another image."""
    key = hashlib.sha256(repr((recipe, suite(), platform.machine())).encode()).hexdigest()[:16]
    return f"{recipe.name}-{key}.tar.gz"


@contextmanager
def alone(folder: Path) -> Iterator[int]:
    """Keep other processes out while the block runs.

    The kernel lets them in when this process and every child that was passed the descriptor are gone.
    """
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def build(recipe: Recipe, archive: Path, lock: int) -> None:
    """Make the archive; what works on it holds the lock."""
    if os.geteuid() != 0:
        raise ImageError("an image is made from Debian's packages by root only")
    if shutil.which("debootstrap") is None:
        raise ImageError("debootstrap is missing; install it with: apt-get install --no-install-recommends debootstrap")
    source = origin()
    for leftover in archive.parent.glob("building.*"):
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix="building.", dir=archive.parent) as name:
        folder = Path(name)
        environment = dict(os.environ, **({"http_proxy": source.proxy} if source.proxy else {}))
        command = [*CONFINED, "debootstrap", "--variant=minbase", f"--include={','.join(recipe.packages)}"]
        done = subprocess.run(
            [*command, source.suite, str(folder / "root"), source.mirror],
            env=environment,
            pass_fds=(lock,),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise ImageError(f"debootstrap failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        for package in (folder / "root" / "var" / "cache" / "apt" / "archives").glob("*.deb"):
            package.unlink()
        made = folder / "archive.tar.gz"
        output("tar", "-C", str(folder / "root"), "-I", "gzip -1", "-cf", str(made), ".")
        made.rename(archive)


def root_archive(recipe: Recipe) -> Path:
    """The archive of a recipe, made first if it is not there yet. Raises ImageError."""
    archive = cache_folder() / archive_name(recipe)
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        with alone(archive.parent) as lock:
            if not archive.exists():
                build(recipe, archive, lock)
    return archive


def root_folder(recipe: Recipe) -> Path:
    """The folder of a recipe's root file system, unpacked first if it is not there yet. Raises ImageError."""
    archive = root_archive(recipe)
    folder = archive.with_name(archive.name.removesuffix(".tar.gz"))
    if not folder.exists():
        with alone(archive.parent):
            if not folder.exists():
                part = Path(tempfile.mkdtemp(prefix="building.", dir=archive.parent))
                part.chmod(0o755)
                output("tar", "-C", str(part), "--numeric-owner", "-xzf", str(archive))
                part.rename(folder)
    return folder


def main() -> None:
    """Make the images that are named, or Dovecot's."""
    for name in sys.argv[1:] or ["dovecot"]:
        print(root_archive(RECIPES[name]))


if __name__ == "__main__":
    main()
