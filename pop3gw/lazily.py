"""Modules that most gateways never need, and what must be done where somebody loads one after all.

``logging`` loads ``threading``; both have hooks that run in each child of every fork, and a worker has 0.4 MiB of
memory less to share by that. ``dataclasses`` loads ``inspect``, which with what it loads itself takes 1.6 MiB
(docs/performance.md). A policy may use them all the same, at any time, and finds them as they always are.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Final


def when_loaded(name: str, then: Callable[[], None]) -> None:
    """Call this as soon as the module is loaded: when it is first imported, or now where that was before."""
    if name in sys.modules:
        then()
        return
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    _FINDER.awaited.setdefault(name, []).append(then)


def load_without(name: str, module: str, **instead: object) -> None:
    """Load this module, which imports the one of that name, without it: it comes when something of it is asked for.

    But for what is given here ``instead``. Nothing is done where one of the two is loaded already.
    """
    if name in sys.modules or module in sys.modules:
        return
    stand_in = ModuleType(name)
    stand_in.__dict__.update(instead)
    stand_in.__dict__["__getattr__"] = lambda wanted: getattr(importlib.import_module(name), wanted)  # PEP 562
    sys.modules[name] = stand_in
    try:
        importlib.import_module(module)
    finally:
        del sys.modules[name]


def own_annotations(of: type) -> dict[str, object]:
    """What ``inspect.get_annotations`` says of a class; from Python 3.12 to 3.13 ``dataclasses`` asks it of each."""
    return dict(of.__dict__.get("__annotations__", {}))  # noqa: RUF063 - which loads it


class _Finder:
    """For ``sys.meta_path``: finds the modules that are awaited, by the name of each what follows.

    Not ``importlib.util.LazyLoader``: where its modules have a lock (CPython 3.12.3) it loads ``threading`` itself.
    """

    def __init__(self) -> None:
        self.awaited: dict[str, list[Callable[[], None]]] = {}

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As ``importlib.abc.MetaPathFinder``; None: nobody waits for it."""
        followers = self.awaited.get(fullname)
        spec = PathFinder.find_spec(fullname) if followers else None
        if followers and spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin, followers)
        return spec


_FINDER: Final = _Finder()


class _Loader(SourceFileLoader):
    """Loads a module, and does what follows, once."""

    def __init__(self, name: str, path: str, followers: list[Callable[[], None]]) -> None:
        super().__init__(name, path)
        self._followers = followers

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        for then in self._followers:
            then()
        self._followers.clear()
