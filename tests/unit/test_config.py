"""Configuration files: what is taken, and that everything wrong is reported at once, in its place."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pop3gw import config, consistency
from pop3gw.errors import ConfigurationError, Exit, Problem
from pop3gw.settings import SETTINGS, Config, Section
from pop3gw.values import Address, LogLevel, PolicyName

SMALLEST = """\
[services]
  [[inbound]]
  listen = 127.0.0.1:1110
  server = mail.example.com:110
"""


def write(tmp_path: Path, text: str) -> str:
    file = tmp_path / "pop3gw.conf"
    file.write_text(text, encoding="utf-8")
    return str(file)


def load(tmp_path: Path, text: str, *, foreground: bool = False) -> Config:
    return config.load(write(tmp_path, text), foreground=foreground)


def problems(tmp_path: Path, text: str) -> list[tuple[int, str, str]]:
    """Line, key and the whole text of each problem."""
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    assert caught.value.exit is Exit.CONFIG
    assert all(problem.file == str(tmp_path / "pop3gw.conf") for problem in caught.value.problems)
    return [(problem.line, problem.key, str(problem)) for problem in caught.value.problems]


def only(tmp_path: Path, text: str) -> tuple[int, str, str]:
    (problem,) = problems(tmp_path, text)
    return problem


def service(*lines: str) -> str:
    return SMALLEST + "".join(f"  {line}\n" for line in lines)


def test_each_bad_item_of_a_list_is_a_problem(tmp_path: Path) -> None:
    found = problems(tmp_path, service("proxy_protocol_from = 10.0.0.1/8, foo"))
    assert [(line, key) for line, key, _ in found] == [(5, "[inbound] proxy_protocol_from")] * 2
    assert ["10.0.0.1/8" in text for *_, text in found] == [True, False]
    assert "'foo'" in found[1][2]


def test_each_bad_item_of_the_command_line_is_a_problem() -> None:
    with pytest.raises(ConfigurationError) as caught:
        config.from_command_line("127.0.0.1:99999, foo,[::1", "mail:110", None)
    assert [problem.found for problem in caught.value.problems] == [
        '"127.0.0.1:99999": "99999" is no port',
        '"foo" has no port',
        '"[::1": the bracket is not closed',
    ]


def test_the_smallest_configuration(tmp_path: Path) -> None:
    loaded = load(tmp_path, SMALLEST)
    (inbound,) = loaded.services
    assert loaded.source == str(tmp_path / "pop3gw.conf")
    assert (loaded.pid_file, loaded.log_target) == ("/run/pop3gw/pop3gw.pid", "syslog")
    assert (inbound.name, inbound.listen) == ("inbound", (Address("127.0.0.1", 1110),))
    assert inbound.policy == PolicyName("pop3gw.policy", "Pop3Proxy")
    for item in SETTINGS:
        if item.row.section is Section.WORKERS:
            assert getattr(inbound, item.key) == item.default


def test_the_foreground_needs_nothing_outside(tmp_path: Path) -> None:
    loaded = load(tmp_path, SMALLEST, foreground=True)
    assert (loaded.pid_file, loaded.log_target) == (None, "stderr")
    said = load(tmp_path, "[main]\npid_file = /p\nlog_target = syslog\n" + SMALLEST, foreground=True)
    assert (said.pid_file, said.log_target) == ("/p", "syslog")


def test_everything_set(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        f"""\
[main]
policy_path = {tmp_path}, "{tmp_path}/."
log_target = logs/pop3gw.log   # beside the file
log_level = debug
pid_file = "/run/a#b,c.pid"
[workers]
max_workers = 7
shutdown_timeout = 0
[services]
  [[one]]
  listen = 127.0.0.1:1110, "[::1]:1110"
  server = "[2001:db8::1]:110"
  policy = "office:UToAPop3"
  max_workers = 5
  [[two]]
  listen = 127.0.0.1:0, 127.0.0.1:0
  server = %(main)s.example.com:110
""".replace("%(main)s", "percent"),
    )
    one, two = loaded.services
    assert loaded.policy_path == (str(tmp_path), str(tmp_path))
    assert loaded.log_target == str(tmp_path / "logs/pop3gw.log")
    assert loaded.log_level is LogLevel.DEBUG
    assert loaded.pid_file == "/run/a#b,c.pid"
    assert (one.max_workers, two.max_workers, two.shutdown_timeout) == (5, 7, 0)
    assert one.server == Address("2001:db8::1", 110)
    assert [str(loaded.origin("one", key)) for key in ("max_workers", "shutdown_timeout", "max_spare")] == [
        f"{tmp_path}/pop3gw.conf:14",
        f"[workers] {tmp_path}/pop3gw.conf:8",
        "default",
    ]
    assert str(loaded.origin("", "log_level")) == f"{tmp_path}/pop3gw.conf:4"


def test_every_relative_path_starts_at_the_file(tmp_path: Path) -> None:
    client = ("tls = implicit", "tls_certificate = a.pem, mail.example.com=tls/b.pem", "tls_key = a.key, /b.key")
    lines = (*client, "server_tls = implicit", "server_ca = ca.pem")
    found = load(tmp_path, service(*lines)).services[0]
    assert [str(item) for item in found.tls_certificate] == [
        f"{tmp_path}/a.pem",
        f"mail.example.com={tmp_path}/tls/b.pem",
    ]
    assert found.tls_key == (f"{tmp_path}/a.key", "/b.key")
    assert found.server_ca == f"{tmp_path}/ca.pem"


def test_the_control_socket_is_beside_the_pid_file(tmp_path: Path) -> None:
    def beside(pid_file: str) -> str | None:
        return load(tmp_path, f"[main]\npid_file = {pid_file}\n" + SMALLEST).control_socket

    assert [beside(name) for name in ("/run/a.b.pid", "/run/a", "/")] == ["/run/a.b.sock", "/run/a.sock", "/.sock"]


def test_interpolation_is_off(tmp_path: Path) -> None:
    assert load(tmp_path, "[main]\npid_file = /run/%(x)s$y.pid\n" + SMALLEST).pid_file == "/run/%(x)s$y.pid"


def test_a_byte_order_mark_and_crlf_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "pop3gw.conf"
    file.write_bytes(b"\xef\xbb\xbf" + SMALLEST.replace("\n", "\r\n").encode())
    assert config.load(str(file), foreground=False).services[0].name == "inbound"


def test_every_line_end_is_one(tmp_path: Path) -> None:
    file = tmp_path / "pop3gw.conf"
    file.write_bytes(SMALLEST.replace("\n", "\r").encode() + b"  polcy = a:B\r")
    with pytest.raises(ConfigurationError) as caught:
        config.load(str(file), foreground=False)
    assert [problem.line for problem in caught.value.problems] == [5]
    file.write_bytes(b"[main]\r# caf\xe9\r")
    with pytest.raises(ConfigurationError) as caught:
        config.load(str(file), foreground=False)
    assert caught.value.problems[0].line == 2


def test_a_problem_that_is_found_later_names_the_line(tmp_path: Path) -> None:
    loaded = load(tmp_path, SMALLEST)
    problem = loaded.problem("inbound", "listen", "127.0.0.1:1110, which is in use", "a free port")
    assert problem == Problem(loaded.source, 3, "[inbound] listen", "127.0.0.1:1110, which is in use", "a free port")
    assert loaded.problem("inbound", "policy", "x", "y").line == 0


def test_all_problems_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """\
[main]
log_level = loud
loglevel = info
user = no-such-account-here
[workers]
min_spare = many
max_workers = 0
max_sesions = 1
[servises]
[services]
  nonsense
  [[inbound]]
  listen = 127.0.0.1:1110
  polcy = x
  [[other]]
  listen = 0.0.0.0:1110
  server = 127.0.0.1:1110
  policy = office
""",
    )
    assert [(line, key) for line, key, _ in found] == [
        (2, "log_level"),
        (3, "loglevel"),
        (4, "user"),
        (6, "min_spare"),
        (7, "max_workers"),
        (8, "max_sesions"),
        (9, "servises"),
        (11, ""),
        (12, "[inbound] server"),
        (14, "[inbound] polcy"),
        (16, "[other] listen"),
        (17, "[other] server"),
        (18, "[other] policy"),
    ]
    assert "one of debug, info, warning, error" in found[0][2]
    assert "expected log_level" in found[1][2]
    assert "expected max_sessions" in found[5][2]
    assert "expected services" in found[6][2]
    assert "not set" in found[8][2]


@pytest.mark.parametrize(
    ("line", "found", "expected"),
    [
        ("server = mail.example.com:110#x", '"mail.example.com:110"', "quotes"),
        ("policy = office#1:X", '"office"', "module:Class"),
        ("policy = a, b", "a list (a, b)", "module:Class"),
        ("policy =", "nothing", "module:Class"),
        ("connect_timeout = 0", "0, which is out of range", "a whole number from 1 to 3600"),
        ("connect_timeout = 5s", '"5s", which is no whole number', "a whole number"),
        ("shutdown_timeout = -1", "-1, which is out of range", "0 to 86400"),
    ],
)
def test_a_bad_value(tmp_path: Path, line: str, found: str, expected: str) -> None:
    text = SMALLEST.replace("  server = mail.example.com:110\n", "") if line.startswith("server") else SMALLEST
    said = [said for _, _, said in problems(tmp_path, f"{text}  {line}\n")]
    assert any(found in text and expected in text for text in said)


def test_an_ipv4_address_that_is_written_as_ipv6(tmp_path: Path) -> None:
    line, key, said = only(tmp_path, SMALLEST.replace("127.0.0.1:1110", '"[::ffff:127.0.0.1]:1110"'))
    assert (line, key) == (3, "[inbound] listen")
    assert "an IPv4 address written as IPv6: it is 127.0.0.1:1110" in said


def test_a_log_file_without_its_folder_is_told_apart_from_a_misspelt_word(tmp_path: Path) -> None:
    line, key, said = only(tmp_path, "[main]\nlog_target = pop3gw.log\n" + SMALLEST)
    assert (line, key) == (2, "log_target")
    assert '"pop3gw.log", which is no path: a file beside the configuration is ./pop3gw.log' in said


def test_an_address_list_in_one_pair_of_quotes(tmp_path: Path) -> None:
    text = SMALLEST.replace("127.0.0.1:1110", '"127.0.0.1:1110, [::1]:1110"')
    assert only(tmp_path, text)[:2] == (3, "[inbound] listen")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("user", "it in [main]"),
        ("User", "user in [main]"),
        ("Max_Workers", "expected max_workers"),
        ("Max_Worker", "expected max_workers"),
        ("zzz", "that pop3gw.conf(5) names"),
    ],
)
def test_an_unknown_key_in_a_service(tmp_path: Path, key: str, hint: str) -> None:
    line, name, said = only(tmp_path, service(f"{key} = 1"))
    assert (line, name) == (5, f"[inbound] {key}")
    assert said.endswith(hint)


@pytest.mark.parametrize(
    "text",
    ["[DEFAULT]\nx = 1\n", "[[deep]]\n", "x = 1\n", "[main]\n[[sub]]\nx = 1\n", "[Main]\n"],
)
def test_an_unknown_name_elsewhere(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text + SMALLEST)


def test_a_section_where_a_value_belongs_and_the_other_way_round(tmp_path: Path) -> None:
    assert problems(tmp_path, "main = 1\n" + SMALLEST)[0][:2] == (1, "main")
    assert problems(tmp_path, SMALLEST + "    [[[policy]]]\n    x = 1\n")[0][0] == 5


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (SMALLEST + "  server = again:110\n", 5),
        (SMALLEST + "  [[inbound]]\n  listen = 127.0.0.1:1\n  server = a:1\n", 5),
        (SMALLEST + "  [[broken]\n  listen = 127.0.0.1:1\n", 5),
        (SMALLEST + '  policy = "open\n', 5),
        (SMALLEST + "  policy = '''open\n", 5),
        (SMALLEST.replace("server =", "server"), 4),
    ],
)
def test_what_configobj_refuses_is_one_problem_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    assert only(tmp_path, text)[0] == line


@pytest.mark.parametrize(
    "head",
    ["[[inbound]]", "[main]", "[[broken]", "[other", "[[[[deep]]]]", "[services]"],
)
def test_a_section_that_is_misread_hides_nothing_but_itself(tmp_path: Path, head: str) -> None:
    text = f"[main]\nlog_levle = debug\n{SMALLEST}  polcy = a:B\n{head}\nlisten = x\nnonsense\nserver = a:1\n"
    text += "  min_spare = 3\n[workers]\nmax_workrs = 1\n"
    found = problems(tmp_path, text)
    assert [line for line, _, _ in found] == [2, 7, 8, 14]
    assert "expected log_level" in found[0][2]
    assert head.strip("[]") in found[2][1]


def test_what_stands_below_a_misread_section_is_missed_nowhere(tmp_path: Path) -> None:
    assert only(tmp_path, "[services\n  [[inbound]]\n  listen = 127.0.0.1:1\n  server = a:1\n")[0] == 1
    twice = "[services]\n  [[a]]\n  listen = 127.0.0.1:1\n  [[b]]\n  listen = 127.0.0.1:2\n  [[a]]\n  server = c:1\n"
    assert [(line, key) for line, key, _ in problems(tmp_path, twice)] == [(4, "[b] server"), (6, "[a]")]


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ('[main]\npolicy_path = "/open\n' + SMALLEST, 2, "policy_path"),
        ("[main]\npolicy_path /p\n" + SMALLEST, 2, "policy_path"),
        ("[main]\nlog_level = info\nlog_level = debug\n" + SMALLEST, 3, "log_level"),
        (SMALLEST + '  policy = "open\n', 5, "[inbound] policy"),
        (SMALLEST + "  nonsense\n", 5, "[inbound]"),
        (SMALLEST.replace("server =", "server"), 4, "[inbound] server"),
    ],
)
def test_a_line_that_is_misread_is_named_by_its_setting(tmp_path: Path, text: str, line: int, key: str) -> None:
    assert only(tmp_path, text)[:2] == (line, key)


def test_what_belongs_to_a_service_is_nobodys_in_workers(tmp_path: Path) -> None:
    line, key, said = only(tmp_path, "[workers]\nlisten = 127.0.0.1:1110\n" + SMALLEST)
    assert (line, key) == (2, "listen")
    assert "it below a [[NAME]] in [services]" in said
    text = "[workers]\nlisten = 127.0.0.1:1110\n[services]\n  [[a]]\n  server = x:1\n  [[b]]\n  server = x:1\n"
    assert [key for _, key, _ in problems(tmp_path, text)] == ["listen", "[a] listen", "[b] listen"]


@pytest.mark.parametrize("text", ["", "[services]\n", "[main]\n"])
def test_no_service(tmp_path: Path, text: str) -> None:
    assert "no service" in only(tmp_path, text)[2]


def test_a_service_needs_a_name_that_fits_titles_and_logs(tmp_path: Path) -> None:
    assert "bad name" in only(tmp_path, SMALLEST.replace("inbound", "bad name"))[2]


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"No such file.*--print-sample"):
        config.load(str(tmp_path / "none"), foreground=False)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Is a directory"):
        config.load(str(tmp_path), foreground=False)


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFCHR])
def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path, kind: int) -> None:
    file = tmp_path / "pop3gw.conf"
    if kind == stat.S_IFIFO:
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    with pytest.raises(ConfigurationError, match=r"pop3gw\.conf: is no plain file; expected a readable"):
        config.load(str(file), foreground=False)


@pytest.mark.parametrize("source", ["/dev/fd/{}", "/proc/self/fd/{}"])
def test_a_start_reads_a_pipe_that_it_has_and_a_reload_waits_for_none(source: str) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "w", encoding="utf-8") as text:
        with pytest.raises(ConfigurationError, match="is no plain file"):
            config.load(source.format(reader), foreground=True, again=True)
        text.write(SMALLEST)
        text.close()
        assert config.load(source.format(reader), foreground=True).services[0].name == "inbound"


def test_a_file_that_has_no_end_in_sight(tmp_path: Path) -> None:
    small = SMALLEST + "#"
    file = Path(write(tmp_path, small + "#" * ((1 << 20) - len(small))))
    config.load(str(file), foreground=False)
    with file.open("a") as more:
        more.write("#")
    with pytest.raises(ConfigurationError, match="holds more than 1 MiB; expected"):
        config.load(str(file), foreground=False)


def test_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    file = tmp_path / "pop3gw.conf"
    file.write_bytes(b"[main]\n# caf\xe9\n")
    with pytest.raises(ConfigurationError) as caught:
        config.load(str(file), foreground=False)
    assert caught.value.problems[0].line == 2


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    file = Path(write(tmp_path, SMALLEST))
    file.chmod(0)
    code = f"from pop3gw import config\ntry: config.load({str(file)!r}, foreground=True)\n"
    code += "except config.ConfigurationError as error: print(error)"
    nobody = 65534 if os.geteuid() == 0 else None
    said = subprocess.check_output(
        [sys.executable, "-c", code],
        text=True,
        timeout=30,
        cwd=Path(config.__file__).parents[1],
        user=nobody,
        group=nobody,
    )
    assert "Permission denied" in said


class TestConsistency:
    """What settings say together."""

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("127.0.0.1:1110", "127.0.0.1:1110"),
            ("0.0.0.0:1110", "127.0.0.1:1110"),
            ("[::1]:1110", "[0::1]:1110"),
            ("[::]:1110", "[::1]:1110"),
        ],
    )
    def test_listeners_that_clash(self, tmp_path: Path, first: str, second: str) -> None:
        one = SMALLEST.replace("127.0.0.1:1110", first)
        two = f'  [[other]]\n  listen = "{second}"\n  server = mail:110\n'
        line, key, said = only(tmp_path, one + two)
        assert (line, key) == (6, "[other] listen")
        assert "line 3" in said
        assert only(tmp_path, SMALLEST.replace("127.0.0.1:1110", f'"{first}", "{second}"'))[0] == 3

    def test_metrics_where_clients_connect(self, tmp_path: Path) -> None:
        main = "[main]\nmetrics_listen = 127.0.0.1:1110\n"
        line, key, said = only(tmp_path, main + SMALLEST)
        assert (line, key) == (2, "metrics_listen")
        assert "[inbound] listens for clients" in said
        load(tmp_path, (main + SMALLEST).replace(":1110", ":0"))

    def test_metrics_without_the_library_that_makes_them(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        text = "[main]\nmetrics_listen = 127.0.0.1:9110\n" + SMALLEST
        load(tmp_path, text)
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
        line, key, said = only(tmp_path, text)
        assert (line, key) == (2, "metrics_listen")
        assert "apt-get install python3-prometheus-client" in said

    @pytest.mark.parametrize("listen", ['0.0.0.0:1110, "[::]:1110"', "127.0.0.1:0, 127.0.0.1:0"])
    def test_listeners_that_go_together(self, tmp_path: Path, listen: str) -> None:
        assert len(load(tmp_path, SMALLEST.replace("127.0.0.1:1110", listen)).services[0].listen) == 2

    @pytest.mark.parametrize(
        ("listen", "server"),
        [
            ("127.0.0.1:1110", "127.0.0.1:1110"),
            ("0.0.0.0:1110", "127.0.0.1:1110"),
            ("0.0.0.0:1110", "127.9.8.7:1110"),
            ("[::]:1110", "[::1]:1110"),
            ("127.0.0.1:1110", "0.0.0.0:1110"),
            ("127.0.0.1:1110", "[::ffff:127.0.0.1]:1110"),
        ],
    )
    def test_a_loop(self, tmp_path: Path, listen: str, server: str) -> None:
        text = SMALLEST.replace("127.0.0.1:1110", f'"{listen}"').replace("mail.example.com:110", f'"{server}"')
        line, key, said = only(tmp_path, text)
        assert (line, key) == (4, "[inbound] server")
        assert "loop" in said

    @pytest.mark.parametrize("server", ["127.0.0.1:1111", "203.0.113.1:1110", "mail:1110"])
    def test_no_loop(self, tmp_path: Path, server: str) -> None:
        text = SMALLEST.replace("127.0.0.1:1110", "0.0.0.0:1110").replace("mail.example.com:110", server)
        assert load(tmp_path, text).services

    def test_a_loop_through_another_service(self, tmp_path: Path) -> None:
        other = "  [[other]]\n  listen = 127.0.0.1:1112\n  server = 127.0.0.1:1110\n"
        assert only(tmp_path, SMALLEST + other)[:2] == (7, "[other] server")

    def test_spares_that_contradict(self, tmp_path: Path) -> None:
        line, key, said = only(tmp_path, service("min_spare = 5", "max_spare = 4"))
        assert (line, key) == (6, "[inbound] max_spare")
        assert "min_spare = 5" in said

    def test_spares_that_contradict_for_all_are_one_problem(self, tmp_path: Path) -> None:
        text = "[workers]\nmin_spare = 20\nmax_spare = 8\n" + SMALLEST
        other = "  [[other]]\n  listen = 127.0.0.1:1112\n  server = mail.example.com:110\n"
        assert only(tmp_path, text + other)[:2] == (3, "max_spare")

    def test_spares_of_one_service_that_contradict_those_of_all(self, tmp_path: Path) -> None:
        line, key, said = only(tmp_path, "[workers]\nmax_spare = 4\n" + service("min_spare = 5"))
        assert (line, key) == (7, "[inbound] min_spare")
        assert "more than max_spare = 4" in said

    @pytest.mark.parametrize(
        ("line", "spares"),
        [("min_spare = 20", (20, 20)), ("max_spare = 1", (1, 1)), ("min_spare = 3", (3, 8))],
    )
    def test_the_default_of_the_one_follows_the_other(self, tmp_path: Path, line: str, spares: tuple[int, int]) -> None:
        found = load(tmp_path, service(line)).services[0]
        assert (found.min_spare, found.max_spare) == spares

    @pytest.mark.parametrize(
        ("certificates", "said"),
        [
            ("a.pem, b.pem", "/b.pem, which nobody is shown: it has no name, and is not the first"),
            ("a.pem, n=b.pem, c.pem", "/c.pem, which nobody is shown"),
            ("n=a.pem, N=b.pem", '/b.pem, but "n" has a certificate already'),
            ("a.pem, n=b.pem, *.n=c.pem", ""),
            ("n=a.pem, m=a.pem", ""),
        ],
    )
    def test_a_certificate_that_nobody_would_be_shown(self, tmp_path: Path, certificates: str, said: str) -> None:
        text = service("tls = implicit", f"tls_certificate = {certificates}")
        if not said:
            assert load(tmp_path, text).services
            return
        line, key, told = only(tmp_path, text)
        assert (line, key) == (6, "[inbound] tls_certificate")
        assert said in told

    @pytest.mark.parametrize(
        ("mode", "setting"),
        [
            ("tls", "tls_certificate = a.pem"),
            ("tls", "tls_key = a.key"),
            ("tls", "tls_client_ca = ca.pem"),
            ("server_tls", "server_name = mail.example.com"),
            ("server_tls", "server_ca = ca.pem"),
            ("server_tls", f"server_fingerprint = {'ab' * 32}"),
            ("server_tls", "server_certificate = a.pem"),
            ("server_tls", "server_key = a.key"),
        ],
    )
    def test_what_is_for_tls_that_there_is_not(self, tmp_path: Path, mode: str, setting: str) -> None:
        for lines in ((setting,), (setting, f"{mode} = off")):
            line, key, said = only(tmp_path, service(*lines))
            assert (line, key) == (5, f"[inbound] {setting.split()[0]}")
            assert f"{mode} = off" in said
        for value in ("starttls", "required", "implicit"):
            assert load(tmp_path, service(setting, f"{mode} = {value}")).services
        for misspelt in (f"{mode} = requird", f"{mode}s = required"):
            _, key, _ = only(tmp_path, service(setting, misspelt))
            assert key == f"[inbound] {misspelt.split()[0]}"

    @pytest.mark.parametrize("setting", ["tls_key_passphrase = p", "tls_min_version = 1.3", "tls_ciphers = ECDHE"])
    def test_what_is_for_tls_with_either_side_where_there_is_none(self, tmp_path: Path, setting: str) -> None:
        line, key, said = only(tmp_path, service(setting))
        assert (line, key) == (5, f"[inbound] {setting.split()[0]}")
        assert "tls and server_tls = off" in said
        for mode in ("tls", "server_tls"):
            assert load(tmp_path, service(setting, f"{mode} = required")).services

    def test_unknown_accounts(self, tmp_path: Path) -> None:
        found = problems(tmp_path, "[main]\nuser = no-such-one\ngroup = no-such-group\n" + SMALLEST)
        assert [key for _, key, _ in found] == ["user", "group"]

    def test_another_account_needs_root(self) -> None:
        named = Config(source="x", user="root", group="root")
        said = [str(problem) for problem in consistency.accounts(named, 65534, 65534)]
        assert len(said) == 2
        assert all("not root" in text for text in said)
        assert not list(consistency.accounts(named, 0, 0))
        assert not list(consistency.accounts(named, 0, 65534))

    def test_ones_own_account_may_be_named(self) -> None:
        named = Config(source="x", user=pwd.getpwuid(65534).pw_name, group=grp.getgrgid(65534).gr_name)
        assert not list(consistency.accounts(named, 65534, 65534))

    def test_a_policy_folder_that_is_not_there(self, tmp_path: Path) -> None:
        line, key, said = only(tmp_path, f"[main]\npolicy_path = {tmp_path}, {tmp_path}/none\n" + SMALLEST)
        assert (line, key) == (2, "policy_path")
        assert "/none" in said

    @pytest.mark.parametrize(
        ("lines", "line", "key", "what"),
        [
            ("pid_file = pop3gw.conf", 2, "pid_file", "the configuration itself"),
            ("log_target = ./pop3gw.conf", 2, "log_target", "the configuration itself"),
            ("log_target = run/log\npid_file = {folder}/run/../run/log", 3, "pid_file", "log_target in line 2"),
            ("pid_file = /p\ncontrol_socket = /p", 3, "control_socket", "pid_file in line 2"),
            ("control_socket = /run/pop3gw/pop3gw.pid", 2, "control_socket", "pid_file"),
            ("pid_file = /p.sock", 2, "pid_file", "control_socket"),
            ("pid_file = link", 2, "pid_file", "the configuration itself"),
        ],
    )
    def test_one_path_for_two_things(self, tmp_path: Path, lines: str, line: int, key: str, what: str) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "pop3gw.conf")
        text = f"[main]\n{lines.format(folder=tmp_path)}\n{SMALLEST}"
        found = only(tmp_path, text)
        assert found[:2] == (line, key)
        assert f"which is {what}; expected a path of its own" in found[2]

    def test_a_socket_has_no_long_path(self, tmp_path: Path) -> None:
        path = "/" + "\u00e9" * 53
        assert load(tmp_path, f"[main]\ncontrol_socket = {path}\n{SMALLEST}").control_socket == path
        line, key, said = only(tmp_path, f"[main]\ncontrol_socket = {path}x\n{SMALLEST}")
        assert (line, key) == (2, "control_socket")
        assert "which has 108 octets; expected a path of at most 107 octets" in said

    def test_the_config_itself_can_be_asked(self, tmp_path: Path) -> None:
        assert consistency.problems(load(tmp_path, SMALLEST)) == []


class TestCommandLine:
    """The first try without a file."""

    def test_one_service(self) -> None:
        made = config.from_command_line("127.0.0.1:1110, [::1]:1110", "mail:110", "office:X")
        assert made.services[0].listen == (Address("127.0.0.1", 1110), Address("::1", 1110))
        assert made.policy_path == (str(Path.cwd()),)
        assert (made.pid_file, made.log_target) == (None, "stderr")
        assert str(made.origin("try", "server")) == "command line"

    def test_everything_wrong_at_once(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            config.from_command_line("here", "there", "office")
        assert [problem.key for problem in caught.value.problems] == ["--listen", "--server", "--policy"]

    def test_a_loop(self) -> None:
        with pytest.raises(ConfigurationError, match="loop"):
            config.from_command_line("127.0.0.1:1110", "127.0.0.1:1110", None)


def test_the_configspec_has_every_setting_where_it_belongs() -> None:
    spec = config.configspec()
    for item in SETTINGS:
        line = f"{item.key} = {item.row.kind.check}"
        assert spec.count(line) == (2 if item.row.section is Section.WORKERS else 1)


def test_a_service_of_systemd_has_a_control_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pop3gw.conf"
    file.write_text("[services]\n[[one]]\nlisten = 127.0.0.1:0\nserver = 192.0.2.1:110\n")
    assert config.load(str(file), foreground=True).control_socket is None
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/one:/run/two")
    loaded = config.load(str(file), foreground=True)
    assert (loaded.control_socket, loaded.pid_file) == ("/run/one/pop3gw.sock", None)
    assert config.load(str(file), foreground=False).control_socket == "/run/pop3gw/pop3gw.sock"
