"""Where lines go, with real files, pipes and sockets: nothing blocks, nothing raises, losses are told."""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pop3gw.logline import Entry, journal_entry, syslog_line
from pop3gw.logsinks import DatagramSink, FileSink, Sink, is_journal
from pop3gw.values import LogLevel


def write(sink: Sink, text: str) -> None:
    sink.write(Entry(LogLevel.INFO, text))


def texts(data: bytes) -> list[str]:
    return [line.partition("info: ")[2] for line in data.decode().splitlines() if "info: " in line]


def write_many(sink: Sink, count: int, text: str) -> None:
    """Write them in less time than waiting for each would take."""
    began = time.monotonic()
    for _ in range(count):
        write(sink, text)
    assert time.monotonic() - began < 5


def test_a_file_is_appended_to_and_is_not_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"info: old\n")
    sink = FileSink.open(str(path))
    write(sink, "new")
    assert texts(path.read_bytes()) == ["old", "new"]
    os.close(sink.fileno_or_none() or -1)
    path.unlink()
    sink = FileSink.open(str(path))
    assert path.stat().st_mode & 0o137 == 0
    os.close(sink.fileno_or_none() or -1)


def test_reopening_keeps_the_number_and_changes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = FileSink.open(str(path))
    fd = sink.fileno_or_none()
    write(sink, "before")
    path.rename(tmp_path / "log.1")
    write(sink, "still there")
    sink.reopen()
    write(sink, "after")
    assert sink.fileno_or_none() == fd
    assert texts((tmp_path / "log.1").read_bytes()) == ["before", "still there"]
    assert texts(path.read_bytes()) == ["after"]
    assert not os.get_inheritable(fd or -1)
    os.close(fd or -1)


def test_an_adopted_descriptor_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    sink = FileSink.open(str(tmp_path / "old"))
    fd = os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sink.adopt(fd)
    write(sink, "x")
    assert texts((tmp_path / "new").read_bytes()) == ["x"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    os.close(sink.fileno_or_none() or -1)


def test_stderr_has_nothing_to_reopen_or_pass_on() -> None:
    sink = FileSink(2)
    sink.reopen()
    assert sink.fileno_or_none() is None


def test_a_named_pipe_without_a_reader_is_an_error_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device"):
        FileSink.open(str(tmp_path / "pipe"))


def test_a_full_pipe_blocks_nobody_and_the_loss_is_told() -> None:
    reading, writing = os.pipe()
    sink = FileSink(writing)
    write_many(sink, 1000, "x" * 200)
    data = os.read(reading, 1 << 20)
    kept = len(texts(data))
    assert 100 < kept < 1000
    write(sink, "again")
    data = os.read(reading, 1 << 20)
    assert f"{1000 - kept} lines of the log were lost" in data.decode()
    assert texts(data)[-1] == "again"
    os.close(reading)
    write(sink, "nobody reads any more")
    os.close(writing)


def test_a_long_line_passes_a_pipe_whole() -> None:
    reading, writing = os.pipe()
    sink = FileSink(writing)
    write(sink, "x" * 7000)
    assert texts(os.read(reading, 1 << 20)) == ["x" * 7000]
    os.close(reading)
    os.close(writing)


def test_a_full_disk_and_a_closed_descriptor_raise_nothing() -> None:
    full = FileSink.open("/dev/full")
    write(full, "x")
    write(full, "y")
    os.close(full.fileno_or_none() or -1)
    write(full, "z")


def daemon(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(str(path))
    listening.settimeout(10)
    return listening


def test_syslog_gets_datagrams(tmp_path: Path) -> None:
    with daemon(tmp_path / "log") as listening:
        sink = DatagramSink(str(tmp_path / "log"), syslog_line)
        write(sink, "hello")
        assert texts(listening.recv(65536)) == ["hello"]


def test_no_syslog_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DatagramSink(str(tmp_path / "log"), syslog_line)


def test_a_syslog_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "log"
    first = daemon(path)
    sink = DatagramSink(str(path), syslog_line)
    fd = sink.fileno_or_none()
    first.close()
    path.unlink()
    write_many(sink, 100, "lost")
    with daemon(path) as second:
        deadline = time.monotonic() + 10
        while not select.select([second], [], [], 0.05)[0]:
            assert time.monotonic() < deadline
            write(sink, "back")
        # The line that found the daemon again comes first; the loss is told with the next one.
        write(sink, "next")
        said = [second.recv(65536).decode() for _ in range(3)]
        assert "info: back" in said[0]
        assert "lines of the log were lost" in said[1]
        assert "info: next" in said[2]
    assert sink.fileno_or_none() == fd


def test_a_stuck_syslog_blocks_nobody(tmp_path: Path) -> None:
    with daemon(tmp_path / "log") as listening:
        sink = DatagramSink(str(tmp_path / "log"), syslog_line)
        write_many(sink, 2000, "x" * 1000)
        listening.setblocking(False)
        received = 0
        while True:
            try:
                listening.recv(65536)
            except BlockingIOError:
                break
            received += 1
        assert 0 < received < 2000
        write(sink, "again")
        assert f"{2000 - received} lines of the log were lost" in listening.recv(65536).decode()


def test_syslog_is_reopened_and_passed_on(tmp_path: Path) -> None:
    with daemon(tmp_path / "log") as listening:
        sink = DatagramSink(str(tmp_path / "log"), syslog_line)
        sink.reopen()
        with daemon(tmp_path / "elsewhere"):
            fresh = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            fresh.connect(str(tmp_path / "elsewhere"))
            sink.adopt(fresh.detach())  # only that it is time: to whom this is connected is for whoever sent it to say
            write(sink, "x")
            assert texts(listening.recv(65536)) == ["x"]


@pytest.mark.interpreted
def test_who_may_not_connect_writes_to_what_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with daemon(tmp_path / "log") as listening:
        sink = DatagramSink(str(tmp_path / "log"), syslog_line)

        def refused(*_: object) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        with monkeypatch.context() as away:
            away.setattr(DatagramSink, "_connect", refused)
            sink.separate()
            write(sink, "as before")
            assert texts(listening.recv(65536)) == ["as before"]
            with daemon(tmp_path / "anew") as anew:
                fresh = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                fresh.connect(str(tmp_path / "anew"))
                sink.adopt(fresh.detach())
                write(sink, "x")
                assert texts(anew.recv(65536)) == ["x"]


def test_who_has_a_way_of_its_own_leads_nobody_elsewhere(tmp_path: Path) -> None:
    with daemon(tmp_path / "log") as listening, daemon(tmp_path / "elsewhere"):
        sink = DatagramSink(str(tmp_path / "log"), syslog_line)

        def redirect() -> None:
            sink.separate()
            with socket.socket(fileno=os.dup(sink.fileno_or_none() or -1)) as shared:
                shared.connect(str(tmp_path / "elsewhere"))
            write(sink, "mine")

        in_a_child(redirect)
        write(sink, "ours")
        assert texts(listening.recv(65536)) == ["ours"]


def test_a_way_of_its_own_is_found_once_the_daemon_is_back(tmp_path: Path) -> None:
    with daemon(tmp_path / "log"):
        sink = DatagramSink(str(tmp_path / "log"), syslog_line)
    (tmp_path / "log").unlink()
    sink.separate()
    with daemon(tmp_path / "log") as listening:
        write(sink, "x")
        assert texts(listening.recv(65536)) == ["x"]


def test_the_journal_gets_its_own_protocol(tmp_path: Path) -> None:
    with daemon(tmp_path / "journal") as listening:
        sink = DatagramSink(str(tmp_path / "journal"), journal_entry)
        write(sink, "hello")
        assert b"MESSAGE=info: hello\n" in listening.recv(65536)


def test_whether_a_descriptor_leads_to_the_journal() -> None:
    reading, writing = os.pipe()
    status = os.fstat(writing)
    stream = f"{status.st_dev}:{status.st_ino}"
    assert is_journal(writing, stream)
    assert not is_journal(writing, "")
    assert not is_journal(2, stream)
    os.close(reading)
    os.close(writing)
    assert not is_journal(writing, stream)


def in_a_child(does: Callable[[], None]) -> None:
    """Run it in a process of its own, which must end well."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            does()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_what_a_process_lost_that_is_gone_is_told_by_another(tmp_path: Path) -> None:
    sink = FileSink(os.open("/dev/full", os.O_WRONLY))
    in_a_child(lambda: write_many(sink, 3, "lost"))
    write(sink, "lost too")
    sink.adopt(os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    write(sink, "kept")
    write(sink, "and on")
    told, kept, more = (tmp_path / "log").read_text().splitlines()
    assert told.endswith("4 lines of the log were lost")
    assert kept.endswith("kept")
    assert more.endswith("and on")


def test_a_line_that_another_process_has_cut_is_ended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    sink = FileSink(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND))

    def cut() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))
        write(sink, "cut")

    in_a_child(cut)
    write(sink, "whole")
    part, told, whole = log.read_text().splitlines()
    assert len(part) == 20
    assert told.endswith("1 lines of the log were lost")
    assert whole.endswith("whole")
