"""The memory of a process before it forks: what its children are to share is put to rest, and its gaps are closed.

A page is shared until one side writes to it. The collector writes to every object that it looks at, so what exists is
collected once and then frozen, out of its sight. And the interpreter puts new objects into the gaps that start-up has
left everywhere between old ones: each child would soon have a copy of most pages. So the gaps are filled with
placeholders first, and new objects of the children lie side by side on pages of their own.

It knows CPython's allocator: objects up to 512 octets lie in pools, one of each multiple of 16 octets. Known limits:
reference counts are written to all the same, so every object that a child uses unshares its page. With another
allocator the placeholders help nothing, and cost no more than ``MOST`` a size.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Final

MOST: Final = 512 * 1024  # octets of placeholders of one size
_STEP: Final = 16
_LARGEST: Final = 512
_POOL: Final = 16 * 1024 - 48  # octets that it has for objects
_BYTES_HEAD: Final = b"".__sizeof__()

_placeholders: list[list[object]] = []  # for ever


def settle() -> None:
    """Collect what is garbage, and never look again at what is left: it is there for as long as the process."""
    gc.collect()
    gc.freeze()


def close_gaps() -> None:
    """Let new objects come to lie side by side, here and in all children. It takes 0.01 s.

    Once, before any process of ours that lasts is forked: the pages that it writes to are then everybody's.
    """
    for size in range(_STEP, _LARGEST + 1, _STEP):
        _placeholders.append(_fill(size))


def _fill(size: int) -> list[object]:
    """Objects of this size, made until a whole pool of them lies side by side: no older pool has gaps then."""
    make = _maker(size)
    made: list[object] = []
    before, run = 0, 0
    while run < _POOL // size - 1 and len(made) * size < MOST:
        made.append(make())
        at = id(made[-1])
        # Not just one behind the other: addresses are objects, too, and of one of the sizes.
        run = run + 1 if abs(at - before) <= 4 * size else 0
        before = at
    del made[len(made) - run :]  # that pool was only the proof
    return made


def _maker(size: int) -> Callable[[], object]:
    """What makes an object of this size."""
    if size == 16:
        return object
    if size == 32:
        return lambda: float("0")  # bytes are larger; a constant would be one object
    return lambda: bytes(size - _BYTES_HEAD)
