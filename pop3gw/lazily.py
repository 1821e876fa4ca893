"""Modules that most gateways never need, and what must be done where somebody loads one after all.

``logging`` loads ``threading``; both have hooks that run in each child of every fork, and a worker has 0.4 MiB of
memory less to share by that. ``dataclasses`` loads ``inspect``, which with what it loads itself takes 1.6 MiB
(docs/performance.md). A policy may use them all the same, at any time, and finds them as they always are.

Known limit: where several threads are the first to use such a module, one may find it half loaded (``LazyLoader``).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from types import ModuleType


def when_loaded(name: str, then: Callable[[], None]) -> None:
    """Call this as soon as the module is loaded: at its first use, or now where that was before."""
    if name in sys.modules:
        then()
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None or spec.origin is None:
        return
    spec.loader = importlib.util.LazyLoader(_Loader(name, spec.origin, then))
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def load_without(name: str, module: str) -> None:
    """Load this module, which imports the one of that name, without it: it comes when something of it is asked for.

    Nothing is done where one of the two is loaded already.
    """
    if name in sys.modules or module in sys.modules:
        return
    stand_in = ModuleType(name)
    stand_in.__dict__["__getattr__"] = lambda wanted: getattr(importlib.import_module(name), wanted)  # PEP 562
    sys.modules[name] = stand_in
    try:
        importlib.import_module(module)
    finally:
        del sys.modules[name]


class _Loader(SourceFileLoader):
    """Loads a module, and does what follows."""

    def __init__(self, name: str, path: str, then: Callable[[], None]) -> None:
        super().__init__(name, path)
        self._then = then

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        self._then()
