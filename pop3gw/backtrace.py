"""An exception as text, whatever a policy's author has made of it.

What is shown is asked of the exception itself: its ``__str__``, its notes, the attributes of a SyntaxError. So showing
it may raise, and then only what needs no word of it is told: where it came from, and its class.
"""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Final

_LINE_END: Final = "\n"


def backtrace(fault: BaseException) -> str:
    """Its traceback with what led to it, as Python prints it; without a word of its own where that can't be had."""
    try:
        return "".join(traceback.format_exception(fault))
    except BaseException:  # noqa: BLE001 - whatever the exception's own code raises
        return bare(fault)


def bare(fault: BaseException) -> str:
    """Where it came from and its class, without its text: that may hold anything."""
    # Not by its attributes, which a class of its own may have replaced.
    trace: TracebackType | None = BaseException.__dict__["__traceback__"].__get__(fault)
    kind: str = type.__dict__["__name__"].__get__(type(fault))
    return "".join(["Traceback (most recent call last):\n", *traceback.format_tb(trace), kind, _LINE_END])
