"""What holds for every suite: examples that hypothesis makes up are the same in each run, and none is timed."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
settings.load_profile("deterministic")
