"""The names that are made first: they are those of the package, and lie side by side."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pop3gw.names import NAMES

PACKAGE = Path(__file__).parents[2] / "pop3gw"
# In a process that has imported nothing else: how many pages the names are on.
COUNT_PAGES = "from pop3gw.names import NAMES; print(len({id(name) // 4096 for name in NAMES}))"


def mentioned(source: str) -> Iterator[str]:
    """Every identifier, and every text that stands for itself."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(attr=name) | ast.Name(id=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.alias(name=name):
                yield name
            case ast.Constant(value=str(text)):
                yield text


def test_each_name_is_one_of_the_package() -> None:
    sources = [path.read_text() for path in PACKAGE.rglob("*.py") if path.name != "names.py"]
    assert set(NAMES) - {name for source in sources for name in mentioned(source)} == set()
    assert len(set(NAMES)) == len(NAMES)


def test_the_names_lie_side_by_side() -> None:
    command = [sys.executable, "-E", "-c", COUNT_PAGES]  # -E: with the interpreter's own allocator
    counted = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert int(counted.stdout) < len(NAMES) / 6
