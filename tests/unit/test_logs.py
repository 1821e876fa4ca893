"""The log of a process and the journal of a session."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3gw import logs
from pop3gw.errors import StartError
from pop3gw.logs import Log, SessionLog
from pop3gw.proto.events import Ending, Side, Summary
from pop3gw.values import LogFormat, LogLevel

SUMMARY = Summary("c:1", "s:2", "hunter22", "user", 0, 0, 0, 0, 1000, Ending.TIMEOUT, Side.GATEWAY)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A log file; what was the log before is it again afterwards."""
    monkeypatch.setattr(logs, "_current", logs.current())
    root_level = logging.getLogger().level
    yield tmp_path / "log"
    for fd in logs.current().descriptors():
        os.close(fd)
    logging.getLogger().setLevel(root_level)


def lines(file: Path) -> list[str]:
    """The lines without time and process."""
    return [line.partition("] ")[2] for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("level", "written"),
    [
        (LogLevel.DEBUG, ["info: i", "warning one: w", "error: e"]),
        (LogLevel.INFO, ["info: i", "warning one: w", "error: e"]),
        (LogLevel.WARNING, ["warning one: w", "error: e"]),
        (LogLevel.ERROR, ["error: e"]),
    ],
)
def test_levels(file: Path, level: LogLevel, written: list[str]) -> None:
    log = Log.open(str(file), level)
    log.info("i")
    log.warning("w", "one")
    log.error("e")
    assert lines(file) == written
    assert logs.current() is log


def test_a_reload_changes_the_level(file: Path) -> None:
    log = Log.open(str(file), LogLevel.ERROR)
    log.info("no")
    log.level = LogLevel.INFO
    log.info("yes")
    logging.getLogger("any").info("this too")
    assert lines(file) == ["info: yes", "info any: this too"]


def test_a_session_tags_and_redacts_each_line(file: Path) -> None:
    Log.open(str(file), LogLevel.DEBUG)
    session = SessionLog("S1", "inbound")
    assert session.conversation
    session.secret("hunter22")
    session.debug("C: PASS hunter22")
    session.info("a 'hunter22'")
    session.warning("b hunter22")
    session.error("Traceback\n  hunter22")
    session.summary(SUMMARY)
    assert lines(file)[:4] == [
        "debug inbound S1: C: PASS ***",
        "info inbound S1: a '***'",
        "warning inbound S1: b ***",
        "error inbound S1: Traceback\\n  ***",
    ]
    assert lines(file)[4].startswith("info inbound S1: session ended client=c:1 server=s:2 user=hunter22 ")


@pytest.mark.parametrize(("level", "written"), [(LogLevel.INFO, 200), (LogLevel.DEBUG, 1000)])
def test_what_a_session_says_fills_no_disk(file: Path, level: LogLevel, written: int) -> None:
    Log.open(str(file), level)
    session = SessionLog("S1", "inbound")
    session.secret("hunter22")
    for number in range(500):
        session.info(f"{number} hunter22")
        session.error(f"{number} hunter22")
    session.login_failed("192.0.2.7", "alice")
    session.summary(SUMMARY)
    said = lines(file)
    assert len(said) == written + 2
    assert said[98] == "info inbound S1: 49 ***"
    assert said[99].startswith("error inbound S1: 49 ***")
    limited = level is LogLevel.INFO
    assert said[99].endswith("nothing more of it is logged but what went wrong and its end") is limited
    assert said[199].endswith("nothing more of it is logged but its end") is limited
    assert not limited or all(line.startswith("error ") for line in said[100:200])
    assert said[-2].startswith("info inbound S1: login failed client=192.0.2.7")
    assert said[-1].startswith("info inbound S1: session ended")


def test_a_session_below_the_level_writes_nothing(file: Path) -> None:
    Log.open(str(file), LogLevel.ERROR)
    session = SessionLog("S1", "inbound")
    assert not session.conversation
    session.debug("d")
    session.info("i")
    session.warning("w")
    session.summary(SUMMARY)
    assert lines(file) == []


def test_what_others_log_is_joined_in(file: Path) -> None:
    Log.open(str(file), LogLevel.INFO)
    logging.getLogger("policy.of.mine").warning("careful\n%s", "x")
    logging.getLogger("policy.of.mine").debug("unheard")
    logging.getLogger("pop3gw.master").info("ready")
    logging.getLogger("a").critical("c")
    misfit = {"name": "a", "levelno": logging.ERROR, "msg": "%d", "args": ("no number",)}
    assert logs._joined is not None
    logs._joined.handle(logging.makeLogRecord(misfit))  # alone: pytest's own handler would raise
    try:
        raise ValueError("v")
    except ValueError:
        logging.getLogger("a").exception("oh")
    said = lines(file)
    assert said[:3] == ["warning policy.of.mine: careful\\nx", "info: ready", "error a: c"]
    assert said[3].startswith("error a: '%d' with arguments that don't fit")
    assert said[4].startswith("error a: oh\\nTraceback")
    assert said[4].endswith("ValueError: v")


def test_opening_twice_joins_once(file: Path) -> None:
    (fd,) = Log.open(str(file), LogLevel.INFO).descriptors()
    Log.open(str(file), LogLevel.INFO)
    os.close(fd)
    logging.getLogger("a").info("once")
    assert lines(file) == ["info a: once"]


def test_what_cannot_be_opened_is_a_start_error(file: Path, tmp_path: Path) -> None:
    before = logs.current()
    with pytest.raises(StartError, match=r"log_target = syslog: no syslog daemon listens on .*/none"):
        Log.open("syslog", LogLevel.INFO, syslog_socket=str(tmp_path / "none"))
    with pytest.raises(StartError, match=r"log file .*/no/log \(No such file or directory\)"):
        Log.open(str(tmp_path / "no" / "log"), LogLevel.INFO)
    assert logs.current() is before
    assert not file.exists()


def test_a_log_that_cannot_be_reopened_goes_on(file: Path) -> None:
    folder = file.parent / "sub"
    folder.mkdir()
    log = Log.open(str(folder / "log"), LogLevel.INFO)
    folder.rename(file.parent / "moved")
    assert log.reopen() is None
    log.info("on")
    said = lines(file.parent / "moved" / "log")
    assert said == [
        f"error: log_target = {folder}/log: the log can't be reopened (No such file or directory);"
        " it goes on where it was until that is mended and another USR1 comes",
        "info: on",
    ]


def test_a_child_adopts_what_the_master_reopened(file: Path, tmp_path: Path) -> None:
    log = Log.open(str(file), LogLevel.INFO)
    log.adopt(os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT))
    SessionLog("S1", "x").info("there")
    assert lines(tmp_path / "other") == ["info x S1: there"]


def test_json(file: Path) -> None:
    log = Log.open(str(file), LogLevel.INFO, LogFormat.JSON)
    log.info("ready")
    SessionLog("S1", "inbound").summary(SUMMARY)
    first, second = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
    assert first["message"] == "ready"
    assert (second["session"], second["user"], second["end"]) == ("S1", "hunter22", "timeout")


def test_a_stderr_that_leads_to_the_journal(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert file.parent == tmp_path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        journal.settimeout(10)
        status = os.fstat(2)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        log = Log.open("stderr", LogLevel.INFO, journal_socket=str(tmp_path / "journal"))
        log.info("ready", "inbound")
        assert b"POP3GW_SERVICE=inbound\n" in journal.recv(65536)
        assert len(log.descriptors()) == 1


def test_a_journal_that_is_not_there_is_stderr(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    assert Log.open("stderr", LogLevel.INFO, journal_socket=str(file)).descriptors() == []


def test_a_failed_login_names_its_client_whatever_the_password_is(file: Path) -> None:
    Log.open(str(file), LogLevel.INFO)
    session = SessionLog("S1", "inbound")
    session.secret("192.0.2.7")
    session.login_failed("192.0.2.7", "alice client=192.0.2.1")
    session.login_failed("192.0.2.7", None)
    assert lines(file) == [
        'info inbound S1: login failed client=192.0.2.7 user="alice client=192.0.2.1"',
        "info inbound S1: login failed client=192.0.2.7 user=-",
    ]
