"""Policies from real files: what is found, what is refused, and how it is told."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pop3gw import policy
from pop3gw.distrust import Distrust
from pop3gw.errors import PolicyError
from pop3gw.loading import load_policy
from pop3gw.policy import AbstractPop3Proxy
from pop3gw.values import PolicyName

GOOD = """\
from pop3gw.policy import *

class Office(Pop3Proxy):
    def config(self):
        Pop3Proxy.config(self)
        self.request["USER"] = (POP3_REQ_REJECT)

class Second(Pop3Proxy):
    answer = 42
"""
NOBODY = Distrust("nobody", 65534, frozenset({65534}))


def write(folder: Path, text: str, name: str = "office.py") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    file.chmod(0o644)
    folder.chmod(0o755)
    return file


def load(folder: Path, name: str = "office:Office", distrust: Distrust | None = None) -> type[AbstractPop3Proxy]:
    return load_policy(PolicyName.parse(name), [str(folder)], distrust=distrust)


def refusal(folder: Path, name: str = "office:Office", distrust: Distrust | None = None) -> str:
    with pytest.raises(PolicyError) as caught:
        load(folder, name, distrust)
    return str(caught.value)


def test_a_class_from_a_policy_folder(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD)
    before = list(sys.path)
    found = load(tmp_path)
    assert found.__name__ == "Office"
    assert found.__module__ == "pop3gw_policy_office"
    assert sys.modules[found.__module__].__file__ == str(file)
    assert sys.path == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["office.py"]


def test_the_manuals_examples_run_unchanged(tmp_path: Path) -> None:
    write(
        tmp_path,
        """\
from pop3gw.policy import *

class UToAPop3(Pop3Proxy):
    def config(self):
        Pop3Proxy.config(self)
        self.request["PASS"] = (POP3_REQ_POLICY, self.UToA)

    def UToA(self, command):
        return hashlib.md5(b"tanstaaf").hexdigest()
""",
    )
    found = load(tmp_path, "office:UToAPop3")
    assert len(vars(found)["UToA"](None, "PASS")) == 32


def test_what_python_warns_of_is_a_doubt_and_no_line_on_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    file = write(tmp_path, GOOD + "\nSAME = 'a' is 'b'\n")
    doubts: list[tuple[str, str]] = []
    name = PolicyName.parse("office:Office")
    for doubt in (None, lambda found, expected: doubts.append((found, expected))):
        load_policy(name, [str(tmp_path)], distrust=None, doubt=doubt)
    ((found, _),) = doubts
    assert found.startswith(f'{file}: "is" with ')
    assert found.endswith(" (line 11)")
    assert (len(recwarn), *capfd.readouterr()) == (0, "", "")


def test_a_policy_that_wants_its_neighbour_is_told_why_it_can_not_have_it(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "shared.py")
    write(tmp_path, "from shared.more import *\n" + GOOD)
    with pytest.raises(PolicyError, match=r"\(line 1\); .*/shared\.py is no module: .* can't import its neighbours"):
        load(tmp_path, "office:Office")


def test_the_first_folder_wins_and_each_load_reads_the_file_anew(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    write(second, GOOD)
    name = PolicyName("office", "Second")
    path = [str(tmp_path / "none"), str(first), str(second)]
    assert vars(load_policy(name, path, distrust=None))["answer"] == 42
    write(first, GOOD.replace("42", "43"))
    assert vars(load_policy(name, path, distrust=None))["answer"] == 43
    write(first, GOOD.replace("42", "44"))  # within the same second, of the same size
    assert vars(load_policy(name, path, distrust=None))["answer"] == 44


def test_a_policy_named_like_a_module_of_python_shadows_nothing(tmp_path: Path) -> None:
    import email

    write(tmp_path, GOOD, "email.py")
    assert load(tmp_path, "email:Office").__module__ == "pop3gw_policy_email"
    assert sys.modules["email"] is email


def test_dataclasses_work_in_a_policy(tmp_path: Path) -> None:
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import ClassVar\n"
    write(tmp_path, text + GOOD + "\n@dataclass\nclass Facts:\n    known: ClassVar[int] = 1\n    other: int = 2\n")
    load(tmp_path)


def test_an_ordinary_import_where_no_folder_has_the_file(tmp_path: Path) -> None:
    assert load(tmp_path, "pop3gw.policy:Pop3Proxy").__name__ == "Pop3Proxy"
    assert load(tmp_path, "pop3gw.policies.apop:UToAPop3").__name__ == "UToAPop3"


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("x = 1\nclass (:\n", "office:Office", ["class Office", "SyntaxError: invalid syntax", "(line 2)"]),
        ("x = 1\ny = z\n", "office:Office", ["NameError: name 'z' is not defined", "(line 2)"]),
        ("import sys\nsys.exit(3)\n", "office:Office", ["SystemExit: 3", "(line 2)"]),
        ("import no_such_thing\n", "office:Office", ["ModuleNotFoundError: No module named 'no_such_thing'"]),
        ("class Own(Exception): pass\n\nraise Own('a')\n", "office:Office", ["Own: a", "(line 3)"]),
        ("raise KeyboardInterrupt\n", "office:Office", ["KeyboardInterrupt", "(line 1)"]),
        ("x = '\0'\n", "office:Office", ["null bytes"]),
        (GOOD, "office:Ofice", ["there is no class Ofice", "did you mean Office?"]),
        (GOOD, "office:POP3_REQ_ACCEPT", ["POP3_REQ_ACCEPT is no class", "AbstractPop3Proxy"]),
        ("class Office: pass\n", "office:Office", ["Office is no class", "AbstractPop3Proxy"]),
        (GOOD.replace("self.request[", "self.reqest["), "office:Office", ["config() raised", "(line 6)"]),
        (GOOD.replace("Pop3Proxy.config(self)", "raise SystemExit"), "office:Office", ["SystemExit", "(line 5)"]),
        (
            "class Mute(Exception):\n    def __getattribute__(self, _): 1/0\n\nraise Mute('a')\n",
            "office:Office",
            ["class Office: Mute (line 4)"],
        ),
        ("\nraise SyntaxError('x', ('f', 1, 2, 3))\n", "office:Office", ["class Office: SyntaxError (line 2)"]),
        (
            GOOD.replace("Pop3Proxy.config(self)", "raise SyntaxError('x', ('f', 1, 2, 3))"),
            "office:Office",
            ["class Office: config() raised SyntaxError (line 5)"],
        ),
        (GOOD.replace("(POP3_REQ_REJECT)", "7"), "office:Office", ["class Office: request['USER']"]),
        (GOOD.replace("def config", "async def config"), "office:Office", ["class Office: config() is async"]),
        (
            "from pop3gw.policy import *\nclass M: timeout = 'soon'\nclass Office(M, Pop3Proxy): pass\n",
            "office:Office",
            ["M.timeout: an int is needed, not 'soon'", "(line 3)"],
        ),
        (
            GOOD.replace("def config(self):", "def __init__(self, mailbox):"),
            "office:Office",
            ["class Office: no instance can be made: TypeError: Office.__init__() missing 1"],
        ),
        (
            "from pop3gw.policy import *\nclass Office(Pop3Proxy):\n    def __new__(cls): pass\n",
            "office:Office",
            ["class Office: no instance can be made: TypeError: Office() gives None, which is no policy"],
        ),
        ("def __getattr__(name):\n    1/0\n", "office:Office", ["class Office: ZeroDivisionError", "(line 2)"]),
    ],
)
def test_a_fault_is_told_with_file_class_reason_and_line(tmp_path: Path, text: str, name: str, said: list[str]) -> None:
    file = write(tmp_path, text)
    told = refusal(tmp_path, name)
    assert told.startswith(f"{file}: ")
    assert [part for part in said if part not in told] == []
    assert "pop3gw_policy_" not in told


def test_all_malformed_entries_are_told(tmp_path: Path) -> None:
    write(tmp_path, GOOD.replace("(POP3_REQ_REJECT)", '7\n        self.request["PASS"] = "x"'))
    assert len(refusal(tmp_path).splitlines()) == 2


def test_a_module_that_is_nowhere(tmp_path: Path) -> None:
    told = refusal(tmp_path, "nowhere_at_all:X")
    assert f"no nowhere_at_all.py in {tmp_path}" in told
    assert "No module named 'nowhere_at_all'" in told
    assert "No module named" in refusal(tmp_path, "pop3gw.policies.nowhere:X")


def test_a_named_pipe_is_no_policy(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "office.py")
    assert "no plain file" in refusal(tmp_path)


def test_a_traceback_shows_the_code_that_runs(tmp_path: Path) -> None:
    import linecache

    file = write(tmp_path, GOOD)
    load(tmp_path)
    file.write_text("# edited\n" * 10, encoding="utf-8")
    linecache.checkcache()
    assert linecache.getline(str(file), 3) == "class Office(Pop3Proxy):\n"


def test_a_folder_in_the_place_of_a_policy_file(tmp_path: Path) -> None:
    (tmp_path / "office.py").mkdir()
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert refusal(tmp_path) == f"{tmp_path}/office.py: this is no plain file; put one there"
    assert len(list(Path("/proc/self/fd").iterdir())) == before


class TestDistrust:
    """What root's gateway refuses to run. (Made by the account that runs the tests, taken for another's.)"""

    def mine(self) -> Distrust:
        return Distrust("me", os.geteuid() or 4711, frozenset({os.getegid()}))

    def test_a_file_of_the_administrator(self, tmp_path: Path) -> None:
        write(tmp_path, GOOD)
        assert load(tmp_path, distrust=Distrust("x", 4711, frozenset({4711})))

    @pytest.mark.parametrize("of_folder", [False, True])
    def test_what_everyone_may_write(self, tmp_path: Path, of_folder: bool) -> None:
        file = write(tmp_path, GOOD)
        (tmp_path if of_folder else file).chmod(0o777 | (0o1000 if of_folder else 0))
        told = refusal(tmp_path, distrust=NOBODY)
        assert told.startswith(str(tmp_path if of_folder else file))
        assert told.endswith(
            "everyone may write it; give it to root and let nobody else write it (chown root, chmod go-w)"
        )
        assert load(tmp_path)

    def test_what_the_group_of_the_workers_may_write(self, tmp_path: Path) -> None:
        file = write(tmp_path, GOOD)
        file.chmod(0o664)
        assert load(tmp_path, distrust=Distrust("x", 4711, frozenset({4711})))
        assert "the workers' account me may write it" in refusal(
            tmp_path, distrust=Distrust("me", 4711, frozenset({file.stat().st_gid}))
        )

    def test_what_belongs_to_the_workers(self, tmp_path: Path) -> None:
        file = write(tmp_path, GOOD)
        if os.geteuid() == 0:
            os.chown(file, 65534, 0)
        worker = Distrust("nobody", file.stat().st_uid or 65534, frozenset({65534}))
        assert "belongs to the workers' account nobody" in refusal(tmp_path, distrust=worker)

    def test_a_link_out_of_a_trusted_folder(self, tmp_path: Path) -> None:
        trusted, other = tmp_path / "trusted", tmp_path / "other"
        trusted.mkdir()
        other.mkdir()
        (trusted / "office.py").symlink_to(write(other, GOOD))
        trusted.chmod(0o755)
        assert load(trusted, distrust=NOBODY)
        other.chmod(0o777)
        assert refusal(trusted, distrust=NOBODY).startswith(f"{other}: this policy folder")

    def test_a_folder_that_may_hold_the_file_tomorrow(self, tmp_path: Path) -> None:
        first, second = tmp_path / "first", tmp_path / "second"
        first.mkdir()
        second.mkdir()
        write(second, GOOD)
        path, name = [str(first), str(second)], PolicyName.parse("office:Office")
        assert load_policy(name, path, distrust=NOBODY)
        first.chmod(0o777)
        with pytest.raises(PolicyError, match=f"{first}: this policy folder is not trusted: everyone may write it"):
            load_policy(name, path, distrust=NOBODY)

    def test_workers_that_are_root_by_choice(self, tmp_path: Path) -> None:
        write(tmp_path, GOOD)
        assert load(tmp_path, distrust=Distrust("root", 0, frozenset({0})))

    def test_an_imported_module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, GOOD, "imported_office.py").chmod(0o666)
        monkeypatch.syspath_prepend(str(tmp_path))
        told = refusal(tmp_path / "none", "imported_office:Office", NOBODY)
        assert "everyone may write it" in told


def refusal_as_nobody(folder: Path) -> str:
    """What loading says in a child that is nobody (or, where we aren't root, who we are)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = "loaded"
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            load(folder)
        except PolicyError as error:
            said = str(error)
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return told


def test_what_the_account_may_not_read_is_named(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir()
    write(closed, GOOD)
    closed.chmod(0)
    told = refusal_as_nobody(closed)
    assert told.startswith(f"{closed}: this policy folder can't be searched (Permission denied)")


@pytest.mark.parametrize("mode", [0o700, 0o644])
@pytest.mark.parametrize("below", ["", "python3"])
def test_an_interpreter_that_the_account_may_not_read_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, mode: int, below: str
) -> None:
    closed = folder / "closed"
    home = closed / below
    home.mkdir(parents=True)
    write(folder, GOOD)
    monkeypatch.setattr(os, "__file__", str(home / "os.py"))
    monkeypatch.syspath_prepend(str(home))
    assert refusal_as_nobody(folder) == "loaded"
    closed.chmod(mode)
    assert refusal_as_nobody(folder) == (
        f"Python itself is in {home}, which can't be entered as uid 65534, gid 65534;"
        " install it where every account may read it"
    )


def test_a_package_that_the_account_may_not_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = folder / "pop3gw"
    package.mkdir()
    write(folder, GOOD)
    monkeypatch.setattr(policy, "__file__", str(package / "policy.py"))
    assert refusal_as_nobody(folder) == "loaded"
    package.chmod(0o700)
    assert refusal_as_nobody(folder).startswith(f"pop3gw is in {package}, which can't be entered as uid 65534")


def test_only_a_policy_that_names_hashlib_has_it(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    found = load(tmp_path, "office:Office")
    assert "hashlib" not in vars(sys.modules[found.__module__])
