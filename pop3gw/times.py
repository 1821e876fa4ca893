"""Points in time on the clock of time.monotonic(), in seconds. Whoever needs the clock reads it itself."""

from __future__ import annotations

from typing import Final

NEVER: Final = float("inf")  # a time that does not come
