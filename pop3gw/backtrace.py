"""An exception as text, whatever a policy's author has made of it.

What is shown is asked of the exception itself: its ``__str__``, its notes, the attributes of a SyntaxError. So showing
it may raise, and then only what needs no word of it is told: where it came from, and its class.
"""

from __future__ import annotations

import contextlib
import traceback
from types import TracebackType


def backtrace(fault: BaseException) -> str:
    """Its traceback with what led to it, as Python prints it; without a word of its own where that can't be had."""
    try:
        return "".join(traceback.format_exception(fault))
    except BaseException:  # noqa: BLE001 - whatever the exception's own code raises
        return bare(fault)


def bare(fault: BaseException) -> str:
    """Where it came from and its class, without its text: that may hold anything."""
    frames = "".join(traceback.format_tb(_trace(fault)))
    return f"Traceback (most recent call last):\n{frames}{_kind(fault)}\n"


def summed_up(fault: BaseException) -> str:
    """Its class and its text, without where it came from; the class alone where the text can't be had."""
    try:
        # Not the source before it, nor notes behind.
        return next(line for line in traceback.format_exception_only(fault) if not line.startswith(" ")).strip()
    except BaseException:  # noqa: BLE001 - as above
        return _kind(fault)


def line_in(file: str, fault: BaseException) -> int | None:
    """The last line of this file that led to it."""
    with contextlib.suppress(BaseException):  # as above
        if isinstance(fault, SyntaxError) and fault.filename == file and type(fault.lineno) is int:
            return fault.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(_trace(fault)) if frame.filename == file]
    return lines[-1] if lines else None


# Not by their attributes, which a class of its own may have replaced.


def _trace(fault: BaseException) -> TracebackType | None:
    found: TracebackType | None = BaseException.__dict__["__traceback__"].__get__(fault)
    return found


def _kind(fault: BaseException) -> str:
    name: str = type.__dict__["__name__"].__get__(type(fault))
    return name
