"""Whether something can be made at a path, without making it; and its folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pop3gw import places
from pop3gw.privileges import acting_as, find_account


def test_one_folder_may_be_missing_and_is_made_then(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        assert places.homeless(str(tmp_path / "here")) == places.homeless(str(tmp_path / "one" / "here")) == ""
        assert places.homeless(str(tmp_path / "one" / "two" / "here")) == f"there is no folder {tmp_path}/one/two"
        assert list(tmp_path.iterdir()) == []
        places.make_home(str(tmp_path / "one" / "here"))
    finally:
        os.umask(before)
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o755


def test_what_is_no_folder_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert places.homeless(str(tmp_path / "file" / "here")) == f"there is no folder {tmp_path}/file"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
@pytest.mark.parametrize("path", ["here", "one/here", "one/two/here"])
def test_a_home_that_can_not_be_seen_is_told(folder: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that it is missing, as ``Path.is_dir()`` has it from Python 3.14 on."""
    monkeypatch.setattr(Path, "is_dir", os.path.isdir)
    nobody = find_account("nobody", None)
    assert nobody is not None
    (closed := folder / "closed").mkdir()
    (closed / "one").mkdir()
    closed.chmod(0o700)
    with acting_as(nobody):
        told = places.homeless(str(closed / path))
    assert told == ("" if path == "here" else f'"{closed}/{path}": Permission denied')


def test_what_leads_nowhere_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    nowhere = ("loop", "none", "file", "file/none", "no\0path")
    assert [places.is_folder(tmp_path / name) for name in (*nowhere, "")] == [*(False for _ in nowhere), True]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
def test_who_may_not_write_is_told(folder: Path) -> None:
    nobody = find_account("nobody", None)
    assert nobody is not None
    there = folder / "there"
    there.touch(0o644)
    os.chown(there, nobody.uid, -1)
    fault = f"where this account (uid {nobody.uid}) may not write {folder}"
    with acting_as(nobody):
        assert places.unwritable(str(there), anew=False) == ""
        assert places.unwritable(str(there)) == f'"{there}", {fault}'
        assert places.homeless(str(folder / "new" / "here")) == f'"{folder / "new"}", {fault}'
