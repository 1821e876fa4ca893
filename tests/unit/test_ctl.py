"""How pop3gwctl prints, and what it says where there is nobody to ask. The commands are in tests/process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pop3gw import ctl, listing
from pop3gw.top import Picture

COMMAND = (sys.executable, "-c", "import sys; from pop3gw.ctl import main; sys.exit(main())")
SESSION: dict[str, Any] = {
    "session": "3f2a90c1d27e",
    "service": "inbound",
    "user": "alice",
    "client": "192.0.2.7:40312",
    "server": "192.0.2.1:110",
    "state": "TRANSACTION",
    "from_client": 84,
    "to_client": 16872,
    "seconds": 187.4,
    "client_tls": "TLSv1.3",
    "server_tls": None,
    "pid": 812,
}
STATUS: dict[str, Any] = {
    "version": "1.0.0",
    "pid": 800,
    "source": "/etc/pop3gw.conf",
    "seconds": 7380.0,
    "reloads": {"ok": 1, "failed": 0},
    "services": [
        {
            "name": "inbound",
            "state": "serving",
            "sessions": 3,
            "workers": {"total": 5, "busy": 3, "idle": 2, "starting": 0, "max": 256},
            "rates": {"sessions_per_second": 1.25},
            "total": {
                "logins": 40,
                "logins_failed": 1,
                "logins_refused": 2,
                "requests_refused": 4,
                "answers_refused": 0,
                "clients_refused": 1,
            },
            "errors": {"connect": 1, "tls": 0},
        }
    ],
}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0K"),
        (102_400, "100K"),
        (16_872, "16.5K"),
        (5 << 30, "5.0G"),
        (5 << 40, "5.0T"),
    ],
)
def test_octets_are_short(number: int, text: str) -> None:
    assert listing.octets(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0s"), (59.9, "59.9s"), (187.4, "3m07"), (8100, "2h15"), (356_400, "4d03")]
)
def test_ages_are_short(seconds: float, text: str) -> None:
    assert listing.age(seconds) == text


def test_a_session_is_a_row() -> None:
    assert listing.session_row(SESSION) == [
        *("3f2a90c1d27e", "inbound", "alice", "192.0.2.7:40312", "192.0.2.1:110", "TRANSACTION"),
        *("84", "16.5K", "3m07", "1.3/-"),
    ]


def test_a_name_that_a_client_chose_does_nothing_to_a_terminal() -> None:
    row = listing.session_row(
        {**SESSION, "user": "\x1b[2J\x07al\nice", "server": None, "state": None, "client_tls": None}
    )
    assert row[2] == "\\x1b[2J\\x07al\\nice"
    assert (row[4], row[5], row[9]) == ("-", "-", "-")


@pytest.mark.parametrize(
    "answer", [{"ok": True, "result": {"said": ["a\x1b[31mb"]}}, {"ok": False, "error": "a\x1b[31mb"}]
)
def test_whoever_answers_at_the_socket_does_nothing_to_a_terminal(
    answer: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "ctl.sock")

    def reply() -> None:
        with listener.accept()[0] as connection:
            connection.recv(4096)
            connection.sendall(json.dumps(answer).encode())

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=reply)
        thread.start()
        ctl.main(["--socket", path, "stop"])
        thread.join(10)
    assert "a\\x1b[31mb" in "".join(capsys.readouterr())


def test_words_are_looked_for_in_what_a_session_is_called_by() -> None:
    assert ctl.matches(SESSION, ["ALICE", "192.0.2.7"])
    assert ctl.matches(SESSION, [])
    assert not ctl.matches(SESSION, ["alice", "bob"])


def test_nobody_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.sock"
    assert ctl.main(["--socket", str(path), "status"]) == 1
    assert capsys.readouterr().err == (
        f"pop3gwctl: {path}: No such file or directory; is the gateway running, and is this its control_socket?\n"
    )
    assert ctl.main(["--socket", str(path), "reload", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_somebody_who_hangs_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "ctl.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        assert ctl.main(["--socket", path, "status"]) == 1
        thread.join(10)
    assert capsys.readouterr().err != ""


@pytest.mark.parametrize("seconds", ["abc", "0", "nan", "3601"])
def test_an_interval_that_is_none_is_named(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ctl.main(["top", "--interval", seconds])
    assert f"--interval: '{seconds}' is no number from 0.1 to 3600" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "said"), [("/dev/full", "pop3gwctl: standard output: No space left on device\n"), ("", "")]
)
@pytest.mark.parametrize("arguments", [["--help"], ["--socket", "/nowhere", "--json", "status"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_nobody_takes(output: str, said: str, arguments: list[str], unbuffered: str) -> None:
    """A full disk, or a pipe whose reader has left."""
    if output:
        end = os.open(output, os.O_WRONLY)
    else:
        reader, end = os.pipe()
        os.close(reader)
    try:
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=end, stderr=subprocess.PIPE, text=True, timeout=60, env=environment
        )
    finally:
        os.close(end)
    assert (done.returncode, done.stderr) == (1, said)


def test_an_output_that_is_closed_is_no_harm() -> None:
    closed = ["sh", "-c", '"$@" >&-', "sh", *COMMAND, "--socket", "/nowhere", "status"]
    done = subprocess.run(closed, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("pop3gwctl: ")
    assert "Traceback" not in done.stderr


def test_top_is_for_terminals(capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["--socket", "/nowhere", "top"]) == 1
    assert capsys.readouterr().err.startswith("pop3gwctl: top needs a terminal")


@pytest.mark.parametrize(
    "arguments",
    [[], ["obey"], ["kill"], ["top", "--interval", "0"], ["sessions", "--no"], ["--socket", "", "status"]],
)
def test_wrong_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        ctl.main(arguments)
    assert left.value.code == 2
    assert "usage: pop3gwctl" in capsys.readouterr().err


def drawn(width: int, height: int, sessions: list[dict[str, Any]]) -> list[str]:
    console = Console(width=width, height=height, color_system=None)
    picture = Picture()
    picture.draw(STATUS, [{**one, "to_client": 0} for one in sessions], 10.0, console.size)
    with console.capture() as captured:
        console.print(picture.draw(STATUS, sessions, 12.0, console.size))
    return captured.get().splitlines()


def test_top_puts_the_busiest_first_as_many_as_fit() -> None:
    sessions = [{**SESSION, "session": f"{number:012x}", "to_client": number * 1000} for number in range(30)]
    lines = drawn(140, 20, sessions)
    assert len(lines) <= 20
    shown = [line.split()[0] for line in lines if "TRANSACTION" in line]
    assert shown[0] == f"{29:012x}"
    assert shown == sorted(shown, reverse=True)
    assert lines[-1].strip() == f"{30 - len(shown)} more"
    assert "14.2K" in lines[4]  # octets a second to the busiest


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_top_cuts_no_user_and_no_client_in_a_narrow_terminal(width: int) -> None:
    (line,) = [line for line in drawn(width, 20, [SESSION]) if "3f2a90c1d27e" in line]
    assert " alice " in line
    assert " 192.0.2.7:40312 " in line
