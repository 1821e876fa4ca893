"""Claims on a pid file, also by another process."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3gw.errors import StartError
from pop3gw.pidfile import PidFile, fault
from pop3gw.privileges import acting_as, find_account


def test_it_holds_our_number_until_it_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "run" / "pop3gw.pid"
    claim = PidFile(str(path))
    claim.write()
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_mode & 0o777 == 0o644
    claim.remove()
    assert not path.exists()


def test_a_claim_is_refused_while_another_holds(tmp_path: Path) -> None:
    path = str(tmp_path / "pop3gw.pid")
    claim = PidFile(path)
    with pytest.raises(StartError, match="a process that is just starting"):
        PidFile(path)
    claim.write()
    with pytest.raises(StartError, match=f"process {os.getpid()}"):
        PidFile(path)
    claim.remove()
    PidFile(path).remove()


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """Within, no file can grow, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_without_room_it_is_not_claimed_and_none_is_left(tmp_path: Path) -> None:
    path = tmp_path / "pop3gw.pid"
    with no_room(), pytest.raises(StartError, match=r"can't be written: File too large; .* on a disk with room$"):
        PidFile(str(path))
    assert not path.exists()
    PidFile(str(path)).remove()


def test_without_room_later_the_number_can_not_be_written(tmp_path: Path) -> None:
    claim = PidFile(str(tmp_path / "pop3gw.pid"))
    with no_room(), pytest.raises(StartError, match=r"can't be written: File too large; set pid_file"):
        claim.write()
    claim.remove()


@pytest.mark.parametrize("content", ["", "999999999", "0\n", " " * 8])
def test_what_nobody_holds_is_stale(tmp_path: Path, content: str) -> None:
    path = tmp_path / "pop3gw.pid"
    path.write_text(content)
    claim = PidFile(str(path))
    claim.write()
    assert path.read_text() == f"{os.getpid()}\n"
    claim.remove()


@pytest.mark.parametrize(("name", "refused"), [("pop3gw: master", True), ("another program", False)])
def test_a_live_process_counts_where_it_calls_itself_a_gateway(tmp_path: Path, name: str, refused: bool) -> None:
    path = tmp_path / "pop3gw.pid"
    titled = "import setproctitle, sys; setproctitle.setproctitle(sys.argv[1]); print(flush=True); input()"
    command = [sys.executable, "-c", titled, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"\n"
        path.write_text(f"{other.pid}\n")
        if refused:
            with pytest.raises(StartError, match=f"process {other.pid}"):
                PidFile(str(path))
        else:
            PidFile(str(path)).remove()
        other.kill()


def test_the_file_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "pop3gw.pid"
    claim = PidFile(str(path))
    path.unlink()
    path.write_text("4711\n")
    claim.remove()
    assert path.read_text() == "4711\n"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "pop3gw.pid").symlink_to(tmp_path / "precious")
    with pytest.raises(StartError, match="can't be written"):
        PidFile(str(tmp_path / "pop3gw.pid"))
    assert not (tmp_path / "precious").exists()


@pytest.mark.parametrize("content", ["[main]\n", "-1", "12 34", "1" * 40, "\0", "\u0661"])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "pop3gw.pid"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(StartError, match="holds no process id; set pid_file to a file of its own"):
        PidFile(str(path))
    assert path.read_text(encoding="utf-8") == content


def test_only_a_plain_file_is_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pop3gw.pid")
    with pytest.raises(StartError, match="is no plain file"):
        PidFile(str(tmp_path / "pop3gw.pid"))
    assert (tmp_path / "pop3gw.pid").is_fifo()


def test_the_folder_that_is_made_can_be_entered_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        PidFile(str(tmp_path / "run" / "pop3gw.pid")).remove()
    finally:
        os.umask(before)
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
def test_where_it_could_not_be_written_is_known_before(folder: Path) -> None:
    nobody = find_account("nobody", None)
    assert nobody is not None
    (folder / "of-root.pid").touch(0o644)
    places = [folder / "new.pid", folder / "of-root.pid", folder / "run" / "new.pid"]
    assert [fault(str(place)) for place in places] == ["", "", ""]
    with acting_as(nobody):
        assert all(f"where this account (uid {nobody.uid}) may not write" in fault(str(place)) for place in places)
    os.chown(folder, nobody.uid, nobody.gid)
    with acting_as(nobody):
        assert [bool(fault(str(place))) for place in places] == [False, True, False]
    assert sorted(folder.iterdir()) == [folder / "of-root.pid"]
