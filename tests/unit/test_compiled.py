"""The package as it is installed: the modules that sessions pass through are compiled, and do what their source does.

The suites that start the gateway run what is installed. Those that import its modules take the checkout's; here they
are run once more, with a Python that takes the installed ones.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
INSTALLED = Path(sysconfig.get_path("platlib"), "pop3gw")
SUITES = ["tests/scenarios/test_scenarios.py", "tests/fuzz"]
# -P: the current folder is not looked in first.
AGAIN = "import sys; sys.path.append('.'); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
REMEDY = "apt-get install gcc python3-dev, then make clean"


def compiled() -> set[str]:
    """The names of the modules that are, ``proto.`` before those of the protocol."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    found = (path.relative_to(INSTALLED) for path in INSTALLED.rglob(f"*{suffix}"))
    return {str(path).removesuffix(suffix).replace("/", ".") for path in found}


def test_the_protocol_is_compiled() -> None:
    protocol = {f"proto.{path.stem}" for path in (CHECKOUT / "pop3gw" / "proto").glob("[a-z]*.py")}
    assert protocol <= compiled(), f"not compiled; {REMEDY}"


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
