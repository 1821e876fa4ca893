"""The .deb, built from this checkout by dpkg-buildpackage; kept below the user's cache folder, under a name that tells
what it was made from."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.dovecot.images import cache_folder

ROOT = Path(__file__).parents[2]
# What lies in a checkout and makes no difference to the package.
OTHER = ("tests", "bench", "scripts", "build", "dist", "Makefile", "pop3gw.egg-info")


class BuildError(Exception):
    """The package can't be built; the text holds what the build said."""


def sources() -> Iterator[Path]:
    """The files that make the package, relative to the checkout."""
    for top in sorted(ROOT.iterdir()):
        if not top.name.startswith(".") and top.name not in OTHER:
            for path in sorted(top.rglob("*")) if top.is_dir() else (top,):
                if path.is_file() and "__pycache__" not in path.parts:
                    yield path.relative_to(ROOT)


def copy_sources(folder: Path) -> None:
    """Put the sources there as a clean checkout has them."""
    for path in sources():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, target, follow_symlinks=False)


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def deb() -> Path:
    """The package, built first where these sources have not been built yet."""
    key = hashlib.sha256()
    for path in sources():
        key.update(f"{path}\0{(ROOT / path).stat().st_mode:o}\0".encode())
        key.update((ROOT / path).read_bytes())
    kept = cache_folder().parent / "debs" / f"pop3gw-{key.hexdigest()[:16]}.deb"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        for old in kept.parent.glob("*.deb"):
            old.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(prefix="pop3gw-deb.", dir="/var/tmp") as name:
            folder = Path(name) / "source"
            copy_sources(folder)
            run(["dpkg-buildpackage", "--build=binary", "--no-sign"], folder)
            (made,) = Path(name).glob("*.deb")
            part = kept.with_suffix(".part")
            shutil.copyfile(made, part)
            part.rename(kept)
    return kept


def newer(package: Path, folder: Path, configuration: str) -> Path:
    """The same package as a next version, with something added to the configuration that it brings."""
    tree = folder / "newer"
    run(["dpkg-deb", "--raw-extract", str(package), str(tree)], folder)
    control = tree / "DEBIAN" / "control"
    control.write_text(control.read_text().replace("Version: ", "Version: 9:"))
    with (tree / "etc" / "pop3gw.conf").open("a") as file:
        file.write(configuration)
    result = folder / "newer.deb"
    run(["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(tree), str(result)], folder)
    return result
