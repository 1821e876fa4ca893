"""The command as a user meets it: exit statuses, plain lines, no traceback."""

from __future__ import annotations

import os
import pwd
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pop3gw import __version__, logs, reference, template
from pop3gw.cli import main
from pop3gw.messages import FAULTS_LIMIT

SMALLEST = """\
[main]
policy_path = .
[services]
  [[inbound]]
  listen = 127.0.0.1:0
  server = mail.example.com:110
"""
CODE = f"import sys; sys.path[0] = {str(Path(reference.__file__).parents[1])!r}\n"
CODE += "from pop3gw.cli import main; sys.exit(main())"


def run(*arguments: str, cwd: Path | None = None) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of the command in a process of its own."""
    done = subprocess.run([sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, timeout=60, cwd=cwd)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def run_with(redirection: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a shell runs it with this redirection."""
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-c", CODE, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        check=False,
    )


def test_it_may_be_started_by_one_that_ignores_the_end_of_children(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, "--check", "--config", write(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def write(tmp_path: Path, text: str = SMALLEST, policy: str = "") -> str:
    file = tmp_path / "pop3gw.conf"
    file.write_text(text, encoding="utf-8")
    if policy:
        (tmp_path / "office.py").write_text(policy, encoding="utf-8")
    return str(file)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"pop3gw {__version__}\n"


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    page = (Path(__file__).parents[2] / "man" / "pop3gw.8").read_text(encoding="utf-8")
    for option in set(re.findall(r"--([a-z-]+)", said)):
        assert f".It Fl -{option}" in page


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["file"],
        ["--listen", "127.0.0.1:1"],
        ["--server", "a:1"],
        ["--policy", "a:B"],
        ["--listen", "127.0.0.1:1", "--server", "a:1", "--config", "x"],
        ["--check", "--dump-config"],
        ["--demo", "--config", "x"],
        ["--print-sample", "--listen", "127.0.0.1:1", "--server", "a:1"],
        ["--conf", "x"],
        ["--config", ""],
        ["--config", "", "--check"],
    ],
)
def test_wrong_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: pop3gw" in capsys.readouterr().err


def test_print_sample(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-sample"]) == 0
    assert capsys.readouterr().out == reference.sample()


def test_dump_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path)
    assert main(["--dump-config", "--config", file, "--foreground"]) == 0
    said = capsys.readouterr().out
    assert f"listen = 127.0.0.1:0 # {file}:5\n" in said
    assert "log_target = stderr # default\n" in said


def test_dump_config_of_a_first_try(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dump-config", "--listen", "127.0.0.1:1110", "--server", "mail:110"]) == 0
    assert "  server = mail:110 # command line\n" in capsys.readouterr().out


@pytest.mark.parametrize("act", ["--check", "--dump-config", "--foreground"])
def test_a_wrong_configuration(tmp_path: Path, act: str) -> None:
    file = write(tmp_path, SMALLEST.replace("mail.example.com:110", "mail") + "  polcy = x\n")
    status, out, err = run(act, "--config", file)
    assert (status, out) == (78, "")
    assert err.splitlines() == [
        f'pop3gw: {file}:6: [inbound] server: "mail" has no port; expected a host and a port,'
        " as mail.example.com:110 or [2001:db8::1]:110",
        f"pop3gw: {file}:7: [inbound] polcy: is no setting here; expected policy",
    ]


@pytest.mark.parametrize("act", ["--check", "--dump-config", "--foreground"])
def test_no_configuration(tmp_path: Path, act: str) -> None:
    status, _, err = run(act, "--config", str(tmp_path / "none"))
    assert status == 78
    assert "No such file or directory" in err


def test_check_finds_nothing(tmp_path: Path) -> None:
    file = write(tmp_path)
    assert run("--check", "--config", file) == (0, f"{file}: nothing is wrong\n", "")


def test_check_tells_settings_and_policies_at_once(tmp_path: Path) -> None:
    text = SMALLEST + "  policy = pop3gw.policies.nowhere:X\n  max_workers = many\n"
    status, out, err = run("--check", "--config", write(tmp_path, text))
    assert (status, out) == (78, "")
    assert "max_workers" in err
    assert "No module named 'pop3gw.policies.nowhere'" in err


@pytest.mark.parametrize(("policy", "said"), [("1/0\n", "ZeroDivisionError"), ("import os; os._exit(0)\n", "ended")])
def test_check_tells_all_that_is_wrong_with_tls_and_the_policy_at_once(tmp_path: Path, policy: str, said: str) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name  # who may read it
    text = f"{SMALLEST}  policy = office:Office\n".replace("= .", f"= {tmp_path}\nuser = {me}")
    text += "  tls = implicit\n  tls_certificate = /no/cert\n  tls_key = /no/key\n  server_tls = required\n"
    status, _, err = run("--check", "--config", write(tmp_path, text + "  server_ca = /no/ca\n", policy))
    assert status == 78
    lines = err.splitlines()
    keys = ("tls_certificate", "tls_key", "server_ca", "policy")
    assert [line.partition(": [inbound] ")[2].partition(":")[0] for line in lines] == list(keys)
    assert said in lines[-1]


@pytest.mark.parametrize(
    "policy",
    [
        "raise SyntaxError('x', ('f', 1, 2, 3))\n",
        "from pop3gw.policy import *\nclass Office(Pop3Proxy):\n    def config(self):\n"
        "        raise SyntaxError('x', ('f', 1, 2, 3))\n",
    ],
)
def test_check_tells_of_what_can_not_be_shown(tmp_path: Path, policy: str) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name  # who may read it
    text = f"{SMALLEST}  policy = office:Office\n".replace("= .", f"= {tmp_path}\nuser = {me}")
    file = write(tmp_path, text, policy)
    status, out, err = run("--check", "--config", file)
    assert (status, out) == (78, "")
    assert re.fullmatch(rf"pop3gw: \S+:\d+: .*{tmp_path}/office.py: class Office: .*SyntaxError \(line \d\)\n", err)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("while True: master.send(messages.encode(messages.Fault('policy', '', 'x')))", FAULTS_LIMIT),
        ("master.send(b'nothing of ours')", 0),
    ],
)
def test_check_believes_no_policy_that_speaks_for_the_gateway(tmp_path: Path, said: str, expected: int) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name  # who may read it
    text = f"{SMALLEST}  policy = office:Office\n".replace("= .", f"= {tmp_path}\nuser = {me}")
    policy = (
        "import os, socket\nfrom pop3gw import messages\n"
        "for number in range(3, 64):\n"
        "    try:\n"
        "        master = socket.socket(fileno=os.dup(number))\n"
        "    except OSError:\n"
        "        continue\n"
        "    if master.family == socket.AF_UNIX and master.type == socket.SOCK_SEQPACKET:\n"
        f"        {said}\n"
    )
    status, out, err = run("--check", "--config", write(tmp_path, text, policy))
    assert (status, out) == (78, "")
    assert len(err.splitlines()) == expected + 1
    assert err.count("wrote to the gateway's own channel") == 1


def test_check_does_not_accuse_a_policy_of_which_much_is_doubtful(tmp_path: Path) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name  # who may read it
    text = f"{SMALLEST}  policy = office:Office\n".replace("= .", f"= {tmp_path}\nuser = {me}")
    misspelt = "".join(f"    callback_timeou{number} = 1\n" for number in range(3 * FAULTS_LIMIT))
    policy = f"from pop3gw.policy import *\nclass Office(Pop3Proxy):\n{misspelt}"
    status, out, err = run("--check", "--config", write(tmp_path, text, policy))
    assert (status, len(err.splitlines())) == (0, FAULTS_LIMIT)
    assert out.endswith("nothing else is wrong\n")


def test_a_template_tells_no_more_faults_than_it_may(tmp_path: Path) -> None:
    certificates = ", ".join(f"n{number}=/no/{number}" for number in range(FAULTS_LIMIT + 6))
    text = f"{SMALLEST}  tls = implicit\n  tls_certificate = {certificates}\n"
    status, _, err = run("--check", "--config", write(tmp_path, text))
    assert status == 78
    assert err.count(": No such file or directory") == err.count("] tls_certificate: /no/") == FAULTS_LIMIT - 1


@pytest.mark.parametrize("wrong", ['tls_certificate = "a b=/x"', "tls_certificat = /x", "tls_key = "])
def test_check_accuses_no_other_setting_of_what_a_wrong_one_of_tls_lacks(tmp_path: Path, wrong: str) -> None:
    other = "  [[other]]\n  listen = 127.0.0.1:0\n  server = mail.example.com:995\n  server_tls = implicit\n"
    text = f"{SMALLEST}  tls = implicit\n  {wrong}\n{other}  server_ca = /no/ca\n"
    file = write(tmp_path, text)
    status, _, err = run("--check", "--config", file)
    assert status == 78
    note, of_the_one, of_the_other = err.splitlines()
    assert note.startswith(f"pop3gw: {file}: no certificate and no key of [inbound] was read")
    assert of_the_one.startswith(f"pop3gw: {file}:8: [inbound] {wrong.partition(' ')[0]}: ")
    assert "[other] server_ca: /no/ca" in of_the_other


def test_check_tells_of_policies_beside_a_wrong_account(tmp_path: Path) -> None:
    text = SMALLEST.replace("[main]\n", "[main]\nuser = nobody-of-that-name\n")
    text += "  policy = pop3gw.policies.nowhere:X\n"
    status, _, err = run("--check", "--config", write(tmp_path, text))
    assert status == 78
    assert "nobody-of-that-name" in err
    assert "No module named 'pop3gw.policies.nowhere'" in err


@pytest.mark.parametrize(
    "wrong",
    ["policy_path = /no/such/folder", 'policy_path = "/unclosed', "policy_path /tmp", "policy_pth = .", "[main]"],
)
def test_check_says_where_it_could_not_look(tmp_path: Path, wrong: str) -> None:
    text = SMALLEST.replace("policy_path = .", wrong) + "  policy = nowhere:X\n"
    status, _, err = run("--check", "--config", write(tmp_path, text))
    assert status == 78
    culprit = "[main]" if wrong == "[main]" else "policy_path"
    assert f"no policy was checked, since {culprit} is wrong" in err
    assert len(err.splitlines()) == 2
    assert wrong.partition(" ")[0] in err


def test_check_of_a_first_try() -> None:
    status, out, _ = run("--check", "--listen", "127.0.0.1:0", "--server", "mail:110")
    assert (status, out) == (0, "command line: nothing is wrong\n")


@pytest.mark.parametrize("act", [[], ["--check"]])
@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("stderr", "stderr, which a daemon does not have"),
        ("none/log", "there is no folder {folder}/none"),
        ("./", '"{folder}", which is a folder'),
    ],
)
def test_a_log_that_no_start_could_open(tmp_path: Path, act: list[str], target: str, said: str) -> None:
    file = write(tmp_path, SMALLEST.replace("[main]\n", f"[main]\nlog_target = {target}\n"))
    status, out, err = run(*act, "--config", file)
    assert (status, out) == (78 if act or target == "stderr" else 1, "")
    assert err.startswith(f"pop3gw: {file}:2: log_target: {said.format(folder=tmp_path)}; expected ")
    assert len(err.splitlines()) == 1
    assert "stderr and a start with --foreground" in err


@pytest.mark.interpreted  # the daemon's socket is another
def test_syslog_is_a_fault_where_it_is_asked_for_and_nobody_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs, "SYSLOG_SOCKET", str(tmp_path / "none"))
    monkeypatch.setattr(template, "check", lambda _config: ([], []))
    assert main(["--check", "--config", write(tmp_path)]) == 0  # it may run by the time of a start
    file = write(tmp_path, SMALLEST.replace("[main]\n", "[main]\nlog_target = syslog\n"))
    assert main(["--check", "--config", file]) == 78
    assert f"{file}:2: log_target: no syslog daemon listens on {tmp_path}/none" in capsys.readouterr().err
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(tmp_path / "none"))
        assert main(["--check", "--config", file]) == 0


def test_in_the_foreground_the_log_may_go_to_stderr(tmp_path: Path) -> None:
    file = write(tmp_path, SMALLEST.replace("[main]\n", "[main]\nlog_target = stderr\n"))
    assert run("--check", "--foreground", "--config", file)[0] == 0


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("pid_file = none/run/x.pid", "pid_file: there is no folder {folder}/none/run"),
        ("pid_file = plain/x.pid", "pid_file: there is no folder {folder}/plain"),
        ("pid_file = ./", 'pid_file: "{folder}", which is no plain file'),
        ("pid_file = plain", 'pid_file: "{folder}/plain", which holds no process id'),
        ("control_socket = none/run/x.sock", "control_socket: there is no folder {folder}/none/run"),
        ("control_socket = plain", 'control_socket: "{folder}/plain", which is no socket'),
    ],
)
def test_check_finds_paths_that_no_start_could_use(tmp_path: Path, setting: str, said: str) -> None:
    (tmp_path / "plain").write_text("somebody's")
    file = write(tmp_path, SMALLEST.replace("[main]\n", f"[main]\n{setting}\n"))
    status, _, err = run("--check", "--foreground", "--config", file)
    assert status == 78
    assert err.startswith(f"pop3gw: {file}:2: {said.format(folder=tmp_path)}; expected the path of a ")
    assert len(err.splitlines()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has other rights than its workers")
def test_check_doubts_places_that_the_workers_may_fill(folder: Path) -> None:
    os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
    paths = "user = nobody\npid_file = x.pid\ncontrol_socket = none/x.sock"
    file = write(folder, SMALLEST.replace("[main]\n", f"[main]\n{paths}\n"))
    status, out, err = run("--check", "--config", file)
    assert (status, out) == (0, f"{file}: nothing else is wrong\n")
    assert [line.partition(", in whose place")[0] for line in err.splitlines()] == [
        f"pop3gw: {file}:3: pid_file: {folder}/x.pid",
        f"pop3gw: {file}:4: control_socket: {folder}/none/x.sock",
    ]


def test_check_is_content_with_the_paths_of_a_gateway_that_runs_or_will(tmp_path: Path) -> None:
    (tmp_path / "x.pid").write_text("1\n")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "x.sock"))
        for paths in ("pid_file = x.pid\ncontrol_socket = x.sock", "pid_file = run/x.pid\ncontrol_socket = new/x.sock"):
            file = write(tmp_path, SMALLEST.replace("[main]\n", f"[main]\n{paths}\n"))
            assert run("--check", "--foreground", "--config", file)[0] == 0
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "new").exists()


def test_check_makes_no_log(tmp_path: Path) -> None:
    file = write(tmp_path, SMALLEST.replace("[main]\n", "[main]\nlog_target = ./log\n"))
    assert run("--check", "--config", file)[0] == 0
    assert not (tmp_path / "log").exists()


def test_a_reader_that_leaves_is_no_error() -> None:
    code = f"import sys; sys.path[0] = {str(Path(reference.__file__).parents[1])!r}\n"
    code += "from pop3gw.cli import main; sys.stdin.read(); sys.exit(main(['--print-sample']))"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe) as child:
        assert child.stdout is not None
        child.stdout.close()
        child.stdout = None
        _, complaints = child.communicate(timeout=60)  # closes stdin: only now it prints
        assert (child.returncode, complaints) == (1, b"")


@pytest.mark.parametrize("act", ["--check", "--dump-config", "--print-sample", "--help", "--version"])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_closed_streams_do_no_harm(tmp_path: Path, act: str, closed: str) -> None:
    file = [] if act == "--print-sample" else ["--config", write(tmp_path)]
    done = run_with(closed, act, *file)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_complaint_to_a_closed_stderr_is_lost_and_nothing_else(tmp_path: Path) -> None:
    done = run_with("2>&-", "--check", "--config", str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (78, "")


@pytest.mark.parametrize("act", ["--check", "--dump-config", "--print-sample", "--help", "--version"])
def test_output_that_can_not_be_written_is_told(tmp_path: Path, act: str) -> None:
    file = [] if act == "--print-sample" else ["--config", write(tmp_path)]
    done = run_with(">/dev/full", act, *file)
    assert (done.returncode, done.stderr) == (1, "pop3gw: the output can't be written: No space left on device\n")


def test_complaints_that_can_not_be_written_change_no_exit_status(tmp_path: Path) -> None:
    done = run_with("2>/dev/full", "--check", "--config", str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (78, "")


def test_what_the_terminal_can_not_show_is_escaped(tmp_path: Path) -> None:
    (folder := tmp_path / "b\u00fcro").mkdir()
    done = run_with("", "--dump-config", "--config", write(folder), PYTHONIOENCODING="ascii", LC_ALL="C")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"/b\xfcro/pop3gw.conf" in done.stdout


@pytest.mark.parametrize("options", ["--config pop3gw.conf", "--listen 127.0.0.1:0 --server mail:110"])
def test_a_current_folder_that_is_gone(tmp_path: Path, options: str) -> None:
    (gone := tmp_path / "gone").mkdir()
    script = f'cd "$0" && rmdir "$0" && exec "$@" --check {options}'
    # -P: it does not look for modules in the current folder, as the installed command does not. Python 3.13.0 itself
    # fails there (SystemError).
    command = ["/bin/sh", "-c", script, str(gone), sys.executable, "-P", "-c", CODE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "pop3gw: the current folder is gone (No such file or directory); go to another one\n"


def test_a_problem_is_one_line_whatever_the_file_holds(tmp_path: Path) -> None:
    file = write(tmp_path, SMALLEST + "  non\x0bsense\x1b[7m\u2028\n")
    done = run("--check", "--config", file)
    assert done[2].startswith(f'pop3gw: {file}:7: [inbound]: "non\\x0bsense\\x1b[7m')
    assert len(done[2].splitlines()) == 1
