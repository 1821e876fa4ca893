"""What nobody can catch is in the log, and of its text nothing is anywhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pop3gw import logs, uncaught
from pop3gw.logs import Log
from pop3gw.values import LogLevel


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log's file. Every hook is put back afterwards."""
    monkeypatch.setattr(logs, "_current", logs.current())
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    Log.open(str(file := tmp_path / "log"), LogLevel.INFO)
    uncaught.to_log("office")
    return file


def drop(fault: BaseException) -> None:
    """Have this raised where nobody can catch it."""

    class Sloppy:
        def __del__(self) -> None:
            raise fault

    Sloppy()


def in_thread(fault: BaseException) -> None:
    def work() -> None:
        raise fault

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)


@pytest.mark.parametrize("way", [drop, in_thread])
@pytest.mark.parametrize(
    "fault", [ValueError("s3cret"), UnicodeDecodeError("ascii", b"\xff", 0, 1, "s3cret"), KeyboardInterrupt("s3cret")]
)
@pytest.mark.filterwarnings("error")
def test_it_is_told_by_its_class_and_line(
    way: Callable[[BaseException], None], fault: BaseException, log: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    way(fault.with_traceback(None))
    (line,) = log.read_text().splitlines()
    assert " error office: " in line
    assert "nobody could catch" in line
    assert type(fault).__name__ in line
    assert "raise fault" in line
    assert "s3cret" not in line
    assert capfd.readouterr() == ("", "")


def test_however_often_it_happens_it_fills_no_disk(log: Path) -> None:
    for number in range(150):
        drop(ValueError(str(number)))
    said = log.read_text().splitlines()
    assert len(said) == 100
    assert [line.endswith("of this process no more of them are logged") for line in said[-2:]] == [False, True]


def test_a_thread_may_leave(log: Path, capfd: pytest.CaptureFixture[str]) -> None:
    in_thread(SystemExit("s3cret"))
    assert log.read_text() == ""
    assert capfd.readouterr() == ("", "")


def test_a_name_that_tls_can_not_read_is_not_told(log: Path) -> None:
    error = UnicodeDecodeError("ascii", b"\xff", 0, 1, "ordinal not in range(128)")
    for asked, told in ((b"\xff", 0), (b"\xfe", 1), (None, 1)):
        log.write_text("")
        sys.unraisablehook(report(error, asked))
        assert len(log.read_text().splitlines()) == told


def test_nor_where_python_says_it_in_words(log: Path) -> None:
    """From Python 3.14 on."""
    error = UnicodeDecodeError("ascii", b"\xff", 0, 1, "ordinal not in range(128)")
    said = "Exception ignored in ssl servername callback while decoding name"
    for text, told in ((rf"{said} b'\xff'", 0), (rf"{said} b'\xfe'", 1), ("Exception ignored in another", 1)):
        log.write_text("")
        sys.unraisablehook(report(error, None, text))
        assert len(log.read_text().splitlines()) == told


def test_nor_is_anything_known_where_python_knows_nothing(log: Path) -> None:
    sys.unraisablehook(report(None, None))
    assert "nothing is known of it" in log.read_text()


def report(value: BaseException | None, raised_by: object, text: str | None = None) -> Any:
    """As Python gives it to the hook, whose own class can't be made."""
    return SimpleNamespace(exc_type=type(value), exc_value=value, exc_traceback=None, err_msg=text, object=raised_by)
