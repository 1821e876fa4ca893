"""What the workers' account may change of a path, by real folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pop3gw.distrust import Distrust
from pop3gw.privileges import Account

STRANGER = Distrust("stranger", 4711, frozenset({4711}))


def test_an_account_and_all_its_groups() -> None:
    assert Distrust.of(Account("pop3gw", 104, 110, (110, 4))) == Distrust("pop3gw", 104, frozenset({110, 4}))


def test_folders_that_only_others_may_write_lead_where_they_should(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    assert not STRANGER.may_redirect(tmp_path / "log" / "pop3gw.log")


@pytest.mark.parametrize("below", ["", "log", "log/a/b"])
def test_any_folder_on_the_way_counts(tmp_path: Path, below: str) -> None:
    folder = tmp_path / below
    folder.mkdir(parents=True, exist_ok=True)
    tmp_path.chmod(0o777)
    assert STRANGER.may_redirect(folder / "pop3gw.log")
    owner = Distrust("owner", tmp_path.stat().st_uid or 4711, frozenset())
    if os.geteuid() == 0:
        os.chown(tmp_path, 4711, -1)
    tmp_path.chmod(0o755)
    assert owner.may_redirect(folder / "pop3gw.log")


def test_a_group_that_may_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o775)
    assert Distrust("member", 4711, frozenset({tmp_path.stat().st_gid})).may_redirect(tmp_path / "pop3gw.log")


def test_in_a_sticky_folder_what_is_others_stays_what_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    (tmp_path / "log").mkdir(mode=0o755)
    assert not STRANGER.may_redirect(tmp_path / "log" / "pop3gw.log")
    assert STRANGER.may_redirect(tmp_path / "pop3gw.log"), "it could be made by anybody"


def test_a_link_is_judged_by_where_it_lies_and_by_where_it_leads(tmp_path: Path) -> None:
    (open_to_all := tmp_path / "open").mkdir()
    (trusted := tmp_path / "trusted").mkdir()
    (open_to_all / "link").symlink_to(trusted)
    (trusted / "link").symlink_to(open_to_all)
    (trusted / "pop3gw.log").symlink_to("link/pop3gw.log")
    assert not STRANGER.may_redirect(open_to_all / "link" / "pop3gw.log")
    open_to_all.chmod(0o777)
    assert STRANGER.may_redirect(open_to_all / "link" / "pop3gw.log")
    assert STRANGER.may_redirect(trusted / "link" / "pop3gw.log")
    assert STRANGER.may_redirect(trusted / "pop3gw.log")


def test_links_are_followed_as_the_kernel_does(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "link").symlink_to("b/../../c/./d")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "d").symlink_to(tmp_path / "log")
    assert not STRANGER.may_redirect(tmp_path / "a" / "link")
    (tmp_path / "c").chmod(0o777)
    assert STRANGER.may_redirect(tmp_path / "a" / "link")
    (tmp_path / "log").symlink_to("log")
    with pytest.raises(OSError, match="Too many levels"):
        STRANGER.may_redirect(tmp_path / "log")


def test_without_its_folder_there_is_no_telling(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        STRANGER.may_redirect(tmp_path / "none" / "pop3gw.log")
