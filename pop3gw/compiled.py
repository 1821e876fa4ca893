"""Finds the modules that are compiled: those of a library lie in it, not in a file each.

A file of its own for each module, as mypyc makes them, would be five mappings of memory that every fork copies and
every end of a process gives back (docs/performance.md). Where a library was not built, its modules are the interpreted
ones beside this one. It must not be compiled itself.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

LIBRARIES: Final = ("pop3gw_protocol__mypyc", "pop3gw_master__mypyc", "pop3gw_worker__mypyc")
_INIT: Final = "init_"  # of each module that is in it a library has an attribute


class Finder:
    """For ``sys.meta_path``: knows the file of each module in ``libraries``."""

    def __init__(self, libraries: Sequence[ModuleType]) -> None:
        self.files = {
            name.removeprefix(_INIT).replace("___", "."): library.__file__
            for library in libraries
            for name in vars(library)
            if name.startswith(_INIT)
        }

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As ``importlib.abc.MetaPathFinder``; None: it is not compiled."""
        file = self.files.get(fullname)
        if file is None:
            return None
        return spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, file))


def install() -> None:
    """Have those libraries found that lie beside the package: a checkout does not run what was built of another."""
    beside = [str(Path(__file__).parents[1])]
    libraries = [importlib.import_module(name) for name in LIBRARIES if PathFinder.find_spec(name, beside) is not None]
    if libraries:
        sys.meta_path.insert(0, Finder(libraries))
