"""The package as it is installed: the modules that sessions pass through are compiled, and do what their source does.

The suites that start the gateway run what is installed. Those that import its modules take the checkout's; here they
are run once more, with a Python that takes the installed ones.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from pop3gw.compiled import LIBRARIES, Finder

CHECKOUT = Path(__file__).parents[2]
SUITES = ["tests/scenarios/test_scenarios.py", "tests/fuzz"]
# -P: the current folder is not looked in first.
AGAIN = "import sys; sys.path.append('.'); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
REMEDY = "apt-get install gcc python3-dev, then make clean"


def compiled() -> set[str]:
    """The names of the modules that are, ``proto.`` before those of the protocol."""
    libraries = [importlib.import_module(name) for name in LIBRARIES if find_spec(name) is not None]
    return {name.removeprefix("pop3gw.") for name in Finder(libraries).files}


def test_each_library_is_compiled_and_found() -> None:
    protocol = {f"proto.{path.stem}" for path in (CHECKOUT / "pop3gw" / "proto").glob("[a-z]*.py")}
    assert {*protocol, "master", "worker"} <= compiled(), f"not compiled; {REMEDY}"
    said = "import pop3gw.master as m, pop3gw.worker as w; print(m.__spec__.origin, w.__spec__.origin)"
    done = subprocess.run([sys.executable, "-P", "-c", said], capture_output=True, text=True, timeout=60, check=True)
    assert [name.partition(".")[0] for name in re.findall(r"[^/ ]+(?=[ \n])", done.stdout)] == [*LIBRARIES[1:]]


def test_a_checkout_runs_its_own_modules() -> None:
    assert not any(isinstance(finder, Finder) for finder in sys.meta_path)
    assert Path(sys.modules[Finder.__module__].__file__ or "").is_relative_to(CHECKOUT)


def test_what_must_be_interpreted_is() -> None:
    """Policies are derived from ``policy``; while ``waiting`` and ``callguard`` run, handlers of signals do."""
    assert not compiled() & {"policy", "policies.apop", "policies.tls", "waiting", "callguard", "loading"}


@pytest.mark.parametrize("module", sorted(compiled()))
def test_an_exception_has_a_name_of_its_own(module: str) -> None:
    """mypyc gives a name of a function one type: a second handler with the same name raises TypeError."""
    tree = ast.parse((CHECKOUT / "pop3gw" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        types: dict[str, set[str]] = {}
        for handler in (node for node in ast.walk(function) if isinstance(node, ast.ExceptHandler)):
            if handler.name is not None:
                types.setdefault(handler.name, set()).add(ast.unparse(handler.type or ast.Constant(None)))
        assert {name: of for name, of in types.items() if len(of) > 1} == {}, function.name


@pytest.mark.parametrize("module", sorted(compiled()))
def test_the_bounds_of_a_slice_do_nothing_but_look(module: str) -> None:
    """mypyc evaluates them twice where it does not know the type of what is sliced."""
    tree = ast.parse((CHECKOUT / "pop3gw" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    slices = [node for node in ast.walk(tree) if isinstance(node, ast.Slice)]
    calls = [node.func for one in slices for node in ast.walk(one) if isinstance(node, ast.Call)]
    assert {ast.unparse(call).rpartition(".")[2] for call in calls} <= {"len", "rfind", "start"}


@pytest.mark.timeout(300)
def test_compiled_modules_pass_the_tests_of_their_source() -> None:
    units = {f"tests/unit/test_{name.rpartition('.')[2]}.py" for name in compiled()}
    own = [str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "tests/unit").glob("test_*.py")]
    own = [unit for unit in own if unit in units or unit.startswith("tests/unit/test_session_")]
    assert own, f"nothing is compiled; {REMEDY}"
    passed = [*SUITES, *own, "-m", "not interpreted", "-q", "--no-header", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", AGAIN, *passed], cwd=CHECKOUT, capture_output=True, text=True, timeout=290
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
