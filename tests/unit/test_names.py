"""The names that are made first: they are those of the package, and lie side by side."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from pop3gw.names import NAMES

PACKAGE = Path(__file__).parents[2] / "pop3gw"
# In a process that has imported nothing else: how many pages the names are on.
COUNT_PAGES = "from pop3gw.names import NAMES; print(len({id(name) // 4096 for name in NAMES}))"


def test_each_name_is_one_that_the_package_mentions() -> None:
    sources = [path.read_text() for path in PACKAGE.rglob("*.py") if path.name != "names.py"]
    mentioned = set(re.findall(r"\w+", "".join(sources)))
    assert set(NAMES) - mentioned == set()
    assert len(set(NAMES)) == len(NAMES)


def test_the_names_lie_side_by_side() -> None:
    counted = subprocess.run(
        [sys.executable, "-c", COUNT_PAGES], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert int(counted.stdout) < len(NAMES) / 10
