"""Waits for what comes when it comes: bounded, and no longer than it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(what: str, condition: Callable[[], T], patience: float = 60.0) -> T:
    """Wait until the condition gives something true, and return it; AssertionError after so many seconds."""
    end = time.monotonic() + patience
    while not (result := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {patience:g} s: {what}")
        time.sleep(0.005)
    return result
