"""The package itself: installed, upgraded, removed and purged on a fresh machine; and the wheel and the sdist."""

from __future__ import annotations

import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.servers import free_port
from tests.systemd import debs
from tests.systemd.box import Box
from tests.systemd.conftest import Boxes
from tests.systemd.service import CONFIG, UNIT

pytestmark = pytest.mark.timeout(1200)  # the image may have to be made first

# What others write when they like: kernel, logs, caches, the package manager itself.
OTHERS = "/proc /sys /dev /run /tmp /var/log /var/lib/dpkg /var/cache /var/lib/systemd /var/lib/dbus /srv /var/tmp"
# What comes with the modules, below the prefix.
SHIPPED = {
    "share/man/man5/pop3gw.conf.5",
    "share/man/man7/pop3gw-policy.7",
    "share/man/man8/pop3gw.8",
    "share/man/man8/pop3gwctl.8",
    "share/doc/pop3gw/examples/pop3gw.conf",
    "share/doc/pop3gw/examples/pop3gw",
    "share/doc/pop3gw/examples/logrotate.d/pop3gw",
    "share/doc/pop3gw/examples/fail2ban/filter.d/pop3gw.conf",
    "share/doc/pop3gw/examples/fail2ban/jail.d/pop3gw.conf",
    "lib/systemd/system/pop3gw.service",
    "lib/systemd/system/pop3gw.socket",
    "lib/sysusers.d/pop3gw.conf",
    "lib/tmpfiles.d/pop3gw.conf",
}


@pytest.fixture
def fresh(boxes: Boxes) -> Iterator[Box]:
    """A machine that never had the package."""
    with boxes() as machine:
        yield machine


def files(machine: Box) -> set[str]:
    """Every file of the machine that is nobody else's."""
    pruned = " -o ".join(f"-path {path}" for path in OTHERS.split())
    return set(machine.shell(f"find / \\( {pruned} \\) -prune -o -print").splitlines())


def install(machine: Box, package: str, *options: str) -> None:
    """What apt does without asking anybody."""
    machine.run("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", *options, "--install", f"/srv/test/{package}")


def enabled(machine: Box) -> list[str]:
    return machine.attempt("systemctl", "is-enabled", UNIT, "pop3gw.socket").stdout.split()


def test_its_life_on_a_machine(fresh: Box, tmp_path: Path) -> None:
    before, accounts = files(fresh), fresh.read("/etc/passwd")

    install(fresh, "pop3gw.deb")
    assert enabled(fresh) == ["enabled", "disabled"]
    assert fresh.show(UNIT, "ActiveState") == "inactive"  # its configuration names no server that exists
    assert fresh.run("id", "-un", "pop3gw").strip() == "pop3gw"
    assert fresh.run("pop3gw", "--check").strip() == f"{CONFIG}: nothing is wrong"
    loaded = fresh.shell("python3 -X importtime /usr/bin/pop3gw --version 2>&1")
    assert "pop3gw.names" in loaded
    assert not {"importlib.metadata", "shutil"} & set(loaded.split())  # for nothing, and in every process
    owners = fresh.shell("stat -c '%U %a' /etc/pop3gw/policies /var/log/pop3gw").splitlines()
    assert owners == ["root 755", "pop3gw 750"]

    port = free_port()
    edited = fresh.read(CONFIG).replace('0.0.0.0:110, "[::]:110"', f"127.0.0.1:{port}")
    fresh.write(CONFIG, edited)
    fresh.run("systemctl", "start", UNIT)
    master = fresh.show(UNIT, "MainPID")

    # An upgrade that brings another configuration keeps the edited one, and restarts what runs.
    shutil.copy(debs.newer(fresh.shared / "pop3gw.deb", tmp_path, "# new\n"), fresh.shared / "newer.deb")
    install(fresh, "newer.deb", "--force-confdef", "--force-confold")
    assert fresh.read(CONFIG) == edited
    assert fresh.read(f"{CONFIG}.dpkg-dist").endswith("# new\n")
    assert fresh.show(UNIT, "ActiveState") == "active"
    assert fresh.show(UNIT, "MainPID") != master
    assert enabled(fresh) == ["enabled", "disabled"]

    fresh.run("dpkg", "--remove", "pop3gw")
    assert fresh.attempt("systemctl", "is-active", UNIT).stdout.strip() != "active"
    assert fresh.read(CONFIG) == edited
    fresh.run("dpkg", "--purge", "pop3gw")
    assert files(fresh) - before - {"/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-"} == set()
    assert fresh.read("/etc/passwd") == accounts
    assert fresh.attempt("ls", "/var/log/pop3gw", "/run/pop3gw").stdout == ""


def test_it_needs_nothing_but_packages_of_debian(fresh: Box) -> None:
    needed = fresh.run("dpkg-deb", "--field", "/srv/test/pop3gw.deb", "Depends")
    names = {name.strip().split()[0].partition(":")[0] for name in needed.replace("|", ",").split(",")}
    known = {"systemd", "systemd-standalone-sysusers", "systemd-sysusers"}
    assert names - known == {"python3", "python3-configobj", "python3-daemon", "python3-setproctitle"}


def test_its_script_serves_a_machine_without_systemd(fresh: Box) -> None:
    install(fresh, "pop3gw.deb")
    port = free_port()
    fresh.write(CONFIG, fresh.read(CONFIG).replace('0.0.0.0:110, "[::]:110"', f"127.0.0.1:{port}"))
    script = ("env", "SYSTEMCTL_SKIP_REDIRECT=1", "/etc/init.d/pop3gw")
    fresh.run(*script, "start")
    assert "pop3gw is running" in fresh.run(*script, "status")
    fresh.run(*script, "stop")
    assert fresh.attempt(*script, "status").returncode == 3


def test_sdist_and_wheel_have_everything(tmp_path: Path) -> None:
    source = tmp_path / "source"
    debs.copy_sources(source)
    debs.run(["/usr/bin/python3", "setup.py", "-q", "sdist"], source)
    (archive,) = (source / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as sdist:
        sdist.extractall(tmp_path / "sdist")
    (unpacked,) = (tmp_path / "sdist").iterdir()
    debs.run(["/usr/bin/python3", "setup.py", "-q", "bdist_wheel"], unpacked)
    (wheel,) = (unpacked / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
    data = {name.split(".data/data/")[1] for name in names if ".data/data/" in name}
    assert data >= SHIPPED
    modules = {str(path) for path in debs.sources() if path.parts[0] == "pop3gw" and path.suffix in (".py", ".typed")}
    assert modules <= set(names)
    prefix = tmp_path / "installed"
    # --ignore-installed: pip would else remove the pop3gw that these tests run with.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed"]
    debs.run([*pip, f"--prefix={prefix}", str(wheel)], tmp_path)
    assert {str(path.relative_to(prefix)) for path in prefix.rglob("*") if path.is_file()} >= SHIPPED | {"bin/pop3gw"}
