"""With whose rights a log file is opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pop3gw.logfile import fault, open_log
from pop3gw.privileges import Account, acting_as, find_account

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has other rights than its workers")


@pytest.fixture
def workers() -> Account:
    found = find_account("nobody", None)
    assert found is not None
    return found


def open_and_write(path: Path, account: Account | None) -> os.stat_result:
    assert fault(str(path), account) == ""
    descriptor = open_log(str(path), account)
    try:
        os.write(descriptor, b"line\n")
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def rights() -> tuple[int, int, list[int]]:
    return os.geteuid(), os.getegid(), os.getgroups()


def test_not_started_as_root_a_link_is_the_users_own_business(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "target")
    open_and_write(folder / "link", None)
    assert (folder / "target").read_bytes() == b"line\n"


@as_root
def test_in_a_folder_of_the_workers_account_the_file_becomes_that_accounts(folder: Path, workers: Account) -> None:
    os.chown(folder, workers.uid, workers.gid)
    before = rights()
    status = open_and_write(folder / "pop3gw.log", workers)
    assert (status.st_uid, status.st_gid) == (workers.uid, workers.gid)
    assert rights() == before


@as_root
def test_in_a_folder_of_root_it_is_roots(folder: Path, workers: Account) -> None:
    status = open_and_write(folder / "pop3gw.log", workers)
    assert (status.st_uid, status.st_gid) == (0, 0)


@as_root
def test_in_a_folder_of_the_workers_account_no_link_is_followed(folder: Path, workers: Account) -> None:
    (log := folder / "log").mkdir()
    (log / "pop3gw.log").symlink_to(folder / "victim")
    os.chown(log, workers.uid, workers.gid)
    before = rights()
    with pytest.raises(OSError, match="it is a symbolic link; it must belong to nobody"):
        open_log(str(log / "pop3gw.log"), workers)
    assert "the account that may change what lies there" in fault(str(log / "pop3gw.log"), workers)
    assert not (folder / "victim").exists()
    assert rights() == before


@as_root
def test_a_link_of_root_is_roots_own_business(folder: Path, workers: Account) -> None:
    (folder / "link").symlink_to("target")
    open_and_write(folder / "link", workers)
    assert (folder / "target").owner() == "root"


@as_root
def test_a_folder_that_the_workers_account_has_made_a_link_gives_it_nothing(folder: Path, workers: Account) -> None:
    (log := folder / "log").mkdir()
    os.chown(log, workers.uid, workers.gid)
    (log / "of-root").symlink_to("/etc")
    with pytest.raises(OSError, match="Permission denied; it must belong to nobody, which may change"):
        open_log(str(log / "of-root" / "pop3gw.log"), workers)
    assert "the account that may change what lies there" in fault(str(log / "of-root" / "pop3gw.log"), workers)
    assert not Path("/etc/pop3gw.log").exists()


@as_root
def test_a_file_of_root_is_not_written_for_the_workers_account(folder: Path, workers: Account) -> None:
    (file := folder / "pop3gw.log").write_bytes(b"")
    os.chown(folder, workers.uid, workers.gid)
    with pytest.raises(PermissionError, match="must belong to nobody"):
        open_log(str(file), workers)
    assert "the account that may change what lies there" in fault(str(file), workers)


@as_root
def test_in_a_folder_of_the_workers_account_only_a_plain_file_is_written(folder: Path, workers: Account) -> None:
    os.mkfifo(folder / "pop3gw.log", 0o666)
    os.chown(folder / "pop3gw.log", workers.uid, workers.gid)
    os.chown(folder, workers.uid, workers.gid)
    reader = os.open(folder / "pop3gw.log", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(OSError, match="no plain file"):
        open_log(str(folder / "pop3gw.log"), workers)
    assert "the account that may change what lies there" in fault(str(folder / "pop3gw.log"), workers)
    os.close(reader)


@as_root
def test_what_root_alone_may_change_may_be_anything(workers: Account) -> None:
    open_and_write(Path("/dev/null"), workers)


def test_a_link_that_leads_nowhere_is_for_the_start_to_tell(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    assert fault(str(folder / "loop"), None) == ""
    with pytest.raises(OSError, match="Too many levels"):
        open_log(str(folder / "loop"), None)


@as_root
def test_what_this_account_may_not_write_is_found_before_it_is_opened(folder: Path, workers: Account) -> None:
    (file := folder / "of-root.log").touch(0o644)
    for path in (file, folder / "new.log"):
        with acting_as(workers):
            assert f"which this account (uid {workers.uid}) may not write" in fault(str(path), None)
            with pytest.raises(PermissionError):
                open_log(str(path), None)
    assert not (folder / "new.log").exists()
